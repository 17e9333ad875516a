"""From a reference to a stored model: open, plan, measure, store."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.types import (
    Conjugacy,
    Fingerprint,
    Ingested,
    ModelCard,
    ModelRef,
    Recomputed,
    Spectrum,
    WeightsPlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from registry.catalog.database import Database
    from registry.spectral.devices import Device
    from registry.storage import Store
    from registry.types import Checkpoint, FingerprintSpec

__all__ = ["Measured", "Options", "expand_all", "ingest_checkpoint", "measure", "refingerprint"]

STUCK_NAMED = 10
"""Models that an error names at most."""


@dataclass(frozen=True, slots=True)
class Options:
    """How models are measured and stored: whether names move, whether spectra are kept, where they are computed."""

    replace: bool = False
    keep_spectra: bool = True
    device: Device = "cpu"


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the weights alone say of a model."""

    plan: WeightsPlan
    spectra: tuple[Spectrum, ...]
    conjugacy: Conjugacy
    fingerprints: tuple[Fingerprint, ...]


def expand_all(
    references: Sequence[str | Path],
    manifest: Path | None,
    *,
    key: str | None = None,
    seed: int = 0,
    name: str | None = None,
    card: ModelCard = ModelCard(),  # noqa: B008  # frozen
) -> tuple[ModelRef, ...]:
    """Every model that the references and the manifest mean, with ``card`` laid over what each source knows.

    A manifest's seed, where it gives one, is also that of a random initialisation. What a line of it names and is not
    there fails when it is opened, alone.
    """
    from registry.errors import SourceError, UsageError
    from registry.sources import deferred, expand

    if isinstance(references, str):
        raise UsageError(f"references is a list, not the text {references!r}", f"write [{references!r}]")
    refs = [ref for reference in references for ref in expand(reference, key=key, seed=seed)]
    if manifest is not None:
        from registry.ingest import read_manifest

        for entry in read_manifest(manifest):
            its_seed = seed if entry.card.seed is None else entry.card.seed
            try:
                found = expand(entry.reference, key=key, seed=its_seed)
            except SourceError:  # a failed item of the run, where it is told
                found = (deferred(entry.reference, key=key, seed=its_seed),)
            if entry.name and len(found) > 1:
                raise UsageError(
                    f"{entry.reference} is {len(found)} models and the manifest gives them one name",
                    "leave the name out, or give each model a line",
                )
            refs += [replace(ref, name=entry.name or ref.name, card=ref.card.updated(entry.card)) for ref in found]
    if name is not None:
        if len(refs) != 1:
            raise UsageError(f"--name needs exactly one model, not {len(refs)}", "name models in a manifest instead")
        refs = [replace(refs[0], name=name)]
    return tuple(replace(ref, card=ref.card.updated(card)) for ref in refs)


def measure(checkpoint: Checkpoint, plan: WeightsPlan, device: Device = "cpu") -> Measured:
    """Spectra, conjugacy and the fingerprints of every shipped spec; memory of the largest layer's working set."""
    from registry.sources import layer_matrix
    from registry.spectral import SPECS, conjugacy, fingerprint, network_spectra

    spectra = network_spectra(plan.layers, lambda layer: layer_matrix(checkpoint, layer), device=device)
    vectors = tuple(fingerprint(spectra, spec) for spec in SPECS.values())
    return Measured(plan, spectra, conjugacy(spectra), vectors)


def ingest_checkpoint(database: Database, checkpoint: Checkpoint, options: Options) -> Ingested:
    """Store one opened model; weights of which all that is asked for is stored already are not measured again."""
    from registry import __version__
    from registry.sources import plan_weights
    from registry.storage import NewModel

    begun = time.perf_counter()
    ref = checkpoint.ref
    plan = plan_weights(checkpoint)
    existing = database.existing()
    whole = existing is not None and _is_whole(existing, plan, options)
    if whole:
        new = NewModel(name=ref.name, plan=plan, card=ref.card, tool_version=__version__)
    else:
        measured = measure(checkpoint, plan, options.device)
        new = NewModel(
            name=ref.name,
            plan=plan,
            card=ref.card,
            spectra=measured.spectra,
            keep_spectra=options.keep_spectra,
            conjugacy=measured.conjugacy,
            fingerprints=measured.fingerprints,
            tool_version=__version__,
        )
    added = database.created().add(new, replace=options.replace)
    message = ""
    if added.status == "named":
        other = next((name for name in added.names if name != ref.name), "a model without a name")
        message = f"another name for {other}, which has the same weights"
    elif added.status == "known":
        message = "already stored; nothing added" if whole else "already stored; what was missing of it is added"
    return Ingested(ref.target, ref.name, added.status, time.perf_counter() - begun, message)


def _is_whole(store: Store, plan: WeightsPlan, options: Options) -> bool:
    """Whether these weights are stored with all that this version computes of them, and with spectra if kept."""
    from registry.spectral import SPECS

    held = store.holding(plan.content_hash)
    if held is None or held.matrix_rule != plan.rule or not held.judged:
        return False
    return {spec.hash for spec in SPECS.values()} <= held.specs and (held.has_spectra or not options.keep_spectra)


def refingerprint(
    database: Database,
    specs: Sequence[FingerprintSpec],
    progress: Callable[[int, int], None] | None,
    *,
    judge: bool,
) -> Recomputed:
    """Compute from stored spectra what is missing, a model after the other, so that it can be resumed.

    Missing are fingerprints under ``specs``, and, with ``judge``, conjugacy figures of this version's thresholds.
    ``progress`` is told how many models of how many are done. Raises ``SpecMismatchError`` after the rest is done,
    naming models that must be ingested again: without stored spectra, or of another matrix rule.
    """
    from registry.errors import SpecMismatchError
    from registry.spectral import conjugacy, fingerprint

    store = database.writable()
    missing: dict[int, list[FingerprintSpec]] = {}
    for spec in specs:
        for model_id in store.missing_fingerprints(spec.hash):
            missing.setdefault(model_id, []).append(spec)
    unjudged = set(store.missing_conjugacy()) if judge else set()
    models = store.summaries(ids=sorted(missing.keys() | unjudged))
    computed, judged, stuck = 0, 0, []
    for number, model in enumerate(models, 1):
        asked = missing.get(model.id, [])
        wanted = [spec for spec in asked if spec.matrix_rule == model.matrix_rule]
        spectra = store.spectra(model.id)
        if spectra is None or len(wanted) < len(asked):
            stuck.append(model.name)
        if spectra is not None and wanted:
            store.put_fingerprints(model.id, [fingerprint(spectra, spec) for spec in wanted])
            computed += len(wanted)
        if spectra is not None and model.id in unjudged:
            store.put_conjugacy(model.id, conjugacy(spectra))
            judged += 1
        if progress is not None:
            progress(number, len(models))
    if stuck:
        more = f" and {len(stuck) - STUCK_NAMED} more" if len(stuck) > STUCK_NAMED else ""
        raise SpecMismatchError(
            f"{len(stuck)} models have no stored spectra of this matrix rule: {', '.join(stuck[:STUCK_NAMED])}{more}",
            "ingest their weights again, without --no-spectra",
        )
    return Recomputed(computed, judged)
