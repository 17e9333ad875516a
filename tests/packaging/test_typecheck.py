"""``make lint`` sees the whole package: the parts that the wheel maps into it too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("registry", "cli", "migrations", "scripts")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for place in PLACES:
        (tmp_path / place).mkdir()
        (tmp_path / place / "__init__.py").write_text('"""A package."""\n', encoding="utf-8")
        (tmp_path / place / "good.py").write_text("from __future__ import annotations\n", encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def typecheck(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "typecheck.py"), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_good_code_passes_and_an_error_in_any_part_is_reported_under_its_own_path(tree: Path) -> None:
    status, said = typecheck(tree)
    assert status == 0, said

    for place in PLACES:
        (tree / place / "planted.py").write_text("number: int = 'text'\n", encoding="utf-8")
    status, said = typecheck(tree)
    assert status != 0
    reported = {line.partition(":")[0] for line in said.splitlines() if "[assignment]" in line}
    assert reported == {f"{place}/planted.py" for place in PLACES}


def test_parts_see_each_other_by_their_installed_names(tree: Path) -> None:
    (tree / "cli" / "number.py").write_text("NUMBER: int = 1\n", encoding="utf-8")
    wrong = "from registry.cli.number import NUMBER\n\nTEXT: str = NUMBER\n"
    (tree / "migrations" / "planted.py").write_text(wrong, encoding="utf-8")
    status, said = typecheck(tree)
    assert status != 0
    assert "migrations/planted.py:3: error: Incompatible types" in said
    assert "import-not-found" not in said
