"""What an ingest is expected to take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate", "ModelEstimate"]


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """A model: ``seconds`` of one core, downloads not counted; ``memory``: bytes of the process that measures it.

    ``memory`` is 0 where nothing is known of it; ``by_layers``: whether its layers are known and not its size alone.
    """

    seconds: float
    memory: int
    by_layers: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """All models of a plan, in its order: ``seconds`` by the clock, downloads not counted, ``memory`` at its peak.

    ``workers``: processes that measure, 0 for this one alone; ``memory``: bytes of all processes of this machine
    together, on a cluster of the process that needs most.
    """

    models: tuple[ModelEstimate, ...]
    seconds: float
    memory: int
    workers: int
