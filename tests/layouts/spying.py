"""What an attention module multiplies: outputs of its fused projection, and queries, keys and values made of them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from registry.types import NO_FACTS, ModelFacts
from tests.sources.conftest import ArrayCheckpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from registry.types import LayerMatrix

PRODUCTS = {"scaled_dot_product_attention", "matmul", "__matmul__", "bmm", "baddbmm", "einsum"}


class Known(ArrayCheckpoint):
    """Arrays in memory, and a configuration beside them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(arrays)
        self.facts = NO_FACTS if config is None else ModelFacts(config=config)


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


class _Enough(Exception):  # noqa: N818  # no error
    """The first attention is over."""


class _Products(TorchFunctionMode):
    """Keeps the tensors that go into every product."""

    def __init__(self, events: list[tuple[str, list[torch.Tensor]]]) -> None:
        super().__init__()
        self._events = events

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            tensors = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, torch.Tensor)]
            self._events.append((name, tensors))
            first = next((i for i, (each, _) in enumerate(self._events) if each == "fused"), len(self._events))
            if name == "scaled_dot_product_attention" or len(self._events) - first > 4:
                raise _Enough
        return func(*args, **(kwargs or {}))


class Spy:
    """The outputs of a fused projection, and the products up to the next one."""

    def __init__(self) -> None:
        self.events: list[tuple[str, list[torch.Tensor]]] = []

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[Self]:
        """While the network runs."""
        handle = module.register_forward_hook(lambda _, __, out: self.events.append(("fused", [out.detach()])))
        try:
            with suppress(_Enough), torch.no_grad(), _Products(self.events):
                yield self
        finally:
            handle.remove()

    def __contains__(self, parts: Mapping[str, LayerMatrix]) -> bool:
        """Whether the module multiplies queries with keys and then something with values, as the parts have them."""
        first = next(i for i, (name, _) in enumerate(self.events) if name == "fused")
        out = self.events[first][1][0]
        out = out.movedim(1, -1) if len(parts["q"].shape) == 4 else out
        values = {label: _values(_part(out, layer)) for label, layer in parts.items()}
        calls = [[_values(each) for each in tensors] for name, tensors in self.events[first + 1 :] if name != "fused"]
        places = [
            next((i for i, (a, b) in enumerate(pairwise(call)) if _same(values["q"], a) and _same(values["k"], b)), -1)
            for call in calls
        ]
        # The call of the scores has the values too, behind the keys, or another call has them.
        weighted = [
            any(_same(values["v"], each) for each in (call[place + 2 :] if place >= 0 else call))
            for call, place in zip(calls, places, strict=True)
        ]
        return max(places, default=-1) >= 0 and any(weighted)


def _part(out: torch.Tensor, layer: LayerMatrix) -> torch.Tensor:
    if not layer.period:
        return out[..., layer.start : layer.stop]
    return out.reshape(*out.shape[:-1], -1, layer.period)[..., layer.start : layer.stop]


def _values(tensor: torch.Tensor) -> np.ndarray:
    """The distinct values that are not zero, as parts of the largest: padding, repeats and scales do not count."""
    found = np.unique(tensor.detach().double().numpy())
    found = found[found != 0]
    return found / np.abs(found).max() if found.size else found


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    return bool(one.size and two.size) and _covers(one, two) and _covers(two, one)


def _covers(many: np.ndarray, few: np.ndarray) -> bool:
    """Whether each of some values is among others; not all of them would be so by chance."""
    place = np.searchsorted(many, few)
    near = np.minimum(
        np.abs(few - many[np.minimum(place, many.size - 1)]), np.abs(few - many[np.maximum(place - 1, 0)])
    )
    return bool((near < 1e-6).all())
