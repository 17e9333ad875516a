"""What the first answers of `compress` and `select --like` lose, beside choices that need no registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from benchmarks.advice.recipes import Recipe
    from benchmarks.advice.scored import Scored
    from benchmarks.advice.training import Trained
    from registry import Registry

__all__ = ["BASELINES", "Advice", "Answer", "advice_of", "answers", "gain_interval"]

RESAMPLES = 2_000
BEST, LIKE, RANDOM = "best smaller", "nearest in parameters, same family name", "random smaller"
LIKE_SAVING, RANDOM_SAVING = "same family name, saving as much", "random, saving as much"
BASELINES = (BEST, LIKE, LIKE_SAVING, RANDOM, RANDOM_SAVING)


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to a query: positions of both in their `Scored`.

    ``drop``: accuracy of the query minus that of the answer, in points. ``saved``: fraction of the parameters.
    ``equivalent``: whether the registry calls it so. ``drops``: of the baselines, by name, among the same candidates,
    or those of them that are no larger than the answer; NaN where there is none.
    """

    task: str
    question: str
    query: int
    answer: int
    equivalent: bool
    drop: float
    saved: float
    drops: dict[str, float]


@dataclass(frozen=True, slots=True)
class Advice:
    """Answers to one question: their number, and mean drop in points; differences from each baseline with 95 % ends.

    ``gains``: by baseline, how much less the first answers lose than the baseline: mean, low, high, and queries.
    """

    question: str
    queries: int
    equivalent: float
    drop: float
    saved: float
    drops: dict[str, float]
    gains: dict[str, tuple[float, float, float, int]]


def answers(reg: Registry, galleries: Sequence[Scored], networks: Sequence[Trained]) -> list[Answer]:
    """The first answers of the registry to each question about each network that was trained to its end."""
    sound = {each.recipe.name for each in networks if _is_sound(each.recipe)}
    return [
        found
        for gallery in galleries
        for query, name in enumerate(gallery.names)
        if name in sound and len(gallery.smaller(query))
        for found in _of_query(reg, gallery, query)
    ]


def _is_sound(recipe: Recipe) -> bool:
    """Whether someone may use this network: trained or tuned to the end, on right labels and most of the data."""
    whole = recipe.noise == 0.0 and recipe.share >= 0.5
    return whole and (recipe.length == 1.0 or recipe.way in ("tuned", "shortened"))


def _of_query(reg: Registry, gallery: Scored, query: int) -> Iterator[Answer]:
    place = {name: at for at, name in enumerate(gallery.names)}
    name, task, parameters = gallery.names[query], gallery.task, int(gallery.parameters[query])
    for question, ratio in (("compress", None), ("compress --max-ratio 0.5", 0.5)):
        found = reg.compress(name, max_ratio=ratio, k=1, dataset=task)
        if found.candidates:
            among = gallery.parameters < parameters if ratio is None else gallery.parameters <= int(ratio * parameters)
            answer = place[found.candidates[0].model.name]
            yield _answer(gallery, question, query, answer, np.flatnonzero(among), found.equivalent)
    smaller = gallery.smaller(query)
    near = reg.nearest(name, k=1, dataset=task, max_params=parameters - 1)[0]
    yield _answer(gallery, "nearest", query, place[near.model.name], smaller, bool(near.verdict.equivalent))
    selected = reg.select(like=name, dataset=task, max_params=parameters - 1, k=1)
    if selected.classes:
        yield _answer(gallery, "select --like", query, place[selected.classes[0].best.model.name], smaller, True)


def _answer(
    gallery: Scored, question: str, query: int, answer: int, among: NDArray[np.int64], equivalent: bool
) -> Answer:
    saving = among[gallery.parameters[among] <= gallery.parameters[answer]]

    def largest_like(some: NDArray[np.int64]) -> float:
        own = some[gallery.families[some] == gallery.families[query]]
        return float(gallery.top1[own[gallery.parameters[own].argmax()]]) if len(own) else np.nan

    scores = {
        BEST: gallery.top1[among].max(),
        LIKE: largest_like(among),
        LIKE_SAVING: largest_like(saving),
        RANDOM: gallery.top1[among].mean(),
        RANDOM_SAVING: gallery.top1[saving].mean(),
    }
    return Answer(
        gallery.task,
        question,
        query,
        answer,
        equivalent,
        float(gallery.top1[query] - gallery.top1[answer]),
        float(1.0 - gallery.parameters[answer] / gallery.parameters[query]),
        {name: float(gallery.top1[query] - score) for name, score in scores.items()},
    )


def advice_of(question: str, found: Sequence[Answer]) -> Advice:
    """Means over the answers to one question. The intervals are of a bootstrap over the queries."""
    drops = np.array([answer.drop for answer in found])
    gains, means = {}, {}
    for name in BASELINES:
        theirs = np.array([answer.drops[name] for answer in found])
        known = np.isfinite(theirs)
        means[name] = float(theirs[known].mean())
        gains[name] = (*gain_interval((theirs - drops)[known]), int(known.sum()))
    return Advice(
        question,
        len(found),
        float(np.mean([answer.equivalent for answer in found])),
        float(drops.mean()),
        float(np.median([answer.saved for answer in found])),
        means,
        gains,
    )


def gain_interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of paired differences (n,), and the 95 % percentile interval of a bootstrap over them."""
    random = np.random.default_rng(0)
    drawn = differences[random.integers(len(differences), size=(RESAMPLES, len(differences)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
