"""What an entry of the table of fingerprints is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import FingerprintSpec, LayerMatrix, Spectrum

    Vector = Callable[[Sequence[Spectrum], FingerprintSpec], NDArray[np.floating[Any]]]
    ShapeVector = Callable[[Sequence[LayerMatrix], FingerprintSpec], NDArray[np.floating[Any]]]

__all__ = ["FingerprintKind", "logarithmic"]


@dataclass(frozen=True, slots=True)
class FingerprintKind:
    """One kind of fingerprint: its spec, and the function that computes it.

    ``vector``: of the spectra of a network's layers in depth order, at least one, and the spec; returns finite numbers
    (spec.length,), the same for the same spectra. ``of_layers``: the same vector of the layers alone, for a kind that
    uses no eigenvalues; None for the others.
    """

    spec: FingerprintSpec
    vector: Vector
    of_layers: ShapeVector | None = None


def logarithmic(first: float, last: float, count: int) -> tuple[float, ...]:
    """``count`` numbers from ``first`` to ``last`` at equal ratios, to 12 digits.

    Plain Python, rounded: a spec's hash must not hang on the last bit of a library's power function.
    """
    ratio = last / first
    return tuple(float(f"{first * ratio ** (i / (count - 1)):.12g}") for i in range(count))
