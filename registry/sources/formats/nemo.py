"""Source for NeMo's ``.nemo`` archives: ``model_weights.ckpt`` is read where it lies in the uncompressed tar archive.

A compressed archive, and one whose weights are in several files (of tensor parallelism, or of
``torch.distributed.checkpoint``), are refused with the command that unpacks them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.base import Source
from registry.sources.files.archive import DAMAGED
from registry.sources.files.byte_parts import Section
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint
from registry.sources.files.tar_members import tar_members
from registry.sources.formats.nested_torch_files import aliases_of, check_sums_in, content_of, lazy_state
from registry.sources.state_dicts import Content, stripped
from registry.types import ModelCard, ModelFacts

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_WEIGHTS, _CONFIG = "model_weights.ckpt", "model_config.yaml"
_CONFIG_LIMIT = 2**20  # bytes; tokenizers are other members
_TARGET = re.compile(rb"^target: *['\"]?[\w.]{1,300}\.(\w{1,100})['\"]? *$", re.MULTILINE)


def open_nemo(ref: ModelRef) -> Checkpoint:
    """Open a ``.nemo`` archive; raises the errors of `open_ref`."""
    source = open_bytes(ref.target)
    try:
        members = tar_members(source)
        if _WEIGHTS not in members:
            raise _in_parts(source, members)
        weights = Section(source, *members[_WEIGHTS], f"{source.name} ({_WEIGHTS})")
        chosen = Content(content_of(weights), source.name).select(ref.key)
        tensors = stripped(chosen.state)
        card = ModelCard(architecture=_class_of(source, members)).updated(ref.card)
        ref = replace(ref, key=chosen.entry or None, card=card)
        facts = ModelFacts(aliases=aliases_of(tensors))
        lazy = lazy_state(tensors, weights)
        return LazyCheckpoint(ref, lazy, facts, files=(source,), check=lambda: check_sums_in(weights))
    except BaseException:
        source.close()
        raise


def _in_parts(source: ByteSource, members: dict[str, tuple[int, int]]) -> WeightsError:
    parts = sorted(name for name in members if name.endswith((_WEIGHTS, ".distcp", ".metadata", ".zarray")))
    if parts:
        return WeightsError(
            f"{source.name} is a NeMo archive whose weights are in several files, such as {parts[0][:100]}",
            f"unpack it with: tar -xf FILE, then ingest the folder of {parts[0][:100]}",
        )
    return WeightsError(f"{source.name} is a NeMo archive without {_WEIGHTS}", DAMAGED)


def _class_of(source: ByteSource, members: dict[str, tuple[int, int]]) -> str:
    """The class of the model, which the configuration names at its outermost level; it is read as text."""
    start, size = members.get(_CONFIG, (0, 0))
    match = _TARGET.search(bytes(source.read_at(start, min(size, _CONFIG_LIMIT)))) if size else None
    return match[1].decode("ascii", "replace") if match else ""


SOURCE = Source(name="nemo", open=open_nemo, headers=True, ranges=True)
