"""Records that the store takes and returns, in addition to `registry.types`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from registry.types.weights import ModelCard

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from registry.types.spectra import Conjugacy, Fingerprint, Spectrum
    from registry.types.weight_figures import WeightFigures
    from registry.types.weight_relations import Sketches
    from registry.types.weights import LayerMatrix, SkippedTensor, WeightsPlan

__all__ = [
    "CONJUGACY_RULE",
    "Added",
    "DetailsRows",
    "Holding",
    "IndexReport",
    "Label",
    "NewModel",
    "PartitionKey",
    "PartitionRow",
    "Size",
    "SpecState",
    "StoredClass",
    "StoredLayer",
    "StoredPartition",
    "Subject",
]


CONJUGACY_RULE = 4
"""Version of the thresholds behind conjugacy figures and of what belongs to them: 2 has the tail's decay law, 3 a
farther edge for the smallest networks, 4 the training class by figures of the weights, where there are any."""


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model to be stored.

    ``spectra``: one for each of ``plan.layers``, in their order; empty where the weights are known already and only a
    name or its card is new. Without ``keep_spectra`` only each layer's mean is stored; where no more is known of layers
    than that, ``means`` holds them in place of ``spectra``, and ``methods`` how they were found, exactly by default.
    ``conjugacy_rule``: version of the thresholds behind ``conjugacy``; ``created``: when the model was first stored, if
    that was not now. ``format``: the source that read the weights, ``location``: their path or reference, ``entry``:
    which entry of a wrapped checkpoint. Of a plan by its header alone there are neither spectra nor conjugacy, and the
    ``means`` are zero.
    """

    name: str
    plan: WeightsPlan
    card: ModelCard = field(default_factory=ModelCard)
    spectra: tuple[Spectrum, ...] = ()
    means: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    keep_spectra: bool = True
    conjugacy: Conjugacy | None = None
    fingerprints: tuple[Fingerprint, ...] = ()
    sketches: Sketches | None = None
    weight_figures: WeightFigures | None = None
    tool_version: str = ""
    conjugacy_rule: int = CONJUGACY_RULE
    created: datetime | None = None
    format: str = ""
    location: str = ""
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Added:
    """Outcome of a `NewModel`: ``added``, ``named`` (known weights, new name), ``known``, or ``renewed``.

    ``renewed``: a model of an older matrix rule, measured anew under this one, or one of which the header alone was
    known; then ``weights`` is ``completed``. It is ``kept`` of a header whose weights had been read before.

    ``name`` is the one given, ``names`` all that the model has now, the oldest first. ``taken_from``: the short hash of
    the other weights that had the name, empty if none had; ``only_name``: it was their only one.
    """

    model_id: int
    status: Literal["added", "named", "known", "renewed"]
    name: str
    names: tuple[str, ...]
    weights: Literal["", "completed", "kept"] = ""
    taken_from: str = ""
    only_name: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """What is stored of some weights: matrix rule, hashes of specs, and whether spectra.

    ``judged``: whether their conjugacy figures are by this version's thresholds; ``exact``: no layer is approximate;
    ``sketches``, ``weight_figures``: the versions of their sketches and figures of weights, 0 without any.
    """

    matrix_rule: str
    specs: frozenset[str]
    has_spectra: bool
    judged: bool
    exact: bool = True
    sketches: int = 0
    weight_figures: int = 0


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A stored layer: ``mean`` of its proper eigenvalues in units of squared weights, and their ``count``.

    ``method``: how they were found, one of ``METHODS``.
    """

    layer: LayerMatrix
    mean: float
    count: int
    method: str = ""


@dataclass(frozen=True, slots=True)
class DetailsRows:
    """Details of a model without summary, spectra and vectors; ``fingerprints`` are spec labels."""

    layers: tuple[StoredLayer, ...]
    skipped: tuple[SkippedTensor, ...]
    conjugacy: Conjugacy | None
    tags: tuple[tuple[str, str], ...]
    fingerprints: tuple[str, ...]
    has_spectra: bool
    revision: str
    recipe: str
    training: str
    seed: int | None
    tool_version: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A stored query model; ``vector``: float32 (d,), None if it has none of the spec.

    ``training``: its training class, empty where it is not known.
    """

    model_id: int
    training: str
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Label:
    """Labels of a model; empty text and None are unknown."""

    model_id: int
    family: str
    architecture: str
    dataset: str
    training: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """Settings of a partition; ``scope`` is the filter as canonical JSON."""

    spec_hash: str
    distance: str
    rule: str
    tolerance: float
    scope: str


@dataclass(frozen=True, slots=True)
class StoredClass:
    """An equivalence class by model ids: ``medoid`` is None if removed, ``members`` are ascending."""

    identity: str
    medoid: int | None
    diameter: float
    bounded: bool
    tail_class: str
    training_class: str
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """The equivalence classes of a partition in order; ``mark`` is a hash of everything that determines them."""

    mark: str
    created: datetime
    classes: tuple[StoredClass, ...]


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """A partition without its equivalence classes: numbers of models and classes, and the time."""

    id: int
    key: PartitionKey
    models: int
    classes: int
    created: datetime


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Comparison of an index with the vectors: numbers stored, held, missing and extra.

    ``problem``: why searches do without it, in words, and ``remedy``; empty where they use it.
    """

    stored: int
    held: int
    missing: int
    extra: int
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a model; gigaflops are None if unknown."""

    model_id: int
    parameters: int
    bytes: int
    gflops: float | None


class ScoredModel(NamedTuple):
    """A model with a value of one metric, and what pairs of such models are told by."""

    model_id: int
    family: str
    parameters: int
    value: float


class SpecState(NamedTuple):
    """Columns of a spec that tell whether cached vectors are current."""

    id: int
    created: datetime
    length: int
    stamp: int
    removed: int
    indexed: int | None
