"""The graph of an OpenVINO model: the XML of its intermediate representation, versions 10 and 11.

The text is read in pieces by expat, without entities and document types, and with bounds on depth, layers, edges and
text. Values of constants are not read. Source: the documentation of OpenVINO's IR ("Operation Sets", "Model
Representation") and ``xml_util`` of its serialiser.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from registry.errors import UnsafeError, WeightsError
from registry.spelling import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Body", "Graph", "Layer", "read_graph"]

_MAX_TEXT = 256 * 2**20  # bytes of the file
_PIECE = 2**20  # bytes parsed at a time; no tag is as long
_MAX_DEPTH = 100  # of tags
_MAX_LAYERS = 250_000
_MAX_EDGES = 1_000_000  # and ports of layers
_MAX_KEPT = 64 * 2**20  # characters of all names and settings
_VERSIONS = (10, 11)
_REMEDY = "convert the model again with OpenVINO"
_MAPPED = ("external_port_id", "internal_layer_id", "axis", "to-layer")
_BODIES = {"body": "", "then_body": "then_", "else_body": "else_"}


@dataclass(slots=True)
class Layer:
    """A step of a graph.

    ``sources``: by port of an input, the layer and its port that it comes from. ``ports``: ports of the inputs in their
    order. ``bodies``: graphs within it. ``version``: the set of operations that ``op`` is of.
    """

    number: int
    op: str
    name: str
    version: str
    settings: dict[str, str] = field(default_factory=dict)
    sources: dict[int, tuple[int, int]] = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)

    def source(self, place: int) -> tuple[int, int] | None:
        """Layer and port that an input comes from; None without that input."""
        return self.sources.get(self.ports[place]) if 0 <= place < len(self.ports) else None

    def flag(self, name: str) -> bool:
        """A setting that is true or false; false without it."""
        return self.settings.get(name, "").lower() in ("true", "1")


@dataclass(slots=True)
class Graph:
    """Layers by number, in an order in which they can be computed."""

    layers: dict[int, Layer] = field(default_factory=dict)


@dataclass(slots=True)
class Body:
    """A graph within a layer.

    ``same``: parameters of the graph that are an input of the layer in each round, with the input's port. ``results``:
    the layers that give its outputs.
    """

    graph: Graph
    kind: str
    same: dict[int, int] = field(default_factory=dict)
    results: list[int] = field(default_factory=list)


class _Reader:
    """Handlers of expat that build the graph; what is not used of the text is not kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.graph = Graph()
        self.version = 0
        self.tags: list[str] = []
        self.graphs: list[Graph] = [self.graph]
        self.layers: list[Layer] = []
        self.maps: list[dict[str, list[Mapping[str, str]]]] = []  # of each open layer
        self.count = self.edges = self.kept = self.seen = 0

    def start(self, tag: str, given: dict[str, str]) -> None:
        self.seen += 1
        if len(self.tags) >= _MAX_DEPTH:
            raise UnsafeError(f"{self.name} nests tags deeper than {_MAX_DEPTH} levels", _REMEDY)
        above = self.tags[-1] if self.tags else ""
        self.tags.append(tag)
        if not above:
            self.version = self.number(given, "version") if tag == "net" else 0
            if self.version not in _VERSIONS:
                raise WeightsError(
                    f"{self.name} is an OpenVINO model of version {brief(given.get('version', ''))}, "
                    "which is not known",
                    "convert the model again with OpenVINO 2020.1 or newer",
                )
        elif tag == "layer" and above == "layers":
            self.layer(given)
        elif tag == "data" and above == "layer" and self.layers:
            self.keep(*given, *given.values())
            self.layers[-1].settings.update(given)
        elif tag == "port" and above == "input" and self.layers:
            self.edge()
            self.layers[-1].ports.append(self.number(given, "id"))
        elif tag == "edge" and above == "edges":
            self.edge()
            layer = self.graphs[-1].layers.get(self.number(given, "to-layer"))
            if layer is not None:
                layer.sources[self.number(given, "to-port")] = (
                    self.number(given, "from-layer"),
                    self.number(given, "from-port"),
                )
        elif above.endswith(("port_map", "back_edges")) and self.maps:
            self.edge()
            wanted = {key: given[key] for key in _MAPPED if key in given}
            self.keep(*wanted.values())
            self.maps[-1].setdefault(f"{above}/{tag}", []).append(wanted)
        elif tag in _BODIES and above == "layer" and self.layers:
            body = Body(Graph(), _BODIES[tag])
            self.layers[-1].bodies.append(body)
            self.graphs.append(body.graph)

    def end(self, tag: str) -> None:
        self.seen += 1
        self.tags.pop()
        above = self.tags[-1] if self.tags else ""
        if tag == "layer" and above == "layers" and self.layers:
            self.mapped(self.layers.pop(), self.maps.pop())
        elif tag in _BODIES and above == "layer" and len(self.graphs) > 1:
            self.graphs.pop()

    def layer(self, given: Mapping[str, str]) -> None:
        self.count += 1
        if self.count > _MAX_LAYERS:
            raise UnsafeError(f"{self.name} has more than {_MAX_LAYERS} layers", "split the model")
        op, name, version = (given.get(key, "") for key in ("type", "name", "version"))
        self.keep(op, name, version)
        layer = Layer(self.number(given, "id"), op, name, version)
        layers = self.graphs[-1].layers
        if layer.number in layers:
            raise WeightsError(f"{self.name} has two layers of number {layer.number}", _REMEDY)
        layers[layer.number] = layer
        self.layers.append(layer)
        self.maps.append({})

    def mapped(self, layer: Layer, maps: Mapping[str, list[Mapping[str, str]]]) -> None:
        """Enter which parameters of its bodies are inputs of a layer, the same in each round."""
        turned = {self.number(edge, "to-layer") for edge in maps.get("back_edges/edge", ())}
        for body in layer.bodies:
            for each in maps.get(f"{body.kind}port_map/input", ()):
                inner = self.number(each, "internal_layer_id")
                if "axis" not in each and inner not in turned:
                    body.same[inner] = self.number(each, "external_port_id")
            outputs = maps.get(f"{body.kind}port_map/output", ())
            body.results = [self.number(each, "internal_layer_id") for each in outputs]

    def edge(self) -> None:
        self.edges += 1
        if self.edges > _MAX_EDGES:
            raise UnsafeError(f"{self.name} has more than {_MAX_EDGES} edges", "split the model")

    def keep(self, *texts: str) -> None:
        self.kept += sum(map(len, texts))
        if self.kept > _MAX_KEPT:
            raise UnsafeError(f"{self.name} has names and settings of more than {_MAX_KEPT} characters", _REMEDY)

    def number(self, given: Mapping[str, str], key: str) -> int:
        text = given.get(key, "")
        if not (text.isascii() and text.lstrip("-").isdecimal() and len(text) < 12):
            raise WeightsError(f"{self.name} has {key}={brief(text)} where a number stands", _REMEDY)
        return int(text)

    def refuse(self, *_: Any) -> None:
        """A document type or an entity, which no writer of these files makes."""
        raise UnsafeError(f"{self.name} declares a document type or entities", _REMEDY)


def read_graph(file: ByteSource) -> Graph:
    """The graph of a model; no values are read.

    Raises
    ------
    WeightsError
        The text is damaged, no XML, or of a version that is not known.
    UnsafeError
        It declares entities, or has more layers, edges, text or levels than any network.
    """
    if file.size > _MAX_TEXT:
        raise UnsafeError(f"{file.name} is a text of {file.size} bytes, more than {_MAX_TEXT}", _REMEDY)
    reader = _Reader(file.name)
    parser = expat.ParserCreate("utf-8")  # whatever the text says
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = reader.refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    try:
        for start in range(0, file.size, _PIECE):
            before = reader.seen
            stop = min(file.size, start + _PIECE)
            parser.Parse(bytes(file.read_at(start, stop - start)), stop == file.size)
            if reader.seen == before and stop - start == _PIECE:
                raise UnsafeError(f"{file.name} has {_PIECE} bytes of text without a tag", _REMEDY)
    except expat.ExpatError as error:
        raise WeightsError(f"{file.name} is no sound XML: {error}", "download it again") from error
    return reader.graph
