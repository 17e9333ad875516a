"""Modules that were pickled whole, ``torch.save(model)``: their records as the state dict that they would give.

A module's attributes hold ``_parameters``, ``_buffers`` and ``_modules``; buffers in ``_non_persistent_buffers_set``
are no part of a state dict. Names and their order are those of ``Module.state_dict``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.pickles.records import Global, Instance, as_mapping
from registry.sources.pickles.stored_tensors import StoredTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["attributes_of", "is_module", "maps_of", "state_of"]

_MAX_MODULES = 200_000
_MAX_NAME = 1000  # characters; a circle of modules would make names without end
_LAZY = frozenset({"UninitializedParameter", "UninitializedBuffer"})


def attributes_of(value: Instance) -> Mapping[object, object]:
    """The attributes of an object; of torch.fx's modules, they are an argument of the function that makes them."""
    found = value.attributes
    if not found and isinstance(value.kind, Global) and value.kind.module == "torch.fx.graph_module":
        first = value.args[0] if value.args else None
        return first if isinstance(first, dict) else found
    return found


def is_module(value: object) -> bool:
    """Whether a record is a module of torch."""
    if not isinstance(value, Instance):
        return False
    found = attributes_of(value)
    return all(isinstance(found.get(part), dict) for part in ("_parameters", "_buffers", "_modules"))


def state_of(module: Instance, where: str, limit: int = MAX_TENSORS) -> dict[object, object]:
    """The state dict of a module, by the names that it gives its tensors.

    ``limit``: of names. A module that is found under several names is there under each. Quantised linear modules give
    their packed weights.

    Raises
    ------
    UnsafeError
        More modules or tensors than weights need, or modules that contain themselves.
    WeightsError
        A parameter of a lazy module has no shape yet.
    """
    state: dict[object, object] = {}
    waiting: list[tuple[str, Instance]] = [("", module)]
    for visited in range(_MAX_MODULES):
        if not waiting:
            return state
        prefix, at = waiting.pop()
        _add_tensors(at, prefix, state, where)
        children = as_mapping(attributes_of(at).get("_modules")) or {}
        inner = [
            (f"{prefix}{name}.", child)
            for name, child in children.items()
            if isinstance(name, str) and isinstance(child, Instance) and is_module(child)
        ]
        if len(state) + visited > limit or any(len(name) > _MAX_NAME for name, _ in inner):
            break
        waiting.extend(reversed(inner))
    raise UnsafeError(f"{where} holds a module of more parts than weights need", "save model.state_dict()")


def _add_tensors(module: Instance, prefix: str, state: dict[object, object], where: str) -> None:
    found = attributes_of(module)
    passing = found.get("_non_persistent_buffers_set")
    hidden = passing if isinstance(passing, set | frozenset | list) else ()
    hidden = frozenset(name for name in hidden if isinstance(name, str))
    for part in ("_parameters", "_buffers"):
        for name, tensor in (as_mapping(found.get(part)) or {}).items():
            if not isinstance(name, str) or (part == "_buffers" and name in hidden):
                continue
            if isinstance(tensor, StoredTensor):
                state[prefix + name] = tensor
            elif isinstance(tensor, Instance) and tensor.class_name.rpartition(".")[2] in _LAZY:
                raise WeightsError(
                    f"{where}: tensor {prefix}{name} of a lazy module has no shape yet",
                    "pass a batch through the module before saving it",
                )
    packed = found.get("_packed_params")
    if isinstance(packed, Instance) and not is_module(packed):
        state[f"{prefix}_packed_params"] = packed


def maps_of(module: Instance) -> dict[str, str]:
    """How weights with torch's old ``spectral_norm`` are computed, as `ModelFacts` has it, by their names."""
    said: dict[str, str] = {}
    waiting: list[tuple[str, Instance]] = [("", module)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            break
        prefix, at = waiting.pop()
        found = attributes_of(at)
        for hook in (as_mapping(found.get("_forward_pre_hooks")) or {}).values():
            if isinstance(hook, Instance) and hook.class_name == "torch.nn.utils.spectral_norm.SpectralNorm":
                name, axis = hook.attributes.get("name"), hook.attributes.get("dim")
                if isinstance(name, str) and type(axis) is int and abs(axis) < 100:
                    said[f"{prefix}{name}"] = f"spectral_norm {axis}"
        children = as_mapping(found.get("_modules")) or {}
        waiting.extend(
            (f"{prefix}{name}.", child)
            for name, child in children.items()
            if isinstance(name, str) and len(name) + len(prefix) < _MAX_NAME and is_module(child)
            if isinstance(child, Instance)
        )
    return said
