"""Results as Markdown, written into the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.spectral_specs import SPECTRAL
from benchmarks.training.limits import limits_table
from benchmarks.training.measure import SEED
from benchmarks.training.scores import distance_area, of_fingerprint, rows, side_area
from registry.errors import UsageError
from registry.spectral.conjugacy import TAIL_EDGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.training.epochs import Epochs
    from benchmarks.training.measure import Pair

__all__ = ["markdown", "write_between"]

INITIAL = "own initialisation"
NEAR = 0.1
BEGIN, END = "<!-- training -->", "<!-- /training -->"


def markdown(pairs: Sequence[Pair], epochs: Sequence[Epochs], accuracies: Sequence[float]) -> str:
    """Three tables with explanations; ``accuracies``: of the trained networks on held-out images, in per cent."""
    topologies = {pair.topology for pair in pairs}
    lines = [
        f"{len(accuracies)} networks of {len(topologies)} topologies, {min(accuracies):.1f} to {max(accuracies):.1f} % "
        "accuracy on held-out digits.",
        "",
        *_separation(pairs),
        "",
        *_shares(pairs),
        "",
        *_limits(pairs),
        _tails(of_fingerprint(pairs, next(iter(SPECTRAL)))),
    ]
    if epochs:
        correlations = ", ".join(f"{e.correlation:.2f} by `{e.fingerprint}` (chance {e.chance:.2g})" for e in epochs)
        lines += [
            "",
            f"Published checkpoints of one training run, mini-xception at {epochs[0].models} epochs from 0 to 119: "
            f"rank correlation of distance with epochs apart {correlations}.",
        ]
    return "\n".join(lines)


def _separation(pairs: Sequence[Pair]) -> list[str]:
    first = of_fingerprint(pairs, next(iter(SPECTRAL)))
    table = {f"distance, `{name}`": distance_area(of_fingerprint(pairs, name), INITIAL) for name in SPECTRAL}
    table["z"] = side_area(first, INITIAL, by_class=False)
    table["training class"] = side_area(first, INITIAL, by_class=True)
    return [
        "| trained against its own initialisation by | AUC |",
        "| --- | --- |",
        *(f"| {name} | {value:.4f} |" for name, value in table.items()),
    ]


def _shares(pairs: Sequence[Pair]) -> list[str]:
    tables = {name: rows(of_fingerprint(pairs, name)) for name in SPECTRAL}
    titles = "".join(f" `{name}`: median | AUC | within | equivalent |" for name in SPECTRAL)
    lines = [
        f"| a trained network against | pairs | same training class | same tail class |{titles}",
        "| --- " * (4 + 4 * len(SPECTRAL)) + "|",
    ]
    for found in zip(*tables.values(), strict=True):
        head = found[0]
        line = f"| {head.kind} | {head.pairs} | {head.same_training:.0%} | {head.same_tail:.0%} |"
        for row in found:
            nearer = "" if row.area is None else f"{row.area:.3f}"
            line += f" {row.median:.3f} | {nearer} | {row.within:.0%} | {row.equivalent:.0%} |"
        lines.append(line.replace("|  |", "| |"))
    return lines


def _limits(pairs: Sequence[Pair]) -> list[str]:
    table = limits_table(pairs)
    if not table:
        return []
    return [
        "Limits that let that fraction of the other seeds of all other families pass, and what passes them in the "
        "family left out, by distance alone. AUC: of other seeds against another task, all topologies together.",
        "",
        *table,
        "",
    ]


def _tails(pairs: Sequence[Pair]) -> str:
    alone = [pair for pair in pairs if pair.within and pair.same_training and not pair.same_tail]
    seeds = sum(pair.kind == SEED for pair in alone)
    near = sum(all(abs(side.tail / TAIL_EDGE - 1) <= NEAR for side in (pair.a, pair.b)) for pair in alone)
    return (
        f"The tail class alone parts {seeds} of {sum(pair.kind == SEED for pair in pairs)} pairs of seeds and "
        f"{len(alone) - seeds} of {sum(pair.kind != SEED for pair in pairs)} other pairs; in {near} of them both "
        f"locations x*(0.01) are within {100 * NEAR:.0f} % of the edge at {TAIL_EDGE:g}."
    )


def write_between(page: Path, text: str) -> None:
    """Put the text between the markers of a page.

    Raises ``UsageError`` unless both markers are there once, in order.
    """
    old = page.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    middle, end, after = rest.partition(END)
    if not end or BEGIN in middle + after or END in before + after:
        raise UsageError(
            f"{page} needs one {BEGIN} and one {END} behind it", "put both markers where the table belongs"
        )
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
