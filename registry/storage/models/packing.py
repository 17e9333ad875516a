"""Conversion of values to rows and back: little-endian float32 blobs, JSON lists and specs."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import SpecMismatchError, SpectrumError
from registry.storage.models.model_validation import MAX_LENGTH
from registry.storage.models.records import StoredLayer
from registry.types.spectra import Conjugacy, Decay, FingerprintSpec
from registry.types.weight_figures import TRAINING_CLASSES, Alignments, MatrixFigures, VectorCounts, WeightFigures
from registry.types.weight_relations import Sketches
from registry.types.weights import LayerMatrix, Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import RowMapping

    from registry.types.spectra import Fingerprint, Spectrum

__all__ = [
    "FLOAT32",
    "as_json",
    "conjugacy_row",
    "layer_of",
    "layer_rows",
    "notes_of",
    "packed_notes",
    "packed_spectra",
    "packed_vector",
    "sketch_row",
    "sketches_of",
    "spec_of",
    "spec_row",
    "to_conjugacy",
    "to_metric",
    "unpacked",
    "weight_figures_of",
    "weight_figures_row",
]

FLOAT32, FLOAT16 = np.dtype("<f4"), np.dtype("<f2")
MAX_NOTES, MAX_NOTE = 20, 500
TAILS = ("edge", "long")
LAWS = ("exponential", "power", "undecided")

_DELTAS = {0.01: "01", 0.02: "02", 0.05: "05"}
_COUNTS_FROM = MatrixFigures._fields.index("flat")
_DECAY = tuple(field.name for field in fields(Decay))


def packed_vector(fingerprint: Fingerprint) -> bytes:
    """Return the vector as little-endian float32.

    Raises
    ------
    SpectrumError
        It is not float32 of shape (spec.length,), has a number that is not finite, or is longer than `MAX_LENGTH`.
    """
    spec, vector = fingerprint.spec, fingerprint.vector
    if vector.dtype != np.float32 or vector.shape != (spec.length,):
        raise SpectrumError(
            f"a {spec.label} vector must be float32 of shape ({spec.length},), not {vector.dtype} of {vector.shape}"
        )
    if spec.length > MAX_LENGTH:
        raise SpectrumError(f"a {spec.label} vector has {spec.length} numbers, more than {MAX_LENGTH}")
    if not np.isfinite(vector).all():
        raise SpectrumError(f"the {spec.label} vector has numbers that are not finite")
    return vector.astype(FLOAT32, copy=False).tobytes()


def packed_spectra(spectra: Sequence[Spectrum]) -> bytes:
    """Return the eigenvalues of all layers, concatenated, as little-endian float32."""
    return b"".join(spectrum.values.astype(FLOAT32, copy=False).tobytes() for spectrum in spectra)


def sketch_row(model_id: int, sketches: Sketches) -> dict[str, Any]:
    """Return the row of ``sketches``."""
    values = sketches.values.astype(FLOAT16, copy=False)
    return {
        "model_id": model_id,
        "version": sketches.version,
        "buckets": values.shape[1],
        "data": values.tobytes(),
    }


def sketches_of(version: int, buckets: int, data: bytes, layers: int) -> Sketches:
    """Return the sketches that a row of ``sketches`` holds, of so many layers.

    Raises
    ------
    SpectrumError
        The data are not of that many layers and buckets, or have a number that is not finite.
    """
    if buckets < 1 or len(data) != FLOAT16.itemsize * layers * buckets:
        raise SpectrumError(f"sketches of {layers} layers by {buckets} numbers do not have {len(data)} bytes")
    values = np.frombuffer(data, FLOAT16).reshape(layers, buckets)
    if not np.isfinite(values).all():
        raise SpectrumError("sketches have numbers that are not finite")
    return Sketches(version, values)


def weight_figures_row(model_id: int, figures: WeightFigures) -> dict[str, Any]:
    """Return the row of ``weight_figures``."""
    alignments = {name: None if math.isnan(z) else z for name, z in figures.alignments._asdict().items()}
    return {
        "model_id": model_id,
        "version": figures.version,
        "layers": np.array(figures.layers, FLOAT32).tobytes(),
        "statistics": json.dumps({"alignments": alignments, "vectors": figures.vectors._asdict()}),
    }


def weight_figures_of(version: int, data: bytes, statistics: str, layers: int) -> WeightFigures:
    """Return the figures that a row of ``weight_figures`` holds, of so many layers.

    Raises
    ------
    SpectrumError
        The data are not of that many layers, a number is infinite, a count is none, or the statistics are no such JSON.
    """
    width = len(MatrixFigures._fields)
    if len(data) != FLOAT32.itemsize * layers * width:
        raise SpectrumError(f"figures of {layers} layers by {width} numbers do not have {len(data)} bytes")
    values = np.frombuffer(data, FLOAT32).reshape(layers, width).astype(np.float64)
    counts = values[:, _COUNTS_FROM:]
    if np.isinf(values).any() or not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise SpectrumError("figures of weights have numbers that are infinite, or counts that are none")
    try:
        known = json.loads(statistics)
        of_pairs = known["alignments"]
        pairs = of_pairs.pop("pairs")
        alignments = Alignments(**{name: math.nan if z is None else z for name, z in of_pairs.items()}, pairs=pairs)
        vectors = VectorCounts(**known["vectors"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpectrumError("statistics of weights cannot be read") from error
    z = alignments[:-1]
    if not all(type(each) is int and 0 <= each < 2**31 for each in (alignments.pairs, *vectors)):
        raise SpectrumError("statistics of weights have a count that is none")
    if not all(isinstance(each, float | int) and not math.isinf(each) for each in z):
        raise SpectrumError("statistics of weights have a number that is infinite, or none")
    matrices = tuple(
        MatrixFigures(*each[:_COUNTS_FROM], *map(bool, marks), *map(int, rest))
        for each, marks, rest in zip(
            values[:, :_COUNTS_FROM].tolist(), counts[:, :2].tolist(), counts[:, 2:].tolist(), strict=True
        )
    )
    return WeightFigures(matrices, alignments, vectors, version)


@lru_cache(maxsize=4096)
def as_json(extents: tuple[int, ...]) -> str:
    """Return a shape as a JSON list; cached, as shapes recur."""
    return json.dumps(extents)


def layer_rows(
    model_id: int, layers: Sequence[LayerMatrix], means: Sequence[float], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of ``layers``.

    Raises
    ------
    SpectrumError
        A layer's mean eigenvalue is not finite.
    """
    rows = []
    counts = [min(layer.p, layer.q) for layer in layers]
    for layer, mean, method, count, end in zip(layers, means, methods, counts, accumulate(counts), strict=True):
        if not math.isfinite(mean):
            raise SpectrumError(f"the spectrum of layer {layer.name} is empty or not finite")
        rows.append(
            {
                "model_id": model_id,
                "position": layer.position,
                "name": layer.name,
                "tensor": layer.tensor,
                "shape": as_json(layer.shape),
                "kind": layer.kind,
                "kernel": as_json(layer.kernel),
                "p": layer.p,
                "q": layer.q,
                "axis": layer.axis,
                "start": layer.start,
                "stop": layer.stop,
                "mean": float(mean),
                "offset": end - count,
                "count": count,
                "method": method,
                "period": layer.period,
            }
        )
    return rows


def packed_notes(notes: Sequence[str]) -> str:
    """Return notes as a JSON list: the first of them, and the first characters of each."""
    return json.dumps([note[:MAX_NOTE] for note in notes[:MAX_NOTES]])


def notes_of(text: str) -> tuple[str, ...]:
    """Return the notes in a JSON list; none where it is no list of texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def layer_of(row: RowMapping) -> StoredLayer:
    """Return the layer that a row of ``layers`` holds."""
    layer = LayerMatrix(
        position=row["position"],
        name=row["name"],
        tensor=row["tensor"],
        shape=tuple(json.loads(row["shape"])),
        kind=row["kind"],
        axis=row["axis"],
        start=row["start"],
        stop=row["stop"],
        period=row["period"],
    )
    return StoredLayer(layer, row["mean"], row["count"], row["method"])


def spec_row(spec: FingerprintSpec) -> dict[str, Any]:
    """Return the row of ``specs`` without id and time."""
    return {
        "hash": spec.hash,
        "name": spec.name,
        "version": spec.version,
        "matrix_rule": spec.matrix_rule,
        "length": spec.length,
        "definition": json.dumps(spec.definition(), sort_keys=True),
    }


def spec_of(definition: str) -> FingerprintSpec:
    """Return the spec; JSON keeps every float64 exactly, so its hash is the one stored, whichever version wrote it.

    Raises
    ------
    SpecMismatchError
        It is no JSON object, or none that defines a spec.
    """
    try:
        known = json.loads(definition)
        if isinstance(known, dict):
            return FingerprintSpec.of(known)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecMismatchError("a fingerprint's definition cannot be read") from error
    raise SpecMismatchError("a fingerprint's definition cannot be read: it is no JSON object")


def conjugacy_row(model_id: int, conjugacy: Conjugacy, rule: int) -> dict[str, Any]:
    """Return the row of ``conjugacy``.

    Raises
    ------
    SpectrumError
        Its tails are not at 0.01, 0.02 and 0.05, a figure is not finite, or a class is none.
    """
    if conjugacy.tail_class not in TAILS or conjugacy.training_class not in TRAINING_CLASSES:
        raise SpectrumError(
            f"unknown tail class {conjugacy.tail_class!r:.40} or training class {conjugacy.training_class!r:.40}"
        )
    decay = conjugacy.decay
    if decay is not None and (decay.law not in LAWS or None in (decay.threshold, decay.exceedances)):
        raise SpectrumError(f"unknown decay law: {decay}")
    row: dict[str, Any] = {
        "model_id": model_id,
        "rule": rule,
        "z": float(conjugacy.z),
        "tail_class": conjugacy.tail_class,
        "training_class": conjugacy.training_class,
    }
    for kind, tail in (("tail", conjugacy.tail), ("wishart_tail", conjugacy.wishart_tail)):
        if sorted(delta for delta, _ in tail) != list(_DELTAS):
            raise SpectrumError(f"conjugacy is stored at delta = {', '.join(map(str, _DELTAS))} and no other")
        row |= {f"{kind}_{_DELTAS[delta]}": float(location) for delta, location in tail}
    row |= {f"decay_{figure}": getattr(conjugacy.decay, figure, None) for figure in _DECAY}
    if not all(math.isfinite(value) for value in row.values() if isinstance(value, float)):
        raise SpectrumError("a conjugacy figure is not finite")
    return row


def to_conjugacy(row: RowMapping | dict[str, Any]) -> Conjugacy:
    """Return the figures that a row of ``conjugacy`` holds."""
    return Conjugacy(
        tail=tuple((delta, row[f"tail_{name}"]) for delta, name in _DELTAS.items()),
        wishart_tail=tuple((delta, row[f"wishart_tail_{name}"]) for delta, name in _DELTAS.items()),
        z=row["z"],
        tail_class=row["tail_class"],
        training_class=row["training_class"],
        decay=None if row["decay_law"] is None else Decay(*(row[f"decay_{figure}"] for figure in _DECAY)),
    )


def to_metric(row: RowMapping | dict[str, Any]) -> Metric:
    """Return the metric that a row of ``metrics`` holds."""
    return Metric(row["name"], row["value"], row["dataset"], row["split"], row["higher_is_better"], row["source"])


def unpacked(blob: bytes) -> NDArray[np.float32]:
    """Return the numbers of a blob, read-only, without a copy on little-endian machines."""
    return np.frombuffer(blob, dtype=FLOAT32).astype(np.float32, copy=False)
