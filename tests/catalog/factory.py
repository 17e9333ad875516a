"""Small networks: wide, its twin (hardly retrained), slim of the same build, and dense, which is none of their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
