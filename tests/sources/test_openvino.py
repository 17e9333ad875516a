"""OpenVINO: layers by kind, in torch's layout, from files written by hand; and files that lie."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.files.byte_source import LocalBytes
from registry.sources.formats import openvino_graph
from tests.sources.onnx_models import opened, values
from tests.sources.openvino_models import Step, const, ir, small_ir, step
from tests.sources.test_caffe_ncnn import refused

if TYPE_CHECKING:
    from pathlib import Path

CONV, MATRIX, VECTOR = values(6, 4, 3, 3), values(5, 7), values(6)


def float_of(number: int) -> Step:
    return step("Convert", number, destination_type="f32")


CODES = values(4, 6, dtype=np.uint8)
HALVES = np.array([[0x21, 0x43, 0x65], [0xF8, 0x90, 0x7E]], np.uint8)
FOURS = np.array([[1, 2, 3, 4, 5, 6], [8, 15, 0, 9, 14, 7]])
LSTM = (values(2, 8, 3), values(2, 8, 2), values(2, 8))
KINDS: dict[str, tuple[tuple[Step, ...], dict[str, np.ndarray]]] = {
    "convolution": (
        (const(CONV, "self.a.weight"), step("Convolution", 0, 1, name="__module.a/aten::_convolution/Convolution"),
         const(VECTOR.reshape(1, 6, 1, 1)), step("Add", 2, 3)),
        {"a.weight": CONV, "a.bias": VECTOR},
    ),
    "groups": (
        (const(values(2, 3, 4, 3, 3)), step("GroupConvolution", 0, 1)),
        {"GroupConvolution_0.weight": values(2, 3, 4, 3, 3).reshape(6, 4, 3, 3)},
    ),
    "transposed": (
        (const(values(6, 4, 3, 3)), step("ConvolutionBackpropData", 0, 1)), {"ConvTranspose_0.weight": CONV},
    ),
    "product": (
        (const(MATRIX, "w"), step("MatMul", 0, 1, transpose_b="true", name="__module.fc/aten::linear/MatMul")),
        {"fc.weight": MATRIX},
    ),
    "product of rows": ((const(MATRIX), step("MatMul", 0, 1)), {"MatMul_0.weight": MATRIX.T}),
    "product at the left": ((const(MATRIX), step("MatMul", 1, 0)), {"MatMul_0.weight": MATRIX}),
    "product at the left, turned": (
        (const(MATRIX), step("MatMul", 1, 0, transpose_a="true")), {"MatMul_0.weight": MATRIX.T},
    ),
    "batch": (
        (const(values(2, 5, 7)), step("MatMul", 0, 1)),
        {"MatMul_0.0.weight": values(2, 5, 7)[0].T, "MatMul_1.1.weight": values(2, 5, 7)[1].T},
    ),
    "embedding": (
        (const(MATRIX, "self.e.weight"), const(np.int64([0]).reshape(())), step("Gather", 1, 0, 2)),
        {"e.weight": MATRIX},
    ),
    "float16": (
        (const(MATRIX.astype(np.float16), "self.a.weight_compressed"), float_of(1),
         step("MatMul", 0, 2, transpose_b="true")),
        {"a.weight": MATRIX.astype(np.float16).astype(np.float32)},
    ),
    "codes": (
        (const(CODES, "self.a.weight"), float_of(1), const(np.full((4, 1), 9, np.uint8)), float_of(3),
         step("Subtract", 2, 4), const(values(4, 1)), step("Multiply", 5, 6),
         step("MatMul", 0, 7, transpose_b="true")),
        {"a.weight": (CODES.astype(np.float32) - 9) * values(4, 1)},
    ),
    "codes in groups": (
        (const(CODES.reshape(4, 2, 3), "self.a.weight"), float_of(1), const(values(4, 2, 1)), step("Multiply", 2, 3),
         const(np.int64([4, 6])), step("Reshape", 4, 5, special_zero="false"),
         step("MatMul", 0, 6, transpose_b="true")),
        {"a.weight": (CODES.reshape(4, 2, 3) * values(4, 2, 1)).reshape(4, 6)},
    ),
    "four bits": (
        (const(HALVES, "self.a.weight", "u4", (2, 6)), float_of(1), step("MatMul", 0, 2, transpose_b="true")),
        {"a.weight": FOURS.astype(np.float32)},
    ),
    "four bits with a sign": (
        (const(HALVES, "self.a.weight", "i4", (2, 6)), float_of(1), step("MatMul", 0, 2, transpose_b="true")),
        {"a.weight": np.where(FOURS > 7, FOURS - 16, FOURS).astype(np.float32)},
    ),
    "batch norm": (
        (*(const(values(6, seed=n)) for n in range(4)),
         step("BatchNormInference", 0, 1, 2, 3, 4, name="__module.n/aten::batch_norm/B", version="opset5"),
         const(MATRIX), step("MatMul", 5, 6)),
        {**{f"n.{leaf}": values(6, seed=n)
            for n, leaf in enumerate(("weight", "bias", "running_mean", "running_var"))}, "MatMul_0.weight": MATRIX.T},
    ),
    "first batch norm": (
        (*(const(values(6, seed=n)) for n in range(4)),
         step("BatchNormInference", 1, 2, 0, 3, 4, name="__module.n/aten::batch_norm/B"),
         const(MATRIX), step("MatMul", 5, 6)),
        {**{f"n.{leaf}": values(6, seed=n)
            for n, leaf in enumerate(("weight", "bias", "running_mean", "running_var"))}, "MatMul_0.weight": MATRIX.T},
    ),
    "layer norm": (
        (const(np.int64([-1])), step("MVN", 0, 1), const(values(1, 1, 6)),
         step("Multiply", 2, 3, name="__module.n/aten::layer_norm/Multiply"), const(values(1, 1, 6, seed=1)),
         step("Add", 4, 5, name="__module.n/aten::layer_norm/Add"), const(MATRIX), step("MatMul", 6, 7)),
        {"n.weight": values(1, 1, 6)[0, 0], "n.bias": values(1, 1, 6, seed=1)[0, 0], "MatMul_0.weight": MATRIX.T},
    ),
    "lstm both ways": (
        (*map(const, LSTM), step("LSTMSequence", 0, 0, 0, 0, 1, 2, 3, name="__module.l/aten::lstm/L",
                                 direction="bidirectional")),
        {f"l.{leaf}_l0{mark}": np.concatenate([np.split(array[way], 4)[g] for g in (1, 0, 2, 3)])
         for way, mark in enumerate(("", "_reverse"))
         for leaf, array in zip(("weight_ih", "weight_hh", "bias"), LSTM, strict=True)},
    ),
    "gru cell": (
        (const(values(6, 3)), const(values(6, 2)), const(values(6)),
         step("GRUCell", 0, 0, 1, 2, 3, name="__module.g/aten::gru_cell/G")),
        {f"g.{leaf}_l0": np.concatenate([np.split(array, 3)[g] for g in (1, 0, 2)])
         for leaf, array in (("weight_ih", values(6, 3)), ("weight_hh", values(6, 2)), ("bias", values(6)))},
    ),
    "tokens": (
        (const(MATRIX), const(values(1, 1, 8), "self.token"), step("Concat", 0, 2), step("MatMul", 3, 1)),
        {"token": values(1, 1, 8), "MatMul_0.weight": MATRIX.T},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_layers_by_kind(kind: str, tmp_path: Path) -> None:
    steps, expected = KINDS[kind]
    path = ir(tmp_path, *steps)
    assert expand(path)[0].source == "openvino"
    found = opened(path)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].shape == array.shape


def test_levels_between_bounds(tmp_path: Path) -> None:
    """FakeQuantize of a weight, by the formula of its documentation."""
    low, high = np.full((5, 1), -1.5, np.float32), np.full((5, 1), 1.25, np.float32)
    path = ir(tmp_path, const(MATRIX), const(low), const(high), const(low), const(high),
              step("FakeQuantize", 1, 2, 3, 4, 5, levels=256), step("MatMul", 0, 6, transpose_b="true"))  # fmt: skip
    codes = np.rint((MATRIX.clip(-1.5, 1.25) + 1.5) / 2.75 * 255)
    np.testing.assert_allclose(opened(path)["MatMul_0.weight"], codes / 255 * 2.75 - 1.5, rtol=1e-6, atol=1e-6)
    with open_ref(expand(path)[0]) as checkpoint:
        assert plan_weights(checkpoint).precision == "int8 openvino"


def test_precision_is_named(tmp_path: Path) -> None:
    with open_ref(expand(small_ir(tmp_path))[0]) as checkpoint:
        plan = plan_weights(checkpoint)
    assert plan.precision == "float32, uint8 openvino, uint4 openvino"
    assert len(plan.layers) == 3 + 6


def test_a_weight_that_is_used_twice_is_one(tmp_path: Path) -> None:
    path = ir(tmp_path, const(MATRIX, "self.e.weight"), const(np.int64([0])), step("Gather", 1, 0, 2),
              step("MatMul", 3, 1, transpose_b="true", name="__module.head/aten::linear/MatMul"))  # fmt: skip
    assert set(opened(path)) == {"e.weight"}


def test_graphs_within_a_loop(tmp_path: Path) -> None:
    """A weight that is given from outside, the same in each round, and one of the body's own."""
    path = ir(tmp_path, const(MATRIX, "self.a.weight"), step("TensorIterator", 0, 1))
    own = values(7, 5)
    body = (
        '<port_map><input external_port_id="0" internal_layer_id="0" axis="0"/>'
        '<input external_port_id="1" internal_layer_id="1"/><output external_port_id="2" internal_layer_id="5"/>'
        '</port_map><body><layers>'
        + "".join(f'<layer id="{n}" name="p{n}" type="Parameter" version="opset1"/>' for n in (0, 1))
        + '<layer id="2" name="m" type="MatMul" version="opset1"><data transpose_b="true"/><input><port id="0"/>'
        '<port id="1"/></input></layer><layer id="3" name="self.b.weight" type="Const" version="opset1">'
        f'<data element_type="f32" shape="7,5" offset="{MATRIX.nbytes}" size="{own.nbytes}"/></layer>'
        '<layer id="4" name="m2" type="MatMul" version="opset1"><data transpose_b="true"/><input><port id="0"/>'
        '<port id="1"/></input></layer><layer id="5" name="r" type="Result" version="opset1"><input><port id="0"/>'
        "</input></layer></layers><edges>"
        + "".join(f'<edge from-layer="{a}" from-port="9" to-layer="{b}" to-port="{p}"/>'
                  for a, b, p in ((0, 2, 0), (1, 2, 1), (2, 4, 0), (3, 4, 1), (4, 5, 0)))
        + "</edges></body></layer>"
    )  # fmt: skip
    text = path.read_text()
    head, mark, rest = text.partition('type="TensorIterator"')
    inner, _, behind = rest.partition("</layer>")
    path.write_text(head + mark + inner + body + behind)
    with path.with_suffix(".bin").open("ab") as file:
        file.write(own.tobytes())
    found = opened(path)
    np.testing.assert_array_equal(found.pop("a.weight"), MATRIX)
    np.testing.assert_array_equal(found.pop("b.weight"), own)
    assert not found


def test_a_layer_of_unknown_layout_is_refused(tmp_path: Path) -> None:
    path = ir(tmp_path, const(values(9, 9)), step("Mine", 0, 1, version="extension"), const(values(3, 3)),
              step("MatMul", 2, 3))  # fmt: skip
    refused("openvino", path, WeightsError, "81 of 90 weights are used by Mine, whose layout is not known")


def test_few_weights_of_unknown_layout_are_noted(tmp_path: Path) -> None:
    path = ir(tmp_path, const(values(3, 3)), step("Mine", 0, 1, version="extension"), const(values(30, 30)),
              step("MatMul", 2, 3))  # fmt: skip
    with open_ref(expand(path)[0]) as checkpoint:
        assert any("weights used by Mine are left out" in note for note in plan_weights(checkpoint).notes)


def test_a_weight_that_is_computed_in_another_way_is_told(tmp_path: Path) -> None:
    path = ir(tmp_path, const(values(9, 9)), step("Sin", 1), step("MatMul", 0, 2))
    refused("openvino", path, WeightsError, "holds no weights")


def test_a_table_that_is_added_is_noted(tmp_path: Path) -> None:
    path = ir(tmp_path, const(values(1, 4, 7)), step("Add", 0, 1), const(values(7, 7)), step("MatMul", 2, 3))
    with open_ref(expand(path)[0]) as checkpoint:
        assert any(note.startswith("1 table of 28 numbers") for note in plan_weights(checkpoint).notes)


def test_the_bin_leads_to_the_xml(tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    assert expand(path.with_suffix(".bin"))[0].target == str(path)


def test_a_folder_with_tokenizers_is_one_model(tmp_path: Path) -> None:
    small_ir(tmp_path).rename(tmp_path / "openvino_model.xml")
    (tmp_path / "net.bin").rename(tmp_path / "openvino_model.bin")
    for name in ("openvino_tokenizer", "openvino_detokenizer"):
        ir(tmp_path, const(np.arange(9, dtype=np.uint8)), step("StringTensorUnpack", 1, version="extension"),
           stem=name)  # fmt: skip
    [ref] = expand(tmp_path)
    assert ref.target == str(tmp_path / "openvino_model.xml")
    assert ref.name == tmp_path.name


# Bad input


def test_a_missing_bin_is_named(tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    path.with_suffix(".bin").unlink()
    refused("openvino", path, NotFoundError, r"net\.bin beside net\.xml")


@pytest.mark.parametrize("half", [".xml", ".bin"])
@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_off_anywhere(half: str, tenth: int, tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    cut = path.with_suffix(half)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * tenth // 10])
    refused("openvino", path, WeightsError, "net")


LIES = {
    "a number beyond": ('offset="0"', 'offset="99999999999"', "claims a tensor"),
    "a size that does not fit": ('size="648"', 'size="600"', "has 600 bytes"),
    "a huge extent": ('shape="6, 3, 3, 3"', 'shape="6, 3, 3, 1000000000000"', "claims a tensor"),
    "huge extents": ('shape="6, 3, 3, 3"', f'shape="{", ".join(["1000000000000"] * 200)}"', "claims a tensor"),
    "no number": ('shape="6, 3, 3, 3"', 'shape="6, x, 3, 3"', "where a number stands"),
    "a negative extent": ('shape="6, 3, 3, 3"', 'shape="6, -3, 3, 3"', "where a number stands"),
    "no layer": ('id="3" name', 'id="x" name', "where a number stands"),
    "twice a layer": ('id="3" name', 'id="2" name', "two layers of number 2"),
    "another version": ('version="11"', 'version="7"', "version '7', which is not known"),
    "no version": ('name="m" version="11"', 'name="m"', "where a number stands"),
    "no XML": ("</layers>", "</layer>", "no sound XML"),
    "gates": ('shape="1, 6, 3"', 'shape="6, 3"', "has weights of shape"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie(lie: str, tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    old, new, words = LIES[lie]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    refused("openvino", path, SourceError, words)


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE net SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize("text", [BOMB, OUTSIDE], ids=["entities", "outside"])
def test_entities_and_document_types_are_refused(text: str, tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    path.write_text(path.read_text().replace("<net", f"{text}\n<net", 1).replace("self.conv", "&b;.conv", 1))
    with LocalBytes(path, check=False) as file, pytest.raises(UnsafeError, match="document type or entities"):
        openvino_graph.read_graph(file)
    refused("openvino", path, SourceError, "net.xml")


def test_depth_is_bounded(tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    path.write_text(path.read_text().replace("<rt_info/>", "<a>" * 200 + "</a>" * 200))
    refused("openvino", path, UnsafeError, "deeper than 100 levels")


def test_the_text_of_one_tag_is_bounded(tmp_path: Path) -> None:
    path = small_ir(tmp_path)
    path.write_text(path.read_text().replace("self.conv", "a" * 3_000_000, 1))
    refused("openvino", path, UnsafeError, "without a tag")


@pytest.mark.parametrize(("bound", "value", "words"), [
    ("_MAX_LAYERS", 10, "more than 10 layers"), ("_MAX_EDGES", 10, "more than 10 edges"),
    ("_MAX_KEPT", 100, "more than 100 characters"), ("_MAX_TEXT", 100, "more than 100"),
])  # fmt: skip
def test_other_bounds(bound: str, value: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_graph, bound, value)
    refused("openvino", small_ir(tmp_path), UnsafeError, words)


def test_graphs_without_end(tmp_path: Path) -> None:
    """Layers that take what they give; and bodies within bodies."""
    path = ir(tmp_path, const(MATRIX), step("Convert", 2, destination_type="f32"), step("MatMul", 0, 2), const(CONV),
              step("Convolution", 0, 4))  # fmt: skip
    assert set(opened(path)) == {"Convolution_0.weight"}
    path = ir(tmp_path, const(MATRIX), step("Loop", 1))
    open_, close = '<body><layers><layer id="0" name="l" type="Loop" version="opset5">', "</layer></layers></body>"
    text = path.read_text()
    text = re.sub(r'(type="Loop".*?)</layer>', lambda m: m[1] + open_ * 20 + close * 20 + "</layer>", text, count=1)
    path.write_text(text)
    refused("openvino", path, UnsafeError, "deeper than 16 levels")
