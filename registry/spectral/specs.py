"""Fingerprint specs that ship with the package. A change of any number requires a new version, and so a new hash."""

from __future__ import annotations

from registry.errors import UsageError
from registry.types import FingerprintSpec

__all__ = ["DEFAULT_SPEC", "LAYERED", "MME", "SPECS", "spec_named"]

_RULE = "matrix-1"


def _logarithmic(first: float, last: float, count: int) -> tuple[float, ...]:
    # Rounded, in plain Python: the hash must not depend on the last bit of a library's power function.
    ratio = last / first
    return tuple(float(f"{first * ratio ** (i / (count - 1)):.12g}") for i in range(count))


MME = FingerprintSpec(
    name="mme", version=1, matrix_rule=_RULE, locations=_logarithmic(1e-3, 1e2, 64), length=64, reference="circular"
)
"""The paper's fingerprint: cCSD of the whole network against the conjugate circular ensemble, `full` scale."""

LAYERED = FingerprintSpec(
    name="layered",
    version=3,
    matrix_rule=_RULE,
    locations=_logarithmic(1e-3, 10.0, 12),
    depths=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    length=90 + 120 + 110 + 86 + 72 + 1,
    reference="wishart",
    beta=1,
    weights="1",
)
"""The default fingerprint: resolved by depth, compared with Gaussian weights of the same topology."""

SPECS = {spec.name: spec for spec in (LAYERED, MME)}
DEFAULT_SPEC = LAYERED.name


def spec_named(name: str) -> FingerprintSpec:
    """The shipped spec with that name. Raises ``UsageError`` for an unknown name."""
    found = SPECS.get(name)
    if found is None:
        raise UsageError(f"unknown fingerprint {name!r}", f"known: {', '.join(SPECS)}")
    return found
