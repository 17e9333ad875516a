"""What spectra are expected to take, against what they take."""

from __future__ import annotations

import subprocess
import sys

import pytest

from registry.spectral.lanczos import Lanczos
from registry.spectral.lapack import Lapack
from registry.spectral.spectral_cost import expected_memory, expected_seconds

SOLVERS = {"exact": Lapack("float64"), "single": Lapack("float32"), "approximate": Lanczos(above=1)}

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from registry.spectral.eigenvalues import spectrum
from tests.spectral.factory import layer
from tests.spectral.test_expected import SOLVERS

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

order, width = int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
small = rng.standard_normal((40, 60))
for solver in SOLVERS.values():  # whatever is loaded or made on the first call
    spectrum(layer(*small.shape), small, solver)
W = rng.standard_normal((order, width), dtype=np.float32)
before = peak()
spectrum(layer(order, width), W, SOLVERS[sys.argv[1]])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
@pytest.mark.parametrize(
    ("solver", "order", "width"),
    [
        ("exact", 2000, 2100),  # LAPACK's copy of the Gram matrix is most
        ("exact", 600, 8000),  # the block of columns
        ("exact", 1000, 20_000),  # and with it two Gram matrices, where there are several blocks
        ("single", 2000, 2100),
        ("approximate", 1500, 1600),  # the vectors that the ends are found with
        ("approximate", 400, 12_000),  # the block
    ],
)
def test_memory_beyond_the_weights(solver: str, order: int, width: int) -> None:
    command = [sys.executable, "-c", PROGRAM, solver, str(order), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = SOLVERS[solver].memory(order, width)
    # Checking that weights are finite takes some of theirs, and allocators round up.
    assert 0.8 * expected - 4e6 <= int(done.stdout) <= 1.15 * expected + 12e6


def test_of_a_network_the_largest_layers_at_once() -> None:
    shapes, weights = [(500, 600), (2000, 100), (1000, 1000), (9000, 9000)], [10, 20, 30, 40]
    working = [SOLVERS["exact"].memory(*sorted(shape)) for shape in shapes]
    assert expected_memory(shapes, weights, threads=1, approximate=False) == working[3] + 70
    assert expected_memory(shapes, weights, threads=2, approximate=False) == working[3] + working[2] + 90
    assert expected_memory(shapes, weights, threads=9, approximate=False) == sum(working) + 100
    # What is approximated is the largest no more.
    assert expected_memory(shapes, weights, threads=1, approximate=True) < 0.2 * working[3]
    assert expected_memory(shapes[:3], weights[:3], threads=1, approximate=True) == working[2] + 50


def test_seconds_grow_as_the_method_does() -> None:
    """At order 8,192, LAPACK was measured to take 2.3 to 2.6 times as long (benchmarks.approximate)."""
    exact, near = SOLVERS["exact"], SOLVERS["approximate"]
    assert 2.0 <= exact.cost(8192, 8448) / near.cost(8192, 8448) <= 2.9
    large = [(16_384, 16_384)]
    assert expected_seconds(large, threads=1, approximate=False) / expected_seconds(
        large, threads=1, approximate=True
    ) == pytest.approx(exact.cost(16_384, 16_384) / near.cost(16_384, 16_384), rel=1e-3)
    # Smaller layers are exact all the same, and transposed ones take as long.
    small = [(4000, 4000), (100, 30)]
    assert expected_seconds(small, threads=1, approximate=True) == expected_seconds(small, threads=1, approximate=False)
    assert expected_seconds([(100, 3000)], threads=1, approximate=False) == expected_seconds(
        [(3000, 100)], threads=1, approximate=False
    )


def test_threads_share_all_but_the_eigenvalues_of_a_layer() -> None:
    def seconds(shapes: list[tuple[int, int]], threads: int, *, approximate: bool = False) -> float:
        return expected_seconds(shapes, threads=threads, approximate=approximate) - 0.0025 * len(shapes)

    many = [(1000, 1000)] * 8
    assert seconds(many, 4) == pytest.approx(seconds(many, 1) / 4)
    one = [(10_000, 12_000)]
    assert seconds(one, 64) == pytest.approx(seconds(one, 1) * 10 / 22)
    assert seconds(one, 64, approximate=True) == pytest.approx(seconds(one, 1, approximate=True) / 64)
