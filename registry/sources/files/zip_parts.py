"""Entries of a zip archive as files of their own, read at any position.

A stored entry lies in one piece of the archive and is read there. A packed one is unpacked to a temporary file, with
bounds on its size, which is gone when it is closed.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.archive import DAMAGED, zip_entries
from registry.sources.files.byte_parts import Section, Temporary
from registry.sources.files.byte_source import ByteSource, FileView

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["entry_bytes", "entry_check", "small_entry"]

_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion of a file, and bytes below which any expansion is allowed
_PIECE = 1 << 20
_UNPACKED = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error)


def _entry(file: ByteSource, name: str) -> zipfile.ZipInfo | None:
    """The entry of a name, in the archive or in its only folder; None if there is none."""
    entries = zip_entries(file, file.size)
    found = [entry for entry in entries if entry.filename == name]
    found = found or [entry for entry in entries if entry.filename.partition("/")[2] == name]
    if len(found) > 1:
        raise WeightsError(f"{file.name} holds several entries {name}", "save it again")
    return found[0] if found else None


def _needed(file: ByteSource, name: str) -> zipfile.ZipInfo:
    entry = _entry(file, name)
    if entry is None:
        raise WeightsError(f"{file.name} has no entry {name}", "save the whole model again")
    if entry.flag_bits & 1:
        raise WeightsError(f"{file.name}: {name} is encrypted", "save it without a password")
    return entry


def _offset(file: ByteSource, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begin."""
    header = file.read_at(entry.header_offset, 30) if 0 <= entry.header_offset <= file.size - 30 else b""
    if bytes(header[:4]) != b"PK\x03\x04":
        raise WeightsError(f"{file.name}: {entry.filename[:100]!r} is not where the directory says", DAMAGED)
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def entry_bytes(file: ByteSource, name: str) -> ByteSource:
    """An entry of an archive as a file. Close it; the archive stays open.

    Raises
    ------
    UnsafeError
        It would unpack to more than a hundred times the archive and 64 MiB.
    WeightsError
        There is no such entry, or it is damaged or packed in an unusual way.
    """
    entry = _needed(file, name)
    if entry.compress_type == zipfile.ZIP_STORED:
        if entry.file_size != entry.compress_size:
            raise WeightsError(f"{file.name}: {name} has two sizes", DAMAGED)
        return Section(file, _offset(file, entry), entry.file_size, f"{file.name}: {name}")
    if entry.file_size > max(_MAX_RATIO * file.size, _HARMLESS):
        raise UnsafeError(
            f"{file.name} would unpack {file.size} bytes to {entry.file_size}", "save it without compression"
        )
    target: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
    try:
        _unpack(file, entry, target)
    except BaseException:
        target.close()
        raise
    return Temporary(target, entry.file_size, f"{file.name}: {name}")


def _unpack(file: ByteSource, entry: zipfile.ZipInfo, target: BinaryIO) -> None:
    """Write an entry's content, comparing its length and its checksum."""
    try:
        with zipfile.ZipFile(io.BufferedReader(FileView(file), _PIECE)) as archive, archive.open(entry) as source:
            written = 0
            while piece := source.read(_PIECE):
                written += len(piece)
                if written > entry.file_size:
                    break
                target.write(piece)
    except _UNPACKED as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{file.name}: {entry.filename[:100]!r} cannot be unpacked: {reason}", DAMAGED) from error
    if written != entry.file_size:
        raise WeightsError(f"{file.name}: {entry.filename[:100]!r} is not of the size that it states", DAMAGED)


def small_entry(file: ByteSource, name: str, most: int) -> bytes | None:
    """The content of an entry of at most ``most`` bytes; None if there is none. Raises the errors of `entry_bytes`."""
    if _entry(file, name) is None:
        return None
    entry = _needed(file, name)
    if entry.file_size > most:
        raise UnsafeError(f"{file.name}: {name} has {entry.file_size} bytes", "save the model again")
    content = io.BytesIO()
    _unpack(file, entry, content)
    return content.getvalue()


def entry_check(file: ByteSource, name: str) -> Callable[[], None] | None:
    """What compares the checksum of a stored entry with its data; None where unpacking it has done so.

    An archive without checksums has a zero there, and nothing is compared.
    """
    entry = _needed(file, name)
    if entry.compress_type != zipfile.ZIP_STORED or not entry.CRC:
        return None

    def check() -> None:
        part = entry_bytes(file, name)
        found = 0
        for start in range(0, part.size, _PIECE):
            found = zlib.crc32(part.read_at(start, min(_PIECE, part.size - start)), found)
        if found != entry.CRC:
            raise WeightsError(
                f"{file.name} is damaged: the checksum of the entry {name!r} is {entry.CRC:08x} in the directory and "
                f"{found:08x} of its data",
                DAMAGED,
            )

    return check
