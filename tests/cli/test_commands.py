"""The table of commands: help, examples, start-up."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer

from registry.cli.app import app
from registry.cli.command_table import COMMANDS
from registry.storage import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEAVY = ("torch", "torchvision", "scipy", "sqlalchemy", "alembic", "numpy", "matplotlib", "registry.catalog")


def _leaves() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        nested = getattr(command, "commands", None)
        if nested is None:
            yield name, command
        else:
            yield from ((f"{name} {inner}", leaf) for inner, leaf in nested.items())


def _modules_after(words: str) -> set[str]:
    program = (
        "import sys\nfrom registry.cli.app import main\n"
        f"try: main({shlex.split(words)!r})\nexcept SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", ["--help", "--version", "nearest --help", "ingest --help"])
def test_help_loads_nothing_heavy(words: str) -> None:
    loaded = _modules_after(words)
    assert "registry.cli.app" in loaded
    assert not loaded & set(HEAVY)


def test_the_schema_is_looked_at_without_alembic(database_url: str) -> None:
    Store.open(database_url, mode="create").close()
    assert "alembic" not in _modules_after(f"db current --db '{database_url}'")
    assert "alembic" in _modules_after(f"db check --db '{database_url}'")


def test_defaults_are_shown_as_they_would_be_written(archreg: Callable[..., Any], fake: Any) -> None:
    assert "[default: 0.01]" in archreg("calibrate", "--help").out
    archreg("calibrate")
    assert fake.called("calibrate")[1]["rate"] == 0.01
    assert archreg("calibrate", "--reset", "--rate", "0.01").code == 2  # given, if only its default
    assert archreg("calibrate", "--reset").code == 0


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("compare", "calibrated for one pair"),
        ("classes", "calibrated, for any number of models"),
        ("nearest", "smaller for many models, so that at most one false pass is expected"),
        ("compress", "smaller for many models, so that at most one false pass is expected"),
        ("select", "smaller for many models, so that at most one false pass is expected"),
    ],
)
def test_help_says_which_tolerance_holds(command: str, why: str, archreg: Callable[..., Any]) -> None:
    assert why in " ".join(archreg(command, "--help").out.split())


def test_help_builds_no_command() -> None:
    assert not _modules_after("--help") & {row.target.partition(":")[0] for row in COMMANDS.values()}


def test_top_help_lists_every_command(archreg: Callable[..., Any]) -> None:
    for flag in ("-h", "--help"):
        shown = archreg(flag)
        assert shown.code == 0
        for name, row in COMMANDS.items():
            assert name in shown.out
            assert row.summary.split()[0] in shown.out


def test_every_option_of_every_command_has_help() -> None:
    commands = dict(_leaves())
    assert len(commands) == len(COMMANDS) + 10  # db, index and plot count for three each, runs for five
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


NESTED = [name for name, _ in _leaves() if " " in name]


@pytest.mark.parametrize("name", [*COMMANDS, *NESTED])
def test_every_command_has_help_with_examples(name: str, archreg: Callable[..., Any]) -> None:
    long, short = archreg(*name.split(), "--help"), archreg(*name.split(), "-h")
    assert long.code == short.code == 0
    assert long.out == short.out
    if name not in ("db", "index", "plot", "runs"):
        assert f"  archreg {name}" in long.out
        assert name == "formats" or "--db" in long.out
        assert "--json" in long.out


@pytest.mark.parametrize("example", [example for row in COMMANDS.values() for example in row.examples])
def test_examples_run(
    example: str, archreg: Callable[..., Any], fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(example)
    assert program == "archreg"
    done = archreg(*words)
    assert done.code == 0, done.err
    assert done.out


def test_no_words_show_help_as_wrong_usage(archreg: Callable[..., Any]) -> None:
    shown = archreg()
    assert shown.code == 2
    assert "Commands:" in shown.out + shown.err


def test_a_misspelt_command_is_answered_with_the_right_one(archreg: Callable[..., Any]) -> None:
    shown = archreg("neares", "x")
    assert shown.code == 2
    assert "'nearest'" in shown.err


def test_version(archreg: Callable[..., Any]) -> None:
    import registry

    assert archreg("--version").out == f"archreg {registry.__version__}\n"


def test_the_database_may_be_named_before_or_after_the_command(archreg: Callable[..., Any], fake: Any) -> None:
    archreg("--db", "before.db", "stats")
    assert fake.url == "before.db"
    archreg("stats", "--db", "after.db")
    assert fake.url == "after.db"
    archreg("--db", "before.db", "db", "current", "--db", "after.db")
    assert fake.url == "after.db"
    archreg("--db", "before.db", "db", "current")
    assert fake.url == "before.db"
    archreg("stats")
    assert fake.url is None
