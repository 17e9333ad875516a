"""Conversion of JAX and Keras array layouts to torch's (out, in, *kernel), recognised by array names.

An array whose name is a path with slashes ending in ``kernel`` (Flax and Haiku trees flattened by ``/``, Keras'
``conv/kernel:0``) has its outputs last. Any other name is taken to be in torch's layout. Transposed convolutions are
treated as convolutions of the same shape, because their names do not distinguish them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["torch_layout"]

_KERNEL = re.compile(r"(?:(.*)/)?(?:(\w+)/)(depthwise_kernel|recurrent_kernel|kernel)(?::0)?", re.DOTALL)


def torch_layout(name: str, shape: tuple[int, ...], names: Container[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Permutation of an array's axes to torch's layout, and the resulting shape.

    Parameters
    ----------
    name
        Name of the array.
    shape
        Shape as stored.
    names
        All array names; attention heads are recognised by a sibling ``query/kernel``.

    Returns
    -------
    tuple of two tuples of int
        Axes and shape; ``(0, 1, ...), shape`` if the array is in torch's layout.
    """
    dimensions = len(shape)
    match = _KERNEL.fullmatch(name)
    if match is None or dimensions < 2:
        return tuple(range(dimensions)), shape
    above, own, kind = match.groups()
    if kind == "depthwise_kernel" and dimensions == 4:
        height, width, inputs, multiplier = shape
        return (2, 3, 0, 1), (inputs * multiplier, 1, height, width)
    if dimensions == 3 and own in ("query", "key", "value", "out") and f"{above}/query/kernel" in names:
        if own == "out":  # (heads, width, outputs)
            return (2, 0, 1), (shape[2], shape[0] * shape[1])
        return (1, 2, 0), (shape[1] * shape[2], shape[0])
    *kernel, inputs, outputs = range(dimensions)
    axes = (outputs, inputs, *kernel)
    return axes, tuple(shape[axis] for axis in axes)
