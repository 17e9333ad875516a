"""Refusal of models of which too much cannot be read."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.effective_weights import Unreadable
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from registry.sources.effective_weights import TensorView
    from registry.types import LayerMatrix, TensorInfo

__all__ = ["MOST", "check_complete"]

MOST = 0.05
"""Largest share of unreadable weights in a model that is stored."""

_NUMBERS = re.compile(r"\d+")
_SEPARATORS = re.compile(r"[./:]")
# Integers that are no weights: positions, look-up tables, sizes, hashes.
_INDICES = re.compile(r"(\w+_)?(ids?|index|indexes|indices|idx|coords|coordinates|sizes?|shapes?|lengths?|counts?)")
_WIDE = ("int64", "uint64")
_COMPLEX_REMEDY = "save their real and imaginary parts as tensors"
_REMEDY = "convert it to float16 or float32 with the library that wrote it, then save it again"


def check_complete(view: TensorView, layers: Sequence[LayerMatrix], others: Collection[str]) -> dict[str, int]:
    """Weights that are in no layer because they cannot be read: elements by name of the stored tensor.

    Parameters
    ----------
    view
        The effective tensors; its ``unreadable`` ones, and complex, integer and packed tensors of two or more
        dimensions that no step has made a weight of, are unreadable.
    layers
        The layer matrices of the model.
    others
        Names of tensors of two or more dimensions that are neither floating-point nor known buffers.

    Raises
    ------
    WeightsError
        They are more than 5 % of the weights in tensors of two or more dimensions, embeddings left out of the total;
        or one of them is what its sibling blocks have as a layer.
    """
    found = dict(view.unreadable)
    for name in sorted(others):
        info = view.tensors[name].info
        if name not in found and (kind := _unread_kind(info)):
            remedy = _COMPLEX_REMEDY if info.dtype.startswith("complex") else _REMEDY
            found[name] = Unreadable(kind, info.size, remedy)
    if not found:
        return {}
    unread = sum(each.elements for each in found.values())
    read = sum(layer.p * layer.q for layer in layers if layer.kind != "embedding")
    has = {_NUMBERS.sub("#", layer.tensor) for layer in layers if _NUMBERS.search(layer.tensor)}
    missing = next((name for name in sorted(found) if _NUMBERS.sub("#", name) in has), None)
    if unread <= MOST * (read + unread) and missing is None:
        return {name: each.elements for name, each in found.items()}
    kinds = Counter[str]()
    for each in found.values():
        kinds[each.kind] += each.elements
    told = ", ".join(f"{elements:,} {kind}" for kind, elements in kinds.most_common(3))
    first = missing or max(sorted(found), key=lambda name: found[name].elements)
    why = f"{unread / (read + unread):.1%} of its weights" if missing is None else f"{missing}, a layer of a block,"
    raise WeightsError(
        f"{view.where}: {why} cannot be read: {told} in {counted(len(found), 'tensor')}, such as {first}",
        found[first].remedy,
    )


def _unread_kind(info: TensorInfo) -> str:
    """In words, what a tensor holds that is no floating-point number and may be weights; empty if it is none."""
    if len(info.shape) < 2 or info.size == 0 or info.dtype == "bool":
        return ""
    if info.dtype.startswith("complex"):
        return f"complex weights ({info.dtype})"
    last = _SEPARATORS.split(info.name.lower()[-400:])[-1]
    if info.dtype in ("float16", "bfloat16", "float32", "float64") or _INDICES.fullmatch(last):
        return ""
    if info.dtype in _WIDE and not last.endswith("weight"):
        return ""
    return f"integer or packed weights ({info.dtype})"
