"""timm architectures without weights: a second, larger set of families, for what shapes alone determine.

The modules are built on torch's meta device, which allocates nothing. Each layer gets the spectrum of the
Marchenko-Pastur law for a Gaussian matrix of its shape: that of an untrained network, except for random fluctuations.
Nothing is downloaded.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Self

import numpy as np

from benchmarks.retrieval.models import Models
from registry.ensembles.wishart import marchenko_pastur_cumulative, marchenko_pastur_edges
from registry.errors import WeightsError
from registry.sources import plan_weights
from registry.types import ModelCard, ModelRef, Spectrum, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from registry.types import WeightsPlan

__all__ = ["PER_FAMILY", "architectures_of_timm", "gaussian_values", "plan_of"]

PER_FAMILY = 4
"""Largest number of models per timm module, all of different topology; the maximum in the zoo's families."""
LARGEST = 350_000_000
"""Largest number of parameters of a model."""


def architectures_of_timm(per_family: int = PER_FAMILY) -> Models:
    """Up to ``PER_MODULE`` models of each timm module, drawn with a fixed seed; the module is the family.

    Takes about a minute. Raises ``ImportError`` if timm is missing.
    """
    import timm
    from timm.models import model_entrypoint

    known: dict[str, list[str]] = {}
    for name in timm.list_models():
        known.setdefault(model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    rows: list[tuple[str, str, WeightsPlan]] = []
    rng = np.random.default_rng(0)
    for family, names in sorted(known.items()):
        rows += [(name, family, plan) for name, plan in _drawn(rng.permutation(sorted(names)).tolist(), per_family)]
    return Models(
        [name for name, _, _ in rows],
        np.array([family for _, family, _ in rows]),
        np.array([plan.topology for _, _, plan in rows]),
        [tuple(Spectrum(each, 1.0, gaussian_values(each.p, each.q)) for each in plan.layers) for _, _, plan in rows],
        [],
    )


def _drawn(names: Sequence[str], count: int) -> list[tuple[str, WeightsPlan]]:
    """The first names with different topologies; most names of a large family are one model."""
    import timm
    import torch

    found: dict[str, tuple[str, WeightsPlan]] = {}
    for name in names[: 3 * count]:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation warnings of timm
            plan = plan_of(timm.create_model(name), name)
        if plan.parameters <= LARGEST:
            found.setdefault(plan.topology, (name, plan))
        if len(found) == count:
            break
    return list(found.values())


def plan_of(module: torch.nn.Module, name: str) -> WeightsPlan:
    """Layers of the matrix rule for a module's names and shapes; shared parameters are tied."""
    return plan_weights(_Shapes(module, name))


@cache
def gaussian_values(p: int, q: int) -> NDArray[np.float32]:
    """(min(p, q),) eigenvalues at equal steps of the Marchenko-Pastur law: Gaussian without fluctuations."""
    small, large = sorted((p, q))
    low, high = (float(edge) for edge in marchenko_pastur_edges(small / large))
    # Denser towards the edges, where the law begins like a square root.
    x = low + (high - low) * (1.0 - np.cos(np.linspace(0.0, np.pi, 2049))) / 2.0
    cumulative = marchenko_pastur_cumulative(np.array([[small / large]]), x)[0]
    values = np.interp((np.arange(small) + 0.5) / small, cumulative, x)
    return np.asarray(values / values.mean(), np.float32)


class _Shapes:
    """A module on the meta device as a checkpoint without data; the identity of each parameter stands for its bytes."""

    def __init__(self, module: torch.nn.Module, name: str) -> None:
        state = module.state_dict(keep_vars=True)
        self.tensors = [TensorInfo(key, str(value.dtype)[6:], tuple(value.shape)) for key, value in state.items()]
        self.ref = ModelRef(source="timm", target=name, name=name, card=ModelCard())
        self._identities = {key: id(value) for key, value in state.items()}

    def read(self, name: str) -> NDArray[np.floating]:
        raise WeightsError(f"{self.ref.name} has shapes only: {name} holds no data")

    def raw(self, name: str) -> memoryview:
        return memoryview(f"{self._identities[name]:024d}".encode())  # digits are finite numbers of every float

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
