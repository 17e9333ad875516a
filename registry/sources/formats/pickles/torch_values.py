"""torch's tensors in pickles: rebuilt as places in storages, from the arguments that torch's functions would get.

The functions are those of ``torch/_utils.py`` and ``torch/_tensor.py``. A storage is a persistent id of the pickle, of
which the reader of the container says where its bytes lie. The elements of a tensor are compared with the storage
before anything is read: a stride of zero would make terabytes of four bytes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import bits_of
from registry.sources.files.lazy_tensors import LazyTensor
from registry.sources.formats.pickles import builtin_values, numpy_arrays
from registry.sources.formats.pickles.pickle_records import Global, Instance
from registry.sources.formats.pickles.stored_tensors import (
    DAMAGED,
    RefusedTensor,
    StoredTensor,
    extents,
    is_contiguous,
    strided,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource

__all__ = ["PLAIN", "QUANTISED", "Storage", "TorchTensor", "WrappedTensor", "dtype_name", "storage_dtype"]

QUANTISED = {
    "qint8": ("int8", 8), "quint8": ("uint8", 8), "qint32": ("int32", 32), "quint4x2": ("uint8", 4),
    "quint2x4": ("uint8", 2),
}  # fmt: skip
"""torch's dtypes of codes: the dtype of their bytes, and the bits of a code."""

_PRECISION = {"qint8": "int8", "quint8": "int8", "qint32": "int32", "quint4x2": "int4", "quint2x4": "int2"}
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4", "UntypedStorage": "uint8", "_UntypedStorage": "uint8",
}  # fmt: skip
_ALIASES = {
    "double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32", "short": "int16",
    "cfloat": "complex64", "cdouble": "complex128", "chalf": "complex32",
}  # fmt: skip
_MAX_START = 2**48
_DENSE = "make it dense before saving: to_dense()"
_BEFORE = "save its weights before quantisation"


class Storage:
    """Bytes that tensors are views of. ``source`` is None until the container says where they are.

    ``key``: what two storages have in common that are the same memory. ``size`` and ``offset`` are in bytes.
    """

    __slots__ = ("big", "dtype", "key", "offset", "size", "source")

    def __init__(
        self,
        dtype: str,
        size: int,
        key: Hashable,
        source: ByteSource | None = None,
        offset: int = 0,
        *,
        big: bool = False,
    ) -> None:
        self.dtype = dtype
        self.size = size
        self.key = key
        self.source = source
        self.offset = offset
        self.big = big


def storage_dtype(kind: object) -> str:
    """The dtype of a storage's class: ``float32`` of ``torch.FloatStorage``; raises ``ValueError`` for no storage."""
    if isinstance(kind, Global) and kind.module.partition(".")[0] == "torch":
        found = _STORAGES.get(kind.name)
        if found:
            return found
    raise ValueError("a storage is of no known class")


@cache
def width_of(dtype: str) -> int:
    """Bytes of an element in a storage; codes of fewer than 8 bits are counted as bytes."""
    if dtype in QUANTISED:
        return bits_of(QUANTISED[dtype][0]) // 8
    return max(1, bits_of(dtype) // 8)


def dtype_name(value: object) -> str:
    """Torch's name of a dtype in a pickle; raises ``ValueError`` for an unknown one."""
    if isinstance(value, Global) and value.module == "torch":
        name = _ALIASES.get(value.name, value.name)
        if name in QUANTISED or bits_of(name, 0):
            return name
    raise ValueError("a dtype is not known")


class TorchTensor(StoredTensor):
    """A view of a storage. ``start`` and ``strides`` are in elements. ``turned``: conjugated, or negated.

    ``scheme``: of a tensor of codes, their scales and zero points, and the axis along which they differ (None: one of
    each); a value is (code - zero point) x scale.

    Raises
    ------
    ValueError
        It reaches beyond its storage.
    """

    __slots__ = ("conjugated", "dtype", "negated", "scheme", "shape", "start", "storage", "strides")

    def __init__(
        self, storage: object, start: object, shape: object, strides: object, dtype: str | None = None
    ) -> None:
        if not isinstance(storage, Storage):
            raise ValueError("a tensor has no storage")
        self.storage = storage
        self.dtype = dtype or storage.dtype
        if type(start) is not int or not 0 <= start < _MAX_START:
            raise ValueError("a tensor has no place in its storage")
        self.start: int = start
        self.shape = extents(shape)
        self.strides = extents(strides)
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor has as many strides as dimensions")
        self.conjugated = self.negated = False
        self.scheme: _Scheme | None = None
        end = start + 1
        for extent, step in zip(self.shape, self.strides, strict=True):
            if not extent:
                return
            end += (extent - 1) * step
        bits = QUANTISED[self.dtype][1] if self.dtype in QUANTISED else 8 * width_of(self.dtype)
        if end * bits > 8 * storage.size:
            raise ValueError("a tensor reaches beyond its storage")

    @property
    def place(self) -> Hashable:
        """Storage and view, as text: the hash of numbers could be chosen so that all are one."""
        view = (self.storage.key, self.start, self.dtype, self.shape, self.strides, self.conjugated, self.negated)
        return repr(view)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of the elements, and of the storage."""
        return math.prod(self.shape) * width_of(self.dtype), self.storage.size

    def build(self, state: object) -> None:
        """The state of a tensor of torch before 0.4, which has no values."""

    def lazy(self, name: str) -> LazyTensor:
        """The values, read when asked for."""
        if self.storage.source is None:
            raise WeightsError(f"tensor {name} has no data in the file", DAMAGED)
        if self.dtype in QUANTISED:
            return self._dequantised(name)
        shape, dtype = self.shape, self.dtype
        if dtype == "float4_e2m1fn_x2":  # two numbers a byte: torch counts bytes
            if not shape or self.strides[-1] not in (0, 1) or not self._plain:
                raise WeightsError(f"tensor {name} is a view of {dtype}", "make it contiguous before saving")
            dtype = "uint8"
        found = self._view(dtype)
        if dtype != self.dtype:
            return LazyTensor(self.dtype, (*shape[:-1], 2 * shape[-1]), found.span, whole=found.whole)
        return found

    @property
    def _plain(self) -> bool:
        return not self.conjugated and not self.negated

    def _view(self, dtype: str) -> LazyTensor:
        storage = self.storage
        assert storage.source is not None  # noqa: S101 - for the type alone; `lazy` answers it
        changed = None if self._plain else self._changed
        offset = storage.offset + self.start * width_of(dtype)
        return strided(storage.source, offset, dtype, self.shape, self.strides, big=storage.big, changed=changed)

    def _changed(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        if self.conjugated:
            values = np.conj(values)
        return np.negative(values) if self.negated else values

    def _dequantised(self, name: str) -> LazyTensor:
        if self.scheme is None:
            raise WeightsError(f"tensor {name} ({self.dtype}) has no scales", _BEFORE)
        stored, bits = QUANTISED[self.dtype]
        scheme, shape = self.scheme, self.shape
        count = math.prod(shape)
        if bits < 8:
            if not _is_dense(self) or self.start:
                raise WeightsError(f"tensor {name} is a view of {self.dtype}", _BEFORE)
            packed = TorchTensor(self.storage, 0, (-(-count * bits // 8),), (1,), stored)
            codes = packed.lazy(name)
        else:
            codes = self._view(stored)
        scales, zeros = scheme.spread(name, len(shape))

        def span(start: int, stop: int) -> memoryview:
            found: NDArray[Any] = codes.values()
            if bits < 8:
                places = np.arange(0, 8, bits, dtype=np.uint8)
                found = ((found[:, None] >> places) & (2**bits - 1)).reshape(-1)[:count]
            found = found.reshape(shape)
            if scheme.floats:
                values = (found.astype(np.float32) - zeros) * scales
            else:
                values = scales * (found.astype(np.int64) - zeros).astype(scales.dtype)
            data: memoryview = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data
            return data[start:stop]

        return LazyTensor("float32", shape, span, f"{_PRECISION[self.dtype]} torch", -(-count * bits // 8), whole=True)


def _is_dense(tensor: TorchTensor) -> bool:
    return is_contiguous(tensor.shape, tensor.strides)


class _Scheme:
    """Scales and zero points of a tensor of codes: two numbers, or two vectors along an axis.

    torch multiplies with one scale in float32, and with a vector of scales in their own precision.
    """

    __slots__ = ("axis", "floats", "scales", "zeros")

    def __init__(self, scales: object, zeros: object, axis: int | None, *, floats: bool) -> None:
        self.scales = scales
        self.zeros = zeros
        self.axis = axis
        self.floats = floats

    def spread(self, name: str, dimensions: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scales and zero points in a shape that broadcasts to that of the codes."""
        scales, zeros = (_numbers(part, name) for part in (self.scales, self.zeros))
        if self.axis is None:
            scales = scales.astype(np.float32)
        else:
            shape = [-1 if axis == self.axis else 1 for axis in range(dimensions)]
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        return scales.astype(np.float32) if self.floats else scales, zeros.astype(
            np.float32 if self.floats else np.int64
        )


def _numbers(part: object, name: str) -> NDArray[Any]:
    if isinstance(part, TorchTensor):
        return part.lazy(name).values()
    return np.array(part, np.float64)


class WrappedTensor(StoredTensor):
    """A tensor of a class that holds others: codes and scales of torchao, the part of a distributed tensor.

    ``kind`` is the class, ``attributes`` its state.
    """

    __slots__ = ("attributes", "dtype", "kind", "shape")

    def __init__(self, kind: object, dtype: str, shape: tuple[int, ...]) -> None:
        self.kind = kind
        self.dtype = dtype
        self.shape = shape
        self.attributes: Mapping[object, object] = {}

    @property
    def class_name(self) -> str:
        """The class with its module."""
        return str(self.kind)

    @property
    def place(self) -> Hashable:
        """The record itself."""
        return id(self)

    @property
    def memory(self) -> tuple[int, int]:
        """Nothing: the tensors that it holds are asked."""
        return 0, 0

    @property
    def local(self) -> StoredTensor | None:
        """Of a distributed tensor, what this process has of it, if that is all."""
        part = self.attributes.get("_local_tensor")
        return part if isinstance(part, StoredTensor) and part.shape == self.shape else None

    def lazy(self, name: str) -> LazyTensor:
        """A whole distributed tensor; raises ``WeightsError`` for a part, and for other classes."""
        if self.local is not None:
            return self.local.lazy(name)
        if "_local_tensor" in self.attributes:
            raise WeightsError(
                f"tensor {name} of shape {list(self.shape)} is distributed, and the file has a part of it",
                "gather it before saving: full_tensor(), or get_model_state_dict with full_state_dict=True",
            )
        raise WeightsError(
            f"tensor {name} is of the class {self.class_name[:100]}, whose values only its library gives",
            "save plain tensors",
        )


def _tensor(storage: object, start: object, shape: object, strides: object, *_: object) -> object:
    return TorchTensor(storage, start, shape, strides)


def _tensor_v2(
    storage: object, start: object, shape: object, strides: object, _grad: object = None, _hooks: object = None,
    metadata: object = None, *_: object,
) -> object:  # fmt: skip
    return _marked(TorchTensor(storage, start, shape, strides), metadata)


def _tensor_v3(
    storage: object, start: object, shape: object, strides: object, _grad: object, _hooks: object, dtype: object,
    metadata: object = None, *_: object,
) -> object:  # fmt: skip
    return _marked(TorchTensor(storage, start, shape, strides, dtype_name(dtype)), metadata)


def _marked(tensor: TorchTensor, metadata: object) -> TorchTensor:
    if isinstance(metadata, dict):
        tensor.conjugated = metadata.get("conj") is True
        tensor.negated = metadata.get("neg") is True
    return tensor


def _quantised(storage: object, start: object, shape: object, strides: object, scheme: object, *_: object) -> object:
    tensor = TorchTensor(storage, start, shape, strides)
    if not isinstance(scheme, tuple) or not isinstance(scheme[0], Global) or tensor.dtype not in QUANTISED:
        return NotImplemented
    kind = scheme[0].name
    if kind == "per_tensor_affine":
        _, scale, zero = scheme
        if not isinstance(scale, float) or type(zero) is not int or abs(zero) >= 2**31:
            raise ValueError("a scale is no number")
        tensor.scheme = _Scheme(scale, zero, None, floats=False)
        return tensor
    if kind not in ("per_channel_affine", "per_channel_affine_float_qparams"):
        return NotImplemented
    _, scales, zeros, axis = scheme
    if type(axis) is not int or not 0 <= axis < len(tensor.shape):
        raise ValueError("the axis of its scales is none of a tensor")
    for part in (scales, zeros):
        if isinstance(part, TorchTensor):
            fits = (
                part.shape == (tensor.shape[axis],) and part.dtype not in QUANTISED and not part.dtype.startswith("c")
            )
        else:
            fits = isinstance(part, list) and len(part) == tensor.shape[axis] and all(map(_is_number, part))
        if not fits:
            raise ValueError("the scales of a tensor are of another number")
    tensor.scheme = _Scheme(scales, zeros, axis, floats=kind != "per_channel_affine")
    return tensor


def _is_number(value: object) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**31)


def _parameter(data: object = None, *_: object) -> object:
    return data if isinstance(data, StoredTensor) else NotImplemented


def _of_type(function: object, kind: object, args: object, state: object = None, *_: object) -> object:
    """``_rebuild_from_type`` and ``_v2``: a tensor of a class that derives from torch's."""
    rebuild = _PLAIN.get(function) if isinstance(function, Global) else None
    if rebuild is None or type(args) is not tuple:
        return NotImplemented
    made = rebuild(*args)
    if isinstance(made, WrappedTensor):
        made.kind = kind
        record = Instance(kind)
        record.build(state)
        made.attributes = record.attributes
    return made


def _wrapper(kind: object, dtype: object, shape: object, *_: object) -> object:
    return WrappedTensor(kind, dtype_name(dtype), extents(shape))


def _sparse(layout: object, data: object = None) -> object:
    word = str(layout)[:40] if isinstance(layout, Global | str) else "sparse"
    return RefusedTensor(f"is sparse ({word})", _DENSE, _shape_in(data))


def _nested(*_: object) -> object:
    return RefusedTensor("is nested: it holds tensors of several shapes", "save each of them: unbind()", (0,))


def _shape_in(data: object) -> tuple[int, ...]:
    """The extents among the parts of a sparse tensor: a tuple of numbers."""
    for part in data if isinstance(data, tuple) else ():
        if isinstance(part, tuple) and part and all(type(extent) is int for extent in part):
            return extents(part)
    return (0,)


def _meta(dtype: object, shape: object, *_: object) -> object:
    return RefusedTensor(
        "is on the meta device: it has no data", "load its weights first", extents(shape), dtype_name(dtype)
    )


def _size(values: object = (), *_: object) -> object:
    return tuple(values) if isinstance(values, tuple | list) else NotImplemented


def _fastai(_kind: object, *args: object) -> object:
    return _tensor_v2(*args)


_UTILS: dict[str, Callable[..., object]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor_v2,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_qtensor": _quantised,
    "_rebuild_wrapper_subclass": _wrapper,
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_nested_tensor": _nested,
    "_rebuild_meta_tensor_no_storage": _meta,
    "_rebuild_device_tensor_from_cpu_tensor": _parameter,
    "_rebuild_device_tensor_from_numpy": _parameter,
    "_rebuild_xla_tensor": _parameter,
}
_PLAIN: dict[object, Callable[..., object]] = {
    **{Global("torch._utils", name): function for name, function in _UTILS.items()},
    Global("torch.nn.parameter", "Parameter"): _parameter,
    Global("torch.nn.parameter", "Buffer"): _parameter,
    Global("torch", "Tensor"): _parameter,
    Global("torch.autograd.variable", "Variable"): _parameter,
    Global("fastai.torch_core", "_fa_rebuild_tensor"): _fastai,
    Global("fastai.torch_core", "_fa_rebuild_qtensor"): lambda _kind, *args: _quantised(*args),
}

PLAIN: dict[Global, Callable[..., object]] = {
    **builtin_values.CONSTRUCTORS,
    **numpy_arrays.CONSTRUCTORS,
    **{name: function for name, function in _PLAIN.items() if isinstance(name, Global)},
    Global("torch._tensor", "_rebuild_from_type"): _of_type,
    Global("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    Global("torch.tensor", "_rebuild_from_type"): _of_type,
    Global("torch.tensor", "_rebuild_from_type_v2"): _of_type,
    Global("torch", "Size"): _size,
    Global("torch.serialization", "_get_layout"): lambda name, *_: name,
}
"""Functions that rebuild values of Python, NumPy and torch, by the name that a pickle calls; no files within."""
