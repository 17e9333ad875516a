"""Rule ``config``: a precision or size in ``config.json`` that the weights contradict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from registry.audit.base import AuditRule, Hit, Lack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.audit.audit_subject import AuditSubject

__all__ = ["RULE"]

_WIDTHS = ("hidden_size", "d_model", "n_embd", "hidden_dim")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_MOST = 2**40
_INDEX = re.compile(r"(?:^|[./_])(\d{1,5})(?=[./_]|$)")
_REMEDY = "take the config.json that belongs to these weights"


def _check(subject: AuditSubject) -> Iterator[Hit]:
    config = subject.config or {}
    yield from _precision(subject, config)
    extents = {extent for layer in subject.layers for extent in (layer.p, *layer.shape[1:], layer.q)}
    for key in _WIDTHS:
        width = _whole(config.get(key))
        if width > 1 and extents and not any(extent % width == 0 for extent in extents):
            message = f"config.json states {key} {width:,}, and no layer has an extent that is a multiple of it"
            yield Hit("", "warning", max(extents), width, message, _REMEDY)
    vocabulary = _whole(config.get("vocab_size"))
    tables = [layer for layer in subject.layers if layer.kind == "embedding"]
    if vocabulary and tables:
        largest = max(tables, key=lambda layer: layer.p)
        if largest.p < vocabulary:
            message = f"config.json states vocab_size {vocabulary:,}, and the embedding has {largest.p:,} rows"
            yield Hit(largest.name, "warning", largest.p, vocabulary, message, _REMEDY)
    yield from _depth(subject, config)


def _precision(subject: AuditSubject, config: Mapping[str, Any]) -> Iterator[Hit]:
    """The precision of most weights, where both are plain floating-point numbers, and whether they are quantised."""
    stored = subject.precision.split(", ")[0] if subject.precision else ""
    stated = config.get("torch_dtype", config.get("dtype"))
    stated = stated.removeprefix("torch.") if isinstance(stated, str) else ""
    if subject.quantised and stored in ("float32", "float64"):
        message = f"the configuration states quantised weights, and they are stored in {stored}"
        yield Hit("", "warning", 1, 0, message, _REMEDY)
    elif not subject.quantised and stored in _FLOATS and stated in _FLOATS and stored != stated:
        message = f"config.json states {stated}, and most weights are stored in {stored}"
        yield Hit(
            "", "warning", _bits(stored), _bits(stated), message, "load it in the precision that you want, by name"
        )


def _depth(subject: AuditSubject, config: Mapping[str, Any]) -> Iterator[Hit]:
    """Numbers of blocks, where names of layers count them: any group of names with as many is enough."""
    stated = {key: count for key in _DEPTHS if (count := _whole(config.get(key)))}
    counts = _counts(subject)
    if not stated or not counts:
        return
    for key, count in stated.items():
        # Layers beside the blocks, such as one that predicts further tokens, are counted by some models.
        if max(counts) < count:
            message = f"config.json states {key} {count}, and names of layers count to {max(counts)}"
            yield Hit("", "warning", max(counts), count, message, _REMEDY)
    most = sum(stated.values()) + 2
    if min(counts, key=lambda found: abs(found - max(stated.values()))) > most:
        key, count = max(stated.items(), key=lambda one: one[1])
        message = f"config.json states {key} {count}, and names of layers count to {max(counts)}"
        yield Hit("", "warning", max(counts), count, message, _REMEDY)


def _counts(subject: AuditSubject) -> set[int]:
    """Lengths of the sequences 0, 1, ... that names of tensors count, by what stands before the number."""
    found: dict[str, set[int]] = {}
    for layer in subject.layers:
        for match in _INDEX.finditer(layer.tensor):
            found.setdefault(layer.tensor[: match.start(1)], set()).add(int(match[1]))
    return {max(numbers) + 1 for numbers in found.values() if len(numbers) > 1}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0


def _bits(dtype: str) -> int:
    return int(dtype.removeprefix("b").removeprefix("float"))


def _lacks(subject: AuditSubject) -> Lack | None:
    if subject.config is None:
        return Lack(
            "the files are not at hand, so that config.json cannot be read", "audit the file: archreg audit PATH"
        )
    return None


RULE = AuditRule(
    name="config",
    finds="a precision or size in config.json that the weights contradict",
    when={
        "warning": "most weights are of another precision than torch_dtype; no layer has the stated width; the "
        "embedding has fewer rows than the vocabulary; names of layers count fewer blocks, or far more"
    },
    check=_check,
    lacks=_lacks,
    false_alarms={"warning": 0.0},
)
