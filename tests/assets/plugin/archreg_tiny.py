"""A source of small random networks, and a fingerprint of a few quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError
from registry.sources import MATRIX_RULE, ArrayCheckpoint, Source
from registry.spectral import FingerprintKind
from registry.types import FingerprintSpec, ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.types import Checkpoint, Spectrum

# A source: references "tiny:SEED" to models, and a model to its weights.

SHAPES = {"conv.weight": (16, 3, 3, 3), "hidden.weight": (32, 16), "head.weight": (10, 32)}


def expand(text: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:
    """``7`` to the network of seed 7; nothing is downloaded or computed here."""
    if not text.isdecimal():
        raise NotFoundError(f"tiny:{text} is no seed", "write a number: tiny:7")
    card = ModelCard(family=f"tiny{int(text) % 3}", architecture="tiny", source=f"tiny:{text}", training="none")
    return (ModelRef(source="tiny", target=text, name=f"tiny/{text}", card=card, key=key, seed=seed),)


def open_weights(ref: ModelRef) -> Checkpoint:
    """The weights as arrays."""
    if not ref.target.isdecimal():
        raise NotFoundError(f"tiny:{ref.target} is no seed", "write a number: tiny:7")
    rng = np.random.default_rng(int(ref.target))
    heavy = int(ref.target) % 3  # three families, by how heavy their tails are
    return ArrayCheckpoint(
        ref, {name: rng.standard_t(2 + 3 * heavy, shape).astype(np.float32) for name, shape in SHAPES.items()}
    )


SOURCE = Source(name="tiny", prefix="tiny", expand=expand, open=open_weights)

# A fingerprint: a spec, which decides its numbers, and a function of the spectra.

SPEC = FingerprintSpec(
    name="quantiles",
    version=1,
    matrix_rule=MATRIX_RULE,
    length=4,
    uses=("matrix_rule", "length"),
    settings=(("quantiles", (0.25, 0.5, 0.75, 1.0)),),
)


def vector(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float64]:
    """Quantiles of the scaled eigenvalues, averaged over the layers."""
    wanted = dict(spec.settings)["quantiles"]
    return np.mean([np.quantile(spectrum.values, wanted) for spectrum in spectra], axis=0)


FINGERPRINT = FingerprintKind(SPEC, vector)
