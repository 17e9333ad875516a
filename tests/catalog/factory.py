"""Small networks: wide, its twin (hardly retrained), slim of the same build, and dense, which is none of their kind."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.spectral.specs import LAYERED
from registry.storage import NewModel
from registry.types import Conjugacy, Fingerprint, LayerMatrix, ModelCard, Spectrum, WeightsPlan
from tests.cli.test_end_to_end import SLIM, WIDE, network

if TYPE_CHECKING:
    from collections.abc import Callable


def dense() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"fc{i}.weight": rng.standard_normal((20, 200)).astype(np.float32) for i in range(2)}


NETWORKS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "wide": lambda: network(1, WIDE),
    "twin": lambda: network(1, WIDE, noise=1e-4),
    "slim": lambda: network(2, SLIM),
    "dense": dense,
}


CONJUGACY = Conjugacy(
    ((0.01, 5.5), (0.02, 4.5), (0.05, 3.5)), ((0.01, 3.5), (0.02, 3.25), (0.05, 3.0)), 12.5, "long", "trained"
)


def made(
    name: str, place: float, *, parameters: int = 1_000, size: int = 4_000, untrained: bool = False, **card: Any
) -> NewModel:
    """A model of no weights at ``place`` on a line: distances are differences of places."""
    plan = WeightsPlan(
        rule=LAYERED.matrix_rule,
        layers=(LayerMatrix(0, "w", "w", (2, 2), "linear"),),
        skipped=(),
        content_hash=hashlib.sha256(name.encode()).hexdigest(),
        topology="t",
        parameters=parameters,
        bytes=size,
    )
    vector = np.zeros(LAYERED.length, np.float32)
    vector[0] = place
    return NewModel(
        name=name,
        plan=plan,
        card=ModelCard(**card),
        spectra=(Spectrum(plan.layers[0], 1.0, np.array([0.5, 1.5], np.float32)),),
        conjugacy=replace(CONJUGACY, training_class="untrained") if untrained else CONJUGACY,
        fingerprints=(Fingerprint(LAYERED, vector),),
    )
