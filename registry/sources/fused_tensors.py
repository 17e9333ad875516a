"""Splitting of fused tensors into their matrices: recurrent gates, q/k/v projections, transposed layouts.

A tensor is split or transposed only if its name and the shapes beside it show that it is fused or transposed. Gate
orders are those of the libraries' documentation: PyTorch LSTM i f g o, GRU r z n; Keras LSTM i f c o, GRU z r h;
TensorFlow's LSTM cells i j f o.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from registry.sources.module_roles import FLAX_GATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.types import TensorInfo

__all__ = ["Piece", "is_conv1d_model", "pieces_of"]

_GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}
_KERAS_GATES = {4: ("i", "f", "c", "o"), 3: ("z", "r", "h")}
_TF_GATES = ("i", "j", "f", "o")
_QKV = re.compile(r"in_proj_weight|(?:.*[./])?(?:qkv|to_qkv|wqkv|c_attn)[./]weight|(?:.*[./])in_proj_weight")
_EXACT_QKV = re.compile(r"(?:.*[./])?qkv_proj[./]weight")
_KV = re.compile(r"(?:.*[./])?(?:kv|to_kv)[./]weight")
_CONV1D = re.compile(r"(?:.*[./])?(?:c_attn|q_attn|c_fc|c_proj)[./]weight")
_TRANSPOSED = re.compile(
    r"(?:.*[./_])?(?:deconv|conv_?transpose|transposed_?conv|convt)(?:[123]d)?[_\d]*(?:[./]\w+)*?[./]weight"
)
_TORCH_RNN = re.compile(r"((?:.*\.)?weight_)(ih|hh)((?:_l\d+)?(?:_reverse)?)")
_KERAS_RNN = re.compile(r"((?:.*[./])?)(recurrent_kernel|kernel)")
_FLAX_GATE = re.compile(r"(.*[./])([ih][ifgorzn])([./]kernel)", re.DOTALL)
_TF_LSTM = re.compile(r"(?:.*[./])?\w*lstm_cell\w*[./]kernel")


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


def is_conv1d_model(infos: Mapping[str, TensorInfo]) -> bool:
    """Whether c_attn, c_fc and c_proj are in the layout (in, out) of the Conv1D module in transformers' GPT-2.

    c_proj is square in attention and does not tell; c_attn does, with 3 d outputs for d inputs.
    """
    return any(
        name.endswith("c_attn.weight") and len(info.shape) == 2 and info.shape[1] == 3 * info.shape[0]
        for name, info in infos.items()
    )


def pieces_of(info: TensorInfo, infos: Mapping[str, TensorInfo], *, conv1d: bool) -> tuple[Piece, ...]:
    """The matrices in a tensor: several pieces for a fused tensor, else one piece with an empty label.

    Parameters
    ----------
    info
        A floating tensor of two or more dimensions.
    infos
        All tensors by name; siblings determine the number of gates.
    conv1d
        Result of `is_conv1d_model`.
    """
    axis = _output_axis(info, conv1d=conv1d)
    outputs = info.shape[axis]
    gates = _gates(info, infos)
    if gates:
        return _cut(gates, axis, outputs, "recurrent")
    if _QKV.fullmatch(info.name.lower()) and outputs % 3 == 0:
        return _cut(("q", "k", "v"), axis, outputs, "attention")
    if _EXACT_QKV.fullmatch(info.name.lower()) and len(info.shape) == 2 and outputs == 3 * info.shape[1]:
        return _cut(("q", "k", "v"), axis, outputs, "attention")  # grouped-query attention has parts of unequal size
    if _KV.fullmatch(info.name.lower()) and outputs % 2 == 0:
        return _cut(("k", "v"), axis, outputs, "attention")
    return (Piece("", axis, 0, outputs, "recurrent" if _is_recurrent(info, infos) else ""),)


def _cut(labels: tuple[str, ...], axis: int, outputs: int, kind: str) -> tuple[Piece, ...]:
    step = outputs // len(labels)
    return tuple(Piece(label, axis, i * step, (i + 1) * step, kind) for i, label in enumerate(labels))


def _output_axis(info: TensorInfo, *, conv1d: bool) -> int:
    """Axis of outputs: 1 for GPT-2's Conv1D and for transposed convolutions (in, out, ...), else 0."""
    if conv1d and len(info.shape) == 2 and _CONV1D.fullmatch(info.name):
        return 1
    transposed = len(info.shape) > 2 and info.shape[1] > 1 and _TRANSPOSED.fullmatch(info.name.lower())
    return 1 if transposed else 0


def _recurrent_sibling(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> tuple[TensorInfo, bool] | None:
    """The hidden-to-hidden tensor of ``info``'s layer (possibly ``info`` itself), and whether names follow Keras."""
    torch_name = _TORCH_RNN.fullmatch(info.name)
    keras_name = _KERAS_RNN.fullmatch(info.name)
    if torch_name:
        sibling = infos.get(f"{torch_name[1]}hh{torch_name[3]}")
    elif keras_name:
        sibling = infos.get(f"{keras_name[1]}recurrent_kernel")
    else:
        return None
    if sibling is None or len(sibling.shape) != 2 or len(info.shape) != 2 or sibling.shape[0] != info.shape[0]:
        return None
    return sibling, keras_name is not None


def _gates(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """Labels of the gates stacked along a tensor's output axis; empty without gates or if shapes leave it open."""
    found = _recurrent_sibling(info, infos)
    if found is None and _TF_LSTM.fullmatch(info.name.lower()) and len(info.shape) == 2 and info.shape[0] % 4 == 0:
        return _TF_GATES
    if found is None:
        return ()
    sibling, keras = found
    rows, hidden = sibling.shape
    projection = infos.get(sibling.name.replace("weight_hh", "weight_hr"))
    if projection is not None and projection is not sibling and len(projection.shape) == 2:
        hidden = projection.shape[1]  # the hidden state of an LSTM with projections is smaller than its number of units
    count, rest = divmod(rows, hidden) if hidden else (0, 0)
    return () if rest else (_KERAS_GATES if keras else _GATES).get(count, ())


def _is_recurrent(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> bool:
    gate = _FLAX_GATE.fullmatch(info.name)
    if gate and any(all(f"{gate[1]}{name}{gate[3]}" in infos for name in gates) for gates in FLAX_GATES):
        return True
    return _recurrent_sibling(info, infos) is not None or "weight_hr" in info.name
