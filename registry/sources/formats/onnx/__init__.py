"""Source for ONNX models: the constants that their nodes use as weights, in torch's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.companions import CompanionedCheckpoint, Companions
from registry.sources.formats.onnx.constants import Constants
from registry.sources.formats.onnx.model import read_model
from registry.sources.formats.onnx.node_weights import weights_of
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_onnx"]


def open_onnx(ref: ModelRef) -> Checkpoint:
    """Open an ONNX model by its header. Its tensors may lie in files beside it, in its folder.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The file is damaged, or its weights are used in a way that is not known.
    UnsafeError
        It holds more than any network, or names files outside its folder.
    NotFoundError
        An entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "ONNX models are one network: leave --key out")
    file = open_bytes(ref.target)
    companions = Companions(ref.target)
    try:
        model = read_model(file)
        found = weights_of(model, Constants(model, companions))
        if not found.tensors:
            raise WeightsError(
                f"{ref.target} holds no weights of a network", "export the model with its parameters (export_params)"
            )
        facts = facts_beside(Path(ref.target), model.metadata, found.tensors)
        facts = replace(
            facts,
            aliases={**found.aliases, **facts.aliases},
            laid_out=True,
            order=found.order,
            notes=(*facts.notes, *found.notes),
        )
        opened = CompanionedCheckpoint(
            with_facts(ref, facts), found.tensors, facts, files=(file,), check=companions.check
        )
        opened.companions = companions
        return opened
    except BaseException:
        file.close()
        companions.close()
        raise


SOURCE = Source(name="onnx", open=open_onnx, headers=True, ranges=True)
