"""Manifests: a model a line, as JSONL or CSV, with what is known of it."""

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
# What a manifest may repeat of the weights themselves; the registry computes these and does not store a second opinion.
_COMPUTED = frozenset({"params", "sha", "topology", "matrices"})


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A line of a manifest: a reference as the sources understand it, a name (may be empty), and the card."""

    reference: str
    name: str
    card: ModelCard


def read_manifest(path: str | Path) -> tuple[ManifestEntry, ...]:
    """Read a ``.jsonl`` or ``.csv`` manifest; paths in it are relative to its own folder.

    Known fields: ``path`` or ``ref`` (one of them), ``name``, ``family``, ``architecture``, ``task``, ``dataset``,
    ``licence``, ``source``, ``seed``, ``training``, ``gflops``, ``metrics`` (records of name, dataset, split, value);
    ``params``, ``sha``, ``topology`` and ``matrices`` are computed from the weights and not read; any other field with
    a value becomes a tag.

    Raises
    ------
    NotFoundError
        No file is there.
    UsageError
        A line that is no record, lacks a reference, or gives a name twice; the message has the line's number.
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
        raise UsageError(f"the manifest {file} holds no models", 'write a line a model: {"path": "weights.pt"}')
    return tuple(entries)


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                reader = csv.DictReader(lines)
                for row in reader:
                    if None in row:
                        raise UsageError(f"{file}, line {reader.line_num}: more fields than the heading has")
                    yield reader.line_num, dict(row)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json_record(file, number, line)
    except UnicodeDecodeError as error:
        raise UsageError(f"the manifest {file} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise NotFoundError(f"the manifest {file} cannot be read: {error.strerror}") from error


def _json_record(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{file}, line {number}: no JSON record", "a manifest has one JSON object a line") from error
    if not isinstance(record, dict):
        raise UsageError(f"{file}, line {number}: not a JSON object", "a manifest has one JSON object a line")
    return record


def _entry(file: Path, number: int, record: dict[str, Any]) -> ManifestEntry:
    where = f"{file}, line {number}"
    fields = {_SPELLINGS.get(key, key): value for key, value in record.items() if value not in (None, "")}
    path, ref = fields.pop("path", None), fields.pop("ref", None)
    if (path is None) == (ref is None):
        raise UsageError(f'{where}: give one of "path" and "ref"')
    reference = str(file.parent / str(path)) if path is not None else str(ref)
    name = str(fields.pop("name", ""))
    for computed in _COMPUTED:
        fields.pop(computed, None)
    texts = {key: str(fields.pop(key)) for key in _CARD_TEXTS if key in fields}
    card = ModelCard(
        **texts,
        seed=_integer(where, fields.pop("seed", None)),
        gflops=_number(where, "gflops", fields.pop("gflops", None)),
        metrics=_metrics(where, fields.pop("metrics", ())),
        tags=tuple((str(key), _text(value)) for key, value in fields.items()),
    )
    return ManifestEntry(reference, name, card)


def _metrics(where: str, records: Any) -> tuple[Metric, ...]:
    if isinstance(records, str):
        try:
            records = json.loads(records)
        except json.JSONDecodeError as error:
            raise UsageError(f'{where}: "metrics" is no JSON list of records') from error
    if not isinstance(records, list | tuple) or not all(isinstance(record, dict) for record in records):
        raise UsageError(f'{where}: "metrics" is no list of records of name, dataset, split, value')
    metrics = []
    for record in records:
        value = _number(where, "a metric's value", record.get("value"))
        if not record.get("name") or value is None:
            raise UsageError(f"{where}: a metric needs a name and a value")
        better = record.get("higher_is_better")
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
        raise UsageError(f"{where}: {what} is no number: {value!r}") from error
    if not math.isfinite(number):
        raise UsageError(f"{where}: {what} is not finite")
    return number


def _integer(where: str, value: Any) -> int | None:
    number = _number(where, "seed", value)
    if number is not None and number != int(number):
        raise UsageError(f"{where}: seed is no whole number: {value!r}")
    return None if number is None else int(number)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
