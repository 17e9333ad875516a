"""A recurrent network has the same layers, in the same order, from every format that keeps its gates in another one.

torch stacks i f g o and r z n; Keras i f c o and z r h; ONNX i o f c and z r h; TensorFlow's own cells i j f o.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from registry.sources import expand, open_module, open_ref
from tests.conftest import missing
from tests.layouts.measured import distances, read
from tests.sources import tensorflow_files as files
from tests.sources.onnx_models import model_of, saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.layouts.measured import Read

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch and NumPy, about Keras
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]
WIDTH, UNITS = 7, 5
FULLY_CONNECTED = 9  # of TensorFlow Lite's operators
KERAS = {"gru": (1, 0, 2), "lstm": (0, 1, 2, 3)}  # places of Keras' gates among torch's
ONNX = {"gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}


class Network(nn.Module):
    """A recurrent layer and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = nn.GRU(WIDTH, UNITS) if kind == "gru" else nn.LSTM(WIDTH, UNITS)
        self.head = nn.Linear(UNITS, 3)


def gated(kind: str) -> Network:
    torch.manual_seed(1)
    return Network(kind)


def moved(tensor: torch.Tensor, order: tuple[int, ...]) -> np.ndarray:
    """Gates stacked along the first axis in another order."""
    parts = np.split(tensor.detach().numpy(), len(order))
    return np.concatenate([parts[place] for place in order])


def arrays(module: Network, kind: str) -> dict[str, np.ndarray]:
    """The layer's kernels and bias as Keras has them, outputs last; of a GRU a bias each for input and state."""
    order = KERAS[kind]
    biases = [moved(getattr(module.rnn, f"bias_{side}_l0"), order) for side in ("ih", "hh")]
    return {
        "kernel": moved(module.rnn.weight_ih_l0, order).T.copy(),
        "recurrent_kernel": moved(module.rnn.weight_hh_l0, order).T.copy(),
        "bias": np.stack(biases) if kind == "gru" else biases[0] + biases[1],
    }


def keras_file(name: str) -> Callable[[Network, str, Path], Path]:
    def write(module: Network, kind: str, folder: Path) -> Path:
        os.environ["KERAS_BACKEND"] = "torch"
        try:
            keras: Any = importlib.import_module("keras")
        except ImportError:
            missing("keras of the dependency group layouts")
        keras.utils.clear_session()  # layers are numbered from the first again
        layer = keras.layers.GRU if kind == "gru" else keras.layers.LSTM
        model = keras.Sequential([keras.Input((4, WIDTH)), layer(UNITS), keras.layers.Dense(3)])
        kernels = arrays(module, kind)
        head = [module.head.weight.detach().numpy().T, module.head.bias.detach().numpy()]
        model.set_weights([kernels[each] for each in ("kernel", "recurrent_kernel", "bias")] + head)
        x = torch.randn(2, 4, WIDTH)
        with torch.no_grad():  # that it is the same network
            expected = module.head(module.rnn(x.transpose(0, 1))[0][-1])
            np.testing.assert_allclose(np.asarray(model(x).detach()), expected, rtol=1e-4, atol=1e-6)
        path = folder / name
        (model.save_weights if name.endswith(".weights.h5") else model.save)(path)
        return path

    return write


def checkpoint(module: Network, kind: str, folder: Path) -> Path:
    kernels = {f"{kind}/{kind}_cell/{name}": array for name, array in arrays(module, kind).items()}
    head = {"z_head/kernel": module.head.weight.detach().numpy().T.copy()}
    return files.write_checkpoint(folder / "model", kernels | head)


def frozen(module: Network, kind: str, folder: Path) -> Path:
    """As TensorFlow freezes it: constants are named after the operations that read the variables."""
    kernels, cell = arrays(module, kind), f"m/{kind}/{kind}_cell"
    path = folder / "model.pb"
    path.write_bytes(files.graph(
        files.node("x", "Placeholder"), files.const(f"{cell}/MatMul/ReadVariableOp", kernels["kernel"]),
        files.node(f"{cell}/MatMul", "MatMul", "x", f"{cell}/MatMul/ReadVariableOp"),
        files.const(f"{cell}/MatMul_1/ReadVariableOp", kernels["recurrent_kernel"]),
        files.node(f"{cell}/MatMul_1", "MatMul", f"{cell}/MatMul", f"{cell}/MatMul_1/ReadVariableOp"),
        files.const("m/z_head/MatMul/ReadVariableOp", module.head.weight.detach().numpy().T.copy()),
        files.node("m/z_head/MatMul", "MatMul", f"{cell}/MatMul_1", "m/z_head/MatMul/ReadVariableOp"),
    ))  # fmt: skip
    return path


def lite(module: Network, kind: str, folder: Path) -> Path:
    """As the converter unrolls a layer: products, whose weights are named after them."""
    kernels, cell = arrays(module, kind), f"m/{kind}/{kind}_cell"
    weights = [kernels["kernel"].T, kernels["recurrent_kernel"].T, module.head.weight.detach().numpy()]
    named = (f"{cell}/MatMul", f"{cell}/MatMul_1", "m/z_head/MatMul")
    tensors = [files.lite_tensor("x", (1, WIDTH), 0)]
    tensors += [files.lite_tensor(name, weight.shape, place) for place, (name, weight) in
                enumerate(zip(named, weights, strict=True), 1)]  # fmt: skip
    tensors += [files.lite_tensor(f"y{place}", (1, weight.shape[0]), 0) for place, weight in enumerate(weights)]
    steps = [files.operator(0, [source, place, -1], [place + 3]) for place, source in ((1, 0), (2, 4), (3, 5))]
    path = folder / "model.tflite"
    path.write_bytes(
        files.lite([FULLY_CONNECTED], [np.ascontiguousarray(w).tobytes() for w in weights], tensors, steps)
    )
    return path


def in_onnx(prefix: str) -> Callable[[Network, str, Path], Path]:
    """The operators GRU and LSTM, whose nodes have names of torch's modules, of TensorFlow's, or none."""

    def write(module: Network, kind: str, folder: Path) -> Path:
        order = ONNX[kind]
        biases = np.concatenate([moved(getattr(module.rnn, f"bias_{side}_l0"), order) for side in ("ih", "hh")])
        tensors = {
            "w__1": moved(module.rnn.weight_ih_l0, order)[None], "r__2": moved(module.rnn.weight_hh_l0, order)[None],
            "b__3": biases[None], "h__4": module.head.weight.detach().numpy().T.copy(),
        }  # fmt: skip
        node = onnx.helper.make_node
        nodes = [
            node(kind.upper(), ["x", "w__1", "r__2", "b__3"], ["a"], f"{prefix}rnn/{kind.upper()}" if prefix else "",
                 hidden_size=UNITS),
            node("MatMul", ["a", "h__4"], ["y"], f"{prefix}z_head/MatMul" if prefix else ""),
        ]  # fmt: skip
        return saved(folder, model_of(nodes, tensors))

    return write


def safetensors(module: Network, kind: str, folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    return path


def numpy_file(module: Network, kind: str, folder: Path) -> Path:
    kernels = {f"rnn/{name}": array for name, array in arrays(module, kind).items()}
    np.savez(folder / "m.npz", **kernels, **{"z_head/kernel": module.head.weight.detach().numpy().T,
                                             "z_head/bias": module.head.bias.detach().numpy()})  # fmt: skip
    return folder / "m.npz"


WRITERS: dict[str, Callable[[Network, str, Path], Path]] = {
    "safetensors": safetensors, "model.h5": keras_file("model.h5"), "model.keras": keras_file("model.keras"),
    "model.weights.h5": keras_file("model.weights.h5"), "checkpoint": checkpoint, "frozen graph": frozen, "lite": lite,
    "npz": numpy_file, "onnx of torch": in_onnx("/"), "onnx of TensorFlow": in_onnx("model/"), "onnx": in_onnx(""),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("format_", WRITERS)
def test_gates_are_layers_in_torchs_order(format_: str, kind: str, tmp_path: Path) -> None:
    module = gated(kind)
    live: Read = read(open_module(module))
    assert len(live.matrices) == 2 * len(KERAS[kind]) + 1
    found = read(open_ref(expand(WRITERS[format_](module, kind, tmp_path))[0]))
    assert [(layer.shape, layer.kind) for layer in found.plan.layers] == [
        (layer.shape, layer.kind) for layer in live.plan.layers
    ]
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=layer.name)
    assert set(distances(live.measured, found.measured).values()) == {0.0}


def test_gates_of_tensorflows_own_cells(tmp_path: Path) -> None:
    """Theirs have one kernel for input and state, with gates i j f o, the second of which is torch's third."""
    kernel = np.arange(12.0 * 4 * UNITS, dtype=np.float32).reshape(12, 4 * UNITS) ** 0.5
    path = files.write_checkpoint(tmp_path / "model", {"rnn/lstm_cell/kernel": kernel})
    found = read(open_ref(expand(path)[0]))
    for matrix, place in zip(found.matrices, (0, 2, 1, 3), strict=True):
        np.testing.assert_array_equal(matrix, np.split(kernel.T, 4)[place])
