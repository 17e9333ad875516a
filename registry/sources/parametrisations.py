"""Weights that are stored as the parameters of a function: norms, orthogonal maps and pruning masks.

``torch.nn.utils`` stores such a weight in parts, and computes it before each forward pass: ``weight_norm`` (Salimans
and Kingma, arXiv:1602.07868), ``spectral_norm`` (Miyato et al., arXiv:1802.05957) in both spellings each,
``orthogonal`` (Lezcano-Casado, arXiv:1909.09501) and ``prune``. The weight here is that of eval mode, computed in
float64 and rounded to float32: equal to torch's within the rounding of the stored dtype.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.effective_weights import EffectiveTensor, TensorView

    Rows = Callable[[int, int], NDArray[np.generic]]

__all__ = ["fold_parametrisations"]

_GROUP = re.compile(r"((?:.*\.)?)parametrizations\.([^.]+)\.(.+)", re.DOTALL)
_AT_ONCE = 1 << 22  # elements in float64 at a time
_SETTLED = 0.05  # 1 less the cosine of u with W v, up to which u and v count as singular vectors of W
_ROUNDING = 1e-7  # of such a cosine, in float32
_SAVE_AGAIN = "save it again"
_REMOVE = (
    "call torch.nn.utils.parametrize.remove_parametrizations(module, name) for each such module, then save the model"
)
_MAPS = ("matrix_exp", "cayley", "householder")
_EXTENT = 16384  # the largest order of an orthogonal map that is computed, which takes its cube in time


def fold_parametrisations(view: TensorView) -> None:
    """Put each parametrised weight in place of its parts, under the weight's own name.

    Pruned tensors come first, because the parts of a norm may be pruned. A weight whose parametrisation is not one of
    torch's is unreadable. Raises ``WeightsError`` where shapes contradict.
    """
    _pruned(view)
    _new_names(view)
    _old_weight_norm(view)
    _old_spectral_norm(view)


def _pruned(view: TensorView) -> None:
    """``N_orig`` and ``N_mask``: their product."""
    for name in _stems(view, "_mask"):
        kept, mask = view.tensors.get(f"{name}_orig"), view.tensors[f"{name}_mask"]
        if kept is None or not is_float(kept.dtype):
            continue
        if mask.shape != kept.shape:
            raise _contradiction(view, mask, kept)
        if f"{name}_u" in view.tensors and f"{name}_v" in view.tensors:
            _refuse(view, name, kept, (kept, mask, view.tensors[f"{name}_u"], view.tensors[f"{name}_v"]))
            continue
        _put(view, name, kept, (kept, mask), _Product(kept, mask).rows)


def _old_weight_norm(view: TensorView) -> None:
    """``N_g`` and ``N_v`` of ``torch.nn.utils.weight_norm``."""
    for name in _stems(view, "_g"):
        length, direction = view.tensors[f"{name}_g"], view.tensors.get(f"{name}_v")
        if direction is None or not (is_float(length.dtype) and is_float(direction.dtype)):
            continue
        axes = _norm_axes(length.shape, direction.shape)
        if axes is None:
            if name.rsplit(".", 1)[-1].startswith("weight"):
                raise _contradiction(view, length, direction)
            continue  # two tensors of that name which are something else
        _put(view, name, direction, (length, direction), _WeightNorm(length, direction, axes).rows)


def _old_spectral_norm(view: TensorView) -> None:
    """``N_orig``, ``N_u`` and ``N_v`` of ``spectral_norm``; before torch 1.0, ``N`` in place of ``N_v``."""
    for name in _stems(view, "_orig"):
        stored, left = view.tensors[f"{name}_orig"], view.tensors.get(f"{name}_u")
        right, present = view.tensors.get(f"{name}_v"), view.tensors.get(name)
        if left is None or not is_float(stored.dtype):
            continue
        if right is not None:
            _spectral(view, name, stored, left, right)
        elif present is not None and present.shape == stored.shape:
            view.put(present, (stored.name, left.name))  # a buffer then, with the weight as eval mode used it
        else:
            _refuse(view, name, stored, (stored, left))
    for name in _stems(view, "_bar"):
        stored = view.tensors[f"{name}_bar"]
        parts = [view.tensors[part] for part in (f"{name}_u", f"{name}_v") if part in view.tensors]
        if len(parts) == 2 and is_float(stored.dtype) and name not in view.tensors:
            _refuse(view, name, stored, (stored, *parts))


def _new_names(view: TensorView) -> None:
    """``parametrizations.N.*`` of ``torch.nn.utils.parametrize``."""
    groups: dict[tuple[str, str], dict[str, EffectiveTensor]] = defaultdict(dict)
    for name, tensor in view.tensors.items():
        if match := _GROUP.fullmatch(name):
            groups[match[1], match[2]][match[3]] = tensor
    for (above, own), parts in groups.items():
        name = above + own
        said = view.facts.maps.get(name, "")
        held = frozenset(parts)
        if held == {"original0", "original1"} and said in ("", "weight_norm"):
            length, direction = parts["original0"], parts["original1"]
            axes = _norm_axes(length.shape, direction.shape)
            if axes is not None and is_float(length.dtype) and is_float(direction.dtype):
                _put(view, name, direction, (length, direction), _WeightNorm(length, direction, axes).rows)
                continue
        elif held == {"original", "0._u", "0._v"} and said.partition(" ")[0] in ("", "spectral_norm"):
            _spectral(view, name, parts["original"], parts["0._u"], parts["0._v"])
            continue
        elif held <= {"original", "0.base"} and "original" in held and _orthogonal(view, name, parts, said):
            continue
        first = parts.get("original") or parts.get("original0") or next(iter(parts.values()))
        _refuse(view, name, first, tuple(parts.values()))


def _stems(view: TensorView, ending: str) -> list[str]:
    return sorted(name.removesuffix(ending) for name in view.tensors if name.endswith(ending) and name != ending)


def _put(
    view: TensorView,
    name: str,
    like: EffectiveTensor,
    parts: Sequence[EffectiveTensor],
    rows: Rows,
    setting: str = "",
) -> None:
    stored = tuple(dict.fromkeys(part for tensor in parts for part in tensor.parts))
    said = " ".join(each for each in (like.setting, setting) if each)
    made = replace(like, name=name, rows=rows, parts=stored, setting=said)
    view.put(made, [part.name for part in parts])


def _refuse(view: TensorView, name: str, like: EffectiveTensor, parts: Sequence[EffectiveTensor]) -> None:
    """Mark a weight as unreadable under its own name; a vector keeps the value that is stored."""
    _put(view, name, like, parts, like.rows)
    if len(like.shape) > 1:
        view.refuse(name, Unreadable("weights of a parametrisation that is not torch's", like.info.size, _REMOVE))


def _contradiction(view: TensorView, part: EffectiveTensor, whole: EffectiveTensor) -> WeightsError:
    return WeightsError(
        f"{view.where}: tensor {part.name} of shape {part.shape} does not fit {whole.name} of shape {whole.shape}",
        _SAVE_AGAIN,
    )


def _blocks(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Bounds of groups of rows that are computed at a time."""
    width = 1
    for extent in shape[1:]:
        width *= extent
    step = max(1, _AT_ONCE // max(1, width))
    for begin in range(start, stop, step):
        yield begin, min(stop, begin + step)


def _wide(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _empty(tensor: EffectiveTensor, start: int, stop: int) -> NDArray[np.floating]:
    shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
    return np.empty(shape, np.float64 if tensor.dtype == "float64" else np.float32)


class _Product:
    """Rows of a tensor times a mask of its shape."""

    def __init__(self, kept: EffectiveTensor, mask: EffectiveTensor) -> None:
        self._kept, self._mask = kept, mask

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        kept = np.asarray(self._kept.rows(start, stop))
        product = np.multiply(kept, self._mask.rows(start, stop), dtype=kept.dtype)
        return cast("NDArray[np.floating]", product)


def _norm_axes(length: tuple[int, ...], direction: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes over which the norms are taken, from the shape of the lengths; None where the shapes are of something else.

    The lengths have extent 1 along them. Without axes there is one length, of the norm of the whole tensor.
    """
    if not length:
        return tuple(range(len(direction)))
    if len(length) != len(direction):
        return None
    own = [axis for axis, extent in enumerate(length) if extent > 1]
    if len(own) > 1 or any(length[axis] != direction[axis] for axis in own):
        return None
    if not own:
        own = [axis for axis, extent in enumerate(direction) if extent == 1][:1]
        if not own or any(extent < 1 for extent in length):
            return None
    return tuple(axis for axis in range(len(direction)) if axis != own[0])


class _WeightNorm:
    """Rows of g v / ||v||, the norm taken over all axes but one, or over all."""

    def __init__(self, length: EffectiveTensor, direction: EffectiveTensor, axes: tuple[int, ...]) -> None:
        self._length, self._direction, self._axes = length, direction, axes
        self._scale = cache(self._whole_scale)

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        v = self._direction
        if not v.shape:
            return np.asarray(_wide(self._length.read()) * np.sign(v.read()), v.read().dtype)
        out = _empty(v, start, stop)
        whole = 0 in self._axes
        for begin, end in _blocks(start, stop, v.shape):
            block = _wide(v.rows(begin, end))
            with np.errstate(divide="ignore", invalid="ignore"):  # a direction of zero gives NaN, as in torch
                scale = self._scale() if whole else self._scale_of(block, self._length.rows(begin, end))
                out[begin - start : end - start] = block * scale
        return out

    def _scale_of(self, block: NDArray[np.float64], length: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.asarray(_wide(length) / np.sqrt(np.square(block).sum(axis=self._axes, keepdims=True)))

    def _whole_scale(self) -> NDArray[np.float64]:
        """Lengths over norms where a norm takes in all rows; of the shape of the lengths."""
        v = self._direction
        squares: NDArray[np.float64] | float = 0.0
        for begin, end in _blocks(0, v.shape[0], v.shape):
            squares = squares + np.square(_wide(v.rows(begin, end))).sum(axis=self._axes, keepdims=True)
        return np.asarray(_wide(self._length.read()) / np.sqrt(squares))


class _Alignment(NamedTuple):
    """sigma = u W v for one axis of outputs, and 1 less the cosine of u with W v, or of v with u W, if that is less."""

    sigma: float
    miss: float


class _SpectralNorm:
    """Rows of W / (u W v)."""

    def __init__(
        self, where: str, stored: EffectiveTensor, left: EffectiveTensor, right: EffectiveTensor, axes: Sequence[int]
    ) -> None:
        self._where, self._stored, self._left, self._right, self._axes = where, stored, left, right, axes
        self._sigma = cache(self._settled_sigma)

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        out = _empty(self._stored, start, stop)
        sigma = self._sigma()
        for begin, end in _blocks(start, stop, self._stored.shape):
            out[begin - start : end - start] = _wide(self._stored.rows(begin, end)) / sigma
        return out

    def _settled_sigma(self) -> float:
        found = sorted((self._aligned(axis) for axis in self._axes), key=lambda each: each.miss)
        chosen = found[0]
        if len(found) > 1 and not np.isclose(found[0].sigma, found[1].sigma, rtol=1e-6, atol=0):
            # Which axis holds the outputs is not stored. After a power iteration u and W v point the same way, or v and
            # u W, for the right axis alone.
            told = chosen.miss <= _SETTLED and chosen.miss <= found[1].miss / 10
            if not told and len(self._stored.shape) > 2:
                raise WeightsError(
                    f"{self._where}: the axis of the spectral norm of {self._stored.name} cannot be told: "
                    "its vectors u and v are no singular vectors yet",
                    "pass a batch through the model in training mode, or call remove_spectral_norm, then save it again",
                )
            if not told:  # a matrix: torch's default is the first axis for every module that has one
                chosen = self._aligned(0)
        if not np.isfinite(chosen.sigma) or chosen.sigma == 0:
            raise WeightsError(
                f"{self._where}: the spectral norm of {self._stored.name} is {chosen.sigma}", _SAVE_AGAIN
            )
        return chosen.sigma

    def _aligned(self, axis: int) -> _Alignment:
        shape = self._stored.shape
        u = _wide(self._left.read())
        v = _wide(self._right.read()).reshape(tuple(e for a, e in enumerate(shape) if a != axis))
        out, back = np.zeros(u.shape), np.zeros(v.shape)
        for begin, end in _blocks(0, shape[0], shape):
            block = np.moveaxis(_wide(self._stored.rows(begin, end)), axis, 0)
            matrix = block.reshape(block.shape[0], -1)
            if axis == 0:
                out[begin:end] = matrix @ v.reshape(-1)
                back += (u[begin:end] @ matrix).reshape(back.shape)
            else:
                out += matrix @ v[begin:end].reshape(-1)
                back[begin:end] = (u @ matrix).reshape(back[begin:end].shape)
        sigma = float(u @ out)
        sizes = float(np.linalg.norm(out) * np.linalg.norm(u)), float(np.linalg.norm(back) * np.linalg.norm(v))
        return _Alignment(sigma, max(1 - max((abs(sigma) / size if size else 0.0) for size in sizes), _ROUNDING))


def _spectral(
    view: TensorView, name: str, stored: EffectiveTensor, left: EffectiveTensor, right: EffectiveTensor
) -> None:
    size, height = stored.info.size, left.info.size
    axes = [
        axis
        for axis, extent in enumerate(stored.shape)
        if left.shape == (extent,) and right.shape == (size // extent if extent else 0,)
    ]
    if len(stored.shape) < 2 or height == 0:
        axes = []
    said = view.facts.maps.get(name, "").partition(" ")[2]
    if said.isdecimal() and int(said) in axes:
        axes = [int(said)]
    if not axes:
        raise _contradiction(view, left, stored)
    _put(view, name, stored, (stored, left, right), _SpectralNorm(view.where, stored, left, right, axes).rows)


def _orthogonal(view: TensorView, name: str, parts: Mapping[str, EffectiveTensor], said: str) -> bool:
    """Put the weight of ``torch.nn.utils.parametrizations.orthogonal``; False if it cannot be known from its parts.

    The map is not stored. All maps agree while the strict lower triangle is zero. Otherwise a ``base`` says that the
    parametrisation is orthogonal, and the map is the default one of torch for the shape. Every map gives orthonormal
    rows or columns, so that the spectrum of a matrix does not depend on it; of a batch of matrices it does, and of
    these only what a live module says is computed.
    """
    stored, base = parts["original"], parts.get("0.base")
    what, _, given = said.partition(" ")
    if what not in ("", "orthogonal") or len(stored.shape) < 2 or not is_float(stored.dtype):
        return False
    tall = max(stored.shape[-2:])
    if base is None:
        if not given:
            return False
    elif base.shape != (*stored.shape[:-2], tall, tall):
        raise _contradiction(view, base, stored)
    if tall > _EXTENT:
        return False
    square = stored.shape[-2] == stored.shape[-1]
    if not given and len(stored.shape) > 2:
        return False
    assumed = "matrix_exp" if square else "householder"
    if not given:
        view.notes.append(
            f"{name}: which map of orthogonal() it uses is not stored; torch's default, {assumed}, is assumed, and the "
            "spectrum is the same for every map"
        )
    held = (stored,) if base is None else (stored, base)
    # A file does not say which map it is, so that what is torch's default counts as said by nobody.
    setting = given if given not in ("", assumed) else ""
    _put(view, name, stored, held, _Orthogonal(stored, base, given or assumed, given == "").rows, setting)
    return True


class _Orthogonal:
    """Rows of an orthogonal weight; all of it is computed when rows are read."""

    def __init__(self, stored: EffectiveTensor, base: EffectiveTensor | None, kind: str, is_assumed: bool) -> None:
        self._stored, self._base, self._kind, self._is_assumed = stored, base, kind, is_assumed

    def rows(self, start: int, stop: int) -> NDArray[np.floating]:
        stored = _wide(self._stored.read())
        base = None if self._base is None else _wide(self._base.read())
        transposed = stored.shape[-2] < stored.shape[-1]
        tall = np.swapaxes(stored, -1, -2) if transposed else stored
        shape = tall.shape
        flat = tall.reshape(-1, *shape[-2:])
        bases = None if base is None else base.reshape(-1, *base.shape[-2:])
        kind = self._kind
        diagonal = np.diagonal(flat, axis1=-2, axis2=-1)
        if self._is_assumed and kind == "householder" and not np.isin(diagonal, (-1.0, 1.0)).all():
            kind = "matrix_exp"  # a diagonal of other numbers is that of no product of reflections
        made = np.stack([_orthogonal_map(matrix, kind) for matrix in flat])
        if bases is not None:
            made = bases @ made
        made = made.reshape(*shape[:-2], *made.shape[-2:])
        if transposed:
            made = np.swapaxes(made, -1, -2)
        dtype = np.float64 if self._stored.dtype == "float64" else np.float32
        return np.ascontiguousarray(made[start:stop], dtype)


def _orthogonal_map(tall: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """The first k columns of the orthogonal matrix that an (n, k) array with n >= k stands for."""
    n, k = tall.shape
    if kind == "householder":
        return _reflections(tall)
    lower = np.zeros((n, n))
    lower[:, :k] = np.tril(tall)
    skew = lower - lower.T
    if kind == "matrix_exp":
        from scipy.linalg import expm

        return np.asarray(expm(skew)[:, :k], np.float64)
    identity = np.eye(n)
    return np.asarray(np.linalg.solve(identity - skew / 2, identity + skew / 2)[:, :k])


def _reflections(tall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of the reflections along the columns below the diagonal (LAPACK orgqr), times the diagonal."""
    n, k = tall.shape
    made = np.eye(n, k)
    for i in reversed(range(k)):
        vector = np.concatenate([[1.0], tall[i + 1 :, i]])
        tau = 2.0 / (vector @ vector)
        made[i:] -= tau * np.outer(vector, vector @ made[i:])
    return made * np.trunc(np.diagonal(tall))
