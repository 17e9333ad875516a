"""The models of a manifest: labels, spectra and where their weights are."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.types import ModelRef, Spectrum

__all__ = ["Models", "read_models"]


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Columns in one order: names, family and topology (n,), spectra in depth order, and references to the weights."""

    names: list[str]
    family: NDArray[np.str_]
    topology: NDArray[np.str_]
    spectra: list[tuple[Spectrum, ...]]
    refs: list[ModelRef]


def read_models(manifest: Path) -> Models:
    """Ingest a manifest into a temporary registry and read it back. Raises what the ingest of its models raises."""
    with tempfile.TemporaryDirectory() as folder, Registry(f"sqlite:///{folder}/models.db") as reg:
        refs = reg.plan(manifest=manifest)
        reg.ingest_all(refs)
        by_name = {ref.name: ref for ref in refs}
        models = [model for model in reg.models() if model.name in by_name]
        return Models(
            [model.name for model in models],
            np.array([model.family or model.name for model in models]),
            np.array([model.topology for model in models]),
            [reg.spectrum(model.name) for model in models],
            [by_name[model.name] for model in models],
        )
