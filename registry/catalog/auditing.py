"""The audit: evidence on stored models and on files, judged by the rules, and what no rule could be applied to."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from registry.audit import RULES, AuditSubject, FamilyShapes, Lack, Twin, judged
from registry.audit.duplicate_layers import SAME, cosine
from registry.catalog.audit_progress import AuditProgress
from registry.errors import (
    DatabaseMissingError,
    EmptyRegistryError,
    NotFoundError,
    RegistryError,
    SpectrumError,
    UnknownModelError,
    UsageError,
)
from registry.spelling import folded
from registry.types import Audit, NotAudited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.audit import Judgement
    from registry.catalog.database import Database
    from registry.catalog.subjects import QueryInput
    from registry.storage import Store
    from registry.types import Checkpoint, Filter, Finding, ModelFacts, ModelRef, ModelSummary, WeightsPlan

__all__ = [
    "WITH_OTHERS",
    "audit_references",
    "audit_stored",
    "equal_values",
    "findings_alone",
    "findings_of",
    "rules_named",
]

WITH_OTHERS = ("labels", "family")
"""Rules that compare a model with all others of its registry."""

SCALES_WITHIN = 1e-3
"""Relative difference of the sums of mean eigenvalues up to which the weights of two models may be the same."""
ROUNDED = 2.0**-8
"""Relative difference of two values up to which one may be the other, rounded."""
COMPARED = 50
"""Models at most whose sketches are compared with those of one model, the nearest by that sum."""


class _Gathered:
    """Findings and lacks of the models judged so far."""

    def __init__(self, rules: Sequence[str]) -> None:
        self.rules = tuple(rules)
        self._judged: list[Judgement] = []
        self._lacking: dict[tuple[str, Lack], list[str]] = {}
        self._audited = 0

    def add(self, name: str, found: Judgement) -> None:
        """Take in what was found in a model."""
        self._judged.append(found)
        self._audited += len(found.lacks) < len(self.rules)
        for rule, lack in found.lacks:
            self._lacking.setdefault((rule, lack), []).append(name)

    def failed(self, name: str, error: RegistryError) -> None:
        """Record a model of which nothing could be read."""
        self._lacking.setdefault(("", Lack(error.message, error.remedy or "")), []).append(name)

    def answer(self) -> Audit:
        """All of it."""
        missing = (NotAudited(rule, *lack, tuple(names)) for (rule, lack), names in self._lacking.items())
        findings = tuple(finding for each in self._judged for finding in each.findings)
        return Audit(findings, self._audited, tuple(missing), self.rules)


class _Others:
    """What the other stored models say of one: those with the same weights, and the families of similar shapes.

    Takes O(n) memory: a vector of shapes, a family and a sum for each model.
    """

    def __init__(self, store: Store) -> None:
        import numpy as np

        from registry.spectral.specs import SHAPES
        from registry.storage.equivalence.stored_calibrations import read_labels
        from registry.storage.models.bulk_figures import read_scales

        self._store = store
        with store.snapshot():
            known = store.vectors(SHAPES.hash)
            labels = {label.model_id: folded(label.family) for label in store.read(read_labels, SHAPES.hash)}
            scales = store.read(read_scales)
        self._ids, self._vectors = known.ids.copy(), known.vectors
        families = [labels.get(id_, "") for id_ in self._ids.tolist()]
        self._codes = {family: code for code, family in enumerate(dict.fromkeys(("", *families)))}
        self._families = np.array([self._codes[family] for family in families], np.int32)
        self._sizes = Counter(families)
        self._same = Counter((hash(row.tobytes()), family) for row, family in zip(self._vectors, families, strict=True))
        self._scales: dict[str, list[tuple[float, int]]] = {}
        for id_, topology, scale in scales:
            self._scales.setdefault(topology, []).append((scale, id_))
        for of_topology in self._scales.values():
            of_topology.sort()

    def kin(self, family: str, vector: NDArray[np.float32] | None, model_id: int = 0) -> FamilyShapes | None:
        """How its shapes compare with those of others; ``model_id``: 0 of a model that is not stored."""
        import numpy as np

        from registry.equivalence import DISTANCES
        from registry.storage.models.summaries import read_summary

        if vector is None or not family:
            return None
        family = folded(family)
        mine = int(bool((self._ids == model_id).any()))
        others = self._sizes[family] - mine
        if others <= 0 or self._same[hash(vector.tobytes()), family] > mine:
            return FamilyShapes(max(others, 0), 0.0, float("inf"))
        distances = DISTANCES["l1"].to_all(vector, self._vectors)
        own = (self._families == self._codes[family]) & (self._ids != model_id)
        foreign = (self._families != self._codes[family]) & (self._families != 0)
        nearest = float(distances[own].min())
        if not foreign.any():
            return FamilyShapes(others, nearest, float("inf"))
        at = int(np.flatnonzero(foreign)[distances[foreign].argmin()])
        model = self._store.read(read_summary, int(self._ids[at]))
        return FamilyShapes(others, nearest, float(distances[at]), model.name, model.family)

    def vector(self, model_id: int) -> NDArray[np.float32] | None:
        """The vector of shapes of a stored model."""
        import numpy as np

        [rows] = np.nonzero(self._ids == model_id)
        return self._vectors[rows[0]] if rows.size else None

    def twins(
        self, topology: str, scale: float, sketches: NDArray[np.float16] | None, model_id: int
    ) -> tuple[Twin, ...] | None:
        """Other stored models with the same weights but for rounding, by their sketches; None without sketches."""
        from registry.storage.models.summaries import read_summary
        from registry.storage.models.vectors import read_sketches

        if sketches is None:
            return None
        found = []
        for other in self._near(topology, scale, model_id):
            theirs = self._store.read(read_sketches, other)
            if theirs is not None and _same_sketches(sketches, theirs.values):
                found.append(_twin(self._store.read(read_summary, other)))
        return tuple(found)

    def _near(self, topology: str, scale: float, model_id: int) -> Iterator[int]:
        """Ids of models of a topology whose sums of mean eigenvalues are near, at most `COMPARED`."""
        known = self._scales.get(topology, [])
        start = bisect_left(known, (scale * (1 - SCALES_WITHIN), 0))
        for at in range(start, min(len(known), start + COMPARED)):
            other, id_ = known[at]
            if other > scale * (1 + SCALES_WITHIN):
                return
            if id_ != model_id:
                yield id_


def _same_sketches(one: NDArray[np.float16], other: NDArray[np.float16]) -> bool:
    """Whether all layers that have a sketch have the same, and some have one."""
    if one.shape != other.shape or not one.any():
        return False
    return all(cosine(x, y) >= SAME if x.any() else not y.any() for x, y in zip(one, other, strict=True))


def _twin(model: ModelSummary) -> Twin:
    return Twin(model.name, model.family, model.architecture, model.metrics)


def audit_stored(
    store: Store,
    where: Filter | None,
    rules: Sequence[str],
    progress: Callable[[int, int], None] | None,
    resume: Path | None = None,
) -> Audit:
    """Audit the stored models that match, one at a time; O(n) memory of a few kilobytes a model.

    A model that another process removes meanwhile is left out. ``resume``: a file that keeps what was found until the
    end, and of which an audit that was interrupted continues.
    """
    from registry.storage.models.model_queries import candidate_ids, require_models
    from registry.storage.models.summaries import read_summary

    store.read(require_models)
    gathered, others = _Gathered(rules), _Others(store)
    ids = store.read(candidate_ids, where)
    with AuditProgress(resume, store.url, rules) if resume is not None else nullcontext() as kept:
        for number, model_id in enumerate(ids, 1):
            with suppress(UnknownModelError):
                model = store.read(read_summary, model_id)
                try:
                    found = None if kept is None else kept.known(model.content_hash, model.name)
                    if found is None:
                        found = judged(_stored(store, model, others), rules)
                        if kept is not None:
                            kept.keep(model.content_hash, found)
                    gathered.add(model.name, found)
                except SpectrumError as error:  # what is stored of it is damaged
                    gathered.failed(model.name, error)
            if progress is not None:
                progress(number, len(ids))
    return gathered.answer()


def findings_of(store: Store, model: ModelSummary) -> tuple[Finding, ...] | None:
    """What all rules find in a stored model; None where no rule could be applied."""
    gathered = _Gathered(rules_named(()))
    gathered.add(model.name, judged(_stored(store, model, _Others(store)), gathered.rules))
    answer = gathered.answer()
    return answer.findings if answer.audited else None


def findings_alone(store: Store, model: ModelSummary) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What the rules that look at a model alone find in a stored one, and the names of those that could be applied."""
    rules = [rule for rule in RULES if rule not in WITH_OTHERS]
    found = judged(_stored(store, model, None), rules)
    lacking = {rule for rule, _ in found.lacks}
    return found.findings, tuple(rule for rule in rules if rule not in lacking)


def audit_references(
    database: Database,
    references: Sequence[QueryInput],
    rules: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> Audit:
    """Audit stored models by name, and files and references, which are measured and not stored.

    Without a database, files alone are audited. Of several, one that cannot be read does not stop the others.
    """
    try:
        store = database.readable()
    except DatabaseMissingError:
        store = None
    asked = [each for reference in references for each in _resolved(store, reference)]
    gathered, others = _Gathered(rules), _Others(store) if store is not None else None
    for number, each in enumerate(asked, 1):
        try:
            _add(gathered, store, others, each)
        except RegistryError as error:
            if len(asked) == 1:
                raise
            gathered.failed(str(getattr(each, "name", each)), error)
        if progress is not None:
            progress(number, len(asked))
    return gathered.answer()


def _resolved(store: Store | None, reference: QueryInput) -> Sequence[ModelSummary | ModelRef | QueryInput]:
    """The models that a reference names: a stored one of that name, else those that a source finds."""
    from registry.sources import expand
    from registry.storage.models.model_queries import has_name
    from registry.storage.models.summaries import find_model

    if not isinstance(reference, str | Path):
        return [reference]
    by_hash = str(reference).startswith(("sha256:", "header:"))
    if store is not None and isinstance(reference, str) and (by_hash or store.read(has_name, reference)):
        return [store.read(find_model, reference)]
    try:
        return expand(reference)
    except NotFoundError as error:
        if store is None or not isinstance(reference, str):
            raise
        try:
            return [store.read(find_model, reference)]
        except EmptyRegistryError:
            raise error from None
        except UnknownModelError as unknown:
            message = f"{reference!r} is neither a stored model nor a file"
            raise UnknownModelError(message, unknown.remedy) from error


def _add(
    gathered: _Gathered, store: Store | None, others: _Others | None, asked: ModelSummary | ModelRef | QueryInput
) -> None:
    from registry.sources import open_module, open_ref
    from registry.types import ModelRef, ModelSummary

    if isinstance(asked, ModelSummary):
        assert store is not None  # noqa: S101 - it was found there
        assert others is not None  # noqa: S101
        gathered.add(asked.name, judged(_stored(store, asked, others), gathered.rules))
        return
    with open_ref(asked) if isinstance(asked, ModelRef) else open_module(asked) as checkpoint:  # type: ignore[arg-type]
        gathered.add(checkpoint.ref.name, judged(_measured(store, others, checkpoint), gathered.rules))


def _stored(store: Store, model: ModelSummary, others: _Others | None) -> AuditSubject:
    """The evidence on a stored model; its file is opened only for the configuration beside it.

    ``others``: None where the others of its registry are not to be read.
    """
    from registry.equivalence.sketches import SKETCH_VERSION
    from registry.spectral.training import FIGURES_VERSION
    from registry.storage.models.model_queries import header_hash_of, read_details
    from registry.storage.models.vectors import read_sketches, read_spectra, read_weight_figures

    with store.snapshot():
        rows = store.read(read_details, model.id)
        spectra = store.read(read_spectra, model.id)
        drawn = store.read(read_sketches, model.id)
        figures = store.read(read_weight_figures, model.id)
        header = store.read(header_hash_of, model.id)
    sketches = drawn.values if drawn is not None and drawn.version == SKETCH_VERSION else None
    facts = _facts_at(model, header)
    scale = sum(row.mean for row in rows.layers)
    return AuditSubject(
        name=model.name,
        layers=tuple(row.layer for row in rows.layers),
        family=model.family,
        architecture=model.architecture,
        metrics=model.metrics,
        precision=model.precision,
        skipped=rows.skipped,
        weights_read=model.weights_read,
        nonfinite=model.nonfinite,
        spectra=spectra if model.weights_read else None,
        given_means=tuple(row.mean or 0.0 for row in rows.layers) if model.weights_read else None,
        figures=figures if figures is not None and figures.version == FIGURES_VERSION else None,
        sketches=sketches,
        config=None if facts is None else facts.config,
        quantised=facts is not None and bool(facts.quantisation),
        twins=None if others is None else others.twins(model.topology, scale, sketches, model.id),
        kin=None if others is None else others.kin(model.family, others.vector(model.id), model.id),
    )


def _measured(store: Store | None, others: _Others | None, checkpoint: Checkpoint) -> AuditSubject:
    """The evidence on an opened model, of which nothing is stored."""
    from registry.catalog.measuring import measure
    from registry.sources import plan_weights
    from registry.spectral.specs import SHAPES
    from registry.storage.models.summaries import find_content

    plan: WeightsPlan = plan_weights(checkpoint, allow_nonfinite=True)
    measured = measure(checkpoint, plan)
    card, sketches = checkpoint.ref.card, None if measured.sketches is None else measured.sketches.values
    known = store.read(find_content, plan.content_hash) if store is not None else None
    twins = kin = None
    if others is not None:
        vector = next(each.vector for each in measured.fingerprints if each.spec == SHAPES)
        scale = sum(spectrum.mean for spectrum in measured.spectra)
        twins = others.twins(plan.topology, scale, sketches, 0)
        kin = others.kin(card.family, vector, 0 if known is None else known.id)

    return AuditSubject(
        name=checkpoint.ref.name,
        layers=plan.layers,
        family=card.family,
        architecture=card.architecture,
        metrics=card.metrics,
        precision=plan.precision,
        skipped=plan.skipped,
        nonfinite=plan.nonfinite,
        spectra=measured.spectra,
        figures=measured.weight_figures,
        sketches=sketches,
        config=checkpoint.facts.config,
        quantised=bool(checkpoint.facts.quantisation),
        twins=twins,
        kin=kin,
        registry=others is not None,
        equal=equal_values(checkpoint, plan),
    )


def equal_values(checkpoint: Checkpoint, plan: WeightsPlan) -> Callable[[int, int], bool]:
    """Tells of two layers of one shape, by position, whether their values agree but for rounding to bfloat16.

    That is by half a unit in the last place and a little.
    """
    import numpy as np

    from registry.sources import layer_matrix

    def equal(one: int, other: int) -> bool:
        a, b = (layer_matrix(checkpoint, plan.layers[at]) for at in (one, other))
        return bool((np.abs(a - b) <= ROUNDED * np.abs(a)).all())

    return equal


def _facts_at(model: ModelSummary, header: str) -> ModelFacts | None:
    """Configuration beside the file that a model was read from, if it is still that file; None if it is not at hand.

    Of a file without a configuration beside it nothing is opened.
    """
    from registry.sources import expand, open_headers
    from registry.sources.content_hash import header_hash
    from registry.types import NO_FACTS

    try:
        path = Path(model.location)
        if not model.location or not path.is_absolute() or not path.exists():
            return None
        if not (path if path.is_dir() else path.parent).joinpath("config.json").is_file():
            return NO_FACTS
        [ref] = expand(path, key=model.entry or None)
        with open_headers(ref) as checkpoint:
            same = header_hash(model.location, model.entry, checkpoint.tensors) == header
            return checkpoint.facts if same else None
    except (OSError, ValueError, RegistryError):  # gone, other models, or of a format whose header does not tell
        return None


def rules_named(names: Sequence[str]) -> tuple[str, ...]:
    """The rules of those names, all without any. Raises ``UsageError`` for an unknown name."""
    for name in names:
        if name not in RULES:
            raise UsageError(f"unknown rule {name!r}", f"known: {', '.join(RULES)}")
    return tuple(name for name in RULES if name in names) if names else tuple(RULES)
