"""Source for ``.npy`` files, which hold one array, and the header that arrays of ``.npz`` archives have, too.

NumPy's reader allocates what a header claims, and unpickles arrays of objects. Here the header is compared with the
size of the file, and arrays of objects are refused.

Source: ``numpy.lib.format``, versions 1.0 to 3.0 of the format; the last differs from 2.0 in names of fields alone.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import FileView, open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, in_file
from registry.types import ModelFacts

if TYPE_CHECKING:
    from typing import IO

    from registry.types import Checkpoint, ModelRef

__all__ = ["NO_HEADER", "SOURCE", "Header", "read_header"]

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # bytes, the same as NumPy's limit
# Raised by NumPy's header reader, which parses the header as Python, on a malicious header.
NO_HEADER = (ValueError, TypeError, SyntaxError, KeyError, OverflowError, MemoryError, tokenize.TokenError)
"""What `read_header` raises on a header that is none, beside errors of the package."""


class Header(NamedTuple):
    """Header of an array: bytes before its data, extents, dtype, and whether it is in Fortran's order."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], where: str, remedy: str) -> Header:
    """The header at the start of a file.

    Raises
    ------
    UnsafeError
        The header is too long, or the array is one of Python objects.
    WeightsError
        It is no array.
    """
    prefix = file.read(8)
    if prefix[:6] != _MAGIC or prefix[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise WeightsError(f"{where} is not an array of numbers", remedy)
    width = 2 if prefix[6] == 1 else 4
    length = file.read(width)
    count = int.from_bytes(length, "little")
    if count > _MAX_HEADER:
        raise UnsafeError(f"{where} has a header of {count} bytes", "save arrays of plain numbers")
    text = io.BytesIO(length + file.read(count))
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning for a header that a later Python may parse differently
        shape, fortran, dtype = read(text, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise UnsafeError(f"{where} is a pickle of Python objects", remedy)
    return Header(8 + width + count, tuple(shape), dtype, bool(fortran))


def open_npy(ref: ModelRef) -> Checkpoint:
    """Open an array as a model of one tensor, named after the file; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", ".npy files hold one array: leave --key out")
    file = open_bytes(ref.target)
    try:
        remedy = "save its arrays with numpy.savez: savez('weights.npz', **load('FILE', allow_pickle=True).item())"
        try:
            header = read_header(io.BufferedReader(FileView(file)), file.name, remedy)
        except NO_HEADER as error:
            raise WeightsError(f"{file.name} has an invalid header", "download or save it again") from error
        dtype = header.dtype
        if dtype.kind not in "biufc" or dtype.subdtype is not None or dtype.name in ("longdouble", "float128"):
            raise WeightsError(f"{file.name} has dtype {str(dtype)[:60]}, which is not numeric", "save it as float32")
        if any(extent < 0 for extent in header.shape) or header.start + header.bytes != file.size:
            raise WeightsError(
                f"{file.name} claims a shape {str(header.shape)[:60]} that its bytes do not fill",
                "download or save it again",
            )
        big = dtype.str.startswith(">")
        tensor = in_file(file, header.start, dtype.name, header.shape, big=big, fortran=header.fortran)
        name = Path(ref.target).name.removesuffix(".npy").replace("\0", "")[:200] or "array"
        return LazyCheckpoint(ref, {name: tensor}, ModelFacts(laid_out=True), files=[file])
    except BaseException:
        file.close()
        raise


SOURCE = Source(name="npy", open=open_npy, headers=True, ranges=True)
