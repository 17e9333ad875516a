"""Counts of the vectors beside the matrices: gains and statistics of normalisation, biases, and which have moved."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.sources.dtypes import is_float
from registry.types import VectorCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from registry.sources.content_hash import Facts
    from registry.sources.effective_weights import EffectiveTensor

__all__ = ["vector_counts"]

_SEPARATORS = re.compile(r"[./:]")
# Of the last part of a name, in lower case. Vectors of other names may start at random: attention vectors, decay rates.
_PATTERNS = {
    "gains": re.compile(r"weight|scale|gain|(\w+_)?gamma(_\d+)?"),
    "statistics": re.compile(r"(running|moving)_(mean|var|variance)"),
    "biases": re.compile(r"bias|beta|\w+_(bias|beta)|bias_\w+"),
}


def vector_counts(tensors: Iterable[EffectiveTensor], facts: Mapping[str, Facts]) -> VectorCounts:
    """Count the vectors of more than one element, by their names, and those that are not constant.

    Parameters
    ----------
    tensors
        All tensors of the forward pass.
    facts
        `Facts` of the stored tensors by name.

    Returns
    -------
    VectorCounts
        Gains, means and variances start constant in nearly all networks, so that one that is not has been trained, or
        has seen data.
    """
    counts = dict.fromkeys(VectorCounts._fields, 0)
    for tensor in tensors:
        if len(tensor.shape) != 1 or tensor.shape[0] < 2 or not is_float(tensor.dtype):
            continue
        last = _SEPARATORS.split(tensor.name[-400:].lower())[-1]
        kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(last)), None)
        if kind is not None:
            counts[kind] += 1
            counts[f"{kind}_moved"] += not all(facts[part].constant for part in tensor.parts)
    return VectorCounts(**counts)
