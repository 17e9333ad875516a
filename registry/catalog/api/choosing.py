"""What to take instead, and what to take at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part, filter_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.catalog.subjects import Asked
    from registry.types import Compression, Selection

__all__ = ["Choosing"]


class Choosing(Part):
    """What smaller model can stand in, and which are worth choosing from."""

    def compress(
        self,
        query: Asked,
        *,
        max_ratio: float | None = None,
        max_params: int | None = None,
        max_bytes: int | None = None,
        max_gflops: float | None = None,
        k: int = 10,
        explain: bool = False,
        fingerprint: str = "layered",
        distance: str | None = None,
        tolerance: float | None = None,
        **filters: Any,
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

        where = filter_of({**filters, "max_params": max_params, "max_bytes": max_bytes, "max_gflops": max_gflops})
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
        **filters: Any,
    ) -> Selection:
        """The Pareto front of the aims among the stored models that pass the filters: those that none beats in all.

        ``aims``: ``max:top1@cifar10``, ``min:params``, ``min:bytes``, ``min:gflops``, ``min:distance``; by default the
        metrics that the filters bound, else the one that most of the models have, and few parameters. Models that have
        no figure for an aim are left out and counted. ``like``: only what is equivalent to that model, itself included.
        ``min_metric``, ``max_metric``: bounds by ``top1`` or ``top1@cifar10``, beside ``metrics`` of the filter.

        Equivalent models of the front are one class, shown by its smallest, at most ``k`` of them. Where nothing is
        left, ``removals`` says what each constraint removed. O(n) to read, O(n f a + f^2 d) for f models on the front.
        """
        from registry.catalog.arguments import several, text
        from registry.catalog.bounds import metric_bounds
        from registry.catalog.objectives import parse_aim
        from registry.catalog.selecting import select

        wanted = [parse_aim(text(aim, "an aim")) for aim in several(aims, "aims")]
        bounds = metric_bounds(min_metric or {}, max_metric or {})
        where = filter_of({**filters, "metrics": (*several(filters.get("metrics") or (), "metrics"), *bounds)})
        if like is None:
            store, by = self._terms(fingerprint, distance, tolerance)
            return select(store, by, where, wanted, None, k)
        store, subject, by = self._question(like, fingerprint, distance, tolerance, among=True)
        return select(store, by, where, wanted, subject, k)
