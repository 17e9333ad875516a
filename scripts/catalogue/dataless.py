"""Modules built without data, and the tensors of their state dicts."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from registry.types import ArchitectureTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Tensors", "build", "evaluate", "tensors_of_module"]

_NO_MEMORY = "can't allocate memory"  # in an error of torch


class Tensors(NamedTuple):
    """The tensors of a state dict, the number of trainable values, and entries of it that are no tensors."""

    tensors: tuple[ArchitectureTensor, ...]
    parameters: int
    others: tuple[str, ...]


def evaluate(code: str, imports: str) -> Any:
    """The value of an expression that needs a module, with the modules above it under its first name."""
    import_module(imports)
    first = imports.partition(".")[0]
    return eval(code, {first: sys.modules[first]})  # noqa: S307  # of our own tables


@contextmanager
def _moved_when_registered() -> Iterator[None]:
    """Parameters go to the meta device as modules register them, so that values exist while they are computed alone.

    A parameter that is registered twice stays one.
    """
    original = torch.nn.Module.register_parameter

    def register(module: torch.nn.Module, name: str, param: torch.nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            twin = getattr(param, "_without_data", None)
            if twin is None:
                twin = torch.nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
                param._without_data = twin  # type: ignore[attr-defined]  # noqa: SLF001
            param = twin
        original(module, name, param)

    torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = original  # type: ignore[method-assign]


def build(code: str, imports: str) -> torch.nn.Module:
    """The module that an expression builds: on the meta device or, where that fails, with parameters moved there.

    Raises
    ------
    Exception
        Whatever the library raises in the second way; in the first one, if the second takes too much memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                module = evaluate(code, imports)
        except Exception as first:  # noqa: BLE001  # libraries raise anything where a value is asked for
            try:
                with _moved_when_registered():
                    module = evaluate(code, imports)
            except (MemoryError, RuntimeError) as second:
                if isinstance(second, MemoryError) or _NO_MEMORY in str(second):
                    raise first from second
                raise
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"it is a {type(module).__name__}, not a module")
    return module


def tensors_of_module(module: torch.nn.Module) -> Tensors:
    """The tensors of the module's state dict in its order. Two of the same storage and shape are tied."""
    named = dict(module.named_parameters(remove_duplicate=False))
    first: dict[object, str] = {}
    tensors, others = [], []
    for name, value in module.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            others.append(name)
            continue
        place = (value.untyped_storage()._cdata, value.storage_offset(), tuple(value.shape), value.stride())  # noqa: SLF001
        tied = first.setdefault(place, name) if value.numel() else name
        floating = value.is_floating_point() or value.is_quantized
        tied = "" if tied == name else tied
        tensors.append(ArchitectureTensor(name, tuple(value.shape), name not in named, floating, tied))
    distinct = {id(parameter): parameter for parameter in named.values()}
    trainable = sum(parameter.numel() for parameter in distinct.values() if parameter.requires_grad)
    return Tensors(tuple(tensors), trainable, tuple(others))
