"""Bytes of a file by position, wherever the file is: what readers of headers and of single tensors ask."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Self

from registry.errors import SourceError, WeightsError
from registry.sources.weight_files import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import PurePath
    from types import TracebackType

    from _typeshed import WriteableBuffer

__all__ = [
    "SCHEMES",
    "ByteSource",
    "Count",
    "FileView",
    "LocalBytes",
    "counted",
    "counted_bytes",
    "is_remote",
    "open_bytes",
]

SCHEMES = ("https", "http", "s3", "gs", "memory")
"""The kinds of addresses of remote files."""

_REMOTE_FILES = "registry.sources.files.remote.remote_bytes:open_address"  # loaded for addresses alone
_REMOTE = re.compile(rf"(?:{'|'.join(SCHEMES)}):/")


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


class FileView(io.RawIOBase):
    """A binary file object over a `ByteSource`, for libraries that read from one. Closing it leaves the source open."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; beyond the end nothing is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the start of the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read at most as many bytes as the buffer has; 0 at the end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._source.size - self._at))
        if count:
            view[:count] = self._source.read_at(self._at, count)
        self._at += count
        return count


class LocalBytes(ByteSource):
    """A file on this machine, open until it is closed.

    Raises the errors of `check_file`; without ``check``, those of the operating system.
    """

    def __init__(self, path: Path, *, check: bool = True) -> None:
        self.size = check_file(path) if check else path.stat().st_size
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


class Count:
    """``bytes``: how many were asked for."""

    def __init__(self) -> None:
        self.bytes = 0


_COUNT: ContextVar[Count | None] = ContextVar("count", default=None)


@contextmanager
def counted_bytes() -> Iterator[Count]:
    """Count the bytes that are asked for of all sources that are opened within, in this thread."""
    count = Count()
    token = _COUNT.set(count)
    try:
        yield count
    finally:
        _COUNT.reset(token)


def counted(source: ByteSource) -> ByteSource:
    """The source, its reads counted where `counted_bytes` asks for it."""
    total = _COUNT.get()
    if total is None:
        return source
    plain = source.read_at

    def read_at(start: int, count: int) -> bytes | bytearray:
        total.bytes += count
        return plain(start, count)

    source.read_at = read_at  # type: ignore[method-assign]
    return source


def is_remote(target: str | PurePath) -> bool:
    """Whether a target is the address of a remote file, or the path that is made of one."""
    return _REMOTE.match(str(target)) is not None


def open_bytes(target: str | Path) -> ByteSource:
    """The bytes of the file that a reference's target names; close it, or use it in a ``with`` statement.

    The target is a path, the address of a remote file (``https://host/a/x.gguf``), or the path that is made of the
    address, or lies below its folder (``Path(target).with_name("y.gguf")``).

    Raises
    ------
    NotFoundError
        The file does not exist.
    SourceError
        It is not a regular file, or cannot be read; a server refuses, or cannot be reached.
    UnsafeError
        It is a link that leads out of its folder, or a path beside a remote file that does.
    WeightsError
        It is empty, a pointer of Git LFS, a web page, or an unfinished download.
    """
    if is_remote(target):
        module, _, function = _REMOTE_FILES.partition(":")
        return counted(getattr(import_module(module), function)(target))
    return counted(LocalBytes(Path(target)))
