"""The stored parts of a quantised weight: found by name, checked against each other and against the configuration."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.effective_weights import Unreadable
from registry.sources.fused_tensors import is_conv1d_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from registry.sources.effective_weights import EffectiveTensor, TensorView

__all__ = [
    "check_scales",
    "contradiction",
    "modules_with",
    "put_weight",
    "refuse_weight",
    "whole_number",
]

_CONV1D = re.compile(r"(?:.*\.)?(?:c_attn|q_attn|c_fc|c_proj)\.weight")
_REMEDY = "the parts of a quantised weight do not fit each other: fetch the whole model again"
_LARGEST = 1 << 31


def modules_with(view: TensorView, *suffixes: str) -> list[str]:
    """Prefixes (``model.layers.0.q_proj.``) that have a tensor of each suffix, sorted; empty for a bare name."""
    first, *others = suffixes
    found = (name.removesuffix(first) for name in view.tensors if name.endswith(first))
    return sorted(
        prefix
        for prefix in found
        if prefix[-1:] in ("", ".") and all(prefix + suffix in view.tensors for suffix in others)
    )


def contradiction(view: TensorView, name: str, why: str, remedy: str = _REMEDY) -> WeightsError:
    """The error for parts that contradict each other or the configuration; it names the file and the tensor."""
    return WeightsError(f"{view.where}: tensor {name} {why}", remedy)


def put_weight(view: TensorView, made: EffectiveTensor, parts: Iterable[str]) -> None:
    """Put a weight (out, in) in place of its parts, in the layout that the matrix rule expects under its name.

    Quantisers turn the kernels (in, out) of the Conv1D module in transformers' GPT-2. Where others of these are stored
    beside them as they are, the rule takes all for kernels, so the weight is turned back. Raises ``WeightsError`` where
    the weight is stored beside its parts.
    """
    parts = tuple(parts)
    if made.name in view.tensors and made.name not in parts:
        raise contradiction(view, made.name, f"is stored beside {parts[0]}")
    if len(made.shape) == 2 and _CONV1D.fullmatch(made.name) and _has_conv1d(view):
        made = replace(made, shape=made.shape[::-1], rows=_turned(made))
    view.put(made, parts)


def _turned(made: EffectiveTensor) -> Callable[[int, int], NDArray[np.generic]]:
    return lambda start, stop: np.ascontiguousarray(made.read().T[start:stop])


def _has_conv1d(view: TensorView) -> bool:
    return is_conv1d_model({name: tensor.info for name, tensor in view.tensors.items()}, view.facts.config)


def refuse_weight(
    view: TensorView, name: str, kind: str, elements: int, remedy: str, companions: Iterable[str] = ()
) -> None:
    """Refuse a weight of ``elements`` elements whose layout is known and not read; its companions are no layers."""
    view.refuse(name, Unreadable(kind, elements, remedy))
    for companion in companions:
        if companion in view.tensors:
            view.skip(companion, f"part of {kind}")


def whole_number(view: TensorView, settings: Mapping[str, Any], *keys: str) -> int | None:
    """The first of ``keys`` that the settings have, as an int; None where they have none of them.

    Raises ``WeightsError`` where the value is no whole number of at most 2**31 in size.
    """
    for key in keys:
        value = settings.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
            raise WeightsError(
                f"{view.where}: the quantisation's {key} is no whole number: {str(value)[:40]!r}",
                "mend the configuration beside the weights",
            )
        return value
    return None


def check_scales(view: TensorView, name: str, scales: NDArray[np.floating], offsets: NDArray[np.generic]) -> None:
    """Refuse a scale of zero that multiplies anything else than zero.

    Such a group would be all zeros whatever its codes say: scales were lost, or fell below the smallest number of their
    format. ``offsets`` are the numbers that are multiplied, in an array that ``scales`` broadcasts to. Raises
    ``WeightsError``.
    """
    if (scales != 0).all():
        return
    lost = (scales == 0) & (offsets != 0)
    if lost.any():
        raise contradiction(
            view,
            name,
            f"holds scales of zero, which would make {int(np.count_nonzero(lost)):,} coded values zero",
            "its scales were lost or underflowed: fetch or quantise the model again",
        )
