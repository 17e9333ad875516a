"""The documentation is checked for truth, and the check itself finds what is planted."""

from __future__ import annotations

import doctest
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]

PAGE = """# A page

See [the next](next.md), [a part](next.md#the-second-part), [here](#a-page), [out](https://example.org/).
See [nowhere](missing.md) and [no part](next.md#the-third-part).

```console
$ app greet world --times 2
hello [world](not-a-link.md)
$ MODE=1 archreg greet world --times 2 | head -1
$ archreg greet world \\
>   --wrong 2
$ archreg great world && echo no
```

```python
archreg = None  # not a command
```

```sh
archreg greet "two words"  # a comment
```
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "next.md").write_text("# Next\n\n## The `second` part\n", encoding="utf-8")
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


@pytest.fixture
def app() -> typer.Typer:
    program = typer.Typer()
    called: list[str] = []

    @program.command()
    def greet(name: str, times: int = 1) -> None:
        called.append(name)
        raise AssertionError("the check must not run a command")

    @program.command()
    def leave() -> None: ...

    return program


def test_broken_links_are_found_and_sound_ones_pass(page: Path) -> None:
    faults = list(load("check_docs").broken_links(page))
    assert [fault.rpartition(":")[2] for fault in faults] == [
        " no file missing.md",
        " no heading next.md#the-third-part",
    ]


def test_commands_are_read_from_shell_blocks_alone(page: Path) -> None:
    assert list(load("check_docs").commands(page)) == [
        (9, ["greet", "world", "--times", "2"]),
        (10, ["greet", "world", "--wrong", "2"]),
        (12, ["great", "world"]),
        (20, ["greet", "two words"]),
    ]


def test_wrong_commands_and_options_are_found_without_running_any(page: Path, app: typer.Typer) -> None:
    checks = load("check_docs")
    faults = [checks.wrong_command(app, words) for _, words in checks.commands(page)]
    assert faults[0] is None
    assert faults[3] is None
    assert "--wrong" in faults[1]
    assert "great" in faults[2]


def test_a_summary_that_is_cut_off_is_found() -> None:
    cut = "* `runs`: Show runs of ingest, what failed in them,..."
    whole = ["* `show`: Show a run.", "* `--key KEY`: Entry: state_dict, ...", "$ archreg ingest [OPTIONS] [REF]..."]
    assert load("cli_docs").cut_off("\n".join([cut, *whole])) == [cut]


@pytest.mark.parametrize("command", [["cli_docs.py", "--check"], ["check_docs.py"]])
def test_this_documentation_is_true(command: list[str]) -> None:
    words = [sys.executable, str(ROOT / "scripts" / command[0]), *command[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_example_worked_by_hand_is_what_the_library_says() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "method.md"), module_relative=False)
    assert (failed, tried) == (0, 20)
