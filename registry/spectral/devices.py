"""Devices for the computation of eigenvalues: the processor, or a CUDA device through torch."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from registry.errors import RegistryError, UsageError
from registry.spectral.lapack import Lapack, check_precision, column_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

    from registry.spectral.lapack import Each, Precision, Solver

__all__ = ["CPU", "Device", "TorchSolver", "device_at_hand", "solver_on"]

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
CPU: Device = "cpu"
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def device_at_hand(device: Device) -> Literal["cpu", "cuda"]:
    """The device that is used for ``device``: ``auto`` becomes ``cuda`` if a CUDA device is available, else ``cpu``.

    Torch is imported only if NVIDIA's driver is installed.

    Raises
    ------
    UsageError
        The device is unknown.
    RegistryError
        ``cuda`` is requested and not available; the message gives the reason.
    """
    if device not in get_args(Device):
        raise UsageError(f"device must be one of {', '.join(get_args(Device))}, not {device!r}")
    if device == "cpu":
        return "cpu"
    missing = _missing()
    if missing and device == "cuda":
        raise RegistryError(f"no CUDA device is available: {missing}", "use the device auto or cpu")
    return "cpu" if missing else "cuda"


def solver_on(device: Device, precision: Precision) -> tuple[Solver, bool]:
    """The solver for a device, and whether all threads share it. Raises the errors of `device_at_hand` and `Lapack`."""
    if device_at_hand(device) == "cpu":
        return Lapack(precision), False
    return TorchSolver(precision, "cuda"), True


def _missing() -> str:
    """Reason why no CUDA device is available; empty if one is."""
    import ctypes

    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return "NVIDIA's driver is not installed"
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "" if torch.cuda.is_available() else "torch finds no device that it can use"


class TorchSolver:
    """`Solver` on a torch device. LAPACK takes over where memory is short or the device does not converge.

    Rounding differs from LAPACK on the processor by about 1e-15 of the largest eigenvalue in float64.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        import torch

        check_precision(precision)
        self._precision: Precision = precision
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._device = torch.device(device)

    def begin(self, wide: NDArray[np.generic], exponent: int, each: Each = map) -> Callable[[], NDArray[np.float64]]:
        """As `Solver.begin`; ``each`` is used only if LAPACK takes over."""
        import torch

        def without() -> Callable[[], NDArray[np.float64]]:
            processor = Lapack(self._precision)
            gram = processor.begin(wide, exponent, each)
            return lambda: next(processor.solve([gram]))

        def solve() -> NDArray[np.float64]:
            try:
                return np.asarray(torch.linalg.eigvalsh(gram).double().cpu().numpy())
            except (torch.linalg.LinAlgError, torch.OutOfMemoryError) as error:  # type: ignore[attr-defined]
                self._warn(len(wide), error)
            return without()()

        try:
            gram = self._gram(wide, exponent)
        except torch.OutOfMemoryError as error:
            self._warn(len(wide), error)
            return without()
        return solve

    def solve(self, begun: Sequence[Callable[[], NDArray[np.float64]]]) -> Iterator[NDArray[np.float64]]:
        """As `Solver.solve`, one matrix at a time."""
        return (one() for one in begun)

    def method(self, order: int) -> str:  # noqa: ARG002  # the same for all
        """As `Solver.method`: empty, the values are exact."""
        return ""

    def cost(self, order: int, width: int) -> int:
        """As `Solver.cost`: the same as for LAPACK."""
        return Lapack(self._precision).cost(order, width)

    def memory(self, order: int, width: int) -> int:
        """As `Solver.memory`: the same as for LAPACK, which may take over."""
        return Lapack(self._precision).memory(order, width)

    def _gram(self, wide: NDArray[np.generic], exponent: int) -> torch.Tensor:
        """W W^T 4^-exponent on the device, summed over blocks of columns in order."""
        import torch

        starts = column_blocks(*wide.shape)
        gram = torch.zeros((len(wide), len(wide)), dtype=self._dtype, device=self._device)
        for start in starts:
            # Copied as stored and scaled in float64 on the device: the scale may be outside the range of float32.
            block = torch.from_numpy(np.array(wide[:, start : start + starts.step], order="C")).to(self._device)
            block = block.double().mul_(2.0**-exponent).to(self._dtype)
            gram.addmm_(block, block.T)
        return gram

    def _warn(self, order: int, error: Exception) -> None:
        # Only the first line; torch adds advice on its allocator.
        reason = str(error).partition("\n")[0]
        logger.warning(
            "%s failed on a matrix of order %d (%s); computing it on the processor", self._device, order, reason
        )
