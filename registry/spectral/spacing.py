"""Level repulsion of a layer's eigenvalues: ratios of consecutive spacings, which need no unfolding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.ensembles.checks import check_finite
from registry.errors import SpectrumError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["SpacingRatio", "spacing_ratio"]


class SpacingRatio(NamedTuple):
    """Mean ratio and its standard error; the error is NaN for a single ratio."""

    mean: float
    error: float


def spacing_ratio(values: ArrayLike) -> SpacingRatio:
    """Mean of min(s_i, s_{i+1}) / max(s_i, s_{i+1}) over consecutive spacings on the line.

    Oganesyan & Huse (2007); Atas et al. 2013, arXiv:1212.5611, whose values for large orders are in
    ``registry.ensembles.fluctuations.SPACING_RATIOS``. Eigenvalues of W W^T for real W repel as beta = 1, whatever the
    density: 0.5307. The standard error treats the ratios as independent, although neighbouring ratios share a spacing.

    Parameters
    ----------
    values
        (n,) eigenvalues in any order and unit, n >= 3.

    Returns
    -------
    SpacingRatio
        Mean of n - 2 ratios, within [0, 1]. Two consecutive spacings of 0 (a threefold eigenvalue) have ratio 0.

    Raises
    ------
    SpectrumError
        There are fewer than three eigenvalues, or one is not finite.
    """
    x = check_finite(values, "eigenvalues")
    if x.ndim != 1 or x.size < 3:
        raise SpectrumError(f"spacing ratios need a list of at least three eigenvalues, not one of shape {x.shape}")
    gaps = np.diff(np.sort(x))
    larger = np.maximum(gaps[:-1], gaps[1:])
    ratios = np.divide(np.minimum(gaps[:-1], gaps[1:]), larger, out=np.zeros_like(larger), where=larger > 0)
    error = float(ratios.std(ddof=1) / np.sqrt(ratios.size)) if ratios.size > 1 else float("nan")
    return SpacingRatio(float(ratios.mean()), error)
