"""Spectra of layers, fingerprint specs, fingerprints, conjugacy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Self

from registry.errors import SpecMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from registry.types.weights import LayerMatrix

__all__ = ["METHODS", "Conjugacy", "Decay", "Fingerprint", "FingerprintSpec", "Spectrum"]

METHODS = ("", "lanczos")
"""How a spectrum was computed: exactly (empty), or by stochastic Lanczos quadrature."""
ALWAYS = ("name", "version")
"""Fields of a spec that its hash covers whatever it uses."""
FIRST_FIELDS = ("matrix_rule", "locations", "length", "depths", "reference", "beta", "seed", "weights")
"""What a spec uses unless it says otherwise. Never extended: the hashes of ``layered`` v3 and ``mme`` v1 cover it."""


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

    ``matrix_rule``: rule of the layers' matrices. ``length``: length of the vector. ``locations``: spectral locations
    x, strictly increasing. ``depths``: relative depths in [0, 1] at which the network is resolved, empty for the whole
    network. ``reference``: the reference ensemble for differences. ``beta``: its Dyson index. ``seed``: of all random
    numbers in it. ``weights``: version of a learned transform, if any. ``settings``: pairs (name, value) of parameters
    that only this kind has; values are texts, numbers, booleans, None, and sequences of these.

    ``uses``: the fields that this kind uses. ``hash``: first 16 hexadecimal digits of the sha256 of `definition` as
    canonical JSON: name, version, the fields in ``uses`` and the settings. A new field of this class, or one that
    another kind uses, does not change it. Two specs with the same hash are equal.

    Raises
    ------
    SpecMismatchError
        A field differs from its default and is not in ``uses``; ``uses`` names no field, or lacks ``matrix_rule`` or
        ``length``; a setting has the name of a field, or a value that JSON does not preserve.
    """

    name: str = field(compare=False)
    version: int = field(compare=False)
    matrix_rule: str = field(compare=False)
    locations: tuple[float, ...] = field(default=(), compare=False)
    length: int = field(default=0, compare=False)
    depths: tuple[float, ...] = field(default=(), compare=False)
    reference: str = field(default="expected", compare=False)
    beta: int = field(default=2, compare=False)
    seed: int = field(default=0, compare=False)
    weights: str = field(default="", compare=False)
    settings: tuple[tuple[str, Any], ...] = field(default=(), compare=False)
    uses: tuple[str, ...] = field(default=FIRST_FIELDS, compare=False)
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        known = {each.name: each.default for each in fields(self)}
        for name in ("settings", "uses", "hash"):
            del known[name]
        unused = known.keys() - {*ALWAYS, *self.uses}
        for name in sorted(unused):
            if getattr(self, name) != known[name]:
                raise SpecMismatchError(f"{self.label} gives {name} and does not use it", f"add {name!r} to uses")
        if not {"matrix_rule", "length"} <= set(self.uses) <= known.keys():
            raise SpecMismatchError(
                f"{self.label} uses {', '.join(self.uses) or 'nothing'}",
                f"name matrix_rule, length and others of: {', '.join(known)}",
            )
        for name, value in self.settings:
            if name in (*known, "settings", "uses", "hash") or not _plain(value):
                raise SpecMismatchError(f"{self.label} cannot have the setting {name!r}", "see FingerprintSpec")
        text = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "hash", hashlib.sha256(text.encode()).hexdigest()[:16])

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Self:
        """The spec that a definition gives, with the hash it had where it was written; what is no field is a setting.

        Raises ``SpecMismatchError`` where a name, version, matrix rule or length is missing, or as the class does.
        """
        missing = {*ALWAYS, "matrix_rule", "length"} - definition.keys()
        if missing:
            raise SpecMismatchError(f"a fingerprint's definition cannot be read: it has no {min(missing)}")
        known = {each.name for each in fields(cls)} - {"settings", "uses", "hash"}
        given = {name: _frozen(value) for name, value in definition.items()}
        return cls(
            **{name: value for name, value in given.items() if name in known},
            settings=tuple((name, value) for name, value in given.items() if name not in known),
            uses=tuple(name for name in given if name in known and name not in ALWAYS),
        )

    def definition(self) -> dict[str, Any]:
        """What the hash covers, by name; `of` makes the spec of it again."""
        return {name: getattr(self, name) for name in (*ALWAYS, *self.uses)} | dict(self.settings)

    @property
    def label(self) -> str:
        """Name and version for display: ``layered v2``."""
        return f"{self.name} v{self.version}"

    def __repr__(self) -> str:
        """Name, version and hash."""
        return f"<FingerprintSpec {self.label} {self.hash}>"


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> bool:
    """Whether JSON keeps a value exactly: no objects, and no number that is not finite."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))


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
