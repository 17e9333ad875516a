"""Every command of the guide, run in its order on the published models; and what it says of a first day."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from tests.cli.conftest import archreg

__all__ = ["archreg"]  # the fixture

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line.removeprefix("$ "))
    for block in re.findall(r"^```console\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
FIRST_DAY = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in GUIDE.partition("## The first day")[2].splitlines()
    if line.startswith("|")
][2:]

Archreg = Callable[..., Any]


def reads_weights(words: list[str]) -> bool:
    """Whether a command takes files of the zoo, or the journal of an ingest of them."""
    return any(word.startswith("zoo/") for word in words) or words[1] == "runs"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and no network."""
    monkeypatch.chdir(tmp_path)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ARCHREG_DB", raising=False)
    return tmp_path


def test_every_command_of_the_guide(
    here: Path, archreg: Archreg, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHREG_DB", database_url)
    commands = [words for words in COMMANDS if not reads_weights(words)]
    assert len(commands) >= 40
    said: dict[str, str] = {}
    for program, *words in commands:
        assert program == "archreg"
        done = archreg(*words)
        assert done.code == 0, (words, done.err)
        said[shlex.join(words)] = done.out
        if words[0] == "list":
            said[shlex.join(words)] += done.err
    # What the guide says that they show, whatever the distances are.
    resnet56 = "resnet-cifar/akamaster-resnet56"
    assert "4 of 163 models pass" in said["select --dataset cifar10"]
    none = said["select --dataset cifar10 --metric 'top1>=93' --max-params 500k"]
    assert "0 of 163 models pass" in none
    assert "Without 'at most 500,000 parameters', 2 models would pass." in none
    assert "Similar: " in said["select --family resnet"]
    assert "No model has family resnet-cifra. Similar: resnet-cifar.\n" in said["list --family resnet-cifra"]
    assert "fewest gigaflops" in said[f"select --like {resnet56} --aim min:gflops --aim max:top1"]
    half = said[f"compress {resnet56} --max-ratio 0.5 --explain"]
    assert "resnet-cifar/akamaster-resnet20" in half
    assert "top1 -1.66, worse (cifar10 test)" in half
    assert "Spectra differ most at x = " in half
    assert "67.7 %" in said[f"compress {resnet56} --max-gflops 0.1"]  # 0.127 to 0.041
    assert "is equivalent. The nearest are:" in said[f"compress {resnet56} --max-params 10k -k 3"]
    assert "published models" in said[f"compare {resnet56} resnet-cifar/akamaster-resnet20"]
    assert "Nothing was stored." in said["calibrate --dry-run"]
    assert "calibrated on 163 models of this registry" in said["calibrate --rate 0.02"]
    assert "The shipped calibration is used again" in said["calibrate --reset"]
    assert "akamaster-resnet20" in said[f"--db published: compress {resnet56} --max-ratio 0.5"]
    assert said["import published:"] == "published: 163 added.\n"


def test_every_command_that_reads_weights(
    here: Path, zoo: Path, archreg: Archreg, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "zoo").symlink_to(zoo, target_is_directory=True)
    monkeypatch.setenv("ARCHREG_DB", database_url)
    assert archreg("import", "published:").code == 0
    commands = [words for words in COMMANDS if reads_weights(words)]
    assert len(commands) >= 9
    for _, *words in commands:
        done = archreg(*words)
        assert done.code == 0, (words, done.err)
    with Registry(database_url) as reg:
        assert len(reg) == 163  # all of the manifest is known by its weights


def prepare(asked: str, here: Path, archreg: Archreg) -> None:
    """Make what a row of the table starts from."""
    (here / "notes").mkdir()
    if "no database" in asked or "ingest" in asked:
        return
    names = ("resnet20", "resnet32")
    published = [f"resnet-cifar/akamaster-{name}" for name in names]
    assert archreg("--db", "published:", "export", "-o", "archreg.db", *published).code == 0
    for name, known in zip(names, published, strict=True):
        assert archreg("rename", known, name).code == 0
        assert archreg("set", name, "--family", "").code == 0
        if "empty" in asked:
            assert archreg("rm", name, "-y").code == 0
    if "zoo/" in asked:
        (here / "zoo" / "resnet-cifar").mkdir(parents=True)
        for number in range(11):
            weights = {"weight": np.random.default_rng(number).standard_normal((8, 8), np.float32)}
            save_file(weights, here / "zoo" / "resnet-cifar" / f"{number}.safetensors")
    if "topp1" in asked:
        assert archreg("set", "resnet20", "--metric", "top1=91").code == 0


@pytest.mark.parametrize(("asked", "message", "remedy"), FIRST_DAY, ids=[row[0][:40] for row in FIRST_DAY])
def test_the_first_day(asked: str, message: str, remedy: str, here: Path, archreg: Archreg) -> None:
    prepare(asked, here, archreg)
    command = (FIRST_DAY[0][0] if asked.startswith("the same") else asked).split("`")[1]
    done = archreg(*shlex.split(command.replace("NAME", "resnet20"))[1:])
    assert done.code in (1, 2)
    assert message in done.err
    for part in remedy.split("..."):
        assert part.strip(" ,?") in done.err
    assert "unexpected" not in done.err
    assert "Traceback" not in done.err


def test_the_table_of_the_first_day_is_read() -> None:
    assert len(FIRST_DAY) >= 13
    assert all(len(row) == 3 for row in FIRST_DAY)
