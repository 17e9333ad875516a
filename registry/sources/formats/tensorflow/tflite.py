"""Source for TensorFlow Lite models (``.tflite``); no library is needed.

The constants that operators take as weights and biases are the model's tensors, in torch's layout and in the order of
the operators. A bias of zeros is left out, since the converter adds one to layers that have none. Codes are turned into
the values that they stand for, (code - zero point) scale, in float32 as the interpreter does. The converter folds batch
norm into the layer before it, so that a model has other weights than the one that it was made from.

Source: ``tflite/converter/schema/schema.fbs`` of google-ai-edge/LiteRT; inputs of the operators as in
``tflite/kernels``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.flatbuffer import Flat
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, computed, in_file, turned
from registry.sources.formats.tensorflow.tensors import short
from registry.sources.formats.tensorflow.variables import with_cells
from registry.sources.layer_order import layer_order
from registry.sources.model_files import with_facts
from registry.sources.outputs_last import outputs_first
from registry.types import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.files.flatbuffer import Table
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAX_PARTS = 300_000  # tensors, buffers or operators
_MAX_INPUTS = 4096
_MAX_GRAPHS = 1000
_MAX_SCALES = 10_000_000
_LARGEST_BIAS = 2**20  # bytes of a bias that is looked at
_AGAIN = "convert the model again"
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 10: "float64",
          15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 20: "uint4"}  # fmt: skip
_CODES = frozenset({"int8", "uint8", "int16", "int32", "int64", "int4", "uint4", "uint16", "uint32"})

_CONV_2D, _DEPTHWISE, _DENSE, _TRANSPOSE_CONV, _MATMUL = 3, 4, 9, 67, 126
_CONV_3D, _CONV_3D_TRANSPOSE, _PRELU, _TRANSPOSE = 132, 141, 54, 39
# By operator: its inputs that are weights, with the layout they have and the last part of their names.
_GATES = ("i", "f", "g", "o")
_LSTM = (
    {1 + k: ("as_is", f"i{g}/kernel") for k, g in enumerate(_GATES)}
    | {5 + k: ("as_is", f"h{g}/kernel") for k, g in enumerate(_GATES)}
    | {9 + k: ("as_is", f"c{g}/peephole") for k, g in enumerate("ifo")}
    | {12 + k: ("as_is", f"h{g}/bias") for k, g in enumerate(_GATES)}
    | {16: ("as_is", "projection/kernel"), 17: ("as_is", "projection/bias")}
    | {20 + k: ("as_is", f"h{g}/scale") for k, g in enumerate(_GATES)}
)
_BOTH_LSTM = {1 + k: (kind, f"forward/{leaf}") for k, (kind, leaf) in enumerate(list(_LSTM.values())[:17])} | {
    18 + k: (kind, f"backward/{leaf}") for k, (kind, leaf) in enumerate(list(_LSTM.values())[:17])
}
_RNN = {1: ("as_is", "kernel"), 2: ("as_is", "recurrent_kernel"), 3: ("as_is", "bias")}
_PORTS: Mapping[int, Mapping[int, tuple[str, str]]] = {
    _CONV_2D: {1: ("ohwi", "kernel"), 2: ("as_is", "bias")},
    _DEPTHWISE: {1: ("ihwo", "depthwise_kernel"), 2: ("as_is", "bias")},
    _DENSE: {1: ("as_is", "kernel"), 2: ("as_is", "bias")},
    _TRANSPOSE_CONV: {1: ("ohwi", "kernel"), 3: ("as_is", "bias")},
    _CONV_3D: {1: ("conv", "kernel"), 2: ("as_is", "bias")},
    _CONV_3D_TRANSPOSE: {1: ("transposed", "kernel"), 3: ("as_is", "bias")},
    _MATMUL: {0: ("left", "kernel"), 1: ("right", "kernel")},
    7: {1: ("as_is", "embeddings")}, 33: {2: ("as_is", "embeddings")}, 36: {0: ("as_is", "embeddings")},
    107: {0: ("as_is", "embeddings")},
    16: _LSTM, 44: _LSTM, 52: _BOTH_LSTM,
    24: _RNN, 35: _RNN,
    46: _RNN | {4 + port: (kind, f"backward/{leaf}") for port, (kind, leaf) in _RNN.items()},
    27: {1: ("as_is", "kernel"), 2: ("as_is", "time_kernel"), 3: ("as_is", "bias")},
    _PRELU: {1: ("vector", "alpha")},
    **{code: {0: ("vector", "scale"), 1: ("vector", "scale")} for code in (18, 42)},
    **{code: {0: ("vector", "shift"), 1: ("vector", "shift")} for code in (0, 41)},
}  # fmt: skip
_IF = 118
_BODIES = {_IF: (1, 0), 119: (0, 1)}  # fields of branches; of condition and body of a loop; the last one is read first
_PASSING = frozenset({6, 53, 114, 22, 70, 43, _TRANSPOSE})  # DEQUANTIZE, CAST, QUANTIZE, RESHAPE, ...
_NUMBER = r"(?:_\d{1,3})?\d{0,4}"  # of operations of one name, then of tensors
# Operators on constants of two axes that are no weights: joining, choosing, comparing, padding, other shapes.
_PLAIN = frozenset({2, 34, 37, 38, 40, 45, 49, 55, 57, 60, 64, 65, 68, 69, 83, 94, 102, 118, 119, 123, 129, 130})
_OPERATION = {
    code: re.compile(rf"(.+?)/(?:{names}){_NUMBER}")
    for code, names in (
        (_CONV_2D, r"Conv2D|(?:Conv1D|conv1d)(?:/Conv2D)?|convolution|separable_conv2d"),
        (_DEPTHWISE, r"(?:separable_conv2d/)?depthwise|convolution"),
        (_DENSE, r"(?:Tensordot/)?MatMul|Tensordot|einsum/Einsum|Einsum"),
        (_TRANSPOSE_CONV, r"conv[12]d_transpose|conv_transpose|Conv2DBackpropInput"),
        (_MATMUL, r"MatMul|BatchMatMul(?:V\d)?|einsum/Einsum|Einsum"),
        (_PRELU, r"Relu|Neg|mul|add|alpha"),
    )
}
_ANY = re.compile(
    r"(.+?)/(?:Conv[123]D|convolution|depthwise|MatMul|BiasAdd|FusedBatchNormV3|embedding_lookup|Tensordot|GatherV2"
    rf"|batchnorm/\w+|mul|add|sub){_NUMBER}(?:/(?:ReadVariableOp|resource)(?:_\d+)?)*"
)
_NORM = re.compile(r"FusedBatchNorm|batch_?norm", re.IGNORECASE)
_FOLDED = (
    "the converter folded batch norm into the layers before it, so that the weights are not those that were trained"
)
_ONE_AXIS = re.compile(r"(?:.*/)?\w*conv_?1d(?:_?transpose)?(?:_\d+)?", re.IGNORECASE)
_RECURRENT = re.compile(r"lstm|gru|rnn", re.IGNORECASE)
_WRAPPERS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a subgraph: its name, shape, type, the bytes of its constant (none: 0), and its table."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    size: int
    table: Table


@dataclass(frozen=True, slots=True)
class _Operator:
    """An operator: its code, inputs and outputs as numbers of tensors, and its table."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class _Graph:
    """A subgraph: its tensors, operators and inputs, what makes each tensor, and the constants given to its inputs."""

    tensors: Sequence[_Tensor]
    operators: Sequence[_Operator]
    inputs: tuple[int, ...]
    makers: Mapping[int, _Operator]
    bound: dict[int, _Tensor]


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant that an operator takes: as which kind, and the name of the module and within it."""

    module: str
    leaf: str
    kind: str
    tensor: _Tensor
    operator: _Operator
    steps: tuple[_Operator, ...]


def open_tflite(ref: ModelRef) -> Checkpoint:
    """Open a model; raises the errors of `open_ref`."""
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "these models are never wrapped: leave --key out")
    file = open_bytes(path)
    try:
        weights, told, left = _weights(file)
        tensors: dict[str, LazyTensor] = {}
        names = _names(weights)
        for name, (weight, around) in zip(names, weights, strict=True):
            tensors[name] = _laid(file, weight, around)
        if not tensors:
            raise WeightsError(f"{path} has no weights", "give a model that was converted with its weights")
        if told:
            places = {n: (tensors[n].shape, weight.tensor.name) for n, (weight, _) in zip(names, weights, strict=True)}
            tensors = {better: tensors[name] for name, better in with_cells(places).items()}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        order = layer_order(shapes) if told else tuple(tensors)
        notes = (_FOLDED,) if any(_is_folded(weight, around) for weight, around in weights) else ()
        facts = replace(NO_FACTS, laid_out=True, order=order, notes=notes + left)
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=[file])
    except BaseException:
        file.close()
        raise


def _is_folded(weight: _Weight, tensors: Sequence[_Tensor]) -> bool:
    """Whether the names of a layer with a kernel tell of batch norm within."""
    if weight.operator.code not in (_CONV_2D, _DEPTHWISE, _DENSE, _TRANSPOSE_CONV):
        return False
    around = (*weight.operator.inputs[2:3], *weight.operator.outputs)
    return any(_NORM.search(tensors[which].name) for which in around if 0 <= which < len(tensors))


def _weights(file: ByteSource) -> tuple[list[tuple[_Weight, Sequence[_Tensor]]], bool, tuple[str, ...]]:
    """The weights of all subgraphs in the order of their operators, and whether all modules have names."""
    flat = Flat(file)
    if file.size < 8 or bytes(file.read_at(4, 4)) != b"TFL3":
        raise flat.damaged("it does not begin as a TensorFlow Lite model")
    model = flat.root()
    codes = [
        max(code.number(3, "i"), code.number(0, "b")) if code.number(0, "b") != 32 else -1
        for code in model.tables(1, _MAX_PARTS)
    ]
    buffers = [_data(flat, buffer) for buffer in model.tables(4, _MAX_PARTS)]
    graphs = [_graph(flat, table, buffers, codes) for table in model.tables(2, _MAX_GRAPHS)]
    found: list[tuple[_Weight, Sequence[_Tensor]]] = []
    seen: set[tuple[int, int]] = set()
    left: dict[tuple[int, tuple[int, int]], int] = {}
    matrices = told = 0
    for number, (graph, operator) in enumerate(_in_order(graphs), 1):
        if operator.code not in _PORTS and operator.code not in _PASSING and operator.code not in _PLAIN:
            for which in operator.inputs:
                other, _ = _source(which, graph)
                if other is not None and len(other.shape) > 1 and _is_weight(other, "kernel"):
                    left[operator.code, (other.start, other.size)] = other.size
        for port, (kind, leaf) in _PORTS.get(operator.code, {}).items():
            which = operator.inputs[port] if port < len(operator.inputs) else -1
            source, steps = _source(which, graph)
            if source is not None and not source.dtype and leaf in ("kernel", "depthwise_kernel"):
                raise WeightsError(
                    f"{file.name}: {short(source.name)} is of type {source.table.number(1, 'b')}, which is not read",
                    "convert the model without quantising",
                )
            if source is None or (source.start, source.size) in seen or not _is_weight(source, kind):
                continue
            seen.add((source.start, source.size))
            if leaf.endswith("bias") and len(source.shape) == 1 and _is_zero(file, source):
                continue  # of a layer that has none: the converter adds it
            module = _module(operator, source, graph)
            if len(source.shape) > 1 and kind != "vector":
                matrices += 1
                told += bool(module)
            weight = _Weight(module or f"operator{number}", leaf, kind, source, operator, steps)
            found.append((weight, graph.tensors))
    if sum(size for _, size in seen) > file.size:
        raise flat.damaged("its buffers overlap")
    missed = {place: size for (_, place), size in left.items() if place not in seen}
    codes_left = str(sorted({code for code, place in left if place in missed})[:5])[1:-1]
    if sum(missed.values()) * 20 > sum(size for _, size in seen) + sum(missed.values()):
        raise WeightsError(
            f"{file.name} has weights in operators that are not read: {codes_left} of BuiltinOperator",
            "give the Keras file or SavedModel that it was made from",
        )
    notes = (f"weights used by operators {codes_left} of BuiltinOperator are left out",) if missed else ()
    return found, told == matrices, notes


def _data(flat: Flat, buffer: Table) -> tuple[int, int]:
    """Where the bytes of a buffer lie; those beyond 2 GB are named by their place in the file."""
    start, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if start > 1:
        if start + size > flat.file.size:
            raise flat.damaged(f"a buffer of {size} bytes at byte {start}")
        return start, size
    return buffer.span(0)


def _tensor(flat: Flat, table: Table, buffers: Sequence[tuple[int, int]]) -> _Tensor:
    shape = tuple(int(extent) for extent in table.numbers(0, "<i4", 64))
    which = table.number(2, "I")
    if table.number(10, "I"):
        raise WeightsError(
            f"{flat.file.name} has its weights in another file, which is not read", "convert it with the weights inside"
        )
    if which >= len(buffers) and which:
        raise flat.damaged(f"a tensor of buffer {which}, of {len(buffers)}")
    start, size = buffers[which] if which < len(buffers) else (0, 0)
    return _Tensor(table.text(3), shape, _TYPES.get(table.number(1, "b"), ""), start, size, table)


def _operator(table: Table, codes: Sequence[int]) -> _Operator:
    which = table.number(0, "I")
    inputs, outputs = (tuple(int(n) for n in table.numbers(place, "<i4", _MAX_INPUTS)) for place in (1, 2))
    return _Operator(codes[which] if which < len(codes) else -1, inputs, outputs, table)


def _graph(flat: Flat, table: Table, buffers: Sequence[tuple[int, int]], codes: Sequence[int]) -> _Graph:
    tensors = [_tensor(flat, each, buffers) for each in table.tables(0, _MAX_PARTS)]
    operators = [_operator(each, codes) for each in table.tables(3, _MAX_PARTS)]
    inputs = tuple(int(n) for n in table.numbers(1, "<i4", _MAX_INPUTS))
    makers = {output: operator for operator in operators for output in operator.outputs}
    return _Graph(tensors, operators, inputs, makers, {})


def _in_order(graphs: Sequence[_Graph]) -> Iterator[tuple[_Graph, _Operator]]:
    """All operators, those of a loop's body and of a branch in place of the loop; each subgraph once."""
    left = dict(enumerate(graphs))
    while left:
        first = next(iter(left))
        graph = left.pop(first)
        stack = [(graph, iter(graph.operators))]
        while stack:
            graph, operators = stack[-1]
            operator = next(operators, None)
            if operator is None:
                stack.pop()
                continue
            yield graph, operator
            options = operator.table.table(4) if operator.code in _BODIES else None
            for field in _BODIES[operator.code] if options is not None else ():
                inner = left.pop(options.number(field, "i"), None) if options is not None else None
                if inner is not None:
                    given = operator.inputs[1:] if operator.code == _IF else operator.inputs
                    for which, outer in zip(inner.inputs, given, strict=False):
                        source, _ = _source(outer, graph)
                        if source is not None:
                            inner.bound[which] = source
                    stack.append((inner, iter(inner.operators)))


def _source(which: int, graph: _Graph) -> tuple[_Tensor | None, tuple[_Operator, ...]]:
    """The constant that an input is, and the operators that hand it on, from the constant on."""
    steps: list[_Operator] = []
    for _ in range(8):
        if not 0 <= which < len(graph.tensors):
            return None, ()
        if graph.tensors[which].size:
            return graph.tensors[which], tuple(reversed(steps))
        if which in graph.bound:
            return graph.bound[which], tuple(reversed(steps))
        maker = graph.makers.get(which)
        if maker is None or maker.code not in _PASSING or not maker.inputs:
            return None, ()
        steps.append(maker)
        which = maker.inputs[0]
    return None, ()


def _is_weight(tensor: _Tensor, kind: str) -> bool:
    """Whether a constant is a weight: numbers, and of those that are added or multiplied a vector."""
    if not is_float(tensor.dtype) and tensor.dtype not in _CODES:
        return False
    if not is_float(tensor.dtype) and not _is_quantised(tensor):
        return False
    return bool(tensor.shape) and (kind != "vector" or 1 < math.prod(tensor.shape) == max(tensor.shape))


def _is_zero(file: ByteSource, tensor: _Tensor) -> bool:
    return tensor.size <= _LARGEST_BIAS and not any(file.read_at(tensor.start, tensor.size))


def _is_quantised(tensor: _Tensor) -> bool:
    quantisation = tensor.table.table(4)
    return quantisation is not None and len(quantisation.numbers(2, "<f4", _MAX_SCALES)) > 0


def _module(operator: _Operator, source: _Tensor, graph: _Graph) -> str:
    """The module that an operator belongs to, by the names of its weight and its output; empty if none tells.

    The converter joins the names of what it folded by semicolons, and appends numbers to names that occur twice.
    """
    outputs = [graph.tensors[which].name for which in operator.outputs if 0 <= which < len(graph.tensors)]
    kernel = _source(operator.inputs[1], graph)[0] if len(operator.inputs) > 1 else None
    weight = "" if kernel is None else kernel.name
    pattern = _OPERATION.get(operator.code)
    if pattern is not None:
        for names in (weight, *reversed(outputs)):
            for name in names.split(";"):
                if match := pattern.fullmatch(_WRAPPERS.sub("", name)):
                    return match[1]
        return ""
    for name in (*source.name.split(";"), *(part for names in outputs for part in names.split(";"))):
        if match := _ANY.fullmatch(_WRAPPERS.sub("", name)):
            return match[1]
    return ""


def _names(weights: Sequence[tuple[_Weight, Sequence[_Tensor]]]) -> list[str]:
    """A name for each weight, ``module/leaf``; a module whose leaf is there already gets a number."""
    names: list[str] = []
    count: Counter[str] = Counter()
    for weight, _ in weights:
        name = f"{weight.module}/{weight.leaf}"
        if weight.leaf == "kernel" and count[name] and _RECURRENT.search(weight.module):
            name = f"{weight.module}/recurrent_kernel"
        count[name] += 1
        while count[name] > 1:
            name = f"{weight.module}_{count[name]}/{weight.leaf}"
            count[name] += 1
        names.append(name)
    return names


def _laid(file: ByteSource, weight: _Weight, tensors: Sequence[_Tensor]) -> LazyTensor:
    """A weight in torch's layout."""
    tensor = _values(file, weight.tensor)
    for step in weight.steps:
        if step.code == _TRANSPOSE and len(step.inputs) > 1:
            order = _integers(file, tensors, step.inputs[1])
            if sorted(order) != list(range(len(tensor.shape))):
                raise WeightsError(f"{file.name} turns {short(weight.tensor.name)} in an unknown way", _AGAIN)
            tensor = turned(tensor, order)
    kind, axes = weight.kind, tuple(range(len(tensor.shape)))
    if kind == "ohwi":
        if len(axes) == 4 and tensor.shape[1] == 1 and _ONE_AXIS.fullmatch(weight.module):
            tensor, axes = turned(tensor, axes, (tensor.shape[0], *tensor.shape[2:])), axes[:3]
        return turned(tensor, (axes[0], axes[-1], *axes[1:-1])) if len(axes) > 2 else tensor
    if kind == "ihwo":
        if len(axes) < 3 or tensor.shape[0] != 1:
            raise WeightsError(f"{file.name} has a depthwise kernel of shape {str(tensor.shape)[:80]}", _AGAIN)
        if len(axes) == 4 and tensor.shape[1] == 1 and _ONE_AXIS.fullmatch(weight.module):
            return turned(tensor, (3, 0, 1, 2), (tensor.shape[3], 1, tensor.shape[2]))
        return turned(tensor, (axes[-1], 0, *axes[1:-1]))
    if kind in ("left", "right"):
        options = weight.operator.table.table(4)
        flag = bool(options.number(1 if kind == "right" else 0, "b")) if options is not None else False
        if len(axes) > 1 and flag == (kind == "left"):
            tensor = turned(tensor, (*axes[:-2], axes[-1], axes[-2]))
        while len(tensor.shape) > 2 and tensor.shape[0] == 1:
            tensor = turned(tensor, range(len(tensor.shape)), tensor.shape[1:])
        return tensor
    return tensor if kind in ("as_is", "vector") else outputs_first(tensor, kind)


def _integers(file: ByteSource, tensors: Sequence[_Tensor], which: int) -> list[int]:
    """The numbers of a small constant of integers; empty for others."""
    tensor = tensors[which] if 0 <= which < len(tensors) else None
    if tensor is None or tensor.dtype != "int32" or not 0 < tensor.size <= 256 or tensor.size % 4:
        return []
    return [int(value) for value in np.frombuffer(file.read_at(tensor.start, tensor.size), "<i4")]


def _values(file: ByteSource, tensor: _Tensor) -> LazyTensor:
    """A constant, its codes turned into the values that they stand for."""
    name = short(tensor.name)
    if tensor.table.table(6) is not None:
        raise WeightsError(f"{file.name}: {name} is sparse, which is not read", "convert the model without sparsity")
    if any(extent < 0 for extent in tensor.shape):
        raise WeightsError(f"{file.name}: {name} has the shape {str(tensor.shape)[:80]}", _AGAIN)
    count = math.prod(tensor.shape)
    bits = 4 if tensor.dtype in ("int4", "uint4") else bits_of(tensor.dtype)
    if tensor.size != (count * bits + 7) // 8:
        raise WeightsError(
            f"{file.name}: {name} has {tensor.size} bytes for the shape {str(tensor.shape)[:80]}", _AGAIN
        )
    if is_float(tensor.dtype):
        return in_file(file, tensor.start, tensor.dtype, tensor.shape)
    scale, zero, axis = _scales(file, tensor)
    row = count // tensor.shape[0] if tensor.shape and tensor.shape[0] else 0
    if bits < 8:
        return computed(
            "float32", tensor.shape,
            lambda a, b: _decoded(_unpacked(file, tensor, a * row, b * row), tensor, scale, zero, axis, a, b),
            precision=f"{tensor.dtype} tflite", stored=tensor.size,
        )  # fmt: skip
    width = bits // 8

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        data = file.read_at(tensor.start + start * row * width, (stop - start) * row * width)
        codes = np.frombuffer(data, np.dtype(tensor.dtype).newbyteorder("<"))
        return _decoded(codes, tensor, scale, zero, axis, start, stop)

    return computed("float32", tensor.shape, rows, precision=f"{tensor.dtype} tflite", stored=tensor.size)


def _scales(file: ByteSource, tensor: _Tensor) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Scales, zero points, and the axis that they are along (-1: one for all)."""
    quantisation = tensor.table.table(4)
    name = short(tensor.name)
    if quantisation is None or quantisation.number(4, "B") != 0:
        raise WeightsError(
            f"{file.name}: {name} is quantised in an unknown way", "convert the model without quantising"
        )
    scale = quantisation.numbers(2, "<f4", _MAX_SCALES)
    zero = quantisation.numbers(3, "<i8", _MAX_SCALES)
    axis = quantisation.number(6, "i")
    if len(scale) == 1 and len(zero) <= 1:
        return scale, zero if len(zero) else np.zeros(1, np.int64), -1
    zero = zero if len(zero) else np.zeros(len(scale), np.int64)
    zero = np.repeat(zero, len(scale)) if len(zero) == 1 else zero
    if not 0 <= axis < len(tensor.shape) or not len(scale) == len(zero) == tensor.shape[axis]:
        raise WeightsError(f"{file.name}: {name} has {len(scale)} scales for {str(tensor.shape)[:80]}", _AGAIN)
    return scale, zero, axis


def _decoded(
    codes: NDArray[Any], tensor: _Tensor, scale: NDArray[Any], zero: NDArray[Any], axis: int, start: int, stop: int
) -> NDArray[np.float32]:
    """The values of rows ``start`` to ``stop``."""
    shaped = codes.reshape(stop - start, *tensor.shape[1:]).astype(np.int64)
    if axis >= 0:
        along = [1] * len(tensor.shape)
        along[axis] = -1
        low, high = (start, stop) if axis == 0 else (0, len(scale))
        scale, zero = scale[low:high].reshape(along), zero[low:high].reshape(along)
    with np.errstate(over="ignore", invalid="ignore"):  # of damaged scales, which the check for finite values tells
        return np.asarray((shaped - zero).astype(np.float32) * scale, np.float32)


def _unpacked(file: ByteSource, tensor: _Tensor, start: int, stop: int) -> NDArray[Any]:
    """Codes of four bits, the first in the low half of a byte."""
    low = start // 2
    data = np.frombuffer(file.read_at(tensor.start + low, -(-stop // 2) - low), np.uint8)
    codes = np.stack([data & 15, data >> 4], -1).reshape(-1)[start - 2 * low :][: stop - start].astype(np.int64)
    return np.where(codes > 7, codes - 16, codes) if tensor.dtype == "int4" else codes


SOURCE = Source(name="tflite", open=open_tflite, headers=True, ranges=True)
