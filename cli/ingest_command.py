"""``archreg ingest``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from registry.cli.dry_run import show_plan
from registry.cli.ingest_report import show_outcomes
from registry.cli.option_values import metavar_of, one_of
from registry.cli.options import AsJson, Database, card, open_registry, with_options
from registry.cli.progress_output import report_failure, reporter
from registry.errors import SourceError, UsageError
from registry.extensions import EXECUTORS
from registry.spelling import without_secrets
from registry.types import Ingested, ModelCard, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry import Registry
    from registry.types import LeftOut, ModelRef

__all__ = ["Address", "TimeLimit", "Where", "Workers", "exit_by", "ingest"]

SOME_FAILED = 3
Workers = typer.Option(
    "--workers",
    min=1,
    metavar="N",
    help="Worker processes, one core each.",
    show_default="number of cores; no workers for small jobs",
)
Where = typer.Option(
    "--executor",
    parser=one_of(EXECUTORS),
    metavar=metavar_of(EXECUTORS),
    help="Where models are measured: in this process, in worker processes, on a Ray cluster.",
)
Address = typer.Option("--address", metavar="ADDRESS", help="Ray cluster to use. Default: start one on this machine.")
TimeLimit = typer.Option(
    "--time-limit",
    min=0,
    metavar="SECONDS",
    help="Time limit per model, after which its worker process is killed; 0 for no limit. A limit needs a worker "
    "process, even for one model.",
    show_default="ten minutes plus 200 times the estimate for its size; no limit without worker processes",
)


@with_options(card=card)
def ingest(
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REF",
            help="File, shard index, folder, torchvision:NAME[.WEIGHTS], timm:NAME[.TAG], hf:ORG/NAME[@REVISION], or "
            "a pattern: 'runs/*/best.pt', 'torchvision:resnet*', 'timm:convnext*'.",
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Models with their metadata, as JSON lines or CSV.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model; needs a single reference.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of random initialisations.")] = 0,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Checkpoint entry with the weights: state_dict, ...")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="Model that an adapter (LoRA) adapts. Default: the one that its configuration names, if it is here.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be read and downloaded, with time and memory; do nothing."),
    ] = False,
    discard_weights: Annotated[
        bool, typer.Option("--discard-weights", help="Delete downloaded weights once the model is stored.")
    ] = False,
    no_spectra: Annotated[
        bool,
        typer.Option(
            "--no-spectra", help="Store fingerprints without spectra: smaller, but refingerprint cannot use them."
        ),
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Device for spectra; auto uses a CUDA device if there is one."),
    ] = "cpu",
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Approximate layers of order above 8,192 by stochastic Lanczos quadrature; marked so."
        ),
    ] = False,
    allow_nonfinite: Annotated[
        bool,
        typer.Option("--allow-nonfinite", help="Store models with NaN or infinity, without the layers that hold them."),
    ] = False,
    headers_only: Annotated[
        bool,
        typer.Option(
            "--headers-only",
            help="Read the headers of files and no weights: shapes, dtypes and sizes, compared by the fingerprint "
            "shapes. The same command without it completes the models.",
        ),
    ] = False,
    workers: Annotated[int | None, Workers] = None,
    executor: Annotated[str | None, Where] = None,
    address: Annotated[str | None, Address] = None,
    time_limit: Annotated[float | None, TimeLimit] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="If the name is taken, reassign it to these weights.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only, no progress.")] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    card: ModelCard,
) -> None:
    """Read models and store their spectra and fingerprints.

    After an interruption, run the same command again: it continues, retries failures and does not read finished files
    again. archreg runs shows the progress. A different command recognises stored models by their weights. Exit code 3:
    some of several references failed.
    """
    if bool(references) == bool(manifest):
        raise UsageError(
            "ingest needs either references or a manifest", "archreg ingest FILE..., or archreg ingest --manifest FILE"
        )
    if name is not None and len(references or ()) != 1:
        raise UsageError("--name needs a single reference", "name several models in a manifest")
    with open_registry(db) as registry:
        plan, outcomes = _plan(
            registry, references, manifest=manifest, key=key, seed=seed, name=name, base=base, card=card
        )
        if dry_run:
            expected = registry.estimate(
                plan, approximate=approximate, headers_only=headers_only, workers=workers, executor=executor
            )
            show_plan(plan, outcomes, expected, headers_only=headers_only, as_json=as_json)
        else:
            told = reporter(quiet=quiet)
            try:
                outcomes += registry.ingest_all(
                    plan,
                    replace=replace,
                    keep_spectra=not no_spectra,
                    discard_weights=discard_weights,
                    device=device,
                    approximate=approximate,
                    allow_nonfinite=allow_nonfinite,
                    headers_only=headers_only,
                    workers=workers,
                    executor=executor,
                    address=address,
                    time_limit=time_limit,
                    command=_command(references, manifest),
                    progress=told,
                )
            finally:
                told.end()
            show_outcomes(outcomes, plan.left_out, as_json=as_json)
    exit_by(outcomes, several=len(references or ()) > 1)


def exit_by(outcomes: Sequence[Ingested], *, several: bool = False) -> None:
    """Exit with 3 if some of several models failed, with 1 if the only one did; else return."""
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(SOME_FAILED if several or len(outcomes) > 1 else SourceError.exit_code)


def _command(references: Sequence[str] | None, manifest: Path | None) -> str:
    words = ["--manifest", str(manifest)] if manifest is not None else map(without_secrets, references or ())
    return shlex.join(["archreg", "ingest", *words])


def _plan(
    registry: Registry, references: Sequence[str] | None, *, manifest: Path | None, **settings: Any
) -> tuple[Plan, list[Ingested]]:
    """The models to read, and a failure for each bad reference."""
    if manifest is not None:
        return registry.plan([], manifest=manifest, **settings), []
    refs: list[ModelRef] = []
    left_out: list[LeftOut] = []
    failures: list[Ingested] = []
    for reference in references or ():
        try:
            found = registry.plan([reference], **settings)
            refs += found
            left_out += found.left_out
        except SourceError as error:
            failures.append(Ingested(without_secrets(reference), "", "failed", 0.0, error.message, error.remedy or ""))
            report_failure(failures[-1])
    return Plan(refs, left_out), failures
