"""Damaged headers and archives: a few hundred here, 100,000 by ``make fuzz``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import pickle_files
from tests.sources.fuzzing import attempt, make
from tests.sources.mutations import SHARD, sound_files


def test_in_a_process_without_threads(tmp_path: Path) -> None:
    """Other tests import libraries with threads into this process, and their forks may stall."""
    for name, data in pickle_files.contents().items():
        (tmp_path / name).write_bytes(data)
    check = Path(__file__).with_name("forking_checks.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-q", str(check)]
    environment = {**os.environ, pickle_files.FOLDER: str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("name", sorted(sound_files()))
def test_the_files_that_damage_starts_from_are_read(name: str, tmp_path: Path) -> None:
    make(0, 0, tmp_path)
    assert (tmp_path / SHARD).is_file()
    sound = sound_files()[name]
    path = tmp_path / (sound.name or f"model{sound.suffix}")  # as the files beside it expect
    for beside, data in sound.beside.items():
        (tmp_path / beside).write_bytes(data)
    path.write_bytes(sound.content)
    assert attempt(path) == "read"


def test_a_mutation_is_made_again_by_its_number(tmp_path: Path) -> None:
    files = [make(3, number, tmp_path).read_bytes() for number in (*range(20), *range(20))]
    assert files[:20] == files[20:]
    assert len(set(files)) == 20
