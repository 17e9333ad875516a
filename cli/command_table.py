"""Table of commands, and the group that imports a command's module when the command is called.

Building all commands takes longer than a whole search, because each option is parsed from its annotation. So ``--help``
prints the summaries below, and a call builds only the command it names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperGroup

from registry.cli.error_output import InterruptionError, renamed_option, report, report_unexpected
from registry.errors import RegistryError

__all__ = ["COMMANDS", "Command", "CommandGroup", "CommandTable"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its function (``module:attribute``), its summary of at most 45 characters, and examples."""

    target: str
    summary: str
    examples: tuple[str, ...]

    @property
    def epilog(self) -> str:
        """The examples as Click prints them; the backspace stops Click from joining the lines."""
        return "\n".join(["\b", "Examples:", *(f"  {example}" for example in self.examples)])


COMMANDS: Mapping[str, Command] = {
    "identify": Command(
        "registry.cli.identify:identify",
        "Tell what a checkpoint is.",
        (
            "archreg identify model.safetensors",
            "archreg identify runs/*.pt --json",
            "archreg identify hf:ORG/NAME --headers-only",
        ),
    ),
    "ingest": Command(
        "registry.cli.ingest_command:ingest",
        "Read models; store spectra and fingerprints.",
        (
            "archreg ingest resnet20.safetensors --family resnet --dataset cifar10",
            "archreg ingest checkpoints/ 'runs/*/best.pt' 'torchvision:resnet*'",
            "archreg ingest --manifest models.jsonl --dry-run",
            "archreg ingest --manifest models.jsonl --workers 8",
        ),
    ),
    "formats": Command(
        "registry.cli.formats:formats",
        "List the file formats that are read.",
        ("archreg formats", "archreg formats --json"),
    ),
    "runs": Command(
        "registry.cli.run_commands:app",
        "List, inspect, retry or forget ingest runs.",
        ("archreg runs list", "archreg runs failures", "archreg runs retry 7", "archreg runs forget --older-than 30"),
    ),
    "list": Command(
        "registry.cli.browse:list_models",
        "List the stored models.",
        (
            "archreg list --family resnet --max-params 1M",
            "archreg list --metric 'top1@cifar10>=92' --json",
            "archreg list --duplicates",
        ),
    ),
    "show": Command(
        "registry.cli.browse:show",
        "Show everything stored about one model.",
        ("archreg show resnet20", "archreg show resnet20 --layers"),
    ),
    "stats": Command("registry.cli.browse:stats", "Count models, layers, families, classes.", ("archreg stats",)),
    "nearest": Command(
        "registry.cli.nearest:nearest",
        "Find the stored models nearest to a model.",
        (
            "archreg nearest resnet20 -k 5",
            "archreg nearest ./new.safetensors --equivalent --max-params 200k",
            "archreg nearest resnet20 --radius 0.1",
            "archreg nearest resnet20 resnet32 --json",
        ),
    ),
    "related": Command(
        "registry.cli.related:related",
        "Find models whose weights are related.",
        (
            "archreg related resnet20",
            "archreg related ./new.safetensors -k 5 --family resnet",
            "archreg related resnet20 --all --json",
        ),
    ),
    "tree": Command(
        "registry.cli.tree:tree",
        "Show trees of related models.",
        ("archreg tree", "archreg tree --family resnet --json", "archreg tree --format dot"),
    ),
    "compare": Command(
        "registry.cli.compare:compare",
        "Decide whether two models are equivalent.",
        (
            "archreg compare resnet20 resnet32",
            "archreg compare resnet20 ./new.pt --tolerance 0.05 --json",
            "archreg compare resnet20 ./tuned.pt --require related --max-drop top1=0.5",
        ),
    ),
    "check": Command(
        "registry.cli.gate:check",
        "Require of a file what must hold, for CI.",
        (
            "archreg check new.safetensors --against resnet20 --require related --require equivalent",
            "archreg check new.pt --against old.pt --same-shape",
            "archreg check new.pt --against resnet20 --metric top1@cifar10=92.4 --max-drop top1=0.5",
        ),
    ),
    "audit": Command(
        "registry.cli.audit:audit",
        "Look for faults in models.",
        (
            "archreg audit resnet20 ./new.safetensors",
            "archreg audit --all --family resnet --fail-on warning",
            "archreg audit --all --rule untrained --rule duplicate --json",
        ),
    ),
    "classes": Command(
        "registry.cli.classes:classes",
        "Group the models into equivalence classes.",
        (
            "archreg classes",
            "archreg classes --family resnet --tolerance 0.05 --rule single",
            "archreg classes --class 1f0c8a",
        ),
    ),
    "compress": Command(
        "registry.cli.compress:compress",
        "Find smaller models equivalent to a model.",
        ("archreg compress resnet56 --max-ratio 0.5", "archreg compress resnet56 --max-params 200k --dataset cifar10"),
    ),
    "select": Command(
        "registry.cli.select:select",
        "Find the Pareto front under constraints.",
        (
            "archreg select --dataset cifar10 --max-params 1M",
            "archreg select --aim max:top1@cifar10 --aim min:params --licence MIT",
            "archreg select --like resnet56 --aim min:bytes",
        ),
    ),
    "calibrate": Command(
        "registry.cli.calibrate:calibrate",
        "Calibrate the tolerance on labelled models.",
        ("archreg calibrate --dry-run", "archreg calibrate --rate 0.005", "archreg calibrate --reset"),
    ),
    "set": Command(
        "registry.cli.manage:set_values",
        "Set a model's metadata or metrics.",
        (
            "archreg set resnet20 --family resnet --licence MIT",
            "archreg set resnet20 --metric 'top1@cifar10/test=92.63'",
        ),
    ),
    "tag": Command(
        "registry.cli.manage:tag",
        "Set, remove or show a model's tags.",
        ("archreg tag resnet20 owner=vision stage=production", "archreg tag resnet20 --remove stage"),
    ),
    "rename": Command("registry.cli.manage:rename", "Rename a model.", ("archreg rename resnet20 baseline",)),
    "rm": Command("registry.cli.manage:remove", "Remove a model with all its names.", ("archreg rm resnet20 --yes",)),
    "refingerprint": Command(
        "registry.cli.manage:refingerprint",
        "Compute what is missing from stored spectra.",
        ("archreg refingerprint", "archreg refingerprint --fingerprint mme"),
    ),
    "spectra": Command(
        "registry.cli.browse:spectra",
        "Write a model's eigenvalues to a NumPy file.",
        ("archreg spectra resnet20 -o resnet20.npz",),
    ),
    "distances": Command(
        "registry.cli.distance_matrix:distances",
        "Write pairwise distances to a NumPy file.",
        ("archreg distances -o distances.npz", "archreg distances -o resnets.npz --family resnet --distance l2"),
    ),
    "index": Command(
        "registry.cli.index_commands:app",
        "Build, check or drop the Postgres index.",
        ("archreg index build", "archreg index check --db postgresql://host/models"),
    ),
    "export": Command(
        "registry.cli.export_import:export",
        "Write models without weights to one file.",
        ("archreg export -o zoo.db", "archreg export -o resnets.db --family resnet --no-spectra"),
    ),
    "import": Command(
        "registry.cli.export_import:import_file",
        "Import the models of an exported file.",
        ("archreg import zoo.db", "archreg import zoo.db --db postgresql://host/models --dry-run"),
    ),
    "plot": Command(
        "registry.cli.plot:app",
        "Draw spectral differences, spectra or trees.",
        ("archreg plot csd vgg11 vgg16 -o vgg.pdf", "archreg plot spectrum resnet20 -o resnet20.png"),
    ),
    "db": Command(
        "registry.cli.database_commands:app",
        "Upgrade or check the database.",
        ("archreg db upgrade", "archreg db check --db postgresql://host/models"),
    ),
}


class CommandTable(Mapping[str, Any]):
    """Commands by name, each built at its first use."""

    def __init__(self, rows: Mapping[str, Command]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> Any:
        row = self._rows[name]
        module, _, attribute = row.target.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(name, epilog=row.epilog, no_args_is_help=False)(found)
            found = single
        built = typer.main.get_command(found)
        built.name = name
        built.short_help = row.summary  # Click prints it whole, but cuts a summary of its own at 45 characters
        return built


class CommandGroup(TyperGroup):
    """Top-level group: loads commands on demand and turns errors into exit codes."""

    # Any: Typer's Click is private in some versions and public in others.
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("Any", CommandTable(COMMANDS))
        self.debug = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Command names in the order of the table."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the summaries without building the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.summary) for name, row in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Interruptions become errors here, before Typer turns them into plain exit codes."""
        self.debug = bool(ctx.params.get("debug"))
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as cause:
            raise InterruptionError(cause) from cause
        except Exception as error:
            if (renamed := renamed_option(error)) is not None:
                raise renamed from error
            raise
        return result

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Parse and run. Typer reports usage errors; all other errors are reported here."""
        try:
            return super().main(*arguments, **settings)
        except RegistryError as error:
            sys.exit(report(error, debug=self.debug))
        except Exception as error:  # noqa: BLE001 - a bug shows one line, and its traceback on request
            sys.exit(report_unexpected(error, debug=self.debug))
