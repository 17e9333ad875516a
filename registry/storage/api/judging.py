"""Calibrations and partitions into classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.api.base import Part
from registry.storage.equivalence import stored_calibrations, stored_partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from registry.storage.models.records import Label, PartitionKey, PartitionRow, StoredClass, StoredPartition
    from registry.types import Calibration

__all__ = ["Judging"]


class Judging(Part):
    """By what models are judged equivalent, and the classes kept of them."""

    def calibration(self, spec_hash: str, distance: str) -> Calibration | None:
        """Return the calibration of a spec and distance, None where there is none."""
        return self._standing(spec_hash, distance).calibration

    def put_calibration(self, given: Calibration) -> None:
        """Store a calibration in place of the one of its spec and distance."""
        self._write(lambda connection: stored_calibrations.put_calibration(connection, given))

    def drop_calibration(self, spec_hash: str, distance: str) -> bool:
        """Forget the calibration of a spec and distance; return whether there was one."""
        return self._write(lambda connection: stored_calibrations.drop_calibration(connection, spec_hash, distance))

    def labels(self, spec_hash: str) -> list[Label]:
        """Return what tells related models from unrelated ones, of those with a vector under the spec, by id."""
        return self._read(lambda connection: stored_calibrations.labels(connection, spec_hash))

    def partition(self, key: PartitionKey) -> StoredPartition | None:
        """Return the classes that models were sorted into by those terms, None where none are kept."""
        return self._read(lambda connection: stored_partitions.find_partition(connection, key))

    def put_partition(
        self,
        key: PartitionKey,
        mark: str,
        given: Sequence[StoredClass],
        identities: Callable[[Mapping[str, Sequence[int]]], Sequence[str]],
    ) -> StoredPartition | None:
        """Keep classes in place of those by the same terms; see `stored_partitions.put_partition`."""
        return self._write(lambda connection: stored_partitions.put_partition(connection, key, mark, given, identities))

    def partitions(self) -> list[PartitionRow]:
        """Return what partitions are kept, the newest first."""
        return self._read(stored_partitions.all_partitions)

    def drop_partition(self, partition_id: int) -> PartitionRow:
        """Forget a kept partition; return what it was."""
        return self._write(lambda connection: stored_partitions.drop_partition(connection, partition_id))

    def find_class(self, identity: str) -> tuple[PartitionRow, int, StoredClass]:
        """Return a kept class by its identity or the beginning of it: its partition, its number, itself."""
        return self._read(lambda connection: stored_partitions.find_class(connection, identity))

    def classes_with(self, model_id: int) -> list[tuple[PartitionKey, str, int]]:
        """Return the kept classes that a model is in: terms, identity, number of members."""
        return self._read(lambda connection: stored_partitions.classes_with(connection, model_id))
