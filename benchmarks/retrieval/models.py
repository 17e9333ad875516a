"""Models of a manifest, or those that ship as ``published:``: labels, spectra, and references to their weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from registry import Registry
from registry.sources import layer_matrix, open_ref, plan_weights
from registry.spectral import network_spectra

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.types import ModelRef, Spectrum

__all__ = ["Models", "published_models", "read_models"]


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Columns in one order: names, family and topology (n,), spectra in depth order, and references to the weights.

    There are no references where there are no weights.
    """

    names: list[str]
    family: NDArray[np.str_]
    topology: NDArray[np.str_]
    spectra: list[tuple[Spectrum, ...]]
    refs: list[ModelRef]


def read_models(manifest: Path) -> Models:
    """Plan and measure the models of a manifest, without a registry; of equal weights only the first.

    Raises the errors of planning and reading.
    """
    found: dict[str, tuple[ModelRef, str, tuple[Spectrum, ...]]] = {}
    for ref in Registry().plan(manifest=manifest):
        with open_ref(ref) as checkpoint:
            plan = plan_weights(checkpoint)
            if plan.content_hash not in found:
                spectra = network_spectra(plan.layers, partial(layer_matrix, checkpoint))
                found[plan.content_hash] = ref, plan.topology, spectra
    refs, topologies, spectra = zip(*found.values(), strict=True)
    return Models(
        [ref.name for ref in refs],
        np.array([ref.card.family or ref.name for ref in refs]),
        np.array(topologies),
        list(spectra),
        list(refs),
    )


def published_models() -> Models:
    """The published models with the spectra that ship, in the order of the zoo's manifest, without references."""
    with Registry("published:") as reg:
        models = sorted(reg.models(), key=lambda model: model.id)
        return Models(
            [model.name for model in models],
            np.array([model.family for model in models]),
            np.array([model.topology for model in models]),
            [reg.spectrum(model.name) for model in models],
            [],
        )
