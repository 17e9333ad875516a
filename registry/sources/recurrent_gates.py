"""Gates of recurrent layers that are stacked along the outputs of one tensor.

Their orders are those of the libraries' documentation: PyTorch LSTM i f g o, GRU r z n; Keras LSTM i f c o, GRU z r h;
TensorFlow's LSTM cells i j f o. As layers they have PyTorch's order, whatever that of the tensor is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.sources.module_roles import FLAX_GATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.types import TensorInfo

__all__ = ["gates_of", "in_depth_order", "is_recurrent"]

_GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}
_KERAS_GATES = {4: ("i", "f", "c", "o"), 3: ("z", "r", "h")}
_TF_GATES = ("i", "j", "f", "o")
_RANKS = {"i": 0, "f": 1, "g": 2, "c": 2, "j": 2, "o": 3, "r": 0, "z": 1, "n": 2, "h": 2}
_TORCH_RNN = re.compile(r"((?:.*\.)?weight_)(ih|hh)((?:_l\d+)?(?:_reverse)?)")
_KERAS_RNN = re.compile(r"((?:.*[./])?)(recurrent_kernel|kernel)")
_FLAX_GATE = re.compile(r"(.*[./])([ih][ifgorzn])([./]kernel)", re.DOTALL)
_TF_LSTM = re.compile(r"(?:.*[./])?\w*lstm_cell\w*[./]kernel")


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


def gates_of(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> tuple[str, ...]:
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


def in_depth_order(gates: tuple[str, ...]) -> list[int]:
    """Places of stacked gates in the order that their layers have: i f g o of an LSTM, r z n of a GRU."""
    return sorted(range(len(gates)), key=lambda place: _RANKS[gates[place]])


def is_recurrent(info: TensorInfo, infos: Mapping[str, TensorInfo]) -> bool:
    """Whether a tensor is a weight of a recurrent layer."""
    gate = _FLAX_GATE.fullmatch(info.name)
    if gate and any(all(f"{gate[1]}{name}{gate[3]}" in infos for name in gates) for gates in FLAX_GATES):
        return True
    return _recurrent_sibling(info, infos) is not None or "weight_hr" in info.name
