"""Training and tail classes of networks whose classes are known: ``python -m benchmarks.controls [--write]``.

Published models should be ``trained`` and ``long``; Gaussian and initialised networks of their shapes should be
neither.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.speed.harness import rewrite
from registry import Registry
from registry.spectral import conjugacy, network_spectra
from registry.spectral.training import WeightReading
from registry.types import LayerMatrix, VectorCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from registry.types import Conjugacy

    Weights = NDArray[np.floating]
    Initialise = Callable[[np.random.Generator, int, int], Weights]
    Shapes = Sequence[tuple[int, int]]

__all__ = ["INITIALISATIONS", "Control", "controls", "initialised", "main", "markdown"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
DRAWS = 2
"""Number of networks per model and initialisation."""
TORCHVISION = (
    "alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_y_400mf", "resnet18", "resnet50", "shufflenet_v2_x0_5", "squeezenet1_1",
)  # fmt: skip
UNTRAINED_AT_MOST, TRAINED_AT_LEAST, LONG_AT_LEAST = 0.03, 0.90, 0.80
# 95 % quantile of |z| for a normal z.
NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Control:
    """Number of ``networks`` that are ``trained`` and ``long``; ``published``: whether they should be, or None."""

    title: str
    networks: int
    trained: int
    long: int
    published: bool | None

    @property
    def met(self) -> bool:
        """Whether the fractions are as expected."""
        trained, long = self.trained / self.networks, self.long / self.networks
        if self.published:
            return trained >= TRAINED_AT_LEAST and long >= LONG_AT_LEAST
        return trained <= UNTRAINED_AT_MOST and self.long == 0

    def row(self) -> str:
        """Table row of the control."""
        trained, long = (
            f"{count / self.networks:.1%} ({low:.1%}-{high:.1%})"
            for count, (low, high) in ((n, interval(n, self.networks)) for n in (self.trained, self.long))
        )
        aim = "" if self.published is None else f"≥ {TRAINED_AT_LEAST:.0%}, ≥ {LONG_AT_LEAST:.0%}"
        if self.published is False:
            aim = f"≤ {UNTRAINED_AT_MOST:.0%}, none"
        verdict = "" if self.published is None else "met" if self.met else "missed"
        return f"| {self.title} | {self.networks} | {trained} | {long} | {aim} | {verdict} |"


def interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a fraction by Wilson (1927)."""
    share, z = count / total, NORMAL
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def _gaussian(rng: np.random.Generator, p: int, q: int) -> Weights:
    return rng.standard_normal((p, q), dtype=np.float32)


def _uniform(rng: np.random.Generator, p: int, q: int) -> Weights:
    return rng.random((p, q), dtype=np.float32) - np.float32(0.5)


def _truncated(rng: np.random.Generator, p: int, q: int) -> Weights:
    W = rng.standard_normal((p, q), dtype=np.float32)
    while (beyond := np.abs(W) > 2).any():
        W[beyond] = rng.standard_normal(int(beyond.sum()), dtype=np.float32)
    return W


def _orthogonal(rng: np.random.Generator, p: int, q: int) -> Weights:
    Q, R = np.linalg.qr(rng.standard_normal((max(p, q), min(p, q))))
    Q *= np.sign(np.diag(R))
    return Q if p >= q else Q.T


# The scale of a layer does not matter, so that the initialisations of He and Glorot are equal here.
INITIALISATIONS: dict[str, Initialise] = {
    "Gaussian": _gaussian,
    "uniform (He, Glorot)": _uniform,
    "normal, truncated at two deviations": _truncated,
    "orthogonal": _orthogonal,
}


def initialised(shapes: Shapes, make: Initialise, rng: np.random.Generator) -> Conjugacy:
    """Classes of an initialised, untrained network of the given shapes."""
    layers = [LayerMatrix(at, f"layer{at}", f"layer{at}", (p, q), "linear", stop=p) for at, (p, q) in enumerate(shapes)]
    reading = WeightReading(layers, lambda layer: make(rng, layer.p, layer.q))
    spectra = network_spectra(layers, reading, workers=1)
    return conjugacy(spectra, reading.figures(spectra, VectorCounts()))


def controls(shapes: Sequence[Shapes], draws: int = DRAWS) -> Iterable[Control]:
    """Results for networks of the given shapes, initialised in each way."""
    for name, make in INITIALISATIONS.items():
        rng = np.random.default_rng(0)
        classes = [initialised(each, make, rng) for each in shapes for _ in range(draws)]
        yield Control(
            f"{name}, the published models' shapes",
            len(classes),
            sum(each.training_class == "trained" for each in classes),
            sum(each.tail_class == "long" for each in classes),
            published=False,
        )


def _stored(title: str, reg: Registry, *, published: bool) -> Control:
    models = reg.models()
    return Control(
        title,
        len(models),
        sum(model.training_class == "trained" for model in models),
        sum(model.tail_class == "long" for model in models),
        published,
    )


def markdown(found: Sequence[Control]) -> str:
    """The table."""
    head = "| networks | number | `trained` | `long` | aim | |\n| --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *(each.row() for each in found)])


def main(*, write: bool = False) -> None:
    """Classify all networks and print the table; with ``write`` also put it into docs/benchmarks.md."""
    found: list[Control] = []
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1, user_api="blas"):
        with Registry("published:") as reg:
            found.append(_stored("published models", reg, published=True))
            spectra = [reg.spectrum(model.name) for model in reg.models()]
        found += controls([[(each.layer.p, each.layer.q) for each in model] for model in spectra])
        with Registry(f"sqlite:///{folder}/initialised.db") as reg:
            for seed in range(DRAWS):
                for name in TORCHVISION:
                    reg.ingest(f"torchvision:{name}.random", name=f"{name}-{seed}", seed=seed, keep_spectra=False)
            title = f"torchvision's own initialisation, {len(TORCHVISION)} networks by {DRAWS} seeds"
            found.append(_stored(title, reg, published=False))
    table = markdown(found)
    print(table)
    if write:
        rewrite(PAGE, "controls", [table])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controls",
        description="training and tail classes of networks whose classes are known",
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md too")
    main(write=parser.parse_args().write)
