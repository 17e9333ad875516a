"""Gram matrices by BLAS and their eigenvalues by LAPACK, on the processor, in float64 or float32."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from registry.errors import SpectrumError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Each", "Lapack", "Precision", "Solver", "check_precision", "column_blocks", "scaled"]

logger = logging.getLogger(__name__)

Precision = Literal["float64", "float32"]
"""Precision of a Gram matrix, and on a CUDA device also of its eigenvalues."""
# Columns of the wide side multiplied at once; bounds the copy of embeddings and large heads in working precision.
COLUMNS = 8192
# Columns copied at a time out of a matrix stored by columns: as many lines of both as stay in a core's first cache.
STRIP = 32

Each: TypeAlias = "Callable[[Callable[[int], NDArray[Any]], Iterable[int]], Iterable[NDArray[Any]]]"
"""Calls a function on each value and yields the results in order, like ``map``."""


class Solver(Protocol):
    """Finds eigenvalues in two steps.

    The first step can be distributed over cores; the second can be done for several matrices at once.
    """

    def begin(self, wide: NDArray[np.generic], exponent: int, each: Each) -> Any:
        """Intermediate result for `solve`: W W^T 4^-exponent of (n, m) weights, n <= m, or an equivalent."""

    def solve(self, begun: Sequence[Any]) -> Iterator[NDArray[np.float64]]:
        """The n ascending eigenvalues of each intermediate result; a SpectrumError in place of any not found."""

    def method(self, order: int) -> str:
        """Mark of spectra of that order: empty if exact, else the name of the approximation."""

    def cost(self, order: int, width: int) -> int:
        """Cost of (order, width) weights, order <= width, in multiplications of a matrix product."""

    def memory(self, order: int, width: int) -> int:
        """Largest number of bytes needed for (order, width) weights, besides the weights."""


@dataclass(frozen=True, slots=True)
class Lapack:
    """`Solver` on the processor. Raises ``SpectrumError`` for an unknown precision."""

    precision: Precision

    def __post_init__(self) -> None:
        check_precision(self.precision)

    def begin(self, wide: NDArray[np.generic], exponent: int, each: Each = map) -> NDArray[Any]:
        """As `Solver.begin`: the Gram matrix (n, n) in the working precision."""
        return _gram(wide, exponent, np.dtype(self.precision), each)

    def solve(self, begun: Sequence[NDArray[Any]]) -> Iterator[NDArray[np.float64]]:
        """As `Solver.solve`; matrices of one order in one call, with the same bits as one by one."""
        if len(begun) > 1 and len({gram.shape for gram in begun}) == 1:
            try:
                yield from np.asarray(np.linalg.eigvalsh(np.stack(begun)), dtype=np.float64)
            except np.linalg.LinAlgError:
                logger.debug("eigvalsh failed on one of %d matrices; computing them one by one", len(begun))
            else:
                return
        yield from map(_eigenvalues, begun)

    def method(self, order: int) -> str:  # noqa: ARG002  # the same for all
        """As `Solver.method`: empty, the values are exact."""
        return ""

    def cost(self, order: int, width: int) -> int:
        """As `Solver.cost`: the Gram matrix, and n^3 for its eigenvalues."""
        return order * order * (order + width)

    def memory(self, order: int, width: int) -> int:
        """As `Solver.memory`: the Gram matrix and LAPACK's float64 copy of it."""
        starts = column_blocks(order, width)
        square, size = order * order, np.dtype(self.precision).itemsize
        eigenvalues = size * square + (8 if size == 8 else 16) * square
        return max(eigenvalues, size * (min(2, len(starts)) * square + order * starts.step))


def check_precision(precision: str) -> None:
    """Raise ``SpectrumError`` if the precision is unknown."""
    if precision not in ("float64", "float32"):
        raise SpectrumError(f"precision must be float64 or float32, not {precision!r}")


def column_blocks(p: int, q: int) -> range:
    """Start columns of the blocks in which a (p, q) matrix is multiplied along its longer side, from the shape only.

    If there are several blocks, their number is even and their sizes nearly equal, so that two cores share them.
    """
    small, large = sorted((p, q))
    count = -(-large // max(COLUMNS, small))
    return range(0, large, -(-large // (count + count % 2)) if count > 1 else large)


def scaled(part: NDArray[np.generic], scale: float, out: NDArray[Any]) -> None:
    """Write ``part`` times ``scale``, (n, m), into the C-ordered ``out``, in strips if ``part`` is not C-ordered."""
    columns = out.shape[1]
    step = STRIP if part.strides[0] < part.strides[1] else columns
    for start in range(0, columns, step):
        strip = slice(start, start + step)
        np.multiply(part[:, strip], scale, out=out[:, strip], dtype=np.float64, casting="same_kind")


def _gram(wide: NDArray[np.generic], exponent: int, dtype: np.dtype[Any], each: Each) -> NDArray[Any]:
    """W W^T 4^-exponent of (n, m) weights, n <= m, summed over blocks of columns in order."""
    starts = column_blocks(*wide.shape)
    scale = 2.0**-exponent
    # Each thread reuses its copy of a block: new memory from the system costs as much as filling it.
    held = local()

    def product(start: int) -> NDArray[Any]:
        part = wide[:, start : start + starts.step]
        block: NDArray[Any] | None = getattr(held, "block", None)
        if block is None or block.shape != part.shape:
            held.block = block = np.empty(part.shape, dtype)
        # Always float64: the scale may be outside the range of float32.
        scaled(part, scale, block)
        # For a matrix and its transpose, NumPy calls BLAS's symmetric product, which is half the work.
        return np.asarray(block @ block.T)

    return _sum(iter(each(product, starts)))


def _sum(terms: Iterator[NDArray[Any]]) -> NDArray[Any]:
    total = next(terms)
    for term in terms:
        total += term
    return total


def _eigenvalues(gram: NDArray[Any]) -> NDArray[np.float64]:
    """Ascending eigenvalues; if QR iteration does not converge, by relatively robust representations."""
    try:
        return np.asarray(np.linalg.eigvalsh(gram), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        logger.warning("eigvalsh failed on a matrix of order %d (%s); using LAPACK's syevr", len(gram), error)
    import scipy.linalg

    try:
        return np.asarray(scipy.linalg.eigh(gram, eigvals_only=True, driver="evr"), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise SpectrumError(f"no LAPACK driver finds the eigenvalues of order {len(gram)}: {error}") from error
