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
_PACKED = "torch.ScriptObject"
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
        for name, child in children.items():
            parts = _quantised_convolution(child) if isinstance(child, Instance) and isinstance(name, str) else ()
            for word, tensor in zip(("weight", "bias"), parts, strict=False):
                if isinstance(tensor, StoredTensor):
                    state[f"{prefix}{name}.{word}"] = tensor
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
    for name in ("_packed_params", "param"):
        packed = found.get(name)
        if isinstance(packed, Instance) and packed.class_name == _PACKED:
            state[prefix + name] = _weight_and_bias(packed.state) or packed


def _weight_and_bias(state: object) -> tuple[object, ...]:
    """The two tensors in the state of an object of torch's quantised backends; empty where it has others."""
    parts = state[0] if type(state) is tuple and state else None
    found = parts[:2] if type(parts) is tuple else ()
    fits = len(found) == 2 and isinstance(found[0], StoredTensor) and isinstance(found[1], StoredTensor | None)
    return found if fits else ()


def _quantised_convolution(module: Instance) -> tuple[object, ...]:
    """Weight and bias of a quantised convolution, whose state is a tuple of settings and both; empty for others."""
    state = module.state
    if type(state) is not tuple or not module.class_name.startswith(("torch.ao.nn.", "torch.nn.")):
        return ()
    at = next((index for index, part in enumerate(state) if isinstance(part, StoredTensor)), len(state))
    found = state[at : at + 2]
    return found if len(found) == 2 and isinstance(found[1], StoredTensor | None) else ()


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
