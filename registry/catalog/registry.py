"""Class ``Registry``. Each method checks its arguments and calls one function of the catalog."""

from __future__ import annotations

import contextlib
import dataclasses
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
from registry.errors import DatabaseMissingError, EmptyRegistryError, ReadOnlyError, UnknownModelError, UsageError
from registry.types import Filter, ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Unpack

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from registry.catalog.ingesting import Watcher
    from registry.catalog.search_settings import SearchSettings
    from registry.catalog.subjects import Query, QueryInput
    from registry.plots import Axes
    from registry.spectral.cumulatives import Scale
    from registry.spectral.devices import Device
    from registry.storage import Store
    from registry.types import (
        Audit,
        Calibrated,
        Calibration,
        CardChanges,
        CardFields,
        Comparison,
        Compression,
        Duplicates,
        Estimate,
        Filters,
        Identified,
        Ingested,
        Metric,
        ModelDetails,
        ModelSummary,
        Neighbour,
        OlderModels,
        Partition,
        Plan,
        Recomputed,
        Related,
        Relation,
        RelationForest,
        RequirementName,
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

    ``url``: an SQLAlchemy URL, the path of an SQLite file, or ``published:``, the read-only registry of published
    models that ships. None: the environment variable ``ARCHREG_DB``, else
    ``archreg.db`` in the working folder. The database is opened at the first use. Most methods raise
    ``DatabaseMissingError`` if it does not exist; ``ingest``, ``ingest_all`` and ``import_from`` create it,
    and ``upgrade`` makes the tables on Postgres. Threads that share a registry wait for each other during each method.
    For concurrent use, and in each process, open a registry of its own.

    Query models are a stored name, a reference such as ``torchvision:resnet50``, a path, a ``torch.nn.Module`` or its
    state dict. ``fingerprint`` is ``layered``, ``mme`` or ``shapes``; of a model of which the header alone was read,
    ``shapes`` takes the place of the default. ``distance`` is ``l1``, ``l2`` or ``linf``; ``tolerance`` is
    calibrated by default; ``filters`` are the fields of ``Filter``, ``card`` those of ``ModelCard``.

    ``runs``: the journal of ingests; ``index``: the vector index in Postgres; ``partitions``: the kept partitions.

    A registry can be read like a mapping: ``reg["resnet20"]`` is a ``ModelSummary``; ``"resnet20" in reg`` tests a
    name; ``len(reg)`` counts models; ``for name in reg`` yields one name per model, in order. A name may be
    ``sha256:PREFIX``, the beginning of a content hash. An empty registry is true.
    """

    def __init__(self, url: str | Path | None = None) -> None:
        self._database = Database(url)
        self._lock = self._database.lock
        self.runs = IngestRuns(self._database)
        self.index = VectorIndex(self._database)
        self.partitions = KeptClasses(self._database)

    def __repr__(self) -> str:
        """The class name and the URL without its password."""
        return f"Registry({self._database.label!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is a connection and cannot be pickled or copied; open another registry with the same URL"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            self._database.close()

    # Like a mapping of names.

    def __getitem__(self, name: str) -> ModelSummary:
        """The model with that name, or with the content hash ``sha256:PREFIX``.

        Raises ``UnknownModelError``, which is a ``KeyError``, also if nothing is stored; ``AmbiguousError`` if several
        hashes begin with the prefix.
        """
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_listing import architecture_details

                return architecture_details(catalogue, name).summary
            from registry.storage.models.summaries import find_model

            try:
                return self._database.readable().read(find_model, name)
            except EmptyRegistryError as error:
                raise UnknownModelError(error.message, error.remedy) from error

    def __contains__(self, name: object) -> bool:
        """Whether ``reg[name]`` is a model; False for other types than texts. Raises ``AmbiguousError``."""
        if not isinstance(name, str):
            return False
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                return bool(catalogue.named(name))
            from registry.storage.models.model_queries import has_name

            if self._database.readable().read(has_name, name):
                return True
            try:
                return name.startswith("sha256:") and bool(self[name])
            except UnknownModelError:
                return False

    def __len__(self) -> int:
        """Number of stored models."""
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                return len(catalogue.architectures())
            from registry.storage.models.model_queries import count_models

            return self._database.readable().read(count_models)

    def __bool__(self) -> bool:
        """True, also for a registry without models."""
        return True

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the models in order; a model with several names has its oldest."""
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
        base: str | Path | None = None,
        card: ModelCard = ModelCard(),  # noqa: B008  # frozen
    ) -> Plan:
        """Return the models that the references and the manifest name. Reads and downloads no weights.

        The result is a tuple of ``ModelRef``; its ``left_out`` lists the files of folders that are no models.

        ``key``: entry of a wrapped checkpoint; ``seed``: seed of random initialisations; ``name``: name of a single
        model; ``base``: reference to the model that adapters adapt, by default the one that their configuration names,
        if no download is needed; ``card``: overrides the metadata of sources and manifest.

        Raises ``NotFoundError``, ``AmbiguousError`` or ``UsageError`` that names the reference.
        """
        from registry.catalog.measuring import expand_all

        lines = None if manifest is None else path(manifest, "manifest")
        return expand_all(references, lines, key=key, seed=seed, name=name, base=base, card=typed_card(card))

    def estimate(
        self,
        refs: Sequence[ModelRef],
        *,
        approximate: bool = False,
        headers_only: bool = False,
        workers: int | None = None,
        executor: str | None = None,
    ) -> Estimate:
        """Estimate the seconds and the peak memory in bytes of ``ingest_all`` with the same options.

        Large files are estimated by the layers in their headers, others by their size. Takes a few milliseconds per
        large file; no weights are read. ``headers_only``: also give the bytes of each header, which are read for that,
        except of what would have to be downloaded. Raises ``UsageError`` for an unknown executor.
        """
        from registry.catalog.estimating import estimate, with_header_bytes
        from registry.ingest import Setting

        refs, setting = _planned(refs), Setting(executor or "", workers)
        found = estimate(refs, setting, approximate=approximate, headers_only=headers_only)
        return with_header_bytes(found, refs) if headers_only else found

    def ingest_all(
        self,
        refs: Sequence[ModelRef],
        *,
        replace: bool = False,
        keep_spectra: bool = True,
        discard_weights: bool = False,
        device: Device = "cpu",
        approximate: bool = False,
        allow_nonfinite: bool = False,
        headers_only: bool = False,
        workers: int | None = None,
        executor: str | None = None,
        address: str | None = None,
        time_limit: float | None = None,
        command: str = "",
        progress: Watcher | None = None,
    ) -> tuple[Ingested, ...]:
        """Ingest planned models; a model that fails is a ``failed`` item, and the others continue.

        ``replace``: reassign names that are taken; ``keep_spectra``: store spectra; ``discard_weights``: delete
        downloads afterwards. ``device``: where spectra are computed: ``cpu``, ``cuda``, or ``auto`` for ``cuda`` if
        available; ``approximate``: layers of order min(p, q) > 8,192 by stochastic Lanczos quadrature, marked so.
        ``allow_nonfinite``: a model with NaN or infinity is not refused, but stored without the layers that hold them.
        ``headers_only``: read the headers and no weights: shapes, dtypes and sizes are stored with the fingerprint
        ``shapes``, marked so, until the same location is ingested without it.
        ``workers``: number of worker processes; by default the number of cores, or none for small jobs and other
        devices than the CPU. ``executor``: ``inprocess``, ``pool`` or ``ray``, with the ``address`` of its cluster.
        ``time_limit``: seconds per model, after which its worker process is killed; 0 for no limit; by default far
        above the estimate, and none in this process. ``command``: text that ``runs`` shows. ``progress``: a function
        of the number of finished models and of all, or a ``registry.ingest.Progress``. The same plan started again
        continues, and retries failures.

        Raises ``StorageError`` for errors of the database, or ``KeyboardInterrupt``; stored models stay. Raises
        ``RegistryError`` for an unavailable device before anything is read.
        """
        from registry.catalog.ingesting import ingest_refs
        from registry.catalog.storing import Options
        from registry.ingest import Setting

        refs = _planned(refs)
        options = Options(
            replace, keep_spectra, discard_weights, _device(device), approximate, allow_nonfinite, headers_only
        )
        setting = Setting(executor or "", workers, address, time_limit)
        with self._lock:
            return ingest_refs(self._database, refs, options, setting, command, progress)

    def ingest(
        self,
        reference: QueryInput,
        *,
        name: str | None = None,
        key: str | None = None,
        base: str | Path | None = None,
        replace: bool = False,
        keep_spectra: bool = True,
        device: Device = "cpu",
        approximate: bool = False,
        allow_nonfinite: bool = False,
        headers_only: bool = False,
        **card: Unpack[CardFields],
    ) -> Ingested:
        """Ingest one model: a reference, a path, or a live module or its state dict, which need a ``name``.

        ``key``, ``base``: as in ``plan``, for references only; ``replace``, ``keep_spectra``, ``device``,
        ``approximate``, ``allow_nonfinite``, ``headers_only``: as in ``ingest_all``; ``card``: fields of ``ModelCard``;
        ``seed`` is also the seed of a random initialisation.

        Raises ``SourceError``, ``SpectrumError``, ``NameTakenError``, ``UsageError`` or ``StorageError``, or
        ``RegistryError`` for an unavailable device; nothing is stored then.
        """
        from registry.catalog.measuring import expand_all
        from registry.catalog.storing import Options, ingest_checkpoint
        from registry.sources import open_headers, open_module, open_ref

        options = Options(replace, keep_spectra, False, _device(device), approximate, allow_nonfinite, headers_only)
        known = card_of(card)
        if isinstance(reference, str | Path):
            refs = expand_all([reference], None, key=key, seed=known.seed or 0, name=name, base=base, card=known)
            if len(refs) != 1:
                raise UsageError(f"{reference} is {len(refs)} models", "use plan() and ingest_all() for several")
            with self._lock, open_headers(refs[0]) if headers_only else open_ref(refs[0]) as checkpoint:
                return ingest_checkpoint(self._database, checkpoint, options)
        if isinstance(reference, list | tuple):
            raise UsageError("ingest() takes one model", "use plan() and ingest_all() for several")
        if headers_only:
            raise UsageError("a live module has no header", "leave headers_only out")
        if name is not None:
            text(name, "name")
        if not name and (hasattr(reference, "state_dict") or isinstance(reference, Mapping)):
            raise UsageError("a live module needs a name", 'give one: ingest(module, name="my-model")')
        with self._lock, open_module(reference, name or "", known) as checkpoint:
            return ingest_checkpoint(self._database, checkpoint, options)

    def refingerprint(
        self, *, fingerprint: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Recomputed:
        """Compute missing results of this version from stored spectra. Resumable.

        These are the fingerprints of the shipped specs, or of the named one only. Without a name, also conjugacy
        figures that are missing or were computed with other thresholds.

        Raises ``SpecMismatchError`` that names the models whose weights must be ingested again.
        """
        from registry.catalog.measuring import refingerprint
        from registry.spectral.specs import SPECS, spec_named

        specs = tuple(SPECS.values()) if fingerprint is None else (spec_named(fingerprint),)
        with self._lock:
            return refingerprint(self._database, specs, progress, judge=fingerprint is None)

    def outdated(self) -> int:
        """Number of models that lack results of this version and are left out of some answers. O(n).

        An older version stored them; `refingerprint` computes what is missing. Those of an older matrix rule are not
        counted: see `older`.
        """
        from registry.catalog.measuring import outdated

        with self._lock:
            return outdated(self._database.readable())

    def older(self) -> OlderModels:
        """Return the models of an older matrix rule, by name: questions leave them out.

        Matrices of two rules are not compared. ``ingest`` of the same weights under the same name measures a model anew
        and keeps its names, metadata, metrics and tags.
        """
        from registry.catalog.measuring import older

        with self._lock:
            return older(self._database.readable())

    def to_read_again(self) -> tuple[ModelSummary, ...]:
        """Return the models whose weights must be read again for relations and training classes, by name. O(n).

        They were stored before sketches and figures of weights were, by an older version or from a file of one.
        ``ingest`` of the same weights adds what is missing and keeps all else.
        """
        from registry.catalog.measuring import to_read_again

        with self._lock:
            return to_read_again(self._database.readable())

    # Searches and comparisons.

    def nearest(
        self,
        query: QueryInput,
        k: int | None = None,
        *,
        radius: float | None = None,
        equivalent: bool = False,
        exact: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        **filters: Unpack[Filters],
    ) -> tuple[Neighbour, ...]:
        """Return the neighbours that ``search`` finds."""
        return self.search(
            query,
            k,
            radius=radius,
            equivalent=equivalent,
            exact=exact,
            fingerprint=fingerprint,
            distance=distance,
            tolerance=tolerance,
            assume_trained=assume_trained,
            **filters,
        ).neighbours

    def search(
        self,
        query: QueryInput,
        k: int | None = None,
        *,
        radius: float | None = None,
        equivalent: bool = False,
        exact: bool = False,
        relations: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        **filters: Unpack[Filters],
    ) -> Search:
        """Find the stored models nearest to a query model, which is left out.

        ``k``: maximum number of neighbours, 10 by default if there is no ``radius``; ``radius``: maximum distance;
        ``equivalent``: only equivalent models; ``relations``: also tell how the weights of each are related to those of
        the query. All n models that match the filters are searched in memory, O(n d); later searches read only changed
        vectors. A current index of the database (``index.build``) is used instead, unless ``exact``; it can miss
        models, and ``Search.indexed`` is then True. The default tolerance is the largest at which at most one false
        pass is expected among the models searched, and at most the calibrated one. ``assume_trained``: as in
        ``equivalent``.
        """
        from registry.catalog.searching import SearchLimits, look_up
        from registry.spectral.specs import spec_named

        wanted = SearchLimits(k, radius, equivalent, exact, relations)
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_search import nearest_architectures, query_of, shapes_settings

                settings = shapes_settings(fingerprint, distance, tolerance)
                return nearest_architectures(
                    catalogue, query_of(catalogue, query), settings, filter_of(filters), wanted
                )
            where = self._where(filters)
            store = self._database.readable()
            spec = spec_named(fingerprint)
            return look_up(store, query, spec, distance, tolerance, where, wanted, assume_trained=assume_trained)

    def search_all(self, queries: Iterable[QueryInput], **options: Unpack[SearchOptions]) -> tuple[Search, ...]:
        """Run ``search`` for several queries with the same options, in order. Raises the first error."""
        with self._lock:
            return tuple(self.search(query, **options) for query in several(queries, "queries"))

    def compare(
        self,
        a: QueryInput,
        b: QueryInput,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
        assume_trained: bool = False,
        require: Iterable[RequirementName] = (),
        max_drop: Mapping[str, float] | None = None,
        audited: bool = False,
        **unknown: Never,
    ) -> Comparison:
        """Compare two models, stored or not: the same weights, related, equivalent, and where they differ.

        ``audited``: also look for faults in those that are stored. ``strict``, ``assume_trained``: as in
        ``equivalent``. ``require``: what must hold: ``equivalent``; ``related`` (also permuted or identical);
        ``identical``, by content; ``same-shape``, of one topology. ``max_drop``: by how much ``b`` may be worse than
        ``a``, by ``top1``, ``top1@cifar10`` or ``top1@cifar10/test``: wherever both have the metric on one data set and
        split, and at least once. The answer's ``requirements`` tell what holds and why, ``unmet`` what does not.
        """
        from registry.catalog.comparing import compare
        from registry.catalog.requiring import conditions_of

        refuse_unknown(unknown)
        wanted = conditions_of(require, max_drop)
        with self._lock:
            found = compare(
                *self._both(a, b, fingerprint, distance, tolerance, assume_trained=assume_trained),
                strict=strict,
                wanted=wanted,
            )
            if audited:
                from registry.catalog.auditing import findings_of

                both = (found.a, found.b)
                of_a, of_b = (findings_of(self._database.readable(), each) if each.id else None for each in both)
                found = dataclasses.replace(found, findings_a=of_a, findings_b=of_b)
        return found.of_asked(a, b)

    def gate(
        self,
        file: QueryInput,
        against: QueryInput,
        *,
        require: Iterable[RequirementName] = (),
        max_drop: Mapping[str, float] | None = None,
        metrics: Iterable[Metric] = (),
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
        assume_trained: bool = False,
        **unknown: Never,
    ) -> Comparison:
        """Compare a file with a stored model or another file, and tell whether what is required of it holds.

        ``file``: a path, a reference, a live module or its state dict; a text is never a stored name. It is measured
        and not stored. ``metrics``: those of the file, for ``max_drop``; they take the place of metrics that are known.
        ``against``: also a stored name; of two files no database is needed. In the answer ``a`` is ``against`` and
        ``b`` the file. The other arguments are those of ``compare``.

        Raises ``UsageError`` if nothing is required.
        """
        from registry.catalog.arguments import typed_metric
        from registry.catalog.comparing import compare
        from registry.catalog.requiring import conditions_of

        refuse_unknown(unknown)
        wanted = conditions_of(require, max_drop)
        if not wanted:
            raise UsageError(
                "nothing is required", "require equivalent, related, identical or same-shape, or a max_drop"
            )
        known = tuple(map(typed_metric, several(metrics, "metrics")))
        with self._lock:
            of_a, of_b, settings = self._both(
                against, file, fingerprint, distance, tolerance, read=True, assume_trained=assume_trained
            )
            found = compare(of_a, of_b, settings, strict=strict, wanted=wanted, metrics=known)
        return found.of_asked(against, file)

    def equivalent(
        self,
        a: QueryInput,
        b: QueryInput,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
        assume_trained: bool = False,
        **unknown: Never,
    ) -> Verdict:
        """Decide whether two models are equivalent, with the evidence.

        ``strict``: also require spectra by depth as near as those of trainings that differ only in the seed; needs the
        fingerprint ``layered``. ``assume_trained``: judge a model of undetermined training class as trained; else it is
        equivalent to itself alone.
        """
        from registry.catalog.comparing import verdict

        refuse_unknown(unknown)
        with self._lock:
            both = self._both(a, b, fingerprint, distance, tolerance, assume_trained=assume_trained)
            return verdict(*both, strict=strict)

    def relation(self, a: QueryInput, b: QueryInput, **unknown: Never) -> Relation:
        """Tell whether two models, stored or not, have a common start, or one descends from the other.

        The verdict is ``identical``, ``permuted``, ``related``, ``independent``, ``undecided`` or ``not comparable``.
        It rests on weights alone: a shared seed is a common start, too, and no direction is claimed. ``layers`` and
        ``share`` tell on how much of the weights it rests.
        """
        from registry.catalog.relating import relation

        refuse_unknown(unknown)
        with self._lock:
            of_a, of_b, _ = self._both(a, b, "layered", None, None)
            return relation(of_a, of_b)

    def related(self, query: QueryInput, k: int = 10, *, every: bool = False, **filters: Unpack[Filters]) -> Related:
        """Find the stored models whose weights correlate with those of a model, the highest correlation first.

        ``k``: maximum number of models; ``every``: also those that are not related, of the models compared exactly. The
        query is left out. Models with at least three layers of equal shape are compared, or with half of their weights
        in such layers. Above 400, signs of the sketches choose those that are compared exactly; `Related` tells how
        many were left out and why. Takes O(n), from memory after the first question of a topology.

        Raises ``SpecMismatchError`` if the model has no sketches because its weights were not read by this version.
        """
        from registry.catalog.relatives import related

        where, count = self._where(filters), whole(k, "k", 1)
        with self._lock:
            store, subject, _ = self._question(query, "layered", None, None, among=True)
            return related(store, subject, where, count, every=every)

    def tree(self, **filters: Unpack[Filters]) -> RelationForest:
        """Connect the stored models that match by their relations: trees of highest correlations.

        Each tree connects the models of one component of related ones. Its root is the oldest stored: no direction of
        descent is claimed. Pairs with three or more layers of equal shape are compared, O(n^2) of one topology. Raises
        ``UsageError`` above 10,000 models with sketches.
        """
        from registry.catalog.relation_trees import forest

        where = self._where(filters)
        with self._lock:
            return forest(self._database.readable(), where)

    def distances(
        self, *, fingerprint: str = "layered", distance: str | None = None, **filters: Unpack[Filters]
    ) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Names and float64 distances (n, n) between models that match. Raises ``UsageError`` above 20,000 models."""
        from registry.catalog.comparing import pairwise
        from registry.equivalence import distance_named
        from registry.spectral.specs import spec_named

        where = self._where(filters)
        with self._lock:
            store = self._database.readable()
            return pairwise(store, spec_named(fingerprint), distance_named(distance), where)

    def classes(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        assume_trained: bool = False,
        rule: str | None = None,
        keep: bool = True,
        **filters: Unpack[Filters],
    ) -> Partition:
        """Partition the stored models that match the filters into equivalence classes.

        ``rule``: ``complete`` (complete linkage, the default up to 10,000 models), ``cover`` (greedy cover within half
        the tolerance, the default beyond) or ``single``. With the first two, all pairs within an equivalence class are
        within the tolerance. With ``single``, each member is within the tolerance of at least one other. If nothing has
        changed, the kept partition is read back. Else it is computed, O(n^2) at worst, and kept with the identities of
        its equivalence classes, unless ``keep`` is False. If the database is read-only, ``note`` says so.
        ``assume_trained``: as in ``equivalent``; partitions of either setting are kept apart.

        Raises ``UsageError`` for an unknown rule, or for more than 20,000 connected models with ``complete``.
        """
        from registry.catalog.partitioning import classes_of

        where = self._where(filters)
        with self._lock:
            _, settings = self._settings(fingerprint, distance, tolerance, assume_trained=assume_trained)
            return classes_of(self._database, settings, where, rule=rule, keep=keep)

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
    ) -> Compression:
        """Find smaller stored models that are equivalent to the query model, the best first; O(n d).

        Smaller refers to the bounded sizes: ``max_ratio`` in (0, 1], relative to the parameters of the query;
        ``max_params``; ``max_bytes``; ``max_gflops``, which models with unknown gigaflops fail. Without bounds, or if
        only gigaflops are bounded and those of the query are unknown (see ``note``), it refers to parameters. The best
        is the smallest: by gigaflops or bytes if only those are bounded, else by parameters; at equal size, the
        nearest. If none is equivalent, returns the nearest smaller models, with ``equivalent`` False. ``explain``: add
        where each candidate differs from the query; ``relations``: and how its weights are related.
        ``assume_trained``: as in ``equivalent``.
        """
        from registry.catalog.compressing import compress

        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_search import compress_to_architectures, query_of, shapes_settings

                settings, asked = shapes_settings(fingerprint, distance, tolerance), filter_of(filters)
                model = query_of(catalogue, query)
                return compress_to_architectures(catalogue, model, settings, asked, k, max_ratio=max_ratio)
            where = self._where(filters)
            store, subject, settings = self._question(
                query, fingerprint, distance, tolerance, among=True, assume_trained=assume_trained
            )
            return compress(
                store, subject, settings, where, k, max_ratio=max_ratio, explain=explain, relations=relations
            )

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
        """Find the Pareto front of the aims among the stored models that match the filters.

        ``aims``: ``max:top1@cifar10``, ``min:params``, ``min:bytes``, ``min:gflops``, ``min:distance``; by default the
        metrics that the filters bound, else the most common metric, and fewest parameters. Models with an unknown value
        for an aim are left out and counted. ``like``: only models equivalent to this one, including itself.
        ``min_metric``, ``max_metric``: bounds by ``top1`` or ``top1@cifar10``, in addition to the filter ``metrics``.
        ``assume_trained``: as in ``equivalent``.

        The front is grouped into at most ``k`` equivalence classes, each with its smallest model first. If no model is
        left, ``removals`` gives the effect of each constraint. O(n) to read, O(n f a + f^2 d) for f models on the
        front and a aims.
        """
        from registry.catalog.arguments import metric_bounds
        from registry.catalog.objectives import parse_aim

        wanted = [parse_aim(text(aim, "an aim")) for aim in several(aims, "aims")]
        bounds = metric_bounds(min_metric or {}, max_metric or {})
        if bounds:
            filters["metrics"] = (*several(filters.get("metrics") or (), "metrics"), *bounds)
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_search import like_in_catalogue, query_of, shapes_settings
                from registry.catalog.catalogue_selection import select_architectures

                settings, asked = shapes_settings(fingerprint, distance, tolerance), filter_of(filters)
                model = None if like is None else like_in_catalogue(catalogue, query_of(catalogue, like), settings)
                return select_architectures(catalogue, settings, asked, wanted, model, k)
            from registry.catalog.selecting import select

            where = self._where(filters)
            if like is None:
                store, settings = self._settings(fingerprint, distance, tolerance, assume_trained=assume_trained)
                return select(store, settings, where, wanted, None, k)
            store, subject, settings = self._question(
                like, fingerprint, distance, tolerance, among=True, assume_trained=assume_trained
            )
            return select(store, settings, where, wanted, subject, k)

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
        """Calibrate the tolerance on the labelled models, and store the calibration unless ``dry_run``.

        Models of different families are unrelated. The tolerance is the largest at which at most the fraction ``rate``,
        in (0, 1), of unrelated pairs pass. Above 2,000 labelled models, a sample with equally many of each family is
        used; ``seed`` is the seed of the sample and of the bootstrap. The stored calibration is used for this
        fingerprint and distance until the next, or ``reset_calibration``.

        Raises ``UsageError`` if the labels are too few for the rate, ``ReadOnlyError`` if it cannot be stored.
        """
        from registry.catalog.calibrating import learn
        from registry.storage.equivalence.stored_calibrations import put_calibration

        refuse_unknown(unknown)
        rate, seed = number(rate, "rate"), whole(seed, "seed", 0)
        with self._lock:
            store, settings = self._settings(fingerprint, distance, None)
            if dry_run:
                return learn(store, settings, rate, seed)
            try:
                store = self._database.writable()
                found = learn(store, settings, rate, seed)
                store.write(put_calibration, found.calibration)
            except ReadOnlyError as error:
                remedy = f"{error.remedy}; archreg calibrate --dry-run only shows it"
                raise ReadOnlyError(error.message, remedy) from error
            return found

    def calibration(
        self, *, fingerprint: str = "layered", distance: str | None = None, **unknown: Never
    ) -> Calibration | None:
        """Return the calibration in use: that of the registry, else the shipped one; None if there is none."""
        refuse_unknown(unknown)
        with self._lock:
            return self._settings(fingerprint, distance, None)[1].calibration

    def reset_calibration(
        self, *, fingerprint: str = "layered", distance: str | None = None, **unknown: Never
    ) -> Calibration | None:
        """Delete the calibration of the registry, if any; return the shipped one, then in use, or None."""
        from registry.storage.equivalence.stored_calibrations import drop_calibration

        refuse_unknown(unknown)
        with self._lock:
            _, settings = self._settings(fingerprint, distance, None)
            self._database.writable().write(drop_calibration, settings.spec.hash, settings.distance.name)
            return self.calibration(fingerprint=fingerprint, distance=distance)

    def audit(
        self,
        references: QueryInput | Sequence[QueryInput] = (),
        *,
        rules: Sequence[str] = (),
        resume: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        **filters: Unpack[Filters],
    ) -> Audit:
        """Look for faults in models: untrained, duplicate and empty layers, wrong labels, and others.

        ``references``: stored names, or files and references, which are measured and not stored, one or several;
        without any, all stored models that match the filters, in O(n) memory. ``rules``: only these, see
        ``docs/audit.md``. ``resume``: a file in which an audit of stored models keeps what it has found, and from which
        it continues after an interruption; it is removed at the end. ``progress`` is called with the number of finished
        models and of all. Where evidence is missing, the answer says which rules could not be applied, and why.

        Raises the errors of ``compare`` for a reference that cannot be read, if it is the only one; of several it is
        listed in ``not_audited``. Raises ``UsageError`` for an unknown rule, or for references with filters.
        """
        from registry.catalog.auditing import audit_references, audit_stored, rules_named

        alone = isinstance(references, str | Path | Mapping) or hasattr(references, "state_dict")
        asked = (references,) if alone else several(references, "references")
        named = rules_named(several(rules, "rules"))
        if asked and (filters or resume is not None):
            what = "filters are" if filters else "resume is"
            raise UsageError(f"{what} for all stored models", "leave out the references, or the other")
        where = self._where(filters)
        kept = None if resume is None else path(resume, "resume")
        with self._lock:
            if asked:
                return audit_references(self._database, asked, named, progress)
            return audit_stored(self._database.readable(), where, named, progress, kept)

    def identify(
        self,
        references: QueryInput | Sequence[QueryInput],
        *,
        k: int = 5,
        key: str | None = None,
        headers_only: bool = False,
        **unknown: Never,
    ) -> Identified:
        """Tell what models are: architecture, published weights, trained or not, related to what, sound or not.

        ``references``: files, references, live modules or state dicts, one or several; a text is never a stored name.
        Nothing is stored, and no database is needed: the catalogue of architectures and the published models that ship
        with the package are asked, and this registry where it was named or the default one exists. No spectra are
        computed: the training class is that of spectra, or not told. ``k``: nearest architectures and related models
        that are shown; ``key``: entry of a wrapped checkpoint, by default each of several models that it holds;
        ``headers_only``: read no weights.

        Raises the error of a reference that cannot be read, if it is the only one; of several it is listed in
        ``failed``. Raises ``StorageError`` where a database was named that cannot be read.
        """
        from registry.catalog.identifying import PUBLISHED, asking_of, identify

        refuse_unknown(unknown)
        asked, asking = asking_of(references, k=k, key=key, headers_only=headers_only)
        published = Database(PUBLISHED)
        with self._lock, contextlib.closing(published):
            alone = self._database.label == published.label
            return identify([self._database] if alone else [published, self._database], asked, asking)

    # What is stored.

    def models(self, **filters: Unpack[Filters]) -> tuple[ModelSummary, ...]:
        """Return the stored models that match the filters, by name."""
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_listing import list_architectures

                return list_architectures(catalogue, filter_of(filters))
            from registry.storage.models.summaries import read_summaries

            where = self._where(filters)
            return tuple(self._database.readable().read(read_summaries, where))

    def duplicates(self, **filters: Unpack[Filters]) -> Duplicates:
        """Group the stored models that match the filters and are the same, or have a common start.

        ``identical``: one model of several names or places. ``permuted``: the same weights with units in another order.
        ``related``: the trees of ``tree``, which are no waste. Places and their bytes are those recorded by ingests;
        files are not looked at. O(n) for identical models, O(m^2) for each topology of m models for the others. Raises
        ``UsageError`` above 10,000 models with sketches.
        """
        from registry.catalog.deduplicating import duplicates

        where = filter_of(filters)
        with self._lock:
            return duplicates(self._database.readable(), where)

    def unmatched(self, **filters: Unpack[Filters]) -> dict[str, tuple[str, ...]]:
        """Return, for each filter text that no model has, up to three similar known texts, by field. O(n).

        It explains an empty answer: ``{"family": ("resnet",)}`` for the family ``resnt``. Empty if some model has each
        text. Raises ``EmptyRegistryError`` if nothing is stored.
        """
        from registry.catalog.constraint_report import unmatched

        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_listing import unmatched_texts

                return unmatched_texts(catalogue, filter_of(filters))
            where = self._where(filters)
            return unmatched(self._database.readable(), where)

    def show(self, name: str) -> ModelDetails:
        """Return everything stored about one model.

        Raises ``UnknownModelError`` with similar names, or with the registry that ships and knows the name; that is
        said of a database that is missing, too.
        """
        from registry.catalog.model_details import details

        with self._lock:
            try:
                if (catalogue := self._database.catalogue()) is not None:
                    from registry.catalog.catalogue_listing import architecture_details

                    return architecture_details(catalogue, name)
                return details(self._database.readable(), name)
            except (UnknownModelError, DatabaseMissingError, EmptyRegistryError) as error:
                from registry.catalog.shipped_names import shipped_that_know

                if known := shipped_that_know(name, self._database.url):
                    remedy = f"{' and '.join(known)} {'know' if len(known) > 1 else 'knows'} {name!r}: --db {known[0]}"
                    raise type(error)(error.message, remedy) from error
                raise

    def spectrum(self, name: str) -> tuple[Spectrum, ...]:
        """Return the stored spectra of one model, by layer in depth order.

        Raises ``UnknownModelError``, or ``SpecMismatchError`` if the model was ingested without spectra.
        """
        from registry.catalog.model_details import stored_spectra

        with self._lock:
            return stored_spectra(self._database.readable(), name)

    def stats(self) -> Stats:
        """Return counts of models, layers, families, training and tail classes and fingerprints, and the size."""
        with self._lock:
            if (catalogue := self._database.catalogue()) is not None:
                from registry.catalog.catalogue_listing import catalogue_stats

                return catalogue_stats(catalogue)
            from registry.storage.models.model_queries import read_stats

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
        """Draw the cumulative spectral differences of 1 to 8 stored models; return the Matplotlib figure.

        ``file``: also save the figure, as PNG, SVG or PDF by the suffix. The figure is not registered with
        ``matplotlib.pyplot``. ``reference``: name of a reference ensemble in ``registry.ensembles.REFERENCES``: its
        expectation, or one sample with this ``seed``. Raises ``UsageError``, the errors of ``spectrum``, or
        ``RegistryError`` if the file cannot be written or Matplotlib is missing.
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
        """Draw the spectrum of one stored model by depth; return, save and raise as ``plot_csd``."""
        from registry.catalog.plotting import picture_spectrum
        from registry.plots import check_picture, plot_spectrum

        picture_file = None if file is None else path(file, "file")
        check_picture(picture_file)
        with self._lock:
            picture = picture_spectrum(self._database.readable(), name)
        return plot_spectrum(picture, picture_file, title=title)

    def plot_tree(self, file: str | Path | None = None, *, title: str = "", **filters: Unpack[Filters]) -> Figure:
        """Draw the trees of related models that match, at most 400; return, save and raise as ``plot_csd``."""
        from registry.catalog.relation_trees import picture_trees
        from registry.plots import check_picture, plot_trees

        picture_file, where = None if file is None else path(file, "file"), self._where(filters)
        check_picture(picture_file)
        with self._lock:
            picture = picture_trees(self._database.readable(), where)
        return plot_trees(picture, picture_file, title=title)

    # Changes.

    def set(self, name: str, **changes: Unpack[CardChanges]) -> ModelSummary:
        """Change the metadata of a model: family, architecture, task, dataset, licence, training, seed, ..."""
        from registry.storage.models.changes import set_card

        with self._lock:
            return self._database.writable().write(set_card, name, changes)

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, or replace the one with the same name, dataset and split."""
        from registry.catalog.arguments import typed_metric
        from registry.storage.models.changes import set_metric

        with self._lock:
            return self._database.writable().write(set_metric, name, typed_metric(metric))

    def tag(self, name: str, /, **tags: str | None) -> tuple[tuple[str, str], ...]:
        """Set tags of a model; None removes a tag. Returns all its tags."""
        from registry.storage.models.changes import set_tags

        for key, value in tags.items():
            if value is not None:
                text(value, f"the tag {key}")
        with self._lock:
            return self._database.writable().write(set_tags, name, tags)

    def rename(self, old: str, new: str) -> ModelSummary:
        """Rename a model. Raises ``NameTakenError`` if the new name is in use."""
        from registry.storage.models.changes import rename

        with self._lock:
            return self._database.writable().write(rename, old, text(new, "a name"))

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names, spectra and fingerprints; return its summary."""
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
        """Write stored models, without weights, to a new SQLite file, which is a registry. O(n) time.

        ``names``: only these models; ``filters``: only models that match. ``spectra``: include the eigenvalues, which
        ``refingerprint`` needs. ``progress`` is called with the number of finished models and of all. The file includes
        all calibrations, but not the journal or the kept partitions. A damaged model is left out and listed in
        ``failed``.

        The file is written atomically. Raises ``EmptyRegistryError`` if no model matches, ``RegistryError`` if the file
        exists and ``overwrite`` is False, or if it cannot be written.
        """
        from registry.catalog.transfer import export

        target, chosen, where = path(file, "file"), several(names, "names"), self._where(filters)
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
        """Import the models of a SQLite file that ``export`` wrote, of any registry in one, or of ``published:``; O(n).

        Known weights receive missing names and values, and present values stay. Importing again, also after an
        interruption, changes nothing. A name that belongs to other weights makes the model a failed item. ``replace``:
        reassign such names, and replace metadata and calibrations by those of the file; fingerprints and spectra of
        known weights stay.

        The file is opened read-only and not trusted: a damaged model is a failed item, of which nothing is stored.
        ``dry_run``: return the outcome of each model and change nothing.

        Raises ``NotFoundError``, ``SchemaVersionError`` (an older file is upgraded as a copy), or ``StorageError`` if
        the file is not a registry or the database fails; stored models stay.
        """
        from registry.catalog.transfer import import_from

        given = path(file, "file")
        with self._lock:
            return import_from(self._database, given, replace=replace, dry_run=dry_run, progress=progress)

    def upgrade(self, *, from_revision: str | None = None) -> str:
        """Upgrade the schema to this version; return its revision.

        ``from_revision``: revision of a database that does not record one. It is checked against the tables and then
        set.
        """
        from registry.storage.engine import migrate

        if from_revision is not None:
            text(from_revision, "from_revision")
        with self._lock:
            self._database.close()
            return migrate.upgrade(self._database.url, from_revision=from_revision)

    def current(self) -> str | None:
        """Return the schema revision, None without a schema. Raises ``SchemaVersionError`` for an unknown revision."""
        from registry.storage.engine.schema_version import version_at

        with self._lock:
            return version_at(self._database.url)

    def check(self) -> tuple[str, ...]:
        """Return the problems found in the database; empty if it is sound."""
        from registry.storage.engine import migrate

        with self._lock:
            return tuple(migrate.check(self._database.url))

    # Shared by several methods.

    def _where(self, filters: Filters) -> Filter:
        """The filter of those keywords, with the ids of related models if it asks for them."""
        if not filters:
            return Filter()
        where = filter_of(filters)
        if where.related_to is None and where.unrelated_to is None:
            return where
        from registry.catalog.relatives import with_kin

        with self._lock:
            return with_kin(self._database.readable(), where)

    def _settings(
        self, fingerprint: str, distance: str | None, tolerance: float | None, *, assume_trained: bool = False
    ) -> tuple[Store, SearchSettings]:
        from registry.catalog.search_settings import settings_for
        from registry.spectral.specs import spec_named

        store = self._database.readable()
        spec = spec_named(fingerprint)
        return store, settings_for(store, spec, distance, tolerance, assume_trained=assume_trained)

    def _question(
        self,
        query: QueryInput,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        *,
        among: bool = False,
        assume_trained: bool = False,
    ) -> tuple[Store, Query, SearchSettings]:
        """Settings and query model. ``among``: first require stored models, before weights are read or downloaded."""
        from registry.catalog.search_settings import settings_for
        from registry.catalog.subjects import or_shapes, resolve
        from registry.storage.models.model_queries import require_models

        store, settings = self._settings(fingerprint, distance, tolerance, assume_trained=assume_trained)
        if among:
            store.read(require_models)
        spec, subject = or_shapes(settings.spec, lambda spec: (spec, resolve(store, query, spec)))
        if spec != settings.spec:
            settings = settings_for(store, spec, distance, tolerance, assume_trained=assume_trained)
        return store, subject, settings

    def _both(
        self,
        a: QueryInput,
        b: QueryInput,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        *,
        read: bool = False,
        assume_trained: bool = False,
    ) -> tuple[Query, Query, SearchSettings]:
        """Two query models and the settings to compare them, by shapes alone if the weights of one were not read.

        ``read``: ``b`` is not stored. Of files alone, no database is needed.
        """
        from registry.catalog.search_settings import settings_for
        from registry.catalog.subjects import names_a_source, or_shapes, resolve, unnamed
        from registry.spectral.specs import spec_named

        named = [each for each in ((a,) if read else (a, b)) if isinstance(each, str) and not names_a_source(each)]
        store = self._database.readable() if named else self._database.readable_if_any()
        settings = settings_for(store, spec_named(fingerprint), distance, tolerance, assume_trained=assume_trained)
        second = unnamed if read else resolve
        spec, one, other = or_shapes(
            settings.spec, lambda spec: (spec, resolve(store, a, spec), second(store, b, spec))
        )
        if spec != settings.spec:
            settings = settings_for(store, spec, distance, tolerance, assume_trained=assume_trained)
        return one, other, settings


def _planned(refs: Sequence[ModelRef]) -> tuple[ModelRef, ...]:
    """Return the plan as a tuple. Raises ``UsageError`` for references that were not planned."""
    for ref in (planned := several(refs, "refs")):
        if not isinstance(ref, ModelRef):
            raise UsageError(f"refs must come from plan(), not {ref!r}", "write ingest_all(plan([...]))")
    return planned


def _device(device: Device) -> Device:
    if device == "cpu":  # do not load torch, so that workers start sooner
        return device
    from registry.spectral.devices import device_at_hand

    return device_at_hand(device)
