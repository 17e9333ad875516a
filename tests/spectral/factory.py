"""Spectra for tests: made by hand, of weights, of published models."""

from __future__ import annotations

import numpy as np

from registry import Registry
from registry.spectral.eigenvalues import spectrum
from registry.types import LayerMatrix, Spectrum


def layer(p, q, position=0):
    return LayerMatrix(position=position, name=f"layer{position}", tensor="weight", shape=(p, q), kind="linear")


def by_hand(values, p, q, position=0):
    """A layer of shape (p, q) with the given `proper` values."""
    return Spectrum(layer=layer(p, q, position), mean=1.0, values=np.asarray(values, dtype=np.float32))


def of_weights(matrices):
    """Spectra of weight matrices in their order; all-zero ones are left out."""
    return [spectrum(layer(*W.shape, i), W) for i, W in enumerate(matrices) if W.any()]


def gaussian(shapes, rng):
    return of_weights([rng.standard_normal(shape, dtype=np.float32) for shape in shapes])


def published_models():
    """Spectra of every published model, by name."""
    with Registry("published:") as reg:
        return {name: reg.spectrum(name) for name in reg}
