"""The fingerprints that spectra decide: training changes nothing of one that is made of shapes alone."""

from __future__ import annotations

from registry.spectral.specs import SPECS, needs_spectra

__all__ = ["SPECTRAL"]

SPECTRAL = {name: spec for name, spec in SPECS.items() if needs_spectra(spec)}
"""Specs by name, the default first."""
