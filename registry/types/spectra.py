"""Spectra of layers, fingerprint specs, fingerprints, conjugacy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types.weights import LayerMatrix

__all__ = ["METHODS", "Conjugacy", "Decay", "Fingerprint", "FingerprintSpec", "Spectrum"]

METHODS = ("", "lanczos")
"""How a spectrum was computed: exactly (empty), or by stochastic Lanczos quadrature."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Spectrum:
    """Eigenvalues of A = W W^T of one layer on the `proper` scale.

    ``values``: float32 (min(p, q),), ascending, x = lambda / <lambda>, mean 1, over the eigenvalues that are not
    structural zeros. ``mean``: <lambda> over those, in units of the squared weights. The p - min(p, q) structural zeros
    are implied by ``layer``; on the `full` scale x is larger by p / min(p, q). ``method``: one of `METHODS`.
    """

    layer: LayerMatrix
    mean: float
    values: NDArray[np.float32]
    method: str = ""

    def __repr__(self) -> str:
        """The layer, and the smallest and largest eigenvalue."""
        layer, x = self.layer, self.values
        ends = f"{x.size} values from {x[0]:.3g} to {x[-1]:.3g}" if x.size else "no values"
        found = f", {self.method}" if self.method else ""
        return f"<Spectrum {layer.name} ({layer.p}, {layer.q}): {ends}, mean {self.mean:.3g}{found}>"


@dataclass(frozen=True, slots=True, repr=False)
class FingerprintSpec:
    """All parameters that determine a fingerprint. Only fingerprints with the same ``hash`` are compared.

    ``locations``: spectral locations x, strictly increasing. ``depths``: relative depths in [0, 1] at which the network
    is resolved, empty for the whole network. ``reference``: the reference ensemble for differences. ``beta``: its Dyson
    index. ``seed``: of all random numbers in it. ``weights``: version of a learned transform, if any. ``length``:
    length of
    the vector.
    """

    name: str
    version: int
    matrix_rule: str
    locations: tuple[float, ...]
    length: int
    depths: tuple[float, ...] = ()
    reference: str = "expected"
    beta: int = 2
    seed: int = 0
    weights: str = ""

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the sha256 of the spec as canonical JSON."""
        return _hash_of(self)

    @property
    def label(self) -> str:
        """Name and version for display: ``layered v2``."""
        return f"{self.name} v{self.version}"

    def __repr__(self) -> str:
        """Name, version and hash."""
        return f"<FingerprintSpec {self.label} {self.hash}>"


@lru_cache(maxsize=256)
def _hash_of(spec: FingerprintSpec) -> str:
    # Cached: used several times per question, and takes a tenth of a millisecond.
    text = json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Decay:
    """Decay law of the tail beyond ``threshold`` on `proper` spectra: ``exponential``, ``power`` or ``undecided``.

    ``exceedances``: number of eigenvalues beyond it. ``rate``: of the exponential law, per unit of x. ``exponent``: of
    the density of the power law, rho(x) ~ x^-exponent. ``statistic``: Vuong's z, positive if the power law fits better.
    The last three are None if there are too few eigenvalues for a fit.
    """

    law: str
    threshold: float
    exceedances: int
    rate: float | None = None
    exponent: float | None = None
    statistic: float | None = None


@dataclass(frozen=True, slots=True)
class Conjugacy:
    """Departure of a network's spectra from its conjugate ensembles, on the `proper` scale.

    ``tail``: pairs of delta and the location x*(delta) from which on |cCSD| <= delta. ``wishart_tail``: the same for
    the conjugate Wishart ensemble. ``z``: sup |F - F_W| as a multiple of the 99 % band of Gaussian networks of the same
    shapes. ``tail_class``: ``edge`` or ``long``. ``training_class``: ``untrained`` or ``trained``. ``decay``: decay law
    of the tail, None if it was not computed.
    """

    tail: tuple[tuple[float, float], ...]
    wishart_tail: tuple[tuple[float, float], ...]
    z: float
    tail_class: str
    training_class: str
    decay: Decay | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fingerprint:
    """A model's vector under one spec: float32 (spec.length,), finite."""

    spec: FingerprintSpec
    vector: NDArray[np.float32]

    def __repr__(self) -> str:
        """The label of the spec and the length of the vector."""
        return f"<Fingerprint {self.spec.label}: {self.vector.size} numbers>"
