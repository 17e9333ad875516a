"""Fingerprints as shipped, parts of the default, and baselines: one vector per model, compared by L1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.spectral import fingerprint, layer_spectrum
from registry.spectral.shipped_fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED, MME, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = ["CHANGED", "PARTS", "SPECTRAL", "VECTORS", "layered"]

SPECTRAL = ("spectra", "depths")
"""The blocks of ``layered`` that depend on eigenvalues; the others depend on shapes and kinds only."""


def layered(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    """The default fingerprint in float64."""
    return fingerprint(spectra, LAYERED).vector.astype(np.float64)


def _mme(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    return fingerprint(spectra, MME).vector.astype(np.float64)


def _shapes(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    return fingerprint(spectra, SHAPES).vector.astype(np.float64)


def _gaussian(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """Spectra of Gaussian matrices of the same shapes."""
    rng = np.random.default_rng(0)
    made = []
    for spectrum in spectra:
        mean, values = layer_spectrum(rng.standard_normal((spectrum.layer.p, spectrum.layer.q)))
        made.append(replace(spectrum, mean=mean, values=values))
    return made


def _of_one_kind(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    return [replace(spectrum, layer=replace(spectrum.layer, kind="linear")) for spectrum in spectra]


def _shape_count(spectra: Sequence[Spectrum]) -> NDArray[np.float64]:
    """Deciles of log2 p and log2 q over layers, and log2 of their number."""
    tenths = np.linspace(0.0, 1.0, 11)
    p, q = np.log2([[s.layer.p, s.layer.q] for s in spectra]).T
    return np.concatenate([np.quantile(p, tenths), np.quantile(q, tenths), [np.log2(len(spectra))]])


PARTS: dict[str, list[str]] = {
    "`layered`, spectra taken out": [name for name in LAYERED_BLOCKS if name not in SPECTRAL],
    "`layered`, shapes taken out": list(SPECTRAL),
    **{
        f"`layered` without its block `{cut}`": [name for name in LAYERED_BLOCKS if name != cut]
        for cut in LAYERED_BLOCKS
    },
}
"""The remaining blocks of the default fingerprint, by row."""

CHANGED: dict[str, Callable[[Sequence[Spectrum]], list[Spectrum]]] = {
    "`layered` without kinds of layers": _of_one_kind,
    "`layered` of Gaussian weights": _gaussian,
}
"""The default fingerprint with other spectra, by row."""

VECTORS: dict[str, Callable[[Sequence[Spectrum]], NDArray[np.float64]]] = {
    "`layered`": layered,
    "`shapes`, as it ships": _shapes,
    "`mme`": _mme,
    "`mme` of Gaussian weights": lambda spectra: _mme(_gaussian(spectra)),
    "rough count of shapes": _shape_count,
    "number of parameters": lambda spectra: np.log2([sum(s.layer.p * s.layer.q for s in spectra)]),
}
"""Fingerprints as they ship, and baselines, by row. The transform of ``shapes`` knows the families of the zoo."""
