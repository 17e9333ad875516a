"""Steps from stored tensors to those that the forward pass uses, and the checkpoint that gives them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import is_float
from registry.sources.parametrisations import fold_parametrisations
from registry.sources.tensor_view import TensorView

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint

__all__ = ["STEPS", "EffectiveCheckpoint", "effective"]

STEPS: tuple[Callable[[TensorView], None], ...] = (fold_parametrisations,)
"""Each takes one kind of layout to weights. A later step sees what an earlier one made, so the order counts: names that
metadata ties, layouts of axes, codes and scales, adapters, parametrisations, experts."""


class EffectiveCheckpoint(OpenedCheckpoint):
    """An opened checkpoint with the tensors that the forward pass uses, in ``view``.

    ``tensors``, ``raw`` and ``span`` are those of the file; ``read`` takes the names of both, and gives the effective
    tensor where a stored one has its name.
    """

    def __init__(self, stored: Checkpoint) -> None:
        super().__init__(stored.ref, stored.tensors, getattr(stored, "facts", None))
        self.stored = stored

    @cached_property
    def view(self) -> TensorView:
        """The effective tensors, found when first asked for. Raises ``WeightsError`` where parts contradict."""
        view = TensorView(self.stored)
        for step in STEPS:
            step(view)
        return view

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64."""
        self._check_open()
        found = self.view.tensors.get(name)
        if found is None:
            return self.stored.read(name)
        if not is_float(found.dtype):
            raise WeightsError(
                f"tensor {name} is {found.dtype}, not floating point", "only floating weights have spectra"
            )
        return cast("NDArray[np.floating]", found.read())

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the stored tensor."""
        self._check_open()
        return self.stored.raw(name)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the stored tensor."""
        self._check_open()
        return self.view.span(name, start, stop)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self.stored.close()


def effective(checkpoint: Checkpoint) -> EffectiveCheckpoint:
    """The checkpoint with its effective tensors; itself if it has them."""
    return checkpoint if isinstance(checkpoint, EffectiveCheckpoint) else EffectiveCheckpoint(checkpoint)
