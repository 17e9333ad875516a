"""Files of Keras: one network from each kind of file, its twins, and what is refused."""

from __future__ import annotations

import importlib
import io
import json
import os
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from tests.conftest import missing
from tests.layouts.measured import distances, read
from tests.sources import array_files

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint
    from tests.layouts.measured import Read

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch and NumPy, about Keras
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]
FILES = ("model.h5", "model.keras", "model.weights.h5")


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        return importlib.import_module("keras")
    except ImportError:
        missing("keras of the dependency group layouts")


def opened(path: Path) -> Checkpoint:
    [ref] = expand(path)
    return open_ref(ref)


def saved(model: Any, folder: Path, name: str) -> Path:
    path = folder / name
    (model.save_weights if name.endswith(".weights.h5") else model.save)(path)
    return path


def tensors(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    with checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors if info.dtype.startswith("float")}


@pytest.fixture(scope="module")
def everything(keras: Any) -> Any:
    """A trained network of every kind of layer whose layout is special, one of them in a model within."""
    layers = keras.layers
    keras.utils.set_random_seed(3)
    given = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv1")(given)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 3, padding="same")(x)
    x = layers.Conv2DTranspose(5, 3)(x)
    x = layers.GroupNormalization(5)(layers.LayerNormalization()(x))
    x = layers.Reshape((36, 5))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.GRU(3, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(6))(x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 7), bias_axes="d")(x)
    pooled = [layers.Conv1D(5, 3, name="c1"), layers.Dropout(0.1), layers.GlobalAveragePooling1D(), layers.Dense(8)]
    x = keras.Sequential([keras.Input((36, 7)), *pooled], name="inner")(x)
    x = layers.Add()([layers.Dense(9, use_bias=False)(x), layers.Dense(9)(x)])
    model = keras.Model(given, layers.Dense(4, name="head")(layers.PReLU()(x)))
    model.compile("adam", "mse")
    model.fit(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), np.zeros((4, 4)), verbose=0)
    return model


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_the_values_of_the_model(everything: Any, name: str, tmp_path: Path) -> None:
    """Two-sided: all variables of the model are read, and nothing else, the optimiser's least of all."""
    found = tensors(opened(saved(everything, tmp_path, name)))
    expected = [np.asarray(each.numpy()) for each in everything.weights if "seed" not in each.path]
    digests = sorted(np.sort(array.astype(np.float32).reshape(-1)).tobytes() for array in expected)
    assert sorted(np.sort(array.reshape(-1)).tobytes() for array in found.values()) == digests
    assert found["conv1/kernel"].shape == (4, 3, 3, 3)
    assert found["inner/c1/kernel"].shape == (5, 7, 3)
    kernel = everything.get_layer("conv1").kernel.numpy()
    np.testing.assert_array_equal(found["conv1/kernel"], kernel.transpose(3, 2, 0, 1))
    depthwise = everything.get_layer("depthwise_conv2d").weights[0].numpy()
    turned = depthwise.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3)
    np.testing.assert_array_equal(found["depthwise_conv2d/depthwise_kernel"], turned)
    attention = everything.get_layer("multi_head_attention").weights[0].numpy()
    np.testing.assert_array_equal(found["multi_head_attention/query/kernel"], attention.reshape(5, 6).T)


@pytest.mark.parametrize("name", FILES)
def test_a_transposed_convolution_in_a_wrapper(keras: Any, name: str, tmp_path: Path) -> None:
    """Its class is that of the wrapper, and in files of weights alone there is none."""
    layer = keras.layers.TimeDistributed(keras.layers.Conv2DTranspose(3, 2))
    model = keras.Sequential([keras.Input((6, 8, 8, 4)), layer])
    found = tensors(opened(saved(model, tmp_path, name)))
    [kernel] = [array for array in found.values() if array.ndim > 1]
    np.testing.assert_array_equal(kernel, model.weights[0].numpy().transpose(2, 3, 0, 1))


def test_one_network_has_one_fingerprint(everything: Any, tmp_path: Path) -> None:
    reads: dict[str, Read] = {name: read(opened(saved(everything, tmp_path, name))) for name in FILES}
    first = reads[FILES[0]]
    for other in reads.values():
        assert set(distances(first.measured, other.measured).values()) == {0.0}
        assert other.plan.content_hash == first.plan.content_hash
        assert [layer.shape for layer in other.plan.layers] == [layer.shape for layer in first.plan.layers]
    statistics = sum(each.plan.parameters != first.plan.parameters for each in reads.values())
    assert not statistics
    assert first.plan.parameters == sum(
        each.numpy().size for each in everything.weights if "seed" not in each.path and "moving" not in each.path
    )


def test_a_network_is_that_of_torch(keras: Any, tmp_path: Path) -> None:
    """Layers of torch with the same weights; the control is another network of the same shapes."""
    model = keras.Sequential([
        keras.Input((9, 9, 3)), keras.layers.Conv2D(8, 3, name="conv1"), keras.layers.Conv2D(6, (3, 2), name="conv2"),
        keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(16, name="dense1"), keras.layers.Dense(5, name="fc"),
    ])  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for layer in model.layers:
        for variable, leaf in zip(layer.weights, ("weight", "bias"), strict=False):
            array = variable.numpy()
            axes = (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)) if array.ndim > 1 else (0,)
            state[f"{layer.name}.{leaf}"] = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))
    torch.save(state, tmp_path / "net.pt")
    expected = read(opened(tmp_path / "net.pt"))
    for name in FILES:
        found = read(opened(saved(model, tmp_path, name)))
        assert max(distances(expected.measured, found.measured).values()) < 1e-6
        assert found.plan.content_hash == expected.plan.content_hash
    torch.save({name: torch.randn_like(value) for name, value in state.items()}, tmp_path / "other.pt")
    other = read(opened(tmp_path / "other.pt"))
    assert distances(expected.measured, other.measured)["layered"] > 0.01


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_dtypes(keras: Any, dtype: str, name: str, tmp_path: Path) -> None:
    dense = keras.layers.Dense(4, dtype=dtype, name="d")
    model = keras.Sequential([keras.Input((6,)), dense])
    with opened(saved(model, tmp_path, name)) as checkpoint:
        assert {info.dtype for info in checkpoint.tensors} == {dtype}
        kernel = keras.ops.convert_to_numpy(keras.ops.cast(dense.kernel, "float64"))
        np.testing.assert_array_equal(checkpoint.read("d/kernel"), kernel.T)


TWINS = {
    "face_classification/fer2013_mini_XCEPTION.119-0.65.hdf5", "megnet/mf_2020-pbe_gllb_hse_exp_disorder-0.hdf5",
    "mlperf-tiny/vww_96.h5", "reactionrnn/reactionrnn_weights.hdf5", "ssrnet/imdb-densenet_reg_13_64.h5",
    "ssrnet/imdb-ssrnet_3_3_3_64_1.0_1.0.h5", "ssrnet/wiki-mobilenet_reg_0.25_64.h5", "textgenrnn/hacker_news.hdf5",
}  # fmt: skip


def test_published_files_are_their_twins(originals: Path, zoo: Path) -> None:
    lines = [json.loads(line) for line in (originals / "manifest.jsonl").read_text().splitlines()]
    compared = set()
    for line in lines:
        if line["format"] != "keras-h5" or line["twin_in"] != "zoo":
            continue
        one, other = read(opened(originals / line["file"])), read(opened(zoo / line["twin"]))
        assert distances(one.measured, other.measured)["layered"] < 1e-5, line["file"]
        assert one.plan.content_hash == other.plan.content_hash
        compared.add(line["file"].removeprefix("keras-h5/"))
    assert compared == TWINS


def old_keras(path: Path, *, theano: bool) -> dict[str, np.ndarray]:
    """A file of Keras 1: a convolution and a dense layer, by names with the layer's in front."""
    rng = np.random.default_rng(1)
    arrays = {"c": rng.standard_normal((6, 3, 5, 5) if theano else (5, 5, 3, 6)), "d": rng.standard_normal((6, 4))}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"convolution2d_1", b"dense_1"])
        for layer, key, width in (("convolution2d_1", "c", 6), ("dense_1", "d", 4)):
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}_W".encode(), f"{layer}_b".encode()])
            group[f"{layer}_W"], group[f"{layer}_b"] = arrays[key], np.zeros(width)
    return arrays


@pytest.mark.parametrize("theano", [False, True])
def test_keras_1(theano: bool, tmp_path: Path) -> None:
    arrays = old_keras(tmp_path / "x.h5", theano=theano)
    found = tensors(opened(tmp_path / "x.h5"))
    assert set(found) == {f"{layer}/{leaf}" for layer in ("convolution2d_1", "dense_1") for leaf in ("kernel", "bias")}
    expected = arrays["c"] if theano else arrays["c"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(found["convolution2d_1/kernel"], expected)
    np.testing.assert_array_equal(found["dense_1/kernel"], arrays["d"].T)


def test_before_keras_1_parameters_have_numbers(tmp_path: Path) -> None:
    """As the published weights of VGG are: convolutions in Theano's order."""
    rng = np.random.default_rng(2)
    conv, dense = rng.standard_normal((8, 3, 3, 3)), rng.standard_normal((8, 4))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["nb_layers"] = 3
        for layer, weight in (("layer_0", conv), ("layer_2", dense)):
            group = file.create_group(layer)
            group["param_0"], group["param_1"] = weight, np.zeros(weight.shape[0 if weight.ndim > 2 else 1])
    found = tensors(opened(tmp_path / "x.h5"))
    np.testing.assert_array_equal(found["layer_0/kernel"], conv)
    np.testing.assert_array_equal(found["layer_2/kernel"], dense.T)


def test_arrays_that_keras_did_not_write_keep_their_paths(tmp_path: Path) -> None:
    weight = np.random.default_rng(3).standard_normal((4, 6))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["net/fc/weight"], file["net/fc/bias"] = weight, np.zeros(4)
    found = tensors(opened(tmp_path / "x.h5"))
    np.testing.assert_array_equal(found["net/fc/weight"], weight)


def test_a_packed_archive_has_the_same_values(tmp_path: Path) -> None:
    for packed in (False, True):
        (tmp_path / f"{packed}.keras").write_bytes(array_files.keras(packed=packed))
    (tmp_path / "x.weights.h5").write_bytes(array_files.keras_weights())
    hashes = set()
    for path in tmp_path.iterdir():
        with opened(path) as checkpoint:
            hashes.add(plan_weights(checkpoint).content_hash)
    assert len(hashes) == 1
    found = tensors(opened(tmp_path / "True.keras"))
    assert set(found) == {"dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"}


def test_the_checksum_of_a_stored_entry_is_compared(tmp_path: Path) -> None:
    content = bytearray(array_files.keras())
    kernel = np.random.default_rng(1).standard_normal((4, 5)).astype("f4")
    content[content.find(kernel.tobytes()) + 7] ^= 1
    (tmp_path / "x.keras").write_bytes(content)
    with (
        opened(tmp_path / "x.keras") as checkpoint,
        pytest.raises(WeightsError, match=r"checksum of the entry 'model\.weights\.h5'"),
    ):
        plan_weights(checkpoint)


def bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(100 * 2**20))
    return content.getvalue()


def lying() -> bytes:
    """An archive whose directory says that the packed weights are small."""
    content = bytearray(bomb())
    at = content.rfind(b"PK\x01\x02")
    struct.pack_into("<I", content, at + 24, 1000)
    return bytes(content)


def optimiser_alone() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["optimizer_weights/a"] = np.eye(3)
    return content.getvalue()


def deep() -> bytes:
    """A configuration of models within models."""
    layers: dict[str, Any] = {"class_name": "Dense", "config": {"name": "dense"}}
    for _ in range(300):
        layers = {"class_name": "Sequential", "config": {"layers": [layers]}}
    return array_files.keras(config=json.dumps(layers))


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("x.keras", bomb(), UnsafeError, "would unpack"),
        ("x.keras", lying(), SourceError, "unpack|size"),
        ("x.keras", array_files.keras(config="[" * 100_000), WeightsError, "is no valid JSON"),
        ("x.keras", array_files.keras(weights=b"no HDF5 file at all"), WeightsError, "no superblock"),
        ("x.keras", array_files.keras()[:-60], WeightsError, "zip archive|of no known kind|no weights"),
        ("x.h5", optimiser_alone(), WeightsError, "state of an optimiser alone"),
        ("x.h5", b"\x89HDF\r\n\x1a\n", WeightsError, "no superblock|ends early"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes([9]) + bytes(200), WeightsError, "superblock of version 9"),
    ],
    ids=["bomb", "lying", "config", "no-hdf5", "cut", "optimiser", "short", "version"],
)
def test_hostile_files(name: str, content: bytes, error: type[RegistryError], words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        opened(tmp_path / name)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_deep_configuration_is_data(tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_bytes(deep())
    assert "dense/kernel" in tensors(opened(tmp_path / "x.keras"))


def test_one_of_several_files_is_refused(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((300,)), *(keras.layers.Dense(300) for _ in range(4))])
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=0.0005)
    shards = sorted(tmp_path.glob("*.weights.h5"))
    assert len(shards) > 1
    with pytest.raises(WeightsError, match="one of several files of a model"):
        opened(shards[0])


def test_there_are_no_keys(tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_bytes(array_files.keras())
    with pytest.raises(NotFoundError, match="has no entry"):
        open_ref(expand(tmp_path / "x.keras", key="a")[0])
