"""Source for ncnn: the text ``.param`` has the layers, the ``.bin`` beside it their weights, one behind the other.

A weight has no header but a flag for its type, so that each layer must be known for the next to be found: a type of
layer that is not known here is refused, unless it is one without weights. Source: ``modelbin.cpp`` and ``load_param``
and ``load_model`` of the layers (Tencent).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, computed, in_file, turned
from registry.sources.graph_order import Computation, graph_order
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_ncnn"]

_MAGIC = 7767517
_MAX_TEXT = 32 * 2**20
_MAX_LAYERS = 100_000
_FLOAT16, _INT8, _SCALED = 0x01306B47, 0x000D4B38, 0x0002C056
_REMEDY = "convert the network again, for example with pnnx"
_SETTING = re.compile(r"(-?\d{1,6})=([^\s]+)")
_WEIGHTLESS = frozenset({
    "AbsVal", "ArgMax", "ArgMin", "BNLL", "BinaryOp", "CELU", "Cast", "Clip", "Concat", "CopyTo", "Crop",
    "CumulativeSum", "DeepCopy", "DetectionOutput", "Diag", "Dropout", "ELU", "Einsum", "Eltwise", "Erf", "Exp",
    "ExpandDims", "Flatten", "Flip", "Fold", "GELU", "GLU", "GridSample", "HardSigmoid", "HardSwish", "Identity",
    "Input", "Interp", "InverseSpectrogram", "LRN", "Log", "LogSoftmax", "MVN", "MatMul", "Mish", "Noop",
    "PSROIPooling", "Packing", "Permute", "PixelShuffle", "Pooling", "Pooling1D", "Pooling3D", "Power", "PriorBox",
    "Proposal", "ROIAlign", "ROIPooling", "ReLU", "Reduction", "Reorg", "Reshape", "RotaryEmbed", "SDPA", "SELU",
    "SPP", "Shrink", "ShuffleChannel", "Sigmoid", "Slice", "Softmax", "Softplus", "Spectrogram", "Split", "Squeeze",
    "StatisticsPooling", "Swish", "TanH", "Threshold", "Tile", "UnaryOp", "Unfold", "YoloDetectionOutput",
    "Yolov3DetectionOutput",
})  # fmt: skip


@dataclass(slots=True)
class _Layer:
    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    settings: dict[int, float]

    def integer(self, key: int, default: int = 0) -> int:
        """A setting that counts something."""
        value = self.settings.get(key, default)
        if not -(2**31) < value < 2**31:
            raise WeightsError(f"layer {self.name[:80]!r} has a setting {key}={value}", _REMEDY)
        return int(value)


class _Bin:
    """The file of weights, read from its start."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self.at = 0

    def plain(self, count: int, shape: tuple[int, ...] | None = None) -> LazyTensor:
        """float32 values without a flag."""
        return self._take(count, "float32", count * 4, shape)

    def flagged(self, count: int, shape: tuple[int, ...] | None = None) -> LazyTensor:
        """Values behind a flag that tells their type; a table of 256 values and a byte each, for any other flag."""
        flag = int.from_bytes(self.file.read_at(self.at, 4), "little")
        self.at += 4
        if flag == _FLOAT16:
            return self._take(count, "float16", -(-count * 2 // 4) * 4, shape)
        if flag == _INT8:
            return self._take(count, "int8", -(-count // 4) * 4, shape)
        if flag in (0, _SCALED):
            return self._take(count, "float32", count * 4, shape)
        table = self._take(256, "float32", 1024, None)
        codes = self._take(count, "uint8", -(-count // 4) * 4, None)
        final = (count,) if shape is None else shape

        def rows(start: int, stop: int) -> NDArray[np.generic]:
            values: NDArray[np.generic] = table.values()[codes.values()].reshape(final)
            return values[start:stop]

        return computed("float32", final, rows, precision="int8 ncnn", stored=1024 + count, whole=True)

    def _take(self, count: int, dtype: str, size: int, shape: tuple[int, ...] | None) -> LazyTensor:
        if count < 0 or size > self.file.size - self.at:
            raise WeightsError(
                f"{self.file.name} ends early: a weight of {count} values at byte {self.at}, and it has "
                f"{self.file.size} bytes",
                "check that .param and .bin belong together",
            )
        found = in_file(self.file, self.at, dtype, (count,) if shape is None else shape)
        self.at += size
        return found


def open_ncnn(ref: ModelRef) -> Checkpoint:
    """Open an ncnn network by its ``.param``, with the ``.bin`` beside it.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The text is damaged or binary, a layer is of a type that is not known, or the two files do not belong together.
    NotFoundError
        The ``.bin`` is missing, or an entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "ncnn files are one network: leave --key out")
    layers = _layers(ref.target)
    beside = _beside(ref.target)
    try:
        file = open_bytes(beside)
    except NotFoundError as error:
        raise NotFoundError(
            f"no file {beside} beside {Path(ref.target).name}, which has its weights", "put the .bin beside the .param"
        ) from error
    try:
        weights = _Bin(file)
        tensors: dict[str, LazyTensor] = {}
        steps = []
        for layer in layers:
            found = _weights(layer, weights, tensors)
            steps.append(Computation(layer.bottoms, layer.tops, tuple(found)))
            tensors |= found
        if weights.at != file.size:
            raise WeightsError(
                f"{file.name} has {file.size - weights.at} bytes more than the layers of {Path(ref.target).name} take",
                "check that .param and .bin belong together",
            )
        facts = facts_beside(Path(ref.target), names=tensors)
        facts = replace(facts, laid_out=True, order=tuple(graph_order(steps, ())))
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,))
    except BaseException:
        file.close()
        raise


def _beside(target: str) -> str:
    stem = target[: -len(".param")] if target.lower().endswith(".param") else target
    return f"{stem}.bin"


def _layers(target: str) -> list[_Layer]:
    """The layers in the order of the text, which is that of the weights."""
    with open_bytes(target) as file:
        if file.size > _MAX_TEXT:
            raise UnsafeError(f"{target} is a text of {file.size} bytes, more than {_MAX_TEXT}", _REMEDY)
        content = bytes(file.read_at(0, file.size))
    if content[:4] == _MAGIC.to_bytes(4, "little"):
        raise WeightsError(
            f"{target} is the binary form of an ncnn network, which has no names", "give the text .param instead"
        )
    lines = content.decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != str(_MAGIC):
        raise WeightsError(f"{target} is no ncnn network: it does not begin with {_MAGIC}", _REMEDY)
    if len(lines) > _MAX_LAYERS:
        raise UnsafeError(f"{target} has more than {_MAX_LAYERS} layers", _REMEDY)
    found = [_layer(target, line) for line in lines[2:] if line.strip()]
    counted = lines[1].split()[0] if len(lines) > 1 and lines[1].split() else ""
    if counted != str(len(found)):
        raise WeightsError(f"{target} has {len(found)} layers, and says {counted[:20]!r}", _REMEDY)
    return found


def _layer(target: str, line: str) -> _Layer:
    parts = line.split()
    if len(parts) < 4 or not all(part.isascii() and part.isdecimal() and len(part) < 7 for part in parts[2:4]):
        raise WeightsError(f"{target} has a line that is no layer: {line[:80]!r}", _REMEDY)
    takes, gives = int(parts[2]), int(parts[3])
    if len(parts) < 4 + takes + gives:
        raise WeightsError(f"{target} has a layer without all its blobs: {line[:80]!r}", _REMEDY)
    settings: dict[int, float] = {}
    for part in parts[4 + takes + gives :]:
        match = _SETTING.fullmatch(part)
        if match is None:
            raise WeightsError(f"{target} has a setting that is none: {part[:80]!r}", _REMEDY)
        if int(match[1]) > -23300:  # those below are lists, which size nothing
            try:
                settings[int(match[1])] = float(match[2])
            except ValueError as error:
                raise WeightsError(f"{target} has a setting that is no number: {part[:80]!r}", _REMEDY) from error
    blobs = parts[4 : 4 + takes + gives]
    return _Layer(parts[0], parts[1], tuple(blobs[:takes]), tuple(blobs[takes:]), settings)


def _weights(layer: _Layer, weights: _Bin, taken: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The tensors of a layer by name, in torch's layout."""
    if layer.type in _WEIGHTLESS:
        return {}
    read = _READERS.get(layer.type)
    if read is None:
        raise WeightsError(
            f"{weights.file.name}: layer {layer.name[:80]!r} is of type {layer.type[:60]!r}, which is not known here, "
            "so that the weights behind it cannot be found",
            "ingest the model that it was converted from",
        )
    head, count = layer.name, 1
    while any(name.startswith(f"{head}.") for name in taken):
        count += 1
        head = f"{layer.name}_{count}"
    return {f"{head}.{leaf}": tensor for leaf, tensor in read(layer, weights).items()}


def _positive(layer: _Layer, *numbers: int) -> None:
    if min(numbers) < 1:
        raise WeightsError(f"layer {layer.name[:80]!r} has settings that do not fit: {layer.settings}"[:300], _REMEDY)


def _convolution(axes: int, *, transposed: bool = False) -> Callable[[_Layer, _Bin], dict[str, LazyTensor]]:
    """Readers of convolutions: (out, in / groups, *kernel); those of transposed ones turn (out, in) to (in, out)."""

    def read(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
        outputs, size, groups = layer.integer(0), layer.integer(6), layer.integer(7, 1)
        width = layer.integer(1)
        kernel = (layer.integer(21, width), layer.integer(11, width), width)[3 - axes :]
        if layer.integer(19 if not transposed else 28):
            return {}  # the weights are computed
        _positive(layer, outputs, size, groups, *kernel)
        inputs, rest = divmod(size, outputs * math.prod(kernel))
        if rest or outputs % groups:
            _positive(layer, 0)
        found = {"weight": weights.flagged(size, (outputs, inputs, *kernel))}
        if layer.integer(5):
            found["bias"] = weights.plain(outputs)
        term = layer.integer(8)
        if term:
            many = groups if "DepthWise" in layer.type else outputs
            scales = weights.plain(1 if term in (2, 102) else many)
            weights.plain(1)
            if term > 100:
                weights.plain(1)
            found["weight"] = _dequantised(found["weight"], scales)
        if transposed:
            split = (groups, outputs // groups, inputs, *kernel)
            grouped = replace(found["weight"], shape=split)
            order = (0, 2, 1, *range(3, 3 + axes))
            found["weight"] = turned(grouped, order, (groups * inputs, outputs // groups, *kernel))
        return found

    return read


def _dequantised(weight: LazyTensor, scales: LazyTensor) -> LazyTensor:
    """int8 codes over the scale of their output; other values as they are."""
    if weight.dtype != "int8":
        return weight
    shape = weight.shape
    count = math.prod(scales.shape)
    if shape[0] % count:
        raise WeightsError(f"{shape[0]} outputs have {count} scales", _REMEDY)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        factors = np.repeat(scales.values().astype(np.float32), shape[0] // count)[start:stop]
        width = math.prod(shape[1:])
        codes = np.frombuffer(weight.span(start * width, stop * width), np.int8).astype(np.float32)
        with np.errstate(all="ignore"):
            values = codes.reshape(stop - start, -1) / factors[:, None]
        return values.reshape(stop - start, *shape[1:])

    return computed("float32", shape, rows, precision="int8 ncnn", stored=weight.bytes + scales.bytes)


def _inner_product(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    outputs, size = layer.integer(0), layer.integer(2)
    _positive(layer, outputs, size)
    if size % outputs:
        _positive(layer, 0)
    found = {"weight": weights.flagged(size, (outputs, size // outputs))}
    if layer.integer(1):
        found["bias"] = weights.plain(outputs)
    if layer.integer(8):
        scales = weights.plain(outputs)
        weights.plain(1)
        found["weight"] = _dequantised(found["weight"], scales)
    return found


def _embed(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    width, many, size = layer.integer(0), layer.integer(1), layer.integer(3)
    _positive(layer, width, many, size)
    if width * many != size:
        _positive(layer, 0)
    found = {"weight": weights.flagged(size, (many, width))}
    if layer.integer(2):
        found["bias"] = weights.plain(width)
    if layer.integer(18):
        found["weight"] = _dequantised(found["weight"], weights.plain(1))
    return found


def _vectors(leaves: tuple[str, ...], key: int, *, switch: int | None = None) -> Callable[..., dict[str, LazyTensor]]:
    """Readers of layers of vectors whose length is the setting ``key``; none where the ``switch`` is 0."""

    def read(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
        if switch is not None and not layer.integer(switch, 1):
            return {}
        count = layer.integer(key)
        _positive(layer, count)
        return {leaf: weights.plain(count) for leaf in leaves}

    return read


def _scale(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    count = layer.integer(0)
    if count == -233:
        return {}  # it takes its scale from another layer
    _positive(layer, count)
    found = {"weight": weights.plain(count)}
    if layer.integer(1):
        found["bias"] = weights.plain(count)
    return found


def _skipped(counts: Mapping[int, int]) -> Callable[..., dict[str, LazyTensor]]:
    """Readers of layers whose numbers are no weights: scales of activations, values to pad with.

    ``counts``: the settings that say how many there are, and what they are if they are not given.
    """

    def read(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
        for key, default in counts.items():
            weights.plain(max(0, layer.integer(key, default)))
        return {}

    return read


def _memory(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    """A constant of the network; what it is for is not known, so that it is no weight."""
    extents = [extent for key in (0, 1, 11, 2) if (extent := layer.integer(key))]
    count = math.prod(extents)
    _positive(layer, count)
    if layer.integer(21, 1) == 0:
        weights.flagged(count)
    else:
        weights.plain(count)
    return {}


def _gemm(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    """A product of matrices of which one may be constant: B is (k, n), or with transB (n, k); C a bias."""
    rows, columns, inner = layer.integer(7), layer.integer(8), layer.integer(9)
    found: dict[str, LazyTensor] = {}
    for key, turn, outputs in ((4, not layer.integer(2), rows), (5, bool(layer.integer(3)), columns)):
        if not layer.integer(key):
            continue
        _positive(layer, outputs, inner)
        matrix = weights.flagged(outputs * inner, (outputs, inner) if turn else (inner, outputs))
        found["weight" if "weight" not in found else "other"] = matrix if turn else turned(matrix, (1, 0))
    kind = layer.integer(10)
    if layer.integer(6) and kind != -1:
        counts = {0: 1, 1: rows, 2: rows, 3: rows * columns, 4: columns}
        _positive(layer, counts.get(kind, 0))
        found["bias"] = weights.flagged(counts[kind])
    if layer.integer(18):
        raise WeightsError(f"layer {layer.name[:80]!r} is a Gemm in int8, which is not known here", _FLOAT_REMEDY)
    return found


_FLOAT_REMEDY = "ingest the model before it was quantised"


def _attention(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
    """Four projections with biases: q, k, v and out, each (out, in)."""
    width, size = layer.integer(0), layer.integer(2)
    _positive(layer, width, size)
    own = size // width
    inputs = {"q_proj": own, "k_proj": layer.integer(3, width), "v_proj": layer.integer(4, width), "out_proj": width}
    found: dict[str, LazyTensor] = {}
    if layer.integer(18):
        raise WeightsError(f"layer {layer.name[:80]!r} is an attention in int8, which is not known here", _FLOAT_REMEDY)
    for leaf, count in inputs.items():
        outputs = own if leaf == "out_proj" else width
        _positive(layer, count, outputs)
        found[f"{leaf}.weight"] = weights.flagged(outputs * count, (outputs, count))
        found[f"{leaf}.bias"] = weights.plain(outputs)
    return found


def _recurrent(gates: tuple[int, ...], biases: int) -> Callable[..., dict[str, LazyTensor]]:
    """Readers of LSTM (gates i f o g), GRU (r z n, with four biases) and RNN, by direction."""

    def read(layer: _Layer, weights: _Bin) -> dict[str, LazyTensor]:
        outputs, size = layer.integer(0), layer.integer(1)
        hidden = layer.integer(3, outputs) if layer.type == "LSTM" else outputs
        ways, count = 2 if layer.integer(2) == 2 else 1, len(gates)
        _positive(layer, outputs, size, hidden)
        inputs, rest = divmod(size, ways * hidden * count)
        if rest or layer.integer(8):
            raise WeightsError(f"layer {layer.name[:80]!r} is a {layer.type} in int8 or of no size", _FLOAT_REMEDY)
        parts = [weights.flagged(ways * hidden * count * inputs, (ways, count, hidden, inputs))]
        parts.append(weights.flagged(ways * biases * hidden, (ways, biases, hidden)))
        parts.append(weights.flagged(ways * hidden * count * outputs, (ways, count, hidden, outputs)))
        if outputs != hidden:
            parts.append(weights.flagged(ways * outputs * hidden, (ways, 1, outputs, hidden)))
        found: dict[str, LazyTensor] = {}
        for way in range(ways):
            mark = "_l0_reverse" if way else "_l0"
            order = gates if biases == count else tuple(range(biases))
            for part, leaf, chosen in zip(
                parts, ("weight_ih", "bias", "weight_hh", "weight_hr"), (gates, order, gates, (0,)), strict=False
            ):
                shape = (len(chosen) * part.shape[2], *part.shape[3:])
                found[f"{leaf}{mark}"] = _direction(part, way, chosen, shape)
        return found

    return read


def _direction(part: LazyTensor, way: int, gates: tuple[int, ...], shape: tuple[int, ...]) -> LazyTensor:
    """The gates of one direction of a tensor (directions, gates, ...), in that order."""
    width = bits_of(part.dtype) // 8

    def span(start: int, stop: int) -> memoryview:
        stored = np.frombuffer(part.span(0, part.bytes), f"V{width}").reshape(part.shape)
        data: memoryview = np.ascontiguousarray(stored[way][list(gates)]).reshape(-1).view(np.uint8).data
        return data[start:stop]

    return replace(part, shape=shape, span=span, whole=True)


_READERS: dict[str, Callable[[_Layer, _Bin], dict[str, LazyTensor]]] = {
    "Convolution": _convolution(2), "ConvolutionDepthWise": _convolution(2), "Convolution1D": _convolution(1),
    "ConvolutionDepthWise1D": _convolution(1), "Convolution3D": _convolution(3),
    "ConvolutionDepthWise3D": _convolution(3), "DeformableConv2D": _convolution(2),
    "Deconvolution": _convolution(2, transposed=True), "DeconvolutionDepthWise": _convolution(2, transposed=True),
    "Deconvolution1D": _convolution(1, transposed=True), "DeconvolutionDepthWise1D": _convolution(1, transposed=True),
    "Deconvolution3D": _convolution(3, transposed=True), "DeconvolutionDepthWise3D": _convolution(3, transposed=True),
    "InnerProduct": _inner_product, "Embed": _embed, "Scale": _scale, "Bias": _vectors(("bias",), 0),
    "BatchNorm": _vectors(("weight", "running_mean", "running_var", "bias"), 0), "PReLU": _vectors(("weight",), 0),
    "InstanceNorm": _vectors(("weight", "bias"), 0, switch=2), "GroupNorm": _vectors(("weight", "bias"), 1, switch=3),
    "LayerNorm": _vectors(("weight", "bias"), 0, switch=2), "RMSNorm": _vectors(("weight",), 0, switch=2),
    "Normalize": _vectors(("weight",), 3), "Quantize": _skipped({0: 1}), "Dequantize": _skipped({0: 1, 1: 0}),
    "Requantize": _skipped({0: 1, 1: 1, 2: 0}), "Padding": _skipped({6: 0}), "MemoryData": _memory, "Gemm": _gemm,
    "MultiHeadAttention": _attention, "LSTM": _recurrent((0, 1, 3, 2), 4), "GRU": _recurrent((0, 1, 2), 4),
    "RNN": _recurrent((0,), 1),
}  # fmt: skip


SOURCE = Source(name="ncnn", open=open_ncnn, headers=True, ranges=True)
