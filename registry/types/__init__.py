"""The frozen values that every part of the registry passes to the others.

``weights``: tensors, layer matrices, model cards; ``spectra``: spectra, specs, fingerprints, conjugacy; ``answers``:
what questions return. No value here knows a database, a file or a framework.
"""

from registry.types.answers import (
    Candidate,
    Comparison,
    Compression,
    Contrast,
    Filter,
    Ingested,
    LayerContrast,
    LayerFigures,
    MetricBound,
    MetricChange,
    ModelClass,
    ModelDetails,
    ModelSummary,
    Neighbour,
    Partition,
    Recomputed,
    Search,
    Stats,
    Verdict,
)
from registry.types.spectra import Calibration, Conjugacy, Decay, Fingerprint, FingerprintSpec, Spectrum
from registry.types.weights import (
    Checkpoint,
    LayerMatrix,
    Metric,
    ModelCard,
    ModelRef,
    SkippedTensor,
    TensorInfo,
    WeightsPlan,
)

__all__ = [
    "Calibration",
    "Candidate",
    "Checkpoint",
    "Comparison",
    "Compression",
    "Conjugacy",
    "Contrast",
    "Decay",
    "Filter",
    "Fingerprint",
    "FingerprintSpec",
    "Ingested",
    "LayerContrast",
    "LayerFigures",
    "LayerMatrix",
    "Metric",
    "MetricBound",
    "MetricChange",
    "ModelCard",
    "ModelClass",
    "ModelDetails",
    "ModelRef",
    "ModelSummary",
    "Neighbour",
    "Partition",
    "Recomputed",
    "Search",
    "SkippedTensor",
    "Spectrum",
    "Stats",
    "TensorInfo",
    "Verdict",
    "WeightsPlan",
]
