"""Source for frozen graphs of TensorFlow (``.pb``), whose weights are constants; TensorFlow is not needed.

The graph is walked once for names, operations and inputs; the bytes of a constant are read when asked for. Only
constants that operations use as weights are tensors of the model: sizes, axes, anchors and numbers of the program are
not. Weights come in torch's layout. Source: ``graph.proto``, ``node_def.proto``, ``attr_value.proto``,
``function.proto`` and ``op_def.proto`` in ``tensorflow/core/framework``; ``meta_graph.proto`` and
``saved_model.proto`` in ``tensorflow/core/protobuf``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, computed
from registry.sources.files.wire import BYTES, VARINT, Message
from registry.sources.formats.tensorflow.nodes import (
    Function,
    Node,
    Use,
    check_complete,
    flattened,
    laid,
    named,
    quantised_ports,
    uses_of,
)
from registry.sources.formats.tensorflow.tensors import Ahead, tensor_in
from registry.sources.formats.tensorflow.variables import with_cells
from registry.sources.layer_order import layer_order
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.outputs_last import outputs_first

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.sources.files.lazy_tensors import LazyTensor
    from registry.types import Checkpoint, ModelFacts, ModelRef

__all__ = ["SOURCE", "Graph", "graph_in", "in_torch_order", "open_graph"]

_ATTRIBUTES = frozenset({
    "value", "transpose_a", "transpose_b", "adj_x", "adj_y", "f", "body", "then_branch", "else_branch", "equation",
    "mode", "shared_name", "narrow_range",
})  # fmt: skip
_SMALL = 64  # elements of a constant that is read for its numbers
_MAX_NODES = 300_000


class Graph:
    """The operations of a graph by name, functions put in place, and the tensors of its constants."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.constants: dict[str, LazyTensor] = {}
        for name, node in nodes.items():
            if node.op == "Const" and isinstance(node.attrs.get("value"), Message):
                tensor = tensor_in(node.attrs["value"])
                if tensor is not None:
                    self.constants[name] = tensor

    def source_of(self, name: str) -> str:
        """The constant that a name is, read through ``Identity`` and ``Enter``."""
        for _ in range(8):
            node = self.nodes.get(name)
            if node is None or node.op not in ("Identity", "Enter") or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def numbers(self, name: str) -> list[float] | None:
        """The values of a small constant; None for others."""
        tensor = self.constants.get(self.source_of(name))
        if tensor is None or math.prod(tensor.shape) > _SMALL:
            return None
        return [float(value) for value in np.atleast_1d(np.asarray(tensor.values(), np.float64)).ravel()]

    def integers(self, name: str) -> list[int] | None:
        """The values of a small constant of integers; None for others."""
        tensor = self.constants.get(self.source_of(name))
        if tensor is None or not tensor.dtype.startswith(("int", "uint")):
            return None
        found = self.numbers(name)
        return None if found is None else [int(value) for value in found]


def open_graph(ref: ModelRef) -> Checkpoint:
    """Open a frozen graph, or a SavedModel whose graph holds its weights; raises the errors of `open_ref`."""
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "graphs are never wrapped: leave --key out")
    file = Ahead(open_bytes(path))
    try:
        graph = graph_in(Message(file))
        tensors, order, notes = _weights(str(path), graph)
        if not tensors:
            raise WeightsError(f"{path} has no weights among its {len(graph.nodes)} operations", _remedy(graph))
        facts: ModelFacts = facts_beside(path)
        facts = replace(facts, laid_out=True, order=order, notes=(*facts.notes, *notes))
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=[file])
    except BaseException:
        file.close()
        raise


def _remedy(graph: Graph) -> str:
    variables = any(node.op in ("VarHandleOp", "VariableV2", "Variable") for node in graph.nodes.values())
    return (
        "its variables are in a checkpoint: put the folder variables beside it, or give MODEL.index"
        if variables
        else "give the graph that holds the weights, frozen with convert_variables_to_constants"
    )


def graph_in(message: Message) -> Graph:
    """The graph of a GraphDef, a MetaGraphDef, or the first MetaGraphDef of a SavedModel."""
    for _ in range(2):
        inner = _within(message)
        if inner is None:
            break
        message = inner
    nodes: list[Node] = []
    functions: dict[str, Function] = {}
    for each in message:
        if each.number == 1 and each.wire == BYTES:
            nodes.append(_node(message.message(each)))
            if len(nodes) > _MAX_NODES:
                raise UnsafeError(f"{message.file.name} has more than {_MAX_NODES} operations", "save a smaller graph")
        elif each.number == 2 and each.wire == BYTES:
            for function in message.message(each).messages(1):
                name, made = _function(function)
                functions[name] = made
    return Graph(flattened(nodes, functions))


def _within(message: Message) -> Message | None:
    """The MetaGraphDef of a SavedModel, or the GraphDef of a MetaGraphDef; None for a GraphDef.

    A SavedModel has a number first. A MetaGraphDef has its description there, whose first field is no name of an
    operation with an operation behind.
    """
    for each in message:
        if each.number == 1 and each.wire == VARINT:
            return next(message.messages(2), None)
        if each.number == 1 and each.wire == BYTES:
            inside = {field.number: field for field in message.message(each)}
            if 2 in inside and inside[2].wire == BYTES and 1 in inside and inside[1].wire == BYTES:
                kinds = _node(message.message(each))
                if kinds.op.isidentifier() and kinds.name and "\n" not in kinds.name:
                    return None
            return next(message.messages(2), None)
        if each.number == 2 and each.wire == BYTES:
            return message.message(each)
    return None


def _node(message: Message) -> Node:
    """A NodeDef; names and numbers are read, tensors are not."""
    name = op = ""
    inputs: list[str] = []
    attrs: dict[str, Any] = {}
    for each in message:
        if each.number == 1 and each.wire == BYTES:
            name = message.text(each)
        elif each.number == 2 and each.wire == BYTES:
            op = message.text(each)
        elif each.number == 3 and each.wire == BYTES:
            inputs.append(message.text(each))
        elif each.number == 5 and each.wire == BYTES:
            _attribute(message.message(each), attrs)
    return Node(name, op, tuple(inputs), attrs)


def _attribute(entry: Message, attrs: dict[str, Any]) -> None:
    key, value = "", None
    for each in entry:
        if each.number == 1 and each.wire == BYTES:
            key = entry.text(each) if each.size <= 64 else ""
        elif each.number == 2 and each.wire == BYTES:
            value = each
    if value is None or key not in _ATTRIBUTES:
        return
    content = entry.message(value)
    for each in content:
        if each.number == 8 and each.wire == BYTES:
            attrs[key] = content.message(each)
        elif each.number == 2 and each.wire == BYTES:
            attrs[key] = content.text(each)
        elif each.number in (3, 5, 6) and each.wire == VARINT:
            attrs[key] = each.value
        elif each.number == 10 and each.wire == BYTES:
            inner = content.message(each)
            attrs[key] = next((inner.text(part) for part in inner if part.number == 1), "")


def _function(message: Message) -> tuple[str, Function]:
    """A FunctionDef and its name."""
    name, arguments, nodes, returns = "", [], [], []
    for each in message:
        if each.number == 1 and each.wire == BYTES:
            signature = message.message(each)
            for part in signature:
                if part.number == 1 and part.wire == BYTES:
                    name = signature.text(part)
                elif part.number == 2 and part.wire == BYTES:
                    argument = signature.message(part)
                    arguments.append(next((argument.text(f) for f in argument if f.number == 1), ""))
        elif each.number == 3 and each.wire == BYTES:
            nodes.append(_node(message.message(each)))
        elif each.number == 4 and each.wire == BYTES:
            entry = message.message(each)
            returns += [entry.text(part) for part in entry if part.number == 2]
    return name, Function(tuple(arguments), tuple(nodes), tuple(returns))


def _weights(where: str, graph: Graph) -> tuple[dict[str, LazyTensor], tuple[str, ...], tuple[str, ...]]:
    """The weights in torch's layout by name, and the names in order where they do not tell."""
    weights = {
        name: tensor
        for name, tensor in graph.constants.items()
        if is_float(tensor.dtype) or (tensor.dtype in ("int8", "uint8") and len(tensor.shape) > 0)
    }
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    uses = uses_of(graph.nodes, shapes)
    notes = check_complete(where, graph.nodes, shapes, uses)
    names, derived = named(uses)
    tensors: dict[str, LazyTensor] = {}
    for source, use in uses.items():
        stored = _dequantised(weights[source], use, graph)
        if stored is None:
            continue
        tensor, kind, inputs = laid(stored, use, graph.integers)
        tensors[names[source]] = outputs_first(tensor, kind, inputs=inputs)
    return *in_torch_order(tensors, {name: source for source, name in names.items()}, derived=derived), notes


def in_torch_order(
    tensors: Mapping[str, LazyTensor], sources: Mapping[str, str], *, derived: bool
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    """Tensors with the names of recurrent cells put right, and their order if names were ``derived`` from operations.

    ``sources``: what each tensor is called in the graph.
    """
    if not derived:
        return dict(tensors), ()
    better = with_cells({name: (tensor.shape, sources[name]) for name, tensor in tensors.items()})
    made = {better[name]: tensors[name] for name in better}
    return made, layer_order({name: tensor.shape for name, tensor in made.items()})


def _dequantised(tensor: LazyTensor, use: Use, graph: Graph) -> LazyTensor | None:
    """The values of a weight stored as codes between a smallest and a largest value; None without these.

    Source: the documentation of ``tf.quantization.dequantize``, modes MIN_COMBINED, MIN_FIRST and SCALED.
    """
    if is_float(tensor.dtype):
        return tensor
    step = next((step for step in use.steps if step.op == "Dequantize"), None)
    ends = step.inputs[1:3] if step is not None else ()
    ports = quantised_ports(use.node.op)
    if step is None and ports and len(use.node.inputs) > ports[1]:
        ends = tuple(use.node.inputs[port] for port in ports)
    known = [graph.numbers(name) for name in ends]
    if len(known) != 2 or any(each is None or len(each) != 1 for each in known):
        return None
    low, high = (each[0] for each in known if each is not None)
    scaled = step is not None and step.attrs.get("mode") == "SCALED"
    lowest = -128 if tensor.dtype == "int8" else 0
    scale = high / (127 if tensor.dtype == "int8" else 255) if scaled else (high - low) / 255
    zero = 0.0 if scaled else low - lowest * scale
    width = math.prod(tensor.shape[1:])

    def rows(start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        codes = np.frombuffer(tensor.span(start * width, stop * width), tensor.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # of damaged scales
            return (codes * scale + zero).astype(np.float32)

    return computed("float32", tensor.shape, rows, precision=f"{tensor.dtype} tensorflow", stored=tensor.bytes)


SOURCE = Source(name="tf_graph", open=open_graph, headers=True, ranges=True)
