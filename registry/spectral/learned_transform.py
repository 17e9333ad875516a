"""The learned part of ``layered``: what each direction of its embeddings of shapes counts for."""

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
"""The blocks that have a learned transform; for those of eigenvalues nothing is gained by one (docs/benchmarks.md)."""


def file_of(version: str) -> str:
    """The name of the file that holds that version, beside this module: a spec's ``weights``."""
    return f"transform-{version}.npz"


@cache
def transform(version: str) -> dict[str, NDArray[np.float64]]:
    """By block the symmetric matrix (n, n) that its n numbers are multiplied by.

    Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006), learned from published models by
    ``benchmarks/transform.py``: directions in which models of one family differ count for less. Raises
    ``SpectrumError`` for a version that does not ship.
    """
    try:
        with files("registry.spectral").joinpath(file_of(version)).open("rb") as file:
            return {name: values.astype(np.float64) for name, values in np.load(file, allow_pickle=False).items()}
    except FileNotFoundError as error:
        raise SpectrumError(
            f"this version does not have the transform {version!r}", "use the version that stored the fingerprint"
        ) from error
