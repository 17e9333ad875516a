"""Class ``Registry``: a method for each question. It checks its arguments and calls one function of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Never, NoReturn, Self

from registry.catalog.arguments import (
    card_of,
    filter_of,
    number,
    path,
    refuse_unknown,
    several,
    text,
    typed_card,
    whole,
)
from registry.catalog.database import Database
from registry.catalog.ingest_runs import IngestRuns
from registry.catalog.kept_classes import KeptClasses
from registry.catalog.vector_index import VectorIndex
from registry.errors import EmptyRegistryError, ReadOnlyError, UnknownModelError, UsageError
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Unpack

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from registry.catalog.ingesting import Watcher
    from registry.catalog.search_settings import Terms
    from registry.catalog.subjects import Asked, Query
    from registry.plots import Axes
    from registry.spectral.cumulatives import Scale
    from registry.spectral.devices import Device
    from registry.storage import Store
    from registry.types import (
        Calibrated,
        Calibration,
        CardChanges,
        CardFields,
        Comparison,
        Compression,
        Estimate,
        Filters,
        Ingested,
        Metric,
        ModelDetails,
        ModelSummary,
        Neighbour,
        Partition,
        Recomputed,
        Search,
        SearchOptions,
        Selection,
        Spectrum,
        Stats,
        Transfer,
        Verdict,
    )

__all__ = ["Registry"]


class Registry:
    """A registry in a database, SQLite or Postgres.

    ``url``: an SQLAlchemy URL or the path of an SQLite file; None for the environment's ``ARCHREG_DB``, else
    ``archreg.db`` in the working folder. Nothing is opened before the first question. A question to a missing database
    raises ``DatabaseMissingError``; ``ingest`` and ``import_from`` alone create one. Threads that share one wait for
    each other for a whole question; for questions side by side, and in every process, open one each.

    Questions take a stored name, a reference such as ``torchvision:resnet50``, a path, a ``torch.nn.Module`` or its
    state dict. ``fingerprint`` is ``layered`` or ``mme``; ``distance`` one of ``l1``, ``l2``, ``linf``; ``tolerance`` a
    distance, the calibrated one by default; ``filters`` are the fields of ``Filter``, ``card`` those of ``ModelCard``.

    ``runs``: the journal of ingests; ``index``: the vector index in Postgres; ``partitions``: the classes that the
    database keeps.

    A registry is also read like a mapping: ``reg["resnet20"]`` is a ``ModelSummary``; ``"resnet20" in reg``;
    ``len(reg)`` counts models; ``for name in reg`` gives each model's name in order. A name may be
    ``sha256:PREFIX``, the beginning of a content hash. An empty registry is true.
    """

    def __init__(self, url: str | Path | None = None) -> None:
        self._database = Database(url)
        self._lock = self._database.lock
        self.runs = IngestRuns(self._database)
        self.index = VectorIndex(self._database)
        self.partitions = KeptClasses(self._database)

    def __repr__(self) -> str:
        """The place, without a password."""
        return f"Registry({self._database.label!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is a connection, which cannot be pickled or copied; open another by the same URL")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            self._database.close()

    # Like a mapping of names.

    def __getitem__(self, name: str) -> ModelSummary:
        """The model of that name, or of the content hash ``sha256:PREFIX``.

        Raises ``UnknownModelError``, which is a ``KeyError``, also where nothing is stored; ``AmbiguousError`` for the
        beginning of several hashes.
        """
        from registry.storage.models.summaries import find_model

        with self._lock:
            try:
                return self._database.readable().read(find_model, name)
            except EmptyRegistryError as error:
                raise UnknownModelError(error.message, error.remedy) from error

    def __contains__(self, name: object) -> bool:
        """Whether ``reg[name]`` is a model; what is no text never is. Raises ``AmbiguousError`` as ``reg[name]``."""
        from registry.storage.models.model_queries import has_name

        if not isinstance(name, str):
            return False
        with self._lock:
            if self._database.readable().read(has_name, name):
                return True
            try:
                return name.startswith("sha256:") and bool(self[name])
            except UnknownModelError:
                return False

    def __len__(self) -> int:
        """How many models are stored."""
        from registry.storage.models.model_queries import count_models

        with self._lock:
            return self._database.readable().read(count_models)

    def __bool__(self) -> bool:
        """True, also of a registry without models."""
        return True

    def __iter__(self) -> Iterator[str]:
        """The models' names in order, one name a model; of a model with several names the oldest."""
        return iter([model.name for model in self.models()])

    # Ingest.

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
        from registry.catalog.measuring import expand_all

        lines = None if manifest is None else path(manifest, "manifest")
        return expand_all(references, lines, key=key, seed=seed, name=name, card=typed_card(card))

    def estimate(
        self,
        refs: Sequence[ModelRef],
        *,
        approximate: bool = False,
        workers: int | None = None,
        executor: str | None = None,
    ) -> Estimate:
        """What ``ingest_all`` is expected to take by the same options: seconds, and memory at its peak.

        Of large files whose headers tell their layers it is reckoned by these, of others by their size. Some
        milliseconds for each large file; no weights are read. Raises ``UsageError`` for an executor there is not.
        """
        from registry.catalog.estimating import estimate
        from registry.ingest import Setting

        refs = _planned(refs)
        return estimate(refs, Setting(executor or "", workers), approximate=approximate)

    def ingest_all(
        self,
        refs: Sequence[ModelRef],
        *,
        replace: bool = False,
        keep_spectra: bool = True,
        discard_weights: bool = False,
        device: Device = "cpu",
        approximate: bool = False,
        workers: int | None = None,
        executor: str | None = None,
        address: str | None = None,
        time_limit: float | None = None,
        command: str = "",
        progress: Watcher | None = None,
    ) -> tuple[Ingested, ...]:
        """Ingest planned models, a transaction each; a model that fails is a ``failed`` item and the rest go on.

        ``device``: where spectra are computed, ``cpu``, ``cuda``, or ``auto`` for ``cuda`` where one is at hand;
        ``approximate``: layers of order min(p, q) > 8,192 by stochastic Lanczos quadrature, and marked so.
        ``workers``: processes, by default as many as cores, or this one alone where the job is small or the device is
        no CPU; ``executor``: ``inprocess``, ``pool`` or ``ray``, with the ``address`` of its cluster; ``time_limit``:
        seconds after which a model is given up and its process killed, so that it is not measured in this one, 0 for
        never, by default far more than its size lets expect, where it is measured in another process; ``command``: how
        this was asked for, as ``runs`` is to show it; ``progress``: a function, told how many models of how many are
        done, or a ``registry.ingest.Progress``. The same plan started again goes on where it was left, with what failed
        tried again.

        Raises ``StorageError`` where the database itself refuses, or ``KeyboardInterrupt``; what was stored before
        stays. ``RegistryError`` for a device that cannot be had, before anything is read.
        """
        from registry.catalog.ingesting import ingest_refs
        from registry.catalog.storing import Options
        from registry.ingest import Setting

        refs = _planned(refs)
        options = Options(replace, keep_spectra, discard_weights, _device(device), approximate)
        setting = Setting(executor or "", workers, address, time_limit)
        with self._lock:
            return ingest_refs(self._database, refs, options, setting, command, progress)

    def ingest(
        self,
        reference: Asked,
        *,
        name: str | None = None,
        key: str | None = None,
        replace: bool = False,
        keep_spectra: bool = True,
        device: Device = "cpu",
        approximate: bool = False,
        **card: Unpack[CardFields],
    ) -> Ingested:
        """Ingest one model: a reference, a path, or a live module or its state dict, which need a ``name``.

        ``key`` is that of ``plan`` and goes with references; ``device`` and ``approximate`` are those of
        ``ingest_all``; ``card``: fields of ``ModelCard``, among them ``seed``, also that of a random initialisation.

        Raises ``SourceError``, ``SpectrumError``, ``NameTakenError``, ``UsageError`` or ``StorageError``, or
        ``RegistryError`` for a device that cannot be had; then nothing was stored.
        """
        from registry.catalog.measuring import expand_all
        from registry.catalog.storing import Options, ingest_checkpoint
        from registry.sources import open_module, open_ref

        options = Options(replace, keep_spectra, device=_device(device), approximate=approximate)
        known = card_of(card)
        if isinstance(reference, str | Path):
            refs = expand_all([reference], None, key=key, seed=known.seed or 0, name=name, card=known)
            if len(refs) != 1:
                raise UsageError(f"{reference} is {len(refs)} models", "use plan() and ingest_all() for several")
            with self._lock, open_ref(refs[0]) as checkpoint:
                return ingest_checkpoint(self._database, checkpoint, options)
        if isinstance(reference, list | tuple):
            raise UsageError("ingest() takes one model", "use plan() and ingest_all() for several")
        if name is not None:
            text(name, "name")
        if not name and (hasattr(reference, "state_dict") or isinstance(reference, Mapping)):
            raise UsageError("a live module needs a name", 'give one: ingest(module, name="my-model")')
        with self._lock, open_module(reference, name or "", known) as checkpoint:
            return ingest_checkpoint(self._database, checkpoint, options)

    def refingerprint(
        self, *, fingerprint: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Recomputed:
        """Compute from stored spectra what this version would store and the registry lacks. Resumable.

        Fingerprints of the shipped specs, or of the one named alone; and conjugacy figures where none are stored, or
        those of thresholds that have changed since.

        Raises ``SpecMismatchError`` naming the models whose weights have to be ingested again.
        """
        from registry.catalog.measuring import refingerprint
        from registry.spectral.specs import SPECS, spec_named

        specs = tuple(SPECS.values()) if fingerprint is None else (spec_named(fingerprint),)
        with self._lock:
            return refingerprint(self._database, specs, progress, judge=fingerprint is None)

    def outdated(self) -> int:
        """How many models lack something that this version would store, and are left out where it is asked for. O(n).

        An older version stored them; `refingerprint` computes what is missing.
        """
        from registry.catalog.measuring import outdated

        with self._lock:
            return outdated(self._database.readable())

    # Questions.

    def nearest(
        self,
        query: Asked,
        k: int | None = None,
        *,
        radius: float | None = None,
        equivalent: bool = False,
        exact: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        **filters: Unpack[Filters],
    ) -> tuple[Neighbour, ...]:
        """The neighbours that ``search`` finds, without what it says of the search."""
        return self.search(
            query,
            k,
            radius=radius,
            equivalent=equivalent,
            exact=exact,
            fingerprint=fingerprint,
            distance=distance,
            tolerance=tolerance,
            **filters,
        ).neighbours

    def search(
        self,
        query: Asked,
        k: int | None = None,
        *,
        radius: float | None = None,
        equivalent: bool = False,
        exact: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        **filters: Unpack[Filters],
    ) -> Search:
        """The stored models nearest to one, which is left out: a name, a reference, a path, or a module in memory.

        ``k``: how many at most, 10 where there is no ``radius``, how far away at most; ``equivalent``: only those
        equivalent to it. What passes the filters is searched all, O(n d), from memory: vectors are read once, and after
        that only what has changed. Where the database has a current index (``index.build``) it is asked instead, unless
        ``exact``; it can miss some, and ``Search.indexed`` says so. The default tolerance is the largest at which one
        false pass is expected among the models searched, at most the calibrated one.
        """
        from registry.catalog.searching import Wanted, look_up
        from registry.spectral.specs import spec_named

        where, wanted = filter_of(filters), Wanted(k, radius, equivalent, exact)
        with self._lock:
            store = self._database.readable()
            return look_up(store, query, spec_named(fingerprint), distance, tolerance, where, wanted)

    def search_all(self, queries: Iterable[Asked], **options: Unpack[SearchOptions]) -> tuple[Search, ...]:
        """``search`` for each of several, with the same options, in their order; the first that fails ends it."""
        with self._lock:
            return tuple(self.search(query, **options) for query in several(queries, "queries"))

    def compare(
        self,
        a: Asked,
        b: Asked,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
        **unknown: Never,
    ) -> Comparison:
        """Two models side by side, stored or not: verdict, distances, the classes of both, and where they differ.

        ``strict``: as for ``equivalent``.
        """
        from registry.catalog.comparing import compare
        from registry.catalog.subjects import resolve

        refuse_unknown(unknown)
        with self._lock:
            store, subject, by = self._question(a, fingerprint, distance, tolerance)
            return compare(subject, resolve(store, b, by.spec), by, strict=strict)

    def equivalent(
        self,
        a: Asked,
        b: Asked,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
        **unknown: Never,
    ) -> Verdict:
        """Whether two models are equivalent within the tolerance, with the evidence.

        ``strict``: only if their spectra by depth are no farther apart than those of other seeds of one training, too;
        by ``layered`` alone.
        """
        from registry.catalog.comparing import verdict
        from registry.catalog.subjects import resolve

        refuse_unknown(unknown)
        with self._lock:
            store, subject, by = self._question(a, fingerprint, distance, tolerance)
            return verdict(subject, resolve(store, b, by.spec), by, strict=strict)

    def distances(
        self, *, fingerprint: str = "layered", distance: str | None = None, **filters: Unpack[Filters]
    ) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Names and the (n, n) float64 distances between all stored models that pass; refused above 20,000 models."""
        from registry.catalog.comparing import pairwise
        from registry.equivalence import distance_named
        from registry.spectral.specs import spec_named

        where = filter_of(filters)
        with self._lock:
            store = self._database.readable()
            return pairwise(store, spec_named(fingerprint), distance_named(distance), where)

    def classes(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        rule: str | None = None,
        keep: bool = True,
        **filters: Unpack[Filters],
    ) -> Partition:
        """The stored models that pass the filters, sorted into classes of equivalents.

        ``rule``: ``complete`` (complete linkage, the default for up to 10,000 models), ``cover`` (greedy, by
        representatives within half the tolerance; the default beyond) or ``single``. By the first two every two models
        of a class are within the tolerance; by ``single`` each is to another of its class, and a chain's ends need not
        be. Where nothing that the classes follow from has changed they are read back; else they are made anew, O(n^2)
        at worst, and unless ``keep`` is False kept with their identities, in place of those by the same terms. Where
        the database may only be read they are answered all the same, and ``note`` says that they are not kept.

        Raises ``UsageError`` for an unknown rule, and where more than 20,000 models hang together by ``complete``.
        """
        from registry.catalog.partitioning import classes_of

        where = filter_of(filters)
        with self._lock:
            _, by = self._terms(fingerprint, distance, tolerance)
            return classes_of(self._database, by, where, rule=rule, keep=keep)

    def compress(
        self,
        query: Asked,
        *,
        max_ratio: float | None = None,
        k: int = 10,
        explain: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        **filters: Unpack[Filters],
    ) -> Compression:
        """Smaller stored models that can stand in, the best first; O(n d).

        Smaller in what is bounded: ``max_ratio``, of the parameters of the model asked about, in (0, 1];
        ``max_params``; ``max_bytes``; ``max_gflops``, which models of unknown cost fail. Without any of them, or where
        gigaflops alone are bounded and those of the model asked about are not known (``note`` says so): fewer
        parameters. Best is the smallest, in gigaflops or bytes where those alone are bounded, else in parameters; of
        equal size, the nearest. Where none is equivalent, the nearest smaller ones, and ``equivalent`` is False.
        ``explain``: with where each candidate differs from the original.
        """
        from registry.catalog.compressing import compress

        where = filter_of(filters)
        with self._lock:
            store, subject, by = self._question(query, fingerprint, distance, tolerance, among=True)
            return compress(store, subject, by, where, k, max_ratio=max_ratio, explain=explain)

    def select(
        self,
        *,
        aims: Sequence[str] = (),
        like: Asked | None = None,
        min_metric: Mapping[str, float] | None = None,
        max_metric: Mapping[str, float] | None = None,
        k: int = 20,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        **filters: Unpack[Filters],
    ) -> Selection:
        """The Pareto front of the aims among the stored models that pass the filters: those that none beats in all.

        ``aims``: ``max:top1@cifar10``, ``min:params``, ``min:bytes``, ``min:gflops``, ``min:distance``; by default the
        metrics that the filters bound, else the one that most of the models have, and few parameters. Models that have
        no figure for an aim are left out and counted. ``like``: only what is equivalent to that model, itself included.
        ``min_metric``, ``max_metric``: bounds by ``top1`` or ``top1@cifar10``, beside ``metrics`` of the filter.

        Equivalent models of the front are one class, shown by its smallest, at most ``k`` of them. Where nothing is
        left, ``removals`` says what each constraint removed. O(n) to read, O(n f a + f^2 d) for f models on the front.
        """
        from registry.catalog.arguments import metric_bounds
        from registry.catalog.objectives import parse_aim
        from registry.catalog.selecting import select

        wanted = [parse_aim(text(aim, "an aim")) for aim in several(aims, "aims")]
        bounds = metric_bounds(min_metric or {}, max_metric or {})
        if bounds:
            filters["metrics"] = (*several(filters.get("metrics") or (), "metrics"), *bounds)
        where = filter_of(filters)
        with self._lock:
            if like is None:
                store, by = self._terms(fingerprint, distance, tolerance)
                return select(store, by, where, wanted, None, k)
            store, subject, by = self._question(like, fingerprint, distance, tolerance, among=True)
            return select(store, by, where, wanted, subject, k)

    # Calibration.

    def calibrate(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        rate: float = 0.01,
        seed: int = 0,
        dry_run: bool = False,
        **unknown: Never,
    ) -> Calibrated:
        """Learn from the labelled models how far unrelated ones lie apart, and keep it unless ``dry_run``.

        Models of different families are unrelated. The tolerance is the largest at which at most ``rate`` of them pass,
        in (0, 1). Of more than 2,000 labelled models, as many of each family are drawn; ``seed`` is of that and of the
        bootstrap. What is kept holds for this fingerprint and distance until the next, or ``reset_calibration``.

        Raises ``UsageError`` where the labels are too few to show the rate, ``ReadOnlyError`` where it cannot be kept.
        """
        from registry.catalog.calibrating import learn
        from registry.storage.equivalence.stored_calibrations import put_calibration

        refuse_unknown(unknown)
        rate, seed = number(rate, "rate"), whole(seed, "seed", 0)
        with self._lock:
            store, by = self._terms(fingerprint, distance, None)
            if dry_run:
                return learn(store, by, rate, seed)
            try:
                store = self._database.writable()
                found = learn(store, by, rate, seed)
                store.write(put_calibration, found.calibration)
            except ReadOnlyError as error:
                remedy = f"{error.remedy}; archreg calibrate --dry-run only shows it"
                raise ReadOnlyError(error.message, remedy) from error
            return found

    def calibration(
        self, *, fingerprint: str = "layered", distance: str | None = None, **unknown: Never
    ) -> Calibration | None:
        """The calibration that answers go by: the registry's own, else the one that ships, if any."""
        refuse_unknown(unknown)
        with self._lock:
            return self._terms(fingerprint, distance, None)[1].calibration

    def reset_calibration(
        self, *, fingerprint: str = "layered", distance: str | None = None, **unknown: Never
    ) -> Calibration | None:
        """Forget the registry's own calibration, if any; returns the one that ships, if any."""
        from registry.storage.equivalence.stored_calibrations import drop_calibration

        refuse_unknown(unknown)
        with self._lock:
            _, by = self._terms(fingerprint, distance, None)
            self._database.writable().write(drop_calibration, by.spec.hash, by.distance.name)
            return self.calibration(fingerprint=fingerprint, distance=distance)

    # What is stored.

    def models(self, **filters: Unpack[Filters]) -> tuple[ModelSummary, ...]:
        """The stored models that pass the filters, by name."""
        from registry.storage.models.summaries import read_summaries

        where = filter_of(filters)
        with self._lock:
            return tuple(self._database.readable().read(read_summaries, where))

    def unmatched(self, **filters: Unpack[Filters]) -> dict[str, tuple[str, ...]]:
        """Each text of the filters that no model has, by its field, with up to three known ones spelt nearly so.

        What a question whose answer is empty is asked next: ``{"family": ("resnet",)}`` for the family ``resnt``; empty
        where each alone has its models. Raises ``EmptyRegistryError`` where nothing is stored. O(n).
        """
        from registry.catalog.constraint_report import unmatched

        where = filter_of(filters)
        with self._lock:
            return unmatched(self._database.readable(), where)

    def show(self, name: str) -> ModelDetails:
        """Everything stored of one model. Raises ``UnknownModelError`` with near names."""
        from registry.catalog.model_details import details

        with self._lock:
            return details(self._database.readable(), name)

    def spectrum(self, name: str) -> tuple[Spectrum, ...]:
        """The stored spectra of one model, by layer in depth order.

        Raises ``UnknownModelError``, or ``SpecMismatchError`` where the model was ingested without its spectra.
        """
        from registry.catalog.model_details import stored_spectra

        with self._lock:
            return stored_spectra(self._database.readable(), name)

    def stats(self) -> Stats:
        """What the registry holds."""
        from registry.storage.models.model_queries import read_stats

        with self._lock:
            return self._database.readable().read(read_stats)

    def plot_csd(
        self,
        names: str | Sequence[str],
        file: str | Path | None = None,
        *,
        scale: Scale = "full",
        reference: str = "cue",
        seed: int | None = None,
        axes: Axes = "both",
        x_max: float | None = None,
        title: str = "",
    ) -> Figure:
        """Draw cumulative spectral differences of one to 8 stored models; returns the Matplotlib figure.

        ``file``: also save it there, as PNG, SVG or PDF by the suffix. ``matplotlib.pyplot`` does not know the figure.
        ``reference``: a name of ``registry.ensembles.REFERENCES``: its expectation, or one member by its ``seed``.
        Raises ``UsageError``, what ``spectrum`` raises, or ``RegistryError`` where the file cannot be written or
        Matplotlib is missing.
        """
        from registry.catalog.plotting import picture_differences
        from registry.plots import check_picture, plot_difference

        picture_file = None if file is None else path(file, "file")
        check_picture(picture_file)
        with self._lock:
            store = self._database.readable()
            picture = picture_differences(store, names, scale=scale, reference=reference, sample=seed, x_max=x_max)
        return plot_difference(picture, picture_file, axes=axes, title=title)

    def plot_spectrum(self, name: str, file: str | Path | None = None, *, title: str = "") -> Figure:
        """Draw the spectrum of one stored model by depth; returns, saves and raises as ``plot_csd``."""
        from registry.catalog.plotting import picture_spectrum
        from registry.plots import check_picture, plot_spectrum

        picture_file = None if file is None else path(file, "file")
        check_picture(picture_file)
        with self._lock:
            picture = picture_spectrum(self._database.readable(), name)
        return plot_spectrum(picture, picture_file, title=title)

    # Changes.

    def set(self, name: str, **changes: Unpack[CardChanges]) -> ModelSummary:
        """Change what is known of a model: family, architecture, task, dataset, licence, training, seed, ..."""
        from registry.storage.models.changes import set_card

        with self._lock:
            return self._database.writable().write(set_card, name, changes)

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, or change the one of the same name, data set and split."""
        from registry.catalog.arguments import typed_metric
        from registry.storage.models.changes import set_metric

        with self._lock:
            return self._database.writable().write(set_metric, name, typed_metric(metric))

    def tag(self, name: str, /, **tags: str | None) -> tuple[tuple[str, str], ...]:
        """Set tags of a model, None removing one; returns all its tags."""
        from registry.storage.models.changes import set_tags

        for key, value in tags.items():
            if value is not None:
                text(value, f"the tag {key}")
        with self._lock:
            return self._database.writable().write(set_tags, name, tags)

    def rename(self, old: str, new: str) -> ModelSummary:
        """Give a stored name another spelling. Raises ``NameTakenError`` if the new one is in use."""
        from registry.storage.models.changes import rename

        with self._lock:
            return self._database.writable().write(rename, old, text(new, "a name"))

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names, spectra and fingerprints; returns what was removed."""
        from registry.storage.models.changes import remove

        with self._lock:
            return self._database.writable().write(remove, name)

    # The registry as a whole.

    def export(
        self,
        file: str | Path,
        *,
        names: Iterable[str] = (),
        spectra: bool = True,
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **filters: Unpack[Filters],
    ) -> Transfer:
        """Write stored models into a new SQLite file that is a registry itself; no weights. O(n), a few at a time.

        ``names``: these models alone; ``filters`` as in questions, both if both are given. ``spectra``: also the
        eigenvalues, without which nothing can be fingerprinted anew. ``progress`` is told how many models of how many
        are done. All calibrations go with it; the journal of ingests and stored classes do not. A model that is damaged
        is left out and in ``failed``.

        The file appears whole or not at all. Raises ``EmptyRegistryError`` where no model is meant, ``RegistryError``
        where the file is there and ``overwrite`` is not asked for, or cannot be written.
        """
        from registry.catalog.transfer import export

        target, chosen, where = path(file, "file"), several(names, "names"), filter_of(filters)
        with self._lock:
            return export(
                self._database, target, chosen, where, spectra=spectra, overwrite=overwrite, progress=progress
            )

    def import_from(
        self,
        file: str | Path,
        *,
        replace: bool = False,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Transfer:
        """Bring in the models of a SQLite file that ``export`` wrote, or of any other registry in one. O(n).

        New weights are stored whole. Known ones get the names and what else is missing, and what is here stays; so
        importing again, also after an interruption, changes nothing. A name that belongs to other weights here makes
        the model a failed item. ``replace``: such a name moves, and the file's metadata and calibrations win over
        those here; fingerprints and spectra of known weights stay even so.

        The file is opened to be read only and never trusted: what is not sound is a failed item with its reason, of
        which nothing is stored. ``dry_run``: say what would become of each model, and change nothing.

        Raises ``NotFoundError``, ``SchemaVersionError`` (an older file is upgraded as a copy) or ``StorageError`` where
        the file is no registry or the database refuses; what was stored before stays.
        """
        from registry.catalog.transfer import import_from

        given = path(file, "file")
        with self._lock:
            return import_from(self._database, given, replace=replace, dry_run=dry_run, progress=progress)

    def upgrade(self, *, from_revision: str | None = None) -> str:
        """Bring the schema to this version's; returns the revision it is at now.

        Where the database does not say which revision it has, ``from_revision`` does: it is set if the tables are those
        of that revision.
        """
        from registry.storage.engine import migrate

        if from_revision is not None:
            text(from_revision, "from_revision")
        with self._lock:
            self._database.close()
            return migrate.upgrade(self._database.url, from_revision=from_revision)

    def current(self) -> str | None:
        """The schema revision the database is at, None where there is none; ``SchemaVersionError`` where it is none."""
        from registry.storage.engine.schema_version import version_at

        with self._lock:
            return version_at(self._database.url)

    def check(self) -> tuple[str, ...]:
        """Problems found in the database, none when it is sound."""
        from registry.storage.engine import migrate

        with self._lock:
            return tuple(migrate.check(self._database.url))

    # What several questions begin with.

    def _terms(self, fingerprint: str, distance: str | None, tolerance: float | None) -> tuple[Store, Terms]:
        from registry.catalog.search_settings import terms
        from registry.spectral.specs import spec_named

        store = self._database.readable()
        return store, terms(store, spec_named(fingerprint), distance, tolerance)

    def _question(
        self,
        query: Asked,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        *,
        among: bool = False,
    ) -> tuple[Store, Query, Terms]:
        """``among``: the stored models, of which there must be some: said before weights are read or downloaded."""
        from registry.catalog.subjects import resolve
        from registry.storage.models.model_queries import require_models

        store, by = self._terms(fingerprint, distance, tolerance)
        if among:
            store.read(require_models)
        return store, resolve(store, query, by.spec), by


def _planned(refs: Sequence[ModelRef]) -> tuple[ModelRef, ...]:
    """The plan. Raises ``UsageError`` for references that were not planned."""
    for ref in (planned := several(refs, "refs")):
        if not isinstance(ref, ModelRef):
            raise UsageError(f"refs is what plan() returns, not {ref!r}", "write ingest_all(plan([...]))")
    return planned


def _device(device: Device) -> Device:
    if device == "cpu":  # workers start the sooner for what this process need not load
        return device
    from registry.spectral.devices import device_at_hand

    return device_at_hand(device)
