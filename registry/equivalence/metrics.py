"""Direction of metrics, and how they change from one model to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.types import MetricChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.types import Metric

__all__ = ["changes", "direction"]

# Usual metric names, for records that do not state the direction; no direction is assumed for other names.
_NAMES = {
    True: "acc accuracy ap auc auroc average_precision balanced_accuracy bleu dice f1 iou map mean_iou miou precision"
    " psnr r2 recall rouge ssim top1 top5",
    False: "cer cross_entropy error fid loss mae mean_absolute_error mean_squared_error mse nll perplexity ppl rmse"
    " top1_error top5_error wer",
}
_KNOWN = {name: higher for higher, names in _NAMES.items() for name in names.split()}


def direction(*records: Metric) -> bool | None:
    """Whether higher is better for records of one metric: as they state, else by name; None if unknown.

    Contradictory records give None.
    """
    said = {record.higher_is_better for record in records} - {None}
    if len(said) == 1:
        return said.pop()
    if said:
        return None
    meant = {_KNOWN.get(record.name.lower().replace("-", "_").replace(" ", "_")) for record in records}
    return meant.pop() if len(meant) == 1 else None


def changes(original: Iterable[Metric], candidate: Iterable[Metric]) -> tuple[MetricChange, ...]:
    """The change of each metric that two models have on one data set and split, in the order of the first."""
    known = {(each.name, each.dataset, each.split): each for each in candidate}
    pairs = [(each, known.get((each.name, each.dataset, each.split))) for each in original]
    return tuple(
        MetricChange(ours.name, ours.dataset, ours.split, ours.value, theirs.value, direction(ours, theirs))
        for ours, theirs in pairs
        if theirs is not None
    )
