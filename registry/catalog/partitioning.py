"""Partitions of stored models into equivalence classes, kept in the database and read back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from registry.catalog.search_settings import older_among, passing, summaries_of, vectors_of
from registry.equivalence import inherited, rule_for, sorted_into_groups
from registry.errors import StorageError
from registry.storage import PartitionKey, StoredClass
from registry.storage.equivalence.stored_partitions import find_partition, put_partition
from registry.types import Filter, ModelClass, Partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.database import Database
    from registry.catalog.search_settings import SearchSettings
    from registry.equivalence import Rule
    from registry.storage import Store, StoredPartition
    from registry.types import ModelSummary

__all__ = ["ASSUMED", "classes_of", "model_class"]

ASSUMED = "assume_trained"  # key of a scope, beside the fields of the filter

DIGITS = 12  # hexadecimal digits of an identity
# Summary fields that members can have in common.
SHARED = ("family", "architecture", "topology", "task", "dataset", "licence", "source")


def classes_of(
    database: Database, settings: SearchSettings, where: Filter, *, rule: str | None, keep: bool
) -> Partition:
    """Partition the models that match the filter, or read back the kept partition; see ``Registry.classes``.

    Takes O(n d) to detect that nothing has changed; else the cost of the linkage rule.
    """
    store = database.readable()
    subject = _subject(store, settings, where)
    older = older_among(store, settings.spec, passing(store, where))
    by_rule = rule_for(rule, len(subject.ids))
    scope = _scope(where, settings)
    key = PartitionKey(settings.spec.hash, settings.distance.name, by_rule.name, settings.limit, scope)
    mark, note = subject.mark(), ""
    stored = store.read(find_partition, key)
    if stored is not None and stored.mark == mark:
        classes = stored.classes
    else:
        made = _Made(key, subject.sorted_by(settings, by_rule), subject.hashes())
        before = stored
        stored, note = _kept(database, made, mark) if keep and made.classes else (None, "")
        classes = made.named(_members(before)) if stored is None else stored.classes
    return Partition(
        spec=settings.spec,
        distance=settings.distance.name,
        tolerance=settings.limit,
        rate=settings.rate,
        models=len(subject.ids),
        classes=tuple(model_class(number, each, subject.models) for number, each in enumerate(classes, 1)),
        rule=by_rule.name,
        calibration=settings.calibration,
        kept=stored is not None,
        created="" if stored is None else stored.created.isoformat(timespec="seconds"),
        note=note,
        older=older,
        assume_trained=settings.assume_trained,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """The models to partition: ids (n,), vectors (n, d), training classes (n,) as judged, and summaries by id."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    trainings: list[str]
    models: Mapping[int, ModelSummary]

    def mark(self) -> str:
        """A hash of everything that determines the equivalence classes."""
        found = hashlib.sha256(json.dumps(self.trainings).encode())
        found.update(self.ids.astype("<i8").tobytes())
        found.update(self.vectors.astype("<f4", copy=False).tobytes())
        return found.hexdigest()

    def hashes(self) -> dict[int, str]:
        return {model: self.models[model].content_hash for model in self.models}

    def sorted_by(self, settings: SearchSettings, rule: Rule) -> tuple[StoredClass, ...]:
        groups = sorted_into_groups(self.vectors, self.trainings, settings.distance, settings.limit, rule)
        return tuple(
            StoredClass(
                identity="",
                medoid=int(self.ids[group.medoid]),
                diameter=group.diameter,
                bounded=group.bounded,
                tail_class=""
                if settings.by_shapes
                else _tail([self.models[model] for model in self.ids[list(group.members)].tolist()]),
                training_class=self.trainings[group.medoid],
                members=tuple(self.ids[list(group.members)].tolist()),
            )
            for group in groups
        )


def _subject(store: Store, settings: SearchSettings, where: Filter) -> _Subject:
    ids, vectors = vectors_of(store, settings.spec, where)
    models = {model.id: model for model in summaries_of(store, ids.tolist())}
    trainings = ["" if settings.by_shapes else settings.judged(models[model].training_class) for model in ids.tolist()]
    return _Subject(ids, vectors, trainings, models)


def _tail(members: Sequence[ModelSummary]) -> str:
    """The tail class of the members, ``mixed`` where they have different ones."""
    tails = {model.tail_class for model in members}
    return tails.pop() if len(tails) == 1 else "mixed"


def _scope(where: Filter, settings: SearchSettings) -> str:
    """The filter, and how training classes were judged where that is not the default, as canonical JSON."""
    named = {name: str(kin) for name in ("related_to", "unrelated_to") if (kin := getattr(where, name)) is not None}
    rest = asdict(replace(where, related_to=None, unrelated_to=None))
    given = {name: value for name, value in rest.items() if value != getattr(Filter(), name)}
    judged = {ASSUMED: "yes"} if settings.assume_trained else {}
    return json.dumps(given | named | judged, sort_keys=True)


@dataclass(frozen=True, slots=True)
class _Made:
    """New equivalence classes without identities; ``hashes``: content hashes of the models by id."""

    key: PartitionKey
    classes: tuple[StoredClass, ...]
    hashes: Mapping[int, str]

    def identities(self, before: Mapping[str, Sequence[int]]) -> list[str]:
        """Inherited identities, and new ones: a hash of the settings and the content hash of the medoid."""

        def new(place: int, tries: int) -> str:
            medoid = self.classes[place].medoid
            words = [*asdict(self.key).values(), "" if medoid is None else self.hashes[medoid], tries]
            return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:DIGITS]

        return inherited([each.members for each in self.classes], before, new)

    def named(self, before: Mapping[str, Sequence[int]]) -> tuple[StoredClass, ...]:
        """The equivalence classes with their identities."""
        identities = self.identities(before)
        return tuple(replace(each, identity=own) for each, own in zip(self.classes, identities, strict=True))


def _members(stored: StoredPartition | None) -> dict[str, tuple[int, ...]]:
    return {} if stored is None else {each.identity: each.members for each in stored.classes}


def _kept(database: Database, made: _Made, mark: str) -> tuple[StoredPartition | None, str]:
    """Store the equivalence classes. Returns what is stored; or None and the reason, so that the answer is not lost."""
    try:
        stored = database.writable().write(put_partition, made.key, mark, made.classes, made.identities)
    except StorageError as error:
        # The next use opens the database for reading only.
        database.close()
        return None, error.message
    return stored, "" if stored is not None else "models were removed during the computation"


def model_class(number: int, each: StoredClass, models: Mapping[int, ModelSummary]) -> ModelClass:
    """A stored equivalence class with its present members, and the fields that they have in common."""
    members = tuple(models[model] for model in each.members)
    first = members[0]
    common = {name: str(getattr(first, name)) for name in SHARED}
    return ModelClass(
        number=number,
        identity=each.identity,
        medoid="" if each.medoid is None else models[each.medoid].name,
        diameter=each.diameter,
        members=members,
        training_class=each.training_class,
        tail_class=each.tail_class,
        shared=tuple(
            (name, value)
            for name, value in common.items()
            if value and all(getattr(member, name) == value for member in members)
        ),
        bounded=each.bounded,
    )
