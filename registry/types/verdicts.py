"""Two models: equivalent or not, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.spectra import Conjugacy, FingerprintSpec

__all__ = ["Comparison", "Contrast", "LayerContrast", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Equivalent within the tolerance or not, with the evidence.

    ``closer_than``: fraction of unrelated pairs that lie farther apart than these two; ``rate``: of unrelated pairs
    that pass at this tolerance, or the calibration's resolution where it cannot tell so small a rate;
    ``expected_false``: how many of the models searched would pass by that rate; ``reasons``: why not, in words, empty
    where equivalent.
    """

    equivalent: bool
    distance: float
    tolerance: float
    rate: float
    closer_than: float
    expected_false: float
    reasons: tuple[str, ...] = ()


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
    """Two models side by side: the verdict by the ``distance`` asked for, and how far apart they are by each.

    ``contrast``: where they differ, None where the spectra of one of them are not stored.
    """

    a: ModelSummary
    b: ModelSummary
    spec: FingerprintSpec
    distance: str
    verdict: Verdict
    distances: tuple[tuple[str, float], ...]
    conjugacy_a: Conjugacy | None
    conjugacy_b: Conjugacy | None
    calibration: Calibration
    contrast: Contrast | None = None

    def to_frame(self) -> DataFrame:
        """One row for the pair: see ``registry.frames.of_comparisons``."""
        from registry.frames import of_comparisons

        return of_comparisons([self])
