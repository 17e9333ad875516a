"""``python -m benchmarks.ingest``: the cost of ingest.

Ingest of the zoo from the command line on one process and on two, a second time, and the cost beyond measuring; ingest
of 2,000 tiny models into SQLite and Postgres. For whole commands the fastest time counts, because disturbances only
add. For the run alone the median counts, with one and two processes in turn: the first run on two also starts the fork
server.

With ``--against CHECKOUT`` only the processor time of whole commands on one process is compared, with that of another
checkout of the project with its own ``.venv`` (``git worktree add CHECKOUT COMMIT``, ``make .venv/.dev`` in it), in
turn; medians count. References in place of the zoo can follow.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.stress import databases, make_models
from benchmarks.zoo import zoo_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.types import ModelRef

__all__ = ["main"]

HERE = Path(__file__).resolve().parents[1]
RUNS = 3
ROUNDS = 7
TINY = 2_000
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Taken(NamedTuple):
    """Wall-clock seconds of a command, and processor seconds of all its processes."""

    seconds: float
    processor: float


def _command(folder: str, database: str, *words: str) -> Taken:
    """Ingest the zoo from the command line and print times."""
    manifest = str(zoo_folder() / "manifest.jsonl")
    command = [sys.executable, "-m", "registry.cli.app", "ingest", "--manifest", manifest, "--quiet", *words]
    before, begun = _processor(), time.perf_counter()
    subprocess.run([*command, "--db", f"{folder}/{database}"], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    with suppress(ChildProcessError):  # workers that outlive the command are waited for and counted
        while True:
            os.wait()
    return Taken(seconds, _processor() - before)


def _processor() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _adopt_orphans() -> None:
    """Become the parent of orphaned processes, so that their processor time can be read; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _zoo(folder: str) -> None:
    _adopt_orphans()
    taken: dict[int, list[Taken]] = {1: [], 2: []}
    again: list[Taken] = []
    for run in range(RUNS):  # in turn, so that a disturbance affects both
        for workers, found in taken.items():
            found.append(_command(folder, f"zoo-{workers}-{run}.db", "--workers", str(workers)))
            # The largest child so far, which is a command on one process.
            if workers == 1 and run == 0:
                peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        again.append(_command(folder, f"zoo-1-{run}.db"))
    one, two = min(taken[1]), min(taken[2])
    used = {workers: min(each.processor for each in found) for workers, found in taken.items()}
    print(
        f"the zoo, whole command: {one.seconds:.2f} s on one process, {two.seconds:.2f} s on two: "
        f"{one.seconds / two.seconds:.2f} times as fast"
    )
    print(
        f"processor time of all its processes {used[1]:.2f} s and {used[2]:.2f} s: "
        f"two cores that were never idle would make it {2 * one.seconds / used[2]:.2f} times as fast"
    )
    print(f"peak memory of the one process {peak:.2f} GB; the same command again {min(again).seconds:.2f} s")


def _inner(folder: str) -> None:
    """Measure the run without the start of Python, its cost beyond measuring, and the bound for two processes."""
    from registry import Registry

    with Registry(f"{folder}/none.db") as registry:
        refs = registry.plan(manifest=zoo_folder() / "manifest.jsonl")
    measuring, halves, ingesting, two = [], [], [], []
    for run in range(ROUNDS):
        measuring.append(_apart(_measured, [refs]))
        halves.append(_apart(_measured, [refs[::2], refs[1::2]]))
        ingesting.append(_apart(partial(_ingested, workers=1, url=f"{folder}/inner-1-{run}.db"), [refs]))
        two.append(_timed(partial(_ingested, refs, 2, f"{folder}/inner-2-{run}.db")))
    least, one, both, half = map(median, (measuring, ingesting, two, halves))
    print(
        f"the run alone: measuring {least:.2f} s on one thread; all of it {one:.2f} s on one process, "
        f"{both:.2f} s on two ({min(two):.2f}-{max(two):.2f}): {one / both:.2f} times as fast"
    )
    print(f"beyond measuring, in one process: {1000 * (one - least) / len(refs):.1f} ms a model")
    print(
        f"two running processes, each measuring every second model and writing nothing: {half:.2f} s, "
        f"{least / half:.2f} times as fast as one"
    )


def _apart(work: Callable[[tuple[ModelRef, ...]], object], shares: Sequence[tuple[ModelRef, ...]]) -> float:
    """Seconds of the slower of several new processes, one per share, without cached results."""
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        return max(pool.map(partial(_timed_share, work), shares, chunksize=1))


def _timed_share(work: Callable[[tuple[ModelRef, ...]], object], refs: tuple[ModelRef, ...]) -> float:
    import_module("registry.spectral")
    import_module("registry.storage.store")
    return _timed(partial(work, refs))


def _measured(refs: tuple[ModelRef, ...]) -> None:
    from registry.catalog.measuring import Hashes, Reading
    from registry.ingest import Task

    reading = Reading(Hashes.of("", ()), threads=1)
    for at, ref in enumerate(refs):
        reading(Task(at, ref))


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _ingested(refs: tuple[ModelRef, ...], workers: int | None, url: str) -> None:
    from registry import Registry

    with Registry(url) as registry:
        results = registry.ingest_all(refs, workers=workers)
    assert {result.status for result in results} <= {"added", "named"}, results


def _tiny(folder: str) -> None:
    from registry import Registry

    models = make_models(Path(folder) / "tiny", {f"m{n}": n for n in range(TINY)})
    refs = Registry(f"{folder}/none.db").plan([models])
    with databases() as kinds:
        for kind, new_url in kinds.items():
            for workers in (1, 2):
                seconds = _timed(partial(_ingested, refs, workers, new_url()))
                processes = "one process" if workers == 1 else f"{workers} processes"
                each = 1000 * seconds / TINY
                print(f"{TINY:,} tiny models into {kind} on {processes}: {seconds:.1f} s, {each:.1f} ms a model")


def _against(other: Path, references: Sequence[str], rounds: int) -> None:
    """Compare the processor time of an ingest here with that in another checkout."""
    given = references or ("--manifest", str(zoo_folder() / "manifest.jsonl"))
    taken: dict[Path, list[float]] = {other.resolve(): [], HERE: []}
    for each in range(rounds):
        for checkout in sorted(taken, reverse=bool(each % 2)):  # in turn, so that a disturbance affects both
            with tempfile.TemporaryDirectory() as folder:
                command = [f"{checkout}/.venv/bin/python", "-m", "registry.cli.app", "ingest", "--quiet", *given]
                before = _processor()
                subprocess.run(
                    [*command, "--workers", "1", "--db", f"{folder}/new.db"],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    cwd=checkout,
                )
                taken[checkout].append(_processor() - before)
    theirs, ours = map(median, taken.values())
    print(
        f"processor time of a whole ingest on one process, medians of {rounds}: {theirs:.2f} s there, {ours:.2f} s "
        f"here, {ours / theirs:.3f} times; load {os.getloadavg()[0]:.1f} at the end"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all measurements, or the comparison with another checkout, and print the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("references", nargs="*", metavar="REF", help="what is ingested for --against")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of --against")
    options = parser.parse_args(arguments)
    if options.against is not None and not (options.against / ".venv/bin/python").exists():
        parser.error(f"{options.against} has no .venv: make .venv/.dev in it")
    if options.against is not None and options.against.resolve() == HERE:
        parser.error("the other checkout is this one")
    if options.against is not None:
        _against(options.against, options.references, options.rounds)
        return
    if options.references:
        parser.error("references are for --against")
    with tempfile.TemporaryDirectory() as folder:
        _zoo(folder)
        _inner(folder)
        _tiny(folder)


if __name__ == "__main__":
    main()
