"""Frozen values that the parts of the registry exchange.

``weights``: tensors, layer matrices, model cards. ``model_facts``: configuration beside the weights. ``spectra``:
spectra, specs, fingerprints, conjugacy. ``models``: stored models. ``filters``, ``searches``, ``verdicts``,
``relations``, ``requirements``, ``partitions``, ``choices``, ``calibrations``: arguments and results of questions.
``weights``: tensors, layer matrices, model cards, references. ``model_facts``: configuration beside the weights.
``spectra``: spectra, specs, fingerprints, conjugacy. ``models``: stored models. ``filters``, ``searches``,
``verdicts``, ``relations``, ``partitions``, ``choices``, ``calibrations``: arguments and results of questions.
``relations``, ``requirements``, ``partitions``, ``choices``, ``calibrations``, ``duplicates``: arguments and
results of questions.
``relations``, ``partitions``, ``choices``, ``calibrations``: arguments and results of questions. ``audits``: findings.
``estimates``, ``outcomes``, ``runs``: ingests before, after and in the journal. No value here depends on a database, a
file or a framework.
"""

from registry.types.audits import SEVERITIES, Audit, Finding, NotAudited, Severity
from registry.types.calibrations import Calibrated, Calibration, LabelledPairs
from registry.types.choices import (
    Aim,
    Candidate,
    Choice,
    Compression,
    ExpectedChange,
    Removal,
    Selected,
    Selection,
)
from registry.types.duplicates import Duplicate, DuplicateGroup, Duplicates, WeightsPlace
from registry.types.estimates import Estimate, ModelEstimate
from registry.types.filters import Filter, Filters, Kin, MetricBound
from registry.types.model_facts import NO_FACTS, ModelFacts
from registry.types.models import LayerFigures, Membership, ModelDetails, ModelSummary, OlderModels, Stats
from registry.types.outcomes import Ingested, Recomputed, Transfer
from registry.types.partitions import KeptPartition, ModelClass, Partition
from registry.types.requirements import REQUIREMENTS, MetricChange, Requirement, RequirementName
from registry.types.runs import DONE, Run, RunItem
from registry.types.searches import IndexCheck, Neighbour, Search, SearchOptions
from registry.types.spectra import Conjugacy, Decay, Fingerprint, FingerprintSpec, Spectrum
from registry.types.verdicts import Comparison, Contrast, LayerContrast, Verdict
from registry.types.weight_figures import (
    TRAINING_CLASSES,
    Alignments,
    MatrixFigures,
    Training,
    VectorCounts,
    WeightFigures,
)
from registry.types.weight_relations import (
    RELATIONS,
    Related,
    Relation,
    RelationEdge,
    RelationForest,
    RelationTree,
    RelationVerdict,
    Relative,
    Sketches,
)
from registry.types.weights import (
    HEADER_PREFIX,
    CardChanges,
    CardFields,
    Checkpoint,
    LayerMatrix,
    LeftOut,
    Metric,
    ModelCard,
    ModelRef,
    Plan,
    SkippedTensor,
    TensorInfo,
    WeightsPlan,
)

__all__ = [
    "HEADER_PREFIX",
    "DONE",
    "NO_FACTS",
    "SEVERITIES",
    "TRAINING_CLASSES",
    "Aim",
    "Alignments",
    "Audit",
    "Calibrated",
    "Calibration",
    "Candidate",
    "CardChanges",
    "CardFields",
    "Checkpoint",
    "Choice",
    "Comparison",
    "Compression",
    "Conjugacy",
    "Contrast",
    "Decay",
    "Duplicate",
    "DuplicateGroup",
    "Duplicates",
    "Estimate",
    "ExpectedChange",
    "Filter",
    "Filters",
    "IndexCheck",
    "Finding",
    "Fingerprint",
    "FingerprintSpec",
    "Ingested",
    "KeptPartition",
    "Kin",
    "LayerContrast",
    "LayerFigures",
    "LayerMatrix",
    "LeftOut",
    "MatrixFigures",
    "Membership",
    "Metric",
    "MetricBound",
    "MetricChange",
    "ModelCard",
    "ModelClass",
    "ModelDetails",
    "ModelEstimate",
    "ModelFacts",
    "ModelRef",
    "ModelSummary",
    "Neighbour",
    "OlderModels",
    "NotAudited",
    "Partition",
    "Plan",
    "Recomputed",
    "LabelledPairs",
    "Run",
    "RunItem",
    "RELATIONS",
    "REQUIREMENTS",
    "Relation",
    "RelationVerdict",
    "Requirement",
    "RequirementName",
    "Related",
    "RelationEdge",
    "RelationForest",
    "RelationTree",
    "Relative",
    "Removal",
    "Search",
    "SearchOptions",
    "Selected",
    "Selection",
    "Severity",
    "SkippedTensor",
    "Sketches",
    "Spectrum",
    "Stats",
    "TensorInfo",
    "Training",
    "VectorCounts",
    "WeightFigures",
    "Transfer",
    "Verdict",
    "WeightsPlace",
    "WeightsPlan",
]
