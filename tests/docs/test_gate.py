"""The shell parts of the page on gates, run in a shell on files of its names; and the gate as a user meets it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from tests.cli.test_end_to_end import network

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
WORKFLOW, HOOKS = (
    yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
)
STEPS = {step["name"]: step["run"] for step in WORKFLOW["jobs"]["gate"]["steps"] if "name" in step}
WIDTHS = (3, 16, 16, 24, 24)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a step of Actions is run: by bash, that ends at the first failure."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARCHREG_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PRE_COMMIT_HOME": str(folder.parent / "pre-commit"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )


def tuned(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights after some more training: moved by a tenth of their size."""
    rng = np.random.default_rng(7)
    return {
        name: (values + 0.1 * values.std() * rng.standard_normal(values.shape)).astype(np.float32)
        for name, values in weights.items()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its fine-tune, an export of that, a stranger of the same shape, and a registry."""
    folder = tmp_path_factory.mktemp("made") / "checkout"
    (folder / "models").mkdir(parents=True)
    (folder / "out").mkdir()
    base = network(1, WIDTHS)
    fine = tuned(base)
    for name in ("base", "production"):
        save_file(base, folder / "models" / f"{name}.safetensors")
    for name in ("model", "tuned"):
        save_file(fine, folder / "out" / f"{name}.safetensors")
    save_file(dict(reversed(fine.items())), folder / "out" / "export.safetensors", metadata={"made": "elsewhere"})
    save_file(network(5, WIDTHS), folder / "stranger.safetensors")
    (folder / "out" / "top1").write_text("97.8\n")
    done = shell(
        "archreg ingest models/production.safetensors --name production --db registry.db -q\n"
        "archreg set production --metric top1@digits/test=98.1 --db registry.db",
        folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "checkout"))


def test_the_first_example(checkout: Path) -> None:
    [block] = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shown = shell(re.match(r"\$ (.*)", block)[1], checkout)  # type: ignore[index]
    told = [line for line in block.splitlines() if not line.startswith("$")]
    assert [*shown.stdout.splitlines(), str(shown.returncode)] == told


@pytest.mark.parametrize("step", STEPS)
def test_a_step_passes(step: str, checkout: Path) -> None:
    done = shell(STEPS[step], checkout)
    assert (done.returncode, done.stderr) == (0, "")


def test_steps_stop_what_they_are_for(checkout: Path) -> None:
    related, identical, document = STEPS.values()
    (checkout / "out" / "top1").write_text("97.0\n")
    done = shell(related, checkout)
    assert done.returncode == 4
    assert done.stderr.endswith(" against production: max-drop top1@digits=0.5\n")
    (checkout / "stranger.safetensors").replace(checkout / "out" / "model.safetensors")
    done = shell(related, checkout)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "related: not met: independent: correlation " in done.stdout
    assert shell(identical, checkout).returncode == 4
    assert shell(document, checkout).returncode == 0
    assert json.loads((checkout / "gate.json").read_text())["requirements"][0]["require"] == "equivalent"
    (checkout / "registry.db").unlink()
    assert shell(document, checkout).returncode == 1


def test_the_hook_of_pre_commit(checkout: Path) -> None:
    config: dict[str, Any] = HOOKS
    [hook] = config["repos"][0]["hooks"]
    assert re.search(hook["files"], "models/production.safetensors")
    (checkout / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    assert shell("git init -q && git add -A", checkout).returncode == 0
    done = shell("pre-commit run --all-files", checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    (checkout / "stranger.safetensors").replace(checkout / "models" / "production.safetensors")
    assert shell("git add -A", checkout).returncode == 0
    done = shell("pre-commit run --all-files", checkout)
    assert done.returncode == 1
    assert "exit code: 4" in done.stdout
    assert "related: not met" in done.stdout


def test_the_python_of_the_page(checkout: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = shell(f"python -c {shlex.quote(code)}", checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("related True correlation ")
    (checkout / "stranger.safetensors").replace(checkout / "out" / "model.safetensors")
    assert shell(f"python -c {shlex.quote(code)}", checkout).returncode == 4


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("archreg check out/tuned.safetensors --against models/base.safetensors --require related", 0),
        ("archreg check out/tuned.safetensors --against models/base.safetensors --require identical --json", 4),
        ("archreg check stranger.safetensors --against models/base.safetensors --require related", 4),
        ("archreg check stranger.safetensors --against models/base.safetensors --same-shape", 0),
        ("archreg check stranger.safetensors --against production --same-shape", 1),  # there is no archreg.db
        ("archreg check missing.safetensors --against models/base.safetensors --same-shape", 1),
        ("archreg check out/top1 --against models/base.safetensors --same-shape", 1),
        ("archreg check stranger.safetensors --against models/base.safetensors", 2),
        ("archreg compare models/base.safetensors out/tuned.safetensors --require related", 0),
        ("archreg compare models/base.safetensors stranger.safetensors --require related --max-drop top1=1", 4),
        ("archreg compare models/base.safetensors stranger.safetensors", 0),
    ],
)  # fmt: skip
def test_exit_codes_in_a_shell(command: str, code: int, made: Path) -> None:
    done = shell(command, made)
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    if code == 0:
        assert lines == []
        return
    assert lines[0].startswith("archreg: ")
    assert len(lines) == (1 if code == 4 else 2)  # an error has a remedy on a second line
    assert "unexpected" not in done.stderr
    assert bool(done.stdout) == (code == 4)
