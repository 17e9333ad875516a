"""The weights of an ML program: constants by the part that they play in the operation that uses them.

Operations and their inputs are those of coremltools' ``converters/mil/mil/ops/defs``; messages those of ``MIL.proto``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.dtypes import is_float
from registry.sources.files.lazy_tensors import regated, turned
from registry.sources.formats.coreml.compressed_constants import EXPANDED
from registry.sources.formats.coreml.stored_values import REMEDY, program_value

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from registry.sources.files.companions import Companions
    from registry.sources.files.lazy_tensors import LazyTensor
    from registry.sources.files.wire import Message
    from registry.sources.formats.coreml.entered_weights import Entered

__all__ = ["read_program"]

_MAX_OPERATIONS = 250_000
_MAX_BINDINGS = 4096  # of one operation
_MAX_DEPTH = 16  # of blocks within blocks, and of constants made of constants
_MAX_NAME = 4096
_MAX_TEXT = 256 * 2**20
# Inputs that are weights, by operation: input, last part of the name.
_AFFINE = (("weight", "weight"), ("bias", "bias"))
_NORM = (("gamma", "weight"), ("beta", "bias"))
_INPUTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "conv": _AFFINE, "conv_transpose": _AFFINE, "linear": _AFFINE, "conv_quantized": _AFFINE,
    "batch_norm": (*_NORM, ("mean", "running_mean"), ("variance", "running_var")),
    "instance_norm": _NORM, "layer_norm": _NORM, "prelu": (("alpha", "weight"),),
}  # fmt: skip
_RECURRENT = ("weight_ih", "weight_hh", "bias")
# Places of torch's gates: i f g o among i f o g of an LSTM, r z n among r n z of a GRU.
_GATES = {"lstm": (0, 1, 3, 2), "gru": (0, 2, 1), "rnn": (0,)}
_VECTORS = {"mul": "scale", "add": "shift"}
# Operations whose constants of several axes are no weights: anchors, masks, grids, other shapes.
_PLAIN = frozenset({
    "add", "sub", "mul", "real_div", "floor_div", "maximum", "minimum", "pow", "mod", "select", "where", "concat",
    "stack", "pad", "tile", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "logical_and",
    "logical_or", "logical_xor", "reshape", "transpose", "expand_dims", "squeeze", "slice_by_index", "slice_by_size",
    "split", "gather_along_axis", "gather_nd", "scatter", "scatter_nd", "scatter_along_axis", "resample", "const",
    "while_loop", "cond", "quantize", "identity", "cast", "shape", "crop_resize", "one_hot", "range_1d", "fill",
    "scaled_dot_product_attention", "make_list", "list_write", "list_scatter", "band_part", "slice_update",
})  # fmt: skip
_PASSED = frozenset({"identity", "cast"})
_SUFFIX = re.compile(
    r"(?:_to_fp16|_to_fp32|_cast|_cast_fp16|_promoted|_quantized|_palettized|_sparsified|_dequantized|_depalettized"
    r"|_affine_quantized|_compressed|_\d+_to_fp16)+$"
)
_WEIGHT = re.compile(r"(.+)_(?:weight|weights|kernel|gamma|alpha|embeddings?)")


@dataclass(slots=True)
class _Binding:
    """What an input is given: a value by its name, or one that stands there."""

    name: str = ""
    value: Message | None = None


@dataclass(slots=True)
class _Operation:
    """An operation: its type, inputs, names of outputs, inner blocks, and attributes."""

    type: str = ""
    inputs: dict[str, list[_Binding]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    attributes: dict[str, Message] = field(default_factory=dict)


@dataclass(slots=True)
class _Block:
    """A block: names of its inputs and outputs, and its operations in their order."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    operations: list[_Operation] = field(default_factory=list)


class _Reader:
    """Reads blocks, and counts what they hold so that no file fills the memory."""

    def __init__(self) -> None:
        self.operations = 0
        self.text_bytes = 0

    def text(self, message: Message, number: int) -> str:
        found = next((each for each in message if each.number == number), None)
        if found is None:
            return ""
        self.text_bytes += found.size
        if self.text_bytes > _MAX_TEXT:
            raise UnsafeError(f"{message.file.name} has names of more than {_MAX_TEXT} bytes", REMEDY)
        return message.data(found, _MAX_NAME).decode("utf-8", "replace")

    def entries(self, message: Message, number: int) -> Iterator[tuple[str, Message]]:
        """Entries of a map."""
        for entry in message.messages(number):
            value = next(entry.messages(2), None)
            if value is not None:
                yield self.text(entry, 1), value

    def block(self, message: Message, depth: int) -> _Block:
        if depth > _MAX_DEPTH:
            raise UnsafeError(f"{message.file.name} nests blocks deeper than {_MAX_DEPTH} levels", REMEDY)
        found = _Block()
        for each in message:
            if each.number == 1:
                found.inputs.append(self.text(message.message(each), 1))
            elif each.number == 2:
                self.text_bytes += each.size
                found.outputs.append(message.data(each, _MAX_NAME).decode("utf-8", "replace"))
            elif each.number == 3:
                found.operations.append(self.operation(message.message(each), depth))
        return found

    def operation(self, message: Message, depth: int) -> _Operation:
        self.operations += 1
        if self.operations > _MAX_OPERATIONS:
            raise UnsafeError(f"{message.file.name} has more than {_MAX_OPERATIONS} operations", "split the model")
        found = _Operation(self.text(message, 1))
        count = 0
        for name, argument in self.entries(message, 2):
            bindings = found.inputs.setdefault(name, [])
            for binding in argument.messages(1):
                count += 1
                if count > _MAX_BINDINGS:
                    raise UnsafeError(f"{message.file.name} has an operation of too many inputs", REMEDY)
                bindings.append(_Binding(self.text(binding, 1), next(binding.messages(2), None)))
        found.outputs = [self.text(output, 1) for output in message.messages(3)]
        found.blocks = [self.block(inner, depth + 1) for inner in message.messages(4)]
        found.attributes = dict(self.entries(message, 5))
        return found


def read_program(
    program: Message, companions: Companions, entered: Entered, wanted: str | None
) -> tuple[list[Hashable], list[str]]:
    """Enter the weights of one function of a program. Nothing of them is read.

    Parameters
    ----------
    program
        The Program.
    companions
        The files beside the model.
    entered
        What takes them up.
    wanted
        The function; None: ``main``, or the first one.

    Returns
    -------
    tuple
        The values that the function gives, and the names of the other functions.

    Raises
    ------
    WeightsError
        The program has no function; a constant does not fit its use.
    NotFoundError
        It has no function of that name.
    UnsafeError
        It holds more than any network.
    """
    reader = _Reader()
    functions = dict(reader.entries(program, 2))
    if not functions:
        raise WeightsError(f"{program.file.name} has a program without functions", REMEDY)
    if wanted is not None and wanted not in functions:
        raise NotFoundError(
            f"{program.file.name} has no function {wanted!r}", f"functions: {', '.join(sorted(functions))[:200]}"
        )
    name = wanted or ("main" if "main" in functions else next(iter(functions)))
    function = functions[name]
    blocks = dict(reader.entries(function, 3))
    opset = reader.text(function, 2)
    if not blocks:
        raise WeightsError(f"{program.file.name}: function {name[:80]!r} has no operations", REMEDY)
    message = blocks.get(opset) or next(iter(blocks.values()))
    block = reader.block(message, 0)
    finder = _Finder(companions, entered)
    finder.walk(block, 0)
    return [(entered.prefix, output) for output in block.outputs], sorted(functions.keys() - {name})


class _Finder:
    def __init__(self, companions: Companions, entered: Entered) -> None:
        self.companions = companions
        self.entered = entered
        self.makers: dict[str, _Operation] = {}
        self.known: dict[str, LazyTensor | None] = {}

    def walk(self, block: _Block, depth: int) -> None:
        """Enter the weights that the operations of a block use."""
        for operation in block.operations:
            for name in operation.outputs:
                self.makers[name] = operation
            if operation.type == "const" or operation.type.startswith("constexpr_"):
                continue
            takes = [self._key(each.name) for bindings in operation.inputs.values() for each in bindings if each.name]
            for inner in operation.blocks:
                self.entered.step(takes, [self._key(name) for name in inner.inputs])
                self.walk(inner, depth + 1)
                takes += [self._key(name) for name in inner.outputs]
            names = self._names(operation)
            self.entered.step(takes, [self._key(name) for name in operation.outputs], names)

    def _key(self, name: str) -> Hashable:
        return (self.entered.prefix, name)

    # Constants

    def _constant(self, name: str, depth: int = 0) -> LazyTensor | None:
        """The constant of that name; None where it is computed from the network's input."""
        if name not in self.known:
            self.known[name] = None  # of a circle
            self.known[name] = self._made(name, depth)
        return self.known[name]

    def _made(self, name: str, depth: int) -> LazyTensor | None:
        maker = self.makers.get(name)
        if maker is None or depth > _MAX_DEPTH:
            return None
        if maker.type == "const":
            value = maker.attributes.get("val")
            return None if value is None else program_value(value, self.companions, name)
        if maker.type in _PASSED:
            source = maker.inputs.get("x", [])
            found = self._bound(source[0], name, depth + 1) if source else None
            return found if found is not None and is_float(found.dtype) else None
        step = EXPANDED.get(maker.type)
        if step is None:
            if maker.type.startswith("constexpr_"):
                raise WeightsError(
                    f"{self.entered.where}: {name[:80]!r} is compressed by {maker.type[:60]}, which is not read",
                    "ingest the model before it was compressed",
                )
            return None
        values: dict[str, LazyTensor] = {}
        for place, attribute in maker.attributes.items():  # of iOS 16
            given = program_value(attribute, self.companions, f"{name}.{place}")
            if given is not None:
                values[place] = given
        for place, bindings in maker.inputs.items():
            inner = self._bound(bindings[0], f"{name}.{place}", depth + 1) if bindings else None
            if inner is not None:
                values[place] = inner
            elif bindings and maker.type == "dequantize" and place == "input":
                return None  # of what the network computes
        return step(values)

    def _bound(self, binding: _Binding, name: str, depth: int = 0) -> LazyTensor | None:
        if binding.value is not None:
            return program_value(binding.value, self.companions, name)
        return self._constant(binding.name, depth)

    def _input(self, operation: _Operation, place: str) -> tuple[LazyTensor, str] | None:
        """The constant that an operation takes, of floating-point numbers, and its name; empty of one without."""
        bindings = operation.inputs.get(place, [])
        if len(bindings) != 1:
            return None
        found = self._bound(bindings[0], place)
        return None if found is None or not is_float(found.dtype) else (found, bindings[0].name)

    def _flag(self, operation: _Operation, place: str) -> bool:
        bindings = operation.inputs.get(place, [])
        found = self._bound(bindings[0], place) if bindings else None
        return found is not None and math.prod(found.shape) == 1 and bool(found.values().reshape(-1)[0])

    # Operations

    def _names(self, operation: _Operation) -> list[str]:
        """Enter the weights of an operation; their names."""
        if operation.type in _GATES:
            return self._recurrent(operation)
        if operation.type in _INPUTS:
            given = {leaf: self._input(operation, place) for place, leaf in _INPUTS[operation.type]}
            found = {leaf: each for leaf, each in given.items() if each is not None}
            if (
                "bias" in found
                and operation.type in ("conv", "conv_transpose", "linear")
                and self._is_zero(found["bias"])
            ):
                del found["bias"]  # the converter adds one to layers that have none
            return self._enter(operation, found)
        if operation.type == "matmul":
            return self._product(operation)
        if operation.type == "gather":
            table = self._input(operation, "x")
            return self._enter(operation, {"weight": table} if table is not None and len(table[0].shape) > 1 else {})
        if operation.type in _VECTORS:
            return self._vector(operation)
        if operation.type not in _PLAIN:
            for place, bindings in operation.inputs.items():
                for binding in bindings:
                    found_one = self._bound(binding, place)
                    if found_one is not None and is_float(found_one.dtype):
                        self.entered.left(
                            self._key(binding.name or f"{place}@{id(binding)}"), operation.type, found_one.shape
                        )
        return []

    def _is_zero(self, found: tuple[LazyTensor, str]) -> bool:
        tensor, _ = found
        return tensor.bytes <= 2**20 and not any(tensor.span(0, tensor.bytes))

    def _enter(self, operation: _Operation, found: Mapping[str, tuple[LazyTensor, str]]) -> list[str]:
        if not found:
            return []
        keys: dict[str, Hashable] = {leaf: self._key(name) for leaf, (_, name) in found.items() if name}
        return self.entered.put(self._head(operation, found), {leaf: each[0] for leaf, each in found.items()}, keys)

    def _head(self, operation: _Operation, found: Mapping[str, tuple[LazyTensor, str]]) -> str:
        """The module that an operation is, by the name of its weight as the converter kept it."""
        name = next((each[1] for leaf, each in found.items() if leaf == "weight"), "")
        match = _WEIGHT.fullmatch(_SUFFIX.sub("", name))
        return self.entered.head(match[1] if match else "", operation.type)

    def _product(self, operation: _Operation) -> list[str]:
        """A product with a constant: x B has B (in, out), A x has A (out, in), before either is transposed."""
        for place, left in (("y", False), ("x", True)):
            value = self._input(operation, place)
            if value is None or len(value[0].shape) < 2:
                continue
            tensor, name = value
            axes = tuple(range(len(tensor.shape)))
            if self._flag(operation, f"transpose_{place}") == left:
                tensor = turned(tensor, (*axes[:-2], axes[-1], axes[-2]))
            while len(tensor.shape) > 2 and tensor.shape[0] == 1:
                tensor = replace(tensor, shape=tensor.shape[1:])
            return self._enter(operation, {"weight": (tensor, name)})
        return []

    def _vector(self, operation: _Operation) -> list[str]:
        """A vector that is multiplied or added."""
        for place in ("y", "x"):
            value = self._input(operation, place)
            if value is None:
                continue
            tensor, name = value
            count = math.prod(tensor.shape)
            if 1 < count == max(tensor.shape, default=0):
                flat = replace(tensor, shape=(count,))
                head = self.entered.head(_SUFFIX.sub("", name), operation.type)
                keys: dict[str, Hashable] = {_VECTORS[operation.type]: self._key(name)} if name else {}
                return self.entered.put(head, {_VECTORS[operation.type]: flat}, keys)
        return []

    def _recurrent(self, operation: _Operation) -> list[str]:
        """The stacked gates of a recurrent layer, of both directions."""
        order = _GATES[operation.type]
        head = self.entered.head(operation.outputs[0] if operation.outputs else "", operation.type)
        names: list[str] = []
        for back in ("", "_back"):
            found: dict[str, LazyTensor] = {}
            for leaf in _RECURRENT:
                value = self._input(operation, f"{leaf}{back}")
                if value is not None:
                    name = "bias_ih" if leaf == "bias" else leaf
                    found[f"{name}_l0{'_reverse' if back else ''}"] = regated(value[0], order)
            names += self.entered.put(head, found) if found else []
        return names
