"""Checks of zip archives and legacy torch pickles before their contents are read.

``torch.save`` writes a zip archive with uncompressed entries; before torch 1.6 it wrote a bare pickle. Compressed or
overlapping entries, or a pickle larger than any state dict needs, are treated as a decompression bomb.
"""

from __future__ import annotations

import sys
import zipfile
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DAMAGED", "LEGACY_LIMIT", "check_archive", "zip_entries"]

LEGACY_LIMIT = 4 * 2**30  # bytes; such files are read whole into memory
DAMAGED = "download or save it again"
_PICKLE_LIMIT = 512 * 2**20  # bytes; a million tensors take about 200 MB
_DIRECTORY_LIMIT = 64 * 2**20  # bytes; an entry of about 100 bytes becomes an object of about 600
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
    if start == _ZIP:
        mapped, kind = _check_torch(path, zip_entries(path, size)), "an archive in another byte order"
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
    return mapped


def zip_entries(path: Path, size: int) -> list[zipfile.ZipInfo]:
    """Entries of the directory of an archive of ``size`` bytes, without unpacking them.

    Raises ``WeightsError`` if the archive is damaged, and ``UnsafeError`` if its directory is larger than weights need.
    """
    directory = _directory_size(path, size)
    if directory > _DIRECTORY_LIMIT:
        raise UnsafeError(f"{path} has a directory of {directory / 2**20:.0f} MiB", "split the file")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise _damaged(path, error) from error
    if len(entries) > 2 * MAX_TENSORS:
        raise UnsafeError(f"{path} holds {len(entries)} entries, more than {2 * MAX_TENSORS}", "split the file")
    return entries


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())[:160]
    return WeightsError(f"{path} is a damaged zip archive, perhaps cut short: {reason}", DAMAGED)


def _directory_size(path: Path, size: int) -> int:
    """Size in bytes of the archive's directory according to its end record, or 0 if there is none.

    The end record is searched where `zipfile` searches for it.
    """
    with path.open("rb") as file:
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
    order = next((entry for entry in entries if entry.filename.endswith("/byteorder")), None)
    if order is None:
        return True
    try:
        with zipfile.ZipFile(path) as archive, archive.open(order) as file:
            return file.read(6) != (b"big" if sys.byteorder == "little" else b"little")
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
