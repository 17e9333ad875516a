"""``python -m benchmarks.identify [--catalogue FILE] [--libraries L...] [--every N] [--write]``: recognition by shapes.

Networks of the libraries are built anew at ten classes (``benchmarks/identify/networks.py``), and networks that no
library builds are taken from the zoo and made (``benchmarks/identify/unknown_networks.py``). The class of equal
architectures that an answer must have is found by brute force among the networks that were built.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.identify.networks import CLASSES, LIBRARIES, Network, catalogue_names, networks
from benchmarks.identify.unknown_networks import TRUE_FAMILIES, Unknown, made, published
from benchmarks.speed.harness import rewrite
from registry.architectures.catalogue_file import Catalogue
from registry.architectures.matching import recognise
from registry.shipped import CATALOGUE, shipped_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from registry.types import ArchitectureMatch, Recognised, TensorInfo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "identify"
MOST = 5  # names in a class that still tell which architecture it is
COLD = 5  # files that are recognised in a process of their own


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one file with the shapes of a network, its names kept or replaced by numbers.

    ``right``: the class is that by brute force. ``listed``: the network's name is in it. ``first``: the first match is
    of the network's layout, or has all its names, or with numbers its shapes in its order. ``strict``: what it says of
    loading is true. ``classes``: so is the number of classes. ``names``: number of names in the class. ``near``: the
    module of the nearest one with the own class taken out; ``called``: it was near; ``alone``: the module has no other
    class.
    """

    network: Network
    right: bool
    listed: bool
    first: bool
    strict: bool
    classes: bool
    names: int
    seconds: float
    near: str
    called: bool
    alone: bool


def numbered(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """The same tensors with numbers for names."""
    return [replace(tensor, name=str(at)) for at, tensor in enumerate(tensors)]


class Truth:
    """Which networks have the shapes of a file, by brute force over those that were built."""

    def __init__(self, built: Iterable[Network]) -> None:
        self.labels: dict[str, Network] = {}
        self._labels: dict[frozenset[tuple[tuple[int, ...], int]], set[str]] = defaultdict(set)
        for network in built:
            self.labels[network.label] = network
            shapes = {one.name: one.shape for one in network.tensors}
            tied = Counter(shapes[name] for name in network.tied)
            for base in (network.distinct, network.parameters):
                for counts in (base, base + tied):
                    self._labels[frozenset(counts.items())].add(network.label)

    def of(self, tensors: Iterable[TensorInfo]) -> set[str]:
        """Labels of the networks whose floating-point tensors, or parameters, with tied ones or without, are these."""
        counts = Counter(one.shape for one in tensors if one.dtype.startswith(("float", "bfloat")))
        return self._labels[frozenset(counts.items())]

    def in_order(self, network: Network, match: ArchitectureMatch) -> bool:
        """Whether the match has the shapes of a network in its order."""
        other = self.labels.get(match.architecture.label)
        return other is not None and [one.shape for one in other.tensors] == [one.shape for one in network.tensors]


def measured(
    network: Network,
    catalogue: Catalogue,
    layouts: Mapping[str, int],
    modules: Mapping[str, set[int]],
    truth: Truth,
    *,
    kept: bool,
) -> Row:
    """Recognise the file of a network, then again with its class taken out.

    ``layouts``: by label; ``modules``: the layouts of the library's module that it is from.
    """
    tensors = list(network.tensors) if kept else numbered(network.tensors)
    begun = time.process_time()
    found = recognise(tensors, catalogue)
    seconds = time.process_time() - begun
    labels = [match.architecture.label for match in found.matches] if found.verdict == "exact" else []
    expected = truth.of(network.tensors)
    known = {label for label in labels if label in truth.labels}
    best = found.matches[0] if found.matches else None
    strict = all(match.strict == (network.loads and kept) for match in found.matches[:1])
    own = {layouts[label] for label in expected if label in layouts}
    near = without_class(tensors, catalogue, own)
    return Row(
        network,
        right=found.verdict == "exact" and not found.headless and known == expected & layouts.keys(),
        listed=network.label in labels,
        first=best is not None
        and (best.architecture.layout == layouts[network.label] or best.named or truth.in_order(network, best)),
        strict=strict,
        classes=best is not None and best.classes in {CLASSES, None},
        names=len(labels),
        seconds=seconds,
        near=near.matches[0].architecture.family if near.matches else "",
        called=near.verdict == "near",
        alone=modules[network.label] <= own,
    )


def without_class(tensors: Sequence[TensorInfo], catalogue: Catalogue, known: set[int]) -> Recognised:
    """What the file is without the layouts known to be its own, and without others that it is exactly."""
    left_out = set(known)
    while (found := recognise(tensors, catalogue, without=left_out)).verdict == "exact":
        left_out |= {match.architecture.layout for match in found.matches}
    return found


def outcome(row: Row) -> str:
    """What was found, without the tensors."""
    names = ("right", "listed", "first", "strict", "classes", "names")
    return ", ".join(f"{name} {getattr(row, name)}" for name in names)


def of_library(rows: Sequence[Row], families: Mapping[str, str], title: str) -> str:
    """One line of the table of rates."""

    def share(hits: Iterable[bool]) -> str:
        told = list(hits)
        return f"{100 * sum(told) / len(told):.1f} %" if told else ""

    same = [row.near == families[row.network.label] for row in rows]
    cells = [
        title,
        f"{len(rows):,}",
        share(row.right for row in rows),
        share(row.listed for row in rows),
        share(row.names <= MOST for row in rows),
        share(row.first for row in rows),
        share(row.strict for row in rows),
        share(row.classes for row in rows),
        f"{sum(same) / len(same):.3f}",
        f"{sum(same) / max(1, sum(row.alone is False for row in rows)):.3f}",
        share(row.called for row in rows),
        share(hit for row, hit in zip(rows, same, strict=True) if row.called),
    ]
    return f"| {' | '.join(cells)} |"


def rates(rows: Mapping[tuple[str, bool], Sequence[Row]], families: Mapping[str, str]) -> str:
    """The table of rates, by library and names."""
    head = [
        "library, names",
        "networks",
        "class right",
        "name listed",
        f"at most {MOST} names",
        "own names or order first",
        "loads or not, told right",
        "number of classes right",
        "nearest of the same module, own class taken out",
        "of those whose module has another class",
        "of these called near",
        "of those called near, of the same module",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [
        of_library(found, families, f"{library}, {'kept' if kept else 'numbers'}")
        for (library, kept), found in rows.items()
        if found
    ]
    return "\n".join(lines)


def of_unknown(networks_: Sequence[Unknown], catalogue: Catalogue, title: str) -> tuple[str, list[str]]:
    """One line of the table of unknown networks, and what is called near or exact among them."""
    counts: Counter[str] = Counter()
    told: Counter[tuple[str, str, str, str]] = Counter()
    for one in networks_:
        found = recognise(one.tensors, catalogue)
        kind = found.verdict + (" without head" if found.headless else "")
        if found.verdict == "near":
            best = found.matches[0]
            true = best.architecture.family in TRUE_FAMILIES.get(one.family, ())
            kind = "near, a true one" if true else "near, another"
        if found.verdict != "unknown":
            told[one.family, kind, found.matches[0].architecture.label, f"{found.matches[0].share:.2f}"] += 1
        counts[kind] += 1
    kinds = ("unknown", "near, a true one", "near, another", "exact", "exact without head")
    line = f"| {title} | {len(networks_)} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |"
    items = sorted(told.items())
    return line, [f"{count} of {family}: {kind}: {label}, {share}" for (family, kind, label, share), count in items]


def unknown(catalogue: Catalogue) -> list[str]:
    """The table of unknown networks, and a list of what was not called unknown."""
    head = "| networks | number | unknown | near, a true one | near, another | exact | exact but for the head |"
    zoo, told = of_unknown(published(), catalogue, "the zoo")
    small, more = of_unknown(made(), catalogue, "made")
    listed = [f"- {line}" for line in (*told, *more)]
    table = "\n".join([head, f"|{' --- |' * 7}", zoo, small])
    return [table, "\n".join(listed)] if listed else [table]


def times(rows: Iterable[Row], catalogue: Path, network: Network) -> str:
    """A sentence on the time for a file."""
    spent = sorted(1000 * row.seconds for row in rows)
    program = (
        "import sys, time; begun = time.process_time()\n"
        "from pathlib import Path\n"
        "from registry.architectures.catalogue_file import Catalogue\n"
        "from registry.architectures.matching import recognise\n"
        "from registry.types import TensorInfo\n"
        "tensors = [TensorInfo(*one) for one in eval(sys.stdin.read())]\n"
        "imported = time.process_time()\n"
        "with Catalogue(Path(sys.argv[1])) as opened: recognise(tensors, opened)\n"
        "print(time.process_time() - imported, imported - begun)"
    )
    given = repr([(one.name, one.dtype, one.shape) for one in network.tensors])
    cold = []
    for _ in range(COLD):
        run = [sys.executable, "-c", program, str(catalogue)]
        done = subprocess.run(run, input=given, capture_output=True, text=True, check=True)
        cold.append([1000 * float(cell) for cell in done.stdout.split()])
    opened, imported = (statistics.median(column) for column in zip(*cold, strict=True))
    return (
        f"CPU time of a file in a process that has recognised others: median {statistics.median(spent):.0f} ms, "
        f"99 % within {spent[int(0.99 * len(spent))]:.0f} ms, at most {spent[-1]:.0f} ms. Of {network.label} "
        f"({len(network.tensors)} tensors) in a new process: {opened:.0f} ms with opening the catalogue, besides "
        f"{imported:.0f} ms to import what it needs."
    )


def _as_in_catalogue(network: Network, layouts: Mapping[str, int]) -> Network:
    """The network of a model type under the name of its class, if the catalogue has one."""
    names = (replace(network, name=name) for name in catalogue_names(network.name))
    return next((one for one in names if one.label in layouts), network)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and with ``--write`` put the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, help="instead of the one that ships")
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--every", type=int, default=1, help="take one network of N")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    path = asked.catalogue or shipped_file(CATALOGUE)
    with Catalogue(path) as catalogue:
        architectures = catalogue.architectures()
        layouts = {one.label: one.layout for one in architectures}
        families = {one.label: one.family for one in architectures}
        of_module: dict[str, set[int]] = defaultdict(set)
        for one in architectures:
            of_module[one.family].add(one.layout)
        modules = {one.label: of_module[one.family] for one in architectures}
        built = {library: networks(library) for library in asked.libraries}
        if "transformers" in built:
            built["transformers"] = [_as_in_catalogue(one, layouts) for one in built["transformers"]]
        gc.collect()
        gc.freeze()  # a process with one file has not all these tensors to look through
        truth = Truth(one for library in built.values() for one in library)
        rows: dict[tuple[str, bool], list[Row]] = {}
        missing: list[str] = []
        for library, every in built.items():
            # All of transformers, and what classifies of the others.
            chosen = [one for one in every if library == "transformers" or one.task == "classification"]
            chosen = [one for one in chosen if zlib.crc32(one.label.encode()) % asked.every == 0]
            missing += [one.label for one in chosen if one.label not in layouts]
            for kept in (True, False):
                held = [one for one in chosen if one.label in layouts]
                rows[library, kept] = [measured(one, catalogue, layouts, modules, truth, kept=kept) for one in held]
        for (_, kept), found in rows.items():
            for row in found:
                if not (row.right and row.listed and row.first and row.strict and row.classes):
                    print(f"not as it should be: {row.network.label}, {'names' if kept else 'numbers'}: {outcome(row)}")
        flat = [row for found in rows.values() for row in found]
        parts = [rates(rows, families), *unknown(catalogue), times(flat, path, built[asked.libraries[0]][0])]
        if missing:
            known = sum(len(found) for (_, kept), found in rows.items() if kept)
            parts.append(f"{len(missing)} of {known + len(missing):,} are not in the catalogue: {', '.join(missing)}.")
        print("\n\n".join(parts))
        if asked.write:
            rewrite(PAGE, MARKER, parts)


if __name__ == "__main__":
    main()
