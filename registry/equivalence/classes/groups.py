"""A group of rows, its middle and its width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.equivalence.distances import Distance

__all__ = ["MEASURED_UP_TO", "Group", "measured"]

# Members of which every two are measured for medoid and diameter.
MEASURED_UP_TO = 2_000


@dataclass(frozen=True, slots=True)
class Group:
    """Row numbers of the members, ascending; the medoid; the largest distance within.

    The medoid is the member of the smallest summed distance to the others, the first of several. In a group beyond
    ``MEASURED_UP_TO`` it is the member nearest to the coordinates' medians, ``diameter`` is a bound from above, twice
    the distance from it to the farthest, and ``bounded`` says so.
    """

    members: tuple[int, ...]
    medoid: int
    diameter: float
    bounded: bool = False


def measured(
    rows: NDArray[np.intp], vectors: NDArray[np.float32], distance: Distance, most: float | None = None
) -> Group:
    """The group of ``rows`` of ``vectors`` (n, d); O(m^2 d) for m of them, O(m d) beyond ``MEASURED_UP_TO``.

    ``most``: what no two of them are farther apart than, where the rule promises it; a diameter rounds to no more.
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
