"""Validation of models before they are stored: texts, cards, specs, spectra."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import SpecMismatchError, SpectrumError, UsageError
from registry.spelling import counted
from registry.types.weights import HEADER_PREFIX, ModelCard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.storage.models.records import NewModel
    from registry.types.spectra import FingerprintSpec, Spectrum
    from registry.types.weights import WeightsPlan

__all__ = ["HASH_PREFIX", "MAX_LENGTH", "check_card", "check_model", "check_name", "check_spec"]

HASH_PREFIX = "sha256:"
MAX_LENGTH = 480
"""Numbers in a vector at most: four rows fit a Postgres page, and none is stored out of line."""

NAME_BYTES = 1_000
INDEXED_BYTES = 2_000  # Postgres indexes rows of at most 2,704 bytes
TEXT_BYTES = 100_000
LARGEST = 2**63 - 1
SPEC_TEXT = 100
SPEC_PLACES = 10_000
MEAN_ERROR = 1e-3  # float32 rounding of a mean of 1 stays far below: some 1e-7 sqrt(n)

_HASH = re.compile(r"[0-9a-f]{64}")
_TEXTS = tuple(field.name for field in fields(ModelCard) if field.default == "")


def check_name(name: str) -> None:
    """Raise `UsageError` for a name that cannot be stored or shown.

    Raises
    ------
    UsageError
        It is empty, too long, has control characters or blanks at its ends, or looks like a content hash.
    """
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise UsageError(f"{name[:100]!r} cannot be a name", "give printable text without blanks at its ends")
    if name.startswith(HASH_PREFIX):
        raise UsageError(f"{name[:100]!r} cannot be a name: {HASH_PREFIX} starts a content hash", "choose another name")
    if len(name.encode()) > NAME_BYTES:
        raise UsageError(f"a name of {len(name)} characters is too long: {name[:40]!r}...", "choose a shorter one")


def check_card(card: ModelCard) -> None:
    """Raise `UsageError` for a card that a database cannot store.

    Raises
    ------
    UsageError
        A number is not finite, or a text too long, or no text to a database: with NUL or half a surrogate pair.
    """
    for metric in card.metrics:
        if not math.isfinite(metric.value):
            raise UsageError(f"the metric {metric.name} is {metric.value}", "give a finite number, or leave it out")
        _check_indexed("a metric's name, data set and split", metric.name, metric.dataset, metric.split)
        _check_texts("a metric's source", metric.source)
    if card.gflops is not None and not math.isfinite(card.gflops):
        raise UsageError(f"gflops is {card.gflops}", "give a finite number, or leave it out")
    if card.seed is not None and not -LARGEST <= card.seed <= LARGEST:
        raise UsageError(f"the seed {card.seed} is beyond 64 bits", "leave it out")
    for key, value in card.tags:
        _check_indexed("a tag's key", key)
        _check_texts(f"the tag {key[:40]!r}", value)
    _check_indexed("family and architecture", card.family, card.architecture)
    for name in _TEXTS:
        _check_texts(name, getattr(card, name))


def check_model(new: NewModel) -> None:
    """Raise an error for an invalid model before it is written. O(layers + eigenvalues).

    Raises
    ------
    UsageError
        Its hash is none, a count is out of range, a text cannot be kept, or it has figures of weights not read.
    SpecMismatchError
        The spectra are not those of the plan's layers.
    SpectrumError
        A spectrum is not that of its layer, the sketches are not float16 of all layers, or there are figures of others.
    """
    _check_plan(new.plan)
    check_card(new.card)
    _check_texts("where the weights are from", new.format, new.location, new.entry)
    if new.spectra and tuple(spectrum.layer for spectrum in new.spectra) != new.plan.layers:
        raise SpecMismatchError(f"the spectra of {new.name} are not those of its layers")
    if new.means and len(new.means) != len(new.plan.layers):
        raise SpecMismatchError(f"the means of {new.name} are not those of its layers")
    if new.spectra:
        _check_spectra(new.spectra)
    if new.sketches is not None:
        _check_sketches(new)
    if new.weight_figures is not None and len(new.weight_figures.layers) != len(new.plan.layers):
        raise SpectrumError(f"the figures of the weights of {new.name} are not of its {len(new.plan.layers)} layers")
    if not new.plan.weights_read and (
        new.spectra
        or new.conjugacy is not None
        or new.sketches is not None
        or new.weight_figures is not None
        or any(new.means)
    ):
        raise UsageError(f"the weights of {new.name} were not read, and figures of them are given")


def check_spec(spec: FingerprintSpec, stored_hash: str) -> FingerprintSpec:
    """Return a foreign spec if it is valid and has its stored hash; else raise an error.

    Raises
    ------
    SpecMismatchError
        A field is of the wrong kind or out of range, or the hash is another.
    """
    kinds = (
        (str, (spec.name, spec.matrix_rule, spec.reference, spec.weights)),
        (int, (spec.version, spec.length, spec.beta, spec.seed)),
        (float, (*spec.locations, *spec.depths)),
    )
    if any(type(value) is not kind for kind, values in kinds for value in values):
        raise SpecMismatchError("a field of it is of the wrong kind")
    texts, numbers = kinds[0][1], kinds[1][1]
    if not all(text.isprintable() and len(text) <= SPEC_TEXT for text in texts):
        raise SpecMismatchError("a text of it is too long or cannot be shown")
    if not all(0 <= number <= LARGEST for number in numbers) or spec.version > 2**31 - 1:
        raise SpecMismatchError("a number of it is out of range")
    if not 1 <= spec.length <= MAX_LENGTH or len(spec.locations) > SPEC_PLACES or len(spec.depths) > SPEC_PLACES:
        raise SpecMismatchError(f"it has more than {MAX_LENGTH} numbers, or too many locations")
    if not all(math.isfinite(place) for place in (*spec.locations, *spec.depths)):
        raise SpecMismatchError("a location of it is not finite")
    if not all(name.isprintable() and len(name) <= SPEC_TEXT for name, _ in spec.settings):
        raise SpecMismatchError("the name of a setting is too long or cannot be shown")
    if spec.settings and len(json.dumps(spec.settings)) > TEXT_BYTES:
        raise SpecMismatchError(f"its settings are longer than {TEXT_BYTES} characters")
    if spec.hash != stored_hash:
        raise SpecMismatchError(f"its hash is {spec.hash}, not the one it is stored under")
    return spec


def _check_plan(plan: WeightsPlan) -> None:
    if not _HASH.fullmatch(plan.content_hash.removeprefix(HEADER_PREFIX)):
        raise UsageError(f"{plan.content_hash[:80]!r} is not a content hash", "it must be 64 hexadecimal digits")
    if plan.header and not _HASH.fullmatch(plan.header):
        raise UsageError(f"{plan.header[:80]!r} is not a hash of a header", "it must be 64 hexadecimal digits")
    if not plan.weights_read and plan.content_hash != HEADER_PREFIX + plan.header:
        raise UsageError(f"{plan.content_hash} is not the hash of its header, {plan.header}")
    for what, count in (
        ("parameters", plan.parameters),
        ("bytes", plan.bytes),
        ("unread weights", plan.unread),
        ("non-finite weights", plan.nonfinite),
    ):
        if not 0 <= count <= LARGEST:
            raise UsageError(f"{count} {what} are out of range")
    _check_texts(
        "a tensor's name",
        plan.rule,
        plan.topology,
        plan.precision,
        *plan.notes,
        *chain.from_iterable((layer.name, layer.tensor, layer.kind) for layer in plan.layers),
        *chain.from_iterable((tensor.name, tensor.dtype, tensor.reason) for tensor in plan.skipped),
    )


def _check_spectra(spectra: Sequence[Spectrum]) -> None:
    """Check the spectra of all layers together, which saves NumPy calls."""
    for spectrum in spectra:
        order = min(spectrum.layer.p, spectrum.layer.q)
        if spectrum.values.shape != (order,) or not order:
            raise SpectrumError(
                f"layer {spectrum.layer.name} has {counted(order, 'eigenvalue')}, not {spectrum.values.shape}"
            )
    values = np.concatenate([spectrum.values for spectrum in spectra])
    counts = np.array([len(spectrum.values) for spectrum in spectra])
    starts = np.cumsum(counts) - counts
    falls = np.zeros(len(values), dtype=bool)
    falls[1:] = values[1:] < values[:-1]
    falls[starts] = values[starts] < 0
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(values, starts, dtype=np.float64) / counts
    for wrong, what in (
        (np.logical_or.reduceat(~np.isfinite(values), starts), "is not finite"),
        (np.logical_or.reduceat(falls, starts), "does not ascend from 0 or above"),
        (np.abs(means - 1.0) > MEAN_ERROR, "is not scaled to mean 1"),
    ):
        if wrong.any():
            raise SpectrumError(f"the spectrum of layer {spectra[int(wrong.argmax())].layer.name} {what}")


def _check_sketches(new: NewModel) -> None:
    if new.sketches is None:
        return
    values = new.sketches.values
    if values.dtype != np.float16 or values.ndim != 2 or len(values) != len(new.plan.layers) or not values.shape[1]:
        raise SpectrumError(f"the sketches of {new.name} are not float16 of its {len(new.plan.layers)} layers")
    if not 0 < new.sketches.version < 2**31 or not np.isfinite(values).all():
        raise SpectrumError(f"the sketches of {new.name} are not finite, or of no version")


def _check_indexed(what: str, *texts: str) -> None:
    _check_texts(what, *texts)
    if sum(len(text.encode()) for text in texts) > INDEXED_BYTES:
        raise UsageError(f"{what} take more than {INDEXED_BYTES} bytes: {texts[0][:40]!r}...", "shorten them")


def _check_texts(what: str, *texts: str) -> None:
    # All at once: a model has some hundred of them, and each alone is nearly always sound.
    joined = "".join(texts)
    try:
        joined.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} contains a lone surrogate", "correct it") from error
    if "\0" in joined:
        raise UsageError(f"{what} contains a NUL character", "correct it")
    if len(joined) > TEXT_BYTES and any(len(text) > TEXT_BYTES for text in texts):
        raise UsageError(f"{what} is longer than {TEXT_BYTES} characters", "shorten it")
