"""Hostile pickles: nothing in them runs, and none takes more than memory and time that a sound file may take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.sources import pickle_files
from tests.sources.pickle_corpus import CONTAINERS, TRICKS, bare, write_tricks

if TYPE_CHECKING:
    from pathlib import Path

WARM = (
    "module.pt",
    "module-bare.pt",
    "arrays.pkl",
    "state.pkl",
    "arrays.joblib",
    "packed.joblib",
    "lz4.joblib",
    "agent.zip",
)
SECONDS = 30.0  # on a machine that does something else, too
BYTES = 500e6


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `watched` tells of each file."""
    folder = tmp_path_factory.mktemp("tricks")
    write_tricks(folder / "hostile")
    (folder / "warm").mkdir()
    for name in WARM:
        (folder / "warm" / name).write_bytes(pickle_files.contents()[name])
    (folder / "hostile" / "sound.pkl").write_bytes(pickle_files.contents()["arrays.pkl"])
    warm = [str(folder / "warm" / name) for name in WARM] + [str(folder / "hostile" / "gzip-members.pkl")]
    warm += [str(folder / "hostile" / f"bomb-{kind}.joblib") for kind in ("bz2", "xz")]
    command = [sys.executable, "-m", "tests.sources.watched", str(folder / "hostile"), *warm]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=580)
    found = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert len(found) == 2 * len(TRICKS) + len(CONTAINERS) + 1  # none has ended the process
    assert sorted(path.name for path in folder.iterdir()) == ["hostile", "warm"]
    return found


def test_nothing_happens(told: dict[str, dict[str, Any]]) -> None:
    assert {name: line["events"] for name, line in told.items() if line["events"]} == {}


def test_each_is_read_or_refused_in_one_line(told: dict[str, dict[str, Any]]) -> None:
    assert {name: line["outcome"] for name, line in told.items() if line["outcome"].startswith("WRONG")} == {}
    kinds = {line["outcome"].partition(":")[0] for line in told.values()}
    assert kinds >= {"WeightsError", "UnsafeError", "read 1"}
    assert told["sound.pkl"]["outcome"] == "read 3"  # the control


def test_none_takes_long_or_much(told: dict[str, dict[str, Any]]) -> None:
    assert {name: line["seconds"] for name, line in told.items() if line["seconds"] > SECONDS} == {}
    assert max(line["memory"] for line in told.values()) < BYTES


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tuple-key", "UnsafeError: .*nested deeper than"),
        ("tuple-key-in-set", "UnsafeError: .*nested deeper than"),
        ("list-nested", "UnsafeError: .*nested deeper than"),
        ("empty-lists", "UnsafeError: .*more objects than weights need"),
        ("ext1", "UnsafeError: .*extension registry"),
        ("buffer", "UnsafeError: .*buffers are outside the file"),
        ("build-class", "WeightsError: .*state is given to a Global"),
        ("setitem-global", "WeightsError: .*entries are set in a Global"),
        ("append-global", "WeightsError: .*elements are appended to a Global"),
        ("text-beyond-8", "WeightsError: .*ends early"),
        ("memo-missing", "WeightsError: .*damaged pickle"),
        ("reduce-system", "read 1"),  # the weights beside a name that is not called
        ("newobj", "read 1"),
        ("inst", "read 1"),
        ("obj", "read 1"),
    ],
)
@pytest.mark.parametrize("suffix", ["pkl", "pt"])
def test_what_is_said(name: str, words: str, suffix: str, told: dict[str, dict[str, Any]]) -> None:
    assert re.match(words, told[f"{name}.{suffix}"]["outcome"]), told[f"{name}.{suffix}"]["outcome"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stride-zero.pt", "UnsafeError: .*of a storage of 192"),
        ("stride-zero-many.pt", "UnsafeError"),
        ("storage-above.pt", "WeightsError: .*no entry"),
        ("storage-absolute.pt", "WeightsError: .*no entry"),
        ("persistent-module.pt", "WeightsError: .*no storage"),
        ("joblib-file.pkl", "WeightsError: .*joblib before 0.10.*joblib.dump"),
        ("joblib-array.pkl", "WeightsError: .*ends early"),
        ("array-enormous.pkl", "WeightsError: .*has 4"),
        ("zfile.joblib", "WeightsError: .*joblib before 0.10"),
        *(
            (f"bomb-{kind}", "UnsafeError: .*would unpack")
            for kind in ("gzip.pkl", "zlib.pkl", "bz2.joblib", "xz.joblib", "lzma.joblib")
        ),
        ("xz-memory.joblib", "UnsafeError: .*MiB of memory to unpack"),
        ("gzip-sum.pkl", "WeightsError: .*damaged gzip data"),
    ],
)
def test_what_is_said_of_files(name: str, words: str, told: dict[str, dict[str, Any]]) -> None:
    assert re.match(words, told[name]["outcome"]), told[name]["outcome"]


@pytest.mark.parametrize("name", ["reduce-system", "stack-global", "inst", "obj"])
def test_they_would_run_where_they_are_let(name: str, tmp_path: Path) -> None:
    """The control: Python's own unpickler runs the commands, in a process of its own."""
    (tmp_path / "x.pkl").write_bytes(bare(name))
    program = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", program, tmp_path / "x.pkl"], cwd=tmp_path, check=True)
    assert (tmp_path / "created").exists()
