"""Models of MNN: against what was written, against MNN's own converter and runtime, and files made to harm."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_module, open_ref, plan_weights
from registry.types import ModelRef
from tests.layouts.measured import distances, read
from tests.sources.layouts import converter
from tests.sources.mnn_files import (
    DECONV,
    DEPTHWISE,
    GATHER,
    LAYER_NORM,
    MATMUL,
    codes,
    const,
    convert,
    convolution,
    net,
    op,
    run,
    small_mnn,
    sparse,
)
from tests.sources.tensorflow_files import i32

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def opened(folder: Path, content: bytes) -> Checkpoint:
    (folder / "m.mnn").write_bytes(content)
    [ref] = expand(folder / "m.mnn")
    assert ref.source == "mnn"
    return open_ref(ref)


def tensors(folder: Path, *ops: dict[int, Any], **more: Any) -> dict[str, np.ndarray]:
    with opened(folder, net(ops, **more)) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}


def test_convolutions(tmp_path: Path) -> None:
    plain, depthwise, grouped, turned = array(6, 3, 2, 5), array(6, 1, 3, 3), array(8, 2, 3, 3), array(4, 6, 2, 2)
    bias = array(6)
    found = tensors(
        tmp_path,
        convolution("/a/b/a.1/Conv_output_0", plain, plain.shape, bias=bias),
        convolution(
            "/dw/Conv_output_0", depthwise, depthwise.shape, kind=DEPTHWISE, groups=6, place=1, bias=np.zeros(6)
        ),
        convolution("/grp/Conv_output_0", grouped, grouped.shape, groups=3, place=2),
        convolution("/up/ConvTranspose_output_0", turned, (6, 4, 2, 2), kind=DECONV, place=3, inputs=4),
    )
    assert set(found) == {"a.b.a.1.weight", "a.b.a.1.bias", "dw.weight", "grp.weight", "up.weight"}
    np.testing.assert_array_equal(found["a.b.a.1.weight"], plain)
    np.testing.assert_array_equal(found["a.b.a.1.bias"], bias)
    np.testing.assert_array_equal(found["dw.weight"], depthwise)  # its bias of zeros is the converter's
    np.testing.assert_array_equal(found["grp.weight"], grouped)
    np.testing.assert_array_equal(found["up.weight"], turned)


def test_inputs_that_old_converters_do_not_state(tmp_path: Path) -> None:
    weight = array(6, 3, 2, 5)
    found = tensors(tmp_path, convolution("conv1", weight, weight.shape, inputs=0), source=0)
    np.testing.assert_array_equal(found["conv1.weight"], weight)


@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("left", [False, True])
def test_products_with_constants(flag: int, left: bool, tmp_path: Path) -> None:
    """x B with B (in, out), A x with A (out, in); each may be transposed."""
    weight = array(4, 6)
    inputs = [9, 0] if left else [0, 9]
    product = op(MATMUL, "/fc/MatMul_output_0", inputs, [1], (25, {1 if left else 2: ("b", flag)}))
    found = tensors(tmp_path, const("onnx::MatMul_3", weight, 9), product)
    np.testing.assert_array_equal(found["fc.weight"], weight if left != bool(flag) else weight.T)


def test_tables_vectors_and_parameters_by_name(tmp_path: Path) -> None:
    table, gain, query = array(7, 5), array(5), array(2, 5)
    norm = {2: gain, 3: gain + 1}
    found = tensors(
        tmp_path,
        const("words.weight", table, 9),
        op(GATHER, "/words/Gather_output_0", [9, 0], [1]),
        op(LAYER_NORM, "/norm/LayerNormalization_output_0", [1], [2], (88, norm)),
        const("gamma", gain, 10),
        op(7, "/Mul_output_0", [10, 2], [3], (6, {0: ("i", 2)})),
        const("query", query, 11),
        op(7, "/Add_output_0", [11, 3], [4], (6, {0: ("i", 0)})),
        const("onnx::Mul_5", np.float32([2.0]), 12),
        op(7, "/Mul_1_output_0", [12, 4], [5], (6, {0: ("i", 2)})),
    )
    expected = {"words.weight": table, "norm.weight": gain, "norm.bias": gain + 1, "gamma": gain, "query": query}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def quan(values: np.ndarray, alpha: np.ndarray, **fields: Any) -> dict[int, Any]:
    kind = fields.pop("kind", 1)
    half = alpha.dtype == np.float16
    content = {1: codes, 2: sparse, 4: lambda v: v.astype(np.int8).tobytes()}[kind](values)
    table = {0: np.frombuffer(content, np.int8), 2: ("i", kind), 4: ("f", 1.0)}
    table |= {14: alpha.view("<u2"), 15: ("b", 1)} if half else {1: alpha.astype("<f4")}
    return table | {int(name[1:]): value for name, value in fields.items()}


def dequantised(folder: Path, values: np.ndarray, table: dict[int, Any], **more: Any) -> tuple[np.ndarray, str]:
    shape = (*values.shape, 1, 1)
    made = convolution("/fc/MatMul_output_0__matmul_converted", None, shape, fields={3: table}, **more)
    with opened(folder, net([made])) as checkpoint:
        [name] = [info.name for info in checkpoint.tensors]
        plan = plan_weights(checkpoint)
        return checkpoint.read(name), plan.precision


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_every_width(bits: int, tmp_path: Path) -> None:
    values = RANDOM.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (9, 7))
    scale = RANDOM.random(9).astype(np.float32) + 0.1
    found, precision = dequantised(tmp_path, values, quan(values, scale, f7=("i", bits)))
    np.testing.assert_array_equal(found, values.astype(np.float32) * scale[:, None])
    assert precision == f"int{bits} mnn"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("least", [-8, 0, 1])
def test_blocks_with_a_minimum_each(least: int, dtype: type, tmp_path: Path) -> None:
    """Two blocks a row. Files of old converters do not say -128; a least code above zero shifts nothing."""
    values = RANDOM.integers(-8, 8, (6, 10))
    pairs = RANDOM.random((6, 2, 2)).astype(dtype)
    table = quan(values, pairs.reshape(-1), f7=("i", 4), f8=("i", least), f9=("i", 12))
    found, _ = dequantised(tmp_path, values, table)
    low, scale = (pairs[..., k].astype(np.float32) for k in (0, 1))
    low = low - np.float32(least or -128) * scale if least <= 0 else low
    expected = values.reshape(6, 2, 5).astype(np.float32) * scale[..., None] + low[..., None]
    np.testing.assert_array_equal(found, expected.reshape(6, 10))


def test_codes_of_other_kinds(tmp_path: Path) -> None:
    values = RANDOM.integers(-3, 4, (6, 50)) * (RANDOM.random((6, 50)) < 0.3)
    scale = RANDOM.random(6).astype(np.float32) + 0.1
    expected = values.astype(np.float32) * scale[:, None]
    for kind in (1, 2, 4):
        table = quan(values, scale, kind=kind, f7=("i", 3), f8=("i", -4))
        np.testing.assert_array_equal(dequantised(tmp_path, values, table)[0], expected)
    wide = quan(values, scale, f0=np.frombuffer(codes(values, wide=True), np.int8), f11=("b", 1))
    np.testing.assert_array_equal(dequantised(tmp_path, values, wide)[0], expected)
    places = np.flatnonzero(expected)
    kept = {1: expected.ravel()[places], 2: ("i", 1), 4: ("f", 1.0), 12: ("I", 300), 13: places.astype("<u4")}
    np.testing.assert_array_equal(dequantised(tmp_path, values, kept)[0], expected)
    half = {0: np.frombuffer(expected.astype("<f2").tobytes(), np.int8), 2: ("i", 3)}
    found, precision = dequantised(tmp_path, values, half)
    np.testing.assert_array_equal(found, expected.astype(np.float16))
    assert precision == "float16"


def test_weights_beside_the_model(tmp_path: Path) -> None:
    first, second = array(4, 3, 2, 2), array(5, 4)
    bias, gain = array(4), array(5)
    content = first.tobytes() + bias.tobytes() + second.tobytes() + gain.tobytes() + gain.tobytes()
    ops = [
        convolution("/a/Conv_output_0", None, first.shape, fields={6: np.array([0, 192, 16], "<i8")}),
        op(11, "words.weight", [], [9], (7, {0: i32(5, 4), 9: np.array([208, 80], "<i8")})),
        op(GATHER, "/words/Gather_output_0", [9, 1], [2]),
        op(LAYER_NORM, "/norm/LayerNormalization_output_0", [2], [3], (88, {5: np.array([288, 20, 20], "<i8")})),
    ]
    (tmp_path / "m.mnn.weight").write_bytes(content)
    found = tensors(tmp_path, *ops)
    expected = {"a.weight": first, "a.bias": bias, "words.weight": second, "norm.weight": gain, "norm.bias": gain}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert len(expand(tmp_path)) == 1  # the data are a part of the model
    (tmp_path / "m.mnn.weight").write_bytes(content[:-4])
    with pytest.raises(WeightsError, match="ends early"), opened(tmp_path, net(ops)) as checkpoint:
        plan_weights(checkpoint)
    (tmp_path / "m.mnn.weight").unlink()
    with pytest.raises(NotFoundError, match=r"has its weights in m\.mnn\.weight, which is not beside it"):
        opened(tmp_path, net(ops))


@pytest.mark.parametrize("path", ["../outside.weight", "/etc/hostname", "a/../../b", "C:x", ""])
def test_weights_elsewhere_are_refused(path: str, tmp_path: Path) -> None:
    made = convolution("/a/Conv_output_0", None, (4, 3, 2, 2), fields={6: np.array([0, 192, 16], "<i8")})
    made[7] = path
    if not path:  # the usual place, as a link that leads out of the folder
        (tmp_path / "in").mkdir()
        (tmp_path / "secret").write_bytes(bytes(400))
        (tmp_path / "in" / "m.mnn.weight").symlink_to(tmp_path / "secret")
        del made[7]
        tmp_path = tmp_path / "in"
    with pytest.raises(UnsafeError):
        opened(tmp_path, net([made]))


def test_parts_that_the_converter_cut_are_one_layer(tmp_path: Path) -> None:
    """Groups, of which only one has a bias, and the depths of a kernel of three axes."""
    groups, depths, bias = array(2, 3, 4, 2, 2), array(3, 5, 2, 2, 2), array(3)
    ops = [convolution(f"/g/Conv_output_0__group__{k}", groups[k], (3, 4, 2, 2), place=k) for k in range(2)]
    ops[1] = convolution("/g/Conv_output_0__group__1", groups[1], (3, 4, 2, 2), place=1, bias=bias)
    ops += [op(10, "/g/Conv_output_0", [1, 2], [3])]
    ops += [convolution(f"/d/Conv_output_0__{k}", depths[k], (5, 2, 2, 2), place=3 + k) for k in range(3)]
    ops += [op(100, "/d/Conv_output_0", [6], [7])]
    found = tensors(tmp_path, *ops)
    assert set(found) == {"g.weight", "g.bias", "d.weight"}
    np.testing.assert_array_equal(found["g.weight"], groups.reshape(6, 4, 2, 2))
    np.testing.assert_array_equal(found["g.bias"], [0, 0, 0, *bias])
    np.testing.assert_array_equal(found["d.weight"], depths.transpose(1, 2, 0, 3, 4))
    with pytest.raises(WeightsError, match="do not fit"):
        tensors(tmp_path, ops[1], ops[0], *ops[2:])


def test_values_that_are_called_by_numbers_are_in_their_order(tmp_path: Path) -> None:
    """The converter lists what each output needs; ONNX had the second head first."""
    trunk, first, second = array(4, 3, 1, 1), array(2, 4, 1, 1), array(5, 4, 1, 1)
    heads = [convolution("12", first, first.shape, place=1), convolution("10", second, second.shape, place=1)]
    heads[1][4] = i32(3)
    with opened(tmp_path, net([convolution("7", trunk, trunk.shape), *heads])) as checkpoint:
        assert [layer.shape[0] for layer in plan_weights(checkpoint).layers] == [4, 5, 2]


# Against MNN itself

JOINED = "the converter adds up or computes biases of recurrent layers; not all of them are counted"


def exported(module: nn.Module, given: tuple[torch.Tensor, ...], path: Path) -> None:
    """By torch's older exporter, which MNN reads; it warns that it is old. The input of a layer alone is x."""
    names = ["x"] if len(given) == 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, given, str(path), dynamo=False, input_names=names, output_names=["y"] if names else None
        )


class Mixed(nn.Module):
    """Layers that the converter stores as they are, cuts, or makes loops of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)))
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grp = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.depth = nn.Conv3d(1, 4, (3, 2, 2))
        self.words = nn.Embedding(11, 16)
        self.norm = nn.LayerNorm(16)
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, 16, bias=False)
        self.gamma = nn.Parameter(torch.randn(16))
        self.lstm = nn.LSTM(16, 10, batch_first=True, bidirectional=True, num_layers=2)
        self.gru = nn.GRU(20, 7, batch_first=True)
        self.head = nn.Linear(7, 5)

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """An image and tokens to one tensor."""
        x = self.up(self.grp(self.dw(self.stem(image))).relu())
        y = self.norm(self.words(tokens))
        y = y + self.gamma * self.fc2(self.fc1(y).relu())
        y = self.gru(self.lstm(y)[0])[0]
        found: torch.Tensor = self.head(y).sum() + self.depth(x[:, None, :1].repeat(1, 1, 4, 1, 1)).sum()
        return found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    converter("MNN")
    torch.manual_seed(0)
    module = Mixed().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    given = (torch.randn(1, 3, 8, 8), torch.arange(7)[None])
    exported(module, given, path)
    return module, path


def test_a_converted_network_is_the_same(mixed: tuple[nn.Module, Path], tmp_path: Path) -> None:
    module, path = mixed
    live = read(open_module(module))
    for name, options in (("plain", ()), ("beside", ("--saveExternalData",)), ("native", ("--groupConvNative",)),
                          ("products", ("--convertMatmulToConv", "0"))):  # fmt: skip
        found = read(open_ref(expand(convert("ONNX", path, tmp_path / f"{name}.mnn", *options))[0]))
        assert [(layer.name, layer.shape) for layer in found.plan.layers] == [
            (layer.name, layer.shape) for layer in live.plan.layers
        ]
        for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=layer.name)
        assert set(distances(live.measured, found.measured).values()) == {0.0}
        # the two biases of an LSTM are stored as their sum
        assert live.plan.parameters - found.plan.parameters == 4 * 40
        assert found.names == {name for name in live.names if not name.startswith("lstm.bias_hh")}
        assert found.plan.notes == (JOINED,)


def test_recurrent_layers_that_stay_operators(mixed: tuple[nn.Module, Path], tmp_path: Path) -> None:
    """Those of an LSTM are read; of a GRU the layout is another one, so that the model is refused."""
    lstm = nn.Sequential(nn.LSTM(6, 5, num_layers=2, bidirectional=True))
    live = read(open_module(lstm))
    exported(lstm, (torch.randn(4, 1, 6),), tmp_path / "l.onnx")
    path = convert("ONNX", tmp_path / "l.onnx", tmp_path / "l.mnn", "--useOriginRNNImpl")
    found = read(open_ref(expand(path)[0]))
    for one, two in zip(live.matrices, found.matrices, strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.names == {name for name in live.names if "bias" not in name}
    assert found.plan.notes == (JOINED,)
    path = convert("ONNX", mixed[1], tmp_path / "m.mnn", "--useOriginRNNImpl")
    with pytest.raises(WeightsError, match="weights are used by operators of type 105") as caught:
        open_ref(expand(path)[0])
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        ("8",), ("8", "--weightQuantAsymmetric", "0"), ("4",), ("3",), ("2",), ("4", "--weightQuantBlock", "4"),
        ("4", "--weightQuantScaleBit", "16"), ("4", "--weightQuantScaleBit", "16", "--saveExternalData"),
        ("8", "--weightQuantBlock", "4", "--saveExternalData"),
    ],
)  # fmt: skip
def test_codes_are_what_mnn_computes_with(options: tuple[str, ...], tmp_path: Path) -> None:
    """A product with the identity gives the weights that the runtime uses."""
    converter("MNN")
    torch.manual_seed(1)
    module, eye = nn.Conv2d(12, 9, 1), torch.eye(12).reshape(12, 12, 1, 1)
    exported(module, (eye,), tmp_path / "m.onnx")
    path = convert("ONNX", tmp_path / "m.onnx", tmp_path / "m.mnn", "--weightQuantBits", *options)
    with open_ref(expand(path)[0]) as checkpoint:
        found = {len(info.shape): checkpoint.read(info.name) for info in checkpoint.tensors}
        assert plan_weights(checkpoint).precision == f"int{options[0]} mnn"
    computed = run(path, eye.numpy()).reshape(12, 9)
    assert np.abs(found[4].reshape(9, 12) - module.weight.detach().numpy().reshape(9, 12)).max() > 1e-5  # the control
    np.testing.assert_allclose(found[4].reshape(9, 12).T + found[1], computed, rtol=0, atol=2e-7)


# Files made to harm


def read_as_mnn(path: Path) -> None:
    """Read a file as an ingest does, by the reader of MNN whatever its first bytes are."""
    with open_ref(ModelRef("mnn", str(path), "m")) as checkpoint:
        for layer in plan_weights(checkpoint).layers:
            layer_matrix(checkpoint, layer)


def refused(folder: Path, content: bytes, error: type[SourceError], words: str) -> None:
    tracemalloc.start()
    try:
        (folder / "m.mnn").write_bytes(content)
        with pytest.raises(error, match=words or None) as caught:
            read_as_mnn(folder / "m.mnn")
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


W = np.ones(24, np.float32)
HUGE = np.frombuffer(bytes([2]) + struct.pack("<2I", 10**6, 10**6) + b"\2\0\1", np.int8)
HOSTILE: dict[str, tuple[Callable[[], dict[int, Any]], type[SourceError], str]] = {
    "10^12 weights": (lambda: convolution("c", W, (10**6, 10**6, 1, 1)), WeightsError, "do not fit"),
    "negative numbers": (lambda: convolution("c", W, (-2, 3, 2, 2)), WeightsError, "do not fit"),
    "no outputs": (lambda: convolution("c", W, (0, 3, 2, 2)), WeightsError, "do not fit"),
    "a kernel of 2^31": (lambda: convolution("c", W, (2, 3, 2**31 - 1, 2**31 - 1)), WeightsError, "do not fit"),
    "no weights": (lambda: convolution("c", np.zeros(0), (2, 3, 2, 2)), WeightsError, "holds no weights"),
    "int8 without scales": (
        lambda: convolution("c", None, (2, 3, 2, 2), fields={4: {0: np.zeros(24, np.int8)}}),
        WeightsError, "int8 weights without scales",
    ),
    "an unknown coding": (
        lambda: convolution("c", None, (2, 3, 2, 2), fields={3: {2: ("i", 9)}}), WeightsError, "unknown way",
    ),
    "codes of 10^12": (
        lambda: convolution("c", None, (10**6, 10**6, 1, 1), fields={
            3: quan(np.zeros((2, 3), int), np.ones(2), f0=HUGE,
                    f11=("b", 1))}),
        WeightsError, "too few",
    ),
    "no codes": (
        lambda: convolution("c", None, (2, 3, 1, 1), fields={3: {2: ("i", 1), 1: np.ones(2, "<f4"), 4: ("f", 1.0)}}),
        WeightsError, "too few",
    ),
    "codes of 200 axes": (
        lambda: convolution("c", None, (2, 3, 1, 1), fields={3: quan(
            np.zeros((2, 3), int), np.ones(2), f0=np.full(9, 200, np.uint8).view(np.int8))}),
        WeightsError, "200 dimensions",
    ),
    "scales that do not fit": (
        lambda: convolution("c", None, (2, 3, 1, 1), fields={3: quan(np.zeros((2, 3), int), np.ones(5))}),
        WeightsError, "numbers of scales",
    ),
    "zeros of nothing": (
        lambda: convolution("c", None, (10**5, 10**5, 1, 1), fields={
            3: {1: np.ones(1, "<f4"), 2: ("i", 1), 4: ("f", 1.0), 12: ("I", 2**32 - 1), 13: np.ones(1, "<u4")}}),
        WeightsError, "do not fit|the rest is zero",
    ),
    "mostly zeros": (
        lambda: convolution("c", None, (2**16, 2**15, 1, 1), fields={
            3: {1: np.ones(1, "<f4"), 2: ("i", 1), 4: ("f", 1.0), 12: ("I", 2**31), 13: np.ones(1, "<u4")}}),
        WeightsError, "the rest is zero",
    ),
    "a place beyond the end": (
        lambda: convolution("c", None, (2, 3, 1, 1), fields={
            3: {1: np.ones(1, "<f4"), 2: ("i", 1), 4: ("f", 1.0), 12: ("I", 6), 13: np.array([6], "<u4")}}),
        WeightsError, "a value at place 6",
    ),
    "weights before the file": (
        lambda: convolution("c", None, (2, 3, 2, 2), fields={6: np.array([-8, 96, 8], "<i8")}), WeightsError, "at",
    ),
    "a blob of 10^12": (
        lambda: op(GATHER, "g", [9, 0], [1]), WeightsError, "takes 4000000000000 bytes",
    ),
    "a layout of old converters": (
        lambda: op(38, "l", [0], [1], (24, {3: {0: i32(2, 3), 7: W}})), WeightsError, "a layout of old converters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_an_operator_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    make, error, words = HOSTILE[case]
    large = op(11, "k", [], [9], (7, {0: i32(10**6, 10**6), 7: W}))
    refused(tmp_path, net([large, make()] if case == "a blob of 10^12" else [make()]), error, words)


def test_graphs_that_run_each_other(tmp_path: Path) -> None:
    """Each of many is run by the one before it; each of two by the other is looked at once."""

    def graph(number: int, runs: int, ops: list[dict[int, Any]]) -> dict[int, Any]:
        loop = op(600, "w", [0], [1], (85, {0: "none", 1: f"g{runs}"}))
        return {0: f"g{number}", 1: i32(0), 2: i32(1), 4: [loop, *ops]}

    main = [op(600, "w", [0], [1], (85, {1: "g0"}))]
    deep = [graph(number, number + 1, []) for number in range(40)]
    refused(tmp_path, net(main, fields={10: deep}), UnsafeError, "nests graphs deeper than 16")
    weight = array(4, 3, 1, 1)
    both = [graph(0, 1, []), graph(1, 0, [convolution("/c/Conv_output_0", weight, weight.shape)])]
    with opened(tmp_path, net(main, fields={10: both})) as checkpoint:
        assert [info.name for info in checkpoint.tensors] == ["c.weight"]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
def test_a_file_that_is_cut_off(share: float, tmp_path: Path) -> None:
    content = small_mnn()
    path = tmp_path / "m.mnn"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RegistryError) as caught:
        read_as_mnn(path)
    assert caught.value.remedy


def test_what_is_no_model(tmp_path: Path) -> None:
    refused(tmp_path, bytes(1000), WeightsError, "damaged")
    refused(tmp_path, os.urandom(64) * 50, SourceError, "")
    refused(tmp_path, struct.pack("<I", 2**31) + bytes(100), WeightsError, "refers to byte")
    with pytest.raises(NotFoundError, match="no entry 'x'"):
        open_ref(ModelRef("mnn", str(tmp_path / "m.mnn"), "m", key="x"))


def test_weights_of_unknown_operators_are_told_or_refused(tmp_path: Path) -> None:
    weight = array(40, 30, 1, 1)
    known = convolution("/c/Conv_output_0", weight, weight.shape)
    foreign = op(299, "a", [9], [4])
    with opened(tmp_path, net([known, const("k::1", array(5, 4), 9), foreign])) as checkpoint:
        assert plan_weights(checkpoint).notes == ("1 weight used by operators of type 299 are left out",)
    with pytest.raises(WeightsError, match="400 of 1600 weights are used by operators of type 299"):
        opened(tmp_path, net([known, const("k::1", array(20, 20), 9), foreign]))


def test_the_small_model(tmp_path: Path) -> None:
    with opened(tmp_path, small_mnn()) as checkpoint:
        plan = plan_weights(checkpoint)
        assert [layer.name for layer in plan.layers] == ["conv.weight", "emb.weight", "fc.weight", "head.weight"]
        assert plan.precision == "float32, int4 mnn"
