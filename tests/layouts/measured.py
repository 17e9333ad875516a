"""A network as it is read: its plan, matrices and fingerprints; and how far two are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.catalog.measuring import measure
from registry.equivalence.distances import DISTANCES
from registry.sources import layer_matrix, plan_weights

if TYPE_CHECKING:
    from registry.catalog.measuring import Measured
    from registry.types import Checkpoint, WeightsPlan

__all__ = ["Read", "distances", "read"]


class Read(NamedTuple):
    """What was read of a network; ``names`` are those of the stored tensors."""

    plan: WeightsPlan
    matrices: list[np.ndarray]
    measured: Measured
    names: set[str]


def read(checkpoint: Checkpoint) -> Read:
    """Read and measure an opened network, and close it."""
    with checkpoint:
        plan = plan_weights(checkpoint)
        matrices = [layer_matrix(checkpoint, layer) for layer in plan.layers]
        return Read(plan, matrices, measure(checkpoint, plan, threads=1), {info.name for info in checkpoint.tensors})


def distances(one: Measured, other: Measured) -> dict[str, float]:
    """By fingerprint, the L1 distance."""
    return {
        a.spec.name: float(DISTANCES["l1"].rows((a.vector - b.vector)[None].astype(np.float64))[0])
        for a, b in zip(one.fingerprints, other.fingerprints, strict=True)
    }
