"""Parsers of option values. A wrong value is a usage error that shows an example."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

import typer

from registry.cli.error_output import harmless
from registry.errors import UsageError
from registry.extensions import FINGERPRINTS
from registry.types import Metric, MetricBound

__all__ = [
    "metavar_of",
    "one_of",
    "parse_amount",
    "parse_bound",
    "parse_bytes",
    "parse_drop",
    "parse_fingerprint",
    "parse_metric",
    "parse_pair",
    "parse_params",
    "parse_rate",
    "parse_ratio",
]

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "B": 3, "T": 4}
EXPONENT = r"(?:[eE][+-]?[0-9]{1,3})?"
NUMBER = rf"(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+){EXPONENT}"
LARGEST = 2**63 - 1
DISTANCES = ("l1", "l2", "linf")  # --metric selected one of these in earlier versions


def _refuse(text: object, what: str) -> typer.BadParameter:
    return typer.BadParameter(f"'{harmless(str(text))}' is {what}")


def metavar_of(rows: Mapping[str, object]) -> str:
    """The names of a table as help shows them: ``[l1|l2|linf]``."""
    return f"[{'|'.join(rows)}]"


def one_of(rows: Mapping[str, object]) -> Callable[[str], str]:
    """What takes a name of a table and refuses others."""

    def parse_name(text: str) -> str:
        if text not in rows:
            raise _refuse(text, f"none of {', '.join(rows)}")
        return text

    return parse_name


def parse_fingerprint(text: str) -> str:
    """The name of a fingerprint, of this package or another one, which is only looked for where it is not ours."""
    if text not in FINGERPRINTS:
        from registry.spectral import spec_named

        try:
            spec_named(text)
        except UsageError as error:
            raise _refuse(text, f"no fingerprint; {error.remedy}") from error
    return text


def parse_params(text: str) -> int:
    """Parse a number of parameters: ``200000``, ``200k``, ``1.5M``, ``7B``, ``1e6``. Units are decimal; B is 10^9."""
    return _whole(text, r"([kKMGBT]?)()", "not a number of parameters; write 200000, 200k, 1.5M or 1e6")


def parse_bytes(text: str) -> int:
    """Parse a number of bytes: ``500000``, ``500k``, ``2G``, ``2GB``, ``1e9``, or binary: ``64MiB``."""
    return _whole(text, r"([kKMGT]?)(i?)B?", "not a number of bytes; write 500000, 500k, 2G, 64MiB or 1e9")


def _whole(text: str, units: str, otherwise: str) -> int:
    match = re.fullmatch(rf"({NUMBER})\s*{units}", str(text).strip())
    if match is None:
        raise _refuse(text, otherwise)
    number, unit, binary = match.groups()
    value = Decimal(number) * (1024 if binary else 1000) ** POWERS[unit.upper()]
    if value > LARGEST:
        raise _refuse(text, "too large; the limit is 2^63")
    if value != int(value):
        raise _refuse(text, "not a whole number")
    return int(value)


def parse_amount(text: str) -> float:
    """Parse a finite number that is not negative."""
    try:
        value = float(text)
    except ValueError as error:
        raise _refuse(text, "not a number") from error
    if not math.isfinite(value) or value < 0:
        raise _refuse(text, "out of range; it must be finite and not negative")
    return value


def parse_ratio(text: str) -> float:
    """Parse a fraction of the original's size, in (0, 1]: ``0.5``."""
    value = parse_amount(text)
    if not 0 < value <= 1:
        raise _refuse(text, "out of range; write a fraction such as 0.5, above 0 and at most 1")
    return value


def parse_rate(text: str) -> float:
    """Parse a fraction of pairs, in (0, 1): ``0.01``."""
    value = parse_amount(text)
    if not 0 < value < 1:
        raise _refuse(text, "out of range; write a fraction such as 0.01, above 0 and below 1")
    return value


def _split_place(text: str) -> tuple[str, str, str]:
    """Split ``name@dataset/split`` into its three parts; the last two may be absent."""
    name, _, place = text.partition("@")
    dataset, _, split = place.rpartition("/") if "/" in place else (place, "", "")
    return name.strip(), dataset.strip(), split.strip()


def parse_bound(text: str) -> MetricBound:
    """Parse a bound on a metric: ``top1>=92``, ``loss<=0.5``, ``top1@cifar10>=92``, ``epochs=90``."""
    if str(text).lower() in DISTANCES:
        raise _refuse(text, f"not a bound on a metric; the distance is --distance {str(text).lower()}")
    match = re.fullmatch(r"([^<>=]+)(>=|<=|==?)([^<>=]+)", str(text))
    name, dataset, split = _split_place(match[1]) if match else ("", "", "")
    if match is None or not name or split:
        raise _refuse(text, "not a bound; write 'top1>=92', 'loss<=0.5' or 'top1@cifar10>=92'")
    value = _metric_value(text, match[3])
    return MetricBound(
        name=name,
        minimum=None if match[2] == "<=" else value,
        maximum=None if match[2] == ">=" else value,
        dataset=dataset,
    )


def parse_metric(text: str, *, higher_is_better: bool | None = None) -> Metric:
    """Parse a metric of a model: ``top1=92.6``, ``top1@cifar10=92.6``, ``top1@cifar10/test=92.6``."""
    place, separator, number = str(text).rpartition("=")
    name, dataset, split = _split_place(place)
    if not separator or not name:
        raise _refuse(text, "not a metric; write 'top1=92.6' or 'top1@cifar10/test=92.6'")
    return Metric(name, _metric_value(text, number), dataset, split, higher_is_better=higher_is_better)


def _metric_value(text: object, number: str) -> float:
    try:
        value = float(number)
    except ValueError as error:
        raise _refuse(text, f"not a metric: '{harmless(number.strip())}' is not a number") from error
    if not math.isfinite(value):
        raise _refuse(text, "not a metric: the number must be finite")
    return value


def parse_drop(text: str) -> Metric:
    """Parse the largest drop of a metric: ``top1=0.5``, ``top1@cifar10=0.5``, ``top1@cifar10/test=0.5``."""
    place, separator, _ = str(text).rpartition("=")
    if not separator or not _split_place(place)[0]:
        raise _refuse(text, "not a drop of a metric; write 'top1=0.5' or 'top1@cifar10=0.5'")
    drop = parse_metric(text)
    if drop.value < 0:
        raise _refuse(text, "out of range; a drop is not negative")
    return drop


def parse_pair(text: str, option: str) -> tuple[str, str]:
    """Split ``KEY=VALUE`` into its two parts; the value may contain equals signs or be empty."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise typer.BadParameter(f"'{harmless(text)}' is not a KEY=VALUE pair", param_hint=f"'{option}'")
    return key.strip(), value
