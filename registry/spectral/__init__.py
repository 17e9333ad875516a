"""Spectra of weights: eigenvalues, cumulative spectral differences, conjugacy, fingerprints.

``eigenvalues``: the spectra of a layer and of a network. ``cumulatives``: cumulatives and their
differences from a conjugate ensemble. ``conjugacy``: departure from the conjugate ensembles. ``decay``: the law of the
tail. ``contrast``: where two networks differ. ``specs``: fingerprints. ``shipped_fingerprints``: those
of the package.
"""

from __future__ import annotations

from registry.spectral.base import FingerprintKind
from registry.spectral.conjugacy import conjugacy
from registry.spectral.contrast import contrast
from registry.spectral.cumulatives import (
    cumulative,
    density_difference,
    depth_weights,
    layer_cumulative,
    layer_cumulatives,
    linear_locations,
    logarithmic_locations,
    spectral_difference,
)
from registry.spectral.decay import decay
from registry.spectral.eigenvalues import layer_spectrum, network_spectra, spectral_entropy, spectrum
from registry.spectral.specs import FINGERPRINTS, SPECS, fingerprint, fingerprint_of_layers, needs_spectra, spec_named

__all__ = [
    "FINGERPRINTS",
    "FingerprintKind",
    "SPECS",
    "conjugacy",
    "contrast",
    "cumulative",
    "decay",
    "density_difference",
    "depth_weights",
    "fingerprint",
    "fingerprint_of_layers",
    "layer_cumulative",
    "layer_cumulatives",
    "layer_spectrum",
    "linear_locations",
    "logarithmic_locations",
    "needs_spectra",
    "network_spectra",
    "spec_named",
    "spectral_difference",
    "spectral_entropy",
    "spectrum",
]
