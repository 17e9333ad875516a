"""Live modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import UnsafeError, UsageError
from registry.sources.source import MAX_TENSORS
from registry.sources.unwrap import stripped
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
    import torch

    from registry.types import Checkpoint

__all__ = ["open_module"]


def open_module(module: torch.nn.Module, name: str = "", card: ModelCard | None = None) -> Checkpoint:
    """The weights of a module in memory, without copying them.

    Parameters
    ----------
    module
        Any module; its ``state_dict()`` is read. Wrappers (DataParallel, torch.compile) do not show.
    name
        Default name in a registry; the class's name where empty.
    card
        What is known of it besides its weights.

    Raises
    ------
    WeightsError
        A tensor has no data (meta device) or is sparse.
    UnsafeError
        More than a million tensors.
    UsageError
        It is no module.
    """
    if not hasattr(module, "state_dict"):
        raise UsageError(
            f"a model is a name, a reference, a path or a torch.nn.Module, not {type(module).__name__}",
            "of several, ask for one at a time",
        )
    import torch

    from registry.sources.tensors import TorchCheckpoint

    state = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    if len(state) > MAX_TENSORS:
        raise UnsafeError(f"the module has {len(state)} tensors, more than {MAX_TENSORS}", "register its parts")
    label = name or type(module).__name__
    size = sum(value.numel() * value.element_size() for value in state.values())
    ref = ModelRef(source="module", target=label, name=label, card=card or ModelCard(), bytes=size)
    return TorchCheckpoint(stripped(state), ref)
