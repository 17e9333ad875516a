"""Constants of an OpenVINO model, and the values that its graph computes from constants alone.

Compression of weights is undone: ``Const -> Convert -> Subtract -> Multiply`` of integers, with one scale an output or
a group, and ``FakeQuantize``. Sources: "Operation Sets" of OpenVINO's documentation (Convert, FakeQuantize, element
types), the weight compression of NNCF, and "QLoRA" (arXiv:2305.14314), appendix E, for the values of NF4.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_file, turned
from registry.sources.formats.onnx.node_names import own_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.formats.openvino_graph import Body, Graph, Layer

__all__ = ["Constant", "Constants", "Scope", "parameter_name"]

_REMEDY = "convert the model again with OpenVINO"
_MAX_STEPS = 16  # between a stored constant and its use
_DTYPES = {
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "boolean": "bool",
    "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64",
    "u64": "uint64", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
}  # fmt: skip
_PACKED = {"u4": "uint4", "i4": "int4", "nf4": "nf4"}  # two values a byte, the lower half first
_NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip


class Constant(NamedTuple):
    """A value that is known before the network runs.

    ``name``: that of the stored constant. ``key``: what tells it from others; equal for constants that share their
    bytes. ``direct``: its axes are in the order in which they are stored.
    """

    tensor: LazyTensor
    name: str
    key: tuple[object, ...]
    direct: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        return self.tensor.shape


class Scope:
    """A graph, or one within a layer. ``outer`` and ``layer``: where that is, and which of its bodies it is."""

    def __init__(self, graph: Graph, outer: Scope | None = None, layer: Layer | None = None, body: Body | None = None):
        self.graph = graph
        self.outer = outer
        self.layer = layer
        self.body = body
        self.uses: dict[int, list[tuple[Layer, int]]] = {}
        for each in graph.layers.values():
            for place, port in enumerate(each.ports):
                if port in each.sources:
                    self.uses.setdefault(each.sources[port][0], []).append((each, place))

    def producer(self, layer: Layer, place: int) -> tuple[Scope, Layer] | None:
        """The layer that gives an input, also through what is the same in each round of a loop."""
        source = layer.source(place)
        found = None if source is None else self.graph.layers.get(source[0])
        return None if found is None else self.resolved(found)

    def resolved(self, layer: Layer) -> tuple[Scope, Layer]:
        """A layer; for a parameter of a body, the one outside that gives it."""
        scope: Scope = self
        for _ in range(_MAX_STEPS):
            if layer.op != "Parameter" or scope.outer is None or scope.layer is None or scope.body is None:
                break
            source = scope.layer.sources.get(scope.body.same.get(layer.number, -1))
            given = None if source is None else scope.outer.graph.layers.get(source[0])
            if given is None:
                break
            scope, layer = scope.outer, given
        return scope, layer

    def after(self, layer: Layer) -> list[tuple[Layer, int]]:
        """The layers that take what a layer gives, each with the place of the input."""
        return self.uses.get(layer.number, [])


def parameter_name(name: str) -> str:
    """The name of torch's parameter that a constant's name is; empty of one that OpenVINO made up."""
    name = name.removesuffix("_compressed")
    if name.startswith("self."):
        return name.removeprefix("self.")
    found = own_name(name)
    return found if "." in found else ""


class Constants:
    """The constants of a model, whose values are in ``weights``."""

    def __init__(self, weights: ByteSource) -> None:
        self.weights = weights
        self._known: dict[tuple[int, int], Constant | None] = {}

    def input(self, scope: Scope, layer: Layer, place: int) -> Constant | None:
        """The constant at an input; None if it is none."""
        found = scope.producer(layer, place)
        return None if found is None else self.find(*found)

    def find(self, scope: Scope, layer: Layer, steps: int = 0) -> Constant | None:
        """What a layer gives, if it is known before the network runs."""
        if steps > _MAX_STEPS:
            return None
        key = (id(scope.graph), layer.number)
        if key not in self._known:
            self._known[key] = None  # for a graph that goes in a circle
            self._known[key] = self._find(scope, layer, steps)
        return self._known[key]

    def _find(self, scope: Scope, layer: Layer, steps: int) -> Constant | None:
        if layer.op == "Const":
            return self._stored(layer)
        step = _STEPS.get(layer.op)
        if step is None:
            return None
        given: list[Constant] = []
        for place in range(len(layer.ports)):
            found = scope.producer(layer, place)
            value = None if found is None else self.find(*found, steps + 1)
            if value is None:
                return None
            given.append(value)
        tensor = step(layer, given) if given else None
        if tensor is None:
            return None
        # Of codes and scales, the first with matrices is the weight; its name is the parameter's.
        own = next((each for each in given if len(each.shape) > 1), given[0])
        direct = own.direct and layer.op not in ("Transpose", "Unsqueeze")
        if tensor is own.tensor:
            return own
        return Constant(tensor, own.name, (layer.op, *(each.key for each in given)), direct)

    def integers(self, scope: Scope, layer: Layer, place: int) -> list[int] | None:
        """The few integers at an input; None if they are not known."""
        value = self.input(scope, layer, place)
        return None if value is None else _integers(value)

    def _stored(self, layer: Layer) -> Constant | None:
        kind = layer.settings.get("element_type", "")
        if kind not in _DTYPES and kind not in _PACKED:
            return None
        shape = tuple(_number(layer, text) for text in layer.settings.get("shape", "").split(",") if text.strip())
        offset, size = (_number(layer, layer.settings.get(key, "")) for key in ("offset", "size"))
        if kind in _PACKED:
            count = math.prod(shape)
            codes = in_file(self.weights, offset, "uint8", (-(-count // 2),))
            tensor = _unpacked(codes, shape, kind)
            expected = codes.bytes
        else:
            tensor = in_file(self.weights, offset, _DTYPES[kind], shape)
            expected = tensor.bytes
        if size != expected:
            raise WeightsError(
                f"constant {layer.name[:80]!r} of shape {str(shape)[:80]} and type {kind} has {size} bytes", _REMEDY
            )
        if tensor.dtype.startswith("float8"):
            tensor = _as_float(tensor)
        return Constant(tensor, layer.name, (offset, kind, shape))


def _number(layer: Layer, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise WeightsError(f"constant {layer.name[:80]!r} has {text[:40]!r} where a number stands", _REMEDY)
    return int(text)


def _integers(value: Constant) -> list[int] | None:
    if value.tensor.dtype not in ("int64", "int32", "int8", "uint64", "uint32", "uint8") or math.prod(value.shape) > 64:
        return None
    return [int(each) for each in value.tensor.values().reshape(-1)]


def _unpacked(codes: LazyTensor, shape: tuple[int, ...], kind: str) -> LazyTensor:
    """Values of four bits."""
    count = math.prod(shape)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        stored = np.frombuffer(codes.span(0, codes.bytes), np.uint8)
        halves = np.empty(2 * stored.size, np.uint8)
        halves[::2], halves[1::2] = stored & 15, stored >> 4
        values: NDArray[np.generic] = halves[:count]
        if kind == "i4":
            values = ((values.astype(np.int8) ^ 8) - 8).astype(np.int8)
        elif kind == "nf4":
            values = _NF4[values]
        values = values.reshape(shape)
        return values[start:stop] if shape else values

    dtype = {"u4": "uint8", "i4": "int8", "nf4": "float32"}[kind]
    return computed(dtype, shape, rows, precision=f"{_PACKED[kind]} openvino", stored=codes.bytes, whole=True)


def _as_float(tensor: LazyTensor) -> LazyTensor:
    """Codes, or floating-point numbers of 8 bits, as float32."""
    if is_float(tensor.dtype):
        return tensor

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        values = tensor.values().astype(np.float32)
        return values[start:stop] if tensor.shape else values

    precision = tensor.precision or f"{tensor.dtype} openvino"
    return computed("float32", tensor.shape, rows, precision=precision, stored=_size(tensor), whole=True)


def _size(tensor: LazyTensor) -> int:
    return tensor.bytes if tensor.stored is None else tensor.stored


# Steps that make a value of constants. Each gives None where what it makes is not known.


def _same(_: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    return given[0].tensor


def _convert(layer: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    """Numbers keep the precision in which they are stored; codes become float32."""
    tensor = given[0].tensor
    target = _DTYPES.get(layer.settings.get("destination_type", ""), "")
    if is_float(target):
        return None if tensor.dtype in ("bool", "complex64", "complex128") else _as_float(tensor)
    return None if is_float(tensor.dtype) else tensor  # integers stay as they are, whatever their width


def _elementwise(function: Callable[..., NDArray[np.floating]]) -> Callable[..., LazyTensor | None]:
    """A step between numbers of which one has the shape of the result."""

    def step(_: Layer, given: Sequence[Constant]) -> LazyTensor | None:
        if len(given) != 2 or not all(is_float(each.tensor.dtype) for each in given):
            return None
        whole = max((each.shape for each in given), key=lambda shape: (len(shape), math.prod(shape)))
        if any(not _spreads(each.shape, whole) for each in given):
            return None
        parts = [each.tensor for each in given]

        def rows(start: int, stop: int) -> NDArray[np.generic]:
            taken = []
            for part in parts:
                values = part.values().astype(np.float32)
                cut = len(values.shape) == len(whole) and whole and values.shape[0] == whole[0]
                taken.append(values[start:stop] if cut else values)
            with np.errstate(all="ignore"):
                found: NDArray[np.generic] = function(*taken)
            count = stop - start
            return np.broadcast_to(found, (count, *whole[1:])) if whole else found.reshape(())

        coded = next((part for part in parts if part.precision), None)
        precision = "" if coded is None else coded.precision
        return computed("float32", whole, rows, precision=precision, stored=sum(map(_size, parts)), whole=True)

    return step


def _spreads(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an array of a shape is broadcast to the other one."""
    behind = whole[len(whole) - len(shape) :] if len(shape) <= len(whole) else ()
    return len(shape) <= len(whole) and all(a in (1, b) for a, b in zip(shape, behind, strict=True))


def _fake_quantise(layer: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    """FakeQuantize: numbers rounded to ``levels`` between two bounds, and mapped to two others."""
    levels = layer.settings.get("levels", "")
    if len(given) != 5 or not levels.isdecimal() or not 2 <= int(levels) <= 65536:
        return None
    if not all(is_float(each.tensor.dtype) and _spreads(each.shape, given[0].shape) for each in given):
        return None
    steps = np.float32(int(levels) - 1)
    source, shape = given[0].tensor, given[0].shape
    bounds = [each.tensor for each in given[1:]]

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        x = source.values().astype(np.float32)
        low, high, out_low, out_high = (each.values().astype(np.float32) for each in bounds)
        with np.errstate(all="ignore"):
            codes = np.rint((x - low) / (high - low) * steps)
            found = codes / steps * (out_high - out_low) + out_low
        found = np.where(x <= np.minimum(low, high), out_low, np.where(x > np.maximum(low, high), out_high, found))
        values: NDArray[np.generic] = np.broadcast_to(found, shape).astype(np.float32)
        return values[start:stop] if shape else values

    bits = (int(levels) - 1).bit_length()
    precision = source.precision or f"int{bits} openvino"
    return computed("float32", shape, rows, precision=precision, stored=_size(source), whole=True)


def _transpose(_: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    axes = _integers(given[1]) if len(given) == 2 else None
    count = len(given[0].shape)
    axes = list(range(count))[::-1] if axes == [] else axes
    return turned(given[0].tensor, axes) if axes is not None and sorted(axes) == list(range(count)) else None


def _reshape(layer: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    target = _integers(given[1]) if len(given) == 2 else None
    if target is None or any(extent < -1 for extent in target):
        return None
    shape = given[0].shape
    if layer.flag("special_zero"):
        target = [shape[i] if extent == 0 and i < len(shape) else extent for i, extent in enumerate(target)]
    if target.count(-1) == 1:
        rest = math.prod(extent for extent in target if extent != -1)
        target = [(math.prod(shape) // rest if rest else 0) if extent == -1 else extent for extent in target]
    return _shaped(given[0].tensor, target)


def _shaped(tensor: LazyTensor, shape: Sequence[int]) -> LazyTensor | None:
    fits = -1 not in shape and math.prod(shape) == math.prod(tensor.shape)
    return replace(tensor, shape=tuple(shape)) if fits else None


def _squeeze(_: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    axes = _integers(given[1]) if len(given) > 1 else []
    shape = given[0].shape
    if axes is None:
        return None
    places = {axis + len(shape) if axis < 0 else axis for axis in axes}
    return _shaped(given[0].tensor, [e for place, e in enumerate(shape) if (place not in places if axes else e != 1)])


def _unsqueeze(_: Layer, given: Sequence[Constant]) -> LazyTensor | None:
    axes = _integers(given[1]) if len(given) == 2 else None
    if axes is None:
        return None
    count = len(given[0].shape) + len(axes)
    places = {axis + count if axis < 0 else axis for axis in axes}
    if len(places) != len(axes) or any(not 0 <= place < count for place in places):
        return None
    rest = iter(given[0].shape)
    return _shaped(given[0].tensor, [1 if place in places else next(rest) for place in range(count)])


_STEPS: dict[str, Callable[[Layer, Sequence[Constant]], LazyTensor | None]] = {
    "Convert": _convert, "ConvertLike": _same, "Subtract": _elementwise(np.subtract),
    "Multiply": _elementwise(np.multiply), "FakeQuantize": _fake_quantise, "Transpose": _transpose,
    "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
}  # fmt: skip
