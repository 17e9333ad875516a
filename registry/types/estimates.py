"""Expected time and memory of an ingest."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate", "ModelEstimate"]


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """A model: ``seconds`` on one core without downloads, and ``memory`` in bytes of the process that measures it.

    ``memory`` is 0 if unknown. ``by_layers``: whether the estimate uses the model's layers, not only its size.
    ``header_bytes``: what would be read of an ingest of headers alone; None if that is not asked or not known.
    """

    seconds: float
    memory: int
    by_layers: bool
    header_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """All models of a plan, in order, with wall-clock ``seconds`` without downloads and peak ``memory`` in bytes.

    ``workers``: number of worker processes, 0 for this process alone. ``memory``: of all processes of this machine
    together; on a cluster, of the largest process.
    """

    models: tuple[ModelEstimate, ...]
    seconds: float
    memory: int
    workers: int
