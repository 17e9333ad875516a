"""Texts of options become values, or wrong usage."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from registry.cli.option_values import (
    parse_bound,
    parse_bytes,
    parse_drop,
    parse_metric,
    parse_pair,
    parse_params,
    parse_ratio,
)
from registry.types import Metric, MetricBound


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000", 200_000),
        ("200_000", 200_000),
        ("1e6", 1_000_000),
        ("1.001M", 1_001_000),  # 1.001 * 1e6 is no whole number in binary floating point
        ("200k", 200_000),
        ("200K", 200_000),
        (" 1.5 M ", 1_500_000),
        ("2G", 2_000_000_000),
        ("7B", 7_000_000_000),
        ("1T", 10**12),
        (".5k", 500),
        ("0", 0),
    ],
)
def test_parameters_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_params(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500", 500), ("500B", 500), ("2GB", 2 * 10**9), ("64MiB", 64 * 2**20), ("1Ki", 1024), ("1.5k", 1500)],
)
def test_bytes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "abc", "-5", "+5", "1,5M", "1e", "1e9999", "nan", "inf", "0.5", "1.0005k", "5m5", "1e30", "0x10", "1 2", "٣"],
)
@pytest.mark.parametrize("parse", [parse_params, parse_bytes])
def test_what_is_no_number_is_refused(parse: type, text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse(text)


@given(st.integers(0, 2**63 - 1))
def test_any_whole_number_is_itself(value: int) -> None:
    assert parse_params(str(value)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top1>=92", MetricBound("top1", minimum=92.0)),
        ("loss<=0.5", MetricBound("loss", maximum=0.5)),
        ("top1@cifar10>=92.5", MetricBound("top1", minimum=92.5, dataset="cifar10")),
        ("epochs=90", MetricBound("epochs", 90.0, 90.0)),
        ("epochs==90", MetricBound("epochs", 90.0, 90.0)),
        (" top1 >= -1e3 ", MetricBound("top1", minimum=-1000.0)),
    ],
)
def test_bounds(text: str, expected: MetricBound) -> None:
    assert parse_bound(text) == expected


@pytest.mark.parametrize("text", ["top1>92", "top1", ">=92", "top1>=", "top1>=x", "top1>=nan", "top1>=1>=2", "@c>=1"])
def test_bad_bounds_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"not a bound|not a metric"):
        parse_bound(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top1=92.63", Metric("top1", 92.63)),
        ("top1@cifar10=92.63", Metric("top1", 92.63, "cifar10")),
        ("top1@cifar10/test=92.63", Metric("top1", 92.63, "cifar10", "test")),
        ("f1@org/set/dev=-0.5", Metric("f1", -0.5, "org/set", "dev")),
    ],
)
def test_metrics(text: str, expected: Metric) -> None:
    assert parse_metric(text) == expected


@pytest.mark.parametrize("text", ["top1", "=3", "top1=", "top1=high", "top1=inf", "@cifar10=3"])
def test_bad_metrics_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a metric"):
        parse_metric(text)


@pytest.mark.parametrize("text", ["top1", "=3", "@cifar10=3"])
def test_a_bad_drop_is_refused_with_a_drop(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"not a drop of a metric; write 'top1=0\.5' or 'top1@cifar10=0\.5'"):
        parse_drop(text)
    assert parse_drop("top1@cifar10/test=0.5") == Metric("top1", 0.5, "cifar10", "test")


def test_pairs() -> None:
    assert parse_pair("a=b=c", "--tag") == ("a", "b=c")
    assert parse_pair("a=", "--tag") == ("a", "")
    for text in ("a", "=b", " =b", ""):
        with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
            parse_pair(text, "--tag")


def test_ratios_lie_above_0_and_up_to_1() -> None:
    assert parse_ratio("1") == 1.0
    for text in ("0", "1.01", "-0.5", "nan", "half"):
        with pytest.raises(typer.BadParameter):
            parse_ratio(text)
