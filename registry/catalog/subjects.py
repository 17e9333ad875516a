"""Query models of searches and comparisons: stored, or measured without being stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from registry.errors import AmbiguousError, SourceError, SpecMismatchError, UnknownModelError, WeightsNotReadError
from registry.types import ModelSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from registry.catalog.measuring import Measured
    from registry.equivalence.relations import SketchedLayers
    from registry.storage import Store
    from registry.types import Checkpoint, Conjugacy, FingerprintSpec, ModelRef, Spectrum, TensorInfo, WeightsPlan

    QueryInput = str | Path | torch.nn.Module | Mapping[str, torch.Tensor]

T = TypeVar("T")

__all__ = [
    "Query",
    "StoredShapes",
    "asked_once",
    "names_a_source",
    "or_shapes",
    "resolve",
    "shapes_for",
    "shapes_query",
    "stored",
    "summary_of",
    "unnamed",
]


class StoredShapes(NamedTuple):
    """The tensors of a file as they are stored, in its order, and what ``config.json`` beside it says."""

    tensors: tuple[TensorInfo, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query model. ``id``: 0 if it is not stored; ``vector``: float32 array of shape (spec.length,).

    ``training``: its training class, empty where it is not known. The other fields are functions that read on demand:
    ``model`` returns the summary and raises ``UnknownModelError`` if the model has been removed; ``conjugacy``,
    ``spectra`` and ``sketches`` return None if they are not stored; sketches also if they are of another version.
    ``stored``: the tensors of a file that was opened, None of a stored model.
    """

    id: int
    training: str
    vector: NDArray[np.float32]
    model: Callable[[], ModelSummary]
    conjugacy: Callable[[], Conjugacy | None]
    spectra: Callable[[], tuple[Spectrum, ...] | None]
    sketches: Callable[[], SketchedLayers | None]
    stored: StoredShapes | None = None


def or_shapes(spec: FingerprintSpec, ask: Callable[[FingerprintSpec], T]) -> T:
    """The answer to a question: by shapes alone, if the spec is the default and weights of a model were not read."""
    try:
        return ask(spec)
    except WeightsNotReadError as error:
        shapes = shapes_for(spec, error)
    return ask(shapes)


def shapes_for(spec: FingerprintSpec, error: WeightsNotReadError) -> FingerprintSpec:
    """The fingerprint of shapes in place of the default; raises the error for another."""
    from registry.spectral.specs import LAYERED, SHAPES

    if spec != LAYERED:
        raise error
    return SHAPES


def resolve(store: Store | None, reference: QueryInput, spec: FingerprintSpec) -> Query:
    """Return the query model: a stored name, else a reference or path, which is measured and not stored.

    A `Path` is always a path. Other objects are a live module or a state dict. A text that is a stored name and also a
    folder means the stored model; ``./NAME`` means the folder. ``store``: None without a database, which has no names.

    Raises
    ------
    AmbiguousError
        A stored name that is also a file of other weights, or a reference to several models.
    UnknownModelError
        Neither a stored name nor a reference to anything.
    SourceError
        A reference or a path whose weights cannot be read.
    SpecMismatchError
        A stored model without a fingerprint of this spec.
    WeightsNotReadError
        The spec needs spectra, and the header of the stored model was read alone.
    """
    from registry.storage.models.summaries import find_model

    if store is None or not isinstance(reference, str):
        return unnamed(store, reference, spec)
    named = stored(store, reference, spec)
    if named is not None:
        return named
    if names_a_source(reference):
        return unnamed(store, reference, spec)
    try:
        model = store.read(find_model, reference)
    except UnknownModelError as error:
        raise UnknownModelError(f"{reference!r} is neither a stored model nor a file", error.remedy) from error
    return _stored(store, model, spec)


def unnamed(store: Store | None, reference: QueryInput, spec: FingerprintSpec) -> Query:
    """Return the query model of a path, a reference, a live module or a state dict. A text is never a stored name.

    It is read from the database if its weights are stored, else measured. Raises as ``resolve``.
    """
    if isinstance(reference, str | Path):
        return _read(store, reference, spec)
    from registry.sources import open_module

    with open_module(reference) as checkpoint:
        return _measured(store, checkpoint, spec)


def stored(store: Store, reference: QueryInput, spec: FingerprintSpec) -> Query | None:
    """Return the stored model with exactly that name, or None. Raises as ``resolve``."""
    from registry.storage.models.summaries import find_subject, read_summary

    if not isinstance(reference, str):
        return None
    named = store.read(find_subject, reference, spec.hash)
    if named is None:
        return None
    summary = cache(lambda: store.read(read_summary, named.model_id))
    _refuse_other_weights(reference, summary)
    if named.vector is None:
        raise _unmeasured(summary(), spec)
    return _of(store, named.model_id, named.training, named.vector, summary)


def names_a_source(text: str) -> bool:
    """Whether a text is written like a reference or a path, or a file or folder of that name exists."""
    from registry.sources.base import SUFFIXES

    scheme, colon, _ = text.partition(":")
    if colon:
        return scheme not in ("sha256", "header")
    path_like = text.startswith(("./", "../", "/", "~/"))
    return path_like or text.lower().endswith(tuple(SUFFIXES)) or (bool(text) and _is(text, Path.exists))


def _is(text: str, test: Callable[[Path], bool]) -> bool:
    """Whether the test holds for the path; False if it is too long or may not be accessed."""
    try:
        return test(Path(text))
    except OSError:
        return False


def _refuse_other_weights(text: str, summary: Callable[[], ModelSummary]) -> None:
    from registry.sources import expand, open_ref, plan_weights
    from registry.sources.base import SUFFIXES

    path = Path(text)
    if not text.lower().endswith(tuple(SUFFIXES)) or not _is(text, Path.is_file):
        return

    content_hash = summary().content_hash
    if not summary().weights_read:  # nothing tells them from others
        return
    with open_ref(expand(path)[0]) as checkpoint:
        if plan_weights(checkpoint).content_hash == content_hash:
            return
    raise AmbiguousError(
        f"{text!r} is a stored model and also a file with other weights",
        f"write ./{text} for the file, sha256:{content_hash[:12]} for the stored model",
    )


def _stored(store: Store, model: ModelSummary, spec: FingerprintSpec) -> Query:
    from registry.storage.models.vectors import read_vector

    vector = store.read(read_vector, spec.hash, model.id)
    if vector is None:
        raise _unmeasured(model, spec)
    return _of(store, model.id, model.training_class, vector, lambda: model)


def _of(
    store: Store, model_id: int, training: str, vector: NDArray[np.float32], summary: Callable[[], ModelSummary]
) -> Query:
    from registry.storage.models.vectors import read_conjugacy, read_spectra

    figures, spectra, sketches = (
        lambda: store.read(read_conjugacy, [model_id]).get(model_id),
        lambda: store.read(read_spectra, model_id),
        lambda: _stored_sketches(store, model_id),
    )
    return Query(model_id, training, vector, summary, figures, spectra, sketches)


def _stored_sketches(store: Store, model_id: int) -> SketchedLayers | None:
    from registry.equivalence.relations import drawn
    from registry.storage.models.sketch_reads import read_drawn

    with store.snapshot():
        held = store.read(read_drawn, [model_id]).get(model_id)
    return None if held is None else drawn(*held[0], held[1])


def _unmeasured(model: ModelSummary, spec: FingerprintSpec) -> SpecMismatchError:
    from registry.spectral.specs import SHAPES, needs_spectra

    again = f"archreg ingest {model.location or 'and its file or reference'}"
    if not model.weights_read and needs_spectra(spec):
        return WeightsNotReadError(
            f"the weights of {model.name} were not read, and {spec.label} compares them",
            f"use the fingerprint {SHAPES.name}, or read them: {again}",
        )
    if model.matrix_rule != spec.matrix_rule:
        return SpecMismatchError(
            f"{model.name} was measured by {model.matrix_rule}, and {spec.label} compares matrices of "
            f"{spec.matrix_rule}",
            f"ingest it again: {again}",
        )
    remedy = f"run: archreg refingerprint --fingerprint {spec.name}"
    return SpecMismatchError(f"{model.name} has no {spec.label} fingerprint", remedy)


def _read(store: Store | None, reference: str | Path, spec: FingerprintSpec) -> Query:
    from registry.sources import expand, open_ref

    refs = expand(reference)
    if len(refs) != 1:
        raise AmbiguousError(f"{reference} is {len(refs)} models, but one is needed", "name one of them")
    with open_ref(refs[0]) as checkpoint:
        return _measured(store, checkpoint, spec)


def _measured(store: Store | None, checkpoint: Checkpoint, spec: FingerprintSpec) -> Query:
    """The query of a checkpoint: read from the database if its weights are stored, else measured."""
    from registry.catalog.measuring import measure
    from registry.sources import plan_weights
    from registry.storage.models.summaries import find_content

    plan = plan_weights(checkpoint)
    if store is not None and (known := store.read(find_content, plan.content_hash)) is not None:
        return _stored(store, known, spec)
    return _of_measured(checkpoint.ref, plan, measure(checkpoint, plan), spec, _stored_shapes(checkpoint))


def _of_measured(
    ref: ModelRef, plan: WeightsPlan, measured: Measured, spec: FingerprintSpec, stored: StoredShapes
) -> Query:
    from registry.equivalence.relations import sketched
    from registry.spectral import fingerprint

    vector = next((each.vector for each in measured.fingerprints if each.spec == spec), None)
    if vector is None:  # another package's, which is computed of what is asked about alone
        if spec.matrix_rule != plan.rule:
            raise SpecMismatchError(f"{spec.label} is of matrices by {spec.matrix_rule}, not by {plan.rule}")
        vector = fingerprint(measured.spectra, spec).vector
    model = _summary(ref, plan, measured)
    return Query(
        0,
        model.training_class,
        vector,
        lambda: model,
        lambda: measured.conjugacy,
        lambda: measured.spectra,
        lambda: None if measured.sketches is None else sketched(plan.layers, measured.sketches),
        stored,
    )


def asked_once(stores: Sequence[Store], reference: QueryInput) -> Callable[[FingerprintSpec], Query]:
    """The query model of a question to several registries, by spec: a file is read and measured once for all.

    A stored name is that of the first of them that has it, and so is content that any of them holds. The function that
    is returned raises `WeightsNotReadError` for a spec that needs weights which were not read.

    Raises as `resolve`.
    """
    from registry.sources import expand, open_module, open_ref
    from registry.storage.models.summaries import find_model

    if isinstance(reference, str):
        for store in stores:
            try:
                model = store.read(find_model, reference)
            except UnknownModelError:
                continue
            _refuse_other_weights(reference, partial(store.read, find_model, reference))
            return partial(_stored, store, model)
        if not names_a_source(reference):
            raise UnknownModelError(
                f"{reference!r} is neither a model that these registries hold nor a file",
                "archreg list --db REGISTRY shows the names",
            )
    if not isinstance(reference, str | Path):
        with open_module(reference) as checkpoint:
            return _measured_once(stores, checkpoint)
    refs = expand(reference)
    if len(refs) != 1:
        raise AmbiguousError(f"{reference} is {len(refs)} models, but one is needed", "name one of them")
    with open_ref(refs[0]) as checkpoint:
        return _measured_once(stores, checkpoint)


def _measured_once(stores: Sequence[Store], checkpoint: Checkpoint) -> Callable[[FingerprintSpec], Query]:
    from registry.catalog.measuring import measure
    from registry.sources import plan_weights
    from registry.storage.models.summaries import find_content

    plan, shapes = plan_weights(checkpoint), _stored_shapes(checkpoint)
    for store in stores:
        known = store.read(find_content, plan.content_hash)
        if known is not None and known.matrix_rule == plan.rule:
            held, model = store, known
            return lambda spec: replace(_stored(held, model, spec), stored=shapes)
    measured = measure(checkpoint, plan)
    return lambda spec: _of_measured(checkpoint.ref, plan, measured, spec, shapes)


def shapes_query(reference: QueryInput) -> Query:
    """A network that is not stored, to be compared by shapes alone: of a file the header is read, where that tells.

    Raises as `unnamed`.
    """
    from registry.sources import expand, open_headers, open_module, open_ref, plan_headers, plan_weights

    if not isinstance(reference, str | Path):
        with open_module(reference) as checkpoint:
            return _shaped(checkpoint, plan_weights(checkpoint))
    refs = expand(reference)
    if len(refs) != 1:
        raise AmbiguousError(f"{reference} is {len(refs)} models, but one is needed", "name one of them")
    try:
        with open_headers(refs[0]) as checkpoint:
            return _shaped(checkpoint, plan_headers(checkpoint))
    except SourceError:  # what is wrong with it, if anything, is said by reading all of it
        with open_ref(refs[0]) as checkpoint:
            return _shaped(checkpoint, plan_weights(checkpoint))


def _shaped(checkpoint: Checkpoint, plan: WeightsPlan) -> Query:
    from registry.catalog.measuring import measure_headers
    from registry.spectral.specs import SHAPES

    measured = measure_headers(plan)
    [vector] = (each.vector for each in measured.fingerprints if each.spec == SHAPES)
    model = replace(_summary(checkpoint.ref, plan, measured), weights_read=False)
    return Query(0, "", vector, lambda: model, lambda: None, lambda: None, lambda: None, _stored_shapes(checkpoint))


def _stored_shapes(checkpoint: Checkpoint) -> StoredShapes:
    return StoredShapes(tuple(checkpoint.tensors), checkpoint.facts.config)


def _summary(ref: ModelRef, plan: WeightsPlan, measured: Measured) -> ModelSummary:
    judged = measured.conjugacy
    return summary_of(
        ref,
        plan,
        tail_class=judged.tail_class if judged else "",
        training_class=judged.training_class if judged else "",
        approximate=sum(bool(spectrum.method) for spectrum in measured.spectra),
    )


def summary_of(
    ref: ModelRef, plan: WeightsPlan, *, tail_class: str = "", training_class: str = "", approximate: int = 0
) -> ModelSummary:
    """An opened model that is not stored; the classes are empty where they are not known."""
    from registry.sources.base import location_of

    card = ref.card
    return ModelSummary(
        id=0,
        name=ref.name,
        names=(),
        content_hash=plan.content_hash,
        topology=plan.topology,
        parameters=plan.parameters,
        bytes=plan.bytes,
        layers=len(plan.layers),
        matrix_rule=plan.rule,
        created="",
        family=card.family,
        architecture=card.architecture,
        task=card.task,
        dataset=card.dataset,
        licence=card.licence,
        source=card.source,
        gflops=card.gflops,
        tail_class=tail_class,
        training_class=training_class,
        approximate=approximate,
        metrics=card.metrics,
        precision=plan.precision,
        format=ref.source,
        location=location_of(ref),
        entry=ref.key or "",
        unread=plan.unread,
        nonfinite=plan.nonfinite,
        weights_read=plan.weights_read,
    )
