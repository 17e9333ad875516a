"""Details of one stored model, and its spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.auditing import findings_alone
from registry.errors import SpecMismatchError, WeightsNotReadError
from registry.spectral.summary_statistics import figures
from registry.spectral.training import FIGURES_VERSION, training
from registry.storage.equivalence.stored_partitions import classes_with
from registry.storage.models.model_queries import read_details
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import all_specs, read_spectra, read_weight_figures
from registry.types import LayerFigures, Membership, ModelDetails

if TYPE_CHECKING:
    from registry.storage import Store, StoredLayer
    from registry.types import Spectrum

__all__ = ["details", "stored_spectra"]


def details(store: Store, name: str) -> ModelDetails:
    """Return a model with its layer figures, skipped tensors, conjugacy, tags, provenance, classes and findings."""
    summary = store.read(find_model, name)
    rows = store.read(read_details, summary.id)
    spectra = store.read(read_spectra, summary.id) if rows.has_spectra else None
    of_weights = store.read(read_weight_figures, summary.id)
    known = of_weights is not None and of_weights.version == FIGURES_VERSION
    labels = {spec.hash: spec.label for spec in store.read(all_specs)}
    findings, rules = findings_alone(store, summary)
    return ModelDetails(
        summary=summary,
        layers=tuple(
            _figures(row, spectra[at] if spectra else None, read=summary.weights_read)
            for at, row in enumerate(rows.layers)
        ),
        skipped=rows.skipped,
        conjugacy=rows.conjugacy,
        tags=rows.tags,
        fingerprints=rows.fingerprints,
        has_spectra=rows.has_spectra,
        revision=rows.revision,
        recipe=rows.recipe,
        training=rows.training,
        seed=rows.seed,
        tool_version=rows.tool_version,
        notes=rows.notes,
        evidence=training(of_weights, [row.layer for row in rows.layers]) if of_weights and known else None,
        memberships=tuple(
            Membership(
                identity, members, labels.get(key.spec_hash, key.spec_hash), key.distance, key.tolerance, key.rule
            )
            for key, identity, members in store.read(classes_with, summary.id)
        ),
        findings=findings,
        rules=rules,
    )


def stored_spectra(store: Store, name: str) -> tuple[Spectrum, ...]:
    """Return the stored spectra of a model. Raises ``SpecMismatchError`` if they were not stored or read."""
    model = store.read(find_model, name)
    spectra = store.read(read_spectra, model.id)
    if not model.weights_read:
        raise WeightsNotReadError(
            f"the weights of {model.name} were not read", f"read them: archreg ingest {model.location}"
        )
    if spectra is None:
        raise SpecMismatchError(
            f"the spectra of {model.name} were not stored",
            "ingest its weights again, without --no-spectra",
        )
    return spectra


def _figures(row: StoredLayer, spectrum: Spectrum | None, *, read: bool) -> LayerFigures:
    layer, shape = row.layer, None if spectrum is None else figures(spectrum.values)
    return LayerFigures(
        position=layer.position,
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        p=layer.p,
        q=layer.q,
        mean=row.mean if read else None,
        largest=None if shape is None else shape.largest,
        stable_rank=None if shape is None else shape.stable_rank,
        entropy=None if shape is None else shape.entropy,
        method=row.method,
    )
