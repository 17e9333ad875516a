"""Tensors of a checkpoint as the forward pass uses them, rewritten step by step from those that are stored.

A stored model may hold packed codes and scales, a direction and a length, a base and its adapter, or all experts in one
tensor. Each of the `STEPS` finds one such layout in a `TensorView` and puts the weight in place of its parts. Nothing
is computed until rows of a weight are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint, verify
from registry.sources.dtypes import decode_any, is_float
from registry.types import NO_FACTS, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelFacts

    Rows = Callable[[int, int], NDArray[np.generic]]

__all__ = ["STEPS", "EffectiveCheckpoint", "EffectiveTensor", "Step", "TensorView", "Unreadable", "effective"]

_SEPARATORS = re.compile(r"[./:]")


@dataclass(frozen=True, slots=True)
class EffectiveTensor:
    """A tensor as the forward pass uses it.

    ``shape`` is in torch's layout (out, in, *kernel). ``rows(start, stop)`` gives indices ``start`` to ``stop`` of the
    first axis as an array of shape (stop - start, *shape[1:]): float32 or float64 of a floating-point ``dtype``,
    integers of an integer one. A tensor without axes is read by ``rows(0, 1)`` and has shape (). ``parts`` are the
    stored tensors that it is computed from. ``precision`` names how the values are stored, ``int4 gptq``; empty: as
    ``dtype`` says. ``cut`` says which part of its parts it is, where they hold several weights (``3``, ``3.gate``).
    ``setting``: numbers outside the tensors that the values depend on (``lora 2.0``); the content hash covers them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    rows: Rows
    parts: tuple[str, ...]
    precision: str = ""
    cut: str = ""
    setting: str = ""

    @property
    def info(self) -> TensorInfo:
        """Name, dtype and shape."""
        return TensorInfo(self.name, self.dtype, self.shape)

    def read(self) -> NDArray[np.generic]:
        """All of it."""
        return self.rows(0, self.shape[0] if self.shape else 1)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Weights that cannot be turned into matrices: their ``kind`` in words, and how many ``elements`` they stand for.

    ``remedy``: the command or call that converts them.
    """

    kind: str
    elements: int
    remedy: str


class TensorView:
    """The tensors of a checkpoint by name, which steps rewrite.

    ``tensors``: the present state. ``skipped``: reasons of tensors that were dropped and are worth showing.
    ``unreadable``: weights that no step can read, by name; ``unread_parts``: the stored tensors of these. ``notes``:
    sentences on choices that the user should know.
    """

    def __init__(self, stored: Checkpoint) -> None:
        self._stored = stored
        self.where = stored.ref.target
        self.facts: ModelFacts = getattr(stored, "facts", NO_FACTS)  # which a plug-in's checkpoint may lack
        self.stored_sizes: dict[str, int] = getattr(stored, "stored_sizes", {})  # of tensors given as other values
        self.precisions: dict[str, str] = getattr(stored, "precisions", {})  # of those that are given dequantised
        self.tensors: dict[str, EffectiveTensor] = {info.name: self._plain(info) for info in stored.tensors}
        self.skipped: dict[str, tuple[TensorInfo, str]] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.unread_parts: set[str] = set()
        self.notes: list[str] = list(self.facts.notes)

    def _plain(self, info: TensorInfo) -> EffectiveTensor:
        return EffectiveTensor(
            info.name,
            info.dtype,
            info.shape,
            lambda start, stop: self._rows(info, start, stop),
            (info.name,),
            self.precisions.get(info.name, ""),
        )

    def _rows(self, info: TensorInfo, start: int, stop: int) -> NDArray[np.generic]:
        """Rows of a stored tensor; all of it is read by the source's own ``read``."""
        if is_float(info.dtype) and (not info.shape or (start, stop) == (0, info.shape[0])):
            return self._stored.read(info.name)
        count = info.shape[0] if info.shape else 1
        whole = info.size
        if count == 0 or whole == 0:
            return decode_any(memoryview(b""), info.dtype, (stop - start, *info.shape[1:]))
        width, rest = divmod(self.bytes_of(info.name), count)
        if rest:
            raise WeightsError(f"tensor {info.name} has rows of unequal size", "save it again")
        data = self.span(info.name, start * width, stop * width)
        return decode_any(data, info.dtype, (stop - start, *info.shape[1:]) if info.shape else ())

    def bytes_of(self, name: str) -> int:
        """Size of a stored tensor in bytes."""
        size = getattr(self._stored, "bytes_of", None)  # which a plug-in's checkpoint may lack, and span too
        return len(self._stored.raw(name)) if size is None else int(size(name))

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a stored tensor, little-endian in C order of its stored layout."""
        span = getattr(self._stored, "span", None)
        found: memoryview = self._stored.raw(name)[start:stop] if span is None else span(name, start, stop)
        return found

    def raw(self, name: str) -> memoryview:
        """All bytes of a stored tensor."""
        return self._stored.raw(name)

    def put(self, made: EffectiveTensor, instead_of: Iterable[str] = ()) -> None:
        """Put a tensor in place of others, which are removed. One of its own name is replaced."""
        for name in instead_of:
            self.tensors.pop(name, None)
        self.tensors[made.name] = made

    def skip(self, name: str, reason: str) -> None:
        """Drop a tensor that is no layer and no parameter, and keep the reason."""
        dropped = self.tensors.pop(name)
        self.skipped[name] = (dropped.info, reason)

    def refuse(self, name: str, why: Unreadable) -> None:
        """Drop a weight that cannot be read; if the model has too much of them, it is refused."""
        self.unread_parts |= set(self.tensors[name].parts)
        self.skip(name, why.kind)
        self.unreadable[name] = why


class Step(NamedTuple):
    """A step from one kind of layout to weights, as ``module:function`` of a `TensorView`.

    It is loaded and taken only where it may apply: where a part of a tensor's name, or a dtype, matches ``signs``, or
    where one of the ``facts`` beside the weights is known.
    """

    run: str
    signs: re.Pattern[str]
    facts: tuple[str, ...] = ()

    def may_apply(self, view: TensorView, marks: frozenset[str]) -> bool:
        """Whether there is a sign of the layout among the ``marks``, parts of names and dtypes."""
        return any(getattr(view.facts, fact) for fact in self.facts) or any(map(self.signs.fullmatch, marks))


STEPS: tuple[Step, ...] = (
    Step("registry.sources.weight_averages:skip_averages", re.compile(r"ema|ema_\w+|\w+_ema|swa_model|averaged_model")),
    Step(
        "registry.sources.tied_names:restore_tied_names",
        re.compile(r"(\w+_)?(lm_head|proj_out|vocab_projector|embed_out|predictions|output)|(en|de)coder"),
        ("aliases",),
    ),
    Step("registry.sources.array_layouts:turn_arrays", re.compile(r"(\w+_)?kernel|w|weights|vars")),
    Step("registry.sources.quantised.torchao_tensors:dequantise_torchao", re.compile(r"_\w+_qdata")),
    Step(
        "registry.sources.quantised.compressed_tensors:dequantise_compressed_tensors",
        re.compile("weight_packed|bitmask|int8"),
    ),
    Step("registry.sources.quantised.nvfp4:dequantise_nvfp4", re.compile(r"(\w+_)?weight_scale|float4_\w+")),
    Step("registry.sources.quantised.mxfp4:dequantise_mxfp4", re.compile(r"(\w+_)?(blocks|scale|scale_inv)")),
    Step("registry.sources.quantised.fp8:dequantise_fp8", re.compile(r"float8_e[45]m\w+")),
    Step("registry.sources.quantised.gptq:dequantise_gptq", re.compile("qweight")),
    Step("registry.sources.quantised.awq:dequantise_awq", re.compile("qweight")),
    Step("registry.sources.quantised.bitsandbytes:dequantise_bitsandbytes", re.compile(r"bitsandbytes__\w+|scb")),
    Step("registry.sources.quantised.mlx:dequantise_mlx", re.compile("uint32")),
    Step(
        "registry.sources.quantised.other_quantisers:refuse_other_quantisers",
        re.compile(r"u?int(8|16|32)|qidxs|dense_weights"),
    ),
    Step(
        "registry.sources.quantised.spare_scales:skip_scales",
        re.compile(r"\w*scale\w*|scaled_fp8|(\w+_)?zero_point|input_amax"),
    ),
    Step(
        "registry.sources.adapters:fold_adapters",
        re.compile(
            r"base_model|base_layer|original_module|modules_to_save|\w*lora\w*|dora_scale|ia3_l|hada_\w+|lokr_\w+"
            r"|vera_\w+|ranknum|prompt_\w+|trainable_tokens_\w+"
        ),
        ("adapter",),
    ),
    Step(
        "registry.sources.parametrisations:fold_parametrisations",
        re.compile(r"parametrizations|\w+_(g|v|u|orig|mask)"),
        ("maps",),
    ),
    Step(
        "registry.sources.stacked_experts:split_experts",
        re.compile(
            r"\w*experts|switch_mlp|moe|(in|out)put_linear|mlp[12](_weight)?|\w*(batch|grouped|parallel|ensemble|stacked)\w*"
        ),
    ),
)
"""A later step sees what an earlier one made, so the order counts: names that metadata ties, layouts of axes, codes and
scales, adapters, parametrisations, experts."""


def _marks(view: TensorView) -> frozenset[str]:
    """The parts of all names in lower case, numbers left out, and the dtypes."""
    parts = {part for name in view.tensors for part in _SEPARATORS.split(name[-400:].lower())}
    return frozenset(part for part in parts if not part.isdecimal()) | {t.dtype for t in view.tensors.values()}


class EffectiveCheckpoint(OpenedCheckpoint):
    """An opened checkpoint with the tensors that the forward pass uses, in ``view``.

    ``tensors``, ``raw`` and ``span`` are those of the file; ``read`` takes the names of both, and gives the effective
    tensor where a stored one has its name.
    """

    def __init__(self, stored: Checkpoint) -> None:
        super().__init__(stored.ref, stored.tensors, getattr(stored, "facts", None))
        self.stored = stored

    @cached_property
    def view(self) -> TensorView:
        """The effective tensors, found when first asked for. Raises ``WeightsError`` where parts contradict."""
        view = TensorView(self.stored)
        marks = _marks(view)
        for step in STEPS:
            if step.may_apply(view, marks):
                module, _, function = step.run.partition(":")
                getattr(import_module(module), function)(view)
        return view

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64."""
        self._check_open()
        found = self.view.tensors.get(name)
        if found is None:
            return self.stored.read(name)
        if not is_float(found.dtype):
            raise WeightsError(
                f"tensor {name} is {found.dtype}, not floating point", "only floating weights have spectra"
            )
        return cast("NDArray[np.floating]", found.read())

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the stored tensor."""
        self._check_open()
        return self.stored.raw(name)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the stored tensor."""
        self._check_open()
        return self.view.span(name, start, stop)

    def verify(self) -> None:
        """Compare the checksums of the file with its data."""
        self._check_open()
        verify(self.stored)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self.stored.close()


def effective(checkpoint: Checkpoint) -> EffectiveCheckpoint:
    """The checkpoint with its effective tensors; itself if it has them."""
    return checkpoint if isinstance(checkpoint, EffectiveCheckpoint) else EffectiveCheckpoint(checkpoint)
