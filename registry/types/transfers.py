"""What became of models on the move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.types.answers import Ingested

__all__ = ["Transfer"]


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
