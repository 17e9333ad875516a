"""Names of llama.cpp's tensors, and what transformers calls the same tensors.

A network has the same depth order from both only if its tensors have the names of the same modules. Names of the first
column are those of ``MODEL_TENSOR`` in the library ``gguf``. Where llama.cpp fixes a layout that transformers has not
(``attn_qkv``: all queries, all keys, all values), `llama_cpp_layouts` undoes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAMILIES", "Family", "family_of", "is_llama_cpp", "renamed"]

_BLOCK = re.compile(r"(?:(enc|dec|v|a|t)\.)?blk\.(\d{1,6})\.(.+)", re.DOTALL)
_LEAF = re.compile(r"(.+)\.(weight|bias|scale|input_scale)", re.DOTALL)
_SIGNS = ("token_embd.weight", "output.weight", "v.patch_embd.weight")


@dataclass(frozen=True, slots=True)
class Family:
    """Networks whose modules have the same names.

    ``block``: what the names of a block's tensors begin with. ``inside``: names inside a block; ``encoder`` and
    ``decoder``: those of T5. ``outside``: the others. ``model_type``: that of transformers, if it is not the
    architecture's name.
    """

    block: str
    inside: Mapping[str, str]
    outside: Mapping[str, str]
    model_type: str = ""
    encoder: Mapping[str, str] = field(default_factory=dict)
    decoder: Mapping[str, str] = field(default_factory=dict)

    def but(self, model_type: str = "", block: str = "", **inside: str) -> Family:
        """The same with another model type, and some names inside a block changed."""
        return Family(block or self.block, {**self.inside, **inside}, self.outside, model_type)


_LLAMA = Family(
    "model.layers.{}.",
    {
        "attn_norm": "input_layernorm", "attn_norm_2": "post_input_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "attn_out": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_sinks": "self_attn.sinks",
        "attn_q_a": "self_attn.q_a_proj", "attn_q_b": "self_attn.q_b_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "indexer.attn_q_b": "self_attn.indexer.wq_b", "indexer.attn_k": "self_attn.indexer.wk",
        "indexer.proj": "self_attn.indexer.weights_proj", "indexer.k_norm": "self_attn.indexer.k_norm",
        "attn_kv_b": "self_attn.kv_b_proj", "attn_rot_embd": "self_attn.rotary_emb.inv_freq",
        "ffn_norm": "post_attention_layernorm", "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
        "ffn_gate_inp": "mlp.gate", "exp_probs_b": "mlp.gate.e_score_correction",
        "ffn_gate_exps": "mlp.experts.gate_proj", "ffn_up_exps": "mlp.experts.up_proj",
        "ffn_down_exps": "mlp.experts.down_proj", "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
        "ffn_gate_shexp": "mlp.shared_expert.gate_proj", "ffn_up_shexp": "mlp.shared_expert.up_proj",
        "ffn_down_shexp": "mlp.shared_expert.down_proj", "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
        "ssm_in": "mamba.in_proj", "ssm_conv1d": "mamba.conv1d", "ssm_x": "mamba.x_proj", "ssm_dt": "mamba.dt_proj",
        "ssm_a": "mamba.A_log", "ssm_d": "mamba.D", "ssm_out": "mamba.out_proj", "ssm_norm": "mamba.norm",
        "shortconv.conv": "conv.conv", "shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj",
    },
    {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
)  # fmt: skip
_GPT2 = Family(
    "transformer.h.{}.",
    {
        "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
    },
    {
        "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
        "output": "lm_head",
    },
)  # fmt: skip
_MAMBA = Family(
    "backbone.layers.{}.",
    {
        "attn_norm": "norm", "ssm_in": "mixer.in_proj", "ssm_conv1d": "mixer.conv1d", "ssm_x": "mixer.x_proj",
        "ssm_dt": "mixer.dt_proj", "ssm_a": "mixer.A_log", "ssm_d": "mixer.D", "ssm_out": "mixer.out_proj",
        "ssm_norm": "mixer.norm",
    },
    {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f", "output": "lm_head"},
)  # fmt: skip
_BERT = Family(
    "encoder.layer.{}.",
    {
        "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
        "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
        "ffn_gate": "intermediate.gate", "ffn_up": "intermediate.dense", "ffn_down": "output.dense",
        "layer_output_norm": "output.LayerNorm",
    },
    {
        "token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
        "position_embd": "embeddings.position_embeddings", "token_embd_norm": "embeddings.LayerNorm",
        "cls": "classifier.dense", "cls.output": "classifier.out_proj",
    },
)  # fmt: skip
_T5_FFN = {"ffn_gate": "DenseReluDense.wi_0", "ffn_up": "DenseReluDense.wi_1", "ffn_down": "DenseReluDense.wo"}
_T5_ATTENTION = {
    "attn_norm": "layer.0.layer_norm", "attn_q": "layer.0.SelfAttention.q", "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v", "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
}  # fmt: skip
_T5 = Family(
    "{}",
    {},
    {
        "token_embd": "shared", "output": "lm_head", "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
    },
    "t5",
    _T5_ATTENTION | {"ffn_norm": "layer.1.layer_norm"} | {own: f"layer.1.{path}" for own, path in _T5_FFN.items()},
    _T5_ATTENTION
    | {
        "cross_attn_norm": "layer.1.layer_norm", "cross_attn_q": "layer.1.EncDecAttention.q",
        "cross_attn_k": "layer.1.EncDecAttention.k", "cross_attn_v": "layer.1.EncDecAttention.v",
        "cross_attn_o": "layer.1.EncDecAttention.o", "ffn_norm": "layer.2.layer_norm",
    }
    | {own: f"layer.2.{path}" for own, path in _T5_FFN.items()},
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "gpt2": _GPT2,
    "starcoder": _GPT2.but("gpt_bigcode"),
    "jais": _GPT2.but("jais", ffn_gate="mlp.c_fc2"),
    "gptj": _GPT2.but(
        attn_q="attn.q_proj", attn_k="attn.k_proj", attn_v="attn.v_proj", attn_output="attn.out_proj",
        ffn_up="mlp.fc_in", ffn_down="mlp.fc_out",
    ),
    "gptneox": Family(
        "gpt_neox.layers.{}.",
        {
            "attn_norm": "input_layernorm", "attn_qkv": "attention.query_key_value", "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
        },
        {
            "token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out",
        },
        "gpt_neox",
    ),
    "bloom": Family(
        "transformer.h.{}.",
        {
            "attn_norm": "input_layernorm", "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense", "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
        },
        {
            "token_embd": "transformer.word_embeddings", "output": "lm_head", "output_norm": "transformer.ln_f",
            "token_embd_norm": "transformer.word_embeddings_layernorm",
        },
    ),
    "falcon": Family(
        "transformer.h.{}.",
        {
            "attn_norm": "input_layernorm", "attn_norm_2": "ln_attn", "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
        },
        {"token_embd": "transformer.word_embeddings", "output": "lm_head", "output_norm": "transformer.ln_f"},
    ),
    "mpt": Family(
        "transformer.blocks.{}.",
        {
            "attn_norm": "norm_1", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "ffn_norm": "norm_2",
            "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj",
        },
        {"token_embd": "transformer.wte", "output_norm": "transformer.norm_f", "output": "lm_head"},
    ),
    "phi2": _LLAMA.but("phi", attn_output="self_attn.dense", ffn_up="mlp.fc1", ffn_down="mlp.fc2"),
    "phi3": _LLAMA.but(attn_qkv="self_attn.qkv_proj", ffn_up="mlp.gate_up_proj"),
    "starcoder2": _LLAMA.but(ffn_up="mlp.c_fc", ffn_down="mlp.c_proj"),
    "chatglm": _LLAMA.but(ffn_up="mlp.gate_up_proj"),
    "glm4": _LLAMA.but(ffn_up="mlp.gate_up_proj"),
    "internlm2": Family(
        "model.layers.{}.",
        {
            "attn_norm": "attention_norm", "attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
            "attn_output": "attention.wo", "ffn_norm": "ffn_norm", "ffn_gate": "feed_forward.w1",
            "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2",
        },
        {"token_embd": "model.tok_embeddings", "output_norm": "model.norm", "output": "output"},
    ),
    "deepseek2": _LLAMA.but(
        "deepseek_v3",
        ffn_gate_shexp="mlp.shared_experts.gate_proj", ffn_up_shexp="mlp.shared_experts.up_proj",
        ffn_down_shexp="mlp.shared_experts.down_proj",
    ),
    "gpt-oss": _LLAMA.but("gpt_oss", ffn_gate_inp="mlp.router"),
    **{
        name: _LLAMA.but(
            model_type,
            attn_qkv="linear_attn.in_proj_qkv", attn_gate="linear_attn.in_proj_z",
            ssm_in="linear_attn.in_proj_qkvz", ssm_beta_alpha="linear_attn.in_proj_ba",
            ssm_beta="linear_attn.in_proj_b", ssm_alpha="linear_attn.in_proj_a",
            ssm_conv1d="linear_attn.conv1d", ssm_a="linear_attn.A_log", ssm_out="linear_attn.out_proj",
            ssm_norm="linear_attn.norm",
        )
        for name, model_type in (("qwen3next", "qwen3_next"), ("qwen35", "qwen3_5"), ("qwen35moe", "qwen3_5_moe"))
    },
    "mamba": _MAMBA,
    "mamba2": _MAMBA,
    "bert": _BERT,
    "jina-bert-v2": _BERT,
    "nomic-bert": Family(
        "encoder.layers.{}.",
        {
            "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "attn_output_norm": "norm1",
            "ffn_gate": "mlp.fc12", "ffn_up": "mlp.fc11", "ffn_down": "mlp.fc2", "layer_output_norm": "norm2",
        },
        {**_BERT.outside, "token_embd_norm": "emb_ln"},
        "nomic_bert",
    ),
    "modern-bert": Family(
        "layers.{}.",
        {
            "attn_norm": "attn_norm", "attn_qkv": "attn.Wqkv", "attn_output": "attn.Wo", "ffn_norm": "mlp_norm",
            "ffn_up": "mlp.Wi", "ffn_down": "mlp.Wo",
        },
        {"token_embd": "embeddings.tok_embeddings", "token_embd_norm": "embeddings.norm", "output_norm": "final_norm"},
        "modernbert",
    ),
    "t5": _T5,
    "t5encoder": _T5,
}  # fmt: skip
"""By ``general.architecture``. All others have the names of Llama."""

_VISION = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
    "ffn_gate": "mlp.gate", "ln1": "layer_norm1", "ln2": "layer_norm2",
}  # fmt: skip
_TOWERS = {
    "v": "vision_model.encoder.layers.{}.", "a": "audio_model.encoder.layers.{}.", "t": "text_model.encoder.layers.{}.",
}  # fmt: skip
_TOWER_PARTS = {
    "v.patch_embd": "vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_model.embeddings.position_embedding",
    "v.class_embd": "vision_model.embeddings.class_embedding",
    "v.pre_ln": "vision_model.pre_layrnorm", "v.post_ln": "vision_model.post_layernorm",
    "t.token_embd": "text_model.embeddings.token_embedding",
    "t.position_embd": "text_model.embeddings.position_embedding", "t.post_ln": "text_model.final_layer_norm",
}  # fmt: skip
# Tables that are no weights, under names that tell so.
_TABLES = {"rope_freqs": "rope.freqs", "rope_factors_long": "rope_long.freqs", "rope_factors_short": "rope_short.freqs"}


def family_of(architecture: str) -> Family:
    """The family of an architecture; that of Llama where nothing else is known."""
    return FAMILIES.get(architecture, _LLAMA)


def is_llama_cpp(names: frozenset[str]) -> bool:
    """Whether names are llama.cpp's. Other programs store tensors under the names of the original model."""
    return any(name in names for name in _SIGNS) or any(map(_BLOCK.fullmatch, names))


def renamed(name: str, family: Family) -> str:
    """What transformers calls a tensor; unknown tensors of a block keep their own name inside it."""
    table = name.removesuffix(".weight")
    own = table.rsplit(".", 1)[-1]
    if own in _TABLES:
        return _TABLES[own]
    leaf = _LEAF.fullmatch(name)
    stem, end = (leaf[1], f".{leaf[2]}") if leaf else (name, "")
    block = _BLOCK.fullmatch(stem)
    if block is None:
        found = _TOWER_PARTS.get(stem) or family.outside.get(stem)
        if found is None and stem.startswith("mm."):
            found = f"multi_modal_projector.{stem.removeprefix('mm.')}"
        return f"{found or stem}{end}"
    tower, number, own = block.groups()
    if tower in _TOWERS:
        prefix, inside = _TOWERS[tower].format(number), _VISION
    elif tower is not None:
        prefix = f"{'encoder' if tower == 'enc' else 'decoder'}.block.{number}."
        inside = dict(family.encoder if tower == "enc" else family.decoder)
    else:
        prefix, inside = family.block.format(number), dict(family.inside)
    if own in inside:
        path = inside[own]
        # A_log and D are parameters of their module, not modules.
        return f"{prefix}{path}{'' if path.endswith(('A_log', '.D', '.inv_freq', '.sinks')) else end}"
    for start, module in (("time_mix_", "attention."), ("channel_mix_", "feed_forward."), ("ssm_", "linear_attn.")):
        if own.startswith(start):
            return f"{prefix}{module}{own.removeprefix(start)}{end}"
    return f"{prefix}{own}{end}"
