"""The tensors of the forward pass as steps see them, of sources that read parts and of those that do not."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import SourceError, WeightsError
from registry.sources import content_hash as hashing
from registry.sources import layer_matrix, plan_weights
from registry.sources.base import OpenedCheckpoint
from registry.sources.content_hash import content_hash, read_facts
from registry.sources.effective_weights import STEPS, EffectiveTensor, TensorView, Unreadable, effective
from registry.sources.nonfinite_values import marked, nonfinite, refusal
from registry.sources.unreadable_weights import check_complete
from registry.types import LayerMatrix, ModelFacts, ModelRef, SkippedTensor, TensorInfo
from tests.sources.conftest import ArrayCheckpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

ARRAYS: dict[str, np.ndarray] = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(4, 6),
    "half": np.arange(6, dtype=np.float16).reshape(3, 2),
    "codes": np.arange(-6, 6, dtype=np.int16).reshape(3, 2, 2),
    "one": np.array(7, np.int64),
    "number": np.array(2.5, np.float32),
    "none": np.empty((0, 5), np.int8),
    "empty": np.empty((5, 0), np.int32),
}


class InParts(OpenedCheckpoint):
    """A source with checksums that reads parts, and says which."""

    def __init__(self, arrays: Mapping[str, np.ndarray], facts: ModelFacts | None = None) -> None:
        infos = [TensorInfo(name, str(array.dtype), array.shape) for name, array in arrays.items()]
        super().__init__(ModelRef("parts", "parts", "parts"), infos, facts)
        self.arrays = arrays
        self.asked: list[tuple[str, int, int]] = []
        self.verified = 0

    def read(self, name: str) -> np.ndarray:
        self.asked.append((name, -1, -1))
        return self.arrays[name]

    def raw(self, name: str) -> memoryview:
        return memoryview(self.arrays[name].tobytes())

    def bytes_of(self, name: str) -> int:
        return self.arrays[name].nbytes

    def span(self, name: str, start: int, stop: int) -> memoryview:
        self.asked.append((name, start, stop))
        return self.raw(name)[start:stop]

    def verify(self) -> None:
        self.verified += 1


class Whole:
    """A source of a plug-in that has no more than it must have."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.ref = ModelRef("whole", "whole", "whole")
        self.tensors = [TensorInfo(name, str(array.dtype), array.shape) for name, array in arrays.items()]

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def raw(self, name: str) -> memoryview:
        return memoryview(self.arrays[name].tobytes())

    def close(self) -> None:
        pass


SOURCES = [InParts, Whole]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["a.weight", "half", "codes"])
def test_rows_are_those_of_the_array(name: str, source: type[InParts]) -> None:
    tensor = TensorView(source(ARRAYS)).tensors[name]
    array = ARRAYS[name]
    assert (tensor.dtype, tensor.shape, tensor.parts) == (str(array.dtype), array.shape, (name,))
    assert (tensor.precision, tensor.cut, tensor.setting) == ("", "", "")
    for start, stop in ((0, len(array)), (0, 1), (1, 3), (1, len(array)), (2, 2)):
        rows = tensor.rows(start, stop)
        assert rows.shape == (stop - start, *array.shape[1:])
        np.testing.assert_array_equal(rows, array[start:stop])
    np.testing.assert_array_equal(tensor.read(), array)


@pytest.mark.parametrize("source", SOURCES)
def test_tensors_without_axes_or_elements(source: type[InParts]) -> None:
    tensors = TensorView(source(ARRAYS)).tensors
    for name in ("one", "number", "none", "empty"):
        found = tensors[name].read()
        assert (found.shape, found.dtype) == (ARRAYS[name].shape, ARRAYS[name].dtype)
        np.testing.assert_array_equal(found, ARRAYS[name])
    assert tensors["empty"].rows(1, 3).shape == (2, 0)


def test_no_more_is_read_than_the_rows_that_are_asked_for() -> None:
    source = InParts(ARRAYS)
    view = TensorView(source)
    assert source.asked == []
    view.tensors["codes"].rows(1, 3)
    view.tensors["a.weight"].rows(1, 2)
    assert source.asked == [("codes", 8, 24), ("a.weight", 24, 48)]
    source.asked.clear()
    view.tensors["a.weight"].read()
    assert source.asked == [("a.weight", -1, -1)]  # by the source's own reading


def test_a_tensor_without_axes_is_read_as_one_row() -> None:
    asked: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.ones((), np.float32)

    EffectiveTensor("x", "float32", (), rows, ("x",)).read()
    EffectiveTensor("y", "float32", (3, 2), rows, ("y",)).read()
    assert asked == [(0, 1), (0, 3)]


def test_the_size_of_a_tensor_is_told_without_reading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = InParts(ARRAYS)
    monkeypatch.delattr(InParts, "raw")
    assert TensorView(source).bytes_of("codes") == 24


def test_rows_of_unequal_size_are_damage() -> None:
    checkpoint = ArrayCheckpoint({"codes": np.arange(7, dtype=np.uint8)})
    checkpoint.tensors = [TensorInfo("codes", "uint8", (2, 3))]
    with pytest.raises(WeightsError, match=r"tensor codes has rows of unequal size") as caught:
        TensorView(checkpoint).tensors["codes"].rows(0, 1)
    assert caught.value.remedy == "save it again"


@pytest.mark.parametrize("source", SOURCES)
def test_bytes_of_a_stored_tensor(source: type[InParts]) -> None:
    checkpoint = source(ARRAYS)
    for each in (TensorView(checkpoint), effective(checkpoint)):
        assert bytes(each.raw("codes")) == ARRAYS["codes"].tobytes()
        assert bytes(each.span("codes", 3, 7)) == ARRAYS["codes"].tobytes()[3:7]
        assert each.bytes_of("codes") == 24
    assert TensorView(checkpoint).where == checkpoint.ref.target


def test_what_a_source_knows_beside_its_tensors_is_kept() -> None:
    facts = ModelFacts(config={"model_type": "x"}, notes=("a file was ignored",))
    source = InParts({"a.weight": np.eye(4, dtype=np.float32) + 1}, facts)
    view = TensorView(source)
    assert (view.facts, view.notes) == (facts, ["a file was ignored"])
    assert effective(source).facts == facts
    assert plan_weights(source).notes == ("a file was ignored",)
    plain = TensorView(Whole(ARRAYS))
    assert (plain.facts, plain.notes, plain.stored_sizes) == (ModelFacts(), [], {})
    source.precisions = {"a.weight": "int8 x"}
    source.stored_sizes = {"a.weight": 16}
    plan = plan_weights(source)
    assert (plan.precision, plan.bytes) == ("int8 x", 16)


def test_the_precision_is_that_of_most_elements_first() -> None:
    arrays = {"a": np.ones((2, 12), "f4"), "b": np.ones((2, 12), "f4"), "c": np.ones((5, 8), "f2")}
    source = InParts(arrays)
    assert plan_weights(source).precision == "float32, float16"
    source.precisions = {"c": "int8 x"}
    assert plan_weights(source).precision == "float32, int8 x"
    alike = {"a": np.ones((5, 8), "f4"), "b": np.ones((5, 8), "f2"), "c": np.ones((5, 8), "f8")}
    assert plan_weights(InParts(alike)).precision == "float16, float32, float64"


def test_equal_bytes_that_are_read_otherwise_are_not_tied() -> None:
    array = np.arange(16, dtype=np.float32).reshape(4, 4)
    source = InParts({"a": array, "b": array, "c": array})
    assert [layer.name for layer in plan_weights(source).layers] == ["a"]
    source.precisions = {"b": "int8 x", "c": "int8 y"}
    assert [layer.name for layer in plan_weights(source).layers] == ["a", "b", "c"]
    source.precisions = {"b": "int8 x", "c": "int8 x"}
    assert [layer.name for layer in plan_weights(source).layers] == ["a", "b"]


def test_zeros_that_an_adapter_changes_are_not_left_out() -> None:
    base, rng = "base_model.model.fc", np.random.default_rng(5)
    down, up = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 6), (4, 2)))
    arrays = {
        f"{base}.base_layer.weight": np.zeros((4, 6), np.float32),
        f"{base}.lora_A.default.weight": down,
        f"{base}.lora_B.default.weight": up,
    }
    source = InParts(arrays, ModelFacts(adapter={"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    (layer,) = plan_weights(source).layers
    np.testing.assert_allclose(layer_matrix(source, layer), 2 * up @ down, rtol=1e-5)
    other = InParts(arrays, ModelFacts(adapter={"peft_type": "LORA", "r": 2, "lora_alpha": 8}))
    assert plan_weights(other).content_hash != plan_weights(source).content_hash


def test_what_a_step_leaves_out_is_listed_with_its_reason() -> None:
    source = InParts({"fc.weight": np.eye(4, dtype="f4") + 1, "fc.input_scale": np.ones(1, "f2")})
    assert [each.reason for each in plan_weights(source).skipped] == ["vector or scalar"]
    source.precisions = {"fc.weight": "int8 x"}
    skipped = SkippedTensor("fc.input_scale", "float16", (1,), "scale of activations")
    assert plan_weights(source).skipped == (skipped,)


def test_the_hash_covers_weights_that_cannot_be_read() -> None:
    def hashed(value: int) -> str:
        arrays = {"fc.weight": np.ones((40, 40), "f4"), "odd.weight": np.full((8, 8), value, "i1")}
        plan = plan_weights(InParts(arrays))
        assert plan.unread == 64
        return plan.content_hash

    assert hashed(1) != hashed(2)
    assert hashed(1) == hashed(1)


def test_a_step_puts_tensors_in_place_of_others() -> None:
    view = TensorView(InParts(ARRAYS))
    made = EffectiveTensor("new", "float32", (2, 2), lambda start, stop: np.eye(2)[start:stop], ("codes", "half"))
    view.put(made, ("codes", "half", "not there"))
    assert view.tensors["new"] is made
    assert set(view.tensors) == set(ARRAYS) - {"codes", "half"} | {"new"}
    view.put(made)
    view.skip("one", "a reason")
    assert view.skipped == {"one": (TensorInfo("one", "int64", ()), "a reason")}
    why = Unreadable("strange codes", 30, "convert it")
    view.refuse("a.weight", why)
    assert view.unreadable == {"a.weight": why}
    assert view.skipped["a.weight"] == (TensorInfo("a.weight", "float32", (4, 6)), "strange codes")
    assert not {"one", "a.weight"} & set(view.tensors)


def test_an_effective_checkpoint_reads_by_stored_and_effective_names() -> None:
    source = InParts(ARRAYS)
    checkpoint = effective(source)
    assert effective(checkpoint) is checkpoint
    assert checkpoint.view is checkpoint.view
    np.testing.assert_array_equal(checkpoint.read("a.weight"), ARRAYS["a.weight"])
    with pytest.raises(WeightsError, match="tensor codes is int16, not floating point") as caught:
        checkpoint.read("codes")
    assert caught.value.remedy == "only floating weights have spectra"
    np.testing.assert_array_equal(checkpoint.view.tensors.pop("half").read(), checkpoint.read("half"))
    assert (checkpoint.tensors, checkpoint.ref, checkpoint.stored) == (source.tensors, source.ref, source)


def test_an_effective_checkpoint_that_is_closed_reads_nothing_and_closes_the_file() -> None:
    source = InParts(ARRAYS)
    with effective(source) as checkpoint:
        checkpoint.verify()
        assert source.verified == 1
    calls = (
        lambda: checkpoint.read("half"),
        lambda: checkpoint.raw("half"),
        lambda: checkpoint.span("half", 0, 2),
        checkpoint.verify,
        lambda: source._check_open(),
    )
    for call in calls:
        with pytest.raises(SourceError, match="parts has been closed"):
            call()
    assert source.verified == 1


def test_a_step_is_taken_where_a_name_a_dtype_or_a_fact_shows_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for step in STEPS:
        monkeypatch.setattr(step.run.replace(":", "."), lambda _, run=step.run: taken.append(run.partition(":")[2]))

    def steps(name: str, dtype: str = "float32", facts: ModelFacts | None = None) -> list[str]:
        taken.clear()
        checkpoint = InParts({name: np.ones((4, 4), dtype)}, facts)
        assert set(effective(checkpoint).view.tensors) == {name}
        return list(taken)

    assert steps("fc.12.weight") == []
    assert steps("LM_Head.weight") == steps("a/lm_head:weight") == ["restore_tied_names"]
    assert steps("fc.kernel") == ["turn_arrays"]
    assert steps("fc.weight", "uint32") == ["dequantise_mlx", "refuse_other_quantisers"]
    assert steps("fc.weight", facts=ModelFacts(aliases={"b": "a"})) == ["restore_tied_names"]
    assert steps("fc.weight", facts=ModelFacts(adapter={"r": 4})) == ["fold_adapters"]
    assert steps("fc.qweight") == ["dequantise_gptq", "dequantise_awq"]  # in the order of the table
    assert steps("x" * 500 + ".qweight") == ["dequantise_gptq", "dequantise_awq"]


# Facts of the bytes, and the hash


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_facts_of_a_tensor_do_not_depend_on_how_it_is_read(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {
        "zeros": np.array([0.0, -0.0] * 500, np.float32),
        "fives": np.full((10, 100), 5.0, np.float16),
        "last": np.append(np.zeros(999), 1.0).astype(np.float64),
        "nan": np.append(np.full(997, np.inf), [np.nan, -np.inf, 1.0]).astype(np.float16),
        "codes": np.zeros(1000, np.int32),
    }
    expected = read_facts(InParts(arrays))
    for name, array in arrays.items():
        assert expected[name].digest == hashlib.sha256(array.tobytes()).digest()
        assert expected[name].bytes == array.nbytes
    assert [(each.zero, each.constant, each.nonfinite) for each in expected.values()] == [
        (False, False, 0),  # in the order of their names
        (False, True, 0),
        (False, False, 0),
        (False, False, 999),
        (True, False, 0),
    ]
    assert list(expected) == sorted(arrays)
    monkeypatch.setattr(hashing, "_AT_ONCE", 8 * size)
    monkeypatch.setattr(hashing, "_CHUNK", 8 * size)
    source = InParts(arrays)
    assert read_facts(source) == read_facts(Whole(arrays)) == expected
    assert source.verified == 1
    spans = [(start, stop) for name, start, stop in source.asked if name == "last"]
    assert spans == ([(i, i + 8 * size) for i in range(0, 8000, 8 * size)] if size < 1000 else [])


def test_an_empty_tensor_is_neither_zero_nor_constant() -> None:
    facts = read_facts(ArrayCheckpoint({"a": np.empty((0, 4), np.float32)}))["a"]
    assert (facts.zero, facts.constant, facts.bytes, facts.nonfinite) == (False, False, 0, 0)


def test_a_dtype_that_nothing_is_known_of_is_hashed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_AT_ONCE", 1)
    source = InParts({"a": np.arange(64, dtype=np.uint8)})
    source._tensors = (TensorInfo("a", "strange3", (8, 8)),)
    facts = read_facts(source)["a"]
    assert facts.digest == hashlib.sha256(bytes(range(64))).digest()
    assert (facts.zero, facts.constant, facts.bytes, facts.nonfinite) == (False, False, 64, 0)
    assert source.asked == []


def test_bytes_that_are_not_the_tensors_are_not_searched_for_nan() -> None:
    checkpoint = ArrayCheckpoint({"a": np.full(4, np.nan, np.float32)})
    assert read_facts(checkpoint)["a"].nonfinite == 4
    checkpoint.tensors = [TensorInfo("a", "float32", (5,))]
    assert read_facts(checkpoint)["a"].nonfinite == 0


def test_the_hash_is_the_documented_one() -> None:
    """The sha256 over length and bytes of each field; settings with the digests of their tensors."""
    arrays = {"b": np.eye(3, dtype=np.float32), "a": np.ones((2, 2), np.float16), "c": np.eye(3, dtype=np.float32)}
    checkpoint = ArrayCheckpoint(arrays)
    facts = read_facts(checkpoint)

    def digest(name: str) -> bytes:
        return hashlib.sha256(arrays[name].tobytes()).digest()

    def whole(*rows: tuple[bytes, bytes, bytes]) -> str:
        data = b"".join(len(field).to_bytes(8, "little") + field for row in rows for field in row)
        return hashlib.sha256(data).hexdigest()

    one, two = (b"float16", b"(2, 2)", digest("a")), (b"float32", b"(3, 3)", digest("b"))
    assert content_hash(checkpoint.tensors, facts) == whole(one, two)
    settings = [("lora 2.0", ("a", "b"))]
    setting = (b"setting", b"lora 2.0", digest("a") + digest("b"))
    assert content_hash(checkpoint.tensors, facts, settings) == whole(one, two, setting)


# Values that are not finite


def test_tensors_that_a_step_leaves_out_are_searched_unless_they_may_be_infinite() -> None:
    source = InParts({name: np.full(4, np.nan, "f4") for name in ("a.mask", "b.scale", "c.weight")})
    view = TensorView(source)
    view.skip("a.mask", "mask")
    view.skip("b.scale", "scale of activations")
    reasons = dict.fromkeys(view.tensors)
    assert nonfinite(view, reasons, read_facts(source)) == {"b.scale": 4, "c.weight": 4}


def test_the_tensor_with_most_values_that_are_not_finite_is_named() -> None:
    sizes = {"a": 10, "b": 20, "c": 30}
    first = "model: tensor b holds 3 of 20 values that are NaN or infinite"
    remedy = (
        "take another checkpoint: this one diverged or is damaged; archreg ingest FILE --allow-nonfinite stores it "
        "without these layers"
    )
    for bad, more in (
        ({"b": 3}, ""),
        ({"a": 1, "b": 3}, ", and 1 other tensor has some"),
        ({"a": 1, "b": 3, "c": 2}, ", and 2 other tensors have some"),
    ):
        error = refusal("model", bad, sizes)
        assert (str(error), error.remedy) == (f"{first}{more} ({remedy})", remedy)


def test_a_model_with_such_values_is_marked_by_the_tensors_with_most() -> None:
    assert marked({"a": 1}) == "1 value of a is not finite"
    assert marked({"a": 1, "b": 2}) == "3 values of b, a are not finite"
    assert marked({"c": 1, "b": 1, "a": 1}) == "3 values of a, b, c are not finite"
    assert marked({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}) == "15 values of e, d, c and 2 more are not finite"


# Weights that cannot be read


def layer_of(name: str, kind: str, *shape: int) -> LayerMatrix:
    return LayerMatrix(0, name, name, shape, kind)


def test_a_model_is_refused_by_its_largest_weight_that_cannot_be_read() -> None:
    names = ["a", "b", "c", "d", "e"]
    view = TensorView(Whole({name: np.zeros((2, 2), np.uint8) for name in [*names, "f.weight"]}))
    kinds = ("odd codes", "strange codes", "odd codes", "other codes", "rare codes")
    for name, kind, elements in zip(names, kinds, (1000, 1500, 1200, 400, 10), strict=True):
        view.refuse(name, Unreadable(kind, elements, f"convert {name}"))
    with pytest.raises(WeightsError) as caught:
        check_complete(view, [layer_of("x", "linear", 50, 50)], ["f.weight"])
    assert caught.value.remedy == "convert b"
    assert str(caught.value) == (
        "whole: 62.2% of its weights cannot be read: 2,200 odd codes, 1,500 strange codes, 400 other codes "
        "in 6 tensors, such as b (convert b)"
    )


def test_a_twentieth_of_the_weights_but_embeddings_may_be_missing() -> None:
    view = TensorView(Whole({"a": np.zeros((2, 2), np.uint8)}))
    view.refuse("a", Unreadable("odd codes", 5, "convert it"))
    layers = [layer_of("x", "linear", 5, 19), layer_of("y", "embedding", 1000, 10)]
    assert check_complete(view, layers, []) == {"a": 5}
    assert check_complete(TensorView(Whole({})), layers, []) == {}
    layers[0] = layer_of("x", "linear", 2, 47)
    with pytest.raises(WeightsError, match=r"^whole: 5\.1% of its weights cannot be read: 5 odd codes in 1 tensor, "):
        check_complete(view, layers, [])


def test_a_weight_of_one_block_that_other_blocks_have_is_named_with_its_remedy() -> None:
    view = TensorView(Whole({name: np.zeros((2, 2), np.uint8) for name in ("h.9.fc", "z", "fc", "h.2.fc")}))
    for number, name in enumerate(sorted(view.tensors)):
        view.refuse(name, Unreadable("odd codes", 1 + number, f"convert {name}"))
    layers = [layer_of("h.0.fc", "linear", 100, 100), layer_of("fc", "linear", 100, 100)]
    with pytest.raises(WeightsError) as caught:
        check_complete(view, layers, [])
    assert caught.value.remedy == "convert h.2.fc"
    assert str(caught.value) == (
        "whole: h.2.fc, a layer of a block, cannot be read: 10 odd codes in 4 tensors, such as h.2.fc (convert h.2.fc)"
    )
    alone = TensorView(Whole({"fc": np.zeros((2, 2), np.uint8)}))
    alone.refuse("fc", Unreadable("odd codes", 1, "convert it"))
    assert check_complete(alone, layers, []) == {"fc": 1}  # of no block


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "kind"),
    [
        ("a.weight", "complex64", (4, 4), "complex weights (complex64)"),
        ("a.weight", "complex128", (4, 4), "complex weights (complex128)"),
        ("a.weight", "int8", (4, 4), "integer or packed weights (int8)"),
        ("a.weight", "float8_e4m3fn", (4, 4), "integer or packed weights (float8_e4m3fn)"),
        ("a/Weight", "int64", (4, 4), "integer or packed weights (int64)"),
        ("a:qweight", "uint64", (4, 4), "integer or packed weights (uint64)"),
        ("a.table", "uint64", (4, 4), ""),
        ("a.table", "int64", (4, 4), ""),
        ("a.table", "int32", (4, 4), "integer or packed weights (int32)"),
        ("a.Token_IDs", "int32", (4, 4), ""),
        ("a/idx", "int32", (4, 4), ""),
        ("idx.a", "int32", (4, 4), "integer or packed weights (int32)"),
        ("a.weight", "float16", (4, 4), ""),
        ("a.weight", "bfloat16", (4, 4), ""),
        ("a.weight", "float32", (4, 4), ""),
        ("a.weight", "float64", (4, 4), ""),
        ("a.weight", "bool", (4, 4), ""),
        ("a.weight", "int8", (16,), ""),
        ("a.weight", "int8", (0, 4), ""),
    ],
)
def test_which_tensors_are_weights_that_cannot_be_read(
    name: str, dtype: str, shape: tuple[int, ...], kind: str
) -> None:
    source = Whole({})
    source.tensors = [TensorInfo(name, dtype, shape)]
    view = TensorView(source)
    if not kind:
        assert check_complete(view, [], [name]) == {}
        return
    size = shape[0] * shape[1]
    with pytest.raises(WeightsError, match=re.escape(f"100.0% of its weights cannot be read: {size} {kind}")) as caught:
        check_complete(view, [], [name])
    expected = "save their real and imaginary parts as tensors"
    if "complex" not in dtype:
        expected = "convert it to float16 or float32 with the library that wrote it, then save it again"
    assert caught.value.remedy == expected


def test_what_is_left_out_of_a_model_still_tells_it_from_others() -> None:
    """A weight that a step made of stored parts, and another could not read, is among the content by its parts."""

    def hash_of(codes: np.ndarray) -> str:
        large = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
        opened = effective(ArrayCheckpoint({"fc.weight": large, "codes": codes}))
        made = EffectiveTensor(
            "made.weight", "float32", (3, 4), lambda start, stop: np.ones((3, 4))[start:stop], ("codes",)
        )
        opened.view.put(made, ("codes",))
        opened.view.refuse("made.weight", Unreadable("odd codes", 12, "convert it"))
        plan = plan_weights(opened)
        assert (len(plan.layers), plan.unread) == (1, 12)
        return plan.content_hash

    codes = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert hash_of(codes) == hash_of(codes.copy())
    assert hash_of(codes) != hash_of(codes + 1)
