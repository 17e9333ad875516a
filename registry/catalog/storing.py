"""Storage of measured models, and the test whether weights are stored already."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.catalog.measuring import Reading
from registry.errors import RegistryError
from registry.sources.base import location_of
from registry.spelling import counted
from registry.types import Ingested
from registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.catalog.database import Database
    from registry.catalog.measuring import Read
    from registry.spectral.devices import Device
    from registry.storage import Added, Entry, NewModel, Store
    from registry.types import Checkpoint, WeightsPlan

__all__ = ["Options", "Stored", "ingest_checkpoint", "is_whole", "reading_of", "store_all"]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an ingest.

    ``replace``: reassign names that are taken; ``keep_spectra``: store spectra; ``discard_weights``: delete downloads;
    ``device``: where spectra are computed; ``approximate``: orders above 8,192 by stochastic Lanczos quadrature;
    ``allow_nonfinite``: models with NaN or infinity are stored without the layers that hold them; ``headers_only``: no
    weights are read.
    """

    replace: bool = False
    keep_spectra: bool = True
    discard_weights: bool = False
    device: Device = "cpu"
    approximate: bool = False
    allow_nonfinite: bool = False
    headers_only: bool = False


def reading_of(options: Options, known: Callable[[WeightsPlan], bool], threads: int | None) -> Reading:
    """The function that measures models with these options; see `Reading`."""
    return Reading(known, threads, options.device, options.approximate, options.allow_nonfinite, options.headers_only)


def ingest_checkpoint(database: Database, checkpoint: Checkpoint, options: Options) -> Ingested:
    """Store one opened model without a journal; stored weights are not measured again."""
    begun = time.perf_counter()
    read = reading_of(options, Stored(database, options), None).checkpoint(checkpoint)
    added = database.created().add(_new_model(read, options), replace=options.replace)
    return _ingested(read, added, time.perf_counter() - begun)


@dataclass(frozen=True, slots=True)
class Stored:
    """Test whether weights are stored, by a query of the database."""

    database: Database
    options: Options

    def __call__(self, plan: WeightsPlan) -> bool:
        """Whether these weights are stored with everything the options ask for."""
        store = self.database.existing()
        return store is not None and is_whole(store, plan, self.options)


def is_whole(store: Store, plan: WeightsPlan, options: Options) -> bool:
    """Whether weights are stored with all results of this version, spectra if kept, and exact unless approximate."""
    from registry.equivalence.sketches import SKETCH_VERSION
    from registry.spectral import SPECS
    from registry.spectral.training import FIGURES_VERSION
    from registry.storage.models.adding import find_holding

    held = store.patiently(store.read, find_holding, plan.content_hash)
    if held is None or held.matrix_rule != plan.rule or not held.judged or not (held.exact or options.approximate):
        return False
    if held.sketches != SKETCH_VERSION or held.weight_figures != FIGURES_VERSION:
        return False
    return {spec.hash for spec in SPECS.values()} <= held.specs and (held.has_spectra or not options.keep_spectra)


def store_all(
    store: Store, reads: Sequence[Read], options: Options, entries: Sequence[Entry]
) -> list[Ingested | RegistryError]:
    """Store models in one transaction with their journal entries; return the outcome or error of each."""
    added = store.add_all([_new_model(read, options) for read in reads], entries, replace=options.replace)
    return [
        one if isinstance(one, RegistryError) else _ingested(read, one, entry.seconds)
        for read, one, entry in zip(reads, added, entries, strict=True)
    ]


def _new_model(read: Read, options: Options) -> NewModel:
    from registry.storage.models.records import NewModel

    new = NewModel(
        name=read.ref.name,
        plan=read.plan,
        card=read.ref.card,
        tool_version=__version__,
        format=read.ref.source,
        location=location_of(read.ref),
        entry=read.ref.key or "",
    )
    if read.measured is None:
        return new
    if not read.plan.weights_read:
        return replace(new, means=(0.0,) * len(read.plan.layers), fingerprints=read.measured.fingerprints)
    return replace(
        new,
        spectra=read.measured.spectra,
        keep_spectra=options.keep_spectra,
        conjugacy=read.measured.conjugacy,
        fingerprints=read.measured.fingerprints,
        sketches=read.measured.sketches,
        weight_figures=read.measured.weight_figures,
    )


def _notes(plan: WeightsPlan) -> tuple[str, ...]:
    """What the user should know of how the weights were read."""
    found = list(plan.notes)
    if not plan.weights_read:
        found.append(NOT_READ)
    if plan.unread:
        found.append(f"{counted(plan.unread, 'weight')} of {plan.parameters:,} could not be read and were left out")
    return tuple(found)


NOT_READ = "weights not read: it is compared by shapes alone until it is ingested without --headers-only"


def _ingested(read: Read, added: Added, seconds: float) -> Ingested:
    message = ""
    if added.status == "named":
        other = next((name for name in added.names if name != read.ref.name), "a model without a name")
        same = "weights" if read.plan.weights_read else "header at the same place"
        message = f"another name for {other}, which has the same {same}"
    elif added.weights == "kept":
        message = "already stored with its weights; nothing added"
    elif added.weights == "completed":
        message = "its weights are read now; its names, metadata, metrics and tags stay"
    elif added.status == "known":
        whole = read.measured is None or not read.plan.weights_read
        message = "already stored; nothing added" if whole else "already stored; missing values added"
    elif added.status == "renewed":
        message = f"measured anew by {read.plan.rule}; its names, metadata, metrics and tags stay"
    kept = read.plan.weights_read or added.weights == "kept"
    notes = _notes(read.plan) if kept == read.plan.weights_read else ()
    if added.taken_from:
        other = ", which had no other name" if added.only_name else ", which has others"
        notes = (*notes, f"its name was taken from {added.taken_from}{other}")
    return Ingested(read.ref.target, read.ref.name, added.status, seconds, message, notes=notes, weights_read=kept)
