"""Expected time and memory for the spectra of a network, from the shapes of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from registry.spectral.lanczos import LARGE, Lanczos
from registry.spectral.lapack import Lapack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.spectral.lapack import Solver

__all__ = ["expected_memory", "expected_seconds"]

# Measured on one core: 2.1e10 to 3.1e10 on torchvision's networks, 2.0e10 at order 8,192 (`benchmarks.approximate`).
MULTIPLICATIONS: Final = 2.4e10  # multiplications of a matrix product per second
LAYER_SECONDS: Final = 0.0025  # Wishart band and fingerprints


def expected_seconds(shapes: Sequence[tuple[int, int]], *, threads: int, approximate: bool) -> float:
    """Expected wall-clock seconds for spectra of layers (p, q), conjugacy and fingerprints on a number of threads.

    Threads share layers and products, as in `network_spectra`, but not the exact eigenvalues of one layer, which cost
    n^3.
    """
    solver = _solver(approximate)
    total = sum(solver.cost(*sorted(shape)) for shape in shapes)
    alone = max((min(shape) ** 3 for shape in shapes if not solver.method(min(shape))), default=0)
    return LAYER_SECONDS * len(shapes) + max(total / threads, alone) / MULTIPLICATIONS


def expected_memory(
    shapes: Sequence[tuple[int, int]], weights: Sequence[int], *, threads: int, approximate: bool
) -> int:
    """Largest number of bytes that `network_spectra` needs; ``weights``: bytes of each layer's matrix.

    As many layers are in memory as there are threads, and the weights of one more.
    """
    solver = _solver(approximate)
    working = sorted((solver.memory(*sorted(shape)) for shape in shapes), reverse=True)
    return sum(working[:threads]) + sum(sorted(weights, reverse=True)[: threads + 1])


def _solver(approximate: bool) -> Solver:
    exact = Lapack("float64")
    return Lanczos(exact, LARGE) if approximate else exact
