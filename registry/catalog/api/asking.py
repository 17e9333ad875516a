"""Questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part, filter_of, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.subjects import Asked
    from registry.types import Comparison, KeptPartition, Neighbour, Partition, Search, Verdict

__all__ = ["Asking"]


class Asking(Part):
    """What is nearest, what is equivalent."""

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
        **filters: Any,
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
        **filters: Any,
    ) -> Search:
        """The stored models nearest to one, which is left out: a name, a reference, a path, or a module in memory.

        ``k``: how many at most, 10 where there is no ``radius``, how far away at most; ``equivalent``: only those
        equivalent to it. What passes the filters is searched all, O(n d), from memory: vectors are read once, and after
        that only what has changed. Where the database has a current index (``index_build``) it is asked instead, unless
        ``exact``; it can miss some, and ``Search.indexed`` says so. The default tolerance is the largest at which one
        false pass is expected among the models searched, at most the calibrated one.
        """
        from registry.catalog.searching import Wanted, search_for
        from registry.catalog.subjects import stored

        wanted, where = Wanted(k, radius, equivalent, exact), filter_of(filters)
        store = self._database.readable()
        with store.snapshot():  # of a stored model all is asked at once; weights are read outside of any transaction
            _, by = self._terms(fingerprint, distance, tolerance)
            subject = stored(store, query, by.spec)
            if subject is not None:
                return search_for(store, subject, by, where, wanted, just_read=True)
        store, subject, by = self._question(query, fingerprint, distance, tolerance, among=True)
        return search_for(store, subject, by, where, wanted)

    def search_all(self, queries: Iterable[Asked], **terms: Any) -> tuple[Search, ...]:
        """``search`` for each of several, by the same terms, in their order; the first that fails ends it."""
        from registry.catalog.arguments import several

        return tuple(self.search(query, **terms) for query in several(queries, "queries"))

    def compare(
        self,
        a: Asked,
        b: Asked,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        strict: bool = False,
    ) -> Comparison:
        """Two models side by side, stored or not: verdict, distances, the classes of both, and where they differ.

        ``strict``: as for ``equivalent``.
        """
        from registry.catalog.comparing import compare
        from registry.catalog.subjects import resolve

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
    ) -> Verdict:
        """Whether two models are equivalent within the tolerance, with the evidence.

        ``strict``: only if their spectra by depth are no farther apart than those of other seeds of one training, too;
        by ``layered`` alone.
        """
        from registry.catalog.comparing import verdict
        from registry.catalog.subjects import resolve

        store, subject, by = self._question(a, fingerprint, distance, tolerance)
        return verdict(subject, resolve(store, b, by.spec), by, strict=strict)

    def classes(
        self,
        *,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        rule: str | None = None,
        keep: bool = True,
        **filters: Any,
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

        _, by = self._terms(fingerprint, distance, tolerance)
        return classes_of(self._database, by, filter_of(filters), rule=rule, keep=keep)

    def kept_class(self, identity: str) -> Partition:
        """The partition that has the class of that identity, or the beginning of one, with that class alone.

        It is as of ``created``: models removed since are left out, models added since are not in it.

        Raises ``UnknownClassError``, or ``AmbiguousError`` where several identities start so.
        """
        from registry.catalog.arguments import text
        from registry.catalog.partitioning import kept_class

        return kept_class(self._database.readable(), text(identity, "identity"))

    def kept_partitions(self) -> tuple[KeptPartition, ...]:
        """The partitions that the database holds, the newest first."""
        from registry.catalog.partitioning import kept_partitions

        return kept_partitions(self._database.readable())

    def forget_partition(self, partition_id: int) -> KeptPartition:
        """Forget the kept partition of that ``id``, with its classes and their identities; returns what it was.

        Classes by the same terms are made anew when next asked for. Raises ``UnknownClassError``.
        """
        from registry.catalog.arguments import whole
        from registry.catalog.partitioning import forget_partition

        return forget_partition(self._database.writable(), whole(partition_id, "partition_id"))

    def distances(
        self, *, fingerprint: str = "layered", distance: str | None = None, **filters: Any
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Names and the (n, n) float64 distances between all stored models that pass; refused above 20,000 models."""
        from registry.catalog.comparing import pairwise
        from registry.equivalence import distance_named

        store = self._database.readable()
        return pairwise(store, spec_of(fingerprint), distance_named(distance), filter_of(filters))
