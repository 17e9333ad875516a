"""Variants of a trained network made without training: shuffled, pruned, quantised, rescaled and permuted copies."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.training.symmetries import permuted, rescaled
from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.types import LayerMatrix

__all__ = ["VARIANTS", "each_matrix", "half", "pruned", "quantised", "shuffled", "write_variants"]

State = dict[str, "NDArray[Any]"]

VARIANTS = ("shuffled", "pruned-50", "pruned-90", "int8", "float16", "units-rescaled", "layers-rescaled", "permuted")
"""File names of `write_variants`; ``units-rescaled`` only if the family allows it."""


def shuffled(matrix: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.floating]:
    """The entries in random order, which keeps their distribution and removes learned structure."""
    return rng.permutation(matrix.ravel()).reshape(matrix.shape)


def pruned(matrix: NDArray[np.floating], fraction: float) -> NDArray[np.floating]:
    """The entries with the given fraction of smallest magnitudes set to zero."""
    cut = round(fraction * matrix.size)
    result = matrix.ravel().copy()
    result[np.argsort(np.abs(result), kind="stable")[:cut]] = 0.0
    return result.reshape(matrix.shape)


def quantised(matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    """The entries rounded to 255 levels, symmetric about zero up to the largest magnitude, and converted back."""
    step = float(np.abs(matrix).max()) / 127
    return np.asarray(np.rint(matrix / step) * step).astype(matrix.dtype)


def half(state: Mapping[str, NDArray[Any]]) -> State:
    """Every floating-point tensor in float16."""
    return {
        name: values.astype(np.float16) if np.issubdtype(values.dtype, np.floating) else values
        for name, values in state.items()
    }


def each_matrix(
    state: Mapping[str, NDArray[Any]],
    layers: Sequence[LayerMatrix],
    change: Callable[[NDArray[np.floating]], NDArray[np.floating]],
) -> State:
    """The weights with every layer matrix changed separately, including gates and projections of fused tensors."""
    result = dict(state)
    for layer in layers:
        tensor = np.moveaxis(result[layer.tensor], layer.axis, 0).copy()
        tensor[layer.start : layer.stop] = change(tensor[layer.start : layer.stop])
        result[layer.tensor] = np.ascontiguousarray(np.moveaxis(tensor, 0, layer.axis))
    return result


def write_variants(trained: Path, family: str, folder: Path) -> None:
    """Write the variants of one trained network into ``folder``; random ones use a seed derived from its name."""
    state = load_file(trained)
    with open_ref(expand(trained)[0]) as checkpoint:
        layers = plan_weights(checkpoint).layers
    rng = np.random.default_rng(zlib.crc32(f"{trained.parent.name}/{trained.stem}".encode()))
    made: dict[str, State | None] = {
        "shuffled": each_matrix(state, layers, lambda matrix: shuffled(matrix, rng)),
        "pruned-50": each_matrix(state, layers, lambda matrix: pruned(matrix, 0.5)),
        "pruned-90": each_matrix(state, layers, lambda matrix: pruned(matrix, 0.9)),
        "int8": each_matrix(state, layers, quantised),
        "float16": half(state),
        "units-rescaled": rescaled(state, family, rng),
        "layers-rescaled": each_matrix(state, layers, lambda m: (m * 10 ** rng.uniform(-1.0, 1.0)).astype(m.dtype)),
        "permuted": permuted(state, family, rng),
    }
    folder.mkdir(parents=True)
    for name in VARIANTS:
        variant = made[name]
        if variant is not None:
            save_file(variant, folder / f"{name}.safetensors")
