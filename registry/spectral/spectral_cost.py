"""What the spectra of a network are expected to take, by the shapes of its layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import Lapack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.spectral.lapack import Solver

__all__ = ["expected_memory", "expected_seconds"]

# Measured on one core: 2.1e10 to 3.1e10 on torchvision's networks, 2.0e10 at order 8,192 (`benchmarks.approximate`).
MULTIPLICATIONS: Final = 2.4e10  # of a matrix product, a second
LAYER_SECONDS: Final = 0.0025  # Wishart band and fingerprints


def expected_seconds(shapes: Sequence[tuple[int, int]], *, threads: int, approximate: bool) -> float:
    """Seconds by the clock for the spectra of layers (p, q), on so many threads, conjugacy and fingerprints.

    Threads share out layers and products, as `network_spectra` does, but no exact layer's eigenvalues, which are n^3.
    """
    solver = _solver(approximate)
    total = sum(solver.cost(*sorted(shape)) for shape in shapes)
    alone = max((min(shape) ** 3 for shape in shapes if not solver.method(min(shape))), default=0)
    return LAYER_SECONDS * len(shapes) + max(total / threads, alone) / MULTIPLICATIONS


def expected_memory(
    shapes: Sequence[tuple[int, int]], weights: Sequence[int], *, threads: int, approximate: bool
) -> int:
    """Bytes that `network_spectra` takes at most on so many threads; ``weights``: bytes of each layer's matrix.

    As many layers as threads are at work, and the weights of one more wait.
    """
    solver = _solver(approximate)
    working = sorted((solver.memory(*sorted(shape)) for shape in shapes), reverse=True)
    return sum(working[:threads]) + sum(sorted(weights, reverse=True)[: threads + 1])


def _solver(approximate: bool) -> Solver:
    exact = Lapack("float64")
    return Lanczos(exact, LARGE) if approximate else exact
