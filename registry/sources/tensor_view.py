"""Tensors of a checkpoint as the forward pass uses them, rewritten step by step from those that are stored.

A stored model may hold packed codes and scales, a direction and a length, a base and its adapter, or all experts in one
tensor. Each step of `effective_weights` finds one such layout in a `TensorView` and puts the weight in place of its
parts. Nothing is computed until rows of a weight are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.dtypes import decode_any, is_float
from registry.types import NO_FACTS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelFacts

    Rows = Callable[[int, int], NDArray[np.generic]]

__all__ = ["EffectiveTensor", "TensorView", "Unreadable"]


@dataclass(frozen=True, slots=True)
class EffectiveTensor:
    """A tensor as the forward pass uses it.

    ``shape`` is in torch's layout (out, in, *kernel). ``rows(start, stop)`` gives indices ``start`` to ``stop`` of the
    first axis as an array of shape (stop - start, *shape[1:]): float32 or float64 of a floating-point ``dtype``,
    integers of an integer one. A tensor without axes is read by ``rows(0, 1)`` and has shape (). ``parts`` are the
    stored tensors that it is computed from. ``precision`` names how the values are stored, ``int4 gptq``; empty: as
    ``dtype`` says. ``cut`` says which part of its parts it is, where they hold several weights (``3``, ``3.gate``).
    ``setting``: numbers outside the tensors that the values depend on (``lora 2.0``); the content hash covers them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    rows: Rows
    parts: tuple[str, ...]
    precision: str = ""
    cut: str = ""
    setting: str = ""

    @property
    def info(self) -> TensorInfo:
        """Name, dtype and shape."""
        return TensorInfo(self.name, self.dtype, self.shape)

    def read(self) -> NDArray[np.generic]:
        """All of it."""
        return self.rows(0, self.shape[0] if self.shape else 1)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Weights that cannot be turned into matrices: their ``kind`` in words, and how many ``elements`` they stand for.

    ``remedy``: the command or call that converts them.
    """

    kind: str
    elements: int
    remedy: str


class TensorView:
    """The tensors of a checkpoint by name, which steps rewrite.

    ``tensors``: the present state. ``skipped``: reasons of tensors that were dropped and are worth showing.
    ``unreadable``: weights that no step can read, by name. ``notes``: sentences on choices that the user should know.
    """

    def __init__(self, stored: Checkpoint) -> None:
        self._stored = stored
        self.where = stored.ref.target
        self.facts: ModelFacts = getattr(stored, "facts", NO_FACTS)  # which a plug-in's checkpoint may lack
        self.stored_sizes: dict[str, int] = getattr(stored, "stored_sizes", {})  # of tensors given as other values
        self.tensors: dict[str, EffectiveTensor] = {info.name: self._plain(info) for info in stored.tensors}
        self.skipped: dict[str, tuple[TensorInfo, str]] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.notes: list[str] = list(self.facts.notes)

    def _plain(self, info: TensorInfo) -> EffectiveTensor:
        return EffectiveTensor(
            info.name,
            info.dtype,
            info.shape,
            lambda start, stop: self._rows(info, start, stop),
            (info.name,),
            getattr(self._stored, "precisions", {}).get(info.name, ""),
        )

    def _rows(self, info: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Rows of a stored tensor; all of it is read by the source's own ``read``."""
        if is_float(info.dtype) and (not info.shape or (start, stop) == (0, info.shape[0])):
            return self._stored.read(info.name)
        count = info.shape[0] if info.shape else 1
        whole = info.size
        if count == 0 or whole == 0:
            return decode_any(memoryview(b""), info.dtype, (stop - start, *info.shape[1:]))
        width, rest = divmod(self.bytes_of(info.name), count)
        if rest:
            raise WeightsError(f"tensor {info.name} has rows of unequal size", "save it again")
        data = self.span(info.name, start * width, stop * width)
        return decode_any(data, info.dtype, (stop - start, *info.shape[1:]) if info.shape else ())

    def bytes_of(self, name: str) -> int:
        """Size of a stored tensor in bytes."""
        size = getattr(self._stored, "bytes_of", None)  # which a plug-in's checkpoint may lack, and span too
        return len(self._stored.raw(name)) if size is None else int(size(name))

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a stored tensor, little-endian in C order of its stored layout."""
        span = getattr(self._stored, "span", None)
        found: memoryview = self._stored.raw(name)[start:stop] if span is None else span(name, start, stop)
        return found

    def raw(self, name: str) -> memoryview:
        """All bytes of a stored tensor."""
        return self._stored.raw(name)

    def put(self, made: EffectiveTensor, instead_of: Iterable[str] = ()) -> None:
        """Put a tensor in place of others, which are removed. One of its own name is replaced."""
        for name in instead_of:
            self.tensors.pop(name, None)
        self.tensors[made.name] = made

    def skip(self, name: str, reason: str) -> None:
        """Drop a tensor that is no layer and no parameter, and keep the reason."""
        dropped = self.tensors.pop(name)
        self.skipped[name] = (dropped.info, reason)

    def refuse(self, name: str, why: Unreadable) -> None:
        """Drop a weight that cannot be read; if the model has too much of them, it is refused."""
        self.skip(name, why.kind)
        self.unreadable[name] = why
