"""Why a selection is empty: what each constraint removed."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.searching import gallery_of
from registry.types import Filter, Removal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.catalog.aims import Figures
    from registry.catalog.queries import Query
    from registry.catalog.terms import Terms
    from registry.storage import Store
    from registry.types import Aim, MetricBound

__all__ = ["removals"]

TEXTS = ("family", "architecture", "task", "dataset", "licence")
BOUNDS = {
    "min_params": "at least {:,} parameters",
    "max_params": "at most {:,} parameters",
    "min_bytes": "at least {:,} bytes",
    "max_bytes": "at most {:,} bytes",
    "max_gflops": "at most {:g} gigaflops",
}


def removals(
    store: Store, by: Terms, where: Filter, like: Query | None, figures: Figures, aims: Sequence[Aim]
) -> tuple[Removal, ...]:
    """Of each constraint, how many models fail it, and how many would pass if it alone were dropped; c + 1 queries."""
    every = np.array(store.candidate_ids(), dtype=np.int64)
    texts, near, passing = [], [], []
    for text, field, alone in _constraints(where):
        ids = store.candidate_ids(alone)
        texts.append(text)
        passing.append(np.isin(every, ids))
        near.append(_near(store, field, getattr(alone, field)) if field in TEXTS and not ids else ())
    if like is not None:
        equivalent, _ = gallery_of(store, like, replace(by, asked=True), Filter()).equivalent()
        texts.append(f"equivalent to {like.model.name}")
        passing.append(np.isin(every, [*equivalent.tolist(), like.model.id]))
        near.append(())
    for aim in aims:
        # Of the other models it is not known here, nor would it help: these have passed all else.
        values = figures.of(aim)
        texts.append(f"a known {aim.place}")
        passing.append(~np.isin(every, figures.ids[np.isnan(values)]))
        near.append(())
    failed = ~np.array(passing).reshape(len(texts), len(every))
    times = failed.sum(axis=0)
    return tuple(
        Removal(text, int(fails.sum()), int((fails & (times == 1)).sum()), hints)
        for text, fails, hints in zip(texts, failed, near, strict=True)
    )


def _constraints(where: Filter) -> Iterator[tuple[str, str, Filter]]:
    """Each constraint in words, the field it is in, and the filter of it alone."""
    for field in fields(Filter):
        value = getattr(where, field.name)
        if field.name == "metrics":
            yield from ((_bound(bound), "metrics", Filter(metrics=(bound,))) for bound in value)
        elif field.name == "tags":
            yield from ((f"tag {key}={text}", "tags", Filter(tags=((key, text),))) for key, text in value)
        elif value != field.default:
            text = BOUNDS[field.name].format(value) if field.name in BOUNDS else f"{field.name} {value}"
            yield text, field.name, Filter(**{field.name: value})


def _bound(bound: MetricBound) -> str:
    place = f"{bound.name}@{bound.dataset}" if bound.dataset else bound.name
    least = "" if bound.minimum is None else f" at least {bound.minimum:g}"
    most = "" if bound.maximum is None else f" at most {bound.maximum:g}"
    return f"{place}{least}{most}"


def _near(store: Store, field: str, value: str) -> tuple[str, ...]:
    """Known values spelt nearly so, or that hold it."""
    known = {text.lower(): text for text in store.texts(field)}
    close = get_close_matches(value.lower(), known, n=3, cutoff=0.6)
    longer = [text for text in known if value.lower() in text][: 3 - len(close)]
    return tuple(known[text] for text in dict.fromkeys([*close, *longer]))
