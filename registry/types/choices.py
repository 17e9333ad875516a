"""Results of `compress` and `select`: smaller stand-ins, and the best models under constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from registry.types.weights import place_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.requirements import MetricChange
    from registry.types.spectra import FingerprintSpec
    from registry.types.verdicts import Contrast, Verdict
    from registry.types.weight_relations import Relation

__all__ = [
    "Aim",
    "AmongCompression",
    "Candidate",
    "Choice",
    "Compression",
    "ExpectedChange",
    "Removal",
    "Selected",
    "Selection",
]


@dataclass(frozen=True, slots=True)
class ExpectedChange:
    """The change of a metric that is stored of the original and not of its candidate, learned from scored models.

    ``value``: the median expected; ``low`` and ``high``: ends of its 90 % interval, all in units of the metric.
    ``pairs`` of ``families`` families of the registry were learned from, all with this metric on this data set and
    split. ``coverage``: fraction of the pairs with a family left out that were within the intervals which the other
    families gave, at least 0.85.
    """

    name: str
    dataset: str
    split: str
    value: float
    low: float
    high: float
    pairs: int
    families: int
    coverage: float

    @property
    def place(self) -> str:
        """``top1@cifar10/test``."""
        return place_of(self.name, self.dataset, self.split)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A smaller model: fractions of the original that it saves, known changes of metrics, and the verdict.

    ``gflops_saved``: None unless both are known. ``contrast``: where the original (a) and this model (b) differ, None
    unless it was requested and the spectra of both are available. ``relation``: what the weights say of the two, None
    unless it was requested. ``expected_change``: of a metric that is not stored of this model; None where it is not
    known.
    """

    model: ModelSummary
    verdict: Verdict
    params_saved: float
    bytes_saved: float
    gflops_saved: float | None
    changes: tuple[MetricChange, ...]
    contrast: Contrast | None = None
    relation: Relation | None = None
    expected_change: ExpectedChange | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """A constraint in words: how many stored models fail it, and how many would pass without it.

    ``unknown``: number of failing models for which the value is unknown. ``near``: known values spelt similarly, if no
    model has the requested value.
    """

    constraint: str
    removes: int
    without: int
    unknown: int = 0
    near: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compression:
    """Smaller stand-ins, best first. If ``equivalent`` is False none is equivalent, and the candidates are the nearest.

    ``removals``: models removed by each constraint, if there is no candidate. ``note``: the measure of size, if it is
    not the bounded gigaflops because those of ``model`` are unknown; of the catalogue, how heads were sized to that of
    the file. ``calibration`` and ``rate``: None if the fingerprint is not calibrated. ``older``: number of models left
    out because they are of an older matrix rule.
    ``assume_trained``: whether models of undetermined training class were judged as trained.
    """

    model: ModelSummary
    spec: FingerprintSpec
    distance: str
    tolerance: float
    rate: float | None
    searched: int
    equivalent: bool
    candidates: tuple[Candidate, ...]
    calibration: Calibration | None
    removals: tuple[Removal, ...] = ()
    note: str = ""
    older: int = 0
    assume_trained: bool = False

    def to_frame(self) -> DataFrame:
        """One row for each candidate, the best first: see ``registry.frames.of_compression``."""
        from registry.frames import of_compression

        return of_compression(self)


@dataclass(frozen=True, slots=True)
class AmongCompression:
    """Smaller stand-ins in several ``registries``, apart by what they rest on; see `AmongSearch`."""

    model: ModelSummary
    registries: tuple[str, ...]
    by_weights: Compression | None
    by_shapes: Compression | None


@dataclass(frozen=True, slots=True)
class Aim:
    """An aim of a selection: ``parameters``, ``bytes``, ``gflops``, ``gmacs``, ``distance``, or the name of a metric.

    ``gflops``: what the source of a stored model stated; ``gmacs``: multiply-adds in units of 1e9, of the catalogue.

    ``dataset`` and ``split``: where the metric was measured; in a request, empty stands for any.
    """

    what: str
    maximise: bool
    dataset: str = ""
    split: str = ""

    @property
    def place(self) -> str:
        """``top1@cifar10/test``."""
        return place_of(self.what, self.dataset, self.split)

    @property
    def label(self) -> str:
        """Direction and place: ``max top1@cifar10/test``."""
        return f"{'max' if self.maximise else 'min'} {self.place}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A selected model: its value for each aim, and its distance from the model of ``like``, if given.

    ``expected_change``: of a metric of that model that is not stored of this one; None where it is not known.
    """

    model: ModelSummary
    values: tuple[float, ...]
    distance: float | None
    expected_change: ExpectedChange | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """Equivalent models of the front: the smallest, and the others, ordered by the aims."""

    best: Choice
    others: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The Pareto front of the aims among the models that pass, in equivalence classes, ordered by the first aim.

    ``like``: the model that all are equivalent to, if given, and ``searched``: the number of models searched for that.
    ``models``: number of stored models. ``passed``: number that pass the constraints. ``unknown``: number of those
    without a value, by aim; they are left out. ``on_front``: number of models on the front, in ``count`` equivalence
    classes, of which ``classes`` are the first. ``removals``: models removed by each constraint, if none is left.
    ``calibration`` and ``rate``: None if the fingerprint is not calibrated. ``tolerance``: then None unless given, and
    each class has one model. ``older``: number of models of an older matrix rule, which no class has beside others,
    and which are left out if ``like`` is given.

    ``unit``: what ``models`` and the other numbers count: a ``model``, or in the catalogue a ``row``, an architecture
    at an image size with, of the published weights that pass, the best by the first metric that is an aim or bounded.
    A row is a class of its own, and ``spec`` is then ``shapes``. ``assume_trained``: whether models of undetermined
    training class were judged as trained.
    """

    spec: FingerprintSpec
    distance: str
    tolerance: float | None
    rate: float | None
    calibration: Calibration | None
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
    older: int = 0
    unit: Literal["model", "row"] = "model"
    assume_trained: bool = False

    def to_frame(self) -> DataFrame:
        """One row for each model of the front that is shown: see ``registry.frames.of_selection``."""
        from registry.frames import of_selection

        return of_selection(self)
