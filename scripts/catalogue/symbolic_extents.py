"""Which extents of a layout follow from the arguments of its builder, found by building it several times."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.types import Symbolic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import ArchitectureTensor, Extent, Symbol

__all__ = ["NotLinearError", "Trial", "solved", "trial_numbers"]


class NotLinearError(Exception):
    """The tensors of several builds do not follow linearly from the arguments."""


class Trial(NamedTuple):
    """The tensors of one build, and the numbers that it was given, by symbol."""

    numbers: dict[Symbol, int]
    tensors: tuple[ArchitectureTensor, ...]


def trial_numbers(defaults: dict[Symbol, int]) -> list[dict[Symbol, int]]:
    """Numbers for two more builds beside the defaults.

    Both symbols change in both. An extent that is linear in one of them over three builds is not linear in the other
    one, since the three points (classes, channels) lie on no line.
    """
    values: dict[Symbol, list[int]] = {"classes": [13, 29, 10], "channels": [7, 5, 4]}
    chosen: dict[Symbol, list[int]] = {
        symbol: [value for value in values[symbol] if value != default][:2] for symbol, default in defaults.items()
    }
    return [{symbol: chosen[symbol][at] for symbol in defaults} for at in range(2)]


def solved(trials: Sequence[Trial]) -> tuple[ArchitectureTensor, ...]:
    """The tensors with symbolic extents that give those of every one of three or more builds.

    Raises
    ------
    NotLinearError
        The builds have other tensors, or an extent is no multiple of one argument plus a constant.
    """
    first = trials[0].tensors
    for trial in trials[1:]:
        if [one._replace(shape=()) for one in trial.tensors] != [one._replace(shape=()) for one in first]:
            raise NotLinearError(f"other tensors with {_said(trial)}")
    found = []
    for at, tensor in enumerate(first):
        shapes = [trial.tensors[at].shape for trial in trials]
        if len({len(shape) for shape in shapes}) > 1:
            raise NotLinearError(f"{tensor.name} has another number of dimensions")
        extents = tuple(
            _extent(tensor.name, [_plain(shape[axis]) for shape in shapes], trials) for axis in range(len(tensor.shape))
        )
        found.append(tensor._replace(shape=extents))
    return tuple(found)


def _plain(extent: Extent) -> int:
    if not isinstance(extent, int):
        raise NotLinearError("a built tensor has a symbolic extent")
    return extent


def _extent(name: str, values: list[int], trials: Sequence[Trial]) -> Extent:
    if len(set(values)) == 1:
        return values[0]
    fitting = []
    for symbol in trials[0].numbers:
        numbers = [trial.numbers[symbol] for trial in trials]
        factor, rest = divmod(values[1] - values[0], numbers[1] - numbers[0])
        line = Symbolic(symbol, factor, values[0] - factor * numbers[0])
        if not rest and factor > 0 and [line.of(number) for number in numbers] == values:
            fitting.append(line)
    if len(fitting) != 1:
        given = "; ".join(map(_said, trials))
        raise NotLinearError(f"{name} has extents {', '.join(map(str, values))} with {given}")
    return fitting[0]


def _said(trial: Trial) -> str:
    return ", ".join(f"{number} {symbol}" for symbol, number in trial.numbers.items())
