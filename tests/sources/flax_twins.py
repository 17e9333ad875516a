"""``python -m tests.sources.flax_twins TWIN IN.npz OUT.npz``: what a network in Flax answers.

JAX forbids a process to fork, which other tests do, so that it has one of its own. Arrays of ``IN.npz`` are the
variables under slashed names, and the input ``x``; ``OUT.npz`` gets the answer ``y``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from flax import linen, traverse_util


class Net(linen.Module):
    """The network of `test_array_layouts`."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        """Logits of images (n, height, width, channels)."""
        x = linen.Conv(4, (3, 2), padding="VALID", name="conv1")(x)
        x = linen.Conv(8, (3, 3), padding="VALID", feature_group_count=4, name="conv2")(x)
        x = linen.ConvTranspose(6, (3, 3), (2, 2), padding="VALID", name="deconv3")(x)
        x = linen.BatchNorm(use_running_average=True, name="norm")(x)
        return linen.Dense(5, name="fc")(x.mean((1, 2)))


class Lstm(linen.Module):
    """A recurrent layer of four units."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        """Hidden states of sequences (n, steps, channels)."""
        return linen.RNN(linen.OptimizedLSTMCell(4, name="lstm"))(x)


if __name__ == "__main__":
    twin, given, answer = sys.argv[1:]
    with np.load(given) as arrays:
        variables = dict(arrays)
    x = variables.pop("x")
    tree = traverse_util.unflatten_dict(variables, sep="/")  # type: ignore[no-untyped-call]
    np.savez(answer, y=np.asarray({"net": Net(), "lstm": Lstm()}[twin].apply(tree, x)))
