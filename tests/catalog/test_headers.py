"""Models of which the header alone was read: what is stored, asked and said of them, and how weights complete them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry import Metric, Registry
from registry.errors import NameTakenError, SourceError, SpecMismatchError, UsageError, WeightsNotReadError
from registry.spectral.specs import LAYERED, SHAPES
from registry.storage import Store
from registry.storage.models.measured_values import drop_spec
from registry.storage.models.vectors import read_fingerprints
from tests.catalog.factory import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry.types import ModelSummary
    from tests.catalog.conftest import Filled

SAME = ("topology", "parameters", "bytes", "layers", "precision", "format", "location", "matrix_rule")


@pytest.fixture
def reg(registry_url: str) -> Iterator[Registry]:
    with Registry(registry_url) as opened:
        yield opened


@pytest.fixture
def own(files: Path, tmp_path: Path) -> Path:
    """The files of the networks, to be changed."""
    return shutil.copytree(files, tmp_path / "own")


def headers(reg: Registry, *paths: Path, **settings: object) -> list[str]:
    return [reg.ingest(path, headers_only=True, **settings).status for path in paths]  # type: ignore[arg-type]


def told(model: ModelSummary) -> list[object]:
    return [getattr(model, name) for name in SAME]


def vectors(reg: Registry, spec_hash: str) -> dict[str, np.ndarray]:
    ids = {model.id: model.name for model in reg.models()}
    with Store.open(reg._database.url, mode="read") as store:
        found, values = store.read(read_fingerprints, spec_hash)
    return {ids[model]: vector for model, vector in zip(found.tolist(), values, strict=True)}


class TestStored:
    def test_what_the_header_says_is_stored_and_marked(self, reg: Registry, files: Path, asked: Filled) -> None:
        done = reg.ingest(files / "wide.safetensors", headers_only=True, family="conv")
        assert (done.status, done.weights_read, done.message) == ("added", False, "")
        assert done.notes == (
            "weights not read: it is compared by shapes alone until it is ingested without --headers-only",
        )
        model, whole = reg["wide"], asked.reg["wide"]
        assert (model.weights_read, whole.weights_read) == (False, True)
        assert told(model) == told(whole)
        assert (model.family, model.tail_class, model.training_class) == ("conv", "", "")
        assert model.content_hash.startswith("header:")
        details = reg.show("wide")
        assert (details.fingerprints, details.has_spectra, details.conjugacy) == (("shapes v1",), False, None)
        assert {layer.mean for layer in details.layers} == {None}
        assert [(x.name, x.shape, x.kind) for x in details.layers] == [
            (x.name, x.shape, x.kind) for x in asked.reg.show("wide").layers
        ]
        assert reg.check() == ()
        assert reg.outdated() == 0
        assert reg.refingerprint().fingerprints == 0
        assert len(reg.older().models) == 0

    def test_what_needs_its_weights_says_how_to_read_them(self, reg: Registry, files: Path) -> None:
        headers(reg, files / "wide.safetensors")
        with pytest.raises(SpecMismatchError, match="wide: its weights were not read") as refused:
            reg.related("wide")
        assert refused.value.remedy == f"ingest its weights: archreg ingest {files / 'wide.safetensors'}"

    def test_its_fingerprint_is_that_of_the_weights(self, reg: Registry, files: Path, asked: Filled) -> None:
        headers(reg, *(files / f"{name}.safetensors" for name in NETWORKS))
        alone, whole = vectors(reg, SHAPES.hash), vectors(asked.reg, SHAPES.hash)
        assert alone.keys() == whole.keys() == NETWORKS.keys()
        for name, vector in alone.items():
            assert vector.tobytes() == whole[name].tobytes()
        assert vectors(reg, LAYERED.hash) == {}

    def test_again_it_is_known(self, reg: Registry, files: Path) -> None:
        assert headers(reg, files / "wide.safetensors", files / "wide.safetensors") == ["added", "known"]
        assert reg.ingest(files / "wide.safetensors", headers_only=True, name="other").message == (
            "another name for wide, which has the same header at the same place"
        )
        assert reg["other"].names == ("wide", "other")

    def test_two_files_of_one_header_are_two_models(self, reg: Registry, files: Path) -> None:
        assert headers(reg, files / "wide.safetensors", files / "twin.safetensors") == ["added", "added"]
        assert len({model.content_hash for model in reg.models()}) == 2
        assert len({model.topology for model in reg.models()}) == 1

    def test_without_a_name_it_is_known_by_its_header(self, reg: Registry, own: Path) -> None:
        headers(reg, own / "wide.safetensors", own / "slim.safetensors")
        shutil.copy(own / "dense.safetensors", own / "wide.safetensors")
        with pytest.raises(NameTakenError, match=r"'wide' belongs to other weights, header:[0-9a-f]{12} "):
            headers(reg, own / "wide.safetensors")
        assert headers(reg, own / "wide.safetensors", replace=True) == ["added"]
        [nameless] = [model for model in reg.models() if not model.names]
        assert nameless.name == nameless.content_hash[:19]
        assert reg[nameless.name].id == nameless.id
        assert reg.remove(nameless.name).id == nameless.id
        assert [model.name for model in reg.models()] == ["slim", "wide"]

    def test_a_live_module_has_none(self, reg: Registry) -> None:
        with pytest.raises(UsageError, match="a live module has no header"):
            reg.ingest({"a": np.eye(3)}, name="a", headers_only=True)  # type: ignore[arg-type]

    def test_what_has_no_header_is_a_failed_item(self, reg: Registry, own: Path) -> None:
        plan = reg.plan([own, "torchvision:resnet18.random"])
        done = {each.name: each for each in reg.ingest_all(plan, headers_only=True)}
        assert {name for name, each in done.items() if each.status == "added"} == NETWORKS.keys()
        [failed] = [each for each in done.values() if each.status == "failed"]
        assert "the shapes of a torchvision model are not known without reading its weights" in failed.message
        assert failed.remedy == "ingest it without --headers-only, or save it as safetensors"
        with pytest.raises(SourceError, match="are not known without reading its weights"):
            reg.ingest("torchvision:resnet18.random", headers_only=True)

    def test_a_manifest_and_workers(self, reg: Registry, own: Path) -> None:
        lines = "".join(f'{{"path": "{own}/{name}.safetensors", "family": "{name}"}}\n' for name in NETWORKS)
        (own / "m.jsonl").write_text(lines)
        plan = reg.plan(manifest=own / "m.jsonl")
        done = reg.ingest_all(plan, headers_only=True, workers=1, executor="pool")
        assert {each.status for each in done} == {"added"}
        assert {(model.family, model.weights_read) for model in reg.models()} == {(name, False) for name in NETWORKS}
        # The same plan with the weights is another run, and completes them.
        done = reg.ingest_all(plan)
        assert {each.status for each in done} == {"renewed"}
        assert all(model.weights_read for model in reg.models())
        assert {each.message for each in reg.ingest_all(plan, headers_only=True)} == {
            "stored by an earlier start of this run"
        }

    def test_the_estimate_has_the_bytes_of_headers(self, reg: Registry, files: Path) -> None:
        plan = reg.plan([files])
        found = reg.estimate(plan, headers_only=True)
        lengths = []
        for ref in plan:
            with open(ref.target, "rb") as file:  # noqa: PTH123
                lengths.append(8 + int.from_bytes(file.read(8), "little"))
        assert [model.header_bytes for model in found.models] == lengths
        assert {model.header_bytes for model in reg.estimate(plan).models} == {None}
        (files / "wide.safetensors").stat()


class TestCompleted:
    def test_the_weights_take_its_place(self, reg: Registry, files: Path, asked: Filled) -> None:
        headers(reg, files / "wide.safetensors", family="conv", tags=(("stage", "lab"),))
        reg.set("wide", family="mine", dataset="digits")
        reg.set_metric("wide", Metric("top1", 98.5, "digits"))
        reg.rename("wide", "ours")
        before = reg["ours"]
        done = reg.ingest(files / "wide.safetensors", family="theirs")
        assert (done.status, done.weights_read) == ("renewed", True)
        assert done.message == "its weights are read now; its names, metadata, metrics and tags stay"
        after, whole = reg["ours"], asked.reg["wide"]
        assert (after.id, after.created, after.names) == (before.id, before.created, ("ours", "wide"))
        assert (after.family, after.dataset, after.metrics) == ("mine", "digits", before.metrics)
        assert (after.content_hash, after.weights_read) == (whole.content_hash, True)
        assert (after.tail_class, after.training_class) == (whole.tail_class, whole.training_class)
        assert told(after) == told(whole)
        details = reg.show("ours")
        assert details.tags == (("stage", "lab"),)
        assert details.fingerprints == ("layered v3", "mme v1", "shapes v1")
        assert details.has_spectra
        assert [x.mean for x in details.layers] == [x.mean for x in asked.reg.show("wide").layers]
        assert reg.check() == ()
        assert len(reg) == 1

    def test_weights_that_are_stored_already_take_it_in(self, reg: Registry, own: Path) -> None:
        shutil.copy(own / "wide.safetensors", own / "copy.safetensors")
        reg.ingest(own / "wide.safetensors", family="conv")
        headers(reg, own / "copy.safetensors", task="digits")
        reg.ingest(own / "slim.safetensors")
        assert len(reg) == 3
        done = reg.ingest(own / "copy.safetensors")
        assert (done.status, done.weights_read) == ("renewed", True)
        assert len(reg) == 2
        model = reg["copy"]
        assert (model.names, model.family, model.task) == (("wide", "copy"), "conv", "digits")
        assert model.weights_read
        assert sorted(vectors(reg, SHAPES.hash)) == ["slim", "wide"]
        assert reg.check() == ()

    def test_a_header_adds_nothing_to_weights(self, reg: Registry, own: Path) -> None:
        state = load_file(own / "wide.safetensors")
        zero = next(name for name, tensor in state.items() if tensor.ndim > 1)
        state[zero] = np.zeros_like(state[zero])  # which the header does not tell
        save_file(state, own / "zero.safetensors")
        reg.ingest(own / "zero.safetensors")
        before, vector = reg.show("zero"), vectors(reg, SHAPES.hash)["zero"]
        done = reg.ingest(own / "zero.safetensors", headers_only=True, task="digits")
        assert (done.status, done.weights_read, done.notes) == ("known", True, ())
        assert done.message == "already stored with its weights; nothing added"
        after = reg.show("zero")
        assert (after.layers, after.summary.content_hash) == (before.layers, before.summary.content_hash)
        assert after.summary.task == "digits"
        assert vectors(reg, SHAPES.hash)["zero"].tobytes() == vector.tobytes()
        # Under another name it may be another training, saved over the first.
        assert headers(reg, own / "zero.safetensors", name="later") == ["added"]
        assert reg["later"].layers == before.summary.layers + 1
        assert reg.ingest(own / "zero.safetensors", name="later").status == "renewed"
        assert reg["later"].names == ("zero", "later")

    def test_other_weights_of_that_header_do_not(self, reg: Registry, own: Path) -> None:
        headers(reg, own / "wide.safetensors")
        with pytest.raises(NameTakenError, match="'wide' belongs to other weights, header:"):
            reg.ingest(own / "twin.safetensors", name="wide")
        (own / "moved").mkdir()
        shutil.copy(own / "wide.safetensors", own / "moved" / "wide.safetensors")
        with pytest.raises(NameTakenError, match="'wide' belongs to other weights, header:"):
            reg.ingest(own / "moved" / "wide.safetensors")
        assert not reg["wide"].weights_read

    def test_both_in_one_plan(self, reg: Registry, files: Path) -> None:
        plan = reg.plan([files / "wide.safetensors"])
        reg.ingest_all((*plan, *plan), headers_only=True)
        assert len(reg) == 1
        reg.ingest_all((*plan, *plan))
        assert len(reg) == 1
        assert reg["wide"].weights_read


def store_mixed(url: str, files: Path) -> None:
    with Registry(url) as reg:
        headers(reg, files / "wide.safetensors", files / "slim.safetensors")
        for name in ("twin", "dense"):
            reg.ingest(files / f"{name}.safetensors", family=name)


class TestAsked:
    @pytest.fixture
    def mixed(self, copied: Callable[..., str], files: Path) -> Iterator[Registry]:
        """Two models by their headers, two with their weights."""
        with Registry(copied(store_mixed, files)) as opened:
            yield opened

    def test_the_default_fingerprint_leaves_it_out(self, mixed: Registry) -> None:
        found = mixed.search("twin")
        assert ([each.model.name for each in found.neighbours], found.searched) == (["dense"], 1)
        assert not found.neighbours[0].verdict.by_shapes
        assert sorted(mixed.distances()[0]) == ["dense", "twin"]
        names = [member.name for each in mixed.classes().classes for member in each.members]
        assert sorted(names) == ["dense", "twin"]

    def test_shapes_compare_all(self, mixed: Registry) -> None:
        found = mixed.search("twin", fingerprint="shapes")
        assert found.spec == SHAPES
        assert [each.model.name for each in found.neighbours] == ["wide", "slim", "dense"]
        assert [each.model.weights_read for each in found.neighbours] == [False, False, True]
        nearest = found.neighbours[0].verdict
        assert (nearest.distance, nearest.equivalent, nearest.by_shapes, nearest.reasons) == (0.0, True, True, ())
        assert sorted(mixed.distances(fingerprint="shapes")[0]) == sorted(NETWORKS)

    def test_the_question_about_it_goes_by_shapes(self, mixed: Registry) -> None:
        for found in (mixed.search("wide"), mixed.search("wide", exact=True)):
            assert (found.spec, found.model.weights_read, found.searched) == (SHAPES, False, 3)
            assert [each.model.name for each in found.neighbours] == ["twin", "slim", "dense"]
        alike = mixed.nearest("wide", equivalent=True)
        assert alike[0].model.name == "twin"
        assert all(each.verdict.by_shapes and each.verdict.equivalent for each in alike)

    def test_two_models(self, mixed: Registry) -> None:
        for a, b in (("wide", "twin"), ("twin", "wide"), ("wide", "slim")):
            found = mixed.compare(a, b)
            assert (found.spec, found.verdict.by_shapes, found.contrast) == (SHAPES, True, None)
            assert mixed.equivalent(a, b) == found.verdict
        assert mixed.compare("twin", "dense").spec == LAYERED
        assert mixed.equivalent("wide", "twin").reasons == ()
        with pytest.raises(UsageError, match="strict needs spectra by depth, which shapes v1 does not contain"):
            mixed.equivalent("wide", "twin", strict=True)

    def test_a_file_and_a_header(self, mixed: Registry, files: Path) -> None:
        found = mixed.compare(files / "slim.safetensors", "wide")
        assert (found.spec, found.a.weights_read, found.b.weights_read) == (SHAPES, True, False)
        assert found.verdict.by_shapes

    def test_compression_and_selection(self, mixed: Registry) -> None:
        smaller = mixed.compress("wide", tolerance=9.0)
        assert (smaller.spec, smaller.equivalent) == (SHAPES, True)
        assert "slim" in [each.model.name for each in smaller.candidates]
        assert all(each.verdict.by_shapes for each in smaller.candidates)
        found = mixed.select(aims=["min:params"], like="wide", tolerance=9.0)
        assert (found.spec, found.like is not None and found.like.weights_read) == (SHAPES, False)
        # Of the front without a fingerprint each stands alone.
        front = mixed.select(aims=["min:params"])
        assert (front.spec, front.count) == (LAYERED, 1)

    def test_classes_by_shapes(self, mixed: Registry) -> None:
        found = mixed.classes(fingerprint="shapes", tolerance=0.0)
        assert sorted(member.name for member in found.classes[0].members) == ["twin", "wide"]
        assert (found.classes[0].tail_class, found.classes[0].training_class) == ("", "")

    def test_what_needs_weights_says_so(self, mixed: Registry, files: Path) -> None:
        for ask in (
            lambda: mixed.search("wide", fingerprint="mme"),
            lambda: mixed.compare("twin", "wide", fingerprint="mme"),
        ):
            with pytest.raises(WeightsNotReadError, match="the weights of wide were not read, and mme v1") as refused:
                ask()
            assert isinstance(refused.value, SpecMismatchError)
            place = files / "wide.safetensors"
            assert refused.value.remedy == f"use the fingerprint shapes, or read them: archreg ingest {place}"
        with pytest.raises(WeightsNotReadError, match="the weights of wide were not read"):
            mixed.spectrum("wide")

    def test_a_calibration_by_shapes(self, mixed: Registry) -> None:
        mixed.set("wide", family="conv")
        mixed.set("slim", family="conv")
        found = mixed.calibrate(fingerprint="shapes", rate=0.9, dry_run=True)
        assert found.labelled == 4
        assert all(each.equivalent == each.within for each in found.relations)


class TestCarried:
    def test_out_and_in_again(self, reg: Registry, files: Path, tmp_path: Path) -> None:
        headers(reg, files / "wide.safetensors", family="conv")
        reg.ingest(files / "dense.safetensors")
        reg.export(tmp_path / "out.db")
        shutil.copy(tmp_path / "out.db", tmp_path / "read.db")
        with Registry(tmp_path / "read.db") as other:
            assert [told(model) for model in other.models()] == [told(model) for model in reg.models()]
            assert [model.weights_read for model in other.models()] == [True, False]
            assert other.check() == ()
            assert other.nearest("wide")[0].model.name == "dense"
            assert other.ingest(files / "wide.safetensors").status == "renewed"
        again = reg.import_from(tmp_path / "out.db")
        assert (again.known, again.failed) == (2, ())
        # The other one has read the weights since: they complete it here, too.
        before = reg["wide"]
        done = reg.import_from(tmp_path / "read.db")
        assert (done.merged, done.known, done.failed) == (1, 1, ())
        after = reg["wide"]
        assert (after.id, after.family, after.weights_read) == (before.id, "conv", True)
        assert reg.show("wide").fingerprints == ("layered v3", "mme v1", "shapes v1")
        # And a header adds nothing to weights.
        done = reg.import_from(tmp_path / "out.db")
        assert (done.known, done.failed) == (2, ())
        assert reg["wide"].weights_read
        assert reg.check() == ()

    def test_a_header_of_other_weights_fails(self, reg: Registry, own: Path, tmp_path: Path) -> None:
        with Registry(tmp_path / "other.db") as other:
            headers(other, own / "wide.safetensors", name="one")
            headers(other, own / "slim.safetensors", name="two")
        reg.ingest(own / "dense.safetensors", name="one")
        done = reg.import_from(tmp_path / "other.db")
        assert (done.added, [each.name for each in done.failed]) == (1, ["one"])
        assert "the name 'one' belongs to other weights here, sha256:" in done.failed[0].message


def test_shapes_are_computed_of_stored_layers(filled: Filled, files: Path, tmp_path: Path) -> None:
    reg = filled.reg
    reg.ingest(files / "wide.safetensors", name="again")
    before = vectors(reg, SHAPES.hash)
    with Store.open(filled.url, mode="write") as store:
        store.write(drop_spec, SHAPES.hash)
    assert reg.outdated() == len(NETWORKS)
    # As an older version stored them: one without its spectra.
    with Registry(tmp_path / "bare.db") as bare:
        bare.ingest(files / "dense.safetensors", keep_spectra=False)
        with Store.open(f"sqlite:///{tmp_path / 'bare.db'}", mode="write") as store:
            store.write(drop_spec, SHAPES.hash)
        assert bare.refingerprint().fingerprints == 1
        assert vectors(bare, SHAPES.hash)["dense"].tobytes() == before["dense"].tobytes()
        assert bare.outdated() == 0
    assert reg.refingerprint().fingerprints == len(NETWORKS)
    after = vectors(reg, SHAPES.hash)
    assert {name: vector.tobytes() for name, vector in after.items()} == {
        name: vector.tobytes() for name, vector in before.items()
    }
