"""What a picture shows: arrays and facts, computed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Conjugacy

__all__ = ["AXES", "Axes", "Curve", "DifferencePicture", "LARGEST", "SpectrumPicture"]

Axes = Literal["both", "linear", "log"]
"""Panels of spectral differences: linear axes, logarithmic ones, or the two side by side."""
AXES: tuple[Axes, ...] = ("both", "linear", "log")
LARGEST = 8
"""Networks in one picture that colours and dashes tell apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One network's cCSD and its band, (K,) each, float64; ``layers``: how many it has.

    ``gaussian``: the cCSD expected of Gaussian weights of its shapes, None where they are themselves the reference.
    """

    name: str
    layers: int
    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    gaussian: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class DifferencePicture:
    """Spectral differences of networks at common locations (K,), x >= 0, increasing.

    ``reference``, ``law``: what the conjugate ensemble and its expected density are called; ``support``: where that
    ends, None where the layers decide; ``sample``: seed of the one member of it that was drawn, None for its
    expectation; ``level``, ``resamples``, ``seed``: of the bands.
    """

    locations: NDArray[np.float64]
    curves: tuple[Curve, ...]
    scale: str
    reference: str
    law: str
    support: float | None
    sample: int | None
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumPicture:
    """The `proper` spectrum of one network, its L layers in depth order.

    ``edges``: (B + 1,) bin edges x > 0 of constant ratio; ``layers``: (L, B) density of each layer per decade of x;
    ``network``, ``circular``, ``wishart``: (B,) densities per decade of the network and of its expected references;
    ``support``: (2, L) Marchenko-Pastur edges; ``ratios``, ``errors``: (L,) mean spacing ratios and their standard
    errors, NaN where a layer has too few eigenvalues; ``theory``: mean ratio by its label; ``below``: fraction of the
    network's eigenvalues below the first edge; ``conjugacy``: the figures, where known.
    """

    name: str
    edges: NDArray[np.float64]
    layers: NDArray[np.float64]
    network: NDArray[np.float64]
    circular: NDArray[np.float64]
    wishart: NDArray[np.float64]
    support: NDArray[np.float64]
    ratios: NDArray[np.float64]
    errors: NDArray[np.float64]
    theory: tuple[tuple[str, float], ...]
    below: float
    conjugacy: Conjugacy | None
