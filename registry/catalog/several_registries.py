"""Class ``Among``: one question to several registries, the catalogue among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from registry.catalog.arguments import filter_of, metric_bounds, refuse_unknown, several, text, whole
from registry.catalog.bounds import smaller, with_max_ratio
from registry.catalog.database import Database
from registry.catalog.objectives import DISTANCE, OPERATIONS, SIZES, SMALL, UnknownValueError, front, parse_aim
from registry.catalog.search_settings import settings_for
from registry.catalog.searching import SearchLimits
from registry.catalog.subjects import asked_once, shapes_for
from registry.errors import UsageError, WeightsNotReadError
from registry.spectral.specs import LAYERED, SHAPES, spec_named
from registry.spelling import folded
from registry.types import AmongCompression, AmongSearch, Filter, Removal, Selected, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Never, Unpack

    from registry.architectures.catalogue_file import Catalogue
    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query, QueryInput
    from registry.storage import Store
    from registry.types import Aim, Choice, Compression, Filters, FingerprintSpec, Identified, ModelSummary, Search

__all__ = ["Among"]

_ALL = 10**9  # more rows than any registry has


@dataclass(frozen=True, slots=True)
class _Part:
    """A registry that is asked: its label, and its opened store or the opened catalogue."""

    label: str
    store: Store | None
    catalogue: Catalogue | None

    @property
    def models(self) -> Store:
        """The store of a registry of models. Raises ``UsageError`` for the catalogue."""
        if self.store is None:
            raise UsageError(f"{self.label} holds no models")
        return self.store


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A registry with the network of a question as it compares it, and the settings for all that are asked alike."""

    part: _Part
    query: Query
    settings: SearchSettings
    where: Filter


class Among:
    """Several registries that are asked one question: ``Among("published:", "catalogue:", "team.db")``.

    Each is an address that ``Registry`` takes; ``catalogue:`` may be one. They are opened at the first question, all of
    them before anything else is read. A file that is asked about is read and measured once. Registries of models
    compare weights, by ``layered``; the catalogue compares shapes alone, as all do where the weights of the query were
    not read. Distances of the two kinds are on different scales: an answer keeps them apart, and gives each row's
    distance as a fraction of the tolerance of its fingerprint.

    One tolerance holds for all registries of a kind: the given one, else that of the shipped calibration for the number
    of models in all of them. Calibrations of their own are not used. A model that several hold, by its content hash, is
    one row; its ``registries`` name them all. Indexes are not used.
    """

    def __init__(self, *registries: str | Path) -> None:
        if not registries:
            raise UsageError("no registry is named", 'write Among("published:", "catalogue:", "team.db")')
        self._databases = [Database(each) for each in registries]
        labels = [database.label for database in self._databases]
        if twice := [label for label, count in Counter(labels).items() if count > 1]:
            raise UsageError(f"{twice[0]} is named twice", "name each registry once")
        self.registries = tuple(labels)
        self._lock = RLock()  # threads share the connections

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all registries; the next question opens them again."""
        with self._lock:
            for database in self._databases:
                database.close()

    def nearest(
        self,
        query: QueryInput,
        k: int | None = None,
        *,
        radius: float | None = None,
        equivalent: bool = False,
        relations: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        **filters: Unpack[Filters],
    ) -> AmongSearch:
        """Find the models and architectures nearest to a query model: at most ``k`` by weights and ``k`` by shapes.

        The query itself is left out. The arguments are those of ``Registry.search``. Raises as that, and ``UsageError``
        for a filter that one of the registries cannot answer, such as tags in the catalogue.
        """
        from registry.catalog.catalogue_search import nearest_architectures
        from registry.catalog.searching import answered, gallery_of

        limits = SearchLimits(k, radius, equivalent, exact=True, relations=relations)

        def ask(asked: _Asked) -> Search:
            if asked.part.catalogue is not None:
                return nearest_architectures(asked.part.catalogue, asked.query, asked.settings, asked.where, limits)
            gallery = gallery_of(asked.part.models, asked.query, asked.settings, asked.where)
            return answered(gallery, gallery.nearest(limits.k, radius, equivalent=equivalent), limits)

        with self._lock:
            model, kinds = self._asked(
                query, fingerprint, distance, tolerance, assume_trained, filters, lambda _, where: where
            )
            found = [_joined_search([(each, ask(each)) for each in kind], limits) for kind in kinds]
        return AmongSearch(model, self.registries, *found)

    def identify(
        self,
        references: QueryInput | Sequence[QueryInput],
        *,
        k: int = 5,
        key: str | None = None,
        headers_only: bool = False,
        **unknown: Never,
    ) -> Identified:
        """Tell what models are: the arguments, answer and errors of ``Registry.identify``.

        Registries of models say which models have related or the same weights; architectures are looked up where
        ``catalogue:`` is among those named. ``published:`` is asked only if it is named.
        """
        from registry.catalog.identifying import ARCHITECTURES, asking_of, identify

        refuse_unknown(unknown)
        asked, asking = asking_of(references, k=k, key=key, headers_only=headers_only)
        with self._lock:
            return identify(self._databases, asked, asking, catalogued=ARCHITECTURES in self.registries)

    def compress(
        self,
        query: QueryInput,
        *,
        max_ratio: float | None = None,
        k: int = 10,
        explain: bool = False,
        relations: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        **filters: Unpack[Filters],
    ) -> AmongCompression:
        """Find smaller models and architectures that are equivalent to a query model, apart by weights and by shapes.

        The arguments are those of ``Registry.compress``; of each kind at most ``k`` are returned. Raises as `nearest`.
        """
        from registry.catalog.catalogue_search import compress_to_architectures
        from registry.catalog.compressing import compress

        whole(k, "k", 1)

        def ask(asked: _Asked) -> Compression:
            part, settings = asked.part, asked.settings
            if part.catalogue is not None:
                return compress_to_architectures(
                    part.catalogue, asked.query, settings, asked.where, k, max_ratio=max_ratio
                )
            return compress(
                part.models,
                asked.query,
                settings,
                asked.where,
                k,
                max_ratio=max_ratio,
                explain=explain,
                relations=relations,
            )

        def searched(model: ModelSummary, where: Filter) -> Filter:
            return smaller(model, with_max_ratio(model, where, max_ratio))

        with self._lock:
            model, kinds = self._asked(query, fingerprint, distance, tolerance, assume_trained, filters, searched)
            found = [_joined_compression([(each, ask(each)) for each in kind], k) for kind in kinds]
        return AmongCompression(model, self.registries, *found)

    def select(
        self,
        *,
        aims: Sequence[str] = (),
        like: QueryInput | None = None,
        min_metric: Mapping[str, float] | None = None,
        max_metric: Mapping[str, float] | None = None,
        k: int = 20,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        **filters: Unpack[Filters],
    ) -> Selection:
        """Find the Pareto front of the aims over all the registries, as ``Registry.select`` does in one.

        An aim is one quantity in all of them: a metric of one data set and split; and neither ``gflops`` nor ``gmacs``
        where models and the catalogue are asked. Without aims and bounds on metrics, those of the registry whose most
        common metric is known for the most models that pass. A registry in which no model that passes has a value for
        an aim adds none, and all of them are counted as unknown. Equivalence classes are those within a registry.

        Raises as ``Registry.select``, and ``UsageError`` where the registries would mean different things by an aim.
        """
        wanted = [parse_aim(text(aim, "an aim")) for aim in several(aims, "aims")]
        if bounds := metric_bounds(min_metric or {}, max_metric or {}):
            filters["metrics"] = (*several(filters.get("metrics") or (), "metrics"), *bounds)
        whole(k, "k", 1)
        with self._lock:
            asked, model = self._selected(like, fingerprint, distance, tolerance, assume_trained, filters)
            return _selected_among(asked, model, wanted, k)

    def _opened(self) -> list[_Part]:
        """All registries, opened. Raises the error of the first that cannot be, or that holds nothing."""
        parts = []
        for label, database in zip(self.registries, self._databases, strict=True):
            catalogue = database.catalogue()
            store = None if catalogue is not None else database.readable()
            if store is not None:
                from registry.storage.models.model_queries import require_models

                store.read(require_models)
            parts.append(_Part(label, store, catalogue))
        return parts

    def _asked(
        self,
        reference: QueryInput,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        assume_trained: bool,
        filters: Filters,
        searched: Callable[[ModelSummary, Filter], Filter],
    ) -> tuple[ModelSummary, tuple[list[_Asked], list[_Asked]]]:
        """The model, and the registries that compare weights and those that compare shapes.

        ``searched``: the filter for the models that are searched, of the model and the filter that was given.
        """
        where = _filter(filters)
        parts, spec = self._opened(), spec_named(fingerprint)
        subject = _subject(parts, reference)
        by_kind: tuple[list[_Asked], list[_Asked]] = ([], [])
        for part in parts:
            own, query = _for_part(part, spec, subject)
            settings = settings_for(None, own, distance, tolerance, assume_trained=assume_trained)
            by_kind[settings.by_shapes].append(_Asked(part, query, settings, where))
        for kind in by_kind:
            counts = [_count(each, searched(each.query.model(), each.where)) for each in kind]
            kind[:] = [
                replace(each, settings=replace(each.settings, besides=sum(counts) - count))
                for each, count in zip(kind, counts, strict=True)
            ]
        return (by_kind[0] or by_kind[1])[0].query.model(), by_kind

    def _selected(
        self,
        like: QueryInput | None,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        assume_trained: bool,
        filters: Filters,
    ) -> tuple[list[_Asked], ModelSummary | None]:
        if like is not None:
            model, kinds = self._asked(
                like, fingerprint, distance, tolerance, assume_trained, filters, lambda _, where: where
            )
            return [*kinds[0], *kinds[1]], model
        where, spec = _filter(filters), spec_named(fingerprint)
        found = []
        for part in self._opened():
            own = SHAPES if part.catalogue is not None and spec == LAYERED else spec
            limit = None if part.catalogue is not None else tolerance
            settings = settings_for(None, own, distance, limit, assume_trained=assume_trained)
            found.append(_Asked(part, _NOBODY, settings, where))
        return found, None


_NOBODY: Any = None


def _subject(parts: Sequence[_Part], reference: QueryInput) -> Callable[[FingerprintSpec], Query]:
    """The network of the question by spec: a name in the first registry that has it, else what is read once."""
    from registry.catalog.catalogue_search import query_of

    stores = [part.store for part in parts if part.store is not None]
    for part in parts:
        if part.catalogue is not None and isinstance(reference, str) and part.catalogue.named(reference):
            named = query_of(part.catalogue, reference)
            return lambda wanted: _by_shapes(named, wanted)
        if part.store is not None and isinstance(reference, str):
            from registry.storage.models.model_queries import has_name

            if part.store.read(has_name, reference):
                return asked_once([part.store], reference)
    if stores:
        return asked_once(stores, reference)
    [alone] = (query_of(part.catalogue, reference) for part in parts if part.catalogue is not None)
    return lambda wanted: _by_shapes(alone, wanted)


def _by_shapes(query: Query, spec: FingerprintSpec) -> Query:
    if spec != SHAPES:
        raise WeightsNotReadError(
            f"of {query.model().name} shapes alone are known, and {spec.label} compares weights",
            f"use the fingerprint {SHAPES.name}",
        )
    return query


def _for_part(
    part: _Part, spec: FingerprintSpec, subject: Callable[[FingerprintSpec], Query]
) -> tuple[FingerprintSpec, Query]:
    """The fingerprint by which a registry answers, and the network as its own model where it holds it."""
    if part.catalogue is not None:
        if spec not in (LAYERED, SHAPES):
            raise UsageError("the catalogue knows shapes and no weights", f"use the fingerprint {SHAPES.name}")
        query = subject(SHAPES)
        model = query.model()
        if model.catalogue is None:
            query = replace(query, id=0)
        return SHAPES, query
    from registry.storage.models.summaries import find_content

    try:
        query = subject(spec)
    except WeightsNotReadError as error:
        spec = shapes_for(spec, error)
        query = subject(spec)
    content = query.model().content_hash
    own = part.models.read(find_content, content) if content else None
    return spec, replace(query, id=0 if own is None else own.id)


def _filter(filters: Filters) -> Filter:
    """The filter of those keywords. Raises ``UsageError`` for one of relations: it is of the models of one registry."""
    where = filter_of(filters)
    if where.related_to is not None or where.unrelated_to is not None:
        raise UsageError("several registries are not filtered by relations", "ask one of them: --db REGISTRY")
    return where


def _count(asked: _Asked, where: Filter) -> int:
    """How many models of a registry are searched."""
    if asked.part.catalogue is not None:
        from registry.catalog.catalogue_search import count_classes

        return count_classes(asked.part.catalogue, asked.query, where)
    from registry.catalog.searching import gallery_of

    return gallery_of(asked.part.models, asked.query, asked.settings, where).searched


def _selected_among(asked: Sequence[_Asked], model: ModelSummary | None, wanted: list[Aim], k: int) -> Selection:
    """The front of the aims over the registries; ``model``: that of ``like``, None without one."""
    if any(aim.what == DISTANCE for aim in wanted) and len({each.settings.by_shapes for each in asked}) > 1:
        raise UsageError(
            "distances by weights and by shapes are on different scales and cannot be one aim",
            "drop the aim distance, or ask registries of one kind",
        )
    if len({each.part.catalogue is None for each in asked}) > 1:
        for aim in wanted:
            if aim.what in OPERATIONS:
                why, _ = OPERATIONS[aim.what]
                alone = "the catalogue" if aim.what == "gmacs" else "registries of models"
                raise UsageError(why, f"drop the aim {aim.what}, or ask {alone} alone")
    if not wanted and not asked[0].where.metrics:
        wanted = _commonest(asked, model is not None)
    found: list[tuple[_Asked, Selection]] = []
    lacking: list[tuple[_Asked, UnknownValueError]] = []
    for each in asked:
        try:
            answer = _select_in(each, wanted, model is not None)
        except UnknownValueError as error:
            lacking.append((each, error))
            continue
        wanted = wanted or list(answer.aims)
        found.append((each, answer))
    chosen = next((answer.aims for _, answer in found if answer.aims), ())
    if lacking and not chosen:
        raise lacking[0][1]
    found += [(each, _left_out(each, error.aim, chosen, model is not None)) for each, error in lacking]
    return _joined_selection(found, model, k)


def _select_in(asked: _Asked, aims: Sequence[Aim], like: bool) -> Selection:
    part, settings = asked.part, asked.settings
    if part.catalogue is not None:
        from registry.catalog.catalogue_search import like_in_catalogue
        from registry.catalog.catalogue_selection import select_architectures

        likeness = like_in_catalogue(part.catalogue, asked.query, settings) if like else None
        return select_architectures(part.catalogue, settings, asked.where, aims, likeness, _ALL)
    from registry.catalog.selecting import select

    return select(part.models, settings, asked.where, aims, asked.query if like else None, _ALL)


def _commonest(asked: Sequence[_Asked], like: bool) -> list[Aim]:
    """The default aims of the registry whose first is known for the most models that pass; metrics come first.

    Without the distance where it is of two kinds.
    """
    found: list[tuple[bool, int, Sequence[Aim]]] = []
    for each in asked:
        answer = _select_in(each, (), like)
        if answer.aims:
            first = answer.aims[0]
            known = answer.passed - dict(answer.unknown).get(first.label, 0)
            found.append((first.what not in (DISTANCE, *SIZES.values()), known, answer.aims))
    if not found:
        return []
    _, _, aims = max(found, key=lambda one: one[:2])
    several = len({each.settings.by_shapes for each in asked}) > 1
    return [aim for aim in aims if not (several and aim.what == DISTANCE)]


def _left_out(asked: _Asked, lacking: Aim, aims: Sequence[Aim], like: bool) -> Selection:
    """The answer of a registry in which no model that passes has a value for an aim: all are counted as unknown."""
    found = _select_in(asked, [SMALL], like)
    label = next((aim.label for aim in aims if folded(aim.what) == folded(lacking.what)), aims[0].label)
    return replace(found, aims=(), unknown=((label, found.passed),), on_front=0, count=0, classes=())


def _labelled(model: ModelSummary, labels: Iterable[str]) -> ModelSummary:
    return replace(model, registries=tuple(labels))


def _once(rows: Iterable[tuple[str, Any]]) -> list[Any]:
    """Rows with a ``model``, each with the label of its registry; those of one content are one, with all labels."""
    found: dict[tuple[str, object], tuple[list[str], Any]] = {}
    for label, row in rows:
        content = row.model.content_hash
        key = ("content", content) if content and row.model.weights_read else (label, id(row))
        if label not in found.setdefault(key, ([], row))[0]:
            found[key][0].append(label)
    return [replace(row, model=_labelled(row.model, labels)) for labels, row in found.values()]


def _joined_search(answers: Sequence[tuple[_Asked, Search]], limits: SearchLimits) -> Search | None:
    """The answers of registries of one kind as one, the nearest first."""
    if not answers:
        return None
    first = answers[0][1]
    rows = _once((asked.part.label, near) for asked, found in answers for near in found.neighbours)
    return replace(
        first,
        searched=sum(found.searched for _, found in answers),
        neighbours=tuple(sorted(rows, key=lambda near: near.distance)[: limits.k]),
        unknown=sum(found.unknown for _, found in answers),
        note=_notes(found.note for _, found in answers),
        older=sum(found.older for _, found in answers),
    )


def _notes(notes: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(filter(None, notes)))


def _joined_compression(answers: Sequence[tuple[_Asked, Compression]], k: int) -> Compression | None:
    from registry.catalog.compressing import size_of

    if not answers:
        return None
    first = answers[0][1]
    equivalent = any(found.equivalent for _, found in answers)
    rows = _once(
        (asked.part.label, each)
        for asked, found in answers
        if found.equivalent == equivalent
        for each in found.candidates
    )
    where = answers[0][0].where
    if equivalent:
        rows.sort(key=lambda each: (*size_of(each.model, where), each.verdict.distance))
    else:
        rows.sort(key=lambda each: each.verdict.distance)
    return replace(
        first,
        searched=sum(found.searched for _, found in answers),
        equivalent=equivalent,
        candidates=tuple(rows[:k]),
        removals=() if rows else _summed(found.removals for _, found in answers),
        note=_notes(found.note for _, found in answers),
        older=sum(found.older for _, found in answers),
    )


def _summed(removals: Iterable[Sequence[Removal]]) -> tuple[Removal, ...]:
    """What each constraint removes in all registries."""
    found: dict[str, Removal] = {}
    for removal in (each for one in removals for each in one):
        had = found.get(removal.constraint)
        if had is None:
            found[removal.constraint] = removal
        else:
            found[removal.constraint] = replace(
                had,
                removes=had.removes + removal.removes,
                without=had.without + removal.without,
                unknown=had.unknown + removal.unknown,
                near=tuple(dict.fromkeys((*had.near, *removal.near))),
            )
    return tuple(found.values())


def _joined_selection(answers: Sequence[tuple[_Asked, Selection]], like: ModelSummary | None, k: int) -> Selection:
    """One front of the fronts of the registries: what is beaten in one of them is on no front of all."""
    places: dict[tuple[str, ...], str] = {}
    for asked, found in answers:
        if found.aims:
            places.setdefault(tuple(aim.place for aim in found.aims), asked.part.label)
    if len(places) > 1:
        told = " and ".join(f"{', '.join(place)} in {label}" for place, label in places.items())
        raise UsageError(f"the aims are {told}", "name data set and split: --aim max:top1@imagenet-1k/val")
    groups = [(asked.part.label, group) for asked, found in answers for group in found.classes]
    choices = _once((label, choice) for label, group in groups for choice in (group.best, *group.others))
    aims = next((found.aims for _, found in answers if found.aims), ())
    values = np.array([choice.values for choice in choices]).reshape(len(choices), len(aims))
    order = {id_: at for at, id_ in enumerate(_key(choices[row]) for row in front(values, aims).tolist())}
    by_key = {_key(choice): choice for choice in choices}
    classes: list[Selected] = []
    shown: set[object] = set()
    for label, group in groups:
        keys = [_key(replace(one, model=_labelled(one.model, [label]))) for one in (group.best, *group.others)]
        kept = [key for key in dict.fromkeys(keys) if key in order and key not in shown]
        shown.update(kept)
        if kept:
            best = min(kept, key=lambda key: (by_key[key].model.parameters, by_key[key].model.bytes, order[key]))
            others = sorted((key for key in kept if key != best), key=order.__getitem__)
            classes.append(Selected(by_key[best], tuple(by_key[key] for key in others)))
    classes.sort(key=lambda one: min(order[_key(each)] for each in (one.best, *one.others)))
    unknown: Counter[str] = Counter()
    for _, found in answers:
        unknown.update(dict(found.unknown))
    first = answers[0][1]
    return replace(
        first,
        aims=aims,
        like=like,
        models=sum(found.models for _, found in answers),
        passed=sum(found.passed for _, found in answers),
        searched=sum(found.searched for _, found in answers),
        unknown=tuple(unknown.items()),
        on_front=len(order),
        count=len(classes),
        classes=tuple(classes[:k]),
        removals=() if classes else _summed(found.removals for _, found in answers),
        older=sum(found.older for _, found in answers),
        assume_trained=any(found.assume_trained for _, found in answers),
        unit="row" if any(found.unit == "row" for _, found in answers) else "model",
    )


def _key(choice: Choice) -> tuple[object, ...]:
    """What makes a choice the same in several registries: its content; else its registry and its place there."""
    model = choice.model
    if model.content_hash and model.weights_read:
        return ("content", model.content_hash)
    return (model.registries[0], model.id, model.name)
