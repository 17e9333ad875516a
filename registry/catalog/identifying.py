"""What a file is, with nothing prepared: the catalogue, the published registry and an own one are asked about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.catalog.arguments import several, text, whole
from registry.catalog.database import Database
from registry.catalog.file_evidence import RULES_OF_FILES, findings_in, query_of, read_evidence
from registry.errors import AmbiguousError, RegistryError, SourceError, StorageError, UsageError, WeightsError
from registry.shipped import CATALOGUE
from registry.sources import expand, layer_matrix, open_headers, open_module, open_ref, plan_headers, plan_weights
from registry.sources.adapters import is_adapter_alone
from registry.sources.base import SOURCES, location_of
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import effective
from registry.spelling import without_secrets
from registry.types import (
    AdapterFacts,
    AskedRegistry,
    Filter,
    Finding,
    Identification,
    Identified,
    ModelRef,
    NotIdentified,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.architectures.catalogue_file import Catalogue
    from registry.audit import Judgement
    from registry.catalog.file_evidence import FileEvidence
    from registry.catalog.subjects import QueryInput
    from registry.storage import Store
    from registry.types import Checkpoint, ModelFacts, PublishedWeights, Recognised, TensorInfo, WeightsPlan

__all__ = ["ARCHITECTURES", "PUBLISHED", "Asking", "asking_of", "identify"]

PUBLISHED = "published:"
ARCHITECTURES = f"{CATALOGUE}:"
NOT_ASKED = f"architecture: {ARCHITECTURES} was not asked"
SIZE_WITHIN = 1e-3
"""Relative difference of a file's size from that of a published one up to which the file is hashed: some sizes are
stated in rounded megabytes."""
ROWS = "rows"
"""The rule by which a file of zeros is not sound."""
PLAIN = frozenset({"torch", "safetensors", "shards", "hf", "torchvision", "timm", "pickle", "npz", "module", "dcp"})
"""Sources whose files hold a state dict as the library gives it; others may fold, fuse or rename its tensors."""
MODULES_NAMED = 8
"""Kinds of modules that an adapter is said to adapt at most."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How files are asked about: ``k`` nearest or related models, ``key`` of a wrapped checkpoint, headers alone."""

    k: int = 5
    key: str | None = None
    headers_only: bool = False


def identify(
    databases: Sequence[Database], references: Sequence[QueryInput], asking: Asking, *, catalogued: bool = True
) -> Identified:
    """Identify the models that references name; of several, one that cannot be read does not stop the others.

    Of a file that holds several models, each is identified. ``databases``: registries that are asked, of which the
    default one need not exist; ``catalogued``: look architectures up.

    Takes one pass over a file for its hashes, and one over its layers. Of those that failed, references that name no
    model come first. Raises the error of a single one, and ``StorageError`` where a database was named that cannot be
    read, and does not ship with the package.
    """
    asked: list[tuple[str, QueryInput | ModelRef]] = []
    found: list[Identification] = []
    failed: list[NotIdentified] = []
    for reference in references:
        try:
            asked += _expanded(reference, asking)
        except SourceError as error:
            if len(references) == 1:
                raise
            failed.append(NotIdentified(without_secrets(str(reference)), error.message, error.remedy or ""))
    with ExitStack() as stack:
        known = _Known(databases, stack, catalogued=catalogued)
        for database in databases:
            if database.named and database.label not in (PUBLISHED, ARCHITECTURES):
                database.readable()
        for written, model in asked:
            try:
                found.append(_identified(written, model, asking, known))
            except SourceError as error:
                if entries := _entries(written, model, error):
                    asked += entries  # which are taken up by this loop
                elif len(asked) == len(references) == 1:
                    raise
                else:
                    failed.append(_not_identified(written, model, error))
    return Identified(tuple(found), tuple(failed), tuple(dict.fromkeys(known.damaged)))


def asking_of(
    references: QueryInput | Sequence[QueryInput], *, k: int, key: str | None, headers_only: bool
) -> tuple[tuple[QueryInput, ...], Asking]:
    """The references of a question, and how they are asked about. Raises ``UsageError`` for wrong arguments."""
    alone = isinstance(references, str | Path | Mapping) or hasattr(references, "state_dict")
    asked = (references,) if alone else several(references, "references")
    if not asked:
        raise UsageError("nothing to identify", "give a file or a reference")
    return asked, Asking(whole(k, "k", 1), None if key is None else text(key, "key"), headers_only)


def _expanded(reference: QueryInput, asking: Asking) -> list[tuple[str, QueryInput | ModelRef]]:
    """The models that a reference names, each with how it is called in the answer."""
    if not isinstance(reference, str | Path):
        if asking.headers_only:
            raise UsageError("a live module has no header", "leave headers_only out")
        return [(type(reference).__name__, reference)]
    refs = expand(reference, key=asking.key)
    return [(str(reference) if len(refs) == 1 else _as_written(reference, location_of(ref)), ref) for ref in refs]


def _as_written(reference: str | Path, location: str) -> str:
    """Where a model of several lies: within the working directory as the reference is, from there or from the root."""
    path, here = Path(location), Path.cwd()
    if Path(reference).is_absolute() or not path.is_absolute() or not path.is_relative_to(here):
        return location
    return str(path.relative_to(here))


def _not_identified(written: str, model: QueryInput | ModelRef, error: SourceError) -> NotIdentified:
    """The failure of a model, whose file is named as it was written."""
    message = error.message
    if isinstance(model, ModelRef) and Path(model.target).is_absolute() and not Path(written).is_absolute():
        message = message.replace(model.target, written)
    return NotIdentified(written, message, error.remedy or "")


def _entries(written: str, model: QueryInput | ModelRef, error: SourceError) -> list[tuple[str, QueryInput | ModelRef]]:
    """Each of the models in one file that holds several, if that is the error, and how each is chosen."""
    if not isinstance(model, ModelRef) or not isinstance(error, AmbiguousError):
        return []
    return [(f"{written} --key {key}", replace(model, key=key)) for key in error.choices if key != model.key]


class _Known:
    """What is asked about files, opened when first needed: the catalogue, if ``catalogued``, and registries.

    ``damaged``: parts of the package that could not be read.
    """

    def __init__(self, databases: Sequence[Database], stack: ExitStack, *, catalogued: bool) -> None:
        self._databases, self._stack, self.catalogued = databases, stack, catalogued
        self.damaged: list[str] = []

    @cached_property
    def catalogue(self) -> Catalogue | None:
        """The catalogue; None where it is not asked, not there or damaged."""
        if not self.catalogued:
            return None
        shipped = Database(ARCHITECTURES)
        self._stack.callback(shipped.close)
        try:
            return shipped.catalogue()
        except StorageError as error:
            self.damage(error)
            return None

    def damage(self, error: RegistryError) -> None:
        """Record a part of the package that cannot be read."""
        self.damaged.append(f"{error.message}; {error.remedy}" if error.remedy else error.message)

    @cached_property
    def registries(self) -> tuple[tuple[str, Store | None, str], ...]:
        """Label, store and problem of each registry of models; a default one that does not exist is left out."""
        found: list[tuple[str, Store | None, str]] = []
        for database in self._databases:
            if database.label == ARCHITECTURES:
                continue
            try:
                store = database.readable_if_any()
            except StorageError as error:
                if database.label == PUBLISHED:
                    self.damage(error)
                else:
                    problem = f"{error.message}; {error.remedy}" if error.remedy else error.message
                    found.append((database.label, None, problem))
            else:
                found += [] if store is None else [(database.label, store, "")]
        return tuple(found)


def _identified(written: str, model: QueryInput | ModelRef, asking: Asking, known: _Known) -> Identification:
    if not isinstance(model, ModelRef):
        with open_module(model) as checkpoint:  # type: ignore[arg-type]  # no text and no path
            return _of_checkpoint(written, checkpoint, asking, known)
    try:
        checkpoint = open_headers(model) if asking.headers_only else open_ref(model)
    except (SourceError, UsageError) as error:
        alone = _adapter_alone(written, model, error)
        if alone is None:
            raise
        return alone
    with checkpoint:
        return _of_checkpoint(written, checkpoint, asking, known, whole=model.key is None)


class _Weights(NamedTuple):
    """What the weights of a file say; None where they were not read, or are of no use."""

    plan: WeightsPlan | None
    evidence: FileEvidence | None
    found: Judgement | None
    problem: str = ""


def _of_checkpoint(
    written: str, checkpoint: Checkpoint, asking: Asking, known: _Known, *, whole: bool = True
) -> Identification:
    """What an opened model is; ``whole``: no entry of it was asked for, so that an audit finds it by the same words."""
    ref, tensors = checkpoint.ref, checkpoint.tensors
    if not tensors:
        raise WeightsError(f"{ref.target} holds no tensors", "save model.state_dict() of a model with weights")
    weights = _weights_of(checkpoint, asking)
    plan, evidence = weights.plan, weights.evidence
    not_known = [weights.problem] if weights.problem else []
    recognised, dequantised = _recognised(checkpoint, asking.k, known)
    not_known += _unsaid(checkpoint, recognised, known)
    sha256 = ""
    published: tuple[PublishedWeights, ...] = ()
    if recognised is not None and not asking.headers_only:
        sha256, published = _published_file(ref, recognised, known)
    told = None if evidence is None else evidence.training
    lacks = () if weights.found is None else weights.found.lacks
    if asking.headers_only:
        not_known.append(
            "weights not read: training, relations and faults are not known; leave --headers-only out to read them"
        )
    elif evidence is not None:
        again = f"archreg audit {written}" if whole else "ingest the entry, then audit the model"
        left = [rule for rule, lack in lacks if "spectra" in lack.reason]
        without = f", and faults by the rules {' and '.join(left)}" if left else ""
        not_known.append(f"rank and spectra were not computed{without}: {again}")
        if told is not None and told.training is None:
            not_known.append(f"training: {told.reason}; {again}")
    return Identification(
        asked=written,
        name=ref.name,
        format=ref.source,
        location=location_of(ref),
        entry=ref.key or "",
        wrapper=checkpoint.facts.wrapper,
        bytes=ref.bytes,
        tensors=len(tensors),
        parameters=None if plan is None else plan.parameters,
        layers=None if plan is None else len(plan.layers),
        precision=_precision(tensors) if plan is None else plan.precision,
        weights_read=not asking.headers_only,
        content_hash=plan.content_hash if plan is not None and plan.weights_read else "",
        file_sha256=sha256,
        architecture=recognised,
        dequantised=dequantised,
        libraries=_libraries(known.catalogue),
        published=published,
        training=None if told is None else told.training,
        registries=() if plan is None or evidence is None else _asked(ref, plan, evidence, asking.k, known),
        findings=() if weights.found is None else weights.found.findings,
        rules=_rules(weights),
        adapter=_adapter_facts(checkpoint.facts) if checkpoint.facts.adapter else None,
        notes=checkpoint.facts.notes if plan is None else plan.notes,
        not_known=tuple(not_known),
    )


def _rules(weights: _Weights) -> tuple[str, ...]:
    """The rules that were applied."""
    if weights.evidence is None:
        return () if weights.found is None else (ROWS,)
    lacks = () if weights.found is None else weights.found.lacks
    return tuple(rule for rule in RULES_OF_FILES if rule not in dict(lacks))


def _weights_of(checkpoint: Checkpoint, asking: Asking) -> _Weights:
    """Plan, evidence and findings; a file that no matrix rule applies to is identified by its shapes alone."""
    try:
        if asking.headers_only:
            return _Weights(plan_headers(checkpoint), None, None)
        plan = plan_weights(checkpoint, allow_nonfinite=True)
    except WeightsError as error:
        if not asking.headers_only:
            try:
                plan = plan_headers(checkpoint)
            except WeightsError:
                pass  # it is the layout of the file, not damage
            else:
                if not _is_zero(checkpoint, plan):
                    raise
                return _Weights(plan, None, _zeros(checkpoint), "training and relations: weights of zeros have none")
        remedy = f"; {error.remedy}" if error.remedy else ""
        return _Weights(None, None, None, f"weights: {error.message}{remedy}")
    evidence = read_evidence(checkpoint, plan)
    return _Weights(plan, evidence, findings_in(checkpoint, plan, evidence))


def _is_zero(checkpoint: Checkpoint, plan: WeightsPlan) -> bool:
    """Whether the layers hold nothing but zeros; reads up to the first that does, in memory of one layer."""
    return not any(layer_matrix(checkpoint, layer).any() for layer in plan.layers)


def _zeros(checkpoint: Checkpoint) -> Judgement:
    """What the rule ``rows`` would find in each layer, in one finding."""
    from registry.audit import RULES, Judgement

    message = "the weights of all layers are zero"
    remedy = "the weights were not loaded before the file was saved: load them, then save it again"
    alarms = RULES[ROWS].false_alarms["warning"]
    return Judgement((Finding(checkpoint.ref.name, "", ROWS, "error", 1.0, 0.0, message, remedy, alarms),), ())


def _recognised(checkpoint: Checkpoint, k: int, known: _Known) -> tuple[Recognised | None, bool]:
    """Which architecture the stored tensors are, else those of the forward pass; and whether it is these."""
    from registry.architectures.matching import recognise

    if known.catalogue is None:
        return None, False
    try:
        stored = recognise(checkpoint.tensors, known.catalogue, k=k)
        if stored.verdict == "exact":
            return stored, False
        try:
            view = effective(checkpoint).view
        except WeightsError:
            return stored, False
        made = [tensor.info for tensor in view.tensors.values()]
        if {(each.name, each.shape) for each in made} == {(each.name, each.shape) for each in checkpoint.tensors}:
            return stored, False
        used = recognise(made, known.catalogue, k=k)
        better = _share(used) > _share(stored)
        return (used, True) if better else (stored, False)
    except StorageError as error:
        known.damage(error)
        return None, False


def _share(recognised: Recognised) -> tuple[bool, float]:
    return recognised.verdict == "exact", max((each.share for each in recognised.matches), default=0.0)


def _unsaid(checkpoint: Checkpoint, recognised: Recognised | None, known: _Known) -> list[str]:
    """What the catalogue could not tell of a file."""
    if recognised is None:
        return ["architecture: there is no catalogue to look it up in" if known.catalogued else NOT_ASKED]
    if recognised.verdict == "exact":
        return []
    versions = ", ".join(f"{name} {version}" for name, version in _libraries(known.catalogue))
    what = "an architecture that is newer, changed or of another library is not in it"
    told = [f"the catalogue holds what {versions or 'its libraries'} build: {what}"]
    source = checkpoint.ref.source
    if source not in PLAIN:
        told.append(
            f"a file read as {source} may hold other tensors than the library's state dict: folded normalisation, "
            "fused or renamed weights"
        )
    return told


def _libraries(catalogue: Catalogue | None) -> tuple[tuple[str, str], ...]:
    versions = {} if catalogue is None else catalogue.facts.get("versions", {})
    return tuple((str(name), str(version)) for name, version in versions.items())


def _published_file(ref: ModelRef, recognised: Recognised, known: _Known) -> tuple[str, tuple[PublishedWeights, ...]]:
    """Hash of the file, and the published weights that it is; it is hashed where one of these has its size."""
    path = Path(ref.target)
    if known.catalogue is None or ref.source == "module" or not path.is_file():
        return "", ()
    size = path.stat().st_size
    architectures = [each.architecture.id for each in recognised.matches]
    try:
        if not any(
            each.sha256 and (each.bytes is None or abs(each.bytes - size) <= SIZE_WITHIN * size)
            for each in known.catalogue.weights(architectures)
        ):
            return "", ()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, known.catalogue.weights_of_file(digest)
    except StorageError as error:
        known.damage(error)
        return "", ()


def _asked(
    ref: ModelRef, plan: WeightsPlan, evidence: FileEvidence, k: int, known: _Known
) -> tuple[AskedRegistry, ...]:
    """What registries say of the weights: the same ones, and related ones."""
    from registry.catalog.relatives import related
    from registry.storage.models.model_queries import count_models
    from registry.storage.models.summaries import find_content

    query = query_of(ref, plan, evidence)
    answers = []
    for label, store, problem in known.registries:
        if store is None:
            answers.append(AskedRegistry(label, 0, problem=problem))
            continue
        models = store.read(count_models)
        stored = store.read(find_content, plan.content_hash) if models else None
        kin = related(store, query, Filter(), k) if models else None
        answers.append(AskedRegistry(label, models, stored, kin))
    return tuple(answers)


def _precision(tensors: Sequence[TensorInfo]) -> str:
    """How the floating-point tensors are stored, most values first."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if is_float(tensor.dtype):
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    return ", ".join(sorted(sizes, key=lambda dtype: -sizes[dtype]))


def _adapter_alone(written: str, ref: ModelRef, error: RegistryError) -> Identification | None:
    """An adapter without its base, by what its own file says; None for any other file that cannot be opened."""
    source = SOURCES.find(ref.source)
    if source is None:
        return None
    try:
        with source.open(ref) as stored:
            tensors, facts = tuple(stored.tensors), stored.facts
    except RegistryError:
        return None
    if not is_adapter_alone(each.name for each in tensors):
        return None
    remedy = f"; {error.remedy}" if error.remedy else ""
    return Identification(
        asked=written,
        name=ref.name,
        format=ref.source,
        location=location_of(ref),
        entry=ref.key or "",
        wrapper="",
        bytes=ref.bytes,
        tensors=len(tensors),
        parameters=sum(each.size for each in tensors if is_float(each.dtype)),
        layers=None,
        precision=_precision(tensors),
        weights_read=False,
        content_hash="",
        file_sha256="",
        architecture=None,
        dequantised=False,
        libraries=(),
        published=(),
        training=None,
        registries=(),
        findings=(),
        rules=(),
        adapter=_adapter_facts(facts, tensors),
        notes=facts.notes,
        not_known=(f"what it is together with its base: {error.message}{remedy}",),
    )


def _adapter_facts(facts: ModelFacts, tensors: Sequence[TensorInfo] = ()) -> AdapterFacts:
    """What its configuration says, else the names and shapes of its factors."""
    config = facts.adapter
    kind, base, rank, modules = (
        config.get(each) for each in ("peft_type", "base_model_name_or_path", "r", "target_modules")
    )
    if not isinstance(rank, int):
        ranks = {
            each.shape[0] for each in tensors if each.shape and (".lora_A" in each.name or "lora_down" in each.name)
        }
        rank = ranks.pop() if len(ranks) == 1 else None
    if not isinstance(modules, list):
        names = (each.name.partition(".lora_")[0].rpartition(".")[2] for each in tensors if ".lora_" in each.name)
        modules = list(dict.fromkeys(names))
    return AdapterFacts(
        kind="LoRA" if not isinstance(kind, str) or kind.lower() in ("", "lora") else kind[:40],
        base=base[:200] if isinstance(base, str) else "",
        rank=rank,
        modules=tuple(str(each)[:60] for each in modules[:MODULES_NAMED]),
    )
