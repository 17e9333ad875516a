"""Content hash of a model's weights, equal for every file format, and what is found while the bytes are read."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.sources.base import verify
from registry.sources.dtypes import bits_of, is_float
from registry.types import VectorCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from registry.sources.effective_weights import EffectiveTensor
    from registry.types import Checkpoint, TensorInfo

__all__ = ["Facts", "content_hash", "header_facts", "header_hash", "read_facts", "vector_counts"]

_CHUNK = 1 << 20  # bytes compared at a time; a multiple of every element size
_AT_ONCE = 64 * 2**20  # bytes of a tensor read at a time; a multiple of every element size
_WORD = {"float16": "<u2", "bfloat16": "<u2", "float32": "<u4", "float64": "<u8"}
# The bits of the exponent; where all are set, the value is infinite or NaN.
_EXPONENT: dict[str, np.unsignedinteger] = {
    "float16": np.uint16(0x7C00),
    "bfloat16": np.uint16(0x7F80),
    "float32": np.uint32(0x7F800000),
    "float64": np.uint64(0x7FF0000000000000),
}
_SEPARATORS = re.compile(r"[./:]")
# Of the last part of a name, in lower case. Vectors of other names may start at random: attention vectors, decay rates.
_PATTERNS = {
    "gains": re.compile(r"weight|scale|gain|(\w+_)?gamma(_\d+)?"),
    "statistics": re.compile(r"(running|moving)_(mean|var|variance)"),
    "biases": re.compile(r"bias|beta|\w+_(bias|beta)|bias_\w+"),
}


class Facts(NamedTuple):
    """Properties of a tensor's bytes, found while hashing.

    ``digest``: sha256 of the bytes. ``zero``: the dtype is floating point and every element is zero, of either sign.
    ``constant``: the dtype is floating point and all elements have the same bytes. ``bytes``: size as stored.
    ``nonfinite``: number of NaN and infinite elements of a floating-point tensor.
    """

    digest: bytes
    zero: bool
    constant: bool
    bytes: int
    nonfinite: int = 0


def read_facts(checkpoint: Checkpoint) -> dict[str, Facts]:
    """`Facts` of every stored tensor by name. At most 64 MiB of a tensor are in memory if its source reads parts.

    Raises ``WeightsError`` if a checksum of the file differs from that of its data.
    """
    verify(checkpoint)
    return {info.name: _facts(checkpoint, info) for info in sorted(checkpoint.tensors, key=lambda t: t.name)}


def header_facts(infos: Iterable[TensorInfo], bytes_of: Callable[[str], int]) -> dict[str, Facts]:
    """`Facts` of stored tensors of which the header alone is known: they count as distinct, not constant and finite.

    ``bytes_of``: size of a tensor by name.
    """
    return {info.name: Facts(info.name.encode(), False, False, bytes_of(info.name)) for info in infos}


def header_hash(location: str, entry: str, infos: Iterable[TensorInfo]) -> str:
    """Hash of what the header at a place says, as 64 hexadecimal digits; empty for weights that are nowhere.

    The sha256 over ``location``, ``entry`` and the sorted (name, dtype, shape) of all stored tensors. Files at other
    places differ, because two trainings of one network have the same header.
    """
    if not location:
        return ""
    tensors = sorted((info.name, info.dtype, repr(tuple(info.shape))) for info in infos)
    fields = [location, entry, *(text for tensor in tensors for text in tensor)]
    return _hash_of(field.encode("utf-8", "surrogateescape") for field in fields)


def _hash_of(fields: Iterable[bytes]) -> str:
    """sha256 of texts, each with its length before it."""
    return hashlib.sha256(b"".join(len(field).to_bytes(8, "little") + field for field in fields)).hexdigest()


def content_hash(
    infos: Iterable[TensorInfo], facts: Mapping[str, Facts], settings: Iterable[tuple[str, tuple[str, ...]]] = ()
) -> str:
    """Hash of the set of distinct tensors, whatever their names and order, as 64 hexadecimal digits.

    The sha256 over the sorted (dtype, shape, sha256 of the bytes), each once: a tensor stored under two names counts
    as one. Only weights belong among ``infos``; whether a file holds buffers then makes no difference. ``settings``:
    numbers that weights depend on beside their tensors, such as the scaling of an adapter, and the tensors' names.
    """
    distinct = {(info.dtype, repr(info.shape), facts[info.name].digest) for info in infos}
    for setting, parts in settings:
        distinct.add(("setting", setting, b"".join(facts[part].digest for part in parts)))
    return _hash_of(
        field for dtype, shape, digest in sorted(distinct) for field in (dtype.encode(), shape.encode(), digest)
    )


def vector_counts(tensors: Iterable[EffectiveTensor], facts: Mapping[str, Facts]) -> VectorCounts:
    """Count the vectors of more than one element, by their names, and those that are not constant.

    Parameters
    ----------
    tensors
        All tensors of the forward pass.
    facts
        `Facts` of the stored tensors by name.

    Returns
    -------
    VectorCounts
        Gains, means and variances start constant in nearly all networks, so that one that is not has been trained, or
        has seen data.
    """
    counts = dict.fromkeys(VectorCounts._fields, 0)
    kinds: dict[str, str | None] = {}  # by the last part of a name, of which a network has few
    for tensor in tensors:
        if len(tensor.shape) != 1 or tensor.shape[0] < 2 or not is_float(tensor.dtype):
            continue
        last = _SEPARATORS.split(tensor.name[-400:])[-1].lower()
        if last not in kinds:
            kinds[last] = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(last)), None)
        kind = kinds[last]
        if kind is not None:
            counts[kind] += 1
            counts[f"{kind}_moved"] += not all(facts[part].constant for part in tensor.parts)
    return VectorCounts(**counts)


def _facts(checkpoint: Checkpoint, info: TensorInfo) -> Facts:
    digest = hashlib.sha256()
    size = nonfinite = 0
    floating = zero = constant = is_float(info.dtype)
    first: NDArray[np.unsignedinteger] | None = None
    for data in _pieces(checkpoint, info):
        digest.update(data)
        size += len(data)
        if not floating or len(data) == 0:
            continue
        words: NDArray[np.unsignedinteger] = np.frombuffer(data, dtype=_WORD[info.dtype])
        first = words[:1].copy() if first is None else first
        if zero or constant:
            zero, constant = _uniform(words, first, zero=zero, constant=constant)
        nonfinite += _nonfinite(words, info.dtype)
    if first is None:
        zero = constant = False
    if size * 8 != info.size * bits_of(info.dtype, 0):
        nonfinite = 0  # not the tensor's values: what the source lists and reads differ, which reading will tell
    return Facts(digest.digest(), zero, constant, size, nonfinite)


def _pieces(checkpoint: Checkpoint, info: TensorInfo) -> Iterator[memoryview]:
    """The bytes of a tensor, in parts where it is large and its source reads parts."""
    size, span = info.size * bits_of(info.dtype, 0) // 8, getattr(checkpoint, "span", None)
    if size <= _AT_ONCE or span is None:
        yield checkpoint.raw(info.name)
        return
    for start in range(0, size, _AT_ONCE):
        yield span(info.name, start, min(start + _AT_ONCE, size))


def _uniform(
    words: NDArray[np.unsignedinteger], first: NDArray[np.unsignedinteger], *, zero: bool, constant: bool
) -> tuple[bool, bool]:
    """Whether all elements are still zero, and still equal; stops at the first chunk that answers both."""
    # The last element tells of most tensors.
    last = int(words[-1])
    constant, zero = constant and last == int(first[0]), zero and last in (0, 1 << (8 * words.itemsize - 1))
    if not (zero or constant):
        return False, False
    step = _CHUNK // words.itemsize
    for start in range(0, words.size, step):
        chunk = words[start : start + step]
        constant = constant and bool((chunk == first[0]).all())
        zero = zero and not (chunk << np.ones((), chunk.dtype)).any()  # the shift drops the sign: -0.0 is zero too
        if not (zero or constant):
            break
    return zero, constant


def _nonfinite(words: NDArray[np.unsignedinteger], dtype: str) -> int:
    mask, count = _EXPONENT[dtype], 0
    step = _CHUNK // words.itemsize
    for start in range(0, words.size, step):
        count += int(np.count_nonzero((words[start : start + step] & mask) == mask))
    return count
