"""Modules that were pickled whole, ``torch.save(model)``: their records as the state dict that they would give.

A module's attributes hold ``_parameters``, ``_buffers`` and ``_modules``; buffers in ``_non_persistent_buffers_set``
are no part of a state dict. Names and their order are those of ``Module.state_dict``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.formats.pickles.pickle_records import Global, Instance, as_mapping
from registry.sources.formats.pickles.stored_tensors import StoredTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Allowance", "attributes_of", "is_module", "maps_of", "state_of"]

_SETTINGS = 32  # of a quantised convolution, before its weight
_MAX_NAME = 1000  # characters; a circle of modules would make names without end
_PACKED = "torch.ScriptObject"
_COMPILED = Global("torch._dynamo.eval_frame", "OptimizedModule")
_PERSISTENT = "_reconstruct_persistent_obj"  # torch_utils/persistence.py of NVIDIA's repositories
_LAZY = frozenset({"UninitializedParameter", "UninitializedBuffer"})


def attributes_of(value: Instance) -> Mapping[object, object]:
    """The attributes of an object; of torch.fx's modules, they are an argument of the function that makes them.

    A module of ``torch.compile`` is made of the one that it wraps, whose attributes are taken. StyleGAN's persistent
    objects are made of their source code, which is not looked at, and their attributes.
    """
    found = value.attributes
    if found or not isinstance(value.kind, Global) or not value.args:
        return found
    first = value.args[0]
    if value.kind.module == "torch.fx.graph_module":
        return first if isinstance(first, dict) else found
    if value.kind.name == _PERSISTENT and value.kind.module.endswith("persistence"):
        state = (as_mapping(first) or {}).get("state")
        return as_mapping(state) or found
    if value.kind == _COMPILED:
        return first.attributes if isinstance(first, Instance) else found
    return found


def is_module(value: object) -> bool:
    """Whether a record is a module of torch."""
    if not isinstance(value, Instance):
        return False
    found = attributes_of(value)
    return all(isinstance(found.get(part), dict) for part in ("_parameters", "_buffers", "_modules"))


class Allowance:
    """How many entries of dictionaries may be looked at; many modules may share one dictionary.

    ``where``: name of the file, for the ``UnsafeError`` when it is used up.
    """

    def __init__(self, where: str, left: int = 4 * MAX_TENSORS) -> None:
        self.where = where
        self.left = left

    def take(self, count: int) -> None:
        """Count entries."""
        self.left -= count + 1
        if self.left < 0:
            raise UnsafeError(f"{self.where} holds a module of more parts than weights need", "save model.state_dict()")


def state_of(module: Instance, allowance: Allowance) -> dict[object, object]:
    """The state dict of a module, by the names that it gives its tensors.

    A module that is found under several names is there under each. Quantised linear modules give their packed weights.

    Raises
    ------
    UnsafeError
        More modules or entries than allowed, or modules that contain themselves.
    WeightsError
        A parameter of a lazy module has no shape yet.
    """
    state: dict[object, object] = {}
    for prefix, at in _walked(module, allowance):
        _add_tensors(at, prefix, state, allowance)
        for name, child in _entries(at, "_modules", allowance):
            parts = _quantised_convolution(child) if isinstance(child, Instance) else ()
            for word, tensor in zip(("weight", "bias"), parts, strict=False):
                if isinstance(tensor, StoredTensor):
                    state[f"{prefix}{name}.{word}"] = tensor
    return state


def _entries(module: Instance, part: str, allowance: Allowance) -> list[tuple[str, object]]:
    """Entries by name of one of a module's dictionaries."""
    found = as_mapping(attributes_of(module).get(part)) or {}
    allowance.take(len(found))
    return [(name, value) for name, value in found.items() if isinstance(name, str)]


def _walked(module: Instance, allowance: Allowance) -> Iterator[tuple[str, Instance]]:
    """Prefixes of names and modules in the order of the state dict."""
    waiting: list[tuple[str, Instance]] = [("", module)]
    while waiting:
        prefix, at = waiting.pop()
        yield prefix, at
        for name, child in reversed(_entries(at, "_modules", allowance)):
            if isinstance(child, Instance) and is_module(child):
                if len(prefix) + len(name) > _MAX_NAME:
                    allowance.take(allowance.left)
                waiting.append((f"{prefix}{name}.", child))


def _add_tensors(module: Instance, prefix: str, state: dict[object, object], allowance: Allowance) -> None:
    found = attributes_of(module)
    passing = found.get("_non_persistent_buffers_set")
    hidden = passing if isinstance(passing, set | frozenset | list) else ()
    allowance.take(len(hidden))
    hidden = frozenset(name for name in hidden if isinstance(name, str))
    for part in ("_parameters", "_buffers"):
        for name, tensor in _entries(module, part, allowance):
            if part == "_buffers" and name in hidden:
                continue
            if isinstance(tensor, StoredTensor):
                state[prefix + name] = tensor
            elif isinstance(tensor, Instance) and tensor.class_name.rpartition(".")[2] in _LAZY:
                raise WeightsError(
                    f"{allowance.where}: tensor {(prefix + name)[:100]} of a lazy module has no shape yet",
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
    at = next((index for index, part in enumerate(state[:_SETTINGS]) if isinstance(part, StoredTensor)), len(state))
    found = state[at : at + 2]
    return found if len(found) == 2 and isinstance(found[1], StoredTensor | None) else ()


def maps_of(module: Instance, allowance: Allowance) -> dict[str, str]:
    """How weights with torch's old ``spectral_norm`` are computed, as `ModelFacts` has it, by their names."""
    said: dict[str, str] = {}
    for prefix, at in _walked(module, allowance):
        hooks = as_mapping(attributes_of(at).get("_forward_pre_hooks")) or {}
        allowance.take(len(hooks))
        for hook in hooks.values():
            if isinstance(hook, Instance) and hook.class_name == "torch.nn.utils.spectral_norm.SpectralNorm":
                name, axis = hook.attributes.get("name"), hook.attributes.get("dim")
                if isinstance(name, str) and type(axis) is int and abs(axis) < 100:
                    said[f"{prefix}{name}"] = f"spectral_norm {axis}"
    return said
