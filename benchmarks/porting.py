"""``python -m benchmarks.porting [MODELS...] [--write]``: export and import by size of registry, on both databases.

The models are those of the zoo with layers and spectra, repeated with other names and content hashes, their ``layered``
fingerprints changed as in `benchmarks.scale`. They go from SQLite through Postgres into SQLite, and the result is
compared with the original number by number. Every transfer runs in a new process, so that its memory is its own.
Postgres is the server of the tests, started for this.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scale.filling import perturbed
from benchmarks.scale.server import postgres
from benchmarks.speed.harness import high_water, load_note, machine_load, rewrite
from registry import Registry
from registry.sources import MATRIX_RULE
from registry.spectral.specs import LAYERED
from registry.storage import Portable, Store
from registry.storage.models.summaries import read_summaries
from registry.storage.models.vectors import read_fingerprints
from registry.types import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["content", "fill", "main", "move"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
MARKER = "porting"
SIZES = (10_000, 100_000)
BLOCK = 1_000
MOVES = (
    ("SQLite to file", "export", "many", "a"),
    ("file to Postgres", "import", "postgres", "a"),
    ("the same again", "import", "postgres", "a"),
    ("Postgres to file", "export", "postgres", "b"),
    ("file to SQLite", "import", "last", "b"),
    ("the same again", "import", "last", "b"),
)


def fill(zoo: str, target: Path, count: int) -> None:
    """Create a registry of ``m0`` and so on at ``target``, from the models of the registry at the URL ``zoo``."""
    with Store.open(zoo, mode="read") as store, store.selection() as selection:
        real = [each for portion in selection.models() for each in portion if isinstance(each, Portable)]
        ids, vectors = store.read(read_fingerprints, LAYERED.hash)
    by_hash = {model.new.plan.content_hash: model for model in real}
    with Store.open(zoo, mode="read") as store:
        hashes = {model.id: model.content_hash for model in store.read(read_summaries)}
    rows = [by_hash[hashes[id_]] for id_ in ids.tolist()]
    source, made = perturbed(vectors, count)
    with Store.open(str(target), mode="create") as store:
        for start in range(0, count, BLOCK):
            numbers = range(start, min(start + BLOCK, count))
            store.merge([_copied(rows[source[n]], n, made[n]) for n in numbers], overrule=False, rule=MATRIX_RULE)


def _copied(each: Portable, number: int, vector: NDArray[np.float32]) -> Portable:
    new = each.new
    content_hash = hashlib.sha256(f"{number} {new.plan.content_hash}".encode()).hexdigest()
    others = [fingerprint for fingerprint in new.fingerprints if fingerprint.spec != LAYERED]
    copied = replace(
        new,
        name=f"m{number}",
        plan=replace(new.plan, content_hash=content_hash),
        fingerprints=(Fingerprint(LAYERED, vector), *others),
    )
    return Portable(copied, ((copied.name, each.names[0][1]),))


def move(kind: str, url: str, file: str) -> dict[str, Any]:
    """Export or import; returns the number of models, outcomes, seconds, and peak memory in bytes."""
    begun, cpu = time.perf_counter(), time.process_time()
    with Registry(url) as registry:
        done = registry.export(file) if kind == "export" else registry.import_from(file)
    return {
        "models": done.models,
        "added": done.added,
        "known": done.known,
        "failed": len(done.failed),
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "peak": high_water(),
    }


def content(url: str) -> str:
    """Hash of all stored data of the models, independent of ids and order: the sum of a hash per model."""
    total = 0
    with Store.open(url, mode="read") as store, store.selection() as selection:
        for portion in selection.models():
            for each in portion:
                digest = hashlib.sha256()
                for part in _parts(each):
                    digest.update(len(part).to_bytes(8, "little") + part)
                total += int.from_bytes(digest.digest(), "little")
    return f"{total % 2**256:064x}"


def _parts(each: Any) -> Iterator[bytes]:
    if not isinstance(each, Portable):
        raise TypeError(f"{each.name} is invalid: {each.message}")
    new = each.new
    card = replace(new.card, metrics=tuple(sorted(new.card.metrics, key=str)), tags=tuple(sorted(new.card.tags)))
    yield repr((replace(new, card=card, spectra=(), fingerprints=()), each.names)).encode()
    for spectrum in new.spectra:
        yield repr((spectrum.layer, spectrum.mean, spectrum.method)).encode() + spectrum.values.tobytes()
    for fingerprint in sorted(new.fingerprints, key=lambda found: found.spec.hash):
        yield fingerprint.spec.hash.encode() + fingerprint.vector.tobytes()


def _apart(*words: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.porting", "--one", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(zoo: str, count: int, server: str, folder: Path) -> Iterator[str]:
    """Table rows for one size; the last row says whether the result equals the original."""
    urls = {name: str(folder / f"{name}-{count}.db") for name in ("many", "last", "a", "b")}
    urls["postgres"] = server
    _apart("fill", zoo, urls["many"], str(count))
    for title, kind, url, file in MOVES:
        found = _apart(kind, urls[url], urls[file])
        rate = found["models"] / found["seconds"]
        became = f"{found['added']:,} added, {found['known']:,} known, {found['failed']} failed"
        yield (
            f"| {count:,} | {title} | {found['seconds']:.1f} | {rate:,.0f} | {found['cpu']:.1f} "
            f"| {found['peak'] / 1e6:,.0f} | {became} |"
        )
    one, other = (_apart("content", urls[name]) for name in ("many", "last"))
    size = Path(urls["a"]).stat().st_size
    yield f"| {count:,} | equal to the original: {'yes' if one == other else 'NO'} | | | | | {size / 1e9:.2f} GB |"
    for name in ("many", "last", "a", "b"):
        Path(urls[name]).unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table row by row; ``--write`` also puts it into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.porting", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="MODELS")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--folder", type=Path, help="folder for the files (default: the system's temporary folder)")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(_one(*options.one)))
        return
    note = load_note(machine_load(), os.cpu_count() or 1)
    lines = [
        "| models | move | s | models a second | s of CPU | MB, peak | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print(note, *lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for count in options.sizes:
            with postgres() as pattern:
                for line in measure("published:", count, pattern.format("postgres"), folder):
                    lines.append(line)
                    print(line, flush=True)
    if options.write:
        rewrite(PAGE, MARKER, [note, "\n".join(lines)])


def _one(kind: str, first: str, second: str = "", third: str = "0") -> Any:
    if kind == "fill":
        return fill(first, Path(second), int(third))
    return content(first) if kind == "content" else move(kind, first, second)


if __name__ == "__main__":
    main()
