"""What a file's header tells of a model, before any of the weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import RegistryError
from registry.sources.archive import check_archive, zip_entries
from registry.sources.matrix_rule import layers_by_shape
from registry.sources.references import open_ref
from registry.sources.source_table import SOURCES
from registry.sources.weight_files import check_file

if TYPE_CHECKING:
    from registry.types import LayerMatrix, ModelRef

__all__ = ["largest_tensor", "layers_by_header"]


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


def largest_tensor(ref: ModelRef) -> int | None:
    """Bytes of the largest tensor of a file of torch that can be mapped, by its directory; torch is not loaded.

    None for whatever else, and for what is not sound.
    """
    if ref.source != "torch":
        return None
    path = Path(ref.target)
    try:
        size = check_file(path)
        entries = zip_entries(path, size) if check_archive(path, size) else []
    except RegistryError:
        return None
    return max((entry.file_size for entry in entries), default=None)
