"""What an audit knows of one model: the evidence that its rules judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Metric, SkippedTensor, Spectrum, Training, WeightFigures

__all__ = ["AuditSubject", "FamilyShapes", "Twin"]


class Twin(NamedTuple):
    """Another stored model with the same weights but for rounding, and its labels; unknown ones are empty."""

    name: str
    family: str
    architecture: str
    metrics: tuple[Metric, ...]


class FamilyShapes(NamedTuple):
    """How the shapes of a model's layers compare with those of stored models of known families.

    ``others``: number of other models of its family, and ``own``: its distance by the fingerprint ``shapes`` to the
    nearest of them. ``other``: the distance to the nearest model of another family, which is called ``name`` and is of
    ``family``; infinite without one.
    """

    others: int
    own: float
    other: float
    name: str = ""
    family: str = ""


@dataclass(frozen=True)
class AuditSubject:
    """Evidence on one model; what is None is not known, and rules that need it say so.

    ``layers`` in depth order, ``skipped``: tensors that are no layer. ``spectra``, ``figures`` and the rows of
    ``sketches`` (float16, (layers, buckets)) are in the order of the layers. ``nonfinite``: number of values that are
    NaN or infinite. ``precision``: how values are stored, as a summary has it. ``config``: configuration beside the
    weights, empty where the model has none; ``quantised``: whether it says that they are quantised. ``twins``: other
    models with these weights. ``kin``: None where the family or the shapes are not known. ``registry``: whether there
    are stored models to compare it with. ``equal``: whether two layers, by position, hold the same values, where the
    weights are at hand. ``given_means``: mean eigenvalues of the layers, where they are known without spectra.
    ``told``: the training class, where ``figures`` lack what spectra would give.
    """

    name: str
    layers: tuple[LayerMatrix, ...]
    family: str = ""
    architecture: str = ""
    metrics: tuple[Metric, ...] = ()
    precision: str = ""
    skipped: tuple[SkippedTensor, ...] = ()
    weights_read: bool = True
    nonfinite: int = 0
    spectra: tuple[Spectrum, ...] | None = None
    figures: WeightFigures | None = None
    sketches: NDArray[np.float16] | None = None
    config: Mapping[str, Any] | None = None
    quantised: bool = False
    twins: tuple[Twin, ...] | None = None
    kin: FamilyShapes | None = None
    registry: bool = True
    equal: Callable[[int, int], bool] | None = field(default=None, compare=False)
    given_means: tuple[float, ...] | None = None
    told: Training | None = None

    @cached_property
    def training(self) -> Training | None:
        """The training class with its evidence; None without figures."""
        from registry.spectral.training import training

        return self.told if self.told is not None or self.figures is None else training(self.figures, self.layers)

    @cached_property
    def means(self) -> tuple[float, ...] | None:
        """Mean eigenvalue of each layer, in units of the squared weights; None where they are not known."""
        return self.given_means if self.spectra is None else tuple(spectrum.mean for spectrum in self.spectra)
