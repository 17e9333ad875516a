"""JSON output: one document per command on standard output.

Field names are those of the classes in `registry.types`. The fields of a verdict are merged with those of its model.
Pairs (tags, distances by name, counts) become objects. A number that is not finite becomes null.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from registry.cli import verdict_text
from registry.types import Candidate, FingerprintSpec, MetricChange, ModelSummary, Neighbour
from registry.types.verdicts import ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import (
        AmongCompression,
        AmongSearch,
        AskedRegistry,
        Calibrated,
        Calibration,
        Choice,
        Comparison,
        Compression,
        Conjugacy,
        Duplicates,
        Identification,
        Identified,
        Partition,
        Recognised,
        RelationForest,
        Search,
        Selection,
    )

__all__ = [
    "among_compression",
    "among_search",
    "calibrated",
    "calibration",
    "classes",
    "comparison",
    "compression",
    "duplicates",
    "gate",
    "forest",
    "identified",
    "plain",
    "search",
    "selection",
    "unmatched",
    "write",
]

# Fields with tuples of pairs that become objects. Listed, because an empty tuple does not show it.
PAIRS = {
    "Comparison": {"distances"},
    "Conjugacy": {"tail", "wishart_tail"},
    "Contrast": {"shares"},
    "KeptPartition": {"scope"},
    "ModelCard": {"tags"},
    "ModelClass": {"shared"},
    "ModelDetails": {"tags"},
    "Stats": {"families", "fingerprints", "training_classes", "tail_classes"},
}


def write(document: Mapping[str, Any]) -> None:
    """Write ``document`` to standard output. Non-ASCII is escaped, so that no name can control a terminal."""
    sys.stdout.write(json.dumps(plain(document), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Convert ``value`` for JSON: dataclasses to dicts, tuples to lists, numbers that are not finite to None.

    Raises
    ------
    TypeError
        If the value has another type.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _record(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _record(value: Any) -> dict[str, Any]:
    if isinstance(value, FingerprintSpec):
        return {"name": value.name, "version": value.version, "label": value.label, "hash": value.hash}
    if isinstance(value, Neighbour):
        relation = {} if value.relation is None else {"relation": plain(value.relation)}
        return {**_record(value.model), **_record(value.verdict), **relation}
    pairs = PAIRS.get(type(value).__name__, set())
    record = {
        field.name: plain(dict(getattr(value, field.name)) if field.name in pairs else getattr(value, field.name))
        for field in fields(value)
    }
    if isinstance(value, ModelSummary):  # keys of the catalogue, and of questions to several registries, alone
        for key in ("catalogue", "registries"):
            if not record[key]:
                del record[key]
    if isinstance(value, MetricChange):
        record |= {"change": plain(value.change), "better": value.better}
    if isinstance(value, Candidate):
        return {**record.pop("model"), **record.pop("verdict"), **record}
    return record


def calibration(used: Calibration | None) -> dict[str, Any] | None:
    """A calibration without its quantiles, or None; ``resolution`` is the smallest rate that it can show."""
    return None if used is None else _measured(used)


def _measured(used: Calibration) -> dict[str, Any]:
    record = _record(used)
    del record["quantiles"]
    return {**record, "resolution": used.resolution}


def calibrated(found: Calibrated, *, stored: bool) -> dict[str, Any]:
    """Document of ``calibrate``."""
    return {
        "calibration": {**_measured(found.calibration), "quantiles": found.calibration.quantiles},
        "previous": calibration(found.previous),
        "labelled": found.labelled,
        "unlabelled": found.unlabelled,
        "relations": found.relations,
        "stored": stored,
    }


def search(query: str, found: Search) -> dict[str, Any]:
    """Document of one query of ``nearest``."""
    return {
        "query": query,
        "model": found.model,
        "fingerprint": found.spec,
        "distance": found.distance,
        "tolerance": found.tolerance,
        "rate": found.rate,
        "assume_trained": found.assume_trained,
        "radius": found.radius,
        "searched": found.searched,
        "calibration": calibration(found.calibration),
        "unknown": found.unknown,
        "indexed": found.indexed,
        "note": found.note,
        "older": found.older,
        **_of_shapes(found.model, found.neighbours),
        "neighbours": found.neighbours,
    }


def among_search(query: str, found: AmongSearch) -> dict[str, Any]:
    """Document of one query of ``nearest --among``: all rows by ratio, and the answers that they are from."""
    answers = {"weights": found.by_weights, "shapes": found.by_shapes}
    kept = {basis: search(query, answer) for basis, answer in answers.items() if answer is not None}
    for answer in kept.values():
        del answer["query"], answer["model"], answer["neighbours"]
    return {
        "query": query,
        "model": found.model,
        "registries": found.registries,
        "answers": [{"rests_on": basis, **answer} for basis, answer in kept.items()],
        "neighbours": [{**_record(near), **_basis(near)} for near in found.neighbours],
    }


def among_compression(found: AmongCompression) -> dict[str, Any]:
    """Document of ``compress --among``: one answer for each basis, each with its candidates."""
    answers = []
    for basis, answer in (("weights", found.by_weights), ("shapes", found.by_shapes)):
        if answer is not None:
            rows = [{**_record(each), **_basis(each)} for each in answer.candidates]
            document = {**compression(answer), "candidates": rows}
            del document["model"]
            answers.append({"rests_on": basis, **document})
    return {"model": found.model, "registries": found.registries, "answers": answers}


def _of_shapes(asked: ModelSummary, rows: Sequence[Neighbour | Candidate]) -> dict[str, str]:
    """Addition to an answer by shapes alone: that ``equivalent`` means alike in shapes."""
    if not any(row.verdict.by_shapes for row in rows):
        return {}
    told = verdict_text.alike([asked, *(row.model for row in rows)])
    return {"rests_on": "shapes", "equivalent_means": told}


def _basis(row: Neighbour | Candidate) -> dict[str, Any]:
    """Which registry a row is from, what it rests on, and its distance as a fraction of the tolerance."""
    by_shapes = row.verdict.by_shapes
    return {
        "registry": row.model.registries[0],
        "rests_on": "shapes" if by_shapes else "weights",
        "ratio": plain(ratio(row.verdict)),
    }


def duplicates(found: Duplicates) -> dict[str, Any]:
    """Document of ``list --duplicates``."""
    return {**_record(found), "freeable": found.freeable}


def unmatched(texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Addition to an empty answer: filter values that no model has, each with similar known values."""
    return {"unmatched": texts} if texts else {}


def comparison(compared: Comparison) -> dict[str, Any]:
    """Document of ``compare``: verdict, relation, both models with their classes, and where they differ."""
    means = verdict_text.alike((compared.a, compared.b))
    return {
        **plain(compared.verdict),
        **({"rests_on": "shapes", "equivalent_means": means} if compared.verdict.by_shapes else {}),
        "same_weights": compared.same_weights,
        "relation": compared.relation,
        "findings": {"a": compared.findings_a, "b": compared.findings_b},
        "fingerprint": compared.spec,
        "distance_name": compared.distance,  # ``distance`` is the verdict's number
        "distances": dict(compared.distances),
        "calibration": calibration(compared.calibration),
        "a": {**_side(compared.a, compared.conjugacy_a), "asked": compared.asked_a or compared.a.name},
        "b": {**_side(compared.b, compared.conjugacy_b), "asked": compared.asked_b or compared.b.name},
        "contrast": compared.contrast,
        "metric_changes": compared.changes,
        "contradicting": [each.place for each in compared.contradicting],
        "requirements": compared.requirements,
    }


def gate(compared: Comparison) -> dict[str, Any]:
    """Document of ``check``: whether all is met, what was required and why it holds or not, and of which models."""
    sides = {"file": (compared.b, compared.asked_b), "against": (compared.a, compared.asked_a)}
    return {
        "met": not compared.unmet,
        "requirements": compared.requirements,
        **{
            side: {"name": model.name, "asked": asked or model.name, "content_hash": model.content_hash}
            for side, (model, asked) in sides.items()
        },
    }


def identified(found: Identified) -> dict[str, Any]:
    """Document of ``identify``: of each file its architecture, training, relations and faults; what failed, and why."""
    return {
        "files": [_identification(file) for file in found.files],
        "failed": found.failed,
        "damaged": found.damaged,
    }


def _identification(file: Identification) -> dict[str, Any]:
    training = file.training
    return {
        **{name: value for name, value in _record(file).items() if name not in ("dequantised", "libraries")},
        "architecture": None if file.architecture is None else _architecture(file, file.architecture),
        "training": None
        if training is None
        else {**_record(training), "evidence": dict(training.evidence), "vectors": training.vectors._asdict()},
        "registries": [_asked(each) for each in file.registries],
    }


def _asked(asked: AskedRegistry) -> dict[str, Any]:
    found = asked.related
    return {
        "label": asked.label,
        "models": asked.models,
        "problem": asked.problem,
        "stored": None if asked.stored is None else asked.stored.name,
        "compared": 0 if found is None else found.compared,
        "related": []
        if found is None
        else [{"name": each.model.name, **_record(each.relation)} for each in found.relatives],
    }


def _architecture(file: Identification, recognised: Recognised) -> dict[str, Any]:
    """The best match, names of those equal to it, and the nearest where there is none; ``equal`` includes the best."""
    exact = recognised.verdict == "exact"
    best = recognised.matches[0] if recognised.matches and recognised.verdict != "unknown" else None
    labels = [{"label": each.architecture.label, "share": each.share} for each in recognised.matches]
    document: dict[str, Any] = {
        "verdict": recognised.verdict,
        "exact": exact,
        "headless": recognised.headless,
        "dequantised": file.dequantised,
        "name": None,
        "library": None,
        "equal": [each["label"] for each in labels] if exact else [],
        "nearest": [] if exact else labels,
        "catalogue": dict(file.libraries),
    }
    if best is None:
        return document
    architecture = best.architecture
    return document | {
        "name": architecture.name,
        "library": architecture.library,
        "family": architecture.family,
        "task": architecture.task,
        "imports": architecture.imports,
        "line": architecture.line(best.classes, best.channels),
        "share": best.share,
        "named": best.named,
        "strict": best.strict,
        "prefix": best.prefix,
        "classes": best.classes,
        "head": best.head,
        "channels": best.channels,
        "stem": best.stem,
        "differences": [each._asdict() for each in best.differences],
    }


def _side(model: ModelSummary, conjugacy: Conjugacy | None) -> dict[str, Any]:
    side = {**plain(model), "conjugacy": plain(conjugacy)}
    if conjugacy is not None:
        side |= {"training_class": conjugacy.training_class, "tail_class": conjugacy.tail_class}
    return side


def classes(partition: Partition) -> dict[str, Any]:
    """Document of ``classes``."""
    return {
        "fingerprint": partition.spec,
        "distance": partition.distance,
        "tolerance": partition.tolerance,
        "rate": partition.rate,
        "assume_trained": partition.assume_trained,
        "rule": partition.rule,
        "searched": partition.models,
        "calibration": calibration(partition.calibration),
        "kept": partition.kept,
        "created": partition.created or None,
        "note": partition.note,
        "older": partition.older,
        "classes": partition.classes,
    }


def compression(found: Compression) -> dict[str, Any]:
    """Document of ``compress``."""
    return {
        "model": found.model,
        "fingerprint": found.spec,
        "distance": found.distance,
        "tolerance": found.tolerance,
        "rate": found.rate,
        "assume_trained": found.assume_trained,
        "searched": found.searched,
        "calibration": calibration(found.calibration),
        "equivalent": found.equivalent,
        **_of_shapes(found.model, found.candidates),
        "candidates": found.candidates,
        "removals": found.removals,
        "note": found.note,
        "older": found.older,
    }


def forest(found: RelationForest) -> dict[str, Any]:
    """Document of ``tree``: of each tree the names, the root first, and the edges."""
    return {
        "compared": found.compared,
        "alone": found.alone,
        "unsketched": found.unsketched,
        "trees": [{"models": [model.name for model in tree.models], "edges": tree.edges} for tree in found.trees],
    }


def selection(found: Selection) -> dict[str, Any]:
    """Document of ``select``: of each equivalence class the smallest model, its value for each aim, and the others."""
    aims = [aim.label for aim in found.aims]

    def chosen(choice: Choice) -> dict[str, Any]:
        figures = dict(zip(aims, choice.values, strict=True))
        expected = choice.expected_change
        return {**_record(choice.model), "aims": figures, "distance": choice.distance, "expected_change": expected}

    return {
        "aims": aims,
        "fingerprint": found.spec,
        "distance": found.distance,
        "tolerance": found.tolerance,
        "rate": found.rate,
        "assume_trained": found.assume_trained,
        "calibration": calibration(found.calibration),
        "like": found.like,
        "models": found.models,
        "passed": found.passed,
        "searched": found.searched,
        "unknown": dict(found.unknown),
        "older": found.older,
        "on_front": found.on_front,
        "count": found.count,
        "classes": [
            {**chosen(group.best), "others": [chosen(other) for other in group.others]} for group in found.classes
        ],
        "removals": found.removals,
        "unit": found.unit,
    }
