"""Core ML models: against what was written, against what coremltools makes of one network, and files made to harm."""

from __future__ import annotations

import os
import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from registry.types import ModelRef
from tests.layouts.measured import read
from tests.sources import coreml_files as files
from tests.sources.coreml_files import const, field, layer, network, operation, package, packed, program, value, weights
from tests.sources.layouts import converter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint

RANDOM = np.random.default_rng(0)


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


def opened(folder: Path, content: bytes, key: str | None = None) -> Checkpoint:
    (folder / "net.mlmodel").write_bytes(content)
    [ref] = expand(folder / "net.mlmodel", key=key)
    assert ref.source == "coreml"
    return open_ref(ref)


def tensors(folder: Path, content: bytes, key: str | None = None) -> dict[str, np.ndarray]:
    with opened(folder, content, key) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


# Neural networks


def sizes(*pairs: tuple[int, int]) -> bytes:
    return b"".join(field(place, number) for place, number in pairs)


def test_layers_of_a_network(tmp_path: Path) -> None:
    conv, up, fc, table, own = array(4, 2, 3, 2), array(4, 3, 2, 2), array(5, 3), array(6, 7), array(5, 6)
    bias, gain = array(4), array(7)
    kernel = field(20, packed([3, 2]))
    content = network(
        layer(
            "conv", 100, sizes((1, 4), (2, 2), (10, 2)) + kernel + field(90, weights(conv)) + field(91, weights(bias))
        ),
        layer("up", 100, sizes((1, 6), (2, 4), (10, 2), (60, 1)) + field(20, packed([2, 2])) + field(90, weights(up))),
        layer("fc", 140, sizes((1, 3), (2, 5)) + field(20, weights(fc)) + field(21, weights(np.zeros(5, np.float32)))),
        layer("words", 150, sizes((1, 7), (2, 6)) + field(20, weights(table))),
        layer("product", 1045, sizes((5, 6), (6, 5)) + field(8, weights(own))),
        layer("norm", 160, sizes((1, 7)) + b"".join(field(place, weights(gain + place)) for place in (15, 16, 17, 18))),
        layer("scale", 245, field(1, packed([7, 1, 1])) + field(2, weights(gain))),
        layer("slope", 130, field(25, field(1, weights(gain)))),
        kind=403,
    )
    same(tensors(tmp_path, content), {
        "conv.weight": conv, "conv.bias": bias, "up.weight": up, "fc.weight": fc, "words.weight": table.T,
        "product.weight": own, "norm.weight": gain + 15, "norm.bias": gain + 16, "norm.running_mean": gain + 17,
        "norm.running_var": gain + 18, "scale.weight": gain, "slope.weight": gain,
    })  # fmt: skip


def test_gates_are_those_of_torch_in_torchs_order(tmp_path: Path) -> None:
    def gates(places: tuple[int, ...], *shape: int) -> bytes:
        return b"".join(field(place, weights(np.full(shape, place, np.float32))) for place in places)

    lstm = gates((1, 2, 3, 4), 2, 3) + gates((20, 21, 22, 23), 2, 2) + gates((40, 41, 42, 43), 2)
    gru = gates((30, 31, 32), 2, 3) + gates((50, 51, 52), 2, 2)
    content = network(
        layer("both", 430, sizes((1, 3), (2, 2)) + field(20, lstm) + field(20, lstm)),
        layer("gru", 410, sizes((1, 3), (2, 2)) + gru),
    )
    found = tensors(tmp_path, content)
    assert found["both.weight_ih_l0"][::2, 0].tolist() == [1, 2, 3, 4]
    assert found["both.weight_hh_l0_reverse"][::2, 0].tolist() == [20, 21, 22, 23]
    assert found["both.bias_ih_l0"][::2].tolist() == [40, 41, 42, 43]
    assert found["gru.weight_ih_l0"][::2, 0].tolist() == [31, 30, 32]
    assert found["gru.weight_hh_l0"][::2, 0].tolist() == [51, 50, 52]
    with pytest.raises(WeightsError, match="without all its gates"):
        tensors(tmp_path, network(layer("gru", 410, sizes((1, 3), (2, 2)) + gates((30, 32), 2, 3))))


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_a_network(bits: int, tmp_path: Path) -> None:
    """High bits first; a scale for each output, also of a transposed convolution, or one; a table."""
    codes = RANDOM.integers(0, 2**bits, (4, 6, 2, 2))
    text = "".join(f"{code:0{bits}b}" for code in codes.ravel())
    data = bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))
    scale, offset, table = array(4), array(4), array(2**bits)
    plain = sizes((1, 4), (2, 6)) + field(20, packed([2, 2]))
    turned = sizes((1, 6), (2, 4), (60, 1)) + field(20, packed([2, 2]))
    wide, low = array(6), array(6)
    content = network(
        layer("a", 100, plain + field(90, files.linear(data, bits, scale, offset))),
        layer("b", 100, plain + field(90, files.table(data, bits, table))),
        layer("c", 100, plain + field(90, files.linear(data, bits, scale[:1], offset[:1]))),
        layer("d", 100, turned + field(90, files.linear(data, bits, wide, low))),
    )
    spread = (slice(None), None, None, None)
    as_floats = codes.astype(np.float32)
    same(tensors(tmp_path, content), {
        "a.weight": as_floats * scale[spread] + offset[spread], "b.weight": table[codes],
        "c.weight": as_floats * scale[0] + offset[0],
        "d.weight": as_floats * wide[:, None, None] + low[:, None, None],
    })  # fmt: skip
    with opened(tmp_path, content) as checkpoint:
        assert plan_weights(checkpoint).precision == f"int{bits} coreml"


def test_halves_and_codes_with_a_sign(tmp_path: Path) -> None:
    half, codes = array(5, 3, dtype="float16"), RANDOM.integers(-128, 128, (5, 3)).astype(np.int8)
    quantised = field(31, codes.tobytes()) + field(40, field(1, 8) + field(101, field(1, struct.pack("<f", 0.5))))
    content = network(
        layer("a", 140, sizes((1, 3), (2, 5)) + field(20, weights(half))),
        layer("b", 140, sizes((1, 3), (2, 5), (22, 1)) + field(20, quantised)),
    )
    same(tensors(tmp_path, content), {"a.weight": half.astype(np.float32), "b.weight": codes * np.float32(0.5)})


def test_constants_of_a_network_that_are_weights(tmp_path: Path) -> None:
    factor, vector, words = array(3, 5), array(5), array(7, 4)

    def constant(name: str, content: np.ndarray) -> bytes:
        return layer(name, 1070, field(1, packed(content.shape)) + field(2, weights(content)), [], name)

    content = network(
        constant("w", factor), layer("fc", 1045, b"", ["x", "w"]), constant("g", vector),
        layer("gain", 900, b"", ["fc", "g"]), constant("e", words), layer("words", 930, b"", ["e", "x"]),
        constant("grid", array(6, 6)), layer("sum", 880, b"", ["x", "grid"]),
    )  # fmt: skip
    same(tensors(tmp_path, content), {"fc.weight": factor.T, "g.scale": vector, "words.weight": words})
    other = network(constant("w", factor), layer("fc", 1045, sizes((2, 1)), ["x", "w"]))
    same(tensors(tmp_path, other), {"fc.weight": factor})


def test_networks_in_loops_and_pipelines(tmp_path: Path) -> None:
    one, two = array(3, 4), array(5, 3)
    inner = [layer("fc", 140, sizes((1, w.shape[1]), (2, w.shape[0])) + field(20, weights(w))) for w in (one, two)]
    loop = network(inner[0], layer("loop", 615, field(4, inner[1])))
    same(tensors(tmp_path, loop), {"fc.weight": one, "fc_2.weight": two})
    chain = files.pipeline([network(inner[0]), files.model(604, b""), network(inner[1])], ["first", "scaler", "a/b"])
    same(tensors(tmp_path, chain), {"first/fc.weight": one, "a_b/fc.weight": two})
    alone = files.pipeline([files.model(604, b""), network(inner[1])], ["scaler", "net"])
    same(tensors(tmp_path, alone), {"fc.weight": two})


# Programs


def test_operations_of_a_program(tmp_path: Path) -> None:
    conv, up, fc, left, right = array(4, 2, 3, 3), array(4, 3, 2, 2), array(5, 3), array(6, 5), array(5, 6)
    words, gain, half = array(7, 6), array(6), array(6, 7, dtype="float16")
    yes = value(np.array(1, np.int32))
    content = program(
        const("m_conv_weight_to_fp16", value(conv)),
        operation("conv", "a", {"x": "x", "weight": "m_conv_weight_to_fp16"}),
        operation("conv_transpose", "b", {"x": "a", "weight": value(up)}),
        const("fc_weight", value(fc)), const("fc_bias", value(np.zeros(5, np.float32))),
        operation("linear", "c", {"x": "b", "weight": "fc_weight", "bias": "fc_bias"}),
        const("k", value(right)), operation("matmul", "d", {"x": "c", "y": "k"}),
        const("l", value(left)), operation("matmul", "e", {"x": "l", "y": "d"}),
        operation("matmul", "f", {"x": "e", "y": value(half), "transpose_y": yes}),
        const("words_weight", value(words)), operation("gather", "g", {"x": "words_weight", "indices": "t"}),
        const("gamma", value(gain)), operation("mul", "h", {"x": "g", "y": "gamma"}),
        operation("layer_norm", "i", {"x": "h", "gamma": value(gain), "beta": value(gain + 1)}),
        const("grid", value(array(6, 6))), operation("add", "y", {"x": "i", "y": "grid"}),
    )  # fmt: skip
    same(tensors(tmp_path, content), {
        "m_conv.weight": conv, "conv_transpose_0.weight": up, "fc.weight": fc, "matmul_0.weight": right.T,
        "matmul_1.weight": left, "matmul_2.weight": half.astype(np.float32), "words.weight": words, "gamma.scale": gain,
        "layer_norm_0.weight": gain, "layer_norm_0.bias": gain + 1,
    })  # fmt: skip


def test_recurrent_operations(tmp_path: Path) -> None:
    """i f o g and r n z as torch's i f g o and r z n."""
    lstm, gru = (
        np.repeat(np.arange(count), 2).astype(np.float32)[:, None] * np.ones((1, 2), np.float32) for count in (4, 3)
    )
    given = {
        "weight_ih": value(lstm),
        "weight_hh": value(lstm),
        "weight_ih_back": value(lstm),
        "bias": value(lstm[:, 0]),
    }
    content = program(
        operation("lstm", "a", {"x": "x", **given}),
        operation("gru", "y", {"x": "a", "weight_ih": value(gru), "weight_hh": value(gru)}),
    )
    found = tensors(tmp_path, content)
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse"):
        assert found[f"a.{name}"][::2, 0].tolist() == [0, 1, 3, 2]
    assert found["a.bias_ih_l0"][::2].tolist() == [0, 1, 3, 2]
    assert found["y.weight_ih_l0"][::2, 0].tolist() == [0, 2, 1]


def test_blocks_functions_and_shared_constants(tmp_path: Path) -> None:
    weight, other = array(5, 4), array(3, 4)
    product = operation("linear", "b", {"x": "x", "weight": "w_weight"})
    inner = field(2, "b") + product
    body = const("w_weight", value(weight)) + product + operation("cond", "y", {"pred": "p"}, blocks=[inner, inner])
    content = program(functions={"main": field(2, "y") + body, "other": field(2, "b") + operation(
        "linear", "b", {"x": "x", "weight": value(other)})})  # fmt: skip
    same(tensors(tmp_path, content), {"w.weight": weight})
    with opened(tmp_path, content) as checkpoint:
        assert plan_weights(checkpoint).notes == ("other functions were left out; --key chooses one: other",)
    same(tensors(tmp_path, content, "other"), {"linear_0.weight": other})
    with pytest.raises(NotFoundError, match="no function 'third'"):
        opened(tmp_path, content, "third")
    with pytest.raises(NotFoundError, match="no entry 'main'"):
        opened(tmp_path, files.small_network(), "main")


def test_a_package_with_its_weights_beside(tmp_path: Path) -> None:
    first, second = array(4, 3), RANDOM.integers(0, 256, (6, 5)).astype(np.uint8)
    data, places = files.blobs([(first.tobytes(), "float32"), (second.tobytes(), "uint8")])
    name = "@model_path/weights/weight.bin"
    affine = {
        "quantized_data": value(second, blob=(name, places[1])), "scale": value(np.float32(0.25)),
        "zero_point": value(np.uint8(128)), "axis": value(np.int32(0)),
    }  # fmt: skip
    content = program(
        const("a_weight", value(first, blob=(name, places[0]))),
        operation("linear", "a", {"x": "x", "weight": "a_weight"}),
        operation("constexpr_affine_dequantize", "b_weight", {}, affine),
        operation("linear", "y", {"x": "a", "weight": "b_weight"}),
    )
    path = package(tmp_path, content, data)
    [ref] = expand(path)
    assert ref.name == "net"
    assert [each.name for each in expand(tmp_path)] == ["net"]
    assert expand(path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin")[0].target == ref.target
    with open_ref(ref) as checkpoint:
        same({info.name: checkpoint.read(info.name) for info in checkpoint.tensors}, {
            "a.weight": first, "b.weight": (second.astype(np.float32) - 128) * np.float32(0.25),
        })  # fmt: skip
        assert plan_weights(checkpoint).precision == "uint8 coreml, float32"
    (path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").unlink()
    with (
        pytest.raises(NotFoundError, match=r"weights/weight\.bin, which is not beside it"),
        open_ref(ref) as checkpoint,
    ):
        plan_weights(checkpoint)


# Against coremltools


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    converter("coremltools")
    return files.converted(tmp_path_factory.mktemp("coreml"))


EXACT = ("program.mlpackage", "network.mlmodel")
HALVES = ("half.mlpackage", "n16.mlmodel")
COMPRESSED = {
    "int8.mlpackage": "int8 coreml", "lut4.mlpackage": "lut4 coreml", "lut6.mlpackage": "lut6 coreml",
    "sparse.mlpackage": "float32", "block4.mlpackage": "int4 coreml, float32",
    "groups.mlpackage": "lut3 coreml, float32",
    "n8.mlmodel": "int8 coreml", "n4.mlmodel": "int4 coreml", "n3.mlmodel": "int3 coreml", "n5.mlmodel": "int5 coreml",
}  # fmt: skip


def test_a_converted_network_is_the_same(made: Path) -> None:
    live = read(open_ref(expand(made / "net.pt")[0]))
    assert len(live.matrices) == 27
    for name in (*EXACT, *HALVES):
        found = read(open_ref(expand(made / name)[0]))
        assert [matrix.shape for matrix in found.matrices] == [matrix.shape for matrix in live.matrices], name
        for one, two, stored in zip(live.matrices, found.matrices, live.plan.layers, strict=True):
            np.testing.assert_allclose(two, one, rtol=2.0**-10 if name in HALVES else 0, atol=1e-7 * (name in HALVES),
                                       err_msg=f"{name} {stored.name}")  # fmt: skip
        assert found.plan.notes == ("the two biases of a recurrent layer are stored as their sum, and counted once",)
        # 2 * 40 of the LSTM, 8 of the RNN
        assert live.plan.parameters - found.plan.parameters == 88, name


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_is_compressed_is_what_coremltools_makes_of_it(name: str, made: Path) -> None:
    plain = read(open_ref(expand(made / "network.mlmodel")[0]))
    found = read(open_ref(expand(made / name)[0]))
    stem, _, suffix = name.partition(".")
    other = read(open_ref(expand(made / f"{stem}-plain.{suffix}")[0]))
    assert found.plan.precision == COMPRESSED[name]
    assert other.plan.precision == "float32"
    assert max(np.abs(a - b).max() for a, b in zip(found.matrices, plain.matrices, strict=True)) > 1e-4  # the control
    for one, two in zip(found.matrices, other.matrices, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=0 if suffix == "mlpackage" else 4e-8)


# Files made to harm


def read_as_coreml(path: Path) -> None:
    """Read a file as an ingest does, by the reader of Core ML whatever its first bytes are."""
    with open_ref(ModelRef("coreml", str(path), "m")) as checkpoint:
        for each in plan_weights(checkpoint).layers:
            layer_matrix(checkpoint, each)


def refused(path: Path, error: type[SourceError], words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=words or None) as caught:
            read_as_coreml(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def product(weight: bytes, *before: bytes) -> bytes:
    return program(*before, operation("linear", "y", {"x": "x", "weight": weight or "w"}))  # type: ignore[dict-item]


def nested(depth: int) -> bytes:
    block = field(2, "y") + operation("linear", "y", {"x": "x", "weight": value(np.ones((3, 3), np.float32))})
    for _ in range(depth):
        block = field(2, "y") + operation("cond", "y", {"x": "x"}, blocks=[block])
    return program(block[3:])


def pipelines(depth: int) -> bytes:
    content = files.small_network()
    for _ in range(depth):
        content = files.pipeline([content], ["a"])
    return content


ONES = np.ones((3, 4), np.float32)
CODES = value(np.ones((3, 4), np.int8))
LAYER = sizes((1, 4), (2, 3))
HOSTILE: dict[str, tuple[Callable[[], bytes], type[SourceError], str]] = {
    "10^12 values": (lambda: product(value(ONES, shape=(10**6, 10**6))), WeightsError, "takes 4000000000000 bytes"),
    "2^62 values": (lambda: product(value(ONES, shape=(2**62, 4))), WeightsError, "has a value of shape"),
    "100 dimensions": (lambda: product(value(ONES, shape=(1,) * 100)), UnsafeError, "more than 32 dimensions"),
    "10^12 weights of a layer": (
        lambda: network(layer("a", 140, sizes((1, 10**6), (2, 10**6)) + field(20, weights(ONES)))),
        WeightsError, "has 48 bytes",
    ),
    "a layer of nothing": (
        lambda: network(layer("a", 140, field(20, weights(ONES)))), WeightsError, "sizes do not fit",
    ),
    "a layer of 2^63": (
        lambda: network(layer("a", 140, sizes((1, 2**63), (2, 3)) + field(20, weights(ONES)))),
        WeightsError, "sizes do not fit",
    ),
    "codes without scales": (
        lambda: network(layer("a", 140, LAYER + field(20, field(30, bytes(12))))), WeightsError, "codes without scales",
    ),
    "codes of 60 bits": (
        lambda: network(layer("a", 140, LAYER + field(20, files.linear(bytes(90), 60, ONES[0], ONES[0])))),
        WeightsError, "codes of 60 bits",
    ),
    "scales that do not fit": (
        lambda: network(layer("a", 140, LAYER + field(20, files.linear(bytes(12), 8, np.ones(5), np.ones(5))))),
        WeightsError, "has 5 scales",
    ),
    "a table that is too short": (
        lambda: network(layer("a", 140, LAYER + field(20, files.table(bytes(12), 8, np.ones(5))))),
        WeightsError, "too few values",
    ),
    "numbers in many pieces": (
        lambda: network(layer("a", 140, LAYER + field(20, field(1, bytes(24)) * 2))), WeightsError, "not in one piece",
    ),
    "blocks that do not fit": (
        lambda: product(b"", operation("constexpr_blockwise_shift_scale", "w", {
            "data": CODES, "scale": value(np.ones((2, 3), np.float32))})),
        WeightsError, "do not fit",
    ),
    "a scale of nothing": (
        lambda: product(b"", operation("constexpr_affine_dequantize", "w", {}, {"quantized_data": CODES})),
        WeightsError, "lacks scale",
    ),
    "a table of a shape of 10^12": (
        lambda: product(b"", operation("constexpr_lut_to_dense", "w", {}, {
            "indices": value(np.ones(6, np.uint8)), "lut": value(np.ones(16, np.float32)),
            "shape": value(np.array([10**6, 10**6], np.uint32))})),
        WeightsError, "do not fit",
    ),
    "a mask that does not fit": (
        lambda: product(b"", operation("constexpr_sparse_to_dense", "w", {}, {
            "nonzero_data": value(np.ones(5, np.float32)), "mask": value(np.full(2, 255, np.uint8)),
            "shape": value(np.array([3, 4], np.uint32))})),
        WeightsError, "do not fit",
    ),
    "two kinds of compression": (
        lambda: product(b"", operation("constexpr_lut_to_sparse", "w", {"lut": CODES})),
        WeightsError, "compressed by constexpr_lut_to_sparse, which is not read",
    ),
    "a constant made of itself": (
        lambda: product(b"", operation("constexpr_cast", "w", {"source_val": "w"})), WeightsError, "lacks source_val",
    ),
    "blocks within blocks": (lambda: nested(30), UnsafeError, "nests blocks deeper than 16"),
    "pipelines within pipelines": (lambda: pipelines(20), UnsafeError, "nests pipelines deeper than 8"),
    "a link": (lambda: files.model(556, field(1, "x")), WeightsError, "a model in another file"),
    "a model of trees": (lambda: files.model(302, field(1, "x")), WeightsError, "holds no weights of a network"),
    "a program of nothing": (lambda: files.model(502, field(1, 1)), WeightsError, "without functions"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_model_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    make, error, words = HOSTILE[case]
    (tmp_path / "net.mlmodel").write_bytes(make())
    refused(tmp_path / "net.mlmodel", error, words)


@pytest.mark.parametrize(
    "location", ["@model_path/../x", "/etc/hostname", "@model_path//etc/hostname", "a/../../b", ""]
)
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    path = package(tmp_path, product(value(ONES, blob=(location, 64))), bytes(1000))
    refused(path / "Data" / "com.apple.CoreML" / "model.mlmodel", UnsafeError, "no file in the folder")


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    content = product(value(ONES, blob=("@model_path/weights/weight.bin", 64)))
    inner = package(tmp_path, content) / "Data" / "com.apple.CoreML"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weight.bin").write_bytes(files.blobs([(ONES.tobytes(), "float32")])[0])
    (inner / "weights").symlink_to(tmp_path / "elsewhere")
    refused(inner / "model.mlmodel", UnsafeError, "leads out of the folder")


@pytest.mark.parametrize("damage", ["mark", "type", "size", "place", "beyond", "offset"])
def test_a_blob_that_lies_is_refused(damage: str, tmp_path: Path) -> None:
    data, [place] = files.blobs([(ONES.tobytes(), "float32")])
    found = bytearray(data)
    changes = {"mark": (0, "<I", 1), "type": (4, "<I", 1), "size": (8, "<Q", 40), "place": (16, "<Q", 3),
               "beyond": (16, "<Q", 2**40)}  # fmt: skip
    if damage in changes:
        at, kind, number = changes[damage]
        struct.pack_into(kind, found, place + at, number)
    at = 2**40 if damage == "offset" else place
    content = product(value(ONES, blob=("@model_path/weights/weight.bin", at)))
    inner = package(tmp_path, content, bytes(found)) / "Data" / "com.apple.CoreML"
    refused(inner / "model.mlmodel", WeightsError, "no blob of 48 bytes|ends early")


@pytest.mark.parametrize("make", [files.small_network, files.small_program])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
def test_a_file_that_is_cut_off(share: float, make: Callable[[], bytes], tmp_path: Path) -> None:
    content = make()
    (tmp_path / "net.mlmodel").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RegistryError) as caught:
        read_as_coreml(tmp_path / "net.mlmodel")
    assert caught.value.remedy


def test_what_is_no_model(tmp_path: Path) -> None:
    for content in (bytes(1000), os.urandom(64) * 50, b"\xff" * 100):
        (tmp_path / "net.mlmodel").write_bytes(content)
        refused(tmp_path / "net.mlmodel", SourceError, "")


def test_weights_of_unknown_operations_are_told_or_refused(tmp_path: Path) -> None:
    known = operation("linear", "a", {"x": "x", "weight": value(array(40, 30))})
    small = program(known, operation("novel", "y", {"x": "a", "w": value(array(5, 4))}))
    with opened(tmp_path, small) as checkpoint:
        assert plan_weights(checkpoint).notes == ("1 weight used by novel are left out",)
    with pytest.raises(WeightsError, match="400 of 1600 weights are used by novel"):
        opened(tmp_path, program(known, operation("novel", "y", {"x": "a", "w": value(array(20, 20))})))


def test_the_small_models(tmp_path: Path) -> None:
    with opened(tmp_path, files.small_network()) as checkpoint:
        plan = plan_weights(checkpoint)
        assert sorted(plan.precision.split(", ")) == ["float32", "int4 coreml", "int8 coreml"]
        assert [each.name for each in plan.layers][:2] == ["conv.weight", "fc.weight"]
    with opened(tmp_path, files.small_program()) as checkpoint:
        assert [each.name for each in plan_weights(checkpoint).layers] == ["conv.weight", "fc.weight"]
