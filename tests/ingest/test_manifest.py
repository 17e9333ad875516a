from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry import Registry
from registry.errors import NotFoundError, UsageError
from registry.ingest import ManifestEntry, read_manifest
from registry.sources import open_ref
from registry.types import Metric, ModelCard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def jsonl(folder: Path, *lines: Any) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def one(folder: Path, **fields: Any) -> ManifestEntry:
    [entry] = read_manifest(jsonl(folder, {"path": "a.pt"} | fields))
    return entry


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_manifest(path)
    assert "\n" not in caught.value.message
    return caught.value


FULL = {
    "path": "nets/resnet20.pt",
    "name": "resnet20",
    "family": "resnet",
    "architecture": "resnet20",
    "task": "classification",
    "dataset": "cifar10",
    "license": "MIT",
    "source": "github",
    "training": "200 epochs",
    "seed": 3,
    "gflops": 0.04,
    "metrics": [{"name": "top1", "dataset": "cifar10", "split": "test", "value": 91.7, "higher_is_better": True}],
    "params": 1, "sha": "x", "topology": "y", "matrices": 20,
    "stage": "production", "owners": ["anna", "ben"], "empty": "", "nothing": None, "zero": 0,
}  # fmt: skip
CARD = ModelCard(
    family="resnet", architecture="resnet20", task="classification", dataset="cifar10", licence="MIT", source="github",
    training="200 epochs", seed=3, gflops=0.04, metrics=(Metric("top1", 91.7, "cifar10", "test", True),),
    tags=(("stage", "production"), ("owners", '["anna", "ben"]'), ("zero", "0")),
)  # fmt: skip


def test_a_whole_record(folder: Path) -> None:
    [entry] = read_manifest(jsonl(folder, FULL))
    assert entry == ManifestEntry(folder / "nets/resnet20.pt", "resnet20", CARD)


def test_the_same_as_csv(folder: Path) -> None:
    path = folder / "Manifest.CSV"
    path.write_text(
        "path,name,family,architecture,task,dataset,license,source,training,seed,gflops,metrics,params,stage,owners,zero\n"
        'nets/resnet20.pt,resnet20,resnet,resnet20,classification,cifar10,MIT,github,200 epochs,3,0.04,"'
        + json.dumps(FULL["metrics"]).replace('"', '""')
        + '",1,production,"[""anna"", ""ben""]",0\n\n'
        "other.pt\n"
    )
    first, second = read_manifest(path)
    assert first == ManifestEntry(folder / "nets/resnet20.pt", "resnet20", CARD)
    assert second == ManifestEntry(folder / "other.pt", "", ModelCard())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_blank_lines_and_newlines(folder: Path, mark: str, newline: str) -> None:
    lines = ["", '{"path": "a.pt", "owner": "Änne"}', "   ", '{"path": "b.pt"}', ""]
    path = folder / "manifest.jsonl"
    path.write_bytes((mark + newline.join(lines)).encode())
    first, second = read_manifest(str(path))
    assert (first.reference, first.card.tags, second.reference) == (
        folder / "a.pt",
        (("owner", "Änne"),),
        folder / "b.pt",
    )
    table = folder / "manifest.csv"
    table.write_bytes((mark + newline.join(["path,owner", "a.pt,Änne", "", "b.pt,", ""])).encode())
    assert read_manifest(table) == (first, second)


def test_paths_and_references(folder: Path) -> None:
    entries = read_manifest(
        jsonl(folder, {"path": "torchvision:x.pt"}, {"path": "/models/a.pt"}, {"reference": "torchvision:resnet18"})
    )
    # A path is one whatever it looks like, also from the working folder, where the manifest's own adds nothing to it.
    assert [entry.reference for entry in entries] == [
        folder / "torchvision:x.pt",
        Path("/models/a.pt"),
        "torchvision:resnet18",
    ]
    assert all(isinstance(entry.reference, Path) for entry in entries[:2])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 3: not valid JSON"),
        ("[" * 100_000, "line 3: not valid JSON"),
        ('{"path": "x.pt", "seed": ' + "1" * 5000 + "}", "line 3: not valid JSON"),
        ("[1]", "line 3: not a JSON object"),
        ('{"name": "x"}', 'line 3: give one of "path" and "ref"'),
        ('{"path": "", "name": "x"}', 'line 3: give one of "path" and "ref"'),
        ('{"path": "x.pt", "ref": "torchvision:resnet18"}', 'line 3: give one of "path" and "ref"'),
        ('{"path": "x.pt", "name": "first"}', "line 3: the name 'first' is also on line 1"),
        ('{"path": "x.pt", "metrics": "{"}', 'line 3: "metrics" is not a JSON list'),
        ('{"path": "x.pt", "metrics": {"top1": 91}}', 'line 3: "metrics" is not a list of records'),
        ('{"path": "x.pt", "metrics": [91]}', 'line 3: "metrics" is not a list of records'),
        ('{"path": "x.pt", "metrics": 91}', 'line 3: "metrics" is not a list of records'),
        ('{"path": "x.pt", "metrics": [{"name": "top1"}]}', "line 3: a metric needs a name and a value"),
        ('{"path": "x.pt", "metrics": [{"value": 1}]}', "line 3: a metric needs a name and a value"),
        ('{"path": "x.pt", "metrics": [{"name": "a", "value": "much"}]}', "is not a number: 'much'"),
        ('{"path": "x.pt", "metrics": [{"name": "a", "value": NaN}]}', "line 3: a metric's value is not finite"),
        (
            '{"path": "x.pt", "metrics": [{"name": "a", "value": 1, "higher_is_better": "no"}]}',
            "neither true nor false",
        ),
        ('{"path": "x.pt", "gflops": Infinity}', "line 3: gflops is not finite"),
        ('{"path": "x.pt", "gflops": "fast"}', "line 3: gflops is not a number: 'fast'"),
        ('{"path": "x.pt", "gflops": -1}', "line 3: gflops is negative: -1"),
        ('{"path": "x.pt", "gflops": [1]}', "line 3: gflops is not a number"),
        ('{"path": "x.pt", "gflops": 1' + "0" * 400 + "}", "line 3: gflops is too large"),
        ('{"path": "x.pt", "seed": 1.5}', "line 3: seed is not an integer: 1.5"),
        ('{"path": "x.pt", "seed": 9223372036854775808}', "line 3: seed does not fit in 64 bits"),
    ],
)
def test_bad_lines_are_named(folder: Path, line: str, words: str) -> None:
    error = refused(jsonl(folder, {"path": "a.pt", "name": "first"}, "", line))
    assert words in error.message
    assert str(folder / "manifest.jsonl") in error.message
    if any(word in line for word in ("metrics", "gflops", "seed")):
        assert error.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path\na.pt\nb.pt,more\n", "line 3: more fields than the header has"),
        ("name\nx\n", 'line 2: give one of "path" and "ref"'),
        ("path,seed\na.pt,three\n", "line 2: seed is not a number: 'three'"),
        ("path,note\na.pt," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("path,metrics\na.pt,top1=91\n", 'line 2: "metrics" is not a JSON list'),
    ],
)
def test_bad_rows_are_named(folder: Path, text: str, words: str) -> None:
    (folder / "m.csv").write_text(text)
    assert words in refused(folder / "m.csv").message


def test_what_is_no_manifest(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="no manifest at") as missing:
        read_manifest(folder / "none.jsonl")
    assert missing.value.remedy
    with pytest.raises(NotFoundError):
        read_manifest(folder)
    assert refused(jsonl(folder, "", " ")).remedy
    (folder / "m.csv").write_text("path,name\n")
    assert "holds no models" in refused(folder / "m.csv").message
    (folder / "latin.jsonl").write_bytes('{"path": "Ä.pt"}'.encode("latin-1"))
    assert "is not UTF-8 text" in refused(folder / "latin.jsonl").message


def test_models_without_names_may_be_many(folder: Path) -> None:
    assert len(read_manifest(jsonl(folder, {"path": "a.pt"}, {"path": "b.pt", "name": ""}, {"path": "c.pt"}))) == 3


@pytest.mark.parametrize(
    ("given", "seed"), [(7, 7), ("7", 7), (7.0, 7), ("7.0", 7), (-1, -1), (2**53 + 1, 2**53 + 1), (None, None)]
)
def test_seeds(folder: Path, given: object, seed: int | None) -> None:
    assert one(folder, seed=given).card.seed == seed


def test_figures_as_text(folder: Path) -> None:
    card = one(folder, gflops="4.1", metrics='[{"name": "top1", "value": "91.7", "higher_is_better": false}]').card
    assert card.gflops == 4.1
    assert card.metrics == (Metric("top1", 91.7, higher_is_better=False),)


def test_paths_may_be_of_any_kind_and_are_relative_to_the_manifest(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"a.weight": torch.eye(3) * 2}
    for name in ("runs/a/best.pt", "runs/b/best.pt", "net.ckpt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / name)
    np.savez(folder / "arrays.npz", **{"a.weight": np.eye(3)})
    (folder / "shards").mkdir()
    shard = "model-00001-of-00001.safetensors"
    save_file(state, folder / "shards" / shard)
    index = folder / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": shard}}))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    paths = ["runs/*/best.pt", "net.ckpt", "arrays.npz", "shards", str(index.relative_to(folder))]
    lines = [{"path": path, "family": f"f{number}"} for number, path in enumerate(paths)]
    refs = Registry().plan(manifest=jsonl(folder, *lines))
    assert [(ref.name, ref.source, ref.card.family) for ref in refs] == [
        ("a/best", "torch", "f0"), ("b/best", "torch", "f0"), ("net", "torch", "f1"), ("arrays", "npz", "f2"),
        ("shards", "shards", "f3"), ("shards", "shards", "f4"),
    ]  # fmt: skip
    for ref in refs:
        with open_ref(ref) as checkpoint:
            assert [info.name for info in checkpoint.tensors] == ["a.weight"]


def test_a_line_that_names_nothing_is_one_failed_item(folder: Path, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.eye(3) * 2}, folder / "good.pt")
    lines = [{"path": "good.pt"}, {"path": "gone.pt", "name": "g"}, {"ref": "torchvision:resnt18"}, {"path": "x.txt"}]
    with Registry(tmp_path / "x.db") as reg:
        done = reg.ingest_all(reg.plan(manifest=jsonl(folder, *lines)))
        assert [(one.name, one.status) for one in done] == [
            ("good", "added"), ("g", "failed"), ("torchvision:resnt18", "failed"), (str(folder / "x.txt"), "failed"),
        ]  # fmt: skip
        assert f"no file or folder {folder / 'gone.pt'}" in done[1].message
        assert "did you mean torchvision:resnet18" in done[2].remedy
        assert [model.name for model in reg.models()] == ["good"]


def test_what_has_come_since_is_read(folder: Path) -> None:
    [ref] = Registry().plan(manifest=jsonl(folder, {"path": "late.pt", "name": "l", "family": "f"}))
    torch.save({"a.weight": torch.eye(3) * 2}, folder / "late.pt")
    with open_ref(ref) as checkpoint:
        assert (checkpoint.ref.source, checkpoint.ref.name, checkpoint.ref.card.family) == ("torch", "l", "f")
