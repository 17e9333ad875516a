"""Results of nearest-neighbour searches, and the state of the index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.types.filters import Filters
from registry.types.verdicts import ratio

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.spectra import FingerprintSpec
    from registry.types.verdicts import Verdict
    from registry.types.weight_relations import Relation

__all__ = ["AmongSearch", "IndexCheck", "Neighbour", "Search", "SearchOptions"]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored model at a distance from the model of the question.

    ``relation``: what the weights say of the two, None unless it was asked for.
    """

    model: ModelSummary
    verdict: Verdict
    relation: Relation | None = None

    @property
    def distance(self) -> float:
        """Distance from the model of the question."""
        return self.verdict.distance


@dataclass(frozen=True, slots=True)
class Search:
    """Result of a search, nearest first, with the number of models searched and the rate at its tolerance.

    ``model``: the model of the question, with ``id`` 0 if it is not stored. ``radius``: largest distance of a result,
    None if only ``k`` was given. ``unknown``: number of models left out because a value bounded by the filter is
    unknown. ``indexed``: whether an index was used, which can miss some models. ``note``: why an existing index was not
    used; of the catalogue, how heads were sized to that of the file. ``calibration`` and ``rate``: None if the
    fingerprint is not calibrated. ``tolerance``: then None unless given. ``older``: number of models left out because
    they are of an older matrix rule. ``assume_trained``: whether models of undetermined training class were judged as
    trained.
    """

    model: ModelSummary
    spec: FingerprintSpec
    distance: str
    tolerance: float | None
    rate: float | None
    searched: int
    neighbours: tuple[Neighbour, ...]
    calibration: Calibration | None
    radius: float | None = None
    unknown: int = 0
    indexed: bool = False
    note: str = ""
    older: int = 0
    assume_trained: bool = False

    def to_frame(self) -> DataFrame:
        """One row for each neighbour, the nearest first: see ``registry.frames.of_search``."""
        from registry.frames import of_search

        return of_search(self)


@dataclass(frozen=True, slots=True)
class AmongSearch:
    """Result of a search in several ``registries``, apart by what it rests on.

    ``model``: the model of the question. ``by_weights``: the answer of the registries that compare weights;
    ``by_shapes``: of those that compare shapes alone, as the catalogue does; None where no registry is of that kind.
    The two are on different scales: compare their rows by `ratio` alone.
    """

    model: ModelSummary
    registries: tuple[str, ...]
    by_weights: Search | None
    by_shapes: Search | None

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """The neighbours of both kinds, by distance over the tolerance of the fingerprint, the smallest first."""
        found = [near for one in (self.by_weights, self.by_shapes) if one for near in one.neighbours]
        return tuple(sorted(found, key=lambda near: ratio(near.verdict)))


class SearchOptions(Filters, total=False):
    """The keywords of ``Registry.search``, to be given to several searches."""

    k: int | None
    radius: float | None
    equivalent: bool
    exact: bool
    relations: bool
    fingerprint: str
    distance: str | None
    tolerance: float | None
    assume_trained: bool


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """State of an index relative to the vectors, and its recall.

    Of ``stored`` vectors the index has ``held``, with ``missing`` and ``extra`` rows. ``recall``: fraction of the ``k``
    nearest that it finds, over ``queries`` stored models; None if it cannot be used. ``problem``: why not, empty if
    searches use it. ``remedy``: what repairs the problem, or missing and extra rows.
    """

    spec: FingerprintSpec
    distance: str
    stored: int
    held: int
    missing: int
    extra: int
    k: int
    queries: int
    recall: float | None
    problem: str = ""
    remedy: str = ""
