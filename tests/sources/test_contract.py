"""What every source in the table promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import fsspec
import gguf
import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file

from registry.errors import NotFoundError
from registry.sources import SOURCES, expand, open_ref
from registry.testing import check_source
from registry.types import ModelRef
from tests.sources import (
    array_files,
    converted_files,
    coreml_files,
    ctranslate2_models,
    mnn_files,
    onnx_models,
    openvino_models,
    pickle_files,
    tensorflow_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {"b.weight": torch.arange(12.0).reshape(3, 4), "a.weight": torch.eye(3).half(), "n": torch.tensor(3)}


def write_safetensors(folder: Path) -> str:
    save_file(STATE, folder / "x.safetensors")
    return str(folder / "x.safetensors")


def write_npz(folder: Path) -> str:
    np.savez(folder / "x.npz", **{name: tensor.numpy() for name, tensor in STATE.items()})
    return str(folder / "x.npz")


def write_shards(folder: Path) -> str:
    """Two safetensors files and their index, the folder that they make a model of."""
    mapped = {name: f"model-{i:05}-of-00003.safetensors" for i, name in enumerate(STATE, 1)}
    for name, file in mapped.items():
        save_file({name: STATE[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    return str(folder)


def write_torch(folder: Path) -> str:
    torch.save(STATE, folder / "x.pt")
    return str(folder / "x.pt")


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def write_cache(folder: Path) -> str:
    """A repository as the hub's client leaves it in its cache: links from a commit's folder to the files."""
    commit = "0" * 40
    repository = folder / "hub" / "models--org--name"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (repository / part).mkdir(parents=True)
    save_file(STATE, repository / "blobs" / "abc")
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/abc")
    return "hf:org/name"


def write_gguf(folder: Path) -> str:
    writer = gguf.GGUFWriter(folder / "x.gguf", "llama")
    for name, tensor in STATE.items():
        writer.add_tensor(name, np.atleast_1d(tensor.numpy()))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    return str(folder / "x.gguf")


def write_tensorflow(kind: str) -> Callable[[Path], str]:
    """A checkpoint, a frozen graph, or a model of TensorFlow Lite or TensorFlow.js."""

    def write(folder: Path) -> str:
        arrays = {"a/kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4), "a/bias": np.ones(4, np.float32)}
        if kind == "tf_checkpoint":
            return str(tensorflow_files.write_checkpoint(folder / "x", arrays))
        if kind == "tfjs":
            (folder / "x.bin").write_bytes(arrays["a/kernel"].tobytes())
            weights = [{"name": "a/kernel", "shape": [3, 4], "dtype": "float32"}]
            (folder / "x.json").write_text(json.dumps([{"paths": ["x.bin"], "weights": weights}]))
            return str(folder / "x.json")
        suffix, content = (".pb", "one_product") if kind == "tf_graph" else (".tflite", "one_layer")
        (folder / f"x{suffix}").write_bytes(getattr(tensorflow_files, content)(arrays["a/kernel"]))
        return str(folder / f"x{suffix}")

    return write


def write_onnx(folder: Path) -> str:
    nodes = [onnx.helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["y"])]
    tensors = {"a.weight": onnx_models.values(4, 3, 3, 3), "a.bias": onnx_models.values(4)}
    return str(onnx_models.saved(folder, onnx_models.model_of(nodes, tensors)))


def write_caffe(folder: Path) -> str:
    return str(converted_files.caffe(folder, converted_files.small_caffe()))


def write_remote(folder: Path) -> str:
    """A file in fsspec's file system of this process."""
    address = f"/{folder.name}/x.safetensors"
    fsspec.filesystem("memory").pipe(address, save(STATE))
    return f"memory:/{address}"


def write_with_pickles(name: str) -> Callable[[Path], str]:
    """A file of a format that holds pickles, and what is beside it."""

    def write(folder: Path) -> str:
        files = pickle_files.contents()
        for each in (name, "__0_0.distcp") if name == ".metadata" else (name,):
            (folder / each).write_bytes(files[each])
        return str(folder / name)

    return write


EXAMPLES: dict[str, Callable[[Path], str]] = {
    "torchvision": lambda _: "torchvision:squeezenet1_1.random",
    "timm": lambda _: "timm:test_resnet.random",
    "hf": write_cache,
    "safetensors": write_safetensors,
    "torch": write_torch,
    "npz": write_npz,
    "gguf": write_gguf,
    "keras": lambda folder: written(folder / "x.keras", array_files.keras()),
    "mat": lambda folder: written(folder / "x.mat", array_files.mat_5()),
    "mxnet": lambda folder: written(folder / "x.params", array_files.mxnet()),
    "flax": lambda folder: written(
        folder / "x.msgpack", array_files.flax({"params": {"a": {"weight": np.eye(3, 4, dtype="f4")}}})
    ),
    "npy": lambda folder: written(folder / "x.npy", array_files.npy()),
    "orbax": lambda folder: str(array_files.orbax(folder, {"params/a/weight": np.eye(3, 4, dtype="f4")}) / "_METADATA"),
    "shards": write_shards,
    "onnx": write_onnx,
    "caffe": write_caffe,
    "mnn": lambda folder: written(folder / "x.mnn", mnn_files.small_mnn(quantised=False)),
    "coreml": lambda folder: written(folder / "x.mlmodel", coreml_files.small_program(quantised=False)),
    "ctranslate2": lambda folder: str(
        ctranslate2_models.model_bin(folder, {"decoder/embeddings/weight": np.arange(12, dtype="f4").reshape(3, 4)})
    ),
    "openvino": lambda folder: str(
        openvino_models.ir(
            folder,
            openvino_models.const(np.arange(12, dtype="f4").reshape(3, 4)),
            openvino_models.step("MatMul", 0, 1),
        )
    ),
    "darknet": lambda folder: str(converted_files.darknet(folder)),
    "ncnn": lambda folder: str(converted_files.ncnn(folder, ("InnerProduct 0=3 2=9", bytes(4) + bytes(range(36))))),
    **{kind: write_tensorflow(kind) for kind in ("tf_checkpoint", "tf_graph", "tflite", "tfjs")},
    "remote": write_remote,
    "pickle": write_with_pickles("arrays.joblib"),
    "torchscript": write_with_pickles("frozen.pt"),
    "torch_export": write_with_pickles("program.pt2"),
    "dcp": write_with_pickles(".metadata"),
    "sb3": write_with_pickles("agent.zip"),
    "nemo": write_with_pickles("x.nemo"),
}


def test_every_source_has_an_example() -> None:
    assert set(EXAMPLES) == set(SOURCES)


@pytest.mark.parametrize("name", sorted(SOURCES))
class TestSource:
    @pytest.fixture(autouse=True)
    def cache_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def ref(self, name: str, folder: Path) -> ModelRef:
        (ref,) = expand(EXAMPLES[name](folder))
        return ref

    def test_the_contract(self, name: str, tmp_path: Path) -> None:
        check_source(SOURCES[name], EXAMPLES[name](tmp_path))

    def test_entry(self, name: str) -> None:
        source = SOURCES[name]
        assert source.name == name
        assert not source.prefix or source.prefix == name  # by which it is looked up

    def test_reference(self, name: str, tmp_path: Path) -> None:
        ref = self.ref(name, tmp_path)
        assert (ref.source, ref.cached) == (name, name != "remote")
        assert ref.name

    def test_what_is_gone_is_not_found(self, name: str, tmp_path: Path) -> None:
        gone = {
            "torchvision": "gone.random", "timm": "gone.random", "hf": "gone/gone", "remote": "memory://gone/gone.pt",
        }.get(name, str(tmp_path / "gone.pt"))  # fmt: skip
        with pytest.raises(NotFoundError) as caught:
            open_ref(ModelRef(name, gone, "gone"))
        assert caught.value.remedy


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(NotFoundError, match=r"unknown source 'hub'.*torchvision"):
        open_ref(ModelRef("hub", "x", "x"))
