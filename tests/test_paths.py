"""How far a reader has to go: the files and calls of the package that a question runs through.

A look-up and an ingest are what people read first, debug most and wait for. Each layer or helper put in between costs
them all, and is seen by nobody who adds one: hence the limits. Whoever needs more of them merges what is one subject.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

ROOT = Path(__file__).parents[1]
PARTS = tuple(str(ROOT / part) + "/" for part in ("registry", "cli"))
NEAREST_FILES, NEAREST_CALLS = 22, 140
INGEST_FILES = 42  # bytes by position, lazy tensors, sketches and the figures of training among them


def path_of(question: Callable[[], object]) -> tuple[set[str], int]:
    """The files of the package that a question calls functions of, and how many calls those are."""
    files: set[str] = set()
    calls = 0

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        if event == "call" and frame.f_code.co_filename.startswith(PARTS):
            files.add(frame.f_code.co_filename)
            calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        question()
    finally:
        sys.setprofile(before)
    return files, calls


def network(path: Path, width: int) -> Path:
    rng = np.random.default_rng(width)
    save_file({f"l{layer}.weight": rng.standard_normal((width, width), dtype=np.float32) for layer in range(4)}, path)
    return path


def test_a_look_up_and_an_ingest_are_short_to_read(tmp_path: Path) -> None:
    with Registry(tmp_path / "a.db") as reg:
        for number in range(6):
            reg.ingest(network(tmp_path / f"m{number}.safetensors", 16 + 4 * number), family=f"f{number % 2}")
        reg.nearest("m1")
        reg.nearest("m2")
        files, calls = path_of(lambda: reg.nearest("m1"))
        assert len(files) <= NEAREST_FILES, sorted(files)
        assert calls <= NEAREST_CALLS
        new = network(tmp_path / "new.safetensors", 40)
        files, _ = path_of(lambda: reg.ingest(new))
        assert len(files) <= INGEST_FILES, sorted(files)


def test_the_count_sees_what_is_called(tmp_path: Path) -> None:
    files, calls = path_of(lambda: Registry(tmp_path / "none.db"))
    assert str(ROOT / "registry" / "catalog" / "database.py") in files
    assert calls >= len(files) >= 2
