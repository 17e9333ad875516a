"""Models of TensorFlow.js, against what was written and against published files."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.types import ModelRef

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def entry(name: str, values: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(values.shape), "dtype": values.dtype.name} | more


def write(
    folder: Path,
    arrays: dict[str, np.ndarray],
    topology: Any = None,
    *,
    cuts: tuple[int, ...] = (),
    name: str = "model",
) -> Path:
    """A model with its weights in one file or, with ``cuts``, in several."""
    data = b"".join(values.tobytes() for values in arrays.values())
    ends = [0, *cuts, len(data)]
    paths = [f"group1-shard{place}of{len(ends) - 1}.bin" for place in range(1, len(ends))]
    for path, start, stop in zip(paths, ends, ends[1:], strict=False):
        (folder / path).write_bytes(data[start:stop])
    manifest = [{"paths": paths, "weights": [entry(key, values) for key, values in arrays.items()]}]
    content: Any = manifest if topology is None else {"modelTopology": topology, "weightsManifest": manifest}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def opened(path: Path) -> Checkpoint:
    return open_ref(expand(path)[0])


def layer(kind: str, name: str) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, "units": 3}}


def test_a_layers_model_over_several_files(tmp_path: Path) -> None:
    """Classes tell what names do not."""
    arrays = {
        "dense/kernel": array(5, 4), "up/kernel": array(2, 2, 3, 3), "thin/depthwise_kernel": array(3, 3, 4, 1),
        "conv2d/kernel": array(3, 3, 4, 6), "conv2d/bias": array(6), "dense_1/kernel": array(6, 2),
    }  # fmt: skip
    layers = [layer("Dense", "dense"), layer("Conv2DTranspose", "up"), layer("DepthwiseConv2D", "thin"),
              layer("Conv2D", "conv2d"), layer("Dense", "dense_1")]  # fmt: skip
    topology = {"model_config": {"class_name": "Model", "config": {"name": "m", "layers": layers}}}
    path = write(tmp_path, arrays, topology, cuts=(7, 130, 131, 500))
    with opened(path) as checkpoint:
        plan = plan_weights(checkpoint)
        assert {each.name for each in plan.layers} == {name for name, values in arrays.items() if values.ndim > 1}
        for name, turned in {
            "dense/kernel": arrays["dense/kernel"].T, "up/kernel": arrays["up/kernel"].transpose(2, 3, 0, 1),
            "thin/depthwise_kernel": arrays["thin/depthwise_kernel"].transpose(2, 3, 0, 1),
            "conv2d/kernel": arrays["conv2d/kernel"].transpose(3, 2, 0, 1), "conv2d/bias": arrays["conv2d/bias"],
        }.items():  # fmt: skip
            np.testing.assert_array_equal(checkpoint.read(name), turned)


def test_a_graph_model(tmp_path: Path) -> None:
    """Operations tell; texts in attributes are in base64."""
    arrays = {"m/a/MatMul/ReadVariableOp": array(6, 4), "m/a/axis": np.array(0, np.int32), "m/e": array(9, 4)}
    nodes = [
        *({"name": name, "op": "Const"} for name in arrays), {"name": "x", "op": "Placeholder"},
        {"name": "m/g", "op": "GatherV2", "input": ["m/e", "x", "m/a/axis"]},
        {"name": "m/a/MatMul", "op": "_FusedMatMul", "input": ["m/g", "m/a/MatMul/ReadVariableOp", "x"],
         "attr": {"transpose_b": {"b": True}, "fused_ops": {"list": {"s": ["Qmlhc0FkZA=="]}}}},
    ]  # fmt: skip
    with opened(write(tmp_path, arrays, {"node": nodes, "library": {}})) as checkpoint:
        assert {info.name for info in checkpoint.tensors} == {"m/a/kernel", "m/e"}
        np.testing.assert_array_equal(checkpoint.read("m/a/kernel"), arrays["m/a/MatMul/ReadVariableOp"])
        np.testing.assert_array_equal(checkpoint.read("m/e"), arrays["m/e"])


def test_a_function_of_a_graph_model(tmp_path: Path) -> None:
    kernel = array(6, 4)
    function = {
        "signature": {"name": "f", "inputArg": [{"name": "a"}, {"name": "w"}]},
        "nodeDef": [{"name": "y", "op": "MatMul", "input": ["a", "w"]}], "ret": {"out": "y:product:0"},
    }  # fmt: skip
    call = {"name": "c", "op": "PartitionedCall", "input": ["x", "w"], "attr": {"f": {"func": {"name": "f"}}}}
    nodes = [{"name": "w", "op": "Const"}, {"name": "x", "op": "Placeholder"}, call]
    with opened(write(tmp_path, {"w": kernel}, {"node": nodes, "library": {"function": [function]}})) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), kernel.T)


def test_a_manifest_alone(tmp_path: Path) -> None:
    arrays = {
        "conv0/filters": array(3, 3, 2, 4),
        "conv1/pointwise_filter": array(1, 1, 4, 5),
        "fc/weights": array(5, 6),
    }
    with opened(write(tmp_path, arrays, name="x-weights_manifest")) as checkpoint:
        plan = plan_weights(checkpoint)
        assert [each.shape for each in plan.layers] == [(4, 2, 3, 3), (5, 4, 1, 1), (6, 5)]


@pytest.mark.parametrize("code", ["uint8", "uint16"])
def test_codes_with_scale_and_minimum(tmp_path: Path, code: str) -> None:
    """Value = code scale + minimum, as in io_utils.ts; halves are halves."""
    codes = RANDOM.integers(0, 250, (4, 3)).astype(code)
    halves = array(3, 4).astype(np.float16)
    (tmp_path / "w.bin").write_bytes(codes.tobytes() + halves.tobytes())
    weights = [
        {"name": "a/kernel", "shape": [4, 3], "dtype": "float32",
         "quantization": {"dtype": code, "scale": 0.017, "min": -1.5}},
        {"name": "b/kernel", "shape": [3, 4], "dtype": "float32", "quantization": {"dtype": "float16"}},
    ]  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps([{"paths": ["w.bin"], "weights": weights}]))
    with opened(tmp_path / "m.json") as checkpoint:
        expected = (codes * 0.017 - 1.5).astype(np.float32)
        np.testing.assert_array_equal(checkpoint.read("a/kernel"), expected.T)
        np.testing.assert_array_equal(checkpoint.read("b/kernel"), halves.astype(np.float32).T)
        assert plan_weights(checkpoint).precision in (f"{code} tfjs, float16", f"float16, {code} tfjs")


def test_texts_and_complex_numbers_are_passed_over(tmp_path: Path) -> None:
    kernel = array(4, 3)
    texts = struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)
    (tmp_path / "w.bin").write_bytes(texts + bytes(16) + kernel.tobytes())
    weights = [{"name": "t", "shape": [2], "dtype": "string"}, {"name": "c", "shape": [2], "dtype": "complex64"},
               entry("k/kernel", kernel)]  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps([{"paths": ["w.bin"], "weights": weights}]))
    with opened(tmp_path / "m.json") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("k/kernel"), kernel.T)


@pytest.mark.parametrize("path", ["../w.bin", "/etc/passwd", "a/w.bin", "a\\w.bin", "..", "", "http://x/w.bin", "w\0"])
def test_files_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "m.json").write_text(json.dumps([{"paths": [path], "weights": []}]))
    with pytest.raises(UnsafeError, match="is not beside it"):
        opened(tmp_path / "m.json")


def test_a_link_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in", {"a/kernel": array(4, 3)})
    (tmp_path / "w").write_bytes(bytes(48))
    beside = tmp_path / "in" / "group1-shard1of1.bin"
    beside.unlink()
    beside.symlink_to(tmp_path / "w")
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        opened(path)


WEIGHT = {"name": "a/kernel", "shape": [4, 3], "dtype": "float32"}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([{"paths": ["gone.bin"], "weights": [WEIGHT]}], "gone.bin is not beside the model that needs it"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "shape": [10**6, 10**6]}]}], "claims a tensor of shape"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "shape": [-1, 3]}]}], "has the shape"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "shape": [10**30, 3]}]}], "has the shape"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "shape": "4"}]}], "without name or shape"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "dtype": "float8"}]}], "unknown type float8"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "dtype": {}}]}], "unknown type"),
        ([{"paths": ["w.bin"], "weights": [WEIGHT, WEIGHT]}], "two weights called a/kernel|claims a tensor"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "quantization": {"dtype": "int4"}}]}], "unknown type int4"),
        ([{"paths": ["w.bin"], "weights": [{**WEIGHT, "quantization": {"dtype": "uint8", "scale": "x"}}]}], "no scale"),
        ([{"paths": ["w.bin"], "weights": ["a"]}], "no object"),
        ([{"paths": "w.bin", "weights": []}], "without paths or weights"),
        ([{"paths": ["w.bin"] * 20_000, "weights": []}], "names 20000 files"),
        ([{"paths": ["w.bin"], "weights": [{"name": "t", "shape": [10**9], "dtype": "string"}]}], "1000000000 texts"),
        ([{"paths": ["w.bin"], "weights": [{"name": "t", "shape": [9], "dtype": "string"}]}], "ends early"),
    ],
)
def test_manifests_that_lie(tmp_path: Path, manifest: Any, words: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"\xff" * 48)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match=words) as caught:
        open_ref(ModelRef("tfjs", str(path), "m"))
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\x1b[2J", "a" * 5000])
def test_names_in_messages_are_printable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.json"
    (tmp_path / "w.bin").write_bytes(bytes(48))
    path.write_text(json.dumps([{"paths": ["w.bin"], "weights": [{**WEIGHT, "name": name, "dtype": name}]}]))
    with pytest.raises(WeightsError, match="is of the unknown type") as caught:
        open_ref(ModelRef("tfjs", str(path), "m"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", ["[" * 100_000, "{", '{"weightsManifest": 3}', '{"a": 1}', "\xff", "3"])
def test_what_is_no_manifest(tmp_path: Path, content: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(WeightsError, match=r"no valid JSON|no weightsManifest"):
        open_ref(ModelRef("tfjs", str(path), "m"))


def test_files_cut_at_ten_places_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"a/kernel": array(4, 3), "b/kernel": array(3, 3)})
    content, data = path.read_bytes(), (tmp_path / "group1-shard1of1.bin").read_bytes()
    for place in range(10):
        path.write_bytes(content[: len(content) * place // 10])
        with pytest.raises(SourceError):
            open_ref(ModelRef("tfjs", str(path), "m"))
    path.write_bytes(content)
    for place in range(10):
        (tmp_path / "group1-shard1of1.bin").write_bytes(data[: len(data) * place // 10])
        with pytest.raises(SourceError):
            open_ref(ModelRef("tfjs", str(path), "m"))


def test_published_models(originals: Path) -> None:
    """Numbers as in the manifest: matrices, values with a fraction, and codes apart."""
    lines = map(json.loads, (originals / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    seen = 0
    for line in lines:
        if not line["format"].startswith("tfjs") or line.get("part_of"):
            continue
        with opened(originals / line["file"]) as checkpoint:
            codes = sum(
                t.size
                for t in checkpoint.tensors
                if t.name in checkpoint.stored.precisions  # type: ignore[attr-defined]
            )
            matrices = [t for t in checkpoint.tensors if len(t.shape) > 1 and min(t.shape[0], t.size // t.shape[0]) > 1]
            assert len(matrices) == line["matrices"]
            assert codes == line.get("quantised_values", 0)
            assert sum(t.size for t in checkpoint.tensors) - codes == line["parameters"]
        seen += 1
    assert seen == 4
