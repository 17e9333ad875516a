"""AWQ weights against those that AutoAWQ unpacks, and those that it packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import WeightsError
from tests.sources.quantised.make_reference import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.effective_weights import TensorView

    View = Callable[..., TensorView]
    Parts = dict[str, np.ndarray]

VERSIONS = ["gemm", "gemv"]
GROUPS = [32, 64, 128]


def _case(version: str, group: int) -> tuple[Parts, np.ndarray]:
    with np.load(REFERENCE) as held:
        start = f"awq/{version}/{group}/"
        parts = {"h.0.fc." + n.removeprefix(start): held[n] for n in held.files if n.startswith(start)}
    return parts, parts.pop("h.0.fc.weight")


def _settings(version: str, group: int) -> dict[str, Any]:
    return {"quant_method": "awq", "bits": 4, "group_size": group, "version": version, "zero_point": True}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_weight_is_what_autoawq_reads(view_of: View, ulps: Any, version: str, group: int) -> None:
    parts, weight = _case(version, group)
    view = view_of(parts, _settings(version.upper(), -1 if group == 128 else group))
    assert list(view.tensors) == ["h.0.fc.weight"]
    made = view.tensors["h.0.fc.weight"]
    assert (made.dtype, made.shape, made.precision) == ("float32", (32, 128), "int4 awq")
    assert set(made.parts) == set(parts)
    values = made.read()
    assert ulps(values, weight, "float16") <= 1
    assert np.array_equal(made.rows(3, 21), values[3:21])
    assert ulps(values[:, ::-1], weight, "float16") > 100


@pytest.mark.parametrize("group", GROUPS)
def test_gemm_needs_no_configuration(view_of: View, ulps: Any, group: int) -> None:
    parts, weight = _case("gemm", group)
    for settings in ({}, {"w_bit": 4, "q_group_size": group, "zero_point": True, "version": "GEMM"}):
        assert ulps(view_of(parts, settings).tensors["h.0.fc.weight"].read(), weight, "float16") <= 1


def test_gemv_without_a_configuration_is_read_where_its_groups_are_plain(view_of: View, ulps: Any) -> None:
    """Zeros of 128 inputs in groups of 32 fill four words, in groups of 64 two, in groups of 128 one."""
    for group in GROUPS:
        parts, weight = _case("gemv", group)
        assert ulps(view_of(parts, {}).tensors["h.0.fc.weight"].read(), weight, "float16") <= 1


def test_groups_that_shapes_leave_open_need_a_configuration(view_of: View) -> None:
    """Of 512 inputs, four groups and a single one both have their zeros in one word."""
    parts = {
        "qweight": np.full((16, 64), 0x11111111, np.int32),
        "qzeros": np.zeros((16, 1), np.int32),
        "scales": np.ones((16, 8), np.float16) * np.arange(1, 9, dtype=np.float16),
    }
    with pytest.raises(WeightsError, match=r"groups of any of 128, 512 inputs.*beside the weights"):
        view_of(parts)
    for group, last in ((128, 4), (-1, 1)):
        read = view_of(parts, _settings("gemv", group)).tensors["weight"].read()
        assert read.shape == (16, 512)
        assert (read[0, 0], read[0, -1]) == (1, last)
    with pytest.raises(WeightsError, match="no groups of 32"):
        view_of(parts, _settings("gemv", 32))


def _set(name: str, part: np.ndarray) -> Callable[[Parts], Parts]:
    return lambda parts: {**parts, "h.0.fc." + name: part}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (_set("scales", np.ones((4, 24), np.float16)), {}, "shapes of no AWQ layer"),
        (_set("scales", np.ones((3, 32), np.float16)), {}, "shapes of no AWQ layer"),
        (_set("qzeros", np.ones((4, 3), np.int32)), {}, "shapes of no AWQ layer"),
        (_set("qweight", np.ones((128, 4), np.float32)), {}, "shapes of no AWQ layer"),
        (lambda parts: {k: v for k, v in parts.items() if "qzeros" not in k}, {}, "shapes of no AWQ layer"),
        (_set("weight", np.ones((32, 128), np.float32)), {}, "is stored beside"),
        (lambda parts: parts, {"version": "gemv"}, "shapes of no AWQ layer"),
        (lambda parts: parts, {"bits": 8}, "codes of 8 bits"),
        (lambda parts: parts, {"group_size": 64}, "groups of 32, not of 64"),
        (lambda parts: parts, {"group_size": 3.5}, "no whole number"),
    ],
)
def test_contradictions_are_refused(
    view_of: View, change: Callable[[Parts], Parts], settings: dict[str, Any], message: str
) -> None:
    parts = change(_case("gemm", 32)[0])
    with pytest.raises(WeightsError, match=message) as caught:
        view_of(parts, _settings("gemm", 32) | settings)
    assert "\n" not in str(caught.value)
    assert caught.value.message.startswith("model: ")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_scale_of_zero_is_refused_when_read(view_of: View, version: str) -> None:
    parts, _ = _case(version, 32)
    parts["h.0.fc.scales"] = parts["h.0.fc.scales"] * np.float16(0)
    view = view_of(parts, _settings(version, 32))
    with pytest.raises(WeightsError, match="scales of zero"):
        view.tensors["h.0.fc.weight"].read()


@pytest.mark.parametrize(("version", "dtype"), [("gemv_fast", np.int16), ("llm-awq", np.int16), ("marlin", np.int32)])
def test_other_versions_are_refused_by_name(view_of: View, version: str, dtype: Any) -> None:
    parts = {"qweight": np.zeros((8, 256), dtype), "scales": np.ones((8, 32), np.float16)}
    view = view_of({"h.0.fc." + n: part for n, part in parts.items()}, _settings(version, 32))
    assert not view.tensors
    why = view.unreadable["h.0.fc.qweight"]
    assert why.kind == f"AWQ weights of version {version}"
    assert why.elements == 8 * 256 * (4 if dtype is np.int16 else 8)


def test_gptq_and_awq_are_told_apart(view_of: View) -> None:
    awq, _ = _case("gemm", 32)
    with np.load(REFERENCE) as held:
        gptq = {"h.1.fc." + n: held[f"gptq/4/32/{n}"] for n in ("qweight", "qzeros", "scales", "g_idx")}
    view = view_of(awq | gptq)
    assert {name: tensor.precision for name, tensor in view.tensors.items()} == {
        "h.0.fc.weight": "int4 awq",
        "h.1.fc.weight": "int4 gptq",
    }
    for parts, method in ((awq, "gptq"), (gptq, "awq")):
        with pytest.raises(WeightsError):
            view_of(parts, {"quant_method": method, "bits": 4, "group_size": 32})
