"""ONNX: tensors equal to the library's, in torch's layout, whatever node uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from registry.errors import NotFoundError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.companions import Companions
from registry.sources.formats.onnx.constants import Constants
from registry.sources.formats.onnx.model import read_model
from registry.sources.formats.onnx.node_names import own_name
from tests.sources.onnx_models import graph_of, model_of, opened, saved, values

if TYPE_CHECKING:
    from pathlib import Path

node = helper.make_node
TYPES = [
    name
    for name, code in TensorProto.DataType.items()
    if name not in ("UNDEFINED", "STRING") and code <= TensorProto.INT2
]

SPELT = {
    "FLOAT": "float32", "DOUBLE": "float64", "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2", "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu",
}  # fmt: skip


def stored_values(path: Path, name: str) -> tuple[str, np.ndarray]:
    with open_bytes(path) as file:
        model = read_model(file)
        tensor = Constants(model, Companions(str(path))).tensor(model.graph.tensors[name])
        return tensor.dtype, np.asarray(tensor.values())


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_read_as_by_the_library(name: str, raw: bool, tmp_path: Path) -> None:
    code = TensorProto.DataType.Value(name)
    kind = helper.tensor_dtype_to_np_dtype(code)
    numbers = np.array([[0, 1, -2 if not name.startswith(("U", "B")) else 3, 1, 0, 1, 1]])
    array = np.abs(numbers).astype(kind) if name in ("FLOAT8E8M0", "INT2", "UINT2") else numbers.astype(kind)
    if raw:
        tensor = numpy_helper.from_array(array, "t")
    else:
        tensor = helper.make_tensor("t", code, array.shape, array.reshape(-1).tolist())
    dtype, got = stored_values(saved(tmp_path, model_of([], {"t": tensor})), "t")
    expected = numpy_helper.to_array(tensor)
    assert got.shape == expected.shape
    wide = np.complex128 if name.startswith("COMPLEX") else np.float64
    np.testing.assert_array_equal(got.astype(wide), expected.astype(wide))
    packed = {"INT4": "int8", "INT2": "int8", "UINT4": "uint8", "UINT2": "uint8", "FLOAT4E2M1": "float32"}
    assert dtype == packed.get(name, SPELT.get(name, name.lower()))


def test_a_negative_integer_in_a_field_of_varying_width(tmp_path: Path) -> None:
    tensor = helper.make_tensor("t", TensorProto.INT64, (3,), [-1, 2**62, 300])
    assert stored_values(saved(tmp_path, model_of([], {"t": tensor})), "t")[1].tolist() == [-1, 2**62, 300]


def test_a_sparse_tensor_is_dense(tmp_path: Path) -> None:
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {})
    numbers = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 5], np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(numbers, places, [3, 4]))
    expected = np.zeros((3, 4), np.float32)
    expected[0, 1], expected[1, 1] = 1.5, -2.0
    np.testing.assert_array_equal(opened(saved(tmp_path, model))["w"], expected.T)


CONV, TABLE = values(5, 3, 3, 3), values(7, 4)
W, B = values(4, 5), values(5)
ORIENTATION: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], np.ndarray]] = {
    "conv": ([node("Conv", ["x", "w"], ["y"])], {"w": CONV}, CONV),
    "conv-transpose": ([node("ConvTranspose", ["x", "w"], ["y"])], {"w": CONV}, CONV),
    "matmul-right": ([node("MatMul", ["x", "w"], ["y"])], {"w": W}, W.T),
    "matmul-left": ([node("MatMul", ["w", "x"], ["y"])], {"w": W}, W),
    "matmul-one-batch": ([node("MatMul", ["x", "w"], ["y"])], {"w": W[None]}, W.T),
    "gemm": ([node("Gemm", ["x", "w", "b"], ["y"])], {"w": W, "b": B}, W.T),
    "gemm-turned": ([node("Gemm", ["x", "w"], ["y"], transB=1)], {"w": W}, W),
    "gemm-left": ([node("Gemm", ["w", "x"], ["y"])], {"w": W}, W),
    "gemm-left-turned": ([node("Gemm", ["w", "x"], ["y"], transA=1)], {"w": W}, W.T),
    "gather": ([node("Gather", ["w", "x"], ["y"])], {"w": TABLE}, TABLE),
    "einsum": ([node("Einsum", ["x", "w"], ["y"], equation="bld,dhe->blhe")], {"w": values(4, 2, 3)},
               values(4, 2, 3).reshape(4, 6).T),
    "einsum-first": ([node("Einsum", ["w", "x"], ["y"], equation="od,bd->bo")], {"w": W}, W),
    "fused-matmul": ([node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transB=1)], {"w": W}, W),
    "transposed-before": ([node("Transpose", ["w"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"])],
                          {"w": W}, W),
    "reshaped-before": ([node("Reshape", ["w", "s"], ["t"]), node("Conv", ["x", "t"], ["y"])],
                        {"w": values(5, 27), "s": np.array([5, 3, -1, 3], np.int64)},
                        values(5, 27).reshape(5, 3, 3, 3)),
    "squeezed": ([node("Squeeze", ["w", "a"], ["t"]), node("Unsqueeze", ["t", "b"], ["u"]),
                  node("Conv", ["x", "u"], ["y"])],
                 {"w": values(1, 5, 3, 3), "a": np.array([0], np.int64), "b": np.array([-1], np.int64)},
                 values(1, 5, 3, 3).reshape(5, 3, 3, 1)),
    "identity-and-cast": ([node("Identity", ["w"], ["i"]), node("Cast", ["i"], ["t"], to=TensorProto.FLOAT),
                           node("MatMul", ["x", "t"], ["y"])], {"w": W}, W.T),
    "flatten": ([node("Flatten", ["w"], ["t"], axis=1), node("Gemm", ["x", "t"], ["y"], transB=1)],
                {"w": values(5, 2, 3)}, values(5, 2, 3).reshape(5, 6)),
    "constant-node": ([node("Constant", [], ["w"], value=numpy_helper.from_array(W)),
                       node("MatMul", ["x", "w"], ["y"])], {}, W.T),
}  # fmt: skip


@pytest.mark.parametrize("case", ORIENTATION)
def test_a_weight_is_laid_out_by_the_node_that_uses_it(case: str, tmp_path: Path) -> None:
    nodes, tensors, expected = ORIENTATION[case]
    found = [t for t in opened(saved(tmp_path, model_of(nodes, tensors))).values() if t.ndim > 1]
    assert len(found) == 1
    np.testing.assert_array_equal(found[0], expected)


def test_a_batched_product_is_a_weight_for_each(tmp_path: Path) -> None:
    many = values(3, 4, 5)
    found = opened(saved(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], {"w": many})))
    assert len(found) == 3
    for one, expected in zip(found.values(), many, strict=True):
        np.testing.assert_array_equal(one, expected.T)


def weight_by_reference(model: onnx.ModelProto, name: str) -> np.ndarray:
    """What the library computes of a constant that the network makes."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:], graph.graph.input[:]
    graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    kept = [each for each in graph.graph.node if "x" not in each.input]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    [found] = ReferenceEvaluator(graph).run(None, {})
    return np.asarray(found, np.float32)


CODES = values(8, 6, dtype=np.int8)
DEQUANTISED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tensor": ({"q": CODES, "s": np.float32(0.03), "z": np.int8(4)}, {}),
    "no-zero": ({"q": CODES, "s": np.float32(0.03)}, {}),
    "axis-0": ({"q": CODES, "s": np.abs(values(8)), "z": values(8, dtype=np.int8)}, {"axis": 0}),
    "axis-1": ({"q": CODES, "s": np.abs(values(6)), "z": values(6, dtype=np.int8)}, {"axis": 1}),
    "axis-last": ({"q": CODES.view(np.uint8), "s": np.abs(values(6)), "z": values(6, dtype=np.uint8)}, {"axis": -1}),
    "blocks-0": ({"q": CODES, "s": np.abs(values(4, 6)), "z": values(4, 6, dtype=np.int8)},
                 {"axis": 0, "block_size": 2}),
    "blocks-1": ({"q": CODES, "s": np.abs(values(8, 2))}, {"axis": 1, "block_size": 3}),
    "int16": ({"q": values(8, 6, dtype=np.int16), "s": np.float32(0.01)}, {}),
    "int32": ({"q": values(8, 6, dtype=np.int32), "s": np.float32(0.01)}, {}),
    "int4": ({"q": helper.make_tensor("q", TensorProto.INT4, (8, 6), [(i * 5) % 16 - 8 for i in range(48)]),
              "s": np.float32(0.1)}, {}),
    "uint4": ({"q": helper.make_tensor("q", TensorProto.UINT4, (8, 6), [(i * 5) % 16 for i in range(48)]),
               "s": np.abs(values(8)), "z": helper.make_tensor("z", TensorProto.UINT4, (8,), list(range(8)))},
              {"axis": 0}),
    "float8": ({"q": helper.make_tensor("q", TensorProto.FLOAT8E4M3FN, (8, 6), values(48).tolist()),
                "s": np.float32(2.0)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", DEQUANTISED)
def test_codes_are_dequantised_as_by_the_library(case: str, tmp_path: Path) -> None:
    tensors, settings = DEQUANTISED[case]
    inputs = [name for name in ("q", "s", "z") if name in tensors]
    model = model_of(
        [node("DequantizeLinear", inputs, ["w"], **settings), node("Gemm", ["x", "w"], ["y"], transB=1)], tensors
    )
    path = saved(tmp_path, model)
    found = opened(path)
    assert list(found) == ["q"]  # scales and zero points are no weights
    np.testing.assert_allclose(found["q"], weight_by_reference(model, "w"), rtol=2e-7)
    with open_ref(expand(path)[0]) as checkpoint:
        plan = plan_weights(checkpoint)
        stored = tensors["q"].dtype.name if isinstance(tensors["q"], np.ndarray) else case
        assert plan.precision == f"{ {'float8': 'float8_e4m3fn'}.get(stored, stored) } onnx"
        whole = checkpoint.raw("q")
        assert checkpoint.span("q", 30, 100) == whole[30:100]


def test_a_weight_that_is_quantised_when_the_network_runs(tmp_path: Path) -> None:
    tensors = {"f": values(8, 6), "s": np.abs(values(8)) / 100, "z": np.zeros(8, np.int8)}
    nodes = [
        node("QuantizeLinear", ["f", "s", "z"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
        node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    model = model_of(nodes, tensors)
    np.testing.assert_array_equal(opened(saved(tmp_path, model))["f"], weight_by_reference(model, "w"))


def test_arithmetic_on_constants_is_followed(tmp_path: Path) -> None:
    """Codes that are converted, shifted and scaled by plain nodes."""
    tensors = {"q": CODES, "z": np.float32(3), "s": np.abs(values(8, 1))}
    nodes = [
        node("Cast", ["q"], ["c"], to=TensorProto.FLOAT),
        node("Sub", ["c", "z"], ["d"]),
        node("Mul", ["d", "s"], ["w"]),
        node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    model = model_of(nodes, tensors)
    path = saved(tmp_path, model)
    np.testing.assert_allclose(opened(path)["q"], weight_by_reference(model, "w"), rtol=2e-7)
    with open_ref(expand(path)[0]) as checkpoint:
        assert plan_weights(checkpoint).precision == "int8 onnx"


def microsoft(op: str, inputs: list[str], **settings: Any) -> onnx.NodeProto:
    return node(op, inputs, ["y"], domain="com.microsoft", **settings)


def test_products_of_integers(tmp_path: Path) -> None:
    """Nodes that multiply codes: the codes less their zero point, times the scale of the weight."""
    codes, zero, scale = values(4, 5, dtype=np.int8), np.int8(3), np.float32(0.25)
    expected = ((codes.astype(np.float32) - 3) * 0.25).T
    given: dict[str, Any] = {
        "a": np.float32(0.5), "az": np.uint8(1), "w": codes, "s": scale, "z": zero, "ys": np.float32(1),
        "yz": np.uint8(0),
    }  # fmt: skip
    quantised = ["x", "a", "az", "w", "s", "z", "ys", "yz"]
    for case in (
        [node("QLinearMatMul", quantised, ["y"])],
        [microsoft("QGemm", ["x", "a", "az", "w", "s", "z"], transB=0)],
        [microsoft("DynamicQuantizeMatMul", ["x", "w", "s", "z"])],
        [microsoft("MatMulIntegerToFloat", ["x", "w", "a", "s", "az", "z"])],
        [
            node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
            node("MatMulInteger", ["q", "w", "qz", "z"], ["i"]),
            node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["qs", "s"], ["both"]),
            node("Mul", ["f", "both"], ["y"]),
        ],
    ):
        found = opened(saved(tmp_path, model_of(case, given)))
        np.testing.assert_array_equal(found["w"], expected, err_msg=case[0].op_type)
        assert len(found) == 1


def test_scales_of_outputs_are_no_weights(tmp_path: Path) -> None:
    """They are multiplied with the scale of the input before the product stands in the file."""
    codes, scale = values(4, 5, dtype=np.int8), np.abs(values(5))
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        node("Mul", ["qs", "s"], ["both"], "/fc/MatMul_quant_scales_mul"),
        node("MatMulInteger", ["q", "w", "qz", "z"], ["i"], "/fc/MatMul_quant"),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "both"], ["y"]),
    ]
    given = {"w": codes, "s": scale, "z": np.zeros(5, np.int8)}
    found = opened(saved(tmp_path, model_of(nodes, given, producer="onnx.quantize")))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], (codes * scale).T)


@pytest.mark.parametrize("after", ["DequantizeLinear", "QLinearAdd"])
def test_rows_of_a_table_of_codes(after: str, tmp_path: Path) -> None:
    """The scale stands at the node that takes the rows."""
    codes = values(7, 4, dtype=np.uint8)
    given = {"t": codes, "s": np.float32(0.5), "z": np.uint8(3), "b": codes, "bs": np.float32(1), "bz": np.uint8(0)}
    inputs = ["r", "s", "z"] if after == "DequantizeLinear" else ["b", "bs", "bz", "r", "s", "z", "bs", "bz"]
    domain = "" if after == "DequantizeLinear" else "com.microsoft"
    nodes = [
        node("Gather", ["t", "x"], ["g"]),
        node("Transpose", ["g"], ["r"]),
        node(after, inputs, ["y"], domain=domain),
    ]
    found = opened(saved(tmp_path, model_of(nodes, given)))
    np.testing.assert_array_equal(found["t"], (codes.astype(np.float32) - 3) * 0.5)
    with pytest.raises(WeightsError, match="used by Gather"):
        opened(saved(tmp_path, model_of(nodes[:2], given), "unknown.onnx"))


@pytest.mark.parametrize("by_output", [False, True])
def test_an_lstm_of_integers(by_output: bool, tmp_path: Path) -> None:
    """Weights (directions, in, gates * hidden), and a scale for each direction or output; the gates are torch's."""
    inputs, again = values(2, 3, 8, dtype=np.int8), values(2, 2, 8, dtype=np.int8)
    scale = np.abs(values(2, 8) if by_output else values(2))
    zero = np.full(scale.shape, 3, np.int8)
    taken = ["x", "w", "r", "b", "", "", "", "", "s", "z", "s", "z"]
    given = {"w": inputs, "r": again, "b": values(2, 16), "s": scale, "z": zero}
    lstm = microsoft("DynamicQuantizeLSTM", taken, hidden_size=2, direction="bidirectional")
    found = opened(saved(tmp_path, model_of([lstm], given)))
    wide = scale[:, None, :] if by_output else scale[:, None, None]
    gates = [0, 1, 4, 5, 6, 7, 2, 3]
    for codes, leaf in ((inputs, "weight_ih"), (again, "weight_hh")):
        expected = ((codes.astype(np.float32) - 3) * wide).transpose(0, 2, 1)[:, gates]
        for way, end in enumerate(("", "_reverse")):
            [name] = [name for name in found if name.endswith(f"{leaf}_l0{end}")]
            np.testing.assert_array_equal(found[name], expected[way])
    assert len(found) == 8


def test_a_standardised_weight_is_the_parameter(tmp_path: Path) -> None:
    """A batch norm whose statistics come from the weight runs before each convolution; timm's networks have it."""
    weight = values(1, 6, 27)
    given = {
        "onnx::B_1": weight, "onnx::R_2": weight.transpose(0, 2, 1).copy(), "g": np.ones(6, np.float32),
        "z": np.zeros(6, np.float32), "shape": np.array([6, 3, 3, 3]), "stem.conv.bias": values(6),
    }  # fmt: skip
    nodes = [
        node("ReduceMean", ["onnx::R_2"], ["m"], "/stem/conv/ReduceMean", axes=[0, 1], keepdims=0),
        node("BatchNormalization", ["onnx::B_1", "g", "z", "m", "m"], ["n"], "/stem/conv/BatchNormalization"),
        node("Reshape", ["n", "shape"], ["w"], "/stem/conv/Reshape"),
        node("Conv", ["x", "w", "stem.conv.bias"], ["y"], "/stem/conv/Conv"),
    ]
    found = opened(saved(tmp_path, model_of(nodes, given, producer="pytorch", opset=13)))
    np.testing.assert_array_equal(found["stem.conv.weight"], weight.reshape(6, 3, 3, 3))
    assert not {"stem.conv.running_mean", "onnx::R_2"} & set(found)
    nodes[2] = node("Mul", ["n", "g"], ["w"])
    with pytest.raises(WeightsError, match="weights are used by Conv"):
        opened(saved(tmp_path, model_of(nodes, given, producer="pytorch", opset=13)))


def test_a_norm_of_learnt_queries_is_read(tmp_path: Path) -> None:
    given = {"queries": values(3, 4), "norm.weight": values(4), "norm.bias": values(4, seed=1), "fc.weight": CONV[0, 0]}
    nodes = [
        node("LayerNormalization", ["queries", "norm.weight", "norm.bias"], ["n"]),
        node("Add", ["n", "x"], ["a"]),
        node("Gemm", ["a", "fc.weight"], ["y"], transB=1),
    ]
    assert set(opened(saved(tmp_path, model_of(nodes, given, producer="pytorch")))) == set(given)


def test_convolutions_of_integers_and_their_biases(tmp_path: Path) -> None:
    codes, scale = values(5, 3, 3, 3, dtype=np.int8), np.abs(values(5))
    given = {"a": np.float32(0.5), "az": np.uint8(1), "w": codes, "s": scale, "z": np.zeros(5, np.int8),
             "ys": np.float32(1), "yz": np.uint8(0), "b": values(5, dtype=np.int32)}  # fmt: skip
    conv = node("QLinearConv", ["x", "a", "az", "w", "s", "z", "ys", "yz", "b"], ["y"])
    found = opened(saved(tmp_path, model_of([conv], given)))
    np.testing.assert_array_equal(found["w"], codes.astype(np.float32) * scale[:, None, None, None])
    np.testing.assert_allclose(found["b"], given["b"] * (np.float32(0.5) * scale), rtol=2e-7)
    assert len(found) == 2
    nodes = [
        node("ConvInteger", ["x", "w", "az", "z0"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s0"], ["y"]),
    ]
    found = opened(saved(tmp_path, model_of(nodes, {**given, "z0": np.int8(0), "s0": np.float32(0.5)})))
    np.testing.assert_array_equal(found["w"], codes.astype(np.float32) * 0.5)


@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_blocks_of_a_few_bits(bits: int, zeros: str, tmp_path: Path) -> None:
    """MatMulNBits, against a loop over single codes."""
    outputs, inputs, block = 3, 40, 16
    blocks = -(-inputs // block)
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (outputs, blocks * block))
    scales = rng.standard_normal((outputs, blocks)).astype(np.float32)
    zero = rng.integers(0, 2**bits, (outputs, blocks))
    each = 8 // bits

    def packed(rows: np.ndarray) -> np.ndarray:
        filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % each)))
        return sum(filled[:, i::each] << (bits * i) for i in range(each)).astype(np.uint8)  # type: ignore[union-attr]

    given = {"w": packed(codes).reshape(outputs, blocks, -1), "s": scales.reshape(-1)}
    if zeros != "none":
        given["z"] = packed(zero).reshape(-1) if zeros == "packed" else zero.astype(np.float32).reshape(-1)
    settings = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    found = opened(saved(tmp_path, model_of([microsoft("MatMulNBits", ["x", *given], **settings)], given)))
    for row in range(outputs):
        for column in range(inputs):
            offset = zero[row, column // block] if zeros != "none" else 2 ** (bits - 1)
            expected = np.float32(codes[row, column] - offset) * scales[row, column // block]
            assert found["w"][row, column] == expected
    assert found["w"].shape == (outputs, inputs)


def test_an_embedding_in_blocks(tmp_path: Path) -> None:
    codes = [(i * 7) % 16 - 8 for i in range(6 * 32)]
    table = helper.make_tensor("w", TensorProto.INT4, (6, 32), codes)
    scales = values(6, 2)
    settings = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16}
    found = opened(
        saved(
            tmp_path,
            model_of([microsoft("GatherBlockQuantized", ["w", "x", "s"], **settings)], {"w": table, "s": scales}),
        )
    )
    np.testing.assert_array_equal(found["w"], np.array(codes, np.float32).reshape(6, 32) * np.repeat(scales, 16, 1))


def test_attention_of_onnx_runtime_is_cut_into_query_key_and_value(tmp_path: Path) -> None:
    weights, bias = values(8, 24), values(24)
    attention = node("Attention", ["x", "w", "b"], ["y"], "/layer.0/attention/Attention", domain="com.microsoft",
                     num_heads=2)  # fmt: skip
    found = opened(saved(tmp_path, model_of([attention], {"w": weights, "b": bias})))
    assert len(found) == 6
    for number, part in enumerate(("query", "key", "value")):
        own = slice(8 * number, 8 * number + 8)
        np.testing.assert_array_equal(found[f"layer.0.attention.{part}.weight"], weights[:, own].T)
        np.testing.assert_array_equal(found[f"layer.0.attention.{part}.bias"], bias[own])


def test_what_is_no_weight(tmp_path: Path) -> None:
    """Anchors, shapes, masks, scalars and the constants that only make others."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "b"], ["c"]),
        node("Constant", [], ["anchors"], value=numpy_helper.from_array(values(20, 4))),
        node("Mul", ["c", "anchors"], ["d"]),
        node("Where", ["mask", "d", "low"], ["e"]),
        node("Div", ["e", "one"], ["f"]),
        node("Reshape", ["f", "shape"], ["y"]),
    ]
    tensors = {"w": values(6, 4), "b": values(4), "mask": np.ones((4, 4), bool), "low": values(4, 4),
               "one": np.float32(8), "shape": np.array([-1, 4], np.int64)}  # fmt: skip
    assert sorted(opened(saved(tmp_path, model_of(nodes, tensors)))) == ["b", "w"]


def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["wte.weight", "x"], ["e"], "/wte/Gather"),
        node("Transpose", ["wte.weight"], ["t"], perm=[1, 0]),
        node("MatMul", ["e", "t"], ["y"], "/lm_head/MatMul"),
    ]
    path = saved(tmp_path, model_of(nodes, {"wte.weight": values(9, 4)}, producer="pytorch"))
    with open_ref(expand(path)[0]) as checkpoint:
        assert [info.name for info in checkpoint.tensors] == ["wte.weight"]
        assert checkpoint.facts.aliases == {"lm_head.weight": "wte.weight"}
        plan = plan_weights(checkpoint)
        assert ([layer.tensor for layer in plan.layers], plan.parameters) == (["wte.weight"], 36)


def test_graphs_within_nodes_and_local_functions(tmp_path: Path) -> None:
    """A loop's body with weights from outside, and a function in a function that turns its argument."""
    body = graph_of([node("MatMul", ["x0", "w"], ["y0"])], {"inner": values(2, 3)}, outputs=("y0",))
    del body.input[:]
    body.node.append(node("MatMul", ["y0", "inner"], ["y1"]))
    nodes = [
        node("If", ["x"], ["a"], then_branch=body, else_branch=body),
        node("Outer", ["a", "v"], ["y"], domain="local"),
    ]
    settings: dict[str, Any] = {"opset_imports": [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]}
    inner = helper.make_function(
        "local", "Turn", ["p"], ["q"], [node("Transpose", ["p"], ["q"], perm=[1, 0])], **settings
    )
    outer = helper.make_function("local", "Outer", ["i", "k"], ["o"], [
        node("Turn", ["k"], ["t"], domain="local"), node("MatMul", ["i", "t"], ["o"])], **settings)  # fmt: skip
    model = model_of(nodes, {"w": values(4, 5), "v": values(6, 3)}, functions=[inner, outer])
    found = opened(saved(tmp_path, model))
    assert sorted(found) == ["inner", "v", "w"]
    for name, expected in (("inner", values(2, 3).T), ("v", values(6, 3)), ("w", values(4, 5).T)):
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_weights_that_a_loop_hands_on_are_read(tmp_path: Path) -> None:
    """tf2onnx gives the weights of recurrent layers as states that no round changes."""
    body = helper.make_graph(
        [
            node("MatMul", ["h", "k"], ["h1"]), node("Identity", ["k"], ["k1"]), node("Identity", ["go"], ["go1"]),
            node("MatMul", ["h1", "changing"], ["c1"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("i", "go", "h", "k", "changing")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("go1", "h1", "k1", "c1")],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["", "", "x", "w", "other"], ["y", "y1", "y2"], body=body)
    found = opened(saved(tmp_path, model_of([loop], {"w": values(4, 4), "other": values(4, 4, seed=1)})))
    assert list(found) == ["w"]
    np.testing.assert_array_equal(found["w"], values(4, 4).T)


@pytest.mark.parametrize("kernel_first", [True, False])
@pytest.mark.parametrize("width", [7, 5])
def test_a_gru_that_multiplies_with_its_gates_apart_is_read(width: int, kernel_first: bool, tmp_path: Path) -> None:
    """As tf2onnx writes reset_after=False: products with slices of the recurrent kernel, of z and r, and of h."""
    kernel, recurrent = values(width, 15), values(5, 15, seed=1)
    cell = "model/gru/while/gru_cell"
    products = [
        node("MatMul", ["x", "k__1"], ["a"], f"{cell}/MatMul"),
        node("Slice", ["r__2", "first", "to tenth", "axes"], ["zr"], f"{cell}/strided_slice"),
        node("MatMul", ["s", "zr"], ["b"], f"{cell}/MatMul_1"),
        node("Slice", ["r__2", "tenth", "last", "axes"], ["h"], f"{cell}/strided_slice_1"),
        node("MatMul", ["s", "h"], ["y"], f"{cell}/MatMul_2"),
    ]
    numbers = {"first": [0, 0], "to tenth": [5, 10], "tenth": [0, 10], "last": [5, 15], "axes": [0, 1]}
    tensors: dict[str, Any] = {"k__1": kernel, "r__2": recurrent}
    tensors |= {name: np.array(value, np.int64) for name, value in numbers.items()}
    order = products if kernel_first else [*products[1:], products[0]]
    model = model_of(order, tensors, outputs=("y", "a", "b"))
    [ref] = expand(saved(tmp_path, model))
    with open_ref(ref) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read(f"{cell}/kernel"), kernel.T)
        np.testing.assert_array_equal(checkpoint.read(f"{cell}/recurrent_kernel"), recurrent.T)
        plan = plan_weights(checkpoint)
    assert [layer.name.removeprefix(f"{cell}/") for layer in plan.layers] == [
        f"{leaf}[{gate}]" for leaf in ("kernel", "recurrent_kernel") for gate in "rzh"
    ]
    assert plan.notes == ()


def test_a_product_with_some_inputs_of_a_matrix_is_refused(tmp_path: Path) -> None:
    nodes = [node("Slice", ["r", "a", "b"], ["s"]), node("MatMul", ["x", "s"], ["y"])]
    tensors = {"r": values(6, 15), "a": np.array([0], np.int64), "b": np.array([5], np.int64)}
    with pytest.raises(WeightsError, match="are used by MatMul"):
        opened(saved(tmp_path, model_of(nodes, tensors)))


def test_weights_reshaped_as_the_network_runs_are_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Reshape", ["w", "s"], ["r"]),
        node("MatMul", ["x", "r"], ["a"]),
        node("MatMul", ["a", "v"], ["y"]),
    ]
    with pytest.raises(WeightsError, match="48 of 64 weights are used by MatMul"):
        opened(saved(tmp_path, model_of(nodes, {"w": values(1, 4, 12), "v": values(4, 4)})))


@pytest.mark.parametrize(("name", "axes"), [("/up/ConvTranspose", (0, 1, 2, 3)), ("model/up/conv", (1, 0, 2, 3))])
def test_a_transposed_convolution_is_as_its_name_says(name: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    """Torch's weight is (in, out, *kernel), Keras' kernel is given with outputs first."""
    kernel = values(4, 6, 3, 3)
    model = model_of([node("ConvTranspose", ["x", "const__3"], ["y"], name)], {"const__3": kernel})
    [found] = opened(saved(tmp_path, model)).values()
    np.testing.assert_array_equal(found, kernel.transpose(axes))


@pytest.mark.parametrize(("module", "one"), [("m/conv1d_1/Conv1D", True), ("m/conv2d/Conv2D", False)])
def test_a_kernel_of_one_axis_keeps_it(module: str, one: bool, tmp_path: Path) -> None:
    """TensorFlow runs it as one of two axes, the first of which is 1."""
    kernel = values(4, 6, 1, 3)
    [found] = opened(saved(tmp_path, model_of([node("Conv", ["x", "k__3"], ["y"], module)], {"k__3": kernel}))).values()
    np.testing.assert_array_equal(found, kernel[:, :, 0] if one else kernel)


NAMES = {
    "/layer1/layer1.0/conv1/Conv": "layer1.0.conv1.weight",
    "/features/features.0/Conv": "features.0.weight",
    "/encoder/layer.11/attention/self/query/MatMul": "encoder.layer.11.attention.self.query.weight",
    "/blocks.0/attn/qkv/MatMul/MatMulAddFusion": "blocks.0.attn.qkv.weight",
    "/fc/MatMul_token_3/MatMulScaleFusion/": "fc.weight",
    "fused /7/Gemm": "7.weight",
    "StatefulPartitionedCall/model/conv2d_3/Conv2D": "model/conv2d_3/kernel",
    "model/dense/MatMul": "model/dense/kernel",
    "Conv_12": "Conv_12.weight",
    "": "Conv_0.weight",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_without_a_name_takes_that_of_its_module(name: str, tmp_path: Path) -> None:
    model = model_of([node("Conv", ["x", "onnx::Conv_523"], ["y"], name)], {"onnx::Conv_523": CONV}, producer="pytorch")
    assert list(opened(saved(tmp_path, model))) == [NAMES[name]]


def test_names_that_quantisers_and_fusions_change() -> None:
    assert own_name("fc.weight_quantized") == own_name("fc.weight_Transposed_quantized") == "fc.weight"
    assert own_name("ConvBnFusion_W_stem.conv.weight") == "stem.conv.weight"
    assert own_name("ConvBnFusion_BN_B_stem.bn.bias") == own_name("Conv__30_weights_fused_bn") == ""


def test_convolutions_with_a_folded_batch_norm_are_counted(tmp_path: Path) -> None:
    """As torch exports ``Sequential(Conv2d, BatchNorm2d, Conv2d)``: parameters of the second keep their names."""
    nodes = [node("Conv", ["x", "onnx::Conv_19", "onnx::Conv_20"], ["a"], "/0/Conv")]
    nodes.append(node("Conv", ["a", "2.weight", "2.bias"], ["y"], "/2/Conv"))
    tensors = {"onnx::Conv_19": values(4, 3, 3, 3), "onnx::Conv_20": values(4)}
    tensors |= {"2.weight": values(5, 4, 3, 3), "2.bias": values(5)}
    path = saved(tmp_path, model_of(nodes, tensors, producer="pytorch"))
    with open_ref(expand(path)[0]) as checkpoint:
        assert plan_weights(checkpoint).notes == ("batch norm was folded into 1 convolution by the exporter",)


def test_names_of_biases_and_of_scopes_tell(tmp_path: Path) -> None:
    one = node("MatMul", ["x", "1"], ["a"], "/attn/MatMul")
    two = node("MatMul", ["c", "2"], ["y"], "node_linear")
    two.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'head', 'head.fc', 'linear']")
    nodes = [one, node("Add", ["a", "attn.in_proj_bias"], ["c"]), two]
    tensors = {"1": values(4, 12), "attn.in_proj_bias": values(12), "2": values(12, 3)}
    found = opened(saved(tmp_path, model_of(nodes, tensors, producer="pytorch")))
    assert list(found) == ["attn.in_proj_weight", "attn.in_proj_bias", "head.fc.weight"]


def test_without_names_the_graph_gives_the_order(tmp_path: Path) -> None:
    """The trunk first, then each output's own layers together, though the file has them mixed."""
    nodes = [
        node("Conv", ["x", "9"], ["a"]),
        node("Conv", ["a", "8"], ["box1"]),
        node("Conv", ["a", "7"], ["class1"]),
        node("Conv", ["a", "6"], ["b"]),
        node("Conv", ["b", "5"], ["box2"]),
        node("Conv", ["b", "4"], ["class2"]),
        node("Concat", ["class1", "class2"], ["classes"], axis=1),
        node("Concat", ["box1", "box2"], ["boxes"], axis=1),
    ]
    tensors = {str(number): values(4, 4, 1, number) for number in range(4, 10)}
    path = saved(tmp_path, model_of(nodes, tensors, outputs=("classes", "boxes")))
    with open_ref(expand(path)[0]) as checkpoint:
        widths = [layer.shape[3] for layer in plan_weights(checkpoint).layers]
    assert widths == [9, 6, 8, 5, 7, 4]


def test_weights_used_in_an_unknown_way_are_refused_or_named(tmp_path: Path) -> None:
    custom = node("Secret", ["x", "v"], ["a"], domain="com.example")
    tensors = {"v": values(30, 30), "w": values(30, 20)}
    path = saved(tmp_path, model_of([custom, node("MatMul", ["a", "w"], ["y"])], tensors))
    with pytest.raises(WeightsError, match=r"900 of 1500 weights are used by com\.example\.Secret") as caught:
        open_ref(expand(path)[0])
    assert "before it was optimised" in str(caught.value.remedy)
    tensors = {"v": values(3, 3), "w": values(30, 20)}
    path = saved(tmp_path, model_of([custom, node("MatMul", ["a", "w"], ["y"])], tensors))
    with open_ref(expand(path)[0]) as checkpoint:
        assert "weights used by com.example.Secret are left out" in plan_weights(checkpoint).notes[0]


def test_tensors_in_files_beside(tmp_path: Path) -> None:
    tensors = {f"layer{n}.weight": values(40, 30, seed=n) for n in range(3)}
    nodes = [node("Gemm", ["x" if n == 0 else f"y{n}", f"layer{n}.weight"], [f"y{n + 1}"], transB=1) for n in range(3)]
    model = model_of(nodes, tensors, outputs=("y3",), producer="pytorch")
    (tmp_path / "weights").mkdir()
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights/m.data", size_threshold=0)
    for name, array in opened(path).items():
        np.testing.assert_array_equal(array, tensors[name])
    with open_ref(expand(path)[0]) as checkpoint:
        assert [info.shape for info in checkpoint.tensors] == [(40, 30)] * 3
    (tmp_path / "weights" / "m.data").unlink()
    with open_ref(expand(path)[0]) as checkpoint:  # the header alone tells the shapes
        assert len(checkpoint.tensors) == 3
        with pytest.raises(NotFoundError, match=r"m\.onnx has its weights in weights/m\.data, which is not beside it"):
            checkpoint.read("layer0.weight")


def test_the_data_beside_lead_to_the_model(tmp_path: Path) -> None:
    model = model_of([node("Gemm", ["x", "w.weight"], ["y"], transB=1)], {"w.weight": values(40, 30)})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    [ref] = expand(tmp_path / "m.onnx.data")
    assert (ref.source, ref.target) == ("onnx", str(tmp_path / "m.onnx"))
