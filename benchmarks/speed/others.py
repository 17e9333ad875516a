"""Other packages on the same network, installed by ``make bench-speed`` outside .venv."""

from __future__ import annotations

import importlib
import logging
import math
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.speed.harness import Comparison, Task, interleaved, quicker
from benchmarks.speed.networks import network
from registry.ensembles.circular import SPACING_RATIOS, mean_spacing_ratio, sample_counts, sample_phases
from registry.ensembles.haar import circular_matrix
from registry.sources import layer_matrix, open_module
from registry.spectral import network_spectra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from benchmarks.speed.networks import Network

__all__ = ["against_bristol", "against_weightwatcher", "circular_counts", "correctness", "load_package", "quiet"]

PACKAGES = Path(__file__).resolve().parents[2] / "build" / "bench"
NETWORK = "resnet50"
ORDER, BINS, DRAWS = 1000, 64, 100


def load_package(name: str) -> ModuleType:
    """The module from the benchmarks' own folder; raises ``ImportError`` with the install command."""
    if str(PACKAGES) not in sys.path:
        # Appended, so that it does not hide packages of .venv.
        sys.path.append(str(PACKAGES))
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} cannot be imported ({error}): `make bench-speed` installs it") from error


def against_weightwatcher(rounds: int) -> list[Comparison]:
    """Time of ``get_ESD`` on every layer it lists over that of our spectra, both from the module in memory."""
    package = load_package("weightwatcher")
    net = network(NETWORK)
    with quiet():
        watcher = package.WeightWatcher(model=net.module)
        numbers = [int(each) for each in watcher.describe()["layer_id"]]
        if len(numbers) != len(net.layers):
            raise RuntimeError(f"weightwatcher lists {len(numbers)} layers of {NETWORK}, not {len(net.layers)}")

        def theirs() -> None:
            for number in numbers:
                watcher.get_ESD(layer=number)

        tasks = {
            "theirs, 1": Task(theirs, 1),
            "theirs, 2": Task(theirs, 2),
            "describe": Task(lambda: [watcher.describe() for _ in numbers], 1),
            "ours": Task(lambda: _from_module(net), 2),
        }
        found = interleaved(tasks, rounds)
    # The faster of both, so that the package is measured at its best.
    threads = min((1, 2), key=lambda count: float(np.median(found[f"theirs, {count}"].wall)))
    best = found[f"theirs, {threads}"]
    title = (
        f"{NETWORK}: weightwatcher's `get_ESD`, BLAS threads: {threads}, "
        f"{np.median(found['describe'].wall) / np.median(best.wall):.0%} of it describing the network anew "
        "/ ours, 2 cores"
    )
    return [Comparison(title, best, found["ours"], 10)]


def against_bristol(rounds: int) -> list[Comparison]:
    """Time of its layer matrices and eigenvalues over that of our spectra; with one BLAS thread, where it is faster."""
    package = load_package("bristol.cPSE")
    net = network(NETWORK)

    def theirs() -> None:
        matrices = package.get_layer_matrix_set(net.module)[0]
        if len(matrices) != len(net.layers):
            raise RuntimeError(f"bristol finds {len(matrices)} matrices in {NETWORK}, not {len(net.layers)}")
        package.get_eigenvals_layer_matrix_set(matrices)

    found = interleaved({"theirs": Task(theirs, 1), "ours": Task(lambda: _from_module(net), 2)}, rounds)
    return [
        Comparison(
            f"{NETWORK}: bristol's eigenvalues, BLAS threads: 1 / ours, 2 cores", found["theirs"], found["ours"], 30
        )
    ]


def circular_counts(rounds: int) -> list[Comparison]:
    """Time of one circular spectrum of bristol over that of one draw of our counts."""
    circular = load_package("bristol.ensembles").Circular()
    edges = np.linspace(0, 2 * math.pi, BINS + 1)
    rng = np.random.default_rng(0)

    def theirs() -> None:
        circular.eigen_circular(ORDER, ensemble="CUE", set_seed=True, seed=0)

    threads = quicker(theirs)
    tasks = {
        "theirs": Task(theirs, threads),
        "ours": Task(lambda: sample_counts(ORDER, 2, edges, rng, draws=DRAWS), 1),
    }
    found = interleaved(tasks, rounds)
    title = (
        f"CUE of order {ORDER:,}: bristol's spectrum, BLAS threads: {threads} / one of {DRAWS} draws of our counts, "
        f"{BINS} bins, 1 core"
    )
    return [Comparison(title, found["theirs"], found["ours"], 2500, scale=DRAWS)]


def correctness(order: int = 100, draws: int = 30) -> str:
    """Table: unitarity of bristol's and our circular matrices, and repulsion of their phases against theory.

    N x N for CUE and COE, 2N x 2N for CSE; the norm is Frobenius's, divided by the root of the matrix size.
    """
    circular = load_package("bristol.ensembles").Circular()
    lines = [
        "| ensemble | spacing ratio, theory | bristol | ours | norm of U U* - 1: bristol | ours |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, beta in (("CUE", 2), ("COE", 1), ("CSE", 4)):
        rng = np.random.default_rng(beta)
        generate = getattr(circular, f"gen_{label.lower()}")
        theirs = [generate(order, set_seed=True, seed=seed) for seed in range(draws)]
        angles = [np.angle(np.linalg.eigvals(U)) for U in theirs]
        lines.append(
            f"| {label} | {SPACING_RATIOS[beta]:.4f} | {np.mean([mean_spacing_ratio(a) for a in angles]):.3f} "
            f"| {np.mean([mean_spacing_ratio(sample_phases(order, beta, rng)) for _ in range(draws)]):.3f} "
            f"| {np.mean([_departure(U) for U in theirs]):.1e} | {_departure(circular_matrix(order, beta, rng)):.1e} |"
        )
    return "\n".join(lines)


def _from_module(net: Network) -> None:
    """Our spectra as in an ingest: every matrix is read from the module and checked for NaN."""
    checkpoint = open_module(net.module, net.name)
    network_spectra(net.layers, lambda layer: layer_matrix(checkpoint, layer), workers=2)


def _departure(U: np.ndarray) -> float:
    return float(np.linalg.norm(U @ U.conj().T - np.eye(len(U))) / math.sqrt(len(U)))


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log lines of other packages."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
