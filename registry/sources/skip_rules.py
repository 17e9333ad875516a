"""Which tensors are no layer matrices, by dtype, name and shape, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.sources.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Container

    from registry.types import TensorInfo

__all__ = ["NOT_PARAMETERS", "skip_reason"]

_STATISTICS = "batch statistics"
_OPTIMISER = "optimiser state"
_MASK = "mask"
_BUFFER = "constant table"
_SCALES = "scales of quantised weights"

NOT_PARAMETERS = frozenset({_STATISTICS, _OPTIMISER, _MASK, _BUFFER, _SCALES})
"""Reasons whose tensors are nothing that was learnt."""

# Of the last part of a name, in lower case.
_LAST: tuple[tuple[str, re.Pattern[str]], ...] = (
    (_STATISTICS, re.compile(r"(running|moving)_(mean|var|variance)|num_batches_tracked")),
    (_MASK, re.compile(r"(\w+_)?masks?|masked_bias|tril")),
    (
        _BUFFER,
        re.compile(r"inv_freq|freqs(_cis|_cos|_sin)?|(cos|sin)_cached|relative_coords_table|anchors|anchor_grid|pe"),
    ),
    ("position table", re.compile(r"(rel|relative)_(pos|position)\w*|\w+_pos|attention_biases|wpe|(\w+_)?pos_table")),
    ("token", re.compile(r"(\w+_)?tokens?")),
    ("bias", re.compile(r"bias|\w+_bias|bias_(k|v|ih|hh)\w*")),
    ("layer scale", re.compile(r"layer_?scale\w*|gamma(_\d+)?|ls\d?")),
)
_POSITION = re.compile(
    r"\w*pos(ition|itional|itions)?_?(embed|embeds|emb|embs|embedding|embeddings|enc|encoding|encodings)"
    r"|wpe|embed_positions|(rel|relative)_(attention|attn)_bias"
)
_OPTIMISERS = re.compile(r"exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|adam(_\d+)?|momentum(_\d+)?|rmsprop(_\d+)?")
_OPTIMISER_ROOTS = ("optimizer", "optim", "optimizer_state", "optimizer_states", "optimizer_state_dict")
_QUANTISERS = ("scales", "scale", "zeros", "qzeros", "absmax", "quant_map", "nested_absmax", "nested_quant_map")
_SEPARATORS = re.compile(r"[./:]")


def skip_reason(info: TensorInfo, names: Container[str]) -> str | None:
    """Why a tensor is no layer matrix; None where it is one.

    Parameters
    ----------
    info
        The tensor; its shape in torch's layout.
    names
        Names of all tensors beside it.

    Returns
    -------
    str or None
        One of a few fixed phrases, which are part of the matrix rule.
    """
    if not is_float(info.dtype):
        if info.dtype.startswith("complex"):
            return "complex"
        return "flags" if info.dtype == "bool" else f"quantised or integer ({info.dtype})"
    named = _reason_by_name(info, names)
    if named is not None:
        return named
    if len(info.shape) < 2:
        return "vector or scalar"
    if info.size == 0:
        return "no elements"
    if info.shape[0] < 2:
        return "fewer than two outputs"
    return "fewer than two inputs" if info.size // info.shape[0] < 2 else None


def _reason_by_name(info: TensorInfo, names: Container[str]) -> str | None:
    parts = _SEPARATORS.split(info.name.lower()[-400:])
    last = parts[-1]
    if parts[0] in _OPTIMISER_ROOTS or _OPTIMISERS.fullmatch(last):
        return _OPTIMISER
    if last in _QUANTISERS and info.name[: -len(last)] + "qweight" in names:
        return _SCALES
    if last == "bias" and len(info.shape) == 4 and info.shape[:2] == (1, 1):
        return _MASK  # GPT-2 keeps its causal mask under this name
    if len(info.shape) < 2 and last not in ("num_batches_tracked", "inv_freq") and not last.startswith(("run", "mov")):
        return None
    for reason, pattern in _LAST:
        if pattern.fullmatch(last):
            return reason
    table = parts[-2] if last in ("weight", "weights", "embeddings", "embedding") and len(parts) > 1 else last
    return "position table" if len(info.shape) < 4 and _POSITION.fullmatch(table) else None
