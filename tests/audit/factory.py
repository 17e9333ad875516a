"""Subjects made of given matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registry.audit import AuditSubject
from registry.equivalence.sketches import buckets_for, sketch_of
from registry.spectral import network_spectra
from registry.spectral.training import WeightReading
from registry.types import LayerMatrix, VectorCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def subject(
    weights: Mapping[str, NDArray[np.floating]], vectors: VectorCounts | None = None, **known: Any
) -> AuditSubject:
    """A subject with these layers (out, in, *kernel), measured as an ingest does; `known` replaces evidence."""
    layers = tuple(
        LayerMatrix(at, name, name, W.shape, "conv" if W.ndim > 2 else known.pop(f"kind_{name}", "linear"))
        for at, (name, W) in enumerate(weights.items())
    )
    buckets = buckets_for(len(layers))
    drawn = np.zeros((len(layers), buckets), np.float16)

    def read(layer: LayerMatrix) -> NDArray[np.floating]:
        matrix = np.ascontiguousarray(weights[layer.tensor].reshape(layer.p, layer.q))
        sketch = sketch_of(matrix, layer.kernel, buckets)
        if sketch is not None:
            drawn[layer.position] = sketch
        return matrix

    dtypes = [str(W.dtype) for W in weights.values()]
    reading = WeightReading(layers, read, dtypes)
    spectra = network_spectra(layers, reading, workers=1)
    evidence: dict[str, Any] = {
        "spectra": spectra,
        "figures": reading.figures(spectra, vectors or VectorCounts()),
        "sketches": drawn,
        "config": {},
        "twins": (),
    }
    return AuditSubject("made", layers, **(evidence | known))
