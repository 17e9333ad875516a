"""Argument checks of the reference ensembles. Each error names the invalid value."""

from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "check_beta",
    "check_finite",
    "check_locations",
    "check_numbers",
    "check_reference",
    "check_rng",
    "check_shapes",
    "check_whole",
]


def check_whole(number: int, name: str, least: int = 1) -> int:
    """``number`` as an int of at least ``least``. Raises ``SpectrumError`` otherwise."""
    try:
        value = index(number)
    except TypeError:
        raise SpectrumError(f"{name} must be an integer, not {number!r}") from None
    if value < least:
        raise SpectrumError(f"{name} must be at least {least}, not {value}")
    return value


def check_beta(beta: float) -> float:
    """``beta`` as a finite positive float. Raises ``SpectrumError`` otherwise."""
    try:
        value = float(beta)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise SpectrumError(f"the Dyson index beta must be finite and positive, not {beta!r}")
    return value


def check_numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as a float64 array. Raises ``SpectrumError`` if they are not real numbers."""
    try:
        return np.asarray(values).astype(np.float64, casting="same_kind", copy=False)
    except (TypeError, ValueError):
        raise SpectrumError(f"{name} must be numbers, not {values!r}") from None


def check_finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """``values`` as a float64 array. Raises ``SpectrumError`` if they are not real numbers or not finite."""
    numbers = check_numbers(values, name)
    wrong = numbers[~np.isfinite(numbers)]
    if wrong.size:
        raise SpectrumError(f"{name} must be finite, not {wrong[0]:g}")
    return numbers


def check_reference(reference: object) -> None:
    """Raise ``SpectrumError`` if the value is not a reference ensemble, but for instance the name of one."""
    if not hasattr(reference, "deviations"):
        raise SpectrumError(
            f"reference must be a reference ensemble, not {reference!r}", "use one of registry.ensembles.REFERENCES"
        )


def check_rng(rng: object) -> None:
    """Raise ``SpectrumError`` if the value is not a NumPy generator, but for instance a seed."""
    if not hasattr(rng, "standard_normal"):
        raise SpectrumError(f"rng must be a numpy.random.Generator, not {rng!r}", "write numpy.random.default_rng(0)")


def check_shapes(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Shapes (p, q) of a network's layers as ints of at least 1.

    Raises ``SpectrumError`` otherwise, or if there are none.
    """
    try:
        layers, pairs = len(shapes), [(p, q) for p, q in shapes]
    except (TypeError, ValueError):
        raise SpectrumError(f"shapes must be a list of pairs (p, q), one a layer, not {shapes!r}") from None
    if not layers:
        raise SpectrumError("no layers: the ensemble of a network without layers is undefined")
    if all(type(p) is int and type(q) is int and p > 0 < q for p, q in pairs):
        return pairs
    return [(check_whole(p, "p"), check_whole(q, "q")) for p, q in pairs]


def check_locations(locations: ArrayLike) -> NDArray[np.float64]:
    """Locations as a finite, non-negative, increasing float64 array (K,). Raises ``SpectrumError`` otherwise."""
    x = check_numbers(locations, "locations")
    if x.ndim != 1 or x.size == 0:
        raise SpectrumError(f"locations must be a list of at least one number, not of shape {x.shape}")
    wrong = np.flatnonzero(~np.isfinite(x) | (x < 0))
    if wrong.size:
        raise SpectrumError(f"locations must be finite and not negative, not {x[wrong[0]]:g}")
    falls = np.flatnonzero(np.diff(x) <= 0)
    if falls.size:
        i = int(falls[0])
        raise SpectrumError(f"locations must increase: {x[i + 1]:g} follows {x[i]:g}")
    return x
