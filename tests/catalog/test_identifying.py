"""What a file is: architecture, hashes, training without spectra, relations to several registries, faults."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

import registry.shipped
from registry import Among, Registry
from registry.errors import DatabaseMissingError, NotFoundError, SourceError, UsageError, WeightsError
from registry.shipped import checksum_file, checksum_of
from tests.catalog.small_catalogue import network, ship, tuned
from tests.sources.webserver import serving_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.types import Identification


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogue that ships, replaced by a small one; no registry is named, and the folder holds none."""
    folder = ship(tmp_path / "shipped")
    monkeypatch.setattr(registry.shipped, "FOLDER", folder)
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def reg() -> Iterator[Registry]:
    with Registry() as opened:
        yield opened


def saved(path: Path, tensors: dict[str, Any]) -> Path:
    save_file(tensors, path)
    return path


def one(reg: Registry, path: Any, **known: Any) -> Identification:
    found = reg.identify(path, **known)
    assert (found.failed, found.damaged) == ((), ())
    [file] = found.files
    return file


def labels(file: Identification) -> list[str]:
    assert file.architecture is not None
    return [each.architecture.label for each in file.architecture.matches]


def test_an_initialisation_of_an_architecture(reg: Registry, tmp_path: Path) -> None:
    file = one(reg, saved(tmp_path / "net.safetensors", network(classes=7)))
    assert file.architecture is not None
    best = file.architecture.matches[0]
    assert (file.architecture.verdict, labels(file)) == ("exact", ["torchvision/convnet", "timm/convnet_t"])
    assert (best.classes, best.strict, sorted(best.head)) == (7, True, ["head.bias", "head.weight"])
    assert best.architecture.line(best.classes) == "torchvision.models.convnet(num_classes=7)"
    assert file.training is not None
    assert (file.training.training_class, file.findings) == ("untrained", ())
    assert (file.tensors, file.layers, file.precision, file.weights_read) == (11, 5, "float32", True)
    assert [(each.label, each.stored) for each in file.registries] == [("published:", None)]
    assert file.registries[0].models > 100
    assert {"rank", "untrained"}.isdisjoint(file.rules)
    assert any("archreg audit" in each for each in file.not_known)
    assert not (tmp_path / "archreg.db").exists()


def test_the_best_of_equals_is_the_one_whose_names_agree(reg: Registry, tmp_path: Path) -> None:
    file = one(reg, saved(tmp_path / "net.safetensors", network(2)))
    assert labels(file)[0] == "timm/convnet_t"


def test_a_trained_network_is_told_without_spectra(
    reg: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry.spectral import eigenvalues, training_by_traces

    def fail(*_given: Any, **_known: Any) -> None:
        raise AssertionError("spectra were computed")

    for module, name in (
        (eigenvalues, "spectra"),
        (eigenvalues, "layer_spectrum"),
        (training_by_traces, "network_spectra"),
        (training_by_traces, "layer_spectrum"),
    ):
        monkeypatch.setattr(module, name, fail)
    path = saved(tmp_path / "net.safetensors", network(trained=True))
    file = one(reg, path)
    assert file.training is not None
    assert file.training.training_class == "trained"
    assert file.training.z is not None
    assert file.training.z > 3.3


def test_near_and_unknown_networks(reg: Registry, tmp_path: Path) -> None:
    changed = network() | {"extra.weight": np.ones((9, 5), np.float32)}
    near = one(reg, saved(tmp_path / "near.safetensors", changed))
    assert near.architecture is not None
    assert near.architecture.verdict == "near"
    assert [each.name for each in near.architecture.matches[0].differences] == ["extra.weight"]
    assert any("torchvision 0.29.0, timm 1.0.22" in each for each in near.not_known)
    rng = np.random.default_rng(1)
    strange = {f"{at}.weight": rng.standard_normal((37, 53 + at)).astype(np.float32) for at in range(3)}
    unknown = one(reg, saved(tmp_path / "unknown.safetensors", strange))
    assert unknown.architecture is not None
    assert unknown.architecture.verdict == "unknown"


def test_a_state_dict_that_was_wrapped(reg: Registry, tmp_path: Path) -> None:
    wrapped = {f"module.{name}": W for name, W in network().items()}
    file = one(reg, saved(tmp_path / "wrapped.safetensors", wrapped))
    assert file.architecture is not None
    assert (file.wrapper, file.architecture.matches[0].prefix, file.architecture.matches[0].strict) == (
        "module.",
        "",
        True,
    )
    within = {f"net.{name}": W for name, W in network().items()}
    file = one(reg, saved(tmp_path / "within.safetensors", within))
    assert file.architecture is not None
    assert (file.wrapper, file.architecture.matches[0].prefix) == ("", "net.")


def test_without_its_head(reg: Registry, tmp_path: Path) -> None:
    bare = network(without=("head.weight", "head.bias"))
    file = one(reg, saved(tmp_path / "bare.safetensors", bare))
    assert file.architecture is not None
    assert (file.architecture.verdict, file.architecture.headless) == ("exact", True)
    assert not file.architecture.matches[0].strict


@pytest.mark.parametrize("known", ["whole", "start", "another"])
def test_the_published_file_is_known_by_its_hash(reg: Registry, tmp_path: Path, shipped: Path, known: str) -> None:
    path = saved(tmp_path / "net.safetensors", network())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sha256 = {"whole": digest, "start": digest[:10], "another": "0" * 64}[known]
    ship(shipped, sha256, path.stat().st_size)
    file = one(reg, path)
    assert file.file_sha256 == digest
    assert [each.reference for each in file.published] == [] if known == "another" else ["torchvision:convnet.V1"]
    ship(shipped, digest, 10**9)
    assert one(reg, path).file_sha256 == ""  # of another size, and not hashed


def test_relations_to_an_own_registry_and_the_published_one(registry_url: str, tmp_path: Path) -> None:
    start = network(trained=True)
    saved(tmp_path / "base.safetensors", start)
    with Registry(registry_url) as reg:
        reg.ingest(tmp_path / "base.safetensors", name="base")
        file = one(reg, saved(tmp_path / "tuned.safetensors", tuned(start)))
        published, own = file.registries
        assert (published.label, published.related and published.related.found) == ("published:", 0)
        assert (own.models, own.stored) == (1, None)
        assert own.related is not None
        [kin] = own.related.relatives
        assert (kin.model.name, kin.relation.verdict) == ("base", "related")
        assert kin.relation.correlation is not None
        assert kin.relation.correlation > 0.5
        same = one(reg, tmp_path / "base.safetensors").registries[1]
        assert same.stored is not None
        assert (same.stored.name, len(reg)) == ("base", 1)


def test_those_that_are_named_are_asked_and_no_others(registry_url: str, tmp_path: Path) -> None:
    start = network(trained=True)
    with Registry(registry_url) as reg:
        reg.ingest(saved(tmp_path / "base.safetensors", start), name="base")
        label = one(reg, tmp_path / "base.safetensors").registries[-1].label
    path = saved(tmp_path / "tuned.safetensors", tuned(start))
    with Among(registry_url) as alone:
        [file] = alone.identify(path).files
        assert file.architecture is None
        assert [each.label for each in file.registries] == [label]
        assert any("catalogue: was not asked" in each for each in file.not_known)
    with Among("published:", "catalogue:", registry_url) as every:
        found = every.identify(path)
        assert (found.failed, found.damaged) == ((), ())
        assert labels(found.files[0])[0] == "torchvision/convnet"
        published, own = found.files[0].registries
        assert (published.label, own.label) == ("published:", label)
        assert own.related is not None
        assert own.related.found == 1
    with Among("catalogue:") as catalogue:
        assert catalogue.identify(path).files[0].registries == ()
    with Among("nowhere.db") as missing, pytest.raises(DatabaseMissingError):
        missing.identify(path)


def test_published_models_are_known_by_their_content(reg: Registry, zoo: Path) -> None:
    file = one(reg, zoo / "fsrcnn" / "FSRCNN-small_x2.safetensors")
    assert file.registries[0].stored is not None
    assert file.registries[0].stored.name == "fsrcnn/FSRCNN-small_x2"


def test_an_own_registry_is_asked_where_one_is_named_or_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", network(trained=True))
    with Registry("nowhere.db") as reg, pytest.raises(DatabaseMissingError):
        reg.identify(path)
    (tmp_path / "archreg.db").write_bytes(b"no database at all")
    with Registry() as reg:
        published, own = one(reg, path).registries
    assert (published.problem, own.models) == ("", 0)
    assert own.problem
    with Registry("published:") as reg:
        assert [each.label for each in one(reg, path).registries] == ["published:"]
    with Registry("catalogue:") as reg:
        assert [each.label for each in one(reg, path).registries] == ["published:"]


def test_what_ships_is_damaged(reg: Registry, tmp_path: Path, shipped: Path) -> None:
    path = saved(tmp_path / "net.safetensors", network(trained=True))
    held = (shipped / "catalogue.db").read_bytes()
    (shipped / "catalogue.db").write_bytes(held[: len(held) // 2])
    (shipped / "published.db").unlink()
    found = reg.identify(path)
    [file] = found.files
    assert file.architecture is None
    assert file.registries == ()
    assert file.training is not None
    assert file.training.training_class == "trained"
    assert len(found.damaged) == 2
    assert all("install the package again" in each for each in found.damaged)
    (shipped / "catalogue.db").unlink()
    assert any("catalogue" in each for each in reg.identify(path).damaged)
    path = shipped / "catalogue.db"  # whose checksum is right, and which is none
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    checksum_file(path).write_text(checksum_of(path))
    assert any("missing or damaged" in each for each in reg.identify(tmp_path / "net.safetensors").damaged)


def test_values_that_are_not_finite_are_a_finding(reg: Registry, tmp_path: Path) -> None:
    tensors = network(trained=True)
    tensors["stem.weight"][0, 0] = np.nan
    file = one(reg, saved(tmp_path / "net.safetensors", tensors))
    assert labels(file)[0] == "torchvision/convnet"
    assert [(each.rule, each.severity) for each in file.findings] == [("nonfinite", "error")]


def test_weights_of_zeros_are_a_finding(reg: Registry, tmp_path: Path) -> None:
    zeros = {name: np.zeros_like(W) for name, W in network().items()}
    file = one(reg, saved(tmp_path / "net.safetensors", zeros))
    assert labels(file)[0] == "torchvision/convnet"
    assert [(each.rule, each.severity, each.message) for each in file.findings] == [
        ("rows", "error", "the weights of all layers are zero")
    ]
    assert (file.rules, file.training, file.content_hash, file.registries) == (("rows",), None, "", ())
    assert file.layers == 5
    assert any("training and relations" in each for each in file.not_known)


def test_headers_alone_tell_the_architecture(reg: Registry, tmp_path: Path) -> None:
    file = one(reg, saved(tmp_path / "net.safetensors", network(trained=True)), headers_only=True)
    assert labels(file)[0] == "torchvision/convnet"
    assert (file.training, file.registries, file.findings, file.content_hash) == (None, (), (), "")
    assert not file.weights_read
    assert any("weights not read" in each for each in file.not_known)


def test_quantised_weights_are_recognised_by_their_shapes_dequantised(reg: Registry, tmp_path: Path) -> None:
    tensors = network(trained=True)
    codes = np.clip(np.round(tensors["wide.weight"] / 0.002), -127, 127)
    del tensors["wide.weight"]
    tensors |= {
        "wide.weight": codes.astype(np.int8),
        "wide.SCB": np.full(len(codes), 0.002 * 127, np.float32),
    }
    file = one(reg, saved(tmp_path / "net.safetensors", tensors))
    assert file.architecture is not None
    assert (file.architecture.verdict, file.dequantised) == ("exact", True)
    assert "int8" in file.precision


def test_an_adapter_alone_says_its_base(reg: Registry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    factors = {"A": (8, 64), "B": (64, 8)}
    tensors = {
        f"base_model.model.layers.{at}.q_proj.lora_{what}.weight": rng.standard_normal(shape).astype(np.float32)
        for at in range(2)
        for what, shape in factors.items()
    }
    folder = tmp_path / "lora"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "org/base", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    saved(folder / "adapter_model.safetensors", tensors)
    file = one(reg, folder)
    assert file.adapter is not None
    assert (file.adapter.kind, file.adapter.base, file.adapter.rank) == ("LoRA", "org/base", 8)
    assert file.adapter.modules == ("q_proj",)
    (folder / "adapter_config.json").unlink()
    bare = one(reg, folder / "adapter_model.safetensors").adapter
    assert bare is not None
    assert (bare.base, bare.rank, bare.modules) == ("", 8, ("q_proj",))


def test_a_folder_of_several_models(reg: Registry, tmp_path: Path) -> None:
    for at, part in enumerate(("text_encoder", "unet", "vae")):
        (tmp_path / "pipeline" / part).mkdir(parents=True)
        saved(tmp_path / "pipeline" / part / "model.safetensors", network(1 + at))
    found = reg.identify(tmp_path / "pipeline")
    assert [labels(file)[0] for file in found.files] == [
        "torchvision/convnet",
        "timm/convnet_t",
        "torchvision/convnet_deep",
    ]
    (tmp_path / "pipeline" / "vae" / "model.safetensors").write_bytes(b"")
    found = reg.identify([tmp_path / "pipeline" / "unet", tmp_path / "pipeline" / "vae"])
    assert (len(found.files), len(found.failed)) == (1, 1)


def test_files_are_named_as_the_reference_is(reg: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    saved(tmp_path / "runs" / "a.safetensors", network())
    (tmp_path / "runs" / "b.pth").write_bytes(b"")
    for reference in (".", "runs", "runs/*"):
        found = reg.identify(reference)
        assert [file.asked for file in found.files] == ["runs/a.safetensors"]
        [failed] = found.failed
        assert failed.asked == "runs/b.pth"
        assert "runs/b.pth" in failed.error
        assert str(tmp_path) not in failed.error
    found = reg.identify(tmp_path / "runs")
    assert [file.asked for file in found.files] == [str(tmp_path / "runs" / "a.safetensors")]
    [failed] = reg.identify(["runs/a.safetensors", "runs/b.pth"]).failed
    assert failed.error.startswith("runs/b.pth")


def test_each_of_two_models_in_one_file(reg: Registry, tmp_path: Path) -> None:
    import torch

    states = {
        key: {name: torch.from_numpy(np.asarray(W)) for name, W in network(layout).items()}
        for key, layout in (("G", 1), ("D", 3))
    }
    path = tmp_path / "gan.pt"
    torch.save(states, path)
    found = reg.identify(path)
    assert found.failed == ()
    assert [(file.asked, file.entry, labels(file)[0]) for file in found.files] == [
        (f"{path} --key G", "G", "torchvision/convnet"),
        (f"{path} --key D", "D", "torchvision/convnet_deep"),
    ]
    assert one(reg, path, key="D").entry == "D"
    torch.save({"a": {"G": states["G"], "D": states["D"]}, "b": states["G"]}, path)
    assert {file.entry for file in reg.identify(path).files} >= {"b"}
    with pytest.raises(NotFoundError):
        reg.identify(path, key="nothing")


def test_a_header_at_an_address(reg: Registry) -> None:
    whole = save(network(trained=True) | {"last": np.zeros(2**20, np.float32)})
    with serving_files() as web:
        web.files["/net.safetensors"] = whole
        file = one(reg, f"{web.url}/net.safetensors", headers_only=True)
    assert file.architecture is not None
    assert (file.architecture.verdict, labels(file)[0]) == ("near", "torchvision/convnet")
    assert not file.weights_read
    assert web.sent < len(whole) / 4


def test_a_network_without_matrices_is_identified_by_its_shapes(reg: Registry, tmp_path: Path) -> None:
    vectors = {f"{at}.bias": np.zeros(5 + at, np.float32) for at in range(3)}
    file = one(reg, saved(tmp_path / "net.safetensors", vectors))
    assert (file.layers, file.training, file.registries) == (None, None, ())
    assert file.not_known[0].startswith("weights: ")


def test_what_cannot_be_read_is_refused(reg: Registry, tmp_path: Path) -> None:
    whole = saved(tmp_path / "net.safetensors", network()).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("no weights at all\n")
    save_file({}, tmp_path / "nothing.safetensors")
    for name in ("cut.safetensors", "empty.pt", "text.pt", "nothing.safetensors"):
        with pytest.raises(WeightsError) as error:
            reg.identify(tmp_path / name)
        assert error.value.remedy, name
    with pytest.raises(NotFoundError):
        reg.identify(tmp_path / "missing.pt")
    with pytest.raises(SourceError):
        reg.identify("nosuch:model")
    with pytest.raises(UsageError):
        reg.identify([])
    with pytest.raises(UsageError, match="K"):
        reg.identify(tmp_path / "net.safetensors", K=3)


def test_a_module_in_memory(reg: Registry) -> None:
    import torch

    state = {name: torch.from_numpy(np.asarray(W)) for name, W in network(trained=True).items()}
    file = one(reg, state)
    assert labels(file)[0] == "torchvision/convnet"
    with pytest.raises(UsageError):
        reg.identify(state, headers_only=True)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    """The catalogue that ships may be missing here: then it is damaged, and says so."""
    import torch

    saved(tmp_path / "net.safetensors", network())
    torch.save({name: torch.from_numpy(np.asarray(W)) for name, W in network().items()}, tmp_path / "net.pth")
    for name in ("net.safetensors", "net.pth"):
        asked = f"import sys; from registry import Registry; Registry().identify({name!r}); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
        assert {"torch", "scipy", "alembic", "pandas", "matplotlib"}.isdisjoint(done.stdout.split())
