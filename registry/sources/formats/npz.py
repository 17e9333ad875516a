"""Source for NumPy ``.npz`` archives of numeric arrays.

Arrays come as they are stored; `array_layouts` turns those of Flax, Haiku and Keras. ``np.load`` allocates what an
array header claims. Here the headers are read first and compared with the archive's directory, pickled arrays are
refused, and an array is unpacked when it is read.
"""

from __future__ import annotations

import math
import sys
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, OpenedCheckpoint, Source, common_prefix
from registry.sources.dtypes import is_float
from registry.sources.files.archive import DAMAGED, zip_entries
from registry.sources.files.byte_source import LocalBytes
from registry.sources.formats.npy import NO_HEADER, read_header
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.weight_files import check_file
from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelFacts, ModelRef

__all__ = ["SOURCE"]

_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion of a file, and bytes below which any expansion is allowed
_CHUNK = 1 << 20
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TEXT = "SU"


class _Array(NamedTuple):
    """Position and header of an array."""

    entry: zipfile.ZipInfo
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzCheckpoint(OpenedCheckpoint):
    """An open archive. Memory in use is that of the array last read."""

    def __init__(self, ref: ModelRef, archive: zipfile.ZipFile, arrays: dict[str, _Array], facts: ModelFacts) -> None:
        infos = [TensorInfo(name, array.dtype.name, array.shape) for name, array in arrays.items()]
        super().__init__(ref, infos, facts)
        self._archive = archive
        self._arrays = arrays
        self._last: tuple[str, memoryview] = ("", memoryview(b""))

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 is returned as float32."""
        array = self._values(name)
        if not is_float(array.dtype.name):
            raise WeightsError(
                f"tensor {name} is {array.dtype.name}, not floating point", "only floating weights have spectra"
            )
        return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32, copy=False)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order."""
        data: memoryview = self._values(name).reshape(-1).view(np.uint8).data
        return data

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        self._check_open()
        return self._arrays[name].bytes

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor, which stays unpacked until another is asked for."""
        self._check_open()
        last, data = self._last
        if last != name:
            data = self.raw(name)
            self._last = (name, data)
        return data[start:stop]

    def _values(self, name: str) -> NDArray[np.generic]:
        self._check_open()
        array = self._arrays[name]
        buffer = bytearray(array.bytes)
        with _deliberate(self.ref.target, array.entry), self._archive.open(array.entry) as file:
            file.read(array.start)
            _fill(file, buffer)
        flat = np.frombuffer(buffer, array.dtype)
        if array.dtype.str.startswith(">" if sys.byteorder == "little" else "<"):
            flat = flat.byteswap().view(array.dtype.newbyteorder())
        values = flat.reshape(array.shape, order="F" if array.fortran else "C")
        return np.ascontiguousarray(values).reshape(array.shape)

    def close(self) -> None:
        """Close the archive."""
        super().close()
        self._last = ("", memoryview(b""))
        self._archive.close()


def open_npz(ref: ModelRef) -> Checkpoint:
    """Open and check a ``.npz`` file; raises the errors of `open_ref`."""
    path = Path(ref.target)
    size = check_file(path)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", ".npz files are never wrapped: leave --key out")
    with LocalBytes(path, check=False) as source:
        entries = [entry for entry in zip_entries(source) if not entry.filename.endswith("/")]
    _check_entries(path, entries, size)
    archive = zipfile.ZipFile(path)
    try:
        found = {e.filename.removesuffix(".npy"): _header(path, archive, e) for e in entries}
        arrays = {name: array for name, array in found.items() if array.dtype.kind not in _TEXT}
        cut = len(common_prefix(arrays))
        facts = facts_beside(path)
        arrays = {name[cut:]: array for name, array in arrays.items()}
        return NpzCheckpoint(with_facts(ref, facts), archive, arrays, facts)
    except BaseException:
        archive.close()
        raise


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_TENSORS:
        raise UnsafeError(f"{path} holds {len(entries)} arrays, more than {MAX_TENSORS}", "split the file")
    if len({entry.filename for entry in entries}) < len(entries):
        raise WeightsError(f"{path} holds several arrays of one name", "save it again with np.savez")
    if any(entry.compress_type not in _PLAIN or entry.flag_bits & 1 for entry in entries):
        raise WeightsError(
            f"{path} is compressed or encrypted in a way that np.savez does not use", "save it again with np.savez"
        )
    claimed = sum(entry.file_size for entry in entries)
    if claimed > max(_MAX_RATIO * size, _HARMLESS):
        raise UnsafeError(
            f"{path} would unpack {size} bytes to {claimed}", "save it again with np.savez, without compression"
        )


def _header(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Array:
    """Header of an array, checked against the archive's directory."""
    name = entry.filename[:100]
    with _deliberate(path, entry), archive.open(entry) as file:
        start, shape, dtype, fortran = read_header(file, f"{path}: {name!r}", "save arrays of numbers, with np.savez")
    array = _Array(entry, start, shape, dtype, fortran)
    if dtype.kind not in "biufc" + _TEXT or dtype.subdtype is not None:
        raise WeightsError(
            f"{path}: {name!r} has dtype {str(dtype)[:60]}, which is not numeric",
            "save it as float32, or as safetensors",
        )
    if any(extent < 0 for extent in shape) or array.start + array.bytes != entry.file_size:
        raise WeightsError(f"{path}: {name!r} claims a shape {str(shape)[:60]} that its bytes do not fill", DAMAGED)
    return array


def _fill(file: IO[bytes], buffer: bytearray) -> None:
    view, at = memoryview(buffer), 0
    while at < len(view):
        part = file.read(min(_CHUNK, len(view) - at))
        if not part:
            raise EOFError("the data end early")
        view[at : at + len(part)] = part
        at += len(part)
    file.read(1)  # read the end, where zipfile compares the checksum


@contextmanager
def _deliberate(path: str | Path, entry: zipfile.ZipInfo) -> Iterator[None]:
    """Turn errors of zipfile, zlib and NumPy's header reader on a damaged archive into a ``WeightsError``."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{path}: {entry.filename[:100]!r} cannot be unpacked: {reason}", DAMAGED) from error
    except NO_HEADER as error:
        raise WeightsError(f"{path}: {entry.filename[:100]!r} has an invalid header", DAMAGED) from error


SOURCE = Source(name="npz", open=open_npz, headers=True)
