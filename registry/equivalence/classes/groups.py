"""Groups of rows with their medoid and diameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

__all__ = ["MEASURED_UP_TO", "Group", "measured"]

# Largest number of members whose pairs are all measured for medoid and diameter.
MEASURED_UP_TO = 2_000


@dataclass(frozen=True, slots=True)
class Group:
    """Row indices of the members, ascending; the medoid; the diameter.

    The medoid is the member with the smallest sum of distances to the others, the first of several. For a group of more
    than ``MEASURED_UP_TO`` members, it is the member nearest to the medians of the coordinates; ``diameter`` is then an
    upper bound, twice the largest distance from the medoid, and ``bounded`` is true.
    """

    members: tuple[int, ...]
    medoid: int
    diameter: float
    bounded: bool = False


def measured(
    rows: NDArray[np.intp], vectors: NDArray[np.float32], distance: Distance, most: float | None = None
) -> Group:
    """The group of ``rows`` of ``vectors`` (n, d); O(m^2 d) for m rows, O(m d) beyond ``MEASURED_UP_TO``.

    ``most``: largest distance of two members if the linkage rule guarantees one; the diameter is not rounded above it.
    """
    own, limit = vectors[rows], np.inf if most is None else most
    if len(rows) > MEASURED_UP_TO:
        middle = np.median(own, axis=0)
        central = int(distance.to_all(middle, own).argmin())
        farthest = float(distance.between(own, np.broadcast_to(own[central], own.shape)).max())
        return Group(tuple(rows.tolist()), int(rows[central]), min(2.0 * farthest, limit), bounded=True)
    if len(rows) == 1:
        return Group((int(rows[0]),), int(rows[0]), 0.0)
    from scipy.spatial.distance import squareform

    block = squareform(distance.between_all(own), checks=False)
    central = int(block.sum(axis=1).argmin())
    return Group(tuple(rows.tolist()), int(rows[central]), min(float(block.max()), limit))
