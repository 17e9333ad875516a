"""Command ``calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.option_values import parse_rate
from registry.cli.options import AsJson, Database, is_given, measure, open_registry, with_options
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry.types import Calibrated, Calibration

__all__ = ["calibrate"]


@with_options(measure=measure)
def calibrate(
    context: typer.Context,
    rate: Annotated[
        float, typer.Option(parser=parse_rate, metavar="X", help="Fraction of unrelated pairs that may pass.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the bootstrap and of any sample.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show the result; store nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Return to the shipped calibration.")] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    measure: dict[str, Any],
) -> None:
    """Measure the tolerance at which 1 in 100 pairs of unrelated models pass, on the labelled models.

    Models of different families are unrelated; models without a family are left out. The table shows how many pairs of
    one family pass, by architecture, training and seed. The interval is a bootstrap over families. Above 2,000 labelled
    models, a random sample with equally many of each family is used. The result is stored and used for this fingerprint
    and distance until the next calibration or --reset. Without one, the shipped calibration is used, if there is one.
    """
    given = [f"--{name.replace('_', '-')}" for name in ("rate", "seed", "dry_run") if is_given(context, name)]
    if reset and given:
        raise UsageError(f"{given[0]} cannot be combined with --reset", "archreg calibrate --reset")
    with open_registry(db) as registry:
        if reset:
            _tell_reset(registry.reset_calibration(**measure), as_json=as_json)
            return
        found = registry.calibrate(rate=rate, seed=seed, dry_run=dry_run, **measure)
    if as_json:
        json_output.write(json_output.calibrated(found, stored=not dry_run))
        return
    _show(found, stored=not dry_run)


def _tell_reset(holds: Calibration | None, *, as_json: bool) -> None:
    if as_json:
        json_output.write({"calibration": json_output.calibration(holds)})
    elif holds is None:
        tables.say("No calibration is shipped for this fingerprint and distance: verdicts now need --tolerance.")
    else:
        tables.say(f"The shipped calibration is used again: {_tolerance(holds)}.")


def _show(found: Calibrated, *, stored: bool) -> None:
    previous = verdict_text.UNCALIBRATED if found.previous is None else _tolerance(found.previous)
    tables.say(f"New: {_tolerance(found.calibration)}.", f"Previous: {previous}.")
    if found.unlabelled:
        were = "was" if found.unlabelled == 1 else "were"
        tables.say(f"{tables.counted(found.unlabelled, 'model')} without a family {were} left out.")
    if found.labelled > (found.calibration.models or 0):
        tables.say(
            f"A sample of the {tables.whole(found.labelled)} labelled models was used, equally many of each family."
        )
    columns = ("pairs", ">families", ">number", ">median distance", ">within tolerance", ">equivalent")
    rows = (
        (
            relation.name,
            tables.whole(relation.families),
            tables.whole(relation.pairs),
            tables.number(relation.median),
            tables.percent(relation.within),
            tables.percent(relation.equivalent),
        )
        for relation in found.relations
    )
    tables.table(columns, rows)
    tables.say("The new calibration is stored and in use." if stored else "Nothing was stored.")


def _tolerance(found: Calibration) -> str:
    """``tolerance 0.384 (95 % interval 0.35 to 0.41) at a rate of 1 %, calibrated on 163 published models``."""
    low, high = found.tolerance_low, found.tolerance_high
    bounded = (
        f"95 % interval {tables.number(low)} to {tables.number(high)}"
        if low is not None
        else "too few families for an interval"
    )
    return (
        f"tolerance {tables.number(found.tolerance)} ({bounded}) at a rate of {100 * found.rate:g} %, "
        + verdict_text.calibrated(found)
    )
