"""GPTQ weights against those that GPTQModel reads, and against a packer of single bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import WeightsError
from registry.sources.matrix_rule import plan_weights
from tests.sources.quantised.make_reference import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.effective_weights import TensorView

    View = Callable[..., TensorView]
    Parts = dict[str, np.ndarray]

GPTQMODEL = {"meta": {"quantizer": ["gptqmodel:7.7.0"]}}
CASES = [(2, 32), (3, 32), (4, 32), (8, 32), (4, 128)]


def _case(bits: int, group: int) -> Parts:
    with np.load(REFERENCE) as held:
        start = f"gptq/{bits}/{group}/"
        return {name.removeprefix(start): held[name] for name in held.files if name.startswith(start)}


def _settings(bits: int, group: int, version: int, **more: Any) -> dict[str, Any]:
    layout = {1: "gptq", 2: "gptq_v2"}[version]
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "checkpoint_format": layout,
        "sym": False,
        **more,
    }


def _layer(parts: Parts, prefix: str = "h.0.fc.") -> Parts:
    return {prefix + name: part for name, part in parts.items()}


def _stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """Words (n, m) of codes (k, m): one stream down each column, low bits first."""
    single = (codes.T[..., None] >> np.arange(bits)) & 1
    flat = np.packbits(single.reshape(codes.shape[1], -1).astype(np.uint8), axis=-1, bitorder="little")
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 4)))
    return np.ascontiguousarray(flat.view("<i4").T)


def _packed(bits: int, inputs: int, outputs: int, group: int, *, shift: int = 1) -> tuple[Parts, np.ndarray]:
    """Parts of a layer of random codes, and its weight; the zeros are stored less ``shift``."""
    rng = np.random.default_rng(bits)
    groups = -(-inputs // group)
    codes = rng.integers(0, 2**bits, (inputs, outputs))
    zeros = rng.integers(shift, 2**bits, (groups, outputs))
    scales = rng.uniform(0.001, 0.02, (groups, outputs)).astype(np.float16)
    order = np.arange(inputs) // group
    parts = {
        "qweight": _stream(codes, bits),
        "qzeros": np.ascontiguousarray(_stream((zeros - shift).T, bits).T),
        "scales": scales,
    }
    return parts, ((codes - zeros[order]) * scales[order].astype(np.float64)).T


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("bits", "group"), CASES)
def test_a_weight_is_what_gptqmodel_reads(view_of: View, ulps: Any, bits: int, group: int, version: int) -> None:
    parts = _case(bits, group)
    weight, _ = parts.pop(f"weight{version}"), parts.pop(f"weight{3 - version}")
    view = view_of(_layer(parts), _settings(bits, -1 if group == 128 else group, version, **GPTQMODEL))
    assert list(view.tensors) == ["h.0.fc.weight"]
    made = view.tensors["h.0.fc.weight"]
    assert (made.dtype, made.shape, made.precision) == ("float32", (32, 128), f"int{bits} gptq")
    assert made.parts == ("h.0.fc.qweight", "h.0.fc.qzeros", "h.0.fc.scales", "h.0.fc.g_idx")
    values = made.read()
    assert values.dtype == np.float32
    assert ulps(values, weight, "float16") <= 1
    assert np.array_equal(made.rows(5, 23), values[5:23])
    other = view_of(_layer(parts), _settings(bits, group, 3 - version, **GPTQMODEL)).tensors["h.0.fc.weight"].read()
    assert ulps(other, weight, "float16") > 100  # the version makes a difference


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("settings", [{}, {"bits": 0}])
def test_a_weight_needs_no_group_indices(view_of: View, bits: int, settings: dict[str, int]) -> None:
    """Without indices groups follow each other. Bits and groups are those of the shapes where nothing gives them."""
    parts, weight = _packed(bits, 96, 32, 32)
    given = _settings(bits, 32, 1) if settings else {}
    view = view_of(_layer(parts), given)
    assert np.array_equal(view.tensors["h.0.fc.weight"].read(), weight.astype(np.float32))
    assert any("version 1" in note and "assumed" in note for note in view.notes) == (not settings)


def test_ragged_sizes_are_cut(view_of: View) -> None:
    """The last words may hold fewer codes: the number of inputs is that of the group indices."""
    parts, weight = _packed(4, 100, 20, 32)
    parts["g_idx"] = (np.arange(100) // 32).astype(np.int32)
    view = view_of(_layer(parts), _settings(4, 32, 1))
    assert np.array_equal(view.tensors["h.0.fc.weight"].read(), weight.astype(np.float32))


def test_the_largest_zero_is_read_as_the_writer_reads_it(view_of: View) -> None:
    """A stored zero of 15 and the one added to it: AutoGPTQ drops the carry, GPTQModel adds it to the next zero."""
    parts, _ = _packed(4, 32, 8, 32)
    parts |= {"qzeros": np.array([[0x7777777F]], np.int32), "scales": np.ones((1, 8), np.float16)}
    parts["qweight"] = np.zeros((4, 8), np.int32)
    wrapped = view_of(_layer(parts), _settings(4, 32, 1))
    assert wrapped.tensors["h.0.fc.weight"].read()[:, 0].tolist() == [0, -8, -8, -8, -8, -8, -8, -8]
    assert any("AutoGPTQ" in note for note in wrapped.notes)
    carried = view_of(_layer(parts), _settings(4, 32, 1, **GPTQMODEL))
    assert carried.tensors["h.0.fc.weight"].read()[:, 0].tolist() == [0, -9, -8, -8, -8, -8, -8, -8]
    assert any("gptqmodel" in note for note in carried.notes)
    assert not view_of(_layer(parts), _settings(4, 32, 1) | {"sym": True}).notes  # whose zeros are all 8


def test_every_writer_of_the_layout_is_known(view_of: View) -> None:
    parts, weight = _packed(4, 64, 32, 32)
    rounds = {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "bits": 4, "group_size": 32}
    optimum = {"quant_method": "gptq", "bits": 4, "group_size": 32, "meta": {"quantizer": ["optimum:1.24"]}}
    for settings in (rounds, optimum, {"bits": 4, "group_size": 32, "desc_act": False}):
        read = view_of(_layer(parts), settings).tensors["h.0.fc.weight"].read()
        assert np.array_equal(read, weight.astype(np.float32))


def test_single_layers_may_have_their_own_bits(view_of: View) -> None:
    four, eight = _packed(4, 64, 32, 32), _packed(8, 64, 32, 64)
    dynamic = {r"+:.*\.1\..*": {"bits": 8, "group_size": 64}}
    view = view_of(_layer(four[0], "h.0.fc.") | _layer(eight[0], "h.1.fc."), _settings(4, 32, 1, dynamic=dynamic))
    assert {n: t.precision for n, t in view.tensors.items()} == {
        "h.0.fc.weight": "int4 gptq",
        "h.1.fc.weight": "int8 gptq",
    }
    assert np.array_equal(view.tensors["h.1.fc.weight"].read(), eight[1].astype(np.float32))


def _set(**changes: Any) -> Callable[[Parts], Parts]:
    return lambda parts: {**parts, **changes}


BAD: list[tuple[str, Callable[[Parts], Parts], dict[str, Any], str]] = [
    ("scales of another width", _set(scales=np.ones((2, 31), np.float16)), {}, "scales is float16 of shape"),
    ("one group too many", _set(scales=np.ones((3, 32), np.float16)), {}, "qzeros is int32 of shape"),
    ("scales that are integers", _set(scales=np.ones((2, 32), np.int32)), {}, "scales is int32"),
    ("zeros of another width", _set(qzeros=np.ones((2, 3), np.int32)), {}, "have no shapes of 4 bits"),
    ("no zeros", lambda parts: {k: v for k, v in parts.items() if k != "qzeros"}, {}, "has no h.0.fc.qzeros"),
    ("other bits than given", _set(), {"bits": 8}, "have no shapes of 8 bits"),
    ("unknown bits", _set(), {"bits": 9}, "codes of 9 bits"),
    ("bits that are a word", _set(), {"bits": "four"}, "bits is no whole number: 'four'"),
    ("huge bits", _set(), {"bits": 10**30}, "bits is no whole number"),
    ("another group size", _set(), {"group_size": 16}, "has 2 groups"),
    ("a group size of zero", _set(), {"group_size": 0}, "has 2 groups"),
    ("too few indices", _set(g_idx=np.zeros(32, np.int32)), {}, "have no shapes of 4 bits"),
    ("indices of two dimensions", _set(g_idx=np.zeros((64, 1), np.int32)), {}, "g_idx is int32 of shape"),
    ("indices that are floats", _set(g_idx=np.zeros(64, np.float32)), {}, "g_idx is float32"),
]


@pytest.mark.parametrize(("change", "settings", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_contradictions_are_refused(
    view_of: View, change: Callable[[Parts], Parts], settings: dict[str, Any], message: str
) -> None:
    parts = change(_packed(4, 64, 32, 32)[0])
    with pytest.raises(WeightsError, match=message) as caught:
        view_of(_layer(parts), _settings(4, 32, 1) | settings)
    assert "\n" not in str(caught.value)
    assert caught.value.message.startswith("model: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(g_idx=(np.arange(64) // 16).astype(np.int32)), "g_idx has group 3 of 2"),
        (_set(g_idx=(np.arange(64) // 32 - 1).astype(np.int32)), "g_idx has group -1 of 2"),
        (_set(g_idx=np.zeros(64, np.int32)), "g_idx is all zero, for 2 groups"),
        (_set(scales=np.zeros((2, 32), np.float16)), r"scales holds scales of zero.*coded values zero"),
    ],
)
def test_values_that_contradict_are_refused_when_read(
    view_of: View, change: Callable[[Parts], Parts], message: str
) -> None:
    view = view_of(_layer(change(_packed(4, 64, 32, 32)[0])), _settings(4, 32, 1))
    with pytest.raises(WeightsError, match=message):
        view.tensors["h.0.fc.weight"].read()


def test_a_scale_of_zero_over_zeros_is_right(view_of: View) -> None:
    parts, weight = _packed(4, 64, 32, 32)
    zeros = np.full((2, 32), 8)
    parts["qzeros"] = np.ascontiguousarray(_stream((zeros - 1).T, 4).T)
    codes = np.random.default_rng(1).integers(0, 16, (64, 32))
    codes[:32] = 8
    parts["qweight"] = _stream(codes, 4)
    parts["scales"] = np.stack([np.zeros(32), np.ones(32)]).astype(np.float16)
    read = view_of(_layer(parts), _settings(4, 32, 1)).tensors["h.0.fc.weight"].read()
    assert not read[:, :32].any()
    assert np.array_equal(read[:, 32:], (codes[32:] - 8).T)
    assert read.shape == weight.shape


def test_indices_that_were_never_written_are_ignored_without_reordering(view_of: View) -> None:
    parts, weight = _packed(4, 64, 32, 32)
    parts["g_idx"] = np.zeros(64, np.int32)
    view = view_of(_layer(parts), _settings(4, 32, 1, desc_act=False))
    assert np.array_equal(view.tensors["h.0.fc.weight"].read(), weight.astype(np.float32))


def test_widths_that_shapes_leave_open_need_a_configuration(view_of: View) -> None:
    """Four outputs at 4 bits and at 8 bits both need one word."""
    parts, weight = _packed(4, 64, 4, 32)
    with pytest.raises(WeightsError, match=r"leave open.*beside the weights"):
        view_of(_layer(parts))
    read = view_of(_layer(parts), _settings(4, 32, 1)).tensors["h.0.fc.weight"].read()
    assert np.array_equal(read, weight.astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"checkpoint_format": "gptq_p", "bits": 3}, "format gptq_p"),
        ({"checkpoint_format": "marlin"}, "format marlin"),
        ({"is_marlin_format": True}, "format marlin"),
        ({"checkpoint_format": "bitblas"}, "format bitblas"),
        ({"quant_method": "auto-round"}, "format auto_round"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:gptq"}, "format auto_round:gptq"),
        ({"bits": 6}, "planar GPTQ weights of 6 bits"),
    ],
)
def test_other_layouts_are_refused_by_name(view_of: View, stored: Any, settings: dict[str, Any], kind: str) -> None:
    parts, _ = _packed(settings.get("bits", 4), 64, 32, 32)
    given = _settings(4, 32, 1) | settings
    view = view_of(_layer(parts), given)
    assert not view.tensors
    assert kind in view.unreadable["h.0.fc.qweight"].kind
    assert view.unreadable["h.0.fc.qweight"].elements == 64 * 32
    with pytest.raises(WeightsError, match=f"{kind}.*gptqmodel"):
        plan_weights(stored(_layer(parts) | {"head.weight": np.ones((8, 8), np.float32)}, given))
