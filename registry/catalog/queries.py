"""What a question is about: a stored model, or one that is read for the question and not stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import AmbiguousError, NotFoundError, SpecMismatchError, UnknownModelError
from registry.types import Conjugacy, ModelSummary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.equivalence import Kind
    from registry.storage import Store
    from registry.types import FingerprintSpec, ModelRef, WeightsPlan

__all__ = ["Query", "resolve"]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The model asked about; ``model.id`` is 0 where it is not stored. ``vector``: float32 (spec.length,)."""

    model: ModelSummary
    vector: NDArray[np.float32]
    conjugacy: Conjugacy | None

    @property
    def kind(self) -> Kind:
        """Tail class and training class."""
        return self.model.tail_class, self.model.training_class


def resolve(store: Store, reference: str | Path, spec: FingerprintSpec) -> Query:
    """A stored name first, then a reference or a path, whose weights are read and measured and not stored.

    Raises
    ------
    AmbiguousError
        A stored name that is also the path of other weights, or a reference to several models.
    UnknownModelError
        Neither a stored name nor a reference to anything.
    """
    text = str(reference)
    if isinstance(reference, str) and store.has_name(text):
        model = store.find(text)
        _refuse_other_weights(text, model)
        return _stored(store, model, spec)
    if not _names_a_source(reference):
        try:
            store.find(text)
        except UnknownModelError as error:
            raise UnknownModelError(
                f"{text!r} is neither a stored model nor a file", error.remedy or "see `archreg list`"
            ) from error
        return _stored(store, store.find(text), spec)
    return _read(store, reference, spec)


def _names_a_source(reference: str | Path) -> bool:
    if isinstance(reference, Path) or Path(reference).exists():
        return True
    scheme, colon, _ = reference.partition(":")
    return (bool(colon) and scheme != "sha256") or Path(reference).suffix.lower() in _weight_suffixes()


def _weight_suffixes() -> frozenset[str]:
    from registry.sources import SUFFIXES

    return SUFFIXES


def _refuse_other_weights(text: str, model: ModelSummary) -> None:
    path = Path(text)
    if not path.is_file() or path.suffix.lower() not in _weight_suffixes():
        return
    from registry.sources import expand, open_ref, plan_weights

    with open_ref(expand(path)[0]) as checkpoint:
        if plan_weights(checkpoint).content_hash == model.content_hash:
            return
    raise AmbiguousError(
        f"{text!r} is a stored model and also a file with other weights",
        f"write ./{text} for the file, sha256:{model.content_hash[:12]} for the stored model",
    )


def _stored(store: Store, model: ModelSummary, spec: FingerprintSpec) -> Query:
    ids, vectors = store.fingerprints(spec.hash, ids=[model.id])
    if not len(ids):
        raise SpecMismatchError(
            f"{model.name} has no {spec.label} fingerprint", f"run: archreg refingerprint --fingerprint {spec.name}"
        )
    return Query(model, vectors[0], store.conjugacy([model.id]).get(model.id))


def _read(store: Store, reference: str | Path, spec: FingerprintSpec) -> Query:
    from registry.catalog.filling import measure
    from registry.sources import expand, open_ref, plan_weights

    refs = expand(reference)
    if len(refs) != 1:
        raise AmbiguousError(f"{reference} is {len(refs)} models and the question is about one", "name one of them")
    with open_ref(refs[0]) as checkpoint:
        plan = plan_weights(checkpoint)
        if store.knows(plan.content_hash) is not None:
            return _stored(store, store.find(f"sha256:{plan.content_hash}"), spec)
        measured = measure(checkpoint, plan)
        model = _summary(checkpoint.ref, plan, measured.conjugacy)
    for fingerprint in measured.fingerprints:
        if fingerprint.spec.hash == spec.hash:
            return Query(model, fingerprint.vector, measured.conjugacy)
    raise NotFoundError(f"no fingerprint {spec.label} is computed by this version")


def _summary(ref: ModelRef, plan: WeightsPlan, conjugacy: Conjugacy) -> ModelSummary:
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
        tail_class=conjugacy.tail_class,
        training_class=conjugacy.training_class,
        metrics=card.metrics,
    )
