from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Metric, ModelCard, Registry
from registry.catalog import measuring
from registry.errors import (
    DatabaseMissingError,
    NameTakenError,
    NotFoundError,
    RegistryError,
    SpecMismatchError,
    StorageError,
    UsageError,
    WeightsError,
)
from registry.ingest import Silent
from registry.spectral import devices, eigenvalues
from registry.spectral.specs import LAYERED, MME, SHAPES, SPECS
from registry.storage import Store
from registry.storage.models.measured_values import drop_spec, put_conjugacy, put_fingerprints
from registry.storage.models.records import CONJUGACY_RULE
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import read_conjugacy, read_fingerprints
from registry.types import Fingerprint, Recomputed
from tests.catalog.factory import NETWORKS

if TYPE_CHECKING:
    from pathlib import Path

    from registry.spectral.lapack import Precision, Solver
    from registry.types import ModelRef
    from tests.catalog.conftest import Filled


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.safetensors"
    save_file({"w": np.full((4, 4), np.nan, np.float32)}, path)
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are measured, which is what costs."""
    names: list[str] = []
    real = measuring.measure

    def watched(checkpoint: Any, *settings: Any, **more: Any) -> Any:
        names.append(checkpoint.ref.name)
        return real(checkpoint, *settings, **more)

    monkeypatch.setattr(measuring, "measure", watched)
    return names


def test_what_becomes_of_weights_and_names(filled: Filled, measured: list[str]) -> None:
    reg, wide = filled.reg, filled.files / "wide.safetensors"
    again = reg.ingest(wide)
    assert (again.status, again.message) == ("known", "already stored; nothing added")
    named = reg.ingest(wide, name="large")
    assert (named.status, named.message) == ("named", "another name for wide, which has the same weights")
    assert measured == []
    assert {model.names for model in reg.models()} == {("wide", "large"), ("twin",), ("slim",), ("dense",)}

    with pytest.raises(NameTakenError, match="'large'") as taken:
        reg.ingest(filled.files / "slim.safetensors", name="large")
    assert "--replace" in (taken.value.remedy or "")
    assert reg.show("large").summary.name == "wide"
    moved = reg.ingest(filled.files / "slim.safetensors", name="large", replace=True)
    assert moved.status == "named"
    wide_hash = reg.show("wide").summary.content_hash[:12]
    assert moved.notes == (f"its name was taken from sha256:{wide_hash}, which has others",)
    assert reg.ingest(filled.files / "slim.safetensors", name="large", replace=True).notes == ()
    assert reg.show("large").summary.names == ("slim", "large")
    assert reg.show("wide").summary.names == ("wide",)
    assert reg.stats().models == 4
    assert reg.check() == ()


def test_the_last_name_can_move_and_the_model_stays(filled: Filled) -> None:
    reg = filled.reg
    moved = reg.ingest(filled.files / "slim.safetensors", name="dense", replace=True)
    nameless = next(model for model in reg.models() if model.name.startswith("sha256:"))
    assert reg.show(nameless.name).summary == nameless
    assert moved.notes == (f"its name was taken from {nameless.name}, which had no other name",)
    back = reg.ingest(filled.files / "dense.safetensors", name="mlp")
    assert back.message == "another name for a model without a name, which has the same weights"


def test_what_is_known_of_a_model(filled: Filled) -> None:
    model = filled.reg.show("wide").summary
    assert (model.family, model.dataset, model.parameters) == (
        "conv",
        "digits",
        sum(t.size for t in NETWORKS["wide"]().values()),
    )
    assert {(m.name, m.value) for m in model.metrics} == {("top1", 98.5), ("wide", 1.0)}
    filled.reg.ingest(filled.files / "wide.safetensors", task="digits", family="cnn")
    model = filled.reg.show("wide").summary
    assert (model.family, model.dataset, model.task) == ("cnn", "digits", "digits")
    with pytest.raises(UsageError, match="unknown field 'colour'") as refused:
        filled.reg.ingest(filled.files / "wide.safetensors", colour="red")
    assert "family" in (refused.value.remedy or "")


def test_a_device_that_is_not_at_hand(
    database_url: str, files: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_missing", lambda: "NVIDIA's driver is not installed")
    with Registry(database_url) as reg:
        refs = reg.plan([files])
        for ask in (
            lambda: reg.ingest_all(refs, device="cuda"),
            lambda: reg.ingest(files / "slim.safetensors", device="cuda"),
        ):
            with pytest.raises(RegistryError, match="no CUDA device is available") as missing:
                ask()
            assert missing.value.remedy
        assert measured == []
        assert reg.ingest(files / "slim.safetensors", device="auto").status == "added"


def test_what_a_device_computes_is_stored(registry_url: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def solver(device: str, precision: Precision) -> tuple[Solver, bool]:
        used.append(device)
        return devices.TorchSolver(precision, "cpu"), True

    with Registry(registry_url) as reg:
        reg.ingest(files / "slim.safetensors")
        before = reg.spectrum("slim"), reg.show("slim").conjugacy
        reg.remove("slim")
        monkeypatch.setattr(devices, "_missing", lambda: "")
        monkeypatch.setattr(eigenvalues, "solver_on", solver)
        [done] = reg.ingest_all(reg.plan([files / "slim.safetensors"]), device="auto")
        assert done.status == "added"
        assert used == ["cuda"]
        for one, other in zip(reg.spectrum("slim"), before[0], strict=True):
            np.testing.assert_allclose(one.values, other.values, rtol=1.2e-7, atol=1e-13)
        found = reg.show("slim").conjugacy
        assert found is not None
        assert before[1] is not None
        assert (found.tail_class, found.training_class) == (before[1].tail_class, before[1].training_class)


def test_approximate_layers_are_marked_and_found_anew(
    registry_url: str, files: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(eigenvalues, "LARGE", 40)
    with Registry(registry_url) as reg:
        [done] = reg.ingest_all(reg.plan([files / "wide.safetensors"]), approximate=True)
        assert done.status == "added"
        orders = [min(layer.p, layer.q) for layer in reg.show("wide").layers]
        assert min(orders) <= 40 < max(orders)
        marks = ["lanczos" if order > 40 else "" for order in orders]
        assert [layer.method for layer in reg.show("wide").layers] == marks
        spectra = reg.spectrum("wide")
        assert [spectrum.method for spectrum in spectra] == marks
        assert reg.models()[0].approximate == reg.search("wide").model.approximate == marks.count("lanczos")
        # Carried to another registry, with the spectra or without them.
        for kept in (True, False):
            file = tmp_path / f"{kept}.db"
            reg.export(file, spectra=kept)
            with Registry(tmp_path / f"other{kept}.db") as other:
                assert other.import_from(file).added == 1
                assert [layer.method for layer in other.show("wide").layers] == marks
                assert other.models()[0].approximate == marks.count("lanczos")
        assert reg.ingest(files / "wide.safetensors", approximate=True).message == "already stored; nothing added"
        assert measured == ["wide"]
        assert reg.ingest(files / "wide.safetensors").status == "known"
        assert measured == ["wide", "wide"]
        assert {layer.method for layer in reg.show("wide").layers} == {""}
        assert reg.models()[0].approximate == 0
        assert any((one.values != two.values).any() for one, two in zip(spectra, reg.spectrum("wide"), strict=True))
        # Exact ones do not become approximate ones.
        for approximate in (True, False):
            assert "nothing added" in reg.ingest(files / "wide.safetensors", approximate=approximate).message
        assert measured == ["wide", "wide"]


def test_live_modules(registry_url: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 8))
    torch.save({"state_dict": nn.DataParallel(module).state_dict()}, tmp_path / "saved.pt")
    with Registry(registry_url) as reg:
        assert reg.ingest(module, name="live", family="mlp").status == "added"
        assert reg.ingest(tmp_path / "saved.pt").message.startswith("another name for live")
        assert reg.show("saved").summary.family == "mlp"
        with pytest.raises(UsageError, match="takes one model"):
            reg.ingest([])  # type: ignore[arg-type]
        for nameless in (module, module.state_dict()):
            with pytest.raises(UsageError, match="needs a name") as refused:
                reg.ingest(nameless)
            assert refused.value.remedy
        with pytest.raises(WeightsError, match="tensor weight of a lazy module has no shape yet"):
            reg.ingest(nn.LazyLinear(4), name="lazy")


def test_weights_are_taken_as_the_forward_pass_uses_them(registry_url: str) -> None:
    """A mask of pruning beside them counts, whether it has been folded in or not."""
    import torch
    from torch import nn
    from torch.nn.utils import prune

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(40, 40)
        with Registry(registry_url) as reg:
            reg.ingest(layer, name="whole")
            prune.random_unstructured(layer, "weight", 0.9)
            reg.ingest(layer, name="masked")
            prune.remove(layer, "weight")
            reg.ingest(layer, name="folded")
            assert reg.compare("masked", "folded", fingerprint="mme").verdict.distance == 0
            assert reg.compare("masked", "whole", fingerprint="mme").verdict.distance > 0.1


def test_state_dicts_and_modules_are_asked_about_alike(asked: Filled) -> None:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 8))
    state = module.state_dict()
    reg = asked.reg
    assert [each.distance for each in reg.nearest(state)] == [each.distance for each in reg.nearest(module)]
    assert reg.compare(state, module).verdict.distance == 0
    assert reg.equivalent(dict(state), "wide") == reg.equivalent(module, "wide")
    assert reg.compress(state).candidates == reg.compress(module).candidates
    assert reg.select(like=state).classes == reg.select(like=module).classes
    assert reg.search(state).model.name == "state dict"
    for wrong, told in (
        ({"state_dict": state, "epoch": 3}, "holds no tensors, only: state_dict, epoch"),
        ({}, "is empty"),
    ):
        with pytest.raises(UsageError, match=f"the mapping {told}"):
            reg.nearest(wrong)


@pytest.mark.parametrize("source", ["broken", "missing"])
def test_a_failing_first_ingest_leaves_no_file(source: str, broken: Path, tmp_path: Path) -> None:
    database, wanted = tmp_path / "new.db", broken if source == "broken" else None
    with Registry(database) as reg:
        if wanted is None:
            with pytest.raises(NotFoundError):
                reg.ingest(tmp_path / "none.pt")
        else:
            with pytest.raises(WeightsError):
                reg.ingest(wanted)
            [result] = reg.ingest_all(reg.plan([wanted]))
            assert (result.status, bool(result.remedy)) == ("failed", True)
        with pytest.raises(DatabaseMissingError):
            reg.models()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors"]


def test_one_failure_among_several(registry_url: str, broken: Path, files: Path) -> None:
    with Registry(registry_url) as reg:
        results = reg.ingest_all(reg.plan([files / "slim.safetensors", broken, files / "dense.safetensors"]))
        assert [result.status for result in results] == ["added", "failed", "added"]
        assert results[1].name == "broken"
        assert "NaN" in results[1].message or "not finite" in results[1].message
        assert [model.name for model in reg.models()] == ["dense", "slim"]


class Interrupting(Silent):
    """Progress that is interrupted when the second model is in hand."""

    ended = False
    begun = 0

    def start(self, ref: ModelRef) -> None:  # noqa: ARG002
        self.begun += 1
        if self.begun == 2:
            raise KeyboardInterrupt

    def end(self) -> None:
        self.ended = True


def test_an_interrupted_run_keeps_what_it_stored_and_goes_on(
    registry_url: str, files: Path, measured: list[str]
) -> None:
    watch = Interrupting()
    with Registry(registry_url) as reg:
        refs = reg.plan([files])
        assert [ref.name for ref in refs] == ["dense", "slim", "twin", "wide"]
        with pytest.raises(KeyboardInterrupt):
            reg.ingest_all(refs, progress=watch)
        assert watch.ended
        assert [model.name for model in reg.models()] == ["dense"]
        assert reg.check() == ()
        assert [result.status for result in reg.ingest_all(refs)] == ["known", "added", "added", "added"]
    assert measured == ["dense", "slim", "twin", "wide"]


def test_a_database_that_refuses_ends_the_run_before_any_spectrum(
    tmp_path: Path, files: Path, measured: list[str]
) -> None:
    (tmp_path / "text.db").write_text("no database, but longer than the header of one: " * 9)
    with Registry(tmp_path / "text.db") as reg, pytest.raises(StorageError):
        reg.ingest_all(reg.plan([files]))
    assert measured == []


def test_plans_of_manifests(files: Path, tmp_path: Path) -> None:
    reg = Registry(tmp_path / "none.db")
    lines = [
        {"path": "wide.safetensors", "name": "big", "family": "conv", "seed": 5, "note": "a"},
        {"ref": "torchvision:resnet18.random", "seed": 3, "family": "mine"},
        {"ref": "torchvision:resnet18.random"},
    ]
    manifest = files / "plan.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    try:
        wide, seeded, plain = reg.plan(manifest=manifest, seed=1, card=ModelCard(task="demo", family="over"))
    finally:
        manifest.unlink()
    assert (wide.name, wide.target) == ("big", str(files / "wide.safetensors"))
    assert (wide.card.family, wide.card.task, wide.card.seed, wide.card.tags) == ("over", "demo", 5, (("note", "a"),))
    # What is recorded as the seed is what the weights are initialised with.
    assert (seeded.seed, seeded.card.seed) == (3, 3)
    assert (plain.seed, plain.card.seed) == (1, 1)
    assert not (tmp_path / "none.db").exists()


def test_a_manifests_path_is_a_path(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torchvision:resnet18").mkdir()
    odd = tmp_path / "torchvision:resnet18" / "a.safetensors"
    odd.write_bytes((files / "slim.safetensors").read_bytes())
    (tmp_path / "m.jsonl").write_text('{"path": "torchvision:resnet18"}')
    [ref] = Registry().plan(manifest="m.jsonl")
    assert ref.target == str(odd)


def test_plans_that_are_refused(files: Path, tmp_path: Path) -> None:
    reg = Registry(tmp_path / "none.db")
    with pytest.raises(UsageError, match="exactly one model, not 4"):
        reg.plan([files], name="x")
    with pytest.raises(UsageError, match="is 4 models") as several:
        reg.ingest(files)
    assert "ingest_all" in (several.value.remedy or "")
    with pytest.raises(UsageError, match="references must be a list"):
        reg.plan(str(files))
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": str(files), "name": "x"}))
    with pytest.raises(UsageError, match="is 4 models, but the manifest gives them one name") as one_name:
        reg.plan(manifest=tmp_path / "m.jsonl")
    assert one_name.value.remedy
    with pytest.raises(NotFoundError, match="no manifest"):
        reg.plan(manifest=tmp_path / "none.jsonl")


def vectors(url: str, spec_hash: str) -> tuple[list[int], bytes]:
    with Store.open(url, mode="read") as store:
        ids, found = store.read(read_fingerprints, spec_hash)
        return ids.tolist(), found.tobytes()


def forget(url: str, *hashes: str) -> None:
    with Store.open(url, mode="write") as store:
        for spec_hash in hashes:
            assert store.write(drop_spec, spec_hash) > 0


def test_refingerprinting_gives_the_same_bits(filled: Filled) -> None:
    before = {spec.hash: vectors(filled.url, spec.hash) for spec in SPECS.values()}
    assert filled.reg.refingerprint() == Recomputed(0, 0)
    filled.reg.close()
    forget(filled.url, LAYERED.hash, MME.hash, SHAPES.hash)
    assert filled.reg.stats().fingerprints == ()
    assert filled.reg.outdated() == 4
    told: list[tuple[int, int]] = []
    assert filled.reg.refingerprint(fingerprint="mme") == Recomputed(4, 0)
    assert filled.reg.refingerprint(progress=lambda done, total: told.append((done, total))) == Recomputed(8, 0)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {spec.hash: vectors(filled.url, spec.hash) for spec in SPECS.values()} == before


def outdated(url: str, name: str) -> None:
    """Give a model figures that are wrong, and of thresholds that no longer hold."""
    with Store.open(url, mode="write") as store:
        model = store.read(find_model, name)
        found = store.read(read_conjugacy, [model.id])[model.id]
        other = "long" if found.tail_class == "edge" else "edge"
        store.write(put_conjugacy, model.id, replace(found, z=99.0, tail_class=other), rule=CONJUGACY_RULE - 1)


def test_figures_of_older_thresholds_are_computed_anew(filled: Filled) -> None:
    before = {name: filled.reg.show(name) for name in NETWORKS}
    for name in ("slim", "twin", "wide"):
        outdated(filled.url, name)
    assert filled.reg.show("slim") != before["slim"]
    assert filled.reg.outdated() == 3
    # A fingerprint asked for alone is that alone.
    assert filled.reg.refingerprint(fingerprint="mme") == Recomputed(0, 0)

    def interrupt(done: int, total: int) -> None:
        if (done, total) == (1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled.reg.refingerprint(progress=interrupt)
    told: list[tuple[int, int]] = []
    assert filled.reg.refingerprint(progress=lambda done, total: told.append((done, total))) == Recomputed(0, 2)
    assert told == [(1, 2), (2, 2)]
    assert {name: filled.reg.show(name) for name in NETWORKS} == before
    assert filled.reg.refingerprint() == Recomputed(0, 0)
    assert filled.reg.outdated() == 0


def test_figures_without_spectra_need_the_weights(filled: Filled, measured: list[str]) -> None:
    before = filled.reg.show("dense").conjugacy
    filled.reg.remove("dense")
    filled.reg.ingest(filled.files / "dense.safetensors", keep_spectra=False)
    assert measured == ["dense"]
    for name in ("dense", "wide"):
        outdated(filled.url, name)
    with pytest.raises(SpecMismatchError, match="1 model has no stored spectra of this matrix rule: dense"):
        filled.reg.refingerprint()
    result = filled.reg.ingest(filled.files / "dense.safetensors", keep_spectra=False)
    assert result.message == "already stored; missing values added"
    assert measured == ["dense", "dense"]
    assert filled.reg.show("dense").conjugacy == before
    assert filled.reg.refingerprint() == Recomputed(0, 0)


def test_an_earlier_version_is_brought_to_this_one(filled: Filled) -> None:
    now = vectors(filled.url, LAYERED.hash)
    filled.reg.close()
    forget(filled.url, LAYERED.hash)
    old = replace(LAYERED, version=LAYERED.version - 1, length=5)
    with Store.open(filled.url, mode="write") as store:
        for model_id in now[0]:
            store.write(put_fingerprints, model_id, [Fingerprint(old, np.full(5, model_id, np.float32))])
    # Vectors of the earlier version never answer, and what brings them up is named.
    with pytest.raises(SpecMismatchError, match=f"{LAYERED.label} fingerprint") as missing:
        filled.reg.nearest("wide")
    assert "archreg refingerprint --fingerprint layered" in (missing.value.remedy or "")
    assert filled.reg.refingerprint(fingerprint="layered") == Recomputed(4, 0)
    assert vectors(filled.url, LAYERED.hash) == now
    assert filled.reg.nearest("wide")[0].model.name == "twin"
    assert filled.reg.show("wide").fingerprints == (old.label, LAYERED.label, "mme v1", "shapes v1")
    assert filled.reg.refingerprint() == Recomputed(0, 0)


def test_without_spectra_nothing_can_be_computed_anew(registry_url: str, files: Path, measured: list[str]) -> None:
    with Registry(registry_url) as reg:
        reg.ingest(files / "wide.safetensors")
        reg.ingest(files / "slim.safetensors", keep_spectra=False)
        assert (reg.show("wide").has_spectra, reg.show("slim").has_spectra) == (True, False)
        assert reg.nearest("slim")[0].model.name == "wide"
        with pytest.raises(SpecMismatchError, match="spectra of slim were not stored") as missing:
            reg.spectrum("slim")
        assert "--no-spectra" in (missing.value.remedy or "")
        assert reg.ingest(files / "slim.safetensors", keep_spectra=False).message == "already stored; nothing added"
        reg.close()
        forget(registry_url, MME.hash)
        with pytest.raises(SpecMismatchError, match="1 model has no stored spectra of this matrix rule: slim") as stuck:
            reg.refingerprint()
        assert stuck.value.remedy == "ingest their weights again, without --no-spectra"
        assert reg.show("wide").fingerprints == ("layered v3", "mme v1", "shapes v1")  # the rest was done

        # And that remedy works.
        result = reg.ingest(files / "slim.safetensors")
        assert (result.status, result.message) == ("known", "already stored; missing values added")
        assert reg.show("slim").has_spectra
        assert len(reg.spectrum("slim")) == 5
        assert reg.refingerprint() == Recomputed(0, 0)
    assert measured == ["wide", "slim", "slim"]


def test_stored_spectra_are_those_of_the_weights(filled: Filled) -> None:
    weights, spectra = NETWORKS["slim"](), filled.reg.spectrum("slim")
    assert [spectrum.layer.name for spectrum in spectra] == [f"layers.{at}.weight" for at in range(5)]
    for spectrum in spectra:
        W = weights[spectrum.layer.name].reshape(spectrum.layer.p, -1).astype(float)
        expected = np.sort(np.linalg.svd(W, compute_uv=False) ** 2)
        # float32 storage, and 1e-16 of the largest
        np.testing.assert_allclose(spectrum.values * spectrum.mean, expected, rtol=2e-7, atol=1e-12)


def test_figures_of_layers(filled: Filled) -> None:
    shown = filled.reg.show("wide")
    weights = NETWORKS["wide"]()
    assert [layer.position for layer in shown.layers] == list(range(5))
    for layer in shown.layers:
        squared = np.linalg.svd(weights[layer.name].reshape(layer.p, -1).astype(float), compute_uv=False) ** 2
        share = squared / squared.sum()
        assert layer.mean == pytest.approx(squared.mean())
        assert layer.largest == pytest.approx(squared.max() / squared.mean(), rel=1e-6)
        assert layer.stable_rank == pytest.approx(squared.sum() / squared.max(), rel=1e-6)
        assert layer.entropy == pytest.approx(-(share @ np.log(share)) / np.log(share.size), rel=1e-6)
    filled.reg.ingest(filled.files / "wide.safetensors")
    assert filled.reg.show("wide") == shown
    assert shown.tags == (("made", "wide"),)
    assert shown.fingerprints == ("layered v3", "mme v1", "shapes v1")
    assert shown.conjugacy is not None
    assert {tensor.name for tensor in shown.skipped} == {f"layers.{at}.bias" for at in range(5)}


def test_metrics_of_the_model_win(filled: Filled) -> None:
    model = filled.reg.set_metric("wide", Metric("top1", 99.0, "digits", "test"))
    assert {(m.name, m.value) for m in model.metrics} == {("top1", 99.0), ("wide", 1.0)}
