"""Arrays of Flax, Haiku and Keras are held against torch's layers that compute the same."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.nn import functional

from registry.errors import WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.sources.effective_weights import TensorView
    from registry.types import Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch and NumPy, about Keras
Arrays = dict[str, Any]
RNG = np.random.default_rng(5)


def library(name: str) -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} of the dependency group layouts")


def flax_answer(twin: str, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    if importlib.util.find_spec("flax") is None:
        missing("flax of the dependency group layouts")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", x=x, **arrays)
        command = [sys.executable, "-m", "tests.sources.flax_twins", twin, f"{folder}/in.npz", f"{folder}/out.npz"]
        subprocess.run(command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        with np.load(f"{folder}/out.npz") as answer:
            found: np.ndarray = answer["y"]
    return found


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def opened(folder: Path, arrays: Arrays, how: str = "slashed") -> Checkpoint:
    """Arrays under slashed names, stored in one of several ways."""
    path = folder / f"{how}.npz"
    if how in ("dotted", "colon"):
        path = folder / f"{how}.safetensors"
        save_file({n.replace("/", "." if how == "dotted" else ":"): a for n, a in arrays.items()}, path)
    elif how == "keras":
        np.savez(path, **dict[str, Any]({f"{name}:0": array for name, array in arrays.items()}))
    elif how == "fortran":
        np.savez(path, **dict[str, Any]({name: np.asfortranarray(array) for name, array in arrays.items()}))
    elif how == "big-endian":
        np.savez_compressed(path, **{name: array.astype(">f4") for name, array in arrays.items()})
    else:
        np.savez(path, **arrays)
    return open_ref(expand(path)[0])


def matrices(checkpoint: Checkpoint) -> list[tuple[str, np.ndarray]]:
    with checkpoint:
        plan = plan_weights(checkpoint)
        return [(layer.kind, layer_matrix(checkpoint, layer)) for layer in plan.layers]


STORES = ("dotted", "colon", "slashed", "keras", "fortran", "big-endian")


class Net(torch.nn.Module):
    """A convolution, a depthwise one with two outputs an input, a transposed one and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, (3, 2))
        self.conv2 = torch.nn.Conv2d(4, 8, 3, groups=4)
        self.deconv3 = torch.nn.ConvTranspose2d(8, 6, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(6)
        self.fc = torch.nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.deconv3(self.conv2(self.conv1(images)))
        answer: torch.Tensor = self.fc(self.norm(hidden).mean((2, 3)))
        return answer


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Net().eval()
        made.state_dict()["norm.running_mean"].normal_()
        made.state_dict()["norm.running_var"].uniform_(0.5, 2)
        return made


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return normal(2, 7, 7, 3)


@pytest.fixture(scope="module")
def answers(net: Net, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        answer: np.ndarray = net(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    return answer


def values(net: Net) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def flax_arrays(net: Net, images: np.ndarray, answers: np.ndarray) -> Arrays:
    """The network in Flax, which computes the same."""
    w = values(net)
    arrays = {
        "params/conv1/kernel": w["conv1.weight"].transpose(2, 3, 1, 0),
        "params/conv1/bias": w["conv1.bias"],
        "params/conv2/kernel": w["conv2.weight"].transpose(2, 3, 1, 0),
        "params/conv2/bias": w["conv2.bias"],
        "params/deconv3/kernel": w["deconv3.weight"].transpose(2, 3, 0, 1)[::-1, ::-1],
        "params/deconv3/bias": w["deconv3.bias"],
        "params/norm/scale": w["norm.weight"],
        "params/norm/bias": w["norm.bias"],
        "params/fc/kernel": w["fc.weight"].T,
        "params/fc/bias": w["fc.bias"],
        "batch_stats/norm/mean": w["norm.running_mean"],
        "batch_stats/norm/var": w["norm.running_var"],
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    np.testing.assert_allclose(flax_answer("net", arrays, images), answers, atol=1e-5)
    return arrays


@pytest.fixture(scope="module")
def keras_arrays(net: Net, images: np.ndarray, answers: np.ndarray) -> Arrays:
    """The network in Keras, which computes the same."""
    keras = library("keras")
    w, layers = values(net), keras.layers
    twin = keras.Sequential([
        keras.Input((7, 7, 3)),
        layers.Conv2D(4, (3, 2), name="conv1"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv2"),
        layers.Conv2DTranspose(6, 3, 2, name="deconv3"),
        layers.BatchNormalization(epsilon=1e-5, name="norm"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="fc"),
    ])  # fmt: skip
    depthwise = w["conv2.weight"].reshape(4, 2, 3, 3).transpose(2, 3, 0, 1)
    twin.set_weights([
        w["conv1.weight"].transpose(2, 3, 1, 0), w["conv1.bias"], depthwise, w["conv2.bias"],
        w["deconv3.weight"].transpose(2, 3, 1, 0), w["deconv3.bias"],
        w["norm.weight"], w["norm.bias"], w["norm.running_mean"], w["norm.running_var"],
        w["fc.weight"].T, w["fc.bias"],
    ])  # fmt: skip
    np.testing.assert_allclose(twin.predict(images, verbose=0), answers, atol=1e-5)
    return {each.path.partition("/")[2]: np.ascontiguousarray(each.numpy()) for each in twin.weights}


@pytest.mark.parametrize("how", STORES)
@pytest.mark.parametrize("arrays", ["flax_arrays", "keras_arrays"])
def test_one_network_has_the_matrices_of_torch(
    arrays: str, how: str, net: Net, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with open_ref(expand(tmp_path / "net.pt")[0]) as checkpoint:
        parameters = plan_weights(checkpoint).parameters
    expected = matrices(open_ref(expand(tmp_path / "net.pt")[0]))
    with opened(tmp_path, request.getfixturevalue(arrays), how) as checkpoint:
        assert plan_weights(checkpoint).parameters == parameters
        found = matrices(checkpoint)
    assert [kind for kind, _ in found] == [kind for kind, _ in expected] == ["conv", "depthwise", "conv", "linear"]
    for (_, a), (_, b) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_that_were_turned_already_stay(net: Net, tmp_path: Path) -> None:
    """The control: torch's arrays under the names of Keras, as converters leave them."""
    state = values(net)
    keras = {"weight": "kernel", "running_mean": "moving_mean", "running_var": "moving_variance"}
    arrays = {
        name.replace(".", "/").replace(leaf, keras.get(leaf, leaf)): array
        for name, array in state.items()
        if (leaf := name.split(".")[-1]) != "num_batches_tracked"
    }
    arrays["norm/gamma"] = arrays.pop("norm/kernel")
    for how in ("dotted", "slashed"):
        with opened(tmp_path, arrays, how) as checkpoint:
            shapes = {layer.name.replace("/", "."): layer.shape for layer in plan_weights(checkpoint).layers}
        assert shapes["conv1.kernel"] == (4, 3, 3, 2)
        assert shapes["fc.kernel"] == (5, 6)


def test_the_arrays_of_keras_3_are_numbered(keras_arrays: Arrays, net: Net, tmp_path: Path) -> None:
    classes = {"conv1": "conv2d", "conv2": "depthwise_conv2d", "deconv3": "conv2d_transpose", "fc": "dense",
               "norm": "batch_normalization"}  # fmt: skip
    numbers = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
    arrays = {}
    for name, array in keras_arrays.items():
        layer, leaf = name.split("/")
        arrays[f"layers/{classes[layer]}/vars/{numbers[leaf]}"] = array
    arrays["optimizer/vars/1"] = arrays["layers/dense/vars/0"] * 0.1
    expected = sorted(matrix.tolist() for _, matrix in matrices(opened(tmp_path, keras_arrays)))
    with opened(tmp_path, arrays) as checkpoint:
        plan = plan_weights(checkpoint)
        assert sorted(layer_matrix(checkpoint, layer).tolist() for layer in plan.layers) == expected
        assert plan.parameters == sum(value.numel() for value in net.parameters())
        assert {s.name: s.reason for s in plan.skipped}["layers/batch_normalization/moving_mean"] == "batch statistics"


@pytest.fixture(scope="module")
def lstm() -> torch.nn.LSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return torch.nn.LSTM(5, 4, batch_first=True)


def keras_lstm(lstm: torch.nn.LSTM, x: np.ndarray, y: np.ndarray) -> Arrays:
    keras = library("keras")
    w = {name: value.detach().numpy() for name, value in lstm.named_parameters()}
    twin = keras.Sequential([keras.Input((3, 5)), keras.layers.LSTM(4, return_sequences=True, name="lstm")])
    twin.set_weights([w["weight_ih_l0"].T, w["weight_hh_l0"].T, w["bias_ih_l0"] + w["bias_hh_l0"]])
    np.testing.assert_allclose(twin.predict(x, verbose=0), y, atol=1e-5)
    return {each.path: np.ascontiguousarray(each.numpy()) for each in twin.weights}


def flax_lstm(lstm: torch.nn.LSTM, x: np.ndarray, y: np.ndarray) -> Arrays:
    w = {name: value.detach().numpy() for name, value in lstm.named_parameters()}
    arrays: Arrays = {}
    for at, gate in enumerate("ifgo"):
        own = slice(4 * at, 4 * at + 4)
        arrays[f"params/lstm/i{gate}/kernel"] = np.ascontiguousarray(w["weight_ih_l0"][own].T)
        arrays[f"params/lstm/h{gate}/kernel"] = np.ascontiguousarray(w["weight_hh_l0"][own].T)
        arrays[f"params/lstm/h{gate}/bias"] = (w["bias_ih_l0"] + w["bias_hh_l0"])[own]
    np.testing.assert_allclose(flax_answer("lstm", arrays, x), y, atol=1e-5)
    return arrays


@pytest.mark.parametrize("how", ["dotted", "slashed", "keras"])
@pytest.mark.parametrize("make", [keras_lstm, flax_lstm])
def test_gates_are_those_of_torch(make: Callable[..., Arrays], how: str, lstm: torch.nn.LSTM, tmp_path: Path) -> None:
    x = normal(2, 3, 5)
    with torch.no_grad():
        arrays = make(lstm, x, lstm(torch.from_numpy(x))[0].numpy())
    torch.save({f"lstm.{name}": value for name, value in lstm.state_dict().items()}, tmp_path / "lstm.pt")
    expected = matrices(open_ref(expand(tmp_path / "lstm.pt")[0]))
    found = matrices(opened(tmp_path, arrays, how))
    assert [kind for kind, _ in found] == [kind for kind, _ in expected] == ["recurrent"] * 8
    for (_, a), (_, b) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["dotted", "slashed", "keras"])
@pytest.mark.parametrize(
    ("parts", "bias"),
    [
        (("query", "key", "value", "out"), True),
        (("query", "key", "value", "out"), False),
        (("query", "key", "value", "attention_output"), True),
        (("query_dense", "key_dense", "value_dense", "output_dense"), True),
    ],
)
def test_heads_are_joined(parts: tuple[str, ...], bias: bool, how: str, tmp_path: Path) -> None:
    """Held against the sums over axes by which DenseGeneral and EinsumDense are defined."""
    x = normal(5, 6)
    arrays: Arrays = {f"attention/{part}/kernel": normal(6, 2, 4) for part in parts[:3]}
    arrays[f"attention/{parts[3]}/kernel"] = normal(2, 4, 7)
    if bias:
        arrays |= {f"attention/{part}/bias": normal(2, 4) for part in parts[:3]}
        arrays[f"attention/{parts[3]}/bias"] = normal(7)
    arrays["head/kernel"], arrays["head/bias"] = normal(7, 3), normal(3)
    *projections, out, head = (matrix for _, matrix in matrices(opened(tmp_path, arrays, how)))
    for part, matrix in zip(parts[:3], projections, strict=True):
        expected = np.einsum("ni,ihd->nhd", x, arrays[f"attention/{part}/kernel"])
        np.testing.assert_allclose((x @ matrix.T).reshape(5, 2, 4), expected, rtol=1e-5, atol=1e-6)
    z = normal(5, 2, 4)
    expected = np.einsum("nhd,hdo->no", z, arrays[f"attention/{parts[3]}/kernel"])
    np.testing.assert_allclose(z.reshape(5, 8) @ out.T, expected, rtol=1e-5, atol=1e-6)
    assert head.shape == (3, 7)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_separable_convolutions(multiplier: int, tmp_path: Path) -> None:
    """A bias of as many outputs as the kernel is high says nothing of the depthwise kernel."""
    keras = library("keras")
    layer = keras.layers.SeparableConv2D(3, 3, depth_multiplier=multiplier, name="separable")
    x = normal(2, 6, 6, 4)
    y = layer(torch.from_numpy(x)).detach().numpy()
    arrays = {f"separable/{each.name}": each.numpy() for each in layer.weights}
    for how in ("dotted", "slashed"):
        (_, depthwise), (_, pointwise) = matrices(opened(tmp_path, arrays, how))
        hidden = functional.conv2d(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(depthwise).reshape(4 * multiplier, 1, 3, 3),
            groups=4,
        )
        found = functional.conv2d(hidden, torch.from_numpy(pointwise)[:, :, None, None])
        np.testing.assert_allclose(found.numpy().transpose(0, 2, 3, 1), y, atol=1e-5)


@pytest.mark.parametrize("name", ["depthwise_conv2d", "conv_dw_1", "expanded_conv_depthwise"])
def test_depthwise_kernels_without_a_bias_are_told_by_name(name: str, tmp_path: Path) -> None:
    arrays = {f"{name}/kernel": normal(3, 3, 8, 1), "conv_pw_1/kernel": normal(1, 1, 8, 6), "head/kernel": normal(6, 3)}
    with opened(tmp_path, arrays) as checkpoint:
        shapes = {layer.name: layer.shape for layer in plan_weights(checkpoint).layers}
    assert shapes[f"{name}/kernel"] == (8, 1, 3, 3)
    assert shapes["conv_pw_1/kernel"] == (6, 8, 1, 1)


def test_a_transposed_convolution_is_told_by_class(tmp_path: Path) -> None:
    """Without a bias: Keras' class has its outputs before its inputs, Flax' not."""
    for name, shape in (("conv2d_transpose_1", (4, 6, 3, 3)), ("ConvTranspose_0", (6, 4, 3, 3))):
        with opened(tmp_path, {f"{name}/kernel": normal(3, 3, 4, 6)}) as checkpoint:
            assert [layer.shape for layer in plan_weights(checkpoint).layers] == [shape]


def test_haiku(tmp_path: Path) -> None:
    arrays = {"net/~/conv2_d/w": normal(3, 3, 4, 6), "net/~/linear/w": normal(6, 5), "net/~/linear/b": normal(5),
              "net/~/batch_norm/~/mean_ema/average": normal(1, 1, 1, 6)}  # fmt: skip
    for how in ("dotted", "slashed", "colon"):
        with opened(tmp_path, arrays, how) as checkpoint:
            plan = plan_weights(checkpoint)
            assert [layer.shape for layer in plan.layers] == [(6, 4, 3, 3), (5, 6)]
            assert plan.parameters == 216 + 35


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        # torch's parameters that are called kernel, beside weights
        ({"conv.weight": (4, 3, 3, 3), "blur.kernel": (4, 5), "blur.bias": (5,)}, {"blur.kernel": (4, 5)}),
        # only kernels: nothing tells
        ({"a.kernel": (4, 5)}, {"a.kernel": (4, 5)}),
        ({"a.kernel": (4, 5), "norm.weight": (4,)}, {"a.kernel": (4, 5)}),
        # names that Flax alone gives
        ({"params.a.kernel": (4, 5)}, {"params.a.kernel": (5, 4)}),
        ({"Dense_0.kernel": (4, 5)}, {"Dense_0.kernel": (5, 4)}),
        ({"a.kernel": (4, 5), "n.scale": (5,)}, {"a.kernel": (5, 4)}),
        # successive layers fit together one way
        ({"a1.kernel": (4, 5), "a2.kernel": (5, 6), "a3.kernel": (6, 7)}, {"a3.kernel": (7, 6)}),
        ({"a1.kernel": (5, 4), "a2.kernel": (6, 5), "a3.kernel": (7, 6)}, {"a3.kernel": (7, 6)}),
        # one bias tells for all
        ({"a.kernel": (4, 5), "b.kernel": (6, 9), "b.bias": (9,)}, {"a.kernel": (5, 4), "b.kernel": (9, 6)}),
        ({"a.kernel": (4, 5), "b.kernel": (9, 6), "b.bias": (9,)}, {"a.kernel": (4, 5), "b.kernel": (9, 6)}),
        ({"a/kernel": (4, 5), "b/kernel": (9, 6), "b/bias": (9,)}, {"a/kernel": (4, 5), "b/kernel": (9, 6)}),
        # each its own
        ({"a.kernel": (4, 5), "a.bias": (5,), "b.kernel": (9, 6), "b.bias": (9,)},
         {"a.kernel": (5, 4), "b.kernel": (9, 6)}),
        # without a module, or of another name
        ({"kernel": (4, 5)}, {"kernel": (4, 5)}),
        ({"a/weight": (4, 5), "b/kernels": (3, 6)}, {"a/weight": (4, 5), "b/kernels": (3, 6)}),
        # a recurrent kernel alone
        ({"r.kernel": (7, 16), "r.recurrent_kernel": (4, 16)}, {"r.kernel": (16, 7)}),
        ({"r.kernel": (16, 7), "r.recurrent_kernel": (16, 4)}, {"r.kernel": (16, 7)}),
        # of Sonnet and TF-Slim: what biases tell, and nothing else
        ({"a/w": (4, 5), "a/b": (5,), "c/w": (3, 7)}, {"a/w": (5, 4), "c/w": (7, 3)}),
        ({"a/w": (5, 4), "a/b": (5,)}, {"a/w": (5, 4)}),
        ({"a/w": (4, 5)}, {"a/w": (4, 5)}),
        ({"a/weights": (3, 3, 4, 5), "a/biases": (5,)}, {"a/weights": (5, 4, 3, 3)}),
        ({"a/weights": (5, 4, 3, 3), "a/biases": (5,)}, {"a/weights": (5, 4, 3, 3)}),
        ({"~/a/weights": (4, 5)}, {"~/a/weights": (4, 5)}),
        # a kernel as high as its outputs are many
        ({"conv1d_transpose/kernel": (4, 4, 6), "conv1d_transpose/bias": (4,), "a/kernel": (5, 7), "a/bias": (7,)},
         {"conv1d_transpose/kernel": (4, 6, 4), "a/kernel": (7, 5)}),
        # of flax.nnx
        ({"a.kernel.value": (4, 5), "a.bias.value": (5,)}, {"a.kernel": (5, 4)}),
    ],
)  # fmt: skip
def test_the_file_tells_where_outputs_are(
    shapes: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    save_file({name: normal(*shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    with open_ref(expand(tmp_path / "x.safetensors")[0]) as checkpoint:
        plan_weights(checkpoint)
        found = {name: tensor.shape for name, tensor in checkpoint.view.tensors.items()}  # type: ignore[attr-defined]
    assert {name: found[name] for name in expected} == expected


def test_what_nothing_tells_is_said(tmp_path: Path) -> None:
    with opened(tmp_path, {"a/kernel": normal(4, 5)}, "dotted") as checkpoint:
        (note,) = plan_weights(checkpoint).notes
    assert note.startswith("a.kernel and its like are taken in torch's layout")


def test_arrays_that_disagree_are_refused(tmp_path: Path) -> None:
    arrays = {"a/kernel": normal(4, 5), "a/bias": normal(5), "b/kernel": normal(9, 6), "b/bias": normal(9),
              "c/kernel": normal(3, 4)}  # fmt: skip
    with opened(tmp_path, arrays) as checkpoint, pytest.raises(WeightsError, match="c/kernel has no bias") as caught:
        plan_weights(checkpoint)
    assert "slashed.npz: a/kernel has its outputs last and b/kernel first" in str(caught.value)


def test_stacked_layers_are_refused(tmp_path: Path) -> None:
    arrays = {"layers/mlp/kernel": normal(3, 8, 6), "layers/mlp/bias": normal(3, 6), "head/kernel": normal(6, 4)}
    with opened(tmp_path, arrays) as checkpoint, pytest.raises(WeightsError, match=r"stacked by nn\.scan"):
        plan_weights(checkpoint)


def test_stacked_layers_without_biases_are_told_by_their_norms(tmp_path: Path) -> None:
    layers = "params/decoder/layers"
    arrays = {f"{layers}/mlp/wi/kernel": normal(3, 8, 6), f"{layers}/mlp/wo/kernel": normal(3, 6, 8)}
    arrays["params/head/kernel"] = normal(8, 4)
    with opened(tmp_path, arrays) as checkpoint:  # the control
        assert len(plan_weights(checkpoint).layers) == 3
    arrays[f"{layers}/norm/scale"] = normal(3, 8)
    with opened(tmp_path, arrays) as checkpoint, pytest.raises(WeightsError, match=r"stacked by nn\.scan"):
        plan_weights(checkpoint)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.sources.array_layouts._CHUNK", 64)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("how", ["dotted", "slashed", "big-endian"])
def test_rows_are_those_of_the_whole(how: str, flax_arrays: Arrays, tmp_path: Path) -> None:
    arrays = flax_arrays | {"params/attention/query/kernel": normal(6, 2, 4)}
    arrays["params/attention/query/bias"] = normal(2, 4)
    with opened(tmp_path, arrays, how) as checkpoint:
        view: TensorView = checkpoint.view  # type: ignore[attr-defined]
        for tensor in view.tensors.values():
            whole = tensor.read()
            assert whole.shape == tensor.shape
            for start in range(tensor.shape[0]):
                np.testing.assert_array_equal(tensor.rows(start, start + 1), whole[start : start + 1])
            np.testing.assert_array_equal(tensor.rows(0, 2), whole[:2])
