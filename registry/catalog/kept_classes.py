"""``Registry.partitions``: the classes of equivalents that the database keeps."""

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
    """The partitions that ``Registry.classes`` kept, and the classes in them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> tuple[KeptPartition, ...]:
        """The partitions that the database holds, the newest first."""
        from registry.storage.equivalence.stored_partitions import all_partitions

        with self._database.lock:
            store = self._database.readable()
            labels = _labels(store)
            return tuple(_partition(row, labels) for row in store.read(all_partitions))

    def get(self, identity: str) -> Partition:
        """The partition that has the class of that identity, or the beginning of one, with that class alone.

        It is as of ``created``: models removed since are left out, models added since are not in it.

        Raises ``UnknownClassError``, or ``AmbiguousError`` where several identities start so.
        """
        from registry.catalog.partitioning import model_class
        from registry.catalog.search_settings import terms
        from registry.storage.equivalence.stored_partitions import find_class
        from registry.storage.models.summaries import read_summaries
        from registry.storage.models.vectors import all_specs

        text(identity, "identity")
        with self._database.lock:
            store = self._database.readable()
            row, number, found = store.read(find_class, identity)
            spec = next((spec for spec in store.read(all_specs) if spec.hash == row.key.spec_hash), None)
            if spec is None:
                raise SpecMismatchError(
                    f"the definition of the fingerprint {row.key.spec_hash} cannot be read",
                    "use the version that stored it",
                )
            by = terms(store, spec, row.key.distance, row.key.tolerance)
            models = {model.id: model for model in store.read(read_summaries, ids=found.members)}
        return Partition(
            spec=spec,
            distance=row.key.distance,
            tolerance=row.key.tolerance,
            rate=by.rate,
            models=row.models,
            classes=(model_class(number, found, models),),
            rule=row.key.rule,
            calibration=by.calibration,
            kept=True,
            created=row.created.isoformat(timespec="seconds"),
        )

    def forget(self, partition_id: int) -> KeptPartition:
        """Forget the kept partition of that ``id``, with its classes and their identities; returns what it was.

        Classes by the same terms are made anew when next asked for. Raises ``UnknownClassError``.
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
