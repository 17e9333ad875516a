"""Tables of the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.advice.answers import BASELINES, advice_of
from benchmarks.advice.correlations import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.advice.answers import Answer
    from benchmarks.advice.correlations import Correlation
    from benchmarks.advice.coverage import Coverage
    from benchmarks.advice.scored import Scored

__all__ = ["markdown"]


def markdown(
    galleries: Sequence[Scored],
    found: Sequence[Correlation],
    answers: Sequence[Answer],
    coverages: Sequence[Coverage],
) -> str:
    """Four tables: the networks, correlations, first answers, and intervals."""
    return "\n\n".join(
        "\n".join(table)
        for table in (_networks(galleries), _correlations(found), _answers(answers), _coverages(coverages))
    )


def _networks(galleries: Sequence[Scored]) -> list[str]:
    lines = ["| data set | networks | families | parameters | top1: lowest, median, highest |", "| --- " * 5 + "|"]
    for each in galleries:
        low, middle, high = np.quantile(each.top1, [0.0, 0.5, 1.0])
        lines.append(
            f"| {each.task} | {len(each.names)} | {len(np.unique(each.families))} "
            f"| {each.parameters.min():,} to {each.parameters.max():,} | {low:.1f}, {middle:.1f}, {high:.1f} |"
        )
    return lines


def _correlations(found: Sequence[Correlation]) -> list[str]:
    tasks = list(dict.fromkeys(each.task for each in found))
    lines = [f"| evidence | with | pairs | {' | '.join(tasks)} |", "| --- " * (3 + len(tasks)) + "|"]
    for evidence in dict.fromkeys(each.evidence for each in found):
        for target in TARGETS:
            for within, pairs in ((False, "all"), (True, "of one family")):
                row = {
                    each.task: each
                    for each in found
                    if (each.evidence, each.target, each.within) == (evidence, target, within)
                }
                # Evidence that only pairs of one family have is not listed for all pairs as well.
                if not within and all(each.pairs == _within(found, each).pairs for each in row.values()):
                    continue
                if all(np.isnan(each.value) for each in row.values()):
                    continue
                lines.append(f"| {evidence} | {target} | {pairs} | {' | '.join(_cell(row[task]) for task in tasks)} |")
    known = {each.evidence for each in found if not np.isnan(each.value)}
    same = [evidence for evidence in dict.fromkeys(each.evidence for each in found) if evidence not in known]
    return [*lines, "", f"The same for all pairs, so that it tells nothing: {', '.join(same)}."] if same else lines


def _within(found: Sequence[Correlation], of: Correlation) -> Correlation:
    return next(
        each
        for each in found
        if each.within and (each.task, each.evidence, each.target) == (of.task, of.evidence, of.target)
    )


def _cell(each: Correlation) -> str:
    return "" if np.isnan(each.value) else f"{each.value:+.2f} ({each.low:+.2f} to {each.high:+.2f})"


def _answers(answers: Sequence[Answer]) -> list[str]:
    lines = [
        "| question | data set | queries | equivalent | saved | loses | " + " | ".join(BASELINES) + " |",
        "| --- " * (6 + len(BASELINES)) + "|",
    ]
    for question in dict.fromkeys(answer.question for answer in answers):
        own = [answer for answer in answers if answer.question == question]
        for task in (*dict.fromkeys(answer.task for answer in own), ""):
            told = advice_of(question, [answer for answer in own if task in ("", answer.task)])
            gains = " | ".join(
                f"{told.drops[name]:.2f}; {gain:+.2f} ({low:+.2f} to {high:+.2f})"
                for name, (gain, low, high, _) in told.gains.items()
            )
            lines.append(
                f"| `{question}` | {task or 'all'} | {told.queries} | {told.equivalent:.0%} | {told.saved:.0%} "
                f"| {told.drop:.2f} | {gains} |"
            )
    return lines


def _coverages(coverages: Sequence[Coverage]) -> list[str]:
    lines = [
        "| 90 % intervals | data set | pairs | answered | held | by family | said | median width | score | rank |",
        "| --- " * 10 + "|",
    ]
    for kind in dict.fromkeys(each.kind for each in coverages):
        own = [each for each in coverages if each.kind == kind]
        for each in own:
            low, high = each.families
            lines.append(
                f"| {kind} | {each.task} | {each.pairs} | {each.known:.0%} | {each.held:.1%} | {low:.0%} to {high:.0%} "
                f"| {each.said:.1%} | {each.width:.1f} | {each.score:.1f} | {each.rank:+.2f} |"
            )
        counts = np.array([each.pairs * each.known for each in own])
        held = float(np.average([each.held for each in own], weights=counts)) if counts.sum() else float("nan")
        total = sum(each.pairs for each in own)
        lines.append(f"| {kind} | all | {total} | {counts.sum() / total:.0%} | {held:.1%} | | | | | |")
    return lines
