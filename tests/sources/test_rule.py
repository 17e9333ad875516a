from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import WeightsError
from registry.sources import MATRIX_RULE, layer_matrix, open_module, plan_weights
from registry.sources.fused_tensors import Piece, pieces_of
from registry.sources.matrix_rule import layers_by_shape, skip_reason
from registry.types import TensorInfo
from tests.sources.conftest import ArrayCheckpoint, ShapesCheckpoint

if TYPE_CHECKING:
    import random

    from registry.types import WeightsPlan
    from tests.sources.conftest import BuiltModel

RNG = np.random.default_rng(20)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def plan_of(**shapes: tuple[int, ...]) -> WeightsPlan:
    return plan_weights(ShapesCheckpoint([TensorInfo(n.replace("__", "."), "float32", s) for n, s in shapes.items()]))


def summary(plan: WeightsPlan) -> list[tuple[str, int, int, str]]:
    return [(layer.name, layer.p, layer.q, layer.kind) for layer in plan.layers]


def reasons(plan: WeightsPlan) -> dict[str, str]:
    return {s.name: s.reason for s in plan.skipped}


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "reason"),
    [
        ("bn.running_mean", "float32", (8,), "batch statistics"),
        ("bn.moving_variance", "float32", (8,), "batch statistics"),
        ("bn.num_batches_tracked", "int64", (), "batch statistics"),
        ("attn.relative_position_index", "int64", (49, 49), "integer or packed (int64)"),
        ("embeddings.position_ids", "int32", (1, 512), "integer or packed (int32)"),
        ("bn.num_batches_tracked", "float32", (), "batch statistics"),
        ("a.bias", "float32", (8,), "vector or scalar"),
        ("gru.bias", "float32", (2, 24), "bias"),
        ("h.0.attn.bias", "float32", (1, 1, 16, 16), "mask"),
        ("attn_mask", "float32", (4, 4), "mask"),
        ("grn.bias", "float32", (1, 1, 1, 64), "bias"),
        ("self_attn.bias_u", "float32", (4, 8), "bias"),
        ("self_attn.pos_bias_v", "float32", (4, 8), "bias"),
        ("self_attn.key_decay", "float32", (4, 16, 1), "constant table"),
        ("model.final_logits_bias", "float32", (1, 64), "constant table"),
        ("quantizer.codebook.embed_avg", "float32", (16, 8), "batch statistics"),
        ("encoder.pos_embedding", "float32", (1, 197, 768), "position table"),
        ("pos_embed", "float32", (197, 768), "position table"),
        ("bert.embeddings.position_embeddings.weight", "float32", (512, 64), "position table"),
        ("wpe.weight", "float32", (1024, 64), "position table"),
        ("pos_embed.weights", "float32", (197, 768), "position table"),
        ("pos_embed.embeddings", "float32", (197, 768), "position table"),
        ("pos_embed.embedding", "float32", (197, 768), "position table"),
        ("attn.relative_position_bias_table", "float32", (169, 3), "position table"),
        ("self_attn.pos_embed.height_rel", "float32", (23, 64), "position table"),
        ("attn.rel_pos_h", "float32", (55, 96), "position table"),
        ("layer.0.SelfAttention.relative_attention_bias.weight", "float32", (32, 8), "position table"),
        ("rotary_emb.inv_freq", "float32", (32,), "constant table"),
        ("freqs_cis", "complex64", (64, 32), "constant table"),
        ("cls_token", "float32", (1, 1, 64), "token"),
        ("optimizer.state.0.exp_avg", "float32", (8, 8), "optimiser state"),
        ("fc.kernel.Adam_1", "float32", (8, 8), "optimiser state"),
        ("conv1.weight.Momentum", "float32", (8, 8), "optimiser state"),
        ("layer_scale", "float32", (96, 1, 1), "layer scale"),
        ("keep", "bool", (8, 8), "flags"),
        ("empty.weight", "float32", (0, 8), "no elements"),
        ("score.weight", "float32", (1, 8), "fewer than two outputs"),
        ("scale.weight", "float32", (8, 1), "fewer than two inputs"),
    ],
)
def test_tensors_that_are_no_layers(name: str, dtype: str, shape: tuple[int, ...], reason: str) -> None:
    tensors = [TensorInfo("fc.weight", "float32", (4, 4)), TensorInfo(name, dtype, shape)]
    plan = plan_weights(ShapesCheckpoint(tensors))
    assert reasons(plan) == {name: reason}
    assert [layer.name for layer in plan.layers] == ["fc.weight"]
    assert skip_reason(tensors[1]) == reason


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_called_so(dtype: str) -> None:
    assert skip_reason(TensorInfo("a.weight", dtype, (4, 4))) == "complex"


def test_a_bias_or_the_model_type_tells_transposed_convolutions() -> None:
    """Against the modules' own shapes; a bias that fits both axes tells nothing."""
    torch.manual_seed(0)
    module = torch.nn.ModuleDict(
        {
            "up": torch.nn.ConvTranspose2d(8, 6, 3),
            "down": torch.nn.Conv2d(6, 8, 3),
            "square": torch.nn.ConvTranspose1d(8, 8, 2),
        }
    )
    with open_module(module) as checkpoint:
        axes = {layer.name: layer.axis for layer in plan_weights(checkpoint).layers}
    assert axes == {"up.weight": 1, "down.weight": 0, "square.weight": 0}
    name = "neck.reassemble_stage.layers.1.resize.weight"
    infos = {name: TensorInfo(name, "float32", (8, 8, 2, 2))}
    for config, axis in (({"model_type": "dpt"}, 1), ({"model_type": "vit"}, 0), ({}, 0)):
        assert [layer.axis for layer in layers_by_shape(infos, config)] == [axis]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_conv_embed.conv.weight_v", (64, 4, 16)),
        ("pos_block.0.proj.weight", (64, 1, 3, 3)),
        ("pos_embed.weight", (64, 4, 3, 3)),
        ("upsample.scale", (8, 8)),
        ("narrow.weight", (8, 2)),
        ("roi_heads.mask_predictor.conv5_mask.weight", (256, 256, 2, 2)),
        ("token_type_embeddings.weight", (2, 64)),
        ("bias_net.weight", (8, 8)),
        ("composition.weight", (8, 8)),
        ("running.weight", (8, 8)),
    ],
)
def test_layers_whose_names_only_look_like_tables(name: str, shape: tuple[int, ...]) -> None:
    assert [layer.name for layer in plan_weights(ShapesCheckpoint([TensorInfo(name, "float32", shape)])).layers] == [
        name
    ]


def test_torch_recurrent_gates() -> None:
    lstm = plan_of(
        weight_ih_l0=(4 * 8, 5), weight_hh_l0=(4 * 8, 8), weight_ih_l0_reverse=(32, 5), weight_hh_l0_reverse=(32, 8)
    )
    assert summary(lstm)[:5] == [(f"weight_ih_l0[{g}]", 8, 5, "recurrent") for g in "ifgo"] + [
        ("weight_hh_l0[i]", 8, 8, "recurrent")
    ]
    assert len(lstm.layers) == 16
    gru = plan_of(rnn__weight_ih=(3 * 8, 5), rnn__weight_hh=(3 * 8, 8))
    assert [layer.name for layer in gru.layers[:3]] == [f"rnn.weight_ih[{g}]" for g in "rzn"]
    plain = plan_of(weight_ih_l0=(8, 5), weight_hh_l0=(8, 8))
    assert summary(plain) == [("weight_ih_l0", 8, 5, "recurrent"), ("weight_hh_l0", 8, 8, "recurrent")]
    projected = plan_of(weight_ih_l0=(32, 5), weight_hh_l0=(32, 3), weight_hr_l0=(3, 8))
    assert [(layer.name, layer.p, layer.q) for layer in projected.layers if "hh" in layer.name] == [
        (f"weight_hh_l0[{g}]", 8, 3) for g in "ifgo"
    ]
    assert ("weight_hr_l0", 3, 8, "recurrent") in summary(projected)


def test_gates_that_the_shapes_do_not_tell_stay_together() -> None:
    assert [layer.name for layer in plan_of(weight_ih_l0=(16, 5), weight_hh_l0=(16, 8)).layers] == [
        "weight_ih_l0",
        "weight_hh_l0",
    ]
    assert [layer.name for layer in plan_of(s__recurrent_kernel=(64, 32)).layers] == ["s.recurrent_kernel"]


@pytest.mark.parametrize(
    ("inputs", "hidden", "parts"),
    [
        ((16, 5), (16, 4), ["ih[i]", "ih[f]", "ih[g]", "ih[o]", "hh[i]", "hh[f]", "hh[g]", "hh[o]"]),
        ((16, 5, 3), (16, 4), ["ih", "hh[i]", "hh[f]", "hh[g]", "hh[o]"]),
        ((16, 5), (16, 4, 3), ["ih", "hh"]),
        ((12, 5), (16, 4), ["ih", "hh[i]", "hh[f]", "hh[g]", "hh[o]"]),
        ((17, 5), (17, 4), ["ih", "hh"]),
        ((16, 5), (16, 0), ["ih"]),
    ],
)
def test_gates_are_cut_where_both_sides_agree(
    inputs: tuple[int, ...], hidden: tuple[int, ...], parts: list[str]
) -> None:
    plan = plan_of(weight_ih=inputs, weight_hh=hidden)
    assert [layer.name for layer in plan.layers] == [f"weight_{part}" for part in parts]


def test_a_queue_of_examples_beside_its_pointer_is_no_layer() -> None:
    """As MoCo, and ALBEF and BLIP, whose two modalities share a pointer."""
    plan = plan_of(fc__weight=(8, 4), queue=(16, 64), queue_ptr=(1,))
    assert [layer.name for layer in plan.layers] == ["fc.weight"]
    assert plan.parameters == 32 + 1  # the pointer, which is an integer in files
    assert {s.name: s.reason for s in plan.skipped}["queue"] == "queue of examples"
    blip = plan_of(fc__weight=(8, 4), m__image_queue=(16, 64), m__text_queue=(16, 60), m__ptr_queue=(1,))
    assert [layer.name for layer in blip.layers] == ["fc.weight"]
    for others in ({}, {"m__queue_ptr": (1,)}):
        assert len(plan_of(fc__weight=(8, 4), queue=(16, 64), **others).layers) == 2
    assert len(plan_of(fc__weight=(8, 4), queue__weight=(16, 64), queue_ptr=(1,)).layers) == 2


def test_keras_and_tensorflow_recurrent_gates() -> None:
    assert [layer.name for layer in plan_of(r__kernel=(512, 100), r__recurrent_kernel=(512, 128)).layers] == [
        f"r.{k}[{g}]" for k in ("kernel", "recurrent_kernel") for g in "ifco"
    ]
    assert [layer.name for layer in plan_of(r__kernel=(768, 100), r__recurrent_kernel=(768, 256)).layers][:3] == [
        "r.kernel[r]",
        "r.kernel[z]",
        "r.kernel[h]",
    ]
    small = plan_of(rnn__lstm_cell__kernel=(12, 9))
    assert summary(small) == [(f"rnn.lstm_cell.kernel[{gate}]", 3, 9, "recurrent") for gate in "ifjo"]
    cell = plan_of(rnn__lstm_cell__kernel=(2000, 198), rnn__lstm_cell__projection__kernel=(188, 500))
    assert [(layer.name, layer.p) for layer in cell.layers] == [
        *((f"rnn.lstm_cell.kernel[{g}]", 500) for g in "ifjo"),
        ("rnn.lstm_cell.projection.kernel", 188),
    ]
    assert [layer.name for layer in plan_of(dense__kernel=(12, 8)).layers] == ["dense.kernel"]


@pytest.mark.parametrize("name", ["attn.in_proj_weight", "attn.qkv.weight", "attn.to_qkv.weight", "mixer.Wqkv.weight"])
def test_fused_queries_keys_and_values(name: str) -> None:
    array = normal(12, 4)
    checkpoint = ArrayCheckpoint({name: array})
    plan = plan_weights(checkpoint)
    assert summary(plan) == [(f"{name}[{part}]", 4, 4, "attention") for part in "qkv"]
    for i, layer in enumerate(plan.layers):
        np.testing.assert_array_equal(layer_matrix(checkpoint, layer), array[4 * i : 4 * i + 4])


def test_parts_that_the_name_and_shape_do_not_tell_stay_together() -> None:
    grouped = plan_of(attn__qkv_proj__weight=(96 + 2 * 32, 96))
    assert [layer.name for layer in grouped.layers] == ["attn.qkv_proj.weight"]
    mamba = plan_of(mixer__in_proj__weight=(96, 32))
    assert [layer.name for layer in mamba.layers] == ["mixer.in_proj.weight"]


def test_projections_that_are_three_or_two_times_the_inputs_are_cut() -> None:
    fused = plan_of(block__qkv_proj__weight=(24, 8), block__kv__weight=(16, 8), mixer__kv__weight=(15, 8))
    assert [(*each, layer.start, layer.stop) for each, layer in zip(summary(fused), fused.layers, strict=True)] == [
        ("block.qkv_proj.weight[q]", 8, 8, "attention", 0, 8),
        ("block.qkv_proj.weight[k]", 8, 8, "attention", 8, 16),
        ("block.qkv_proj.weight[v]", 8, 8, "attention", 16, 24),
        ("block.kv.weight[k]", 8, 8, "attention", 0, 8),
        ("block.kv.weight[v]", 8, 8, "attention", 8, 16),
        ("mixer.kv.weight", 15, 8, "linear", 0, 15),
    ]
    assert [layer.name for layer in plan_of(attn__qkv_proj__weight=(24, 8, 1)).layers] == ["attn.qkv_proj.weight"]


def test_parts_of_one_output_are_left_out_by_their_names() -> None:
    plan = plan_of(attn__in_proj_weight=(3, 4), fc__weight=(4, 4), scale__weight=(1, 4))
    assert [layer.name for layer in plan.layers] == ["fc.weight"]
    assert [(s.name, s.dtype, s.shape, s.reason) for s in plan.skipped] == [
        *((f"attn.in_proj_weight[{part}]", "float32", (1, 4), "fewer than two outputs") for part in "kqv"),
        ("scale.weight", "float32", (1, 4), "fewer than two outputs"),
    ]


def test_by_shape_alone_nothing_is_tied_or_zero() -> None:
    infos = {name: TensorInfo(name, str(array.dtype), array.shape) for name, array in sorted(PERMUTED.items())}
    found = layers_by_shape(infos)
    assert {layer.name for layer in found} == {layer.name for layer in EXPECTED.layers} | {
        "lm_head.weight", "zero.weight",
    }  # fmt: skip
    assert [layer.position for layer in found] == list(range(len(found)))


def test_gpt2_keeps_inputs_first_and_is_turned_round() -> None:
    arrays = {
        "h.0.attn.c_attn.weight": normal(6, 18),
        "h.0.attn.c_proj.weight": normal(6, 6),
        "h.0.mlp.c_fc.weight": normal(6, 24),
        "h.0.mlp.c_proj.weight": normal(24, 6),
    }
    turned = ArrayCheckpoint(arrays)
    straight = ArrayCheckpoint({name: array.T for name, array in arrays.items()})
    a, b = plan_weights(turned), plan_weights(straight)
    assert summary(a) == summary(b)
    assert a.topology == b.topology
    assert [(layer.p, layer.q) for layer in a.layers] == [(6, 6)] * 4 + [(24, 6), (6, 24)]
    for one, other in zip(a.layers, b.layers, strict=True):
        matrix = layer_matrix(turned, one)
        assert matrix.flags.c_contiguous
        np.testing.assert_array_equal(matrix, layer_matrix(straight, other))


def test_transposed_convolutions_are_turned_round() -> None:
    array = normal(6, 4, 2, 2)
    checkpoint = ArrayCheckpoint({"up.deconv1.weight": array, "up.conv1.weight": array + 1})
    plan = plan_weights(checkpoint)
    deconv = next(layer for layer in plan.layers if "deconv" in layer.name)
    assert (deconv.p, deconv.q, deconv.kernel) == (4, 24, (2, 2))
    np.testing.assert_array_equal(layer_matrix(checkpoint, deconv), array.transpose(1, 0, 2, 3).reshape(4, 24))
    assert next(layer for layer in plan.layers if layer is not deconv).p == 6


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((6, 4, 2), 1), ((6, 4, 1, 1), 1), ((6, 2, 2, 2), 1), ((6, 4), 0), ((6, 1, 2, 2), 0)],
    ids=["one axis", "one by one", "two channels", "dense", "depthwise"],
)
def test_the_outputs_of_a_transposed_convolution_come_second(shape: tuple[int, ...], axis: int) -> None:
    info = TensorInfo("up.deconv.weight", "float32", shape)
    assert pieces_of(info, {info.name: info}, conv1d=False) == (Piece("", axis, 0, shape[axis], ""),)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("fc.weight", (4, 8), "linear"),
        ("conv.weight", (4, 8, 3, 3), "conv"),
        ("conv.weight", (8, 1, 3, 3), "conv"),
        ("wte.weight", (100, 8), "embedding"),
        ("model.embed_tokens.weight", (100, 8), "embedding"),
        ("embedding.embeddings", (100, 8), "embedding"),
        ("patch_embed.proj.weight", (8, 3, 4, 4), "conv"),
        ("self_attn.q_proj.weight", (8, 8), "attention"),
        ("attention.self.key.weight", (8, 8), "attention"),
        ("attention.output.dense.weight", (8, 8), "attention"),
        ("attn1.to_out.0.weight", (8, 8), "attention"),
        ("SelfAttention.o.weight", (8, 8), "attention"),
        ("blocks.1.attn1.to_out.0.weight", (8, 8), "attention"),
        ("attn.project.0.weight", (8, 8), "attention"),
        ("attn.0.weight", (8, 8), "linear"),
        ("attn.norm.a.b.q.weight", (8, 8), "linear"),
        ("output.dense.weight", (8, 8), "linear"),
        ("value.weight", (8, 8), "linear"),
        ("conv1d.weight", (8, 4, 3), "conv"),
        ("embedding", (100, 8), "embedding"),
        ("blocks.wte", (100, 8), "embedding"),
        ("wte.weights", (100, 8), "embedding"),
        ("wte.kernel", (100, 8), "embedding"),
        ("wte.w", (100, 8), "embedding"),
        ("attention.key.embedding", (8, 8), "attention"),
        ("prototypes.embedding", (100, 8), "linear"),
        ("prototypes.embeddings", (100, 8), "linear"),
    ],
)
def test_kinds(name: str, shape: tuple[int, ...], kind: str) -> None:
    (layer,) = plan_weights(ShapesCheckpoint([TensorInfo(name, "float32", shape)])).layers
    assert layer.kind == kind


def test_one_input_channel_is_depthwise_but_for_an_image_of_one() -> None:
    infos = [TensorInfo(f"conv{number}.weight", "float32", (8, 1, 3, 3)) for number in (1, 2)]
    assert [layer.kind for layer in plan_weights(ShapesCheckpoint(infos)).layers] == ["conv", "depthwise"]


def test_tied_tensors_count_once() -> None:
    shared = normal(20, 4)
    plan = plan_weights(ArrayCheckpoint({"lm_head.weight": shared, "wte.weight": shared, "fc.weight": normal(20, 4)}))
    assert [layer.name for layer in plan.layers] == ["wte.weight", "fc.weight"]
    assert reasons(plan) == {"lm_head.weight": "tied to wte.weight"}
    assert plan.parameters == 160
    assert plan.bytes == 3 * 20 * 4 * 4


def test_a_table_that_is_stored_twice_counts_once() -> None:
    """It is no layer, so it is tied to nothing; what comes after it is counted."""
    for shape in ((9, 4), (1, 9, 4)):
        table, last = normal(*shape), normal(*shape)
        arrays = {"a.pos_embed": table, "b.pos_embed": table, "fc.weight": normal(4, 4), "z.pos_embed": last}
        assert plan_weights(ArrayCheckpoint(arrays)).parameters == 36 + 16 + 36
        assert plan_weights(ArrayCheckpoint(arrays | {"b.pos_embed": table + 1})).parameters == 3 * 36 + 16


@pytest.mark.parametrize(("own", "copy"), [("a", "b"), ("b", "z.b"), ("a.b", "b"), ("a.fc", "b.fc")])
def test_vectors_of_a_module_that_is_stored_twice_count_once(own: str, copy: str) -> None:
    gains, matrix = normal(4), normal(4, 4)
    one = {f"{own}.weight": matrix, f"{own}.gain": gains, "z.last.bias": normal(4)}
    assert plan_weights(ArrayCheckpoint(one)).parameters == 16 + 8
    twice = {**one, f"{copy}.weight": matrix, f"{copy}.gain": gains}
    assert plan_weights(ArrayCheckpoint(twice)).parameters == 16 + 8
    # Not where the vectors differ, or another matrix of the module is its own.
    assert plan_weights(ArrayCheckpoint({**twice, f"{copy}.gain": gains + 1})).parameters == 16 + 12
    other = {f"{copy}.other.weight": normal(3, 3)}
    assert plan_weights(ArrayCheckpoint({**twice, **other})).parameters == 16 + 12 + 9


def test_equal_vectors_of_modules_that_are_no_copies_count_each() -> None:
    gains, matrix = normal(4), normal(4, 4)
    halves = {"a.weight": matrix, "c.own.weight": normal(3, 4), "b.one.weight": matrix, "b.two.weight": matrix}
    vectors = {"a.gain": gains, "c.gain": gains, "b.gain": gains}
    assert plan_weights(ArrayCheckpoint({**halves, **vectors})).parameters == 16 + 12 + 12


def test_constant_tensors_are_alike_but_not_tied() -> None:
    ones = np.ones((4, 4), np.float32)
    arrays = {"a.weight": ones, "b.weight": ones}
    assert len(plan_weights(ArrayCheckpoint(arrays)).layers) == 2
    shared = normal(4, 4)  # what comes after them is tied all the same
    assert len(plan_weights(ArrayCheckpoint({**arrays, "c.weight": shared, "d.weight": shared})).layers) == 3


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zeros_of_either_sign_are_left_out(dtype: str) -> None:
    zeros = np.zeros((600, 600), dtype)
    zeros[::2] = -0.0
    almost = zeros.copy()
    almost[-1, -1] = np.finfo(dtype).smallest_subnormal
    plan = plan_weights(ArrayCheckpoint({"a.weight": zeros, "b.weight": almost}))
    assert reasons(plan) == {"a.weight": "all zeros"}
    assert plan.parameters == 720_000


def test_layer_matrix_is_contiguous_in_the_tensors_own_precision() -> None:
    checkpoint = ArrayCheckpoint({"a.weight": normal(4, 3, 2, 2), "b.weight": normal(4, 4).astype(np.float64)})
    a, b = (layer_matrix(checkpoint, layer) for layer in plan_weights(checkpoint).layers)
    assert (a.shape, a.dtype, a.flags.c_contiguous) == ((4, 12), np.dtype("float32"), True)
    assert b.dtype == np.dtype("float64")


BAD_VALUES = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("name", ["bad.weight", "bn.running_mean", "bn.running_var", "bad.bias"])
def test_values_that_are_not_finite_are_named_and_counted(name: str, value: float, dtype: str) -> None:
    array = np.ones((4, 4) if name == "bad.weight" else 16, dtype)
    array.reshape(-1)[[1, 7]] = value
    checkpoint = ArrayCheckpoint({"ok.weight": normal(4, 4), name: array, "attn.mask": np.full((4, 4), -np.inf)})
    with pytest.raises(WeightsError, match=rf"^arrays: tensor {name} holds 2 of 16 values that are NaN") as caught:
        plan_weights(checkpoint)
    assert "--allow-nonfinite" in (caught.value.remedy or "")
    plan = plan_weights(checkpoint, allow_nonfinite=True)
    assert (plan.nonfinite, [layer.name for layer in plan.layers]) == (2, ["ok.weight"])
    assert plan.notes == (f"2 values of {name} are not finite",)
    reason = {skipped.name: skipped.reason for skipped in plan.skipped}[name]
    if name == "bad.weight":
        assert reason == "not finite (2 values)"
    else:
        assert reason in ("batch statistics", "vector or scalar")
    finite = {"ok.weight": checkpoint.read("ok.weight"), name: np.arange(16, dtype=dtype).reshape(array.shape)}
    other = plan_weights(ArrayCheckpoint(finite))
    assert (other.nonfinite, other.notes, other.parameters) == (0, (), plan.parameters)


def test_minus_infinity_of_a_mask_is_its_meaning() -> None:
    arrays = {"a.weight": normal(4, 4), "attn.mask": np.full((4, 4), -np.inf), "adam.exp_avg": np.full(3, np.nan)}
    arrays["a.weight_fake_quant.activation_post_process.min_val"] = np.full(1, np.inf)
    arrays["a.activation_post_process.max_val"] = np.full(1, -np.inf)
    arrays["linear.input_max"] = np.full((), np.inf)  # of a layer that clips nothing
    assert plan_weights(ArrayCheckpoint(arrays)).nonfinite == 0
    with pytest.raises(WeightsError, match=r"a\.max_val holds 1 of 1"):
        plan_weights(ArrayCheckpoint(arrays | {"a.max_val": np.full(1, np.inf)}))


def test_a_model_of_nothing_finite_has_no_matrix() -> None:
    checkpoint = ArrayCheckpoint({"a.weight": np.full((4, 4), np.nan), "b.weight": np.full((3, 4), np.inf)})
    with pytest.raises(WeightsError, match=r"tensor a\.weight holds 16 of 16 .*, and 1 other tensor has some"):
        plan_weights(checkpoint)
    with pytest.raises(WeightsError, match=r"no matrix of at least 2 x 2 .* not finite \(16 values\)"):
        plan_weights(checkpoint, allow_nonfinite=True)


@pytest.mark.parametrize("value", BAD_VALUES)
def test_values_that_only_the_matrix_has_are_found_when_it_is_read(value: float) -> None:
    """Dequantised or folded weights need not be finite where what is stored is."""
    array = normal(4, 4)
    array[1, :2] = value
    layer = plan_weights(ArrayCheckpoint({"bad.weight": normal(4, 4)})).layers[0]
    with pytest.raises(WeightsError, match=r"bad\.weight holds 2 of 16 values"):
        layer_matrix(ArrayCheckpoint({"bad.weight": array}), layer)


@pytest.mark.parametrize(
    ("tensors", "message", "remedy"),
    [
        ([], "arrays holds no tensors", "save the whole state dict"),
        (
            [("a.weight", "complex64", (4, 4)), ("a.bias", "float32", (4,))],
            "arrays: 100.0% of its weights cannot be read: 16 complex weights (complex64) in 1 tensor, "
            "such as a.weight",
            "save their real and imaginary parts as tensors",
        ),
        (
            [("a.weight", "int8", (4, 4)), ("b.weight", "uint8", (4, 4)), ("a.bias", "float32", (4,))],
            "arrays: 100.0% of its weights cannot be read: 16 integer or packed weights (int8), 16 integer or packed "
            "weights (uint8) in 2 tensors, such as a.weight",
            "convert it to float16 or float32 with the library that wrote it, then save it again",
        ),
        (
            [("a.weight", "float32", (1, 4)), ("b.weight", "float32", (1, 4)), ("a.bias", "float32", (4,))],
            "arrays has no matrix of at least 2 x 2 among its 3 tensors: 2 fewer than two outputs, 1 vector or scalar",
            "give the whole model: a layer needs at least two outputs and two inputs",
        ),
    ],
    ids=["none", "complex", "integers", "vectors"],
)
def test_nothing_usable_says_why(tensors: list[tuple[str, str, tuple[int, ...]]], message: str, remedy: str) -> None:
    with pytest.raises(WeightsError) as caught:
        plan_weights(ShapesCheckpoint([TensorInfo(*each) for each in tensors]))
    assert (str(caught.value), caught.value.remedy) == (f"{message} ({remedy})", remedy)


def test_zeros_and_tied_parts_are_counted() -> None:
    with pytest.raises(WeightsError, match="tensors: 1 vector or scalar, 1 all zeros") as caught:
        plan_weights(ArrayCheckpoint({"a.weight": np.zeros((4, 4), np.float32), "a.bias": normal(4)}))
    assert caught.value.remedy == "load its weights first"
    fused = normal(3, 4)
    with pytest.raises(WeightsError, match=r"its 2 tensors: 3 fewer than two outputs, 1 tied \(give") as caught:
        plan_weights(ArrayCheckpoint({"a.in_proj_weight": fused, "b.in_proj_weight": fused}))
    assert caught.value.remedy == "give the whole model: a layer needs at least two outputs and two inputs"


def test_topology_is_of_the_shapes_alone() -> None:
    a = plan_of(a__weight=(4, 8), b__weight=(3, 2, 2, 2))
    assert a.rule == MATRIX_RULE == "matrix-2"
    assert a.topology == plan_of(x__weight=(3, 8), y__weight=(4, 4, 2)).topology
    assert a.topology != plan_of(x__weight=(3, 8), y__weight=(8, 4)).topology
    assert a.content_hash != plan_of(c__weight=(4, 8), b__weight=(3, 2, 2, 2)).content_hash


def test_content_hash_is_of_the_set_of_weights() -> None:
    array, running = normal(4, 4), normal(4)
    weights = {"a": array, "b": normal(4, 4)}
    whole = plan_weights(ArrayCheckpoint(weights)).content_hash
    same: list[dict[str, np.ndarray]] = [
        {"model.a": array, "model.b": weights["b"]},
        {**weights, "head": array},  # tied
        {**weights, "bn.running_mean": running, "bn.num_batches_tracked": np.array(3)},
        {**weights, "position_ids": np.arange(8).reshape(1, 8), "attn.masked_bias": np.float32(-1e4)},
        {**weights, "inv_freq": running, "causal_mask": np.ones((4, 4), bool)},
    ]
    assert {plan_weights(ArrayCheckpoint(v)).content_hash for v in same} == {whole}
    others = [
        {"a": array},
        {"a": array.reshape(2, 8), "b": weights["b"]},
        {"a": array.view(np.float64), "b": weights["b"]},
        {"a": -array, "b": weights["b"]},
        {**weights, "norm.bias": running},
        {**weights, "norm.bias": -running},
    ]
    hashes = {plan_weights(ArrayCheckpoint(v)).content_hash for v in others}
    assert len(hashes) == len(others)
    assert whole not in hashes


class TestUnreadableWeights:
    """What is left out of a model, and what is refused for it."""

    READ = (("a.weight", "float32", (40, 40)), ("embed_tokens.weight", "float32", (5000, 4)))

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float4_e2m1fn_x2", "complex64"])
    def test_a_few_are_left_out_and_counted(self, dtype: str) -> None:
        tensors = [TensorInfo(*each) for each in (*self.READ, ("odd.weight", dtype, (8, 10)))]
        plan = plan_weights(ShapesCheckpoint(tensors))
        assert (len(plan.layers), plan.unread, plan.parameters) == (2, 80, 1600 + 20000 + 80)
        assert set(reasons(plan)) == {"odd.weight"}

    @pytest.mark.parametrize("rows", [8, 9])
    def test_five_percent_without_embeddings_is_the_limit(self, rows: int) -> None:
        tensors = [
            TensorInfo("a.weight", "float32", (1520, 10)),
            TensorInfo("embed_tokens.weight", "float32", (5000, 4)),
            TensorInfo("odd.weight", "int8", (rows, 100)),
        ]
        if rows == 8:
            assert plan_weights(ShapesCheckpoint(tensors)).unread == 800
            return
        with pytest.raises(
            WeightsError, match=r"arrays: 5\.6% of its weights cannot be read: 900 integer or packed"
        ) as e:
            plan_weights(ShapesCheckpoint(tensors))
        assert "float16 or float32" in e.value.remedy

    def test_a_layer_that_its_sibling_blocks_have_is_not_left_out(self) -> None:
        blocks = [TensorInfo(f"h.{i}.fc.weight", "float32", (100, 100)) for i in range(30)]
        small = TensorInfo("h.30.fc.weight", "int8", (10, 10))
        with pytest.raises(WeightsError, match=r"h\.30\.fc\.weight, a layer of a block, cannot be read"):
            plan_weights(ShapesCheckpoint([*blocks, small]))
        other = TensorInfo("h.30.gate.weight", "int8", (10, 10))
        assert plan_weights(ShapesCheckpoint([*blocks, other])).unread == 100

    @pytest.mark.parametrize(
        ("name", "dtype", "shape"),
        [
            ("attn.relative_position_index", "int64", (49, 49)),
            ("position_ids", "int32", (1, 4096)),
            ("ids", "uint8", (64, 64)),
            ("table", "int64", (64, 64)),
            ("mask", "int8", (64, 64)),
            ("keep", "bool", (64, 64)),
            ("codes", "int8", (4096,)),
        ],
    )
    def test_what_is_no_weight_counts_for_nothing(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        tensors = [TensorInfo("a.weight", "float32", (4, 4)), TensorInfo(name, dtype, shape)]
        assert plan_weights(ShapesCheckpoint(tensors)).unread == 0

    def test_integers_named_weight_are_weights(self) -> None:
        tensors = [TensorInfo("a.weight", "float32", (4, 4)), TensorInfo("b.weight", "int64", (4, 4))]
        with pytest.raises(WeightsError, match=r"50\.0% of its weights"):
            plan_weights(ShapesCheckpoint(tensors))


@given(st.randoms(use_true_random=False))
def test_any_permutation_of_the_tensors_gives_the_same_plan(rng: random.Random) -> None:
    items = list(PERMUTED.items())
    rng.shuffle(items)
    assert plan_weights(ArrayCheckpoint(dict(items))) == EXPECTED


_SHARED = normal(30, 8)
PERMUTED = {
    "wte.weight": _SHARED,
    "lm_head.weight": _SHARED,
    "blocks.0.attn.in_proj_weight": normal(24, 8),
    "blocks.0.mlp.fc2.weight": normal(8, 16),
    "blocks.0.mlp.fc1.weight": normal(16, 8),
    "blocks.10.mlp.fc1.weight": normal(16, 8),
    "blocks.2.mlp.fc1.weight": normal(16, 8),
    "rnn.weight_hh_l0": normal(32, 8),
    "rnn.weight_ih_l0": normal(32, 8),
    "norm.weight": normal(8),
    "zero.weight": np.zeros((8, 8), np.float32),
}
EXPECTED = plan_weights(ArrayCheckpoint(PERMUTED))


def test_parameters_are_those_torchvision_states(built_models: dict[str, BuiltModel]) -> None:
    different = {}
    for name, model in built_models.items():
        if model.package == "" and model.num_params is not None:
            counted = plan_weights(ShapesCheckpoint(model.tensors)).parameters
            if counted != model.num_params:
                different[name] = counted - model.num_params
    # Built without weights googlenet has its auxiliary classifiers; vit_h_14's weights are for larger images.
    assert different == {"googlenet": 13_004_888 - 6_624_904, "vit_h_14": (257 - 1370) * 1280}
