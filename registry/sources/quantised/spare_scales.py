"""Scales in a quantised model that belong to no weight: of activations, of caches, and of weights kept as floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.sources.dtypes import is_float
from registry.sources.quantised.quantisation_config import method_of

if TYPE_CHECKING:
    from registry.sources.effective_weights import TensorView

__all__ = ["skip_scales"]

# Factors of inputs, outputs and cached keys and values.
_ACTIVATIONS = frozenset({
    "input_scale", "input_scale_ub", "input_global_scale", "output_scale", "scale_input", "activation_scale",
    "k_scale", "v_scale", "q_scale", "kv_scale", "prob_output_scale", "input_zero_point", "output_zero_point",
    "act_scale", "pre_quant_scale", "input_amax", "scaled_fp8",
})  # fmt: skip
_COMPANIONS = ("_scale", "_scale_inv", "_zero_point", "_g_idx")


def skip_scales(view: TensorView) -> None:
    """Drop what is left of scales and zero points; none of it is a layer.

    They belong to a weight that is no floating-point tensor and that no step has read. In a model with quantised
    weights they are also factors of inputs, outputs and caches; the ``scale`` and ``zero_point`` of a module's output;
    and those of a weight that is stored as floats beside them (compressed-tensors before it compresses).
    """
    quantised = bool(method_of(view)) or any(tensor.precision for tensor in view.tensors.values())
    names = set(view.tensors)
    for name, tensor in list(view.tensors.items()):
        stem, dot, last = name.rpartition(".")
        small = len(tensor.shape) < 2 or tensor.info.size <= 1
        paired = tensor.info.size <= 1 and {f"{stem}{dot}scale", f"{stem}{dot}zero_point"} <= names
        if quantised and ((small and last in _ACTIVATIONS) or (paired and last in ("scale", "zero_point"))):
            view.skip(name, "scale of activations")
        elif any(last.endswith(end) and _is_weight(view, name.removesuffix(end), quantised) for end in _COMPANIONS):
            view.skip(name, "scale of weights")


def _is_weight(view: TensorView, name: str, quantised: bool) -> bool:
    """Whether a tensor is a weight that may have scales: any matrix of a quantised model, else one of codes."""
    found = view.tensors.get(name)
    if found is None:
        return name in view.unreadable
    return len(found.shape) > 1 and (quantised or not is_float(found.dtype))
