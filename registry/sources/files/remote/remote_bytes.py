"""Bytes of a remote file by position. Each byte is transferred once, and kept in a temporary file without a name."""

from __future__ import annotations

import bisect
import logging
import shutil
import tempfile
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final, Protocol

from registry.errors import SourceError, WeightsError
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.remote.addresses import file_name, resolve
from registry.sources.files.remote.http_file import BrokenError, HttpFile
from registry.sources.files.remote.object_store import ObjectFile
from registry.sources.weight_files import check_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path, PurePath

    from registry.sources.files.remote.addresses import Address

__all__ = ["RemoteBytes", "Session", "open_address", "open_remote_bytes", "session"]

log = logging.getLogger(__name__)

_FIRST: Final = 32 << 10  # bytes of the first request: most headers of small models
_AHEAD: Final = 32 << 10  # bytes that a small read takes in, while headers are read
_BLOCK: Final = 1 << 20  # the same, once the header has been read
_SPARE: Final = 1 << 30  # bytes of the disk that are left free
_REPEATS: Final = 3  # downloads of a whole file that are begun, of a server without ranges


class Remote(Protocol):
    """A file that is read by ranges: `HttpFile` or `ObjectFile`."""

    shown: str
    size: int | None
    received: int

    def start(self, count: int) -> tuple[bool, Iterator[bytes]]:
        """Whether ranges can be read, and the first bytes; without ranges, all."""

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``stop``."""

    def close(self) -> None:
        """Release the connection."""


class RemoteBytes(ByteSource):
    """A remote file. ``received``: bytes of content that were transferred. ``whole``: it was downloaded at once.

    What has been read is kept on the disk, in the folder for temporary files, as far as that has space. A file whose
    server reads no ranges is downloaded once, when it is opened. Not more than a megabyte is in memory, beside what a
    read returns.

    Raises
    ------
    NotFoundError
        There is no such file.
    SourceError
        The server cannot be reached, refuses, or contradicts itself; or the disk is too small for the whole file.
    WeightsError
        The file is empty, a pointer of Git LFS, a web page, or changes while it is read.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._starts: list[int] = []  # of the parts that are kept, in order and apart from each other
        self._stops: list[int] = []
        self._block = 0
        self._kept: IO[bytes] = tempfile.TemporaryFile(prefix="archreg-")  # noqa: SIM115 - closed by close()
        self._free = shutil.disk_usage(tempfile.gettempdir()).free - _SPARE
        self.name = remote.shown
        self.size = 0
        try:
            self.whole = not self._begin()
            if not self.size:
                raise WeightsError(f"{self.name} is empty", "save it again")
            head = bytes(self.read_at(0, min(512, self.size)))
            check_start(self.name, head, self.size, file_name(self.name))
        except BaseException:
            self.close()
            raise

    @property
    def received(self) -> int:
        """Bytes of content that were transferred."""
        return self._remote.received

    def read_at(self, start: int, count: int) -> bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        buffer = bytearray(count)
        with self._lock:
            for begin, end in self._gaps(start, start + count):
                self._fetch(begin, self._until(begin, end, small=count < _AHEAD), memoryview(buffer), start)
            self._fill(memoryview(buffer), start)
        return buffer

    def settle(self) -> None:
        """Say that the header has been read: from now on, small reads take in all that is near."""
        self._block = _BLOCK

    def save(self, path: Path) -> None:
        """Write the whole file to ``path``. Raises ``SourceError`` if the disk is too small."""
        free = shutil.disk_usage(path.parent).free
        if self.size > free:
            raise self._too_large(free, str(path.parent))
        log.info("downloading %s (%.1f MB)", self.name, self.size / 1e6)
        try:
            with path.open("wb") as file:
                for at in range(0, self.size, 4 * _BLOCK):
                    file.write(self.read_at(at, min(4 * _BLOCK, self.size - at)))
        except OSError as error:
            raise SourceError(f"{self.name} cannot be stored in {path.parent}: {error.strerror}", _DISK) from error

    def close(self) -> None:
        """Close the connection and remove what was kept."""
        self._remote.close()
        self._kept.close()

    def _begin(self) -> bool:
        """Read the start, or all of a file whose server has no ranges. Whether there are ranges."""
        for left in range(_REPEATS - 1, -1, -1):
            ranges, pieces = self._remote.start(_FIRST)
            if not ranges and self._remote.size is not None and self._remote.size > self._free:
                raise self._too_large(self._free, tempfile.gettempdir())
            at = 0
            try:
                for piece in pieces:
                    if at + len(piece) > self._free:
                        raise self._too_large(self._free, tempfile.gettempdir())
                    self._write(at, piece)
                    at += len(piece)
            except BrokenError as error:  # with ranges, the rest is read when it is asked for
                if not ranges and not left:
                    raise SourceError(
                        f"{self.name} could not be read: {error}, and its server reads no ranges", "try again later"
                    ) from error
                if not ranges:
                    log.info("%s: %s; trying again", self.name, error)
                    continue
            break
        self.size = at if self._remote.size is None else self._remote.size
        if at:
            self._keep(0, at)
        if not ranges and self.size > _FIRST:
            log.warning("archreg: the server of %s reads no ranges: all of it was downloaded", self.name)
        return ranges

    def _too_large(self, free: int, folder: str) -> SourceError:
        needed = f"{self._remote.size / 1e9:.1f} GB" if self._remote.size else "more"
        return SourceError(f"{self.name} needs {needed} and {folder} has {max(0, free) / 1e9:.1f} GB to spare", _DISK)

    def _until(self, begin: int, end: int, *, small: bool) -> int:
        """Where a fetch of the gap from ``begin`` to ``end`` ends: further, where reading ahead saves requests."""
        if self._free <= 0:
            return end
        ahead = -(-end // self._block) * self._block if self._block else max(end, begin + _AHEAD) if small else end
        at = bisect.bisect_left(self._starts, begin)
        return min(ahead, self.size, *self._starts[at : at + 1]) if ahead > end else end

    def _fetch(self, begin: int, end: int, buffer: memoryview, start: int) -> None:
        """Read a part of the file that is not kept: into the buffer, which begins at ``start``, and to the disk."""
        at = begin
        for piece in self._remote.pieces(begin, end):
            low, high = max(at, start), min(at + len(piece), start + len(buffer))
            if low < high:
                buffer[low - start : high - start] = piece[low - at : high - at]
            if self._free >= len(piece):
                self._write(at, piece)
                self._keep(at, at + len(piece))
                self._free -= len(piece)
            at += len(piece)

    def _write(self, at: int, piece: bytes) -> None:
        try:
            self._kept.seek(at)
            self._kept.write(piece)
        except OSError as error:
            folder = tempfile.gettempdir()
            raise SourceError(f"{self.name} cannot be kept in {folder}: {error.strerror}", _DISK) from error

    def _fill(self, buffer: memoryview, start: int) -> None:
        """Copy what is kept into the buffer, which begins at ``start``."""
        stop = start + len(buffer)
        for at in range(max(0, bisect.bisect_right(self._starts, start) - 1), len(self._starts)):
            low, high = max(self._starts[at], start), min(self._stops[at], stop)
            if self._starts[at] >= stop:
                break
            if low < high:
                self._kept.seek(low)
                if self._kept.readinto(buffer[low - start : high - start]) != high - low:  # type: ignore[attr-defined]
                    raise SourceError(f"what was read of {self.name} is lost", _DISK)

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts from ``start`` to ``stop`` that are not kept."""
        found = []
        for at in range(max(0, bisect.bisect_right(self._starts, start) - 1), len(self._starts)):
            if self._starts[at] >= stop:
                break
            if start < self._starts[at]:
                found.append((start, self._starts[at]))
            start = max(start, self._stops[at])
        return [*found, (start, stop)] if start < stop else found

    def _keep(self, start: int, stop: int) -> None:
        """Note a part as kept, joined with its neighbours."""
        low = bisect.bisect_left(self._stops, start)
        high = bisect.bisect_right(self._starts, stop)
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high], self._stops[low:high] = [start], [stop]


_DISK: Final = "set TMPDIR to a folder on a larger disk"


@dataclass
class Session:
    """Remote files that are opened for one model. ``headers``: sent to the host of the model's address."""

    opened: list[RemoteBytes] = field(default_factory=list)
    handed: dict[str, RemoteBytes] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hand_over(self, file: RemoteBytes, address: Address) -> None:
        """Let the next opening of an address have a file that is open already."""
        self.handed[address.shown] = file

    def settle(self) -> None:
        """Close what was handed over and not taken; of the other files the headers have been read."""
        for file in self.handed.values():
            file.close()
        self.handed.clear()
        for file in self.opened:
            file.settle()


_SESSION: ContextVar[Session | None] = ContextVar("session", default=None)


@contextmanager
def session(headers: Mapping[str, str] | None = None) -> Iterator[Session]:
    """What is opened for one model: while in it, `open_remote_bytes` notes the files."""
    made = Session(headers=headers or {})
    token = _SESSION.set(made)
    try:
        yield made
    finally:
        _SESSION.reset(token)
        made.settle()


def open_address(target: str | PurePath) -> RemoteBytes:
    """The bytes of the file that an address, or the path that is made of one, means; raises as `open_bytes`."""
    return open_remote_bytes(resolve(target))


def open_remote_bytes(address: Address) -> RemoteBytes:
    """The bytes of the file at an address; raises as `RemoteBytes`."""
    current = _SESSION.get()
    if current is not None and address.shown in current.handed:
        return current.handed.pop(address.shown)
    remote: Remote
    if address.shown.startswith(("https:", "http:")):
        remote = HttpFile(address.whole, address.shown, None if current is None else current.headers)
    else:
        remote = ObjectFile(address.whole)
    made = RemoteBytes(remote)
    if current is not None:
        current.opened.append(made)
    return made
