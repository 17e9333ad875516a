"""``python -m tests.sources.fuzzing``: damaged headers, archives and pickles, read as an ingest would.

No file may cause a crash, a hang or a flood. Two in five are pickles made at random (`pickle_streams`).

Every mutation is a function of the seed and its number: ``--only NUMBER --keep FILE`` makes one again. A process of its
own reads them, so that a crash is seen, one that takes more than two seconds is ended, and its memory is watched.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from registry.errors import RegistryError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from tests.sources.mutations import SHARD, companions, damaged, sound_files
from tests.sources.pickle_streams import stream, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Findings", "attempt", "fuzz", "limit", "make"]

LIMIT_SECONDS = 2.0
LIMIT_BYTES = 500e6
_GROWTH_BYTES = 200e6
_BATCH = 250
_SOUND = sound_files()
_STREAMS = 0.4  # of all: pickles made at random, by the grammar of the opcodes


@dataclass
class Findings:
    """What a run found: outcomes by their number, wrong ones in words, the slowest (seconds, number), peak memory."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    peak: int = 0


def make(seed: int, number: int, folder: Path) -> Path:
    """The file of one mutation, in a folder that holds the shard an index names."""
    rng = random.Random(f"{seed}/{number}")
    shard = folder / SHARD
    if not shard.exists():
        save_file({"a.weight": torch.eye(3) + 1, "b.weight": torch.eye(4)}, shard)
        for beside, content in companions().items():
            (folder / beside).write_bytes(content)
    if rng.random() < _STREAMS:
        suffix, content = wrapped(stream(rng), rng)
        path = folder / f"model{suffix}"
    else:
        sound = _SOUND[rng.choice(sorted(_SOUND))]
        content = damaged(sound, rng)
        path = folder / (sound.name or f"model{sound.suffix}")
        for beside, data in sound.beside.items():
            (folder / beside).write_bytes(data)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def attempt(path: Path) -> str:
    """Read a file as an ingest does; returns the outcome, and raises for what no file may cause."""
    try:
        with open_ref(expand(path)[0]) as checkpoint:
            for layer in plan_weights(checkpoint).layers:
                layer_matrix(checkpoint, layer)
    except RegistryError as error:
        if "\n" in str(error) or not error.remedy or len(str(error)) > 2000:
            raise AssertionError(f"not one line with a remedy: {error!r}") from error
        return type(error).__name__
    return "read"


def _work(seed: int, numbers: range, shared: Any, results: Any, read: Callable[[Path], str]) -> None:
    outcomes: Counter[str] = Counter()
    slowest = (0.0, -1)
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            shared[0] = number
            path = make(seed, number, Path(folder))
            shared[1] = begun = time.monotonic()
            try:
                outcomes[read(path)] += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                results.put((Counter(), [f"{number}: {type(error).__name__}: {str(error)[:300]}"], slowest, 0))
            slowest = max(slowest, (time.monotonic() - begun, number))
            shared[1] = 0.0
            if number == numbers[-1] or (number + 1) % _BATCH == 0:
                results.put((outcomes, [], slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
                outcomes = Counter()


def limit() -> float:
    """Bytes that reading may take: what this process has in memory is its child's too, and counts as the child's."""
    return max(LIMIT_BYTES, _resident(os.getpid()) + _GROWTH_BYTES)


def fuzz(seed: int, numbers: range, read: Callable[[Path], str] = attempt, *, most: float | None = None) -> Findings:
    """Try the mutations of these numbers, starting again behind one that ends the process or has to be ended."""
    found, context = Findings(), multiprocessing.get_context("fork")
    again = -1  # on a busy machine a second look tells what is slow from who had to wait
    while numbers:
        shared, results = context.Array("d", [-1.0, 0.0], lock=False), context.SimpleQueue()
        worker = context.Process(target=_work, args=(seed, numbers, shared, results, read), daemon=True)
        worker.start()
        ended = _watch(worker, shared, results, found, limit() if most is None else most)
        if ended is None:
            break
        at = int(shared[0])
        if ended.endswith(" s") and at != again:
            again, numbers = at, range(at, numbers.stop)
            continue
        found.wrong.append(f"{at}: {ended}")
        numbers = range(at + 1, numbers.stop)
    return found


def _watch(worker: Any, shared: Any, results: Any, found: Findings, most: float) -> str | None:
    """Collect what a process finds until it is through (None), dies, or takes too long or too much."""
    while True:
        alive = worker.is_alive()
        while not results.empty():
            outcomes, wrong, slowest, peak = results.get()
            found.outcomes += outcomes
            found.wrong += wrong
            found.slowest = max(found.slowest, slowest)
            found.peak = max(found.peak, peak)
        if not alive:
            return None if worker.exitcode == 0 else f"ended the process with {worker.exitcode}"
        begun = shared[1]  # once: the worker writes it
        taken = time.monotonic() - begun if begun else 0.0
        memory = _resident(worker.pid)
        if taken > LIMIT_SECONDS or memory > most:
            worker.kill()
            worker.join()
            return f"took {memory / 1e6:.0f} MB" if memory > most else f"took {taken:.1f} s"
        time.sleep(0.02)


def _resident(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return 0.0
    return float(int(text.split()[1]) * resource.getpagesize())


def main() -> int:
    """Run, print what was done, and return 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="mutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one mutation to try alone")
    parser.add_argument("--keep", type=Path, help="where to write that mutation's file")
    given = parser.parse_args()
    if given.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = make(given.seed, given.only, Path(folder))
            if given.keep:
                given.keep.write_bytes(path.read_bytes())
            sys.stdout.write(f"{attempt(path)}\n")
        return 0
    begun = time.perf_counter()
    before = _resident(os.getpid())  # of what made the sound files: torch alone takes more than reading may
    found = fuzz(given.seed, range(given.count))
    seconds = time.perf_counter() - begun
    lines = [
        f"{given.count} mutations of seed {given.seed} in {seconds:.0f} s, {given.count / seconds:.0f} a second",
        "outcomes: " + ", ".join(f"{name} {count}" for name, count in found.outcomes.most_common()),
        f"slowest: {found.slowest[0]:.2f} s, number {found.slowest[1]}; peak memory {found.peak / 1e6:.0f} MB, "
        f"{before / 1e6:.0f} MB of it before the first",
        f"wrong: {len(found.wrong)}",
        *(f"  {line}" for line in found.wrong[:50]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
