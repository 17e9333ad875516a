"""Source for live PyTorch modules and their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.errors import UnsafeError, UsageError, WeightsError
from registry.sources.base import MAX_TENSORS, common_prefix
from registry.sources.effective_weights import EffectiveCheckpoint
from registry.sources.model_files import facts_of_module, with_facts
from registry.sources.quantised.torch_quantised import unpacked
from registry.sources.state_dicts import stripped, wrapper_of
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from registry.types import Checkpoint

__all__ = ["open_module"]


def open_module(
    module: torch.nn.Module | Mapping[str, torch.Tensor], name: str = "", card: ModelCard | None = None
) -> Checkpoint:
    """Open the weights of a module in memory without copying them.

    Parameters
    ----------
    module
        A ``torch.nn.Module``, whose ``state_dict()`` is read, or a mapping of names to tensors. The name prefixes of
        DataParallel and torch.compile are removed.
    name
        Default name in a registry; if empty, the name of the module's Python class.
    card
        What is known of the model besides its weights.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device, lazy modules) or is sparse.
    UnsafeError
        The module has more than a million tensors.
    UsageError
        ``module`` is neither a module nor a mapping that contains tensors.
    """
    if not isinstance(module, Mapping) and not hasattr(module, "state_dict"):
        raise UsageError(
            f"a model is a name, a reference, a path or a torch.nn.Module, not {type(module).__name__}",
            "pass one model at a time",
        )
    import torch

    from registry.sources.torch_tensors import TorchCheckpoint

    given, called = (
        (module, "state dict") if isinstance(module, Mapping) else (module.state_dict(), type(module).__name__)
    )
    state = {str(k): value for k, value in unpacked(given, name or called).items() if isinstance(value, torch.Tensor)}
    if given is module and not state:
        holds = f"holds no tensors, only: {', '.join(map(str, given))[:200]}" if given else "is empty"
        raise UsageError(f"the mapping {holds}", "give the state dict itself")
    if lazy := [key for key, value in state.items() if torch.nn.parameter.is_lazy(value)]:
        raise WeightsError(
            f"tensor {lazy[0]} of a lazy module has no shape yet", "pass a batch through the module first"
        )
    if len(state) > MAX_TENSORS:
        raise UnsafeError(f"the module has {len(state)} tensors, more than {MAX_TENSORS}", "register its parts")
    label = name or called
    size = sum(value.numel() * value.element_size() for value in state.values())
    ref = ModelRef(source="module", target=label, name=label, card=card or ModelCard(), bytes=size)
    facts = facts_of_module(module)
    if not isinstance(module, Mapping):
        facts = replace(facts, maps=_maps_of(module, state))
    facts = replace(facts, wrapper=wrapper_of(state))
    return EffectiveCheckpoint(TorchCheckpoint(stripped(state), with_facts(ref, facts), facts))


def _maps_of(module: torch.nn.Module, names: Iterable[str]) -> dict[str, str]:
    """How each parametrised weight is computed, as `ModelFacts` has it; what is not torch's is called by its class."""
    cut = len(common_prefix(names))
    said: dict[str, str] = {}
    for prefix, child in module.named_modules():
        above = f"{prefix}." if prefix else ""
        for hook in child._forward_pre_hooks.values():  # noqa: SLF001 - torch has no other place for them
            if type(hook).__name__ == "SpectralNorm" and type(hook).__module__.startswith("torch."):
                said[f"{above}{hook.name}"[cut:]] = f"spectral_norm {hook.dim}"
        for name, steps in (getattr(child, "parametrizations", None) or {}).items():
            words = [_map_word(step) for step in steps]
            said[f"{above}{name}"[cut:]] = words[0] if len(words) == 1 else "several"
    return said


def _map_word(step: Any) -> str:
    """One parametrisation of torch in a word or two; another by the name of its class."""
    name = type(step).__name__
    if type(step).__module__ != "torch.nn.utils.parametrizations":
        return f"class {name}"
    if name == "_SpectralNorm":
        return f"spectral_norm {step.dim}"
    return f"orthogonal {step.orthogonal_map.name}" if name == "_Orthogonal" else "weight_norm"
