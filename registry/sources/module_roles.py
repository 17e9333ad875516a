"""Ranks of module names: the position among siblings that a name indicates.

A rank is a number from 0 (first) to 100 (last). Names that match no pattern have rank 40, the body of the network. The
first matching row of the table counts. Ranks are part of the matrix rule: any change to them is a new rule.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["BODY", "DENSE", "DOWNSAMPLE", "FLAX_GATES", "GATE", "HEAD", "STEM", "Part", "parse_part"]

STEM = 10
BODY = 40
GATE = 43
DOWNSAMPLE = 70
DENSE = 75
HEAD = 90

FLAX_GATES = (("ii", "if", "ig", "io", "hi", "hf", "hg", "ho"), ("ir", "iz", "in", "hr", "hz", "hn"))
"""Names of the gates of Flax's LSTM and GRU cells, each a layer of its own, in the order of torch's fused tensors."""

# Patterns for a whole part of a dotted name, in lower case, words separated by underscores.
_RANKS: tuple[tuple[int, str], ...] = (
    # transformer blocks: q < k < v < out, gate < up < down, attention < MLP
    (29, r"q_attn"),  # of GPT-2, whose c_attn has keys and values then
    (30, r"q|query|query_dense|q_proj|q_proj_weight|to_q|q_lin|wq|query_proj"),
    (30, r"qkv|qkv_proj|to_qkv|wqkv|c_attn|query_key_value|in_proj.*"),
    (31, r"k|key|key_dense|k_proj|k_proj_weight|to_k|k_lin|wk|key_proj|kv|to_kv"),
    (32, r"v|value|value_dense|v_proj|v_proj_weight|to_v|v_lin|wv|value_proj"),
    (GATE, r"gate_proj|gate_up_proj|wi|wi_0"),
    (44, r"up_proj|wi_1|c_fc|fc_in"),
    (45, r"down_proj|out_proj|out_proj_weight|o_proj|o|proj|project|to_out|wo|out_lin|merge|c_proj|proj_out|proj_attn"),
    (37, r"(cross|multihead|enc_?dec|encoder)_?(attn|attention).*"),
    (36, r"grid_(attn|attention)"),
    (35, r"window_(attn|attention)"),
    (34, r"(\w+_)?(attn|attention|self_attention|attentions)"),
    (46, r"(mlp|ffn|feed_forward|feedforward)(_\w+)?|intermediate"),
    (39, r"squeeze(_\w+)?"),
    (41, r"(expand|exp|excite)(_\w+)?"),
    # inputs
    (HEAD, r"embed_out"),  # GPT-NeoX: the head
    (STEM, r"stem(_\w+)?|\w+_stem|patch(es|ify)?(_\w+)?"),
    (STEM, r"(\w+_)?embed(ding|dings|der|_tokens)?|embeddings?_\w+|embed_\w+"),
    (STEM, r"conv_proj|conv_in|inc|shared|wte|tok_embeddings|(\w+_)?(input|inp|first)(_\w+)?|in_conv|from_rgb|w_i"),
    (45, r"conv_shortcut|(\w+_)?pos_enc(oding)?|w_h"),
    # main path: encoder, middle, decoder, neck
    (21, r"context_encoder"),
    (20, r"(base|backbone|trunk|encoder|features?|extractor|visual|vision)(_\w+)?"),
    (20, r"\w+_(encoder|backbone|features|extractor)"),
    (25, r"downs?|down_(blocks?|path|layers?|convs?)|contract(ing)?(_\w+)?|input_blocks?"),
    (50, r"mid|mid_\w+|middle(_\w+)?|bottleneck|bridge"),
    (61, r"corr_block|update_block"),
    (60, r"decoder(_\w+)?|\w+_decoder|dec|bu_dec(_\w+)?|output_blocks?"),
    (60, r"ups?|up_(blocks?|path|layers?|convs?)|upconv|expansive(_\w+)?"),
    (62, r"neck|fpn|pan|bu_br(_\w+)?"),
    (64, r"rpn"),
    (66, r"roi_heads?"),
    # beside the main path
    (DOWNSAMPLE, r"(\w+_)?(downsample|downsamplers?|upsamplers?|upsample|shortcut|skip|residual)(_\w+)?"),
    (72, r"cpb_mlp|relative_\w+"),
    (DENSE, r"(dense|linear)(_\w+)?"),
    (78, r"pooler|pool(_\w+)?|head_conv|conv_head|conv_last|pre_logits"),
    (80, r"aux(_\w+)?|auxiliary(_\w+)?"),
    (89, r"(feat|conv_to)(_\w+)?"),
    # outputs
    (92, r"(final|last)(_\w+)?|(lm|cls)_head|w_o|out_?c|outconv|fc_out"),
    (HEAD, r"fc|fc_\w+|(\w+_)?(classifier|classification|heads?|headers?|logits?)"),
    (HEAD, r"(\w+_)?(predictor|predictions?|regressor|regression)"),
    (HEAD, r"(out|output|outputs|pred|score|cls|reg|box|bbox|mask|keypoint|conf|loc|landm|action|flow)(_\w+)?"),
    (HEAD, r"(policy|value)_net|(\w+_)?(out|output)|to_rgb"),
)  # fmt: skip
_COMPILED = tuple((rank, re.compile(pattern)) for rank, pattern in _RANKS)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KERNEL = re.compile(r"\d+x\d+(x\d+)?|(?<=[a-z])[123]d(?![a-z0-9])")  # 3x3 and conv2d are not sequence numbers
# Digits count at the end of a word (stage3, weight_ih_l0) or before a single letter (Mixed_5b), but not in s2s.
_NUMBER = re.compile(
    r"(?:(?<![a-z0-9])|(?<=[a-z]{2}))\d+(?=$|[_\-]|[a-z](?:$|[_\-]))"
    r"|(?:(?<=^[a-z])|(?<=[_\-][a-z]))\d+(?=$|[_\-])"
)
_CHUNKS = re.compile(r"\d+|\D+")
_WORDS = re.compile(r"[^a-z]+")
# Order of names that have the same rank and number, by the words in them: ih < hh < reverse, depthwise < pointwise.
_WORD_RANKS = {"word": -1, "hh": 1, "dw": 1, "depthwise": 1, "recurrent": 1, "pw": 2, "pointwise": 2, "reverse": 2}


class Part(NamedTuple):
    """A parsed part of a dotted name.

    ``rank``: from the table. ``numbers``: the sequence numbers. ``stem``: the words without numbers. ``stem_rank``: the
    order of names with the same rank and number. ``natural``: a sort key in which digits compare as numbers.
    """

    rank: int
    numbers: tuple[int, ...]
    stem: str
    stem_rank: int
    natural: tuple[tuple[int, int, str], ...]


# GPT-NeoX, Falcon and BLOOM: h is the width, 4h that of the MLP, and no number in a sequence.
_SAME = {"dense_h_to_4h": "up_proj", "dense_4h_to_h": "down_proj"}


@lru_cache(maxsize=65536)
def parse_part(text: str) -> Part:
    """Parse one part of a dotted name; results are cached."""
    snake = _CAMEL.sub("_", text[:200]).lower()
    snake = _SAME.get(snake, snake)
    counted = _KERNEL.sub("", snake)
    numbers = tuple(int(digits[:9]) for digits in _NUMBER.findall(counted))
    stem = _WORDS.sub("_", _NUMBER.sub("", counted)).strip("_")
    natural = tuple((0, int(chunk[:9]), "") if chunk.isdecimal() else (1, 0, chunk) for chunk in _CHUNKS.findall(snake))
    rank = next((rank for rank, pattern in _COMPILED if pattern.fullmatch(stem)), BODY)
    return Part(rank, numbers, stem, sum(_WORD_RANKS.get(word, 0) for word in stem.split("_")), natural)
