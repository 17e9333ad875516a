"""Another package's source and fingerprint, built and installed beside the wheel and used by the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.packaging.conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGIN = Path(__file__).parents[1] / "assets" / "plugin"
SEEDS = range(9)


@pytest.fixture(scope="module")
def archreg(
    installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command of an environment that has the wheel and the plug-in's."""
    tree, built = tmp_path_factory.mktemp("plugin") / "tree", tmp_path_factory.mktemp("built")
    shutil.copytree(PLUGIN, tree)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, tree, cwd=tree)
    [wheel] = built.iterdir()
    python = installed / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=built)

    def command(*words: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [installed / "bin" / "archreg", *words], cwd=cwd, env=environment, capture_output=True, text=True
        )

    return command


def test_the_plugin_is_used(
    archreg: Callable[..., Any], database_url: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    def asked(*words: str, code: int = 0) -> Any:
        done = archreg(*words, "--db", database_url, cwd=tmp_path, environment=clean_environment)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def told(*words: str) -> Any:
        return json.loads(asked(*words, "--json").stdout)

    references = [f"tiny:{seed}" for seed in SEEDS]
    asked("ingest", *references[:-2])
    asked("ingest", *references[-2:], "--workers", "2")  # processes of their own
    assert {model["name"] for model in told("list")["models"]} == {f"tiny/{seed}" for seed in SEEDS}
    # Nothing has the fingerprint yet, and what mends that is said.
    refused = asked("nearest", "tiny/0", "--fingerprint", "quantiles", code=1)
    assert refused.stderr.splitlines()[1].strip() == "run: archreg refingerprint --fingerprint quantiles"
    assert told("refingerprint", "--fingerprint", "quantiles")["computed"] == len(SEEDS)
    found = told("nearest", "tiny/0", "--fingerprint", "quantiles")
    assert (found["fingerprint"]["label"], found["tolerance"]) == ("quantiles v1", None)
    assert [n["distance"] for n in found["neighbours"]] == sorted(n["distance"] for n in found["neighbours"])
    of_file = told("nearest", "tiny:99", "--fingerprint", "quantiles", "-k", "2")  # read for the question
    assert len(of_file["neighbours"]) == 2
    assert told("compare", "tiny/0", "tiny/3", "--fingerprint", "quantiles")["tolerance"] is None
    calibrated = told("calibrate", "--fingerprint", "quantiles", "--rate", "0.2")
    assert (calibrated["previous"], calibrated["stored"]) == (None, True)
    compared = told("compare", "tiny/0", "tiny/3", "--fingerprint", "quantiles")
    assert compared["tolerance"] == calibrated["calibration"]["tolerance"]
    assert compared["equivalent"] in (True, False)
    asked("compress", "tiny/0", "--fingerprint", "quantiles")
    assert asked("nearest", "tiny/0").stderr == ""
    unknown = asked("nearest", "tiny/0", "--fingerprint", "quantile", code=2)
    assert "known: layered, mme, shapes, quantiles" in unknown.stderr
    assert "known sources: hf:, mlflow:, timm:, tiny:, torchvision:" in asked("ingest", "none:1", code=1).stderr


def test_the_plugin_keeps_the_contracts(
    archreg: Callable[..., Any], installed: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    code = """
from archreg_tiny import FINGERPRINT, SOURCE
from registry.testing import check_fingerprint, check_source
check_source(SOURCE, "tiny:7")
check_fingerprint(FINGERPRINT)
"""
    run(installed / "bin" / "python", "-c", code, cwd=tmp_path, environment=clean_environment)
