"""Manifests: JSONL or CSV files with one model per line."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, UsageError
from registry.types import Metric, ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ManifestEntry", "read_manifest"]

_CARD_TEXTS = ("family", "architecture", "task", "dataset", "licence", "source", "revision", "recipe", "training")
_SPELLINGS = {"license": "licence", "reference": "ref"}
# Properties of the weights that a manifest may contain; the registry computes and stores its own values.
_COMPUTED = frozenset({"params", "sha", "topology", "matrices"})
_METRICS = 'write [{"name": "top1", "dataset": "cifar10", "split": "test", "value": 92.6}]'
_NUMBER = "write a number such as 92.6, or leave the field out"
_SEED = "write a whole number such as 7, or leave the field out"


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A line of a manifest: a path or reference, a name (may be empty), and the card."""

    reference: str | Path
    name: str
    card: ModelCard


def read_manifest(path: str | Path) -> tuple[ManifestEntry, ...]:
    """Entries of a ``.jsonl`` or ``.csv`` manifest; paths in it are relative to its folder.

    Known fields: ``path`` or ``ref`` (one of them), ``name``, ``family``, ``architecture``, ``task``, ``dataset``,
    ``licence``, ``source``, ``seed``, ``training``, ``gflops``, ``metrics`` (records of name, dataset, split, value).
    ``params``, ``sha``, ``topology`` and ``matrices`` are ignored, because they are computed from the weights. Any
    other field with a value becomes a tag.

    Raises
    ------
    NotFoundError
        The file does not exist.
    UsageError
        A line is not a record, has no reference, repeats a name, or has a number field that is not a number. The
        message gives the line number.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(f"no manifest at {file}", "give the path of a .jsonl or .csv file")
    entries: list[ManifestEntry] = []
    names: dict[str, int] = {}
    for number, record in _records(file):
        entry = _entry(file, number, record)
        if entry.name and entry.name in names:
            raise UsageError(f"{file}, line {number}: the name {entry.name!r} is also on line {names[entry.name]}")
        names[entry.name] = number
        entries.append(entry)
    if not entries:
        raise UsageError(f"the manifest {file} holds no models", 'write one line per model: {"path": "weights.pt"}')
    return tuple(entries)


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                yield from _csv_records(file, csv.DictReader(lines))
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json_record(file, number, line)
    except UnicodeDecodeError as error:
        raise UsageError(f"the manifest {file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise NotFoundError(f"the manifest {file} cannot be read: {error.strerror}") from error


def _csv_records(file: Path, reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for row in reader:
            if None in row:
                raise UsageError(
                    f"{file}, line {reader.line_num}: more fields than the header has",
                    "quote fields that contain commas",
                )
            yield reader.line_num, dict(row)
    except csv.Error as error:
        # The reader has already counted this line.
        number = reader.line_num + 1
        raise UsageError(f"{file}, line {number}: {error}", "write it as comma-separated values") from error


def _json_record(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}, line {number}: not valid JSON", "a manifest has one JSON object per line") from error
    if not isinstance(record, dict):
        raise UsageError(f"{file}, line {number}: not a JSON object", "a manifest has one JSON object per line")
    return record


def _entry(file: Path, number: int, record: dict[str, Any]) -> ManifestEntry:
    where = f"{file}, line {number}"
    fields = {_SPELLINGS.get(key, key): value for key, value in record.items() if value not in (None, "")}
    path, ref = fields.pop("path", None), fields.pop("ref", None)
    if (path is None) == (ref is None):
        raise UsageError(f'{where}: give one of "path" and "ref"')
    # A Path, so that a file name is never taken for another kind of reference.
    reference = str(ref) if path is None else file.parent / str(path)
    name = str(fields.pop("name", ""))
    for computed in _COMPUTED:
        fields.pop(computed, None)
    texts = {key: str(fields.pop(key)) for key in _CARD_TEXTS if key in fields}
    card = ModelCard(
        **texts,
        seed=_seed(where, fields.pop("seed", None)),
        gflops=_gflops(where, fields.pop("gflops", None)),
        metrics=_metrics(where, fields.pop("metrics", ())),
        tags=tuple((str(key), _text(value)) for key, value in fields.items()),
    )
    return ManifestEntry(reference, name, card)


def _metrics(where: str, records: Any) -> tuple[Metric, ...]:
    if isinstance(records, str):
        try:
            records = json.loads(records)
        except (ValueError, RecursionError) as error:
            raise UsageError(f'{where}: "metrics" is not a JSON list of records', _METRICS) from error
    if not isinstance(records, list | tuple) or not all(isinstance(record, dict) for record in records):
        raise UsageError(f'{where}: "metrics" is not a list of records of name, dataset, split, value', _METRICS)
    metrics = []
    for record in records:
        value = _number(where, "a metric's value", record.get("value"))
        if not record.get("name") or value is None:
            raise UsageError(f"{where}: a metric needs a name and a value", _METRICS)
        better = record.get("higher_is_better")
        if better not in (None, True, False):
            raise UsageError(f"{where}: higher_is_better is neither true nor false: {better!r}", "write one of them")
        metrics.append(
            Metric(
                str(record["name"]),
                value,
                str(record.get("dataset") or ""),
                str(record.get("split") or ""),
                None if better is None else bool(better),
                str(record.get("source") or ""),
            )
        )
    return tuple(metrics)


def _number(where: str, what: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {what} is not a number: {value!r}", _NUMBER) from error
    except OverflowError as error:
        raise UsageError(f"{where}: {what} is too large a number", _NUMBER) from error
    if not math.isfinite(number):
        raise UsageError(f"{where}: {what} is not finite", _NUMBER)
    return number


def _gflops(where: str, value: Any) -> float | None:
    number = _number(where, "gflops", value)
    if number is not None and number < 0:
        raise UsageError(f"{where}: gflops is negative: {value!r}", _NUMBER)
    return number


def _seed(where: str, value: Any) -> int | None:
    number = _number(where, "seed", value)
    if number is None:
        return None
    try:
        seed = int(str(value))  # not converted through float, which is inexact beyond 2^53
    except ValueError as error:
        if not number.is_integer():
            raise UsageError(f"{where}: seed is not an integer: {value!r}", _SEED) from error
        seed = int(number)
    if not -(2**63) <= seed < 2**63:
        raise UsageError(f"{where}: seed does not fit in 64 bits: {value!r}", _SEED)
    return seed


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
