"""The fingerprint ``mme``: the cumulative spectral difference of the whole network, the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.ensembles import Circular, expected_cumulative
from registry.spectral.base import FingerprintKind, logarithmic
from registry.spectral.cumulatives import cumulative
from registry.types import FingerprintSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Spectrum

__all__ = ["FINGERPRINT", "MME"]

MME = FingerprintSpec(
    name="mme", version=1, matrix_rule="matrix-2", locations=logarithmic(1e-3, 1e2, 64), length=64, reference="circular"
)
"""The paper's fingerprint: cCSD of the whole network against the conjugate circular ensemble, `full` scale.

A change of any number requires a new version, and so a new hash.
"""


def mme(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """CCSD(x) = F_c(x) - F(x) at the spec's locations, `full` scale (arXiv:2006.13687, definition 3).

    The L1 distance of two networks times the spacing of log x is the Wasserstein-1 distance of log x between their
    mixed ensembles, censored at the outer locations.
    """
    locations = np.array(spec.locations)
    shapes = [(spectrum.layer.p, spectrum.layer.q) for spectrum in spectra]
    expected = expected_cumulative(Circular(spec.beta), shapes, locations)
    return expected - cumulative(spectra, locations, scale="full")


FINGERPRINT = FingerprintKind(MME, mme)
