"""One layer matrix's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.types import Checkpoint, LayerMatrix

__all__ = ["layer_matrix"]


def layer_matrix(checkpoint: Checkpoint, layer: LayerMatrix) -> NDArray[np.floating]:
    """W of one layer, read from the checkpoint.

    Parameters
    ----------
    checkpoint
        The opened weights that ``layer`` was planned on.
    layer
        Which tensor, and which part of it.

    Returns
    -------
    ndarray
        Shape (p, q), float32 or (of float64 tensors) float64, C-contiguous: outputs by flattened inputs.

    Raises
    ------
    WeightsError
        An element is NaN or infinite; the tensor and their number are named.
    """
    tensor = checkpoint.read(layer.tensor)
    part = np.moveaxis(tensor, layer.axis, 0)[layer.start : layer.stop]
    matrix = np.ascontiguousarray(part).reshape(layer.p, layer.q)
    bad = matrix.size - int(np.count_nonzero(np.isfinite(matrix)))
    if bad:
        raise WeightsError(
            f"tensor {layer.name} holds {bad} of {matrix.size} values that are NaN or infinite",
            "take another checkpoint: this one diverged or is damaged",
        )
    return matrix
