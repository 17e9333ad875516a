"""Learning of the transform that ships with ``layered``: ``python -m benchmarks.transform``.

It writes registry/spectral/transform-1.npz from spectra and families of the published models with
`benchmarks.retrieval.transform`. A file with other numbers needs a new name, ``LAYERED.weights``, then a new version of
the spec, ``make published`` and ``benchmarks.calibrate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import registry.spectral
from benchmarks.retrieval.models import published_models
from benchmarks.retrieval.transform import learned_transform
from registry.spectral.learned_transform import LEARNED, file_of
from registry.spectral.shipped_fingerprints import embeddings
from registry.spectral.specs import LAYERED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = ["main", "transform_of"]

TARGET = Path(registry.spectral.__file__).with_name(file_of(LAYERED.weights))


def transform_of(
    spectra: Sequence[Sequence[Spectrum]], family: NDArray[np.str_], seed: int = LAYERED.seed
) -> dict[str, NDArray[np.float64]]:
    """The transform learned from these models, with random features of the given seed."""
    found = [embeddings(each, seed) for each in spectra]
    return learned_transform({name: np.array([each[name] for each in found]) for name in LEARNED}, family)


def main() -> None:
    """Learn the transform, write the file and print the range of direction weights."""
    models = published_models()
    found = transform_of(models.spectra, models.family)
    # Half the digits of float64 are more than 163 models determine.
    np.savez(TARGET, **{name: matrix.astype(np.float32) for name, matrix in found.items()})  # type: ignore[arg-type]
    for name, matrix in found.items():
        values = np.linalg.eigvalsh(matrix)
        print(f"{name:8s} {len(matrix)} directions, counting {values[0]:.2f} to {values[-1]:.2f} times")


if __name__ == "__main__":
    main()
