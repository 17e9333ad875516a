"""Values of MATLAB files as a tree, whatever the version of the file: arrays, texts, cells and structs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.errors import UnsafeError

if TYPE_CHECKING:
    from registry.sources.files.lazy_tensors import LazyTensor

__all__ = ["MAX_DEPTH", "Budget", "Value"]

MAX_DEPTH = 64
_MAX_VALUES = 300_000


@dataclass(slots=True)
class Value:
    """A value: ``tensor`` of numbers in MATLAB's shape, ``text``, ``cells``, or ``fields`` of each struct of an array.

    ``other``: what else it is, where it is none of these.
    """

    shape: tuple[int, ...] = ()
    tensor: LazyTensor | None = None
    text: str | None = None
    cells: list[Value] | None = None
    fields: dict[str, list[Value]] | None = None
    other: str = ""

    def field(self, name: str, at: int = 0) -> Value | None:
        """A field of one struct of the array."""
        values = (self.fields or {}).get(name, ())
        return values[at] if at < len(values) else None

    def items(self) -> list[Value]:
        """The cells; of a struct array, its structs one by one."""
        if self.cells is not None:
            return self.cells
        count = max(map(len, (self.fields or {}).values()), default=0)
        return [
            Value((1, 1), fields={name: values[at : at + 1] for name, values in (self.fields or {}).items()})
            for at in range(count)
        ]


@dataclass(slots=True)
class Budget:
    """How many values a file may still have."""

    where: str
    left: int = field(default=_MAX_VALUES)

    def take(self, count: int, depth: int) -> None:
        """Raise ``UnsafeError`` for more values than a file may have, or deeper ones."""
        self.left -= count
        if self.left < 0:
            raise UnsafeError(f"{self.where} holds more than {_MAX_VALUES} values", "save the weights alone")
        if depth > MAX_DEPTH:
            raise UnsafeError(f"{self.where} nests deeper than {MAX_DEPTH} levels", "save the weights alone")
