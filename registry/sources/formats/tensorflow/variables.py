"""Which of a checkpoint's variables are the model's, and how they are laid out.

A checkpoint of training holds, beside the weights, the slots of the optimiser, counters, metrics and averages.
TensorFlow names a slot after its variable (``conv/kernel/Adam``), so that a variable below another variable is none of
the model's; Keras keeps slots and metrics apart, under names of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Chosen", "chosen", "kind_of", "shorter", "with_cells"]

_AVERAGE = "/ExponentialMovingAverage"
# Keras 3 has the model's variables in ``_trainable_variables`` of the optimiser too, where that path is the shortest.
_STATE = re.compile(
    r"(beta[12]_power|adam_iter|global_step|save_counter|learning_rate|current_loss_scale|good_steps)(_\d+)?"
    r"|(optimizers?(?!/_trainable_variables/)|_optimizer(?!/_trainable_variables/)|keras_api|training|Adam[axW]*|Nadam|RMSprop|SGD|Adagrad|Adadelta|Ftrl|Lion|LAMB)(_\d+)?/.*"
    r"|(.*/)?(\.OPTIMIZER_SLOT|keras_api/metrics|_?optimizers?/_variables)/.*|(.*/)?(Adam(_\d+)?|adam_[mv]|Momentum|RMSProp(_\d+)?|global_step)",
    re.DOTALL,
)
_EMBEDDING = re.compile(r"(\w+_)?(embed(ding|dings|der)?|embedding_table|lookup_table|wte|wpe)|embeddings?_\w+")
_AS_IS = re.compile(r"output_weights")  # of BERT's heads, which multiply with the transpose
_TRANSPOSED = re.compile(r"(\w+_)?(transposed?|deconv\w*|conv\w*transpose)(_\w+)?|(\w+_)?deconv\w*")
_DEPTHWISE = re.compile(r"(\w+_)?(depthwise(?!_separable)\w*|dw(_?conv(2d)?)?(_\w+)?|d_?conv(2d|bias)?|conv_dw)")
_QUERIES = re.compile(r"query|key|value")
_CONV1D = re.compile(r"c_attn|c_proj|c_fc")
_HEADS = re.compile(r"_?(query|key|value)(_dense)?")  # (in, heads, width) of Keras' attention
_HEADS_OUT = re.compile(r"_?(attention_output|output_dense)")  # (heads, width, out)
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TRACED = re.compile(r"(functional|sequential)_\d+")
_CELL = re.compile(r"(lstm|gru|simple_rnn|conv_lstm)_cell(_\d+)?|cell")
_WAY = re.compile(r"(forward|backward)_\w+")
_COUNTED = re.compile(r"_\d+$")
_BIASES = ("bias", "biases", "b")
_KERNELS = frozenset({"kernel", "weights", "weight", "w", "filter", "filters", "depthwise_kernel", "depthwise_weights"})


class Chosen(NamedTuple):
    """The model's variables: their names as stored, by the names to show; and a sentence on averages, if any."""

    names: dict[str, str]
    note: str


def chosen(names: Iterable[str]) -> Chosen:
    """The variables of the model among those of a checkpoint.

    Of weights and their exponential averages the weights are taken; averages alone stand for the weights.
    """
    every = set(names)
    kept: dict[str, str] = {}
    averages: dict[str, str] = {}
    for name in sorted(every):
        if name.endswith(_AVERAGE):
            averages[name.removesuffix(_AVERAGE)] = name
        elif not _STATE.fullmatch(name) and not _is_below(name, every):
            kept[name] = name
    own = {shown for shown in averages if shown in kept}
    alone = {shown: name for shown, name in averages.items() if shown not in kept and not _STATE.fullmatch(shown)}
    if own:
        return Chosen(kept | alone, "ExponentialMovingAverage is an average of the weights beside it, which are taken")
    return Chosen(kept | alone, "the weights are their exponential moving averages" if alone else "")


def _is_below(name: str, every: set[str]) -> bool:
    """Whether a part of a name, up to a slash, is another variable."""
    at = name.find("/")
    while at > 0:
        if name[:at] in every:
            return True
        at = name.find("/", at + 1)
    return False


def kind_of(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
    """How a variable is laid out, by its name, shape and bias: a kind of `layout_of`, and its axes of inputs.

    ``shapes``: those of all variables.
    """
    if len(shape) < 2:
        return "as_is", 1
    parts = [_COUNTED.sub("", _SNAKE.sub("_", part).lower()) for part in re.split(r"[/.:]", name)]
    leaf = parts[-1]
    module = parts[-2] if len(parts) > 1 and leaf in _KERNELS else leaf
    if leaf == "bias":
        return "as_is", 1  # of a GRU, (2, gates units), or of heads
    if len(shape) == 2:
        own = parts[-2] if len(parts) > 1 and leaf in ("embeddings", "embedding", "weights", "weight") else leaf
        as_is = leaf == "embeddings" or _EMBEDDING.fullmatch(own) or _EMBEDDING.fullmatch(leaf)
        return ("as_is" if as_is or _AS_IS.fullmatch(leaf) else "dense"), 1
    bias = _bias_of(name, shapes)
    if len(shape) == 3 and (inputs := _inputs(name, module, shape, bias, shapes)):
        return "dense", inputs
    return _convolution(leaf, module, shape, bias), 1


def _inputs(
    name: str,
    module: str,
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
    shapes: Mapping[str, tuple[int, ...]],
) -> int:
    """Number of leading axes that are inputs, of a projection to or from attention heads; 0 for a convolution.

    GPT-2 keeps its matrices as convolutions of width one, (1, in, out).
    """
    if _CONV1D.fullmatch(module) and shape[0] == 1:
        return 2
    if bias is not None and len(bias) == 2 and bias == shape[1:]:
        return 1
    if _HEADS.fullmatch(module) or (bias is None and _QUERIES.fullmatch(module)):
        return 1
    if _HEADS_OUT.fullmatch(module):
        return 2
    above = name.split("/")[:-2]
    beside = (shapes.get("/".join((*above, query, "kernel")), ()) for query in ("query", "key", "value"))
    return 2 if any(other[1:] == shape[:2] for other in beside) else 0


def _convolution(leaf: str, module: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> str:
    before, last = shape[-2:]
    if leaf.startswith("depthwise"):
        return "depthwise"
    if _TRANSPOSED.fullmatch(module) and bias in (None, (before,)):
        return "transposed"
    if bias is not None and len(bias) == 1 and before != last:
        if bias == (before,) and last != 1:
            return "transposed"
        if bias == (before * last,) and bias != (last,):
            return "depthwise"
    fits = bias is None or bias == (before * last,)
    if _DEPTHWISE.fullmatch(module) and last < before and fits:
        return "depthwise"
    return "conv"


def _bias_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    module = name[: max(name.rfind(sign) for sign in "/.:") + 1]
    return next((shapes[module + bias] for bias in _BIASES if module and module + bias in shapes), None)


def shorter(names: Iterable[str]) -> dict[str, str]:
    """Names of recurrent layers' variables as a Keras file has them, without the cell and with the direction in a word.

    A kernel without a recurrent kernel beside it, as in TensorFlow's own cells, keeps its name, and so do those that
    would become one.
    """
    every = set(names)
    better = dict.fromkeys(sorted(every), "")
    for name in better:
        *module, leaf = name.split("/")
        new = name
        if f"{name.rpartition('/')[0]}/recurrent_kernel" in every and len(module) > 1:
            path = [part for at, part in enumerate(module) if not at or not _CELL.fullmatch(part)]
            ways = [_WAY.fullmatch(part) for part in path]
            path = [{"f": "forward", "b": "reverse"}[way[1][0]] if at and way else part
                    for at, (part, way) in enumerate(zip(path, ways, strict=True))]  # fmt: skip
            new = "/".join((*path, leaf))
        better[name] = new
    count = Counter(better.values())
    return {name: new if count[new] == 1 else name for name, new in better.items()}


def with_cells(found: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, str]:
    """Better names of the two kernels of recurrent cells, whose operations a graph may have in any order.

    Parameters
    ----------
    found
        By name, the shape (out, in) and the name of the operation or constant that it was made from.

    Returns
    -------
    dict of str
        All names and the better ones, a kernel before its recurrent kernel. The recurrent one is (gates units, units);
        where both are, it is the later one by the number in its operation's name.
    """
    better: dict[str, str] = {}
    for name in found:
        module, _, leaf = name.rpartition("/")
        other = f"{module}/recurrent_kernel"
        if leaf == "kernel" and f"{module}/depthwise_kernel" in found and f"{module}/pointwise_kernel" not in found:
            better[name] = f"{module}/pointwise_kernel"  # of a separable convolution
        elif leaf == "kernel" and other in found:
            (shape, source), (second, behind) = found[name], found[other]
            turned = _recurs(shape) and (not _recurs(second) or (len(source), source) > (len(behind), behind))
            better |= {other: name, name: other} if turned else {name: name, other: other}
        elif name not in better:
            better[name] = name
    counted = _uncounted(better.values())
    return {name: counted[new] for name, new in better.items()}


def _uncounted(names: Iterable[str]) -> dict[str, str]:
    """Names of layers as they are in Keras, by those of a network that Keras 3 exports, which traces it twice.

    TensorFlow numbers the scopes of the second time: ``functional_1/conv2d_1`` is of ``conv2d``, ``conv2d_1_2`` of
    ``conv2d_1``. If a scope has no number, or two layers would have one name, all names stay.
    """
    new: dict[str, str] = {}
    for name in names:
        first, *scopes, leaf = name.split("/")
        if not scopes or not _TRACED.fullmatch(first) or not all(_COUNTED.search(scope) for scope in scopes):
            return {name: name for name in names}
        new[name] = "/".join((first, *(_COUNTED.sub("", scope) for scope in scopes), leaf))
    return new if len(set(new.values())) == len(new) else {name: name for name in new}


def _recurs(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] in (3 * shape[1], 4 * shape[1])
