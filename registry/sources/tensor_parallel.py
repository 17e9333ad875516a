"""Joining the parts of a model whose tensors were cut over processes: Llama's ``consolidated.NN`` files.

Each file has every tensor's name. Names tell how a tensor was cut: along its outputs (``wq``, ``wk``, ``wv``, ``w1``,
``w3``, ``output``), along its inputs (``wo``, ``w2``), or not at all (norms). The embedding was cut along its features
in Llama 1 and 2 and along the vocabulary in Llama 3, which its shape tells. Source: the names and parallel layers of
the reference implementation's model definition.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import WeightsError
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from registry.types import Checkpoint

__all__ = ["Joined", "joined"]

_BY_OUTPUTS = re.compile(r"(?:.*\.)?(?:attention\.w[qkv]|feed_forward\.w[13]|output)\.weight")
_BY_INPUTS = re.compile(r"(?:.*\.)?(?:attention\.wo|feed_forward\.w2)\.weight")
_EMBEDDING = re.compile(r"tok_embeddings\.weight")
_COPIED = re.compile(r"(?:.*\.)?(?:\w*norm\.weight|freqs|freqs_cis)")
_REMEDY = "join them first: transformers' convert_llama_weights_to_hf.py, or torch.cat of the parts"


class Joined(NamedTuple):
    """A tensor and the files that hold its parts, which are joined along ``axis``."""

    info: TensorInfo
    holders: tuple[Checkpoint, ...]
    axis: int

    def read(self) -> NDArray[np.floating]:
        """The tensor, from its parts."""
        return np.concatenate([holder.read(self.info.name) for holder in self.holders], self.axis)

    def span(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor in C order; of its parts only what these take is read."""
        name = self.info.name
        sizes = [holder.bytes_of(name) for holder in self.holders]
        if self.axis == 0:
            whole = bytearray()
            for holder, size in zip(self.holders, sizes, strict=True):
                if start < size and stop > 0:
                    whole += holder.span(name, max(start, 0), min(stop, size))
                start, stop = start - size, stop - size
            return memoryview(whole)
        if start >= stop:
            return memoryview(b"")
        rows = self.info.shape[0]
        width = sum(sizes) // rows
        first, last = start // width, -(-stop // width)
        parts = [
            np.frombuffer(holder.span(name, first * size // rows, last * size // rows), np.uint8).reshape(
                last - first, -1
            )
            for holder, size in zip(self.holders, sizes, strict=True)
        ]
        data: memoryview = np.concatenate(parts, 1).reshape(-1).data
        return data[start - first * width : stop - first * width]


def joined(where: str, parts: Sequence[Checkpoint]) -> dict[str, Joined]:
    """The tensors of a model by name, from the parts of it that each process saved.

    Parameters
    ----------
    where
        Name of the first file, for messages.
    parts
        The opened files in the order of their numbers. One alone is checked for being whole.

    Raises
    ------
    WeightsError
        A tensor is in some parts only or has shapes that do not fit, its name does not tell how it was cut, copies
        differ, or parts are missing.
    """
    infos = [{info.name: info for info in part.tensors} for part in parts]
    for info in infos[1:]:
        if info.keys() != infos[0].keys():
            name = min(info.keys() ^ infos[0].keys())
            raise WeightsError(f"{where}: tensor {name} is not in all of its {len(parts)} parts", _REMEDY)
    if len(parts) == 1:
        _check_whole(where, infos[0])
        return {name: Joined(info, tuple(parts), 0) for name, info in infos[0].items()}
    return {name: _join(where, name, [info[name] for info in infos], infos[0], parts) for name in infos[0]}


def _width(infos: Mapping[str, TensorInfo]) -> int:
    """Width of the model: the length of its last norm, or of any; 0 if there is none."""
    norms = [i.shape[0] for n, i in infos.items() if n.endswith("norm.weight") and len(i.shape) == 1]
    last = infos.get("norm.weight")
    return last.shape[0] if last is not None and len(last.shape) == 1 else max(norms, default=0)


def _join(
    where: str, name: str, infos: Sequence[TensorInfo], all_infos: Mapping[str, TensorInfo], parts: Sequence[Checkpoint]
) -> Joined:
    shape, dtype, width = infos[0].shape, infos[0].dtype, _width(all_infos)
    axis = _axis(name, infos[0], len(parts), width)
    same = [info.shape for info in infos] if axis is None else [i.shape[:axis] + i.shape[axis + 1 :] for i in infos]
    if any(info.dtype != dtype or len(info.shape) != len(shape) for info in infos) or len(set(same)) > 1:
        raise WeightsError(f"{where}: the {len(parts)} parts of tensor {name} do not fit together", _REMEDY)
    if axis is None:
        copies = {bytes(part.raw(name)) for part in parts} if infos[0].size <= 2**20 else {b"", b"?"}
        if not _COPIED.fullmatch(name) or len(copies) > 1:
            raise WeightsError(
                f"{where} is one of {len(parts)} parts, and how tensor {name} is cut over them is not known", _REMEDY
            )
        return Joined(infos[0], tuple(parts[:1]), 0)
    whole = tuple(sum(info.shape[axis] for info in infos) if at == axis else n for at, n in enumerate(shape))
    if width and len(whole) == 2 and width not in whole:
        raise WeightsError(f"{where}: tensor {name} is {whole} when joined, in a model of width {width}", _REMEDY)
    return Joined(TensorInfo(name, dtype, whole), tuple(parts), axis)


def _axis(name: str, info: TensorInfo, count: int, width: int) -> int | None:
    """The axis that a tensor was cut along; None for a copy, and where neither name nor shape tells."""
    if len(info.shape) != 2:
        return None
    if _BY_OUTPUTS.fullmatch(name):
        return 0
    if _BY_INPUTS.fullmatch(name):
        return 1
    if _EMBEDDING.fullmatch(name) and width:
        return {width: 0, width // count: 1}.get(info.shape[1])
    return None


def _check_whole(where: str, infos: Mapping[str, TensorInfo]) -> None:
    """Refuse one part of several: the output projections of its attention have fewer inputs than outputs."""
    for name, info in infos.items():
        if not name.endswith("attention.wo.weight") or len(info.shape) != 2 or 0 in info.shape:
            continue
        count, rest = divmod(info.shape[0], info.shape[1])
        if count > 1 and not rest:
            raise WeightsError(
                f"{where} is one of {count} parts: tensor {name} has {info.shape[1]} of {info.shape[0]} inputs",
                "download the other parts (consolidated.01 and so on) into its folder",
            )
