"""Spectra of torchvision networks against the bare cost of their linear algebra, and two cores against one.

The networks are randomly initialised: the work depends only on the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.speed.harness import Comparison, Task, interleaved
from registry.sources import layer_matrix, open_module, plan_weights
from registry.spectral import layer_spectrum, network_spectra

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

__all__ = ["Network", "bare", "compare", "network", "operands"]

OVERHEAD = 1.25
SPEED_UP = 1.7


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network in memory: its layers, and W of each by position, float32 (p, q)."""

    name: str
    module: torch.nn.Module
    layers: tuple[LayerMatrix, ...]
    weights: tuple[NDArray[np.floating], ...]

    def spectra(self, workers: int) -> tuple[Spectrum, ...]:
        """Spectra of the layers, computed by ``workers`` threads."""
        return network_spectra(self.layers, lambda layer: self.weights[layer.position], workers=workers)


def network(name: str, seed: int = 0) -> Network:
    """A torchvision network by name, initialised at random."""
    import torch
    import torchvision

    torch.manual_seed(seed)
    module = torchvision.models.get_model(name, weights=None).eval()
    checkpoint = open_module(module, name)
    layers = plan_weights(checkpoint).layers
    return Network(name, module, layers, tuple(layer_matrix(checkpoint, layer) for layer in layers))


def operands(weights: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
    """The matrices in the form BLAS uses: float64, C order, the smaller side as rows."""
    return [np.array(W if W.shape[0] <= W.shape[1] else W.T, dtype=np.float64, order="C") for W in weights]


def bare(wide: Sequence[NDArray[np.float64]]) -> None:
    """Gram products and eigenvalues only: without copies, scaling or checks."""
    for W in wide:
        np.linalg.eigvalsh(W @ W.T)


def compare(name: str, rounds: int, threads: Sequence[int] = (1, 2)) -> list[Comparison]:
    """Our time over the bare cost for each number of threads; with both cores also one core over two.

    `bare` gets BLAS threads, `network_spectra` as many workers with one BLAS thread each: two ways to use the same
    cores.
    """
    net = network(name)
    wide = operands(net.weights)
    tasks: dict[str, Task] = {}
    for count in threads:
        tasks[f"bare {count}"] = Task(partial(bare, wide), count)
        tasks[f"ours {count}"] = Task(partial(net.spectra, count), count)
    if 1 in threads:
        tasks["plain"] = Task(lambda: [layer_spectrum(W) for W in net.weights])
    found = interleaved(tasks, rounds)
    rows = []
    for count in threads:
        cores = "1 core" if count == 1 else f"{count} cores"
        title = f"{name}, {cores}: `network_spectra` / bare"
        rows.append(Comparison(title, found[f"ours {count}"], found[f"bare {count}"], OVERHEAD, at_most=True))
    if "plain" in found:
        title = f"{name}, 1 core: `layer_spectrum` / bare"
        rows.append(Comparison(title, found["plain"], found["bare 1"], OVERHEAD, at_most=True))
    if {1, 2} <= set(threads):
        title = f"{name}: `network_spectra` on 1 core / on 2"
        rows.append(Comparison(title, found["ours 1"], found["ours 2"], SPEED_UP))
    return rows
