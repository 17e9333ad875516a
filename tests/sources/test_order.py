from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from registry.sources.depth_order import depth_order
from registry.sources.matrix_rule import skip_reason
from registry.sources.module_roles import BODY, HEAD, Part, parse_part

if TYPE_CHECKING:
    from tests.sources.conftest import BuiltModel


def correlation(model: BuiltModel, order: list[str]) -> float:
    """Spearman's rank correlation of an order with the one in which torchvision defines the layers."""
    defined = [t.name for t in model.tensors if t.name in set(order)]
    place = {name: i for i, name in enumerate(defined)}
    return float(spearmanr([place[name] for name in order], np.arange(len(order))).statistic)


def matrices(model: BuiltModel) -> dict[str, tuple[int, ...]]:
    return {t.name: t.shape for t in model.tensors if skip_reason(t) is None}


def test_agrees_with_the_definition_of_every_classification_model(built_models: dict[str, BuiltModel]) -> None:
    found = {}
    for name, model in built_models.items():
        if model.package == "":
            shapes = matrices(model)
            order = depth_order({k: shapes[k] for k in sorted(shapes)})
            found[name] = correlation(model, order)
            shuffled = random.Random(name).sample(sorted(shapes), len(shapes))
            assert depth_order({k: shapes[k] for k in shuffled}) == order
    assert len(found) >= 80
    assert {name: c for name, c in found.items() if c < 0.98} == {}
    assert np.mean(list(found.values())) > 0.999


def test_natural_order_would_not_do(built_models: dict[str, BuiltModel]) -> None:
    model = built_models["alexnet"]

    def natural(name: str) -> list[tuple[int, int | str]]:
        return [(0, int(c)) if c.isdigit() else (1, c) for c in re.findall(r"\d+|\D+", name)]

    assert correlation(model, sorted(matrices(model), key=natural)) < 0


def test_agrees_with_the_other_tasks_models(built_models: dict[str, BuiltModel]) -> None:
    found = {n: correlation(m, depth_order(matrices(m))) for n, m in built_models.items() if m.package != ""}
    assert len(found) >= 29
    assert {name: c for name, c in found.items() if c < 0.95} == {}


# Each in the order data flow through it; square shapes, so that names alone decide.
NAMES = {
    "bert": """
        bert.embeddings.word_embeddings bert.embeddings.token_type_embeddings
        bert.encoder.layer.0.attention.self.query bert.encoder.layer.0.attention.self.key
        bert.encoder.layer.0.attention.self.value bert.encoder.layer.0.attention.output.dense
        bert.encoder.layer.0.intermediate.dense bert.encoder.layer.0.output.dense
        bert.encoder.layer.2.attention.self.query bert.encoder.layer.10.attention.self.query
        bert.pooler.dense cls.predictions.transform.dense""",
    "gpt2": """
        wte h.0.attn.c_attn h.0.attn.c_proj h.0.mlp.c_fc h.0.mlp.c_proj h.2.attn.c_attn h.10.attn.c_attn lm_head""",
    "llama": """
        model.embed_tokens model.layers.0.self_attn.q_proj model.layers.0.self_attn.k_proj
        model.layers.0.self_attn.v_proj model.layers.0.self_attn.o_proj model.layers.0.mlp.gate_proj
        model.layers.0.mlp.up_proj model.layers.0.mlp.down_proj model.layers.11.self_attn.q_proj lm_head""",
    "llama of Meta": """
        tok_embeddings layers.0.attention.wq layers.0.attention.wk layers.0.attention.wv layers.0.attention.wo
        layers.0.feed_forward.w1 layers.0.feed_forward.w3 layers.0.feed_forward.w2 layers.11.attention.wq output""",
    "experts of mixtral": """
        layers.0.self_attn.o_proj layers.0.block_sparse_moe.experts.0.w1 layers.0.block_sparse_moe.experts.0.w3
        layers.0.block_sparse_moe.experts.0.w2 layers.0.block_sparse_moe.experts.1.w1
        layers.0.block_sparse_moe.experts.10.w1 layers.0.block_sparse_moe.gate layers.1.self_attn.q_proj""",
    "experts of dbrx": "ffn.experts.0.w1 ffn.experts.0.v1 ffn.experts.0.w2 ffn.experts.1.w1 ffn.router.layer",
    "cross-attention of gpt2": "h.0.crossattention.q_attn h.0.crossattention.c_attn h.0.crossattention.c_proj",
    "two of three": "layers.0.w1 layers.0.w2 layers.1.w1 layers.1.w2",
    "t5": """
        shared encoder.block.0.layer.0.SelfAttention.q encoder.block.0.layer.0.SelfAttention.k
        encoder.block.0.layer.0.SelfAttention.v encoder.block.0.layer.0.SelfAttention.o
        encoder.block.0.layer.1.DenseReluDense.wi_0 encoder.block.0.layer.1.DenseReluDense.wi_1
        encoder.block.0.layer.1.DenseReluDense.wo decoder.block.0.layer.0.SelfAttention.q
        decoder.block.0.layer.1.EncDecAttention.q lm_head""",
    "torch transformer": """
        decoder.layers.0.self_attn.in_proj_weight decoder.layers.0.self_attn.out_proj
        decoder.layers.0.multihead_attn.out_proj decoder.layers.0.linear1 decoder.layers.0.linear2""",
    "timm vit": """
        patch_embed.proj blocks.0.attn.qkv blocks.0.attn.proj blocks.0.mlp.fc1 blocks.0.mlp.fc2
        blocks.3.attn.qkv blocks.10.attn.qkv head""",
    "timm convnext": """
        stem.0 stages.0.blocks.0.conv_dw stages.0.blocks.0.mlp.fc1 stages.0.blocks.0.mlp.fc2
        stages.1.downsample.1 stages.1.blocks.0.conv_dw stages.1.blocks.0.mlp.fc1 head.fc""",
    "yolo": """
        model.0.conv model.1.conv model.2.cv1.conv model.9.cv1.conv model.9.cv2.conv model.10.conv model.22.cv2.0.0.conv
        model.22.cv3.0.0.conv""",
    "u-net": """
        inc.double_conv.0 down1.conv.0 down2.conv.0 down4.conv.0 up1.up up1.conv.0 up2.up up4.up outc.conv""",
    "diffusers": """
        conv_in time_embedding.linear_1 time_embedding.linear_2 down_blocks.0.resnets.0.conv1
        down_blocks.0.resnets.0.conv2 down_blocks.0.downsamplers.0.conv down_blocks.1.resnets.0.conv1
        mid_block.resnets.0.conv1 up_blocks.0.resnets.0.conv1 up_blocks.0.upsamplers.0.conv conv_out""",
    "keras vgg": """
        block1_conv1.kernel block1_conv2.kernel block2_conv1.kernel block5_conv3.kernel fc1.kernel fc2.kernel
        predictions.kernel""",
    "keras, automatic names": """
        embedding.embeddings conv2d.kernel conv2d_1.kernel conv2d_2.kernel conv2d_10.kernel dense.kernel
        dense_1.kernel""",
    "haiku, automatic names": """
        net.linear.w net.linear_1.w net.linear_2.w""",
    "keras, dense layers alone": "dense.kernel dense_1.kernel dense_2.kernel dense_10.kernel",
    "head beside numbered layers": "linear1.weight linear2.weight linear.weight",
    "keras, recurrent": "embedding.embeddings bidirectional.kernel dense.kernel dense_1.kernel",
    "keras, separable": """
        conv1.kernel conv_dw_1.depthwise_kernel conv_pw_1.kernel conv_dw_2.depthwise_kernel conv_pw_2.kernel
        conv_dw_10.depthwise_kernel conv_pw_10.kernel conv_preds.kernel""",
    "one count over several stems": "conv1 stage2.0.conv stage3.0.conv stage4.0.conv conv5 fc",
    "lstm": """
        embedding lstm.weight_ih_l0 lstm.weight_hh_l0 lstm.weight_ih_l1 lstm.weight_hh_l1 lstm.weight_ih_l10 fc""",
    "llava": """
        vision_tower.encoder.layers.0.fc1 language_model.model.layers.0.mlp.up_proj multi_modal_projector.linear_1
        language_model.lm_head""",
    "llava in memory": """
        model.vision_tower.encoder.layers.0.fc1 model.language_model.layers.0.mlp.up_proj
        model.multi_modal_projector.linear_1 lm_head""",
    "segformer": """
        encoder.patch_embeddings.0.proj encoder.block.0.0.attention.self.query encoder.block.0.1.mlp.dense1
        encoder.patch_embeddings.1.proj encoder.block.1.0.attention.self.query decode_head.classifier""",
    "nomic bert": "encoder.layers.0.mlp.fc12 encoder.layers.0.mlp.fc11 encoder.layers.0.mlp.fc2",
    "gates of flax": """
        embed lstm.cell.ii lstm.cell.if lstm.cell.ig lstm.cell.io lstm.cell.hi lstm.cell.hf lstm.cell.hg lstm.cell.ho
        out""",
    "gates of flax's other cell": "gru.other gru.ir gru.iz gru.in gru.hr gru.hz gru.hn",
    "inside residual blocks": "conv1 layer1.0.conv1 layer1.0.conv2 layer1.0.downsample.0 layer1.1.conv1 fc",
}


@pytest.mark.parametrize("names", [text.split() for text in NAMES.values()], ids=list(NAMES))
def test_depth_order_of_well_known_names(names: list[str]) -> None:
    full = [f"{name}.weight" for name in names]
    for seed in range(3):
        assert depth_order(dict.fromkeys(random.Random(seed).sample(full, len(full)), (8, 8))) == full


def test_the_last_of_three_is_the_one_of_the_other_shape() -> None:
    llama = {"w1.weight": (12, 8), "w2.weight": (8, 12), "w3.weight": (12, 8), "w1.bias": (12,)}
    assert depth_order(llama) == ["w1.bias", "w1.weight", "w3.weight", "w2.weight"]
    xformers = {"w1.weight": (12, 8), "w2.weight": (12, 8), "w3.weight": (8, 12)}
    assert depth_order(xformers) == ["w1.weight", "w2.weight", "w3.weight"]
    assert depth_order({**llama, "w0.weight": (8, 8)})[0] == "w0.weight"
    # Biases tell nothing, and no name that only one of the two orders has is lost.
    assert depth_order({**xformers, "w1.bias": (12,)})[2:] == ["w2.weight", "w3.weight"]
    assert depth_order({**xformers, "w3.weight": (8,)}) == ["w1.weight", "w3.weight", "w2.weight"]
    assert sorted(depth_order({**xformers, "v1.weight": (12, 8)})) == sorted([*xformers, "v1.weight"])


def test_parts_that_are_kept_apart_stay_so_where_nothing_embeds_patches() -> None:
    """Blocks of SegFormer are put in stages with what embeds their patches, and other encoders are left as they are."""
    names = ["encoder.block.0.b", "encoder.block.1.b", "encoder.layer_norm.0.n", "encoder.layer_norm.1.n"]
    assert depth_order(dict.fromkeys(names, (8, 8))) == names
    shapes = dict.fromkeys([*names, "encoder.patch_embeddings.0.proj", "encoder.patch_embeddings.1.proj"], (8, 8))
    assert [name.split(".")[2] for name in depth_order(shapes)] == ["0", "0", "0", "1", "1", "1"]
    assert depth_order(dict.fromkeys([*names, "patch_embeddings.proj"], (8, 8)))[1:] == names


def test_experts_beside_other_modules_are_ordered() -> None:
    names = [f"mlp.{name}.weight" for name in ("gate_proj", "w1", "w3", "w2", "head")]
    assert depth_order(dict.fromkeys(sorted(names), (8, 8)))[-1] == "mlp.head.weight"
    pair = ["a.conv1.weight", "a.w1.weight"]
    assert sorted(depth_order(dict.fromkeys(pair, (8, 8)))) == pair


def test_names_of_bloom_go_up_and_down() -> None:
    names = ["h.0.mlp.dense_h_to_4h.weight", "h.0.mlp.dense_4h_to_h.weight"]
    assert depth_order(dict.fromkeys(sorted(names), (8, 8))) == names


@pytest.mark.parametrize(
    ("text", "rank", "numbers", "stem", "natural"),
    [
        ("stage3", BODY, (3,), "stage", ((1, 0, "stage"), (0, 3, ""))),
        ("Mixed_5b", BODY, (5,), "mixed_b", ((1, 0, "mixed_"), (0, 5, ""), (1, 0, "b"))),
        ("conv2a", BODY, (2,), "conva", ((1, 0, "conv"), (0, 2, ""), (1, 0, "a"))),
        ("layerNorm", BODY, (), "layer_norm", ((1, 0, "layer_norm"),)),
        ("conv3x3a_10", BODY, (10,), "conva", tuple(
            (0, int(chunk), "") if chunk.isdecimal() else (1, 0, chunk) for chunk in ("conv", "3", "x", "3", "a_", "10")
        )),
        ("s2s", BODY, (), "s_s", ((1, 0, "s"), (0, 2, ""), (1, 0, "s"))),
        ("classifier", HEAD, (), "classifier", ((1, 0, "classifier"),)),
    ],
)  # fmt: skip
def test_a_part_of_a_name_taken_apart(
    text: str, rank: int, numbers: tuple[int, ...], stem: str, natural: tuple[tuple[int, int, str], ...]
) -> None:
    assert parse_part(text) == Part(rank, numbers, stem, 0, natural)


def test_words_order_names_of_one_rank_and_number() -> None:
    names = ("word_x", "weight_ih", "weight_hh", "conv_dw", "conv_pw", "weight_hh_reverse")
    assert [parse_part(name).stem_rank for name in names] == [-1, 0, 1, 1, 2, 3]


def test_a_short_numbered_sequence_stretches_over_a_long_one() -> None:
    names = [f"dense_{i}" for i in range(1, 22)] + [f"block_{i}" for i in range(1, 4)]
    order = depth_order(dict.fromkeys(names, (8, 8)))
    dense = [name for name in order if name.startswith("dense")]
    assert dense == [f"dense_{i}" for i in range(1, 22)]
    assert [order.index(f"block_{i}") // 8 for i in (1, 2, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        "a_1 b_1 a_2 a_3 b_2 a_4",  # twice as long: stretched
        "a_1 b_1 a_2 b_2 a_3 b_3 a_4 a_5",  # not twice as long
        "a_1 a_2 b_2 a_3 b_3 a_4",  # from another start
        "block block_0 block_1 head",  # without a number the 0th
        "block_1 block_2 body",  # of a stem without numbers the last
        "weight_hh1_1 weight_ih1_2",  # later numbers go before words
        "zeta dense",  # the last layer of a network that has no convolution
        "down mid up",
    ],
)
def test_numbers_of_siblings(names: str) -> None:
    expected = names.split()
    assert depth_order(dict.fromkeys(sorted(expected, reverse=True), (8, 8))) == expected


@pytest.mark.parametrize(
    ("width", "blocks", "beside", "first"),
    [
        (64, "blocks", "downsample", "downsample"),
        (64, "layers", "downsample", "downsample"),
        (64, "block", "downsample", "downsample"),
        (32, "blocks", "downsample", "blocks"),
        (64, "blocks", "shortcut", "blocks"),
    ],
)
def test_a_stages_downsampling_stands_where_its_width_says(width: int, blocks: str, beside: str, first: str) -> None:
    shapes = {
        f"s.{beside}.reduction.weight": (64, 128), f"s.{blocks}.0.w.weight": (width, 7), "t.weight": (9, 9),
    }  # fmt: skip
    assert depth_order(shapes)[0].split(".")[1] == first
    # A vector is no width that is produced.
    vector = {f"s.{beside}.norm": (64,), f"s.{beside}.reduction": (128, 8), f"s.{blocks}.0.w": (64, 7)}
    assert depth_order(vector)[0].split(".")[1] == blocks


@given(st.sets(st.text(alphabet="ab01._/:é", max_size=12), max_size=12), st.randoms(use_true_random=False))
def test_any_names_are_ordered_once_and_whatever_their_order(names: set[str], rng: random.Random) -> None:
    listed = sorted(names)
    expected = depth_order(dict.fromkeys(listed, (2, 2)))
    assert sorted(expected) == listed
    assert depth_order(dict.fromkeys(rng.sample(listed, len(listed)), (2, 2))) == expected


def test_a_name_of_many_parts_does_not_exhaust_the_stack() -> None:
    deep = [".".join(["a"] * 100_000), ".".join(["a"] * 100_000 + ["b"])]
    assert depth_order(dict.fromkeys(deep, (2, 2))) == deep
    branching = [".".join(["a"] * depth + ["b"]) for depth in range(2_000)]
    assert sorted(depth_order(dict.fromkeys(branching, (2, 2)))) == sorted(branching)


def test_a_layer_of_a_numbered_sequence_is_its_first() -> None:
    """Keras counts layers of a class from the second on; a single dense layer is the head."""
    names = ["dense/kernel", "dense_1/kernel", "dense_2/kernel"]
    assert depth_order(dict.fromkeys(names, (8, 8))) == names
    assert (
        depth_order(dict.fromkeys(["block_2/kernel", "dense/kernel", "block_10/kernel"], (8, 8)))[-1] == "dense/kernel"
    )
