"""One question to several registries: what each row is from and rests on, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

from registry import Among, Metric, MetricBound, Registry, shipped
from registry.catalog import measuring
from registry.equivalence import shipped as shipped_calibration
from registry.equivalence import tolerance_for
from registry.errors import DatabaseMissingError, EmptyRegistryError, UnknownModelError, UsageError
from registry.spectral.specs import LAYERED
from tests.catalog.scored_catalogue import WIDTHS, network, write_scored
from tests.cli.conftest import archreg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["archreg"]  # the fixture

MIDDLE = (16, 16, 32, 32, 64, 48)


def trained(widths: Any, seed: int) -> dict[str, torch.Tensor]:
    """A network with one large singular value a layer, as training gives."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in network(widths).items():
        flat = torch.randn(tensor.flatten(1).shape, generator=generator)
        u, v = torch.randn(len(flat), 1, generator=generator), torch.randn(1, flat.shape[1], generator=generator)
        tensors[name] = (flat + 3 * u @ v).reshape(tensor.shape)
    return tensors


def top1(value: float) -> tuple[Metric, ...]:
    return (Metric("top1", value, "imagenet-1k", "val"),)


@pytest.fixture
def places(registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    """A registry of either kind, a SQLite file that shares a model with it, and the catalogue."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shipped"
    folder.mkdir()
    write_scored(folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    with Registry(registry_url) as one, Registry("team.db") as two:
        one.ingest(trained(WIDTHS[1], 1), name="shared", metrics=top1(70.0), licence="MIT")
        one.ingest(trained(MIDDLE, 2), name="middle", metrics=top1(71.0))
        two.ingest(trained(WIDTHS[1], 1), name="shared too", metrics=top1(70.0))
        two.ingest(trained(WIDTHS[3], 3), name="tiny", metrics=top1(90.0))
    return registry_url, "team.db", "catalogue:"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(trained(WIDTHS[1], 4), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


@pytest.fixture
def among(places: tuple[str, str, str]) -> Iterator[Among]:
    with Among(*places) as several:
        yield several


class TestNearest:
    def test_rows_name_their_registries_and_what_they_rest_on(self, among: Among, file: Path) -> None:
        found = among.nearest(file)
        first, second, catalogue = among.registries
        assert found.by_weights is not None
        assert found.by_shapes is not None
        rows = {near.model.name: near for near in found.by_weights.neighbours}
        assert {name: near.model.registries for name, near in rows.items()} == {
            "shared": (first, second),
            "middle": (first,),
            "tiny": (second,),
        }
        assert not any(near.verdict.by_shapes for near in found.by_weights.neighbours)
        assert all(near.verdict.by_shapes for near in found.by_shapes.neighbours)
        assert {near.model.registries for near in found.by_shapes.neighbours} == {(catalogue,)}
        distances = [near.distance for near in found.by_weights.neighbours]
        assert distances == sorted(distances)

    def test_distances_are_those_of_each_registry(self, among: Among, places: tuple[str, str, str], file: Path) -> None:
        found = among.nearest(file)
        assert found.by_weights is not None
        held = {near.model.name: near.distance for near in found.by_weights.neighbours}
        with Registry(places[0]) as one, Registry(places[1]) as two:
            alone = {near.model.name: near.distance for near in (*one.nearest(file), *two.nearest(file))}
        assert held == {name: alone[name] for name in held}

    def test_all_are_ranked_by_distance_over_tolerance(self, among: Among, file: Path) -> None:
        found = among.nearest(file)
        ratios = [near.distance / (near.verdict.tolerance or 1) for near in found.neighbours]
        assert ratios == sorted(ratios)
        assert {near.verdict.by_shapes for near in found.neighbours} == {False, True}
        assert len({near.verdict.tolerance for near in found.neighbours}) == 2

    def test_one_tolerance_for_all_models_searched(self, places: tuple[str, str, str], file: Path) -> None:
        with Registry(places[1]) as two:
            for at in range(200):
                two.ingest(trained((8, 8, 8), 100 + at), name=f"m{at}")
        with Among(*places[:2]) as several:
            found = several.nearest(file)
        assert found.by_shapes is None
        assert found.by_weights is not None
        calibration = shipped_calibration(LAYERED, "l1")
        assert calibration is not None
        assert found.by_weights.searched == 204
        expected = min(calibration.tolerance, tolerance_for(calibration, 1 / 204))
        assert {near.verdict.tolerance for near in found.by_weights.neighbours} == {expected}
        assert found.by_weights.tolerance == expected < calibration.tolerance

    def test_the_file_is_measured_once(self, among: Among, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        measure = measuring.measure

        def counted(*arguments: Any, **more: Any) -> Any:
            calls.append(1)
            return measure(*arguments, **more)

        monkeypatch.setattr(measuring, "measure", counted)
        among.nearest(file)
        assert len(calls) == 1

    def test_a_name_is_that_of_the_first_registry_that_has_it(self, among: Among) -> None:
        found = among.nearest("shared too")
        assert found.by_weights is not None
        assert {near.model.name for near in found.by_weights.neighbours} == {"middle", "tiny"}  # itself in neither
        with pytest.raises(UnknownModelError, match="neither a model that these registries hold nor a file"):
            among.nearest("shard")

    def test_of_an_architecture_all_compare_shapes(self, among: Among) -> None:
        found = among.nearest("timm/large")
        assert found.by_weights is None
        assert found.by_shapes is not None
        names = {near.model.name for near in found.by_shapes.neighbours}
        assert names == {"shared", "middle", "tiny", "timm/middle", "timm/tiny"}

    def test_the_catalogue_alone_reads_the_header(self, file: Path, places: tuple[str, str, str]) -> None:
        with Among(places[2]) as several:
            found = several.nearest(file)
        assert found.by_weights is None
        assert not found.model.weights_read

    def test_relations_are_told(self, among: Among, file: Path) -> None:
        found = among.nearest(file, relations=True)
        assert found.by_weights is not None
        told = {near.model.name: near.relation for near in found.by_weights.neighbours}
        assert told["shared"] is not None
        assert told["shared"].verdict in ("independent", "undecided")

    def test_what_one_of_them_cannot_answer_is_refused(self, among: Among, file: Path) -> None:
        with pytest.raises(UsageError, match="not filtered by relations"):
            among.nearest(file, related_to="shared")
        for filters in ({"tags": [("a", "b")]}, {"max_gflops": 1.0}):
            with pytest.raises(UsageError, match="the catalogue has no"):
                among.nearest(file, **filters)
        with pytest.raises(UsageError, match="shapes and no weights"):
            among.nearest(file, fingerprint="mme")


class TestCompress:
    def test_smaller_ones_of_each_kind(self, among: Among, file: Path) -> None:
        found = among.compress(file, tolerance=10.0)
        assert found.by_weights is not None
        assert found.by_shapes is not None
        assert [each.model.name for each in found.by_weights.candidates] == ["tiny", "middle"]  # the smallest first
        assert [each.model.name for each in found.by_shapes.candidates] == ["timm/tiny", "timm/middle"]

    def test_without_any_the_nearest_are_shown(self, among: Among, file: Path) -> None:
        found = among.compress(file, tolerance=0.0, k=1)
        assert found.by_weights is not None
        assert not found.by_weights.equivalent
        assert [each.model.name for each in found.by_weights.candidates] == ["middle"]

    def test_constraints_are_summed(self, among: Among, file: Path) -> None:
        found = among.compress(file, family="none")
        assert found.by_weights is not None
        assert found.by_weights.candidates == ()
        assert {each.constraint: each.removes for each in found.by_weights.removals}["family none"] == 4


class TestSelect:
    def test_one_front_of_all(self, among: Among) -> None:
        found = among.select(aims=["max:top1@imagenet-1k/val", "min:params"])
        shown = {group.best.model.name: group.best.model.registries for group in found.classes}
        assert shown == {"tiny": (among.registries[1],)}  # the best and the smallest
        assert (found.unit, found.on_front) == ("row", 1)
        assert found.models == 10

    def test_content_in_two_registries_is_one_row(self, among: Among) -> None:
        found = among.select(aims=["max:top1@imagenet-1k/val"], max_metric={"top1@imagenet-1k": 70.0}, family="")
        [group] = found.classes
        assert (group.best.model.name, group.best.model.registries) == ("shared", among.registries[:2])

    def test_no_aims_of_two_meanings(self, among: Among, places: tuple[str, str, str]) -> None:
        with pytest.raises(UsageError, match="what its source stated") as caught:
            among.select(aims=["min:gmacs"])
        assert caught.value.remedy == "drop the aim gmacs, or ask the catalogue alone"
        with Registry(places[0]) as one:
            one.set("shared", gflops=1.0)
        with pytest.raises(UsageError, match="no gigaflops") as caught, Among(places[0], places[2]) as several:
            several.select(aims=["min:gflops"])
        assert caught.value.remedy == "drop the aim gflops, or ask registries of models alone"
        with Registry(places[1]) as two:
            two.set_metric("tiny", Metric("f1", 1.0, "other"))
        with Registry(places[0]) as one:
            one.set_metric("shared", Metric("f1", 1.0, "else"))
        with pytest.raises(UsageError, match="the aims are f1@else in"):
            among.select(aims=["max:f1"])

    def test_distances_of_two_kinds_are_no_aim(self, among: Among, places: tuple[str, str, str], file: Path) -> None:
        with pytest.raises(UsageError, match="different scales"):
            among.select(aims=["min:distance"], like=file)
        with Among(*places[:2]) as several:
            found = several.select(aims=["min:distance"], like=file, tolerance=10.0)
        assert found.like is not None
        assert found.on_front == 1

    def test_a_registry_without_a_value_adds_none(self, among: Among) -> None:
        found = among.select(aims=["max:top1@imagenet-real/val"])
        assert [group.best.model.name for group in found.classes] == ["timm/large"]
        assert (found.models, found.passed) == (10, 10)
        assert found.unknown == (("max top1@imagenet-real/val", 8),)  # 2 rows of the catalogue have it
        with pytest.raises(UsageError, match="no model that passes has the metric top9"):
            among.select(aims=["max:top9"])

    @pytest.mark.usefixtures("places")
    def test_without_aims_the_metric_known_for_the_most(self) -> None:
        with Registry("faces.db") as faces:
            faces.ingest(trained(MIDDLE, 5), name="face", metrics=(Metric("accuracy", 0.6, "faces", "val"),))
        with Among("faces.db", "catalogue:") as several:
            found = several.select()
        assert [aim.place for aim in found.aims] == ["top1@imagenet-1k/val", "parameters"]
        assert (found.models, found.passed) == (7, 7)
        assert found.unknown == (("max top1@imagenet-1k/val", 2),)  # the face, and words
        with Among("faces.db") as alone:
            assert [aim.place for aim in alone.select().aims] == ["accuracy@faces/val", "parameters"]

    @pytest.mark.usefixtures("places")
    def test_distances_of_two_kinds_are_no_aims_by_default(self, file: Path) -> None:
        with Registry("plain.db") as plain:
            plain.ingest(trained(MIDDLE, 5), name="plain", task="fill-mask")
        with Among("plain.db", "catalogue:") as several:
            found = several.select(like=file, tolerance=10.0, task="fill-mask")
        assert [aim.place for aim in found.aims] == ["parameters"]
        assert [group.best.model.name for group in found.classes] == ["transformers/words"]


class TestOpening:
    def test_one_that_cannot_be_opened_is_an_error_before_anything_is_read(
        self, places: tuple[str, str, str], file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("registry.sources.open_ref", lambda _: pytest.fail("a file was read"))
        with Among(places[0], "none.db") as several, pytest.raises(DatabaseMissingError, match=r"none\.db"):
            several.nearest(file)

    def test_names_of_registries(self, places: tuple[str, str, str]) -> None:
        with pytest.raises(UsageError, match="no registry is named"):
            Among()
        with pytest.raises(UsageError, match="named twice"):
            Among(places[1], places[1])

    def test_an_empty_registry_is_an_error(self, places: tuple[str, str, str], file: Path) -> None:
        with Registry("empty.db") as empty:
            empty.ingest(trained(WIDTHS[3], 3), name="x")
            empty.remove("x")
        with Among(places[0], "empty.db") as several, pytest.raises(EmptyRegistryError):
            several.nearest(file)


class TestCommands:
    def test_nearest(self, places: tuple[str, str, str], file: Path, archreg: Any) -> None:
        asked = ("nearest", str(file), "--among", ",".join(places[1:]))
        done = archreg(*asked)
        assert (done.code, done.err) == (0, "")
        assert "compared by layered" in done.out
        assert "compared by shapes" in done.out
        document = json.loads(archreg(*asked, "--json").out)
        assert document["registries"] == ["team.db", "catalogue:"]
        assert [answer["rests_on"] for answer in document["answers"]] == ["weights", "shapes"]
        for row in document["neighbours"]:
            assert row["rests_on"] == ("shapes" if row["registry"] == "catalogue:" else "weights")
            assert row["ratio"] == pytest.approx(row["distance"] / row["tolerance"])

    def test_compress_and_select(self, places: tuple[str, str, str], file: Path, archreg: Any) -> None:
        both = ("--among", ",".join(places[1:]))
        done = archreg("compress", str(file), *both, "--tolerance", "10", "--json")
        answers = json.loads(done.out)["answers"]
        assert [[row["registry"] for row in answer["candidates"]] for answer in answers] == [
            ["team.db"],
            ["catalogue:", "catalogue:"],
        ]
        done = archreg("select", *both, "--aim", "max:top1@imagenet-1k/val")
        assert (done.code, "team.db" in done.out) == (0, True)
        assert "A row is" not in done.out  # none is of the catalogue

    @pytest.mark.usefixtures("places")
    def test_db_beside_among(self, archreg: Any) -> None:
        for asked in (
            ("nearest", "x", "--db", "team.db", "--among", "team.db"),
            ("--db", "team.db", "nearest", "x", "--among", "team.db"),
            ("select", "--among", "team.db,"),
        ):
            done = archreg(*asked)
            assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 2)

    def test_without_a_registry_of_ones_own_those_that_ship_answer(
        self, places: tuple[str, str, str], file: Path, archreg: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("registry.cli.options.SHIPPED_WORDS", ("team.db", places[2]))
        monkeypatch.delenv("ARCHREG_DB", raising=False)
        for asked in (("nearest", str(file)), ("compress", str(file)), ("select", "--aim", "min:params")):
            done = archreg(*asked)
            assert done.code == 0, done.err
            assert done.err.startswith(
                "There is no registry of your own yet: team.db and catalogue: answered. Add yours"
            )
        done = archreg("nearest", str(file), "none.pth")
        assert done.code == 3
        assert "There is no registry of your own yet" in done.err
        assert "There is no registry of your own yet" not in archreg("nearest", "no.pth", "none.pth").err
        monkeypatch.setenv("ARCHREG_DB", "other.db")
        assert archreg("nearest", str(file)).err.startswith("archreg: other.db holds no registry yet")
        assert archreg("nearest", str(file), "--db", "archreg.db").code == 1


def test_a_data_set_of_one_registry_leaves_the_others_without_an_answer(among: Among, places: tuple[str, ...]) -> None:
    with Registry(places[0]) as one:
        one.ingest(
            trained(MIDDLE, 8), name="small images", dataset="cifar10", metrics=(Metric("top1", 93.0, "cifar10"),)
        )
    found = among.select(dataset="cifar10", min_metric={"top1": 92.0})
    assert [group.best.model.name for group in found.classes] == ["small images"]
    assert found.passed == 1


def test_a_bound_selects_published_weights(among: Among, file: Path) -> None:
    found = among.nearest(file, metrics=[MetricBound("top1", minimum=81.0, dataset="imagenet-1k")])
    assert found.by_shapes is not None
    assert [near.model.location for near in found.by_shapes.neighbours] == ["timm:large.a2_in1k"]
    assert found.by_weights is not None
    assert [near.model.name for near in found.by_weights.neighbours] == ["tiny"]
