"""The networks are what their recipes say, are trained once, and the figures are those of their definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.advice import families
from benchmarks.advice.answers import (
    BASELINES,
    BEST,
    LIKE,
    LIKE_SAVING,
    RANDOM,
    RANDOM_SAVING,
    Answer,
    advice_of,
    answers,
    gain_interval,
)
from benchmarks.advice.correlations import correlations, rank_correlation
from benchmarks.advice.coverage import ANSWERED, BLIND, HIDDEN, LEFT_OUT, coverages
from benchmarks.advice.families import FAMILIES
from benchmarks.advice.recipes import RECIPES, recipes_of
from benchmarks.advice.report import markdown
from benchmarks.advice.scored import Scored, ingest, scored
from benchmarks.advice.tasks import SCORED, TASKS, task_named
from benchmarks.advice.training import PRUNED, Trained, read_trained, train_missing
from benchmarks.spectral_specs import SPECTRAL
from registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

TINY = (*tuple(recipes_of("digits", "mlp"))[:3], *tuple(recipes_of("digits", "mlp"))[8:])


def test_enough_is_trained() -> None:
    assert len(RECIPES) >= 300
    assert len(TASKS) >= 3
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    for at, recipe in enumerate(RECIPES):
        assert not recipe.parent or recipe.parent in names[:at]
    for family in FAMILIES:
        assert {recipe.way for recipe in RECIPES if recipe.family == family} == {
            "", "tuned", "continued", "pruned", "shortened",
        }  # fmt: skip
    assert any(recipe.noise for recipe in RECIPES)
    assert any(recipe.share < 0.5 for recipe in RECIPES)
    assert any(0.0 < recipe.length < 0.5 for recipe in RECIPES if not recipe.parent)


@pytest.mark.parametrize("name", TASKS)
def test_a_data_set_is_the_same_each_time(name: str) -> None:
    one, again = TASKS[name](), task_named(name)
    for part in ("inputs", "labels", "scored_inputs", "scored_labels"):
        assert torch.equal(getattr(one, part), getattr(again, part))
    assert len(one.scored_labels) == SCORED
    assert one.inputs.dtype == torch.float32
    assert set(one.labels.tolist()) == set(one.scored_labels.tolist()) == set(range(one.classes))
    # No sample for the scores is one for training.
    rows = {row.tobytes() for row in one.inputs.flatten(1).numpy()}
    assert sum(row.tobytes() in rows for row in one.scored_inputs.flatten(1).numpy()) == 0


@pytest.mark.parametrize("name", TASKS)
def test_every_family_maps_inputs_to_classes(name: str) -> None:
    task = task_named(name)
    for family in FAMILIES.values():
        for depth in (1, 3):
            network = family.build(task, family.widths[0], depth)
            assert network(task.inputs[:3]).shape == (3, task.classes)
            assert len(network.blocks) == depth


def test_rows_are_rows_of_images_and_letters_of_texts() -> None:
    image, text, signal = (task_named(name) for name in ("digits", "texts", "signals"))
    assert torch.equal(image.rows(image.inputs)[5, 3], image.inputs[5, 0, 3])
    assert torch.equal(text.rows(text.inputs)[5, 3], text.inputs[5, :, 3])
    assert torch.equal(signal.rows(signal.inputs)[5, 3], signal.inputs[5, 0, 12:16])


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    folder = tmp_path_factory.mktemp("networks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, "mlp", replace(FAMILIES["mlp"], steps=200))
        said: list[str] = []
        below = train_missing(folder, TINY[:2], said.append)
        assert [line.split(" in ")[0] for line in said] == ["trained 2 of 2 networks"]
        before = {path: path.stat().st_mtime_ns for path in below.rglob("*.safetensors")}
        # Stopped after two, it goes on with the others.
        assert train_missing(folder, TINY, said.append) == below
        assert said[-1].startswith(f"trained {len(TINY) - 2} of {len(TINY) - 2} networks")
        assert {path: path.stat().st_mtime_ns for path in before} == before
    return read_trained(below, TINY)


def test_what_is_kept(networks: list[Trained]) -> None:
    task = task_named("digits")
    assert not list(networks[0].path.parent.glob("*.part"))
    for each in networks:
        assert each.probabilities.shape == (SCORED, task.classes)
        assert each.probabilities.dtype == np.float16
        right = each.probabilities.argmax(1) == task.scored_labels.numpy()
        assert each.top1 == pytest.approx(100.0 * right.mean(), abs=0.3)  # float16 makes some ties
        assert each.top1 > 40


def test_descendants_inherit(networks: list[Trained]) -> None:
    weights = {each.recipe.name: load_file(each.path) for each in networks}
    for each in networks:
        if not each.recipe.parent:
            continue
        own, parent = weights[each.recipe.name], weights[each.recipe.parent]
        if each.recipe.way == "shortened":
            assert set(own) < set(parent)
            assert each.recipe.depth == 2
        else:
            assert set(own) == set(parent)
        inner = own["blocks.0.0.weight"]
        before = parent["blocks.0.0.weight"]
        if each.recipe.way == "pruned":
            assert np.mean(inner == 0) == pytest.approx(PRUNED, abs=0.01)
            np.testing.assert_array_equal(inner[inner != 0], before[inner != 0])
        else:
            assert np.corrcoef(inner.ravel(), before.ravel())[0, 1] > 0.5
            assert (inner != before).any()


def test_the_registry_is_asked(networks: list[Trained], tmp_path: Path) -> None:
    with Registry(tmp_path / "models.db") as reg:
        ingest(reg, networks)
        [gallery] = scored(reg, networks)
        assert gallery.names == tuple(each.recipe.name for each in networks)
        card = reg[gallery.names[0]]
        assert (card.family, card.dataset, card.metrics[0].value) == ("mlp", "digits", round(networks[0].top1, 4))
        found = answers(reg, [gallery], networks)
    np.testing.assert_allclose(gallery.top1, [each.top1 for each in networks])
    first, second = networks[0].probabilities.argmax(1), networks[1].probabilities.argmax(1)
    assert gallery.disagreement[0, 1] == gallery.disagreement[1, 0] == pytest.approx(100.0 * np.mean(first != second))
    assert not gallery.disagreement.diagonal().any()
    child = next(at for at, each in enumerate(networks) if each.recipe.way == "tuned")
    assert gallery.correlation[0, child] > 0.5 > abs(gallery.correlation[0, 1])
    assert {answer.question for answer in found} >= {"compress", "nearest"}
    for answer in found:
        assert gallery.parameters[answer.answer] < gallery.parameters[answer.query]
        assert answer.drop == pytest.approx(gallery.top1[answer.query] - gallery.top1[answer.answer])
        assert answer.drops[BEST] <= min(answer.drop, answer.drops[RANDOM])
        assert answer.drops[RANDOM_SAVING] >= answer.drops[BEST]
        assert networks[answer.query].recipe.way != "pruned"
    # All are of one family, so that the nearest in parameters is the largest of the smaller ones.
    answer = next(one for one in found if one.question == "nearest" and one.query == 0)
    smaller = gallery.smaller(0)
    largest = smaller[gallery.parameters[smaller].argmax()]
    assert answer.drops[LIKE] == pytest.approx(gallery.top1[0] - gallery.top1[largest])
    saving = smaller[gallery.parameters[smaller] <= gallery.parameters[answer.answer]]
    largest = saving[gallery.parameters[saving].argmax()]
    assert answer.drops[LIKE_SAVING] == pytest.approx(gallery.top1[0] - gallery.top1[largest])
    told = advice_of("compress", [one for one in found if one.question == "compress"])
    assert set(told.gains) == set(BASELINES)
    gain, low, high, queries = told.gains[BEST]
    assert low <= gain <= high <= 0.0
    assert queries == told.queries
    assert gain == pytest.approx(told.drops[BEST] - told.drop)


def _gallery(count: int = 72, families: int = 6) -> Scored:
    """Networks on a line whose score falls with their place and rises with their size."""
    random = np.random.default_rng(0)
    place = random.random(count)
    parameters = np.round(1_000 * np.exp(3 * random.random(count))).astype(np.int64)
    top1 = 90.0 - 20.0 * place + 2.0 * np.log(parameters / 1_000) + random.standard_normal(count)
    names = np.array([f"f{at % families}" for at in range(count)])
    apart = np.abs(place[:, None] - place[None])
    unknown = np.full((count, count), np.nan)
    return Scored(
        "line",
        tuple(f"n{at}" for at in range(count)),
        names,
        parameters,
        top1,
        np.full(count, "trained"),
        dict.fromkeys(SPECTRAL, apart),
        apart * 100.0,
        unknown,
    )


def test_correlations() -> None:
    found = {(each.evidence, each.target, each.within): each for each in correlations([_gallery()])}
    first = f"distance, `{next(iter(SPECTRAL))}`"
    same = found[first, "disagreement", False]
    assert same.value == pytest.approx(1.0)
    assert (same.low, same.high) == pytest.approx((1.0, 1.0))
    assert same.pairs == 72 * 71 // 2
    gap = found[first, "gap of top1", True]
    assert gap.pairs == 6 * 12 * 11 // 2
    assert 0.5 < gap.low <= gap.value <= gap.high < 1.0
    assert np.isnan(found["weights, 1 - r", "disagreement", True].value)
    assert np.isnan(found["other training class", "disagreement", False].value)
    assert rank_correlation(np.arange(30.0), np.exp(-np.arange(30.0))) == pytest.approx(-1.0)
    assert np.isnan(rank_correlation(np.arange(19.0), np.arange(19.0)))


def test_coverages() -> None:
    gallery = _gallery()
    asked = [
        _answered(gallery, query, int(gallery.smaller(query)[0])) for query in range(72) if len(gallery.smaller(query))
    ]
    found = {each.kind: each for each in coverages(gallery, asked)}
    assert set(found) == {LEFT_OUT, LEFT_OUT + BLIND, ANSWERED, ANSWERED + BLIND, HIDDEN}
    assert found[HIDDEN].pairs == len(asked)
    for each in found.values():
        # All families are alike here, so that those left out are covered as the others are.
        assert 0.85 <= each.held <= (0.95 if each.pairs > 1_000 else 0.99)
        assert each.known > 0.8
        assert each.families[0] <= each.held <= each.families[1]
        assert each.score >= each.width * 0.8
    assert found[LEFT_OUT].score < 0.9 * found[LEFT_OUT + BLIND].score
    assert found[LEFT_OUT].rank > found[LEFT_OUT + BLIND].rank
    text = markdown([gallery], correlations([gallery]), asked, list(found.values()))
    assert all(len({line.count(" | ") for line in table.splitlines()}) <= 2 for table in text.split("\n\n"))
    assert "weights" not in text.split("\n\n")[1] or "| weights, 1 - r | disagreement | all |" not in text


def _answered(gallery: Scored, query: int, answer: int) -> Answer:
    drop = float(gallery.top1[query] - gallery.top1[answer])
    return Answer(gallery.task, "compress", query, answer, True, drop, 0.5, dict.fromkeys(BASELINES, drop))


def test_gain_interval() -> None:
    random = np.random.default_rng(0)
    gain, low, high = gain_interval(random.normal(2.0, 1.0, 400))
    assert low < 2.0 < high
    assert gain == pytest.approx((low + high) / 2, abs=0.02)
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
