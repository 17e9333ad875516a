"""Quantised weights of MNN: codes behind a table of the values that they stand for, and a scale for each block.

A block is the weights of one output, or a part of them of equal size; blocks lie one behind the other. A value is
code * scale, or code * scale + offset where each block has a pair (minimum, scale). Source: ``schema/default`` (table
IDSTQuan), ``source/core/IDSTDecoder.hpp`` and ``ConvolutionCommon::load`` (alibaba/MNN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.files.lazy_tensors import LazyTensor, computed
from registry.sources.quantised.bit_fields import unpack_high_first

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from registry.sources.files.flatbuffer import Table

__all__ = ["Coding", "coding_of", "dequantised", "scattered", "stated_shape"]

_CODES, _SPARSE, _HALF, _PLAIN = 1, 2, 3, 4
_STEP = 1 << 20  # codes taken apart at once
_REMEDY = "convert the model again, without quantising"


@dataclass(frozen=True, slots=True)
class Coding:
    """How a weight is coded, as its table says; ``half``: the scales are float16. Names are those of MNN."""

    kind: int
    scale: float
    bits: int
    least: int
    read_type: int
    scaled: bool
    wide: bool
    half: bool

    @property
    def is_half(self) -> bool:
        """Whether the weights are float16 and no codes."""
        return self.kind == _HALF

    @property
    def is_paired(self) -> bool:
        """Whether each block has a pair of minimum and scale, and not a scale alone."""
        return self.read_type != 0 or self._is_old

    @property
    def _is_old(self) -> bool:
        return self.kind == _PLAIN and self.least == 0 and abs(self.scale) < 1e-6

    def offsets_and_scales(self, alpha: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of each block, in float32 and in MNN's order of operations."""
        factor = np.float32(1.0 if self._is_old else self.scale)
        if not self.is_paired:
            scales = alpha.astype(np.float32) * factor
            return np.zeros_like(scales), scales
        low, scales = alpha.astype(np.float32).reshape(-1, 2).T
        least = self.least or -128  # older converters do not state it
        if least < 0:
            low = low - np.float32(least) * scales
        return low * factor, scales * factor


def coding_of(table: Table, where: str) -> Coding:
    """Read the settings of an IDSTQuan. Raises ``WeightsError`` for a coding that is not known."""
    found = Coding(
        kind=table.number(2, "i"), scale=table.real(4), bits=table.number(7, "i"), least=table.number(8, "i"),
        read_type=table.number(9, "i"), scaled=bool(table.number(10, "b")), wide=bool(table.number(11, "b")),
        half=bool(table.number(15, "b")),
    )  # fmt: skip
    if found.kind not in (_CODES, _SPARSE, _HALF, _PLAIN):
        raise WeightsError(f"{where} is coded in an unknown way ({found.kind})", _REMEDY)
    if found.scaled and found.scale != 1.0:
        raise WeightsError(
            f"{where} has int8 codes whose scale is that of the layer's results, and no scale of its own", _REMEDY
        )
    if table.number(15, "b") not in (0, 1):
        raise WeightsError(f"{where} has scales of an unknown type ({table.number(15, 'b')})", _REMEDY)
    return found


def stated_shape(codes: LazyTensor, coding: Coding, where: str) -> tuple[int, ...]:
    """The extents before codes of the kinds 1 and 2; empty for others."""
    if coding.kind not in (_CODES, _SPARSE):
        return ()
    return _Stream(codes, where).extents(coding.wide)


def dequantised(codes: LazyTensor, alpha: LazyTensor, coding: Coding, shape: tuple[int, ...], where: str) -> LazyTensor:
    """The values of codes, float32.

    Parameters
    ----------
    codes
        The bytes of the buffer, uint8.
    alpha
        Scales, or pairs of minimum and scale: float32 or float16.
    coding
        How they are coded.
    shape
        That of the weight.
    where
        For messages.

    Raises
    ------
    WeightsError
        There is no whole number of weights to a block; when it is read, codes do not fit the shape.
    """
    count = math.prod(shape)
    blocks = math.prod(alpha.shape) // (2 if coding.is_paired else 1)
    if not blocks or count % blocks or math.prod(alpha.shape) % (2 if coding.is_paired else 1):
        raise WeightsError(f"{where} has {count} weights and {math.prod(alpha.shape)} numbers of scales", _REMEDY)
    each = count // blocks
    row = count // shape[0] if shape and shape[0] else 0

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        low, high = start * row, stop * row
        offsets, scales = coding.offsets_and_scales(np.asarray(alpha.values(), np.float32))
        read = _reader(codes, alpha, coding, count, where)  # before memory is taken: it looks for all codes
        found = np.empty(high - low, np.float32)
        for first in range(low, high, _STEP):
            last = min(first + _STEP, high)
            block = np.arange(first, last) // each
            with np.errstate(all="ignore"):
                found[first - low : last - low] = read(first, last).astype(np.float32) * scales[block] + offsets[block]
        return found.reshape(stop - start, *shape[1:])

    bits = coding.bits if 1 <= coding.bits <= 8 else 8
    stored = codes.bytes + alpha.bytes
    return computed("float32", shape, rows, precision=f"int{bits} mnn", stored=stored, whole=coding.kind == _SPARSE)


def scattered(places: LazyTensor, values: LazyTensor, shape: tuple[int, ...], where: str) -> LazyTensor:
    """A weight of which only the elements at ``places`` (uint32) are stored, each with its value; the rest is zero."""
    if places.shape != values.shape:
        raise WeightsError(f"{where} has {values.shape} values for {places.shape} places", _REMEDY)
    count = math.prod(shape)
    _check_share(count, places.shape[0] if places.shape else 0, where)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        at = np.asarray(places.values())
        if len(at) and int(at.max()) >= count:
            raise WeightsError(f"{where} has a value at place {int(at.max())}, of {count}", _REMEDY)
        found = np.zeros(count, np.float32)
        found[at] = values.values()
        return found.reshape(shape)[start:stop]

    return computed("float32", shape, rows, stored=places.bytes + values.bytes, whole=True)


def _check_share(count: int, kept: int, where: str) -> None:
    """Refuse a weight that is nearly all zeros, which would take far more memory than its file has bytes."""
    if count > 64 * kept + 2**16:
        raise WeightsError(f"{where} has {kept} of {count} weights, and claims that the rest is zero", _REMEDY)


class _Stream:
    """The buffer of codes, read from its start."""

    def __init__(self, codes: LazyTensor, where: str) -> None:
        self._codes = codes
        self._where = where
        self.at = 0

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > self._codes.bytes:
            raise WeightsError(f"{self._where} has codes of {self._codes.bytes} bytes, which are too few", _REMEDY)
        self.at += count
        return self._codes.span(self.at - count, self.at)

    def extents(self, wide: bool) -> tuple[int, ...]:
        count = self.take(1)[0]
        if not 1 <= count <= 4:
            raise WeightsError(f"{self._where} has codes of {count} dimensions", _REMEDY)
        return tuple(int(n) for n in np.frombuffer(self.take(count * (4 if wide else 2)), "<u4" if wide else "<u2"))

    def table(self) -> NDArray[np.int8]:
        """The values that codes stand for, in rising order; a count of 0 is 256."""
        return np.sort(np.frombuffer(self.take(self.take(1)[0] or 256), np.int8))


def _bytes(stream: _Stream, bits: int) -> NDArray[np.uint8]:
    return np.frombuffer(stream.take(-(-bits // 8)), np.uint8)


def _bits_for(count: int) -> int:
    """Bits of a number below ``count``."""
    return max(1, (count - 1).bit_length())


def _reader(
    codes: LazyTensor, alpha: LazyTensor, coding: Coding, count: int, where: str
) -> Callable[[int, int], NDArray[np.integer]]:
    """A function that gives the codes from one to another."""
    if coding.kind == _PLAIN:
        if codes.bytes != count:
            raise WeightsError(f"{where} has {codes.bytes} codes for {count} weights", _REMEDY)
        return lambda start, stop: np.frombuffer(codes.span(start, stop), np.int8)
    stream = _Stream(codes, where)
    extents = stream.extents(coding.wide)
    if math.prod(extents) != count:
        raise WeightsError(f"{where} has codes of shape {extents} for {count} weights", _REMEDY)
    if coding.kind == _SPARSE:
        whole = _sparse(stream, extents, alpha, where)
        return lambda start, stop: whole[start:stop]
    table = stream.table()
    bits, begin = _bits_for(len(table)), stream.at
    stream.take(-(-bits * count // 8))

    def read(start: int, stop: int) -> NDArray[np.integer]:
        low = start * bits // 8
        data = codes.span(begin + low, begin + -(-stop * bits // 8))
        found = unpack_high_first(np.frombuffer(data, np.uint8), bits, start * bits - 8 * low, stop - start)
        if len(found) and int(found.max()) >= len(table):
            raise WeightsError(f"{where} has a code {int(found.max())}, of {len(table)}", _REMEDY)
        values: NDArray[np.integer] = table[found]
        return values

    return read


def _sparse(stream: _Stream, extents: tuple[int, ...], alpha: LazyTensor, where: str) -> NDArray[np.int8]:
    """Codes of which those of zeros are left out: the distance of each to the one before it, then its value."""
    count = math.prod(extents)
    kept = int.from_bytes(stream.take(4), "little")
    wide = stream.take(1)[0]
    if kept > count + count // 2 + 256 or not 1 <= wide <= 8:
        raise WeightsError(f"{where} has {kept} codes in steps of {wide} bits, of {count}", _REMEDY)
    _check_share(count, kept, where)
    places = np.cumsum(unpack_high_first(_bytes(stream, wide * kept), wide, 0, kept).astype(np.int64))
    stated = stream.take(1)[0] or 256
    table = np.unique(np.frombuffer(stream.take(stated), np.int8))
    bits = _bits_for(stated)
    found = unpack_high_first(_bytes(stream, bits * kept), bits, 0, kept)
    if kept and (int(places[-1]) >= count or int(found.max()) >= len(table)):
        raise WeightsError(f"{where} has codes beyond its end or its table", _REMEDY)
    whole = np.zeros(count, np.int8)
    if math.prod(alpha.shape) == 2 * extents[0]:
        low, scales = np.asarray(alpha.values(), np.float32).reshape(-1, 2).T
        least = -(1 << (bits - 1))
        with np.errstate(all="ignore"):
            zeros = np.where(scales > 1e-6, np.round(-low / scales) + least, least)
        if not np.isfinite(zeros).all() or np.abs(zeros).max(initial=0) > 256:
            raise WeightsError(f"{where} has scales of which none stands for zero", _REMEDY)
        whole = np.repeat(zeros.astype(np.int64).astype(np.int8), count // extents[0])
    whole[places] = table[found]
    return whole
