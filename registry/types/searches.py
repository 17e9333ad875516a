"""The nearest models, and the index that may find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.types.filters import Filters

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.spectra import FingerprintSpec
    from registry.types.verdicts import Verdict

__all__ = ["IndexCheck", "Neighbour", "Search", "SearchOptions"]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored model at a distance from the one asked about."""

    model: ModelSummary
    verdict: Verdict

    @property
    def distance(self) -> float:
        """How far it lies from the one asked about."""
        return self.verdict.distance


@dataclass(frozen=True, slots=True)
class Search:
    """What a look-up found, nearest first, among how many models, and the rate of false passes at its tolerance.

    ``model``: the one asked about, its ``id`` 0 where it is not stored; ``radius``: how far away at most, None where
    only ``k`` was asked for; ``unknown``: how many models were left out because a value that the filter bounds is not
    known of them; ``indexed``: whether an index found them, which can miss some, and ``note``: why an index that is
    there was not used.
    """

    model: ModelSummary
    spec: FingerprintSpec
    distance: str
    tolerance: float
    rate: float
    searched: int
    neighbours: tuple[Neighbour, ...]
    calibration: Calibration
    radius: float | None = None
    unknown: int = 0
    indexed: bool = False
    note: str = ""

    def to_frame(self) -> DataFrame:
        """One row for each neighbour, the nearest first: see ``registry.frames.of_search``."""
        from registry.frames import of_search

        return of_search(self)


class SearchOptions(Filters, total=False):
    """The keywords of ``Registry.search``, to be given to several searches."""

    k: int | None
    radius: float | None
    equivalent: bool
    exact: bool
    fingerprint: str
    distance: str | None
    tolerance: float | None


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """How an index stands to the vectors it is of, and how much it finds.

    ``stored`` vectors, of which it holds ``held``, with ``missing`` and ``extra`` rows; ``recall``: the fraction of
    the ``k`` nearest that it finds, over ``queries`` stored models, None where it cannot be used; ``problem``: why not,
    empty where searches use it; ``remedy``: what mends that, or that rows are missing or too many.
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
