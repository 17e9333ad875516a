"""The table of fingerprints, the specs of those that ship, and the vector of a network under a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import SpectrumError, UsageError
from registry.extensions import FINGERPRINTS as ROWS
from registry.extensions import Table
from registry.spectral.base import FingerprintKind
from registry.spectral.cumulatives import check_layers
from registry.spectral.shipped_fingerprints import LAYERED, MME, SHAPES
from registry.types import Fingerprint, FingerprintSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import LayerMatrix, Spectrum

__all__ = [
    "DEFAULT_SPEC",
    "FINGERPRINTS",
    "LAYERED",
    "MME",
    "SHAPES",
    "SPECS",
    "fingerprint",
    "fingerprint_of_layers",
    "needs_spectra",
    "spec_named",
]


def _checked(name: str, found: Any) -> FingerprintKind:
    """The object of an entry point, if it is a fingerprint with that name. Raises ``TypeError``."""
    if not isinstance(found, FingerprintKind) or not isinstance(found.spec, FingerprintSpec):
        raise TypeError(f"it is a {type(found).__name__}, not a registry.spectral.FingerprintKind")
    if found.spec.name != name:
        raise TypeError(f"its spec is named {found.spec.name!r}")
    if found.spec.hash in {spec.hash for spec in SPECS.values()}:
        raise TypeError("its spec is that of a built-in fingerprint")
    return found


FINGERPRINTS: Table[FingerprintKind] = Table(ROWS, group="archreg.fingerprints", check=_checked)
_BUILT_IN = dict(FINGERPRINTS)
SPECS = {name: kind.spec for name, kind in _BUILT_IN.items()}
"""Specs of the built-in fingerprints, which are computed for every ingested model."""
DEFAULT_SPEC = LAYERED.name


def spec_named(name: str) -> FingerprintSpec:
    """The spec with that name, of this package or a plug-in. Raises ``UsageError`` for an unknown name."""
    found = SPECS.get(name)
    if found is not None:
        return found
    kind = FINGERPRINTS.find(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"unknown fingerprint {name!r}", f"known: {', '.join(FINGERPRINTS.known())}")
    return kind.spec


def _kind_of(spec: FingerprintSpec) -> FingerprintKind:
    """The kind that computes a spec. Raises ``SpectrumError`` if its version is not installed."""
    kind = _BUILT_IN.get(spec.name) or FINGERPRINTS.find(spec.name)
    if kind is None or kind.spec.version != spec.version:
        raise SpectrumError(f"this version does not compute {spec.label}", "use the version that stored it")
    return kind


def fingerprint(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> Fingerprint:
    """The fingerprint of a network under a spec, float32 (spec.length,), from its layers' spectra in depth order.

    Raises ``SpectrumError`` for a network without layers, values that are not finite, or a spec of another version.
    """
    check_layers(spectra)
    _check_spec(spec)
    return _checked_vector(_kind_of(spec).vector(spectra, spec), spec, "spectra")


def needs_spectra(spec: FingerprintSpec) -> bool:
    """Whether a spec's vector is computed from eigenvalues; of one that this version does not know, True."""
    kind = _BUILT_IN.get(spec.name) or FINGERPRINTS.find(spec.name)
    return kind is None or kind.spec.version != spec.version or kind.of_layers is None


def fingerprint_of_layers(layers: Sequence[LayerMatrix], spec: FingerprintSpec) -> Fingerprint:
    """The fingerprint of a network whose eigenvalues are not known, from its layers in depth order.

    Raises ``SpectrumError`` for a network without layers, or a spec that needs eigenvalues or is of another version.
    """
    _check_spec(spec)
    if not layers:
        raise SpectrumError("no layers: the fingerprint of a network without layers is undefined")
    vector = _kind_of(spec).of_layers
    if vector is None:
        raise SpectrumError(f"{spec.label} is computed from spectra, not from shapes alone", "ingest the weights")
    return _checked_vector(vector(layers, spec), spec, "layers")


def _check_spec(spec: FingerprintSpec) -> None:
    if not isinstance(spec, FingerprintSpec):
        raise SpectrumError(f"spec must be a FingerprintSpec, not {spec!r}", "use one of registry.spectral.SPECS")


def _checked_vector(numbers: NDArray[np.floating[Any]], spec: FingerprintSpec, what: str) -> Fingerprint:
    vector = np.asarray(numbers).astype(np.float32)
    if vector.shape != (spec.length,) or not np.isfinite(vector).all():
        raise SpectrumError(f"the {spec.label} fingerprint of these {what} is not {spec.length} finite numbers")
    return Fingerprint(spec, vector)
