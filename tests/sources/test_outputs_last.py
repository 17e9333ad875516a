"""Weights with outputs last, turned: against what TensorFlow's definitions say, and against `array_layouts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from registry.errors import WeightsError
from registry.sources import open_ref
from registry.sources.files.lazy_tensors import in_memory
from registry.sources.outputs_last import KERAS_GRU, in_gates, layout_of, outputs_first
from registry.types import ModelRef

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def turned(stored: np.ndarray, kind: str, *, inputs: int = 1) -> np.ndarray:
    return outputs_first(in_memory(stored), kind, inputs=inputs).values()


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_dense_kernel_multiplies_the_same(inputs: int) -> None:
    kernel = array(4, 3, 5)
    x = array(*kernel.shape[:inputs])
    expected = np.tensordot(x, kernel, inputs).reshape(-1)
    np.testing.assert_allclose(turned(kernel, "dense", inputs=inputs) @ x.reshape(-1), expected, rtol=1e-5)


def test_a_convolution_is_as_the_definition_of_tensorflow() -> None:
    """tf.nn.conv2d: out[i, j, k] = sum over di, dj, q of in[i + di, j + dj, q] kernel[di, dj, q, k]."""
    kernel, image = array(2, 3, 4, 5), array(6, 7, 4)
    expected = np.zeros((5, 5, 5), np.float32)
    for i in range(5):
        for j in range(5):
            expected[:, i, j] = np.einsum("abq,abqk->k", image[i : i + 2, j : j + 3], kernel)
    weight = torch.from_numpy(turned(kernel, "conv").copy())
    given = torch.nn.functional.conv2d(torch.from_numpy(image).permute(2, 0, 1), weight)
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_depthwise_convolution_is_as_the_definition_of_tensorflow() -> None:
    """tf.nn.depthwise_conv2d: output channel k of input q is q multiplier + k."""
    kernel, image = array(2, 3, 4, 2), array(6, 7, 4)
    expected = np.zeros((8, 5, 5), np.float32)
    for q in range(4):
        for k in range(2):
            for i in range(5):
                for j in range(5):
                    expected[2 * q + k, i, j] = (image[i : i + 2, j : j + 3, q] * kernel[:, :, q, k]).sum()
    weight = torch.from_numpy(turned(kernel, "depthwise").copy())
    given = torch.nn.functional.conv2d(torch.from_numpy(image).permute(2, 0, 1), weight, groups=4)
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_adds_the_kernel_once_for_each_input() -> None:
    """tf.nn.conv2d_transpose is the gradient of conv2d: each input adds kernel[di, dj, k, q] at its place."""
    kernel, image = array(2, 3, 5, 4), array(3, 3, 4)
    expected = np.zeros((5, 4, 5), np.float32)
    for i in range(3):
        for j in range(3):
            expected[:, i : i + 2, j : j + 3] += np.einsum("abkq,q->kab", kernel, image[i, j])
    weight = torch.from_numpy(turned(kernel, "transposed").copy()).transpose(0, 1)  # torch keeps (in, out, ...)
    given = torch.nn.functional.conv_transpose2d(torch.from_numpy(image).permute(2, 0, 1), weight)
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_same_tensors_as_from_names(tmp_path: Path) -> None:
    """What `array_layouts` makes of Keras' names is what the kinds give."""
    arrays = {
        "conv2d/kernel:0": (array(3, 3, 4, 6), "conv", array(6)),
        "depthwise_conv2d/depthwise_kernel:0": (array(3, 3, 6, 2), "depthwise", array(12)),
        "conv2d_transpose/kernel:0": (array(3, 3, 7, 12), "transposed", array(7)),
        "dense/kernel:0": (array(7, 9), "dense", array(9)),
        "conv1d/kernel:0": (array(3, 4, 6), "conv", array(6)),
        "conv3d/kernel:0": (array(2, 3, 3, 4, 6), "conv", array(6)),
    }
    saved: dict[str, Any] = {name: kernel for name, (kernel, _, _) in arrays.items()}
    saved |= {f"{name.split('/')[0]}/bias:0": bias for name, (_, _, bias) in arrays.items()}
    np.savez(tmp_path / "x.npz", **saved)
    with open_ref(ModelRef("npz", str(tmp_path / "x.npz"), "x")) as opened:
        for name, (kernel, kind, _) in arrays.items():
            np.testing.assert_array_equal(turned(kernel, kind), opened.read(name.removesuffix(":0")))


def test_gates_of_a_gru_are_those_of_torch() -> None:
    """A GRU step of torch with Keras' kernels, turned and reordered, is the step that Keras documents."""
    units, width = 3, 4
    kernel, recurrent = array(width, 3 * units), array(units, 3 * units)
    x, h = array(width), array(units)
    z_x, r_x, h_x = np.split(x @ kernel, 3)
    z_h, r_h, h_h = np.split(h @ recurrent, 3)
    z, r = 1 / (1 + np.exp(-z_x - z_h)), 1 / (1 + np.exp(-r_x - r_h))
    expected = z * h + (1 - z) * np.tanh(h_x + r * h_h)  # keras.layers.GRUCell with reset_after
    cell = torch.nn.GRUCell(width, units, bias=False)
    for parameter, stored in ((cell.weight_ih, kernel), (cell.weight_hh, recurrent)):
        ordered = in_gates(outputs_first(in_memory(stored), "dense"), KERAS_GRU).values()
        parameter.data = torch.from_numpy(np.array(ordered))
    given = cell(torch.from_numpy(x)[None], torch.from_numpy(h)[None])[0]
    np.testing.assert_allclose(given.detach().numpy(), expected, rtol=1e-5)


def test_parts_of_reordered_gates_are_read_alone() -> None:
    tensor = in_gates(in_memory(array(6, 2)), (2, 0, 1))
    assert bytes(tensor.span(8, 24)) == bytes(tensor.span(0, 48))[8:24]
    assert in_gates(tensor, (0, 1, 2)) is tensor


@pytest.mark.parametrize(("kind", "shape"), [("dense", (3,)), ("conv", (3,)), ("depthwise", ()), ("transposed", (1,))])
def test_too_few_axes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=f"is no {kind} kernel"):
        layout_of(kind, shape)


def test_gates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WeightsError, match="cannot hold 3 gates"):
        in_gates(in_memory(array(4, 2)), KERAS_GRU)
