"""Models to choose from: smaller ones that can stand in for one, and the best under constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.types.weights import place_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.spectra import FingerprintSpec
    from registry.types.verdicts import Contrast, Verdict

__all__ = ["Aim", "Candidate", "Choice", "Compression", "MetricChange", "Removal", "Selected", "Selection"]


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
    def place(self) -> str:
        """``top1@cifar10/test``."""
        return place_of(self.name, self.dataset, self.split)

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
class Compression:
    """Smaller stand-ins, best first. Where ``equivalent`` is False none is, and the candidates are merely near.

    ``removals``: what each constraint removed, where there is no candidate at all; ``note``: in what smaller is meant,
    where it is not in the gigaflops that were bounded, because those of ``model`` are not known.
    """

    model: ModelSummary
    spec: FingerprintSpec
    distance: str
    tolerance: float
    rate: float
    searched: int
    equivalent: bool
    candidates: tuple[Candidate, ...]
    calibration: Calibration
    removals: tuple[Removal, ...] = ()
    note: str = ""

    def to_frame(self) -> DataFrame:
        """One row for each candidate, the best first: see ``registry.frames.of_compression``."""
        from registry.frames import of_compression

        return of_compression(self)


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
        return place_of(self.what, self.dataset, self.split)

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
class Selection:
    """The Pareto front of the aims among the models that pass, in classes of equivalents, by the first aim.

    ``like``: the model that all are equivalent to, if one was given, and ``searched``: among how many they were looked
    for; ``models``: how many are stored, and ``passed`` of them; ``unknown``: by aim, how many of those have no figure
    for it and are left out; ``on_front``: models on the front, in ``count`` classes, of which ``classes`` are the
    first; ``removals``: what each constraint removed, where nothing is left.
    """

    spec: FingerprintSpec
    distance: str
    tolerance: float
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

    def to_frame(self) -> DataFrame:
        """One row for each model of the front that is shown: see ``registry.frames.of_selection``."""
        from registry.frames import of_selection

        return of_selection(self)
