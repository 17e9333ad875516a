"""Rule ``duplicate``: layers of one model that hold the same values."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.audit.base import AuditRule, Hit, needs_sketches
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE", "SAME", "cosine"]

EQUAL = 1e-4
"""Relative difference of mean and largest eigenvalue up to which two layers count as equal."""
SAME = 1 - 2e-6
"""Cosine of two sketches from which on they are of the same values but for rounding: to bfloat16 it takes 3e-7 away."""
_TIED = "tied to "
# An embedding and the output layer share their weights in many language models.
_SHARED = re.compile(
    r"(?i)(^|[./_])(embed\w*|wte|shared|\w*embeddings?|lm_head|decoder|proj_out|output|generator)([./]|$)"
)
_REMEDY = "if they are not shared on purpose, a layer was copied over another: compare with the training code"


def _check(subject: AuditSubject) -> Iterator[Hit]:
    yield from _copies(subject)
    yield from _alike(subject)


def _copies(subject: AuditSubject) -> Iterator[Hit]:
    """Tensors that are byte for byte those of another layer, by that layer."""
    copies: dict[str, list[str]] = {}
    for tensor in subject.skipped:
        if tensor.reason.startswith(_TIED):
            copies.setdefault(tensor.reason.removeprefix(_TIED), []).append(tensor.name)
    modules: dict[tuple[str, str], int] = {}
    for original, names in copies.items():
        for name in names:
            pair = _modules(original, name)
            modules[pair] = modules.get(pair, 0) + 1
    kinds = {layer.tensor: layer.kind for layer in subject.layers}
    for original, names in sorted(copies.items()):
        alone = [
            name
            for name in sorted(names)
            if not (kinds.get(original) == "embedding" or (_SHARED.search(original) and _SHARED.search(name)))
        ]
        if not alone:
            continue
        whole = all(modules[_modules(original, name)] > 1 for name in alone)
        what = "with the other matrices of its module" if whole else "alone of its module"
        message = f"stored {counted(len(alone), 'time')} more, as {_some(alone)}, {what}"
        yield Hit(original, "note" if whole else "warning", len(alone), 0, message, _REMEDY)


def _modules(one: str, other: str) -> tuple[str, str]:
    """What is left of two names without the parts that they end with in common."""
    a, b = one.split("."), other.split(".")
    while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return ".".join(a), ".".join(b)


def _alike(subject: AuditSubject) -> Iterator[Hit]:
    """Layers whose spectra and sketches are equal: their tensors are parts, or stored in different precision.

    Of layers of one shape, sorted by their largest eigenvalue, only neighbours are compared: O(n log n). Without
    spectra they are sorted by the mean eigenvalue, and values confirm what sketches say.
    """
    spectra, sketches, means = subject.spectra, subject.sketches, subject.means
    if means is None or sketches is None or (spectra is None and subject.equal is None):
        return
    known = [_Known(mean, 1.0, "") for mean in means]
    if spectra is not None:
        known = [_Known(each.mean, float(each.values[-1]), each.method) for each in spectra]
    order = sorted(range(len(known)), key=lambda at: (subject.layers[at].shape, known[at].mean * known[at].top))
    groups: list[list[int]] = []
    for before, at in pairwise(order):
        if subject.layers[before].shape != subject.layers[at].shape or not _equal(known[before], known[at]):
            continue
        if cosine(sketches[before], sketches[at]) < SAME:
            continue
        if groups and groups[-1][-1] == before:
            groups[-1].append(at)
        else:
            groups.append([before, at])
    for group in groups:
        first, *others = sorted(group)
        if subject.equal is not None:
            others = [other for other in others if subject.equal(first, other)]
        if not others:
            continue
        what = "the same values" if subject.equal is not None else "equal spectra and sketches"
        names = [subject.layers[other].name for other in others]
        message = f"{what} in {_some(names)}"
        yield Hit(subject.layers[first].name, "warning", len(names), 0, message, _REMEDY)


class _Known(NamedTuple):
    """Mean eigenvalue of a layer, the largest over it, one where it is not known, and how they were found."""

    mean: float
    top: float
    method: str


def _equal(a: _Known, b: _Known) -> bool:
    """Whether the spectra of two layers of one shape may be equal; approximate ones are equal to none."""
    if a.method or b.method:
        return False
    return all(abs(one - other) <= EQUAL * max(one, other) for one, other in ((a.mean, b.mean), (a.top, b.top)))


def cosine(x: NDArray[np.float16], y: NDArray[np.float16]) -> float:
    """Cosine of two sketches (buckets,); 0 where one is of zeros."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    norms = float(a @ a) * float(b @ b)
    return float(a @ b) / norms**0.5 if norms > 0 else 0.0


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


RULE = AuditRule(
    name="duplicate",
    finds="layers of one model that hold the same values",
    when={
        "warning": "the bytes of one tensor under a second name, without the rest of its module; or two layers of one "
        "shape with equal spectra and sketches, confirmed by values where the file is at hand",
        "note": "the bytes of all matrices of a module under second names, as of a module that is used twice",
    },
    check=_check,
    lacks=needs_sketches,
    false_alarms={"warning": 0.0, "note": 0.0},
)
