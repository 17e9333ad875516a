"""Weights of MLX against its own dequantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources.effective_weights import TensorView
from registry.sources.quantised.mlx import dequantise_mlx
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable

    View = Callable[..., TensorView]
    Parts = dict[str, torch.Tensor]

FLOAT_MODES = [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]


@pytest.fixture(scope="module")
def mx() -> Any:
    try:
        import mlx.core
    except ImportError:
        missing("mlx is not installed")
    return mlx.core


def _torch(mx: Any, array: Any) -> torch.Tensor:
    """An array of MLX with its dtype."""
    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _quantised(
    mx: Any, shape: tuple[int, ...] = (24, 256), *, dtype: str = "float32", prefix: str = "h.0.fc.", **how: Any
) -> tuple[Parts, np.ndarray]:
    """Parts of a weight, and what the library makes of them."""
    weight = np.random.default_rng(5).normal(0.01, 0.02, shape).astype(np.float32)
    parts = mx.quantize(mx.array(weight).astype(getattr(mx, dtype)), **how)
    made = np.array(mx.dequantize(*parts, **how).astype(mx.float32))
    return {
        prefix + name: _torch(mx, part) for name, part in zip(("weight", "scales", "biases"), parts, strict=False)
    }, made


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("bits", "group"), [(2, 32), (3, 64), (4, 32), (4, 64), (4, 128), (5, 64), (6, 64), (8, 32)])
def test_affine_weights_are_what_the_library_reads(
    mx: Any, view_of: View, ulps: Any, bits: int, group: int, dtype: str
) -> None:
    parts, weight = _quantised(mx, dtype=dtype, bits=bits, group_size=group)
    assert [part.dtype for part in parts.values()] == [torch.uint32, getattr(torch, dtype), getattr(torch, dtype)]
    view = view_of(parts, {"bits": bits, "group_size": group})
    assert list(view.tensors) == ["h.0.fc.weight"]
    made = view.tensors["h.0.fc.weight"]
    assert (made.dtype, made.shape, made.precision) == ("float32", (24, 256), f"int{bits} mlx")
    assert set(made.parts) == set(parts)
    values = made.read()
    assert ulps(values, weight, dtype) <= 1
    assert np.array_equal(made.rows(3, 11), values[3:11])
    assert ulps(values[:, ::-1], weight, dtype) > 100


@pytest.mark.parametrize("settings", [True, False])
@pytest.mark.parametrize(("mode", "bits", "group"), FLOAT_MODES)
def test_float_modes_are_what_the_library_reads(
    mx: Any, view_of: View, mode: str, bits: int, group: int, settings: bool
) -> None:
    parts, weight = _quantised(mx, mode=mode)
    assert len(parts) == 2
    given = {"mode": mode, "bits": bits, "group_size": group} if settings else {}
    view = view_of(parts, given)
    made = view.tensors["h.0.fc.weight"]
    assert (made.dtype, made.shape, made.precision) == ("float32", (24, 256), f"{mode} mlx")
    assert np.array_equal(made.read(), weight)
    assert np.array_equal(made.rows(20, 24), weight[20:])


@pytest.mark.parametrize("how", [{"bits": 4, "group_size": 64}, {"bits": 3, "group_size": 32}, {"mode": "mxfp4"}])
def test_stacked_experts_are_read_one_by_one(
    mx: Any, stored: Any, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setattr("registry.sources.quantised.bit_fields._BLOCK", 1000)  # less than an expert
    parts, weight = _quantised(mx, (4, 24, 128), prefix="mlp.switch_mlp.up_proj.", **how)
    view = TensorView(stored(parts, how))
    dequantise_mlx(view)
    made = view.tensors["mlp.switch_mlp.up_proj.weight"]
    assert made.shape == (4, 24, 128)
    assert np.array_equal(made.read(), weight)
    assert np.array_equal(made.rows(2, 3), weight[2:3])


def test_stacked_experts_are_matrices(mx: Any, view_of: View) -> None:
    how = {"bits": 4, "group_size": 32}
    shapes = {"gate_proj": (4, 96, 64), "up_proj": (4, 96, 64), "down_proj": (4, 64, 96)}
    made = {name: _quantised(mx, shape, prefix=f"mlp.switch_mlp.{name}.", **how) for name, shape in shapes.items()}
    view = view_of({name: part for parts, _ in made.values() for name, part in parts.items()}, how)
    assert len(view.tensors) == 12
    for name, (_, weight) in made.items():
        apart = [tensor for key, tensor in view.tensors.items() if name in key]
        assert {tensor.precision for tensor in apart} == {"int4 mlx"}
        assert np.array_equal(np.stack([tensor.read() for tensor in apart]), weight)


@pytest.mark.parametrize(("bits", "group"), [(3, 32), (5, 32), (5, 64), (5, 128), (6, 128), (8, 128)])
def test_shapes_may_leave_no_choice(mx: Any, view_of: View, bits: int, group: int) -> None:
    parts, weight = _quantised(mx, bits=bits, group_size=group)
    assert np.array_equal(view_of(parts).tensors["h.0.fc.weight"].read(), weight)


@pytest.mark.parametrize(
    ("bits", "group", "other"), [(4, 64, "8 bits in groups of 32"), (3, 64, "6 bits in groups of 32")]
)
def test_shapes_that_leave_a_choice_need_a_configuration(
    mx: Any, view_of: View, bits: int, group: int, other: str
) -> None:
    parts, weight = _quantised(mx, bits=bits, group_size=group)
    with pytest.raises(WeightsError, match=rf"{other}.*config\.json beside"):
        view_of(parts)
    assert np.array_equal(view_of(parts, {"bits": bits}).tensors["h.0.fc.weight"].read(), weight)


def test_single_modules_have_their_own_settings(mx: Any, view_of: View) -> None:
    four, first = _quantised(mx, prefix="h.0.fc.", bits=4, group_size=64)
    eight, second = _quantised(mx, prefix="h.0.gate.", bits=8, group_size=32)
    settings = {"bits": 4, "group_size": 64, "h.0.gate": {"bits": 8, "group_size": 32}, "h.0.norm": False}
    view = view_of({**four, **eight, "h.0.norm.weight": torch.ones(8)}, settings)
    assert np.array_equal(view.tensors["h.0.fc.weight"].read(), first)
    assert np.array_equal(view.tensors["h.0.gate.weight"].read(), second)
    assert [view.tensors[f"h.0.{name}.weight"].precision for name in ("fc", "gate", "norm")] == [
        "int4 mlx",
        "int8 mlx",
        "",
    ]


def test_the_settings_of_a_module_inherit_nothing(mx: Any, view_of: View) -> None:
    """In a network of another mode, a module with an entry is affine, with 4 bits in groups of 64 by default."""
    floats, first = _quantised(mx, prefix="h.0.fc.", mode="mxfp4")
    affine, second = _quantised(mx, prefix="h.0.gate.", bits=4, group_size=64)
    eight, third = _quantised(mx, prefix="h.0.up.", mode="mxfp8")
    settings = {"bits": 4, "group_size": 32, "mode": "mxfp4", "h.0.gate": {}, "h.0.up": {"mode": "mxfp8"}}
    view = view_of({**floats, **affine, **eight}, settings)
    for name, weight in (("fc", first), ("gate", second), ("up", third)):
        assert np.array_equal(view.tensors[f"h.0.{name}.weight"].read(), weight)


def _set(**changes: torch.Tensor) -> Callable[[Parts], Parts]:
    return lambda parts: parts | {f"h.0.fc.{name}": part for name, part in changes.items()}


BAD: list[tuple[Callable[[Parts], Parts], dict[str, Any], str]] = [
    (_set(scales=torch.ones((23, 4))), {}, "scales has shape"),
    (_set(scales=torch.ones((24, 3))), {}, "biases is float32 of shape"),
    (_set(scales=torch.ones((24, 3)), biases=torch.ones((24, 3))), {}, "has 32 words a row, not 3 groups of 64"),
    (_set(scales=torch.ones((24, 0)), biases=torch.ones((24, 0))), {}, "scales has shape"),
    (_set(biases=torch.ones((24, 3))), {}, "biases is float32 of shape"),
    (_set(biases=torch.ones((24, 4), dtype=torch.float16)), {}, "biases is float16"),
    (_set(scales=torch.ones((24, 4), dtype=torch.uint8)), {}, "scales is uint8 with biases"),
    (lambda parts: {k: v for k, v in parts.items() if "biases" not in k}, {}, "scales is float32 without biases"),
    (_set(weight=torch.ones(24, dtype=torch.uint32)), {}, "scales has shape"),
    (_set(global_scale=torch.ones(1)), {}, "global_scale is beside"),
    (_set(), {"bits": 8}, "has 32 words a row"),
    (_set(), {"bits": 7}, "given as 7 bits"),
    (_set(), {"group_size": 48}, "in groups of 48"),
    (_set(), {"group_size": -64}, "in groups of -64"),
    (_set(), {"bits": True}, "no whole number"),
    (_set(), {"mode": "mxfp4"}, "has biases in the mode mxfp4"),
    (_set(), {"mode": "int4"}, "unknown mode 'int4'"),
    (_set(), {"mode": ["affine"]}, "unknown mode"),
]


@pytest.mark.parametrize(("change", "settings", "message"), BAD)
def test_contradictions_are_refused(
    mx: Any, view_of: View, change: Callable[[Parts], Parts], settings: dict[str, Any], message: str
) -> None:
    parts, _ = _quantised(mx, bits=4, group_size=64)
    with pytest.raises(WeightsError, match=message) as caught:
        view_of(change(parts), {"bits": 4, "group_size": 64} | settings)
    assert "\n" not in str(caught.value)
    assert caught.value.message.startswith("model: ")


def test_a_float_mode_without_a_fitting_shape_is_refused(view_of: View) -> None:
    parts = {"weight": torch.zeros((8, 8), dtype=torch.uint32), "scales": torch.zeros((8, 8), dtype=torch.uint8)}
    with pytest.raises(WeightsError, match="no known layout"):
        view_of(parts)


def test_a_scale_of_zero_is_refused_when_read(mx: Any, view_of: View) -> None:
    parts, _ = _quantised(mx, bits=4, group_size=64)
    view = view_of(parts | {"h.0.fc.scales": parts["h.0.fc.scales"] * 0}, {"bits": 4, "group_size": 64})
    with pytest.raises(WeightsError, match="scales of zero"):
        view.tensors["h.0.fc.weight"].read()


def test_words_beside_no_scales_are_no_weights(view_of: View) -> None:
    view = view_of({"weight": torch.ones((8, 8), dtype=torch.uint32), "other.scales": torch.ones((8, 2))})
    assert {name: tensor.dtype for name, tensor in view.tensors.items()} == {
        "weight": "uint32",
        "other.scales": "float32",
    }
