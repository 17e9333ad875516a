"""Verdicts and comparisons of two models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.audits import Finding
    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.requirements import MetricChange, Requirement
    from registry.types.spectra import Conjugacy, FingerprintSpec
    from registry.types.weight_relations import Relation

__all__ = ["Comparison", "Contrast", "LayerContrast", "Verdict", "ratio"]

CONTRADICTING = 0.1
"""Part of the larger value by which a metric of equivalent models differs where it contradicts the verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two models are equivalent: of one training class, at a distance within the tolerance.

    ``equivalent``: None if there is no ``tolerance``, given or calibrated, and the training classes agree.
    ``closer_than``: fraction of unrelated pairs with a larger distance. ``rate``: fraction of unrelated pairs within
    this tolerance, or the calibration's resolution if that is larger. ``expected_false``: expected number of false
    passes among the models searched. ``reasons``: why the models are not equivalent, in words; empty if they are.
    ``rate``, ``closer_than`` and ``expected_false`` are None without a calibration. ``by_shapes``: the fingerprint is
    computed of shapes alone, so that weights and training classes are not compared. ``seeds``: the distance within
    which 95 % of trainings of one topology lie that differ in the seed alone, the scale of distances within a topology;
    None where it is not measured.
    """

    equivalent: bool | None
    distance: float
    tolerance: float | None
    rate: float | None
    closer_than: float | None
    expected_false: float | None
    reasons: tuple[str, ...] = ()
    by_shapes: bool = False
    seeds: float | None = None


def ratio(verdict: Verdict) -> float:
    """Distance over tolerance, at most 1 for what may be equivalent; infinite without a tolerance.

    It makes verdicts by different fingerprints comparable: their tolerances let the same fraction of unrelated pairs
    pass.
    """
    if not verdict.tolerance:
        return 0.0 if verdict.tolerance == 0.0 == verdict.distance else inf
    return verdict.distance / verdict.tolerance


@dataclass(frozen=True, slots=True)
class LayerContrast:
    """A layer, and how far its spectrum is from the other network's at the same ``depth``, in decades of x."""

    name: str
    position: int
    depth: float
    distance: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """Where the `proper` spectra of two networks differ most.

    ``location``: the x of the largest difference of their cumulatives. ``difference``: F_a - F_b there. ``depth``: the
    relative depth at which they differ most, by ``depth_distance``, a Wasserstein-1 distance in decades of x.
    ``layers_a``, ``layers_b``: the layers that differ most from the other network, in descending order. ``shares``:
    contribution of each block of the ``layered`` fingerprint to the L1 distance, as fractions.
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
    """Two models side by side: the verdict for the requested ``distance``, and all distances between them.

    Four questions are answered apart: ``same_weights``; ``relation``, whether they have a common start or one descends
    from the other; ``verdict``, whether they are equivalent, a statement on statistics of weights alone; and
    ``findings_a``, ``findings_b``, what an audit finds in each, None where it was not audited.

    ``contrast``: where they differ, None if the spectra of one of them are not stored. ``calibration``: None if the
    fingerprint is not calibrated. ``asked_a``, ``asked_b``: what the caller wrote, where that is another name, a hash,
    a reference or a path; else empty. ``changes``: of the metrics that both have on one data set and split, from a to
    b. ``requirements``: what was required of the two, and whether it holds.
    """

    a: ModelSummary
    b: ModelSummary
    spec: FingerprintSpec
    distance: str
    verdict: Verdict
    distances: tuple[tuple[str, float], ...]
    conjugacy_a: Conjugacy | None
    conjugacy_b: Conjugacy | None
    calibration: Calibration | None
    contrast: Contrast | None = None
    asked_a: str = ""
    asked_b: str = ""
    relation: Relation | None = None
    findings_a: tuple[Finding, ...] | None = None
    findings_b: tuple[Finding, ...] | None = None
    changes: tuple[MetricChange, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @property
    def same_weights(self) -> Literal["identical", "permuted", "no", "unknown"]:
        """Whether both have the same weights: the same content, the same in another order of units, or neither."""
        if self.relation is None or self.relation.verdict == "not comparable":
            known = self.a.weights_read and self.b.weights_read
            return "no" if known and self.a.content_hash != self.b.content_hash else "unknown"
        return self.relation.verdict if self.relation.verdict in ("identical", "permuted") else "no"

    @property
    def contradicting(self) -> tuple[MetricChange, ...]:
        """Of equivalent models, the metrics that differ by more than a tenth of the larger value."""
        return tuple(each for each in self.changes if self.verdict.equivalent and each.share > CONTRADICTING)

    @property
    def unmet(self) -> tuple[str, ...]:
        """What was required and does not hold."""
        return tuple(each.require for each in self.requirements if not each.met)

    def of_asked(self, a: object, b: object) -> Self:
        """The comparison with what the caller wrote for each model, where that is a text other than its name."""
        asked = [str(given) if isinstance(given, str | Path) else "" for given in (a, b)]
        shown = ["" if text == model.name else text for text, model in zip(asked, (self.a, self.b), strict=True)]
        return replace(self, asked_a=shown[0], asked_b=shown[1])

    def to_frame(self) -> DataFrame:
        """One row for the pair: see ``registry.frames.of_comparisons``."""
        from registry.frames import of_comparisons

        return of_comparisons([self])
