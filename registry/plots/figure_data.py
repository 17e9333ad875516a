"""Contents of figures as arrays, computed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Conjugacy

__all__ = ["AXES", "Axes", "Curve", "DifferencePicture", "LARGEST", "MOST_LINES", "SpectrumPicture", "TreePicture"]

Axes = Literal["both", "linear", "log"]
"""Panels of spectral differences: linear axes, logarithmic axes, or both side by side."""
AXES: tuple[Axes, ...] = ("both", "linear", "log")
LARGEST = 8
"""Largest number of networks in one figure that colours and dashes can distinguish."""


MOST_LINES = 400
"""Largest number of models in one figure of trees."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A network's cCSD and its band, float64 (K,) each; ``layers``: number of its layers.

    ``gaussian``: expected cCSD of Gaussian weights of its shapes, None if those are the reference ensemble.
    """

    name: str
    layers: int
    values: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    gaussian: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True, eq=False)
class DifferencePicture:
    """Spectral differences of networks at common increasing locations (K,), x >= 0.

    ``reference``, ``law``: names of the reference ensemble and its expected density. ``support``: its upper end, None
    if it depends on the layers. ``sample``: seed of the member that was drawn, None for the expectation. ``level``,
    ``resamples``, ``seed``: of the bands.
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

    ``edges``: (B + 1,) bin edges x > 0 of constant ratio. ``layers``: (L, B) density of each layer per decade of x.
    ``network``, ``circular``, ``wishart``: (B,) densities per decade of the network and of its expected conjugate
    ensembles. ``support``: (2, L) Marchenko-Pastur edges. ``ratios``, ``errors``: (L,) mean spacing ratios and their
    standard errors, NaN for layers with too few eigenvalues. ``theory``: mean ratio by label. ``below``: fraction of
    the network's eigenvalues below the first edge. ``conjugacy``: its conjugacy, if known.
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


@dataclass(frozen=True, slots=True)
class TreePicture:
    """Trees of related models, a line each: names, steps from the root, line of the model above (None for a root).

    ``labels``: what relates a line to the one above.
    """

    names: tuple[str, ...]
    depths: tuple[int, ...]
    above: tuple[int | None, ...]
    labels: tuple[str, ...]
