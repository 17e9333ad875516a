"""The stored parts of a quantised weight: found by name, checked against each other and against the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.tensor_view import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from registry.sources.tensor_view import TensorView

__all__ = [
    "check_scales",
    "contradiction",
    "modules_with",
    "refuse_weight",
    "whole_number",
]

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
