"""Source for safetensors files, read one tensor at a time without torch."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError
from registry.sources.base import Source, common_prefix
from registry.sources.byte_source import open_bytes
from registry.sources.lazy_tensors import LazyCheckpoint, in_file
from registry.sources.model_files import aliases_in, facts_beside, with_facts
from registry.sources.safetensors_header import read_header
from registry.sources.weight_files import refuse_shard
from registry.types import ModelCard, ModelFacts, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from registry.types import Checkpoint

__all__ = ["SOURCE", "open_part"]

_CARD_FIELDS = ("licence", "source", "architecture", "family", "task", "dataset")
_MAX_TEXT = 1000


def open_safetensors(ref: ModelRef) -> Checkpoint:
    """Open and check a safetensors file; raises the errors of `open_ref`."""
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "safetensors files are never wrapped: leave --key out")
    refuse_shard(path)
    return _opened(ref, common_prefix, beside=True)


def open_part(path: Path) -> Checkpoint:
    """Open one shard, with tensor names as in the file; raises the errors of `open_ref`."""
    return _opened(ModelRef("safetensors", str(path), path.stem), lambda _: "", beside=False)


def _opened(ref: ModelRef, prefix: Callable[[Iterable[str]], str], *, beside: bool) -> Checkpoint:
    """Open the file of ``ref`` and remove the common prefix that ``prefix`` finds in its tensor names.

    ``beside``: read the configuration beside it, too.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open_bytes(ref.target))
        header = read_header(file)
        wrapper = prefix(header.tensors)
        tensors = {
            name[len(wrapper) :]: in_file(file, entry.start, entry.dtype, entry.shape)
            for name, entry in header.tensors.items()
        }
        said = {key.removeprefix(wrapper): text.removeprefix(wrapper) for key, text in header.metadata.items()}
        facts = (
            facts_beside(Path(ref.target), said, tensors)
            if beside
            else ModelFacts(metadata=header.metadata, aliases=aliases_in(said, tensors, file.name))
        )
        ref = with_facts(_completed(ref, header.metadata), facts)
        opened = LazyCheckpoint(ref, tensors, facts, files=[file])
        stack.pop_all()
        return opened


def _completed(ref: ModelRef, metadata: Mapping[str, str]) -> ModelRef:
    """The reference with its card completed from the file's metadata; existing card fields take precedence."""
    said = {"licence": metadata.get("license", ""), **metadata}
    # Databases cannot store NUL in text; other control characters are escaped on output.
    known: dict[str, Any] = {n: said[n].replace("\0", "")[:_MAX_TEXT] for n in _CARD_FIELDS if said.get(n)}
    return replace(ref, card=ModelCard(**known).updated(ref.card)) if known else ref


SOURCE = Source(name="safetensors", open=open_safetensors, headers=True, ranges=True)
