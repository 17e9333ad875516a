"""Compressed files, unpacked to a temporary file with a bound: gzip, zlib, bzip2, xz, lzma and LZ4 frames.

The temporary file has no name and is gone with the process. Memory in use is that of a piece; what is unpacked may be
a hundred times as large as the file, and must leave a tenth of the disk's free space.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import tempfile
import zlib
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources.files.byte_parts import Temporary

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.files.byte_source import ByteSource

__all__ = ["compression", "unpacked"]

_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion of a file, and bytes below which any expansion is allowed
_PIECE = 1 << 20  # bytes read, and bytes unpacked, at a time
_LZMA_MEMORY = 2**27  # bytes; the highest preset of xz takes 65 MiB to unpack
_DAMAGED = "download or save it again"


class _Unpacker(Protocol):
    """What the unpackers of bz2, lzma and lz4 have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """zlib's unpacker with the interface of the others."""

    def __init__(self, bits: int) -> None:
        self._unpacker = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._unpacker.eof

    @property
    def needs_input(self) -> bool:
        return not self._unpacker.unconsumed_tail and not self.eof

    @property
    def unused_data(self) -> bytes:
        return self._unpacker.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._unpacker.decompress(self._unpacker.unconsumed_tail + data, max_length)


class _Compression(NamedTuple):
    """A way of compression: its name, how a file begins, and what unpacks it."""

    name: str
    magic: tuple[bytes, ...]
    unpacker: Callable[[], _Unpacker]


def _lz4() -> _Unpacker:
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ImportError as error:
        raise SourceError(
            "the file is compressed with LZ4, which needs a package", "pip install 'architecture-registry[lz4]'"
        ) from error
    unpacker: _Unpacker = LZ4FrameDecompressor()
    return unpacker


_KINDS = (
    _Compression("gzip", (b"\x1f\x8b",), lambda: _Zlib(31)),
    _Compression("zlib", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), lambda: _Zlib(15)),
    _Compression("bzip2", (b"BZh",), bz2.BZ2Decompressor),
    _Compression("xz", (b"\xfd7zXZ\0",), lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
    _Compression("lzma", (b"\x5d\0\0",), lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
    _Compression("LZ4", (b"\x04\x22\x4d\x18",), _lz4),
)


def compression(head: bytes) -> _Compression | None:
    """How a file that begins with these bytes is compressed; None if it is not."""
    return next((kind for kind in _KINDS if head.startswith(kind.magic)), None)


def unpacked(source: ByteSource) -> ByteSource:
    """What a compressed file holds, in a temporary file; the given source is not closed.

    Raises
    ------
    SourceError
        The disk is full, or the package for LZ4 is missing.
    UnsafeError
        It unpacks to more than a hundred times its size, or more than the disk has.
    WeightsError
        It is damaged, or not compressed.
    """
    kind = compression(bytes(source.read_at(0, min(source.size, 8))))
    if kind is None:
        raise WeightsError(f"{source.name} is not compressed in a known way", _DAMAGED)
    try:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        most = min(max(_MAX_RATIO * source.size, _HARMLESS), free * 9 // 10)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source that it becomes
    except OSError as error:
        raise _full(source, error) from error
    try:
        return Temporary(file, _unpack(source, kind, file, most), source.name)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError) and error.errno is not None:
            raise _full(source, error) from error
        raise


def _full(source: ByteSource, error: OSError) -> SourceError:
    return SourceError(
        f"{source.name} cannot be unpacked to {tempfile.gettempdir()}: {error.strerror or error}",
        "free space there, or name another folder with TMPDIR",
    )


def _unpack(source: ByteSource, kind: _Compression, file: IO[bytes], most: int) -> int:
    """Write the content; its size. gzip, bzip2 and xz may consist of several streams, one after another."""
    unpacker = kind.unpacker()
    size, at, data = 0, 0, b""
    try:
        while True:
            if unpacker.eof:
                data = (unpacker.unused_data or b"") + data
                if len(data) < 16 and at < source.size:
                    data, at = data + _piece(source, at), at + _PIECE
                if not data.startswith(kind.magic):
                    return size  # the end, or padding
                unpacker = kind.unpacker()
            elif unpacker.needs_input and not data:
                if at >= source.size:
                    raise WeightsError(f"{source.name} ends inside its {kind.name} data", _DAMAGED)
                data, at = _piece(source, at), at + _PIECE
            made = unpacker.decompress(data, _PIECE)
            data = b""
            size += len(made)
            if size > most:
                raise UnsafeError(
                    f"{source.name} would unpack {source.size} bytes to more than {most}",
                    "if you trust it, unpack it yourself",
                )
            file.write(made)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; that of bz2 has no number
            raise
        if "emory" in str(error):
            raise UnsafeError(
                f"{source.name} needs more than {_LZMA_MEMORY // 2**20} MiB of memory to unpack", "pack it again"
            ) from error
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{source.name} is damaged {kind.name} data: {reason}", _DAMAGED) from error


def _piece(source: ByteSource, at: int) -> bytes:
    return bytes(source.read_at(at, min(_PIECE, source.size - at)))
