"""Frozen graphs of TensorFlow, against what was written and against published files."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.files.byte_source import LocalBytes
from registry.sources.files.wire import Message
from registry.sources.formats.tensorflow.tensors import tensor_in
from registry.types import ModelRef
from tests.layouts.measured import distances, read
from tests.sources import tensorflow_files as files

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
IN = files.node("x", "Placeholder")


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def tensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path = path / "m.pb"
    path.write_bytes(content)
    with open_ref(expand(path)[0]) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}


def one(path: Path, *nodes: bytes) -> np.ndarray:
    [found] = tensors(path, files.graph(IN, *nodes)).values()
    return found


KERNEL = array(4, 6)
CONV = array(3, 2, 4, 6)


@pytest.mark.parametrize(
    ("op", "kernel", "expected"),
    [
        ("Conv2D", CONV, CONV.transpose(3, 2, 0, 1)),
        ("_FusedConv2D", CONV, CONV.transpose(3, 2, 0, 1)),
        ("DepthwiseConv2dNative", CONV, CONV.transpose(2, 3, 0, 1).reshape(24, 1, 3, 2)),
        ("MatMul", KERNEL, KERNEL.T),
        ("BatchMatMulV2", KERNEL[None], KERNEL.T),
        ("BatchMatMulV2", CONV[0], CONV[0].transpose(0, 2, 1)),
    ],
)
def test_layouts_of_operations(tmp_path: Path, op: str, kernel: np.ndarray, expected: np.ndarray) -> None:
    given = one(tmp_path, files.const("w", kernel), files.node("y", op, "x", "w"))
    np.testing.assert_array_equal(given, expected)


def test_transposed_convolutions(tmp_path: Path) -> None:
    nodes = (files.const("size", np.array([1, 2], np.int32)), files.const("w", CONV))
    given = one(tmp_path, *nodes, files.node("y", "Conv2DBackpropInput", "size", "w", "x"))
    np.testing.assert_array_equal(given, CONV.transpose(2, 3, 0, 1))


def test_a_transposed_kernel_called_weight_does_not_say_torchs_layout(tmp_path: Path) -> None:
    nodes = (files.const("deconv/weight", CONV), files.node("y", "Conv2DBackpropInput", "n", "deconv/weight", "x"))
    path = tmp_path / "m.pb"
    path.write_bytes(files.graph(IN, files.node("n", "Placeholder"), *nodes))
    with open_ref(expand(path)[0]) as checkpoint:
        [layer] = plan_weights(checkpoint).layers
        assert (layer.p, layer.q) == (4, 36)


@pytest.mark.parametrize(("flag", "left"), [("transpose_b", False), ("transpose_a", True), ("", True)])
def test_products_from_both_sides(tmp_path: Path, flag: str, left: bool) -> None:
    """x W^T has outputs first, W x too; W^T x has them last."""
    attrs = files.flag(flag, True) if flag else b""
    inputs = ("w", "x") if left else ("x", "w")
    given = one(tmp_path, files.const("w", KERNEL), files.node("y", "MatMul", *inputs, attrs=attrs))
    np.testing.assert_array_equal(given, KERNEL.T if flag == "transpose_a" else KERNEL)


def test_tables_and_recurrent_cells(tmp_path: Path) -> None:
    cell, table = array(9, 20), array(30, 4)
    found = tensors(tmp_path, files.graph(
        IN, files.const("rnn/lstm_cell/kernel", cell), files.const("emb", table), files.const("axis", np.array(0)),
        files.node("e", "GatherV2", "emb", "x", "axis"),
        files.node("y", "LSTMBlockCell", "e", "x", "x", "rnn/lstm_cell/kernel"),
    ))  # fmt: skip
    np.testing.assert_array_equal(found["emb"], table)
    np.testing.assert_array_equal(found["rnn/lstm_cell/kernel"], cell.T)


@pytest.mark.parametrize(("equation", "axes"), [("bi,ihd->bhd", 1), ("bhd,hdo->bo", 2)])
def test_einsum_of_heads(tmp_path: Path, equation: str, axes: int) -> None:
    kernel = array(4, 2, 3)
    attrs = files.attribute("equation", files.content(2, equation))
    given = one(tmp_path, files.const("w", kernel), files.node("y", "Einsum", "x", "w", attrs=attrs))
    x = array(1, *kernel.shape[:axes])
    np.testing.assert_allclose(given @ x.ravel(), np.einsum(equation, x, kernel).ravel(), rtol=1e-5)


def test_weights_through_other_operations(tmp_path: Path) -> None:
    """Identity, a cast of halves, a loop's entry, a turn and another shape."""
    halves = array(6, 2, 2, dtype="float16")
    nodes = (
        files.const("w", halves), files.const("perm", np.array([1, 2, 0], np.int32)),
        files.const("shape", np.array([-1, 6], np.int32)),
        files.node("i", "Identity", "w"), files.node("c", "Cast", "i"), files.node("e", "Enter", "c"),
        files.node("t", "Transpose", "e", "perm"), files.node("r", "Reshape", "t", "shape"),
        files.node("y", "MatMul", "x", "r"),
    )  # fmt: skip
    given = one(tmp_path, *nodes)
    np.testing.assert_array_equal(given, halves.astype(np.float32).transpose(1, 2, 0).reshape(4, 6).T)


def test_kernels_of_one_axis_keep_it(tmp_path: Path) -> None:
    kernel = array(3, 4, 6)
    nodes = (files.const("w", kernel), files.const("d", np.array(0)), files.node("e", "ExpandDims", "w", "d"))
    given = one(tmp_path, *nodes, files.node("y", "Conv2D", "x", "e"))
    np.testing.assert_array_equal(given, kernel.transpose(2, 1, 0))


def test_a_function_is_read_where_it_is_called(tmp_path: Path) -> None:
    given = tensors(tmp_path, files.small_graph())
    assert set(given) == {"conv/weights", "conv/biases", "fc/kernel", "lstm/kernel"}
    assert given["fc/kernel"].shape == (5, 8)
    np.testing.assert_array_equal(given["lstm/kernel"], np.full((4, 5), 0.5))


def test_functions_that_call_one_another_for_ever(tmp_path: Path) -> None:
    call = files.node("c", "PartitionedCall", "a", attrs=files.function_named("f"))
    twice = files.node("d", "PartitionedCall", "a", attrs=files.function_named("f"))
    content = files.graph(IN, files.node("y", "PartitionedCall", "x", attrs=files.function_named("f")),
                          functions={"f": (["a"], [call, twice], "c:0")})  # fmt: skip
    with pytest.raises(UnsafeError, match=r"functions within functions|a graph of more than"):
        tensors(tmp_path, content)


def test_only_what_was_learnt_is_a_weight(tmp_path: Path) -> None:
    """Biases, scales and statistics are; numbers of the program, anchors, axes and zeros of a state are not."""
    found = tensors(tmp_path, files.graph(
        IN, files.const("c/kernel", KERNEL), files.node("m", "MatMul", "x", "c/kernel"),
        files.const("c/bias", array(6)), files.node("b", "BiasAdd", "m", "c/bias"),
        files.const("anchors", array(6, 4)), files.node("a", "Add", "b", "anchors"),
        files.const("pos", array(5, 6)), files.node("pos/read", "Identity", "pos"),
        files.node("p", "Add", "a", "pos/read"),
        files.const("mul/y", array(6)), files.node("mul", "Mul", "p", "mul/y"),
        files.const("two", array()), files.node("t", "Mul", "mul", "two"),
        files.const("rnn/zeros", array(6, 6)), files.node("z", "MatMul", "rnn/zeros", "t"),
        files.const("g", array(6)), files.const("be", array(6)), files.const("mean", array(6)),
        files.const("v", array(6)),
        files.node("n", "FusedBatchNormV3", "z", "g", "be", "mean", "v"),
    ))  # fmt: skip
    assert set(found) == {"c/kernel", "c/bias", "pos", "g", "be", "mean", "v"}


def test_names_of_a_converter_become_those_of_layers(tmp_path: Path) -> None:
    """Reads of variables are called after the operation, as the layer's variables are elsewhere."""
    prefix, names, nodes, last = "StatefulPartitionedCall/m/", [], [], "x"
    for layer, op in (
        ("depthwise_conv2d", "depthwise"),
        ("conv2d", "Conv2D"),
        ("conv2d_1", "Conv2D"),
        ("dense", "MatMul"),
    ):
        kernel = {"depthwise": array(3, 3, 4, 1), "Conv2D": array(1, 1, 4, 4), "MatMul": array(4, 4)}[op]
        source = f"{prefix}{layer}/{op}/ReadVariableOp"
        kind = {"depthwise": "DepthwiseConv2dNative"}.get(op, op)
        nodes += [files.const(source, kernel), files.node(f"{prefix}{layer}/{op}", kind, last, source)]
        bias = f"{prefix}{layer}/BiasAdd/ReadVariableOp"
        nodes += [
            files.const(bias, array(4)),
            files.node(f"{prefix}{layer}/BiasAdd", "BiasAdd", f"{prefix}{layer}/{op}", bias),
        ]
        last = f"{prefix}{layer}/BiasAdd"
        names += [f"m/{layer}/{'depthwise_kernel' if op == 'depthwise' else 'kernel'}"]
    path = tmp_path / "m.pb"
    path.write_bytes(files.graph(IN, *nodes))
    with open_ref(expand(path)[0]) as checkpoint:
        assert sorted(layer.name for layer in plan_weights(checkpoint).layers) == sorted(names)
        assert {info.name for info in checkpoint.tensors} >= {"m/dense/bias", "m/conv2d_1/bias"}


@pytest.mark.parametrize("kind", ["quint8", "qint8"])
def test_codes_between_two_ends(tmp_path: Path, kind: str) -> None:
    """The smallest code is the smallest value, the largest the largest."""
    signed = kind == "qint8"
    codes = np.array([[0, 255], [128, 1]], np.uint8).astype(np.int16) - 128 * signed
    stored = codes.astype(np.int8 if signed else np.uint8)
    content = files.number(1, 11 if signed else 12) + files.content(2, files.shape((2, 2)))
    nodes = (
        files.const("w", content + files.content(4, stored.tobytes())),
        files.const("low", np.array(-2, np.float32)), files.const("high", np.array(3, np.float32)),
        files.node("d", "Dequantize", "w", "low", "high"), files.node("y", "MatMul", "x", "d"),
    )  # fmt: skip
    given = one(tmp_path, *nodes)
    expected = [[-2, -2 + 5 * 128 / 255], [3, -2 + 5 / 255]]
    np.testing.assert_allclose(given, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (files.number(1, 1) + files.content(5, struct.pack("<2f", 1, 2)), [[1, 2, 2], [2, 2, 2]]),
        (files.number(1, 1), [[0, 0, 0], [0, 0, 0]]),
        (files.number(1, 19) + files.content(13, files.varint(0x3C00)), [[1, 1, 1], [1, 1, 1]]),
        (files.number(1, 14) + files.content(13, files.varint(0x3F80)), [[1, 1, 1], [1, 1, 1]]),
        (files.number(1, 2) + files.content(6, struct.pack("<6d", *range(6))), [[0, 1, 2], [3, 4, 5]]),
        (files.number(1, 3) + files.content(7, b"\x05"), [[5, 5, 5], [5, 5, 5]]),
        (files.number(1, 1) + b"".join(files.fixed32(5, 0x3F800000) for _ in range(6)), [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_values_in_fields_of_their_own(tmp_path: Path, content: bytes, expected: list[list[float]]) -> None:
    (tmp_path / "t").write_bytes(content + files.content(2, files.shape((2, 3))))
    with LocalBytes(tmp_path / "t") as file:
        tensor = tensor_in(Message(file))
        assert tensor is not None
        np.testing.assert_array_equal(tensor.values(), expected)
        assert bytes(tensor.span(3, 9)) == bytes(tensor.span(0, tensor.bytes))[3:9]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (files.content(2, files.shape((10**6, 10**6))) + files.content(5, bytes(4)), "with 4 bytes"),
        (files.content(2, files.shape((2, 2))) + files.content(4, bytes(12)), "with 12 bytes"),
        (files.content(2, files.shape((10**12, 10**12))) + files.content(4, bytes(12)), "with 12 bytes"),
        (files.content(2, files.shape((2**63, 2))), "unknown or unending shape"),
        (files.content(2, files.shape((2, 2))) + files.content(5, bytes(24)), "with 6 values"),
    ],
)
def test_tensors_that_lie(tmp_path: Path, content: bytes, words: str) -> None:
    nodes = (files.const("w", files.number(1, 1) + content), files.node("y", "MatMul", "x", "w"))
    with pytest.raises(WeightsError, match=words):
        tensors(tmp_path, files.graph(IN, *nodes))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((files.node("v", "VarHandleOp"), files.node("y", "MatMul", "x", "v")), "variables are in a checkpoint"),
        ((files.node("y", "Relu", "x"),), "frozen with convert_variables_to_constants"),
    ],
)
def test_a_graph_without_weights_says_where_they_are(tmp_path: Path, nodes: tuple[bytes, ...], words: str) -> None:
    with pytest.raises(WeightsError, match=r"has no weights among its [23]") as caught:
        tensors(tmp_path, files.graph(IN, *nodes))
    assert words in str(caught.value)


def test_weights_of_operations_that_are_not_known_are_not_left_out(tmp_path: Path) -> None:
    nodes = (files.const("w", KERNEL), files.node("y", "MatMul", "x", "w"))
    other = (files.const("v", KERNEL), files.node("i", "Identity", "v"), files.node("z", "MyConv", "y", "i"))
    with pytest.raises(WeightsError, match="has weights in operations that are not read, most in MyConv"):
        tensors(tmp_path, files.graph(IN, *nodes, *other))
    small = (files.const("v", KERNEL[:1, :1]), files.node("z", "MyConv", "y", "v"))
    assert set(tensors(tmp_path, files.graph(IN, *nodes, *small))) == {"w"}


def test_the_few_weights_that_are_left_out_are_told(tmp_path: Path) -> None:
    dense = (files.const("w", array(30, 30)), files.node("y", "MatMul", "x", "w"))
    other = (files.const("v", array(2, 2)), files.node("z", "MyConv", "y", "v"))
    for name, nodes, notes in (("all", dense, ()), ("most", (*dense, *other), ("MyConv",))):
        (tmp_path / f"{name}.pb").write_bytes(files.graph(IN, *nodes))
        with open_ref(expand(tmp_path / f"{name}.pb")[0]) as checkpoint:
            assert len(checkpoint.facts.notes) == len(notes)
            assert all(word in note for word, note in zip(notes, checkpoint.facts.notes, strict=True))


def test_parts_of_a_variable_are_not_left_out(tmp_path: Path) -> None:
    """However few they are; a vector of one row in an unknown operation is left out, as other vectors are."""
    dense = (files.const("w", array(30, 30)), files.node("y", "MatMul", "x", "w"))
    parts = [files.const(f"v/part_{k}", array(2, 2)) for k in range(2)]
    joined = files.node("v", "ConcatV2", "v/part_0", "v/part_1", "axis")
    with pytest.raises(WeightsError, match="not read, most in ConcatV2"):
        tensors(tmp_path, files.graph(IN, *dense, *parts, joined))
    row = (files.const("variance", array(1, 600)), files.node("root", "Sqrt", "variance"))
    assert set(tensors(tmp_path, files.graph(IN, *dense, *row))) == {"w"}


def test_files_cut_at_ten_places_are_refused(tmp_path: Path) -> None:
    """A graph has no end of its own: one that is cut between two operations is a smaller graph."""
    content, refused = files.small_graph(), 0
    for place in range(10):
        (tmp_path / "m.pb").write_bytes(content[: len(content) * place // 10])
        try:
            with open_ref(ModelRef("tf_graph", str(tmp_path / "m.pb"), "m")) as checkpoint:
                assert len(plan_weights(checkpoint).layers) < 3
        except SourceError:
            refused += 1
    assert refused >= 9


def test_published_graphs(originals: Path, zoo: Path) -> None:
    """Numbers as in the manifest, and the twins' fingerprints; another network's differs."""
    lines = map(json.loads, (originals / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    seen = []
    for line in lines:
        if line["format"] != "tf-frozen-pb":
            continue
        with open_ref(expand(originals / line["file"])[0]) as checkpoint:
            matrices = [t for t in checkpoint.tensors if len(t.shape) > 1 and min(t.shape[0], t.size // t.shape[0]) > 1]
            assert sum(t.size for t in checkpoint.tensors) == line["parameters"]
            assert len(matrices) == line["matrices"]
        own, twin = (read(open_ref(expand(path)[0])) for path in (originals / line["file"], zoo / line["twin"]))
        assert max(distances(own.measured, twin.measured).values()) == 0
        seen.append(own)
    assert len(seen) == 5
    assert distances(seen[0].measured, seen[1].measured)["layered"] > 1e-3
