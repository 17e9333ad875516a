"""Which way a metric is good."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.types import Metric

__all__ = ["direction"]

# What the field's usual names mean, where no record says so; of other names nothing is supposed.
_NAMES = {
    True: "acc tolerance ap auc auroc average_precision balanced_tolerance bleu dice f1 iou map mean_iou miou precision"
    " psnr r2 recall rouge ssim top1 top5",
    False: "cer cross_entropy error fid loss mae mean_absolute_error mean_squared_error mse nll perplexity ppl rmse"
    " top1_error top5_error wer",
}
_KNOWN = {name: higher for higher, names in _NAMES.items() for name in names.split()}


def direction(*records: Metric) -> bool | None:
    """Whether higher is better, by records of one metric: as they say, else by its name; None where that is not known.

    Where they contradict each other nothing is.
    """
    said = {record.higher_is_better for record in records} - {None}
    if len(said) == 1:
        return said.pop()
    if said:
        return None
    meant = {_KNOWN.get(record.name.lower().replace("-", "_").replace(" ", "_")) for record in records}
    return meant.pop() if len(meant) == 1 else None
