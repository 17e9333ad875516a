"""Source for live PyTorch modules and their state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, UsageError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.effective_weights import EffectiveCheckpoint
from registry.sources.model_files import facts_of_module, with_facts
from registry.sources.state_dicts import stripped
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
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
    state = {str(key): value for key, value in given.items() if isinstance(value, torch.Tensor)}
    if given is module and not state:
        holds = ", ".join(map(str, given)) or "nothing"
        raise UsageError(f"the mapping holds no tensors, only: {holds[:200]}", "give the state dict itself")
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
    return EffectiveCheckpoint(TorchCheckpoint(stripped(state), with_facts(ref, facts), facts))
