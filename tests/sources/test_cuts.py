"""Cuts of fused tensors, against parts that are taken from the arrays by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import WeightsError
from registry.sources import layer_matrix, plan_weights
from registry.sources.matrix_rule import layers_by_shape
from registry.types import ModelFacts, TensorInfo
from tests.sources.conftest import ArrayCheckpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.types import LayerMatrix

RNG = np.random.default_rng(21)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def checkpoint_of(arrays: Mapping[str, np.ndarray], **config: Any) -> ArrayCheckpoint:
    checkpoint = ArrayCheckpoint(arrays)
    checkpoint.facts = ModelFacts(config=config)
    return checkpoint


def matrices(arrays: Mapping[str, np.ndarray], **config: Any) -> dict[str, np.ndarray]:
    checkpoint = checkpoint_of(arrays, **config)
    return {layer.name: layer_matrix(checkpoint, layer) for layer in plan_weights(checkpoint).layers}


def by_shape(shapes: Mapping[str, tuple[int, ...]], **config: Any) -> list[LayerMatrix]:
    infos = {name: TensorInfo(name, "float32", shape) for name, shape in shapes.items()}
    return list(layers_by_shape(infos, config))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_queries_keys_and_values_of_each_head_are_gathered(heads: int) -> None:
    array = normal(24, 8)
    found = matrices({"h.0.query_key_value.weight": array}, model_type="bloom", n_head=heads, hidden_size=8)
    by_head = array.reshape(heads, 3, 8 // heads, 8)
    assert list(found) == [f"h.0.query_key_value.weight[{part}]" for part in "qkv"]
    for i, matrix in enumerate(found.values()):
        assert matrix.flags.c_contiguous
        np.testing.assert_array_equal(matrix, by_head[:, i].reshape(8, 8))


def test_each_part_of_a_head_says_where_it_is() -> None:
    layers = by_shape({"a.query_key_value.weight": (24, 8)}, model_type="bloom", n_head=2, hidden_size=8)
    assert [(each.start, each.stop, each.period, each.shape) for each in layers] == [
        (0, 4, 12, (8, 8)),
        (4, 8, 12, (8, 8)),
        (8, 12, 12, (8, 8)),
    ]
    assert {each.kind for each in layers} == {"attention"}
    whole = by_shape({"a.in_proj_weight": (24, 8)})
    assert [(each.start, each.stop, each.period) for each in whole] == [(0, 8, 0), (8, 16, 0), (16, 24, 0)]


def test_parts_are_ordered_query_key_value_whatever_their_order_in_the_tensor() -> None:
    """CodeGen keeps query, value and key in each of four blocks."""
    array = normal(24, 8)
    found = matrices({"attn.qkv_proj.weight": array}, model_type="codegen", n_embd=8)
    blocks = array.reshape(4, 3, 2, 8)
    assert list(found) == [f"attn.qkv_proj.weight[{part}]" for part in "qkv"]
    for matrix, stored in zip(found.values(), (0, 2, 1), strict=True):
        np.testing.assert_array_equal(matrix, blocks[:, stored].reshape(8, 8))


def test_parts_that_are_neither_query_key_nor_value_come_last_in_their_order() -> None:
    sizes = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 2,
        "linear_value_head_dim": 3,
    }
    names = {"mixer.in_proj_qkvz.weight": (2 * (2 + 2 + 6 + 6), 8), "mixer.in_proj_ba.weight": (2 * 2 * 2, 8)}
    layers = by_shape(names, model_type="qwen3_next", hidden_size=8, **sizes)
    assert [each.name.partition("weight")[2] for each in layers] == ["[q]", "[k]", "[v]", "[z]", "[b]", "[a]"]


def test_gate_and_up_are_layers_of_an_mlp() -> None:
    array, down = normal(12, 4), normal(4, 6)
    arrays = {"mlp.gate_up_proj.weight": array, "mlp.down_proj.weight": down}
    found = matrices(arrays)
    assert list(found) == ["mlp.gate_up_proj.weight[gate]", "mlp.gate_up_proj.weight[up]", "mlp.down_proj.weight"]
    for matrix, expected in zip(found.values(), (array[:6], array[6:], down), strict=True):
        np.testing.assert_array_equal(matrix, expected)
    inside = {f"attention.{name}": array for name, array in arrays.items()}  # whatever is above them
    assert {each.kind for each in plan_weights(ArrayCheckpoint(arrays)).layers} == {"linear"}
    assert {each.kind for each in plan_weights(ArrayCheckpoint(inside)).layers} == {"linear"}


def test_a_fused_projection_of_unknown_layout_is_whole_and_noted() -> None:
    plan = plan_weights(ArrayCheckpoint({"a.query_key_value.weight": normal(24, 8), "fc.weight": normal(8, 8)}))
    assert [layer.name for layer in plan.layers] == ["a.query_key_value.weight", "fc.weight"]
    (note,) = plan.notes
    assert note.startswith("a.query_key_value.weight is taken whole")
    known = checkpoint_of({"a.query_key_value.weight": normal(24, 8)}, model_type="bloom", n_head=2)
    assert plan_weights(known).notes == ()


@pytest.mark.parametrize(
    "gates", [("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"), ("ir", "iz", "in", "hr", "hz", "hn")]
)
@pytest.mark.parametrize("sign", [".", "/"])
def test_flax_cells_are_recurrent_where_all_their_gates_are_there(gates: tuple[str, ...], sign: str) -> None:
    shapes = {f"rnn.cell{sign}{gate}{sign}kernel": (8, 8) for gate in gates}
    assert {each.kind for each in by_shape(shapes)} == {"recurrent"}
    assert {each.kind for each in by_shape(dict(list(shapes.items())[1:]))} == {"linear"}


@pytest.mark.parametrize("name", ["c_attn", "q_attn", "c_fc", "c_proj"])
def test_inputs_first_by_a_sibling_or_the_model_type(name: str) -> None:
    own = {f"h.1.x.{name}.weight": (4, 6)}
    attention = {"h.0.attn.c_attn.weight": (5, 15)}

    def axis(shapes: Mapping[str, tuple[int, ...]], **config: Any) -> set[int]:
        return {each.axis for each in by_shape({**shapes, **own}, **config) if each.tensor in own}

    assert axis(attention) == axis({}, model_type="clvp") == {1}
    assert axis({}, text_config={"model_type": "clvp_decoder"}) == {1}
    assert axis({}) == axis({}, model_type="gpt2") == axis({"h.0.attn.c_attn.weight": (15, 5)}) == {0}
    assert axis({"h.0.attn.c_attn.weight": (5, 15, 1)}) == axis({"h.0.attn.c_attn.weight": (5, 10)}) == {0}
    assert axis({"h.0.attn.c_attn.bias": (5, 15)}) == {0}


def test_only_named_matrices_are_turned_in_such_a_model() -> None:
    shapes = {
        "c_attn.weight": (4, 12),
        "h.0.c_fc.weight": (4, 6, 1),
        "lm_head.weight": (9, 4),
        "h.0.xc_fc.weight": (4, 6),
    }
    assert {each.tensor: each.axis for each in by_shape(shapes)} == {
        "c_attn.weight": 1, "h.0.c_fc.weight": 0, "lm_head.weight": 0, "h.0.xc_fc.weight": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bias", "axis"),
    [((6,), 1), ((8,), 0), ((7,), 0), ((6, 1), 0), (None, 0)],
    ids=["second axis", "first axis", "neither", "no vector", "none"],
)
def test_the_bias_tells_the_outputs_of_a_convolution(bias: tuple[int, ...] | None, axis: int) -> None:
    shapes = {"up.weight": (8, 6, 2, 2), **({} if bias is None else {"up.bias": bias})}
    assert [each.axis for each in by_shape(shapes) if each.tensor == "up.weight"] == [axis]
    # Of a dense layer, a depthwise convolution and a square one no bias does.
    for shape in ((8, 6), (8, 1, 2), (6, 6, 2)):
        layers = by_shape({"up.weight": shape, "up.bias": shape[1:2]})
        assert [each.axis for each in layers if each.tensor == "up.weight"] == [0]
    # Nor a bias of another tensor.
    other = by_shape({"up.kernel_a": (8, 6, 2, 2), "up.bias": (6,), "up.kernel_abias": (6,), "bias": (6,)})
    assert [each.axis for each in other if len(each.shape) > 2] == [0]


@pytest.mark.parametrize(
    ("name", "kind", "other"),
    [
        ("neck.reassemble_stage.layers.0.resize.weight", "depth_anything", "sam"),
        ("upscale_block.block.3.conv1.weight", "eomt", "dpt"),
        ("mask_decoder.upscale_conv2.weight", "sam2", "eomt"),
    ],
)
def test_the_model_type_tells_transposed_convolutions_of_its_own_names(name: str, kind: str, other: str) -> None:
    shapes = {name: (8, 8, 2, 2)}
    assert [each.axis for each in by_shape(shapes, model_type=kind)] == [1]
    assert [each.axis for each in by_shape(shapes, model_type=other)] == [0]
    assert [each.axis for each in by_shape({f"{name}_v": (8, 8, 2, 2)}, model_type=kind)] == [0]
    assert [each.axis for each in by_shape({name: (8, 8)}, model_type=kind)] == [0]


@pytest.mark.parametrize(
    "name",
    [
        "deconv.weight",
        "x.DeConv2.weight",
        "conv_transpose1d.weight",
        "x.ConvTranspose2d_1.conv.weight",
        "up_convt.weight",
    ],
)
def test_the_name_tells_transposed_convolutions(name: str) -> None:
    assert [each.axis for each in by_shape({name: (8, 6, 2)})] == [1]
    assert [each.axis for each in by_shape({name.replace("weight", "gain"): (8, 6, 2)})] == [0]


def test_the_matrix_of_a_damaged_layer_names_a_remedy() -> None:
    array = normal(4, 4)
    (layer,) = plan_weights(ArrayCheckpoint({"a.weight": array})).layers
    array[0, 0] = np.nan
    with pytest.raises(WeightsError) as caught:
        layer_matrix(ArrayCheckpoint({"a.weight": array}), layer)
    assert caught.value.remedy == "take another checkpoint: this one diverged or is damaged"
