"""TensorFlow Lite models, against what was written and against published files and their twins."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from registry.types import ModelRef
from tests.layouts.measured import distances, read
from tests.sources import tensorflow_files as files

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

RANDOM = np.random.default_rng(0)
CONV, DEPTHWISE, DENSE, TRANSPOSE_CONV, MATMUL, LSTM, GATHER, ADD, MUL = 3, 4, 9, 67, 126, 44, 36, 0, 18
DEQUANTIZE, TRANSPOSE, WHILE = 6, 39, 119


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def opened(path: Path, content: bytes) -> Checkpoint:
    (path / "m.tflite").write_bytes(content)
    return open_ref(expand(path / "m.tflite")[0])


def read_all(path: Path, content: bytes) -> dict[str, np.ndarray]:
    with opened(path, content) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}


def one(path: Path, code: int, kernel: np.ndarray, port: int = 1, options: Any = None, **more: Any) -> np.ndarray:
    """The weight of a model of one operator, whose input ``port`` it is."""
    kind = more.pop("kind", kernel.dtype.name)
    extents = more.pop("extents", kernel.shape)
    tensors = [files.lite_tensor("x", (1, 4), 0), files.lite_tensor("w", extents, 1, kind, **more)]
    inputs = [0] * port + [1]
    content = files.lite([code], [kernel.tobytes()], tensors, [files.operator(0, inputs, [0], options)], [0])
    [found] = read_all(path, content).values()
    return found


FOUR = array(6, 3, 2, 4)
TWO = array(6, 4)


@pytest.mark.parametrize(
    ("code", "kernel", "port", "expected"),
    [
        (CONV, FOUR, 1, FOUR.transpose(0, 3, 1, 2)),
        (TRANSPOSE_CONV, FOUR, 1, FOUR.transpose(0, 3, 1, 2)),
        (DEPTHWISE, FOUR[:1], 1, FOUR[:1].transpose(3, 0, 1, 2)),
        (DENSE, TWO, 1, TWO),
        (MATMUL, TWO, 1, TWO.T),
        (MATMUL, TWO, 0, TWO),
        (GATHER, TWO, 0, TWO),
        (132, array(2, 3, 2, 4, 6), 1, None),
    ],
)
def test_layouts_of_operators(
    tmp_path: Path, code: int, kernel: np.ndarray, port: int, expected: np.ndarray | None
) -> None:
    expected = kernel.transpose(4, 3, 0, 1, 2) if expected is None else expected
    np.testing.assert_array_equal(one(tmp_path, code, kernel, port), expected)


def test_a_product_with_the_transpose(tmp_path: Path) -> None:
    np.testing.assert_array_equal(one(tmp_path, MATMUL, TWO, 1, {0: ("b", 0), 1: ("b", 1)}), TWO)
    np.testing.assert_array_equal(one(tmp_path, MATMUL, TWO, 0, {0: ("b", 1), 1: ("b", 0)}), TWO.T)


@pytest.mark.parametrize(("kind", "zero"), [("int8", 0), ("int8", -7), ("uint8", 128), ("int16", 0)])
def test_codes_of_one_scale(tmp_path: Path, kind: str, zero: int) -> None:
    info = np.iinfo(kind)
    codes = RANDOM.integers(info.min, info.max, (6, 4), endpoint=True).astype(kind)
    given = one(tmp_path, DENSE, codes, quantisation=files.quantised([0.25], [zero]))
    np.testing.assert_array_equal(given, (codes.astype(np.int64) - zero) * np.float32(0.25))


@pytest.mark.parametrize(("code", "axis"), [(CONV, 0), (DEPTHWISE, 3)])
def test_codes_of_a_scale_for_each_output(tmp_path: Path, code: int, axis: int) -> None:
    codes = RANDOM.integers(-128, 127, (1, 3, 2, 5) if axis else (5, 3, 2, 4)).astype(np.int8)
    scale = np.linspace(0.1, 0.5, 5, dtype=np.float32)
    given = one(tmp_path, code, codes, quantisation=files.quantised(list(scale), [0] * 5, axis))
    shaped = codes.astype(np.float32) * (scale if axis else scale[:, None, None, None])
    np.testing.assert_array_equal(given, shaped.transpose(3, 0, 1, 2) if axis else shaped.transpose(0, 3, 1, 2))


def test_codes_of_four_bits(tmp_path: Path) -> None:
    """Two in a byte, the low half first; an odd number of them."""
    codes = RANDOM.integers(-8, 7, (5, 3))
    flat = np.append(codes.ravel() & 15, 0).astype(np.uint8)
    packed = flat[::2] | flat[1::2] << 4
    more = {"kind": "int4", "extents": (5, 3), "quantisation": files.quantised([0.5], [0])}
    np.testing.assert_array_equal(one(tmp_path, DENSE, packed, **more), codes * np.float32(0.5))


def test_the_precision_is_told(tmp_path: Path) -> None:
    with opened(tmp_path, files.small_lite()) as checkpoint:
        plan = plan_weights(checkpoint)
        assert plan.precision == "float32, int8 tflite"
        assert [layer.name for layer in plan.layers] == ["m/a/kernel", "m/b/kernel", "m/c/kernel"]
        assert plan.layers[2].shape == (6, 5)  # turned by an operator
        assert all(np.isfinite(layer_matrix(checkpoint, layer)).all() for layer in plan.layers)


def test_halves_that_an_operator_widens(tmp_path: Path) -> None:
    kernel = array(6, 4, dtype="float16")
    tensors = [
        files.lite_tensor("x", (1, 4), 0), files.lite_tensor("m/d/MatMul", (6, 4), 1, "float16"),
        files.lite_tensor("wide", (6, 4), 0), files.lite_tensor("y", (1, 6), 0),
    ]  # fmt: skip
    operators = [files.operator(0, [1], [2]), files.operator(1, [0, 2, -1], [3])]
    found = read_all(tmp_path, files.lite([DEQUANTIZE, DENSE], [kernel.tobytes()], tensors, operators))
    np.testing.assert_array_equal(found["m/d/kernel"], kernel.astype(np.float32))


def lstm(path: Path, kind: str = "float32") -> Checkpoint:
    """An LSTM with a kernel for each gate, and biases; its names tell nothing."""
    tensors, buffers = [files.lite_tensor("x", (1, 5, 7), 0)], []
    for port in range(1, 16):
        extents = (4, 7) if port < 5 else (4, 4) if port < 9 else (4,)
        if 9 <= port < 12:
            tensors.append(files.lite_tensor(f"t{port}", (0,), 0))
            continue
        buffers.append(np.full(extents, port, kind).tobytes())
        tensors.append(files.lite_tensor(f"t{port}", extents, len(buffers)))
    inputs = [*range(9), -1, -1, -1, *range(12, 16)]
    return opened(path, files.lite([LSTM], buffers, tensors, [files.operator(0, inputs, [0])]))


def test_gates_are_those_of_torch_in_torchs_order(tmp_path: Path) -> None:
    with lstm(tmp_path) as checkpoint:
        plan = plan_weights(checkpoint)
        assert [(layer.kind, layer_matrix(checkpoint, layer)[0, 0]) for layer in plan.layers] == [
            ("recurrent", port) for port in range(1, 9)
        ]
        assert [layer.name.split("/")[1] for layer in plan.layers] == ["ii", "if", "ig", "io", "hi", "hf", "hg", "ho"]


def test_zeros_of_the_converter_and_tables_are_no_weights(tmp_path: Path) -> None:
    """A bias of zeros is added to layers that have none; anchors are added to the output; a scale was learnt."""
    tensors = [
        files.lite_tensor("x", (1, 4), 0), files.lite_tensor("m/d/MatMul", (6, 4), 1),
        files.lite_tensor("zero", (6,), 2),
        files.lite_tensor("y", (1, 6), 0), files.lite_tensor("anchors", (2, 6), 3), files.lite_tensor("z", (2, 6), 0),
        files.lite_tensor("m/n/mul", (1, 6), 4), files.lite_tensor("one", (1,), 5),
    ]  # fmt: skip
    operators = [
        files.operator(0, [0, 1, 2], [3]), files.operator(1, [3, 4], [5]), files.operator(2, [5, 6], [5]),
        files.operator(2, [7, 5], [5]),
    ]  # fmt: skip
    buffers = [TWO.tobytes(), bytes(24), array(2, 6).tobytes(), array(6).tobytes(), array(1).tobytes()]
    found = read_all(tmp_path, files.lite([DENSE, ADD, MUL], buffers, tensors, operators))
    assert set(found) == {"m/d/kernel", "m/n/scale"}


@pytest.mark.parametrize(
    ("code", "name", "shape", "expected"),
    [
        (CONV, "m/conv1d_2/Conv1D", (6, 1, 3, 4), (6, 4, 3)),
        (TRANSPOSE_CONV, "m/conv1d_transpose/conv1d_transpose", (6, 1, 3, 4), (6, 4, 3)),
        (DEPTHWISE, "m/separable_conv1d/separable_conv2d/depthwise", (1, 1, 3, 4), (4, 1, 3)),
        (CONV, "m/conv2d/Conv2D", (6, 1, 3, 4), (6, 4, 1, 3)),
    ],
)
def test_a_kernel_of_one_axis_keeps_it(
    tmp_path: Path, code: int, name: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """TensorFlow runs it as one of two axes, the first of which is 1."""
    tensors = [files.lite_tensor("x", (1, 4), 0), files.lite_tensor("w", shape, 1), files.lite_tensor(name, (1, 4), 0)]
    content = files.lite([code], [array(*shape).tobytes()], tensors, [files.operator(0, [0, 1], [2])], [0])
    [found] = read_all(tmp_path, content).values()
    assert found.shape == expected


def test_names_are_those_of_the_operator_and_not_of_what_was_merged(tmp_path: Path) -> None:
    """As the converter joins them: what was folded, and others of which a constant was the same."""
    names = [
        ("m/bn_1/FusedBatchNormV3;m/depthwise_conv2d/depthwise;m/conv2d_4/Conv2D", DEPTHWISE, "depthwise_conv2d"),
        ("StatefulPartitionedCall/m/conv2d/Conv2D1", CONV, "conv2d"),
        ("m/conv1d/convolution_1", CONV, "conv1d"),
    ]
    kernels = {DEPTHWISE: FOUR[:1], CONV: array(5, 1, 3, 4)}
    tensors, buffers, operators = [files.lite_tensor("x", (1, 4), 0)], [], []
    for name, code, _ in names:
        buffers.append((kernels[code] + len(buffers)).tobytes())
        tensors.append(files.lite_tensor(name, kernels[code].shape, len(buffers)))
        operators.append(files.operator([CONV, DEPTHWISE].index(code), [0, len(buffers), -1], [0]))
    with opened(tmp_path, files.lite([CONV, DEPTHWISE], buffers, tensors, operators)) as checkpoint:
        plan = plan_weights(checkpoint)
        shapes = {layer.name.split("/")[1]: layer.shape for layer in plan.layers}
        assert shapes == {"depthwise_conv2d": (4, 1, 3, 2), "conv2d": (5, 4, 1, 3), "conv1d": (5, 4, 3)}


def test_the_body_of_a_loop_comes_where_the_loop_is(tmp_path: Path) -> None:
    """A weight that the loop is given belongs to the operator within."""
    first, inner, last = (array(4, 4) for _ in range(3))
    main = {
        0: [files.lite_tensor("x", (1, 4), 0), *(files.lite_tensor(f"t{n}", (4, 4), n + 1) for n in range(3))],
        1: files.i32(0),
        3: [files.operator(0, [0, 1, -1], [0]), files.operator(1, [0, 2], [0], {0: ("i", 1), 1: ("i", 2)}),
            files.operator(0, [0, 3, -1], [0])],
    }  # fmt: skip
    inside = {0: [files.lite_tensor("a", (1, 4), 0), files.lite_tensor("b", (4, 4), 0)], 1: files.i32(0, 1)}
    body = inside | {3: [files.operator(0, [0, 1, -1], [0])]}
    buffers = [matrix.tobytes() for matrix in (first, inner, last)]
    content = files.lite_of([DENSE, WHILE], buffers, [main, inside | {3: []}, body])
    with opened(tmp_path, content) as checkpoint:
        found = [layer_matrix(checkpoint, layer) for layer in plan_weights(checkpoint).layers]
    np.testing.assert_array_equal(found, [first, inner, last])


def test_buffers_beyond_the_table(tmp_path: Path) -> None:
    """Models of more than 2 GB have their constants behind the FlatBuffer, named by place and size."""
    tensors = [files.lite_tensor("x", (1, 4), 0), files.lite_tensor("w", (6, 4), 1)]

    def content(start: int) -> bytes:
        flat = files.Flat()
        model = flat.table({
            0: ("I", 3), 1: [{0: ("b", DENSE), 3: ("i", DENSE)}],
            2: [{0: tensors, 1: files.i32(0), 3: [files.operator(0, [0, 1, -1], [0])]}],
            4: [{}, {1: ("Q", start), 2: ("Q", TWO.nbytes)}],
        })  # fmt: skip
        struct.pack_into("<I", flat.data, 0, model)
        return bytes(flat.data)

    size = len(content(1000))
    [given] = read_all(tmp_path, content(size) + TWO.tobytes()).values()
    np.testing.assert_array_equal(given, TWO)
    with pytest.raises(WeightsError, match="a buffer of 96 bytes at byte"):
        opened(tmp_path, content(size + 1) + TWO.tobytes())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fields": {6: {}}}, "is sparse, which is not read"),
        ({"extents": (10**6, 10**6)}, "96 bytes for the shape"),
        ({"extents": (-1, 4)}, "has the shape"),
        ({"kind": "int8", "extents": (24, 4), "quantisation": files.quantised([0.5, 0.5], [0, 0])}, "2 scales for"),
        (
            {"kind": "int8", "extents": (24, 4), "quantisation": files.quantised([1.0], [0]) | {4: ("B", 2)}},
            "unknown way",
        ),
    ],
)
def test_tensors_that_lie(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        one(tmp_path, DENSE, TWO, **more)


def test_lists_that_lie(tmp_path: Path) -> None:
    content, refused = bytearray(files.small_lite()), 0
    for place in range(8, len(content) - 4, 4):
        damaged = bytearray(content)
        struct.pack_into("<I", damaged, place, 2**31 - 1)
        try:
            with opened(tmp_path, bytes(damaged)) as checkpoint:
                plan_weights(checkpoint)
        except SourceError:
            refused += 1
    assert refused > 20


def test_weights_of_operators_that_are_not_known_are_not_left_out(tmp_path: Path) -> None:
    """A twentieth of all is; more is refused, and so are weights in another file."""
    tensors = [files.lite_tensor("x", (1, 4), 0), files.lite_tensor("w", (6, 4), 1), files.lite_tensor("v", (6, 4), 2)]
    operators = [files.operator(0, [0, 1], [0]), files.operator(1, [0, 2], [0])]
    with pytest.raises(WeightsError, match="in operators that are not read: 171 of BuiltinOperator"):
        opened(tmp_path, files.lite([DENSE, 171], [TWO.tobytes()] * 2, tensors, operators))
    wide = [*tensors[:1], files.lite_tensor("w", (60, 40), 1), files.lite_tensor("v", (6, 4), 2)]
    data = [bytes(60 * 40 * 4 - 4) + np.float32(1).tobytes(), TWO.tobytes()]
    with opened(tmp_path, files.lite([DENSE, 171], data, wide, operators)) as checkpoint:
        assert checkpoint.facts.notes == ("weights used by operators 171 of BuiltinOperator are left out",)
    with pytest.raises(WeightsError, match="has its weights in another file"):
        one(tmp_path, DENSE, TWO, fields={10: ("I", 1)})
    with pytest.raises(WeightsError, match="is of type 19, which is not read"):
        one(tmp_path, DENSE, TWO, fields={1: ("b", 19)})


def test_batch_norm_that_was_folded_is_told(tmp_path: Path) -> None:
    for name, told in (("m/a/Relu;m/batch_normalization/FusedBatchNormV3;m/a/Conv2D", True), ("m/a/Relu", False)):
        tensors = [files.lite_tensor("m/a/Conv2D", FOUR.shape, 1), files.lite_tensor(name, (1, 4), 0)]
        with opened(tmp_path, files.lite([CONV], [FOUR.tobytes()], tensors, [files.operator(0, [1, 0], [1])])) as found:
            assert any("folded batch norm" in note for note in plan_weights(found).notes) == told


def test_models_without_weights_or_tables(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has no weights"):
        opened(tmp_path, files.lite([DENSE], [], [], []))
    with pytest.raises(WeightsError, match="is damaged"):
        opened(tmp_path, b"\xff\xff\xff\xffTFL3")
    many = [files.lite_tensor("x" * 70_000, (1, 4), 0)]
    with pytest.raises(UnsafeError, match="a name of 70000 bytes"):
        opened(tmp_path, files.lite([DENSE], [], many, []))


def test_files_cut_at_ten_places_are_refused(tmp_path: Path) -> None:
    content = files.small_lite()
    path = tmp_path / "m.tflite"
    for place in range(10):
        path.write_bytes(content[: len(content) * place // 10])
        with pytest.raises(SourceError), open_ref(ModelRef("tflite", str(path), "m")) as checkpoint:
            plan_weights(checkpoint)


def manifest(originals: Path) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (originals / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["file"]: line for line in lines if line["format"] == "tflite"}


def test_published_models(originals: Path) -> None:
    """Numbers as in the manifest: matrices, values with a fraction, and codes apart."""
    seen = 0
    for name, line in manifest(originals).items():
        with open_ref(expand(originals / name)[0]) as checkpoint:
            precisions = checkpoint.stored.precisions  # type: ignore[attr-defined]
            matrices = [t for t in checkpoint.tensors if len(t.shape) > 1 and min(t.shape[0], t.size // t.shape[0]) > 1]
            codes = {t.name: t.size for t in checkpoint.tensors if precisions.get(t.name) == "int8 tflite"}
            biases = sum(t.size for t in checkpoint.tensors if precisions.get(t.name) == "int32 tflite")
            assert len(matrices) == line["matrices"]
            assert sum(codes.values()) == line.get("quantised_values", 0)
            assert sum(t.size for t in checkpoint.tensors) - sum(codes.values()) - biases == line["parameters"]
        seen += 1
    assert seen == 14


def folded(weights: dict[str, np.ndarray], path: Path, epsilon: float) -> Path:
    """A torch model with batch norm in the convolution before it."""
    made = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            continue
        module, _, last = name.removesuffix(".weight").rpartition(".")
        norm = f"{module}.bn" if last == "conv" else f"{module}.{int(last) + 1}" if last.isdecimal() else ""
        if f"{norm}.running_var" in weights:
            scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + epsilon)
            weight = weight * scale.reshape(-1, 1, 1, 1)
        made[name] = np.ascontiguousarray(weight.astype(np.float32))
    save_file(made, path)
    return path


@pytest.mark.parametrize("name", ["rfb", "slim"])
def test_twins_folded_as_the_converter_does(originals: Path, zoo: Path, tmp_path: Path, name: str) -> None:
    """The fingerprint is that of the twin after folding, and another one before."""
    file = next(file for file in manifest(originals) if f"version-{name}" in file.lower())
    twin = zoo / manifest(originals)[file]["twin"]
    own = read(open_ref(expand(originals / file)[0]))
    weights = load_file(twin)
    if name == "rfb":  # its dilated convolution keeps its batch norm apart
        weights.pop("base_net.7.branch2.3.bn.running_var", None)
    after = read(open_ref(expand(folded(weights, tmp_path / "x.safetensors", 1.001e-5))[0]))
    assert [layer.shape for layer in own.plan.layers] == [layer.shape for layer in after.plan.layers]
    for given, expected in zip(own.matrices, after.matrices, strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-6)
    assert distances(own.measured, after.measured)["layered"] < 1e-5
    assert distances(own.measured, read(open_ref(expand(twin)[0])).measured)["layered"] > 1e-3


def keras_folded(path: Path) -> dict[str, np.ndarray]:
    """Kernels of a Keras model by its layers, batch norm folded, in torch's layout."""
    kernels: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])["config"]["layers"]
        before = {
            layer["config"]["name"]: layer["inbound_nodes"][0][0][0] for layer in config if layer["inbound_nodes"]
        }
        group = file.get("model_weights", file)
        for layer in map(_text, group.attrs["layer_names"]):
            inner = group[layer]
            values = {
                n.split("/")[-1].removesuffix(":0"): inner[n][()].astype(np.float64)
                for n in map(_text, inner.attrs["weight_names"])
            }
            if "moving_variance" in values:
                scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + 1e-3)
                folded = kernels[before[layer]]
                kernels[before[layer]] = folded * scale.reshape(-1, *[1] * (folded.ndim - 1))
            elif "depthwise_kernel" in values:
                kernel = values["depthwise_kernel"]
                kernels[layer] = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
            elif "kernel" in values:
                kernel = values["kernel"]
                kernels[layer] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    return kernels


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def test_keras_twins_folded_as_the_converter_does(originals: Path) -> None:
    """Values with a fraction to float32; codes within the half step that the manifest states."""
    seen = 0
    for name, line in manifest(originals).items():
        if not str(line["twin"]).endswith(".h5"):
            continue
        own, twin = (read(open_ref(expand(originals / path)[0])) for path in (name, line["twin"]))
        kernels = keras_folded(originals / line["twin"])
        layers = [layer.name.split("/")[-2] for layer in own.plan.layers]
        assert layers == [layer.name.split("/")[-2] for layer in twin.plan.layers]
        for layer, matrix in zip(layers, own.matrices, strict=True):
            expected = kernels[layer].reshape(len(kernels[layer]), -1)
            worst = np.abs(matrix - expected).max()
            assert worst <= line["max_abs_diff"] * 1.01 + 1e-7  # float32 sums in another order
        seen += 1
    assert seen == 7


def test_codes_and_their_twin_without(originals: Path) -> None:
    int8, floats = (
        read(open_ref(expand(originals / f"tflite/tflite-micro/trained_lstm{kind}.tflite")[0]))
        for kind in ("_int8", "")
    )
    assert max(np.abs(a - b).max() for a, b in zip(int8.matrices, floats.matrices, strict=True)) < 5.9e-3
    assert int8.plan.precision == "int8 tflite"
    assert 0 < distances(int8.measured, floats.measured)["layered"] < 0.01
