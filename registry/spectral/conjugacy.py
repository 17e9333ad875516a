"""Conjugacy of a network: end of its tail, tail class, and training class.

The eigenvalues of each layer have mean 1, so Markov's inequality bounds the tail by 1 / x. Any weights are therefore
within delta of the circular ensemble from some location x*(delta) <= max(2, 1 / delta) on. The information is in the
location.
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
from registry.spectral.training import FIGURES_VERSION, training
from registry.types import Conjugacy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum, WeightFigures

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
"""Thresholds delta for which x*(delta) is reported."""
TAIL_DELTA = 0.01
"""The threshold whose location determines the tail class."""
TAIL_EDGE = 4.0
"""Largest location that uncorrelated weights reach: (1 + sqrt c)^2 <= 4 for every aspect c (Bai & Yin 1993)."""
BAND_LOCATIONS = np.exp(0.2 * np.sinh(np.linspace(-np.arcsinh(34.5), np.arcsinh(10.5), 64)))
"""Locations at which F - F_W is evaluated: 64 from 1e-3 to 8, closest (2 %) around 1, where spectra of long thin
matrices concentrate. The band is a supremum over the same locations."""

# Locations at which the differences of the conjugate Wishart ensemble are scanned. The interval that holds the last
# departure is then divided DIVISIONS times, into as many parts as make a call of NumPy efficient.
SCANNED = np.linspace(0, TAIL_EDGE, 1025)
PARTS = np.linspace(0, 1, 65)
DIVISIONS = 7
# Rounding error of sums of about 1e5 weights; fractions that equal delta exactly must be recognised.
ROUNDING = 1e-11


def conjugacy(spectra: Sequence[Spectrum], figures: WeightFigures | None = None, *, seed: int = 0) -> Conjugacy:
    """Departure of a network's `proper` spectra from its conjugate ensembles, and its decay law.

    The tail class is ``long`` if |cCSD| falls below 0.01 only beyond `tail_edge`, which is 4 for all but the smallest
    networks and which uncorrelated weights hardly reach; else ``edge``. The training class is that of `training`, by
    the figures of the weights. Without them it is ``trained`` if sup |F - F_W| leaves the 99 % band of Gaussian
    networks of the same shapes (z > 1), else ``untrained``. What follows from spectra does not depend on their order,
    to the last bit. For approximate spectra the band is widened by their error
    (`scatter_of`).

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    figures
        Figures of the weights, of the layers in the same order; those of another version count as none.
    seed
        Seed of the simulated Gaussian networks and of the resampled layers, non-negative.

    Returns
    -------
    Conjugacy
        ``tail`` and ``wishart_tail`` at `DELTAS`. ``z`` is rounded to six decimals, so that rounding errors do not move
        ties of small orders out of the band.

    Raises
    ------
    SpectrumError
        There are no layers, a spectrum is empty, incomplete or not finite, or the seed is negative.
    """
    check_spectra(spectra)
    trained = None
    if figures is not None and figures.version == FIGURES_VERSION:
        trained = training(figures, [spectrum.layer for spectrum in spectra]).training_class
    # Rounding of sums depends on their order, so spectra are summed in an order that does not depend on the network's.
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
        training_class=trained or ("trained" if z > 1 else "untrained"),
        decay=decay(spectra, seed=seed),
    )


def _sorted_by(spectrum: Spectrum) -> tuple[int, int, str, bytes]:
    """Sort key from what the results depend on: shape, method and eigenvalues of a layer."""
    return spectrum.layer.p, spectrum.layer.q, spectrum.method, spectrum.values.tobytes()


def tail_edge(shapes: Sequence[tuple[int, int]]) -> float:
    """The largest location x*(0.01) that uncorrelated weights of these shapes reach: 4 except for very small networks.

    (1 + sqrt c)^2 <= 4 bounds the bulk of every layer, and single eigenvalues beyond it do not matter if each has
    weight 1 / (L min(p, q)) <= 0.01. For a layer whose eigenvalues have a larger weight, the edge is the value that the
    largest eigenvalue of a Gaussian matrix of its shape exceeds once in a thousand (`largest_eigenvalues`), if that is
    larger.

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
        There are no layers, or an extent is below 1.
    """
    largest = largest_eigenvalues(shapes, 0.999)
    weights = 1 / (len(largest) * np.min(shapes, axis=1))
    return float(np.where(weights > TAIL_DELTA, largest, 0.0).max(initial=TAIL_EDGE))


def conjugate_from(spectra: Sequence[Spectrum], deltas: Sequence[float]) -> tuple[float, ...]:
    """x*(delta): the smallest location from which on |F_c - F| <= delta, for the expected circular ensemble.

    Exact, from the pooled eigenvalues on the `proper` scale, each with weight 1 / (L min(p, q)). Between two of them F
    is constant and F_c = x / 2 up to 2, so the last departure is at an eigenvalue, or where F_c reaches F - delta.

    Parameters
    ----------
    spectra
        (L,) spectra of the layers.
    deltas
        Thresholds, each in (0, 1).

    Returns
    -------
    tuple of float
        One location per delta, within [0, max(2, 1 / delta)].

    Raises
    ------
    SpectrumError
        A delta is outside (0, 1), there are no layers, or a spectrum is empty or not finite.
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
    # F is evaluated after the last of several equal eigenvalues.
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
        Thresholds, each in (0, 1).

    Returns
    -------
    tuple of float
        One location per delta, at most 4, within 1e-9; departures narrower than 1 / 256 may be missed.

    Raises
    ------
    SpectrumError
        A delta is outside (0, 1), there are no layers, or an extent is below 1.
    """
    _check_deltas(deltas)
    counted = Counter((min(shape), max(shape)) for shape in check_shapes(shapes))
    return _wishart_from(tuple(sorted(counted.items())), tuple(deltas))


@lru_cache(maxsize=4096)
def _wishart_from(counted: tuple[tuple[tuple[int, int], int], ...], deltas: tuple[float, ...]) -> tuple[float, ...]:
    """`wishart_from` for a multiset of shapes, cached."""
    aspects = np.array([[n / m] for (n, m), _ in counted])
    weights = np.array([layers for _, layers in counted]) / sum(layers for _, layers in counted)

    def departures(x: NDArray[np.float64]) -> NDArray[np.float64]:
        mixed: NDArray[np.float64] = weights @ marchenko_pastur_cumulative(aspects, x)
        return np.abs(np.minimum(x / 2, 1.0) - mixed)

    scanned = departures(SCANNED)
    last = {delta: int(beyond[-1]) for delta in deltas if (beyond := np.flatnonzero(scanned > delta)).size}
    begins, ends = SCANNED[list(last.values())], SCANNED[[at + 1 for at in last.values()]]
    thresholds = np.array(list(last))[:, None]
    for _ in range(DIVISIONS if last else 0):  # the intervals of all deltas at once, which is fewer calls
        points = begins[:, None] + (ends - begins)[:, None] * PARTS
        departed = departures(points.reshape(-1)).reshape(points.shape) > thresholds
        departed[:, 0], departed[:, -1] = True, False  # as found in the step before; rounding must not change it
        at = departed.shape[1] - 1 - departed[:, ::-1].argmax(axis=1)
        begins, ends = (np.take_along_axis(points, each[:, None], axis=1)[:, 0] for each in (at, at + 1))
    located = dict(zip(last, ends.tolist(), strict=True))
    return tuple(located.get(delta, 0.0) for delta in deltas)


def _check_deltas(deltas: Sequence[float]) -> None:
    """Raise ``SpectrumError`` if a delta is outside (0, 1)."""
    for delta in deltas:
        if not 0 < delta < 1:
            raise SpectrumError(f"thresholds delta must lie within (0, 1), not {delta!r}")
