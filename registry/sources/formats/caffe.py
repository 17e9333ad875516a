"""Source for Caffe's ``.caffemodel``: the blobs of each layer, in torch's layout.

Layers lie in a NetParameter, as field 100 (LayerParameter) or, before 2014, as field 2 (V1LayerParameter). Their order
is that of the computation. Source: ``caffe.proto`` and the layers' sources (BVLC). The prototxt is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, computed, in_file, turned
from registry.sources.files.wire import BYTES, Message
from registry.sources.graph_order import Computation, graph_order
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_caffe"]

_MAX_LAYERS = 100_000
_MAX_BLOBS = 64  # of one layer
_MAX_NAME = 4096
_REMEDY = "download it or save it again"
# Types of layers before 2014 that have blobs.
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
_WITH_BIAS = ("weight", "bias")
# Names of the blobs of each type; of any other type, their numbers.
_BLOBS: dict[str, tuple[str, ...]] = {
    "Convolution": _WITH_BIAS, "Deconvolution": _WITH_BIAS, "InnerProduct": _WITH_BIAS, "Scale": _WITH_BIAS,
    "ConvolutionDepthwise": _WITH_BIAS, "DepthwiseConvolution": _WITH_BIAS, "Embed": _WITH_BIAS, "PReLU": ("weight",),
    "Normalize": ("weight",), "Bias": ("bias",), "BatchNorm": ("running_mean", "running_var", "scale_factor"),
    "BN": ("weight", "bias", "running_mean", "running_var"),
}  # fmt: skip
_LSTM = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0")
_LSTM_GATES = (0, 1, 3, 2)  # i f o g of Caffe as i f g o of torch


@dataclass(slots=True)
class _Layer:
    name: str = ""
    type: str = ""
    bottoms: list[str] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    blobs: list[LazyTensor] = field(default_factory=list)
    transposed: bool = False


def open_caffe(ref: ModelRef) -> Checkpoint:
    """Open a ``.caffemodel`` by the headers of its blobs.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The file is damaged, or holds no blobs.
    UnsafeError
        It holds more layers or blobs than any network.
    NotFoundError
        An entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "Caffe models are one network: leave --key out")
    file = open_bytes(ref.target)
    try:
        tensors: dict[str, LazyTensor] = {}
        steps: list[Computation] = []
        current: dict[str, tuple[str, int]] = {}  # layers may write over what they read
        for number, layer in enumerate(_layers(Message(file))):
            found = _weights(layer, tensors)
            takes = tuple(current.get(name, (name, -1)) for name in layer.bottoms)
            current.update({name: (name, number) for name in layer.tops})
            steps.append(Computation(takes, tuple((name, number) for name in layer.tops), tuple(found)))
            tensors |= found
        if not tensors:
            raise WeightsError(f"{ref.target} holds no weights: its layers have no blobs", "give the .caffemodel")
        facts = facts_beside(Path(ref.target), names=tensors)
        facts = replace(facts, laid_out=True, order=tuple(graph_order(steps, ())))
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,))
    except BaseException:
        file.close()
        raise


def _layers(message: Message) -> list[_Layer]:
    found = []
    for each in message:
        if each.number in (2, 100) and each.wire == BYTES:
            found.append(_layer(message.message(each), old=each.number == 2))
            if len(found) > _MAX_LAYERS:
                raise UnsafeError(f"{message.file.name} has more than {_MAX_LAYERS} layers", "split the network")
    return found


def _layer(message: Message, *, old: bool) -> _Layer:
    names = {4: "name", 2: "bottoms", 3: "tops"} if old else {1: "name", 3: "bottoms", 4: "tops"}
    layer = _Layer()
    for each in message:
        if each.number in names and each.wire == BYTES:
            text = message.data(each, _MAX_NAME).decode("utf-8", "replace")
            if names[each.number] == "name":
                layer.name = text
            else:
                kept: list[str] = getattr(layer, names[each.number])
                kept.append(text)
                if len(kept) > _MAX_NAME:
                    raise UnsafeError(f"{message.file.name} has a layer of too many blobs", "split the network")
        elif each.number == (5 if old else 2):
            layer.type = (
                _V1_TYPES.get(each.value, str(each.value))
                if each.wire != BYTES
                else message.data(each, _MAX_NAME).decode("utf-8", "replace")
            )
        elif each.number == (6 if old else 7):
            if len(layer.blobs) >= _MAX_BLOBS:
                raise UnsafeError(f"{message.file.name} has a layer of more than {_MAX_BLOBS} blobs", "split it")
            layer.blobs.append(_blob(message.message(each), layer.name))
        elif each.number == 117 and not old and each.wire == BYTES:
            layer.transposed = any(part.number == 6 and part.value for part in message.message(each))
    return layer


def _blob(message: Message, layer: str) -> LazyTensor:
    """The header of a BlobProto: its shape, else its four old extents, and where its numbers are."""
    shape: list[int] | None = None
    old = {1: 0, 2: 0, 3: 0, 4: 0}
    places: list[tuple[int, int, int]] = []
    for each in message:
        if each.number in old:
            old[each.number] = each.value
        elif each.number == 7:
            inner = message.message(each)
            shape = [extent for dim in inner if dim.number == 1 for extent in inner.integers(dim)]
            if len(shape) > 32:
                raise UnsafeError(f"{message.file.name}: a blob of layer {layer[:80]!r} has {len(shape)} axes", _REMEDY)
        elif each.number in (5, 8):
            if each.wire != BYTES or places:
                raise WeightsError(
                    f"{message.file.name}: numbers of layer {layer[:80]!r} are not in one piece",
                    "save it with Caffe's upgrade_net_proto_binary",
                )
            places.append((each.number, each.start, each.size))
    extents = tuple(shape) if shape is not None else tuple(old.values())
    if not places:
        raise WeightsError(f"{message.file.name}: a blob of layer {layer[:80]!r} has no numbers", _REMEDY)
    kind, start, size = places[0]
    dtype, width = ("float32", 4) if kind == 5 else ("float64", 8)
    if any(extent < 0 for extent in extents) or math.prod(extents) * width != size:
        raise WeightsError(
            f"{message.file.name}: a blob of layer {layer[:80]!r} of shape {str(extents)[:80]} has {size} bytes",
            _REMEDY,
        )
    return in_file(message.file, start, dtype, extents)


def _weights(layer: _Layer, taken: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Tensors of a layer by name, in torch's layout."""
    if not layer.blobs:
        return {}
    head, count = layer.name, 1
    while any(f"{head}.{leaf}" in taken for leaf in ("weight", "bias", "running_mean", "0", *_LSTM)):
        count += 1
        head = f"{layer.name}_{count}"
    if layer.type == "LSTM" and len(layer.blobs) == 3:
        return {f"{head}.{leaf}": _regated(blob) for leaf, blob in zip(_LSTM, layer.blobs, strict=True)}
    leaves = _BLOBS.get(layer.type, ())
    found: dict[str, LazyTensor] = {}
    for number, blob in enumerate(layer.blobs):
        leaf = leaves[number] if number < len(leaves) else str(number)
        found[f"{head}.{leaf}"] = _laid_out(blob, layer, leaf)
    if layer.type == "BatchNorm" and len(layer.blobs) == 3:
        factor = found.pop(f"{head}.scale_factor")
        return {name: _divided(blob, factor) for name, blob in found.items()}
    return found


def _laid_out(blob: LazyTensor, layer: _Layer, leaf: str) -> LazyTensor:
    """A blob without the axes of extent one that old files have in front."""
    shape = blob.shape
    matrix = leaf == "weight" and layer.type in ("InnerProduct", "Embed")
    vector = leaf != "weight" or layer.type in ("Scale", "PReLU", "Normalize", "BN")
    keep = 1 if vector and leaf in (*_WITH_BIAS, "running_mean", "running_var") else 2 if matrix else 0
    if keep and len(shape) > keep and math.prod(shape[: len(shape) - keep]) == 1:
        blob = replace(blob, shape=shape[len(shape) - keep :])
    elif keep == 1 and math.prod(shape) == max((*shape, 1)):
        blob = replace(blob, shape=(math.prod(shape),))
    if matrix and layer.transposed and len(blob.shape) == 2:
        return turned(blob, (1, 0))
    return blob


def _divided(blob: LazyTensor, factor: LazyTensor) -> LazyTensor:
    """Running statistics, which Caffe keeps as sums beside the number of their terms."""

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        terms = factor.values().astype(np.float64).reshape(-1)
        scale = 1 / terms[0] if len(terms) and terms[0] else 0.0
        with np.errstate(all="ignore"):
            values: NDArray[np.generic] = (blob.values().astype(np.float64).reshape(-1) * scale).astype(blob.dtype)
        return values[start:stop]

    return computed(blob.dtype, (math.prod(blob.shape),), rows, whole=True)


def _regated(blob: LazyTensor) -> LazyTensor:
    """A tensor of an LSTM, (4 hidden, ...), with its gates in torch's order."""
    rows = blob.shape[0] if blob.shape else 0
    if not rows or rows % 4:
        raise WeightsError(f"a blob of an LSTM has the shape {str(blob.shape)[:80]}", _REMEDY)

    def values(start: int, stop: int) -> NDArray[np.generic]:
        gates = np.asarray(blob.values()).reshape(4, rows // 4, -1)[list(_LSTM_GATES)]
        return gates.reshape(blob.shape)[start:stop]

    return computed(blob.dtype, blob.shape, values, whole=True)


SOURCE = Source(name="caffe", open=open_caffe, headers=True, ranges=True)
