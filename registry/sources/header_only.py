"""A checkpoint of which the header alone may be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from registry.errors import SourceError, WeightsError
from registry.sources.base import OpenedCheckpoint
from registry.sources.dtypes import bits_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint

__all__ = ["ALLOWED", "HeaderCheckpoint", "no_header"]

ALLOWED = 64 * 1024
"""Bytes of tensors that may be read in all: of small ones that say how others are laid out."""

_REMEDY = "ingest it without --headers-only"


def no_header(where: str, source: str) -> SourceError:
    """The error for a model whose shapes cannot be had without its weights; ``source``: what would read it."""
    return SourceError(
        f"{where}: the shapes of a {source} model are not known without reading its weights",
        f"{_REMEDY}, or save it as safetensors",
    )


class HeaderCheckpoint(OpenedCheckpoint):
    """The tensors of a checkpoint as its header lists them. It counts the bytes of values that are asked for.

    Raises
    ------
    WeightsError
        Values are asked for, of all tensors together, that take more than 64 kB.
    """

    def __init__(self, stored: Checkpoint) -> None:
        super().__init__(stored.ref, stored.tensors, getattr(stored, "facts", None))
        self._stored = stored
        self._infos = {info.name: info for info in stored.tensors}
        self._left = ALLOWED
        self.precisions: dict[str, str] = getattr(stored, "precisions", {})
        self.stored_sizes: dict[str, int] = getattr(stored, "stored_sizes", {})

    def bytes_of(self, name: str) -> int:
        """Size of a tensor in bytes, by its dtype and shape."""
        info = self._infos[name]
        return (info.size * bits_of(info.dtype, 0) + 7) // 8

    def read(self, name: str) -> NDArray[np.floating]:
        """A small floating-point tensor as float32 or float64."""
        self._take(name, self.bytes_of(name))
        return self._stored.read(name)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of a small tensor in C order."""
        self._take(name, self.bytes_of(name))
        return self._stored.raw(name)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a tensor."""
        self._take(name, max(0, min(stop, self.bytes_of(name)) - start))
        return self._stored.span(name, start, stop)

    def _take(self, name: str, count: int) -> None:
        self._check_open()
        if count > self._left:
            self._refuse(name)
        self._left -= count

    def _refuse(self, name: str) -> NoReturn:
        raise WeightsError(
            f"{self.ref.target}: the layers are not known from the header alone: they depend on the values of {name}",
            _REMEDY,
        )

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._stored.close()
