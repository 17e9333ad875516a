"""Order of layers from the input of a network to its outputs, taken from its graph, for files whose names do not tell.

A file with a graph lists what is computed in an order in which it can be computed. Where a network has several outputs,
that order depends on the exporter: a detector's heads stand between the stages of its trunk. The names that a framework
gives put the trunk first and each kind of head together behind it. So does this order: layers that several outputs use
come first, then those of each output alone, all in the order in which the file lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["Computation", "graph_order"]

_MAX_OUTPUTS = 4096  # of a network; more are taken as one


class Computation(NamedTuple):
    """A step of a graph: the values that it takes and gives, and the names of the weights that it uses."""

    takes: tuple[Hashable, ...]
    gives: tuple[Hashable, ...]
    weights: tuple[str, ...] = ()


def graph_order(steps: Sequence[Computation], outputs: Sequence[Hashable]) -> list[str]:
    """Names of weights, each once, from the input to the outputs.

    Parameters
    ----------
    steps
        In an order in which they can be computed.
    outputs
        Values that the network gives. If empty, those that no step takes.

    Returns
    -------
    list of str
        A weight that several steps use stands where it is first used.
    """
    if not outputs:
        taken = {value for step in steps for value in step.takes}
        outputs = [value for step in steps for value in step.gives if value not in taken]
    outputs = list(dict.fromkeys(outputs))
    if len(outputs) > _MAX_OUTPUTS:
        outputs = outputs[:1]
    # A set of outputs is a number of as many bits.
    reached: dict[Hashable, int] = {value: 1 << place for place, value in enumerate(outputs)}
    uses: dict[str, int] = {}
    for step in reversed(steps):
        found = 0
        for value in step.gives:
            found |= reached.get(value, 0)
        for value in step.takes:
            reached[value] = reached.get(value, 0) | found
        for name in step.weights:
            uses[name] = uses.get(name, 0) | found
    names = list(dict.fromkeys(name for step in steps for name in step.weights))
    place = {name: number for number, name in enumerate(names)}
    first: dict[int, int] = {}  # the place of the first weight of each output alone
    for name in names:
        if len(outputs) > 1 and uses[name].bit_count() == 1:
            first.setdefault(uses[name], place[name])
    return sorted(names, key=lambda name: (first.get(uses[name], -1), place[name]))
