"""Members of a zip archive as sources of bytes, read in place wherever the archive is: in a file or in another archive.

A member that is stored without compression is a part of its file. One that is compressed is unpacked in memory, up to
a bound that its reader gives, and never more than a hundredfold.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.files.archive import DAMAGED
from registry.sources.files.byte_parts import InMemory, Section
from registry.sources.files.byte_source import ByteSource, FileView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ZipMembers"]

_DIRECTORY_LIMIT = 64 * 2**20  # bytes; an entry of about 100 bytes becomes an object of about 600
_PIECE = 1 << 20  # bytes summed at a time
_MAX_RATIO, _HARMLESS = 100, 2**20  # allowed expansion, and bytes below which any expansion is allowed
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
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
        directory = _directory_size(source)
        if directory > _DIRECTORY_LIMIT:
            raise UnsafeError(f"{source.name} has a directory of {directory / 2**20:.0f} MiB", "split the file")
        try:
            with zipfile.ZipFile(FileView(source)) as archive:
                entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
        except RegistryError:
            raise
        except Exception as error:  # zipfile's, struct's and Unicode's, on a damaged directory
            reason = " ".join(str(error).split())[:160]
            raise WeightsError(
                f"{source.name} is a damaged zip archive, perhaps cut short: {reason}", DAMAGED
            ) from error
        if len(entries) > 2 * MAX_TENSORS:
            raise UnsafeError(f"{source.name} holds {len(entries)} entries, more than {2 * MAX_TENSORS}", "split it")
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
        section = Section(self._source, self._start(entry), entry.compress_size, f"{self._source.name} ({name[:100]})")
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

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where the data of an entry begin."""
        header = bytes(self._source.read_at(entry.header_offset, 30))
        if header[:4] != b"PK\x03\x04":
            raise WeightsError(
                f"{self._source.name}: the entry {entry.filename[:100]!r} is not where the directory says", DAMAGED
            )
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return int(entry.header_offset) + 30 + lengths

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
        if not any(entry.CRC for entry in self._entries.values()):
            return
        for name in names:
            entry = self._entries[self.root + name]
            if entry.compress_type != zipfile.ZIP_STORED:
                continue  # compared when it is unpacked
            start, found = self._start(entry), 0
            for at in range(0, entry.file_size, _PIECE):
                found = zlib.crc32(self._source.read_at(start + at, min(_PIECE, entry.file_size - at)), found)
            if found != entry.CRC:
                raise WeightsError(
                    f"{self._source.name} is damaged: the checksum of the entry {name[:100]!r} is {entry.CRC:08x} in "
                    f"the directory and {found:08x} of its data",
                    DAMAGED,
                )


def _root(names: Iterable[str]) -> str:
    """The folder in which all members are, with its slash; empty if there is none."""
    folders = {name.partition("/")[0] + "/" if "/" in name else "" for name in names}
    return folders.pop() if len(folders) == 1 else ""


def _directory_size(source: ByteSource) -> int:
    """Size in bytes of the archive's directory according to its end record, or 0 if there is none."""
    tail_size = min(source.size, 22 + 2**16 + 76)
    tail = bytes(source.read_at(source.size - tail_size, tail_size))
    at = len(tail) - 22 if tail[-22:-18] == _END and tail.endswith(b"\0\0") else tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        return 0
    found = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 76 and tail[at - 20 : at - 16] == _LOCATOR64 and tail[at - 76 : at - 72] == _END64:
        found = max(found if found < 2**32 - 1 else 0, int.from_bytes(tail[at - 36 : at - 28], "little"))
    return min(found, source.size)
