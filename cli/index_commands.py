"""Commands on the vector index in Postgres: ``index build``, ``index check``, ``index drop``."""

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
    typer.Option(parser=one_of(INDEX_OPERATORS), metavar=metavar_of(INDEX_OPERATORS), help="Distance of the index."),
]


@app.callback()
def _index() -> None:
    """Build, check or drop the index with which Postgres finds the nearest of many models.

    The index needs the extension pgvector 0.8 or later. Without an index, every search is exact, and each process reads
    every vector once. SQLite files need no index.
    """


@app.command(epilog="\b\nExamples:\n  archreg index build\n  archreg index build --fingerprint mme --distance l2")
def build(
    fingerprint: Fingerprint = "layered", distance: IndexDistance = "l1", db: Database = None, as_json: AsJson = False
) -> None:
    """Build the index for one fingerprint.

    It answers one distance. Models that are ingested later enter the index at once. During the build, searches continue
    and ingests wait. For a SQLite file there is nothing to build; the exit code is 0.
    """
    with open_registry(db) as registry:
        held = registry.index.build(fingerprint=fingerprint, distance=distance)
    if as_json:
        json_output.write(
            {"fingerprint": fingerprint, "distance": distance, "built": held is not None, "vectors": held}
        )
    elif held is None:
        tables.say("Searches in a SQLite file are exact and need no index.")
    else:
        tables.say(f"The index holds {tables.counted(held, f'{fingerprint} fingerprint')} for the distance {distance}.")


@app.command(epilog="\b\nExamples:\n  archreg index check\n  archreg index check -k 20 --queries 500 --json")
def check(
    fingerprint: Fingerprint = "layered",
    distance: IndexDistance = "l1",
    k: Annotated[int, typer.Option("--k", "-k", min=1, metavar="N", help="Number of nearest models per search.")] = 10,
    queries: Annotated[int, typer.Option(min=1, metavar="N", help="Number of stored models to search for.")] = 100,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Compare the index with the exact search.

    It reports missing and extra rows and the recall: the fraction of the nearest models that the index finds. Exit code
    1 if searches cannot use the index, or rows are missing or extra.
    """
    with open_registry(db) as registry:
        found = registry.index.check(fingerprint=fingerprint, distance=distance, k=k, queries=queries)
    if as_json:
        json_output.write({"index": found})
    elif found is None:
        tables.say("There is no such index; every search is exact.")
    else:
        tables.say(*_sentences(found))
    if found is not None and (found.problem or found.missing or found.extra):
        raise typer.Exit(StorageError.exit_code)


def _sentences(found: IndexCheck) -> list[str]:
    said = [
        f"Index of {found.spec.label}, {found.distance}: {tables.whole(found.held)} of "
        f"{tables.counted(found.stored, 'vector')}, {tables.whole(found.missing)} missing, "
        f"{tables.whole(found.extra)} extra."
    ]
    if found.recall is not None:
        said.append(
            f"It finds {tables.percent(found.recall)} of the {found.k} nearest, "
            f"over {tables.counted(found.queries, 'query')}."
        )
    if found.problem:
        said.append(f"It is not used: {found.problem}; {found.remedy}")
    elif found.remedy:
        said.append(f"Searches with it can miss models: {found.remedy}")
    return said


@app.command(epilog="\b\nExamples:\n  archreg index drop\n  archreg index drop --fingerprint mme")
def drop(
    fingerprint: Annotated[str | None, named_fingerprint(help="Drop only the indexes of this fingerprint.")] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Drop the indexes. Searches are then exact."""
    with open_registry(db) as registry:
        dropped = registry.index.drop(fingerprint=fingerprint)
    if as_json:
        json_output.write({"dropped": dropped})
    else:
        tables.say(
            f"Dropped the indexes of {tables.counted(dropped, 'fingerprint')}." if dropped else "There was no index."
        )
