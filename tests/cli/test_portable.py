"""``export`` and ``import`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry.types import Ingested, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable


def failure(number: int) -> Ingested:
    return Ingested(f"m{number}", f"m{number}", "failed", 0.0, "its spectra are\x1b[2J forged", "export it again")


def test_export(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["export"] = Transfer("out.db", 2, 2, 0, 0, 1)
    done = archreg("export", "-o", "out.db", "a", "b", "--family", "resnet", "--no-spectra", "--force", "--quiet")
    assert (done.code, done.out, done.err) == (0, "out.db: 2 exported, 1 calibration.\n", "")
    settings = {"names": ["a", "b"], "spectra": False, "overwrite": True, "progress": None, "family": "resnet"}
    assert fake.called("export") == ((Path("out.db"),), settings)
    assert archreg("export").code == 2


def test_import(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["import_from"] = Transfer("in.db", 1_234, 1_200, 4, 30, 0)
    done = archreg("import", "in.db", "--replace", "--dry-run", "--quiet")
    text = "in.db (dry run): 1,200 added, 4 known and completed, 30 already known.\n"
    assert (done.code, done.out, done.err) == (0, text, "")
    assert fake.called("import_from") == ((Path("in.db"),), {"replace": True, "dry_run": True, "progress": None})


def test_what_failed_is_told_and_exits_with_3(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["import_from"] = Transfer("in.db", 23, 1, 0, 0, 0, tuple(failure(number) for number in range(22)))
    done = archreg("import", "in.db", "--quiet")
    assert (done.code, done.out) == (3, "in.db: 1 added, 22 failed.\n")
    lines = done.err.splitlines()
    assert lines[:2] == [r"archreg: m0: its spectra are\x1b[2J forged", "  export it again"]
    assert lines[-1] == "2 more models failed. Show them: --json"
    document = archreg("import", "in.db", "--quiet", "--json").document
    assert (document["added"], document["failed"], len(document["failures"])) == (1, 22, 22)


@pytest.mark.parametrize("words", [("export", "-o", "out.db"), ("import", "in.db")])
def test_a_line_now_and_then_where_standard_error_is_no_terminal(
    words: tuple[str, ...], archreg: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 20.0])
    monkeypatch.setattr("registry.cli.export_import.time.monotonic", lambda: next(clock))

    def move(_file: Path, *, progress: Callable[[int, int], None], **_: Any) -> Transfer:
        for done in (10, 3_000, 3_500, 6_000):
            progress(done, 6_000)
        return Transfer("out.db", 6_000, 6_000, 0, 0, 0)

    fake.answers |= {"export": move, "import_from": move}
    assert archreg(*words).err == "3,000/6,000 models, 500 a second, 6 s left\n"
