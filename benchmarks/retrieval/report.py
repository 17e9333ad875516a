"""Tables of the documentation, and wrong nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.learning import SHIPPED
from benchmarks.retrieval.scores import gain_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.retrieval.learning import Numbers
    from benchmarks.retrieval.models import Models
    from benchmarks.retrieval.scores import Scores

__all__ = ["Row", "confusions", "gains", "numbers_table", "table"]

_KINDS = ("all", "cross-size")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Scores of a fingerprint, with the whole gallery and without models of the query's topology."""

    name: str
    everything: Scores
    across: Scores


def table(rows: Sequence[Row]) -> list[str]:
    """Table of P@1 and mAP with intervals, and AUC across sizes."""
    return [
        "| fingerprint | all P@1 | all mAP | cross-size P@1 | cross-size mAP | AUC |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.name} | {_cell(row.everything, 0)} | {_cell(row.everything, 1)} | {_cell(row.across, 0)} "
            f"| {_cell(row.across, 1)} | {row.across.mean()[2]:.3f} |"
            for row in rows
        ),
    ]


def gains(pairs: Sequence[tuple[str, Row, Row]]) -> list[str]:
    """Table of the differences between the first and the second of each two rows."""
    lines = [
        "| gain of spectra | all P@1 | all mAP | cross-size P@1 | cross-size mAP |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, better, worse in pairs:
        cells = []
        for one, other in ((better.everything, worse.everything), (better.across, worse.across)):
            low, high = gain_interval(one, other)
            gain = one.mean() - other.mean()
            cells += [f"{gain[at]:+.3f} ({low[at]:+.2f} to {high[at]:+.2f})" for at in (0, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def numbers_table(*fits: Sequence[Numbers]) -> list[str]:
    """Learned numbers over the shipped ones, for each series of fits: median and quartiles."""
    some = [each for each in fits if each]
    titles = ("by other families", "by timm's, too")
    lines = [
        "| block | number | ships |" + "".join(f" {title} | |" for title in titles[: len(some)]),
        "| --- " * (3 + 2 * len(some)) + "|",
    ]
    for (block, name), value in SHIPPED.items():
        line = f"| {block} | {name or 'weight'} | {value:.3g} |"
        for each in some:
            low, middle, high = np.quantile([numbers[block, name] / value for numbers in each], [0.25, 0.5, 0.75])
            line += f" {middle:.2f} | {low:.2f}-{high:.2f} |"
        lines.append(line)
    return lines


def confusions(models: Models, distances: NDArray[np.float64], row: Row) -> list[str]:
    """Queries whose nearest model is of another family, with the nearest of their own family."""
    lines = ["| gallery | query | nearest | at | nearest of its family | at |", "| --- " * 6 + "|"]
    for kind, scores in zip(_KINDS, (row.everything, row.across), strict=True):
        for query in scores.query[scores.figures[:, 0] == 0]:
            gallery = np.arange(len(models.names)) != query
            if kind != _KINDS[0]:
                gallery &= models.topology != models.topology[query]
            own = gallery & (models.family == models.family[query])
            cells = []
            for among in (gallery & ~own, own):
                nearest = int(np.where(among, distances[query], np.inf).argmin())
                cells += [models.names[nearest], f"{distances[query, nearest]:.3f}"]
            lines.append(f"| {kind} | {models.names[query]} | {' | '.join(cells)} |")
    return lines


def _cell(scores: Scores, at: int) -> str:
    low, high = scores.interval()[:, at]
    return f"{scores.mean()[at]:.3f} ({low:.2f}-{high:.2f})"
