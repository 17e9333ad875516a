"""Weight sketches: a few numbers of each layer by which weights of two networks are compared without the weights.

A sketch is a count sketch (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002) of the
centred layer. The dot product of two sketches is an unbiased estimate of the cosine between two layers of one shape;
for unrelated layers with d degrees of freedom its variance is 1/d and the part of the pairs of elements that share one
of the m buckets, which is below 1/m: of each 1,024 successive elements as many share each bucket.

The mean over outputs is subtracted from each input and kernel position, then the mean over inputs, so that layers whose
units are permuted independently have a cosine of mean zero, whatever their means are. Bucket and sign of an element
depend on the shape of its layer and on its index alone: the sign is a random bit, the bucket is the index modulo 1,024,
each 1,024 elements turned by a random number (exclusive or) that recurs after 61 times 1,024 elements. With fewer
buckets it is taken modulo their number, so that a sketch is folded onto one of fewer buckets by adding its parts.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "FEWEST",
    "MOST",
    "SKETCH_VERSION",
    "SMALLEST",
    "buckets_for",
    "centred",
    "folded",
    "sketch_of",
    "variances",
]

SKETCH_VERSION = 1
"""Of the hash, the centring and the number of buckets; sketches of different versions are not compared."""

NUMBERS = 2048
"""Numbers of a model's sketches, as long as it has few enough layers."""
FEWEST, MOST = 16, 1024
"""Buckets of a layer."""
SMALLEST = 64
"""Elements of the smallest layer that is sketched."""
_TURNS = 61  # a prime, so that no period of a layer's rows is one of the turns
_CHUNK = _TURNS * MOST  # elements at a time: they stay in the processor's cache
_REMEMBERED = 1 << 16  # elements of the largest layer whose signs are remembered, 8 kB
_SMALL = 1 << 14  # elements of the largest layer whose signs are remembered as factors
_SAFE = 1e-12, 1e12  # of norms: squares of most values are normal numbers of float32, and none overflows


def buckets_for(layers: int) -> int:
    """Buckets of each layer of a model of so many: the power of two below 2,048 / layers, from 16 to 1,024."""
    share = NUMBERS // max(1, layers)
    return min(MOST, max(FEWEST, 1 << max(0, share.bit_length() - 1)))


def centred(matrix: NDArray[np.floating], kernel: Sequence[int] = ()) -> tuple[NDArray[np.float32], float]:
    """A layer (out, in, k) with the means over outputs and, of more than one input, over inputs taken away.

    Parameters
    ----------
    matrix
        W of shape (p, q), outputs by flattened inputs, C-contiguous.
    kernel
        Spatial extents of a convolution, whose product k divides q.

    Returns
    -------
    layer : ndarray
        float32, shape (p, q / k, k), a copy; scaled by a power of two where float32 could not hold squares.
    norm : float
        Euclidean norm of the uncentred layer, scaled likewise.
    """
    positions = math.prod(kernel)
    norm = _norm(matrix.reshape(-1)) if matrix.dtype == np.float32 else 0.0
    if not _SAFE[0] < norm < _SAFE[1]:
        largest = float(np.abs(matrix).max())
        matrix = (matrix * math.ldexp(1.0, -math.frexp(largest)[1])).astype(np.float32)
        norm = _norm(matrix.reshape(-1))
    outputs, inputs = len(matrix), matrix.shape[1] // positions
    # Products with vectors of ones are many times as fast as means along an axis, and `dot` of small ones than `@`.
    means = _ones(outputs).dot(matrix)
    means *= np.float32(1 / outputs)
    layer = matrix - means
    by_input = layer.reshape(outputs, inputs, positions)
    if inputs > 1:
        means = layer.dot(_ones(inputs) if positions == 1 else _sums_over_inputs(inputs, positions))
        means *= np.float32(1 / inputs)
        by_input -= means.reshape(outputs, 1, positions)
    return by_input, norm


@lru_cache(maxsize=1024)
def _ones(count: int) -> NDArray[np.float32]:
    return np.ones(count, np.float32)


@lru_cache(maxsize=64)
def _sums_over_inputs(inputs: int, positions: int) -> NDArray[np.float32]:
    """The matrix (in k, k) by which a row's sums over inputs, for each kernel position, are a product."""
    return np.tile(np.eye(positions, dtype=np.float32), (inputs, 1))


def sketch_of(matrix: NDArray[np.floating], kernel: Sequence[int], buckets: int) -> NDArray[np.float16] | None:
    """Sketch of a layer that is scaled to norm 1, float16 (buckets,); None where a layer has none.

    That are layers with fewer than 64 elements, and those of which centring leaves nothing: with one output, or
    constant.

    Parameters
    ----------
    matrix, kernel
        As `centred` takes them. All values are finite.
    buckets
        A power of two from `FEWEST` to `MOST`.

    Returns
    -------
    ndarray or None
        Takes O(p q) time and memory of one float32 copy.
    """
    if matrix.size < SMALLEST or len(matrix) < 2:
        return None
    layer, whole = centred(matrix, kernel)
    flat = layer.reshape(-1)
    norm = _norm(flat)
    if norm <= 1e-6 * whole:  # what rounding leaves of a constant layer is no direction
        return None
    shape = layer.shape[0], layer.shape[1], layer.shape[2]
    if flat.size <= _SMALL:
        np.multiply(flat, _factors(shape), out=flat)
        return (np.bincount(_places(buckets)[: flat.size], flat, buckets) / norm).astype(np.float16)
    signs = _remembered(shape) if flat.size <= _REMEMBERED else _signs(shape)
    # Elements of one turn and place are added first: they share their bucket.
    added = np.zeros(min(flat.size, _CHUNK), np.float32)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        bits = np.unpackbits(signs[start // 8 : -(-(start + part.size) // 8)], count=part.size, bitorder="little")
        flipped = part.view(np.uint32) ^ (bits.astype(np.uint32) << np.uint32(31))
        added[: part.size] += flipped.view(np.float32)
    return (np.bincount(_places(buckets)[: added.size], added, buckets) / norm).astype(np.float16)


def _norm(flat: NDArray[np.float32]) -> float:
    """Euclidean norm; products of chunks are added in float64."""
    if flat.size <= _CHUNK:
        return math.sqrt(flat.dot(flat))
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return math.sqrt(sum(float(part @ part) for part in parts))


def _signs(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Random bits that a layer's shape decides, one an element; Philox is counter-based, and its bits stay."""
    key = int.from_bytes(hashlib.sha256(",".join(map(str, shape)).encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(-(-math.prod(shape) // 64))
    return words.astype("<u8", copy=False).view(np.uint8)


_remembered = lru_cache(maxsize=512)(_signs)


@lru_cache(maxsize=256)
def _factors(shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The signs of a small layer as 1 and -1, 64 kB at most: products with them are fewer calls than flipped bits."""
    bits = np.unpackbits(_signs(shape), count=math.prod(shape), bitorder="little")
    return np.float32(1) - np.float32(2) * bits


@lru_cache(maxsize=MOST.bit_length())
def _places(buckets: int) -> NDArray[np.intp]:
    """Buckets of 61 times 1,024 successive elements; the same in all layers, whose signs differ."""
    turns = np.random.Philox(key=SKETCH_VERSION).random_raw(_TURNS) % MOST
    return (np.arange(MOST) ^ turns.astype(np.intp)[:, None]).reshape(-1) % buckets


def folded(values: NDArray[np.floating], buckets: int) -> NDArray[np.float64]:
    """Sketches (..., m) of fewer buckets, which divide m: the same as if they had been made of so many."""
    parts = values.shape[-1] // buckets
    return np.asarray(values.astype(np.float64).reshape(*values.shape[:-1], parts, buckets).sum(axis=-2))


def variances(shapes: NDArray[np.int64], buckets: int) -> NDArray[np.float64]:
    """Variance of the estimated cosine of unrelated layers: 1 / d, and the part of pairs of elements in one bucket.

    Parameters
    ----------
    shapes
        int64 (n, 3): outputs, inputs, kernel positions of layers that have a sketch.
    buckets
        Number of buckets that the compared sketches have.

    Returns
    -------
    ndarray
        float64 (n,). d = (out - 1) max(1, in - 1) k degrees of freedom are left by centring.
    """
    outputs, inputs, positions = shapes.T
    size = outputs * inputs * positions
    blocks, rest = np.divmod(size, MOST)
    each, more = np.divmod(rest, buckets)
    # Ordered pairs in one bucket: inside the blocks of 1,024, inside the rest, and between those.
    within = blocks * MOST * (MOST // buckets - 1) + more * (each + 1) * each + (buckets - more) * each * (each - 1)
    whole = size.astype(np.float64) ** 2
    between = (whole - blocks * MOST**2 - rest**2) / buckets
    freedom = (outputs - 1) * np.maximum(1, inputs - 1) * positions
    return np.asarray((within + between) / whole + 1 / freedom)
