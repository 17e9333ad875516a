"""Checks of zip archives and legacy torch pickles before their contents are read.

``torch.save`` writes a zip archive with uncompressed entries; before torch 1.6 it wrote a bare pickle. Compressed or
overlapping entries, or a pickle larger than any state dict needs, are treated as a decompression bomb.
"""

from __future__ import annotations

import io
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.byte_source import ByteSource, FileView

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["DAMAGED", "LEGACY_LIMIT", "check_archive", "check_sums", "data_offsets", "zip_entries"]

LEGACY_LIMIT = 4 * 2**30  # bytes; such files are read whole into memory
DAMAGED = "download or save it again"
_PICKLE_LIMIT = 512 * 2**20  # bytes; a million tensors take about 200 MB
_DIRECTORY_LIMIT = 64 * 2**20  # bytes; an entry of about 100 bytes becomes an object of about 600
_PIECE = 1 << 20  # bytes summed at a time: they stay in the processor's cache
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def check_archive(path: Path, size: int) -> bool:
    """Whether ``path``, of ``size`` bytes, is a ``torch.save`` archive in native byte order, which can be mapped.

    False for a bare pickle and for an archive in the other byte order, which are read whole. Other files are refused.

    Raises
    ------
    UnsafeError
        Compressed or overlapping entries, too many entries, a pickle above 512 MiB, or a file above 4 GiB that cannot
        be memory-mapped.
    WeightsError
        Not a torch file, a TorchScript archive, or a damaged file.
    """
    with path.open("rb") as file:
        start = file.read(4)
    entries = zip_entries(path, size) if start == _ZIP else []
    if start == _ZIP:
        mapped, kind = _check_torch(path, entries), "an archive in another byte order"
    elif start.startswith(_PICKLE):
        mapped, kind = False, "a bare pickle"
    else:
        raise WeightsError(f"{path} is neither a zip archive nor a pickle of torch.save", DAMAGED)
    if not mapped and size > LEGACY_LIMIT:
        raise UnsafeError(
            f"{path} is {kind} of {size / 2**30:.1f} GiB, which must be read whole into memory; the limit is "
            f"{LEGACY_LIMIT / 2**30:.0f} GiB",
            "save it again with torch.save, or as safetensors, on a machine that can load it",
        )
    if entries and not mapped:  # read whole, and not by parts that could be compared later
        check_sums(path, data_offsets(path, entries), everything=entries)
    return mapped


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


def data_offsets(path: Path, entries: Iterable[zipfile.ZipInfo]) -> dict[int, zipfile.ZipInfo]:
    """Entries of an archive without compression, by the offset of their data in the file.

    Raises ``WeightsError`` if an entry is not where the directory says.
    """
    found = {}
    with path.open("rb") as file:
        for entry in entries:
            file.seek(max(0, entry.header_offset))
            header = file.read(30)
            if entry.header_offset < 0 or header[:4] != _ZIP:
                raise WeightsError(
                    f"{path}: the entry {entry.filename[:100]!r} is not where the directory says", DAMAGED
                )
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            found[entry.header_offset + 30 + lengths] = entry
    return found


def check_sums(path: Path, entries: dict[int, zipfile.ZipInfo], *, everything: Iterable[zipfile.ZipInfo]) -> None:
    """Compare the CRC-32 of the entries' data, by their offset, with that in the directory; reads the data once.

    An archive of which every checksum is zero was written without (``torch.serialization.set_crc32_options``), and
    there is nothing to compare. Raises ``WeightsError`` that names the entry that differs.
    """
    if not any(entry.CRC for entry in everything):
        return
    buffer = memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        for offset, entry in sorted(entries.items(), key=lambda item: item[0]):
            file.seek(offset)
            found, left = 0, entry.file_size
            while left:
                count = file.readinto(buffer[: min(left, _PIECE)])
                if not count:
                    raise WeightsError(f"{path} ends inside the entry {entry.filename[:100]!r}", DAMAGED)
                found = zlib.crc32(buffer[:count], found)
                left -= count
            if found != entry.CRC:
                raise WeightsError(
                    f"{path} is damaged: the checksum of the entry {entry.filename[:100]!r} is {entry.CRC:08x} in the "
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


def _check_torch(path: Path, entries: list[zipfile.ZipInfo]) -> bool:
    """Whether the tensors of a ``torch.save`` archive are in native byte order; refuses any other archive."""
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds code", "save scripted.state_dict() with torch.save instead"
        )
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is a zip archive, but not one of torch.save", "extract the weights from it first")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UnsafeError(
            f"{path} has compressed entries, which torch.save never writes", "save it again with torch.save"
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UnsafeError(
            f"{path} claims more data than it holds: its entries overlap", "save it again with torch.save"
        )
    if any(entry.filename.endswith("/data.pkl") and entry.file_size > _PICKLE_LIMIT for entry in entries):
        raise UnsafeError(
            f"{path} has a pickle above {_PICKLE_LIMIT // 2**20} MiB", "save plain tensors, as safetensors"
        )
    read_now = data_offsets(path, [e for e in entries if e.filename.endswith(("/data.pkl", "/byteorder"))])
    check_sums(path, read_now, everything=entries)
    order = next((offset for offset, entry in read_now.items() if entry.filename.endswith("/byteorder")), None)
    if order is None:
        return True
    with path.open("rb") as file:  # not by zipfile, which refuses entries without a checksum
        file.seek(order)
        return file.read(min(6, read_now[order].file_size)) != (b"big" if sys.byteorder == "little" else b"little")
