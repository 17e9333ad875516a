"""Time, memory and error of approximate against exact spectra of one layer, on one BLAS thread.

``python -m benchmarks.approximate [--write] [ORDER...]``: layers with 256 more columns than rows, Gaussian, and similar
to trained layers: Gaussian rows of log-normal scales, whose largest eigenvalues make a long tail. Each measurement runs
in a new process, so that its memory is its own. The time of the approximation grows with the square of the order, that
of LAPACK with its cube.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.spectral_specs import SPECTRAL
from benchmarks.speed.harness import high_water, load_note, machine_load, rewrite
from registry.equivalence import shipped
from registry.spectral import conjugacy, fingerprint
from registry.spectral.eigenvalues import DOUBLE, spectrum
from registry.spectral.lanczos import Lanczos, scatter_of
from registry.types import LayerMatrix, Spectrum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
MARKER = "approximate"
ORDERS = (4096, 8192, 12288)
KINDS = ("Gaussian", "rows scaled")
SOLVERS = {"lanczos": Lanczos(above=1), "": DOUBLE}
WIDER = 256
FOUND = 1e-3  # bytes per eigenvalue


def layer_of(order: int) -> LayerMatrix:
    """The layer of the generated weights."""
    return LayerMatrix(0, "layer", "layer", (order, order + WIDER), "linear")


def weights(kind: str, order: int) -> NDArray[np.float32]:
    """Generated weights (order, order + WIDER) of a kind."""
    rng = np.random.default_rng(order)
    W = rng.standard_normal(layer_of(order).shape, dtype=np.float32)
    if kind != "Gaussian":
        W *= np.exp(0.7 * rng.standard_normal((order, 1))).astype(np.float32)
    return W


def measure(kind: str, order: int, method: str, file: Path) -> dict[str, float]:
    """Compute one spectrum and save it; returns seconds, and peak bytes besides the weights."""
    W = weights(kind, order)
    before = high_water()
    begun = time.perf_counter()
    with threadpool_limits(limits=1):
        found = spectrum(layer_of(order), W, SOLVERS[method])
    seconds = time.perf_counter() - begun
    np.save(file, found.values)
    return {"seconds": seconds, "bytes": high_water() - before, "mean": found.mean}


def row(kind: str, order: int, folder: Path) -> str:
    """One line of the table."""
    figures, found = {}, {}
    for method in SOLVERS:
        file = folder / f"{method or 'exact'}.npy"
        command = [sys.executable, "-m", "benchmarks.approximate", "--one", kind, str(order), method, str(file)]
        said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        figures[method] = said
        found[method] = Spectrum(layer_of(order), said["mean"], np.load(file), method)
    near, exact = found["lanczos"], found[""]
    fast, slow = figures["lanczos"], figures[""]
    tails = [dict(conjugacy([each]).tail)[0.01] for each in (near, exact)]
    kept = np.abs(near.values[::-1] / exact.values[::-1] - 1) <= FOUND
    right = order if kept.all() else int(np.argmin(kept))
    return (
        f"| {kind} | {order:,} | {fast['seconds']:.1f}, {slow['seconds']:.1f} "
        f"| **{slow['seconds'] / fast['seconds']:.2f}** | {fast['bytes'] / 1e9:.2f}, {slow['bytes'] / 1e9:.2f} "
        f"| {difference(near, exact):.4f} of {scatter_of([near]):.4f} | {right:,} | {tails[0]:.3f}, {tails[1]:.3f} "
        f"| {', '.join(f'{moved(near, exact, name):.3f}' for name in SPECTRAL)} |"
    )


def difference(near: Spectrum, exact: Spectrum) -> float:
    """Supremum of |F - F'|."""
    x = np.sort(np.concatenate([near.values, exact.values]))
    below = [np.searchsorted(each.values, x, side="right") for each in (near, exact)]
    return float(np.abs(below[0] - below[1]).max()) / exact.values.size


def moved(near: Spectrum, exact: Spectrum, name: str) -> float:
    """L1 distance between the fingerprints of the exact and the approximate spectrum, in shipped tolerances.

    The network consists of this one layer.
    """
    spec = SPECTRAL[name]
    vectors = [fingerprint([each], spec).vector.astype(np.float64) for each in (near, exact)]
    return float(np.abs(vectors[0] - vectors[1]).sum()) / shipped(spec, "l1").tolerance


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table row by row; ``--write`` also puts it into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.approximate", description=__doc__)
    parser.add_argument("orders", nargs="*", type=int, default=ORDERS, metavar="ORDER")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        kind, order, method, file = options.one
        print(json.dumps(measure(kind, int(order), method, Path(file))))
        return
    note = load_note(machine_load(), os.cpu_count() or 1)
    names = ", ".join(f"`{name}`" for name in SPECTRAL)
    lines = [
        "| layer | order | s: approximate, LAPACK | times faster | GB: the same | sup of F - F', its bound "
        f"| largest within 1e-3 | x*(0.01): found, exact | {names} |",
        "| --- |" + " --- |" * 8,
    ]
    print(note, *lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for order in options.orders:
            for kind in KINDS:
                lines.append(row(kind, order, Path(folder)))
                print(lines[-1], flush=True)
    if options.write:
        rewrite(PAGE, MARKER, [note, "\n".join(lines)])


if __name__ == "__main__":
    main()
