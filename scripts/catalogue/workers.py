"""Recipes built in worker processes, each with a time limit, and what was built before."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import time
from dataclasses import asdict
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from registry.sources import MATRIX_RULE
from registry.spectral.specs import SHAPES
from scripts.catalogue.recipes import Built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from scripts.catalogue.recipes import Recipe

__all__ = ["build_all"]

VERSION = 1
"""Of what a build gives. A change takes a new number, so that nothing is taken from before it."""

SECONDS = 240.0
"""That one recipe may take."""

MEMORY = 6 * 2**30
"""Bytes of private memory that a worker may hold."""


def build_all(
    recipes: Sequence[Recipe],
    kept: Path,
    versions: dict[str, str],
    progress: Callable[[int, int], None],
    jobs: int = 2,
) -> list[Built]:
    """What came of each recipe, in their order. ``kept``: a file of earlier results, which is added to."""
    keys = [_key(recipe, versions) for recipe in recipes]
    found = dict(_read(kept))
    left = [at for at, key in enumerate(keys) if key not in found]
    progress(len(recipes) - len(left), len(recipes))
    if left:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a", encoding="utf-8") as results:
            done = len(recipes) - len(left)
            for at, built in _spread([recipes[at] for at in left], min(jobs, len(left))):
                found[keys[left[at]]] = built
                results.write(json.dumps([keys[left[at]], asdict(built)]) + "\n")
                results.flush()
                done += 1
                progress(done, len(recipes))
    return [found[key] for key in keys]


def _key(recipe: Recipe, versions: dict[str, str]) -> str:
    stated = [VERSION, MATRIX_RULE, SHAPES.hash, sorted(versions.items()), asdict(recipe)]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:32]


def _read(kept: Path) -> Iterator[tuple[str, Built]]:
    if kept.is_file():
        for line in kept.read_text(encoding="utf-8").splitlines():
            try:
                key, values = json.loads(line)
            except ValueError:  # the last line of a run that was ended
                continue
            yield key, Built(**{**values, "notes": tuple(values["notes"])})


class _Worker:
    """A process that builds one recipe after the other, and is started anew when it takes too long or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection[Any, Any]
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, at: int, recipe: Recipe) -> None:
        self.at, self.until = at, time.monotonic() + SECONDS
        self.connection.send(recipe)

    def result(self) -> Built:
        try:
            return self.connection.recv()  # type: ignore[no-any-return]
        except EOFError:
            return self.renewed(f"the process ended: more than {MEMORY / 2**30:.0f} GiB of memory, or a crash")

    def renewed(self, reason: str) -> Built:
        self.close()
        self._start()
        return Built(reason=reason)

    def close(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()


def _spread(recipes: Sequence[Recipe], jobs: int) -> Iterator[tuple[int, Built]]:
    waiting = iter(enumerate(recipes))
    workers = [_Worker() for _ in range(jobs)]
    busy: list[_Worker] = []
    try:
        for worker, (at, recipe) in zip(workers, waiting, strict=False):
            worker.give(at, recipe)
            busy.append(worker)
        while busy:
            ready = wait(
                [worker.connection for worker in busy], max(0.0, min(w.until for w in busy) - time.monotonic())
            )
            for worker in list(busy):
                if worker.connection in ready:
                    result = worker.result()
                elif time.monotonic() > worker.until:
                    result = worker.renewed(f"more than {SECONDS:.0f} seconds")
                else:
                    continue
                yield worker.at, result
                following = next(waiting, None)
                if following is None:
                    busy.remove(worker)
                else:
                    worker.give(*following)
    finally:
        for worker in workers:
            worker.close()


def _work(connection: Connection[Any, Any]) -> None:
    # Both are read when these libraries are imported.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    import torch

    from scripts.catalogue.layouts import built

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while True:
        try:
            recipe = connection.recv()
        except EOFError:
            return
        try:
            result = built(recipe)
        except MemoryError:
            result = Built(reason=f"more than {MEMORY / 2**30:.0f} GiB of memory")
        connection.send(result)
