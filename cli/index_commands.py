"""``archreg index``: the index of a large registry in Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli import json_output, tables
from registry.cli.option_values import metavar_of, one_of
from registry.cli.options import AsJson, Database, Fingerprint, named_fingerprint, open_registry
from registry.errors import StorageError
from registry.extensions import INDEX_OPERATORS

if TYPE_CHECKING:
    from registry.types import IndexCheck

__all__ = ["app", "build", "check", "drop"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

IndexDistance = Annotated[
    str,
    typer.Option(
        parser=one_of(INDEX_OPERATORS), metavar=metavar_of(INDEX_OPERATORS), help="Distance that the index is for."
    ),
]


@app.callback()
def _index() -> None:
    """Build, check or drop the index by which Postgres finds the nearest of many models.

    It needs the extension pgvector, 0.8 or later; without it every search is exact, and reads each vector once a
    process. A SQLite file needs none.
    """


@app.command(epilog="\b\nExamples:\n  archreg index build\n  archreg index build --fingerprint mme --distance l2")
def build(
    fingerprint: Fingerprint = "layered", distance: IndexDistance = "l1", db: Database = None, as_json: AsJson = False
) -> None:
    """Build the index for a fingerprint and a distance; what is ingested later is in it at once.

    Searches go on meanwhile, ingests wait for its end. In a SQLite file there is nothing to build: exit code 0.
    """
    with open_registry(db) as registry:
        held = registry.index.build(fingerprint=fingerprint, distance=distance)
    if as_json:
        json_output.write(
            {"fingerprint": fingerprint, "distance": distance, "built": held is not None, "vectors": held}
        )
    elif held is None:
        tables.say("searches in a SQLite file are exact and need no index")
    else:
        tables.say(f"the index holds {tables.counted(held, f'{fingerprint} fingerprint')}, by {distance}")


@app.command(epilog="\b\nExamples:\n  archreg index check\n  archreg index check -k 20 --queries 500 --json")
def check(
    fingerprint: Fingerprint = "layered",
    distance: IndexDistance = "l1",
    k: Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="How many nearest to look for.")] = 10,
    queries: Annotated[int, typer.Option(min=1, metavar="N", help="Stored models to ask for.")] = 100,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Hold the index against the exact search: rows missing or left over, and how many of the nearest it finds.

    Exit code 1 if searches cannot use it, or rows are missing or left over.
    """
    with open_registry(db) as registry:
        found = registry.index.check(fingerprint=fingerprint, distance=distance, k=k, queries=queries)
    if as_json:
        json_output.write({"index": found})
    elif found is None:
        tables.say("there is no such index: every search is exact")
    else:
        tables.say(*_sentences(found))
    if found is not None and (found.problem or found.missing or found.extra):
        raise typer.Exit(StorageError.exit_code)


def _sentences(found: IndexCheck) -> list[str]:
    said = [
        f"{found.spec.label}, {found.distance}: {tables.whole(found.held)} of {tables.counted(found.stored, 'vector')}"
        f", {tables.whole(found.missing)} missing, {tables.whole(found.extra)} left over"
    ]
    if found.recall is not None:
        said.append(
            f"finds {tables.percent(found.recall)} of the {found.k} nearest, "
            f"over {tables.counted(found.queries, 'model')}"
        )
    if found.problem:
        said.append(f"not used: {found.problem}; {found.remedy}")
    elif found.remedy:
        said.append(f"searches by it can miss models: {found.remedy}")
    return said


@app.command(epilog="\b\nExamples:\n  archreg index drop\n  archreg index drop --fingerprint mme")
def drop(
    fingerprint: Annotated[str | None, named_fingerprint(help="Drop the indexes of this fingerprint alone.")] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Drop the indexes; every search is exact then."""
    with open_registry(db) as registry:
        dropped = registry.index.drop(fingerprint=fingerprint)
    if as_json:
        json_output.write({"dropped": dropped})
    else:
        tables.say(
            f"dropped the indexes of {tables.counted(dropped, 'fingerprint')}" if dropped else "there was no index"
        )
