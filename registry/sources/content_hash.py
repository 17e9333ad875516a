"""Content hash of a model's tensors, equal for every file format."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.sources.dtypes import is_float

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from registry.types import Checkpoint, TensorInfo

__all__ = ["Facts", "identify"]

_CHUNK = 1 << 20  # bytes compared at a time; a multiple of every element size
_WORD = {"float16": "<u2", "bfloat16": "<u2", "float32": "<u4", "float64": "<u8"}


class Facts(NamedTuple):
    """Properties of a tensor's bytes, found while hashing.

    ``digest``: sha256 of the bytes, computed only if another tensor has the same dtype and shape. ``zero``: the dtype
    is floating point and every element is zero, of either sign. ``constant``: the dtype is floating point and all
    elements have the same bytes. ``bytes``: size as stored.
    """

    digest: bytes
    zero: bool
    constant: bool
    bytes: int


def identify(checkpoint: Checkpoint) -> tuple[str, dict[str, Facts]]:
    """Content hash of all tensors, and `Facts` by tensor name.

    The hash is the sha256 over the tensors sorted by name. For each tensor it covers name, dtype, shape and bytes, each
    preceded by its length as 8 little-endian bytes, so that different sets of tensors have different inputs.

    Returns
    -------
    tuple of str and dict
        64 hexadecimal digits, and one `Facts` per tensor name.
    """
    whole = hashlib.sha256()
    shared = Counter((info.dtype, info.shape) for info in checkpoint.tensors)
    facts: dict[str, Facts] = {}
    for info in sorted(checkpoint.tensors, key=lambda t: t.name):
        data = checkpoint.raw(info.name)
        for field in (info.name.encode(errors="surrogatepass"), info.dtype.encode(), repr(info.shape).encode(), data):
            whole.update(len(field).to_bytes(8, "little"))
            whole.update(field)
        alike = is_float(info.dtype) and len(info.shape) > 1 and shared[info.dtype, info.shape] > 1
        digest = hashlib.sha256(data).digest() if alike else b""
        facts[info.name] = Facts(digest, *_uniform(data, info), len(data))
        del data, field  # released before the next tensor is read, so that only one is in memory
    return whole.hexdigest(), facts


def _uniform(data: memoryview, info: TensorInfo) -> tuple[bool, bool]:
    """Whether all elements are zero, and whether all are equal; stops at the first chunk that answers both."""
    if not is_float(info.dtype) or len(data) == 0:
        return False, False
    words: NDArray[np.unsignedinteger] = np.frombuffer(data, dtype=_WORD[info.dtype])
    step = _CHUNK // words.itemsize
    zero = constant = True
    for start in range(0, words.size, step):
        chunk = words[start : start + step]
        constant = constant and bool((chunk == words[0]).all())
        zero = zero and not (chunk << np.ones((), chunk.dtype)).any()  # the shift drops the sign: -0.0 is zero too
        if not (zero or constant):
            break
    return zero, constant
