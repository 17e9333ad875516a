"""Tensors of torchao's classes in a pickle, taken apart as torchao itself writes them to safetensors.

``a.weight`` becomes ``a._weight_qdata``, ``a._weight_scale`` and others, with a description that names the class and
its settings, so that `torchao_tensors` reads both alike, and the library is not needed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.formats.pickles.pickle_records import Global
from registry.sources.formats.pickles.stored_tensors import StoredTensor
from registry.sources.formats.pickles.torch_values import WrappedTensor
from registry.sources.quantised.torchao_tensors import REMEDY

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["flattened"]

_MAX_AXES = 32


def flattened(state: Mapping[str, StoredTensor]) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """A state dict with the parts of torchao's tensors in their place, and the descriptions by the tensors' names.

    Raises
    ------
    WeightsError
        A tensor of torchao has no codes, or its parts are in the way of other tensors.
    """
    made: dict[str, StoredTensor] = {}
    described: dict[str, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, WrappedTensor) or not tensor.class_name.startswith("torchao."):
            made[name] = tensor
            continue
        parts = {
            key: part
            for key, part in tensor.attributes.items()
            if isinstance(key, str) and isinstance(part, StoredTensor)
        }
        if "qdata" not in parts:
            raise WeightsError(
                f"tensor {name} holds weights of torchao, which only torchao can load: {tensor.class_name[:100]}",
                REMEDY,
            )
        prefix, dot, weight = name.rpartition(".")
        for key, part in parts.items():
            stored = f"{prefix}{dot}_{weight}_{key}"
            if stored in state or stored in made:
                raise WeightsError(f"tensor {stored} is stored beside the torchao weight {name}", REMEDY)
            made[stored] = part
        settings = {
            key: _plain(value) for key, value in tensor.attributes.items() if isinstance(key, str) and key not in parts
        }
        kind = tensor.class_name.rpartition(".")[2]
        described[name] = json.dumps({"_type": kind, "_data": settings})
    return made, described


def _plain(value: object) -> object:
    """A setting as torchao describes it: numbers, short texts, extents and dtypes; None for anything else."""
    if isinstance(value, Global) and value.module == "torch":
        return {"_type": "torch.dtype", "_data": value.name[:100]}
    if isinstance(value, bool | str):
        return value if not isinstance(value, str) or len(value) < 100 else None
    if type(value) is int:
        return value if abs(value) < 2**31 else None
    if type(value) in (list, tuple) and len(value) <= _MAX_AXES:  # type: ignore[arg-type]
        items = [item for item in value if type(item) is int and abs(item) < 2**31]  # type: ignore[attr-defined]
        return items if len(items) == len(value) else None  # type: ignore[arg-type]
    return None
