"""Scans of folders: what is taken by its content, and what is left out, with the reason."""

from __future__ import annotations

import json
import pickle
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import WeightsError
from registry.sources import expand
from registry.types import Plan
from tests.sources.openvino_models import small_ir
from tests.sources.test_refused_formats import coreml_weights

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"a.weight": torch.eye(3), "b.weight": torch.ones(2, 3)}


def reasons(plan: object) -> dict[str, tuple[int, str]]:
    assert isinstance(plan, Plan)
    return {each.reason: (each.files, each.remedy) for each in plan.left_out}


def test_content_decides_whatever_the_suffix(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.model")
    torch.save(STATE, tmp_path / "b.pth.tar")
    torch.save(STATE, tmp_path / "c", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "d.npz", **{"w.weight": np.eye(3)})
    (tmp_path / "d.npz").rename(tmp_path / "d.weights")
    (tmp_path / "readme").write_text("nothing\n")
    plan = expand(tmp_path)
    assert [(ref.name, ref.source) for ref in plan] == [
        ("a", "safetensors"),
        ("b.pth", "torch"),
        ("c", "torch"),
        ("d", "npz"),
    ]
    assert reasons(plan) == {"no suffix": (1, "")}


def test_what_is_no_model_is_left_out_with_the_next_command(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    np.save(tmp_path / "data.npy", np.eye(3))
    (tmp_path / "vocabulary.pkl").write_bytes(pickle.dumps({"word": 1}))
    small_ir(tmp_path)
    coreml_weights(tmp_path)
    (tmp_path / "engine.plan").write_bytes(b"ptrt" + bytes(60))
    (tmp_path / "x.part").write_bytes(b"GGUF")
    plan = expand(tmp_path)
    assert [ref.name for ref in plan] == ["a", "net"]
    found = reasons(plan)
    assert found["a single NumPy array"] == (1, "give the file itself, to read it as a model of one layer")
    assert found["a pickle without arrays"] == (1, "")
    assert found["part of another file"] == (1, "")
    assert found["unfinished download"] == (1, "")
    assert ".mlpackage" in found["the weights of a CoreML package, without the model that they belong to"][1]
    assert "ONNX" in found["a TensorRT engine, which is compiled for one kind of GPU"][1]


def test_a_damaged_file_of_a_weights_suffix_is_not_left_out(tmp_path: Path) -> None:
    """It fails when it is opened: a model that is missing from a run is told."""
    save_file(STATE, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"garbage")
    (tmp_path / "c.onnx").write_bytes(b"")
    assert [ref.name for ref in expand(tmp_path)] == ["a", "b", "c"]


def test_a_refused_kind_says_what_converts_it(tmp_path: Path) -> None:
    (tmp_path / "engine").write_bytes(b"ptrt" + bytes(60))
    with pytest.raises(WeightsError, match="is a TensorRT engine") as caught:
        expand(tmp_path / "engine")
    assert "ONNX" in str(caught.value.remedy)


def test_data_beside_a_manifest_belong_to_it(tmp_path: Path) -> None:
    weights = [{"name": "a/kernel", "shape": [2, 3], "dtype": "float32"}]
    for folder, name, shard in (
        ("m", "model.json", "group1-shard1of1.bin"),
        ("f", "x-weights_manifest.json", "x-shard1"),
    ):
        (tmp_path / folder).mkdir()
        manifest = json.dumps([{"paths": [shard], "weights": weights}])
        (tmp_path / folder / name).write_text(manifest)
        (tmp_path / folder / shard).write_bytes(np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "m" / "other.bin").write_bytes(bytes(range(256)))
    plan = expand(tmp_path)
    assert [ref.source for ref in plan] == ["tfjs", "tfjs"]
    assert reasons(plan) == {"part of another file": (2, ""), "unknown suffix .bin": (1, "")}
    assert expand(tmp_path / "f" / "x-shard1")[0].target.endswith("x-weights_manifest.json")


def test_a_broken_download_of_a_bin_is_not_left_out(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert len(expand(tmp_path)) == 2
