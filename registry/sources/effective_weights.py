"""Steps from stored tensors to those that the forward pass uses, and the checkpoint that gives them."""

from __future__ import annotations

import re
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

from registry.errors import WeightsError
from registry.sources.base import OpenedCheckpoint, verify
from registry.sources.dtypes import is_float
from registry.sources.tensor_view import TensorView

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint

__all__ = ["STEPS", "EffectiveCheckpoint", "Step", "effective"]

_SEPARATORS = re.compile(r"[./:]")


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
