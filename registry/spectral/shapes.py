"""The fingerprint ``shapes``: the blocks of ``layered`` that need no eigenvalues, from the shapes of layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.spectral.base import FingerprintKind
from registry.spectral.descriptors import WEIGHTS
from registry.spectral.layered import LAYERED, LAYERED_BLOCKS, shape_embeddings
from registry.spectral.learned_transform import transform
from registry.types import FingerprintSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

__all__ = ["FINGERPRINT", "SHAPES", "SHAPES_BLOCKS"]

SHAPES_BLOCKS = {name: LAYERED_BLOCKS[name] for name in ("shapes", "pairs", "triples", "layers")}
"""Length of each block of ``shapes``, in the order of the vector; their numbers are those of ``layered``."""

SHAPES = FingerprintSpec(
    name="shapes",
    version=1,
    matrix_rule=LAYERED.matrix_rule,
    length=sum(SHAPES_BLOCKS.values()),
    seed=LAYERED.seed,
    weights=LAYERED.weights,
    uses=("matrix_rule", "length", "seed", "weights"),
)
"""The fingerprint of models whose weights were not read; it tells families apart, and no two trainings."""


def of_layers(layers: Sequence[LayerMatrix], spec: FingerprintSpec) -> NDArray[np.float64]:
    """Four blocks, each as in ``layered``: ``shapes``, ``pairs``, ``triples`` and ``layers``."""
    found = shape_embeddings(layers, spec.seed)
    if spec.weights:
        found |= {name: found[name] @ matrix for name, matrix in transform(spec.weights).items()}
    found["layers"] = np.array([np.log2(len(layers) + 1)])
    return np.concatenate([WEIGHTS[name] / length * found[name] for name, length in SHAPES_BLOCKS.items()])


def of_spectra(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """As `of_layers`: the eigenvalues are not used."""
    return of_layers([spectrum.layer for spectrum in spectra], spec)


FINGERPRINT = FingerprintKind(SHAPES, of_spectra, of_layers)
