"""How a network departs from its conjugate ensembles: where its tail ends, and whether it left the Wishart band.

Any layer's eigenvalues have mean 1, so that Markov's inequality bounds the tail by 1 / x: any weights are conjugate to
the circular ensemble within delta from some location x*(delta) <= max(2, 1 / delta) on: which one says something.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles import REFERENCES, band, expected_cumulative
from registry.ensembles.checks import check_shapes
from registry.ensembles.wishart import largest_eigenvalues, marchenko_pastur_cumulative
from registry.errors import SpectrumError
from registry.spectral.cumulatives import check_spectra, cumulative
from registry.spectral.decay import decay
from registry.spectral.lanczos import scatter_of
from registry.types import Conjugacy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = [
    "BAND_LOCATIONS",
    "DELTAS",
    "TAIL_DELTA",
    "TAIL_EDGE",
    "conjugacy",
    "conjugate_from",
    "tail_edge",
    "wishart_from",
]

DELTAS = (0.01, 0.02, 0.05)
"""Thresholds at which x*(delta) is reported."""
TAIL_DELTA = 0.01
"""The threshold whose location decides the tail class."""
TAIL_EDGE = 4.0
"""Largest location that uncorrelated weights reach: (1 + sqrt c)^2 <= 4 for every aspect c (Bai & Yin 1993)."""
BAND_LOCATIONS = np.exp(0.2 * np.sinh(np.linspace(-np.arcsinh(34.5), np.arcsinh(10.5), 64)))
"""Where F - F_W is looked at: 64 locations from 1e-3 to 8, closest (2 %) about 1, where spectra of long thin matrices
concentrate. The band is a supremum over the same ones."""

# Candidates at which the conjugate Wishart's differences are scanned; the step between two of them is divided again and
# again, into as many parts as keep a call of NumPy busy.
SCANNED = np.linspace(0, TAIL_EDGE, 1025)
PARTS = np.linspace(0, 1, 65)
DIVISIONS = 7
# What sums of some 1e5 weights err by: fractions that are equal to delta on paper are so here.
ROUNDING = 1e-11


def conjugacy(spectra: Sequence[Spectrum], *, seed: int = 0) -> Conjugacy:
    """Departure of a network's `proper` spectra from its conjugate circular and Wishart ensembles, and how it decays.

    The classes: ``long`` where |cCSD| falls below 0.01 only beyond `tail_edge`, 4 for all but the smallest networks,
    which uncorrelated weights hardly reach, else ``edge``; ``trained`` where sup |F - F_W| leaves the 99 % band of
    Gaussian networks of the same shapes (z > 1), else ``untrained``. The order of the spectra changes no bit. Of
    approximate ones the band is wider by what they scatter (`scatter_of`).

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    seed
        Of the simulated Gaussian networks and of the resampled layers, non-negative.

    Returns
    -------
    Conjugacy
        ``tail`` and ``wishart_tail`` at `DELTAS`; ``z`` to six decimals, so that rounding does not lift the ties of
        small orders over the band.

    Raises
    ------
    SpectrumError
        No layers, an empty, incomplete or not finite spectrum, a negative seed.
    """
    check_spectra(spectra)
    # Sums round by their order, so they are taken in one that the network's own does not decide.
    spectra = sorted(spectra, key=_sorted_by)
    shapes = [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
    tail = dict(zip(DELTAS, conjugate_from(spectra, DELTAS), strict=True))
    wishart = REFERENCES["wishart"]
    expected = expected_cumulative(wishart, shapes, BAND_LOCATIONS)
    departure = float(np.abs(cumulative(spectra, BAND_LOCATIONS) - expected).max())
    width = band(wishart, shapes, BAND_LOCATIONS, seed=seed)
    if any(spectrum.method for spectrum in spectra):
        width += scatter_of(spectra)
    z = round(departure / width, 6)
    return Conjugacy(
        tail=tuple(tail.items()),
        wishart_tail=tuple(zip(DELTAS, wishart_from(shapes, DELTAS), strict=True)),
        z=z,
        tail_class="edge" if tail[TAIL_DELTA] <= tail_edge(shapes) else "long",
        training_class="trained" if z > 1 else "untrained",
        decay=decay(spectra, seed=seed),
    )


def _sorted_by(spectrum: Spectrum) -> tuple[int, int, str, bytes]:
    """All that the figures depend on, of a layer: its shape, its method and its eigenvalues."""
    return spectrum.layer.p, spectrum.layer.q, spectrum.method, spectrum.values.tobytes()


def tail_edge(shapes: Sequence[tuple[int, int]]) -> float:
    """The largest location x*(0.01) that uncorrelated weights of these shapes reach: 4, but for very small networks.

    (1 + sqrt c)^2 <= 4 bounds the bulk of every layer, and single eigenvalues beyond it do not matter while each weighs
    1 / (L min(p, q)) <= 0.01. Of a layer where one weighs more, what its largest eigenvalue exceeds once in a thousand
    Gaussian matrices of its shape (`largest_eigenvalues`), if that is larger.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q) of the layers.

    Returns
    -------
    float
        A location on the `proper` scale, at least `TAIL_EDGE`.

    Raises
    ------
    SpectrumError
        No layers, an extent below 1.
    """
    largest = largest_eigenvalues(shapes, 0.999)
    weights = 1 / (len(largest) * np.min(shapes, axis=1))
    return float(np.where(weights > TAIL_DELTA, largest, 0.0).max(initial=TAIL_EDGE))


def conjugate_from(spectra: Sequence[Spectrum], deltas: Sequence[float]) -> tuple[float, ...]:
    """x*(delta): the smallest location from which on |F_c - F| <= delta, against the expected circular ensemble.

    Exact, from the pooled eigenvalues on the `proper` scale, each of weight 1 / (L min(p, q)): between two of them F is
    constant and F_c = x / 2 up to 2, so that the last departure is at an eigenvalue, or where F_c reaches F - delta.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    deltas
        Accuracies, each in (0, 1).

    Returns
    -------
    tuple of float
        Locations, one a delta, within [0, max(2, 1 / delta)].

    Raises
    ------
    SpectrumError
        A delta outside (0, 1); no layers, an empty or not finite spectrum.
    """
    _check_deltas(deltas)
    check_spectra(spectra)
    values = np.concatenate([spectrum.values for spectrum in spectra]).astype(np.float64)
    weights = np.concatenate([np.full(s.values.size, 1 / (s.values.size * len(spectra))) for s in spectra])
    order = np.argsort(values, kind="stable")
    begins = np.concatenate(([0.0], values[order]))
    ends = np.append(begins[1:], np.inf)
    F = np.concatenate(([0.0], np.cumsum(weights[order])))
    F[-1] = 1.0
    # Between ties, F takes no value.
    some = ends > begins
    begins, ends, F = begins[some], ends[some], F[some]
    found = []
    for delta in deltas:
        above = np.minimum(ends / 2, 1.0) - F > delta + ROUNDING
        below = np.minimum(2 * (F - delta - ROUNDING), ends)
        last = np.where(above, ends, np.where(below > begins, below, 0.0))
        found.append(float(last.max()))
    return tuple(found)


def wishart_from(shapes: Sequence[tuple[int, int]], deltas: Sequence[float]) -> tuple[float, ...]:
    """x*(delta) of the expected conjugate Wishart ensemble of a network's shapes.

    Parameters
    ----------
    shapes
        (L,) shapes (p, q) of the layers.
    deltas
        Accuracies, each in (0, 1).

    Returns
    -------
    tuple of float
        Locations, one a delta, at most 4, within 1e-9; departures narrower than 1 / 256 may be missed.

    Raises
    ------
    SpectrumError
        A delta outside (0, 1); no layers, an extent below 1.
    """
    _check_deltas(deltas)
    counted = Counter((min(shape), max(shape)) for shape in check_shapes(shapes))
    return _wishart_from(tuple(sorted(counted.items())), tuple(deltas))


@lru_cache(maxsize=4096)
def _wishart_from(counted: tuple[tuple[tuple[int, int], int], ...], deltas: tuple[float, ...]) -> tuple[float, ...]:
    """`wishart_from` of a multiset of shapes."""
    aspects = np.array([[n / m] for (n, m), _ in counted])
    weights = np.array([layers for _, layers in counted]) / sum(layers for _, layers in counted)

    def departures(x: NDArray[np.float64]) -> NDArray[np.float64]:
        mixed: NDArray[np.float64] = weights @ marchenko_pastur_cumulative(aspects, x)
        return np.abs(np.minimum(x / 2, 1.0) - mixed)

    scanned = departures(SCANNED)
    found = []
    for delta in deltas:
        points, departed = SCANNED, scanned > delta
        if not departed.any():
            found.append(0.0)
            continue
        for _ in range(DIVISIONS):
            last = int(np.flatnonzero(departed)[-1])
            points = points[last] + (points[last + 1] - points[last]) * PARTS
            departed = departures(points) > delta
            departed[0], departed[-1] = True, False  # as they were found to be, whatever rounding says now
        found.append(float(points[int(np.flatnonzero(departed)[-1]) + 1]))
    return tuple(found)


def _check_deltas(deltas: Sequence[float]) -> None:
    """SpectrumError naming a delta outside (0, 1)."""
    for delta in deltas:
        if not 0 < delta < 1:
            raise SpectrumError(f"thresholds delta must lie within (0, 1), not {delta!r}")
