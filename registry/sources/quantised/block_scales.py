"""Factors of a quantised weight: one for all of it, one an output, one a block, or one a block of each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.quantised.quantised_parts import check_scales
from registry.sources.quantised.small_floats import exponents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.sources.effective_weights import EffectiveTensor, TensorView

__all__ = ["DAMAGED", "REMEDY", "BlockScales", "blocks_of", "finite_scales", "put_weight"]

DAMAGED = "download it again, or convert it to bfloat16 with the library that wrote it"
REMEDY = "export it again as fp8 or bfloat16 with the library that wrote it"

_USUAL = (128, 32, 16, 64, 256, 512)  # extents of blocks, the most frequent first
_EXPONENTS = ("uint8", "float8_e8m0fnu")  # dtypes of scales that are powers of two


def blocks_of(
    scale: Sequence[int], weight: Sequence[int], given: Sequence[int] = (), *, ragged: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """How the shape of scales divides the shape of a weight.

    Parameters
    ----------
    scale, weight
        The shapes. Scales have one element; or one per index of the first axis, or of the first two; or as many axes
        as the weight.
    given
        Extents of a block along the last axes, where the configuration says them.
    ragged
        The last block of an axis may be shorter. Without ``given``, its extent is then taken as 128 if that fits.

    Returns
    -------
    tuple of two tuples, or None
        The shape of the scales with as many axes as the weight, and the extents of a block; None if they do not fit.
    """
    if len(scale) > len(weight):
        return None
    aligned = tuple(scale)
    if int(np.prod(aligned, dtype=np.int64)) == 1:
        aligned = (1,) * len(weight)
    elif len(aligned) < len(weight):
        lead = tuple(weight[: len(aligned)])
        if aligned[0] != lead[0] or any(count not in (1, extent) for count, extent in zip(aligned, lead, strict=True)):
            return None
        aligned += (1,) * (len(weight) - len(aligned))
    wanted = (0,) * (len(weight) - len(given)) + tuple(given)
    extents = tuple(_block(*axis, ragged=ragged) for axis in zip(weight, aligned, wanted, strict=True))
    return None if 0 in extents else (aligned, extents)


def _block(extent: int, count: int, given: int, *, ragged: bool) -> int:
    """Extent of a block along an axis of ``extent`` elements and ``count`` scales; 0 if there is none."""
    if given:
        return given if -(-extent // given) == count else 0
    if count == 1:
        return max(extent, 1)
    if count in (0, extent):
        return int(count > 0)
    if ragged and -(-extent // _USUAL[0]) == count:
        return _USUAL[0]
    if extent % count == 0:
        return extent // count
    return next((usual for usual in _USUAL if -(-extent // usual) == count), 0) if ragged else 0


def finite_scales(view: TensorView, scale: EffectiveTensor, values: NDArray[np.generic]) -> NDArray[np.floating]:
    """Values of scales as floats: uint8 codes are exponents. Raises ``WeightsError`` where any is NaN or infinite."""
    found: NDArray[np.floating] = exponents(values) if scale.dtype == "uint8" else np.asarray(values, np.float32)
    bad = found.size - int(np.count_nonzero(np.isfinite(found)))
    if bad:
        raise WeightsError(f"{view.where}: scale {scale.name} holds {bad} values that are NaN or infinite", DAMAGED)
    return found


class BlockScales:
    """Scales of one weight, read as they are needed.

    Parameters
    ----------
    view
        Where they are.
    scale
        The tensor of scales: floating point; uint8 of exponents; or float8.
    weight, shape
        Name and shape of the weight that they belong to.
    given, ragged
        As `blocks_of` takes them.
    some_zero
        Scales may have been rounded to zero, in part.

    Raises
    ------
    WeightsError
        The shapes do not fit, or the dtype is none of scales.
    """

    def __init__(
        self,
        view: TensorView,
        scale: EffectiveTensor,
        weight: str,
        shape: Sequence[int],
        given: Sequence[int] = (),
        *,
        ragged: bool = False,
        some_zero: bool = False,
    ) -> None:
        found = blocks_of(scale.shape, shape, given, ragged=ragged)
        if found is None:
            blocks = f" in blocks of {list(given)}" if given else ""
            raise WeightsError(
                f"{view.where}: scale {scale.name} of shape {list(scale.shape)} does not fit the weight {weight} "
                f"of shape {list(shape)}{blocks}",
                DAMAGED,
            )
        if not scale.dtype.startswith(("float", "bfloat")) and scale.dtype not in _EXPONENTS:
            raise WeightsError(f"{view.where}: scale {scale.name} is {scale.dtype}, which no scale is", DAMAGED)
        self.aligned, self.blocks = found
        self._view, self._scale, self._shape, self._some_zero = view, scale, tuple(shape), some_zero

    @property
    def in_blocks(self) -> bool:
        """Whether there are several scales along any axis but the outputs (and experts)."""
        lead = max(1, len(self._shape) - 1)
        return any(count > 1 for count in self.aligned[lead:]) or 1 < self.aligned[lead - 1] < self._shape[lead - 1]

    @property
    def are_exponents(self) -> bool:
        """Whether the scales are powers of two by their dtype."""
        return self._scale.dtype in _EXPONENTS

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        """Factors of rows ``start`` to ``stop`` of the weight, of a shape that broadcasts to theirs.

        Raises ``WeightsError`` where they are not finite.
        """
        return self.spread(finite_scales(self._view, self._scale, self.stored(start, stop)), start, stop)

    def check_zeros(self, factors: NDArray[np.floating], values: NDArray[np.floating]) -> None:
        """Raise ``WeightsError`` where a factor of zero would make other ``values`` than zero vanish."""
        if not self._some_zero:
            check_scales(self._view, self._scale.name, factors, values)
        elif not factors.any() and not finite_scales(self._view, self._scale, self._scale.read()).any():
            raise WeightsError(f"{self._view.where}: scale {self._scale.name} holds zeros alone", DAMAGED)

    def stored(self, start: int, stop: int, tensor: EffectiveTensor | None = None) -> NDArray[np.generic]:
        """Scales of these rows, one a block; or the values of another ``tensor`` of the same shape (zero points)."""
        tensor = self._scale if tensor is None else tensor
        if self.aligned[0] == 1:
            return tensor.read().reshape(self.aligned)
        first, last = start // self.blocks[0], -(-stop // self.blocks[0])
        return tensor.rows(first, last).reshape(last - first, *self.aligned[1:])

    def spread(self, values: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """What `stored` gives, repeated for every element of its block where it does not broadcast."""
        if self.aligned[0] > 1 and self.blocks[0] > 1:
            first = start // self.blocks[0]
            values = values[np.arange(start, stop) // self.blocks[0] - first]
        for axis in range(1, len(self._shape)):
            if self.aligned[axis] > 1 and self.blocks[axis] > 1:
                values = np.repeat(values, self.blocks[axis], axis)
                values = values[(slice(None),) * axis + (slice(0, self._shape[axis]),)]
        return values


def put_weight(view: TensorView, made: EffectiveTensor) -> None:
    """Put a weight in place of its parts. Raises ``WeightsError`` where the file has a tensor of its name besides."""
    if made.name in view.tensors and made.name not in made.parts:
        raise WeightsError(f"{view.where} holds {made.name} and, as {made.parts[0]}, its codes", DAMAGED)
    view.put(made, made.parts)
