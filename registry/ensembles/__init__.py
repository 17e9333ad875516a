"""Reference ensembles: the random-matrix ensembles that spectra are compared with.

``circular``: COE, CUE, CSE and any beta, sampled without a matrix. ``wishart``: Gaussian matrices of the layers'
shapes. ``reference``: one interface to both for whole networks. ``periodic``: the paper's periodic extension. A new
reference ensemble is a Python class with the methods of `Reference` and an entry in ``registry.extensions``.
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
from registry.extensions import REFERENCES as ROWS
from registry.extensions import Table

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

REFERENCES: dict[str, Reference] = dict(Table[Reference](ROWS))
"""Reference ensembles by name."""
