"""The weights of an ONNX model: constants by the part that they play in the node that uses them.

A constant is a parameter if it reaches an input for weights, for a bias or for a normalisation; shapes, axes, masks,
anchors and scales are none. It is laid out as torch's twin of the node stores it. Sources: "ONNX Operators" (onnx.ai)
and "Contrib Operators" (ONNX Runtime) for the inputs, the documentation of torch.nn for the layouts.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.lazy_tensors import LazyTensor, computed, turned
from registry.sources.formats.onnx.constants import Constant, Constants, Scope, dequantised, scaled
from registry.sources.formats.onnx.model import MAX_NODES
from registry.sources.formats.onnx.nbits import gathered_blocks, nbits
from registry.sources.formats.onnx.node_names import Names, is_slashed, label, listed, own_name, sibling
from registry.sources.graph_order import Computation, graph_order
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.sources.formats.onnx.model import Function, Graph, Model, Node

__all__ = ["Weights", "weights_of"]

_MAX_CALLS = 40  # functions within functions
_MAX_ALL_CALLS = 20_000
_UNREAD_SHARE = 0.05
_MAX_BATCH = 4096  # matrices of a batched product
_REMEDY = "export the model again"
_KERAS = {
    "weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance",
}  # fmt: skip
# Inputs of nodes that are vectors, with torch's name: number, leaf.
_VECTORS: dict[str, tuple[tuple[int, str], ...]] = {
    "BatchNormalization": ((1, "weight"), (2, "bias"), (3, "running_mean"), (4, "running_var")),
    "InstanceNormalization": ((1, "weight"), (2, "bias")),
    "LayerNormalization": ((1, "weight"), (2, "bias")),
    "GroupNormalization": ((1, "weight"), (2, "bias")),
    "RMSNormalization": ((1, "weight"),),
    "SimplifiedLayerNormalization": ((1, "weight"),),
    "PRelu": ((1, "weight"),),
    "SkipLayerNormalization": ((2, "weight"), (3, "bias"), (4, "skip_bias")),
    "SkipSimplifiedLayerNormalization": ((2, "weight"), (3, "skip_bias")),
    "GroupNorm": ((1, "weight"), (2, "bias")),
    "SkipGroupNorm": ((1, "weight"), (2, "bias")),
    "BiasGelu": ((1, "bias"),),
    "FastGelu": ((1, "bias"),),
    "BiasSplitGelu": ((1, "bias"),),
    "MultiHeadAttention": ((3, "bias"),),
    "EmbedLayerNormalization": ((5, "weight"), (6, "bias")),
}  # fmt: skip
# Nodes of ONNX Runtime whose constants are no weights: tables of angles, scales.
_WEIGHTLESS = frozenset(
    {"RotaryEmbedding", "GroupQueryAttention", "Gelu", "QuickGelu", "QuantizeLinear", "DequantizeLinear", "QLinearAdd",
     "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearAveragePool",
     "QLinearSoftmax", "QLinearConcat", "QLinearReduceMean", "Trilu", "NhwcMaxPool", "Pad", "Range", "ExpandDims",
     "GemmaRotaryEmbedding", "DecoderMaskedMultiHeadAttention", "PackedMultiHeadAttention"}
)  # fmt: skip
_ONE_AXIS = re.compile(r"conv_?1d(?:_?transpose)?(?:_\d+)?(?:/|$)")
_CELL = re.compile(r"lstm|gru|rnn", re.IGNORECASE)
_MOVES = frozenset({"Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Transpose", "Expand"})
# Places of torch's gates among those of ONNX.
_GATES = {"LSTM": (0, 2, 3, 1), "DynamicQuantizeLSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


class Weights(NamedTuple):
    """The weights of a model by name, all in torch's layout.

    ``order``: names in the order of computation, where they do not tell it. ``aliases``: other names of tied tensors.
    ``notes``: sentences for the user.
    """

    tensors: dict[str, LazyTensor]
    order: tuple[str, ...]
    aliases: dict[str, str]
    notes: tuple[str, ...]


def weights_of(model: Model, constants: Constants) -> Weights:
    """Find the weights of a model. Nothing of them is read.

    Raises
    ------
    WeightsError
        A tensor does not fit the node that uses it, or more than 5 % of the weights are used in a way that is not
        known here.
    UnsafeError
        Functions call each other without end.
    """
    return _Finder(model, constants).found()


class _Finder:
    def __init__(self, model: Model, constants: Constants) -> None:
        self.model = model
        self.constants = constants
        self.torch = model.producer == "pytorch"
        self.tensors: dict[str, LazyTensor] = {}
        self.aliases: dict[str, str] = {}
        self.by_key: dict[object, str] = {}
        self.used: set[int] = set()
        self.steps: list[Computation] = []
        self.present: list[str] = []  # names used by the node that is looked at
        self.made_by: dict[str, str] = {}  # by a weight's name, that of the node that it was entered for
        self.nameless = False
        self.folded = 0
        self.unread: dict[int, tuple[str, int]] = {}
        self.layers: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.visited = self.calls = 0
        self.names = Names(own_name(name) for name in _all_names(model))
        self.top = Scope(model.graph)

    def found(self) -> Weights:
        self._walk(self.top, 0)
        self._named()
        self._check_unread()
        outputs = [_key(self.top, name) for name in self.model.graph.outputs]
        order = tuple(graph_order(self.steps, outputs)) if self.nameless else ()
        notes = []
        if self.folded:
            notes.append(f"batch norm was folded into {counted(self.folded, 'convolution')} by the exporter")
        if self.unread:
            ops = ", ".join(sorted({op for op, _ in self.unread.values()})[:5])
            notes.append(f"weights used by {ops} are left out: how they are laid out is not known")
        aliases = {name: whole for name, whole in self.aliases.items() if name not in self.tensors}
        return Weights(self.tensors, order, aliases, tuple(notes))

    # The graph

    def _walk(self, scope: Scope, depth: int) -> None:
        for node in scope.graph.nodes:
            function = self._function(node)
            if function is not None:
                self._call(scope, node, function, depth)
                continue
            self.present = []
            handler = _HANDLERS.get(node.op) if node.domain in ("", "com.microsoft") else None
            if handler is not None:
                handler(self, scope, node)
            elif node.domain not in ("", "ai.onnx.ml") and node.op not in _WEIGHTLESS and node.op not in _VECTORS:
                self._unknown(scope, node)
            if node.op in _VECTORS:
                self._vectors(scope, node)
            takes = tuple(_key(scope, name) for name in node.inputs if name)
            gives = tuple(_key(scope, name) for name in node.outputs if name)
            for graph in node.graphs:
                inner = Scope(graph, scope, formals=_unchanged(scope, node, graph))
                self.steps.append(Computation(takes, tuple(_key(inner, name) for name in graph.inputs)))
                self._walk(inner, depth + 1)
                takes += tuple(_key(inner, name) for name in graph.outputs)
            self.steps.append(Computation(takes, gives, tuple(self.present) if not node.graphs else ()))

    def _function(self, node: Node) -> Function | None:
        if not self.model.functions:
            return None
        return self.model.functions.get((node.domain, node.op, node.overload))

    def _call(self, scope: Scope, node: Node, function: Function, depth: int) -> None:
        if depth >= _MAX_CALLS:
            raise UnsafeError(f"functions of the model call each other more than {_MAX_CALLS} deep", _REMEDY)
        self.calls += 1
        self.visited += len(function.body.nodes)
        if self.visited > MAX_NODES or self.calls > _MAX_ALL_CALLS:
            raise UnsafeError(
                f"functions of the model make more than {MAX_NODES} nodes or {_MAX_ALL_CALLS} calls of it", _REMEDY
            )
        formals = {
            name: (scope, node.input(number)) for number, name in enumerate(function.body.inputs) if node.input(number)
        }
        inner = Scope(function.body, call=(scope, node), formals=formals)
        for name, inside in zip(node.outputs, function.body.outputs, strict=False):
            if name:
                scope.producers.pop(name, None)
                scope.calls[name] = (inner, inside)
        self._walk(inner, depth + 1)

    # Putting weights

    def _put(
        self,
        node: Node,
        value: Constant,
        leaf: str,
        laid: LazyTensor | None = None,
        *,
        name: str = "",
        part: object = None,
    ) -> str:
        """Enter a weight in torch's layout (``laid``) under its own name, ``name``, or one made for its node.

        ``part``: what tells apart several weights made of one tensor. Returns the name; empty if it is no weight.
        """
        tensor = value.tensor if laid is None else laid
        if not is_float(tensor.dtype):
            if not tensor.dtype.startswith("float8"):
                return ""
            tensor = _widened(tensor)
        self.used.add(value.key)
        own = self._own(value) if part is None else ""
        module = self.names.module(node)
        if own and self.torch and value.direct:
            tensor = value.tensor  # the parameter itself, as torch's module has it
        elif part is None:
            own = self._origin(value)
            if own in self.tensors and self.tensors[own].shape == tensor.shape:  # a copy that the exporter made
                self._also(module, own)
                self.present.append(own)
                return own
        wanted = own or name or self._of_module(module, leaf)
        # A vector that two modules share is counted for both: torch stores equal tensors once, whatever they are.
        identity = (value.key, part, leaf, "" if len(tensor.shape) > 1 else wanted)
        if identity in self.by_key:
            first = self.by_key[identity]
            if wanted and wanted != first and len(tensor.shape) > 1 and not is_slashed(wanted):
                self.aliases.setdefault(wanted, first)
            self._also(module, first)
            self.present.append(first)
            return first
        if not wanted:
            self.nameless = self.nameless or len(tensor.shape) > 1
            wanted = f"{label(node, self._place(node))}.{leaf}"
        if wanted in self.tensors and not own and leaf == "weight" and wanted == f"{module}/kernel":
            wanted = self._beside_kernel(node, module, tensor)
        if wanted in self.tensors:
            if own and self.tensors[wanted].shape == tensor.shape:
                self.by_key[identity] = wanted
                self.present.append(wanted)
                return wanted
            wanted = self._another(module, label(node, self._place(node)), leaf)
        self.tensors[wanted] = tensor
        self.made_by[wanted] = node.name
        self.by_key[identity] = wanted
        self._also(module, wanted)
        self.present.append(wanted)
        return wanted

    def _beside_kernel(self, node: Node, module: str, tensor: LazyTensor) -> str:
        """The name of the second kernel of a recurrent cell of TensorFlow; the two may come in any order.

        The recurrent one is (gates units, units); where both are, it is the later one by the number of its operation.
        """
        first, second = f"{module}/kernel", f"{module}/recurrent_kernel"
        if not _CELL.search(module) or second in self.tensors:
            return first
        before = self.made_by.get(first, "")
        turned = _recurs(self.tensors[first].shape) and (
            not _recurs(tensor.shape) or (len(node.name), node.name) < (len(before), before)
        )
        if not turned:
            return second
        self.tensors[second] = self.tensors.pop(first)
        self.made_by[second] = before
        self.by_key = {key: second if name == first else name for key, name in self.by_key.items()}
        self.steps = [step._replace(weights=tuple(second if w == first else w for w in step.weights))
                      for step in self.steps]  # fmt: skip
        return first

    def _own(self, value: Constant) -> str:
        """The name of the parameter that a stored tensor is; empty of one that an exporter computed."""
        return "" if self._is_folded_away(value.name) else own_name(value.name)

    def _is_folded_away(self, name: str) -> bool:
        """Whether a tensor is one that torch's exporter computed, and no parameter that it kept by its name."""
        return name in self.model.graph.folded and "." not in name

    def _origin(self, value: Constant) -> str:
        """The name of a parameter that a tensor is: its own, or that of the only one that it was computed from."""
        if not self._is_folded_away(value.name):
            return own_name(value.name)
        known = self.model.graph.parameters
        names = [own_name(name) for name in listed(self.model.graph.folded[value.name])]
        found = [name for name in names if (name in known if known else "." in name)]
        return found[0] if len(found) == 1 else ""

    def _also(self, module: str, name: str) -> None:
        """Note that a parameter of one module is used in another that has one of that name: they are tied."""
        head, _, leaf = name.rpartition(".")
        within = f"{head}.".startswith(f"{module}.") or is_slashed(module)
        if leaf == "weight" and module and self.torch and not within and len(self.tensors[name].shape) == 2:
            self.aliases.setdefault(f"{module}.weight", name)

    def _of_module(self, module: str, leaf: str) -> str:
        if not module:
            return ""
        return f"{module}/{_KERAS.get(leaf, leaf)}" if is_slashed(module) else f"{module}.{leaf}"

    def _another(self, module: str, own: str, leaf: str) -> str:
        """A name that is free, for a second weight of a module."""
        head = f"{module}.{own}" if module and not is_slashed(module) else f"{module}/{own}" if module else own
        mark = "/" if is_slashed(module) else "."
        wanted, count = f"{head}{mark}{leaf}", 1
        while wanted in self.tensors:
            count += 1
            wanted = f"{head}_{count}{mark}{leaf}"
        return wanted

    def _place(self, node: Node) -> int:
        """A number for a node, counted by operation."""
        key = f"{node.op}@{node.place}"
        if key not in self.places:
            self.places[node.op] = self.places.get(node.op, -1) + 1
            self.places[key] = self.places[node.op]
        return self.places[key]

    def _named(self) -> None:
        """Enter the parameters of torch's modules that no node uses as weights: tokens, tables, layer scales."""
        if not self.torch:
            return
        for name, stored in self.top.graph.tensors.items():
            own = self._origin(Constant(self.constants.tensor(stored), name, stored.key)) if stored.is_float else ""
            if self._is_folded_away(name) and stored.elements != max((*stored.shape, 1)):
                continue  # a matrix computed from a parameter, whose axes are not known
            if own and stored.key not in self.used and own not in self.tensors:
                self.tensors[own] = self.constants.tensor(stored)
        for node in self.top.graph.nodes:  # equal tensors are stored once
            name = node.outputs[0] if node.op == "Identity" and len(node.outputs) == 1 else ""
            own = own_name(name) if "." in name else ""
            value = self.constants.find(self.top, name) if own and own not in self.tensors else None
            if value is not None and is_float(value.tensor.dtype):
                self.tensors[own] = value.tensor

    # What is not known

    def _unknown(self, scope: Scope, node: Node) -> None:
        for name in node.inputs:
            value = self.constants.find(scope, name)
            if value is not None:
                self._not_read(node, value)

    def _not_read(self, node: Node, value: Constant) -> None:
        shape = value.shape
        sides = [extent for extent in shape if extent > 1]
        if len(sides) > 1:
            kind = f"{node.domain}.{node.op}" if node.domain else node.op
            self.unread.setdefault(value.key, (kind[:100], math.prod(shape)))

    def _check_unread(self) -> None:
        self.unread = {key: each for key, each in self.unread.items() if key not in self.used}
        if self.torch:  # those that have torch's names are read, whatever uses them
            kept = {s.key for name, s in self.top.graph.tensors.items() if own_name(name) in self.tensors}
            self.unread = {key: each for key, each in self.unread.items() if key not in kept}
        read = sum(math.prod(t.shape) for t in self.tensors.values() if len(t.shape) > 1)
        missed = sum(count for _, count in self.unread.values())
        if missed > _UNREAD_SHARE * (read + missed):
            ops = ", ".join(sorted({op for op, _ in self.unread.values()})[:5])
            raise WeightsError(
                f"{self.model.message.file.name}: {missed} of {read + missed} weights are used by {ops}, whose layout "
                "is not known",
                "ingest the model as it was exported, before it was optimised or compiled",
            )

    def _weight(self, scope: Scope, node: Node, number: int) -> Constant | None:
        """The constant at an input for weights. One that is computed in a way not followed is noted."""
        value = self.constants.find(scope, node.input(number))
        if value is None and node.input(number):
            for found in self._below(scope, node.input(number)):
                self._not_read(node, found)
        return value

    def _below(self, scope: Scope, name: str) -> list[Constant]:
        """The constants of which a value is made, if it is made of constants alone."""
        found: list[Constant] = []
        names: list[tuple[Scope, str]] = [(scope, name)]
        for _ in range(64):
            if not names:
                return found
            scope, name = names.pop()
            value = self.constants.find(scope, name)
            if value is not None:
                found.append(value)
                continue
            scope, name = scope.place(name)
            if name not in scope.producers:
                return []
            node, _number = scope.producers[name]
            if not node.inputs or node.graphs or node.op in ("Shape", "RandomNormal", "RandomUniform"):
                return []
            inputs = node.inputs[:1] if node.op in _MOVES else node.inputs  # whatever the new shape is computed from
            names += [(scope, each) for each in inputs if each]
        return []

    # Nodes

    def _vectors(self, scope: Scope, node: Node) -> None:
        if node.op == "BatchNormalization" and self._below(scope, node.input(0)):
            return  # it normalises a weight; a layer norm may have learnt queries
        for number, leaf in _VECTORS[node.op]:
            value = self.constants.find(scope, node.input(number))
            if value is not None and value.shape:
                flat = replace(value.tensor, shape=(math.prod(value.shape),)) if node.op == "PRelu" else None
                self._put(node, value, leaf, flat)

    def _bias(self, scope: Scope, node: Node, name: str, weight: str, tensor: LazyTensor | None = None) -> None:
        """Enter a bias beside its weight."""
        value = self.constants.find(scope, name)
        if value is None or math.prod(value.shape) < 2:
            return
        flat = value.tensor if tensor is None else tensor
        beside = weight[: -len("weight")] + "bias" if weight.endswith("weight") else ""
        if weight.endswith("/kernel"):
            beside = weight[: -len("kernel")] + "bias"
        self._put(node, value, "bias", replace(flat, shape=(math.prod(flat.shape),)), name=beside)

    def conv(self, scope: Scope, node: Node) -> None:
        """Convolutions: (out, in / groups, *kernel); transposed ones (in, out / groups, *kernel)."""
        value = self._weight(scope, node, 1) or self._standardised(scope, node)
        if value is None or len(value.shape) < 2:
            return
        bias = node.input(3 if node.op == "DeformConv" else 2)
        biased = self.constants.find(scope, bias)
        name = self._beside(node, biased)
        weight = self._put(node, value, "weight", self._as_keras(scope, node, value), name=name)
        if node.op == "Conv" and self.torch and self._is_folded(node, value, biased):
            self.folded += 1
        self._bias(scope, node, bias, weight)

    def _as_keras(self, scope: Scope, node: Node, value: Constant) -> LazyTensor | None:
        """A kernel that gets a name of Keras: outputs first, and without the axis that TensorFlow puts before one."""
        module, tensor = self.names.module(node), value.tensor
        if not is_slashed(module) or self.torch or self._own(value).endswith("weight"):
            return None
        if node.op == "ConvTranspose" and scope.integer(node, "group", 1) == 1:
            tensor = turned(tensor, (1, 0, *range(2, len(value.shape))))
        if len(tensor.shape) == 4 and tensor.shape[2] == 1 and _ONE_AXIS.search(module):
            tensor = replace(tensor, shape=(*tensor.shape[:2], tensor.shape[3]))
        return None if tensor is value.tensor else tensor

    def _standardised(self, scope: Scope, node: Node) -> Constant | None:
        """The parameter of a weight whose rows get mean 0 and variance 1 when the network runs, (out, in, *kernel).

        A batch norm that takes its statistics from the weight, (1, out, rest), does it, and a reshaping behind it.
        """
        owner, name = scope.place(node.input(1))
        shaping = owner.producers.get(name, (None, 0))[0]
        if shaping is None or shaping.op != "Reshape":
            return None
        norm = owner.producers.get(shaping.input(0), (None, 0))[0]
        shape = self.constants.integers(owner, shaping.input(1))
        value = self.constants.find(owner, norm.input(0)) if norm is not None and "Normalization" in norm.op else None
        if value is None or not shape or len(shape) < 3 or value.shape[:2] != (1, shape[0]):
            return None
        if math.prod(shape) != math.prod(value.shape):
            return None
        self.used |= {other.key for other in self._below(scope, node.input(1))}  # copies of it, for its statistics
        return replace(value, tensor=replace(value.tensor, shape=tuple(shape)), direct=False)

    def _beside(self, node: Node, bias: Constant | None) -> str:
        """The name of the weight that a bias of torch's name is beside, unless the node's module is further within."""
        name = "" if bias is None else sibling(own_name(bias.name))
        within = name and self.names.module(node).startswith(f"{name.rpartition('.')[0]}.")
        return "" if within else name

    def _is_folded(self, node: Node, value: Constant, biased: Constant | None) -> bool:
        """Whether torch's exporter folded a batch norm: its scopes say so, or both tensors have names made up."""
        if "batch_norm" in node.scopes:
            return True
        return not node.scopes and biased is not None and self._is_made_up(value) and self._is_made_up(biased)

    def _is_made_up(self, value: Constant) -> bool:
        """Whether an exporter made a tensor's name up: parameters of nameless modules are ``3.weight``, with a dot."""
        return not self._own(value) and "." not in value.name

    def product(self, scope: Scope, node: Node) -> None:
        """MatMul and Gemm: a constant at the right is (in, out), one at the left (out, in), or turned by a setting."""
        right = self._sliced(scope, node) or self._weight(scope, node, 1)
        left = self.constants.find(scope, node.input(0))
        bias = node.input(2) if "Gemm" in node.op else ""
        if right is not None and left is None:
            first = bool(scope.integer(node, "transB"))
            self._product(scope, node, right, right.tensor, outputs_first=first, bias=bias)
        elif left is not None and right is None:
            first = not scope.integer(node, "transA")
            self._product(scope, node, left, left.tensor, outputs_first=first, bias=bias)

    def _sliced(self, scope: Scope, node: Node) -> Constant | None:
        """The whole matrix of which a product takes some outputs, as tf2onnx multiplies with the gates of a GRU."""
        owner, name = scope.place(node.input(1))
        cut = owner.producers.get(name, (None, 0))[0]
        if cut is None or cut.op != "Slice" or self.constants.find(owner, name) is not None:
            return None
        value = self.constants.find(owner, cut.input(0))
        if value is None or len(value.shape) != 2:
            return None
        starts, stops, axes, steps = (self.constants.integers(owner, cut.input(at)) for at in (1, 2, 3, 4))
        inputs = 1 if scope.integer(node, "transB") else 0
        if starts is None or stops is None or len(starts) != len(stops) or any(step != 1 for step in steps or ()):
            return None
        for start, stop, axis in zip(starts, stops, axes or range(len(starts)), strict=False):
            if axis % 2 == inputs and (start != 0 or stop < value.shape[inputs]):
                return None  # some of its inputs alone
        return value

    def _product(
        self,
        scope: Scope,
        node: Node,
        value: Constant,
        tensor: LazyTensor,
        *,
        outputs_first: bool,
        bias: str = "",
        scaled_bias: LazyTensor | None = None,
    ) -> None:
        """Enter the matrix of a product: (out, in), or several, (many, out, in)."""
        shape = tensor.shape
        if len(shape) < 2:
            return
        bias = bias or self._added(scope, node)
        biased = self.constants.find(scope, bias)
        name = self._beside(node, biased)
        many = math.prod(shape[:-2])
        kept = self.torch and value.direct and self._own(value)  # it is entered as it is
        if many != 1 and not kept:
            self._batch(node, value, replace(tensor, shape=(many, *shape[-2:])), outputs_first=outputs_first)
            return
        matrix = tensor if kept else replace(tensor, shape=shape[-2:])
        laid = matrix if outputs_first or kept else turned(matrix, (1, 0))
        weight = self._put(node, value, "weight", laid, name=name)
        self._bias(scope, node, bias, weight, scaled_bias)

    def _batch(self, node: Node, value: Constant, tensor: LazyTensor, *, outputs_first: bool) -> None:
        """Matrices of a batched product, each a weight of its own."""
        many, rows, columns = tensor.shape
        if not 1 < many <= _MAX_BATCH or not is_float(tensor.dtype):
            return
        for number in range(many):
            size = rows * columns
            one = _pieces(tensor, [(number * size, (number + 1) * size)], (rows, columns))
            self._put(node, value, f"{number}.weight", one if outputs_first else turned(one, (1, 0)), part=number)

    def _added(self, scope: Scope, node: Node) -> str:
        """Name of the constant that is added to what a node gives: its bias; empty without one."""
        name = node.outputs[0] if node.outputs else ""
        for _ in range(4):
            after = scope.consumers.get(name, [])
            if len(after) != 1 or not after[0].outputs:
                return ""
            step = after[0]
            if step.op in ("Cast", "Reshape", "Squeeze", "Mul") and step.input(0) == name and step.op != "Mul":
                name = step.outputs[0]
                continue
            if step.op == "Mul" and node.op in _WITH_SCALES:
                name = step.outputs[0]
                continue
            if step.op != "Add" or len(step.inputs) != 2:
                return ""
            other = step.input(1) if step.input(0) == name else step.input(0)
            value = self.constants.find(scope, other)
            if value is None or not is_float(value.tensor.dtype) or math.prod(value.shape) != max((*value.shape, 1)):
                return ""
            return other
        return ""

    def gather(self, scope: Scope, node: Node) -> None:
        """Embeddings: the rows of a table, (many, width)."""
        value = self.constants.find(scope, node.input(0))
        if value is None or len(value.shape) < 2 or scope.integer(node, "axis") not in (0, -len(value.shape)):
            return
        tensor = value.tensor
        if tensor.dtype in ("int8", "uint8"):
            found = self._scale_of_codes(scope, node)
            if found is None or math.prod(found[0].shape) != 1:
                self._not_read(node, value)
                return
            scale, zero = found
            tensor = dequantised(tensor, scale.tensor, None if zero is None else zero.tensor, 0)
        if is_float(tensor.dtype):
            self._put(node, value, "embeddings" if is_slashed(self.names.module(node)) else "weight", tensor)

    def _scale_of_codes(self, scope: Scope, node: Node) -> tuple[Constant, Constant | None] | None:
        """Scale and zero point of what a node gives, which stand behind it among the inputs of a node that takes it."""
        names = list(node.outputs[:1])
        for _ in range(16):
            if not names:
                return None
            name = names.pop()
            for after in scope.consumers.get(name, []):
                if after.op in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"):
                    names += after.outputs[:1]
                if after.op == "DequantizeLinear" or after.op.startswith("QLinear"):
                    at = after.inputs.index(name)
                    scale, zero = (self.constants.find(scope, after.input(at + each)) for each in (1, 2))
                    if scale is not None and is_float(scale.tensor.dtype) and (zero or not after.input(at + 2)):
                        return scale, zero
        return None

    def vector(self, scope: Scope, node: Node) -> None:
        """A vector that is multiplied or added, of exporters that do not keep the names of torch's parameters."""
        if self.torch or any(self._is_scale(scope, name) for name in node.inputs):
            return
        for name in node.inputs:
            owner, inner = scope.place(name)
            value = self.constants.find(scope, name) if inner in owner.graph.tensors else None
            if value is None or not is_float(value.tensor.dtype) or value.key in self.used:
                continue
            if math.prod(value.shape) == max((*value.shape, 1)) > 1:
                flat = replace(value.tensor, shape=(math.prod(value.shape),))
                self._put(node, value, "weight" if node.op == "Mul" else "bias", flat)

    def _is_scale(self, scope: Scope, name: str) -> bool:
        """Whether it is the scale of an input that is quantised when the network runs."""
        owner, made = scope.place(name)
        producer, number = owner.producers.get(made, (None, 0))
        return producer is not None and producer.op == "DynamicQuantizeLinear" and number == 1

    def recurrent(self, scope: Scope, node: Node) -> None:
        """LSTM, GRU and RNN: W (directions, gates * hidden, in), R (directions, gates * hidden, hidden), B."""
        gates = _GATES[node.op]
        module = self.names.module(node)
        slashed = is_slashed(module)
        for number, leaf in ((1, "weight_ih"), (2, "weight_hh")):
            value = self._weight(scope, node, number)
            if value is not None and node.op == "DynamicQuantizeLSTM":
                value = self._recurrent_codes(scope, node, value, 2 * number + 6)
            if value is None or not is_float(value.tensor.dtype):
                continue
            if len(value.shape) != 3 or value.shape[1] % len(gates):
                raise WeightsError(f"{node.op} has weights of shape {str(value.shape)[:80]}", _REMEDY)
            ways, rows, columns = value.shape
            for way in range(min(ways, 2)):
                size = rows // len(gates) * columns
                order = _keras_gates(node.op) if slashed else gates
                pieces = [((way * len(gates) + g) * size, (way * len(gates) + g + 1) * size) for g in order]
                laid = _pieces(value.tensor, pieces, (rows, columns))
                keras = ("forward_", "backward_")[way] if ways > 1 else ""
                kernel = keras + ("kernel" if leaf == "weight_ih" else "recurrent_kernel")
                name = self._recurrent_name(module, kernel if slashed else leaf, node, way, slashed=slashed)
                self._put(node, value, leaf, laid, name=name, part=(way, name))
        self._recurrent_bias(scope, node, module, gates)

    def _recurrent_codes(self, scope: Scope, node: Node, value: Constant, number: int) -> Constant | None:
        """Weights of DynamicQuantizeLSTM, (directions, in, gates * hidden), with scales by direction or output."""
        scale = self.constants.find(scope, node.input(number))
        zero = self.constants.find(scope, node.input(number + 1))
        if scale is None or len(value.shape) != 3 or len(scale.shape) not in (1, 2):
            self._not_read(node, value)
            return None
        factors = [
            replace(each.tensor, shape=(each.shape[0], 1, each.shape[1])) if len(each.shape) == 2 else each.tensor
            for each in (scale, zero) if each is not None
        ]  # fmt: skip
        axis = 1 if len(scale.shape) == 2 else 0
        laid = turned(dequantised(value.tensor, factors[0], factors[1] if zero else None, axis), (0, 2, 1))
        return replace(value, tensor=laid, direct=False)

    def _recurrent_name(self, module: str, leaf: str, node: Node, way: int, *, slashed: bool) -> str:
        if slashed:
            return f"{module}/{leaf}"
        layer = self._layer(module, node)
        if not module:
            self.nameless = True
            module = label(node, self._place(node))
            layer = 0
        return f"{module}.{leaf}_l{layer}{'_reverse' if way else ''}"

    def _layer(self, module: str, node: Node) -> int:
        """The number of a recurrent node among those of its module, which has one for each of its layers."""
        key = f"{module}@{node.place}"
        if key not in self.layers:
            self.layers[module] = self.layers.get(module, -1) + 1
            self.layers[key] = self.layers[module]
        return self.layers[key]

    def _recurrent_bias(self, scope: Scope, node: Node, module: str, gates: Sequence[int]) -> None:
        value = self.constants.find(scope, node.input(3))
        if value is None or not is_float(value.tensor.dtype):
            return
        if len(value.shape) != 2 or value.shape[1] % (2 * len(gates)):
            raise WeightsError(f"{node.op} has biases of shape {str(value.shape)[:80]}", _REMEDY)
        slashed = is_slashed(module)
        size = value.shape[1] // (2 * len(gates))
        for way in range(min(value.shape[0], 2)):
            for half, leaf in enumerate(("bias_ih", "bias_hh")):
                order = _keras_gates(node.op) if slashed else gates
                start = (way * 2 + half) * len(gates)
                pieces = [((start + g) * size, (start + g + 1) * size) for g in order]
                laid = _pieces(value.tensor, pieces, (len(gates) * size,))
                name = self._recurrent_name(module, leaf, node, way, slashed=slashed)
                if slashed and way:
                    name += "_backward"
                self._put(node, value, leaf, laid, name=name, part=(way, name))

    def einsum(self, scope: Scope, node: Node) -> None:
        """A product of two tensors by letters: those of the constant that the result has are outputs."""
        values = [self.constants.find(scope, name) for name in node.inputs]
        found = scope.attribute(node, "equation")
        if len(values) != 2 or (values[0] is None) == (values[1] is None) or found is None:
            return
        equation = found.text.replace(" ", "").replace("...", "")
        sides, arrow, result = equation.partition("->")
        letters = sides.split(",")
        own = 0 if values[0] is not None else 1
        value = values[own]
        if value is None or not arrow or len(letters) != 2 or len(letters[own]) != len(value.shape):
            return
        mine, other = letters[own], letters[1 - own]
        both = [axis for axis, letter in enumerate(mine) if letter in result and letter in other]
        outs = [axis for axis, letter in enumerate(mine) if letter in result and letter not in other]
        ins = [axis for axis, letter in enumerate(mine) if letter not in result]
        if not outs or not ins or len(set(mine)) != len(mine):
            return
        if self.torch and value.direct and self._own(value):
            self._put(node, value, "weight")
            return
        extents = [math.prod(value.shape[axis] for axis in axes) for axes in (both, outs, ins)]
        if both and extents[0] > 1:
            laid = turned(value.tensor, (*both, *outs, *ins), extents)
            self._batch(node, value, laid, outputs_first=True)
            return
        self._put(node, value, "weight", turned(value.tensor, (*both, *outs, *ins), extents[1:]))

    # Quantised nodes

    def _codes(
        self, scope: Scope, node: Node, weight: int, scale: int, zero: int, axis: int
    ) -> tuple[Constant, LazyTensor] | None:
        value = self.constants.find(scope, node.input(weight))
        factor = self.constants.find(scope, node.input(scale))
        offset = self.constants.find(scope, node.input(zero)) if node.input(zero) else None
        if value is None or factor is None:
            return None
        tensor = dequantised(
            value.tensor, factor.tensor, None if offset is None else offset.tensor, axis, where=repr(value.name[:80])
        )
        return value, tensor

    def _scaled_bias(self, scope: Scope, node: Node, bias: int, scales: tuple[int, int]) -> LazyTensor | None:
        value = self.constants.find(scope, node.input(bias))
        factors = [self.constants.find(scope, node.input(number)) for number in scales]
        if value is None or factors[0] is None or factors[1] is None or value.tensor.dtype != "int32":
            return None
        return scaled(value.tensor, factors[0].tensor, factors[1].tensor)

    def quantised_conv(self, scope: Scope, node: Node) -> None:
        """QLinearConv: x, its scale and zero, w, its scale and zero, those of y, bias."""
        found = self._codes(scope, node, 3, 4, 5, 0)
        if found is None:
            return
        weight = self._put(node, found[0], "weight", found[1])
        bias = self._scaled_bias(scope, node, 8, (1, 4))
        if bias is not None:
            self._bias(scope, node, node.input(8), weight, bias)

    def quantised_matmul(self, scope: Scope, node: Node) -> None:
        """QLinearMatMul: a, its scale and zero, b, its scale and zero, those of y."""
        found = self._codes(scope, node, 3, 4, 5, -1)
        if found is not None:
            self._product(scope, node, *found, outputs_first=False)

    def quantised_gemm(self, scope: Scope, node: Node) -> None:
        """QGemm: a, its scale and zero, b, its scale and zero, bias."""
        first = bool(scope.integer(node, "transB"))
        found = self._codes(scope, node, 3, 4, 5, 0 if first else -1)
        if found is not None:
            bias = self._scaled_bias(scope, node, 6, (1, 4))
            name = "" if bias is None else node.input(6)
            self._product(scope, node, *found, outputs_first=first, bias=name, scaled_bias=bias)

    def integer_product(self, scope: Scope, node: Node) -> None:
        """MatMulInteger and ConvInteger: the scale of the weight is multiplied to what they give."""
        value = self.constants.find(scope, node.input(1))
        if value is None:
            return
        offset = self.constants.find(scope, node.input(3)) if node.input(3) else None
        scale = self._scale_after(scope, node)
        if scale is None:
            self._not_read(node, value)
            return
        axis = 0 if node.op == "ConvInteger" else -1
        factor = replace(scale.tensor, shape=(math.prod(scale.shape),) if math.prod(scale.shape) != 1 else ())
        tensor = dequantised(value.tensor, factor, None if offset is None else offset.tensor, axis)
        if node.op == "ConvInteger":
            weight = self._put(node, value, "weight", tensor)
            self._bias(scope, node, self._added(scope, node), weight)
        else:
            self._product(scope, node, value, tensor, outputs_first=False)

    def _scale_after(self, scope: Scope, node: Node) -> Constant | None:
        """The constant that the integers of a node are multiplied by, alone or times the scale of the input."""
        name = node.outputs[0] if node.outputs else ""
        for _ in range(4):
            after = scope.consumers.get(name, [])
            if len(after) != 1 or not after[0].outputs:
                return None
            step = after[0]
            if step.op == "Mul" and len(step.inputs) == 2:
                other = step.input(1) if step.input(0) == name else step.input(0)
                value = self.constants.find(scope, other)
                if value is not None:
                    return value
                owner, made = scope.place(other)
                product = owner.producers.get(made, (None, 0))[0]
                if product is None or product.op != "Mul":
                    return None
                found = [self.constants.find(owner, each) for each in product.inputs]
                return next((each for each in found if each is not None and is_float(each.tensor.dtype)), None)
            if step.op not in ("Cast", "Reshape"):
                return None
            name = step.outputs[0]
        return None

    def dynamic_matmul(self, scope: Scope, node: Node) -> None:
        """DynamicQuantizeMatMul (a, b, scale, zero, bias) and MatMulIntegerToFloat (a, b, two scales, two zeros)."""
        numbers = (1, 2, 3) if node.op == "DynamicQuantizeMatMul" else (1, 3, 5)
        found = self._codes(scope, node, *numbers, -1)
        if found is not None:
            bias = node.input(4 if node.op == "DynamicQuantizeMatMul" else 6)
            self._product(scope, node, *found, outputs_first=False, bias=bias)

    def nbits(self, scope: Scope, node: Node) -> None:
        """MatMulNBits: codes (out, blocks, bytes of a block), scales, zeros, and a bias."""
        parts = [self.constants.find(scope, node.input(number)) for number in (1, 2, 3)]
        if parts[0] is None or parts[1] is None:
            return
        if self.constants.find(scope, node.input(4)) is not None:
            self._not_read(node, parts[0])  # rows in another order
            return
        sizes = {key: scope.integer(node, key) for key in ("K", "N", "bits", "block_size")}
        tensor = nbits(parts[0].tensor, parts[1].tensor, None if parts[2] is None else parts[2].tensor, sizes)
        self._product(scope, node, parts[0], tensor, outputs_first=True, bias=node.input(5))

    def blocks(self, scope: Scope, node: Node) -> None:
        """GatherBlockQuantized: an embedding in blocks of codes."""
        parts = [self.constants.find(scope, node.input(number)) for number in (0, 2, 3)]
        if parts[0] is None or parts[1] is None or scope.integer(node, "gather_axis"):
            return
        zero = None if parts[2] is None else parts[2].tensor
        bits = scope.integer(node, "bits", 4)
        axis = scope.integer(node, "quantize_axis", 1)
        block = scope.integer(node, "block_size", 128)
        tensor = gathered_blocks(parts[0].tensor, parts[1].tensor, zero, axis, block, bits)
        self._put(node, parts[0], "weight", tensor)

    def attention(self, scope: Scope, node: Node) -> None:
        """Attention and QAttention of ONNX Runtime: (in, q + k + v) with a bias, cut into the three."""
        if node.domain != "com.microsoft":
            return
        value = self._weight(scope, node, 1)
        if value is None or len(value.shape) != 2:
            return
        tensor = value.tensor
        if node.op == "QAttention":
            found = self._codes(scope, node, 1, 4, 7, -1)
            if found is None:
                return
            tensor = found[1]
        sizes = scope.attribute(node, "qkv_hidden_sizes")
        widths = list(sizes.integers) if sizes is not None and sizes.integers else [tensor.shape[1] // 3] * 3
        if len(widths) != 3 or min(widths) < 1 or sum(widths) != tensor.shape[1]:
            raise WeightsError(f"Attention has weights of shape {str(tensor.shape)[:80]} for {widths}", _REMEDY)
        whole = turned(tensor, (1, 0))
        bias = self.constants.find(scope, node.input(2))
        columns, start = tensor.shape[0], 0
        module = self.names.module(node)
        for part, width in zip(("query", "key", "value"), widths, strict=True):
            head = module or label(node, self._place(node))
            self.nameless = self.nameless or not module
            laid = _pieces(whole, [(start * columns, (start + width) * columns)], (width, columns))
            self._put(node, value, "weight", laid, name=f"{head}.{part}.weight", part=(part, node.place))
            if bias is not None and is_float(bias.tensor.dtype) and bias.shape == (sum(widths),):
                piece = _pieces(bias.tensor, [(start, start + width)], (width,))
                self._put(node, bias, "bias", piece, name=f"{head}.{part}.bias", part=(part, node.place))
            start += width

    def embeddings(self, scope: Scope, node: Node) -> None:
        """EmbedLayerNormalization of ONNX Runtime: tables of words, positions and segments."""
        module = self.names.module(node) or label(node, self._place(node))
        for number, leaf in ((2, "word_embeddings"), (3, "position_embeddings"), (4, "token_type_embeddings")):
            value = self.constants.find(scope, node.input(number))
            if value is not None and len(value.shape) == 2:
                self._put(node, value, "weight", name=f"{module}.{leaf}.weight")


def _recurs(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] in (3 * shape[1], 4 * shape[1])


def _keras_gates(op: str) -> tuple[int, ...]:
    """Places of Keras' gates among those of ONNX: i f c o of i o f c; z r h as they are."""
    return (0, 2, 3, 1) if "LSTM" in op else (0, 1, 2) if op == "GRU" else (0,)


_WITH_SCALES = frozenset({"MatMulInteger", "ConvInteger"})
_HANDLERS: dict[str, Callable[[_Finder, Scope, Node], None]] = {
    "Conv": _Finder.conv, "ConvTranspose": _Finder.conv, "FusedConv": _Finder.conv, "NhwcConv": _Finder.conv,
    "DeformConv": _Finder.conv, "NhwcFusedConv": _Finder.conv,
    "MatMul": _Finder.product, "FusedMatMul": _Finder.product, "TransposeMatMul": _Finder.product,
    "FusedMatMulActivation": _Finder.product, "Gemm": _Finder.product, "FusedGemm": _Finder.product,
    "GemmFastGelu": _Finder.product, "Gather": _Finder.gather, "Einsum": _Finder.einsum,
    "LSTM": _Finder.recurrent, "GRU": _Finder.recurrent, "RNN": _Finder.recurrent,
    "DynamicQuantizeLSTM": _Finder.recurrent,
    "QLinearConv": _Finder.quantised_conv, "QLinearMatMul": _Finder.quantised_matmul, "QGemm": _Finder.quantised_gemm,
    "ConvInteger": _Finder.integer_product, "MatMulInteger": _Finder.integer_product,
    "DynamicQuantizeMatMul": _Finder.dynamic_matmul, "MatMulIntegerToFloat": _Finder.dynamic_matmul,
    "MatMulNBits": _Finder.nbits, "GatherBlockQuantized": _Finder.blocks,
    "Attention": _Finder.attention, "QAttention": _Finder.attention,
    "EmbedLayerNormalization": _Finder.embeddings, "Add": _Finder.vector, "Mul": _Finder.vector,
}  # fmt: skip


def _unchanged(scope: Scope, node: Node, graph: Graph) -> dict[str, tuple[Scope, str]]:
    """Inputs of a loop's body that have the same value in each round, and what is given for them.

    ``Loop`` takes a count, a condition and the states, its body the number of the round, the condition and the states;
    the body gives the condition and the states, and what it collects. ``Scan`` has states alone, then sequences.
    """
    if node.op not in ("Loop", "Scan"):
        return {}
    first = 2 if node.op == "Loop" else 0
    given = graph.outputs[1:] if node.op == "Loop" else graph.outputs
    same = {each.outputs[0]: each.input(0) for each in graph.nodes if each.op == "Identity" and each.outputs}
    pairs = zip(graph.inputs[first:], node.inputs[first:], given, strict=False)
    return {name: (scope, outside) for name, outside, back in pairs if outside and name in (back, same.get(back))}


def _pieces(tensor: LazyTensor, pieces: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> LazyTensor:
    """Ranges of a tensor's elements in C order, one behind the other, as a tensor of that shape."""
    width = bits_of(tensor.dtype) // 8
    bounds = [(start * width, stop * width) for start, stop in pieces]

    def span(start: int, stop: int) -> memoryview:
        whole = tensor.span(0, tensor.bytes) if tensor.whole else None
        parts, at = [], 0
        for low, high in bounds:
            first, last = max(start, at), min(stop, at + high - low)
            if first < last:
                begin, end = low + first - at, low + last - at
                parts.append(tensor.span(begin, end) if whole is None else whole[begin:end])
            at += high - low
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    share = math.prod(shape) / max(1, math.prod(tensor.shape))
    stored = None if tensor.stored is None else int(tensor.stored * share)
    return LazyTensor(tensor.dtype, shape, span, tensor.precision, stored, tensor.whole)


def _widened(tensor: LazyTensor) -> LazyTensor:
    """A tensor of floating-point numbers of 8 bits as float32."""

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        values = tensor.values()
        return values[start:stop] if tensor.shape else values

    precision = f"{tensor.dtype} onnx"
    return computed("float32", tensor.shape, rows, precision=precision, stored=tensor.bytes, whole=True)


def _key(scope: Scope, name: str) -> tuple[int, str]:
    owner, inner = scope.place(name)
    return id(owner), inner


def _all_names(model: Model) -> Iterable[str]:
    """Names of the tensors of all graphs, and of what identities make of them."""
    graphs: list[Graph] = [model.graph] if model.graph is not None else []
    while graphs:
        graph = graphs.pop()
        yield from graph.tensors
        for node in graph.nodes:
            if node.op == "Identity":
                yield from node.outputs
            graphs += node.graphs
