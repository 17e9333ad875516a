"""Equivalence classes and stored partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from registry.types.calibrations import Calibration
    from registry.types.models import ModelSummary
    from registry.types.spectra import FingerprintSpec

__all__ = ["KeptPartition", "ModelClass", "Partition"]


@dataclass(frozen=True, slots=True)
class ModelClass:
    """An equivalence class.

    ``identity``: stays the same from one partition to the next. ``medoid``: the most central member. ``diameter``: the
    largest distance within, an upper bound if ``bounded``. ``shared``: pairs (field of the summary, value) that all
    members have in common, without unknown values.
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
    """The equivalence classes of a set of models, largest first; ``rate`` of unrelated pairs within the tolerance.

    ``rule``: ``complete`` or ``cover``, where all pairs within a class are within the tolerance, or ``single``, where
    each member is within the tolerance of another. ``kept``: whether the database stores it, since ``created`` (UTC,
    ISO 8601). ``note``: why it is not stored, if it was to be. ``calibration`` and ``rate``: None if the fingerprint is
    not calibrated. ``older``: number of models left out because they are of an older matrix rule. ``assume_trained``:
    whether models of undetermined training class were judged as trained.
    """

    spec: FingerprintSpec
    distance: str
    tolerance: float
    rate: float | None
    models: int
    classes: tuple[ModelClass, ...]
    rule: str
    calibration: Calibration | None
    kept: bool = False
    created: str = ""
    note: str = ""
    older: int = 0
    assume_trained: bool = False

    def to_frame(self) -> DataFrame:
        """One row for each model, class by class: see ``registry.frames.of_partition``."""
        from registry.frames import of_partition

        return of_partition(self)


@dataclass(frozen=True, slots=True)
class KeptPartition:
    """A stored partition without its classes. ``scope``: the fields of the filter that selected its models.

    It has ``assume_trained``, too, where models of undetermined training class were judged as trained.

    ``id``: its number, by which it can be forgotten. A partition computed anew with the same terms gets another number.
    """

    id: int
    fingerprint: str
    distance: str
    tolerance: float
    rule: str
    scope: tuple[tuple[str, str], ...]
    models: int
    classes: int
    created: str
