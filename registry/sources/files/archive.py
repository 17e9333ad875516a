"""Checks of zip archives before their contents are read.

``torch.save`` writes a zip archive with uncompressed entries. Compressed or overlapping entries, or a pickle larger
than any state dict needs, are treated as a decompression bomb.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.files.byte_source import ByteSource, FileView

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import RawIOBase
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["DAMAGED", "check_sums", "data_offsets", "torch_entries", "zip_entries"]

DAMAGED = "download or save it again"
_PICKLE_LIMIT = 512 * 2**20  # bytes; a million tensors take about 200 MB
_DIRECTORY_LIMIT = 64 * 2**20  # bytes; an entry of about 100 bytes becomes an object of about 600
_PIECE = 1 << 20  # bytes summed at a time: they stay in the processor's cache
_ZIP = b"PK\x03\x04"
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def torch_entries(path: Path | ByteSource, size: int) -> dict[int, zipfile.ZipInfo]:
    """Entries of a ``torch.save`` archive of ``size`` bytes, by the offset of their data; other files are refused.

    The checksums of the pickle and of the byte order are compared with their data, those of the storages are not.

    Raises
    ------
    UnsafeError
        Compressed or overlapping entries, too many entries, or a pickle above 512 MiB.
    WeightsError
        Not a torch file, a TorchScript archive, or a damaged file.
    """
    entries = zip_entries(path, size)
    _check_torch(_name(path), entries, size)
    found = data_offsets(path, entries)
    read_now = {offset: e for offset, e in found.items() if e.filename.endswith(("/data.pkl", "/byteorder"))}
    check_sums(path, read_now, everything=entries)
    return found


def zip_entries(path: Path | ByteSource, size: int) -> list[zipfile.ZipInfo]:
    """Entries of the directory of an archive of ``size`` bytes, without unpacking them.

    Raises ``WeightsError`` if the archive is damaged, and ``UnsafeError`` if its directory is larger than weights need.
    """
    name = path.name if isinstance(path, ByteSource) else path
    with io.BufferedReader(FileView(path)) if isinstance(path, ByteSource) else path.open("rb") as file:
        directory = _directory_size(file, size)
        if directory > _DIRECTORY_LIMIT:
            raise UnsafeError(f"{name} has a directory of {directory / 2**20:.0f} MiB", "split the file")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise _damaged(name, error) from error
    if len(entries) > 2 * MAX_TENSORS:
        raise UnsafeError(f"{name} holds {len(entries)} entries, more than {2 * MAX_TENSORS}", "split the file")
    return entries


def _name(path: Path | ByteSource) -> str:
    return path.name if isinstance(path, ByteSource) else str(path)


def _opened(path: Path | ByteSource) -> RawIOBase:
    """A file object of reads at any position."""
    return FileView(path) if isinstance(path, ByteSource) else path.open("rb", buffering=0)


def data_offsets(path: Path | ByteSource, entries: Iterable[zipfile.ZipInfo]) -> dict[int, zipfile.ZipInfo]:
    """Entries of an archive without compression, by the offset of their data in the file.

    Raises ``WeightsError`` if an entry is not where the directory says.
    """
    found = {}
    where = _name(path)
    with _opened(path) as file:
        for entry in entries:
            file.seek(max(0, entry.header_offset))
            header = file.read(30)
            if entry.header_offset < 0 or header[:4] != _ZIP:
                raise WeightsError(
                    f"{where}: the entry {entry.filename[:100]!r} is not where the directory says", DAMAGED
                )
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            found[entry.header_offset + 30 + lengths] = entry
    return found


def check_sums(
    path: Path | ByteSource, entries: dict[int, zipfile.ZipInfo], *, everything: Iterable[zipfile.ZipInfo]
) -> None:
    """Compare the CRC-32 of the entries' data, by their offset, with that in the directory; reads the data once.

    An archive of which every checksum is zero was written without (``torch.serialization.set_crc32_options``), and
    there is nothing to compare. Raises ``WeightsError`` that names the entry that differs.
    """
    if not any(entry.CRC for entry in everything):
        return
    buffer = memoryview(bytearray(_PIECE))
    where = _name(path)
    with _opened(path) as file:
        for offset, entry in sorted(entries.items(), key=lambda item: item[0]):
            file.seek(offset)
            found, left = 0, entry.file_size
            while left:
                count = file.readinto(buffer[: min(left, _PIECE)])
                if not count:
                    raise WeightsError(f"{where} ends inside the entry {entry.filename[:100]!r}", DAMAGED)
                found = zlib.crc32(buffer[:count], found)
                left -= count
            if found != entry.CRC:
                raise WeightsError(
                    f"{where} is damaged: the checksum of the entry {entry.filename[:100]!r} is {entry.CRC:08x} in the "
                    f"directory and {found:08x} of its data",
                    DAMAGED,
                )


def _damaged(path: Path | str, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())[:160]
    return WeightsError(f"{path} is a damaged zip archive, perhaps cut short: {reason}", DAMAGED)


def _directory_size(file: BinaryIO, size: int) -> int:
    """Size in bytes of the archive's directory according to its end record, or 0 if there is none.

    The end record is searched where `zipfile` searches for it.
    """
    file.seek(max(0, size - 22))
    tail = file.read()
    if not (tail.startswith(_END) and tail.endswith(b"\0\0")):
        file.seek(max(0, size - 22 - 2**16))
        tail = file.read()
    at = size - len(tail) + tail.rfind(_END)
    if at < size - len(tail):
        return 0
    file.seek(max(0, at - 76))
    record = file.read(98)[-98:]
    end = record.rfind(_END)
    found = int.from_bytes(record[end + 12 : end + 16], "little")
    if end == 76 and record[56:60] == _LOCATOR64 and record[:4] == _END64:
        found = max(found if found < 2**32 - 1 else 0, int.from_bytes(record[40:48], "little"))
    return min(found, size)


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
