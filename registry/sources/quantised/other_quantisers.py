"""Packed weights of libraries whose layouts are recognised and not read; they are refused by name.

What is left after all steps that dequantise belongs here: a layer is recognised by the names of its parts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from registry.sources.dtypes import is_float
from registry.sources.quantised.quantised_parts import modules_with, refuse_weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.effective_weights import TensorView

    Shapes = dict[str, tuple[int, ...]]

__all__ = ["refuse_other_quantisers"]


class _Layout(NamedTuple):
    """One library's layout: parts that every layer has, others that it may have, and the weights that it stands for."""

    kind: str
    parts: tuple[str, ...]
    others: tuple[str, ...]
    elements: Callable[[Shapes], int]
    remedy: str


def _extent(shapes: Shapes, part: str, axis: int = 0) -> int:
    shape = shapes.get(part, ())
    return shape[axis] if -len(shape) <= axis < len(shape) else 1


def _codes(part: str, each: int) -> Callable[[Shapes], int]:
    """As many weights as a part has elements, ``each`` times."""
    return lambda shapes: math.prod(shapes[part]) * each


_ORIGINAL = "give the model that was quantised"
_LAYOUTS = (
    _Layout(
        "EXL2 weights",
        ("q_weight", "q_scale"),
        ("q_scale_max", "q_groups", "q_group_map", "q_invperm", "q_perm"),
        lambda shapes: _extent(shapes, "q_invperm") * _extent(shapes, "q_weight", 1),
        f"exllamav2 has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "QTIP weights",
        ("trellis", "SU", "SV"),
        ("tlut", "rcp", "tp_rank"),
        lambda shapes: _extent(shapes, "SU") * _extent(shapes, "SV"),
        f"qtip has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "EXL3 weights",
        ("trellis",),
        ("suh", "svh", "su", "sv", "mcg", "mul1"),
        lambda shapes: 256 * math.prod(shapes["trellis"][:2]),
        f"exllamav3 has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "HQQ weights",
        ("W_q",),
        (
            *("scale", "zero", "meta", "nbits", "group_size", "axis", "shape", "packing", "view_as_float"),
            *(
                "unpack_view_dtype",
                "compute_dtype",
                "quant_scale",
                "quant_zero",
                "optimize",
                "round_zero",
                "offload_meta",
            ),
            *("encoded_state_dict", "stores_quant_config", "channel_wise"),
        ),
        _codes("W_q", 2),
        "load it with hqq and save layer.dequantize() of each layer",
    ),
    _Layout(
        "AQLM weights",
        ("codes", "codebooks"),
        ("scales",),
        lambda shapes: math.prod(shapes["codes"][:2]) * math.prod(shapes["codebooks"][2:]),
        f"aqlm has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "QuIP# weights",
        ("Qidxs", "SU", "SV"),
        ("Wscale", "codebook_id", "had_left", "had_right", "K_left", "K_right", "A", "B", "rcp", "ocs_dupe_inds"),
        lambda shapes: _extent(shapes, "SU") * _extent(shapes, "SV"),
        f"quip-sharp has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "SpQR weights",
        ("dense_weights", "row_offsets", "col_vals"),
        ("in_perm", "shape"),
        _codes("dense_weights", 16),
        f"spqr has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "VPTQ weights",
        ("indices", "centroids.weight"),
        (
            *("res_centroids.weight", "outlier_centroids.weight", "outlier_indices", "res_indices", "perm"),
            *("weight_scale", "weight_bias"),
        ),
        _codes("indices", 8),
        f"vptq has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "EETQ weights",
        ("qweight", "weight_scales"),
        (),
        _codes("qweight", 1),
        f"eetq has no call that saves plain weights: {_ORIGINAL}",
    ),
    _Layout(
        "Marlin weights",
        ("B", "s"),
        ("workspace", "meta"),
        _codes("B", 8),
        f"its layout is for one kind of GPU: save it in the format gptq with gptqmodel, or {_ORIGINAL}",
    ),
    _Layout(
        "QQQ weights",
        ("B", "s_channel"),
        ("s_group", "workspace"),
        _codes("B", 8),
        f"its layout is for one kind of GPU: {_ORIGINAL}",
    ),
    _Layout(
        "quanto weights",
        ("weight._data", "weight._scale"),
        ("weight._shift", "input_scale", "output_scale"),
        _codes("weight._data", 1),
        "load it with optimum-quanto and save weight.dequantize() of each layer",
    ),
    _Layout(
        "HIGGS weights",
        ("weight", "tables"),
        ("scales", "tables2"),
        _codes("weight", 4),
        f"load it with transformers and save model.dequantize(), or {_ORIGINAL}",
    ),
    _Layout(
        "packed weights in groups",
        ("qweight", "scales"),
        ("qzeros", "g_idx", "perm"),
        _codes("qweight", 8),
        f"put its config.json beside the weights, or {_ORIGINAL}",
    ),
)


def refuse_other_quantisers(view: TensorView) -> None:
    """Refuse each layer of a layout that no step reads, with the name of the library and what to do.

    Parameters
    ----------
    view
        After the steps that dequantise. The parts of a refused layer are no layers themselves.
    """
    for layout in _LAYOUTS:
        for prefix in modules_with(view, *layout.parts):
            names = {part: prefix + part for part in (*layout.parts, *layout.others) if prefix + part in view.tensors}
            packed = view.tensors[prefix + layout.parts[0]]
            if is_float(packed.dtype) or not packed.shape:
                continue
            shapes = {part: view.tensors[name].shape for part, name in names.items()}
            first, *companions = names.values()
            refuse_weight(view, first, layout.kind, layout.elements(shapes), layout.remedy, companions)
