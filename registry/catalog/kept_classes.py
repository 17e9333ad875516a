"""``Registry.partitions``: the partitions that the database keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry.catalog.arguments import text, whole
from registry.errors import SpecMismatchError
from registry.types import KeptPartition, Partition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.catalog.database import Database
    from registry.storage import PartitionRow, Store

__all__ = ["KeptClasses"]


class KeptClasses:
    """The partitions that ``Registry.classes`` kept, with their equivalence classes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> tuple[KeptPartition, ...]:
        """Return the kept partitions, the newest first."""
        from registry.storage.equivalence.stored_partitions import all_partitions

        with self._database.lock:
            store = self._database.readable()
            labels = _labels(store)
            return tuple(_partition(row, labels) for row in store.read(all_partitions))

    def get(self, identity: str) -> Partition:
        """Return the partition with the equivalence class of that identity, with this class alone.

        ``identity``: may be abbreviated. The partition has the state of ``created``: later models are not in it, and
        models removed since are left out. Raises ``UnknownClassError``, or ``AmbiguousError`` if several identities
        begin with it.
        """
        from registry.catalog.partitioning import ASSUMED, model_class
        from registry.catalog.search_settings import settings_for
        from registry.storage.equivalence.stored_partitions import find_class
        from registry.storage.models.summaries import read_summaries
        from registry.storage.models.vectors import all_specs

        text(identity, "identity")
        with self._database.lock, self._database.readable().snapshot():
            store = self._database.readable()
            row, number, found = store.read(find_class, identity)
            spec = next((spec for spec in store.read(all_specs) if spec.hash == row.key.spec_hash), None)
            if spec is None:
                raise SpecMismatchError(
                    f"the definition of the fingerprint {row.key.spec_hash} cannot be read",
                    "use the version that stored it",
                )
            settings = settings_for(store, spec, row.key.distance, row.key.tolerance)
            models = {model.id: model for model in store.read(read_summaries, ids=found.members)}
        return Partition(
            spec=spec,
            distance=row.key.distance,
            tolerance=row.key.tolerance,
            rate=settings.rate,
            models=row.models,
            classes=(model_class(number, found, models),),
            rule=row.key.rule,
            calibration=settings.calibration,
            kept=True,
            created=row.created.isoformat(timespec="seconds"),
            assume_trained=ASSUMED in json.loads(row.key.scope),
        )

    def forget(self, partition_id: int) -> KeptPartition:
        """Delete the kept partition with that ``id``, its equivalence classes and their identities; return it.

        The next call of ``Registry.classes`` with the same settings forms new classes. Raises ``UnknownClassError``.
        """
        from registry.storage.equivalence.stored_partitions import drop_partition

        with self._database.lock:
            store = self._database.writable()
            row = store.write(drop_partition, whole(partition_id, "partition_id"))
            return _partition(row, _labels(store))


def _labels(store: Store) -> dict[str, str]:
    """Of the stored specs that can be read, by their hashes; the others are shown by the hash."""
    from registry.storage.models.vectors import all_specs

    return {spec.hash: spec.label for spec in store.read(all_specs)}


def _partition(row: PartitionRow, labels: Mapping[str, str]) -> KeptPartition:
    return KeptPartition(
        id=row.id,
        fingerprint=labels.get(row.key.spec_hash, row.key.spec_hash),
        distance=row.key.distance,
        tolerance=row.key.tolerance,
        rule=row.key.rule,
        scope=tuple((name, str(value)) for name, value in json.loads(row.key.scope).items()),
        models=row.models,
        classes=row.classes,
        created=row.created.isoformat(timespec="seconds"),
    )
