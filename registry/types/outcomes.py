"""Outcomes of ingest, recomputation, export and import."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ingested", "Recomputed", "Transfer"]


@dataclass(frozen=True, slots=True)
class Ingested:
    """Outcome for one reference: ``added``, ``named`` (known weights, a new name), ``known``, ``renewed``, ``failed``.

    ``renewed``: a model of an older matrix rule, measured anew under the present one, or a model of which the header
    alone was read, measured now. ``notes``: choices that the reader of the weights made, and weights that were left
    out. ``weights_read``: False if the header alone was read.
    """

    reference: str
    name: str
    status: str
    seconds: float
    message: str = ""
    remedy: str = ""
    notes: tuple[str, ...] = ()
    weights_read: bool = True


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Numbers of ``fingerprints`` and of models with ``conjugacy`` figures computed from stored spectra."""

    fingerprints: int
    conjugacy: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """An export to ``file`` or an import from it: number of ``models``, and their outcomes.

    ``added``: new weights. ``merged``: known weights with new data. ``known``: nothing new. ``failed``: models and
    calibrations left out, each with the reason. ``calibrations``: number transferred.
    """

    file: str
    models: int
    added: int
    merged: int
    known: int
    calibrations: int
    failed: tuple[Ingested, ...] = ()
