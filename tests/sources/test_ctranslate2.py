"""CTranslate2: weights cut and dequantised, from files written by hand; and files that lie."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from tests.sources.ctranslate2_models import model_bin, small_ctranslate2
from tests.sources.onnx_models import opened, values
from tests.sources.quantised.make_reference import REFERENCE
from tests.sources.test_caffe_ncnn import refused

if TYPE_CHECKING:
    from pathlib import Path

LAYER = "decoder.layers.0"


def test_weights_are_cut_and_dequantised(tmp_path: Path) -> None:
    path = small_ctranslate2(tmp_path)
    assert expand(path)[0].source == "ctranslate2"
    found = opened(path)
    codes, scale = values(10, 6, dtype=np.int8).astype(np.float32), np.abs(values(10)) + 1
    fused = codes / scale[:, None]
    expected = {
        "decoder.embed_tokens.weight": values(9, 6),
        **{f"{LAYER}.self_attn.{part}_proj.{leaf}": array[low:high]
           for part, low, high in (("q", 0, 6), ("k", 6, 8), ("v", 8, 10))
           for leaf, array in (("weight", fused), ("bias", values(10)))},
        f"{LAYER}.self_attn.out_proj.weight": values(6, 6),
        f"{LAYER}.encoder_attn.q_proj.weight": values(6, 6, seed=1),
        f"{LAYER}.encoder_attn.k_proj.weight": values(12, 6)[:6],
        f"{LAYER}.encoder_attn.v_proj.weight": values(12, 6)[6:],
        f"{LAYER}.encoder_attn.out_proj.weight": values(6, 6, seed=2),
        f"{LAYER}.mlp.fc1.weight": values(8, 6, dtype=np.int16) / np.float32(64),
        f"{LAYER}.mlp.fc2.weight": values(6, 8), f"{LAYER}.ffn.layer_norm.weight": values(6),
        f"{LAYER}.self_attn.layer_norm.weight": values(6),
    }  # fmt: skip
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_what_is_tied_counts_once(tmp_path: Path) -> None:
    with open_ref(expand(small_ctranslate2(tmp_path))[0]) as checkpoint:
        plan = plan_weights(checkpoint)
        assert checkpoint.facts.aliases == {"lm_head.weight": "decoder.embed_tokens.weight"}
    assert plan.precision == "float32, int8 ctranslate2, int16 ctranslate2"
    assert [layer.name.removeprefix("decoder.").removesuffix(".weight") for layer in plan.layers] == [
        "embed_tokens", *(f"layers.0.self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        *(f"layers.0.encoder_attn.{part}_proj" for part in ("q", "k", "v", "out")), "layers.0.mlp.fc1",
        "layers.0.mlp.fc2",
    ]  # fmt: skip


def test_embeddings_of_encoder_and_decoder_come_first(tmp_path: Path) -> None:
    path = model_bin(
        tmp_path, {"decoder/embeddings/weight": values(9, 6), "encoder/layer_0/ffn/linear_0/weight": values(8, 6)},
        {"encoder/embeddings_0/weight": "decoder/embeddings/weight",
         "decoder/projection/weight": "decoder/embeddings/weight"},
    )  # fmt: skip
    with open_ref(expand(path)[0]) as checkpoint:
        names = [layer.name for layer in plan_weights(checkpoint).layers]
    assert names == ["shared.weight", "encoder.layers.0.mlp.fc1.weight"]


def test_a_gated_layer_has_its_gate_first(tmp_path: Path) -> None:
    path = model_bin(tmp_path, {f"decoder/layer_0/ffn/{name}/weight": values(8, 8, seed=seed) for seed, name in
                                enumerate(("linear_0", "linear_0_noact", "linear_1"))})  # fmt: skip
    with open_ref(expand(path)[0]) as checkpoint:
        names = [layer.name.split(".")[-2] for layer in plan_weights(checkpoint).layers]
        assert names == ["gate_proj", "up_proj", "down_proj"]
        np.testing.assert_array_equal(checkpoint.read(f"{LAYER}.mlp.up_proj.weight"), values(8, 8, seed=1))


@pytest.mark.parametrize(("version", "kind"), [("gemm", 1), ("gemv", 2)])
def test_packed_weights_of_awq(version: str, kind: int, tmp_path: Path) -> None:
    """q is a weight that AutoAWQ packed, k and v are its first and last outputs, as the converter stacks them."""
    with np.load(REFERENCE) as held:
        start = f"awq/{version}/32/"
        own = {name.removeprefix(start): held[name] for name in held.files if name.startswith(start)}
    weight = own.pop("weight")  # (32, 128)
    axis = 1 if version == "gemm" else 0
    behind = {"weight": np.full((32, 2) if axis else (16, 4), 0x01234567, np.int32),
              "weight_scale": np.ones((1, 16) if axis else (16, 32), np.float16),
              "weight_zero": np.zeros((1, 2) if axis else (16, 4), np.int32)}  # fmt: skip
    variables = {f"decoder/layer_0/self_attention/linear_1/{name}": array for name, array in behind.items()}
    for name, leaf in (("qweight", "weight"), ("scales", "weight_scale"), ("qzeros", "weight_zero")):
        array = own[name]
        few = array.shape[axis] // 4
        first, last = (array[:, :few], array[:, -few:]) if axis else (array[:few], array[-few:])
        variables[f"decoder/layer_0/self_attention/linear_0/{leaf}"] = np.concatenate([array, first, last], axis)
    path = model_bin(tmp_path, variables)
    settings = {"quantization_type": kind, "quantization_bits": 4, "quantization_group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with open_ref(expand(path)[0]) as checkpoint:
        for part, rows in (("q", slice(None)), ("k", slice(8)), ("v", slice(24, 32))):
            found = checkpoint.read(f"{LAYER}.self_attn.{part}_proj.weight")
            np.testing.assert_allclose(found, weight[rows].astype(np.float32), rtol=1e-3, atol=1e-4)
        plan = plan_weights(checkpoint)
    assert plan.precision == "int4 awq"
    assert [layer.shape for layer in plan.layers] == [(32, 128), (8, 128), (8, 128), (16, 32)]


# Bad input


@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_off_anywhere(tenth: int, tmp_path: Path) -> None:
    path = small_ctranslate2(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenth // 10])
    refused("ctranslate2", path, WeightsError, "model")


def changed(path: Path, at: int, new: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(new)] = new
    path.write_bytes(bytes(content))
    return path


def test_files_that_lie(tmp_path: Path) -> None:
    head = 4 + 2 + 16 + 4  # then the number of variables
    name = head + 4 + 2 + len("decoder/embeddings/weight") + 1  # then the rank of the first
    for at, new, error, words in (
        (0, struct.pack("<I", 3), WeightsError, "binary version 3"),
        (head, struct.pack("<I", 2**32 - 1), UnsafeError, "claims 4294967295 variables"),
        (head, struct.pack("<I", 99), SourceError, "model"),
        (head + 4, struct.pack("<H", 0), WeightsError, "a name of 0 bytes"),
        (head + 4, struct.pack("<H", 60_000), WeightsError, "a name of 60000 bytes"),
        (head + 6, b"\xff", WeightsError, "is no text"),
        (name, b"\xff", UnsafeError, "has 255 axes"),
        (name + 1, struct.pack("<I", 2**32 - 1), WeightsError, "claims a tensor"),
        (name + 1, struct.pack("<2I", 2**32 - 1, 2**32 - 1), WeightsError, "claims a tensor"),
        (name + 9, b"\x09", WeightsError, "an unknown type 9"),
        (name + 10, struct.pack("<I", 7), WeightsError, "has 7 bytes"),
    ):  # fmt: skip
        refused("ctranslate2", changed(small_ctranslate2(tmp_path), at, new), error, words)


def test_too_many_bytes(tmp_path: Path) -> None:
    path = small_ctranslate2(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(5))
    refused("ctranslate2", path, WeightsError, "5 bytes more")


@pytest.mark.parametrize(("variables", "aliases", "words"), [
    ({"a/weight": values(4, 4, dtype=np.int8)}, {}, "is int8 and has no scale"),
    ({"a/weight": values(4, 4, dtype=np.int8), "a/weight_scale": values(3)}, {}, "has a scale of shape"),
    ({"a/weight": values(4, 4)}, {"b/weight": "c/weight"}, "which it cannot"),
    ({"a": np.array(3, np.int32)}, {}, "holds no weights"),
    ({"d/self_attention/linear_0/weight": values(9, 4)}, {}, "does not hold q, k and v"),
    ({"d/self_attention/linear_0/weight": values(9, 4), "d/self_attention/linear_1/weight": values(4, 4)}, {},
     "does not hold q, k and v"),
    ({"d/attention/linear_1/weight": values(9, 4)}, {}, "does not hold k and v"),
])  # fmt: skip
def test_weights_that_do_not_fit(
    variables: dict[str, np.ndarray], aliases: dict[str, str], words: str, tmp_path: Path
) -> None:
    refused("ctranslate2", model_bin(tmp_path, variables, aliases), SourceError, words)
