"""What is known of a model from the files beside its weights and from their headers, in addition to its card."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NO_FACTS", "ModelFacts"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Configuration beside the weights; empty mappings where there is none.

    It is read with bounds and never trusted: tensors that contradict it are an error or make it void.

    ``config``: ``config.json`` (model type, heads, experts, ``tie_word_embeddings``). ``quantisation``: how the
    weights are quantised (``quantization_config`` of ``config.json``, ``quantize_config.json``, MLX's
    ``quantization``), with the keys of the file. ``adapter``: ``adapter_config.json``. ``metadata``: text of the
    weights file's own header. ``aliases``: a tied tensor's name, which the file may lack, and the name that it has.
    ``maps``: of live modules, how a parametrised weight is computed, by its name (``spectral_norm 1``, the axis of
    outputs; ``orthogonal cayley``). ``laid_out``: all tensors are in torch's layout, whatever their names say.
    ``order``: names of tensors in the order in which the network computes, where the file states it and names do not
    tell. ``notes``: sentences on files that were ignored. ``wrapper``: what stood before the names of all tensors and
    was taken away, such as ``module.``.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, str] = field(default_factory=dict)
    laid_out: bool = False
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    wrapper: str = ""


NO_FACTS = ModelFacts()
"""Nothing is known beside the weights."""
