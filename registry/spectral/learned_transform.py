"""The learned transform of ``layered``: weights of directions in its embeddings of shapes."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import SpectrumError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEARNED", "file_of", "transform"]

LEARNED = ("shapes", "pairs", "triples")
"""The blocks with a learned transform; blocks of eigenvalues gain nothing from one (docs/benchmarks.md)."""


def file_of(version: str) -> str:
    """Name of the file of a version of the transform, beside this module; a spec's ``weights`` is the version."""
    return f"transform-{version}.npz"


@cache
def transform(version: str) -> dict[str, NDArray[np.float64]]:
    """Symmetric matrix (n, n) of each block, by which its n numbers are multiplied.

    Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006), learned from published models by
    ``benchmarks/transform.py``: directions in which models of one family differ have less weight. Raises
    ``SpectrumError`` for an unknown version.
    """
    try:
        with files("registry.spectral").joinpath(file_of(version)).open("rb") as file:
            return {name: values.astype(np.float64) for name, values in np.load(file, allow_pickle=False).items()}
    except FileNotFoundError as error:
        raise SpectrumError(
            f"this version does not have the transform {version!r}", "use the version that stored the fingerprint"
        ) from error
