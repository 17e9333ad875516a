"""``python -m benchmarks.relations [--folder F] [--write]``: relations by sketches, against exact cosines.

Pairs of one topology, of the published zoo and of small networks that are trained for it and kept in the folder, are
judged by their sketches and compared with the median over layers of the exact cosine of the centred layers. Pairs of
different families that have three or more layers of equal shape are strangers, except those of one seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.relations.networks import Network, cosines, networks
from benchmarks.speed.harness import rewrite
from registry.equivalence.relations import related_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from registry.types import Relation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
MARKER = "relations"
FOLDER = Path(tempfile.gettempdir()) / "archreg-training"
HIGH, LOW = 0.3, 0.05
"""Exact median cosines from which pairs must be related, and below which they must not."""
VERDICTS = ("related", "undecided", "independent")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two networks: their families, what the sketches tell, and the exact median cosine, None across topologies."""

    a: str
    b: str
    families: tuple[str, str]
    found: Relation
    exact: float | None


def same_topology(every: Sequence[Network]) -> list[Pair]:
    """All pairs of one topology, with their exact median cosine."""
    groups: dict[str, list[Network]] = defaultdict(list)
    for network in every:
        groups[network.topology].append(network)
    return [
        Pair(
            group[a].name,
            group[b].name,
            (group[a].family, group[b].family),
            related_layers(group[a].layers, group[b].layers),
            exact,
        )
        for group in groups.values()
        if len(group) > 1
        for a, b, exact in cosines(group)
    ]


def across_families(every: Sequence[Network]) -> tuple[list[Pair], list[Pair]]:
    """Pairs of different families with three or more layers of equal shape: strangers, and those of one seed."""
    kinds = [Counter(map(tuple, network.layers.shapes.tolist())) for network in every]
    strangers, seeds = [], []
    for i, j in combinations(range(len(every)), 2):
        a, b = every[i], every[j]
        if a.family == b.family or (kinds[i] & kinds[j]).total() < 3:
            continue
        found = related_layers(a.layers, b.layers)
        if found.layers >= 3:
            pair = Pair(a.name, b.name, (a.family, b.family), found, None)
            (seeds if a.start == b.start else strangers).append(pair)
    return strangers, seeds


def upper_bound(hits: int, trials: int, level: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound on a rate."""
    from scipy.stats import beta

    return 1.0 if hits >= trials else float(beta.ppf(level, hits + 1, trials - hits))


def counts(pairs: Iterable[Pair]) -> Counter[str]:
    """Pairs by verdict."""
    return Counter(pair.found.verdict for pair in pairs)


def by_family(pairs: Sequence[Pair]) -> str:
    """Table of the pairs of one topology by family."""
    lines = [
        "| family | pairs | related | undecided | independent | r of related | exact cosine, related | else |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.families[0]].append(pair)
    for family in sorted(groups):
        its = groups[family]
        related = [pair for pair in its if pair.found.verdict == "related"]
        others = [pair for pair in its if pair.found.verdict != "related"]
        told = counts(its)
        lines.append(
            f"| {family} | {len(its)} | "
            + " | ".join(str(told[verdict]) for verdict in VERDICTS)
            + f" | {_span(pair.found.correlation for pair in related)} | {_span(pair.exact for pair in related)} "
            f"| {_span(pair.exact for pair in others)} |"
        )
    return "\n".join(lines)


def _span(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return f"{min(known):.2f} to {max(known):.2f}" if known else ""


def against_exact(pairs: Sequence[Pair]) -> str:
    """Table of the pairs of one topology by their exact cosine."""
    lines = [
        "| exact median cosine | pairs | related | undecided | independent | not comparable | aim |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    exact = np.array([np.nan if pair.exact is None else pair.exact for pair in pairs])
    for title, mask, aim in (
        (f"{HIGH} and more", exact >= HIGH, "all related"),
        (f"{LOW} to {HIGH}", (exact >= LOW) & (exact < HIGH), ""),
        (f"below {LOW}", exact < LOW, "none related, at most 5 % undecided"),
    ):
        told = counts(pair for pair, inside in zip(pairs, mask.tolist(), strict=True) if inside)
        cells = " | ".join(f"{told[verdict]:,}" for verdict in (*VERDICTS, "not comparable"))
        lines.append(f"| {title} | {int(mask.sum()):,} | {cells} | {aim} |")
    return "\n".join(lines)


def report(same: Sequence[Pair], strangers: Sequence[Pair], seeds: Sequence[Pair]) -> list[str]:
    """The paragraphs and tables of the page."""
    told = counts(strangers)
    null = [pair for pair in same if pair.exact is not None and pair.exact < LOW and pair.found.layers >= 3]
    Z = np.array([pair.found.score for pair in (*null, *strangers) if pair.found.score is not None])
    bound = upper_bound(told["related"], len(strangers))
    return [
        against_exact(same),
        f"Across families, {len(strangers):,} pairs have three or more layers of equal shape and not one seed: "
        f"{told['related']} related, {told['undecided']:,} undecided, {told['independent']:,} independent. At most "
        f"{1e3 * bound:.2f} in 1,000 are called related (95 %, Clopper and Pearson). Of {len(seeds):,} pairs of one "
        f"seed, which is a common start of layers that are drawn alike, {counts(seeds)['related']:,} are related.",
        f"Z of these strangers and of the {len(null):,} pairs of one topology below {LOW}: mean {Z.mean():.2f}, "
        f"standard deviation {Z.std():.2f}, largest {Z.max():.2f}.",
        by_family(same),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train missing networks, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relations", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"folder of the networks (default {FOLDER})")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    begun = time.process_time()
    every = networks(options.folder, lambda name: print(f"training {name}", file=sys.stderr))
    print(f"{len(every)} networks read, {time.process_time() - begun:.0f} s of CPU", file=sys.stderr)
    same = same_topology(every)
    print(f"{len(same)} pairs of one topology, {time.process_time() - begun:.0f} s of CPU", file=sys.stderr)
    parts = report(same, *across_families(every))
    parts.append(f"{len(every)} networks; measured in {time.process_time() - begun:.0f} s of CPU.")
    print("\n\n".join(parts))
    for pair in same:
        if pair.exact is not None and (
            (pair.exact >= HIGH and pair.found.verdict != "related")
            or (pair.exact < LOW and pair.found.verdict == "related")
        ):
            print(f"against the exact cosine {pair.exact:.3f}: {pair.a}, {pair.b}: {pair.found}", file=sys.stderr)
    if options.write:
        rewrite(PAGE, MARKER, parts)


if __name__ == "__main__":
    main()
