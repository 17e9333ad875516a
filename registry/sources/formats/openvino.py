"""Source for OpenVINO models: the ``.xml`` has the graph, the ``.bin`` beside it the constants.

A constant is a weight if it reaches an input for weights, a bias or a normalisation; it comes in the layout of torch's
twin of the layer. Source: "Operation Sets" of OpenVINO's documentation for inputs and layouts; gates f i c o of
LSTMSequence, z r h of GRUSequence; the documentation of torch.nn for torch's.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, turned
from registry.sources.formats.onnx.node_names import Names
from registry.sources.formats.openvino_constants import Constant, Constants, Scope, parameter_name
from registry.sources.formats.openvino_graph import read_graph
from registry.sources.graph_order import Computation, graph_order
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.outputs_last import in_gates
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.sources.formats.openvino_graph import Graph, Layer
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_openvino"]

_REMEDY = "convert the model again with OpenVINO"
_UNREAD_SHARE = 0.05
_MAX_GRAPHS = 16  # within each other
_MAX_MATRICES = 4096  # of a batched product
# Inputs that are vectors, with torch's name: place, leaf. Of batch norm by version of the operation.
_VECTORS: dict[str, tuple[tuple[int, str], ...]] = {
    "BatchNormInference": ((1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var")),
    "BatchNormInference opset1": ((0, "weight"), (1, "bias"), (3, "running_mean"), (4, "running_var")),
    "GroupNormalization": ((1, "weight"), (2, "bias")),
    "PReLU": ((1, "weight"),),
}
# Places of W and R and B, and of torch's gates among those of OpenVINO.
_RECURRENT: dict[str, tuple[tuple[int, int, int], tuple[int, ...]]] = {
    "LSTMSequence": ((4, 5, 6), (1, 0, 2, 3)), "LSTMCell": ((3, 4, 5), (1, 0, 2, 3)),
    "GRUSequence": ((3, 4, 5), (1, 0, 2)), "GRUCell": ((2, 3, 4), (1, 0, 2)),
    "RNNSequence": ((3, 4, 5), (0,)), "RNNCell": ((2, 3, 4), (0,)),
}  # fmt: skip
# Layers with weights whose layout is not known here.
_UNKNOWN = frozenset({"AUGRUCell", "AUGRUSequence", "BinaryConvolution", "Einsum", "STFT"})
_MOVES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Convert"})
_NORMED = re.compile(r"batch_norm|BatchNorm|FusedBatchNorm", re.ASCII)
_SCOPED = re.compile(r"__module\.([^/]*)/")


def open_openvino(ref: ModelRef) -> Checkpoint:
    """Open an OpenVINO model by its ``.xml``, with the ``.bin`` beside it.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The text is damaged, the two files do not belong together, or more than 5 % of the weights are used in a way
        that is not known.
    UnsafeError
        The text declares entities, or is larger than that of any network.
    NotFoundError
        The ``.bin`` is missing, or an entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "OpenVINO models are one network: omit --key")
    with open_bytes(ref.target) as text:
        graph = read_graph(text)
    beside = (ref.target[: -len(".xml")] if ref.target.lower().endswith(".xml") else ref.target) + ".bin"
    try:
        file = open_bytes(beside)
    except NotFoundError as error:
        raise NotFoundError(
            f"no file {beside} beside {Path(ref.target).name}, which has its weights", "put the .bin beside the .xml"
        ) from error
    try:
        found = _Finder(graph, Constants(file), ref.target)
        found.find()
        facts = facts_beside(Path(ref.target), names=found.tensors)
        facts = replace(
            facts,
            aliases={**found.aliases, **facts.aliases},
            laid_out=True,
            order=found.order(),
            notes=(*facts.notes, *found.notes()),
        )
        return LazyCheckpoint(with_facts(ref, facts), found.tensors, facts, files=(file,))
    except BaseException:
        file.close()
        raise


class _Finder:
    """Walks through the graph and enters the weights by name."""

    def __init__(self, graph: Graph, constants: Constants, target: str) -> None:
        self.constants = constants
        self.target = target
        self.top = Scope(graph)
        self.tensors: dict[str, LazyTensor] = {}
        self.aliases: dict[str, str] = {}
        self.by_key: dict[object, str] = {}
        self.used: set[tuple[object, ...]] = set()
        self.unread: dict[tuple[object, ...], tuple[str, int]] = {}
        self.tables: dict[tuple[object, ...], int] = {}
        self.steps: list[Computation] = []
        self.present: list[str] = []
        self.counts: dict[str, int] = {}
        self.layers: dict[str, int] = {}
        self.nameless = False
        self.folded = 0
        known = (parameter_name(each.name) for each in graph.layers.values() if each.op == "Const")
        self.names = Names(name for name in known if name)

    def find(self) -> None:
        """Enter all weights.

        Raises
        ------
        WeightsError
            There are none, a tensor does not fit its layer, or too many are used in a way that is not known.
        UnsafeError
            Graphs lie deeper within each other than in any network.
        """
        self._walk(self.top, 0)
        for layer in self.top.graph.layers.values():  # parameters that no layer uses as weights: tokens, tables
            own = parameter_name(layer.name) if layer.op == "Const" else ""
            value = self.constants.find(self.top, layer) if own and own not in self.tensors else None
            if value is not None and value.key not in self.used and is_float(value.tensor.dtype):
                self.tensors[own] = value.tensor
                self.used.add(value.key)
        if not self.tensors:
            raise WeightsError(f"{self.target} holds no weights of a network", _REMEDY)
        self.unread = {key: each for key, each in self.unread.items() if key not in self.used}
        read = sum(math.prod(t.shape) for t in self.tensors.values() if len(t.shape) > 1)
        missed = sum(count for _, count in self.unread.values())
        if missed > _UNREAD_SHARE * (read + missed):
            raise WeightsError(
                f"{self.target}: {missed} of {read + missed} weights are used by {self._unread_by()}, whose layout is "
                "not known",
                "ingest the model that it was converted from",
            )

    def order(self) -> tuple[str, ...]:
        """Names in the order of computation, where they do not tell it themselves."""
        outputs = [(id(self.top), each.number) for each in self.top.graph.layers.values() if each.op == "Result"]
        return tuple(graph_order(self.steps, outputs)) if self.nameless else ()

    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        notes = []
        if self.folded:
            notes.append(f"batch norm was folded into {counted(self.folded, 'convolution')} by the converter")
        tables = [count for key, count in self.tables.items() if key not in self.used]
        if tables:
            notes.append(
                f"{counted(len(tables), 'table')} of {sum(tables):,} numbers, added or multiplied as positions "
                "or masks are, not taken for layers"
            )
        if self.nameless:
            notes.append("the converter kept no names of some layers: all are in the order of the graph")
        if self.unread:
            notes.append(f"weights used by {self._unread_by()} are left out: how they are laid out is not known")
        return tuple(notes)

    def _unread_by(self) -> str:
        return ", ".join(sorted({op for op, _ in self.unread.values()})[:5])

    # The graph

    def _walk(self, scope: Scope, depth: int) -> None:
        if depth > _MAX_GRAPHS:
            raise UnsafeError(f"{self.target} nests graphs deeper than {_MAX_GRAPHS} levels", _REMEDY)
        for layer in scope.graph.layers.values():
            self.present = []
            handler = _HANDLERS.get(layer.op)
            if handler is not None:
                handler(self, scope, layer)
            elif layer.op in _UNKNOWN or not layer.version.startswith("opset"):
                for place in range(len(layer.ports)):
                    self._not_read(layer, self.constants.input(scope, layer, place))
            vectors = _VECTORS.get(f"{layer.op} {layer.version}", _VECTORS.get(layer.op, ()))
            for place, leaf in vectors:
                value = self.constants.input(scope, layer, place)
                if value is not None and value.shape:
                    self._put(layer, value, leaf, _flat(value.tensor))
            takes = [(id(scope), source[0]) for source in layer.sources.values()]
            here = (id(scope), layer.number)
            weights = tuple(self.present)
            for body in layer.bodies:
                inner = Scope(body.graph, scope, layer, body)
                starts = [(id(inner), n) for n, each in body.graph.layers.items() if each.op == "Parameter"]
                self.steps.append(Computation(tuple(takes), tuple(starts)))
                self._walk(inner, depth + 1)
                takes += [(id(inner), number) for number in body.results]
            self.steps.append(Computation(tuple(takes), (here,), weights))

    # Putting weights

    def _put(
        self,
        layer: Layer,
        value: Constant,
        leaf: str,
        laid: LazyTensor | None = None,
        *,
        name: str = "",
        part: object = None,
    ) -> str:
        """Enter a weight in torch's layout (``laid``) under its own name, ``name``, or one made for its layer.

        ``part``: what tells apart several weights made of one constant. Returns the name; empty if it is no weight.
        """
        tensor = value.tensor if laid is None else laid
        if not is_float(tensor.dtype):
            return ""
        self.used.add(value.key)
        own = parameter_name(value.name) if part is None else ""
        identity = (value.key, part, leaf, "" if len(tensor.shape) > 1 else own or name or layer.number)
        if identity in self.by_key:  # a weight that is used twice
            first = self.by_key[identity]
            if own and own != first and len(tensor.shape) > 1:
                self.aliases.setdefault(own, first)
            self.present.append(first)
            return first
        wanted = own or name
        if not wanted and (module := self._module(layer)):
            wanted = f"{module}/{_KERAS.get(leaf, leaf)}" if "/" in module else f"{module}.{leaf}"
            self.nameless = self.nameless or (len(tensor.shape) > 1 and "/" in module)
        if not wanted or wanted in self.tensors:
            self.nameless = self.nameless or len(tensor.shape) > 1
            operation = _LABELS.get(layer.op, layer.op)
            while not wanted or wanted in self.tensors:
                place = self.counts.get(operation, 0)
                self.counts[operation] = place + 1
                wanted = f"{operation}_{place}.{leaf}"
        self.tensors[wanted] = tensor
        self.by_key[identity] = wanted
        self.present.append(wanted)
        return wanted

    def _module(self, layer: Layer) -> str:
        """The module that a layer's name tells; empty if it does not."""
        scoped = _SCOPED.match(layer.name)
        if scoped:
            return scoped[1]
        if "aten" in layer.name or "prim::" in layer.name:
            return ""  # outside of any module, or as torch.export calls it
        return self.names.module_in(layer.name.removesuffix("/WithoutBiases"))

    def _not_read(self, layer: Layer, value: Constant | None) -> None:
        """Note a matrix that is used in a way that is not known."""
        if value is not None and sum(extent > 1 for extent in value.shape) > 1:
            self.unread.setdefault(value.key, (layer.op[:100], math.prod(value.shape)))

    def _weight(self, scope: Scope, layer: Layer, place: int) -> Constant | None:
        """The constant at an input for weights. One that is computed in a way not followed is noted."""
        value = self.constants.input(scope, layer, place)
        if value is None:
            for found in self._below(scope, layer, place):
                self._not_read(layer, found)
        return value

    def _below(self, scope: Scope, layer: Layer, place: int) -> list[Constant]:
        """The constants of which an input is made, if it is made of constants alone."""
        found: list[Constant] = []
        waiting = [scope.producer(layer, place)]
        for _ in range(64):
            if not waiting:
                return found
            each = waiting.pop()
            if each is None or each[1].bodies or not each[1].ports:
                value = None if each is None else self.constants.find(*each)
                if value is None:
                    return []
                found.append(value)
                continue
            value = self.constants.find(*each)
            if value is not None:
                found.append(value)
            elif each[1].op in ("ShapeOf", "RandomUniform"):
                return []
            else:
                waiting += [each[0].producer(each[1], number) for number in range(len(each[1].ports))]
        return []

    # Layers

    def _bias(self, scope: Scope, layer: Layer, weight: str, normed: bool) -> None:
        """Enter the vector that is added to what a layer gives, beside its weight."""
        added = self._added(scope, layer)
        if added is None or not weight:
            return
        step, value = added
        if normed or _NORMED.search(step.name):
            self.folded += 1
        head, mark, _ = weight.rpartition("/" if "/" in weight else ".")
        module = self._module(layer)
        if module and "/" not in module and head.startswith(module):
            module = head  # within it, as the output projection of attention
        beside = f"{module or head}{mark}bias"
        self._put(layer, value, "bias", _flat(value.tensor), name=beside)

    def _added(self, scope: Scope, layer: Layer) -> tuple[Layer, Constant] | None:
        """The vector that is added to what a layer gives, and the layer that does it."""
        for _ in range(4):
            after = scope.after(layer)
            if len(after) != 1:
                return None
            step, place = after[0]
            if step.op in _MOVES and place == 0:
                layer = step
                continue
            value = self.constants.input(scope, step, 1 - place) if step.op == "Add" and place < 2 else None
            return (step, value) if value is not None and _is_vector(value) else None
        return None

    def conv(self, scope: Scope, layer: Layer) -> None:
        """Convolutions: (out, in, *kernel); transposed ones (in, out, *kernel); in groups (groups, ...)."""
        value = self._weight(scope, layer, 2 if layer.op == "DeformableConvolution" else 1)
        grouped = layer.op.startswith("Group")
        if value is None or not is_float(value.tensor.dtype):
            return
        shape = value.shape
        if len(shape) < 3 + grouped:
            raise _misfit(layer, shape)
        joined = (shape[0] * shape[1], *shape[2:]) if grouped else shape
        weight = self._put(layer, value, "weight", replace(value.tensor, shape=joined))
        self._bias(scope, layer, weight, normed=value.name.startswith("Multiply") and "BackpropData" not in layer.op)

    def product(self, scope: Scope, layer: Layer) -> None:
        """MatMul: a constant at the right is (in, out), one at the left (out, in), unless it is transposed."""
        right, left = self._weight(scope, layer, 1), self.constants.input(scope, layer, 0)
        if (right is None) == (left is None):
            return
        value = right or left
        assert value is not None  # noqa: S101 - for mypy: one of the two is there
        outputs_first = layer.flag("transpose_b") if right is not None else not layer.flag("transpose_a")
        shape = value.shape
        if len(shape) < 2 or not is_float(value.tensor.dtype):
            return
        if parameter_name(value.name) and value.direct:  # the parameter itself, as torch's module has it
            self._bias(scope, layer, self._put(layer, value, "weight"), normed=False)
            return
        many = math.prod(shape[:-2])
        if many == 1:
            matrix = replace(value.tensor, shape=shape[-2:])
            weight = self._put(layer, value, "weight", matrix if outputs_first else turned(matrix, (1, 0)))
            self._bias(scope, layer, weight, normed=False)
            return
        if many > _MAX_MATRICES:
            self._not_read(layer, value)
            return
        size = shape[-2] * shape[-1]
        for number in range(many):
            one = _piece(value.tensor, number * size, shape[-2:])
            self._put(layer, value, f"{number}.weight", one if outputs_first else turned(one, (1, 0)), part=number)

    def gather(self, scope: Scope, layer: Layer) -> None:
        """Embeddings: the rows of a table, (many, width)."""
        value = self.constants.input(scope, layer, 0)
        axis = self.constants.integers(scope, layer, 2)
        if value is not None and len(value.shape) > 1 and axis == [0] and is_float(value.tensor.dtype):
            self._put(layer, value, "weight")

    def vector(self, scope: Scope, layer: Layer) -> None:
        """A vector that is multiplied or added: gains and shifts of a normalisation, scales of layers."""
        values = [self.constants.input(scope, layer, place) for place in range(2)]
        for place, value in enumerate(values):
            if value is None or values[1 - place] is not None or value.key in self.used:
                continue
            if not _is_vector(value):
                if is_float(value.tensor.dtype) and sum(extent > 1 for extent in value.shape) > 1:
                    self.tables.setdefault(value.key, math.prod(value.shape))
                continue
            other = scope.producer(layer, 1 - place)
            if other is not None and other[1].op in ("Convert", "Const", "Parameter"):
                continue  # positions, or what comes in
            self._put(layer, value, "weight" if layer.op == "Multiply" else "bias", _flat(value.tensor))

    def recurrent(self, scope: Scope, layer: Layer) -> None:
        """LSTM, GRU and RNN: W (directions, gates * hidden, in), R (directions, gates * hidden, hidden), B."""
        places, gates = _RECURRENT[layer.op]
        module, cell = self._module(layer), layer.op.endswith("Cell")
        number = self.layers.get(module, 0)
        self.layers[module] = number + 1
        if not module or "/" in module:
            self.nameless = True
            kind = layer.op.removesuffix("Sequence").removesuffix("Cell")
            place = self.counts[kind] = self.counts.get(kind, -1) + 1
            module, number = f"{kind}_{place}", 0
        for place, leaf in zip(places, ("weight_ih", "weight_hh", "bias"), strict=True):
            value = self._weight(scope, layer, place)
            if value is None or not is_float(value.tensor.dtype):
                continue
            shape = (1, *value.shape) if cell else value.shape
            stacked = gates
            if leaf == "bias" and layer.op.startswith("GRU") and layer.flag("linear_before_reset"):
                stacked = (1, 0, 2, 3)  # the last gate has two
            if len(shape) != (2 if leaf == "bias" else 3) or shape[1] % len(stacked) or not 1 <= shape[0] <= 2:
                raise _misfit(layer, value.shape)
            size = math.prod(shape[1:])
            for way in range(shape[0]):
                laid = in_gates(_piece(value.tensor, way * size, shape[1:]), stacked)
                name = f"{module}.{leaf}_l{number}{'_reverse' if way else ''}"
                if way == 0 and shape[0] == 1 and layer.settings.get("direction") == "reverse":
                    name += "_reverse"
                self._put(layer, value, leaf, laid, name=name, part=(way, name))


_LABELS = {"Gather": "Embedding", "ConvolutionBackpropData": "ConvTranspose",
           "GroupConvolutionBackpropData": "ConvTranspose"}  # fmt: skip
_KERAS = {"weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance"}
_HANDLERS: dict[str, Callable[[_Finder, Scope, Layer], None]] = {
    "Convolution": _Finder.conv, "GroupConvolution": _Finder.conv, "ConvolutionBackpropData": _Finder.conv,
    "GroupConvolutionBackpropData": _Finder.conv, "DeformableConvolution": _Finder.conv,
    "MatMul": _Finder.product, "Gather": _Finder.gather, "Multiply": _Finder.vector, "Add": _Finder.vector,
    **dict.fromkeys(_RECURRENT, _Finder.recurrent),
}  # fmt: skip


def _misfit(layer: Layer, shape: tuple[int, ...]) -> WeightsError:
    return WeightsError(f"{layer.op} {layer.name[:80]!r} has weights of shape {str(shape)[:80]}", _REMEDY)


def _is_vector(value: Constant) -> bool:
    return is_float(value.tensor.dtype) and math.prod(value.shape) == max((*value.shape, 1)) > 1


def _flat(tensor: LazyTensor) -> LazyTensor:
    return replace(tensor, shape=(math.prod(tensor.shape),))


def _piece(tensor: LazyTensor, first: int, shape: Sequence[int]) -> LazyTensor:
    """A range of a tensor's elements, from element ``first`` on, as a tensor of that shape."""
    width = bits_of(tensor.dtype) // 8
    low = first * width
    share = math.prod(shape) / max(1, math.prod(tensor.shape))
    stored = None if tensor.stored is None else int(tensor.stored * share)

    def span(start: int, stop: int) -> memoryview:
        if tensor.whole:
            return tensor.span(0, tensor.bytes)[low + start : low + stop]
        return tensor.span(low + start, low + stop)

    return replace(tensor, shape=tuple(shape), span=span, stored=stored)


SOURCE = Source(name="openvino", open=open_openvino, headers=True, ranges=True)
