"""Tensors of a file beside those of a layout: which belong together, and where they differ.

Where names agree they decide; else the longest common subsequence of the shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.types import TensorDifference

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tensor", "differences", "paired_by_name", "paired_by_shape"]

Shape = tuple[int, ...]

_MOST_CELLS = 2**26
"""Cells of the table of an alignment, a bit each: 8 MB."""


class Tensor(NamedTuple):
    """A tensor of either side."""

    name: str
    shape: Shape


def paired_by_name(file: Sequence[Tensor], layout: Sequence[Tensor], prefix: str) -> list[tuple[int, int]]:
    """Positions in both of tensors of one name, but for the prefix in the file, by the position in the file."""
    places = {prefix + tensor.name: at for at, tensor in enumerate(layout)}
    pairs: dict[int, int] = {}
    for at, tensor in enumerate(file):
        there = places.get(tensor.name)
        if there is not None:
            pairs.setdefault(there, at)
    return sorted((at, there) for there, at in pairs.items())


def paired_by_shape(file: Sequence[Tensor], layout: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Positions in both of a longest common subsequence of the shapes; of several, one that pairs as early as possible.

    Time O(n m / 64) for n and m tensors, what they begin and end with in common aside, and as many words of memory, at
    most 8 MB. Above it only what they begin and end with is paired.
    """
    mine, theirs = [tensor.shape for tensor in file], [tensor.shape for tensor in layout]
    least = min(len(mine), len(theirs))
    begin = next((at for at in range(least) if mine[at] != theirs[at]), least)
    most = least - begin
    end = next((at for at in range(most) if mine[-1 - at] != theirs[-1 - at]), most)
    rows, columns = len(mine) - end, len(theirs) - end
    middle = []
    if (rows - begin) * (columns - begin) <= _MOST_CELLS:
        middle = [(begin + i, begin + j) for i, j in _common(mine[begin:rows], theirs[begin:columns])]
    return [
        *((at, at) for at in range(begin)),
        *middle,
        *((rows + at, columns + at) for at in range(end)),
    ]


def _common(mine: Sequence[Shape], theirs: Sequence[Shape]) -> list[tuple[int, int]]:
    """By Hyyro's bit vectors ("Bit-parallel LCS-length computation revisited", 2004), a row in one integer of Python's.

    Rows begin with the last tensor. A zero bit at j says that what begins there has one more in common than what begins
    behind it.
    """
    width = len(theirs)
    places: dict[Shape, int] = {}
    for at, shape in enumerate(reversed(theirs)):
        places[shape] = places.get(shape, 0) | 1 << at
    full = (1 << width) - 1
    rows = [full]
    for shape in reversed(mine):
        row = rows[-1]
        taken = row & places.get(shape, 0)
        rows.append(((row + taken) | (row - taken)) & full)
    rows.reverse()
    pairs, i, j = [], 0, 0
    while i < len(mine) and j < width:
        # Equal shapes at both heads may always be paired: what is behind them has at most one more in common.
        if mine[i] == theirs[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
            continue
        # Leaving out the layout's tensor costs one exactly where its bit is zero.
        if rows[i] >> (width - 1 - j) & 1:
            j += 1
        else:
            i += 1
    return pairs


def differences(
    file: Sequence[Tensor], layout: Sequence[Tensor], pairs: Sequence[tuple[int, int]], *, named: bool
) -> tuple[TensorDifference, ...]:
    """What is not paired, or is of unequal shapes, by the position in the file.

    Where the pairs are not those of names, tensors of as many dimensions between two pairs are told as one that has
    changed.
    """
    told: list[tuple[int, int, TensorDifference]] = []
    mine, theirs = {at for at, _ in pairs}, {there for _, there in pairs}
    told += [
        (at, 0, TensorDifference(*file[at], *layout[there]))
        for at, there in pairs
        if file[at].shape != layout[there].shape
    ]
    before = {there: at for at, there in pairs}
    gaps: dict[int, list[int]] = {}  # positions in the layout, by the position in the file that they follow
    last = -1
    for there in range(len(layout)):
        last = before.get(there, last)
        if there not in theirs:
            gaps.setdefault(last, []).append(there)
    behind = -1
    for at, tensor in enumerate(file):
        if at in mine:
            behind = at
            continue
        waiting = [] if named else gaps.get(behind, [])
        if waiting and len(layout[waiting[0]].shape) == len(tensor.shape):
            told.append((at, 0, TensorDifference(*tensor, *layout[waiting.pop(0)])))
        else:
            told.append((at, 0, TensorDifference(*tensor, "", ())))
    told += [(at, 1, TensorDifference("", (), *layout[there])) for at, there_ in gaps.items() for there in there_]
    return tuple(difference for _, _, difference in sorted(told, key=lambda item: item[:2]))
