"""NumPy's arrays, scalars and data types in pickles, of all protocols and of Python 2: read without NumPy's unpickler.

``numpy.core.multiarray._reconstruct`` makes an empty array, whose state is (version, shape, dtype, Fortran order,
bytes) or, before version 1, the same without the version; ``numpy._core.numeric._frombuffer`` has (bytes, dtype, shape,
order). An array of JAX has the state of NumPy's. A dtype is made of a code such as ``f4``, and its state has the byte
order. Numbers become tensors; arrays of objects, texts, dates and structures stay records.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.lazy_tensors import LazyTensor, in_file
from registry.sources.formats.pickles.pickle_records import Buildable, Global, Span
from registry.sources.formats.pickles.stored_tensors import DAMAGED, StoredTensor, extents

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["CONSTRUCTORS", "PickledArray", "PickledDtype", "dtype_of"]

# NumPy's code -> torch's name
_NAMES = {
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
    "c16": "complex128", "?": "bool",
}  # fmt: skip
_WORDS = {
    "bool_": "bool", "float_": "float64", "half": "float16", "single": "float32", "double": "float64",
    "float": "float64", "int": "int64", "int_": "int64", "byte": "int8", "ubyte": "uint8",
}  # fmt: skip
_SCALARS = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip


class PickledDtype(Buildable):
    """A data type: ``name`` is torch's, empty for what is no number; ``big``: its bytes are in big-endian order."""

    __slots__ = ("big", "code", "name")

    def __init__(self, code: str, name: str) -> None:
        self.code = code
        self.name = name
        self.big = code.startswith(">")

    def build(self, state: object) -> None:
        """Take the byte order; a type with fields or of arrays is no number."""
        if not isinstance(state, tuple) or len(state) < 2:
            raise ValueError("a data type has no state")
        self.big = state[1] == ">"
        if any(part is not None for part in state[2:5]):
            self.name = ""


def dtype_of(code: object) -> PickledDtype:
    """The data type of a code (``<f4``), a name (``float32``) or the class of its scalars."""
    if isinstance(code, PickledDtype):
        return code
    word = code.name if isinstance(code, Global) else code
    if not isinstance(word, str) or len(word) > 100:
        return PickledDtype("", "")
    word = word.removesuffix("DType").lower() if isinstance(code, Global) else word
    plain = word.lstrip("<>=|")
    name = _NAMES.get(plain) or _WORDS.get(plain, plain)
    known = name in _NAMES.values() or name == "bfloat16" or name.startswith("float8_")
    return PickledDtype(word, name if known and bits_of(name, 0) else "")


class PickledArray(StoredTensor):
    """An array: ``dtype`` is empty where its elements are no numbers; ``elements``: those of an array of objects."""

    __slots__ = ("big", "data", "dtype", "elements", "fortran", "shape")

    def __init__(self) -> None:
        self.dtype = ""
        self.shape = (0,)
        self.big = self.fortran = False
        self.data: bytes | Span = b""
        self.elements: list[object] | None = None

    def build(self, state: object) -> None:
        """Take the state of an array. Raises ``ValueError`` where its bytes do not fill its shape."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array has no state")
        shape, kind, fortran, data = state[-4:]
        self.fill(shape, dtype_of(kind), data, fortran=bool(fortran) if type(fortran) in (bool, int) else False)

    def fill(self, shape: object, kind: PickledDtype, data: object, *, fortran: bool) -> None:
        """Take shape, type and bytes; a text is what Python 2 wrote, of which the bytes are UTF-8 by chance."""
        self.shape = extents(shape)
        self.big, self.fortran = kind.big, fortran
        if isinstance(data, list):
            self.elements = data
            return
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        if not isinstance(data, bytes | Span):
            raise ValueError("an array has no bytes")
        if not kind.name:
            return
        size = math.prod(self.shape) * bits_of(kind.name) // 8
        longest = size * 2 if isinstance(data, Span) and not data.plain else size
        if not size <= len(data) <= longest:
            raise ValueError(f"an array of {size} bytes has {len(data)}")
        self.dtype, self.data = kind.name, data

    @property
    def place(self) -> Hashable:
        """The record itself: no two arrays of a pickle share their bytes."""
        return id(self)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of the elements, which are all stored."""
        return len(self.data), len(self.data)

    def lazy(self, name: str) -> LazyTensor:
        """The array, read from the file where its bytes lie there as they are; raises ``WeightsError``."""
        if not self.dtype:
            raise WeightsError(f"array {name} holds no numbers", "save its numbers alone")
        data = self.data
        if isinstance(data, Span) and data.plain:
            return in_file(data.source, data.offset, self.dtype, self.shape, big=self.big, fortran=self.fortran)
        size = math.prod(self.shape) * bits_of(self.dtype) // 8
        held = in_file(_Held(data, size), 0, self.dtype, self.shape, big=self.big, fortran=self.fortran)
        return replace(held, whole=held.whole or isinstance(data, Span))


class _Held(ByteSource):
    """The bytes of one array in memory, or in a text that is decoded whenever they are read."""

    def __init__(self, data: bytes | Span, size: int) -> None:
        self._data = data
        self.size = size
        self.name = data.source.name if isinstance(data, Span) else "pickle"

    def read_at(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes from position ``start``."""
        data = self._data.read() if isinstance(self._data, Span) else self._data
        if len(data) != self.size:
            raise WeightsError(f"{self.name}: an array of {self.size} bytes has {len(data)}", DAMAGED)
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        return bytes(memoryview(data)[start : start + count])


def _array(*_: object) -> object:
    """``_reconstruct(class, (0,), b'b')``, an array that its state fills."""
    return PickledArray()


def _from_buffer(data: object, kind: object, shape: object, order: object, *_: object) -> object:
    made = PickledArray()
    made.fill(shape, dtype_of(kind), data, fortran=order == "F")
    return made


def _from_jax(_: object, __: object, state: object, *___: object) -> object:
    """``_reconstruct_array(function, arguments, state, ...)``: an array of JAX, with what NumPy's would be made of."""
    made = PickledArray()
    made.build(state)
    return made


def _dtype(code: object, *_: object) -> object:
    return dtype_of(code)


def _scalar(kind: object, data: object = None) -> object:
    """A number of NumPy as one of Python."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(kind, PickledDtype) or not isinstance(data, bytes):
        return NotImplemented
    code = _SCALARS.get(kind.name)
    if code is None:
        return NotImplemented
    return struct.unpack((">" if kind.big else "<") + code, data)[0]


CONSTRUCTORS: dict[Global, Callable[..., object]] = {Global("numpy", "dtype"): _dtype}
for _core in ("numpy.core", "numpy._core"):
    CONSTRUCTORS[Global(f"{_core}.multiarray", "_reconstruct")] = _array
    CONSTRUCTORS[Global(f"{_core}.multiarray", "scalar")] = _scalar
    CONSTRUCTORS[Global(f"{_core}.numeric", "_frombuffer")] = _from_buffer
CONSTRUCTORS[Global("jax._src.array", "_reconstruct_array")] = _from_jax
for _module in ("jax._src.device_array", "jax.interpreters.xla", "jax._src.dispatch"):  # of JAX before 0.4
    CONSTRUCTORS[Global(_module, "reconstruct_device_array")] = _from_jax
"""Functions that rebuild NumPy's values, by the name that a pickle calls."""
