"""Classes of equivalents, and those that a registry keeps."""

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
    """The classes of the models asked about, largest first; ``rate`` of unrelated pairs that pass at the tolerance.

    ``rule``: ``complete`` or ``cover``, by which every two members of a class are equivalent within the tolerance, or
    ``single``, by which each is to another; ``kept``: whether the database holds it, as of ``created`` (UTC, ISO 8601);
    ``note``: why not, where it was to.
    """

    spec: FingerprintSpec
    distance: str
    tolerance: float
    rate: float
    models: int
    classes: tuple[ModelClass, ...]
    rule: str
    calibration: Calibration
    kept: bool = False
    created: str = ""
    note: str = ""

    def to_frame(self) -> DataFrame:
        """One row for each model, class by class: see ``registry.frames.of_partition``."""
        from registry.frames import of_partition

        return of_partition(self)


@dataclass(frozen=True, slots=True)
class KeptPartition:
    """A partition that the database holds, without its classes; ``scope``: the filter of its models, fields given.

    ``id``: its number, by which it can be forgotten; classes made anew by the same terms get another.
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
