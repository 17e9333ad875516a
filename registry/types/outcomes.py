"""Outcomes of ingest, recomputation, export and import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

NAMED: Final = 3
"""Names of files left out that are kept for each reason."""

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.types.weights import ModelRef

__all__ = ["Ingested", "LeftOut", "Plan", "Recomputed", "Transfer"]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files of a folder that no model is read from: the ``reason``, how many ``files``, and the first ``names``.

    ``remedy``: what to do to have their models read, where there is something.
    """

    reason: str
    files: int
    names: tuple[str, ...]
    remedy: str = ""


class Plan(tuple["ModelRef", ...]):
    """The models that references name, as a tuple; ``left_out``: files in scanned folders that are no models."""

    left_out: tuple[LeftOut, ...]

    def __new__(cls, refs: Iterable[ModelRef] = (), left_out: Iterable[LeftOut] = ()) -> Self:
        """Make a plan; files left out for one reason are counted together."""
        plan = super().__new__(cls, refs)
        merged: dict[str, LeftOut] = {}
        for each in left_out:
            held = merged.get(each.reason)
            files, names = (0, ()) if held is None else (held.files, held.names)
            names = tuple(sorted({*names, *each.names})[:NAMED])
            merged[each.reason] = LeftOut(each.reason, files + each.files, names, each.remedy)
        plan.left_out = tuple(sorted(merged.values(), key=lambda each: (-each.files, each.reason)))
        return plan


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
