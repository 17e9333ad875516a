"""What became of models that were read, computed anew or moved."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ingested", "Recomputed", "Transfer"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one reference: ``added``, ``named`` (known weights, a new name), ``known`` or ``failed``."""

    reference: str
    name: str
    status: str
    seconds: float
    message: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """How many ``fingerprints``, and how many models' ``conjugacy`` figures, were computed from stored spectra."""

    fingerprints: int
    conjugacy: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """An export to ``file`` or an import from it: how many ``models`` there were, and what became of them.

    ``added``: of weights that were not there; ``merged``: known weights that got something new; ``known``: nothing new;
    ``failed``: those left out, each with the reason, calibrations among them; ``calibrations``: how many were brought.
    """

    file: str
    models: int
    added: int
    merged: int
    known: int
    calibrations: int
    failed: tuple[Ingested, ...] = ()
