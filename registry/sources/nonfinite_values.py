"""NaN and infinity among the stored values of a model: what is counted, refused and marked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.sources.content_hash import Facts
    from registry.sources.effective_weights import TensorView

__all__ = ["marked", "nonfinite", "refusal"]

_EXEMPT = frozenset({"mask", "constant table", "optimiser state"})
"""Reasons of tensors that are neither parameters nor statistics. A mask adds minus infinity."""

# The range that an observer of torch.ao has seen; infinite until it has seen something.
_OBSERVED = re.compile(r"(?:.*\.)?\w*(?:activation_post_process|fake_quant|observer)\w*(?:\.\w+)*\.(?:min|max)_val")
_NAMED = 3


def nonfinite(view: TensorView, reasons: Mapping[str, str | None], facts: Mapping[str, Facts]) -> dict[str, int]:
    """Number of values that are NaN or infinite, by name of the stored tensor, of those that have any.

    ``reasons``: why an effective tensor is no layer; masks, constant tables and optimiser states are left out, and so
    are the ranges of observers.
    """
    exempt = {part for name, tensor in view.tensors.items() if reasons[name] in _EXEMPT for part in tensor.parts}
    exempt |= {name for name, (_, reason) in view.skipped.items() if reason in _EXEMPT}
    found = {name: fact.nonfinite for name, fact in sorted(facts.items()) if fact.nonfinite and name not in exempt}
    return {name: count for name, count in found.items() if not _OBSERVED.fullmatch(name)}


def refusal(where: str, bad: Mapping[str, int], sizes: Mapping[str, int]) -> WeightsError:
    """The error for a model with such values: the tensor with most of them, and how many others have some."""
    first = max(bad, key=lambda name: bad[name])
    others = len(bad) - 1
    more = f", and {counted(others, 'other tensor')} {'has' if others == 1 else 'have'} some" if others else ""
    return WeightsError(
        f"{where}: tensor {first} holds {bad[first]} of {sizes[first]} values that are NaN or infinite{more}",
        "take another checkpoint: this one diverged or is damaged; archreg ingest FILE --allow-nonfinite stores it "
        "without these layers",
    )


def marked(bad: Mapping[str, int]) -> str:
    """A sentence on a model that is stored with such values."""
    named = ", ".join(sorted(bad, key=lambda name: (-bad[name], name))[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    count = sum(bad.values())
    return f"{counted(count, 'value')} of {named}{more} {'is' if count == 1 else 'are'} not finite"
