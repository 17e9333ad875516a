"""Source for models in several files: through their index, or by names that only such files have (`shard_sets`)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import SUFFIXES, OpenedCheckpoint, Source, common_prefix, verify
from registry.sources.files.byte_source import is_remote
from registry.sources.formats import safetensors, torch_file
from registry.sources.formats.gguf import gguf_file
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.recognition import recognise
from registry.sources.shard_index import read_index
from registry.sources.shard_sets import set_of
from registry.sources.tensor_parallel import Joined, joined
from registry.sources.weight_files import INDEX, check_file, is_index
from registry.spelling import counted
from registry.types import ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.sources.shard_sets import FileSet
    from registry.types import Checkpoint, ModelFacts

__all__ = ["SOURCE"]

# What opens one shard, by its source.
_OPENERS = {"safetensors": safetensors.open_part, "torch": torch_file.open_part}
_REMEDY = "download the index and all its shards again"


class ShardedCheckpoint(OpenedCheckpoint):
    """Open shards with one list of tensors. Memory in use is that of the tensor last read."""

    def __init__(self, ref: ModelRef, holders: Mapping[str, Checkpoint], shards: ExitStack) -> None:
        infos = {(id(holder), info.name): info for holder in set(holders.values()) for info in holder.tensors}
        cut = len(common_prefix(holders))
        self._parts = {name[cut:]: (holder, name) for name, holder in holders.items()}
        tensors = []
        for name, (holder, stored) in self._parts.items():
            info = infos[id(holder), stored]
            tensors.append(TensorInfo(name, info.dtype, info.shape))
        facts = _facts(Path(ref.target), holders)
        super().__init__(with_facts(ref, facts), tensors, facts)
        self._shards = shards

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 and bfloat16 are returned as float32."""
        self._check_open()
        shard, stored = self._parts[name]
        return shard.read(stored)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order."""
        self._check_open()
        shard, stored = self._parts[name]
        return shard.raw(stored)

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        shard, stored = self._parts[name]
        return shard.bytes_of(stored)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor."""
        self._check_open()
        shard, stored = self._parts[name]
        return shard.span(stored, start, stop)

    def verify(self) -> None:
        """Compare the checksums of all shards with their data."""
        for shard in dict.fromkeys(holder for holder, _ in self._parts.values()):
            verify(shard)

    def close(self) -> None:
        """Close all shards."""
        super().close()
        self._shards.close()


def open_shards(ref: ModelRef) -> Checkpoint:
    """Open all shards of an index, or the set that a file belongs to; raises the errors of `open_ref`."""
    index = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{index} has no entry {ref.key!r}", "sharded models are never wrapped: leave --key out")
    if not is_index(index):
        return _open_set(ref, index)
    mapped = read_index(index)
    shards = sorted(set(mapped.values()))
    here = [] if is_remote(index) else shards
    gone = [path for path in here if not path.exists() and not path.is_symlink()]
    if gone:
        raise NotFoundError(
            f"no file {gone[0]}: {index.name} names it, and {len(gone)} of its {counted(len(shards), 'shard')} "
            f"{'is' if len(gone) == 1 else 'are'} missing",
            f"download {gone[0].name} into the folder of the index",
        )
    opener = _OPENERS[SUFFIXES[Path(index.name[: -len(INDEX)]).suffix.lower()]]
    with ExitStack() as stack:
        opened = {path: stack.enter_context(opener(path)) for path in shards}
        return ShardedCheckpoint(ref, _holders(index, mapped, opened), stack.pop_all())
    raise AssertionError("an exit stack suppresses no exception")


def _facts(index: Path, holders: Mapping[str, Checkpoint]) -> ModelFacts:
    """What is beside the index, with the aliases in the headers of its shards."""
    metadata: dict[str, str] = {}
    for shard in set(holders.values()):
        metadata.update(shard.facts.metadata)
    wrapper = common_prefix(holders)
    said = {key.removeprefix(wrapper): text.removeprefix(wrapper) for key, text in metadata.items()}
    return replace(facts_beside(index, said, [name[len(wrapper) :] for name in holders]), wrapper=wrapper)


def _open_set(ref: ModelRef, path: Path) -> Checkpoint:
    """Open the files of a set as one model."""
    check_file(path)
    together = set_of(path)
    found = recognise(path)
    source = found.kind.source if found is not None else ""
    if source != "gguf" and source not in _OPENERS:
        source = SUFFIXES.get(path.suffix.lower(), "")
    if together is None or (source != "gguf" and source not in _OPENERS):
        raise WeightsError(f"{path} is no shard of a model", "give the file itself")
    together.check()
    if source == "gguf":  # the names in all files follow from the metadata in the first
        return gguf_file.open_parts(ref, together.files)
    opener = _OPENERS[source]
    with ExitStack() as stack:
        opened = [stack.enter_context(opener(file)) for file in together.files]
        if together.kind == "consolidated":
            facts = facts_beside(path)
            return JoinedCheckpoint(with_facts(ref, facts), joined(str(path), opened), facts, stack.pop_all())
        return ShardedCheckpoint(ref, _union(together, opened), stack.pop_all())
    raise AssertionError("an exit stack suppresses no exception")


def _union(together: FileSet, opened: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Shard by tensor name, where each tensor is in one shard alone."""
    holders: dict[str, Checkpoint] = {}
    for file, shard in zip(together.files, opened, strict=True):
        for info in shard.tensors:
            if holders.setdefault(info.name, shard) is not shard:
                raise WeightsError(
                    f"{together.files[0]}: tensor {info.name[:100]!r} is in several files, {file.name} too",
                    "if each is a model of its own, give them other names; else join them with what saved them",
                )
    return holders


class JoinedCheckpoint(OpenedCheckpoint):
    """Open parts of a model whose tensors were cut over them. Memory in use is twice that of the tensor last read."""

    def __init__(self, ref: ModelRef, tensors: Mapping[str, Joined], facts: ModelFacts, parts: ExitStack) -> None:
        super().__init__(ref, [tensor.info for tensor in tensors.values()], facts)
        self._joined = dict(tensors)
        self._parts = parts

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 and bfloat16 are returned as float32."""
        self._check_open()
        return self._joined[name].read()

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order."""
        return self.span(name, 0, self.bytes_of(name))

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        self._check_open()
        return sum(holder.bytes_of(name) for holder in self._joined[name].holders)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor."""
        self._check_open()
        return self._joined[name].span(start, min(stop, self.bytes_of(name)))

    def verify(self) -> None:
        """Compare the checksums of all parts with their data."""
        for part in dict.fromkeys(holder for tensor in self._joined.values() for holder in tensor.holders):
            verify(part)

    def close(self) -> None:
        """Close all parts."""
        super().close()
        self._parts.close()


def _holders(index: Path, mapped: Mapping[str, Path], shards: Mapping[Path, Checkpoint]) -> dict[str, Checkpoint]:
    """Shard by tensor name. The index decides; a tensor missing from the index must be in exactly one shard."""
    names = {path: {info.name for info in shard.tensors} for path, shard in shards.items()}
    holders = {}
    for tensor, path in mapped.items():
        if tensor not in names[path]:
            raise WeightsError(f"{index}: tensor {tensor[:100]!r} is not in {path.name}", _REMEDY)
        holders[tensor] = shards[path]
    for path, held in names.items():
        for tensor in held - mapped.keys():
            if holders.setdefault(tensor, shards[path]) is not shards[path]:
                raise WeightsError(f"{index}: tensor {tensor[:100]!r} is in several shards", _REMEDY)
    return holders


SOURCE = Source(
    name="shards",
    open=open_shards,
    headers=True,
    ranges=True,
)
