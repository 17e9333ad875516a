"""Fused projections are cut where the modules that define them cut them."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from registry.sources import layer_matrix, open_module, plan_weights
from registry.sources.references import expand, open_ref
from tests.layouts.spying import Known, Spy, arrays_of
from tests.sources.conftest import ArrayCheckpoint

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import LayerMatrix, WeightsPlan

MISSING = [name for name in ("transformers", "timm") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"not installed: {MISSING}")

BASE = {
    "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 50, "intermediate_size": 48,
    "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {
    "n_embd": 32, "n_head": 4, "n_layer": 1, "vocab_size": 50, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DEEP = {"n_layers": 1, "vocab_size": 50}
FALCON = ("FalconConfig", "FalconModel", "query_key_value")
BIGCODE = ("GPTBigCodeConfig", "GPTBigCodeModel", "c_attn")
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXModel", "query_key_value", BASE),
    "gpt_neox_japanese": ("GPTNeoXJapaneseConfig", "GPTNeoXJapaneseModel", "query_key_value", BASE),
    "bloom": ("BloomConfig", "BloomModel", "query_key_value", {"hidden_size": 32, "n_head": 4, "n_layer": 1}),
    "falcon-new": (*FALCON, {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-multi-query": (*FALCON, {**BASE, "multi_query": True}),
    "falcon-plain": (*FALCON, {**BASE, "multi_query": False, "alibi": True}),
    "phi3": ("Phi3Config", "Phi3Model", "qkv_proj", {**BASE, "num_key_value_heads": 2}),
    "starcoder": (*BIGCODE, GPT2),
    "bigcode-many-keys": (*BIGCODE, {**GPT2, "multi_query": False}),
    "codegen": ("CodeGenConfig", "CodeGenModel", "qkv_proj", {**GPT2, "n_embd": 64, "n_head": 8, "rotary_dim": 4}),
    "mpt": ("MptConfig", "MptModel", "Wqkv", {**DEEP, "d_model": 32, "n_heads": 4, "max_seq_len": 16}),
    "dbrx": (
        "DbrxConfig", "DbrxModel", "Wqkv",
        {**DEEP, "d_model": 32, "n_heads": 4, "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
         "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 3}},
    ),
    "persimmon": ("PersimmonConfig", "PersimmonModel", "query_key_value", {**BASE, "qk_layernorm": False}),
    "modernbert": ("ModernBertConfig", "ModernBertModel", "Wqkv", {**BASE, "cls_token_id": 1, "sep_token_id": 2}),
    "gpt2": ("GPT2Config", "GPT2Model", "c_attn", GPT2),
    "imagegpt": ("ImageGPTConfig", "ImageGPTModel", "c_attn", GPT2),
    "openai-gpt": ("OpenAIGPTConfig", "OpenAIGPTModel", "c_attn", GPT2),
    "deberta": ("DebertaConfig", "DebertaModel", "in_proj", {**BASE, "relative_attention": False, "pos_att_type": []}),
}  # fmt: skip
UNKNOWN = {"gpt_neox", "gpt_neox_japanese", "bloom", "falcon-new", "falcon-plain", "persimmon", "codegen", "deberta"}
"""Models whose layout only the configuration tells."""


def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    config_class, model, _, settings = MODELS[name]
    config = getattr(transformers, config_class)(**settings)
    return scrambled(getattr(transformers, model)(config)), config.to_dict()


def scrambled(module: nn.Module) -> nn.Module:
    """Weights that are all different, and no biases, so that outputs are products with the weights alone."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
            elif "bias" in name:
                parameter.zero_()
    return module.double().eval()


def parts_of(plan: WeightsPlan, tensor: str) -> dict[str, LayerMatrix]:
    return {layer.name.removeprefix(tensor).strip("[]"): layer for layer in plan.layers if layer.tensor == tensor}


@pytest.mark.parametrize("name", MODELS)
def test_queries_keys_and_values_are_those_of_the_module(name: str) -> None:
    module, config = build(name)
    own = MODELS[name][2]
    path, fused = next((n, m) for n, m in module.named_modules() if n.endswith(own))
    plan = plan_weights(Known(arrays_of(module), config))
    parts = parts_of(plan, f"{path}.weight")
    assert list(parts) == ["q", "k", "v"]
    assert {layer.kind for layer in parts.values()} == {"attention"}
    spy = Spy()
    with spy.watching(fused):
        module(torch.tensor([[7]]))
    assert parts in spy
    assert {**parts, "q": parts["k"], "k": parts["q"]} not in spy
    assert {**parts, "v": parts["k"]} not in spy


@pytest.mark.parametrize("name", sorted(UNKNOWN))
def test_without_a_configuration_they_stay_whole(name: str) -> None:
    module, config = build(name)
    plan = plan_weights(ArrayCheckpoint(arrays_of(module)))
    whole = [layer for layer in plan.layers if MODELS[name][2] in layer.name.split(".")]
    assert len(whole) == 1
    assert "[" not in whole[0].name
    contradicting = {
        **config,
        "num_attention_heads": 5,
        "n_head": 5,
        "num_kv_heads": 5,
        "hidden_size": 40,
        "n_embd": 40,
    }
    assert plan_weights(Known(arrays_of(module), contradicting)).layers == plan.layers


def test_the_convolutions_of_clvp_have_inputs_first() -> None:
    pytest.importorskip("transformers")
    from transformers.models.clvp.modeling_clvp import ClvpDecoder, ClvpDecoderConfig

    config = ClvpDecoderConfig(
        vocab_size=50, hidden_size=32, num_attention_heads=4, num_hidden_layers=1, n_inner=48,
        max_position_embeddings=16,
    )  # fmt: skip
    arrays = arrays_of(scrambled(ClvpDecoder(config)))
    layers = {layer.tensor: layer for layer in plan_weights(Known(arrays, config.to_dict())).layers}
    up = next(layer for name, layer in layers.items() if name.endswith("c_fc.weight"))
    down = next(layer for name, layer in layers.items() if name.endswith("c_proj.weight"))
    assert (up.shape, down.shape, up.axis, down.axis) == ((48, 32), (32, 48), 1, 1)


def test_cross_attention_of_gpt2_has_keys_and_values() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**{**GPT2, "n_embd": 36}, add_cross_attention=True)
    plan = plan_weights(ArrayCheckpoint(arrays_of(scrambled(transformers.GPT2Model(config)))))
    cross = [layer for layer in plan.layers if "crossattention" in layer.name]
    assert [(layer.name.split(".", 2)[2], layer.shape) for layer in cross] == [
        ("crossattention.q_attn.weight", (36, 36)),
        ("crossattention.c_attn.weight[k]", (36, 36)),
        ("crossattention.c_attn.weight[v]", (36, 36)),
        ("crossattention.c_proj.weight", (36, 36)),
    ]


def test_the_delta_rule_of_qwen3_next() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3NextConfig(
        **BASE, num_key_value_heads=2, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=6, linear_value_head_dim=5, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24,
        shared_expert_intermediate_size=24, layer_types=["linear_attention"],
    )  # fmt: skip
    module = scrambled(transformers.Qwen3NextModel(config))
    checkpoint = Known(arrays_of(module), config.to_dict())
    plan = plan_weights(checkpoint)
    attention = module.layers[0].linear_attn
    x = torch.randn(1, 1, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = attention.fix_query_key_value_ordering(attention.in_proj_qkvz(x), attention.in_proj_ba(x))
    by_label = dict(zip("qkvzba", expected, strict=True))
    layers = {**parts_of(plan, "layers.0.linear_attn.in_proj_qkvz.weight"),
              **parts_of(plan, "layers.0.linear_attn.in_proj_ba.weight")}  # fmt: skip
    assert list(layers) == ["q", "k", "v", "z", "b", "a"]
    for label, layer in layers.items():
        found = layer_matrix(checkpoint, layer) @ x[0, 0].numpy()
        np.testing.assert_allclose(found, by_label[label].flatten().numpy(), rtol=1e-4, atol=1e-5, err_msg=label)


def heads_of(rows: int, heads: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((heads, rows, 32)).astype(np.float32)


def twins(config: dict[str, Any], name: str, layout: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """One attention apart and fused, by the reshaping that the model's own code does; 4 heads, 2 of keys, 8 wide."""
    keys = 2 if layout in ("by key head", "by size") else 4
    q, k, v = heads_of(8, 4, 1), heads_of(8, keys, 2), heads_of(8, keys, 3)
    if layout == "by size":
        fused = np.concatenate([each.reshape(-1, 32) for each in (q, k, v)])
    elif layout == "by key head":
        fused = np.concatenate([q.reshape(keys, -1, 32), k, v], axis=1).reshape(-1, 32)
    elif layout == "per head":
        fused = np.stack([q, k, v], axis=1).reshape(-1, 32)
    else:
        fused = np.stack([q, k, v]).reshape(-1, 32)
    apart = {f"q_{name}": q.reshape(-1, 32), f"k_{name}": k.reshape(-1, 32), f"v_{name}": v.reshape(-1, 32)}
    return {f"h.0.attn.{own.split('_')[0]}_proj.weight": value for own, value in apart.items()}, {
        f"h.0.attn.{name}.weight": fused
    }


REMOTE = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("config", "name", "layout"),
    [
        ({"model_type": "internlm2", **REMOTE}, "wqkv", "by key head"),
        ({"model_type": "phi3small", **REMOTE}, "query_key_value", "by key head"),
        ({"model_type": "RefinedWeb", "hidden_size": 32, "n_head": 4, "n_head_kv": 2},
         "query_key_value", "by key head"),
        ({"model_type": "chatglm", "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 8,
          "num_attention_heads": 4, "hidden_size": 32}, "query_key_value", "by size"),
        ({"model_type": "chatglm", "num_attention_heads": 4, "hidden_size": 32}, "query_key_value", "per head"),
        ({"model_type": "mpt", "d_model": 32, "n_heads": 4,
          "attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 2}}, "Wqkv", "by size"),
        ({"model_type": "minimax", "head_dim": 8, **REMOTE}, "qkv_proj", "per head"),
        ({"model_type": "llava", "text_config": {"model_type": "phi3", **REMOTE},
          "vision_config": {"model_type": "clip", "hidden_size": 16, "num_attention_heads": 2}}, "qkv_proj", "by size"),
        ({"model_type": "internvl_chat", "llm_config": {"model_type": "internlm2", **REMOTE}}, "wqkv", "by key head"),
        ({"model_type": "qwen", **REMOTE}, "c_attn", "thirds"),
        ({"model_type": "baichuan", **REMOTE}, "W_pack", "thirds"),
        ({}, "qkv", "thirds"),
        ({}, "Wqkv", "thirds"),
    ],
)  # fmt: skip
def test_one_attention_apart_and_fused_is_one(config: dict[str, Any], name: str, layout: str) -> None:
    apart, fused = twins(config, name, layout)
    one, two = Known(apart, config), Known(fused, config)
    a, b = plan_weights(one), plan_weights(two)
    assert [layer.shape for layer in a.layers] == [layer.shape for layer in b.layers]
    assert len(a.layers) == 3
    for this, that in zip(a.layers, b.layers, strict=True):
        np.testing.assert_array_equal(layer_matrix(one, this), layer_matrix(two, that))


@pytest.mark.parametrize("config", [
    {"model_type": "internlm2", **REMOTE, "num_attention_heads": 3},
    {"model_type": "internlm2", **REMOTE, "hidden_size": 64},
    {"model_type": "internlm2", "hidden_size": "32", "num_attention_heads": None},
    {"model_type": "internlm2", "num_attention_heads": 10**30, "num_key_value_heads": True},
    {"model_type": ["internlm2"], **REMOTE},
    {"text_config": {"model_type": "internlm2", "text_config": {"text_config": 3}}},
])  # fmt: skip
def test_a_configuration_that_does_not_fit_is_void(config: dict[str, Any]) -> None:
    _, fused = twins(config, "wqkv", "by key head")
    assert [layer.name for layer in plan_weights(Known(fused, config)).layers] == ["h.0.attn.wqkv.weight"]


def test_gate_and_up_of_phi3_and_glm() -> None:
    transformers = pytest.importorskip("transformers")
    for config in (
        transformers.Phi3Config(**BASE, num_key_value_heads=2),
        transformers.GlmConfig(**BASE, num_key_value_heads=2, head_dim=8),
    ):
        module = scrambled(transformers.AutoModel.from_config(config))
        arrays = arrays_of(module)
        checkpoint = ArrayCheckpoint(arrays)
        mlp = [layer for layer in plan_weights(checkpoint).layers if "mlp" in layer.name]
        assert [layer.name.split("mlp.")[1] for layer in mlp] == [
            "gate_up_proj.weight[gate]", "gate_up_proj.weight[up]", "down_proj.weight",
        ]  # fmt: skip
        x = torch.randn(32, dtype=torch.float64)
        gate, up, down = (torch.from_numpy(layer_matrix(checkpoint, layer)) for layer in mlp)
        with torch.no_grad():
            expected = module.layers[0].mlp(x)
        assert torch.allclose(down @ (torch.nn.functional.silu(gate @ x) * (up @ x)), expected, atol=1e-5)


def test_gate_and_up_of_modernbert_and_chatglm() -> None:
    weights = {"mlp.Wi.weight": heads_of(24, 1, 6)[0], "mlp.dense_h_to_4h.weight": heads_of(24, 1, 7)[0]}
    for config, cut in (
        ({"model_type": "modernbert", "hidden_size": 32}, ["mlp.Wi.weight"]),
        ({"model_type": "chatglm", "hidden_size": 32, "ffn_hidden_size": 12}, ["mlp.dense_h_to_4h.weight"]),
        ({"model_type": "chatglm", "hidden_size": 32, "inner_hidden_size": 24}, []),
        ({}, []),
    ):
        layers = plan_weights(Known(weights, config)).layers
        assert [layer.name for layer in layers if "[" in layer.name] == [
            f"{name}[{part}]" for name in cut for part in ("gate", "up")
        ]


@pytest.mark.parametrize(
    ("arrays", "config"),
    [
        ({"attn.qkv.weight": (96, 64), "attn.proj.weight": (64, 64)}, {}),  # two heads of queries to one of keys
        ({"attn.qkv.weight": (96, 32, 1), "attn.proj_out.weight": (32, 32, 1)}, {}),  # of a diffusion model
        ({"attn.wqkv.weight": (96, 32)}, {}),
        ({"attn.qkv_proj.weight": (96, 32), "attn.out_proj.weight": (32, 32)}, {}),
        ({"attn.qkv_proj.weight": (96, 32)}, {"model_type": "codegen", "n_embd": 32, "auto_map": {}}),
        ({"attn.qkv_proj.weight": (97, 48, 1, 1), "attn.out_proj.weight": (48, 48, 1, 1)}, {}),
        ({"attn.c_attn.weight": (96, 32)}, {"model_type": "gpt_bigcode", "multi_query": False}),
        ({"attn.Wqkv.weight": (64, 32)}, {"model_type": "dbrx", "d_model": 32, "n_heads": 4}),
        ({"m.feed_forward_in.gate_up_proj.weight": (96, 32), "m.feed_forward_in.down_proj.weight": (32, 48)}, {}),
        ({"experts.0.gate_up_proj.weight": (96, 32), "experts.0.down_proj.weight": (32, 48)}, {}),
    ],
)
def test_what_is_not_known_stays_whole(arrays: dict[str, tuple[int, ...]], config: dict[str, Any]) -> None:
    rng = np.random.default_rng(8)
    plan = plan_weights(Known({name: rng.standard_normal(shape) for name, shape in arrays.items()}, config))
    assert sorted(layer.name for layer in plan.layers) == sorted(arrays)


def test_gate_and_up_that_nothing_confirms_stay_whole() -> None:
    rng = np.random.default_rng(3)
    for down in ({}, {"mlp.down_proj.weight": rng.standard_normal((8, 12))}):
        arrays = {"mlp.gate_up_proj.weight": rng.standard_normal((20, 8)), **down}
        assert not any("[" in layer.name for layer in plan_weights(ArrayCheckpoint(arrays)).layers)


APART: dict[str, tuple[str, dict[str, Any]]] = {
    "Dinov2": ("Dinov2Model", {"use_swiglu_ffn": True, "image_size": 28, "mlp_ratio": 2}),
    "Gte": ("GteModel", {"vocab_size": 50, "intermediate_size": 48}),
}


@pytest.mark.parametrize("name", APART)
def test_gate_and_up_that_only_files_fuse(name: str, tmp_path: Path) -> None:
    """What transformers holds apart in memory and fuses when it saves is one model; GTE has up first."""
    transformers = pytest.importorskip("transformers")
    kind, more = APART[name]
    config = getattr(transformers, f"{name}Config")(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **more)
    module = scrambled(getattr(transformers, kind)(config))
    module.save_pretrained(tmp_path)
    with open_module(module) as live, open_ref(expand(tmp_path)[0]) as stored:
        one, other = plan_weights(live), plan_weights(stored)
        assert any(layer.name.endswith("[gate]") for layer in other.layers)
        assert not any("[gate]" in layer.name for layer in one.layers)
        for mine, theirs in zip(one.layers, other.layers, strict=True):
            np.testing.assert_array_equal(layer_matrix(live, mine), layer_matrix(stored, theirs))


ONE = {"depths": (1, 1, 1, 1)}
NARROW = {**ONE, "embed_dim": (32, 64, 64, 64)}
TIMM: dict[str, dict[str, Any]] = {
    "levit_128s": {}, "levit_conv_128s": {}, "efficientformer_l1": {}, "tiny_vit_5m_224": {}, "shvit_s1": {},
    "coatnet_nano_rw_224": NARROW, "maxvit_tiny_rw_224": NARROW, "maxvit_tiny_tf_224": NARROW, "gcvit_xxtiny": {},
    "maxvit_rmlp_nano_rw_256": NARROW, "botnet26t_256": {}, "eca_botnext26ts_256": {}, "visformer_tiny": {},
    "vit_tiny_patch16_224": {"depth": 1}, "vit_relpos_small_patch16_224": {"depth": 1},
    "swin_tiny_patch4_window7_224": {**ONE, "embed_dim": 24, "num_heads": (3, 3, 3, 3)},
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_attention_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = scrambled(timm.create_model(name, **TIMM[name]))
    path, fused = next((n, m) for n, m in module.named_modules() if n.split(".")[-1] == "qkv")
    plan = plan_weights(ArrayCheckpoint(arrays_of(module)))
    weight = next(n for n in module.state_dict() if n.startswith(path) and n.endswith("weight") and ".bn." not in n)
    parts = parts_of(plan, weight)
    assert list(parts) == ["q", "k", "v"]
    spy = Spy()
    with spy.watching(fused):
        module(torch.randn(1, *module.default_cfg["input_size"], dtype=torch.float64))
    assert parts in spy
    assert {**parts, "q": parts["k"], "k": parts["q"]} not in spy


def test_attention_of_lambda_and_halo_networks_and_global_queries() -> None:
    """Their modules multiply with padded windows and other products, so sizes are compared with the modules' own."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("lambda_resnet26t")
    layers = {layer.name: layer for layer in plan_weights(ArrayCheckpoint(arrays_of(module))).layers}
    attention = module.stages[2][1].self_attn
    place = "stages.2.1.self_attn.qkv.weight"
    assert [(layers[f"{place}[{part}]"].start, layers[f"{place}[{part}]"].p) for part in "qkv"] == [
        (0, attention.num_heads * attention.dim_qk),
        (attention.num_heads * attention.dim_qk, attention.dim_qk),
        (attention.num_heads * attention.dim_qk + attention.dim_qk, attention.dim_v),
    ]
    module = timm.create_model("haloregnetz_b")
    layers = {layer.name: layer for layer in plan_weights(ArrayCheckpoint(arrays_of(module))).layers}
    attention = module.stages[2][3].self_attn
    key, value = (layers[f"stages.2.3.self_attn.kv.weight[{part}]"] for part in "kv")
    assert (key.period, key.start, key.stop) == (
        attention.dim_head_qk + attention.dim_head_v, 0, attention.dim_head_qk,
    )  # fmt: skip
    assert (value.start, value.stop) == (attention.dim_head_qk, attention.dim_head_qk + attention.dim_head_v)
    module = timm.create_model("gcvit_xxtiny")
    layers = {layer.name: layer for layer in plan_weights(ArrayCheckpoint(arrays_of(module))).layers}
    width = module.stages[0].blocks[1].attn.qkv.in_features
    assert [layers[f"stages.0.blocks.1.attn.qkv.weight[{part}]"].p for part in "kv"] == [width, width]


def test_queries_keys_and_values_that_are_pooled_are_equal_thirds() -> None:
    """MViTv2 normalises each head's queries, keys and values; LambdaNet, which has no such keys, all of them."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("mvitv2_tiny", num_classes=4)
    layers = {layer.name: layer for layer in plan_weights(ArrayCheckpoint(arrays_of(module))).layers}
    for number in range(2):
        place = f"stages.{number}.blocks.0.attn"
        own = module.get_submodule(place)
        width = own.proj.in_features
        for start, part in enumerate("qkv"):
            layer = layers[f"{place}.qkv.weight[{part}]"]
            assert (layer.period, layer.start, layer.p) == (0, start * width, width)
        data = torch.randn(1, 9, own.qkv.in_features)
        queries = own.qkv(data).reshape(1, 9, 3, own.num_heads, -1).permute(2, 0, 3, 1, 4)[0]  # as in its forward
        expected = data @ own.qkv.weight[:width].T + own.qkv.bias[:width]
        torch.testing.assert_close(queries, expected.reshape(1, 9, own.num_heads, -1).transpose(1, 2))


def test_multi_scale_attention_is_per_head() -> None:
    timm = pytest.importorskip("timm")
    module = scrambled(timm.create_model("efficientvit_b0"))
    place = "stages.2.blocks.1.context_module.main"
    layers = {layer.name: layer for layer in plan_weights(ArrayCheckpoint(arrays_of(module))).layers}
    own = module.get_submodule(place)
    for number, part in enumerate("qkv"):
        layer = layers[f"{place}.qkv.conv.weight[{part}]"]
        assert (layer.period, layer.start, layer.stop) == (3 * own.dim, number * own.dim, (number + 1) * own.dim)
