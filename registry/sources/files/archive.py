"""Directories of zip archives, read and checked before their contents are; places and checksums of their entries.

``torch.save`` writes a zip archive with uncompressed entries. Compressed or overlapping entries, or a pickle larger
than any state dict needs, are treated as a decompression bomb.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.files.byte_source import FileView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.sources.files.byte_source import ByteSource

__all__ = ["DAMAGED", "check_sums", "data_start", "torch_entries", "zip_entries"]

DAMAGED = "download or save it again"
_PICKLE_LIMIT = 512 * 2**20  # bytes; a million tensors take about 200 MB
_DIRECTORY_LIMIT = 64 * 2**20  # bytes; an entry of about 100 bytes becomes an object of about 600
_PIECE = 1 << 20  # bytes summed at a time: they stay in the processor's cache
_ZIP = b"PK\x03\x04"
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def torch_entries(source: ByteSource) -> dict[int, zipfile.ZipInfo]:
    """Entries of a ``torch.save`` archive, by the offset of their data; other files are refused.

    The checksums of the pickle and of the byte order are compared with their data, those of the storages are not.

    Raises
    ------
    UnsafeError
        Compressed or overlapping entries, too many entries, or a pickle above 512 MiB.
    WeightsError
        Not a torch file, a TorchScript archive, or a damaged file.
    """
    entries = zip_entries(source)
    _check_torch(source.name, entries, source.size)
    found = {data_start(source, entry): entry for entry in entries}
    read_now = {offset: e for offset, e in found.items() if e.filename.endswith(("/data.pkl", "/byteorder"))}
    check_sums(source, read_now, everything=entries)
    return found


def zip_entries(source: ByteSource) -> list[zipfile.ZipInfo]:
    """Entries of the directory of an archive, without unpacking them.

    Raises ``WeightsError`` if the archive is damaged, and ``UnsafeError`` if its directory is larger than weights need.
    """
    directory = _directory_size(source)
    if directory > _DIRECTORY_LIMIT:
        raise UnsafeError(f"{source.name} has a directory of {directory / 2**20:.0f} MiB", "split the file")
    try:
        with io.BufferedReader(FileView(source)) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except RegistryError:
        raise
    except Exception as error:  # zipfile's, struct's and Unicode's, on a damaged directory
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{source.name} is a damaged zip archive, perhaps cut short: {reason}", DAMAGED) from error
    if len(entries) > 2 * MAX_TENSORS:
        raise UnsafeError(f"{source.name} holds {len(entries)} entries, more than {2 * MAX_TENSORS}", "split the file")
    return entries


def data_start(source: ByteSource, entry: zipfile.ZipInfo) -> int:
    """Where the data of an entry begin. Raises ``WeightsError`` if it is not where the directory says."""
    at = entry.header_offset
    header = bytes(source.read_at(at, 30)) if 0 <= at <= source.size - 30 else b""
    if header[:4] != _ZIP:
        raise WeightsError(
            f"{source.name}: the entry {entry.filename[:100]!r} is not where the directory says", DAMAGED
        )
    return at + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def check_sums(
    source: ByteSource, entries: dict[int, zipfile.ZipInfo], *, everything: Iterable[zipfile.ZipInfo]
) -> None:
    """Compare the CRC-32 of the data of stored entries, by their offset, with that in the directory; reads them once.

    An archive of which every checksum is zero was written without (``torch.serialization.set_crc32_options``), and
    there is nothing to compare. Raises ``WeightsError`` that names the entry that differs.
    """
    if not any(entry.CRC for entry in everything):
        return
    for offset, entry in sorted(entries.items(), key=lambda item: item[0]):
        if offset + entry.file_size > source.size:
            raise WeightsError(f"{source.name} ends inside the entry {entry.filename[:100]!r}", DAMAGED)
        found = 0
        for at in range(0, entry.file_size, _PIECE):
            found = zlib.crc32(source.read_at(offset + at, min(_PIECE, entry.file_size - at)), found)
        if found != entry.CRC:
            raise WeightsError(
                f"{source.name} is damaged: the checksum of the entry {entry.filename[:100]!r} is {entry.CRC:08x} in "
                f"the directory and {found:08x} of its data",
                DAMAGED,
            )


def _directory_size(source: ByteSource) -> int:
    """Size in bytes of the archive's directory according to its end record, or 0 if there is none.

    The end record is searched where `zipfile` searches for it.
    """
    count = min(source.size, 22 + 76)
    tail = bytes(source.read_at(source.size - count, count))
    at = len(tail) - 22
    if tail[-22:-18] != _END or not tail.endswith(b"\0\0"):  # there is a comment
        count = min(source.size, 22 + 76 + 2**16)
        tail = bytes(source.read_at(source.size - count, count))
        at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        return 0
    found = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 76 and tail[at - 20 : at - 16] == _LOCATOR64 and tail[at - 76 : at - 72] == _END64:
        found = max(found if found < 2**32 - 1 else 0, int.from_bytes(tail[at - 36 : at - 28], "little"))
    return min(found, source.size)


def _check_torch(path: str, entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse any other archive than one of ``torch.save``."""
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds code", "save scripted.state_dict() with torch.save instead"
        )
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is a zip archive, but not one of torch.save", "extract the weights from it first")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise UnsafeError(
            f"{path} has compressed entries, which torch.save never writes", "save it again with torch.save"
        )
    if sum(entry.file_size for entry in entries) > size:
        raise UnsafeError(
            f"{path} claims more data than it holds: its entries overlap", "save it again with torch.save"
        )
    if len(names) < len(entries):
        raise WeightsError(f"{path} has two entries of one name", "save it again with torch.save")
    if any(entry.filename.endswith("/data.pkl") and entry.file_size > _PICKLE_LIMIT for entry in entries):
        raise UnsafeError(
            f"{path} has a pickle above {_PICKLE_LIMIT // 2**20} MiB", "save plain tensors, as safetensors"
        )
