"""Reference ensembles: what the spectra of a network are compared to.

``circular``: COE, CUE, CSE and any beta, without a matrix; ``wishart``: Gaussian matrices of the layers' shapes;
``reference``: one interface to both for whole networks; ``periodic``: the paper's extension. A new reference is a class
with what `Reference` asks for and a line in ``REFERENCES``, from which differences, pictures and commands take it.
"""

from __future__ import annotations

from registry.ensembles.periodic import periodic_cumulative, periodic_extension
from registry.ensembles.reference import (
    BAND_DRAWS,
    BAND_LEVEL,
    Circular,
    Reference,
    Wishart,
    band,
    expected_cumulative,
    layer_references,
    sampled_cumulative,
)

__all__ = [
    "BAND_DRAWS",
    "BAND_LEVEL",
    "Circular",
    "REFERENCES",
    "Reference",
    "Wishart",
    "band",
    "expected_cumulative",
    "layer_references",
    "periodic_cumulative",
    "periodic_extension",
    "sampled_cumulative",
]

REFERENCES: dict[str, Reference] = {
    "coe": Circular(beta=1),
    "cue": Circular(beta=2),
    "cse": Circular(beta=4),
    "wishart": Wishart(),
}
"""Conjugate ensembles by name."""
