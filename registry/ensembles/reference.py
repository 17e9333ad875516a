"""Conjugate ensembles of whole networks: expected and sampled cumulatives, and the band.

The conjugate ensemble of a network mixes one ensemble per layer with equal weights: its cumulative is the mean over
layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log, pi, sqrt
from typing import TYPE_CHECKING, Protocol

import numpy as np

from registry.ensembles.checks import check_beta, check_locations, check_reference, check_shapes, check_whole
from registry.ensembles.circular import sample_counts
from registry.ensembles.wishart import marchenko_pastur_cumulative, sample_cumulative
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BAND_DRAWS",
    "BAND_LEVEL",
    "COE",
    "CSE",
    "CUE",
    "WISHART",
    "Circular",
    "Reference",
    "Wishart",
    "band",
    "expected_cumulative",
    "layer_references",
    "sampled_cumulative",
]

BAND_DRAWS = 299
"""Number of simulated networks for a band. One more network exceeds the 297th of 299 with probability 3 / 300."""
BAND_LEVEL = 0.99
"""Level of a band: 1 in 100 networks of the ensemble leaves it."""
NAMED: dict[float, str] = {
    1: "orthogonal ensemble (COE)",
    2: "unitary ensemble (CUE)",
    4: "symplectic ensemble (CSE)",
}
LARGEST_SIMULATED = 2048
"""Largest min(p, q) that is simulated at its own order; see `Wishart.deviations`."""


class Reference(Hashable, Protocol):
    """A reference ensemble, layer by layer. Equal instances have equal hashes, so that samples can be cached."""

    @property
    def title(self) -> str:
        """Name for captions, such as ``circular unitary ensemble (CUE)``."""

    @property
    def law(self) -> str:
        """Expected density, in words."""

    @property
    def support(self) -> float | None:
        """Upper end of the expected spectrum if it does not depend on the shapes; else None."""

    @property
    def scales(self) -> tuple[str, ...]:
        """Scales on which the ensemble is defined: ``proper``, ``full`` or both."""

    def kind(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """The properties of a layer's shape (p, q) that determine its ensemble."""

    def expected(self, kinds: Sequence[tuple[int, ...]], locations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected cumulative of each layer, (L, K)."""

    def deviations(
        self, kind: tuple[int, ...], locations: NDArray[np.float64], rng: np.random.Generator, draws: int
    ) -> NDArray[np.float64]:
        """Sampled minus expected cumulative of one layer, (draws, K)."""


@dataclass(frozen=True, slots=True)
class Circular:
    """Circular ensembles of the layers' orders p with x = theta / pi: uniform on (0, 2] for any ``beta`` and order."""

    beta: float = 2

    @property
    def title(self) -> str:
        """Name of the ensemble if it has one, else its ``beta``."""
        return f"circular {NAMED.get(self.beta, f'ensemble of β = {self.beta:g}')}"

    @property
    def law(self) -> str:
        """The same for all circular ensembles."""
        return "uniform on (0, 2]"

    @property
    def support(self) -> float | None:
        """2, the whole circle."""
        return 2.0

    @property
    def scales(self) -> tuple[str, ...]:
        """Both: the mean over all eigenvalues is 1, and none is a structural zero."""
        return ("proper", "full")

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def kind(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """The order p."""
        return (shape[0],)

    def expected(self, kinds: Sequence[tuple[int, ...]], locations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Uniform on (0, 2]: x / 2 for every layer up to x = 2, then 1."""
        return np.tile(np.clip(locations / 2, 0.0, 1.0), (len(kinds), 1))

    def deviations(
        self, kind: tuple[int, ...], locations: NDArray[np.float64], rng: np.random.Generator, draws: int
    ) -> NDArray[np.float64]:
        """Counts of eigenphases as fractions of the order, minus x / 2."""
        (order,) = kind
        inner = locations[(locations > 0) & (locations < 2)]
        result = np.zeros((draws, locations.size))
        counts = sample_counts(order, self.beta, np.concatenate(([0.0], pi * inner, [2 * pi])), rng, draws)
        first = int(np.searchsorted(locations, 0.0, side="right"))
        result[:, first : first + inner.size] = np.cumsum(counts[:, :-1], axis=1) / order - inner / 2
        return result


@dataclass(frozen=True, slots=True)
class Wishart:
    """Gaussian matrices of the layers' shapes, on the `proper` scale."""

    @property
    def title(self) -> str:
        """Name of the Wishart ensemble."""
        return "Gaussian weights of the same shapes (Wishart)"

    @property
    def law(self) -> str:
        """A Marchenko-Pastur law for each aspect."""
        return "the Marchenko–Pastur laws of the layers, mixed"

    @property
    def support(self) -> float | None:
        """None: the edge of the Marchenko-Pastur law depends on the aspect."""
        return None

    @property
    def scales(self) -> tuple[str, ...]:
        """``proper`` only: the `full` scale differs from layer to layer."""
        return ("proper",)

    def kind(self, shape: tuple[int, int]) -> tuple[int, ...]:
        """(min(p, q), max(p, q))."""
        return (min(shape), max(shape))

    def expected(self, kinds: Sequence[tuple[int, ...]], locations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Marchenko-Pastur cumulative of each layer's aspect."""
        sizes = np.array(kinds, dtype=np.float64)
        return marchenko_pastur_cumulative(sizes[:, :1] / sizes[:, 1:], locations)

    def deviations(
        self, kind: tuple[int, ...], locations: NDArray[np.float64], rng: np.random.Generator, draws: int
    ) -> NDArray[np.float64]:
        """Cumulatives of Gaussian matrices minus Marchenko-Pastur, finite-size bias included.

        An order n above ``LARGEST_SIMULATED`` is simulated at that order N with the same aspect. Counts in the bulk
        fluctuate with variance proportional to ln n (Costin & Lebowitz 1995), so fractions are scaled by (N / n)
        sqrt(ln n / ln N).
        """
        n, m = kind
        size = min(n, LARGEST_SIMULATED)
        other = round(m * size / n)
        sampled = sample_cumulative(size, other, locations, rng, draws)
        shrink = size / n * sqrt(log(n) / log(size)) if size < n else 1.0
        return (sampled - marchenko_pastur_cumulative(size / other, locations)) * shrink


COE, CUE, CSE = Circular(beta=1), Circular(beta=2), Circular(beta=4)
WISHART = Wishart()


def expected_cumulative(
    reference: Reference, shapes: Sequence[tuple[int, int]], locations: ArrayLike
) -> NDArray[np.float64]:
    """Expected cumulative of a network's conjugate ensemble.

    The layers count as a multiset: sums run over the sorted kinds, so that no order of the layers changes a bit.

    Parameters
    ----------
    reference
        The reference ensemble, an entry of ``REFERENCES``.
    shapes
        (L,) shapes (p, q) of the layer matrices.
    locations
        (K,) increasing spectral locations.

    Returns
    -------
    NDArray[np.float64]
        (K,), the mean over layers.

    Raises
    ------
    SpectrumError
        There are no layers, an extent is below 1, or the locations are invalid.
    """
    counted = sorted(Counter(_kinds(reference, shapes)).items())
    values = reference.expected([kind for kind, _ in counted], check_locations(locations))
    return np.asarray(np.array([layers for _, layers in counted]) @ values / len(shapes))


def layer_references(
    reference: Reference, shapes: Sequence[tuple[int, int]], locations: ArrayLike, *, seed: int | None = None
) -> NDArray[np.float64]:
    """Cumulatives of a network's conjugate ensemble, layer by layer.

    Parameters
    ----------
    reference, shapes, locations
        As in `expected_cumulative`.
    seed
        None for the expected cumulatives; a non-negative number for those of one member, the same as in
        `sampled_cumulative`.

    Returns
    -------
    NDArray[np.float64]
        (L, K).

    Raises
    ------
    SpectrumError
        As in `expected_cumulative`; also for a negative seed.
    """
    x = check_locations(locations)
    kinds = _kinds(reference, shapes)
    distinct = {kind: i for i, kind in enumerate(sorted(set(kinds)))}
    values = reference.expected(list(distinct), x)[[distinct[kind] for kind in kinds]]
    if seed is not None:
        for layers, found in _members(reference, kinds, x, seed, 1):
            values[layers] += found[:, 0]
    return values


def sampled_cumulative(
    reference: Reference, shapes: Sequence[tuple[int, int]], locations: ArrayLike, *, seed: int = 0, draws: int = 1
) -> NDArray[np.float64]:
    """Cumulatives of sampled members of a network's conjugate ensemble; layers and draws are independent.

    Parameters
    ----------
    reference, shapes, locations
        As in `expected_cumulative`.
    seed
        Non-negative. The same seed gives the same members for any order of the layers.
    draws
        Number of members, >= 1.

    Returns
    -------
    NDArray[np.float64]
        (draws, K).

    Raises
    ------
    SpectrumError
        As in `expected_cumulative`; also for ``draws`` below 1 or a negative seed.
    """
    x, draws = check_locations(locations), check_whole(draws, "draws")
    kinds = _kinds(reference, shapes)
    total = np.zeros((draws, x.size))
    for _, found in _members(reference, kinds, x, seed, draws):
        total += found.sum(axis=0)
    return expected_cumulative(reference, shapes, x) + total / len(kinds)


def band(
    reference: Reference,
    shapes: Sequence[tuple[int, int]],
    locations: ArrayLike,
    *,
    seed: int = 0,
    draws: int = BAND_DRAWS,
    level: float = BAND_LEVEL,
) -> float:
    """Width of the band that contains the whole cumulative of a member with probability ``level``.

    The order statistic number ceil(level (draws + 1)) of sup_x |F_sim - F_expected| over simulated networks, with the
    supremum over ``locations``. One more independent network takes each rank among them with equal probability. It
    leaves the band with probability at most 1 - level, without a fit and for any size of network.

    Draws are cached per kind of layer (`_pool`), and combined by permutations that depend only on the seed and the set
    of layers; layers of one kind get different draws. The width varies by 4 to 5 % from seed to seed, for one layer of
    a kind as for 96.

    Parameters
    ----------
    reference, shapes, locations
        As in `expected_cumulative`.
    seed
        Non-negative.
    draws
        Number of simulated networks, at least level / (1 - level).
    level
        In (0, 1).

    Returns
    -------
    float
        In units of a cumulative, within (0, 1].

    Raises
    ------
    SpectrumError
        As in `expected_cumulative`; also for a negative seed, a level outside (0, 1), or a level that needs more draws.
    """
    x, draws = check_locations(locations), check_whole(draws, "draws")
    if not 0 < level < 1:
        raise SpectrumError(f"level must lie within (0, 1), not {level!r}")
    # Rounding of the level must not raise a whole number to the next.
    rank = ceil(level * (draws + 1) - 1e-9)
    if rank > draws:
        raise SpectrumError(
            f"{draws} draws are too few for level {level:g}", f"use at least {ceil(1 / (1 - level)) - 1} draws"
        )
    kinds = tuple(sorted(_kinds(reference, shapes)))
    return float(_suprema(reference, kinds, tuple(x.tolist()), seed, draws)[rank - 1])


def _kinds(reference: Reference, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Kind of each layer, from its shape."""
    check_reference(reference)
    return [reference.kind(shape) for shape in check_shapes(shapes)]


@lru_cache(maxsize=1024)
def _suprema(
    reference: Reference, kinds: tuple[tuple[int, ...], ...], locations: tuple[float, ...], seed: int, draws: int
) -> NDArray[np.float64]:
    """Ascending sup |F_sim - F_expected| of ``draws`` simulated networks."""
    rng = _generator(seed, len(kinds))
    total = np.zeros((draws, len(locations)))
    for kind in kinds:
        total += _pool(reference, kind, locations, seed, draws)[rng.permutation(draws)]
    return np.sort(np.abs(total).max(axis=1)) / len(kinds)


# 512 kinds with 299 draws at 64 locations take 39 MB.
@lru_cache(maxsize=512)
def _pool(
    reference: Reference, kind: tuple[int, ...], locations: tuple[float, ...], seed: int, draws: int
) -> NDArray[np.float32]:
    """Deviations of one kind of layer, (draws, K).

    Each kind has its own seed, so that the order of calls does not matter.
    """
    found = reference.deviations(kind, np.array(locations), _generator(seed, *kind), draws)
    return found.astype(np.float32)


def _members(
    reference: Reference, kinds: list[tuple[int, ...]], locations: NDArray[np.float64], seed: int, draws: int
) -> Iterator[tuple[list[int], NDArray[np.float64]]]:
    """Indices of the layers of one kind, and their independent deviations (layers, draws, K), in order of kind."""
    for kind in sorted(set(kinds)):
        layers = [i for i, other in enumerate(kinds) if other == kind]
        found = reference.deviations(kind, locations, _generator(seed, *kind), len(layers) * draws)
        yield layers, found.reshape(len(layers), draws, locations.size)


def _generator(seed: int, *kind: int) -> np.random.Generator:
    """Generator for one kind of layer."""
    return np.random.default_rng([check_whole(seed, "seed", 0), *kind])
