"""The graph of an ONNX model: nodes, initialisers, the graphs within nodes, and local functions.

Fields are those of ``onnx.proto`` (ModelProto, GraphProto, NodeProto, AttributeProto, FunctionProto). Values of tensors
are not read. Attributes are read when they are asked for.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.byte_blocks import Blocks
from registry.sources.files.wire import BYTES, Message
from registry.sources.formats.onnx.tensor_headers import Stored, sparse_tensor, stored_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.files.wire import Field

__all__ = ["Attribute", "Function", "Graph", "Model", "Node", "read_model"]

MAX_NODES = 250_000
_MAX_STORED = 250_000  # tensors
_MAX_TEXT = 128 * 2**20  # bytes of all names of a model
_MAX_NAME = 4096
_MAX_ATTRIBUTES = 256  # of one node
_MAX_DEPTH = 16  # of graphs within graphs
_SCOPES = "pkg.torch.onnx.name_scopes"
_FOLDED = "pkg.onnxscript.optimizer.folded_from"
_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_MAX_SIGNATURE = 8 * 2**20
_PARAMETER = re.compile(r": (?:PARAMETER|BUFFER) target='([^'\n]{1,1000})'")
_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(slots=True)
class Attribute:
    """A setting of a node; ``refers``: the name of the setting of a function's call that stands for it."""

    name: str = ""
    integer: int = 0
    number: float = 0.0
    text: str = ""
    integers: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    tensor: Stored | None = None
    refers: str = ""
    message: Message | None = None


@dataclass(slots=True)
class Node:
    """A step of a graph. ``scopes``: names of torch's modules around it, if the exporter wrote them."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: str
    overload: str
    place: int
    graphs: tuple[Graph, ...]
    settings: list[Message]

    def attribute(self, name: str) -> Attribute | None:
        """A setting; None where the node has none of that name."""
        for message in self.settings:
            if _attribute_name(message) == name:
                return _attribute(message)
        return None

    def input(self, number: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.inputs[number] if number < len(self.inputs) else ""


@dataclass(slots=True)
class Graph:
    """Nodes in their order, tensors by name, and the names of what comes in and goes out.

    ``folded``: what torch's exporter says a tensor was computed from, a list of names as Python writes it.
    ``parameters``: what it says the parameters of the module were called; empty if it does not.
    """

    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Stored] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    folded: dict[str, str] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()


@dataclass(slots=True)
class Function:
    """A function of a model: its body's inputs and outputs are those of the nodes that call it."""

    body: Graph
    settings: list[Message]


@dataclass(slots=True)
class Model:
    """A model: who wrote it, its graph and functions by domain, name and overload, and texts about it."""

    message: Message
    producer: str = ""
    graph: Graph = field(default_factory=Graph)
    functions: dict[tuple[str, str, str], Function] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Reads graphs, and counts what they hold so that no file fills the memory."""

    def __init__(self) -> None:
        self.nodes = 0
        self.stored = 0
        self.text_bytes = 0

    def text(self, message: Message, each: Field, longest: int = _MAX_NAME) -> str:
        self.text_bytes += each.size
        if self.text_bytes > _MAX_TEXT:
            raise UnsafeError(f"{message.file.name} has names of more than {_MAX_TEXT} bytes", "export it again")
        return message.data(each, longest).decode("utf-8", "replace")

    def graph(self, message: Message, depth: int = 0) -> Graph:
        if depth > _MAX_DEPTH:
            raise UnsafeError(f"{message.file.name} nests graphs deeper than {_MAX_DEPTH} levels", "export it again")
        found = Graph()
        inputs: list[str] = []
        outputs: list[str] = []
        for each in message:
            if each.number == 1:
                found.nodes.append(self.node(message.message(each), depth))
            elif each.number in (5, 15):
                inner = message.message(each)
                tensor = stored_tensor(inner) if each.number == 5 else sparse_tensor(inner)
                self.stored += 1
                self.text_bytes += len(tensor.name)
                if self.stored > _MAX_STORED or self.text_bytes > _MAX_TEXT:
                    raise UnsafeError(f"{message.file.name} holds more than {_MAX_STORED} tensors", "split the model")
                found.tensors[tensor.name] = tensor
            elif each.number in (11, 12):
                inner = message.message(each)
                name = next((self.text(inner, part) for part in inner if part.number == 1), "")
                (inputs if each.number == 11 else outputs).append(name)
            elif each.number == 13 and depth == 0:
                self.folded(message.message(each), found)
            elif each.number == 16 and depth == 0:
                signature = self.noted(message.message(each), _SIGNATURE, _MAX_SIGNATURE)
                found.parameters |= frozenset(_PARAMETER.findall(signature))
        found.inputs, found.outputs = tuple(inputs), tuple(outputs)
        return found

    def node(self, message: Message, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise UnsafeError(f"{message.file.name} has more than {MAX_NODES} nodes", "split the model")
        texts = {3: "", 4: "", 7: "", 8: ""}
        inputs: list[str] = []
        outputs: list[str] = []
        settings: list[Message] = []
        scopes = ""
        for each in message:
            if each.number == 1:
                inputs.append(self.text(message, each))
            elif each.number == 2:
                outputs.append(self.text(message, each))
            elif each.number in texts:
                texts[each.number] = self.text(message, each)
            elif each.number == 5:
                settings.append(message.message(each))
                if len(settings) > _MAX_ATTRIBUTES:
                    raise UnsafeError(f"{message.file.name} has a node of too many settings", "export it again")
            elif each.number == 9:
                scopes = scopes or self.noted(message.message(each), _SCOPES)
        domain = "" if texts[7] == "ai.onnx" else texts[7]
        graphs: tuple[Graph, ...] = ()
        if texts[4] in _WITH_GRAPHS:
            graphs = tuple(self.graph(graph, depth + 1) for each in settings for graph in _graphs_in(each))
        return Node(
            texts[4], domain, texts[3], tuple(inputs), tuple(outputs), scopes, texts[8], message.start, graphs, settings
        )

    def noted(self, message: Message, wanted: str, longest: int = _MAX_NAME) -> str:
        """The text of an entry of metadata, if it is the one wanted."""
        key = ""
        for each in message:
            if each.number == 1:
                key = message.data(each, _MAX_NAME).decode("utf-8", "replace") if each.size == len(wanted) else ""
            elif each.number == 2 and key == wanted:
                return self.text(message, each, longest) if each.size <= longest else "[]"
        return ""

    def folded(self, message: Message, graph: Graph) -> None:
        """Note what a value was computed from, if its ValueInfoProto says so."""
        name = ""
        for each in message:
            if each.number == 1:
                name = message.data(each, _MAX_NAME).decode("utf-8", "replace")
            elif each.number == 4 and (origin := self.noted(message.message(each), _FOLDED)):
                graph.folded[name] = origin

    def function(self, message: Message) -> tuple[tuple[str, str, str], Function]:
        texts = {1: "", 10: "", 13: ""}
        body = Graph()
        inputs: list[str] = []
        outputs: list[str] = []
        settings: list[Message] = []
        for each in message:
            if each.number in texts:
                texts[each.number] = self.text(message, each)
            elif each.number == 4:
                inputs.append(self.text(message, each))
            elif each.number == 5:
                outputs.append(self.text(message, each))
            elif each.number == 7:
                body.nodes.append(self.node(message.message(each), 0))
            elif each.number == 11 and len(settings) < _MAX_ATTRIBUTES:
                settings.append(message.message(each))
        body.inputs, body.outputs = tuple(inputs), tuple(outputs)
        domain = "" if texts[10] == "ai.onnx" else texts[10]
        return (domain, texts[1], texts[13]), Function(body, settings)


def _graphs_in(setting: Message) -> Iterator[Message]:
    return (setting.message(each) for each in setting if each.number in (6, 11) and each.wire == BYTES)


def _attribute_name(message: Message) -> str:
    for each in message:
        if each.number == 1:
            return message.data(each, _MAX_NAME).decode("utf-8", "replace")
    return ""


def _attribute(message: Message) -> Attribute:
    found = Attribute(message=message)
    for each in message:
        if each.number == 1:
            found.name = message.data(each, _MAX_NAME).decode("utf-8", "replace")
        elif each.number == 2:
            found.number = struct.unpack("<f", (each.value & 0xFFFFFFFF).to_bytes(4, "little"))[0]
        elif each.number == 3:
            found.integer = message.integers(each)[0] if each.wire != BYTES else 0
        elif each.number == 4:
            found.text = message.data(each, _MAX_NAME).decode("utf-8", "replace") if each.size <= _MAX_NAME else ""
        elif each.number == 5:
            found.tensor = stored_tensor(message.message(each))
        elif each.number == 22:
            found.tensor = sparse_tensor(message.message(each))
        elif each.number == 7 and each.size <= 1 << 20 and len(found.numbers) < 1 << 18:
            found.numbers += [float(value) for value in message.numbers(each, "<f4")]
        elif each.number == 8 and each.size <= 1 << 20 and len(found.integers) < 1 << 18:
            found.integers += message.integers(each)
        elif each.number == 21:
            found.refers = message.data(each, _MAX_NAME).decode("utf-8", "replace")
    return found


def read_model(file: ByteSource) -> Model:
    """The graph of a model. Values of tensors are not read.

    Raises
    ------
    WeightsError
        The file is damaged, or has no graph.
    UnsafeError
        It has more nodes, tensors, names or levels than any network.
    """
    message = Message(Blocks(file))
    reader = _Reader()
    found = Model(message)
    whole = False
    for each in message:
        if each.number == 2:
            found.producer = message.data(each, _MAX_NAME).decode("utf-8", "replace")
        elif each.number == 7:
            found.graph, whole = reader.graph(message.message(each)), True
        elif each.number == 14 and len(found.metadata) < 1000:
            inner = message.message(each)
            pair = {part.number: inner.data(part, 1 << 16).decode("utf-8", "replace") for part in inner if part.size}
            found.metadata[pair.get(1, "")] = pair.get(2, "")
        elif each.number == 25:
            key, function = reader.function(message.message(each))
            found.functions[key] = function
    if not whole:
        raise WeightsError(f"{file.name} has no graph", "export the model again")
    return found
