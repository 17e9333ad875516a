"""Tables of what can be added, and entry points that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry import extensions
from registry.equivalence import DISTANCES, RULES
from registry.ingest import EXECUTORS
from registry.sources import SOURCES
from registry.spectral import FINGERPRINTS
from registry.testing import check_fingerprint

ROOT = Path(__file__).parents[1]
GOOD = """
from dataclasses import replace
from registry.spectral import FingerprintKind
from registry.spectral.shipped_fingerprints import MME, mme
ours = FingerprintKind(replace(MME, name="ours"), mme)
again = FingerprintKind(replace(MME, name="other"), mme)
"""


def package(folder: Path, name: str, entries: str, code: str = "") -> None:
    """An installed package: its module, and what an installer writes beside it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)
    (folder / f"{name}.py").write_text(code)


def archreg(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = f"from registry.cli.app import main; main({list(words)!r})"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("table", [SOURCES, FINGERPRINTS, DISTANCES, RULES], ids=lambda table: next(iter(table)))
def test_entries_have_the_names_they_are_listed_by(table: extensions.Table[object]) -> None:
    for name, entry in table.items():
        assert getattr(entry, "spec", entry).name == name  # type: ignore[attr-defined]
        assert table.find(name) is entry


def test_every_executor_can_be_loaded() -> None:
    assert all(callable(start) for start in EXECUTORS.values())
    assert list(EXECUTORS) == list(extensions.EXECUTORS)


@pytest.mark.parametrize("kind", FINGERPRINTS.values(), ids=FINGERPRINTS.keys())
def test_the_built_in_fingerprints_keep_the_contract(kind: object) -> None:
    check_fingerprint(kind)  # type: ignore[arg-type]


def test_what_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    package(
        tmp_path, "broken", "[archreg.fingerprints]\nwrecked = broken:thing\n", "raise RuntimeError('no\\x1b luck')"
    )
    package(tmp_path, "wrong", "[archreg.fingerprints]\nodd = wrong:thing\nmme = wrong:thing\n", "thing = 7")
    package(tmp_path, "good", "[archreg.fingerprints]\nours = good:ours\nalias = good:again\n", GOOD)
    done = archreg(tmp_path, "nearest", "x", "--fingerprint", "none", "--db", str(tmp_path / "none.db"))
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    group = "archreg.fingerprints"
    assert sorted(line for line in told if line.startswith("archreg.")) == [
        f"{group} 'alias' of good 1.0 (good:again) is left out: TypeError: its spec is named 'other'",
        f"{group} 'mme' of wrong 1.0 (wrong:thing) is left out: the built-in one "
        "(registry.spectral.shipped_fingerprints:MME_KIND) has that name",
        f"{group} 'odd' of wrong 1.0 (wrong:thing) is left out: TypeError: it is a int, not a "
        "registry.spectral.FingerprintKind",
        f"{group} 'wrecked' of broken 1.0 (broken:thing) is left out: RuntimeError: no  luck",
    ]
    assert "'none' is no fingerprint; known: layered, mme, shapes, ours" in done.stderr


def test_one_name_of_two_packages_is_neither(tmp_path: Path) -> None:
    for name in ("one", "two"):
        package(tmp_path, name, f"[archreg.sources]\nboth = {name}:thing\n")
    done = archreg(tmp_path, "ingest", "both:1", "--db", str(tmp_path / "none.db"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "archreg.sources 'both' of one 1.0 (one:thing) and two 1.0 (two:thing) are left out: "
        "one name cannot stand for both"
    )
    assert "unknown source 'both'" in done.stderr
    assert done.stderr.count("left out") == 1


def test_built_in_names_load_no_entry_points(tmp_path: Path) -> None:
    package(tmp_path, "broken", "[archreg.fingerprints]\nlayered = broken:thing\n", "raise RuntimeError")
    code = """
import sys
from registry.spectral import FINGERPRINTS, spec_named
spec_named("layered")
FINGERPRINTS.find("mme")
print("importlib.metadata" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    "words", [("--help",), ("nearest", "--help"), ("classes", "--help"), ("plot", "csd", "--help")]
)
def test_help_lists_names_and_loads_nothing(words: tuple[str, ...]) -> None:
    code = f"""
import sys
from registry.cli.app import main
try:
    main({list(words)!r})
except SystemExit:
    pass
print(*{{"numpy", "scipy", "torch", "sqlalchemy"}} & sys.modules.keys(), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "\n"
    assert {
        "nearest": "[layered|mme|shapes]",
        "classes": "[complete|cover|single]",
        "plot": "[coe|cue|cse|wishart]",
    }.get(words[0], "nearest") in done.stdout
