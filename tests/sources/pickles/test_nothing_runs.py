"""Opening hostile pickles imports, compiles and calls nothing, as the interpreter's own audit events tell."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.sources.corpus import HARMLESS, HOSTILE

ROOT = Path(__file__).parents[3]
TORCH = (".pt", ".pth", ".ckpt", ".bin")

CHILD = """
import json, os, pickle, sys
from pathlib import Path
from registry.errors import RegistryError
from registry.sources import plan_weights
from registry.sources.effective_weights import EffectiveCheckpoint
from registry.sources.formats.torch_file import open_torch_file
from registry.types import ModelRef

def read(path):
    try:
        with EffectiveCheckpoint(open_torch_file(ModelRef("torch", str(path), "x"))) as checkpoint:
            plan_weights(checkpoint)
    except RegistryError as error:
        assert error.remedy and "\\n" not in str(error), error
        return str(error)
    return ""

folder = Path(sys.argv[1])
for path in sorted((folder / "sound").iterdir()):
    assert read(path) == "", read(path)
events = []
WATCHED = ("import", "exec", "compile", "marshal", "ctypes", "socket", "subprocess", "os.system", "os.exec", "os.fork",
           "os.spawn", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "pickle", "code.")
recording = True
sys.addaudithook(lambda name, args: events.append(name) if recording and name.startswith(WATCHED) else None)
before = set(sys.modules)
paths = [Path(parent) / name for parent, _, names in os.walk(folder / "hostile") for name in names]
answers = {str(path.relative_to(folder)): read(path) for path in sorted(paths)}
seen, events[:] = list(events), []
try:
    pickle.loads((folder / "control.pkl").read_bytes())
except Exception:
    pass
recording = False
status = Path("/proc/self/status")  # what getrusage says is that of the parent before
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0"]
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"events": seen, "control": events, "new": sorted(set(sys.modules) - before),
                  "torch": "torch" in sys.modules, "answers": answers,
                  "peak": peak}))
"""


class Called:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("true",))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("audit")
    outside = folder / "outside"
    for name in ("sound", "hostile", "outside"):
        (folder / name).mkdir()
    state = {"a.weight": torch.eye(4), "b": torch.eye(4).T, "n_averaged": torch.tensor(3)}
    torch.save(state, folder / "sound" / "zip.pt")
    torch.save(state, folder / "sound" / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"model": torch.nn.Linear(3, 3), "args": Path("x")}, folder / "sound" / "module.pt")
    for hostile in HOSTILE:
        if hostile.file.endswith(TORCH) and "giant" not in hostile.name:
            (folder / "hostile" / hostile.name).mkdir()
            hostile.make(folder / "hostile" / hostile.name / hostile.file, outside)
    for name, make in HARMLESS:
        if name.endswith(TORCH):
            make(folder / "hostile" / name, outside)
    for protocol in range(6):
        call = pickle.dumps({"a": Called()}, protocol)
        (folder / "hostile" / f"call{protocol}.pt").write_bytes(call)
    (folder / "control.pkl").write_bytes(pickle.dumps(Called()))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (outside / "created").exists()
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_no_event_is_heard(told: dict[str, object]) -> None:
    assert told["events"] == []
    assert told["new"] == []
    assert len(told["answers"]) > 40  # type: ignore[arg-type]


def test_the_control_is_heard(told: dict[str, object]) -> None:
    assert "os.system" in told["control"]  # type: ignore[operator]


def test_torch_is_not_loaded_and_memory_is_bounded(told: dict[str, object]) -> None:
    assert told["torch"] is False
    assert told["peak"] < 500_000  # type: ignore[operator]  # kB
