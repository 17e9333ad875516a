"""Layouts of TensorFlow and Keras, whose weights have their outputs last, turned to torch's (out, in, *kernel).

For readers that know the kind of each weight from a configuration or a graph. `array_layouts` has the same layouts for
files in which only names tell; both give the same tensors. Transposed convolutions come as (out, in, *kernel) in both,
with outputs first and not as torch keeps them, so their names must not end in ``weight``, which would say torch's.

Sources: shapes in the documentation of keras.layers and of tf.nn (``conv2d``: HWIO; ``depthwise_conv2d``: height,
width, inputs, multiplier; ``conv2d_transpose``: height, width, outputs, inputs); gates i f c o and z r h in the call
methods of keras.layers.LSTMCell and GRUCell, i f g o and r z n in the documentation of torch.nn.LSTM and GRU.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.lazy_tensors import turned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.sources.files.lazy_tensors import LazyTensor

__all__ = ["KERAS_GRU", "LAYOUTS", "Layout", "in_gates", "layout_of", "outputs_first"]

KERAS_GRU = (1, 0, 2)
"""Where torch's gates r z n are among Keras' z r h. Those of an LSTM have torch's order."""

LAYOUTS = ("as_is", "dense", "conv", "depthwise", "transposed")
"""Kinds that `layout_of` knows."""


class Layout(NamedTuple):
    """How a stored array is turned: its ``axes`` in the new order, and the ``shape`` after that."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]


def layout_of(kind: str, shape: Sequence[int], *, inputs: int = 1) -> Layout:
    """How an array with outputs last is turned.

    Parameters
    ----------
    kind
        One of `LAYOUTS`. ``as_is``: vectors, embeddings (entries, width), and what is in torch's layout already.
        ``dense``: (*inputs, *outputs), also of recurrent layers and of attention heads; gives (outputs, inputs).
        ``conv``: (*kernel, in, out); gives (out, in, *kernel). ``depthwise``: (*kernel, in, multiplier); gives
        (in multiplier, 1, *kernel). ``transposed``: (*kernel, out, in); gives (out, in, *kernel).
    shape
        As stored.
    inputs
        Number of leading axes of a dense kernel that are inputs: 1 for a projection to heads (in, heads, width), 2 for
        one from heads (heads, width, out).

    Raises
    ------
    WeightsError
        The array has too few axes for its kind.
    """
    shape = tuple(shape)
    axes = tuple(range(len(shape)))
    if kind == "as_is":
        return Layout(axes, shape)
    if len(shape) < (inputs + 1 if kind == "dense" else 2):
        raise WeightsError(f"a kernel of shape {str(shape)[:80]} is no {kind} kernel", "save the model again")
    if kind == "dense":
        joined = (math.prod(shape[inputs:]), math.prod(shape[:inputs]))
        return Layout(axes[inputs:] + axes[:inputs], joined)
    *window, before, last = axes
    extents = shape[:-2]
    if kind == "depthwise":
        return Layout((before, last, *window), (shape[before] * shape[last], 1, *extents))
    if kind == "transposed":
        return Layout((before, last, *window), (shape[before], shape[last], *extents))
    return Layout((last, before, *window), (shape[last], shape[before], *extents))


def outputs_first(tensor: LazyTensor, kind: str, *, inputs: int = 1) -> LazyTensor:
    """A stored tensor in torch's layout; ``kind`` and ``inputs`` as in `layout_of`, whose errors it raises."""
    axes, shape = layout_of(kind, tensor.shape, inputs=inputs)
    return turned(tensor, axes, shape)


def in_gates(tensor: LazyTensor, order: Sequence[int]) -> LazyTensor:
    """A tensor of gates stacked along its first axis, with the gates in another order. It is read whole.

    Parameters
    ----------
    tensor
        Shape (gates units, ...).
    order
        For each new gate, its place among the stored ones.

    Raises
    ------
    WeightsError
        The first axis is no multiple of the number of gates.
    """
    gates, width = len(order), bits_of(tensor.dtype) // 8
    if not tensor.shape or tensor.shape[0] % gates or width < 1:
        raise WeightsError(
            f"a tensor of shape {str(tensor.shape)[:80]} cannot hold {gates} gates", "save the model again"
        )
    if math.prod(tensor.shape) == 0 or tuple(order) == tuple(range(gates)):
        return tensor

    def span(start: int, stop: int) -> memoryview:
        stored = np.frombuffer(tensor.span(0, tensor.bytes), np.uint8).reshape(gates, -1)
        data: memoryview = stored[list(order)].reshape(-1).data
        return data[start:stop]

    return replace(tensor, span=span, whole=True)
