"""Layouts that are refused by the name of their library. Shapes and dtypes are those of published checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from registry.errors import WeightsError
from registry.sources.matrix_rule import plan_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.effective_weights import TensorView

INPUTS, OUTPUTS = 256, 64
I16, I32, I64, U8, HALF = torch.int16, torch.int32, torch.int64, torch.uint8, torch.float16

# Kind, parts as (shape, dtype), and the number of weights that they stand for.
LAYOUTS: dict[str, tuple[dict[str, tuple[tuple[int, ...], torch.dtype]], int]] = {
    "EXL2 weights": (
        {
            "q_weight": ((40, OUTPUTS), I32),
            "q_scale": ((8, OUTPUTS // 8), I32),
            "q_scale_max": ((8,), HALF),
            "q_groups": ((16,), I16),
            "q_invperm": ((INPUTS,), I32),
        },
        INPUTS * OUTPUTS,
    ),
    "EXL3 weights": (
        {"trellis": ((INPUTS // 16, OUTPUTS // 16, 64), I16), "suh": ((INPUTS,), HALF), "svh": ((OUTPUTS,), HALF)},
        INPUTS * OUTPUTS,
    ),
    "HQQ weights": (
        {
            "W_q": ((OUTPUTS // 2, INPUTS), U8),
            "scale": ((INPUTS * OUTPUTS // 64, 1), HALF),
            "zero": ((INPUTS * OUTPUTS // 64, 1), HALF),
            "nbits": ((1,), I32),
        },
        INPUTS * OUTPUTS,
    ),
    "AQLM weights": (
        {
            "codes": ((OUTPUTS, INPUTS // 8, 1), I16),
            "codebooks": ((1, 65536, 1, 8), HALF),
            "scales": ((OUTPUTS, 1, 1, 1), HALF),
        },
        INPUTS * OUTPUTS,
    ),
    "QuIP# weights": (
        {"Qidxs": ((OUTPUTS, INPUTS // 8), I64), "SU": ((INPUTS,), HALF), "SV": ((OUTPUTS,), HALF)},
        INPUTS * OUTPUTS,
    ),
    "QTIP weights": (
        {"trellis": ((16, 128), I16), "SU": ((INPUTS,), HALF), "SV": ((OUTPUTS,), HALF), "tlut": ((512, 2), HALF)},
        INPUTS * OUTPUTS,
    ),
    "SpQR weights": (
        {
            "dense_weights": ((INPUTS * OUTPUTS // 16,), I64),
            "row_offsets": ((OUTPUTS + 1,), I32),
            "col_vals": ((30,), I32),
        },
        INPUTS * OUTPUTS,
    ),
    "VPTQ weights": (
        {
            "indices": ((1, OUTPUTS, INPUTS // 8), I32),
            "centroids.weight": ((1, 65536), HALF),
            "weight_scale": ((INPUTS,), HALF),
        },
        INPUTS * OUTPUTS,
    ),
    "EETQ weights": (
        {"qweight": ((INPUTS, OUTPUTS), torch.int8), "weight_scales": ((OUTPUTS,), HALF)},
        INPUTS * OUTPUTS,
    ),
    "Marlin weights": (
        {"B": ((INPUTS // 16, OUTPUTS * 2), I32), "s": ((2, OUTPUTS), HALF), "workspace": ((64,), I32)},
        INPUTS * OUTPUTS,
    ),
    "QQQ weights": (
        {"B": ((INPUTS // 16, OUTPUTS * 2), I32), "s_channel": ((1, OUTPUTS), torch.float32)},
        INPUTS * OUTPUTS,
    ),
    "quanto weights": (
        {"weight._data": ((OUTPUTS, INPUTS), torch.int8), "weight._scale": ((OUTPUTS, 1), HALF)},
        INPUTS * OUTPUTS,
    ),
    "HIGGS weights": (
        {"weight": ((INPUTS // 4, OUTPUTS), I16), "tables": ((256, 2), HALF), "scales": ((2, OUTPUTS), HALF)},
        INPUTS * OUTPUTS,
    ),
    "packed weights in groups": (
        {"qweight": ((OUTPUTS, INPUTS // 8), I32), "scales": ((OUTPUTS, 4), HALF)},
        INPUTS * OUTPUTS,
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layout_is_refused_by_name(view_of: Callable[..., TensorView], stored: Any, kind: str) -> None:
    parts, elements = LAYOUTS[kind]
    tensors = {f"h.0.fc.{name}": torch.ones(shape).to(dtype) for name, (shape, dtype) in parts.items()}
    tensors["h.0.fc.bias"] = torch.ones(OUTPUTS)
    view = view_of(tensors)
    assert list(view.tensors) == ["h.0.fc.bias"]  # no companion of codes is a layer
    (why,) = view.unreadable.values()
    assert (why.kind, why.elements) == (kind, elements)
    with pytest.raises(WeightsError, match=kind) as caught:
        plan_weights(stored(tensors | {"head.weight": torch.ones((OUTPUTS, OUTPUTS))}))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("kind", LAYOUTS)
def test_weights_of_these_names_are_read(view_of: Callable[..., TensorView], kind: str) -> None:
    """Names alone decide nothing: plain numbers are plain weights."""
    tensors = {f"h.0.fc.{name}": torch.ones(shape) for name, (shape, _) in LAYOUTS[kind][0].items()}
    assert list(view_of(tensors).tensors) == list(tensors)
