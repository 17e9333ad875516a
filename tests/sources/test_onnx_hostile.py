"""ONNX files that are damaged or made to harm: one error with a remedy, no memory taken, nothing outside read."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from registry.errors import RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from registry.types import ModelRef
from tests.sources.onnx_models import model_of, saved, values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

node = helper.make_node


def read(path: Path) -> None:
    """Read a file as an ingest does, by the reader of ONNX whatever its first bytes are."""
    with open_ref(ModelRef("onnx", str(path), "m")) as checkpoint:
        for layer in plan_weights(checkpoint).layers:
            layer_matrix(checkpoint, layer)


def refused(path: Path, error: type[SourceError], words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=words) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def tensor(**fields: Any) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 5])
    for name, value in fields.items():
        if isinstance(value, list | tuple):
            made.ClearField(name)
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


def with_tensor(made: TensorProto, *before: onnx.NodeProto, name: str = "w", **others: np.ndarray) -> onnx.ModelProto:
    return model_of([*before, node("MatMul", ["x", name], ["y"])], {"w": made, **others})


HUGE = [10**6, 10**6]
RAW = values(4, 5).tobytes()
CASES: dict[str, tuple[Callable[[], onnx.ModelProto], type[SourceError], str]] = {
    "fewer bytes than its shape": (lambda: with_tensor(tensor(raw_data=RAW[:-4])), WeightsError, "takes 80 bytes"),
    "10^12 values": (lambda: with_tensor(tensor(dims=HUGE, raw_data=RAW)), WeightsError, "takes 4000000000000 bytes"),
    "10^12 values of integers": (
        lambda: with_tensor(tensor(dims=HUGE, data_type=TensorProto.INT8, int32_data=[1, 2])),
        WeightsError, "has 2 bytes of numbers",
    ),
    "2^62 values": (lambda: with_tensor(tensor(dims=[2**62, 2**62], raw_data=RAW)), WeightsError, "takes"),
    "negative dimensions": (lambda: with_tensor(tensor(dims=[-4, 5], raw_data=RAW)), WeightsError, "dimensions"),
    "an unknown type": (lambda: with_tensor(tensor(data_type=99, raw_data=RAW)), WeightsError, "element type 99"),
    "100 dimensions": (lambda: with_tensor(tensor(dims=[1] * 100, raw_data=RAW)), UnsafeError, "64 dimensions"),
    "text": (lambda: with_tensor(tensor(data_type=8, string_data=[b"x"] * 20)), WeightsError, "no weights"),
    "too few numbers": (lambda: with_tensor(tensor(float_data=[1.0] * 19)), WeightsError, "76 bytes of numbers"),
    "a wrong permutation": (
        lambda: with_tensor(tensor(raw_data=RAW), node("Transpose", ["w"], ["t"], perm=[0, 7]), name="t"),
        WeightsError, "no such axes",
    ),
    "a wrong shape": (
        lambda: with_tensor(tensor(raw_data=RAW), node("Reshape", ["w", "s"], ["t"]), name="t",
                            s=np.array([10**9, 10**9], np.int64)),
        WeightsError, "cannot be given the shape",
    ),
    "a wrong axis": (
        lambda: with_tensor(tensor(raw_data=RAW), node("Unsqueeze", ["w", "s"], ["t"]), name="t",
                            s=np.array([10**9], np.int64)),
        WeightsError, "axes that it has not",
    ),
    "scales that do not fit": (
        lambda: with_tensor(tensor(raw_data=RAW), node("DequantizeLinear", ["w", "s"], ["t"]), name="t",
                            s=values(7)),
        WeightsError, "scales of shape",
    ),
    "sums that would be larger": (
        lambda: model_of([node("Add", ["a", "b"], ["t"]), node("MatMul", ["x", "t"], ["y"])],
                         {"a": values(2000, 1), "b": values(1, 2000)}),
        WeightsError, "has no matrix",
    ),
    "no weights": (lambda: model_of([node("Relu", ["x"], ["y"])], {}), WeightsError, "holds no weights"),
    "sizes of blocks": (
        lambda: model_of([node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=10**12, N=10**12,
                               bits=4, block_size=16)], {"w": values(4, 4, 4, dtype=np.uint8), "s": values(16)}),
        WeightsError, "do not fit its sizes",
    ),
    "blocks of nothing": (
        lambda: model_of([node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=4, N=4, bits=3,
                               block_size=0)], {"w": values(4, 4, 4, dtype=np.uint8), "s": values(16)}),
        WeightsError, "not known here",
    ),
    "an LSTM of five gates": (
        lambda: model_of([node("LSTM", ["x", "w", "r"], ["y"])], {"w": values(1, 15, 3), "r": values(1, 15, 3)}),
        WeightsError, "LSTM has weights of shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_tensor_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    make, error, words = CASES[case]
    refused(saved(tmp_path, make()), error, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\x08\x07\x3a\x05\x0a", "damaged"), (b"PK\x03\x04" + bytes(40), "damaged"),
     (b"\x08\x07", "has no graph"), (b"\x3a\xff\xff\xff\xff\x7f", "damaged"), (b"\xff" * 40, "damaged"),
     (b"\x3b\x00", "unknown wire type 3")],
)  # fmt: skip
def test_what_is_no_model_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, WeightsError, words)


def test_a_model_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    content = model_of([node("MatMul", ["x", "w"], ["y"])], {"w": values(9, 9)}).SerializeToString()
    path = tmp_path / "m.onnx"
    for tenth in range(1, 10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(RegistryError):
            read(path)
    path.write_bytes(content)
    read(path)  # the control


@pytest.mark.parametrize("deep", [30, 3000])
def test_graphs_nested_too_deep_are_refused(deep: int, tmp_path: Path) -> None:
    """Written by hand: the library would not."""
    inner = b""
    for _ in range(deep):
        setting = b"\x0a\x04then" + b"\x32" + size(inner) + inner
        nested = b"\x22\x02If" + b"\x2a" + size(setting) + setting
        inner = b"\x0a" + size(nested) + nested
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a" + size(inner) + inner)
    refused(path, UnsafeError, "deeper than")


def size(content: bytes) -> bytes:
    number, out = len(content), b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"opset_imports": [helper.make_opsetid("local", 1)]}
    again = helper.make_function("local", "F", ["a"], ["b"], [node("F", ["a"], ["b"], domain="local")], **settings)
    model = model_of([node("F", ["x"], ["y"], domain="local")], {"w": values(3, 3)}, functions=[again])
    refused(saved(tmp_path, model), UnsafeError, "call each other more than 40 deep")


def test_functions_that_multiply_are_refused(tmp_path: Path) -> None:
    """Each calls the next one four times: 4^12 nodes."""
    functions = []
    for number in range(12):
        calls = [node(f"F{number + 1}" if number < 11 else "G", [f"v{i}"], [f"v{i + 1}"], domain="local")
                 for i in range(4)]  # fmt: skip
        functions.append(
            helper.make_function("local", f"F{number}", ["v0"], ["v4"], calls, [helper.make_opsetid("local", 1)])
        )
    model = model_of([node("F0", ["x"], ["y"], domain="local")], {"w": values(3, 3)}, functions=functions)
    with pytest.raises(UnsafeError, match="make more than"):
        read(saved(tmp_path, model))


def test_constants_in_a_circle_are_none(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["b"], ["a"]), node("Transpose", ["a"], ["b"]), node("MatMul", ["x", "a"], ["y"])]
    refused(saved(tmp_path, model_of(nodes, {})), WeightsError, "holds no weights")


def test_a_long_chain_of_steps_is_not_followed(tmp_path: Path) -> None:
    nodes = [node("Transpose", ["w" if n == 0 else f"t{n}"], [f"t{n + 1}"], perm=[1, 0]) for n in range(3000)]
    nodes.append(node("MatMul", ["x", "t3000"], ["y"]))
    refused(saved(tmp_path, model_of(nodes, {"w": values(30, 30)})), WeightsError, "holds no weights|used by MatMul")


class TestFilesBeside:
    def model(self, folder: Path, **entries: str) -> Path:
        made = tensor(data_location=TensorProto.EXTERNAL)
        for key, value in {"location": "m.data", **entries}.items():
            made.external_data.add(key=key, value=value)
        (folder / "m.data").write_bytes(RAW)
        return saved(folder, with_tensor(made))

    def test_the_control(self, tmp_path: Path) -> None:
        read(self.model(tmp_path, offset="0", length="80"))

    @pytest.mark.parametrize(
        "location",
        ["../secret", "/etc/passwd", "a/../../secret", "", "C:\\secret", "..\\secret", "\\\\host\\x", "m\0data",
         "https://example.org/x", "file:secret"],
    )  # fmt: skip
    def test_nothing_outside_the_folder_is_opened(self, location: str, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(RAW)
        (tmp_path / "in").mkdir()
        refused(self.model(tmp_path / "in", location=location), UnsafeError, "no file in the folder of the model")

    def test_links_out_of_the_folder_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "secret").write_bytes(RAW)
        folder = tmp_path / "in"
        folder.mkdir()
        path = self.model(folder, location="link")
        (folder / "link").symlink_to(tmp_path / "out" / "secret")
        refused(path, UnsafeError, "leads out of its folder")
        path = self.model(folder, location="sub/secret")
        (folder / "sub").symlink_to(tmp_path / "out")
        refused(path, UnsafeError, "leads out of the folder")

    @pytest.mark.parametrize(
        ("entries", "words"),
        [({"offset": "4"}, "ends early"), ({"offset": "999999999999"}, "ends early"),
         ({"offset": "-4"}, "an offset of"),
         ({"offset": "x"}, "an offset of"), ({"offset": "9" * 30}, "an offset of"), ({"length": "79"}, "has 79 in"),
         ({"length": "10000000000000"}, "has 10000000000000 in")],
    )  # fmt: skip
    def test_positions_that_lie_are_refused(self, entries: dict[str, str], words: str, tmp_path: Path) -> None:
        refused(self.model(tmp_path, **entries), WeightsError, words)

    def test_a_claim_of_10_to_the_12_takes_no_memory(self, tmp_path: Path) -> None:
        made = tensor(dims=HUGE, data_location=TensorProto.EXTERNAL)
        made.external_data.add(key="location", value="m.data")
        (tmp_path / "m.data").write_bytes(RAW)
        refused(saved(tmp_path, with_tensor(made)), WeightsError, "ends early")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        path = self.model(tmp_path, location="gone.data")
        refused(path, SourceError, r"gone\.data")

    def test_a_pipe_does_not_hang(self, tmp_path: Path) -> None:
        import os

        path = self.model(tmp_path, location="pipe")
        os.mkfifo(tmp_path / "pipe")
        refused(path, SourceError, "not a regular file")


def test_sparse_tensors_that_lie_are_refused(tmp_path: Path) -> None:
    numbers = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    for indices, shape, words, error in (
        ([1, 99], [3, 4], "indices outside", WeightsError),
        ([-1, 2], [3, 4], "indices outside", WeightsError),
        ([1, 2], HUGE, "more than 16777216", UnsafeError),
        ([1, 2, 3], [3, 4], "do not fit its values", WeightsError),
    ):
        model = model_of([node("MatMul", ["x", "w"], ["y"])], {})
        places = numpy_helper.from_array(np.array(indices, np.int64), "i")
        made = onnx.SparseTensorProto(values=numbers, indices=places, dims=shape)
        model.graph.sparse_initializer.append(made)
        refused(saved(tmp_path, model), error, words)


def test_the_file_may_have_any_name(tmp_path: Path) -> None:
    path = saved(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], {"w": values(3, 3)}), "model.weights")
    [ref] = expand(path)
    assert ref.source == "onnx"
