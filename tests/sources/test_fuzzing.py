"""Damaged headers and archives: a few hundred here, 100,000 by ``make fuzz``."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.sources import fuzzing
from tests.sources.fuzzing import attempt, fuzz, make
from tests.sources.mutations import SHARD, sound_files

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 600


def test_damage_is_refused_in_one_line_or_harmless() -> None:
    found = fuzz(1, range(COUNT))
    assert found.wrong == []
    assert sum(found.outcomes.values()) == COUNT
    # Damage that is always refused by the first check, or never by any, would show nothing.
    assert {"read", "WeightsError", "UnsafeError"} <= set(found.outcomes)
    assert found.outcomes["read"] > COUNT // 40
    assert found.peak < fuzzing.limit()


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


def at(number: int, seed: int, folder: Path) -> bytes:
    return make(seed, number, folder).read_bytes()


def test_what_must_not_happen_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a reader that raises, dies, hangs and floods on one file each."""
    monkeypatch.setattr(fuzzing, "LIMIT_SECONDS", 3.0)
    monkeypatch.setattr(fuzzing, "LIMIT_BYTES", fuzzing._resident(os.getpid()) + 50e6)
    raising, dying, hanging, flooding = (at(number, 5, tmp_path) for number in (2, 4, 6, 8))

    def read(path: Path) -> str:
        content = path.read_bytes()
        if content == raising:
            raise KeyError("x")
        if content == dying:
            os.kill(os.getpid(), signal.SIGKILL)
        if content == hanging:
            time.sleep(10)
        if content == flooding:
            taken = bytearray(b"x") * int(fuzzing.LIMIT_BYTES)
            time.sleep(10)
            return str(len(taken))
        return "read"

    found = fuzz(5, range(10), read)
    wrong = dict(line.split(": ", 1) for line in found.wrong)
    assert sorted(wrong) == ["2", "4", "6", "8"]
    for number, words in (("2", "KeyError"), ("4", "with -9"), ("6", "took 3."), ("8", "MB")):
        assert words in wrong[number]
