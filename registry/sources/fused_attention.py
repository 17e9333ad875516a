"""Layouts of projections that are fused along their outputs: query, key and value, and gate and up of an MLP.

The same name stands for different layouts in different libraries, and wrong parts would be taken for right ones. So a
layout counts as known only in three cases: the model type of `config.json` fixes it (`_BY_TYPE`), tensors beside it
that only one module has (``attention_biases`` of LeViT, ``height_rel`` of HaloNet) fix it, or every library that uses
the name has it (``in_proj_weight`` of torch's MultiheadAttention, ``qkv`` of vision transformers, whose output
projection confirms it). Everything else stays whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.sources.model_config import configurations, model_types, number, part_of
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from registry.types import TensorInfo

    Rule = Callable[[Mapping[str, Any], int], "Layout | None"]

__all__ = ["NAMES", "Layout", "layout_of", "name_parts", "whole_note"]


class Layout(NamedTuple):
    """``groups`` of outputs, each of ``parts``: label and number of outputs, in the order in which they are stored."""

    groups: int
    parts: tuple[tuple[str, int], ...]

    def fits(self, outputs: int) -> bool:
        """Whether the parts make up that many outputs."""
        return all(size > 0 for _, size in self.parts) and self.groups * sum(n for _, n in self.parts) == outputs


_NAME = re.compile(r"((?:.*[./])?)([^./]+)[./]weight", re.DOTALL)
_WRAPPED = re.compile(r"((?:.*[./])?)([^./]+)[./](?:linear|c|conv)[./]weight", re.DOTALL)
_IN_PROJ = re.compile(r"((?:.*[./])?)(in_proj_weight)", re.DOTALL)
# Output projections, relative to the attention module.
_OUT = (
    "proj.weight", "out_proj.weight", "to_out.0.weight", "to_out.weight", "projection.weight", "o_proj.weight",
    "proj.linear.weight", "proj.ln.linear.weight", "proj.1.c.weight", "projection.linear.weight", "wo.weight",
)  # fmt: skip
_STAGE = re.compile(r"(?:.*[./])?stages[./].*", re.DOTALL)
_PARTITION = re.compile(r"(?:.*[./])?attn_(?:block|grid)[./].*", re.DOTALL)
_EXPERT = re.compile(r"(?:.*[./])?experts?[./_]\d+[./]", re.DOTALL)
_CONFORMER = re.compile(r"(?:.*[./])?feed_forward_(?:in|out)[./]", re.DOTALL)
_QKV = ("q", "k", "v")
_FUSED = frozenset(
    {"query_key_value", "qkv_proj", "qkv", "to_qkv", "wqkv", "Wqkv", "c_attn", "W_pack", "qkv_linear", "in_proj_qkvz"}
)


def name_parts(name: str) -> tuple[str, str, bool]:
    """Path of the module above (with its separator), own name, and whether a module of one convolution is between."""
    wrapped = _WRAPPED.fullmatch(name)
    match = wrapped or _NAME.fullmatch(name) or _IN_PROJ.fullmatch(name)
    return (match[1], match[2], wrapped is not None) if match else ("", "", False)


def whole_note(whole: Sequence[str]) -> str:
    """A sentence on fused projections among the tensors that were not cut; empty if there are none."""
    fused = [name for name in whole if name_parts(name)[1] in _FUSED]
    if not fused:
        return ""
    more = f" and {counted(len(fused) - 1, 'tensor')} like it" if len(fused) > 1 else ""
    verb = "are" if len(fused) > 1 else "is"
    return (
        f"{fused[0][:200]}{more} {verb} taken whole: query, key and value are fused in a layout that no configuration "
        "beside the weights tells"
    )


def layout_of(info: TensorInfo, infos: Mapping[str, TensorInfo], axis: int, config: Mapping[str, Any]) -> Layout | None:
    """The layout of a fused projection; None where it is none, or is not known.

    Parameters
    ----------
    info
        A floating tensor of two or more dimensions.
    infos
        All tensors by name.
    axis
        Its axis of outputs: 1 for GPT-2's Conv1D, else 0.
    config
        The model's configuration; empty if there is none.
    """
    above, own, wrapped = name_parts(info.name)
    if not own:
        return None
    outputs = info.shape[axis]
    if axis:
        return _of_conv1d(own, outputs, info.size // outputs)
    if not wrapped and _BY_TYPE.get(own, {}).keys() & model_types(config):
        return _by_type(own, above, info, config)  # and whole if the configuration contradicts the shape
    found = _by_siblings(own, above, info, infos) if own in _BY_SIBLINGS else None
    if found is None and not wrapped:
        found = _by_name(own, above, info, infos)
    return found if found is not None and found.fits(outputs) else None


def _of_conv1d(own: str, outputs: int, inputs: int) -> Layout | None:
    """``c_attn`` of GPT-2: q, k, v; of its cross-attention: k, v."""
    if own != "c_attn" or outputs not in (2 * inputs, 3 * inputs):
        return None
    return Layout(1, tuple((label, inputs) for label in (_QKV if outputs == 3 * inputs else ("k", "v"))))


# By model type


def _heads(config: Mapping[str, Any]) -> int:
    return number(config, "num_attention_heads", "n_head", "n_heads", "num_heads")


def _width(config: Mapping[str, Any]) -> int:
    return number(config, "hidden_size", "n_embd", "d_model", "n_embed", "embed_dim")


def _key_heads(config: Mapping[str, Any]) -> int:
    return number(config, "num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads") or _heads(config)


def _head_dim(config: Mapping[str, Any]) -> int:
    heads = _heads(config)
    return number(config, "head_dim", "kv_channels") or (_width(config) // heads if heads else 0)


def _thirds(_: Mapping[str, Any], outputs: int) -> Layout:
    """Query, key and value of equal size, one after the other."""
    return Layout(1, tuple((label, outputs // 3) for label in _QKV))


def _halves(_: Mapping[str, Any], outputs: int) -> Layout:
    """Keys and values of equal size, one after the other."""
    return Layout(1, (("k", outputs // 2), ("v", outputs // 2)))


def _per_head(config: Mapping[str, Any], outputs: int) -> Layout | None:
    """Of each head, its query, key and value."""
    heads = _heads(config)
    return Layout(heads, tuple((label, outputs // (3 * heads)) for label in _QKV)) if heads else None


def _by_size(config: Mapping[str, Any], _: int, key_heads: int = 0) -> Layout:
    """All queries, all keys, all values; fewer heads of keys and values than of queries."""
    size, keys = _head_dim(config), (key_heads or _key_heads(config)) * _head_dim(config)
    return Layout(1, (("q", _heads(config) * size), ("k", keys), ("v", keys)))


def _by_key_head(config: Mapping[str, Any], _: int) -> Layout | None:
    """Of each head of keys, its queries, its key and its value."""
    size, keys = _head_dim(config), _key_heads(config)
    if not keys or _heads(config) % keys:
        return None
    return Layout(keys, (("q", _heads(config) // keys * size), ("k", size), ("v", size)))


def _falcon(config: Mapping[str, Any], outputs: int) -> Layout | None:
    if config.get("new_decoder_architecture", config.get("model_type") == "RefinedWeb"):
        return _by_key_head(config, outputs)
    return _by_size(config, outputs, 1) if config.get("multi_query", True) else _per_head(config, outputs)


def _bigcode(config: Mapping[str, Any], outputs: int) -> Layout | None:
    return _by_size(config, outputs, 1) if config.get("multi_query", True) else _per_head(config, outputs)


def _chatglm(config: Mapping[str, Any], outputs: int) -> Layout | None:
    if not config.get("multi_query_attention", False):
        return _per_head(config, outputs)
    keys = number(config, "multi_query_group_num")
    return _by_size(config, outputs, keys) if keys else None


def _mpt(config: Mapping[str, Any], outputs: int) -> Layout:
    inner = part_of(config, "attn_config")
    grouped = number(inner, "kv_n_heads")
    keys = {"multiquery_attention": 1, "grouped_query_attention": grouped}.get(str(inner.get("attn_type")), 0)
    return _by_size(config, outputs, keys or _heads(config))


def _dbrx(config: Mapping[str, Any], outputs: int) -> Layout:
    return _by_size(config, outputs, number(part_of(config, "attn_config"), "kv_n_heads"))


def _codegen(config: Mapping[str, Any], outputs: int) -> Layout | None:
    """Four blocks, one for each core of the machine it was trained on; in each query, value, key.

    CodeGen2 has code of its own, with other numbers of blocks.
    """
    if "auto_map" in config:
        return None
    return Layout(4, tuple((label, outputs // 12) for label in ("q", "v", "k")))


def _swiglu(config: Mapping[str, Any], outputs: int) -> Layout | None:
    """Gate and up of ChatGLM's MLP, unless the first version's, which has none."""
    half = number(config, "ffn_hidden_size")
    return Layout(1, (("gate", half), ("up", half))) if 2 * half == outputs else None


def _gate_first(_: Mapping[str, Any], outputs: int) -> Layout:
    return Layout(1, (("gate", outputs // 2), ("up", outputs // 2)))


def _up_first(_: Mapping[str, Any], outputs: int) -> Layout:
    return Layout(1, (("up", outputs // 2), ("gate", outputs // 2)))


def _gated_thirds(config: Mapping[str, Any], outputs: int) -> Layout | None:
    """A gate before queries, keys and values of equal size."""
    if _key_heads(config) != _heads(config):
        return None
    return Layout(1, tuple((label, outputs // 4) for label in ("gate", *_QKV)))


def _delta(config: Mapping[str, Any], labels: tuple[str, ...]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Heads of keys, and the outputs that each of them has, in the gated delta rule of Qwen3-Next."""
    keys, values = number(config, "linear_num_key_heads"), number(config, "linear_num_value_heads")
    size, wide = number(config, "linear_key_head_dim"), number(config, "linear_value_head_dim")
    each = values // keys if keys and values % keys == 0 else 0
    sizes = {"q": size, "k": size, "v": each * wide, "z": each * wide, "b": each, "a": each}
    return keys, tuple((label, sizes[label]) for label in labels)


def _delta_by_head(*labels: str) -> Rule:
    return lambda config, _: Layout(*_delta(config, labels))


def _delta_by_size(config: Mapping[str, Any], _: int) -> Layout:
    keys, parts = _delta(config, _QKV)
    return Layout(1, tuple((label, keys * size) for label, size in parts))


_BY_TYPE: dict[str, dict[str, Rule]] = {
    "query_key_value": {
        **dict.fromkeys(("gpt_neox", "gpt_neox_japanese", "bloom", "persimmon"), _per_head),
        **dict.fromkeys(("falcon", "RefinedWeb", "RefinedWebModel"), _falcon),
        "chatglm": _chatglm,
        "phi3small": _by_key_head,
        "sarvam_moe": _by_size,
    },
    "qkv_proj": {
        **dict.fromkeys(("phi3", "phi3_v", "phi4mm", "phi4_multimodal"), _by_size),
        "codegen": _codegen,
        "minimax": _per_head,
    },
    "wqkv": dict.fromkeys(("internlm2", "internlmxcomposer2"), _by_key_head),
    "Wqkv": {
        "mpt": _mpt,
        "dbrx": _dbrx,
        **dict.fromkeys(("modernbert", "modernbert-decoder", "nomic_bert"), _thirds),
    },
    "c_attn": {"gpt_bigcode": _bigcode, "qwen": _thirds},
    "W_pack": {"baichuan": _thirds},
    "in_proj": {"deberta": _per_head},
    "kv_proj": {"jetmoe": _halves},
    "gqkv_proj": {"hrm_text": _gated_thirds},
    "weights_in": dict.fromkeys(("dinov2", "dinov2_with_registers"), _gate_first),
    "w12": dict.fromkeys(("sapiens2", "tipsv2_vision_model"), _gate_first),
    "up_gate_proj": dict.fromkeys(("gte", "new"), _up_first),
    "dense_h_to_4h": {"chatglm": _swiglu},
    "Wi": dict.fromkeys(("modernbert", "modernbert-decoder"), _gate_first),
    "qkv_linear": dict.fromkeys(("layoutlmv2", "layoutxlm"), _thirds),
    "qkv": dict.fromkeys(("exaone4_5_vision", "exaone4_5_vision_model"), _by_size),
    "in_proj_qkvz": {"qwen3_next": _delta_by_head("q", "k", "v", "z")},
    "in_proj_ba": {"qwen3_next": _delta_by_head("b", "a")},
    "in_proj_qkv": dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), _delta_by_size),
}
"""Own name of the tensor's module, and model types whose code fixes the layout."""


def _by_type(own: str, above: str, info: TensorInfo, config: Mapping[str, Any]) -> Layout | None:
    """The layout by the model types of the configuration and of its parts, if they agree and fit the shape."""
    if len(info.shape) != 2 or "crossattention" in above:
        return None
    rules = _BY_TYPE[own]
    outputs, inputs = info.shape
    found: set[Layout] = set()
    for each in configurations(config):
        kind = each.get("model_type")
        rule = rules.get(kind) if isinstance(kind, str) else None
        layout = rule(each, outputs) if rule is not None and _width(each) in (0, inputs) else None
        if layout is not None and layout.fits(outputs):
            found.add(layout)
    return found.pop() if len(found) == 1 else None


# By tensors beside it


def _by_siblings(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    for rule in (_biased, _halo, _bottleneck, _lambda, _single_head, _multi_scale, _relative):
        if (found := rule(own, above, info, infos)) is not None:
            return found
    return None


_BY_SIBLINGS = ("qkv", "kv", "queries_keys_values", "keys_values")
_OF_NAME = (
    "gate_up_proj", "input_linear", "in_proj_weight", "kv", "to_kv", "Wqkv", "c_attn", "qkv_proj", "qkv", "to_qkv",
)  # fmt: skip

NAMES = frozenset(_BY_TYPE) | frozenset(_BY_SIBLINGS) | frozenset(_OF_NAME)
"""Own names of tensors and modules that `layout_of` knows; any other is not fused."""


def _shape(infos: Mapping[str, TensorInfo], name: str, dimensions: int) -> tuple[int, ...]:
    """Shape of a tensor with that many dimensions; zeros if there is none."""
    found = infos.get(name)
    return found.shape if found is not None and len(found.shape) == dimensions else (0,) * dimensions


def _out_inputs(above: str, infos: Mapping[str, TensorInfo]) -> int:
    """Inputs of the attention module's output projection; 0 if there is none."""
    return next((infos[above + out].shape[1] for out in _OUT if above + out in infos and _wide(infos[above + out])), 0)


def _wide(info: TensorInfo) -> bool:
    return len(info.shape) > 1


def _biased(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """LeViT, EfficientFormer, TinyViT: per head, keys narrower than values; ``attention_biases`` tells the heads."""
    heads = _shape(infos, f"{above}attention_biases", 2)[0]
    values = _out_inputs(above, infos)
    if not heads or not values or values % heads or info.shape[0] % heads:
        return None
    each, value = info.shape[0] // heads, values // heads
    if own in ("kv", "keys_values"):
        return Layout(heads, (("k", each - value), ("v", value)))
    return Layout(heads, (("q", (each - value) // 2), ("k", (each - value) // 2), ("v", value)))


def _halo(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """HaloNet: ``kv`` per head, beside ``q`` and the table of relative heights, as wide as a head's query."""
    size = _shape(infos, f"{above}pos_embed.height_rel", 2)[1]
    queries = next((infos[name].shape[0] for name in (f"{above}q.weight",) if name in infos), 0)
    if own != "kv" or not size or not queries or queries % size or info.shape[0] % (queries // size):
        return None
    heads = queries // size
    return Layout(heads, (("k", size), ("v", info.shape[0] // heads - size)))


def _bottleneck(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """BotNet: queries, keys, values; the convolution that follows has as many inputs as there are values."""
    size = _shape(infos, f"{above}pos_embed.height_rel", 2)[1]
    block = re.sub(r"[^./]+[./]$", "", above)
    values = _shape(infos, f"{block}conv3_1x1.conv.weight", 4)[1]
    keys, odd = divmod(info.shape[0] - values, 2)
    if own != "qkv" or not size or not values or odd or keys % size:
        return None
    return Layout(1, (("q", keys), ("k", keys), ("v", values)))


def _lambda(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """LambdaNet: queries and values, and no keys, are normalised by layers of their widths."""
    queries, values = _shape(infos, f"{above}norm_q.weight", 1)[0], _shape(infos, f"{above}norm_v.weight", 1)[0]
    if own != "qkv" or not queries or not values or f"{above}norm_k.weight" in infos:  # MViTv2: each head is
        return None
    return Layout(1, (("q", queries), ("k", info.shape[0] - queries - values), ("v", values)))


def _single_head(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """SHViT: one head on some of the channels, which ``pre_norm`` normalises; as many values as channels."""
    width = _shape(infos, f"{above}pre_norm.weight", 1)[0]
    keys, odd = divmod(info.shape[0] - width, 2)
    if own != "qkv" or not width or width != info.shape[1] or odd:
        return None
    return Layout(1, (("q", keys), ("k", keys), ("v", width)))


def _multi_scale(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """EfficientViT of MIT: per head; the grouped convolution of its ``aggreg`` is as wide as a head."""
    size = _shape(infos, f"{above}aggreg.0.1.weight", 4)[1]
    if own != "qkv" or not size or info.shape[0] % (3 * size):
        return None
    return Layout(info.shape[0] // (3 * size), tuple((label, size) for label in _QKV))


def _relative(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """MaxViT and CoAtNet: per head, unless ported from TensorFlow. GCViT: its global queries are elsewhere."""
    if own != "qkv" or not _STAGE.fullmatch(above):
        return None
    heads = _shape(infos, f"{above}rel_pos.relative_position_bias_table", 2)[1]
    heads = heads or _shape(infos, f"{above}rel_pos.mlp.fc2.weight", 2)[0]
    outputs, inputs = info.shape[:2]
    if heads and (len(info.shape) == 4 or _PARTITION.fullmatch(above)) and outputs % (3 * heads) == 0:
        return Layout(heads, tuple((label, outputs // (3 * heads)) for label in _QKV))
    if heads and len(info.shape) == 2 and outputs == 2 * inputs == 2 * _out_inputs(above, infos):
        return Layout(1, (("k", inputs), ("v", inputs)))
    return None


# By name


def _by_name(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    outputs, inputs = info.shape[:2]
    if own in ("gate_up_proj", "input_linear"):
        return _gate_up(own, above, info, infos)
    if own == "in_proj_weight" and len(info.shape) == 2 and outputs % 3 == 0:
        return _thirds({}, outputs)
    if own in ("kv", "to_kv") and len(info.shape) != 3 and outputs % 2 == 0:
        return _halves({}, outputs)
    if own in ("Wqkv", "c_attn", "qkv_proj"):
        # Of flash-attn, nanoGPT and Phi-3: equal thirds where keys have as many heads as queries. In CodeGen and
        # MiniMax, whose output projection has another name, qkv_proj holds several blocks.
        several = own == "qkv_proj" and f"{above}out_proj.weight" in infos
        return _thirds({}, outputs) if len(info.shape) == 2 and outputs == 3 * inputs and not several else None
    # A convolution along one axis is the AttentionBlock of diffusion models, which is per head in most of them.
    if own not in ("qkv", "to_qkv") or len(info.shape) == 3 or outputs % 3:
        return None
    if f"{above}pos_embed.height_rel" in infos or f"{above}attention_biases" in infos or _PARTITION.fullmatch(above):
        three_axes = f"{above}rel_pos.relative_position_bias_table"  # of MaxViT in TensorFlow: heads, height, width
        return _thirds({}, outputs) if _shape(infos, three_axes, 3)[0] else None
    return _thirds({}, outputs) if (_out_inputs(above, infos) or inputs) * 3 == outputs else None


def _gate_up(own: str, above: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> Layout | None:
    """Gate and up of an MLP, one after the other, before the layer that has half as many inputs."""
    down = f"{above}down_proj.weight" if own == "gate_up_proj" else f"{above}output_linear.weight"
    half, odd = divmod(info.shape[0], 2)
    if len(info.shape) != 2 or odd or _shape(infos, down, 2)[1] != half:
        return None
    if _EXPERT.fullmatch(above) or _CONFORMER.fullmatch(above):
        return None  # in experts of some models they alternate; in Phi-4's audio encoder up comes first
    return Layout(1, (("gate", half), ("up", half)))
