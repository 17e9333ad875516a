"""Spectra of very large matrices by stochastic Lanczos quadrature: products with W only, without a Gram matrix.

Lin, Saad & Yang (2016), "Approximating spectral densities of large matrices"; Ubaru, Chen & Saad (2017), "Fast
estimation of tr(f(A)) via stochastic Lanczos quadrature". The extreme eigenvalues are computed first, by block Lanczos,
because tail statistics rest on single eigenvalues, which a quadrature only weighs.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.spectral.lapack import Lapack, scaled
from registry.spectral.quadrature import Nodes, eigenvalues_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from registry.spectral.lapack import Each, Solver
    from registry.types import Spectrum

__all__ = ["LARGE", "Lanczos", "scatter_of"]

LARGE = 8192
"""Orders above this are approximated on request."""
DOUBLE = Lapack("float64")
PROBES, STEPS, DEFLATING = 24, 48, 24
"""Number of random vectors, products per vector, and products per vector of the block Lanczos before."""

KOLMOGOROV = 1.63
"""The 99 % quantile of the supremum of |Brownian bridge| (Kolmogorov 1933)."""
RESOLUTION = 0.25 / STEPS
"""Error of a cumulative from the number of nodes, measured; mostly among small eigenvalues under a long tail."""
# Largest residual of a Ritz pair, relative to its value, that counts as converged.
FOUND = 1e-3
# Relative to the largest eigenvalue: not distinguishable from zero.
ROUNDING = 1e-12
PASSES = 10  # passes that make rows orthogonal: two suffice unless only rounding error is left
BLOCK = 2**22  # numbers of W converted to float64 at a time


@dataclass(frozen=True, slots=True)
class Lanczos:
    """`Solver` for orders above ``above``: approximate, on the processor, in float64. ``exact`` solves smaller orders.

    Deterministic: the random vectors depend only on the shape.
    """

    exact: Solver = DOUBLE
    above: int = LARGE
    probes: int = PROBES
    steps: int = STEPS
    deflating: int = DEFLATING

    def method(self, order: int) -> str:
        """As `Solver.method`."""
        return "lanczos" if order > self.above else self.exact.method(order)

    def cost(self, order: int, width: int) -> int:
        """As `Solver.cost`: two products with W per vector and step."""
        if order <= self.above:
            return self.exact.cost(order, width)
        return 4 * order * width * self.probes * (self.deflating + self.steps)

    def memory(self, order: int, width: int) -> int:
        """As `Solver.memory`: five times the vectors of block Lanczos, or all later vectors, and a block of W."""
        if order <= self.above:
            return self.exact.memory(order, width)
        found = self.probes * self.deflating
        return 8 * (order * max(5 * found, found + self.probes * (self.steps + 4)) + min(BLOCK, order * width))

    def begin(self, wide: NDArray[np.generic], exponent: int, each: Each = map) -> Any:
        """As `Solver.begin`; the products are shared out here, so that only sorting is left to `solve`."""
        if len(wide) <= self.above:
            return self.exact.begin(wide, exponent, each)
        return _Found(self._values(wide, exponent, each))

    def solve(self, begun: Sequence[Any]) -> Iterator[NDArray[np.float64]]:
        """As `Solver.solve`; ``exact`` solves the exact matrices together if all are exact."""
        if not any(isinstance(one, _Found) for one in begun):
            yield from self.exact.solve(begun)
            return
        for one in begun:
            yield from [one.values] if isinstance(one, _Found) else self.exact.solve([one])

    def _values(self, wide: NDArray[np.generic], exponent: int, each: Each) -> NDArray[np.float64]:
        """Approximate eigenvalues, (n,), ascending."""
        rng = np.random.default_rng(wide.shape)
        product = _Product(wide, 2.0**-exponent, each)
        found, vectors = self._ends(product, rng)
        rest, total = len(wide) - found.size, product.trace - float(found.sum())
        if rest == 0 or total <= ROUNDING * product.trace:
            values = np.zeros(rest)
        else:
            values = eigenvalues_of(self._quadratures(product, vectors, rng), rest, total)
        return np.sort(np.concatenate([values, found]))

    def _ends(self, product: _Product, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues (r,) and vectors (r, n) of block Lanczos, by Rayleigh-Ritz on the whole Krylov space."""
        order, width = product.order, self.probes
        steps = min(self.deflating, order // (2 * width))
        if steps == 0:
            return np.zeros(0), np.zeros((0, order))
        basis, images = np.empty((steps * width, order)), np.empty((steps * width, order))
        block = rng.standard_normal((width, order))
        for start in range(0, steps * width, width):
            basis[start : start + width] = block = _orthonormal(block, basis[:start])
            images[start : start + width] = block = product(block)
        small = basis @ images.T
        values, turned = np.linalg.eigh(0.5 * (small + small.T))
        vectors = turned.T @ basis
        residuals = np.linalg.norm(turned.T @ images - values[:, None] * vectors, axis=1)
        found = residuals <= np.maximum(FOUND * values, ROUNDING * values[-1])
        return np.maximum(values[found], 0.0), vectors[found]

    def _quadratures(self, product: _Product, found: NDArray[np.float64], rng: np.random.Generator) -> list[Nodes]:
        """Gauss quadrature of each random vector, orthogonal to the vectors ``found``; all vectors advance together."""
        probes, steps = self.probes, min(self.steps, product.order - len(found))
        basis = np.empty((probes, steps, product.order))
        diagonal, beside = np.zeros((steps, probes)), np.zeros((steps, probes))
        lengths = np.full(probes, steps)
        block = rng.standard_normal((probes, product.order))
        block -= (block @ found.T) @ found
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        for step in range(steps):
            basis[:, step] = block
            image = product(block)
            diagonal[step] = np.sum(block * image, axis=1)
            image -= diagonal[step][:, None] * block
            so_far = basis[:, : step + 1]
            for _ in range(2):
                image -= (image @ found.T) @ found
                image -= np.squeeze((so_far @ image[:, :, None]).swapaxes(1, 2) @ so_far, 1)
            beside[step] = np.linalg.norm(image, axis=1)
            # The Krylov space of this vector is exhausted.
            ended = beside[step] <= ROUNDING * product.trace
            lengths = np.where(ended, np.minimum(lengths, step + 1), lengths)
            block = np.where(ended[:, None], 0.0, image / np.where(ended, 1.0, beside[step])[:, None])
            if ended.all():
                break
        return [_gauss(diagonal[:k, i], beside[:k, i]) for i, k in enumerate(lengths)]


def scatter_of(spectra: Sequence[Spectrum]) -> float:
    """Bound on sup |F - F'| between a network's approximate and exact cumulatives; 0 if all layers are exact.

    It holds with 99 % probability. A random unit vector v gives F at one location with variance 2 F (1 - F) / (n + 2);
    the mean of `PROBES` divides it by their number, and layers are independent. As a process in F this is close to a
    Brownian bridge. The reduction by the extreme eigenvalues and the known mean is not counted. `RESOLUTION` is added
    for each approximate layer.
    """
    orders = np.array([spectrum.values.size for spectrum in spectra if spectrum.method == "lanczos"])
    random = KOLMOGOROV * np.sqrt(np.sum(2 / (PROBES * (orders + 2.0))))
    return float(random + RESOLUTION * orders.size) / len(spectra)


@dataclass(frozen=True, slots=True)
class _Found:
    values: NDArray[np.float64]


class _Product:
    """X W W^T 4^-exponent for rows X, one block of columns of W at a time; ``trace`` of W W^T in the same units."""

    def __init__(self, wide: NDArray[np.generic], scale: float, each: Each) -> None:
        self.order = len(wide)
        self._wide, self._scale, self._each = wide, scale, each
        self._columns = max(1, BLOCK // self.order)
        self._starts = range(0, wide.shape[1], self._columns)
        self._held = local()
        self.trace = sum(float(np.einsum("ij,ij->", *2 * [self._block(start)])) for start in self._starts)

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        def term(start: int) -> NDArray[np.float64]:
            block = self._block(start)
            return np.asarray((rows @ block) @ block.T)

        total = np.zeros_like(rows)
        for part in self._each(term, self._starts):
            total += part
        return total

    def _block(self, start: int) -> NDArray[np.float64]:
        part = self._wide[:, start : start + self._columns]
        block: NDArray[np.float64] | None = getattr(self._held, "block", None)
        if block is None or block.shape != part.shape:
            self._held.block = block = np.empty(part.shape)
        scaled(part, self._scale, block)
        return block


def _orthonormal(rows: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal rows spanning ``rows`` outside an orthonormal basis; arbitrary rows where nothing is left."""
    for _ in range(PASSES):
        rows = np.linalg.qr(rows.T)[0].T
        rest = rows - (rows @ basis.T) @ basis
        if np.linalg.norm(rest, ord=-2) > 0.5:
            break
        rows = rest
    return np.ascontiguousarray(np.linalg.qr(rest.T)[0].T)


def _gauss(diagonal: NDArray[np.float64], beside: NDArray[np.float64]) -> Nodes:
    """Gauss quadrature of a Lanczos process (Golub & Welsch 1969); the last ``beside`` is the final residual."""
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return Nodes(values, vectors[0] ** 2, np.abs(beside[-1] * vectors[-1]))
