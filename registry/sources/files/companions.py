"""Files beside a model that hold its tensors, each inside the model's folder: of ONNX, MNN and CoreML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.files.byte_source import ByteSource, is_remote, open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CompanionedCheckpoint", "Companions"]

_MAX_FILES = 4096


class Companions:
    """The files that tensors of one model lie in, opened when the first tensor of each is read.

    Parameters
    ----------
    target
        The model: a path or an address.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._files: dict[str, ByteSource | None] = {}
        self._claimed: dict[str, int] = {}

    def tensor(self, name: str, outside: Mapping[str, str], size: int) -> LazyTensor:
        """The ``size`` bytes of a tensor as uint8. Nothing is opened yet.

        ``outside``: location, offset and length, as the model states them.

        Raises
        ------
        UnsafeError
            The location leads out of the model's folder.
        WeightsError
            Offset or length are no numbers, or the length is not that of the tensor.
        """
        location = outside.get("location", "")
        self._check(location, name)
        offset = self._number(name, "offset", outside.get("offset", "0"))
        length = self._number(name, "length", outside.get("length", str(size)))
        if length != size:
            raise WeightsError(
                f"{self._target}: tensor {name[:80]!r} takes {size} bytes, by its shape and type, and has {length} in "
                f"{location[:80]}",
                "export the model again",
            )
        self._claimed[location] = max(self._claimed.get(location, 0), offset + size)

        def span(start: int, stop: int) -> memoryview:
            return memoryview(self._open(location).read_at(offset + start, stop - start))

        return LazyTensor("uint8", (size,), span)

    def read(self, name: str, location: str, start: int, count: int) -> bytes | bytearray:
        """A few bytes of a file; raises as `tensor`, and the errors of `open_bytes`."""
        self._check(location, name)
        return self._open(location).read_at(start, count)

    def _number(self, name: str, key: str, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 18:
            raise WeightsError(
                f"{self._target}: tensor {name[:80]!r} has an {key} of {text[:40]!r} in its file",
                "export the model again",
            )
        return int(text)

    def _check(self, location: str, name: str) -> None:
        """Refuse a location that is none below the model's folder, before anything is opened."""
        if location in self._files:
            return
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or ".." in parts or parts[0] == "" or ":" in location:
            raise UnsafeError(
                f"{self._target}: tensor {name[:80]!r} lies in {location[:80]!r}, which is no file in the folder of "
                "the model",
                "put the file into the folder of the model, then export or save it again",
            )
        if len(self._files) >= _MAX_FILES:
            raise UnsafeError(f"{self._target} lies in more than {_MAX_FILES} files", "save it in one file")
        self._files[location] = None

    def _open(self, location: str) -> ByteSource:
        file = self._files.get(location)
        if file is None:
            try:
                file = self._files[location] = open_bytes(self._place(location))
            except NotFoundError as error:
                raise NotFoundError(
                    f"{self._target} has its weights in {location[:80]}, which is not beside it",
                    "download that file too, or export the model again",
                ) from error
        return file

    def _place(self, location: str) -> Path:
        """The path of a file in the model's folder, of which no part is a link that leads out of it."""
        folder = Path(self._target).parent
        path = folder / location
        if is_remote(self._target):
            return path
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
            raise UnsafeError(
                f"{path} is in a folder that is a link and leads out of the folder of {Path(self._target).name}",
                "if you trust it, copy the files into one folder",
            )
        return path

    def check(self) -> None:
        """Open all files and compare their sizes with what the tensors take; raises the errors of `open_bytes`."""
        for location, claimed in self._claimed.items():
            file = self._open(location)
            if claimed > file.size:
                raise file.ends_early(0, claimed)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            if file is not None:
                file.close()
        self._files.clear()


class CompanionedCheckpoint(LazyCheckpoint):
    """An open model. ``companions``: the files beside it, which are closed with it."""

    companions: Companions

    def close(self) -> None:
        """Close all files."""
        super().close()
        self.companions.close()
