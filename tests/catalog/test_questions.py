from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Among, Metric, MetricBound, Registry
from registry.catalog import comparing, measuring
from registry.equivalence import DISTANCES, OTHER_SEEDS, closer_than, judging, rate_at, shipped
from registry.errors import (
    DatabaseMissingError,
    EmptyRegistryError,
    SpecMismatchError,
    UnknownModelError,
    UsageError,
)
from registry.spectral import contrast, fingerprint
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED, SPECS
from registry.storage import Store
from registry.storage.equivalence.stored_calibrations import put_calibration
from registry.storage.models.measured_values import drop_spec
from registry.types import Calibration, Fingerprint, Recomputed
from tests.catalog.factory import NETWORKS, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.catalog.conftest import Filled


def names(models: Any) -> list[str]:
    return [found.model.name for found in models]


def test_the_nearest_first(filled: Filled) -> None:
    reg = filled.reg
    found = reg.search("wide")
    assert (found.spec, found.distance, found.searched) == (LAYERED, "l1", 3)
    assert names(found.neighbours)[0] == "twin"
    assert set(names(found.neighbours)) == {"twin", "slim", "dense"}
    distances = [neighbour.distance for neighbour in found.neighbours]
    assert distances == sorted(distances)
    calibration = shipped(LAYERED, "l1")
    assert (found.tolerance, found.rate) == (calibration.tolerance, rate_at(calibration, calibration.tolerance))
    assert reg.nearest("wide") == found.neighbours
    assert names(reg.nearest("wide", 1)) == ["twin"]
    verdict = found.neighbours[0].verdict
    assert (verdict.equivalent, verdict.reasons, verdict.expected_false) == (True, (), 3 * found.rate)
    assert verdict.closer_than == closer_than(calibration, np.array([verdict.distance]))[0]
    assert names(reg.nearest("wide", equivalent=True, tolerance=1e-3)) == ["twin"]
    assert reg.nearest("wide", equivalent=True, tolerance=0.0) == ()
    # Gaussian weights: of another class, however wide the tolerance.
    wide = reg.search("wide", equivalent=True, tolerance=1e6)
    assert (set(names(wide.neighbours)), wide.searched, wide.rate) == ({"twin", "slim"}, 3, 1.0)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("fingerprint", SPECS)
def test_every_question_measures_alike(asked: Filled, fingerprint: str, distance: str) -> None:
    terms = {"fingerprint": fingerprint, "distance": distance}
    labels, square = asked.reg.distances(**terms)
    assert labels == ("wide", "twin", "slim", "dense")  # as they came
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_array_equal(np.diag(square), 0)
    for neighbour in asked.reg.nearest("wide", **terms):
        compared = asked.reg.compare("wide", neighbour.model.name, **terms)
        assert compared.verdict.distance == neighbour.distance == dict(compared.distances)[distance]
        assert compared.verdict.equivalent == neighbour.verdict.equivalent
        turned = asked.reg.equivalent(neighbour.model.name, "wide", **terms)
        assert replace(turned, reasons=()) == replace(compared.verdict, reasons=())
        # Summed in another order: 479 terms of a relative error of 1e-16 each.
        expected = square[0, labels.index(neighbour.model.name)]
        assert neighbour.distance == pytest.approx(expected, rel=479 * 2e-16)
    assert {name for name, _ in compared.distances} == DISTANCES.keys()


@pytest.mark.parametrize("limit", [OTHER_SEEDS, 1e-4])
def test_strictly_equivalent_is_near_in_the_spectra_by_depth(
    asked: Filled, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(judging, "OTHER_SEEDS", limit)
    reg = asked.reg
    vectors = dict(zip(*_vectors(reg), strict=True))
    start = sum(LAYERED_BLOCKS[name] for name in ("shapes", "pairs", "triples", "spectra"))
    block = slice(start, start + LAYERED_BLOCKS["depths"])
    seen = set()
    for other in ("twin", "slim", "dense"):
        apart = float(np.abs(vectors["wide"][block] - vectors[other][block]).sum())
        for tolerance in (None, 1e6):
            plain = reg.equivalent("wide", other, tolerance=tolerance)
            strict = reg.equivalent("wide", other, tolerance=tolerance, strict=True)
            assert strict.equivalent == (plain.equivalent and apart <= limit)
            assert strict.reasons[: len(plain.reasons)] == plain.reasons
            assert (len(strict.reasons) > len(plain.reasons)) == (apart > limit)
            assert reg.compare("wide", other, tolerance=tolerance, strict=True).verdict == strict
            seen.add((plain.equivalent, strict.equivalent))
    assert ((True, False) in seen) == (limit < OTHER_SEEDS)
    assert (False, False) in seen
    assert reg.equivalent("wide", "wide", strict=True).equivalent


def test_strictness_asks_for_a_fingerprint_by_depth(asked: Filled) -> None:
    words = "strict needs spectra by depth, which mme v1 does not contain"
    with pytest.raises(UsageError, match=words) as refused:
        asked.reg.compare("wide", "twin", fingerprint="mme", strict=True)
    assert refused.value.remedy == "use the fingerprint layered"


def test_strictness_looks_at_spectra_by_depth_alone(tmp_path: Path) -> None:
    """The first and the last number of each block, apart by more than other seeds are."""
    ends = np.cumsum([0, *LAYERED_BLOCKS.values()]).tolist()
    zero = made("zero", 0.0)
    with Store.open(str(tmp_path / "r.db"), mode="create") as store:
        store.add(zero)
        for name, start, stop in zip(LAYERED_BLOCKS, ends[:-1], ends[1:], strict=True):
            for end, place in (("first", start), ("last", stop - 1)):
                vector = np.zeros(LAYERED.length, np.float32)
                vector[place] = 2 * OTHER_SEEDS
                store.add(replace(made(f"{name} {end}", 0.0), fingerprints=(Fingerprint(LAYERED, vector),)))
    with Registry(tmp_path / "r.db") as reg:
        for name in LAYERED_BLOCKS:
            for end in ("first", "last"):
                for pair in (("zero", f"{name} {end}"), (f"{name} {end}", "zero")):
                    assert reg.equivalent(*pair, tolerance=1.0, strict=True).equivalent == (name != "depths"), pair


def test_a_comparison_has_both_models_and_where_they_differ(filled: Filled) -> None:
    found = filled.reg.compare("wide", "slim", distance="l2", tolerance=0.25)
    assert (found.a, found.b) == (filled.reg.show("wide").summary, filled.reg.show("slim").summary)
    assert (found.conjugacy_a, found.conjugacy_b) == tuple(filled.reg.show(name).conjugacy for name in ("wide", "slim"))
    assert (found.spec, found.distance, found.calibration) == (LAYERED, "l2", shipped(LAYERED, "l2"))
    assert (found.verdict.tolerance, found.verdict.expected_false) == (0.25, found.verdict.rate)  # of this one pair
    assert found.contrast == contrast(filled.reg.spectrum("wide"), filled.reg.spectrum("slim"))
    # Without the spectra of one of them nothing is said of where they differ.
    filled.reg.remove("slim")
    filled.reg.ingest(filled.files / "slim.safetensors", keep_spectra=False)
    for a, b in (("wide", "slim"), ("slim", "wide")):
        assert filled.reg.compare(a, b).contrast is None


def test_a_matrix_too_large_is_refused(asked: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MAX_COMPLETE", 4)
    assert asked.reg.distances()[1].shape == (4, 4)
    monkeypatch.setattr(comparing, "MAX_COMPLETE", 3)
    with pytest.raises(UsageError) as refused:
        asked.reg.distances()
    assert refused.value.remedy == "use a filter such as --family"
    assert asked.reg.distances(family="conv")[0] == ("wide", "twin", "slim")
    # As many as would be 8 bytes 30,000 times 30,000.
    many = np.arange(30_000), np.empty((30_000, 0), np.float32)
    monkeypatch.setattr(comparing, "vectors_of", lambda *_: many)
    with pytest.raises(UsageError, match=r"30000 models would make a matrix of 7 GB \(limit 3 models\)"):
        asked.reg.distances()


def _vectors(reg: Registry) -> tuple[list[str], list[np.ndarray]]:
    labels = [model.name for model in reg.models()]
    return labels, [fingerprint(reg.spectrum(name), LAYERED).vector.astype(np.float64) for name in labels]


def test_filters(filled: Filled) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"family": "MLP"}, {"dense"}),
        ({"max_params": 30_000}, {"dense", "slim"}),
        ({"min_params": 30_000}, {"twin"}),
        ({"metrics": (MetricBound("top1", 97.0),)}, {"slim"}),
        ({"metrics": (MetricBound("top1", 97.5),)}, set()),
        ({"tags": (("made", "twin"),)}, {"twin"}),
        ({"dataset": "Digits", "family": "conv"}, {"slim", "twin"}),
        ({"max_gflops": 1.0}, set()),  # unknown fails a bound
        ({"family": "none"}, set()),
        ({"max_bytes": 20_000}, set()),
    ]
    for filters, expected in cases:
        found = filled.reg.search("wide", **filters)
        assert (set(names(found.neighbours)), found.searched) == (expected, len(expected)), filters
    assert {model.name for model in filled.reg.models(family="conv")} == {"wide", "twin", "slim"}
    assert filled.reg.distances(family="none")[1].shape == (0, 0)
    assert filled.reg.classes(family="none").classes == ()
    assert filled.reg.distances(family="mlp") == (("dense",), np.zeros((1, 1)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda reg, **terms: reg.search("wide", **terms),
        lambda reg, **terms: reg.nearest("wide", **terms),
        lambda reg, **terms: reg.classes(**terms),
        lambda reg, **terms: reg.compress("wide", **terms),
        lambda reg, **terms: reg.distances(**terms),
        lambda reg, **terms: reg.models(**terms),
    ],
)
def test_unknown_filters_are_refused(asked: Filled, ask: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="unknown filter 'colour'") as refused:
        ask(asked.reg, colour="red")
    assert "family" in (refused.value.remedy or "")


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("question", ["search", "compress", "compare", "classes"])
def test_a_tolerance_is_a_distance(asked: Filled, question: str, tolerance: float) -> None:
    models = {"search": ("wide",), "compress": ("wide",), "compare": ("wide", "slim"), "classes": ()}[question]
    with pytest.raises(UsageError, match=f"^tolerance must be finite and not negative, not {tolerance}$"):
        getattr(asked.reg, question)(*models, tolerance=tolerance)


@pytest.mark.parametrize(
    ("question", "terms", "words"),
    [
        ("search", {"k": 0}, "k must be at least 1"),
        ("compress", {"k": 0}, "k must be at least 1"),
        ("compress", {"k": -1}, "k must be at least 1"),
        ("compress", {"max_ratio": 0.0}, r"^max_ratio must lie in \(0, 1\], not 0.0$"),
        ("compress", {"max_ratio": 1.5}, r"^max_ratio must lie in \(0, 1\], not 1.5$"),
        ("compress", {"max_ratio": "half"}, "^max_ratio must be a number, not 'half'"),
        ("search", {"k": 1.5}, "^k must be a whole number, not 1.5"),
        ("search", {"tolerance": "much"}, "^tolerance must be a number, not 'much'"),
        ("select", {"k": 0}, "^k must be at least 1, not 0"),
        ("search", {"distance": "cosine"}, "unknown distance 'cosine'"),
        ("search", {"fingerprint": "none"}, "unknown fingerprint 'none'"),
    ],
)
def test_terms_out_of_range(asked: Filled, question: str, terms: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        getattr(asked.reg, question)(*(() if question == "select" else ("wide",)), **terms)


def test_classes(filled: Filled) -> None:
    found = filled.reg.classes(tolerance=1e-3)
    assert [sorted(m.name for m in group.members) for group in found.classes] == [["twin", "wide"], ["slim"], ["dense"]]
    assert [group.number for group in found.classes] == [1, 2, 3]
    assert found.models == 4
    everything = filled.reg.classes(tolerance=1e6)
    assert [{m.name for m in group.members} for group in everything.classes] == [{"wide", "twin", "slim"}, {"dense"}]
    for group in everything.classes:
        assert group.medoid in {m.name for m in group.members}
        assert {m.training_class for m in group.members} == {group.training_class}
        tails = {m.tail_class for m in group.members}
        assert group.tail_class == (tails.pop() if len(tails) == 1 else "mixed")
    _, square = filled.reg.distances(family="conv")
    assert everything.classes[0].diameter == square.max()
    strict = filled.reg.classes(tolerance=0.0)
    assert len(strict.classes) == 4


def test_smaller_stand_ins(filled: Filled) -> None:
    found = filled.reg.compress("wide", tolerance=100.0)
    assert (found.equivalent, names(found.candidates)) == (True, ["slim"])  # twin is as large as wide
    assert (found.spec, found.distance, found.calibration) == (LAYERED, "l1", shipped(LAYERED, "l1"))
    assert found.removals == ()
    [slim] = found.candidates
    assert slim.params_saved == 1 - slim.model.parameters / found.model.parameters
    assert slim.bytes_saved == 1 - slim.model.bytes / found.model.bytes
    [change] = slim.changes  # of the metric that both have
    assert (change.name, change.dataset, change.split, change.change) == ("top1", "digits", "test", -1.5)

    near = filled.reg.compress("wide", tolerance=0.0)
    assert (near.equivalent, near.searched) == (False, 2)
    assert [candidate.verdict.distance for candidate in near.candidates] == sorted(
        candidate.verdict.distance for candidate in near.candidates
    )
    assert set(names(near.candidates)) == {"slim", "dense"}
    assert not any(candidate.verdict.equivalent for candidate in near.candidates)
    assert names(filled.reg.compress("wide", tolerance=0.0, k=1).candidates) == names(near.candidates)[:1]

    for bounds, expected in [
        ({"max_ratio": 0.5}, {"slim", "dense"}),
        ({"max_ratio": 1.0}, {"slim", "dense"}),
        ({"max_params": 10_000}, {"dense"}),
        ({"max_ratio": 0.5, "max_params": 10_000}, {"dense"}),
        ({"max_bytes": 40_000}, {"dense"}),
        ({"family": "conv"}, {"slim"}),
        ({"max_ratio": 1e-6}, set()),
    ]:
        got = filled.reg.compress("wide", tolerance=0.0, **bounds)
        assert set(names(got.candidates)) == expected, bounds
        assert all(c.model.parameters < got.model.parameters for c in got.candidates)


def test_candidates_are_told_apart_where_that_is_asked(filled: Filled) -> None:
    reg = filled.reg
    assert {candidate.contrast for candidate in reg.compress("wide", tolerance=0.0).candidates} == {None}
    for candidate in reg.compress("wide", tolerance=0.0, explain=True).candidates:
        assert candidate.contrast == contrast(reg.spectrum("wide"), reg.spectrum(candidate.model.name))
    reg.remove("slim")
    reg.ingest(filled.files / "slim.safetensors", keep_spectra=False)
    without = {c.model.name: c.contrast for c in reg.compress("wide", tolerance=0.0, explain=True).candidates}
    assert without["slim"] is None
    assert without["dense"] is not None
    assert [c.contrast for c in reg.compress("slim", tolerance=0.0, explain=True).candidates] == [None]


def test_what_a_candidate_gains_and_loses(filled: Filled) -> None:
    """Of each metric that both have; whether that is better is said by either record, or by the name."""
    reg = filled.reg
    for model, metric in (
        ("wide", Metric("loss", 0.5, "digits", "test")), ("slim", Metric("loss", 0.75, "digits", "test")),
        ("wide", Metric("speed", 10.0)), ("slim", Metric("speed", 30.0, higher_is_better=True)),
        ("wide", Metric("cost", 4.0, higher_is_better=False)), ("slim", Metric("cost", 5.0)),
        ("wide", Metric("odd", 1.0)), ("slim", Metric("odd", 2.0)),
        ("wide", Metric("top5", 99.0, "digits", "test")), ("slim", Metric("top5", 98.0, "digits", "val")),
    ):  # fmt: skip
        reg.set_metric(model, metric)
    [slim] = reg.compress("wide", tolerance=100.0).candidates
    assert {(c.name, c.original, c.candidate, c.higher_is_better, c.better) for c in slim.changes} == {
        ("loss", 0.5, 0.75, False, False),
        ("speed", 10.0, 30.0, True, True),
        ("cost", 4.0, 5.0, False, False),
        ("odd", 1.0, 2.0, None, None),
        ("top1", 98.5, 97.0, True, False),
    }


def test_equivalents_come_smallest_first(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from tests.cli.test_end_to_end import network

    with Registry(tmp_path / "r.db") as reg:
        for width in (12, 20, 16, 28, 24):
            save_file(network(width, (3, *[width] * 4)), tmp_path / f"w{width}.safetensors")
            reg.ingest(tmp_path / f"w{width}.safetensors")
        found = reg.compress("w28", tolerance=1e6)
        assert names(found.candidates) == ["w12", "w16", "w20", "w24"]
        assert names(reg.compress("w28", tolerance=1e6, k=2).candidates) == ["w12", "w16"]
        assert names(reg.compress("w12", tolerance=1e6).candidates) == []


def test_an_empty_registry_says_how_to_fill_it(database_url: str, files: Path) -> None:
    with Registry(database_url) as reg:
        reg.ingest(files / "slim.safetensors")
        # Of a single model: nothing else to be near to.
        assert reg.search("slim").neighbours == ()
        assert reg.compress("slim").candidates == ()
        [alone] = reg.classes().classes
        assert (alone.medoid, alone.diameter) == ("slim", 0.0)
        reg.remove("slim")
        assert reg.models() == ()
        assert reg.stats().models == 0
        told: set[str] = set()
        for ask in (
            lambda: reg.nearest("slim"),
            lambda: reg.nearest(files / "slim.safetensors"),
            reg.classes,
            reg.distances,
            lambda: reg.compress(files / "wide.safetensors"),
            lambda: reg.show("slim"),
            lambda: reg.remove("slim"),
            reg.select,
            reg.calibrate,
            lambda: reg.export(files / "out.db"),
            reg.unmatched,
        ):
            with pytest.raises(EmptyRegistryError) as empty:
                ask()
            told.add(str(empty.value))
        [only] = told  # in the same words, whatever was asked
        assert "holds no models (fill it: archreg ingest FILE_OR_FOLDER --db " in only
        # Two files compare all the same.
        assert reg.compare(files / "wide.safetensors", files / "twin.safetensors").verdict.equivalent


def test_without_a_database_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    with Registry() as reg:
        for ask in (
            lambda: reg.nearest("x"), lambda: reg.compare("x", "y"), reg.classes, lambda: reg.compress("x"),
            reg.distances, reg.models, lambda: reg.show("x"), lambda: reg.spectrum("x"), reg.stats, reg.refingerprint,
            lambda: reg.set("x", family="f"), lambda: reg.tag("x", a="b"), lambda: reg.rename("x", "y"),
            lambda: reg.remove("x"),
        ):  # fmt: skip
            with pytest.raises(DatabaseMissingError) as missing:
                ask()
            assert "archreg ingest" in (missing.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_models_of_other_specs_do_not_take_part(filled: Filled) -> None:
    filled.reg.close()
    with Store.open(filled.url, mode="write") as store:
        store.write(drop_spec, LAYERED.hash)
    for ask in (lambda: filled.reg.nearest("wide"), filled.reg.classes, filled.reg.distances):
        with pytest.raises(SpecMismatchError, match="layered v3 fingerprint") as missing:
            ask()
        assert "archreg refingerprint --fingerprint layered" in (missing.value.remedy or "")
    assert names(filled.reg.nearest("wide", fingerprint="mme"))[0] == "twin"
    assert filled.reg.distances(family="none")[0] == ()
    # One of them measured again is alone until the others are.
    filled.reg.ingest(filled.files / "slim.safetensors")
    assert filled.reg.search("slim").searched == 0
    assert filled.reg.search(filled.files / "slim.safetensors", family="none").neighbours == ()
    assert filled.reg.distances()[0] == ("slim",)
    assert filled.reg.refingerprint() == Recomputed(3, 0)
    assert filled.reg.search("slim").searched == 3
    # Whatever was remembered first, they are in the order in which they came.
    labels, square = filled.reg.distances()
    assert labels == ("wide", "twin", "slim", "dense")
    assert square[0, 2] == pytest.approx(filled.reg.equivalent("wide", "slim").distance, rel=1e-12)
    assert filled.reg.distances(max_params=30_000)[0] == ("slim", "dense")


def test_the_registrys_own_calibration_goes_before_the_shipped_one(filled: Filled) -> None:
    filled.reg.close()
    with Store.open(filled.url, mode="write") as store:
        store.write(put_calibration, Calibration(LAYERED.hash, "l1", 0.05, 0.125, ((0.0, 0.1), (1.0, 0.2)), "ours"))
    found = filled.reg.search("wide")
    assert (found.tolerance, found.rate) == (0.125, pytest.approx(0.25))
    assert filled.reg.search("wide", distance="l2").tolerance == shipped(LAYERED, "l2").tolerance
    assert filled.reg.search("wide", tolerance=0.2).rate == 1.0


def test_the_default_tolerance_expects_at_most_one_false_pass(filled: Filled) -> None:
    filled.reg.close()
    curve = ((0.0, 0.1), (0.25, 0.1), (0.5, 0.3), (1.0, 0.9))
    with Store.open(filled.url, mode="write") as store:
        store.write(put_calibration, Calibration(LAYERED.hash, "l1", 0.75, 0.6, curve, "ours"))
    reg = filled.reg
    # Among three 1 in 3 may pass, among two 1 in 2, of one alone the calibrated 3 in 4.
    for where, searched, tolerance in (
        ({}, 3, 0.1 + 0.2 / 3),
        ({"max_params": 30_000}, 2, 0.3),
        ({"family": "mlp"}, 1, 0.6),
    ):
        for equivalent in (False, True):
            found = reg.search("wide", equivalent=equivalent, **where)
            assert (found.searched, found.tolerance) == (searched, pytest.approx(tolerance))
            assert found.rate * found.searched == pytest.approx(min(1.0, 0.75 * searched))
            for neighbour in found.neighbours:
                assert neighbour.verdict.expected_false == found.rate * searched
        if searched == 2:
            smaller = reg.compress("wide")
            assert (smaller.searched, smaller.tolerance, smaller.rate) == (2, found.tolerance, found.rate)
    assert reg.search("wide", tolerance=0.6).tolerance == 0.6  # asked for, and 2.25 expected
    assert reg.compare("wide", "slim").verdict.tolerance == 0.6
    assert {reg.search("wide").calibration.source, reg.compare("wide", "slim").calibration.source} == {"ours"}


def test_bounds_that_exclude_each_other(asked: Filled) -> None:
    for where, words in (
        ({"min_params": 10, "max_params": 9}, "at least 10 and at most 9 params"),
        ({"min_bytes": 2000, "max_bytes": 1999}, "at least 2,000 and at most 1,999 bytes"),
        ({"metrics": (MetricBound("top1", 95.0, 90.0),)}, "no top1 can be at least 95 and at most 90"),
        ({"tags": (("made", "a"), ("Made", "b"))}, "both tags"),
    ):
        with pytest.raises(UsageError, match=words):
            asked.reg.models(**where)
    assert asked.reg.models(min_params=10, max_params=10) == ()
    with pytest.raises(UsageError, match="no model can have at least"):
        asked.reg.compress("slim", min_params=1_000_000)


def test_identical_models_under_two_names(filled: Filled) -> None:
    filled.reg.ingest(filled.files / "wide.safetensors", name="same")
    assert filled.reg.nearest("same") == filled.reg.nearest("wide")
    verdict = filled.reg.equivalent("same", "wide")
    assert (verdict.equivalent, verdict.distance) == (True, 0.0)
    assert filled.reg.stats().names == filled.reg.stats().models + 1


def test_changes(filled: Filled) -> None:
    reg = filled.reg
    assert reg.set("wide", family="big", seed=4).family == "big"
    assert reg.show("wide").seed == 4
    with pytest.raises(UsageError):
        reg.set("wide", colour="red")
    assert reg.tag("wide", owner="anna", name="x", self="y") == (
        ("made", "wide"), ("name", "x"), ("owner", "anna"), ("self", "y"),
    )  # fmt: skip
    assert reg.tag("wide", owner=None, name=None, self=None) == (("made", "wide"),)
    assert reg.rename("wide", "large").names == ("large",)
    with pytest.raises(UnknownModelError):
        reg.show("wide")
    assert reg.remove("large").name == "large"
    assert [model.name for model in reg.models()] == ["dense", "slim", "twin"]
    stats = reg.stats()
    assert (stats.models, stats.names, dict(stats.families)) == (3, 3, {"conv": 2, "mlp": 1})
    assert dict(stats.fingerprints) == {"layered v3": 3, "mme v1": 3, "shapes v1": 3}
    assert sum(count for _, count in stats.training_classes) == sum(count for _, count in stats.tail_classes) == 3
    assert reg.check() == ()
    assert reg.current() == stats.schema_version == reg.upgrade()


def test_questions_measure_stored_models_never(asked: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(measuring, "measure", refuse)
    for name in NETWORKS:
        asked.reg.nearest(name)
        asked.reg.nearest(asked.files / f"{name}.safetensors")


def test_texts_that_no_model_has_are_offered_near_ones(filled: Filled) -> None:
    reg = filled.reg
    reg.set("wide", architecture="wide-net", task="Vision", licence="MIT")
    asked = {"family": "conf", "architecture": "widenet", "task": "visoin", "dataset": "digitz", "licence": "mti"}
    assert reg.unmatched(**asked, max_params=1) == {
        "family": ("conv",),
        "architecture": ("wide-net",),
        "task": ("Vision",),
        "dataset": ("digits",),
        "licence": ("MIT",),
    }
    # Each by itself: a text that some model has is no reason, whatever else removes it; and nothing may be near.
    assert reg.unmatched(family="CONV", task="vision", max_params=1) == {}
    assert reg.unmatched(family="zzzzzz", dataset="digits") == {"family": ()}
    assert reg.unmatched() == {}
    # Where a metric was measured is a data set of its model's, too.
    assert reg.models(dataset="digits") == reg.models()
    reg.set_metric("wide", Metric("top1", 9.0, "svhn", "test"))
    assert reg.unmatched(dataset="shvn") == {"dataset": ("svhn",)}
    with pytest.raises(UsageError, match="unknown filter 'familie'"):
        reg.unmatched(familie="conv")
    with pytest.raises(EmptyRegistryError, match=r"nothing was written \(did you mean family conv\?\)"):
        reg.export(filled.files / "none.db", family="conf")
    assert not (filled.files / "none.db").exists()


@pytest.fixture
def undetermined(database_url: str) -> Iterator[Registry]:
    """On a line: ``a`` and ``b`` are undetermined, ``c`` is trained, ``u`` is not; ``c`` is the largest."""
    with Store.open(database_url, mode="create") as store:
        for number, (name, training) in enumerate(
            (("a", "undetermined"), ("b", "undetermined"), ("c", "trained"), ("u", "untrained"))
        ):
            new = made(name, number * 1e-4, parameters=900 + 100 * number - 500 * (name == "u"))
            assert new.conjugacy is not None
            store.add(replace(new, conjugacy=replace(new.conjugacy, training_class=training)))
    with Registry(database_url) as reg:
        yield reg


def test_an_undetermined_model_is_equivalent_to_another_where_it_is_asked(undetermined: Registry) -> None:
    reg = undetermined
    assert [reg.equivalent("a", name, tolerance=1e-3).equivalent for name in "abc"] == [True, False, False]
    assumed = [reg.equivalent("a", name, tolerance=1e-3, assume_trained=True).equivalent for name in "abcu"]
    assert assumed == [True, True, True, False]
    assert not reg.equivalent("a", "c", tolerance=1e-5, assume_trained=True).equivalent  # too far all the same


@pytest.mark.parametrize("warm", [False, True])
def test_searches_judge_undetermined_models_as_trained_where_it_is_asked(undetermined: Registry, warm: bool) -> None:
    reg = undetermined
    if warm:  # all vectors in memory, else few are read
        reg.search("a")
    where: dict[str, Any] = {} if warm else {"max_params": 10_000}
    for asked, strictly, assumed in (("a", [], ["b", "c"]), ("c", [], ["b", "a"]), ("u", [], [])):
        terms = {"equivalent": True, "tolerance": 1e-3, **where}
        plain, judged = reg.search(asked, **terms), reg.search(asked, assume_trained=True, **terms)
        assert (names(plain.neighbours), plain.assume_trained) == (strictly, False)
        assert (names(judged.neighbours), judged.assume_trained) == (assumed, True)
        told = reg.search(asked, tolerance=1e-3, assume_trained=True, **where).neighbours
        assert sorted(near.model.name for near in told if near.verdict.equivalent) == sorted(assumed)
        assert names(reg.nearest(asked, assume_trained=True, **terms)) == assumed
    assert not reg.search("a", fingerprint="layered", tolerance=0.0, equivalent=True, assume_trained=True).neighbours


def test_smaller_models_judge_undetermined_ones_as_trained_where_it_is_asked(undetermined: Registry) -> None:
    reg = undetermined
    plain = reg.compress("c", tolerance=1e-3)
    assert (plain.equivalent, plain.assume_trained, len(plain.candidates)) == (False, False, 3)
    judged = reg.compress("c", tolerance=1e-3, assume_trained=True)
    assert (names(judged.candidates), judged.equivalent, judged.assume_trained) == (["a", "b"], True, True)
    [own] = reg.select(aims=["min:params"], like="c", tolerance=1e-3).classes
    assert own.best.model.name == "c"
    like = reg.select(aims=["min:params"], like="c", tolerance=1e-3, assume_trained=True)
    assert ([each.best.model.name for each in like.classes], like.passed, like.assume_trained) == (["a"], 3, True)
    # Without a model to be like, the front is sorted into classes: here by two aims that none beats the other in.
    for name, value in zip("abc", (1.0, 2.0, 3.0), strict=True):
        reg.set_metric(name, Metric("top1", value, "digits"))
    aims = ["min:params", "max:top1"]
    assert reg.select(aims=aims, tolerance=1e-3).count == 3
    [one] = reg.select(aims=aims, tolerance=1e-3, assume_trained=True).classes
    assert (one.best.model.name, names(one.others)) == ("a", ["b", "c"])


def test_kept_classes_of_both_settings_are_apart(undetermined: Registry) -> None:
    reg = undetermined

    def members(**terms: Any) -> list[list[str]]:
        return sorted(sorted(model.name for model in each.members) for each in reg.classes(**terms).classes)

    strictly, assumed = [["a"], ["b"], ["c"], ["u"]], [["a", "b", "c"], ["u"]]
    for _ in range(2):  # the second time what is kept is read back
        assert members(tolerance=1e-3) == strictly
        assert members(tolerance=1e-3, assume_trained=True) == assumed
    kept = reg.partitions.list()
    assert sorted(each.scope for each in kept) == [(), (("assume_trained", "yes"),)]
    judged = reg.classes(tolerance=1e-3, assume_trained=True)
    assert (judged.kept, judged.assume_trained) == (True, True)
    assert reg.partitions.get(judged.classes[0].identity).assume_trained
    plain = reg.classes(tolerance=1e-3)
    assert (plain.kept, plain.assume_trained) == (True, False)
    assert not reg.partitions.get(plain.classes[0].identity).assume_trained
    assert not {each.identity for each in plain.classes} & {each.identity for each in judged.classes}


def test_by_shapes_nothing_is_assumed(filled: Filled) -> None:
    terms = {"fingerprint": "shapes", "assume_trained": True}
    assert not filled.reg.search("wide", **terms).assume_trained
    assert not filled.reg.classes(**terms, keep=False).assume_trained
    with Among(filled.url) as several:
        found = several.nearest("wide", assume_trained=True)
        assert found.by_weights is not None
        assert found.by_weights.assume_trained
        smaller = several.compress("wide", assume_trained=True).by_weights
        assert smaller is not None
        assert smaller.assume_trained
        assert several.select(aims=["min:params"], assume_trained=True).assume_trained
