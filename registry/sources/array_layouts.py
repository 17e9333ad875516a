"""Arrays of Flax, Haiku and Keras in torch's layout (out, in, *kernel), whatever separates their names.

Such an array is called ``kernel``, ``recurrent_kernel``, ``depthwise_kernel``, ``pointwise_kernel`` or, in Haiku and
Sonnet, ``w``, in TF-Slim ``weights``, and has its outputs last. The name alone does not tell: weights that were
converted to torch's layout keep it. So the whole file decides, for each library's names apart:

1. Each array with a bias beside it says where its outputs are: where the extent is that of the bias. So does a
   recurrent kernel, (units, 3 or 4 units). If all that say something agree, all arrays of the file follow.
2. If they disagree, each follows its own bias. One that has none is an error.
3. If none says anything, arrays called ``w`` are turned in a file with Haiku's ``~``, and ``weights`` stay. Of the
   others, names with slashes or ``:0`` have outputs last. Names with dots do, if successive layers fit together that
   way and not the other, or if the file has names that only Flax and Keras give (``scale``, ``embedding``,
   ``batch_stats``, ``Dense_0``). Otherwise they are in torch's layout.
4. A file with dotted names that has a matrix called ``weight`` is torch's, whatever else it holds.

Sources: shapes in the documentation of flax.linen, keras.layers and haiku; Keras' variables by number as in its
``.weights.h5``.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import WeightsError
from registry.sources.depth_order import depth_order
from registry.sources.effective_weights import EffectiveTensor, Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["turn_arrays"]

_NAME = re.compile(r"(.*[./:])(kernel|recurrent_kernel|depthwise_kernel|pointwise_kernel|w|weights)", re.DOTALL)
_BIASES = {"w": "b", "weights": "biases"}  # else bias
_SEPARATORS = re.compile(r"[./:]")
_OUTPUT_NUMBER = re.compile(r"(.+):0", re.DOTALL)  # TensorFlow's name of a variable's value
_VALUE = re.compile(r"(.+[./:]\w+)[./:]value", re.DOTALL)  # flax.nnx
_VARIABLE = re.compile(r"((?:.*[./])?)vars[./](\d{1,4})", re.DOTALL)  # Keras 3
_COUNTED = re.compile(r"_\d+$")
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FLAX_MODULE = re.compile(r"[A-Z][A-Za-z]+_\d+")
_LIBRARY_NAMES = frozenset(
    {"scale", "embedding", "embeddings", "gamma", "beta", "moving_mean", "moving_variance", "params", "batch_stats"}
)
_STATISTICS = frozenset({"batch_stats", "mean_ema", "var_ema"})
_QUERIES = re.compile(r"(query|key|value|qkv|query_key_value)(_dense)?")
_DEPTHWISE = re.compile(r"(\w+_)?(depthwise\w*|dw(_?conv(2d)?)?|conv_dw)")
_CHUNK = 32 * 2**20  # bytes turned at a time


class _Kernel(NamedTuple):
    """An array with outputs first or last: its module's name with the separator behind, and its bias, if any."""

    tensor: EffectiveTensor
    module: str
    leaf: str
    bias: EffectiveTensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def own(self) -> str:
        """Last part of the module's name, words separated by underscores, without its number."""
        return _COUNTED.sub("", _SNAKE.sub("_", _SEPARATORS.split(self.module[:-1])[-1]).lower())

    @property
    def parent(self) -> str:
        return self.module[: len(self.module[:-1]) - len(_SEPARATORS.split(self.module[:-1])[-1])]


class _Layout(NamedTuple):
    """How a stored array is turned: ``axes`` in the new order, the ``shape`` then, and whether kernels are mirrored."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    mirrored: bool = False


def turn_arrays(view: TensorView) -> None:
    """Put arrays with outputs last into torch's layout, under names without ``:0`` and numbers of variables.

    Running statistics of Flax and Haiku are dropped. A row is read without the rest where the outputs are one axis.

    Raises
    ------
    WeightsError
        Arrays of one file have their outputs first and last, and of one that has no bias it is not known.
    """
    if view.facts.laid_out:
        return
    marked = _rename(view)
    for name in [name for name in view.tensors if _STATISTICS.intersection(_SEPARATORS.split(name))]:
        view.skip(name, "batch statistics")
    found = [kernel for kernel in (_kernel(t, view.tensors) for t in view.tensors.values()) if kernel is not None]
    for bias in ("bias", *_BIASES.values()):
        family = [kernel for kernel in found if _BIASES.get(kernel.leaf, "bias") == bias]
        for kernel in _outputs_last(view, family, bias, marked=marked):
            _turn(view, kernel, family, keras=marked)


def _rename(view: TensorView) -> bool:
    """Take TensorFlow's ``:0``, flax.nnx's ``value`` and Keras' numbers of variables from names; whether any was."""
    new = {name: match[1] for name in view.tensors if (match := _OUTPUT_NUMBER.fullmatch(name))}
    for name in view.tensors:
        match = _VALUE.fullmatch(name)
        if match and name not in new and _NAME.fullmatch(match[1]):
            module = _NAME.fullmatch(match[1])[1]  # type: ignore[index]  # it matches
            new |= {n: m[1] for n in view.tensors if n.startswith(module) and (m := _VALUE.fullmatch(n))}
    new |= _variables(view)
    kept = view.tensors.keys() - new.keys()
    if len(set(new.values()) - kept) < len(new):
        return bool(new)  # two would have one name
    for name, better in new.items():
        view.put(replace(view.tensors[name], name=better), [name])
    return bool(new)


def _variables(view: TensorView) -> dict[str, str]:
    """Names of Keras 3's numbered variables, by the class that their path names and by their shapes."""
    modules: dict[str, dict[int, EffectiveTensor]] = defaultdict(dict)
    for name, tensor in view.tensors.items():
        if match := _VARIABLE.fullmatch(name):
            modules[match[1]][int(match[2])] = tensor
    new: dict[str, str] = {}
    for module, variables in modules.items():
        tensors = [variables[number] for number in sorted(variables)]
        for tensor, leaf in zip(tensors, _leaves(module, [t.shape for t in tensors]), strict=False):
            new[tensor.name] = module + leaf
    return new


def _leaves(module: str, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """Names of a Keras layer's variables in their order; empty where neither class nor shapes tell."""
    parts = [_COUNTED.sub("", part).lower() for part in _SEPARATORS.split(module)[:-1]]
    own = "".join(parts[-2:]) if parts[-1:] == ["cell"] else "".join(parts[-1:])
    if any(word in own for word in ("lstm", "gru", "rnn")) and len(shapes) in (2, 3):
        return ("kernel", "recurrent_kernel", "bias")
    if "separable" in own:
        return ("depthwise_kernel", "pointwise_kernel", "bias")
    if "emb" in own:
        return ("embeddings",)
    if len(shapes) == 4 and len(set(shapes)) == 1 and len(shapes[0]) == 1:
        return ("gamma", "beta", "moving_mean", "moving_variance")
    if "batch_normalization" in own and len(shapes) in (2, 3):
        return ("gamma", "moving_mean", "moving_variance")[3 - len(shapes) :]
    if len(shapes) in (1, 2) and len(shapes[0]) > 1 and (len(shapes) == 1 or len(shapes[1]) < len(shapes[0])):
        return ("depthwise_kernel" if "depthwise" in own else "kernel", "bias")
    return ()


def _kernel(tensor: EffectiveTensor, tensors: Mapping[str, EffectiveTensor]) -> _Kernel | None:
    match = _NAME.fullmatch(tensor.name)
    if match is None or len(tensor.shape) < 2 or 0 in tensor.shape or len(match[1]) < 2:
        return None
    bias = tensors.get(match[1] + _BIASES.get(match[2], "bias"))
    if match[2] == "depthwise_kernel" and match[1] + "pointwise_kernel" in tensors:
        bias = None  # it is that of the pointwise kernel
    return _Kernel(tensor, match[1], match[2], bias)


def _says(kernel: _Kernel) -> int:
    """Where an array's outputs are: 1 last, -1 first, 0 not known."""
    shape = kernel.shape
    if kernel.leaf == "recurrent_kernel" and len(shape) == 2 and shape[0] != shape[1]:
        return int(shape[1] in (3 * shape[0], 4 * shape[0])) - int(shape[0] in (3 * shape[1], 4 * shape[1]))
    if kernel.bias is None or not kernel.bias.shape:
        return 0
    bias = kernel.bias.shape
    first = bias[-1] == shape[0]
    last = bias[-1] == shape[-1]
    if len(bias) > 1:  # of heads, or the two of a GRU
        return int(last) - int(first and not last)
    if len(shape) > 2:  # a multiplier, or a transposed convolution
        before = bias[0] == shape[-2] and (len(shape) > 3 or "transpose" in kernel.own)
        last = last or before or bias[0] == shape[-2] * shape[-1]
    return int(last) - int(first)


def _outputs_last(view: TensorView, family: list[_Kernel], bias: str, *, marked: bool) -> list[_Kernel]:
    """The arrays that have their outputs last, by the rule of this module."""
    names = [kernel.tensor.name for kernel in family]
    slashed = marked or any("/" in name for name in names)
    if not family or (not slashed and _has_weights(view)):
        return []
    said = {kernel.tensor.name: _says(kernel) for kernel in family}
    last, first = (sum(vote == way for vote in said.values()) for way in (1, -1))
    if last and first:
        unknown = next((k for k in family if not said[k.tensor.name] and len(set(k.shape)) > 1), None)
        if unknown is not None:
            ways = [next(name for name, vote in said.items() if vote == way) for way in (1, -1)]
            raise WeightsError(
                f"{view.where}: {ways[0]} has its outputs last and {ways[1]} first, and {unknown.tensor.name} has no "
                "bias that tells",
                "save all arrays in one layout",
            )
        return [kernel for kernel in family if said[kernel.tensor.name] > 0]
    if last or first:
        return family if last else []
    if bias != "bias":
        return family if bias == "b" and any("~" in _SEPARATORS.split(name) for name in view.tensors) else []
    if slashed:
        return family
    fit = _fit(family)
    if fit:
        return family if fit > 0 else []
    parts = {part for name in view.tensors for part in _SEPARATORS.split(name)}
    if parts & _LIBRARY_NAMES or any(map(_FLAX_MODULE.fullmatch, parts)):
        return family
    if any(len(set(kernel.shape)) > 1 for kernel in family):
        view.notes.append(f"{names[0]} and its like are taken in torch's layout: nothing in the file tells")
    return []


def _has_weights(view: TensorView) -> bool:
    """Whether the file has a matrix of torch's name."""
    return any(
        len(tensor.shape) > 1 and _SEPARATORS.split(name)[-1] == "weight" for name, tensor in view.tensors.items()
    )


def _fit(family: Sequence[_Kernel]) -> int:
    """How many more successive arrays fit together with outputs last than with outputs first."""
    shapes = {kernel.tensor.name: kernel.shape for kernel in family}
    ordered = [shapes[name] for name in depth_order(shapes)]
    pairs = list(pairwise(ordered))
    return sum(a[-1] == b[-2] for a, b in pairs) - sum(a[0] == b[1] for a, b in pairs)


def _turn(view: TensorView, kernel: _Kernel, family: Sequence[_Kernel], *, keras: bool) -> None:
    tensor = kernel.tensor
    if _is_stacked(kernel, view):
        why = Unreadable("weights of layers stacked by nn.scan", tensor.info.size, "unstack the layers, then save")
        view.refuse(tensor.name, why)
        return
    layout = _layout(kernel, family, keras=keras)
    view.put(replace(tensor, shape=layout.shape, rows=_Turned(tensor, layout)))


def _is_stacked(kernel: _Kernel, view: TensorView) -> bool:
    """Whether the first axis counts layers: a bias has it too, or, without a bias, the scales of norms beside it."""
    shape = kernel.shape
    if len(shape) < 3:
        return False
    if kernel.bias is not None:
        return kernel.bias.shape == (shape[0], shape[-1]) and shape[0] != shape[-2]
    above = _SEPARATORS.split(kernel.parent[:-1])
    scales = (
        _SEPARATORS.split(name) for name, t in view.tensors.items() if len(t.shape) == 2 and t.shape[0] == shape[0]
    )
    return any(parts[-1] == "scale" and parts[:1] == above[:1] and set(parts[:-2]) & set(above[1:]) for parts in scales)


def _layout(kernel: _Kernel, family: Sequence[_Kernel], *, keras: bool) -> _Layout:
    """How an array with outputs last is turned."""
    shape, bias = kernel.shape, None if kernel.bias is None else kernel.bias.shape
    axes = tuple(range(len(shape)))
    if len(shape) == 2:
        return _Layout((1, 0), (shape[1], shape[0]))
    heads = _heads(kernel, family)
    if heads:
        outs, ins = axes[heads:], axes[:heads]
        return _Layout(outs + ins, (math.prod(shape[heads:]), math.prod(shape[:heads])))
    *window, inputs, outputs = axes
    extents = tuple(shape[axis] for axis in window)
    if _is_depthwise(kernel):
        return _Layout((inputs, outputs, *window), (shape[inputs] * shape[outputs], 1, *extents))
    transposed = "transpose" in kernel.own or kernel.own.startswith("deconv")
    by_bias = bias is not None and len(bias) == 1 and shape[-1] != shape[-2]
    if by_bias and bias == (shape[-2],):
        return _Layout((inputs, outputs, *window), (shape[inputs], shape[outputs], *extents))
    if transposed and not by_bias and _outputs_before_inputs(kernel, keras=keras):
        return _Layout((inputs, outputs, *window), (shape[inputs], shape[outputs], *extents))
    # Flax does not mirror the kernel of a transposed convolution, as torch and Keras do.
    return _Layout((outputs, inputs, *window), (shape[outputs], shape[inputs], *extents), mirrored=transposed)


def _heads(kernel: _Kernel, family: Sequence[_Kernel]) -> int:
    """Number of leading axes that are inputs, of a projection to or from attention heads; 0 for a convolution."""
    shape = kernel.shape
    bias = () if kernel.bias is None else kernel.bias.shape
    if 1 < len(bias) < len(shape) and bias == shape[-len(bias) :]:
        return len(shape) - len(bias)
    if kernel.bias is None and _QUERIES.fullmatch(kernel.own):
        return 1
    beside = (k for k in family if k.parent == kernel.parent and _QUERIES.fullmatch(k.own) and len(k.shape) == 3)
    return 2 if len(shape) == 3 and any(k is not kernel and k.shape[1:] == shape[:2] for k in beside) else 0


def _is_depthwise(kernel: _Kernel) -> bool:
    """Whether an array is (*kernel, in, multiplier)."""
    inputs, outputs = kernel.shape[-2:]
    bias = None if kernel.bias is None else kernel.bias.shape
    if kernel.leaf == "depthwise_kernel":
        return True
    if bias is not None and len(bias) == 1 and inputs > 1:
        return bias[0] == inputs * outputs and outputs != bias[0]
    return _DEPTHWISE.fullmatch(kernel.own) is not None and outputs < inputs


def _outputs_before_inputs(kernel: _Kernel, *, keras: bool) -> bool:
    """Whether a transposed convolution is (*kernel, out, in), as in Keras and Haiku, and not (*kernel, in, out)."""
    return kernel.leaf == "w" or keras or re.search(r"conv_?[123]_?d_?transpose", kernel.own) is not None


@dataclass(frozen=True, slots=True)
class _Turned:
    """Rows of an array in another order of axes: at most the rows and a part of the stored array are in memory."""

    stored: EffectiveTensor
    layout: _Layout

    def __call__(self, start: int, stop: int) -> NDArray[np.generic]:
        """Indices ``start`` to ``stop`` of the outputs."""
        axes, shape, mirrored = self.layout
        split = tuple(self.stored.shape[axis] for axis in axes)
        whole = split[0] != shape[0]  # outputs of several axes are cut when they are joined
        low, high = (0, split[0]) if whole else (start, stop)
        along = axes.index(0)
        rows = self.stored.shape[0]
        step = max(1, _CHUNK * rows // (8 * math.prod(split)))
        step = rows if 8 * math.prod(split) <= 2 * _CHUNK else step
        first = self.stored.rows(0, step)
        result = np.empty((high - low, *split[1:]), first.dtype)
        target = result[:, :, *(slice(None, None, -1),) * (len(split) - 2)] if mirrored else result
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            part = self.stored.rows(begin, end) if begin else first
            target[(slice(None),) * along + (slice(begin, end),)] = part.transpose(axes)[low:high]
        joined = result.reshape(-1 if whole else high - low, *shape[1:])
        return joined[start:stop] if whole else joined
