"""Checks of the fuzzer itself, which forks: `test_fuzzing` runs each in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from tests.sources import fuzzing
from tests.sources.fuzzing import fuzz, make

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

COUNT = 600


def test_damage_is_refused_in_one_line_or_harmless() -> None:
    found = fuzz(1, range(COUNT))
    assert found.wrong == []
    assert sum(found.outcomes.values()) == COUNT
    # Damage that is always refused by the first check, or never by any, would show nothing.
    assert {"read", "WeightsError", "UnsafeError"} <= set(found.outcomes)
    assert found.outcomes["read"] > COUNT // 40
    assert found.peak < fuzzing.limit()


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
