"""Class ``Registry``: every use case by its name. Each method opens, loads and imports no more than it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from registry.catalog.database import Database
from registry.errors import UsageError
from registry.types import Filter, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from registry.catalog.asking import Terms
    from registry.catalog.queries import Query
    from registry.ingest import Progress
    from registry.plots import Axes
    from registry.spectral.difference import Scale
    from registry.storage import Store
    from registry.types import (
        Comparison,
        Compression,
        FingerprintSpec,
        Ingested,
        Metric,
        ModelDetails,
        ModelRef,
        ModelSummary,
        Neighbour,
        Partition,
        Search,
        Spectrum,
        Stats,
        Verdict,
    )

__all__ = ["Registry"]


class Registry:
    """A registry in a database, SQLite or Postgres.

    ``url``: an SQLAlchemy URL or the path of an SQLite file; None for the environment's ``ARCHREG_DB``, else
    ``archreg.db`` in the working folder. Nothing is opened before the first question. A question to a missing database
    raises ``DatabaseMissingError``; ``ingest`` alone creates one. Not shared between threads.

    Questions take a stored name, a reference such as ``torchvision:resnet50`` or a path. ``fingerprint`` is ``layered``
    or ``mme``; ``metric`` one of ``l1``, ``l2``, ``linf``; ``accuracy`` a distance, the calibrated one by default;
    further keywords are the fields of ``Filter``.
    """

    def __init__(self, url: str | Path | None = None) -> None:
        self._database = Database(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        self._database.close()

    # Filling

    def plan(
        self,
        references: Sequence[str | Path] = (),
        *,
        manifest: str | Path | None = None,
        key: str | None = None,
        seed: int = 0,
        name: str | None = None,
        card: ModelCard = ModelCard(),  # noqa: B008  # frozen
    ) -> tuple[ModelRef, ...]:
        """The models that the references and the manifest mean, nothing read or downloaded.

        ``key``: entry of a wrapped checkpoint to read; ``seed``: of random initialisations; ``name``: for a single
        model; ``card``: laid over what sources and manifest say.

        Raises ``NotFoundError``, ``AmbiguousError`` or ``UsageError`` naming the reference.
        """
        from registry.catalog.filling import expand_all

        path = None if manifest is None else Path(manifest)
        return expand_all(references, path, key=key, seed=seed, name=name, card=card)

    def ingest_all(
        self,
        refs: Sequence[ModelRef],
        *,
        replace: bool = False,
        keep_spectra: bool = True,
        discard_weights: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Ingested, ...]:
        """Ingest planned models, a transaction each; a model that fails is a ``failed`` item and the rest go on.

        Raises ``StorageError`` where the database itself refuses; what was stored before stays.
        """
        from registry.catalog.filling import Options, ingest_checkpoint
        from registry.ingest import run
        from registry.sources import discard, open_ref

        options = Options(replace, keep_spectra)

        def work(ref: ModelRef) -> Ingested:
            with open_ref(ref) as checkpoint:
                result = ingest_checkpoint(self._database, checkpoint, options)
            if discard_weights:
                discard(ref)
            return result

        # Fail before an hour of spectra rather than after it: an existing database must open now.
        self._database.existing()
        return run(refs, work, progress)

    def ingest(
        self,
        reference: str | Path | torch.nn.Module,
        *,
        name: str | None = None,
        key: str | None = None,
        seed: int = 0,
        replace: bool = False,
        keep_spectra: bool = True,
        **card: Any,
    ) -> Ingested:
        """Ingest one model: a reference, a path, or a live module (which needs a ``name``).

        ``key`` and ``seed`` are those of ``plan`` and go with references; ``card``: fields of ``ModelCard``.

        Raises ``SourceError``, ``SpectrumError``, ``NameTakenError``, ``UsageError`` or ``StorageError``; then nothing
        was stored.
        """
        from registry.catalog.filling import Options, expand_all, ingest_checkpoint
        from registry.sources import open_module, open_ref

        options = Options(replace, keep_spectra)
        known = _card(card)
        if isinstance(reference, str | Path):
            refs = expand_all([reference], None, key=key, seed=seed, name=name, card=known)
            if len(refs) != 1:
                raise UsageError(f"{reference} is {len(refs)} models", "use plan() and ingest_all() for several")
            with open_ref(refs[0]) as checkpoint:
                return ingest_checkpoint(self._database, checkpoint, options)
        if not name:
            raise UsageError("a live module needs a name", 'give one: ingest(module, name="my-model")')
        with open_module(reference, name, known) as checkpoint:
            return ingest_checkpoint(self._database, checkpoint, options)

    def refingerprint(
        self, *, fingerprint: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Compute missing fingerprints of the shipped specs from stored spectra; returns how many. Resumable.

        Raises ``SpecMismatchError`` naming the models whose weights have to be ingested again.
        """
        from registry.catalog.filling import refingerprint
        from registry.spectral.specs import SPECS

        specs = tuple(SPECS.values()) if fingerprint is None else (_spec(fingerprint),)
        return refingerprint(self._database, specs, progress)

    # Asking

    def nearest(
        self,
        query: str | Path,
        k: int = 10,
        *,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
        equivalent: bool = False,
        **filters: Any,
    ) -> tuple[Neighbour, ...]:
        """The neighbours that ``search`` finds, without what it says of the search."""
        return self.search(
            query, k, fingerprint=fingerprint, metric=metric, accuracy=accuracy, equivalent=equivalent, **filters
        ).neighbours

    def search(
        self,
        query: str | Path,
        k: int = 10,
        *,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
        equivalent: bool = False,
        **filters: Any,
    ) -> Search:
        """The ``k`` nearest stored models that pass the filters, the one asked about left out; O(n d).

        ``equivalent``: only those equivalent to it.
        """
        from registry.catalog.asking import search_for

        store, subject, by = self._question(query, fingerprint, metric, accuracy)
        return search_for(store, subject, by, _filter(filters), k, equivalent=equivalent)

    def compare(
        self,
        a: str | Path,
        b: str | Path,
        *,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
    ) -> Comparison:
        """Two models side by side, stored or not: verdict, distances, the classes of both, and where they differ."""
        from registry.catalog.asking import compare
        from registry.catalog.queries import resolve

        store, subject, by = self._question(a, fingerprint, metric, accuracy)
        return compare(subject, resolve(store, b, by.spec), by)

    def equivalent(
        self,
        a: str | Path,
        b: str | Path,
        *,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
    ) -> Verdict:
        """Whether two models are equivalent within the accuracy, with the evidence."""
        from registry.catalog.asking import verdict
        from registry.catalog.queries import resolve

        store, subject, by = self._question(a, fingerprint, metric, accuracy)
        return verdict(subject, resolve(store, b, by.spec), by)

    def classes(
        self,
        *,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
        **filters: Any,
    ) -> Partition:
        """Equivalence classes of the stored models that pass the filters; O(n^2 d)."""
        from registry.catalog.asking import classes_of

        store, by = self._terms(fingerprint, metric, accuracy)
        return classes_of(store, by, _filter(filters))

    def compress(
        self,
        query: str | Path,
        *,
        max_ratio: float | None = None,
        max_params: int | None = None,
        max_bytes: int | None = None,
        k: int = 10,
        fingerprint: str = "layered",
        metric: str | None = None,
        accuracy: float | None = None,
        **filters: Any,
    ) -> Compression:
        """Smaller stored models that can stand in, the smallest equivalent first; O(n d).

        ``max_ratio``: of the parameters of the model asked about, in (0, 1]. Without any bound: fewer parameters. Where
        none is equivalent, the nearest smaller ones, and ``equivalent`` is False.
        """
        from registry.catalog.asking import compress

        store, subject, by = self._question(query, fingerprint, metric, accuracy)
        bounds = [subject.model.parameters - 1]
        if max_ratio is not None:
            if not 0.0 < max_ratio <= 1.0:
                raise UsageError(f"max_ratio must lie in (0, 1], not {max_ratio}")
            bounds.append(int(max_ratio * subject.model.parameters))
        if max_params is not None:
            bounds.append(max_params)
        where = replace(_filter(filters), max_params=min(bounds), max_bytes=max_bytes)
        return compress(store, subject, by, where, k)

    def distances(
        self, *, fingerprint: str = "layered", metric: str | None = None, **filters: Any
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Names and the (n, n) float64 distances between all stored models that pass; refused above 20,000 models."""
        from registry.catalog.asking import pairwise
        from registry.equivalence import distance_named

        store = self._database.readable()
        return pairwise(store, _spec(fingerprint), distance_named(metric), _filter(filters))

    def models(self, **filters: Any) -> list[ModelSummary]:
        """The stored models that pass the filters, by name."""
        return self._database.readable().summaries(_filter(filters))

    def show(self, name: str) -> ModelDetails:
        """Everything stored of one model. Raises ``UnknownModelError`` with near names."""
        from registry.catalog.details import details

        return details(self._database.readable(), name)

    def spectrum(self, name: str) -> tuple[Spectrum, ...]:
        """The stored spectra of one model, by layer in depth order.

        Raises ``UnknownModelError``, or ``SpecMismatchError`` where the model was ingested without its spectra.
        """
        from registry.catalog.details import stored_spectra

        return stored_spectra(self._database.readable(), name)

    def plot_csd(
        self,
        names: Sequence[str],
        file: str | Path,
        *,
        scale: Scale = "full",
        reference: str = "cue",
        seed: int | None = None,
        axes: Axes = "both",
        x_max: float | None = None,
        title: str = "",
    ) -> None:
        """Draw cumulative spectral differences of up to 8 stored models into a PNG, SVG or PDF file.

        ``reference``: ``cue``, ``coe``, ``cse`` or ``wishart``, its expectation, or with a ``seed`` one member of it.
        Raises ``UsageError``, what ``spectrum`` raises, or ``RegistryError`` where the file cannot be written or
        Matplotlib is missing.
        """
        from registry.catalog.picturing import picture_differences
        from registry.plots import check_picture, plot_difference

        path = Path(file)
        check_picture(path)
        store = self._database.readable()
        picture = picture_differences(store, names, scale=scale, reference=reference, sample=seed, x_max=x_max)
        plot_difference(picture, path, axes=axes, title=title)

    def plot_spectrum(self, name: str, file: str | Path, *, title: str = "") -> None:
        """Draw the spectrum of one stored model by depth into a PNG, SVG or PDF file. Raises as ``plot_csd``."""
        from registry.catalog.picturing import picture_spectrum
        from registry.plots import check_picture, plot_spectrum

        path = Path(file)
        check_picture(path)
        plot_spectrum(picture_spectrum(self._database.readable(), name), path, title=title)

    def stats(self) -> Stats:
        """What the registry holds."""
        return self._database.readable().stats()

    # Changing

    def set(self, name: str, **changes: Any) -> ModelSummary:
        """Change what is known of a model: family, architecture, task, dataset, licence, training, seed, ..."""
        return self._database.writable().set_card(name, changes)

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, or change the one of the same name, data set and split."""
        return self._database.writable().set_metric(name, metric)

    def tag(self, name: str, /, **tags: str | None) -> tuple[tuple[str, str], ...]:
        """Set tags of a model, None removing one; returns all its tags."""
        return self._database.writable().tag(name, tags)

    def rename(self, old: str, new: str) -> ModelSummary:
        """Give a stored name another spelling. Raises ``NameTakenError`` if the new one is in use."""
        return self._database.writable().rename(old, new)

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names, spectra and fingerprints; returns what was removed."""
        return self._database.writable().remove(name)

    # The database itself

    def upgrade(self) -> str:
        """Bring the schema to this version's; returns the revision it is at now."""
        from registry.storage import migrate

        self.close()
        return migrate.upgrade(self._database.url)

    def current(self) -> str | None:
        """The schema revision the database is at, None where it has none."""
        from registry.storage import migrate

        return migrate.current(self._database.url)

    def check(self) -> tuple[str, ...]:
        """Problems found in the database, none when it is sound."""
        from registry.storage import migrate

        return tuple(migrate.check(self._database.url))

    def _terms(self, fingerprint: str, metric: str | None, accuracy: float | None) -> tuple[Store, Terms]:
        from registry.catalog.asking import terms

        store = self._database.readable()
        return store, terms(store, _spec(fingerprint), metric, accuracy)

    def _question(
        self, query: str | Path, fingerprint: str, metric: str | None, accuracy: float | None
    ) -> tuple[Store, Query, Terms]:
        from registry.catalog.queries import resolve

        store, by = self._terms(fingerprint, metric, accuracy)
        return store, resolve(store, query, by.spec), by


def _spec(name: str) -> FingerprintSpec:
    from registry.spectral.specs import spec_named

    return spec_named(name)


def _filter(fields: dict[str, Any]) -> Filter:
    unknown = fields.keys() - Filter.__slots__
    if unknown:
        raise UsageError(f"unknown filter {sorted(unknown)[0]!r}", f"known: {', '.join(Filter.__slots__)}")
    return Filter(**fields)


def _card(fields: dict[str, Any]) -> ModelCard:
    unknown = fields.keys() - ModelCard.__slots__
    if unknown:
        raise UsageError(f"unknown field {sorted(unknown)[0]!r}", f"known: {', '.join(ModelCard.__slots__)}")
    return ModelCard(**fields)
