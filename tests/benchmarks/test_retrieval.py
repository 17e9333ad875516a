"""What the published models say: retrieval, calibration, and the smaller stand-ins of one of them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from benchmarks.retrieval import run
from benchmarks.retrieval.folds import as_shipped, fitted, held_out
from benchmarks.retrieval.learning import SHIPPED, Sample, sample_of
from benchmarks.retrieval.models import Models, published_models, read_models
from benchmarks.retrieval.report import Row, confusions, gains, table
from benchmarks.retrieval.rows import LAYERED as LAYERED_ROW
from benchmarks.retrieval.rows import of_held_out, of_vectors, of_watcher
from benchmarks.retrieval.scores import Scores, gain_interval, retrieval
from benchmarks.retrieval.vectors import PARTS, VECTORS
from benchmarks.speed.harness import between_markers
from benchmarks.transform import transform_of
from benchmarks.zoo import zoo_folder
from registry import Registry
from registry.equivalence import DEFAULT_RATE, DISTANCES, calibrate, shipped
from registry.errors import NotFoundError
from registry.spectral.learned_transform import transform
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED, MME, SPECS
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.types import Spectrum


@dataclass(frozen=True)
class Zoo:
    """The published models: the registry, their labels and spectra, all in one order."""

    reg: Registry
    names: list[str]
    family: np.ndarray
    topology: np.ndarray
    spectra: list[tuple[Spectrum, ...]]

    def distances(self, vector: str) -> np.ndarray:
        vectors = np.array([VECTORS[vector](each) for each in self.spectra])
        return np.asarray(cdist(vectors, vectors, "cityblock"))

    def cross_size(self, vector: str) -> tuple[float, float]:
        hit, precision, _ = retrieval(self.distances(vector), self.family, self.topology).mean()
        return float(hit), float(precision)

    def sample(self) -> Sample:
        return sample_of(Models(self.names, self.family, self.topology, self.spectra, []))


@pytest.fixture(scope="module")
def stored() -> Iterator[Zoo]:
    with threadpool_limits(limits=1), Registry("published:") as reg:
        models = reg.models()
        yield Zoo(
            reg,
            [model.name for model in models],
            np.array([model.family for model in models]),
            np.array([model.topology for model in models]),
            [reg.spectrum(model.name) for model in models],
        )


def test_the_default_finds_the_family_across_sizes(stored: Zoo) -> None:
    # By a transform learned without the families that ask; numbers chosen with them in view.
    sample = stored.sample()
    found = held_out(sample, as_shipped(), list(LAYERED_BLOCKS), sample)
    hit, precision, _ = found.across.mean()
    assert hit >= 0.95
    assert precision >= 0.92
    assert found.everything.mean()[0] >= 0.98
    assert found.everything.mean()[1] >= 0.94
    name = "`layered`, shapes taken out"
    rows = {name: held_out(sample, as_shipped(1), PARTS[name], sample).across.mean()[:2]}
    rows |= {name: stored.cross_size(name) for name in ("`mme`", "rough count of shapes", "number of parameters")}
    for other, (other_hit, other_precision) in rows.items():
        assert hit > other_hit, other
        assert precision > other_precision, other


def test_what_is_learned_is_measured_as_what_ships(stored: Zoo) -> None:
    sample = stored.sample()
    ships = transform(LAYERED.weights)
    # Sums of 479 differences of float32 features.
    found = sample.distances(SHIPPED, transform=ships)
    np.testing.assert_allclose(found, stored.distances("`layered`"), atol=3e-5)
    # And the file is what these models teach: eigenvalues differ by less from machine to machine.
    taught = transform_of(stored.spectra, stored.family)
    assert taught.keys() == ships.keys()
    for name, matrix in taught.items():
        np.testing.assert_allclose(ships[name], matrix, rtol=0, atol=1e-5, err_msg=name)
    # It knows them all, and flatters them.
    flattered = retrieval(found, stored.family, stored.topology).mean()[1]
    assert flattered > held_out(sample, as_shipped(1), list(LAYERED_BLOCKS), sample).across.mean()[1] + 0.02


def test_all_that_is_learned_on_other_families_reaches_as_much(stored: Zoo) -> None:
    sample, blocks = stored.sample(), list(LAYERED_BLOCKS)
    fits = fitted([sample], blocks, 1)
    found, plain = (held_out(sample, fits, blocks, teacher).means[0] for teacher in (sample, None))
    assert (found[:, 0] >= [0.98, 0.95]).all()
    assert (found[:, 1] >= [0.94, 0.92]).all()
    # What the transform adds; P@1 is as high without it.
    assert (found[:, 1] > plain[:, 1]).all()


def test_the_papers_finds_half_of_them(stored: Zoo) -> None:
    hit, precision = stored.cross_size("`mme`")
    assert hit >= 0.50
    # Labels dealt out anew: what chance finds.
    rng = np.random.default_rng(0)
    shuffled = retrieval(stored.distances("`mme`"), rng.permutation(stored.family), stored.topology).mean()
    assert precision > 2 * shuffled[1]
    assert shuffled[2] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_shipped_calibrations_are_those_of_the_published_models(stored: Zoo, spec: Any, distance: str) -> None:
    names, distances = stored.reg.distances(fingerprint=spec.name, distance=distance)
    families = dict(zip(stored.names, stored.family.tolist(), strict=True))
    found = calibrate(
        distances, [families[n] for n in names], spec_hash=spec.hash, distance=distance, rate=DEFAULT_RATE, source=""
    )
    kept = shipped(spec, distance)
    # Written to six digits; eigenvalues differ by less from machine to machine.
    assert kept.tolerance == pytest.approx(found.tolerance, rel=1e-5)
    np.testing.assert_allclose(np.array(kept.quantiles), np.array(found.quantiles), rtol=1e-5)
    assert kept.source == f"{len(names)} published models of {len(set(families.values()))} families"
    # And the promise: of pairs of different families, each pair of families counting the same, at most 1 in 100 pass;
    # at the next larger distance more do.
    labels = np.array([families[n] for n in names])
    blocks = [distances[np.ix_(labels == a, labels == b)] for a, b in combinations(np.unique(labels), 2)]
    assert np.mean([(block <= found.tolerance).mean() for block in blocks]) <= DEFAULT_RATE
    larger = min(block[block > found.tolerance].min() for block in blocks if (block > found.tolerance).any())
    assert np.mean([(block <= larger).mean() for block in blocks]) > DEFAULT_RATE


LARGER = ("akamaster-resnet32", "akamaster-resnet44")


def test_the_smaller_stand_ins_of_resnet56(stored: Zoo) -> None:
    found = stored.reg.compress("resnet-cifar/akamaster-resnet56")
    assert found.equivalent
    changes = {
        candidate.model.name.rpartition("-")[2]: round(change.change, 6)
        for candidate in found.candidates
        for change in candidate.changes
        if change.name == "top1"
    }
    assert changes == {"resnet20": -1.66, "resnet32": -0.76, "resnet44": -0.29}
    # Six of them another publisher's, of which no metric on the same split is known: the pruned ones, too, whose tail
    # class differs.
    assert [candidate.model.name for candidate in found.candidates] == [
        f"resnet-cifar/{name}"
        for name in (
            "distiller-resnet20-channel_regularized_resnet20_finetuned",
            "distiller-resnet20-channel_regularized_resnet20",
            "akamaster-resnet20",
            "distiller-resnet20-dense",
            "distiller-resnet20-4D_regularized_5Lremoved",
            "distiller-resnet20-4D_regularized_5Lremoved_finetuned",
            "distiller-resnet20-ch_regularized_dense",
            *LARGER,
        )
    ]


def test_what_is_stored_is_what_is_measured(stored: Zoo) -> None:
    for spec, title in ((LAYERED, "`layered`"), (MME, "`mme`")):
        names, distances = stored.reg.distances(fingerprint=spec.name, distance="l1")
        order = [names.index(name) for name in stored.names]
        np.testing.assert_allclose(distances[np.ix_(order, order)], stored.distances(title), rtol=1e-12, atol=1e-12)


def test_scores_are_those_of_the_script_beside_the_zoo(stored: Zoo, zoo: Path) -> None:
    path = zoo.parent / "bench" / "retrieval.py"
    if not path.is_file():
        missing(f"no script at {path}")
    found = importlib.util.spec_from_file_location("retrieval_beside_the_zoo", path)
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    for title in ("`layered`", "`mme`", "number of parameters"):
        distances = stored.distances(title)
        for topology in (None, stored.topology):
            ours = retrieval(distances, stored.family, topology)
            theirs = script.retrieval(distances, stored.family, topology)
            assert len(ours.figures) == theirs["queries"]
            np.testing.assert_allclose(ours.mean(), [theirs["P@1"], theirs["mAP"], theirs["AUC"]], rtol=1e-12)


def test_the_tables_of_what_ships_are_those_of_the_zoo(zoo: Path) -> None:
    with threadpool_limits(limits=1):
        weighed, ships = read_models(zoo / "manifest.jsonl"), published_models()
    assert ships.names == weighed.names
    np.testing.assert_array_equal(ships.family, weighed.family)
    np.testing.assert_array_equal(ships.topology, weighed.topology)
    assert len(weighed.refs) == len(weighed.names)
    assert ships.refs == []
    for name, one, other in zip(ships.names, ships.spectra, weighed.spectra, strict=True):
        assert [each.layer for each in one] == [each.layer for each in other], name
        for mine, theirs in zip(one, other, strict=True):
            # Between machines, eigenvalues agree to 1e-12 of the largest; they are stored as float32.
            atol = 1e-11 * float(theirs.values.max())
            np.testing.assert_allclose(mine.values, theirs.values, rtol=2e-7, atol=atol, err_msg=name)
    found, expected = (scored(models) for models in (ships, weighed))
    assert found == expected
    # And they would differ by other spectra.
    other = replace(ships, spectra=[*ships.spectra[1:], ships.spectra[0]])
    assert scored(other) != expected


def scored(models: Models) -> list[str]:
    """Rows of the benchmark's table, as they are printed."""
    sample = sample_of(models)
    held = of_held_out(LAYERED_ROW, held_out(sample, as_shipped(1), list(LAYERED_BLOCKS), sample))
    return table([held, *of_vectors(models, gaussian=False)])


def test_what_needs_weights_is_left_out_with_a_word() -> None:
    rows, note = of_watcher(published_models())
    assert (rows, note) == ([], " Without WeightWatcher, which needs weights.")


def test_without_the_zoo_the_benchmark_takes_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHREG_ZOO", str(tmp_path / "none"))
    monkeypatch.setattr(run, "architectures_of_timm", lambda: None)
    monkeypatch.setattr(run, "markdown", lambda models, others: f"{len(models.names)} {others}")
    run.main()
    said = capsys.readouterr()
    assert said.out == "163 None\n"
    assert said.err.startswith("by the spectra of published:, no zoo at ")
    with pytest.raises(NotFoundError):
        run.main(tmp_path / "no-manifest.jsonl")


def test_topologies_are_the_manifests(stored: Zoo, zoo: Path) -> None:
    known = {d["name"]: d for d in map(json.loads, (zoo / "manifest.jsonl").read_text().splitlines())}
    assert set(known) == set(stored.names)
    assert [known[name]["family"] for name in stored.names] == stored.family.tolist()


def test_scores_by_hand() -> None:
    # On a line: a a a b b b at 0, 1, 5 and 3, 9, 10.
    place = np.array([0.0, 1.0, 5.0, 3.0, 9.0, 10.0])
    distances = np.abs(place[:, None] - place)
    family = np.array(list("aaabbb"))
    found = retrieval(distances, family)
    # Of the model at 0: a (1), b (3), a (5), b, b: precisions 1 and 2/3; before its two stand 0 and 1 of three.
    np.testing.assert_allclose(found.figures[0], [1, (1 + 2 / 3) / 2, 1 - (0 + 1 / 3) / 2])
    # Of the model at 5: b (2), a (4) and b (4) in their order, a (5), b (5): precisions 1/2 and 2/4.
    np.testing.assert_allclose(found.figures[2], [0, 1 / 2, 1 - (1 / 3 + 2 / 3) / 2])
    assert found.mean().shape == (3,)
    # The nearest of the model at 0 is of its own topology: out of its gallery.
    sized = retrieval(distances, family, np.array(["s", "s", "t", "u", "v", "w"]))
    np.testing.assert_allclose(sized.figures[0], [0, 1 / 2, 1 - 1 / 3])


def test_small_families_are_gallery_only() -> None:
    distances = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    found = retrieval(distances, np.array(list("aaabb")))
    assert len(found.figures) == 3
    assert set(found.family.tolist()) == {0}
    assert found.query.tolist() == [0, 1, 2]


def test_intervals_resample_families() -> None:
    figures = np.repeat([[0.0], [1.0]], [10, 30], axis=0).repeat(3, axis=1)
    scores = Scores(np.arange(40), np.repeat([0, 1], [10, 30]), figures)
    # Two families of which every draw of two has none, one or both: means 0, 3/4 and 1, not 10 of 40.
    np.testing.assert_allclose(scores.interval(), [[0, 0, 0], [1, 1, 1]])
    alike = Scores(np.arange(40), np.repeat([0, 1], [10, 30]), np.full((40, 3), 0.5))
    np.testing.assert_allclose(alike.interval(), 0.5)


def test_gains_are_taken_query_by_query() -> None:
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(6), 5)
    worse = Scores(np.arange(30), family, rng.uniform(0, 0.5, (30, 3)))
    better = Scores(np.arange(30), family, worse.figures + 0.25)
    # The queries scatter, the gain of each does not.
    assert np.ptp(worse.interval(), axis=0).min() > 0.02
    np.testing.assert_allclose(gain_interval(better, worse), 0.25)
    line = gains([("x", Row("a", better, better), Row("b", worse, worse))])[-1]
    assert line.count("+0.250 (+0.25 to +0.25)") == 4


def labelled(place: np.ndarray, families: str) -> Models:
    names = [f"{letter}{at}" for at, letter in enumerate(families)]
    return Models(names, np.array(list(families)), np.array(names), [()] * len(names), [])


def test_confusions_name_the_wrong_neighbour() -> None:
    place = np.array([0.0, 1.0, 5.0, 3.0, 9.0, 10.0])
    distances = np.abs(place[:, None] - place)
    models = labelled(place, "aaabbb")
    scores = retrieval(distances, models.family)
    lines = confusions(models, distances, Row("", scores, scores))[2:]
    wanted = ["| a2 | b3 | 2.000 | a1 | 4.000 |", "| b3 | a1 | 2.000 | b4 | 6.000 |"]
    assert [line.partition(" | ")[2] for line in lines] == [w[2:] for w in wanted] * 2
    assert [line.split()[1] for line in lines] == ["all", "all", "cross-size", "cross-size"]


def test_the_page_has_the_markers_of_retrieval() -> None:
    assert "new" in between_markers(run.PAGE.read_text(encoding="utf-8"), run.MARKER, "new")


def test_the_zoos_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHREG_ZOO", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set ARCHREG_ZOO"):
        zoo_folder()
    (tmp_path / "manifest.jsonl").touch()
    assert zoo_folder() == tmp_path
