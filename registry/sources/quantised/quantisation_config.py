"""What a configuration says of how weights are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.errors import WeightsError

if TYPE_CHECKING:
    from registry.sources.effective_weights import TensorView

__all__ = ["block_size", "method_of", "settings_of", "stated_values", "weight_groups"]

_MOST_GROUPS = 1000
_REMEDY = "mend the configuration beside the weights"


def settings_of(view: TensorView) -> Mapping[str, Any]:
    """The quantisation's settings; empty where there are none."""
    facts = view.facts
    for found in (
        facts.quantisation,
        facts.config.get("quantization_config"),
        facts.config.get("compression_config"),
    ):
        if isinstance(found, Mapping) and found:
            return found
    return {}


def method_of(view: TensorView) -> str:
    """Name of the method in lower case, such as ``fp8`` or ``compressed-tensors``; empty where none is named."""
    found = settings_of(view).get("quant_method")
    return found.lower() if isinstance(found, str) else ""


def weight_groups(view: TensorView) -> list[Mapping[str, Any]]:
    """Settings of weights in the groups of a compressed-tensors configuration; at most a thousand."""
    groups = settings_of(view).get("config_groups")
    if not isinstance(groups, Mapping):
        return []
    listed = list(groups.values())[:_MOST_GROUPS]
    weights = [group.get("weights") for group in listed if isinstance(group, Mapping)]
    return [each for each in weights if isinstance(each, Mapping)]


def stated_values(view: TensorView, key: str) -> set[int | str]:
    """What the groups of a compressed-tensors configuration state of weights under a key; numbers and words alone."""
    return {value for group in weight_groups(view) if isinstance(value := group.get(key), int | str)}


def block_size(view: TensorView) -> tuple[int, ...]:
    """Extents of blocks that the configuration states for all weights; () where it states none or several.

    Raises ``WeightsError`` where what it states is no block of a matrix.
    """
    stated = [settings_of(view).get("weight_block_size")]
    stated += [group.get("block_structure") for group in weight_groups(view)]
    sizes = {tuple(each) if isinstance(each, list | tuple) else None for each in stated[1:] or stated}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None:
        return ()
    if len(size) != 2 or not all(isinstance(extent, int) and 0 < extent < 2**31 for extent in size):
        raise WeightsError(f"{view.where}: the configuration states blocks of {str(list(size))[:60]}", _REMEDY)
    return size
