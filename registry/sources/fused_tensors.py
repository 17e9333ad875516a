"""Splitting of fused tensors into their matrices, and layouts with inputs first.

A tensor is split or turned only if its name and what is beside it show that it is fused or turned: gates of recurrent
layers (`recurrent_gates`), and projections (`fused_attention`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.sources.fused_attention import NAMES, Layout, layout_of
from registry.sources.model_config import model_types
from registry.sources.recurrent_gates import gates_of, in_depth_order, is_recurrent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.types import TensorInfo

__all__ = ["Piece", "is_conv1d_model", "may_be_fused", "pieces_of"]

_CONV1D = re.compile(r"(?:.*[./])?(?:c_attn|q_attn|c_fc|c_proj)[./]weight")
_CONV1D_TYPES = frozenset({"clvp", "clvp_decoder"})  # which have no c_attn
_TRANSPOSED = re.compile(
    r"(?:.*[./_])?(?:deconv|conv_?transpose|transposed_?conv|convt)(?:[123]d)?[_\d]*(?:[./]\w+)*?[./]weight"
)
_SEPARATORS = re.compile(r"[./]")
_RECURRENT = re.compile(r"weight_h|weight_i|kernel", re.IGNORECASE)
# Of model types whose modules of these names are transposed, beside those that their bias tells.
_TRANSPOSED_BY_TYPE: tuple[tuple[frozenset[str], re.Pattern[str]], ...] = (
    (
        frozenset({"dpt", "depth_anything", "prompt_depth_anything", "zoedepth"}),
        re.compile(r"(?:.*\.)?reassemble_stage\.layers\.[01]\.resize\.weight", re.DOTALL),
    ),
    (
        frozenset({"eomt", "eomt_dinov3", "videomt"}),
        re.compile(r"(?:.*\.)?upscale_block\.block\.\d+\.conv1\.weight", re.DOTALL),
    ),
    (
        frozenset({"sam", "sam_hq", "sam2", "sam2_video", "edgetam"}),
        re.compile(r"(?:.*\.)?mask_decoder\.(?:upscale_conv|encoder_conv|compress_vit_conv)\d\.weight", re.DOTALL),
    ),
)
_ORDER = {label: place for place, label in enumerate(("q", "k", "v", "gate"))}


class Piece(NamedTuple):
    """Part of a tensor: indices ``start`` to ``stop`` along ``axis``, the axis of outputs.

    With a ``period``, those indices of each group of that many outputs.
    """

    label: str
    axis: int
    start: int
    stop: int
    kind: str
    period: int = 0


def is_conv1d_model(infos: Mapping[str, TensorInfo], config: Mapping[str, Any] | None = None) -> bool:
    """Whether c_attn, c_fc and c_proj are in the layout (in, out) of the Conv1D module in transformers' GPT-2.

    c_proj is square in attention and does not tell; c_attn does, with 3 d outputs for d inputs. Models that have none
    are known by their model type.
    """
    return bool(config and model_types(config) & _CONV1D_TYPES) or any(
        name.endswith("c_attn.weight") and len(info.shape) == 2 and info.shape[1] == 3 * info.shape[0]
        for name, info in infos.items()
    )


def may_be_fused(name: str) -> bool:
    """Whether a tensor has a name of a projection that `fused_attention` knows as fused."""
    return not NAMES.isdisjoint(_SEPARATORS.split(name)[-3:])


def pieces_of(
    info: TensorInfo, infos: Mapping[str, TensorInfo], *, conv1d: bool, config: Mapping[str, Any] | None = None
) -> tuple[Piece, ...]:
    """The matrices in a tensor: several pieces for a fused tensor, else one piece with an empty label.

    Parameters
    ----------
    info
        A floating tensor of two or more dimensions.
    infos
        All tensors by name; those beside it determine the number of gates and of heads.
    conv1d
        Result of `is_conv1d_model`.
    config
        The model's configuration, if there is one; its model type and heads determine the layout.
    """
    axis = _output_axis(info, infos, config or {}, conv1d=conv1d)
    outputs = info.shape[axis]
    recurrent = _RECURRENT.search(info.name) is not None
    if recurrent and (gates := gates_of(info, infos)):
        step = outputs // len(gates)
        return tuple(Piece(gates[i], axis, i * step, (i + 1) * step, "recurrent") for i in in_depth_order(gates))
    if may_be_fused(info.name) and (layout := layout_of(info, infos, axis, config or {})):
        return _cut(layout, axis)
    return (Piece("", axis, 0, outputs, "recurrent" if recurrent and is_recurrent(info, infos) else ""),)


def _cut(layout: Layout, axis: int) -> tuple[Piece, ...]:
    """The parts of a layout, query before key before value, and gate before up, whatever their order in it."""
    period = sum(size for _, size in layout.parts) if layout.groups > 1 else 0
    pieces: list[Piece] = []
    start = 0
    for label, size in layout.parts:
        kind = "" if label in ("gate", "up") else "attention"
        pieces.append(Piece(label, axis, start, start + size, kind, period))
        start += size
    return tuple(sorted(pieces, key=lambda piece: _ORDER.get(piece.label, len(_ORDER))))


def _output_axis(info: TensorInfo, infos: Mapping[str, TensorInfo], config: Mapping[str, Any], *, conv1d: bool) -> int:
    """Axis of outputs: 1 for GPT-2's Conv1D and for transposed convolutions (in, out, ...), else 0.

    A convolution is transposed by its name, by the model type, or where its bias has the extent of the second axis and
    not of the first.
    """
    if conv1d and len(info.shape) == 2 and _CONV1D.fullmatch(info.name):
        return 1
    if len(info.shape) < 3 or info.shape[1] < 2:
        return 0
    bias = infos.get(f"{info.name.removesuffix('weight')}bias") if info.name.endswith("weight") else None
    by_bias = bias is not None and info.shape[0] != info.shape[1] and bias.shape == info.shape[1:2]
    if by_bias or _TRANSPOSED.fullmatch(info.name.lower()):
        return 1
    return int(any(names.fullmatch(info.name) and types & model_types(config) for types, names in _TRANSPOSED_BY_TYPE))
