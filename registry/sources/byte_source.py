"""Bytes of a file by position, wherever the file is: what readers of headers and of single tensors ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from registry.errors import SourceError, WeightsError
from registry.sources.weight_files import check_file

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ByteSource", "LocalBytes", "open_bytes"]


class ByteSource(ABC):
    """A file that can be read at any position. ``name``: for messages. ``size``: in bytes."""

    name: str
    size: int

    @abstractmethod
    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``.

        Raises
        ------
        WeightsError
            The file ends before.
        SourceError
            It cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - a source in memory has nothing to release
        """Release the file. Closing twice has no effect."""

    def ends_early(self, start: int, count: int) -> WeightsError:
        """The error for bytes that the file does not have."""
        return WeightsError(
            f"{self.name} ends early: it has {self.size} bytes, and bytes {start} to {start + count} are asked for",
            "download or save it again",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalBytes(ByteSource):
    """A file on this machine, open until it is closed; raises the errors of `check_file`."""

    def __init__(self, path: Path) -> None:
        self.size = check_file(path)
        self.name = str(path)
        self._file = path.open("rb", buffering=0)

    def read_at(self, start: int, count: int) -> bytearray:
        """Exactly ``count`` bytes from position ``start``. No memory is taken for bytes beyond the file's end."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        buffer = bytearray(count)
        view, at = memoryview(buffer), 0
        try:
            self._file.seek(start)
            while at < count:
                got = self._file.readinto(view[at : at + 2**30])
                if not got:
                    raise self.ends_early(start, count)  # it became shorter
                at += got
        except OSError as error:
            raise SourceError(
                f"{self.name} cannot be read: {error.strerror}", "check the disk and permissions"
            ) from error
        return buffer

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_bytes(target: str | Path) -> ByteSource:
    """The bytes of the file that a reference's target names; close it, or use it in a ``with`` statement.

    Raises
    ------
    NotFoundError
        The file does not exist.
    SourceError
        It is not a regular file, or cannot be read.
    UnsafeError
        It is a link that leads out of its folder.
    WeightsError
        It is empty, a pointer of Git LFS, a web page, or an unfinished download.
    """
    return LocalBytes(Path(target))
