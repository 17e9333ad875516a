"""TensorFlow's checkpoints of both kinds and SavedModels, against what was written and against published files."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.formats.tensorflow.crc32c import crc32c, masked
from registry.sources.formats.tensorflow.snappy import SnappyError, decompressed
from registry.sources.formats.tensorflow.variables import chosen, kind_of, shorter, with_cells
from registry.sources.layer_order import layer_order
from registry.types import ModelRef
from tests.layouts.measured import distances, read
from tests.sources import tensorflow_files as files

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

RANDOM = np.random.default_rng(0)


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


ARRAYS = {
    "conv/kernel": array(3, 3, 4, 5), "conv/bias": array(5), "conv/kernel/Adam": array(3, 3, 4, 5),
    "conv/kernel/Adam_1": array(3, 3, 4, 5), "fc/kernel": array(45, 6), "half/kernel": array(4, 3, dtype="float16"),
    "double/kernel": array(4, 3, dtype="float64"), "beta1_power": array(), "global_step": np.array(7),
}  # fmt: skip
EXPECTED = {
    "conv/kernel": ARRAYS["conv/kernel"].transpose(3, 2, 0, 1), "conv/bias": ARRAYS["conv/bias"],
    "fc/kernel": ARRAYS["fc/kernel"].T, "half/kernel": ARRAYS["half/kernel"].T,
    "double/kernel": ARRAYS["double/kernel"].T,
}  # fmt: skip


def opened(path: Path) -> Checkpoint:
    return open_ref(expand(path)[0])


def check(checkpoint: Checkpoint, expected: dict[str, np.ndarray]) -> None:
    with checkpoint:
        assert {info.name for info in checkpoint.tensors} == set(expected)
        for info in checkpoint.tensors:
            assert (info.dtype, info.shape) == (expected[info.name].dtype.name, expected[info.name].shape)
            np.testing.assert_array_equal(checkpoint.read(info.name), expected[info.name])


@pytest.mark.parametrize(
    "options",
    [{}, {"big": True}, {"packed": True}, {"shards": 3}, {"parts": {"fc/kernel": 4, "conv/kernel": 3, "conv/bias": 5}}],
)
def test_what_was_written_is_read(tmp_path: Path, options: dict[str, bool]) -> None:
    index = files.write_checkpoint(tmp_path / "m.ckpt", ARRAYS, **options)  # type: ignore[arg-type]
    check(opened(index), EXPECTED)
    check(opened(index.with_name(f"m.ckpt.data-00000-of-{options.get('shards', 1):05}")), EXPECTED)


@pytest.mark.parametrize("packed", [False, True])
def test_a_checkpoint_of_one_file_is_read(tmp_path: Path, packed: bool) -> None:
    arrays = {name: value for name, value in ARRAYS.items() if value.dtype != np.float64}
    path = files.write_old_checkpoint(tmp_path / "model.ckpt-100", arrays, packed=packed)
    check(opened(path), {name: value for name, value in EXPECTED.items() if value.dtype != np.float64})


def test_the_graph_beside_a_checkpoint_of_one_file_leads_to_it(tmp_path: Path) -> None:
    path = files.write_old_checkpoint(tmp_path / "model.ckpt", {"dense/kernel": array(3, 4)})
    (tmp_path / "model.ckpt.meta").write_bytes(files.small_graph())
    assert [ref.target for ref in expand(tmp_path)] == [str(path)]


def test_names_and_order_come_from_the_object_graph(tmp_path: Path) -> None:
    """Keys number the layers; names are those that the layers have."""
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = ["conv2d", "depthwise_conv2d", "conv2d_1", "depthwise_conv2d_1", *(f"dense_{i}" for i in range(2, 12))]
    arrays, full = {}, {}
    for number, name in enumerate(names):
        leaf = "depthwise_kernel" if "depth" in name else "kernel"
        key = f"layer_with_weights-{number}/{leaf}"
        arrays[key + value] = array(3, 4) if "dense" in name else array(3, 3, 4, 2)
        arrays[f"{key}/.OPTIMIZER_SLOT/optimizer/m{value}"] = arrays[key + value]
        full[key + value] = f"{name}/{leaf}"
    arrays |= {f"optimizer/iter{value}": np.array(3.0), f"keras_api/metrics/0/total{value}": np.array(3.0)}
    arrays |= {f"save_counter{value}": np.array(3)}
    index = files.write_checkpoint(tmp_path / "v", arrays, graph=files.object_graph(full))
    with opened(index) as checkpoint:
        plan = plan_weights(checkpoint)
        assert [layer.name.split("/")[0] for layer in plan.layers] == names
        assert plan.layers[1].shape == (8, 1, 3, 3)
        assert len(checkpoint.tensors) == len(names)


def test_names_that_are_not_distinct_are_left(tmp_path: Path) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    arrays = {f"a/w{value}": array(3, 4), f"b/w{value}": array(4, 5)}
    graph = files.object_graph(dict.fromkeys(arrays, "Variable"))
    with opened(files.write_checkpoint(tmp_path / "v", arrays, graph=graph)) as checkpoint:
        assert {info.name for info in checkpoint.tensors} == {"a/w", "b/w"}


def test_an_export_of_keras_has_each_variable_once(tmp_path: Path) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    kernel = array(3, 4)
    arrays = {f"variables/0{value}": kernel, f"_all_variables/0{value}": kernel}
    graph = files.object_graph(dict.fromkeys(arrays, "dense/kernel"))
    check(opened(files.write_checkpoint(tmp_path / "v", arrays, graph=graph)), {"dense/kernel": kernel.T})


def test_averages_beside_the_weights_are_named(tmp_path: Path) -> None:
    kernel = array(3, 4)
    average = "fc/kernel/ExponentialMovingAverage"
    with opened(files.write_checkpoint(tmp_path / "v", {"fc/kernel": kernel, average: kernel + 1})) as checkpoint:
        plan = plan_weights(checkpoint)
        assert any("is an average of the weights beside it, which are taken" in note for note in plan.notes)
    check(checkpoint := opened(tmp_path / "v.index"), {"fc/kernel": kernel.T})
    with opened(files.write_checkpoint(tmp_path / "w", {average: kernel})) as checkpoint:
        assert any("are their exponential moving averages" in note for note in plan_weights(checkpoint).notes)
        np.testing.assert_array_equal(checkpoint.read("fc/kernel"), kernel.T)


def test_the_graph_beside_a_checkpoint_says_how_weights_are_used(tmp_path: Path) -> None:
    arrays = {"a": array(3, 3, 4, 2), "b": array(2, 2, 5, 8), "c": array(5, 5), "d": array(5, 5)}
    index = files.write_checkpoint(tmp_path / "m", arrays)
    graph = files.graph(
        *(files.node(name, "VariableV2") for name in arrays), files.node("x", "Placeholder"), files.node("n", "Const"),
        *(files.node(f"{name}/read", "Identity", name) for name in arrays),
        files.node("1", "DepthwiseConv2dNative", "x", "a/read"),
        files.node("2", "Conv2DBackpropInput", "n", "b/read", "1"),
        files.node("3", "MatMul", "2", "c/read", attrs=files.flag("transpose_b", True)),
        files.node("4", "MatMul", "3", "d/read", attrs=files.flag("transpose_b", False)),
        files.node("grad", "Conv2DBackpropInput", "n", "a/read", "4"),
    )  # fmt: skip
    (tmp_path / "m.meta").write_bytes(files.content(1, files.content(1, "v")) + files.content(2, graph))
    a, b, c, d = arrays.values()
    expected = {"a": a.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3), "b": b.transpose(2, 3, 0, 1), "c": c, "d": d.T}
    check(opened(index), expected)
    check(opened(tmp_path / "m.meta"), expected)
    (tmp_path / "m.meta").write_bytes(b"\x0a\xff")
    with opened(index) as checkpoint:
        assert any("m.meta is ignored" in note for note in plan_weights(checkpoint).notes)


def saved_model(folder: Path, *nodes: bytes) -> Path:
    (folder / "variables").mkdir(parents=True)
    graph = files.content(2, files.graph(files.node("x", "Placeholder"), *nodes))
    meta = files.content(1, files.content(2, b"") + files.content(5, "2.4")) + graph
    (folder / "saved_model.pb").write_bytes(files.number(1, 1) + files.content(2, meta))
    return folder / "saved_model.pb"


def test_a_saved_model_is_its_variables(tmp_path: Path) -> None:
    path = saved_model(tmp_path / "m")
    index = files.write_checkpoint(path.with_name("variables") / "variables", ARRAYS)
    check(opened(path), EXPECTED)
    check(opened(index), EXPECTED)
    assert [ref.target for ref in expand(tmp_path)] == [str(path)] * len(expand(tmp_path))


def test_a_folder_of_a_saved_model_is_one_model(tmp_path: Path) -> None:
    """The files beside it have no weights: fingerprint.pb is numbers and a text, which look like a model of ONNX."""
    path = saved_model(tmp_path / "m")
    fingerprint = b"".join(files.number(field, 7) for field in range(1, 6))
    fingerprint += files.content(6, files.number(1, 1)) + files.content(7, b"331713845116488")
    (tmp_path / "m/fingerprint.pb").write_bytes(fingerprint)
    (tmp_path / "m/keras_metadata.pb").write_bytes(files.content(1, files.content(3, b"root")))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/fingerprint.pb").write_bytes(fingerprint)
    assert [ref.target for ref in expand(tmp_path / "m")] == [str(path)]
    with pytest.raises(SourceError, match="field 2 is a number"):
        opened(tmp_path / "other/fingerprint.pb").close()


def test_what_a_user_calls_a_checkpoint_leads_to_it(tmp_path: Path) -> None:
    """What its files have in common, as TensorFlow does, and the folder of a SavedModel's variables."""
    index = files.write_checkpoint(tmp_path / "ckpt-1", ARRAYS)
    assert [ref.target for ref in expand(tmp_path / "ckpt-1")] == [str(index)]
    path = saved_model(tmp_path / "m")
    files.write_checkpoint(path.parent / "variables" / "variables", ARRAYS)
    assert [ref.target for ref in expand(path.parent / "variables")] == [str(path)]
    with pytest.raises(NotFoundError, match="no file or folder"):
        expand(tmp_path / "ckpt-2")


def test_a_saved_model_whose_variables_are_missing_says_so(tmp_path: Path) -> None:
    variable = files.node("v", "VarHandleOp")
    path = saved_model(tmp_path / "m", variable, files.const("b", array(3)), files.node("y", "BiasAdd", "x", "b"))
    with pytest.raises(WeightsError, match="needs its folder variables"):
        opened(path)


def test_a_saved_model_without_variables_is_its_graph(tmp_path: Path) -> None:
    kernel = array(3, 4)
    path = saved_model(tmp_path / "m", files.const("w", kernel), files.node("y", "MatMul", "x", "w"))
    check(opened(path), {"w": kernel.T})


def test_variables_behind_a_link_are_refused(tmp_path: Path) -> None:
    path = saved_model(tmp_path / "m")
    outside = tmp_path / "outside"
    outside.mkdir()
    files.write_checkpoint(outside / "variables", ARRAYS)
    path.with_name("variables").rmdir()
    path.with_name("variables").symlink_to(outside)
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        open_ref(ModelRef("tf_checkpoint", str(path), "m"))


def test_remote_files_are_read_by_ranges(tmp_path: Path) -> None:
    """The index and its data, and a SavedModel's, are asked for and not downloaded."""
    fsspec = pytest.importorskip("fsspec")
    path = saved_model(tmp_path / "m")
    files.write_checkpoint(path.with_name("variables") / "variables", ARRAYS)
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "m").rglob("*.*"):
        memory.pipe(f"/tf/{file.relative_to(tmp_path)}", file.read_bytes())
    check(open_ref(expand("memory://tf/m/saved_model.pb")[0]), EXPECTED)
    check(open_ref(expand("memory://tf/m/variables/variables.index")[0]), EXPECTED)


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 5000, 524_288, 524_289, 4 * 2**20 + 5])
def test_checksums_of_all_sizes(size: int) -> None:
    """Zeros moved through the polynomial one by one, and joined pieces."""
    data = RANDOM.bytes(size)
    assert crc32c([data[: size // 3], data[size // 3 :]]) == crc32c([data])
    if size <= 5000:
        assert (crc32c([data]), masked(crc32c([data]))) == (files.crc32c(data), files.masked(data))
    changed = bytearray(data)
    if size:
        changed[size // 2] ^= 1
        assert crc32c([changed]) != crc32c([data])


def test_the_check_value_of_the_standard() -> None:
    assert crc32c([b"123456789"]) == 0xE3069283


def test_a_turned_bit_is_noticed(tmp_path: Path) -> None:
    index = files.write_checkpoint(tmp_path / "m", ARRAYS)
    data = bytearray((tmp_path / "m.data-00000-of-00001").read_bytes())
    data[100] ^= 1
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    with opened(index) as checkpoint, pytest.raises(WeightsError, match=r"the checksum of .* differs"):
        plan_weights(checkpoint)
    table = bytearray(index.read_bytes())
    table[5] ^= 1
    index.write_bytes(table)
    with pytest.raises(WeightsError, match="the checksum of its block at byte 0 differs"):
        opened(index)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no length"),
        (b"\xff\xff\xff\xff\xff\xff", "no length"),
        (b"\xff\xff\xff\xff\x0f\x00a", "cannot become"),
        (b"\x04\x0cab", "cut off"),
        (b"\x04\x00a\x0e\x00\x00", "outside"),
        (b"\x04\x00a\x0e\x05\x00", "outside"),
        (b"\x04\x00a", "in place of"),
        (b"\x02\x00a\x0e\x01\x00", "outside"),
        (b"\x03\x00a\x02\x01", "cut off"),
    ],
)
def test_blocks_that_are_no_snappy(data: bytes, words: str) -> None:
    with pytest.raises(SnappyError, match=words):
        decompressed(data)


def test_snappy_copies_of_each_kind() -> None:
    """By hand from the format's description: a literal, copies with one, two and four bytes of offset."""
    assert decompressed(b"\x16\x0cabcd\x01\x04\x0a\x04\x00\x13\x02\x00\x00\x00\x14123456") == b"abcdabcdabcbcbcb123456"


def damaged(index: Path, key: bytes, value: bytes) -> None:
    files.write_checkpoint(index.with_name("m"), ARRAYS, entries={key: value})


def entry(kind: int, extents: tuple[int, ...], *, offset: int = 0, size: int = 0, shard: int = 0) -> bytes:
    place = files.number(3, shard) + files.number(4, offset) + files.number(5, size)
    return files.number(1, kind) + files.content(2, files.shape(extents)) + place


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (entry(1, (10**12, 10**12), size=10**9), WeightsError, "claims a tensor of shape"),
        (entry(1, (2, 2), offset=10**9, size=16), WeightsError, "claims a tensor of shape"),
        (entry(1, (2, 2), size=12), WeightsError, "of 12 bytes for 16"),
        (entry(1, (2, 2), size=16, shard=7), WeightsError, "data-00007-of-00001, which is not beside it"),
        (entry(1, (-1, 2), size=16), WeightsError, "unknown or unending shape"),
        (entry(1, (1,) * 300, size=4), WeightsError, "unknown or unending shape"),
        (entry(1, (0,) * 100), UnsafeError, "100 dimensions"),
        (entry(1, (700,), size=2800), WeightsError, "overlap"),
        (b"\x0a\xff", WeightsError, "is damaged at byte"),
        (entry(1, (2, 2)) + files.content(7, files.slice_of(0, 1, 2)), WeightsError, "lacks a part"),
    ],
)
def test_entries_that_lie(tmp_path: Path, value: bytes, error: type[SourceError], words: str) -> None:
    damaged(tmp_path / "m.index", b"z", value)
    with pytest.raises(error, match=words):
        opened(tmp_path / "m.index")


def test_parts_that_do_not_fill_their_tensor_are_refused(tmp_path: Path) -> None:
    part = entry(1, (2, 3), size=24)
    whole = entry(1, (4, 3)) + files.content(7, files.slice_of(0, 2, 2))
    entries = {b"z": whole, files.slice_key("z", 0, 2, 2): part}
    files.write_checkpoint(tmp_path / "m", {"a": array(9)}, entries=entries)
    with pytest.raises(WeightsError, match="the parts of z do not fill it"):
        opened(tmp_path / "m.index")


@pytest.mark.parametrize("header", [files.number(1, 10**6), files.number(1, 0), b"\xff"])
def test_headers_that_lie(tmp_path: Path, header: bytes) -> None:
    files.write_checkpoint(tmp_path / "m", ARRAYS, entries={b"": header})
    with pytest.raises(WeightsError):
        opened(tmp_path / "m.index")


def test_another_table_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.ldb").write_bytes(files.table({b"a": b"b"}))
    with pytest.raises(WeightsError, match="is a LevelDB table, but no TensorFlow checkpoint"):
        opened(tmp_path / "m.ldb")


def test_a_data_file_that_is_missing_is_named(tmp_path: Path) -> None:
    index = files.write_checkpoint(tmp_path / "m", ARRAYS)
    (tmp_path / "m.data-00000-of-00001").unlink()
    with pytest.raises(WeightsError, match=r"needs m\.data-00000-of-00001, which is not beside it"):
        opened(index)


def test_a_data_file_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    index = files.write_checkpoint(tmp_path / "in" / "m", ARRAYS)
    data = tmp_path / "in" / "m.data-00000-of-00001"
    data.rename(tmp_path / "data")
    data.symlink_to(os.path.relpath(tmp_path / "data", tmp_path / "in"))
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        opened(index)


@pytest.mark.parametrize("old", [False, True])
def test_files_cut_at_ten_places_are_refused(tmp_path: Path, old: bool) -> None:
    arrays = {name: value for name, value in ARRAYS.items() if value.dtype != np.float64}
    make = files.write_old_checkpoint if old else files.write_checkpoint
    path = make(tmp_path / "m", arrays)  # type: ignore[operator]
    content = path.read_bytes()
    for place in range(10):
        path.write_bytes(content[: len(content) * place // 10])
        with pytest.raises(SourceError), open_ref(ModelRef("tf_checkpoint", str(path), "m")) as checkpoint:
            plan_weights(checkpoint)


def test_values_of_an_old_checkpoint_that_are_not_there(tmp_path: Path) -> None:
    meta = files.content(1, files.content(1, "w") + files.content(2, files.shape((2, 3))) + files.number(3, 1))
    (tmp_path / "m").write_bytes(files.table({b"": files.content(1, meta)}))
    with opened(tmp_path / "m") as checkpoint, pytest.raises(WeightsError, match="lacks the values of w"):
        plan_weights(checkpoint)
    meta = files.content(1, files.content(1, "w") + files.content(2, files.shape((10**6, 10**6))) + files.number(3, 1))
    (tmp_path / "m").write_bytes(files.table({b"": files.content(1, meta)}))
    with pytest.raises(WeightsError, match=r"claims 4\d+ bytes of tensors"):
        opened(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "shape", "bias", "kind"),
    [
        ("dense/kernel", (3, 4), None, "dense"),
        ("embedding/embeddings", (3, 4), None, "as_is"),
        ("bert/embeddings/word_embeddings", (30, 4), None, "as_is"),
        ("cls/seq_relationship/output_weights", (2, 4), None, "as_is"),
        ("conv/kernel", (3, 3, 4, 5), (5,), "conv"),
        ("conv2d_transpose/kernel", (2, 2, 4, 4), None, "transposed"),
        ("up/kernel", (2, 2, 4, 7), (4,), "transposed"),
        ("conv2d_transpose_1/kernel", (2, 2, 4, 7), (7,), "conv"),
        ("a/depthwise_kernel", (3, 3, 4, 1), None, "depthwise"),
        ("MobilenetV1/Conv2d_1_depthwise/depthwise_weights", (3, 3, 4, 1), None, "depthwise"),
        ("depthwise_conv2d/kernel", (3, 3, 8, 2), (16,), "depthwise"),
        ("x/kernel", (3, 3, 8, 2), (16,), "depthwise"),
        ("conv1/pointwise_filter", (1, 1, 8, 2), None, "conv"),
        ("f1", (3, 3, 8, 2), None, "conv"),
        ("bias", (3,), None, "as_is"),
        ("gru/gru_cell/bias", (2, 27), None, "as_is"),
        ("attention/query/kernel", (16, 2, 8), None, "dense"),
        ("layer/_value_dense/kernel", (16, 2, 8), None, "dense"),
    ],
)
def test_layouts_by_name(name: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, kind: str) -> None:
    shapes = {name: shape} | ({f"{name.rpartition('/')[0]}/bias": bias} if bias else {})
    assert kind_of(name, shape, shapes) == (kind, 1)


def test_projections_to_and_from_heads() -> None:
    """As Keras' MultiHeadAttention keeps them, with biases and without; and GPT-2's convolutions of width one."""
    shapes = {f"a/{name}/kernel": (8, 2, 3) for name in ("query", "key", "value")}
    shapes |= {"a/attention_output/kernel": (2, 3, 8), "b/x/kernel": (8, 2, 3), "b/x/bias": (2, 3)}
    shapes |= {"c/kernel": (3, 8, 2), "h0/attn/c_attn/w": (1, 8, 24)}
    found = {name: kind_of(name, shape, shapes) for name, shape in shapes.items() if len(shape) == 3}
    assert found == {
        **{f"a/{name}/kernel": ("dense", 1) for name in ("query", "key", "value")},
        "a/attention_output/kernel": ("dense", 2), "b/x/kernel": ("dense", 1), "c/kernel": ("conv", 1),
        "h0/attn/c_attn/w": ("dense", 2),
    }  # fmt: skip


def test_variables_of_training_are_left_out() -> None:
    names = [
        "w", "w/Adam", "w/Adam_1", "w/Momentum", "w/RMSProp", "moving_mean", "moving_mean/biased", "beta1_power",
        "global_step", "optimizer/iter", "Adam/w/m", "training/SGD/w/momentum", "learning_rate", "bert/adam_layer/w",
        "bert/w/adam_m", "bert/w/adam_v", "bert/w", "adapter/w",
    ]  # fmt: skip
    assert set(chosen(names).names) == {"w", "moving_mean", "bert/adam_layer/w", "bert/w", "adapter/w"}


def test_variables_that_keras_3_keeps_in_its_optimiser(tmp_path: Path) -> None:
    """The shortest path to a weight leads through the optimiser, whose slots have numbers there too."""
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    query, out, dense = array(6, 2, 3), array(2, 3, 5), array(5, 4)
    stored = {
        "optimizer/_trainable_variables/0": ("attention/query/kernel", query),
        "optimizer/_trainable_variables/1": ("attention/attention_output/kernel", out),
        "optimizer/_variables/2": ("adam/attention_query_kernel_momentum", query),
        "model/optimizer/_variables/3": ("adam/dense_kernel_velocity", dense),
        "model/_operations/2/_kernel": ("dense/kernel", dense),
    }
    arrays = {key + value: tensor for key, (_, tensor) in stored.items()}
    graph = files.object_graph({key + value: name for key, (name, _) in stored.items()})
    expected = {
        "attention/query/kernel": query.reshape(6, 6).T,
        "attention/attention_output/kernel": out.reshape(6, 5).T,
        "dense/kernel": dense.T,
    }
    check(opened(files.write_checkpoint(tmp_path / "v", arrays, graph=graph)), expected)


def test_names_of_recurrent_layers_are_those_of_a_keras_file() -> None:
    names = {
        "b/backward_lstm/lstm_cell/kernel": "b/reverse/kernel",
        "b/backward_lstm/lstm_cell/recurrent_kernel": "b/reverse/recurrent_kernel",
        "gru_1/gru_cell/bias": "gru_1/bias",
        "gru_1/gru_cell/recurrent_kernel": "gru_1/recurrent_kernel",
        "rnn/cells/lstm_cell/recurrent_kernel": "rnn/cells/lstm_cell/recurrent_kernel",
        "rnn/cells/gru_cell/recurrent_kernel": "rnn/cells/gru_cell/recurrent_kernel",
        "rnn/lstm_cell/kernel": "rnn/lstm_cell/kernel",
        "forward_pass/kernel": "forward_pass/kernel",
    }
    assert shorter(names) == names


def test_the_order_of_names_that_a_person_gave() -> None:
    stored = ["reg_0_dconv/depthwise_kernel", "reg_0_conv/kernel", "cls_1_conv/kernel", "base.0_conv/kernel",
              "cls_0_dconv/depthwise_kernel", "cls_0_conv/kernel"]  # fmt: skip
    assert layer_order(dict.fromkeys(stored, (4, 4, 1, 1))) == (
        "base.0_conv/kernel", "cls_0_dconv/depthwise_kernel", "cls_0_conv/kernel", "cls_1_conv/kernel",
        "reg_0_dconv/depthwise_kernel", "reg_0_conv/kernel",
    )  # fmt: skip
    automatic = ["dense_3/kernel", "conv2d_7_1/kernel", "dense/kernel"]
    assert layer_order(dict.fromkeys(automatic, (4, 4))) == ()
    assert layer_order(dict.fromkeys(["a_1_b/kernel", "a/1/b/kernel", "c/kernel"], (4, 4))) == ()


def test_the_second_kernel_of_a_separable_convolution_has_its_name() -> None:
    found = {
        "s/kernel": ((4, 3, 1, 1), "a"),
        "s/depthwise_kernel": ((3, 1, 3, 3), "b"),
        "c/kernel": ((4, 3, 1, 1), "c"),
    }
    assert with_cells(found)["s/kernel"] == "s/pointwise_kernel"
    assert with_cells(found)["c/kernel"] == "c/kernel"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("functional_1/conv2d_1 functional_1/conv2d_1_2 functional_1/head_1", "conv2d conv2d_1 head"),
        ("functional_1/conv2d_1 functional_1/conv2d_2", ""),
        ("functional_1/conv2d_1 functional_1/head", ""),
        ("model/conv2d_1 model/dense_1", ""),
    ],
)
def test_names_of_a_network_that_was_traced_twice(names: str, expected: str) -> None:
    found = {f"{name}/kernel": ((4, 4), "") for name in names.split()}
    wanted = [f"functional_1/{name}/kernel" for name in expected.split()] or list(found)
    assert list(with_cells(found).values()) == wanted


def test_kernels_of_cells_are_told_apart() -> None:
    found = {"l/kernel": ((20, 5), "a/MatMul_1"), "l/recurrent_kernel": ((20, 6), "a/MatMul"), "b/kernel": ((2, 2), "")}
    assert list(with_cells(found).items()) == [
        ("l/recurrent_kernel", "l/kernel"), ("l/kernel", "l/recurrent_kernel"), ("b/kernel", "b/kernel"),
    ]  # fmt: skip
    same = {"l/kernel": ((20, 5), "a/MatMul_1"), "l/recurrent_kernel": ((20, 5), "a/MatMul")}
    assert with_cells(same)["l/kernel"] == "l/recurrent_kernel"


def test_published_checkpoints(originals: Path, zoo: Path) -> None:
    """Numbers as in the manifest, and the twins' fingerprints; another network's differs."""
    lines = map(json.loads, (originals / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    seen = []
    for line in lines:
        if line["format"] not in ("tf-checkpoint", "tf-savedmodel"):
            continue
        with opened(originals / line["file"]) as checkpoint:
            matrices = [t for t in checkpoint.tensors if len(t.shape) > 1 and min(t.shape[0], t.size // t.shape[0]) > 1]
            assert sum(t.size for t in checkpoint.tensors) == line["parameters"]
            assert len(matrices) == line["matrices"]
        if line["twin"]:
            own, twin = read(opened(originals / line["file"])), read(opened(zoo / line["twin"]))
            assert max(distances(own.measured, twin.measured).values()) == 0
            seen.append(own)
    assert len(seen) == 3
    assert distances(seen[0].measured, seen[1].measured)["layered"] > 1e-3
