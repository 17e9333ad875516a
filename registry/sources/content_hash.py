"""Identity of weights by content: one hash that is the same from every format, and facts that fall out of taking it."""

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

_CHUNK = 1 << 20  # bytes looked at in one go; a multiple of every element's size
_WORD = {"float16": "<u2", "bfloat16": "<u2", "float32": "<u4", "float64": "<u8"}


class Facts(NamedTuple):
    """What reading a tensor's bytes showed.

    ``digest``: sha256 of the bytes, only where another tensor has the same dtype and shape; ``zero``: floating, and
    every element is zero of either sign; ``constant``: floating, and all elements have the same bytes; ``bytes``: as
    stored.
    """

    digest: bytes
    zero: bool
    constant: bool
    bytes: int


def identify(checkpoint: Checkpoint) -> tuple[str, dict[str, Facts]]:
    """Content hash of all tensors, and the facts by tensor name.

    The hash is the sha256 over the tensors sorted by name, of each its name, dtype, shape and bytes, every field
    behind its length as 8 little-endian bytes: no two different sets of tensors give the same input.

    Returns
    -------
    tuple of str and dict
        64 hex digits, and one `Facts` for each tensor.
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
        del data, field  # before the next tensor is read: one of them is in memory, not two
    return whole.hexdigest(), facts


def _uniform(data: memoryview, info: TensorInfo) -> tuple[bool, bool]:
    """Whether all elements are zero, and whether all are the same; most tensors are through after one chunk."""
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
