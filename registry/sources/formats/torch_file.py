"""Source for files of ``torch.save``: state dicts, plain and wrapped, and whole modules; without torch.

The pickle in them is interpreted, and nothing that it names runs (`sources.formats.pickles`). Tensors are read from
their place in the file when they are asked for.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint
from registry.sources.formats.pickles.torch_archive import TorchArchive
from registry.sources.formats.pickles.torch_legacy import read_legacy, read_tar
from registry.sources.formats.pickles.torch_values import TorchTensor
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.quantised.torchao_records import flattened
from registry.sources.state_dicts import Content, stripped, wrapper_of
from registry.sources.weight_files import refuse_shard
from registry.types import NO_FACTS, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.formats.pickles.stored_tensors import StoredTensor
    from registry.types import Checkpoint

__all__ = ["SOURCE", "checkpoint_of", "open_part", "open_renamed"]

_MAX_VIEWS = 100  # limit on the size of tensors that share storages, relative to the file
_SMALL = 2**20  # bytes that a tensor may claim of a smaller storage, as masks and tables do that were expanded
_NAMED = 6  # entries named in a note
_DAMAGED = "download or save it again"
_ZIP = b"PK\x03\x04"
_TAR = re.compile(rb".{257}ustar", re.DOTALL)


def open_torch_file(ref: ModelRef) -> Checkpoint:
    """Open a ``.pt``, ``.pth``, ``.th``, ``.ckpt`` or ``.bin`` file; raises the errors of `open_ref`."""
    refuse_shard(Path(ref.target))
    return _opened(ref, stripped)


def open_renamed(ref: ModelRef, rename: Callable[[str], str | None]) -> TorchFile:
    """Open a file under other names of tensors; those without one are left out. Checksums are compared at once.

    Raises the errors of `open_ref`.
    """

    def renamed(state: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        return {new: tensor for name, tensor in stripped(state).items() if (new := rename(name)) is not None}

    made = _opened(ref, renamed, part=True)
    made.verify()
    return made


def open_part(path: Path) -> Checkpoint:
    """Open one shard, with tensor names as in the file; raises the errors of `open_ref`."""
    return _opened(ModelRef("torch", str(path), path.stem), dict, part=True)


def _opened(
    ref: ModelRef, names: Callable[[Mapping[str, StoredTensor]], dict[str, StoredTensor]], *, part: bool = False
) -> TorchFile:
    path = Path(ref.target)
    file = open_bytes(path)
    try:
        content, archive = _content(file)

        def verify() -> None:
            if archive is not None:
                archive.verify(places)

        made = checkpoint_of(Content(content, str(path)), ref, file, names, part=part, check=verify)
        places = made.places
    except BaseException:
        file.close()
        raise
    return made


def _content(file: ByteSource) -> tuple[object, TorchArchive | None]:
    start = bytes(file.read_at(0, min(512, file.size)))
    if start.startswith(_ZIP):
        archive = TorchArchive(file)
        return archive.content(), archive
    if _TAR.match(start):
        return read_tar(file), None
    if not start.startswith(b"\x80"):
        raise WeightsError(
            f"{file.name} is neither a zip archive nor a pickle of torch.save", "download or save it again"
        )
    return read_legacy(file)[0], None


class TorchFile(LazyCheckpoint):
    """The tensors of a file of torch. ``places``: where their storages begin in it."""

    places: frozenset[int]


def checkpoint_of(
    content: Content,
    ref: ModelRef,
    file: ByteSource,
    names: Callable[[Mapping[str, StoredTensor]], dict[str, StoredTensor]] = stripped,
    *,
    part: bool = False,
    check: Callable[[], None] | None = None,
) -> TorchFile:
    """The checkpoint of the state dict in the content of a pickle.

    Parameters
    ----------
    content
        What was read.
    ref
        The reference that was opened; its key selects the entry.
    file
        The file, which is closed with the checkpoint.
    names
        The tensors under the names that they get.
    part
        The file is one of several, so that what is beside it is not looked at.
    check
        Compares checksums of the format.

    Raises
    ------
    NotFoundError, AmbiguousError, WeightsError, UnsafeError
        The errors of `Content.select`, and for tensors that claim more than is stored or cannot be read.
    """
    path = Path(ref.target)
    chosen = content.select(ref.key)
    _check_extent(chosen.state, file)
    state = names(chosen.state)
    facts = NO_FACTS
    if not part:
        facts = facts_beside(path, names=state)
        others = content.others_beside(chosen.entry) if ref.key is None else ()
        if others:
            told = ", ".join(others[:_NAMED])
            read = f"entry {chosen.entry} was read" if chosen.entry else "the tensors at the outermost level were read"
            note = f"{read}; --key chooses another: {told}"
            facts = replace(facts, notes=(*facts.notes, note))
        ref = with_facts(replace(ref, key=chosen.entry or None), facts)
    state, described = flattened(state)
    tensors = {name: tensor.lazy(name) for name, tensor in state.items()}
    facts = replace(
        facts,
        aliases={**facts.aliases, **_shared(state)},
        metadata={**facts.metadata, **described},
        maps={**facts.maps, **chosen.maps},
        wrapper=wrapper_of(chosen.state) if names is stripped else "",
    )
    made = TorchFile(ref, tensors, facts, files=(file,), check=check)
    made.places = frozenset(
        tensor.storage.offset for tensor in state.values() if isinstance(tensor, TorchTensor) and tensor.storage.size
    )
    return made


def _check_extent(state: Mapping[str, StoredTensor], file: ByteSource) -> None:
    """Refuse tensors that claim more elements than are stored; with strides of zero, one byte can claim terabytes.

    Small ones may, since models have buffers that were expanded; all together are bounded by the size of the file.
    """
    total = 0
    for name, tensor in state.items():
        claimed, stored = tensor.memory
        total += claimed
        if claimed > max(stored, _SMALL):
            raise UnsafeError(
                f"{file.name}: tensor {name} claims {claimed} bytes of a storage of {stored}",
                "save contiguous tensors",
            )
    if total > _MAX_VIEWS * max(file.size, 1):
        raise UnsafeError(
            f"{file.name} claims {total} bytes of tensors in a file of {file.size}", "save each tensor once"
        )


def _shared(state: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Names of tensors that are the same memory as an earlier one, and the name of that one."""
    first: dict[Hashable, str] = {}
    aliases = {}
    for name, tensor in state.items():
        if isinstance(tensor, TorchTensor) and 0 not in tensor.shape and first.setdefault(tensor.place, name) != name:
            aliases[name] = first[tensor.place]
    return aliases


SOURCE = Source(name="torch", open=open_torch_file, headers=True, ranges=True)
