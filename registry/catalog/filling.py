"""From a reference to a stored model: open, plan, measure, store."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from registry.types import Conjugacy, Fingerprint, Ingested, ModelCard, ModelRef, Spectrum, WeightsPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from registry.catalog.database import Database
    from registry.types import Checkpoint, FingerprintSpec

__all__ = ["Measured", "Options", "expand_all", "ingest_checkpoint", "measure", "refingerprint"]


@dataclass(frozen=True, slots=True)
class Options:
    """How models are stored: whether names move, spectra are kept, a downloaded file is deleted afterwards."""

    replace: bool = False
    keep_spectra: bool = True
    discard_weights: bool = False


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
    """Every model that the references and the manifest mean, with ``card`` laid over what each source knows."""
    from registry.errors import UsageError
    from registry.sources import expand

    refs = [ref for reference in references for ref in expand(reference, key=key, seed=seed)]
    if manifest is not None:
        from registry.ingest import read_manifest

        for entry in read_manifest(manifest):
            found = expand(entry.reference, key=key, seed=seed)
            if entry.name and len(found) > 1:
                raise UsageError(f"{entry.reference} is {len(found)} models and the manifest gives them one name")
            refs += [replace(ref, name=entry.name or ref.name, card=ref.card.updated(entry.card)) for ref in found]
    if name is not None:
        if len(refs) != 1:
            raise UsageError(f"--name needs exactly one model, not {len(refs)}", "name models in a manifest instead")
        refs = [replace(refs[0], name=name)]
    return tuple(replace(ref, card=ref.card.updated(card)) for ref in refs)


def measure(checkpoint: Checkpoint, plan: WeightsPlan) -> Measured:
    """Spectra, conjugacy and the fingerprints of every shipped spec; memory of the largest layer's working set."""
    from registry.sources import layer_matrix
    from registry.spectral import SPECS, conjugacy, fingerprint, network_spectra

    spectra = network_spectra(plan.layers, lambda layer: layer_matrix(checkpoint, layer))
    vectors = tuple(fingerprint(spectra, spec) for spec in SPECS.values())
    return Measured(plan, spectra, conjugacy(spectra), vectors)


def ingest_checkpoint(database: Database, checkpoint: Checkpoint, options: Options) -> Ingested:
    """Store one opened model; weights that are known already are not measured again."""
    from registry import __version__
    from registry.sources import plan_weights
    from registry.storage import NewModel

    begun = time.perf_counter()
    ref = checkpoint.ref
    plan = plan_weights(checkpoint)
    existing = database.existing()
    if existing is not None and existing.knows(plan.content_hash) is not None:
        new = NewModel(name=ref.name, plan=plan, card=ref.card, tool_version=__version__)
    else:
        measured = measure(checkpoint, plan)
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
    store = database.created()
    added = store.add(new, replace=options.replace)
    message = ""
    if added.status == "named":
        message = f"another name for {store.summaries(ids=[added.model_id])[0].name}, which has the same weights"
    elif added.status == "known":
        message = "already stored; nothing added"
    return Ingested(ref.target, ref.name, added.status, time.perf_counter() - begun, message)


def refingerprint(
    database: Database, specs: Sequence[FingerprintSpec], progress: Callable[[int, int], None] | None
) -> int:
    """Compute from stored spectra the fingerprints that are missing, a model a transaction, so that it can be resumed.

    Raises ``SpecMismatchError`` after the rest is done, naming models that must be ingested again: without stored
    spectra, or of another matrix rule.
    """
    from registry.errors import SpecMismatchError
    from registry.spectral import fingerprint

    store = database.writable()
    work = [(spec, model) for spec in specs for model in store.missing_fingerprints(spec.hash)]
    done, stuck = 0, set()
    for number, (spec, model) in enumerate(work, 1):
        spectra = store.spectra(model)
        rule = store.summaries(ids=[model])[0].matrix_rule
        if spectra is None or rule != spec.matrix_rule:
            stuck.add(model)
        else:
            store.put_fingerprints(model, (fingerprint(spectra, spec),))
            done += 1
        if progress is not None:
            progress(number, len(work))
    if stuck:
        names = ", ".join(summary.name for summary in store.summaries(ids=sorted(stuck)))
        raise SpecMismatchError(
            f"{len(stuck)} models have no stored spectra of this matrix rule: {names}", "ingest their weights again"
        )
    return done
