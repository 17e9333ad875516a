"""Where eigenvalues are computed: on the processor, or by torch on a CUDA device where one is at hand."""

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
    """The device that ``device`` means here: ``auto`` is ``cuda`` where one is at hand.

    Torch is loaded only where NVIDIA's driver is installed: without it there is nothing to ask torch for.

    Raises
    ------
    UsageError
        No such device.
    RegistryError
        ``cuda`` is asked for and cannot be had, with the reason.
    """
    if device not in get_args(Device):
        raise UsageError(f"device must be one of {', '.join(get_args(Device))}, not {device!r}")
    if device == "cpu":
        return "cpu"
    missing = _missing()
    if missing and device == "cuda":
        raise RegistryError(f"no CUDA device is at hand: {missing}", "take the device auto, or cpu")
    return "cpu" if missing else "cuda"


def solver_on(device: Device, precision: Precision) -> tuple[Solver, bool]:
    """What finds eigenvalues on a device, and whether that is one thing for all threads. Raises as both parts do."""
    if device_at_hand(device) == "cpu":
        return Lapack(precision), False
    return TorchSolver(precision, "cuda"), True


def _missing() -> str:
    """Why there is no CUDA device; empty where there is one."""
    import ctypes

    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return "NVIDIA's driver is not installed"
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "" if torch.cuda.is_available() else "torch finds none that it can use"


class TorchSolver:
    """The `Solver` of a torch device. A layer that it cannot do, for want of memory or convergence, LAPACK does.

    Sums and eigenvalues round otherwise than LAPACK's on the processor do: by some 1e-15 of the largest in float64.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        import torch

        check_precision(precision)
        self._precision: Precision = precision
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        self._device = torch.device(device)

    def begin(self, wide: NDArray[np.generic], exponent: int, each: Each = map) -> Callable[[], NDArray[np.float64]]:
        """As `Solver.begin`; ``each`` is not used but where LAPACK takes over."""
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
        """As `Solver.solve`, one by one."""
        return (one() for one in begun)

    def method(self, order: int) -> str:  # noqa: ARG002  # the same for all
        """As `Solver.method`: exact."""
        return ""

    def cost(self, order: int, width: int) -> int:
        """As `Solver.cost`: in proportion as LAPACK's."""
        return Lapack(self._precision).cost(order, width)

    def memory(self, order: int, width: int) -> int:
        """As `Solver.memory`: LAPACK's, which takes over where the device cannot."""
        return Lapack(self._precision).memory(order, width)

    def _gram(self, wide: NDArray[np.generic], exponent: int) -> torch.Tensor:
        """W W^T 4^-exponent, summed over blocks of columns in their order, on the device."""
        import torch

        starts = column_blocks(*wide.shape)
        gram = torch.zeros((len(wide), len(wide)), dtype=self._dtype, device=self._device)
        for start in starts:
            # As stored over the bus, scaled in float64 there: the scale may lie beyond the range of float32.
            block = torch.from_numpy(np.array(wide[:, start : start + starts.step], order="C")).to(self._device)
            block = block.double().mul_(2.0**-exponent).to(self._dtype)
            gram.addmm_(block, block.T)
        return gram

    def _warn(self, order: int, error: Exception) -> None:
        # The first line: torch goes on about its allocator.
        reason = str(error).partition("\n")[0]
        logger.warning("%s failed on a matrix of order %d (%s): the processor takes over", self._device, order, reason)
