"""Source for MNN: the weights of the operators of a Net, in torch's layout and under the names of their modules.

A Net is a FlatBuffer. Operators hold their own weights, take constants, or name bytes of the file ``NAME.mnn.weight``
beside the model. The converter cuts some layers into several operators (groups, kernels of three axes, recurrent layers
that become loops); these are put together again. Source: ``schema/default`` and ``tools/converter`` (alibaba/MNN).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.companions import CompanionedCheckpoint, Companions
from registry.sources.files.flatbuffer import Flat
from registry.sources.files.lazy_tensors import LazyTensor, computed, in_file, joined, regated, turned
from registry.sources.formats.mnn_codes import coding_of, dequantised, scattered, stated_shape
from registry.sources.graph_order import Computation, graph_order
from registry.sources.model_files import facts_beside, with_facts
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.files.flatbuffer import Table
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_mnn"]

_MAX_OPS = 250_000
_MAX_VALUES = 4096  # inputs or outputs of an operator
_MAX_GRAPHS = 4096
_MAX_PARTS = 4096  # of one layer
_MAX_DEPTH = 16  # of graphs within graphs
_UNREAD_SHARE = 0.05
_LARGEST_BIAS = 2**20  # bytes of a bias that is looked at
_REMEDY = "convert the model again, or ingest the one that it was converted from"
_JOINED = "the converter adds up or computes biases of recurrent layers; not all of them are counted"
_ONNX, _TORCH = 3, 4
# Types of operators.
_CONST, _CONV, _DEPTHWISE, _DECONV, _DECONV_DEPTHWISE, _LSTM, _MATMUL = 11, 12, 13, 17, 18, 38, 39
_BINARY, _CAST, _GATHER, _GATHER_V2, _INNER, _RNN, _RESHAPE, _SLICE = 7, 9, 30, 31, 33, 75, 73, 83
_INSTANCE_NORM, _GRU, _BATCH_MATMUL, _CONV_3D, _CONVERT, _IDENTITY, _PARAMETER = 4, 105, 106, 113, 129, 262, 266
_DECONV_3D, _CONV_INT8, _DEPTHWISE_INT8, _WHILE, _IF = 268, 513, 515, 600, 601
_TRANSPOSED = frozenset({_DECONV, _DECONV_DEPTHWISE, _DECONV_3D})
_NAMES = {
    _CONV: "Conv", _DEPTHWISE: "Conv", _DECONV: "ConvTranspose", _DECONV_DEPTHWISE: "ConvTranspose", _LSTM: "LSTM",
    _MATMUL: "MatMul", _BATCH_MATMUL: "MatMul", _GATHER: "Embedding", _GATHER_V2: "Embedding", _INNER: "Linear",
    _RNN: "RNN", _CONV_3D: "Conv", _DECONV_3D: "ConvTranspose", _CONV_INT8: "Conv", _DEPTHWISE_INT8: "Conv",
}  # fmt: skip
# Operators whose constants may be weights that are not found here: recurrent cells, quantised products, foreign ones.
_UNKNOWN = frozenset({57, 87, _GRU, 141, 256, 512})
_LAST_KNOWN = 160  # higher numbers, but those below, are operators that this reader has not heard of
_KNOWN_ABOVE = frozenset({*range(256, 270), *range(512, 519), 600, 601, 603, 604})
# Kinds of settings.
_OF_NORM, _OF_BINARY, _OF_BLOB, _OF_CONV, _OF_INNER, _OF_LSTM, _OF_MATMUL = 5, 6, 7, 9, 20, 24, 25
_OF_NORMALIZE, _OF_PRELU, _OF_SCALE, _OF_TF_CONV, _OF_GRU, _OF_BATCH_MATMUL = 27, 32, 58, 67, 72, 73
_OF_CONV_3D, _OF_WHILE, _OF_IF, _OF_LAYER_NORM, _OF_GROUP_NORM = 80, 85, 86, 88, 95
# Lists of a blob by its type: field, dtype.
_BLOBS = {1: (7, "float32"), 14: (3, "bfloat16"), 19: (3, "float16")}
_GATES = {4: (0, 2, 3, 1), 3: (1, 0, 2)}  # places of torch's gates among those of ONNX, by their number
_GROUP = re.compile(r"(.+)__group__(\d{1,6})")
_SLICE_OF = re.compile(r"(.+)__(\d{1,6})")
_OUTPUT = re.compile(r"_output_\d+$")
_BODY = re.compile(r"(.+)_main(\d)")
_LAYER = re.compile(r"(?:LSTM|GRU|RNN)_(\d{1,4})$")
_PARAMETER_NAME = re.compile(r"[A-Za-z_][\w\-]*(?:\.[\w\-]+)+|[A-Za-z_][A-Za-z_\-]*")
_MADE_UP = re.compile(r"(?:.*_)?(?:output|Constant|const|value)\w*", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class _Op:
    """An operator: the number of its graph, type, name, values, and its settings and their kind."""

    graph: int
    type: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: int
    table: Table

    def settings(self, kind: int) -> Table | None:
        """Its settings, if they are of that kind."""
        return self.table.table(2) if self.kind == kind else None


@dataclass(slots=True)
class _Graph:
    """Operators in their order, the names of the graph's inputs and outputs as values, and who makes each value."""

    ops: list[_Op]
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    makers: dict[int, _Op] = field(default_factory=dict)


@dataclass(slots=True)
class _Recurrent:
    """How a product of a recurrent layer is stored: the name of its tensors, and the order of its gates."""

    module: str
    leaf: str
    gates: tuple[int, ...]


def open_mnn(ref: ModelRef) -> Checkpoint:
    """Open a model by its operators; weights of it may lie in the file ``NAME.mnn.weight`` beside it.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The file is damaged, holds no weights, or has some that cannot be read right.
    UnsafeError
        It holds more than any network, or names files outside its folder.
    NotFoundError
        An entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "MNN models are one network: leave --key out")
    file = open_bytes(ref.target)
    companions = Companions(ref.target)
    try:
        found = _Finder(file, companions, f"{Path(ref.target).name}.weight")
        tensors = found.weights()
        if not tensors:
            raise WeightsError(f"{ref.target} holds no weights", "give a model that was converted with its weights")
        facts = facts_beside(Path(ref.target), names=tensors)
        facts = replace(facts, laid_out=True, order=found.order(), notes=(*facts.notes, *found.notes))
        opened = CompanionedCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,), check=companions.check)
        opened.companions = companions
        return opened
    except BaseException:
        file.close()
        companions.close()
        raise


class _Finder:
    """Finds the weights of a model. Nothing of them is read but the shapes before codes of old files."""

    def __init__(self, file: ByteSource, companions: Companions, beside: str) -> None:
        self.file = file
        self.companions = companions
        self.beside = beside
        self.flat = Flat(file)
        net = self._net()
        self.is_named = net.number(6, "b") in (_ONNX, _TORCH)
        self.graphs = [_graph(0, net.tables(3, _MAX_OPS))]
        self.bodies: dict[str, int] = {}
        for number, table in enumerate(net.tables(10, _MAX_GRAPHS), 1):
            graph = _graph(number, table.tables(4, _MAX_OPS))
            graph.inputs, graph.outputs = (_integers(table, place) for place in (1, 2))
            self.graphs.append(graph)
            self.bodies[table.text(0)] = number
        if sum(len(graph.ops) for graph in self.graphs) > _MAX_OPS:
            raise UnsafeError(f"{file.name} has more than {_MAX_OPS} operators", "split the model")
        self.recurrent = self._recurrent_products()
        self.tensors: dict[str, LazyTensor] = {}
        self.steps: list[Computation] = []
        self.numbers: list[int | None] = []  # of the steps, where their operators are called by one
        self.parts: dict[tuple[str, str], dict[int, tuple[_Op, dict[str, LazyTensor]]]] = {}
        self.used: set[int] = set()
        self.counts: dict[str, int] = {}
        self.nameless = False
        self.claimed = 0
        self.notes: tuple[str, ...] = ()

    def _net(self) -> Table:
        if self.file.size < 16:
            raise self.flat.damaged(f"it has {self.file.size} bytes")
        net = self.flat.root()
        if not net.span(3, 4)[1]:
            raise self.flat.damaged("it has no operators")
        return net

    def weights(self) -> dict[str, LazyTensor]:
        """All weights by name, in torch's layout."""
        self._walk(0, 0, set())
        self._named()
        self._check_unread()
        if self.recurrent or any(op.type in (_LSTM, _RNN) for graph in self.graphs for op in graph.ops):
            self.notes += (_JOINED,)
        if self.claimed > self.file.size:
            raise self.flat.damaged("its weights overlap")
        return self.tensors

    def order(self) -> tuple[str, ...]:
        """Names in the order of computation; empty where all names tell it."""
        if self.is_named and not self.nameless:
            return ()
        steps = self.steps
        weighty = [number for step, number in zip(steps, self.numbers, strict=True) if step.weights]
        if self.is_named and None not in weighty:
            steps = _as_exported(steps, self.numbers)
        return tuple(graph_order(steps, ()))

    # The graph

    def _walk(self, number: int, depth: int, seen: set[int]) -> None:
        if depth > _MAX_DEPTH:
            raise UnsafeError(f"{self.file.name} nests graphs deeper than {_MAX_DEPTH} levels", _REMEDY)
        seen.add(number)
        graph = self.graphs[number]
        names = {op.name for op in graph.ops}
        for op in graph.ops:
            takes: tuple[tuple[int, int], ...] = tuple((number, value) for value in op.inputs)
            gives = tuple((number, value) for value in op.outputs)
            for inner in self._inner(op):
                if inner not in seen:
                    body = self.graphs[inner]
                    self._step(op, Computation(takes, tuple((inner, value) for value in body.inputs)))
                    self._walk(inner, depth + 1, seen)
                    takes += tuple((inner, value) for value in body.outputs)
            if op.type in (_CONST, _PARAMETER):
                continue
            found = self._part_of(op, names) if op.kind in (_OF_CONV, _OF_CONV_3D) else None
            if found is None:
                found = self._put(op, self._found(op))
            self._step(op, Computation(takes, gives, found))

    def _step(self, op: _Op, step: Computation) -> None:
        name = _GROUP.sub(r"\1", op.name.removesuffix("__matmul_converted"))
        self.steps.append(step)
        self.numbers.append(int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else None)

    def _inner(self, op: _Op) -> list[int]:
        """The graphs that an operator runs."""
        settings = op.settings(_OF_WHILE) or op.settings(_OF_IF)
        names = [settings.text(place) for place in (0, 1)] if settings is not None else []
        return [self.bodies[name] for name in names if name in self.bodies]

    def _constant(self, op: _Op, place: int) -> tuple[LazyTensor, _Op] | None:
        """The constant that an operator takes as its input of that number, of floating-point numbers."""
        value = op.inputs[place] if place < len(op.inputs) else -1
        makers = self.graphs[op.graph].makers
        for _ in range(8):
            maker = makers.get(value)
            if maker is None:
                return None
            if maker.type in (_CONST, _PARAMETER):
                tensor = self._blob(maker)
                return None if tensor is None else (tensor, maker)
            if maker.type not in (_CONVERT, _IDENTITY, _CAST) or not maker.inputs:
                return None
            value = maker.inputs[0]
        return None

    # Bytes

    def _numbers(self, table: Table, place: int, dtype: str = "float32", shape: tuple[int, ...] = ()) -> LazyTensor:
        """A list of a table as a tensor; of no elements where the field is missing."""
        start, count = table.span(place, 1 if dtype == "uint8" else bits_of(dtype) // 8)
        tensor = in_file(self.file, start, dtype, (count,))
        self.claimed += tensor.bytes
        return replace(tensor, shape=shape) if shape else tensor

    def _outside(self, op: _Op, table: Table, place: int) -> list[LazyTensor]:
        """The pieces of the file beside the model that a field names: the place of the first, then their sizes."""
        stated = [int(n) for n in table.numbers(place, "<i8", 64)]
        if not stated:
            return []
        if min(stated) < 0 or max(stated) >= 2**60:
            raise WeightsError(f"{self.file.name}: {_short(op.name)} has its weights at {str(stated)[:80]}", _REMEDY)
        location = op.table.text(7) or self.beside
        at, found = stated[0], []
        for size in stated[1:]:
            outside = {"location": location, "offset": str(at), "length": str(size)}
            found.append(self.companions.tensor(op.name, outside, size))
            at += size
        return found

    def _blob(self, op: _Op) -> LazyTensor | None:
        """The tensor of a constant; None if it has no floating-point numbers."""
        table = op.settings(_OF_BLOB)
        if table is None:
            return None
        shape = _integers(table, 0)
        kind = _BLOBS.get(table.number(2, "i", 1))
        if kind is None:
            return None
        place, dtype = kind
        if min(shape, default=0) < 0:
            raise WeightsError(f"{self.file.name}: {_short(op.name)} has the shape {str(shape)[:80]}", _REMEDY)
        size = (math.prod(shape) * bits_of(dtype) + 7) // 8
        outside = self._outside(op, table, 9)
        if outside:
            whole = outside[0]
        else:
            start, count = table.span(place, 4 if dtype == "float32" else 1)
            whole = in_file(self.file, start, "uint8", (count * (4 if dtype == "float32" else 1),))
        return self._as(whole, dtype, shape, size, op)

    def _as(self, whole: LazyTensor, dtype: str, shape: tuple[int, ...], size: int, op: _Op) -> LazyTensor:
        """Bytes as numbers of a shape."""
        if whole.bytes != size:
            raise WeightsError(
                f"{self.file.name}: {_short(op.name)} of shape {str(shape)[:80]} takes {size} bytes, and has "
                f"{whole.bytes}",
                _REMEDY,
            )
        return replace(whole, dtype=dtype, shape=shape)

    def _floats(self, tensor: LazyTensor, dtype: str = "float32") -> LazyTensor:
        """Bytes of the file beside the model as a list of numbers."""
        width = bits_of(dtype) // 8
        if tensor.bytes % width:
            raise WeightsError(f"{self.file.name}: {tensor.bytes} bytes of numbers of {width} bytes", _REMEDY)
        return replace(tensor, dtype=dtype, shape=(tensor.bytes // width,))

    # Operators

    def _found(self, op: _Op) -> dict[str, LazyTensor]:
        """The weights of an operator by the last part of their names."""
        if op.kind == _OF_TF_CONV or (op.kind == _OF_LSTM and self._has_blobs(op, (3, 4, 5, 6))):
            raise self._unreadable(op)
        if op.kind == _OF_GRU and self._has_blobs(op, (4, 6)):
            raise self._unreadable(op)
        if op.kind in (_OF_CONV, _OF_CONV_3D):
            return self._convolution(op)
        if op.type in (_LSTM, _RNN):
            return {}  # entered under names of their own
        if op.kind == _OF_INNER:
            return self._inner_product(op)
        if op.type in (_MATMUL, _BATCH_MATMUL):
            return self._product(op)
        if op.type in (_GATHER, _GATHER_V2):
            found = self._constant(op, 0)
            return {"weight": self._use(found)} if found is not None and len(found[0].shape) > 1 else {}
        if op.type == _BINARY:
            return self._vector(op)
        return self._vectors(op)

    def _has_blobs(self, op: _Op, places: tuple[int, ...]) -> bool:
        table = op.settings(op.kind)
        return table is not None and any(table.table(place) is not None for place in places)

    def _unreadable(self, op: _Op) -> WeightsError:
        return WeightsError(
            f"{self.file.name}: {_short(op.name)} has its weights in a layout of old converters, which is not read",
            "ingest the model that it was converted from",
        )

    def _use(self, found: tuple[LazyTensor, _Op]) -> LazyTensor:
        """A constant that is a weight."""
        tensor, maker = found
        if id(maker) not in self.used:
            self.used.add(id(maker))
            blob = maker.settings(_OF_BLOB)
            self.claimed += tensor.bytes if blob is not None and not blob.span(9, 8)[1] else 0
        return tensor

    def _convolution(self, op: _Op) -> dict[str, LazyTensor]:
        """(out, in / groups, *kernel); transposed ones (in, out / groups, *kernel)."""
        table = op.settings(op.kind)
        common = None if table is None else table.table(0)
        if table is None or common is None:
            return {}
        if len(op.inputs) > 1 and op.kind == _OF_CONV:  # weights may come from a constant
            given, added = self._constant(op, 1), self._constant(op, 2)
            if given is not None and len(given[0].shape) > 2:
                extra = {} if added is None else {"bias": _flat(self._use(added))}
                return {"weight": self._use(given), **extra}
        if op.kind == _OF_CONV_3D:
            kernel, inputs, outputs = _integers(common, 2), common.number(5, "i"), common.number(6, "i")
            groups, outside = common.number(9, "i", 1), self._outside(op, table, 3)
        else:
            kernel = (common.number(3, "i", 1), common.number(2, "i", 1))
            inputs, outputs = common.number(11, "i"), common.number(10, "i")
            groups, outside = common.number(9, "i", 1), self._outside(op, table, 6)
        quan = table.table(3) if op.kind == _OF_CONV else None
        if quan is None and not outside and not table.span(1, 4)[1]:
            symmetric = table.table(4) if op.kind == _OF_CONV else None
            if symmetric is not None and symmetric.span(0)[1]:
                raise WeightsError(
                    f"{self.file.name}: {_short(op.name)} has int8 weights without scales of their own",
                    "ingest the model before it was quantised",
                )
            return {}  # its settings alone: Im2Col and the like
        if min(outputs, groups, *kernel) < 1 or inputs < 0:
            raise self._misfit(op, (outputs, groups, *kernel))
        last = outside[2 if quan is not None else 1 :][:1]
        bias = self._floats(last[0]) if last else self._numbers(table, 2)
        if quan is None:
            flat = self._floats(outside[0]) if outside else self._numbers(table, 1)
            weight = replace(flat, shape=self._shape(op, flat.shape[0], inputs, outputs, groups, kernel))
        else:
            weight = self._coded(op, quan, outside, (inputs, outputs, groups), kernel)
        if op.name.endswith("__matmul_converted") and kernel == (1, 1):
            weight = replace(weight, shape=weight.shape[:2])
        is_zero = bias.bytes <= _LARGEST_BIAS and not any(bias.span(0, bias.bytes))  # the converter adds such a one
        return {"weight": weight} if is_zero else {"weight": weight, "bias": bias}

    def _shape(
        self, op: _Op, count: int, inputs: int, outputs: int, groups: int, kernel: tuple[int, ...]
    ) -> tuple[int, ...]:
        """That of a weight of so many elements; old converters do not state the number of inputs."""
        if op.type in _TRANSPOSED:
            each = max(1, outputs // groups)
            found = (count // (each * math.prod(kernel)), each, *kernel)
            stated = inputs
        else:
            found = (outputs, count // (outputs * math.prod(kernel)), *kernel)
            stated = inputs // groups
        own = found[0] if op.type in _TRANSPOSED else found[1]
        depthwise = op.type in (_DEPTHWISE, _DECONV_DEPTHWISE, _DEPTHWISE_INT8)
        if math.prod(found) != count or not count or (inputs and not depthwise and own != stated):
            raise self._misfit(op, (count, inputs, outputs, groups, *kernel))
        return found

    def _misfit(self, op: _Op, numbers: tuple[int, ...]) -> WeightsError:
        return WeightsError(
            f"{self.file.name}: {_short(op.name)} has weights that do not fit its settings: {str(numbers)[:80]}",
            _REMEDY,
        )

    def _coded(
        self, op: _Op, quan: Table, outside: list[LazyTensor], counts: tuple[int, int, int], kernel: tuple[int, ...]
    ) -> LazyTensor:
        where = f"{self.file.name}: {_short(op.name)}"
        inputs, outputs, groups = counts
        coding = coding_of(quan, where)
        codes = outside[0] if outside else self._numbers(quan, 0, "uint8")
        inside = self._numbers(quan, 14, "float16") if coding.half else self._numbers(quan, 1)
        half = "float16" if coding.half else "float32"
        alpha = self._floats(outside[1], half) if len(outside) > 1 and outside[1].bytes else inside
        places = self._floats(outside[3], "uint32") if len(outside) > 3 and outside[3].bytes else None
        if places is None and quan.span(13, 4)[1]:
            places = self._numbers(quan, 13, "uint32")
        depthwise = op.type in (_DEPTHWISE, _DECONV_DEPTHWISE, _DEPTHWISE_INT8)
        if places is not None:
            count = quan.number(12, "I")
        elif coding.is_half:
            count = codes.bytes // 2
        elif depthwise or not inputs:
            count = math.prod(stated_shape(codes, coding, where)) or codes.bytes
        else:
            count = outputs * inputs // groups * math.prod(kernel)
        shape = self._shape(op, count, inputs, outputs, groups, kernel)
        if places is not None:
            return scattered(places, alpha, shape, where)
        if coding.is_half:
            return self._as(codes, "float16", shape, 2 * count, op)
        return dequantised(codes, alpha, coding, shape, where)

    def _inner_product(self, op: _Op) -> dict[str, LazyTensor]:
        table = op.settings(_OF_INNER)
        assert table is not None  # noqa: S101 - as its kind says
        outputs, quan = table.number(0, "i"), table.table(7)
        if quan is not None and not table.span(3, 4)[1]:
            weight = self._coded(op, quan, [], (0, outputs, 1), ())
        else:
            weight = self._numbers(table, 3)
        count = math.prod(weight.shape)
        if outputs < 1 or not count or count % outputs:
            raise self._misfit(op, (count, outputs))
        weight = replace(weight, shape=(outputs, count // outputs))
        if table.number(6, "b"):
            weight = turned(replace(weight, shape=(count // outputs, outputs)), (1, 0))
        bias = self._numbers(table, 4)
        return {"weight": weight} | ({"bias": bias} if math.prod(bias.shape) else {})

    def _product(self, op: _Op) -> dict[str, LazyTensor]:
        """A product with a constant: x B is (in, out), A x (out, in), before either is transposed."""
        table = op.settings(_OF_MATMUL) if op.type == _MATMUL else op.settings(_OF_BATCH_MATMUL)
        flags = (1, 2) if op.type == _MATMUL else (0, 1)
        if table is not None and op.type == _MATMUL and table.span(3, 4)[1]:
            raise self._unreadable(op)
        found: dict[str, LazyTensor] = {}
        for place in (1, 0):
            value = self._constant(op, place)
            if value is None or len(value[0].shape) < 2 or found:
                continue
            tensor = self._use(value)
            flag = table is not None and bool(table.number(flags[place], "b"))
            axes = tuple(range(len(tensor.shape)))
            if flag == (place == 0):
                tensor = turned(tensor, (*axes[:-2], axes[-1], axes[-2]))
            while len(tensor.shape) > 2 and tensor.shape[0] == 1:
                tensor = replace(tensor, shape=tensor.shape[1:])
            found["weight"] = tensor
        bias = self._constant(op, 2)
        if found and bias is not None:
            found["bias"] = _flat(self._use(bias))
        return found

    def _vector(self, op: _Op) -> dict[str, LazyTensor]:
        """A vector that is multiplied or added; a parameter has a name of its own."""
        table = op.settings(_OF_BINARY)
        kind = table.number(0, "i") if table is not None else -1
        for place in (0, 1):
            value = self._constant(op, place)
            if value is None or kind not in (0, 2) or _own_name(value[1].name):
                continue
            count = math.prod(value[0].shape)
            if 1 < count == max(value[0].shape, default=0) and id(value[1]) not in self.used:
                return {"scale" if kind == 2 else "shift": _flat(self._use(value))}
        return {}

    def _vectors(self, op: _Op) -> dict[str, LazyTensor]:
        """Normalisations and slopes: lists of a table."""
        fields: Mapping[str, int] = {
            _OF_NORM: {"weight": 1, "running_mean": 2, "running_var": 3, "bias": 4},
            _OF_SCALE: {"weight": 1, "bias": 2}, _OF_LAYER_NORM: {"weight": 2, "bias": 3},
            _OF_GROUP_NORM: {"weight": 2, "bias": 3}, _OF_PRELU: {"weight": 1}, _OF_NORMALIZE: {"weight": 3},
        }.get(op.kind, {})  # fmt: skip
        table = op.settings(op.kind)
        if not fields or table is None:
            return {}
        if op.type == _INSTANCE_NORM:
            fields = {"weight": 1, "bias": 4}
        place = {_OF_SCALE: 3, _OF_LAYER_NORM: 5, _OF_GROUP_NORM: 6}.get(op.kind)
        outside = self._outside(op, table, place) if place is not None else []
        if outside:
            return dict(zip(fields, map(self._floats, outside), strict=False))
        found = {leaf: self._numbers(table, number) for leaf, number in fields.items()}
        return {leaf: tensor for leaf, tensor in found.items() if math.prod(tensor.shape)}

    # Recurrent layers

    def _recurrent_products(self) -> dict[int, _Recurrent]:
        """Products that are those of an LSTM or a GRU which the converter made a loop of, by the operator's identity.

        The body of the loop has the product with the state; that with the input stands before the loop.
        """
        found: dict[int, _Recurrent] = {}
        for graph in self.graphs:
            for op in graph.ops:
                inner = self._inner(op) if op.type == _WHILE else []
                settings = op.settings(_OF_WHILE)
                match = _BODY.fullmatch(settings.text(1)) if settings is not None and len(inner) == 1 else None
                if match is None:
                    continue
                body = self.graphs[inner[0]]
                products = [each for each in body.ops if each.type == _CONV]
                gates = _gates_of(body, products[0]) if len(products) == 1 else 0
                before = self._product_before(op)
                if gates not in _GATES or before is None:
                    continue
                head = _OUTPUT.sub("", match[1])
                layer = _LAYER.search(head)
                suffix = f"_l{layer[1] if layer else 0}{'_reverse' if match[2] == '1' else ''}"
                module = _module_of(head)
                found[id(before)] = _Recurrent(module, f"ih{suffix}", _GATES[gates])
                found[id(products[0])] = _Recurrent(module, f"hh{suffix}", _GATES[gates])
        return found

    def _product_before(self, op: _Op) -> _Op | None:
        makers = self.graphs[op.graph].makers
        for value in op.inputs:
            maker = makers.get(value)
            for _ in range(8):
                if maker is None or maker.type not in (_CONVERT, _IDENTITY, _RESHAPE) or not maker.inputs:
                    break
                maker = makers.get(maker.inputs[0])
            if maker is not None and maker.type == _CONV:
                return maker
        return None

    def _recurrent_weights(self, op: _Op) -> Iterator[tuple[str, LazyTensor]]:
        """The weights of an LSTM or RNN that takes them as ONNX has them: (directions, gates * hidden, in)."""
        head = _OUTPUT.sub("", op.name)
        layer = _LAYER.search(head)
        module = _module_of(head) or self._label(op)
        count = 4 if op.type == _LSTM else 1
        order = _GATES.get(count, (0,))
        for place, leaf in ((1, "weight_ih"), (2, "weight_hh")):
            value = self._constant(op, place)
            if value is None:
                continue
            tensor = self._use(value)
            if len(tensor.shape) != 3 or tensor.shape[0] not in (1, 2) or tensor.shape[1] % count:
                raise self._misfit(op, tensor.shape)
            for way in range(tensor.shape[0]):
                suffix = f"_l{layer[1] if layer else 0}{'_reverse' if way else ''}"
                yield f"{module}.{leaf}{suffix}", _way(tensor, way, order)
        value = self._constant(op, 3)
        if value is not None and len(value[0].shape) == 2:
            whole = self._use(value)
            halves = 2 if whole.shape[1] % (2 * count) == 0 and count == 4 else 1
            split = replace(whole, shape=(whole.shape[0] * halves, whole.shape[1] // halves))
            for row in range(min(split.shape[0], 4)):
                suffix = f"_l{layer[1] if layer else 0}{'_reverse' if row >= halves else ''}"
                leaf = "bias_hh" if row % halves else "bias_ih"
                yield f"{module}.{leaf}{suffix}", _way(split, row, order)

    # Entering weights

    def _part_of(self, op: _Op, names: set[str]) -> tuple[str, ...] | None:
        """Note a convolution that is a part of a layer which the converter cut; None if it is whole.

        The parts of a layer lie one behind the other, and one that is named as the layer puts their results together.
        The last part enters them all.
        """
        group, slice_of = _GROUP.fullmatch(op.name), _SLICE_OF.fullmatch(op.name)
        match = group or slice_of
        if match is None or match[1] not in names:
            return None
        key = (match[1], "group" if group else "slice")
        parts = self.parts.setdefault(key, {})
        if int(match[2]) != len(parts) or len(parts) >= _MAX_PARTS:
            raise self._misfit(op, (int(match[2]), len(parts)))
        parts[int(match[2])] = (op, self._found(op))
        following = f"{match[1]}__{'group__' if group else ''}{len(parts)}"
        if following in names:
            return ()
        return self._put(replace(op, name=match[1]), self._whole(op, parts, stacked=group is None))

    def _whole(
        self, op: _Op, parts: Mapping[int, tuple[_Op, dict[str, LazyTensor]]], *, stacked: bool
    ) -> dict[str, LazyTensor]:
        weights = [found.get("weight") for _, found in parts.values()]
        first = weights[0]
        if first is None or any(each is None or each.shape != first.shape for each in weights):
            raise self._misfit(op, (len(parts),))
        whole = {"weight": (_stacked if stacked else joined)([each for each in weights if each is not None])}
        biases = [found.get("bias") for _, found in parts.values()]
        present = [bias for bias in biases if bias is not None]
        if stacked and present:
            whole["bias"] = present[-1]  # added once
        elif present:
            whole["bias"] = joined([bias or _zeros(present[0].shape) for bias in biases])
        return whole

    def _put(self, op: _Op, found: Mapping[str, LazyTensor]) -> tuple[str, ...]:
        """Enter the weights of an operator; their names."""
        if op.type in (_LSTM, _RNN) and op.kind == _OF_LSTM:
            entered = dict(self._recurrent_weights(op))
            self.nameless = self.nameless or not _module_of(_OUTPUT.sub("", op.name))
            for name, tensor in entered.items():
                self.tensors[self._free(name)] = tensor
            return tuple(entered)
        if not found:
            return ()
        product = self.recurrent.get(id(op))
        if product is not None:
            entered = {}
            for leaf, tensor in found.items():
                flat = replace(tensor, shape=tensor.shape[:2] if leaf == "weight" else tensor.shape)
                entered[f"{product.module}.{leaf}_{product.leaf}"] = regated(flat, product.gates)
            self.nameless = self.nameless or not product.module
        else:
            head = self._head(op, found)
            entered = {f"{head}.{leaf}": tensor for leaf, tensor in found.items()}
        names = []
        for name, tensor in entered.items():
            free = self._free(name)
            self.tensors[free] = tensor
            names.append(free)
        return tuple(names)

    def _head(self, op: _Op, found: Mapping[str, LazyTensor]) -> str:
        """The module of an operator: by its path, by the name of its constant, by its own name, or made up."""
        name = _OUTPUT.sub("", op.name.removesuffix("__matmul_converted"))
        module = _module_of(name)
        if module and self.is_named:
            return module
        if op.type in (_GATHER, _GATHER_V2, _MATMUL):
            value = self._constant(op, 0 if op.type != _MATMUL else 1)
            own = _own_name(value[1].name) if value is not None else ""
            if own.endswith(".weight"):
                return own.removesuffix(".weight")
        if any(len(tensor.shape) > 1 for tensor in found.values()):
            self.nameless = True
        plain = re.sub(r"[^\w.\-/]", "_", name)[:200]
        return plain if plain and not self.is_named else self._label(op)

    def _label(self, op: _Op) -> str:
        kind = _NAMES.get(op.type, "Op")
        self.counts[kind] = self.counts.get(kind, -1) + 1
        return f"{kind}_{self.counts[kind]}"

    def _free(self, name: str) -> str:
        """That name, or the same with a number where it is taken."""
        head, _, leaf = name.rpartition(".")
        count = 1
        while name in self.tensors:
            count += 1
            name = f"{head}_{count}.{leaf}"
        return name

    def _named(self) -> None:
        """Enter the parameters that no operator uses as weights, where they have names of their own."""
        for graph in self.graphs:
            for op in graph.ops:
                name = _own_name(op.name) if op.type in (_CONST, _PARAMETER) and self.is_named else ""
                if not name or id(op) in self.used or name in self.tensors:
                    continue
                tensor = self._blob(op)
                if tensor is not None and math.prod(tensor.shape) > 1:
                    self.tensors[name] = tensor
                    self.used.add(id(op))

    def _check_unread(self) -> None:
        """Refuse a model of which more than 5 % of the weights are used by operators that are not known here."""
        missed: dict[int, tuple[str, int]] = {}
        for graph in self.graphs:
            for op in graph.ops:
                is_foreign = op.type > _LAST_KNOWN and op.type not in _KNOWN_ABOVE
                if op.type not in _UNKNOWN and not is_foreign:
                    continue
                for place in range(len(op.inputs)):
                    value = self._constant(op, place)
                    if value is not None and id(value[1]) not in self.used:
                        sides = [extent for extent in value[0].shape if extent > 1]
                        if len(sides) > 1:
                            missed[id(value[1])] = (f"{op.type}", math.prod(sides))
        if not missed:
            return
        total = sum(count for _, count in missed.values())
        read = sum(math.prod(tensor.shape) for tensor in self.tensors.values() if len(tensor.shape) > 1)
        kinds = ", ".join(sorted({kind for kind, _ in missed.values()})[:5])
        if total > _UNREAD_SHARE * (total + read):
            raise WeightsError(
                f"{self.file.name}: {total} of {total + read} weights are used by operators of type {kinds}, whose "
                "layout is not known",
                "ingest the model that it was converted from",
            )
        self.notes = (f"{counted(len(missed), 'weight')} used by operators of type {kinds} are left out",)


def _as_exported(steps: Sequence[Computation], numbers: Sequence[int | None]) -> list[Computation]:
    """Steps in the order in which the exporter wrote them to ONNX, where it called values by numbers in that order.

    The converter lists what each output needs, in the order of the outputs' names. A step that has no number of its own
    stands behind what it takes.
    """
    known: dict[Hashable, int] = {}
    keys = []
    for place, (step, own) in enumerate(zip(steps, numbers, strict=True)):
        number = max([own or 0, *(known.get(value, 0) for value in step.takes)])
        known.update(dict.fromkeys(step.gives, number))
        keys.append((number, place))
    return [steps[place] for _, place in sorted(keys)]


def _graph(number: int, tables: Sequence[Table]) -> _Graph:
    ops = [
        _Op(
            number, each.number(5, "i"), each.text(3), _integers(each, 0), _integers(each, 4), each.number(1, "B"), each
        )
        for each in tables
    ]
    return _Graph(ops, makers={value: op for op in ops for value in op.outputs})


def _integers(table: Table, place: int) -> tuple[int, ...]:
    return tuple(int(n) for n in table.numbers(place, "<i4", _MAX_VALUES))


def _gates_of(body: _Graph, product: _Op) -> int:
    """How many gates the result of a product is cut into, itself or with what is added to it; 0 if into none."""
    values = set(product.outputs)
    for op in body.ops:
        if not values & set(op.inputs):
            continue
        if op.type == _SLICE:
            return len(op.outputs)
        if op.type in (_BINARY, _CONVERT, _RESHAPE):
            values |= set(op.outputs)
    return 0


def _module_of(path: str) -> str:
    """The module of torch that a path of its exporter tells, ``/layer1/layer1.0/conv1/Conv``; empty for other names.

    A part that is a member of a sequence repeats the sequence.
    """
    if not path.startswith("/"):
        return ""
    found: list[str] = []
    for part in path.strip("/").split("/")[:-1][:64]:
        if found and part.startswith(f"{found[-1]}."):
            found.pop()
        found.append(part)
    return ".".join(found)


def _own_name(name: str) -> str:
    """The name of a parameter that a constant's name is; empty of one that was made up."""
    return name if _PARAMETER_NAME.fullmatch(name) and not _MADE_UP.fullmatch(name) else ""


def _flat(tensor: LazyTensor) -> LazyTensor:
    return replace(tensor, shape=(math.prod(tensor.shape),))


def _zeros(shape: tuple[int, ...]) -> LazyTensor:
    return computed("float32", shape, lambda start, stop: np.zeros((stop - start, *shape[1:]), np.float32), stored=0)


def _way(tensor: LazyTensor, way: int, order: tuple[int, ...]) -> LazyTensor:
    """One index of the first axis, its gates in another order."""
    size = tensor.bytes // tensor.shape[0]
    part = replace(tensor, shape=tensor.shape[1:], span=lambda a, b: tensor.span(way * size + a, way * size + b))
    return regated(part, order)


def _stacked(parts: Sequence[LazyTensor]) -> LazyTensor:
    """Tensors along a new third axis."""
    split = replace(joined(parts), shape=(len(parts), *parts[0].shape))
    return turned(split, (1, 2, 0, *range(3, len(split.shape))))


def _short(name: str) -> str:
    return repr(name[:80])


SOURCE = Source(name="mnn", open=open_mnn, headers=True, ranges=True)
