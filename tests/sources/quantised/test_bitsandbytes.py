"""Weights of bitsandbytes against its own dequantisation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources.matrix_rule import plan_weights
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.sources.effective_weights import TensorView

    View = Callable[..., TensorView]
    Parts = dict[str, torch.Tensor]

NAME = "h.0.fc.weight"


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    try:
        import bitsandbytes.functional
    except ImportError:
        missing("bitsandbytes is not installed")
    with torch.compiler.set_stance("force_eager"):  # it compiles for each shape, which takes longer than all else
        yield bitsandbytes.functional


def _four_bits(
    library: Any, kind: str, *, nested: bool, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (48, 100)
) -> tuple[Parts, np.ndarray]:
    """Parts of a weight, and what the library makes of them."""
    weight = (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.02).to(dtype)
    packed, state = library.quantize_4bit(weight, quant_type=kind, compress_statistics=nested, blocksize=64)
    made = library.dequantize_4bit(packed, state)
    return {
        NAME: packed,
        **{f"{NAME}.{n}": part for n, part in state.as_dict(packed=True).items()},
    }, made.float().numpy()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_four_bits_are_what_the_library_reads(
    library: Any, view_of: View, ulps: Any, kind: str, nested: bool, dtype: torch.dtype
) -> None:
    parts, weight = _four_bits(library, kind, nested=nested, dtype=dtype)
    assert (f"{NAME}.nested_absmax" in parts) == nested
    view = view_of(parts)
    assert list(view.tensors) == [NAME]
    made = view.tensors[NAME]
    assert (made.dtype, made.shape, made.precision) == ("float32", (48, 100), f"{kind} bitsandbytes")
    assert set(made.parts) == set(parts)
    values = made.read()
    assert ulps(values, weight, str(dtype).removeprefix("torch.")) <= 1
    assert np.array_equal(made.rows(7, 31), values[7:31])
    swapped = parts | {NAME: (parts[NAME] >> 4) | (parts[NAME] << 4)}
    assert ulps(view_of(swapped).tensors[NAME].read(), weight, str(dtype).removeprefix("torch.")) > 100


def test_odd_rows_start_within_a_byte(library: Any, view_of: View) -> None:
    parts, weight = _four_bits(library, "nf4", nested=True, shape=(31, 33))
    made = view_of(parts).tensors[NAME]
    assert np.array_equal(made.read(), weight)
    assert all(np.array_equal(made.rows(at, at + 2), weight[at : at + 2]) for at in range(29))


def test_experts_in_one_tensor_keep_their_shape(library: Any, view_of: View) -> None:
    parts, weight = _four_bits(library, "nf4", nested=False, shape=(3, 16, 24))
    assert np.array_equal(view_of(parts).tensors[NAME].rows(1, 2), weight[1:2])


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])
def test_codes_may_be_stored_as_another_type(library: Any, view_of: View, storage: torch.dtype) -> None:
    parts, weight = _four_bits(library, "nf4", nested=False)
    assert np.array_equal(
        view_of(parts | {NAME: parts[NAME].reshape(-1).view(storage)[:, None]}).tensors[NAME].read(), weight
    )


def test_few_bytes_are_read_for_few_rows(library: Any, stored: Any) -> None:
    from registry.sources.effective_weights import effective

    parts, _ = _four_bits(library, "nf4", nested=True, shape=(512, 256))
    checkpoint = stored(parts)
    view = effective(checkpoint).view
    assert checkpoint.bytes_read < 1000  # the state alone
    checkpoint.bytes_read = 0
    view.tensors[NAME].rows(100, 104)
    assert checkpoint.bytes_read < 4 * 128 + 2000


def test_eight_bits_are_what_the_library_reads(library: Any, view_of: View, ulps: Any) -> None:
    weight = torch.randn((48, 100), generator=torch.Generator().manual_seed(3)) * 0.02
    codes, scales, _ = library.int8_vectorwise_quant(weight.half())
    expected = library.int8_vectorwise_dequant(codes, scales).numpy()
    parts = {"h.0.fc.weight": codes, "h.0.fc.SCB": scales, "h.0.fc.weight_format": torch.tensor(0, dtype=torch.uint8)}
    for given in (parts, {name: part for name, part in parts.items() if "format" not in name}):
        view = view_of(given)
        assert list(view.tensors) == [NAME]
        made = view.tensors[NAME]
        assert (made.dtype, made.shape, made.precision) == ("float32", (48, 100), "int8 bitsandbytes")
        assert ulps(made.read(), expected) <= 1
        assert np.array_equal(made.rows(7, 31), made.read()[7:31])
    assert ulps(made.read() * np.float32(127 / 128), expected) > 100


@pytest.mark.parametrize(("number", "layout"), [(1, "col32"), (2, "col_turing"), (3, "col_ampere"), (7, "7")])
def test_layouts_of_one_gpu_are_refused_by_name(view_of: View, stored: Any, number: int, layout: str) -> None:
    parts = {
        "h.0.fc.weight": torch.ones((8, 8), dtype=torch.int8),
        "h.0.fc.SCB": torch.ones(8),
        "h.0.fc.weight_format": torch.tensor(number, dtype=torch.uint8),
    }
    view = view_of(parts)
    assert not view.tensors
    assert view.unreadable[NAME].elements == 64
    with pytest.raises(WeightsError, match=f"int8 bitsandbytes weights in the layout {layout}"):
        plan_weights(stored(parts | {"head.weight": torch.ones((8, 8))}))


def _json(text: str | bytes) -> torch.Tensor:
    data = text.encode() if isinstance(text, str) else text
    return torch.tensor(list(data), dtype=torch.uint8)


def _state(**changes: Any) -> Callable[[Parts], Parts]:
    """The state with other fields; None takes one away."""

    def change(parts: Parts) -> Parts:
        name = next(name for name in parts if "quant_state" in name)
        state = json.loads(bytes(parts[name].tolist())) | changes
        return parts | {name: _json(json.dumps({key: value for key, value in state.items() if value is not None}))}

    return change


def _set(suffix: str, part: torch.Tensor) -> Callable[[Parts], Parts]:
    return lambda parts: parts | {f"{NAME}{suffix}": part}


def _without(suffix: str) -> Callable[[Parts], Parts]:
    return lambda parts: {name: part for name, part in parts.items() if name != f"{NAME}{suffix}"}


QUANT_STATE = ".quant_state.bitsandbytes__nf4"
BAD: list[tuple[str, Callable[[Parts], Parts], str]] = [
    ("no weight", _without(""), f"has no {NAME} beside"),
    ("no factors", _without(".absmax"), "absmax beside it"),
    ("no map", _without(".quant_map"), "quant_map beside it"),
    ("no nested factors", _without(".nested_absmax"), "nested_absmax beside it"),
    ("no nested map", _without(".nested_quant_map"), "nested_quant_map beside it"),
    ("no nested offset", _state(nested_offset=None), "gives the nested_offset None"),
    ("an offset that is a word", _state(nested_offset="1"), "gives the nested_offset 1"),
    ("an offset beyond float32", _state(nested_offset=1e39), "gives the nested_offset 1e"),
    ("codes too short", _set("", torch.zeros((7, 1), dtype=torch.uint8)), "not two codes a byte"),
    ("factors too short", _set(".absmax", torch.zeros(3, dtype=torch.uint8)), "not 75 elements"),
    ("factors of another type", _set(".absmax", torch.zeros(75)), "is float32"),
    ("a map of 15", _set(".quant_map", torch.zeros(15)), "not 16 elements"),
    ("a nested map of 16", _set(".nested_quant_map", torch.zeros(16)), "not 256 elements"),
    ("nested factors too long", _set(".nested_absmax", torch.zeros(2)), "not 1 elements"),
    ("a state of another type", _set(QUANT_STATE, torch.zeros(9)), "not a short JSON text"),
    ("a state that is huge", _set(QUANT_STATE, torch.zeros(1 << 20, dtype=torch.uint8)), "of 1,048,576 elements"),
    ("an empty state", _set(QUANT_STATE, torch.zeros(0, dtype=torch.uint8)), "of 0 elements"),
    ("a cut state", lambda parts: parts | {NAME + QUANT_STATE: parts[NAME + QUANT_STATE][:-9]}, "holds no valid JSON"),
    ("a state that is no UTF-8", _set(QUANT_STATE, _json(b"\xff\xfe{}")), "holds no valid JSON"),
    ("a state that is deep", _set(QUANT_STATE, _json("[" * 60000)), "holds no valid JSON"),
    ("a state of long digits", _set(QUANT_STATE, _json("1" * 60000)), "holds no valid JSON"),
    ("a state that is a list", _set(QUANT_STATE, _json("[1]")), "holds no JSON object"),
    ("a state with infinity", _state(nested_offset=float("inf")), "holds no valid JSON"),
    ("another type", _state(quant_type="fp4"), "says quant_type 'fp4'"),
    ("no block size", _state(blocksize=None), "gives blocks of None"),
    ("a block size of zero", _state(blocksize=0), "gives blocks of 0"),
    ("a block size that is a list", _state(blocksize=[64]), "gives blocks of"),
    ("another block size", _state(blocksize=128), "not 38 elements"),
    ("no shape", _state(shape=None), "gives no shape"),
    ("a shape of terabytes", _state(shape=[1 << 39, 1 << 39]), "not two codes a byte"),
    ("a shape of a gigabyte", _state(shape=[1 << 31]), "not two codes a byte"),
    ("a shape beyond all", _state(shape=[10**30, 2]), "gives the shape"),
    ("a negative shape", _state(shape=[-48, -100]), "gives the shape"),
    ("a shape of nothing", _state(shape=[0, 100]), "gives the shape"),
    ("a shape of words", _state(shape=["48", 100]), "gives the shape"),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_parts_are_refused(library: Any, view_of: View, change: Callable[[Parts], Parts], message: str) -> None:
    parts, _ = _four_bits(library, "nf4", nested=True)
    with pytest.raises(WeightsError, match=message) as caught:
        view_of(change(parts))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.message.startswith("model: ")


def test_the_values_of_the_codes_are_those_of_the_format(library: Any, view_of: View) -> None:
    parts, _ = _four_bits(library, "nf4", nested=False)
    view = view_of(parts | {f"{NAME}.quant_map": parts[f"{NAME}.quant_map"].flip(0)})
    with pytest.raises(WeightsError, match="holds other values than nf4 has"):
        view.tensors[NAME].read()


def test_factors_of_zero_are_right_over_equal_codes_alone(library: Any, view_of: View) -> None:
    """A block of zeros may have any one code; on a GPU it is that of -1."""
    parts, weight = _four_bits(library, "nf4", nested=False, shape=(4, 64))
    packed = parts[NAME].clone()
    packed[32:64] = 0
    absmax = parts[f"{NAME}.absmax"].clone()
    absmax[1] = 0
    read = view_of(parts | {NAME: packed, f"{NAME}.absmax": absmax}).tensors[NAME].read()
    assert not read[1].any()
    assert np.array_equal(np.delete(read, 1, 0), np.delete(weight, 1, 0))
    view = view_of(parts | {f"{NAME}.absmax": absmax})
    with pytest.raises(WeightsError, match=r"absmax holds scales of zero"):
        view.tensors[NAME].read()


def test_bad_eight_bits_are_refused(view_of: View) -> None:
    codes, scales = torch.ones((8, 8), dtype=torch.int8), torch.ones(8)
    for weight, scb, layout, message in (
        (codes, torch.ones(7), None, "SCB is float32 of shape"),
        (codes, torch.ones(8, dtype=torch.int32), None, "SCB is int32"),
        (codes.float(), scales, None, "weight of float32, not int8"),
        (codes, scales, torch.zeros(2, dtype=torch.uint8), "not one number"),
        (codes, scales, torch.zeros(1), "not one number"),
    ):
        parts = {"a.weight": weight, "a.SCB": scb} | ({} if layout is None else {"a.weight_format": layout})
        with pytest.raises(WeightsError, match=message):
            view_of(parts)
    with pytest.raises(WeightsError, match="scales of zero"):
        view_of({"a.weight": codes, "a.SCB": scales * 0}).tensors["a.weight"].read()
