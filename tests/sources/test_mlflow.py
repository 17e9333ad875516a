"""Models in MLflow, with a real tracking store: what is read, and what is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.catalog import Registry
from registry.errors import AmbiguousError, NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import SOURCES, expand, open_ref
from registry.testing import check_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.types import ModelRef

SECRET = "NotToBeSeenAnywhere"  # noqa: S105 - nobody's
STATE = {"fc1.weight": torch.arange(512.0).reshape(16, 32) / 512, "fc2.weight": torch.eye(16) + 1}
PYTORCH = "flavors:\n  python_function:\n    data: data\n  pytorch:\n    model_data: data\n    pytorch_version: '2'\n"


class Store:
    """A tracking store in SQLite, and artifacts in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        self.folder = folder
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        self.experiment = mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        self.count = 0

    def run(self, files: Mapping[str, bytes] | None = None, place: str = "model", **said: Mapping[str, Any]) -> str:
        """A run with artifacts at ``place``, and its metrics, params and tags."""
        self.count += 1
        source = self.folder / f"source{self.count}"
        for name, data in (files or {}).items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        with self.mlflow.start_run(experiment_id=self.experiment) as run:
            self.mlflow.log_metrics(said.get("metrics", {}))
            self.mlflow.log_params(said.get("params", {}))
            self.mlflow.set_tags(said.get("tags", {}))
            if files:
                self.mlflow.log_artifacts(str(source), place or None)
        return str(run.info.run_id)

    def register(self, name: str, run: str, place: str = "model") -> None:
        client = self.mlflow.MlflowClient()
        try:
            client.get_registered_model(name)
        except self.mlflow.exceptions.MlflowException:
            client.create_registered_model(name)
        client.create_model_version(name, f"runs:/{run}/{place}", run, tags={"stage": "prod"})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Store(tmp_path_factory.mktemp("mlflow"))
        yield made
        made.mlflow.set_tracking_uri(None)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield tmp_path / "temporary"
    assert not list((tmp_path / "temporary").iterdir())  # nothing stays, whatever happened


def one(reference: str) -> ModelRef:
    (ref,) = expand(reference)
    return ref


def weights(folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(STATE, folder / "model.pth")
    return (folder / "model.pth").read_bytes()


@pytest.fixture
def logged(store: Store, tmp_path: Path) -> str:
    """The run of a model that is logged as MLflow's flavour of PyTorch does."""
    files = {"MLmodel": PYTORCH.encode(), "data/model.pth": weights(tmp_path), "conda.yaml": b"name: x\n"}
    files["data/pickle_module_info.txt"] = b"cloudpickle"
    return store.run(
        files,
        metrics={"val_accuracy": 0.91, "loss": 0.25, "test_f1": float("nan")},
        params={"lr": "0.1", "seed": "7", "api_key": SECRET, "data": f"https://me:{SECRET}@host/x"},
        tags={
            "team": "vision",
            "mlflow.source.git.commit": "abc",
            "mlflow.source.git.repoURL": f"https://{SECRET}@h/x",
        },
    )


def refused(reference: str, error: type[RegistryError], match: str) -> RegistryError:
    with pytest.raises(error, match=match) as caught:
        open_ref(one(reference))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert "temporary" not in str(caught.value)
    return caught.value


def test_it_comes_by_an_entry_point() -> None:
    assert "mlflow" in SOURCES.known()
    assert "mlflow" not in SOURCES
    found = {entry.name: entry.value for entry in entry_points(group="archreg.sources")}
    assert found["mlflow"] == "registry.plugins.mlflow_source:SOURCE"


def test_the_contract(store: Store, logged: str) -> None:
    source = SOURCES.find("mlflow")
    assert source is not None
    check_source(source, f"mlflow:runs/{logged}")


def test_a_run(store: Store, logged: str) -> None:
    ref = one(f"mlflow:runs/{logged}")
    assert (ref.name, ref.cached) == (f"mlflow/runs/{logged}", False)
    with open_ref(ref) as opened:
        for name, tensor in STATE.items():
            assert np.array_equal(opened.read(name), tensor.numpy())
        card = opened.ref.card
    assert [(m.name, m.value, m.split, m.source) for m in card.metrics] == [
        ("loss", 0.25, "", "mlflow"), ("accuracy", 0.91, "validation", "mlflow"),
    ]  # fmt: skip
    tags = dict(card.tags)
    assert tags | {"lr": "0.1", "team": "vision", "git_commit": "abc", "mlflow_run": logged} == tags
    assert tags["started"].startswith("20")
    assert (card.seed, card.revision, card.source) == (7, logged, f"mlflow:runs/{logged}")
    assert SECRET not in repr(card)


def test_a_registered_model(store: Store, logged: str) -> None:
    store.register("net", logged)
    store.mlflow.MlflowClient().set_registered_model_alias("net", "champion", "1")
    for reference in ("mlflow:net/1", "mlflow:net@champion", "mlflow:net/latest"):
        with open_ref(one(reference)) as opened:
            assert opened.read("fc1.weight").shape == (16, 32)
            assert dict(opened.ref.card.tags)["stage"] == "prod"
    refused("mlflow:net/7", NotFoundError, "has no model net version 7")
    refused("mlflow:net@other", NotFoundError, "has no model net alias other")
    refused("mlflow:none/1", NotFoundError, "has no model none version 1")
    refused("mlflow:none/latest", NotFoundError, "has no model none")
    refused(f"mlflow:runs/{'0' * 32}", NotFoundError, "has no run 000")


def test_ingest(store: Store, logged: str, tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/r.db")
    assert registry.ingest(f"mlflow:runs/{logged}", name="logged").status == "added"
    stored = registry.show("logged").summary
    assert stored.location == f"mlflow:runs/{logged}"
    assert SECRET.encode() not in (tmp_path / "r.db").read_bytes()
    assert str(store.folder).encode() not in (tmp_path / "r.db").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_itself_logs(store: Store) -> None:
    import mlflow.pytorch

    layer = torch.nn.Linear(8, 4)
    torch.nn.init.ones_(layer.weight)
    with store.mlflow.start_run(experiment_id=store.experiment) as run:
        mlflow.pytorch.log_state_dict(torch.nn.Sequential(layer).state_dict(), "state")
    with open_ref(one(f"mlflow:runs/{run.info.run_id}/state")) as opened:
        assert np.array_equal(opened.read("0.weight"), np.ones((4, 8), np.float32))
    with store.mlflow.start_run(experiment_id=store.experiment) as run:
        mlflow.pytorch.log_model(
            torch.nn.Sequential(layer), name="net", registered_model_name="real", serialization_format="pickle",
            pip_requirements=["torch"],
        )  # fmt: skip
    for reference in (f"mlflow:runs/{run.info.run_id}", "mlflow:real/1"):
        with open_ref(one(reference)) as opened:  # a pickled module
            assert np.array_equal(opened.read("0.weight"), np.ones((4, 8), np.float32))


@pytest.mark.parametrize("flavour", ["transformers", "onnx", "keras"])
def test_other_flavours(store: Store, tmp_path: Path, flavour: str) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    said = {"transformers": "model_binary: model", "onnx": "data: weights", "keras": "keras_version: '3'"}[flavour]
    place = {"transformers": "model", "onnx": "weights", "keras": "data"}[flavour]
    files = {"MLmodel": f"flavors:\n  {flavour}:\n    {said}\n".encode(), f"{place}/model.safetensors": data}
    run = store.run({**files, "components/tokenizer.json": b"{}", f"{place}/config.json": b'{"model_type": "tiny"}'})
    with open_ref(one(f"mlflow:runs/{run}")) as opened:
        assert np.array_equal(opened.read("fc2.weight"), STATE["fc2.weight"].numpy())
        assert opened.ref.card.family == "tiny"


def test_artifacts_without_a_model(store: Store, tmp_path: Path) -> None:
    run = store.run({"best.pth": weights(tmp_path), "notes.txt": b"x"}, place="")
    for reference in (f"mlflow:runs/{run}", f"mlflow:runs/{run}/best.pth"):
        with open_ref(one(reference)) as opened:
            assert opened.read("fc1.weight").shape == (16, 32)
    refused(f"mlflow:runs/{run}/gone.pth", NotFoundError, "has no artifact gone.pth")
    refused(f"mlflow:runs/{store.run({'notes.txt': b'x'})}", NotFoundError, "no logged model and no weights")
    two = store.run({f"{name}/MLmodel": PYTORCH.encode() for name in "ab"}, place="")
    refused(f"mlflow:runs/{two}", AmbiguousError, "has 2 models: a, b")


@pytest.mark.parametrize(
    ("described", "error", "match"),
    [
        (
            b"flavors:\n  sklearn:\n    pickled_model: model.pkl\n  python_function: {}\n",
            WeightsError,
            "of sklearn, whose",
        ),
        (b"flavors: [1]\n", WeightsError, "without flavors"),
        (b"", WeightsError, "without flavors"),
        (b"flavors: {a: ]\n", WeightsError, "not valid"),
        (b"\xff\xfe\x00", WeightsError, "not valid"),
        (b"flavors: " + b"[" * 5000, WeightsError, "not valid"),
        (b"a: &a [x]\nflavors: {pytorch: *a}\n", WeightsError, "not valid"),
        (b"flavors: !!python/object/apply:os.system ['touch ran']\n", WeightsError, "not valid"),
        (b"flavors:\n  pytorch:\n    model_data: ../../../etc\n", UnsafeError, "which is outside"),
        (b"flavors:\n  pytorch:\n    model_data: gone\n", WeightsError, "has no gone"),
        (b"#" * 300_000, UnsafeError, "more than 262144 bytes"),
    ],
)
def test_bad_descriptions(
    store: Store, tmp_path: Path, described: bytes, error: type[RegistryError], match: str
) -> None:
    run = store.run({"MLmodel": described, "data/model.pth": weights(tmp_path), "model.pkl": b"x"})
    told = refused(f"mlflow:runs/{run}", error, match)
    assert "pytorch" in (told.remedy or "") or "sklearn" not in match


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran",))


def test_nothing_is_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = {"python_model.pkl": pickle.dumps(Runs()), "loader.py": b"open('ran', 'w')"}
    files = {"MLmodel": PYTORCH.encode(), "data/model.pth": pickle.dumps({"a": Runs()}), **code}
    with pytest.raises(SourceError):
        open_ref(one(f"mlflow:runs/{store.run(files)}"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["", "net", "net/", "net/x", "runs/", "runs/../x", "runs/a/../b", "a/b/c", "net/1\n", "@x"]
)
def test_no_references(text: str) -> None:
    with pytest.raises(NotFoundError, match="names no model of MLflow") as caught:
        expand(f"mlflow:{text}")
    assert "mlflow:MODEL/VERSION" in (caught.value.remedy or "")


def test_without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SourceError, match="need MLflow") as caught:
        expand("mlflow:net/1")
    assert caught.value.remedy == "pip install 'architecture-registry[mlflow]'"


def test_no_server(tmp_path: Path) -> None:
    """A server that is not named, and one that is not there, whose address has a password."""
    code = "from registry.cli.app import main; main()"
    command = [sys.executable, "-c", code, "ingest", "mlflow:net/1", "--db", f"sqlite:///{tmp_path}/r.db"]
    rest = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    rest |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / "empty").mkdir()
    for added, words in (
        ({}, "set MLFLOW_TRACKING_URI"),
        (
            {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
            "could not be",
        ),
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=rest | added, cwd=tmp_path / "empty", timeout=300
        )
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert not list((tmp_path / "empty").iterdir())
