"""Source for sharded checkpoints, safetensors or ``.bin``, read as one model through their index."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, WeightsError
from registry.sources import safetensors, torch_file
from registry.sources.base import OpenedCheckpoint, Source, common_prefix
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.shard_index import read_index
from registry.sources.weight_files import INDEX
from registry.types import ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelFacts

__all__ = ["SOURCE"]

_OPENERS = {".safetensors": safetensors.open_part, ".bin": torch_file.open_part}
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

    def close(self) -> None:
        """Close all shards."""
        super().close()
        self._shards.close()


def open_shards(ref: ModelRef) -> Checkpoint:
    """Open all shards of an index; raises the errors of `open_ref`."""
    index = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{index} has no entry {ref.key!r}", "sharded models are never wrapped: leave --key out")
    mapped = read_index(index)
    opener = _OPENERS[Path(index.name[: -len(INDEX)]).suffix.lower()]
    with ExitStack() as stack:
        shards = {path: stack.enter_context(opener(path)) for path in sorted(set(mapped.values()))}
        return ShardedCheckpoint(ref, _holders(index, mapped, shards), stack.pop_all())
    raise AssertionError("an exit stack suppresses no exception")


def _facts(index: Path, holders: Mapping[str, Checkpoint]) -> ModelFacts:
    """What is beside the index, with the aliases in the headers of its shards."""
    metadata: dict[str, str] = {}
    for shard in set(holders.values()):
        metadata.update(shard.facts.metadata)
    wrapper = common_prefix(holders)
    said = {key.removeprefix(wrapper): text.removeprefix(wrapper) for key, text in metadata.items()}
    return facts_beside(index, said, [name[len(wrapper) :] for name in holders])


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
    suffixes=tuple(suffix + INDEX for suffix in _OPENERS),
    headers=(".safetensors" + INDEX,),
)
