"""Arrays of joblib, whose bytes stand in the stream of a pickle right behind the record that describes them.

``NumpyArrayWrapper`` (``joblib/numpy_pickle.py``) has shape, dtype and order. Since joblib 1.1 a byte tells how many
more follow to align the elements. An array of objects is a pickle of its own; it is passed over. Before joblib 0.10 the
arrays were in files beside the pickle.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.formats.pickles import Global, Instance, Span, read_pickle
from registry.sources.formats.pickles.numpy_arrays import PickledArray, dtype_of
from registry.sources.formats.pickles.stored_tensors import extents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.sources.files.byte_source import ByteSource

__all__ = ["REWRITE", "reader"]

REWRITE = "write it again: python -c \"import joblib; joblib.dump(joblib.load('FILE'), 'NEW.joblib')\""
"""The remedy for files of old versions."""

_WRAPPER = "NumpyArrayWrapper"
_OLD = ("NDArrayWrapper", "ZNDArrayWrapper")
_MODULES = ("joblib.numpy_pickle", "joblib.numpy_pickle_compat")
_MAX_NESTED = 4  # pickles of objects within each other
_CODE = re.compile(r"[<>=|]?([OUSVMm])(\d{0,9}).*", re.DOTALL)
_WIDTHS = {"U": 4, "S": 1, "V": 1, "M": 1, "m": 1}  # bytes of a text's character, or of the number in the code


def reader(
    source: ByteSource, constructors: Mapping[Global, Callable[..., object]], nested: int = 0
) -> Callable[[Instance, int], tuple[object, int] | None]:
    """What `read_pickle` calls after a record got its state: takes the bytes of an array from the stream.

    Raises
    ------
    UnsafeError
        Pickles of objects are nested too deep.
    WeightsError
        The array reaches beyond the file, has no valid shape or type, or is in a file beside it.
    """

    def built(record: Instance, position: int) -> tuple[object, int] | None:
        kind = record.kind
        if not isinstance(kind, Global) or not kind.module.endswith(_MODULES):
            return None
        if kind.name in _OLD:
            raise WeightsError(
                f"{source.name} is a pickle of joblib before 0.10, whose arrays are in files beside it",
                REWRITE,
            )
        if kind.name != _WRAPPER:
            return None
        return _array(source, record.attributes, position, constructors, nested)

    return built


def _array(
    source: ByteSource,
    attributes: Mapping[object, object],
    position: int,
    constructors: Mapping[Global, Callable[..., object]],
    nested: int,
) -> tuple[object, int]:
    made = PickledArray()
    dtype = dtype_of(attributes.get("dtype"))
    shape = extents(attributes.get("shape"))  # its ValueError becomes a damaged pickle
    kind = _CODE.fullmatch(dtype.code)
    if kind and kind[1] == "O":
        if nested >= _MAX_NESTED:
            raise UnsafeError(f"{source.name} has arrays of objects within each other", "save arrays of numbers")
        within = reader(source, constructors, nested + 1)
        return made, read_pickle(source, position, constructors=constructors, built=within).end
    width = bits_of(dtype.name) // 8 if dtype.name else 0
    if kind and kind[1] in _WIDTHS:
        width = _WIDTHS[kind[1]] * int(kind[2] or 0)
    elif not width:
        raise WeightsError(
            f"{source.name} has an array whose elements are no numbers: {dtype.code[:40]!r}",
            "save arrays of numbers alone",
        )
    if attributes.get("numpy_array_alignment_bytes") is not None:
        position += 1 + source.read_at(position, 1)[0]
    size = math.prod(shape) * width
    if position + size > source.size:
        raise source.ends_early(position, size)
    if dtype.name:
        data: Span | bytes = Span(source, position, size, text=False) if size else b""
        made.fill(shape, dtype, data, fortran=attributes.get("order") == "F")
    return made, position + size
