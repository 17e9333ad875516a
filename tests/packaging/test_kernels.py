"""The numerical tests under each set of BLAS kernels: which sets are run, and what becomes of their exit statuses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernels", ROOT / "scripts" / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kernels", module)
    spec.loader.exec_module(module)
    return module


def machine(
    kernels: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    runs: dict[str | None, str],
    statuses: dict[str, int],
) -> list[str]:
    """A processor of such flags whose OpenBLAS runs these kernels; the list fills with what pytest ran under."""
    ran = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        assert set(kernels.FOLDERS) <= set(command)
        ran.append(env["OPENBLAS_CORETYPE"])
        return subprocess.CompletedProcess(command, statuses.get(ran[-1], 0))

    monkeypatch.setattr(kernels, "processor_flags", lambda _: frozenset(flags.split()))
    monkeypatch.setattr(kernels, "architectures", lambda name: frozenset({runs[name]}))
    monkeypatch.setattr(kernels.subprocess, "run", run)
    return ran


AVX512 = "sse2 avx2 fma avx512f avx512cd avx512bw avx512dq avx512vl"
SETS = {None: "SkylakeX", "HASWELL": "Haswell", "ZEN": "Haswell", "SKYLAKEX": "SkylakeX"}


def test_each_set_is_run_once(kernels, monkeypatch, capsys):
    ran = machine(kernels, monkeypatch, AVX512, SETS, {})
    assert kernels.main([]) == 0
    assert ran == ["HASWELL"]
    assert "ZEN: the same as HASWELL, not run again" in capsys.readouterr().out
    ran = machine(kernels, monkeypatch, AVX512, SETS | {None: "Nehalem", "ZEN": "Zen"}, {})
    assert kernels.main([]) == 0
    assert ran == ["HASWELL", "ZEN", "SKYLAKEX"]


def test_a_set_that_the_processor_cannot_run_is_skipped_in_words(kernels, monkeypatch, capsys):
    ran = machine(kernels, monkeypatch, "sse2 avx2 fma avx512f", SETS | {None: "Nehalem"}, {})
    assert kernels.main([]) == 0
    assert ran == ["HASWELL"]
    wanted = "SKYLAKEX: skipped, this processor has no avx512bw, avx512cd, avx512dq, avx512vl"
    assert wanted in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statuses", "worst"), [({"HASWELL": 1}, 1), ({"HASWELL": 2, "SKYLAKEX": 1}, 2), ({"ZEN": -4}, 4)]
)
def test_the_worst_status_is_the_exit_status(kernels, monkeypatch, statuses, worst):
    ran = machine(kernels, monkeypatch, AVX512, SETS | {None: "Nehalem", "ZEN": "Zen"}, statuses)
    assert kernels.main([]) == worst
    assert len(ran) == 3


def test_other_kernels_than_asked_for_are_an_error(kernels, monkeypatch, capsys):
    ran = machine(kernels, monkeypatch, AVX512, SETS | {"HASWELL": "Nehalem", "ZEN": "Haswell"}, {})
    assert kernels.main([]) == 1
    assert ran == ["ZEN"]
    assert "HASWELL: OpenBLAS runs those of Nehalem instead" in capsys.readouterr().out


def test_what_this_machine_reports(kernels, monkeypatch):
    text = "processor\t: 0\nflags\t\t: sse2 avx2\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: sse2\n"
    assert kernels.processor_flags(text) == {"sse2", "avx2"}
    assert kernels.processor_flags("processor\t: 0\n") == frozenset()
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1048576")
    asked = kernels.environment("ZEN")
    assert (asked["OPENBLAS_CORETYPE"], asked["OPENBLAS_L2_SIZE"]) == ("ZEN", "1048576")
    if kernels.processor_flags(Path("/proc/cpuinfo").read_text()) >= kernels.AVX2 and kernels.architectures(None):
        assert kernels.architectures("HASWELL") == {"Haswell"}
