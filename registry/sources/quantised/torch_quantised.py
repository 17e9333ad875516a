"""Tensors that torch or torchao hold as codes and scales, and the packed parameters of torch's quantised modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.errors import WeightsError
from registry.sources.quantised.torchao_tensors import REMEDY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["dequantised", "is_packed", "parts_of", "precision_of", "unpacked"]

_INTEGERS = {"qint8": "int8", "quint8": "int8", "qint32": "int32", "quint4x2": "int4", "quint2x4": "int2"}
_PACKED = "_packed_params._packed_params"  # of linear modules: the weight and the bias in one tuple
_MEMBERS = {
    "_packed_params.weight": "weight", "_packed_params.bias": "bias", "_packed_params._packed_weight": "weight",
}  # fmt: skip
_OUTPUT = ("scale", "zero_point")  # how a linear module quantises its output
_FP8 = {"float8_e4m3fn": "fp8 e4m3", "float8_e5m2": "fp8 e5m2"}
_KINDS = {"Int8Tensor": "int8", "NVFP4Tensor": "nvfp4", "MXTensor": "mx"}


def precision_of(tensor: torch.Tensor) -> str:
    """How a tensor that holds codes is stored, such as ``int8 torch``; empty for an ordinary tensor."""
    if tensor.is_quantized:
        dtype = _word(tensor.dtype)
        return f"{_INTEGERS.get(dtype, dtype)} torch"
    if not _is_wrapper(tensor):
        return ""
    kind = type(tensor).__name__
    if kind == "MXTensor":
        element = _word(getattr(tensor, "elem_dtype", ""))
        name = f"mx{'fp8' if element in _FP8 else element.partition('_')[0].replace('float', 'fp')}"
    elif kind == "Float8Tensor":
        name = _FP8.get(_word(getattr(getattr(tensor, "qdata", None), "dtype", "")), "fp8")
    elif kind == "IntxUnpackedToInt8Tensor":
        name = _word(getattr(tensor, "target_dtype", "int8"))
    else:
        name = _KINDS.get(kind) or ("int4" if kind.startswith("Int4") else kind)
    return f"{name} torchao"


def _word(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of torchao's classes, which hold other tensors."""
    return type(tensor).__module__.partition(".")[0] == "torchao"


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that one of codes holds."""
    if tensor.is_quantized:
        return [tensor]
    return [part for part in vars(tensor).values() if hasattr(part, "untyped_storage") and not _is_wrapper(part)]


def dequantised(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The values of a tensor that holds codes, as its own library computes them.

    Torch's give float32, torchao's the dtype that the tensor shows. Raises ``WeightsError`` where the library cannot,
    or where the inputs of a layer are scaled besides.
    """
    remedy = REMEDY if not tensor.is_quantized else "save its weights before quantisation"
    if getattr(tensor, "act_pre_scale", None) is not None:
        raise WeightsError(f"tensor {name} is a torchao weight with scaled inputs", remedy)
    try:
        return tensor.dequantize()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"tensor {name} ({type(tensor).__name__}, {_word(tensor.dtype)}) has no values that its library can give",
            remedy,
        ) from error


def is_packed(key: object, value: object) -> bool:
    """Whether an entry of a state dict is the weight and bias of a quantised linear module."""
    return isinstance(key, str) and key.endswith(_PACKED) and isinstance(value, tuple | list) and _is_tensor(value[:1])


def _is_tensor(values: Any) -> bool:
    """Whether the first value is a tensor of torch, or one that is read from a file."""
    return len(values) == 1 and hasattr(values[0], "dtype") and hasattr(values[0], "shape")


def _is_script(value: object) -> bool:
    """Whether a value is an object of torch's quantised backends, in memory or in a file."""
    return type(value).__name__ == "ScriptObject" or getattr(value, "class_name", "") == "torch.ScriptObject"


def unpacked(state: Mapping[Any, Any], where: str) -> Mapping[Any, Any]:
    """A state dict with ``a.weight`` and ``a.bias`` instead of what torch's quantised modules store as one.

    Raises
    ------
    WeightsError
        A module holds an object of torch's quantised backends, which shows no weights.
    """
    if not any(isinstance(key, str) and ("_packed_params" in key or "_all_weight_values" in key) for key in state):
        return state
    outputs = {
        f"{key.removesuffix(_PACKED)}{part}" for key, v in state.items() if is_packed(key, v) for part in _OUTPUT
    }
    made: dict[Any, Any] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            made[key] = value
        elif key in outputs:
            continue
        elif is_packed(key, value):
            stem = key.removesuffix(_PACKED)
            for part, tensor in zip(("weight", "bias"), value, strict=False):
                if tensor is not None:
                    made[stem + part] = tensor
        elif _is_script(value):
            raise WeightsError(
                f"{where}: {key} is packed for torch's quantised kernels and shows no weights",
                "give the model before quantisation",
            )
        else:
            end = next((end for end in _MEMBERS if key.endswith(end)), "")
            made[key.removesuffix(end) + _MEMBERS.get(end, "")] = value
    return made
