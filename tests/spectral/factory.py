"""Spectra for tests: made by hand, of weights, of stored models."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load_file

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


def zoo_models(folder):
    """Name and spectra of every model: all floating tensors with p, q >= 2, in the file's order."""
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        tensors = load_file(folder / entry["path"]).values()
        matrices = [t.reshape(len(t), -1) for t in tensors if t.ndim > 1 and t.dtype.kind == "f"]
        yield entry["name"], of_weights([W for W in matrices if min(W.shape) > 1])
