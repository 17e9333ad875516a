"""Dense members of the circular ensembles, built by definition, to test the samplers that build no matrix."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles.checks import check_rng, check_whole
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["circular_matrix", "dense_phases", "haar_unitary"]


def haar_unitary(order: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A unitary matrix distributed by Haar measure: a member of the CUE.

    QR of a complex Ginibre matrix, with the phases of R's diagonal moved into Q. Without that step the result depends
    on the QR routine and is not Haar (Mezzadri 2007, math-ph/0609050).

    Parameters
    ----------
    order
        N >= 1.
    rng
        Generator.

    Returns
    -------
    NDArray[np.complex128]
        (N, N).

    Raises
    ------
    SpectrumError
        ``order`` is below 1, or ``rng`` is not a generator.
    """
    order = check_whole(order, "order")
    check_rng(rng)
    ginibre = rng.standard_normal((order, order)) + 1j * rng.standard_normal((order, order))
    unitary, upper = np.linalg.qr(ginibre)
    diagonal = np.diagonal(upper)
    return np.asarray(unitary * (diagonal / np.abs(diagonal)))


def circular_matrix(order: int, beta: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A member of the COE, CUE or CSE as Dyson (1962) defines them, from a Haar unitary U.

    CUE: U. COE: U^T U, symmetric. CSE: U^R U with U of order 2N and the quaternion dual U^R = J^T U^T J: self-dual,
    each eigenvalue twice (Kramers). The products are matrix products; elementwise ones are not unitary.

    Parameters
    ----------
    order
        N >= 1, the number of distinct eigenvalues.
    beta
        1 (COE), 2 (CUE) or 4 (CSE).
    rng
        Generator.

    Returns
    -------
    NDArray[np.complex128]
        (N, N), for beta = 4 (2N, 2N).

    Raises
    ------
    SpectrumError
        ``order`` is below 1, or ``beta`` is not 1, 2 or 4.
    """
    order = check_whole(order, "order")
    if beta not in (1, 2, 4):
        raise SpectrumError(f"dense circular matrices exist for beta 1, 2 and 4, not {beta!r}")
    unitary = haar_unitary(2 * order if beta == 4 else order, rng)
    if beta == 2:
        return unitary
    if beta == 1:
        return np.asarray(unitary.T @ unitary)
    symplectic = np.kron(np.eye(order), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    return np.asarray(symplectic.T @ unitary.T @ symplectic @ unitary)


def dense_phases(order: int, beta: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Eigenphases of a dense member of the COE, CUE or CSE, one of each Kramers pair; O(N^3).

    Parameters and errors are those of `circular_matrix`.

    Returns
    -------
    NDArray[np.float64]
        (order,), ascending, in (0, 2 pi].
    """
    phases = np.angle(np.linalg.eigvals(circular_matrix(order, beta, rng)))
    phases = np.sort(np.where(phases <= 0, phases + 2 * pi, phases))
    if beta != 4:
        return phases
    if 2 * pi - phases[-1] + phases[0] < phases[1] - phases[0]:
        # Rounding can put one phase of a pair near 0 on either side of the cut.
        phases = np.roll(phases, 1)
        phases[0] -= 2 * pi
    paired = phases.reshape(-1, 2).mean(axis=1)
    return np.sort(np.where(paired <= 0, paired + 2 * pi, paired))
