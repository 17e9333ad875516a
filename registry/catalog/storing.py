"""Storing measured models: what is stored of a model, and whether its weights are stored already."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.catalog.measuring import Reading
from registry.errors import RegistryError
from registry.types import Ingested
from registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.catalog.database import Database
    from registry.catalog.measuring import Read
    from registry.spectral.devices import Device
    from registry.storage import Added, Entry, NewModel, Store
    from registry.types import Checkpoint, WeightsPlan

__all__ = ["Options", "Stored", "ingest_checkpoint", "is_whole", "store_all"]


@dataclass(frozen=True, slots=True)
class Options:
    """How models are stored: whether names move, spectra are kept, downloads go; and where spectra are computed.

    ``approximate``: those of orders beyond 8,192, by stochastic Lanczos quadrature.
    """

    replace: bool = False
    keep_spectra: bool = True
    discard_weights: bool = False
    device: Device = "cpu"
    approximate: bool = False


def ingest_checkpoint(database: Database, checkpoint: Checkpoint, options: Options) -> Ingested:
    """Store one opened model, without a journal; what is stored already is not measured again."""
    begun = time.perf_counter()
    reading = Reading(Stored(database, options), device=options.device, approximate=options.approximate)
    read = reading.checkpoint(checkpoint)
    added = database.created().add(_new_model(read, options), replace=options.replace)
    return _ingested(read, added, time.perf_counter() - begun)


@dataclass(frozen=True, slots=True)
class Stored:
    """Whether weights are stored already, asked of the database."""

    database: Database
    options: Options

    def __call__(self, plan: WeightsPlan) -> bool:
        """Whether these weights are stored with all that is asked for."""
        store = self.database.existing()
        return store is not None and is_whole(store, plan, self.options)


def is_whole(store: Store, plan: WeightsPlan, options: Options) -> bool:
    """Whether weights are stored with all that this version computes, with spectra if kept, and exactly if asked."""
    from registry.spectral import SPECS
    from registry.storage.models.model_queries import find_holding

    held = store.patiently(store.read, find_holding, plan.content_hash)
    if held is None or held.matrix_rule != plan.rule or not held.judged or not (held.exact or options.approximate):
        return False
    return {spec.hash for spec in SPECS.values()} <= held.specs and (held.has_spectra or not options.keep_spectra)


def store_all(
    store: Store, reads: Sequence[Read], options: Options, entries: Sequence[Entry]
) -> list[Ingested | RegistryError]:
    """Store models together, with the journal's entries; what became of each, or why it is refused."""
    added = store.add_all([_new_model(read, options) for read in reads], entries, replace=options.replace)
    return [
        one if isinstance(one, RegistryError) else _ingested(read, one, entry.seconds)
        for read, one, entry in zip(reads, added, entries, strict=True)
    ]


def _new_model(read: Read, options: Options) -> NewModel:
    from registry.storage.models.records import NewModel

    new = NewModel(name=read.ref.name, plan=read.plan, card=read.ref.card, tool_version=__version__)
    if read.measured is None:
        return new
    return replace(
        new,
        spectra=read.measured.spectra,
        keep_spectra=options.keep_spectra,
        conjugacy=read.measured.conjugacy,
        fingerprints=read.measured.fingerprints,
    )


def _ingested(read: Read, added: Added, seconds: float) -> Ingested:
    message = ""
    if added.status == "named":
        other = next((name for name in added.names if name != read.ref.name), "a model without a name")
        message = f"another name for {other}, which has the same weights"
    elif added.status == "known":
        whole = read.measured is None
        message = "already stored; nothing added" if whole else "already stored; what was missing of it is added"
    return Ingested(read.ref.target, read.ref.name, added.status, seconds, message)
