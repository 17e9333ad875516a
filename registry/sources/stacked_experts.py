"""Experts that are stored in one tensor, and the kernels of batched linear layers: each becomes a matrix of its own.

Where the outputs are among the axes of a stack follows from the shapes of the layers before and after the activation.
Only where these are square does a convention of the library decide. Experts whose layout neither tells are refused:
taken as they are, they would pass for a convolution.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import EffectiveTensor, Unreadable
from registry.sources.model_config import model_types, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.sources.effective_weights import TensorView

__all__ = ["split_experts"]

_BOX = re.compile(
    r"((?:.*[./])?)((?:routed_|shared_|local_)?experts|switch_mlp|moe)[./]((?:mlp[./])?)(\w+?)(?:[./_]weight)?",
    re.DOTALL,
)
_BARE = re.compile(r"((?:.*[./])?)(input_linear|output_linear|mlp1|mlp2)[._/]weight", re.DOTALL)
_ROUTER = re.compile(r"((?:.*[./])?)(router|gate)(?:[./]\w+)*?[./](?:weight|kernel)", re.DOTALL)
_ROUTER_IN_OUT = re.compile(r"((?:.*[./])?)router_DE")
_APART = re.compile(r"((?:.*[./])?(?:routed_|local_)?experts[./])(\d{1,6})([./].+)", re.DOTALL)
_GATED = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "v1": "up"}
_FIRST = ("gate_up_proj", "w13", "fc1", "input_linear", "mlp1", "htoh4")
_DOWN = ("down_proj", "w2", "fc2", "output_linear", "mlp2", "h4toh")
_BOTH = ("gate_up_proj", "w13")  # which are never the first of two layers
_META = {"moe_w_in_eD_F": "gate", "moe_w_swiglu_eD_F": "up", "moe_w_out_eF_D": "down"}
_COUNTS = (
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts", "n_experts",
)  # fmt: skip
_WIDTHS = ("hidden_size", "n_embd", "d_model")
# Of transformers. In all other models there gate is before up, and outputs come before inputs.
_INTERLEAVED = frozenset({"gpt_oss"})
_INTERLEAVED_W13 = frozenset({"inkling_mm_model", "inkling", "inkling_text", "inkling2", "inkling2_text"})
_INPUTS_FIRST = frozenset({"llama4", "llama4_text", "gpt_oss", "aria", "aria_text", "openai_privacy_filter"})
_OUTPUTS_FIRST = frozenset({"nemotron_h", "inkling", "inkling_text", "inkling_mm_model"})
_BATCHED = re.compile(
    r"(?:.*[./])?\w*(?:batch|batched|grouped|parallel|ensemble|stacked)_?(?:linears?|dense|fc)\w*[./]weight", re.I
)
_REMEDY = "save the model with its experts apart, as save_pretrained of transformers does"


@dataclass(slots=True)
class _Stack:
    """The tensors of one group of experts. ``home``: what their names begin with when they are apart."""

    above: str
    home: str
    plain: dict[str, EffectiveTensor] = field(default_factory=dict)

    def one(self, *names: str) -> EffectiveTensor | None:
        return next((self.plain[name] for name in names if name in self.plain), None)


class _Slice(NamedTuple):
    """Part of each expert in a stack: outputs ``first``, ``first + step``, ..., ``count`` of them."""

    role: str
    base: EffectiveTensor
    inputs_first: bool
    first: int
    step: int
    outputs: int


def split_experts(view: TensorView) -> None:
    """Put one matrix for each expert in place of tensors that hold all of them.

    Raises
    ------
    WeightsError
        The number of experts differs between tensors of one stack or from the configuration, an expert has the name of
        a tensor that is there, or experts that are stored apart have different shapes.
    """
    _check_apart(view)
    routers = _routers(view)
    for stack in _stacks(view):
        tensors = list(stack.plain.values())
        if any(len(tensor.shape) == 2 for tensor in tensors):
            _split_merged(view, stack, routers)
        else:
            _split(view, stack, routers)
    for tensor in [t for t in view.tensors.values() if len(t.shape) == 3 and is_float(t.dtype)]:
        if _BATCHED.fullmatch(tensor.name):
            _split_batched(view, tensor)


def _check_apart(view: TensorView) -> None:
    """Raise ``WeightsError`` if matrices of one name differ in shape between the experts of a layer.

    A router adds what its experts give, so that gates, ups and downs are equal in every network. Experts of other kinds
    may be different networks.
    """
    known = {*_GATED, *_FIRST, *_DOWN}
    first: dict[tuple[str, str], EffectiveTensor] = {}
    for name in sorted(view.tensors):
        match, tensor = _APART.fullmatch(name), view.tensors[name]
        if match is None or len(tensor.shape) != 2 or not is_float(tensor.dtype):
            continue
        if known.isdisjoint(re.split(r"[./]", match[3])):
            continue
        other = first.setdefault((match[1], match[3]), tensor)
        if other.shape != tensor.shape:
            raise WeightsError(
                f"{view.where}: experts of one layer differ in shape: {other.name} {other.shape}, "
                f"{name} {tensor.shape}",
                "download or save it again: experts of one layer are equal, so these are of different models",
            )


def _stacks(view: TensorView) -> list[_Stack]:
    """Tensors that hold several experts by their names and axes, those of one module together."""
    found: dict[str, _Stack] = {}
    for tensor in view.tensors.values():
        if not is_float(tensor.dtype) or len(tensor.shape) not in (2, 3) or math.prod(tensor.shape) == 0:
            continue
        match = _BOX.fullmatch(tensor.name)
        bare = _BARE.fullmatch(tensor.name) if match is None else None
        if match is not None:
            above, box, inner, own = match.groups()
            merged = own in _META or (inner and own in ("w1", "v1", "w2"))
            known = own in _GATED or own in _FIRST or own in _DOWN
            if (len(tensor.shape) == 2 and not merged) or (box == "moe" and not known):
                continue
            separator = tensor.name[len(above) + len(box)]
            home = f"{above}{'moe' + separator if box == 'moe' else ''}{_apart(box)}{separator}"
            stack = found.setdefault(f"{above}{box}{inner}", _Stack(above, home))
        elif bare is not None and len(tensor.shape) == 3:
            above, own = bare.groups()
            stack = found.setdefault(above, _Stack(above, f"{above}experts{above[-1:] or '.'}"))
        else:
            continue
        if not own.isdecimal() and not own.endswith("bias"):
            stack.plain[own] = tensor
    return [stack for stack in found.values() if stack.plain]


def _apart(box: str) -> str:
    return "experts" if box in ("switch_mlp", "moe") else box


def _routers(view: TensorView) -> dict[str, tuple[int, int]]:
    """Experts and inputs of each router, by the path of the module above it."""
    found: dict[str, tuple[int, int]] = {}
    for tensor in view.tensors.values():
        if len(tensor.shape) != 2:
            continue
        if match := _ROUTER.fullmatch(tensor.name):
            found[match[1]] = tensor.shape[0], tensor.shape[1]
        elif match := _ROUTER_IN_OUT.fullmatch(tensor.name):
            found[match[1]] = tensor.shape[1], tensor.shape[0]
    return found


def _count(view: TensorView, stack: _Stack) -> int:
    """Number of experts of a stack with an axis of them; checked against the configuration."""
    name, count = next((tensor.name, tensor.shape[0]) for tensor in stack.plain.values())
    for tensor in stack.plain.values():
        if tensor.shape[0] != count:
            raise WeightsError(
                f"{view.where}: {name} holds {count} experts, and {tensor.name} {tensor.shape[0]}", "save it again"
            )
    _check_count(view, stack, name, count)
    return count


def _check_count(view: TensorView, stack: _Stack, name: str, count: int) -> None:
    told = numbers(view.facts.config, *_COUNTS)
    if told and count not in told and "shared_experts" not in stack.home:
        raise WeightsError(
            f"{view.where}: {name} holds {count} experts, and its configuration says {min(told)}",
            "put the model's own config.json beside it",
        )


def _split(view: TensorView, stack: _Stack, routers: Mapping[str, tuple[int, int]]) -> None:
    """Stacks with an axis of experts."""
    count = _count(view, stack)
    width = routers.get(stack.above, (0, 0))
    widths = {width[1]} if width[0] == count else numbers(view.facts.config, *_WIDTHS)
    slices = list(_slices(view, stack, widths))
    if not slices and not _is_known(stack, count, width[0], view):
        return
    if not slices:
        for tensor in stack.plain.values():
            kind = f"experts in an unknown layout {tensor.shape}".replace(",)", ")")
            view.refuse(tensor.name, Unreadable(kind, math.prod(tensor.shape), _REMEDY))
        return
    for each in slices:
        for expert in range(count):
            _put(view, stack, each, expert, (expert, expert + 1))
    for tensor in stack.plain.values():
        view.tensors.pop(tensor.name, None)


def _is_known(stack: _Stack, count: int, routed: int, view: TensorView) -> bool:
    """Whether the tensors are experts for certain: by their names, a router or the configuration."""
    named = any(own in _GATED or own in _FIRST or own in _DOWN for own in stack.plain)
    return named or count == routed or count in numbers(view.facts.config, *_COUNTS)


def _slices(view: TensorView, stack: _Stack, widths: set[int] | frozenset[int]) -> Iterator[_Slice]:
    """The matrices of each expert; nothing if the layout is unknown."""
    down = stack.one(*_DOWN)
    roles = {_GATED[own]: tensor for own, tensor in stack.plain.items() if own in _GATED}
    first = stack.one(*_FIRST)
    used = len(roles) + (first is not None) + (down is not None)
    if down is None or used != len(stack.plain) or (first is None) == (not roles):
        return
    down_name = "down_proj"
    if first is None and len(roles) == 1:
        [(_, first)] = roles.items()
    if first is None:
        gate, up = roles["gate"], roles["up"]
        turned = _plain_order(view, gate, down, widths)
        if turned is None or gate.shape != up.shape:
            return
        made = [("gate_proj", gate), ("up_proj", up)]
    else:
        own = next(name for name, tensor in stack.plain.items() if tensor is first)
        (a, b), (c, d) = first.shape[1:], down.shape[1:]
        if a == 2 * d and b == c:
            turned = False
        elif b == 2 * c and a == d:
            turned = True
        elif own in _BOTH or (turned := _plain_order(view, first, down, widths)) is None:
            return
        else:
            down_name = next(name for name, tensor in stack.plain.items() if tensor is down)
            yield _whole(own, first, turned=turned)
            yield _whole(down_name, down, turned=turned)
            return
        if own in _GATED:
            return  # one of two by its name, and both by its shape
        yield from _gate_and_up(view, own, first, turned=turned)
        made = []
    for role, tensor in [*made, (down_name, down)]:
        yield _whole(role, tensor, turned=turned)


def _whole(role: str, tensor: EffectiveTensor, *, turned: bool) -> _Slice:
    return _Slice(role, tensor, turned, 0, 1, tensor.shape[2 if turned else 1])


def _plain_order(
    view: TensorView, first: EffectiveTensor, down: EffectiveTensor, widths: set[int] | frozenset[int]
) -> bool | None:
    """Whether inputs come first in a layer before the activation and the one after it; None: unknown."""
    a, b = first.shape[1:]
    if down.shape[1:] != (b, a):
        return None
    if a != b and (a in widths) != (b in widths):
        return a in widths
    types = model_types(view.facts.config)
    linear = first.name.endswith("weight") and not first.name.endswith("_weight")
    if linear or types & _OUTPUTS_FIRST:  # a module with a weight is MLX's or IBM's, which have outputs first
        return False
    return True if types & _INPUTS_FIRST else None


def _gate_and_up(view: TensorView, own: str, both: EffectiveTensor, *, turned: bool) -> Iterator[_Slice]:
    """Gate and up of each expert: halves, or alternating outputs; together where that is not known."""
    types = model_types(view.facts.config)
    outputs = both.shape[2 if turned else 1]
    biased = f"{both.name.removesuffix('.weight')}_bias" in view.tensors
    head = any(name.startswith(("score.", "classifier.")) for name in view.tensors)
    shared = any("shared_expert" in name for name in view.tensors)
    if own == "mlp1" or types & _INTERLEAVED or (own == "w13" and types & _INTERLEAVED_W13):
        step = 2
    elif not types and biased:
        step = 0 if head else 2  # gpt-oss; OpenAI's privacy filter, which classifies, has halves in the same layout
    elif not turned or types & _INPUTS_FIRST or (not types and shared):
        step = 1
    else:
        step = 0
    half = outputs // 2
    if not step:
        yield _whole("gate_up_proj", both, turned=turned)
        return
    yield _Slice("gate_proj", both, turned, 0, step, half)
    yield _Slice("up_proj", both, turned, 1 if step == 2 else half, step, half)


def _split_merged(view: TensorView, stack: _Stack, routers: Mapping[str, tuple[int, int]]) -> None:
    """Stacks whose experts follow each other along the first axis: DBRX, MegaBlocks, and Llama 4 as Meta stores it."""
    routed = routers.get(stack.above, (0, 0))[0]
    told = numbers(view.facts.config, *_COUNTS)
    count = routed or (min(told) if len(told) == 1 else 0)
    name = next(iter(stack.plain.values())).name
    if count:
        _check_count(view, stack, name, count)
    for own, tensor in stack.plain.items():
        if not count:
            why = Unreadable("experts of unknown number", math.prod(tensor.shape), _REMEDY)
            view.refuse(tensor.name, why)
            continue
        rows, rest = divmod(tensor.shape[0], count)
        if rest or len(tensor.shape) != 2:
            raise WeightsError(
                f"{view.where}: {tensor.name} of shape {tensor.shape} cannot be that of {count} experts",
                "save it again",
            )
        role = _META.get(own) or ("down" if own in _DOWN else _GATED[own])
        turned = own in _META or role == "down"
        gated = "v1" in stack.plain or own in _META
        label = f"{role}_proj" if gated else own
        made = _Slice(label, tensor, turned, 0, 1, tensor.shape[1] if turned else rows)
        for expert in range(count):
            _put(view, stack, made, expert, (expert * rows, (expert + 1) * rows))
        view.tensors.pop(tensor.name, None)


def _put(view: TensorView, stack: _Stack, each: _Slice, expert: int, span: tuple[int, int]) -> None:
    separator = stack.home[-1]
    name = f"{stack.home}{expert}{separator}{each.role}{separator}weight"
    if name in view.tensors:
        raise WeightsError(
            f"{view.where}: {each.base.name} holds the experts of {stack.home[:-1]}, and {name} is one of them too",
            "keep one of them",
        )
    view.put(_matrix(each, name, str(expert), span))


def _matrix(each: _Slice, name: str, expert: str, span: tuple[int, int]) -> EffectiveTensor:
    """One matrix of one expert, which lies between two indices of the first axis of its stack."""
    base = each.base
    merged = len(base.shape) == 2
    inputs = (span[1] - span[0] if merged else base.shape[1]) if each.inputs_first else base.shape[-1]

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        found = base.rows(*span)
        whole = found if merged else found[0]
        if each.inputs_first:
            whole = whole.T
        return whole[each.first : each.first + each.step * each.outputs : each.step][start:stop]

    cut = ".".join(filter(None, (base.cut, expert, each.role)))
    return EffectiveTensor(name, base.dtype, (each.outputs, inputs), rows, base.parts, base.precision, cut)


def _split_batched(view: TensorView, tensor: EffectiveTensor) -> None:
    """Kernels of a batched linear layer, if its bias tells which of the axes is that of outputs."""
    above = tensor.name[: -len("weight")]
    bias = view.tensors.get(f"{above}bias")
    count, a, b = tensor.shape
    if bias is None or bias.shape not in ((count, bias.shape[-1]), (count, 1, bias.shape[-1])) or a == b:
        return
    outputs = bias.shape[-1]
    if outputs not in (a, b):
        return
    each = _Slice("", tensor, outputs == b, 0, 1, outputs)
    for index in range(count):
        name = f"{above}{index}{above[-1]}weight"
        if name in view.tensors:
            return
        view.put(_matrix(each, name, str(index), (index, index + 1)))
    view.tensors.pop(tensor.name, None)
