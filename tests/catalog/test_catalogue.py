"""Questions to the catalogue: rows of architectures at an image size, by filters and aims, and by shapes alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from registry import MetricBound, Registry, shipped
from registry.errors import AmbiguousError, RegistryError, StorageError, UnknownModelError, UsageError
from registry.types import Kin
from tests.catalog import scored_catalogue
from tests.catalog.scored_catalogue import ARCHITECTURES, WIDTHS, network, write_scored
from tests.cli.conftest import archreg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["archreg"]  # the fixture

AT_80 = {"dataset": "imagenet-1k", "min_metric": {"top1": 80.0}}


@pytest.fixture(scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    write_scored(folder)
    return folder


@pytest.fixture
def catalogue(_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry ``catalogue:`` of the small catalogue."""
    monkeypatch.setattr(shipped, "FOLDER", _folder)
    with Registry("catalogue:") as opened:
        yield opened


def rows(found: Any) -> list[tuple[str, int | None, str, tuple[float, ...]]]:
    shown = []
    for group in found.classes:
        assert group.others == ()
        entry = group.best.model.catalogue
        weights = entry.weights.reference if entry.weights else ""
        shown.append((group.best.model.name, entry.image_size, weights, group.best.values))
    return shown


class TestSelect:
    def test_least_multiply_adds_at_an_accuracy(self, catalogue: Registry) -> None:
        found = catalogue.select(aims=["min:gmacs"], **AT_80)
        assert rows(found) == [("timm/middle", 224, "timm:middle.in1k", (3.0,))]
        assert (found.unit, found.models, found.passed, found.removals) == ("row", 6, 3, ())
        [best] = (group.best.model for group in found.classes)
        assert (best.licence, best.location, best.bytes) == ("apache-2.0", "timm:middle.in1k", 800)
        assert best.catalogue is not None
        assert (best.catalogue.gmacs_source, best.catalogue.chosen_by) == ("a table", "top1@imagenet-1k/val")

    def test_the_best_weights_at_each_size_stand_for_an_architecture(self, catalogue: Registry) -> None:
        found = catalogue.select(aims=["max:top1", "min:gmacs"], dataset="imagenet-1k", architecture="timm/large")
        assert rows(found) == [("timm/large", 224, "timm:large.a2_in1k", (82.0, 4.1))]  # 288 is beaten
        alone = catalogue.select(aims=["max:top1"], dataset="imagenet-1k", licence="Apache-2.0")
        assert rows(alone) == [("timm/large", 288, "timm:large.a1_in1k", (81.5,))]

    def test_a_metric_without_size_is_at_the_own_size(self, catalogue: Registry) -> None:
        found = catalogue.select(aims=["max:top1@imagenet-1k"], architecture="torchvision/large")
        assert rows(found) == [("torchvision/large", 224, "torchvision:large.V1", (79.0,))]

    def test_a_bound_without_data_set_is_on_the_one_asked_for(self, catalogue: Registry) -> None:
        # On imagenet-real middle is above 85, on imagenet-1k nothing is.
        found = catalogue.select(aims=["min:params"], dataset="imagenet-1k", min_metric={"top1": 85.0})
        assert found.passed == 0
        texts = {removal.constraint: (removal.removes, removal.without) for removal in found.removals}
        assert texts["top1@imagenet-1k at least 85"] == (6, 5)  # tiny was scored on it
        with pytest.raises(UsageError, match="top1 is known on 2 data sets: imagenet-1k, imagenet-real") as caught:
            catalogue.select(aims=["min:params"], metrics=[MetricBound("top1", minimum=85.0)])
        assert caught.value.remedy == "name one: --metric 'top1@imagenet-1k>=85', or --dataset imagenet-1k"
        for refused in (catalogue.models, catalogue.unmatched):
            with pytest.raises(UsageError, match="2 data sets"):
                refused(metrics=[MetricBound("top1", maximum=85.0)])
        real = catalogue.select(
            aims=["min:params"], metrics=[MetricBound("top1", minimum=85.0, dataset="imagenet-real")]
        )
        assert [row[0] for row in rows(real)] == ["timm/middle"]

    def test_a_data_set_that_no_row_is_of_is_the_one_bounded(self, catalogue: Registry) -> None:
        found = catalogue.select(dataset="cifar10", min_metric={"top1": 92.0})
        assert (found.passed, found.classes) == (0, ())
        texts = {removal.constraint: (removal.removes, removal.without) for removal in found.removals}
        assert texts == {"dataset cifar10": (6, 0), "top1@cifar10 at least 92": (6, 0)}
        with pytest.raises(UsageError, match="2 data sets"):  # rows are of it, and none is scored on it
            catalogue.select(dataset="imagenet-12k", min_metric={"top1": 50.0})

    @pytest.mark.parametrize(
        ("name", "remedy"), [("gmacs", "use the aim min:gmacs"), ("params", "bound the parameters: --max-params N")]
    )
    def test_a_size_is_no_metric(self, catalogue: Registry, name: str, remedy: str) -> None:
        with pytest.raises(UsageError, match=f"{name} is a size and no metric") as caught:
            catalogue.select(aims=["max:top1"], max_metric={name: 1.0})
        assert caught.value.remedy == remedy

    def test_an_aim_without_data_set_is_on_that_of_the_bound(self, catalogue: Registry) -> None:
        real = [MetricBound("top1", minimum=85.0, dataset="imagenet-real")]
        asked = catalogue.select(aims=["max:top1"], metrics=real)
        assert [aim.place for aim in asked.aims] == ["top1@imagenet-real/val"]
        by_default = catalogue.select(metrics=real)
        assert [aim.place for aim in by_default.aims] == ["top1@imagenet-real/val", "parameters"]
        assert [row[3][0] for row in rows(asked)] == [88.0]

    def test_unknown_values_are_left_out_and_counted(self, catalogue: Registry) -> None:
        found = catalogue.select(aims=["max:params", "min:gmacs"])
        assert found.unknown == (("min gmacs", 2),)  # tiny and words
        assert {row[0] for row in rows(found)} == {"torchvision/large", "timm/middle", "timm/large"} - {"timm/large"}

    def test_bytes_are_those_of_published_files(self, catalogue: Registry) -> None:
        found = catalogue.select(aims=["min:bytes"])
        assert rows(found)[0][:3] == ("timm/middle", 224, "timm:middle.in1k")
        assert dict(found.unknown)["min bytes"] == 2

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"family": "DWARF"}, {"timm/tiny"}),
            ({"task": "fill-mask"}, {"transformers/words"}),
            ({"architecture": "*l*"}, {"timm/large", "timm/middle", "torchvision/large"}),
            ({"max_params": 2000}, {"timm/tiny", "transformers/words"}),
            ({"max_bytes": 900}, {"torchvision/large", "timm/middle"}),
            ({"licence": "mit"}, {"timm/tiny"}),
        ],
    )
    def test_filters(self, catalogue: Registry, filters: dict[str, Any], expected: set[str]) -> None:
        assert {model.name for model in catalogue.models(**filters)} == expected

    def test_like_compares_shapes(self, catalogue: Registry, tmp_path: Path) -> None:
        save_file(network(WIDTHS[1]), tmp_path / "mine.safetensors")
        found = catalogue.select(aims=["min:distance", "min:params"], like=tmp_path / "mine.safetensors")
        assert {row[0] for row in rows(found)} == {"timm/large", "torchvision/large", "timm/middle"}
        assert found.tolerance is not None
        assert found.like is not None
        assert not found.like.weights_read

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"aims": ["min:gflops"]}, "no gigaflops"),
            ({"max_gflops": 2.0}, "no gigaflops"),
            ({"tags": [("a", "b")]}, "no tags"),
            ({"related_to": "x"}, "weights that could be related"),
            ({"unrelated_to": Kin("x")}, "weights that could be related"),
            ({"fingerprint": "mme"}, "shapes and no weights"),
            ({"tolerance": 0.1}, "no equivalence classes"),
            ({"aims": ["max:top9"]}, "no model that passes has the metric top9"),
            ({"aims": ["max:top1"]}, "ambiguous"),
            ({"k": 0}, "at least 1"),
        ],
    )
    def test_what_cannot_be_asked(self, catalogue: Registry, asked: dict[str, Any], words: str) -> None:
        with pytest.raises(UsageError, match=words) as caught:
            catalogue.select(**asked)
        assert caught.value.remedy or "k" in asked

    def test_multiply_adds_are_no_gigaflops_of_stored_models(self, database_url: str) -> None:
        with Registry(database_url) as stored:
            stored.ingest(network(WIDTHS[3]), name="mine")
            with pytest.raises(UsageError, match="what its source stated"):
                stored.select(aims=["min:gmacs"])


class TestBrowsing:
    def test_it_is_a_mapping_of_names(self, catalogue: Registry) -> None:
        assert len(catalogue) == 5
        assert list(catalogue) == sorted(catalogue)
        assert "timm/tiny" in catalogue
        assert "tiny" in catalogue
        assert "other" not in catalogue
        assert catalogue["tiny"].name == "timm/tiny"
        with pytest.raises(UnknownModelError, match="no architecture 'tny'") as caught:
            catalogue["tny"]
        assert caught.value.remedy == "similar: timm/tiny, tiny"
        with pytest.raises(AmbiguousError, match="torchvision/large and timm/large"):
            catalogue.show("large")

    def test_show(self, catalogue: Registry) -> None:
        found = catalogue.show("timm/large")
        assert [weights.tag for weights in found.published] == ["a1_in1k", "a2_in1k"]
        assert found.notes[-1] == "the same tensors: torchvision/large"
        assert found.summary.catalogue is not None
        assert found.summary.catalogue.code == "timm.large(10)"

    def test_stats(self, catalogue: Registry) -> None:
        found = catalogue.stats()
        assert (found.models, found.families, found.fingerprints) == (
            5,
            (("stack", 3), ("dwarf", 1), ("text", 1)),
            (("shapes v1", 3),),
        )

    def test_unmatched(self, catalogue: Registry) -> None:
        assert catalogue.unmatched(family="dwarv", licence="mit") == {"family": ("dwarf",)}


class TestShapes:
    def test_nearest_to_a_file_whose_weights_are_not_read(self, catalogue: Registry, tmp_path: Path) -> None:
        file = tmp_path / "mine.safetensors"
        save_file(network(WIDTHS[1], prefix="module."), file)
        found = catalogue.search(file, 2)
        assert [near.model.names for near in found.neighbours] == [
            ("torchvision/large", "timm/large"),
            ("timm/middle",),
        ]
        assert found.neighbours[0].distance == pytest.approx(0.0, abs=0.02)  # half precision
        assert all(near.verdict.by_shapes and near.verdict.equivalent for near in found.neighbours)
        assert not found.model.weights_read
        assert (found.searched, found.spec.name) == (3, "shapes")

    def test_nearest_to_a_live_module(self, catalogue: Registry) -> None:
        assert catalogue.nearest(network(WIDTHS[3]), 1)[0].model.names == ("timm/tiny", "transformers/words")

    def test_nearest_to_an_architecture_leaves_out_its_equals(self, catalogue: Registry) -> None:
        found = catalogue.search("large")
        assert found.model.names == ("torchvision/large", "timm/large")
        assert [near.model.name for near in found.neighbours] == ["timm/middle", "timm/tiny"]
        assert [near.model.name for near in catalogue.search("large", family="dwarf").neighbours] == ["timm/tiny"]
        assert catalogue.search("large", equivalent=True, tolerance=0.0).neighbours == ()
        named = catalogue.search("tiny", dataset="imagenet-1k", licence="apache-2.0").neighbours
        assert {near.model.location for near in named} == {"timm:middle.in1k", "timm:large.a1_in1k"}

    def test_names_that_are_none(self, catalogue: Registry) -> None:
        with pytest.raises(UnknownModelError, match="neither an architecture of the catalogue nor a file"):
            catalogue.search("lage")

    def test_compress(self, catalogue: Registry) -> None:
        found = catalogue.compress("timm/large")
        assert found.equivalent
        assert [each.model.name for each in found.candidates] == ["timm/middle"]
        saved = 1 - found.candidates[0].model.parameters / found.model.parameters
        assert found.candidates[0].params_saved == found.candidates[0].bytes_saved == pytest.approx(saved)
        far = catalogue.compress("timm/large", tolerance=0.0, k=1)
        assert not far.equivalent
        assert [each.model.name for each in far.candidates] == ["timm/middle"]
        none = catalogue.compress("timm/large", max_ratio=0.5, family="stack")
        assert none.candidates == ()
        assert {removal.constraint for removal in none.removals} >= {"family stack"}
        smallest = catalogue.compress("timm/tiny")
        assert [(removal.constraint, removal.removes) for removal in smallest.removals] == [
            ("smaller than timm/tiny", 6)
        ]


def test_a_smaller_network_that_lacks_one_layer_is_told(catalogue: Registry, tmp_path: Path) -> None:
    more = {"last.weight": torch.randn(7, 10), "last.bias": torch.randn(7)}
    save_file({**network(WIDTHS[3]), **more}, tmp_path / "mine.safetensors")
    found = catalogue.compress(tmp_path / "mine.safetensors", tolerance=10.0)
    assert [each.model.name for each in found.candidates] == ["timm/tiny"]
    assert found.note.endswith("timm/tiny has the shapes of all tensors of mine but last.bias and last.weight.")
    assert catalogue.compress("timm/large", tolerance=10.0).note == ""  # of these, one has other shapes


def test_parameters_that_are_not_counted_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    frozen = replace(ARCHITECTURES[3], id=6, name="frozen", parameters=0)
    monkeypatch.setattr(scored_catalogue, "ARCHITECTURES", (*ARCHITECTURES, frozen))
    write_scored(tmp_path)
    with Registry("catalogue:") as catalogue:
        found = catalogue.compress("timm/middle", tolerance=10.0)
        assert [each.model.name for each in found.candidates] == ["timm/tiny"]
        assert found.note == "The number of parameters of timm/frozen is not known to the catalogue: it was left out."
        assert catalogue.compress("timm/middle", tolerance=10.0, family="stack").note == ""
        least = catalogue.select(aims=["min:params"])
        assert {row[0] for row in rows(least)} == {"timm/tiny", "transformers/words"}
        assert least.unknown == (("min parameters", 1),)
        few = catalogue.select(aims=["min:params"], architecture="frozen", max_params=10)
        assert {(each.constraint, each.unknown) for each in few.removals} >= {("at most 10 parameters", 1)}


ELSEWHERE = {
    "related": lambda reg: reg.related("timm/large"),
    "tree": lambda reg: reg.tree(),
    "classes": lambda reg: reg.classes(),
    "compare": lambda reg: reg.compare("timm/large", "timm/tiny"),
    "distances": lambda reg: reg.distances(),
    "spectrum": lambda reg: reg.spectrum("timm/large"),
    "calibrate": lambda reg: reg.calibrate(),
    "set": lambda reg: reg.set("timm/large", family="x"),
    "remove": lambda reg: reg.remove("timm/large"),
    "export": lambda reg: reg.export("there.db"),
    "ingest": lambda reg: reg.ingest(network(WIDTHS[3]), name="x"),
    "upgrade": lambda reg: reg.upgrade(),
    "check": lambda reg: reg.check(),
    "audit": lambda reg: reg.audit(),
    "duplicates": lambda reg: reg.duplicates(),
    "runs": lambda reg: reg.runs.list(),
}


@pytest.mark.parametrize("question", ELSEWHERE)
def test_what_it_cannot_answer_is_refused_and_nothing_written(
    catalogue: Registry, question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="holds architectures and no models") as caught:
        ELSEWHERE[question](catalogue)
    assert "select" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_damaged_file_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(StorageError, match="not part of this installation"):
        Registry("catalogue:").models()
    file = write_scored(tmp_path)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RegistryError, match="damaged"):
        Registry("catalogue:").models()


@pytest.mark.usefixtures("catalogue")
class TestCommands:
    def test_select(self, archreg: Any) -> None:
        asked = ("select", "--db", "catalogue:", "--dataset", "imagenet-1k", "--metric", "top1>=80")
        done = archreg(*asked, "--aim", "min:gmacs")
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[0] == "3 of 6 rows pass the constraints."
        assert "timm:middle.in1k" in done.out
        assert "Metrics from a table; multiply-adds from a table; licences from a package." in done.out
        document = json.loads(archreg(*asked, "--aim", "min:gmacs", "--json").out)
        [row] = document["classes"]
        assert (document["unit"], row["aims"], row["catalogue"]["image_size"]) == ("row", {"min gmacs": 3.0}, 224)
        assert row["catalogue"]["weights"]["licence_source"] == "a package"

    def test_nearest_says_that_weights_were_not_read(self, archreg: Any) -> None:
        done = archreg("nearest", "--db", "catalogue:", "timm/tiny")
        assert "torchvision/large and 1 equal" in done.out
        assert "Weights not read, compared by shapes alone" in done.out
        assert "Equal to timm/tiny by shapes and parameters: transformers/words." in done.out
        assert done.out.startswith("Models nearest to timm/tiny, compared by")
        done = archreg("nearest", "--db", "catalogue:", "large")  # two have that name
        assert done.out.startswith("Models nearest to large (taken as torchvision/large), compared by")

    def test_show_has_a_table_of_weights(self, archreg: Any) -> None:
        done = archreg("show", "--db", "catalogue:", "timm/large")
        assert "2, at their image sizes: below" in done.out
        assert "giga multiply-adds: 4.1 at 224 pixels, 6.8 at 288 pixels; by a table" in done.out
        rows = [line.split() for line in done.out.splitlines() if line.startswith("timm:large.")]
        assert rows == [
            ["timm:large.a2_in1k", "imagenet-1k", "cc-by-nc-4.0", "224", "82", "1", "kB"],
            ["timm:large.a1_in1k", "imagenet-1k", "apache-2.0", "288", "81.5", "1", "kB"],
            ["timm:large.a1_in1k", "imagenet-1k", "apache-2.0", "224", "80.5", "1", "kB"],
        ]
        assert "Metrics on imagenet-1k from a table; licences from a package." in done.out
        assert "imagenet-real: --json" in done.err
        assert max(map(len, done.out.splitlines())) < 200
        bare = archreg("show", "--db", "catalogue:", "words")
        assert "none known" in bare.out
        assert "licences" not in bare.out

    def test_show_names_what_ships_and_knows_a_name(self, archreg: Any, tmp_path: Path, database_url: str) -> None:
        missing = archreg("show", "tiny", "--db", str(tmp_path / "none.db"))
        assert (missing.code, missing.out) == (1, "")
        assert "catalogue: knows 'tiny': --db catalogue:" in missing.err
        with Registry(database_url) as stored:
            stored.ingest(network(WIDTHS[3]), name="mine")
            with pytest.raises(UnknownModelError) as caught:
                stored.show("timm/tiny")
            assert caught.value.remedy == "catalogue: knows 'timm/tiny': --db catalogue:"
            with pytest.raises(UnknownModelError) as caught:
                stored.show("nothing")
            assert "catalogue:" not in (caught.value.remedy or "")

    def test_stats_are_of_architectures(self, archreg: Any) -> None:
        done = archreg("stats", "--db", "catalogue:")
        facts = dict(line.split(None, 1) for line in done.out.splitlines() if len(line.split(None, 1)) == 2)
        assert facts["architectures"] == "5: timm 3, torchvision 1, transformers 1"
        assert (facts["layouts"], facts["metrics"]) == ("3 distinct state dicts", "9")
        assert "models" not in facts
        assert "layers" not in facts
        document = archreg("stats", "--db", "catalogue:", "--json").document["catalogue"]
        assert (document["weights"], document["costs"], document["command"]) == (5, 4, "")

    def test_list_shows_a_part(self, archreg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = ("list", "--db", "catalogue:")
        whole = archreg(*asked, "--json").document
        assert len(whole["models"]) == 5
        assert "total" not in whole
        part = archreg(*asked, "-k", "2", "--skip", "1", "--json").document
        assert part["models"] == whole["models"][1:3]
        assert (part["total"], part["skipped"]) == (5, 1)
        monkeypatch.setattr("registry.cli.browse.PAGE", 2)
        first = archreg(*asked)
        assert first.out.count("not read") == 2
        assert first.err == "1 to 2 of 5 architectures; the next: --skip 2.\n"
        assert archreg(*asked, "--skip", "4").err == "5 to 5 of 5 architectures.\n"
        past = archreg(*asked, "--skip", "9")
        assert (past.out, past.err) == ("", "There are 5 architectures: --skip 9 leaves out all.\n")
        assert archreg(*asked, "-k", "9").err == "5 architectures.\n"
        assert archreg(*asked, "--duplicates", "-k", "2").code == 2

    def test_list(self, archreg: Any) -> None:
        assert archreg("list", "--db", "catalogue:").out.count("not read") == 5

    def test_a_refusal_is_one_line_and_a_remedy(self, archreg: Any) -> None:
        done = archreg("classes", "--db", "catalogue:")
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 2)
