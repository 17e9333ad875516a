"""WeightWatcher's columns as a fingerprint: mean and standard deviation over the layers that it analyses."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.speed.others import load_package, quiet
from registry.sources import layer_matrix, open_ref, plan_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from registry.types import LayerMatrix, ModelRef

__all__ = ["watcher_vectors"]

_COLUMNS = (
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
    "entropy",
    "rank_loss",
)


def watcher_vectors(refs: Sequence[ModelRef]) -> tuple[NDArray[np.float64], int]:
    """(n, 16) vectors, each column standardised over the models, and the number of models it could not analyse.

    It gets our layers, as modules of their shapes. Missing values are replaced by the mean of the others. Raises
    ``ImportError`` if the package is missing.
    """
    load_package("weightwatcher")
    raw = np.array([_columns(ref) for ref in refs])
    taken = np.isfinite(raw).any(axis=1)
    centred = raw - np.nanmean(raw, axis=0)
    spread = np.nanstd(raw, axis=0)
    return np.nan_to_num(centred / np.where(spread > 0, spread, 1.0)), int((~taken).sum())


def _columns(ref: ModelRef) -> NDArray[np.float64]:
    import torch

    package = load_package("weightwatcher")
    modules = torch.nn.ModuleList()
    with open_ref(ref) as checkpoint:
        for layer in plan_weights(checkpoint).layers:
            modules.append(_module(layer, np.array(layer_matrix(checkpoint, layer), dtype=np.float32)))
    with contextlib.redirect_stdout(io.StringIO()), quiet():
        try:
            details = package.WeightWatcher(model=modules).analyze()
        except Exception:  # noqa: BLE001  # whatever another package raises: counted, and said in the table
            return np.full(2 * len(_COLUMNS), np.nan)
        found = np.array([details.get(name, [np.nan]) for name in _COLUMNS], dtype=np.float64)
        return np.concatenate([np.nanmean(found, axis=1), np.nanstd(found, axis=1)])


def _module(layer: LayerMatrix, W: NDArray[np.float32]) -> torch.nn.Module:
    import torch

    kinds = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d, 5: torch.nn.Conv3d}
    made: torch.nn.Module
    if len(layer.shape) in kinds:
        made = kinds[len(layer.shape)](layer.shape[1], layer.p, layer.kernel, bias=False)
    else:
        made = torch.nn.Linear(layer.q, layer.p, bias=False)
    made.weight = torch.nn.Parameter(torch.from_numpy(W).reshape(made.weight.shape))
    return made
