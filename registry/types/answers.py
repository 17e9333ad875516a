"""What questions take and return. Plain values, ready to be shown or turned into JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.types.spectra import Calibration, Conjugacy, FingerprintSpec
    from registry.types.weights import Metric, SkippedTensor

__all__ = [
    "Aim",
    "Calibrated",
    "Candidate",
    "Choice",
    "Comparison",
    "Compression",
    "Contrast",
    "Filter",
    "IndexCheck",
    "Ingested",
    "KeptPartition",
    "LayerContrast",
    "LayerFigures",
    "Membership",
    "MetricBound",
    "MetricChange",
    "ModelClass",
    "ModelDetails",
    "ModelSummary",
    "Neighbour",
    "Partition",
    "Recomputed",
    "Relation",
    "Removal",
    "Search",
    "Selected",
    "Selection",
    "Stats",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class MetricBound:
    """A bound on a stored metric: ``name`` at least ``minimum`` and at most ``maximum``, on ``dataset`` if given.

    A model without that metric fails the bound.
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which stored models take part; empty fields let every model through. Unknown values fail a bound.

    ``max_ratio`` of a question is turned into ``max_params`` before. Text compares without regard to case.
    """

    family: str = ""
    architecture: str = ""
    task: str = ""
    dataset: str = ""
    licence: str = ""
    min_params: int | None = None
    max_params: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    max_gflops: float | None = None
    metrics: tuple[MetricBound, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A stored model in one line. ``name`` is its oldest name, ``names`` all of them; created in UTC, ISO 8601.

    ``approximate``: of its ``layers``, how many have approximate spectra, on which its fingerprints and classes rest.
    """

    id: int
    name: str
    names: tuple[str, ...]
    content_hash: str
    topology: str
    parameters: int
    bytes: int
    layers: int
    matrix_rule: str
    created: str
    family: str = ""
    architecture: str = ""
    task: str = ""
    dataset: str = ""
    licence: str = ""
    source: str = ""
    gflops: float | None = None
    tail_class: str = ""
    training_class: str = ""
    approximate: int = 0
    metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer as ``show`` has it: where it is, and its spectrum in figures.

    ``mean``: mean of the proper eigenvalues of W W^T; ``largest``: the largest over that mean; ``stable_rank``:
    ||W||_F^2 / ||W||_2^2; ``entropy``: of the normalised proper eigenvalues, over log of their number. These three
    are None where the spectra are not stored. ``method``: how the eigenvalues were found, empty for exactly.
    """

    position: int
    name: str
    kind: str
    shape: tuple[int, ...]
    p: int
    q: int
    mean: float
    largest: float | None
    stable_rank: float | None
    entropy: float | None
    method: str = ""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """Everything stored of one model. ``revision``, ``recipe``, ``training``, ``tool_version``: provenance.

    ``memberships``: the kept classes it is in, of the newest partition first.
    """

    summary: ModelSummary
    layers: tuple[LayerFigures, ...]
    skipped: tuple[SkippedTensor, ...]
    conjugacy: Conjugacy | None
    tags: tuple[tuple[str, str], ...]
    fingerprints: tuple[str, ...]
    has_spectra: bool
    revision: str = ""
    recipe: str = ""
    training: str = ""
    seed: int | None = None
    tool_version: str = ""
    memberships: tuple[Membership, ...] = ()


@dataclass(frozen=True, slots=True)
class Recomputed:
    """How many ``fingerprints``, and how many models' ``conjugacy`` figures, were computed from stored spectra."""

    fingerprints: int
    conjugacy: int


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one reference: ``added``, ``named`` (known weights, a new name), ``known`` or ``failed``."""

    reference: str
    name: str
    status: str
    seconds: float
    message: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Equivalent within the accuracy or not, with the evidence.

    ``closer_than``: fraction of unrelated pairs that lie farther apart than these two; ``rate``: of unrelated pairs
    that pass at this accuracy, or the calibration's resolution where it cannot tell so small a rate;
    ``expected_false``: how many of the models searched would pass by that rate; ``reasons``: why not, in words, empty
    where equivalent.
    """

    equivalent: bool
    distance: float
    accuracy: float
    rate: float
    closer_than: float
    expected_false: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """Pairs of labelled models of one relation, and how they lie under a calibration.

    ``pairs``: how many, of how many ``families``; ``median``: of their distances; ``within``: the fraction within the
    calibrated accuracy; ``equivalent``: those that share both classes, too. Each family, or pair of families, weighs
    the same.
    """

    name: str
    pairs: int
    families: int
    median: float
    within: float
    equivalent: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration measured on the registry's labelled models, and the ``previous`` one, which held until then.

    ``labelled``: models with a family, ``unlabelled``: without, which are left out; ``relations``: of unrelated models
    first, then of those that labels say are related.
    """

    calibration: Calibration
    previous: Calibration
    labelled: int
    unlabelled: int
    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored model at a distance from the one asked about."""

    model: ModelSummary
    verdict: Verdict

    @property
    def distance(self) -> float:
        """Distance in the spec's metric."""
        return self.verdict.distance


@dataclass(frozen=True, slots=True)
class Search:
    """What a look-up found, nearest first, among how many models, and the rate of false passes at its accuracy.

    ``model``: the one asked about, its ``id`` 0 where it is not stored; ``radius``: how far away at most, None where
    only ``k`` was asked for; ``unknown``: how many models were left out because a value that the filter bounds is not
    known of them; ``indexed``: whether an index found them, which can miss some, and ``note``: why an index that is
    there was not used.
    """

    model: ModelSummary
    spec: FingerprintSpec
    metric: str
    accuracy: float
    rate: float
    searched: int
    neighbours: tuple[Neighbour, ...]
    calibration: Calibration
    radius: float | None = None
    unknown: int = 0
    indexed: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """How an index stands to the vectors it is of, and how much it finds.

    ``stored`` vectors, of which it holds ``held``, with ``missing`` and ``extra`` rows; ``recall``: the fraction of
    the ``k`` nearest that it finds, over ``queries`` stored models, None where it cannot be used; ``problem``: why not,
    and ``remedy``, empty where searches use it.
    """

    spec: FingerprintSpec
    metric: str
    stored: int
    held: int
    missing: int
    extra: int
    k: int
    queries: int
    recall: float | None
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class LayerContrast:
    """A layer and how far its spectrum is from the other network's at the same relative ``depth``, in decades of x."""

    name: str
    position: int
    depth: float
    distance: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """Where two networks' `proper` spectra differ most.

    ``location``: the x of the largest difference of their cumulatives, and ``difference``: F_a - F_b there; ``depth``:
    the relative depth about which they differ most, by ``depth_distance``, a Wasserstein-1 distance in decades of x;
    ``layers_a``, ``layers_b``: the layers farthest from the other network, the farthest first; ``shares``: what each
    block of the ``layered`` fingerprint adds to the L1 distance, as fractions of it.
    """

    location: float
    difference: float
    depth: float
    depth_distance: float
    layers_a: tuple[LayerContrast, ...]
    layers_b: tuple[LayerContrast, ...]
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side: the verdict by the metric asked for, and the distance by each metric.

    ``contrast``: where they differ, None where the spectra of one of them are not stored.
    """

    a: ModelSummary
    b: ModelSummary
    spec: FingerprintSpec
    metric: str
    verdict: Verdict
    distances: tuple[tuple[str, float], ...]
    conjugacy_a: Conjugacy | None
    conjugacy_b: Conjugacy | None
    calibration: Calibration
    contrast: Contrast | None = None


@dataclass(frozen=True, slots=True)
class ModelClass:
    """A class of equivalents.

    ``identity``: what it is known by from one partition to the next; ``medoid``: the most central member; ``diameter``:
    the largest distance within, where ``bounded`` a bound on it from above; ``shared``: what all members have in
    common, (field of their summary, value), unknown values left out.
    """

    number: int
    identity: str
    medoid: str
    diameter: float
    members: tuple[ModelSummary, ...]
    training_class: str
    tail_class: str
    shared: tuple[tuple[str, str], ...] = ()
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class Partition:
    """The classes of the models asked about, largest first; ``rate`` of unrelated pairs that pass at the accuracy.

    ``rule``: ``complete`` or ``cover``, by which every two members of a class are equivalent within the accuracy, or
    ``single``, by which each is to another; ``kept``: whether the database holds it, as of ``created`` (UTC, ISO 8601);
    ``note``: why not, where it was to.
    """

    spec: FingerprintSpec
    metric: str
    accuracy: float
    rate: float
    models: int
    classes: tuple[ModelClass, ...]
    rule: str
    calibration: Calibration
    kept: bool = False
    created: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeptPartition:
    """A partition that the database holds, without its classes; ``scope``: the filter of its models, fields given."""

    fingerprint: str
    metric: str
    accuracy: float
    rule: str
    scope: tuple[tuple[str, str], ...]
    models: int
    classes: int
    created: str


@dataclass(frozen=True, slots=True)
class Membership:
    """A kept class that a model is in: its identity, how many members it has, and the terms of its partition."""

    identity: str
    members: int
    fingerprint: str
    metric: str
    accuracy: float
    rule: str


@dataclass(frozen=True, slots=True)
class MetricChange:
    """The same metric on the same data set and split, of the model and of its candidate.

    ``higher_is_better``: None where neither model's record nor the metric's name says so.
    """

    name: str
    dataset: str
    split: str
    original: float
    candidate: float
    higher_is_better: bool | None = None

    @property
    def change(self) -> float:
        """Candidate minus original."""
        return self.candidate - self.original

    @property
    def better(self) -> bool | None:
        """Whether the candidate is better; None where it is neither better nor worse, or the direction is not known."""
        if self.higher_is_better is None or self.change == 0:
            return None
        return (self.change > 0) == self.higher_is_better


@dataclass(frozen=True, slots=True)
class Candidate:
    """A smaller model: what is saved, as fractions of the original, what is known to change, and the verdict.

    ``gflops_saved``: None unless both are known; ``contrast``: where the original (a) and this model (b) differ, None
    unless it was asked for and the spectra of both are at hand.
    """

    model: ModelSummary
    verdict: Verdict
    params_saved: float
    bytes_saved: float
    gflops_saved: float | None
    changes: tuple[MetricChange, ...]
    contrast: Contrast | None = None


@dataclass(frozen=True, slots=True)
class Compression:
    """Smaller stand-ins, best first. Where ``equivalent`` is False none is, and the candidates are merely near.

    ``removals``: what each constraint removed, where there is no candidate at all.
    """

    model: ModelSummary
    spec: FingerprintSpec
    metric: str
    accuracy: float
    rate: float
    searched: int
    equivalent: bool
    candidates: tuple[Candidate, ...]
    calibration: Calibration
    removals: tuple[Removal, ...] = ()


@dataclass(frozen=True, slots=True)
class Aim:
    """What a selection aims at: ``parameters``, ``bytes``, ``gflops``, ``distance``, or a metric's name.

    ``dataset`` and ``split``: where the metric was measured; of an aim that is asked for, empty where any will do.
    """

    what: str
    maximise: bool
    dataset: str = ""
    split: str = ""

    @property
    def place(self) -> str:
        """``top1@cifar10/test``."""
        split = f"/{self.split}" if self.split else ""
        return f"{self.what}@{self.dataset}{split}" if self.dataset or split else self.what

    @property
    def label(self) -> str:
        """``max top1@cifar10/test``."""
        return f"{'max' if self.maximise else 'min'} {self.place}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A model of a selection: its figure for each aim, and its distance from the model to be like, if there is one."""

    model: ModelSummary
    values: tuple[float, ...]
    distance: float | None


@dataclass(frozen=True, slots=True)
class Selected:
    """Equivalent models of the front: the smallest, and the others, which take their places by the aims."""

    best: Choice
    others: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Removal:
    """A constraint in words: how many stored models fail it, and how many would pass if it alone were dropped.

    ``unknown``: of those that fail it, how many have no such figure at all; ``near``: known values spelt nearly so,
    where no model has the value asked for.
    """

    constraint: str
    removes: int
    without: int
    unknown: int = 0
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """The Pareto front of the aims among the models that pass, in classes of equivalents, by the first aim.

    ``like``: the model that all are equivalent to, if one was given, and ``searched``: among how many they were looked
    for; ``models``: how many are stored, and ``passed`` of them; ``unknown``: by aim, how many of those have no figure
    for it and are left out; ``on_front``: models on the front, in ``count`` classes, of which ``classes`` are the
    first; ``removals``: what each constraint removed, where nothing is left.
    """

    spec: FingerprintSpec
    metric: str
    accuracy: float
    rate: float
    calibration: Calibration
    aims: tuple[Aim, ...]
    like: ModelSummary | None
    models: int
    passed: int
    searched: int
    unknown: tuple[tuple[str, int], ...]
    on_front: int
    count: int
    classes: tuple[Selected, ...]
    removals: tuple[Removal, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a registry holds. ``bytes``: of the database where it can be known."""

    models: int
    names: int
    layers: int
    families: tuple[tuple[str, int], ...]
    fingerprints: tuple[tuple[str, int], ...]
    training_classes: tuple[tuple[str, int], ...]
    tail_classes: tuple[tuple[str, int], ...]
    schema_version: str
    bytes: int | None
