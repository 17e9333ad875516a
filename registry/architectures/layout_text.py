"""Layouts as text, one line a tensor, and compressed by what they share with another.

Compressed are three columns: names with ``#`` for their numbers, those numbers as differences from the line before,
and the rest. Blocks of a network repeat each of the columns, and differ in one number at most.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

from registry.types import ArchitectureTensor, Symbolic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from registry.types import Extent, Symbol

__all__ = ["packed", "shape_text", "tensors_of", "text_of", "unpacked"]

MOST_TEXT = 64 * 2**20
"""Bytes that a layout may unpack to; the longest of the catalogue takes some 2 MB."""

_LETTERS: dict[Symbol, str] = {"classes": "c", "channels": "i"}
_SYMBOLS = {letter: symbol for symbol, letter in _LETTERS.items()}
_NUMBER = re.compile(r"(?<!\d)(?:0|[1-9]\d{0,8})(?!\d)")
_EXTENT = re.compile(r"(\d+)?([ci])([+-]\d+)?")


def text_of(tensors: Iterable[ArchitectureTensor]) -> str:
    """One line a tensor: name, extents joined by commas, flags (``b`` buffer, ``i`` not floating), name it is tied to.

    An extent is a number, or ``4c+1`` for four times the number of classes plus one; ``i``: of input channels.
    """
    lines = []
    for tensor in tensors:
        flags = ("b" if tensor.buffer else "") + ("" if tensor.floating else "i")
        cells = [tensor.name, shape_text(tensor.shape), flags, tensor.tied]
        lines.append("\t".join(cells).rstrip("\t"))
    return "\n".join(lines)


def shape_text(shape: Iterable[Extent]) -> str:
    """The extents joined by commas; the empty text for a scalar."""
    return ",".join(map(_extent_text, shape))


def _extent_text(extent: Extent) -> str:
    if isinstance(extent, int):
        return str(extent)
    factor = "" if extent.factor == 1 else str(extent.factor)
    return (
        f"{factor}{_LETTERS[extent.symbol]}{extent.offset:+d}"
        if extent.offset
        else f"{factor}{_LETTERS[extent.symbol]}"
    )


def tensors_of(text: str) -> tuple[ArchitectureTensor, ...]:
    """The tensors that `text_of` wrote. Raises ``ValueError`` for anything else."""
    found, make = [], ArchitectureTensor._make
    for line in text.split("\n") if text else ():
        name, shape, flags, tied = [*line.split("\t"), "", "", ""][:4]
        found.append(make((name, _shape(shape), "b" in flags, "i" not in flags, tied)))
    return tuple(found)


@lru_cache(4096)  # a layout has each of its shapes several times, and others have it, too
def _shape(text: str) -> tuple[Extent, ...]:
    return tuple(map(_extent, text.split(","))) if text else ()


def _extent(text: str) -> Extent:
    if text.isdecimal():
        return int(text)
    match = _EXTENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no extent")
    return Symbolic(_SYMBOLS[match[2]], int(match[1] or 1), int(match[3] or 0))


def packed(text: str, like: str = "") -> bytes:
    """The text, compressed with deflate; ``like``: a text that has much in common with it, as the dictionary.

    Raises ``ValueError`` for a name with ``#``, or with a form feed.
    """
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _dictionary(like))
    return compressor.compress(_columns(text).encode()) + compressor.flush()


def unpacked(data: bytes, like: str = "") -> str:
    """The text that was packed with the same dictionary. Raises ``ValueError`` for other bytes."""
    expander = zlib.decompressobj(-15, _dictionary(like))
    try:
        columns = expander.decompress(data, MOST_TEXT)
    except zlib.error as error:
        raise ValueError("the layout cannot be unpacked") from error
    if not expander.eof:
        raise ValueError("the layout is cut off, or too long")
    return _lines(columns.decode())


def _dictionary(like: str) -> bytes:
    return _columns(like).encode()[-32768:]


def _columns(text: str) -> str:
    if "#" in text or "\f" in text:
        raise ValueError("a name has a sign that stands for a number or ends a column")
    names, steps, rests = [], [], []
    before: list[int] = []
    for line in text.split("\n"):
        name, tab, rest = line.partition("\t")
        numbers = [int(digits) for digits in _NUMBER.findall(name)]
        names.append(_NUMBER.sub("#", name))
        steps.append(",".join(map(str, _steps(numbers, before))))
        rests.append(tab + rest)
        before = numbers + before[len(numbers) :]
    return "\f".join(map("\n".join, (names, steps, rests)))


def _steps(numbers: list[int], before: list[int]) -> list[int]:
    """The numbers less those at their places before; a place that was not there counts as zero."""
    return [number - (before[at] if at < len(before) else 0) for at, number in enumerate(numbers)]


def _lines(columns: str) -> str:
    parts = [column.split("\n") for column in columns.split("\f")]
    if len(parts) != 3 or len({len(part) for part in parts}) != 1:
        raise ValueError("the columns of the layout do not agree")
    lines = []
    before: list[int] = []
    for name, steps, rest in zip(*parts, strict=True):
        pieces = name.split("#")
        differences = [int(step) for step in steps.split(",")] if steps else []
        if len(pieces) != len(differences) + 1:
            raise ValueError("the columns of the layout do not agree")
        numbers = [step + (before[at] if at < len(before) else 0) for at, step in enumerate(differences)]
        filled = [f"{piece}{number}" for piece, number in zip(pieces, numbers, strict=False)]
        lines.append("".join([*filled, pieces[-1], rest]))
        before = numbers + before[len(numbers) :]
    return "\n".join(lines)
