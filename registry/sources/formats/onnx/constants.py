"""Constants of a graph, followed back from the node that uses them to the tensors that are stored.

A weight may reach its node through steps that only lay it out, convert or dequantise it. These are followed without
reading anything: the tensor that results is computed when it is read. Source of the steps: "ONNX Operators", onnx.ai.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import decode_any, is_float
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_memory, turned
from registry.sources.formats.onnx.tensor_headers import Stored, integers_of, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.sources.files.companions import Companions
    from registry.sources.formats.onnx.model import Attribute, Graph, Model, Node

__all__ = ["Constant", "Constants", "Scope", "dequantised", "scaled"]

_MAX_STEPS = 48  # between a stored tensor and the node that uses it
_MAX_HOPS = 200  # from a name within functions to what it stands for
_ARITHMETIC: dict[str, Callable[..., NDArray[np.floating]]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
}  # fmt: skip
_REMEDY = "export the model again"


@dataclass(slots=True, eq=False)
class Scope:
    """Where names of values hold: a graph, or the body of a function in one of its calls.

    ``formals``: the body's inputs and what they stand for outside. ``calls``: outputs of calls and what they are
    inside. ``call``: the node that calls.
    """

    graph: Graph
    parent: Scope | None = None
    call: tuple[Scope, Node] | None = None
    formals: dict[str, tuple[Scope, str]] = field(default_factory=dict)
    calls: dict[str, tuple[Scope, str]] = field(default_factory=dict)
    producers: dict[str, tuple[Node, int]] = field(default_factory=dict)
    consumers: dict[str, list[Node]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            for number, name in enumerate(node.outputs):
                if name:
                    self.producers[name] = (node, number)
            for name in node.inputs:
                if name:
                    self.consumers.setdefault(name, []).append(node)
        self.names = frozenset(self.graph.inputs)

    def place(self, name: str) -> tuple[Scope, str]:
        """The scope in which a name is made, and its name there."""
        scope: Scope = self
        for _ in range(_MAX_HOPS):
            owner: Scope | None = scope
            while owner is not None:
                if name in owner.formals:
                    scope, name = owner.formals[name]
                    break
                if name in owner.calls:
                    scope, name = owner.calls[name]
                    break
                if name in owner.producers or name in owner.graph.tensors or name in owner.names:
                    return owner, name
                owner = owner.parent
            else:
                return scope, name
        raise UnsafeError("a model passes a value through too many functions", _REMEDY)

    def attribute(self, node: Node, name: str) -> Attribute | None:
        """A setting of a node, or of the call of the function that stands for it."""
        found = node.attribute(name)
        scope = self
        for _ in range(_MAX_HOPS):
            if found is None or not found.refers or scope.call is None:
                break
            scope, caller = scope.call
            found = caller.attribute(found.refers)
        return found

    def integer(self, node: Node, name: str, default: int = 0) -> int:
        """An integer among a node's settings."""
        found = self.attribute(node, name)
        return default if found is None else found.integer


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is known before a network runs. ``name``, ``key``: those of the tensor that it is made of.

    ``direct``: it is the stored tensor itself. ``steps``: how many operations made it of that.
    """

    tensor: LazyTensor
    name: str
    key: int
    direct: bool = True
    steps: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.tensor.shape

    def made(self, tensor: LazyTensor) -> Constant:
        """The constant that a step makes of it."""
        return replace(self, tensor=tensor, direct=False, steps=self.steps + 1)


class Constants:
    """Finds constants by name."""

    def __init__(self, model: Model, companions: Companions) -> None:
        self._message = model.message
        self._companions = companions
        self._known: dict[tuple[int, str], Constant | None] = {}
        self._scopes: list[Scope] = []  # which keeps their identities

    def tensor(self, stored: Stored) -> LazyTensor:
        """The tensor of a header."""
        return tensor_of(stored, self._message, self._companions)

    def find(self, scope: Scope, name: str, depth: int = 0) -> Constant | None:
        """The constant of that name; None where it is computed from the network's input, or in a way not followed.

        Raises
        ------
        WeightsError
            A step has settings that do not fit the tensor.
        """
        if not name or depth > _MAX_STEPS:
            return None
        scope, name = scope.place(name)
        at = (id(scope), name)
        if at not in self._known:
            self._scopes.append(scope)
            self._known[at] = None  # of a circle
            self._known[at] = self._find(scope, name, depth)
        return self._known[at]

    def _find(self, scope: Scope, name: str, depth: int) -> Constant | None:
        stored = scope.graph.tensors.get(name)
        if stored is not None:
            return None if stored.dtype == "string" else Constant(self.tensor(stored), name, stored.key)
        if name not in scope.producers:
            return None
        node, number = scope.producers[name]
        if number or node.domain not in ("", "com.microsoft"):
            return None
        if node.op == "Constant":
            return self._constant(scope, node, name)
        if node.op in _ARITHMETIC:
            return self._arithmetic(scope, node, depth)
        step = _STEPS.get(node.op)
        if step is None:
            return None
        first = self.find(scope, node.input(0), depth + 1)
        if first is None or first.steps >= _MAX_STEPS:
            return None
        made = step(self, scope, node, first)
        if made is None:
            return None
        if node.op == "Identity":  # torch stores equal tensors once, and names the others so
            return replace(first, name=name, steps=first.steps + 1)
        return first.made(made) if made is not first.tensor else first

    def _constant(self, scope: Scope, node: Node, name: str) -> Constant | None:
        for key in ("value", "sparse_value"):
            found = scope.attribute(node, key)
            if found is not None and found.tensor is not None and found.tensor.dtype != "string":
                return Constant(self.tensor(found.tensor), name, found.tensor.key)
        floats = scope.attribute(node, "value_floats")
        integers = scope.attribute(node, "value_ints")
        one, whole = scope.attribute(node, "value_float"), scope.attribute(node, "value_int")
        if floats is not None:
            return Constant(in_memory(np.array(floats.numbers, np.float32)), name, node.place)
        if integers is not None:
            return Constant(in_memory(np.array(integers.integers, np.int64)), name, node.place)
        if one is not None:
            return Constant(in_memory(np.array(one.number, np.float32)), name, node.place)
        return None if whole is None else Constant(in_memory(np.array(whole.integer, np.int64)), name, node.place)

    def integers(self, scope: Scope, name: str) -> list[int] | None:
        """The values of a constant shape or list of axes."""
        found = self.find(scope, name)
        return None if found is None else integers_of(found.tensor)

    def _arithmetic(self, scope: Scope, node: Node, depth: int) -> Constant | None:
        """An elementwise step of two constants whose result has the shape of one of them."""
        one = self.find(scope, node.input(0), depth + 1)
        two = self.find(scope, node.input(1), depth + 1)
        if one is None or two is None:
            return None
        large, small = (one, two) if math.prod(one.shape) >= math.prod(two.shape) else (two, one)
        if not _fits(small.shape, large.shape) or large.steps >= _MAX_STEPS:
            return None
        operation = _ARITHMETIC[node.op]
        kind = "float64" if "float64" in (one.tensor.dtype, two.tensor.dtype) else "float32"

        def rows(start: int, stop: int) -> NDArray[np.generic]:
            with np.errstate(all="ignore"):
                values = operation(one.tensor.values().astype(kind), two.tensor.values().astype(kind))
            return values.reshape(large.shape)[start:stop] if large.shape else values

        if not is_float(one.tensor.dtype) and not is_float(two.tensor.dtype):
            return None
        stored = sum(t.bytes if t.stored is None else t.stored for t in (one.tensor, two.tensor))
        precision = large.tensor.precision
        return large.made(computed(kind, large.shape, rows, precision=precision, stored=stored, whole=True))


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether a shape is spread to another by NumPy's rules without making that one larger."""
    return len(small) <= len(large) and all(a in (1, b) for a, b in zip(small[::-1], large[::-1], strict=False))


def _rows(tensor: LazyTensor, start: int, stop: int) -> NDArray[np.generic]:
    """Indices of the first axis of a tensor."""
    if tensor.whole or not tensor.shape or not tensor.shape[0]:
        values = tensor.values()
        return values[start:stop] if tensor.shape else values
    width = tensor.bytes // tensor.shape[0]
    return decode_any(tensor.span(start * width, stop * width), tensor.dtype, (stop - start, *tensor.shape[1:]))


def dequantised(
    codes: LazyTensor, scale: LazyTensor, zero: LazyTensor | None, axis: int, block: int = 0, where: str = "a tensor"
) -> LazyTensor:
    """(codes - zero) * scale, float32: for the whole tensor, for each index of an axis, or for blocks along it.

    Parameters
    ----------
    codes
        Integers, or floating-point numbers of 8 bits.
    scale, zero
        Of shape () or (1,), of shape (n,) with n indices along ``axis``, or of the shape of ``codes`` with one value a
        block along ``axis``.
    axis
        As `numpy` counts axes.
    block
        Values of one block; 0: as many as fit.

    Raises
    ------
    WeightsError
        The shapes do not fit.
    """
    shape = codes.shape
    count = math.prod(scale.shape)
    axis = axis + len(shape) if axis < 0 else axis
    if count != 1 and not 0 <= axis < len(shape):
        raise _misfit(where, shape, scale.shape)
    if zero is not None and math.prod(zero.shape) not in (1, count):
        raise _misfit(where, shape, zero.shape)
    blocked = len(scale.shape) == len(shape) > 1 and count != 1
    if blocked:
        others = all(a == b for place, (a, b) in enumerate(zip(scale.shape, shape, strict=True)) if place != axis)
        block = block or -(-shape[axis] // max(1, scale.shape[axis]))
        if not others or block < 1 or scale.shape[axis] != -(-shape[axis] // block):
            raise _misfit(where, shape, scale.shape)
    elif count != 1 and (len(scale.shape) != 1 or count != shape[axis]):
        raise _misfit(where, shape, scale.shape)
    spread = tuple(count if place == axis else 1 for place in range(len(shape)))

    def along(tensor: LazyTensor, start: int, stop: int) -> NDArray[np.floating]:
        values = tensor.values().astype(np.float32)
        if values.size == 1:
            return values.reshape(())
        if not blocked:
            values = values.reshape(spread)
            return values[start:stop] if axis == 0 else values
        values = values.reshape(scale.shape)
        if axis:
            return np.repeat(values[start:stop], block, axis)[(slice(None),) * axis + (slice(0, shape[axis]),)]
        return values[np.arange(start, stop) // block]

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        values = _rows(codes, start, stop).astype(np.float32)
        with np.errstate(all="ignore"):
            if zero is not None:
                values -= along(zero, start, stop)
            values *= along(scale, start, stop)
        return values

    stored = sum(t.bytes if t.stored is None else t.stored for t in (codes, scale, zero) if t is not None)
    name = (codes.precision or codes.dtype).removesuffix(" onnx")
    return computed("float32", shape, rows, precision=f"{name} onnx", stored=stored, whole=codes.whole)


def scaled(codes: LazyTensor, scale: LazyTensor, other: LazyTensor) -> LazyTensor:
    """Integers of a bias times the scales of input and weight, of shape () or that of the integers: float32."""

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        with np.errstate(all="ignore"):
            factor = scale.values().astype(np.float32).reshape(-1) * other.values().astype(np.float32).reshape(-1)
            part = factor if factor.size == 1 else factor[start:stop]
            values: NDArray[np.generic] = _rows(codes, start, stop).astype(np.float32) * part
        return values

    count = math.prod(codes.shape)
    if len(codes.shape) != 1 or any(math.prod(t.shape) not in (1, count) for t in (scale, other)):
        raise _misfit("a bias", codes.shape, scale.shape)
    return computed("float32", codes.shape, rows, precision=f"{codes.dtype} onnx", stored=codes.bytes)


def _misfit(where: str, shape: tuple[int, ...], scale: tuple[int, ...]) -> WeightsError:
    return WeightsError(f"{where} of shape {str(shape)[:80]} has scales of shape {str(scale)[:80]}", _REMEDY)


# Steps that make a tensor of one that is stored. Each gives None where its settings are not constant.


def _same(_: Constants, __: Scope, ___: Node, value: Constant) -> LazyTensor:
    return value.tensor


def _cast(_: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    """Numbers keep the precision in which they are stored; codes become float32."""
    found = scope.attribute(node, "to")
    target = 0 if found is None else found.integer
    tensor = value.tensor
    if target not in (1, 10, 11, 16):
        return tensor if target in (6, 7) and not is_float(tensor.dtype) else None
    if is_float(tensor.dtype):
        return tensor
    if tensor.dtype in ("bool", "complex64", "complex128"):
        return None
    name = tensor.precision or tensor.dtype
    return computed(
        "float32",
        tensor.shape,
        lambda start, stop: _rows(tensor, start, stop).astype(np.float32),
        precision=f"{name} onnx",
        stored=tensor.bytes if tensor.stored is None else tensor.stored,
        whole=tensor.whole,
    )


def _transpose(_: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    count = len(value.shape)
    found = scope.attribute(node, "perm")
    axes = tuple(range(count))[::-1] if found is None else tuple(found.integers)
    if sorted(axes) != list(range(count)):
        raise WeightsError(f"a transposition of {value.name[:80]!r} has no such axes: {str(axes)[:80]}", _REMEDY)
    return turned(value.tensor, axes)


def _reshaped(value: Constant, shape: tuple[int, ...]) -> LazyTensor:
    if any(extent < 0 for extent in shape) or math.prod(shape) != math.prod(value.shape) or len(shape) > 64:
        raise WeightsError(
            f"{value.name[:80]!r} of shape {str(value.shape)[:80]} cannot be given the shape {str(shape)[:80]}", _REMEDY
        )
    return replace(value.tensor, shape=shape)


def _reshape(constants: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    target = constants.integers(scope, node.input(1))
    if target is None and (old := scope.attribute(node, "shape")) is not None:
        target = old.integers  # before opset 5
    if target is None:
        return None
    if not scope.integer(node, "allowzero"):
        target = [value.shape[i] if e == 0 and i < len(value.shape) else e for i, e in enumerate(target)]
    if target.count(-1) == 1:
        rest = math.prod(extent for extent in target if extent != -1)
        count = math.prod(value.shape)
        target = [(count // rest if rest > 0 else 0) if extent == -1 else extent for extent in target]
    return _reshaped(value, tuple(target))


def _axes(constants: Constants, scope: Scope, node: Node) -> list[int] | None:
    """Axes given as an input, or before opset 13 as a setting."""
    if node.input(1):
        return constants.integers(scope, node.input(1))
    found = scope.attribute(node, "axes")
    return [] if found is None else found.integers


def _unsqueeze(constants: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    axes = _axes(constants, scope, node)
    if axes is None:
        return None
    count = len(value.shape) + len(axes)
    places = {axis + count if axis < 0 else axis for axis in axes}
    if len(places) != len(axes) or any(not 0 <= place < count for place in places):
        raise WeightsError(f"{value.name[:80]!r} is given axes that it has not: {str(axes)[:80]}", _REMEDY)
    rest = iter(value.shape)
    return _reshaped(value, tuple(1 if place in places else next(rest) for place in range(count)))


def _squeeze(constants: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    axes = _axes(constants, scope, node)
    if axes is None:
        return None
    count = len(value.shape)
    places = {axis + count if axis < 0 else axis for axis in axes}
    kept = tuple(e for place, e in enumerate(value.shape) if (place not in places if axes else e != 1))
    return _reshaped(value, kept)


def _flatten(_: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    axis = scope.integer(node, "axis", 1)
    axis = axis + len(value.shape) if axis < 0 else axis
    return _reshaped(value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def _dequantise(constants: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    scale = constants.find(scope, node.input(1))
    zero = constants.find(scope, node.input(2)) if node.input(2) else None
    if scale is None or (node.input(2) and zero is None):
        return None
    axis, block = scope.integer(node, "axis", 1), scope.integer(node, "block_size")
    return dequantised(
        value.tensor, scale.tensor, None if zero is None else zero.tensor, axis, block, repr(value.name[:80])
    )


def _quantise(constants: Constants, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
    """Codes of a weight that is stored as float32 and rounded when the network runs, by tensor or axis."""
    scale = constants.find(scope, node.input(1))
    zero = constants.find(scope, node.input(2)) if node.input(2) else None
    if scale is None or zero is None or zero.tensor.dtype not in ("int8", "uint8", "int16", "uint16"):
        return None
    count, shape = math.prod(scale.shape), value.shape
    axis = scope.integer(node, "axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    if zero.shape != scale.shape or (
        count != 1 and not (0 <= axis < len(shape) and scale.shape == shape[axis : axis + 1])
    ):
        return None
    spread = tuple(count if place == axis else 1 for place in range(len(shape)))
    kind = zero.tensor.dtype
    limits = np.iinfo(kind)
    source, tensor, zeros = value.tensor, scale.tensor, zero.tensor

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        with np.errstate(all="ignore"):
            steps = np.rint(source.values().astype(np.float32) / tensor.values().astype(np.float32).reshape(spread))
            codes = np.clip(steps + zeros.values().astype(np.float32).reshape(spread), limits.min, limits.max)
        values: NDArray[np.generic] = np.nan_to_num(codes).astype(kind)
        return values[start:stop]

    return computed(kind, shape, rows, whole=True)


_STEPS: dict[str, Callable[[Constants, Scope, Node, Constant], LazyTensor | None]] = {
    "Identity": _same, "Cast": _cast, "CastLike": _same, "Dropout": _same, "Transpose": _transpose,
    "Reshape": _reshape, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Flatten": _flatten,
    "DequantizeLinear": _dequantise, "QuantizeLinear": _quantise,
}  # fmt: skip
