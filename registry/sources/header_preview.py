"""Layers and tensor sizes from file headers, without reading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import RegistryError
from registry.sources.base import SOURCES
from registry.sources.effective_weights import effective
from registry.sources.files.byte_source import counted_bytes
from registry.sources.matrix_rule import layers_by_shape, plan_headers
from registry.sources.references import open_headers, open_ref

if TYPE_CHECKING:
    from registry.types import LayerMatrix, ModelRef

__all__ = ["header_bytes", "layers_by_header"]


def layers_by_header(ref: ModelRef) -> tuple[tuple[LayerMatrix, int], ...] | None:
    """Layers of a model and the bytes of each layer's matrix as `layer_matrix` returns it; takes milliseconds.

    All-zero and tied tensors are included, because only their bytes identify them. Returns None if the shapes are not
    available without reading or downloading weights, or if the file is invalid; `ingest` reports the reason.
    """
    source = SOURCES.find(ref.source)
    if source is None or not source.headers:
        return None
    try:
        with open_ref(ref) as checkpoint:
            view = effective(checkpoint).view
            infos = {name: tensor.info for name, tensor in view.tensors.items()}
    except RegistryError:
        return None
    return tuple(
        (layer, (8 if infos[layer.tensor].dtype == "float64" else 4) * layer.p * layer.q)
        for layer in layers_by_shape(infos, view.facts.config)
    )


def header_bytes(ref: ModelRef) -> int | None:
    """Bytes that opening a model by its header alone reads, found by doing so; None where it cannot be done."""
    try:
        with counted_bytes() as count, open_headers(ref) as checkpoint:
            plan_headers(checkpoint)
    except RegistryError:
        return None
    return count.bytes
