"""A model's layers by its file's header, before any of the weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import RegistryError
from registry.sources.rule import layers_by_shape
from registry.sources.table import SOURCES, open_ref

if TYPE_CHECKING:
    from registry.types import LayerMatrix, ModelRef

__all__ = ["layers_by_header"]


def layers_by_header(ref: ModelRef) -> tuple[tuple[LayerMatrix, int], ...] | None:
    """Layers and the bytes that each one's matrix takes, as `layer_matrix` gives it; some milliseconds a file.

    What only the bytes tell, zeros and tied tensors, is counted. None where the shapes cannot be had without reading
    or downloading weights, and where the file is not sound, which is told when it is ingested.
    """
    source = SOURCES.get(ref.source)
    if source is None or not ref.target.lower().endswith(source.headers):
        return None
    try:
        with open_ref(ref) as checkpoint:
            infos = {info.name: info for info in checkpoint.tensors}
    except RegistryError:
        return None
    return tuple(
        (layer, (8 if infos[layer.tensor].dtype == "float64" else 4) * layer.p * layer.q)
        for layer in layers_by_shape(infos)
    )
