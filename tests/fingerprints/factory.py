"""Small networks whose weights no version of any library can change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.spectral.eigenvalues import spectrum
from registry.types import LayerMatrix, Spectrum

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPES = ((8, 3, 3, 3), (8, 1, 3, 3), (12, 8, 1, 1), (12, 12, 3, 3), (12, 12, 3, 3), (10, 12))


def weights_of(shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 1) -> list[np.ndarray]:
    """Weights with one strong direction a layer, from the bit generator's raw numbers and exact arithmetic."""
    bits = np.random.PCG64(seed)
    made = []
    for shape in shapes:
        p, q = shape[0], int(np.prod(shape[1:]))
        uniform = (bits.random_raw(p * q + p + q) >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 0.5
        noise, left, right = np.split(uniform, [p * q, p * q + p])
        made.append((noise.reshape(p, q) + 3 * np.outer(left, right)).astype(np.float32).reshape(shape))
    return made


def spectra_of(weights: Sequence[np.ndarray]) -> tuple[Spectrum, ...]:
    """Spectra of weights in torch's layout, in their order."""
    return tuple(
        spectrum(LayerMatrix(at, f"layer{at}", f"layer{at}", W.shape, "conv" if W.ndim > 2 else "linear"), W)
        for at, W in enumerate(weights)
    )


def gap(spectra: Sequence[Spectrum], locations: Sequence[float]) -> float:
    """Smallest relative distance of any x, on either scale, from a location: what rounding must not reach."""
    x = np.concatenate([s.values.astype(float) * f for s in spectra for f in (1.0, s.layer.p / s.values.size)])
    return float(np.abs(x[:, None] / np.array(locations) - 1.0).min())
