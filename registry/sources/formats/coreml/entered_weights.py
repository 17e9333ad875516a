"""The weights of a Core ML model as they are found: their names, their steps of computation, and what is left out."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.formats.coreml.stored_values import REMEDY
from registry.sources.graph_order import Computation
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from registry.sources.files.lazy_tensors import LazyTensor

__all__ = ["Entered"]

_MAX_STEPS = 250_000
_MAX_TEXT = 128 * 2**20
_UNREAD_SHARE = 0.05
_UNSAFE = re.compile(r"[^\w.\-/]")


class Entered:
    """Weights by name, in torch's layout, and the steps that use them.

    ``where``: the file, for messages. ``prefix``: of all names; that of a model in a pipeline.
    """

    def __init__(self, where: str, prefix: str = "") -> None:
        self.where = where
        self.prefix = prefix
        self.tensors: dict[str, LazyTensor] = {}
        self.steps: list[Computation] = []
        self.unread: dict[Hashable, tuple[str, int]] = {}
        self._known: dict[Hashable, str] = {}
        self._counts: Counter[str] = Counter()
        self._text = 0

    def head(self, name: str, kind: str) -> str:
        """A module's name: its own, made of plain characters, or one made up of its kind and a number."""
        plain = _UNSAFE.sub("_", name)[:200]
        if plain and not plain[0].isdigit():
            return plain
        self._counts[kind] += 1
        return f"{kind}_{self._counts[kind] - 1}"

    def put(self, head: str, found: Mapping[str, LazyTensor], keys: Mapping[str, Hashable] | None = None) -> list[str]:
        """Enter the tensors of a module by the last parts of their names; the names that they have.

        ``keys``: what each is made of, by the same parts. One that was entered already keeps its first name.
        """
        names = []
        for leaf, tensor in found.items():
            key = None if keys is None else keys.get(leaf)
            if key is not None and key in self._known and self.tensors[self._known[key]].shape == tensor.shape:
                names.append(self._known[key])
                continue
            name, count = f"{self.prefix}{head}.{leaf}", 1
            while name in self.tensors:
                count += 1
                name = f"{self.prefix}{head}_{count}.{leaf}"
            self.tensors[name] = tensor
            self._text += len(name)
            if self._text > _MAX_TEXT:
                raise UnsafeError(f"{self.where} has names of more than {_MAX_TEXT} bytes", REMEDY)
            if key is not None:
                self._known[key] = name
            names.append(name)
        return names

    def step(self, takes: Iterable[Hashable], gives: Iterable[Hashable], names: Sequence[str] = ()) -> None:
        """Note a step of the computation."""
        if len(self.steps) >= _MAX_STEPS:
            raise UnsafeError(f"{self.where} has more than {_MAX_STEPS} operations", "split the model")
        self.steps.append(Computation(tuple(takes), tuple(gives), tuple(names)))

    def left(self, key: Hashable, kind: str, shape: tuple[int, ...]) -> None:
        """Note a matrix that is used in a way that is not known."""
        if sum(extent > 1 for extent in shape) > 1:
            self.unread.setdefault(key, (kind[:60], math.prod(shape)))

    def check(self) -> tuple[str, ...]:
        """Notes on what is left out. Raises ``WeightsError`` where that is more than 5 % of the weights."""
        missed = {key: each for key, each in self.unread.items() if key not in self._known}
        if not missed:
            return ()
        total = sum(count for _, count in missed.values())
        read = sum(math.prod(tensor.shape) for tensor in self.tensors.values() if len(tensor.shape) > 1)
        kinds = ", ".join(sorted({kind for kind, _ in missed.values()})[:5])
        if total > _UNREAD_SHARE * (total + read):
            raise WeightsError(
                f"{self.where}: {total} of {total + read} weights are used by {kinds}, whose layout is not known",
                "ingest the model that it was converted from",
            )
        return (f"{counted(len(missed), 'weight')} used by {kinds} are left out",)
