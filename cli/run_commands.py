"""Commands on the journal: ``runs list``, ``runs show``, ``runs failures``, ``runs retry``, ``runs forget``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli import json_output, tables
from registry.cli.ingest_command import Address, TimeLimit, Where, Workers, exit_by
from registry.cli.ingest_report import show_outcomes
from registry.cli.options import AsJson, Database, Limit, open_registry
from registry.cli.progress_output import reporter
from registry.errors import UsageError

if TYPE_CHECKING:
    from registry import Registry
    from registry.types import Run, RunItem

__all__ = ["app", "failures", "forget", "list_runs", "retry", "show"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
RunId = Annotated[int | None, typer.Argument(metavar="[RUN]", help="Number of the run. Default: the newest.")]
NONE = "There are no runs yet. Start one: archreg ingest REF..."


@app.callback()
def _runs() -> None:
    """List, inspect, retry or forget ingest runs."""


@app.command("list", epilog="\b\nExamples:\n  archreg runs list\n  archreg runs list -k 100 --json")
def list_runs(k: Limit = 20, db: Database = None, as_json: AsJson = False) -> None:
    """List the runs, the newest first."""
    with open_registry(db) as registry:
        runs = registry.runs.list(limit=k + 1)
    older, runs = runs[k:], runs[:k]
    if as_json:
        json_output.write({"runs": runs})
    elif not runs:
        tables.hint(NONE)
    else:
        columns = (">run", "state", "started", ">stored", ">failed", ">waiting", "command")
        tables.table(columns, [_row(run) for run in runs])
    if older:
        tables.hint(f"There are older runs. Show them: archreg runs list -k {10 * k}")


def _row(run: Run) -> tuple[str, ...]:
    counts = (tables.whole(run.done), tables.whole(run.failed), tables.whole(run.waiting))
    return (str(run.id), run.state, tables.moment(run.started), *counts, run.command)


@app.command(epilog="\b\nExamples:\n  archreg runs show\n  archreg runs show 7 --json")
def show(run: RunId = None, db: Database = None, as_json: AsJson = False) -> None:
    """Show a run and the outcome of each model."""
    with open_registry(db) as registry:
        found = _found(registry, run)
        items = () if found is None else registry.runs.items(found.id)
    if as_json:
        json_output.write({"run": found, "items": items})
    elif found is None:
        tables.hint(NONE)
    else:
        started, seen = tables.moment(found.started), tables.moment(found.heartbeat)
        tables.say(
            f"Run {found.id}, {found.state}: {found.command}",
            f"Started {started}, last heartbeat {seen}, by {found.worker}.",
            f"Models: {found.done} stored, {found.failed} failed, {found.waiting} waiting.",
        )
        rows = [(i.name, i.state, str(i.attempts or ""), _seconds(i), i.message) for i in items]
        tables.table(("name", "state", ">attempts", ">seconds", "error"), rows)


@app.command(epilog="\b\nExamples:\n  archreg runs failures\n  archreg runs failures 7 --json")
def failures(run: RunId = None, db: Database = None, as_json: AsJson = False) -> None:
    """Show the failures of a run with remedies."""
    with open_registry(db) as registry:
        found = _found(registry, run)
        items = () if found is None else registry.runs.items(found.id, states=["failed"])
    if as_json:
        json_output.write({"run": found, "items": items})
    elif found is None:
        tables.hint(NONE)
    elif items:
        tables.table(
            ("name", ">attempts", "error", "remedy"), [(i.name, str(i.attempts), i.message, i.remedy) for i in items]
        )
        tables.hint(f"To retry them: archreg runs retry {found.id}")
    else:
        tables.say(f"Nothing failed in run {found.id}.")


@app.command(epilog="\b\nExamples:\n  archreg runs retry\n  archreg runs retry 7 --workers 1")
def retry(
    run: RunId = None,
    workers: Annotated[int | None, Workers] = None,
    executor: Annotated[str | None, Where] = None,
    address: Annotated[str | None, Address] = None,
    time_limit: Annotated[float | None, TimeLimit] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only, no progress.")] = False,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Retry the failed and unfinished models.

    The options of the run are used again. Exit codes are those of ingest.
    """
    with open_registry(db) as registry:
        found = _found(registry, run)
        if found is None:
            tables.hint(NONE)
        told = reporter(quiet=quiet)
        try:
            outcomes = (
                ()
                if found is None
                else registry.runs.retry(
                    found.id,
                    workers=workers,
                    executor=executor,
                    address=address,
                    time_limit=time_limit,
                    progress=told,
                )
            )
        finally:
            told.end()
    show_outcomes(outcomes, as_json=as_json)
    exit_by(outcomes)


@app.command(epilog="\b\nExamples:\n  archreg runs forget 7\n  archreg runs forget --older-than 30")
def forget(
    run: Annotated[int | None, typer.Argument(metavar="[RUN]", help="Number of the run.")] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="All runs whose last heartbeat is older than this.")
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Delete runs from the journal, not models.

    Each ingest of a changed folder is a new run with one item per file, so delete old runs from time to time. After
    that, the same command starts a new run, and stored models are recognised by their weights. An active run is not
    deleted.
    """
    if (run is None) == (older_than is None):
        raise UsageError("forget needs either a run or --older-than", "archreg runs list shows the runs")
    with open_registry(db) as registry:
        forgotten = registry.runs.forget(run, older_than=older_than)
    if as_json:
        json_output.write({"forgotten": forgotten})
    else:
        tables.say(f"Forgot {tables.counted(forgotten, 'run')}.")


def _found(registry: Registry, run: int | None) -> Run | None:
    """The run with that number, or the newest; None if there are no runs."""
    if run is not None:
        return registry.runs.get(run)
    return next(iter(registry.runs.list(limit=1)), None)


def _seconds(item: RunItem) -> str:
    return "" if item.seconds is None else f"{item.seconds:.1f}"
