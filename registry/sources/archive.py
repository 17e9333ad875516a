"""What is checked of a torch file before torch reads it.

``torch.save`` writes a zip archive whose entries are stored, never compressed; before torch 1.6 a bare pickle.
A compressed or overlapping entry, or a pickle larger than any state dict needs, is a bomb.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.source import MAX_TENSORS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LEGACY_LIMIT", "check_archive"]

LEGACY_LIMIT = 4 * 2**30  # bytes; such files are read whole into memory
_PICKLE_LIMIT = 512 * 2**20  # bytes; a million tensors take about 200 MB
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_DAMAGED = "download or save it again"


def check_archive(path: Path, size: int) -> bool:
    """Whether ``path``, of ``size`` bytes, is a zip archive of ``torch.save`` (else a bare pickle); refuses all else.

    Raises
    ------
    UnsafeError
        Compressed or overlapping entries, too many of them, a giant pickle, a bare pickle above 4 GiB.
    WeightsError
        No torch file: text, another archive, TorchScript, damaged.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == _ZIP:
        _check_zip(path, size)
        return True
    if not start.startswith(_PICKLE):
        raise WeightsError(f"{path} is neither a zip archive nor a pickle of torch.save", _DAMAGED)
    if size > LEGACY_LIMIT:
        raise UnsafeError(
            f"{path} is a bare pickle of {size / 2**30:.1f} GiB, to be read whole", "save it as safetensors"
        )
    return False


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise WeightsError(f"{path} is a damaged zip archive, perhaps cut short: {error}", _DAMAGED) from error
    if len(entries) > 2 * MAX_TENSORS:
        raise UnsafeError(f"{path} holds {len(entries)} entries, more than {2 * MAX_TENSORS}", "split the file")
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
    if sum(entry.file_size for entry in entries) > size:
        raise UnsafeError(
            f"{path} claims more data than it holds: its entries overlap", "save it again with torch.save"
        )
    if any(entry.filename.endswith("/data.pkl") and entry.file_size > _PICKLE_LIMIT for entry in entries):
        raise UnsafeError(
            f"{path} has a pickle above {_PICKLE_LIMIT // 2**20} MiB", "save plain tensors, as safetensors"
        )
