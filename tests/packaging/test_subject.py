"""The commit-msg hook lets good subjects through and says what is wrong with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_subject.py"
CUT = "# ------------------------ >8 ------------------------\n"


def checked(tmp_path: Path, message: str) -> tuple[int, list[str]]:
    path = tmp_path / "COMMIT_EDITMSG"
    path.write_text(message, encoding="utf-8")
    done = subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    "message",
    [
        "Read shards of any number of digits\n",
        "Read shards\n\nTheir names have more than five digits. some have six.\n",
        "A" * 72,
        "Ändere nichts\n",
        "# a comment of Git's.\n\nRead shards\n# another\n\nSince they are there.\n",
        f"Read shards\n\n{CUT}diff --git a/a b/a\n",
        "Merge branch 'a name that is so long that the subject has more than seventy-two characters'\n",
        "fixup! Read shards.\n",
        "# nothing but comments\n",
        "",
    ],
)
def test_good_messages_pass(message: str, tmp_path: Path) -> None:
    assert checked(tmp_path, message) == (0, [])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("A" * 73, ["73 characters"]),
        ("read shards\n", ["capital letter"]),
        ("3 shards are read\n", ["capital letter"]),
        ("Read shards.\n", ["full stop"]),
        ("Read shards\nTheir names differ.\n", ["blank line"]),
        (f"{'a' * 80}.\nbody\n", ["81 characters", "capital letter", "full stop", "blank line"]),
    ],
)
def test_each_fault_is_said(message: str, said: list[str], tmp_path: Path) -> None:
    status, lines = checked(tmp_path, message)
    assert status == 1
    assert len(lines) == len(said)
    assert all(word in line for word, line in zip(said, lines, strict=True))


def test_it_takes_one_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: python scripts/check_subject.py FILE\n")
