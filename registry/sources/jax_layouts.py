"""From the layout of JAX's and Keras' libraries to torch's (out, in, *kernel), where names say that it is theirs.

An array whose name is a path with slashes and ends in ``kernel`` comes as those libraries keep it, the outputs last:
Flax and Haiku trees flattened by ``/``, Keras' ``conv/kernel:0``. Any other name is one of torch's, and left alone.
Transposed convolutions are as the convolutions of the same shape: their names do not tell them apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["torch_layout"]

_KERNEL = re.compile(r"(?:(.*)/)?(?:(\w+)/)(depthwise_kernel|recurrent_kernel|kernel)(?::0)?", re.DOTALL)


def torch_layout(name: str, shape: tuple[int, ...], names: Container[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order of the axes that brings an array to torch's layout, and the shape it then has.

    Parameters
    ----------
    name
        The array's.
    shape
        As it is stored.
    names
        All names beside it: heads of an attention are known by a sibling ``query/kernel``.

    Returns
    -------
    tuple of two tuples of int
        ``(0, 1, ...), shape`` where the array is left as it is.
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
