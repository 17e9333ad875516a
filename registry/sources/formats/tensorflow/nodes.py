"""How a graph of TensorFlow operations uses its constants and variables: as which kind of weight, and in which order.

A weight reaches its operation through others that hand it on (``Identity``, ``ReadVariableOp``, ``Cast``, ``Enter`` of
a loop). Functions that are called, and the bodies of loops, are put in place of the call. Source: the operations'
documentation and registrations in ``tensorflow/core/ops``.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.lazy_tensors import turned
from registry.sources.formats.tensorflow.tensors import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from registry.sources.files.lazy_tensors import LazyTensor

__all__ = ["Function", "Node", "Use", "flattened", "check_complete", "laid", "named", "uses_of"]

_MAX_NODES = 300_000
_LONGEST = 4000  # characters of a name
_MAX_DEPTH = 32  # functions within functions
_MAX_STEPS = 64  # operations between a weight and its use

_PASSING = frozenset({
    "Identity", "ReadVariableOp", "Cast", "Enter", "RefEnter", "StopGradient", "CheckNumerics", "Snapshot", "Switch",
    "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVarsPerChannel", "ExpandDims", "Squeeze",
    "QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4", "PreventGradient", "RefIdentity",
    "PlaceholderWithDefault", "Reshape", "Transpose", "Dequantize", "VariableV2", "GuaranteeConst",
})  # fmt: skip
_PARTED = re.compile(r"/part_\d+(/read)?$")
_CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",), "While": ("body",), "StatelessWhile": ("body",),
          "If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}  # fmt: skip

# Where an operation has its weights, by the number of the input, and their layout there.
_CONV = {1: "conv"}
_DENSE = {1: "dense", 0: "left"}
_DEPTHWISE = {1: "depthwise"}
_TRANSPOSED = {1: "transposed"}
_TABLE = {0: "table"}
_PORTS: Mapping[str, Mapping[int, str]] = {
    **dict.fromkeys(("MatMul", "_FusedMatMul", "FusedMatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3",
                     "SparseMatMul", "QuantizedMatMul", "SparseTensorDenseMatMul"), _DENSE),
    **dict.fromkeys(("Conv2D", "Conv3D", "_FusedConv2D", "FusedConv2D", "QuantizedConv2D", "Conv"), _CONV),
    **dict.fromkeys(("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative", "_FusedDepthwiseConv2dNative",
                     "QuantizedDepthwiseConv2D"), _DEPTHWISE),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInput", "Conv3DBackpropInputV2"), _TRANSPOSED),
    **dict.fromkeys(("GatherV2", "Gather", "ResourceGather", "GatherNd", "SparseSegmentSum", "SparseSegmentMean",
                     "SparseSegmentSqrtN"), _TABLE),
    "LSTMBlockCell": {3: "dense"}, "BlockLSTM": {4: "dense"}, "BlockLSTMV2": {4: "dense"},
    "GRUBlockCell": {2: "dense", 3: "dense"}, "Einsum": {0: "einsum", 1: "einsum"},
}  # fmt: skip
_VECTORS = frozenset({
    "BiasAdd", "BiasAddV1", "Add", "AddV2", "AddN", "Mul", "Sub", "RealDiv", "Maximum", "Minimum", "Prelu", "Rsqrt",
    "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "_FusedBatchNormEx", "BatchNormWithGlobalNormalization",
    "SquaredDifference", "LSTMBlockCell", "BlockLSTM", "BlockLSTMV2", "GRUBlockCell", "_FusedMatMul", "_FusedConv2D",
    "FusedConv2D", "FusedDepthwiseConv2dNative", "_FusedDepthwiseConv2dNative", "InstanceNorm", "LayerNorm",
    "QuantizedBiasAdd", "QuantizedAdd",
})  # fmt: skip
_BATCH_NORM = {1: "gamma", 2: "beta", 3: "moving_mean", 4: "moving_variance"}
_QUANTISED = {"QuantizedConv2D": (4, 5), "QuantizedMatMul": (4, 5), "QuantizedDepthwiseConv2D": (4, 5)}
_WRAPPERS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_READ = re.compile(r"/(?:read|ReadVariableOp(?:_\d+)?)(?:/(?:resource|_\d+__cf__\w+))?$|/(?:resource|Enter|Identity)$")
_LITERAL = re.compile(r"(?:.*/)?(?:[a-z_]\w*|[A-Z]\w*)/[xy]$")
_DERIVED = re.compile(
    r"(.+?)/(?:(?:conv1d|convolution)(?:_\d+)?(?:/ExpandDims(?:_\d+)?)?|Tensordot(?:/\w+)*|batchnorm(?:/\w+)?|einsum/Einsum"
    r"|separable_conv2d(?:/depthwise)?|(?:MatMul|Conv[123]D|Conv\dDBackpropInput\w*|conv[123]d_transpose|conv_transpose"
    r"|depthwise|BiasAdd|Add|add|mul|sub|embedding_lookup|FusedBatchNorm\w*?|Cast|Relu\w*?|Gather(?:V2)?|ExpandDims|Reshape|Shape"
    r"|moments|Sigmoid|Tanh|Elu|Softmax|lookup|Einsum|einsum|scale|offset)(?:_\d+)?)"
)
_MADE = re.compile(r"(?:.*/)?(?:zeros|ones|Fill|fill|zeros_like|ones_like)(?:_\d+)?(?:/Const)?")
_NO_NAME = re.compile(r"(?:.*/)?(?:Const|unknown|arg|Variable/Const)(?:_\d+)?")
_RECURRENT = re.compile(r"lstm|gru|rnn", re.IGNORECASE)
_LEAVES = {"conv": "kernel", "dense": "kernel", "left": "kernel", "transposed": "kernel", "einsum": "kernel",
           "depthwise": "depthwise_kernel", "table": "embeddings"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """An operation: its name, kind, inputs, and the attributes that count here (booleans, numbers, texts)."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)


class Function(NamedTuple):
    """A function of a graph's library: names of its arguments, its operations, and what it returns."""

    arguments: tuple[str, ...]
    nodes: tuple[Node, ...]
    returns: tuple[str, ...]


class Use(NamedTuple):
    """The first use of a weight.

    ``kind``: its layout there (``vector`` for those that are no matrix). ``port``: number of the input. ``steps``: the
    operations between, from the weight on.
    """

    source: str
    kind: str
    node: Node
    port: int
    steps: tuple[Node, ...]


def base_of(name: str) -> str:
    """The name of the operation that an input is a result of; empty for inputs that only order."""
    return "" if name.startswith("^") else name.split(":", 1)[0]


def flattened(nodes: Iterable[Node], functions: Mapping[str, Function]) -> dict[str, Node]:
    """Operations by name, with those of called functions in place.

    Raises ``UnsafeError`` for more than 300,000, or functions within functions beyond 32 levels.
    """
    made: dict[str, Node] = {}
    stack: list[Iterator[Node]] = [iter(nodes)]
    scopes: list[tuple[str, Mapping[str, str]]] = [("", {})]
    while stack:
        node = next(stack[-1], None)
        prefix, arguments = scopes[-1]
        if node is None:
            stack.pop()
            scopes.pop()
            continue

        def outer(name: str, prefix: str = prefix, arguments: Mapping[str, str] = arguments) -> str:
            base = base_of(name)
            return arguments.get(base, prefix + base) if base else ""

        name = prefix + node.name
        inputs = tuple(filter(None, map(outer, node.inputs)))
        if len(made) >= _MAX_NODES or len(name) > _LONGEST:
            raise UnsafeError(
                f"a graph of more than {_MAX_NODES} operations, or with unending names", "save a smaller graph"
            )
        called = [functions[node.attrs[key]] for key in _CALLS.get(node.op, ()) if node.attrs.get(key) in functions]
        if not called:
            made[name] = Node(name, node.op, inputs, node.attrs)
            continue
        if len(stack) >= _MAX_DEPTH:
            raise UnsafeError(f"functions within functions deeper than {_MAX_DEPTH} levels", "save a plain graph")
        given = inputs[1:] if node.op.endswith("If") else inputs
        results: list[str] = []
        for place, function in enumerate(called):
            inner = f"{name}/" if place == 0 else f"{name}/{place}/"
            bound = dict(zip(function.arguments, given, strict=False))
            results += [bound.get(base_of(r), inner + base_of(r)) for r in function.returns]
            stack.append(iter(function.nodes))
            scopes.append((inner, bound))
        made[name] = Node(name, "Call", tuple(results), {})
    return made


def _in_order(nodes: Mapping[str, Node]) -> list[Node]:
    """Operations after what they need, otherwise as in the file. What loops need of the last turn does not count."""
    place = {name: number for number, name in enumerate(nodes)}
    waiting: Counter[str] = Counter()
    needed: dict[str, list[str]] = defaultdict(list)
    for node in nodes.values():
        for name in set(node.inputs):
            if name in nodes and nodes[name].op != "NextIteration":
                waiting[node.name] += 1
                needed[name].append(node.name)
    ready = [number for name, number in place.items() if not waiting[name]]
    heapq.heapify(ready)
    names = list(nodes)
    done: list[Node] = []
    while ready:
        name = names[heapq.heappop(ready)]
        done.append(nodes[name])
        for other in needed[name]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, place[other])
    left = {node.name for node in done}
    return done + [node for name, node in nodes.items() if name not in left]


def uses_of(nodes: Mapping[str, Node], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Use]:
    """The first use of each weight that has one, in the order in which the graph computes.

    Parameters
    ----------
    nodes
        As `flattened` gives them.
    shapes
        Shapes of the constants and variables of numbers with a fraction, by name.

    Returns
    -------
    dict of Use
        By the weight's name. Constants without axes, and tables that are added or multiplied though no variable was
        read for them (anchors), have no use.
    """
    found: dict[str, Use] = {}
    known: _Traces = {}
    for node in _in_order(nodes):
        ports = _PORTS.get(node.op, {})
        vectors = node.op in _VECTORS
        if not ports and not vectors:
            continue
        for port, name in enumerate(node.inputs):
            kind = ports.get(port, "vector" if vectors else "")
            traced = _traced(name, nodes, shapes, known) if kind else None
            if traced is None or traced[0] in found:
                continue
            source, steps = traced
            shape = shapes[source]
            if not shape or _MADE.fullmatch(source) or (kind == "vector" and not _is_learnt(source, shape, steps)):
                continue
            if len(shape) < 2:
                kind = "vector"
            found[source] = Use(source, kind, node, port, steps)
    return found


def check_complete(
    where: str, nodes: Mapping[str, Node], shapes: Mapping[str, tuple[int, ...]], uses: Mapping[str, Use]
) -> tuple[str, ...]:
    """Refuse a graph in which operations that are not known here take more than a twentieth of the weights.

    Returns a note on those that are left out, if there are any. Raises ``WeightsError`` that names the operation with
    the most. Weights of two or more axes are counted. Those of a partitioned variable, which are joined as the graph
    runs, are not left out at all.
    """
    parted = False
    taken = sum(math.prod(shapes[name]) for name in uses if len(shapes[name]) > 1)
    left: Counter[str] = Counter()
    seen: set[str] = set()
    known: _Traces = {}
    for node in nodes.values():
        if node.op in _PASSING or node.op in _PORTS or node.op in _VECTORS or node.op in ("Const", "Call"):
            continue
        for name in node.inputs:
            traced = _traced(name, nodes, shapes, known)
            if traced is None or traced[0] in uses or traced[0] in seen:
                continue
            if sum(extent > 1 for extent in shapes[traced[0]]) > 1:
                seen.add(traced[0])
                left[node.op] += math.prod(shapes[traced[0]])
                parted = parted or _PARTED.search(traced[0]) is not None
    if parted or left.total() > (taken + left.total()) / 20:
        op = left.most_common(1)[0][0]
        raise WeightsError(
            f"{where} has weights in operations that are not read, most in {short(op)}",
            "give the checkpoint or Keras file that it was made from",
        )
    if not left:
        return ()
    told = ", ".join(short(op) for op, _ in left.most_common(3))
    return (f"weights used by {told} are left out: how they are laid out is not known",)


def _is_learnt(source: str, shape: tuple[int, ...], steps: Sequence[Node]) -> bool:
    """Whether a constant that is added or multiplied was a variable: no number in the program, no table of anchors."""
    if _LITERAL.fullmatch(source):
        return False
    read = bool(_READ.search(source)) or any(
        step.op in ("ReadVariableOp", "VariableV2") or _READ.search(step.name) for step in steps
    )
    return read or math.prod(shape) == max(shape)


_Traces = dict[str, "tuple[str, tuple[Node, ...]] | None"]


def _traced(
    name: str, nodes: Mapping[str, Node], shapes: Mapping[str, tuple[int, ...]], known: _Traces
) -> tuple[str, tuple[Node, ...]] | None:
    """The weight that an input is, and the operations that hand it on; ``known``: what was found before."""
    if name in known:
        return known[name]
    first = name
    steps: list[Node] = []
    known[first] = None
    for _ in range(_MAX_STEPS):
        if name in shapes:
            known[first] = (name, tuple(reversed(steps)))
            break
        node = nodes.get(name)
        if node is None or node.op not in _PASSING or not node.inputs:
            break
        steps.append(node)
        name = node.inputs[0]
    return known[first]


def laid(tensor: LazyTensor, use: Use, integers: Callable[[str], list[int] | None]) -> tuple[LazyTensor, str, int]:
    """A weight as its operation takes it, the kind of layout that it has then, and its number of axes of inputs.

    ``integers``: the values of a small constant of integers.
    """
    for step in use.steps:
        if step.op == "Transpose" and len(step.inputs) > 1:
            axes = integers(step.inputs[1])
            if axes is None or sorted(axes) != list(range(len(tensor.shape))):
                raise WeightsError(f"{short(step.name)} turns a weight in a way that is not stored", "freeze the graph")
            tensor = turned(tensor, axes)
        elif step.op == "Reshape" and len(step.inputs) > 1 and use.kind != "vector":
            shape = integers(step.inputs[1])
            if shape is not None and shape.count(-1) <= 1 and all(extent >= -1 for extent in shape):
                rest = math.prod(extent for extent in shape if extent != -1)
                size = math.prod(tensor.shape)
                full = [size // rest if extent == -1 and rest else extent for extent in shape]
                if math.prod(full) == size and _worth(full, use.kind):
                    tensor = turned(tensor, range(len(tensor.shape)), full)
    kind, attrs = use.kind, use.node.attrs
    if kind in ("vector", "table"):
        return tensor, "as_is", 1
    if kind == "einsum":
        return _einsum(tensor, str(attrs.get("equation", "")), use.port)
    if kind in ("dense", "left"):
        while len(tensor.shape) > 2 and tensor.shape[0] == 1:
            tensor = turned(tensor, range(len(tensor.shape)), tensor.shape[1:])
        flag = (
            attrs.get("transpose_b", attrs.get("adj_y"))
            if kind == "dense"
            else attrs.get("transpose_a", attrs.get("adj_x"))
        )
        outputs_first = bool(flag) == (kind == "dense")
        if len(tensor.shape) > 2:  # one matrix for each index of the first axes
            *first, rows, columns = range(len(tensor.shape))
            return (tensor if outputs_first else turned(tensor, (*first, columns, rows))), "as_is", 1
        return tensor, "as_is" if outputs_first else "dense", 1
    return tensor, kind, 1


def _worth(shape: Sequence[int], kind: str) -> bool:
    return len(shape) == 2 if kind in ("dense", "left") else len(shape) > 2


def _einsum(tensor: LazyTensor, equation: str, port: int) -> tuple[LazyTensor, str, int]:
    """A weight of an einsum as (outputs, inputs): the axes of the result, then those that are summed."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    letters = terms[port].replace("...", "") if port < len(terms) else ""
    if not arrow or len(letters) != len(tensor.shape) or len(set(letters)) < len(letters):
        return tensor, "as_is", 1
    summed = [place for place, letter in enumerate(letters) if letter not in result]
    kept = [place for place, letter in enumerate(letters) if letter in result]
    if not summed or not kept:
        return tensor, "as_is", 1
    shape = (math.prod(tensor.shape[k] for k in kept), math.prod(tensor.shape[s] for s in summed))
    return turned(tensor, (*kept, *summed), shape), "as_is", 1


def named(uses: Mapping[str, Use]) -> tuple[dict[str, str], bool]:
    """Names to show by the names in the graph, and whether most had to be taken from the operations.

    A constant that was a variable has its name: ``conv/kernel`` or ``conv/kernel/read``. Where the converter kept none,
    it is called after the operation: ``dense/MatMul/ReadVariableOp`` is ``dense/kernel``.
    """
    made: dict[str, str] = {}
    taken: set[str] = set()
    derived = matrices = 0
    for source, use in uses.items():
        name = _READ.sub("", _WRAPPERS.sub("", source)) or source
        module = name
        if _NO_NAME.fullmatch(name):
            module = _WRAPPERS.sub("", use.node.name)
        match = _DERIVED.fullmatch(module)
        is_derived = match is not None or module is not name
        if is_derived:
            module = match[1] if match else module
            leaf = _LEAVES.get(use.kind, "")
            if not leaf:
                norm = "BatchNorm" in use.node.op
                leaf = _BATCH_NORM.get(use.port, "bias") if norm else "bias" if _adds(use.node.op) else "scale"
            name = f"{module}/{leaf}"
            if leaf == "kernel" and name in taken and _RECURRENT.search(module):
                name = f"{module}/recurrent_kernel"
            taken.add(name)
        if use.kind == "transposed" and name.endswith("weight"):
            name = f"{name}/kernel"  # a name in weight would say torch's layout
        matrices += use.kind != "vector"
        derived += use.kind != "vector" and is_derived
        made[source] = name
    count = Counter(made.values())
    taken |= set(count)
    for source, name in made.items():
        if count[name] > 1:
            plain = _READ.sub("", _WRAPPERS.sub("", source)) or source
            made[source] = plain if plain not in taken else source
            taken.add(made[source])
    if len(set(made.values())) < len(made):
        made = {source: source for source in made}
    return made, derived * 2 > matrices


def _adds(op: str) -> bool:
    return op.startswith(("BiasAdd", "Add", "Sub", "_Fused", "Fused", "LSTM", "BlockLSTM", "GRU", "Quantized"))


def quantised_ports(op: str) -> tuple[int, int] | None:
    """Inputs of an operation on codes that hold the smallest and largest value of its weight."""
    return _QUANTISED.get(op)
