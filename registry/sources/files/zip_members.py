"""Members of a zip archive as sources of bytes, read in place wherever the archive is: in a file or in another archive.

A member that is stored without compression is a part of its file. One that is compressed is unpacked: by `ZipMembers`
in memory, up to a bound that its reader gives, by `entry_bytes` to a temporary file, which is gone when it is closed;
never more than a hundredfold.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.archive import DAMAGED, check_sums, data_start, zip_entries
from registry.sources.files.byte_parts import InMemory, Section, Temporary
from registry.sources.files.byte_source import ByteSource, FileView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["ZipMembers", "entry_bytes", "entry_check", "small_entry"]

_MAX_RATIO, _HARMLESS = 100, 2**20  # allowed expansion, and bytes below which any expansion is allowed
_HARMLESS_FILE = 64 * 2**20  # the same of a file that is unpacked to another
_PIECE = 1 << 20  # bytes unpacked at a time
_UNPACKED = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error)
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipMembers:
    """The members of an archive by name. Nothing but its directory is read.

    Raises
    ------
    UnsafeError
        The directory is larger than weights need, or its entries overlap.
    WeightsError
        The archive is damaged, or has two members of one name.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        entries = [entry for entry in zip_entries(source) if not entry.filename.endswith("/")]
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise WeightsError(f"{source.name} holds several entries of one name", "save it again")
        self._check_places(entries)
        self.root = _root(self._entries)

    def _check_places(self, entries: list[zipfile.ZipInfo]) -> None:
        end = 0
        for entry in sorted(entries, key=lambda each: each.header_offset):
            if entry.header_offset < end:
                raise UnsafeError(
                    f"{self._source.name} claims more data than it holds: its entries overlap", "save it again"
                )
            end = entry.header_offset + 30 + entry.compress_size
        if end > self._source.size:
            raise WeightsError(f"{self._source.name} ends before its entries do", DAMAGED)

    def __contains__(self, name: str) -> bool:
        return self.root + name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Names without the folder in which all members are, if they are in one."""
        return (name.removeprefix(self.root) for name in self._entries)

    def size_of(self, name: str) -> int:
        """Bytes of a member when it is unpacked."""
        return self._entries[self.root + name].file_size

    def is_stored(self, name: str) -> bool:
        """Whether a member is stored without compression."""
        return self._entries[self.root + name].compress_type == zipfile.ZIP_STORED

    def open(self, name: str, limit: int) -> ByteSource:
        """The bytes of a member; one that is compressed is unpacked in memory if it has at most ``limit`` bytes.

        Raises
        ------
        UnsafeError
            It is compressed and larger than that, or than a hundred times its compressed size.
        WeightsError
            There is no such member, it is encrypted or compressed in an unusual way, or it is damaged.
        """
        entry = self._entries.get(self.root + name)
        where = f"{self._source.name}: {name[:100]!r}"
        if entry is None:
            raise WeightsError(f"{self._source.name} has no entry {name[:100]!r}", DAMAGED)
        if entry.flag_bits & 1 or entry.compress_type not in _READABLE:
            raise WeightsError(f"{where} is encrypted or compressed in an unusual way", "save it again")
        section = Section(
            self._source, data_start(self._source, entry), entry.compress_size, f"{self._source.name} ({name[:100]})"
        )
        if entry.compress_type == zipfile.ZIP_STORED:
            if entry.file_size != entry.compress_size:
                raise WeightsError(f"{where} is stored in {entry.compress_size} bytes, not {entry.file_size}", DAMAGED)
            return section
        if entry.file_size > limit or entry.file_size > max(_HARMLESS, _MAX_RATIO * entry.compress_size):
            raise UnsafeError(
                f"{where} would unpack {entry.compress_size} bytes to {entry.file_size}",
                "extract it yourself if you trust it, or save it without compression",
            )
        return InMemory(self._inflated(section, entry, where), section.name)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a member of at most ``limit`` bytes; raises ``UnsafeError`` for a larger one."""
        member = self.open(name, limit)
        if member.size > limit:
            raise UnsafeError(f"{self._source.name}: {name[:100]!r} has {member.size} bytes", "save plain tensors")
        return bytes(member.read_at(0, member.size))

    def _inflated(self, section: Section, entry: zipfile.ZipInfo, where: str) -> bytes:
        unpacker = zlib.decompressobj(-15)
        try:
            data = unpacker.decompress(section.read_at(0, section.size), entry.file_size + 1)
        except zlib.error as error:
            raise WeightsError(f"{where} cannot be unpacked: {error}", DAMAGED) from error
        if len(data) != entry.file_size or (entry.CRC and zlib.crc32(data) != entry.CRC):
            raise WeightsError(f"{where} is damaged: it does not unpack to what the directory says", DAMAGED)
        return data

    def check_sums(self, names: Iterable[str]) -> None:
        """Compare the CRC-32 of stored members with that in the directory; reads them once.

        An archive of which every checksum is zero was written without, and there is nothing to compare. Raises
        ``WeightsError`` that names the entry that differs.
        """
        entries = [self._entries[self.root + name] for name in names]
        stored = [entry for entry in entries if entry.compress_type == zipfile.ZIP_STORED]  # others: when unpacked
        places = {data_start(self._source, entry): entry for entry in stored}
        check_sums(self._source, places, everything=self._entries.values())


def _root(names: Iterable[str]) -> str:
    """The folder in which all members are, with its slash; empty if there is none."""
    folders = {name.partition("/")[0] + "/" if "/" in name else "" for name in names}
    return folders.pop() if len(folders) == 1 else ""


def _entry(file: ByteSource, name: str) -> zipfile.ZipInfo | None:
    """The entry of a name, in the archive or in its only folder; None if there is none."""
    entries = zip_entries(file)
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
        return Section(file, data_start(file, entry), entry.file_size, f"{file.name}: {name}")
    if entry.file_size > max(_MAX_RATIO * file.size, _HARMLESS_FILE):
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
    return lambda: check_sums(file, {data_start(file, entry): entry}, everything=[entry])
