"""What the weights of a file say without their spectra: training class, sketches, and what an audit can judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.audit import RULES, AuditSubject, judged
from registry.catalog.auditing import WITH_OTHERS, equal_values
from registry.catalog.subjects import Query, summary_of
from registry.equivalence.relations import sketched
from registry.equivalence.sketches import SKETCH_VERSION, buckets_for, sketch_of
from registry.sources import layer_matrix
from registry.sources.matrix_rule import stored_dtypes
from registry.spectral.training_by_traces import judged_by_traces
from registry.types import Sketches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.audit import Judgement
    from registry.spectral.training_by_traces import ByTraces
    from registry.types import Checkpoint, LayerMatrix, ModelRef, WeightsPlan

__all__ = ["RULES_OF_FILES", "FileEvidence", "findings_in", "query_of", "read_evidence"]

RULES_OF_FILES = tuple(rule for rule in RULES if rule not in WITH_OTHERS)
"""Rules of the audit that say something of one file; ``rank`` and ``untrained`` need spectra."""


@dataclass(frozen=True, slots=True, eq=False)
class FileEvidence:
    """Of a file that was read once: its training class with figures and mean eigenvalues, and its sketches."""

    training: ByTraces
    sketches: Sketches


def read_evidence(checkpoint: Checkpoint, plan: WeightsPlan, *, threads: int | None = None) -> FileEvidence:
    """Read all layers once, and those that cost much twice where their eigenvalues tell whether they are trained.

    Takes O(p q) time for a layer, and n^2 m multiply-adds, n <= m, for those whose traces are needed; memory of three
    layers.
    """
    buckets = buckets_for(len(plan.layers))
    drawn = np.zeros((len(plan.layers), buckets), np.float16)

    def also(layer: LayerMatrix, weights: NDArray[np.floating]) -> None:
        sketch = sketch_of(weights, layer.kernel, buckets)
        if sketch is not None:
            drawn[layer.position] = sketch

    found = judged_by_traces(
        plan.layers,
        lambda layer: layer_matrix(checkpoint, layer),
        stored_dtypes(checkpoint, plan.layers),
        plan.vectors,
        also=also,
        threads=threads,
    )
    return FileEvidence(found, Sketches(SKETCH_VERSION, drawn))


def findings_in(checkpoint: Checkpoint, plan: WeightsPlan, evidence: FileEvidence | None) -> Judgement:
    """What the rules of the audit find that need neither spectra nor other models; ``evidence`` None: headers alone."""
    card = checkpoint.ref.card
    told = None if evidence is None else evidence.training
    subject = AuditSubject(
        name=checkpoint.ref.name,
        layers=plan.layers,
        family=card.family,
        architecture=card.architecture,
        metrics=card.metrics,
        precision=plan.precision,
        skipped=plan.skipped,
        weights_read=evidence is not None,
        nonfinite=plan.nonfinite,
        figures=None if told is None or told.training is None else told.figures,
        sketches=None if evidence is None else evidence.sketches.values,
        config=checkpoint.facts.config,
        quantised=bool(checkpoint.facts.quantisation),
        registry=False,
        equal=None if evidence is None else equal_values(checkpoint, plan),
        given_means=None if told is None else told.means,
        told=None if told is None else told.training,
    )
    return judged(subject, RULES_OF_FILES)


def query_of(ref: ModelRef, plan: WeightsPlan, evidence: FileEvidence) -> Query:
    """The model of a question about relations: it has sketches, and neither fingerprint nor spectra."""
    told = evidence.training.training
    model = summary_of(ref, plan, training_class="" if told is None else told.training_class)
    layers = sketched(plan.layers, evidence.sketches)
    return Query(
        0,
        model.training_class,
        np.zeros(0, np.float32),
        lambda: model,
        lambda: None,
        lambda: None,
        lambda: layers,
    )
