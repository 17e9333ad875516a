"""Repulsion between a layer's eigenvalues: ratios of consecutive spacings, which need no unfolding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.ensembles.checks import check_finite
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["SpacingRatio", "spacing_ratio"]


class SpacingRatio(NamedTuple):
    """Mean ratio, and its standard error, NaN for a single ratio."""

    mean: float
    error: float


def spacing_ratio(values: ArrayLike) -> SpacingRatio:
    """Mean of min(s_i, s_{i+1}) / max(s_i, s_{i+1}) over consecutive spacings on the line.

    Oganesyan & Huse (2007); Atas et al. 2013, arXiv:1212.5611, whose large-order values are in
    ``registry.ensembles.circular.SPACING_RATIOS``. Eigenvalues of W W^T for real W repel as beta = 1, whatever the
    density: 0.5307. The standard error takes the ratios as independent; neighbouring ones share a spacing.

    Parameters
    ----------
    values
        (n,) eigenvalues in any order and unit, n >= 3; their scale makes no difference.

    Returns
    -------
    SpacingRatio
        Mean within [0, 1], of n - 2 ratios. Two spacings of 0, as of a threefold eigenvalue, count as no repulsion.

    Raises
    ------
    SpectrumError
        Fewer than three eigenvalues, or one that is not finite.
    """
    x = check_finite(values, "eigenvalues")
    if x.ndim != 1 or x.size < 3:
        raise SpectrumError(f"spacing ratios need a list of at least three eigenvalues, not one of shape {x.shape}")
    gaps = np.diff(np.sort(x))
    larger = np.maximum(gaps[:-1], gaps[1:])
    ratios = np.divide(np.minimum(gaps[:-1], gaps[1:]), larger, out=np.zeros_like(larger), where=larger > 0)
    error = float(ratios.std(ddof=1) / np.sqrt(ratios.size)) if ratios.size > 1 else float("nan")
    return SpacingRatio(float(ratios.mean()), error)
