"""Run the numerical tests once under each set of BLAS kernels that this processor can run.

OpenBLAS chooses its kernels by the processor, and kernels round differently: a test that holds under one set can fail
under another. ``OPENBLAS_CORETYPE`` asks for a set by name. The set that OpenBLAS takes by itself is left out, as the
full test run has it.

Usage: ``python scripts/kernels.py [PYTEST OPTION ...]``. Prints one heading a set, then what pytest prints. The exit
status is the highest of the runs', and 1 where OpenBLAS does not run the set that was asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (
    "tests/ensembles",
    "tests/spectral",
    "tests/fingerprints",
    "tests/equivalence",
    "tests/shipped/test_published.py",
)


@dataclass(frozen=True, slots=True)
class Kernels:
    """A set of kernels: its name as OpenBLAS takes it, the flags of /proc/cpuinfo it needs, what it may report."""

    name: str
    flags: frozenset[str]
    architectures: frozenset[str]


AVX2 = frozenset({"avx2", "fma"})
# Libraries built without kernels of Zen's own run Haswell's there.
KERNELS = (
    Kernels("HASWELL", AVX2, frozenset({"Haswell"})),
    Kernels("ZEN", AVX2, frozenset({"Zen", "Haswell"})),
    Kernels("SKYLAKEX", AVX2 | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}, frozenset({"SkylakeX"})),
)

REPORT = """
import json, numpy, scipy.linalg, threadpoolctl
found = threadpoolctl.threadpool_info()
print(json.dumps(sorted({each["architecture"] for each in found if each["internal_api"] == "openblas"})))
"""


def processor_flags(cpuinfo: str) -> frozenset[str]:
    """Instruction sets of the first processor in the text of /proc/cpuinfo; none where it names none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def architectures(kernels: str | None) -> frozenset[str]:
    """Architectures whose kernels OpenBLAS runs in NumPy and in SciPy: by default, or with ``kernels`` asked for."""
    command = [sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=environment(kernels), check=True, capture_output=True, text=True)
    return frozenset(json.loads(done.stdout))


def environment(kernels: str | None) -> dict[str, str]:
    """This process's environment with ``kernels`` asked for; as it is for None."""
    return dict(os.environ) if kernels is None else {**os.environ, "OPENBLAS_CORETYPE": kernels}


def main(options: list[str]) -> int:
    """Run the tests under each set that this processor can run and that no other run has; return the exit status."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = processor_flags(cpuinfo.read_text() if cpuinfo.exists() else "")
    default = architectures(None)
    if not default:
        print("BLAS kernels: not OpenBLAS's, which alone can be chosen")
        return 0
    covered = {default: "the default"}
    print(f"BLAS kernels by default: {', '.join(sorted(default))}", flush=True)
    worst = 0
    for kernels in KERNELS:
        missing = sorted(kernels.flags - flags)
        if missing:
            print(f"BLAS kernels {kernels.name}: skipped, this processor has no {', '.join(missing)}", flush=True)
            continue
        used = architectures(kernels.name)
        if not used <= kernels.architectures:
            print(f"BLAS kernels {kernels.name}: OpenBLAS runs those of {', '.join(sorted(used))} instead", flush=True)
            worst = max(worst, 1)
            continue
        if used in covered:
            print(f"BLAS kernels {kernels.name}: the same as {covered[used]}, not run again", flush=True)
            continue
        covered[used] = kernels.name
        print(f"BLAS kernels {kernels.name}: {', '.join(FOLDERS)}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", *options, *FOLDERS]
        # Negative where a signal ended the run.
        worst = max(worst, abs(subprocess.run(command, env=environment(kernels.name), check=False).returncode))
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
