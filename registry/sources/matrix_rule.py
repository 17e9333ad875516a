"""The matrix rule: the layer matrices of a checkpoint in depth order.

The tensors are those of the forward pass (`effective_weights`). Only their names, shapes, dtypes and equality of bytes
are used, so that the same weights give the same plan from every format. Rank tables, skipped names, splits and the
steps to effective weights are part of the rule: any change to them requires a new `MATRIX_RULE`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import WeightsError
from registry.sources.base import location_of
from registry.sources.content_hash import content_hash, header_facts, header_hash, read_facts, vector_counts
from registry.sources.depth_order import depth_order
from registry.sources.dtypes import is_float
from registry.sources.effective_weights import effective
from registry.sources.fused_attention import whole_note
from registry.sources.fused_tensors import Piece, is_conv1d_model, may_be_fused, pieces_of
from registry.sources.nonfinite_values import marked, nonfinite, refusal
from registry.sources.tied_names import twin_of
from registry.sources.unreadable_weights import check_complete
from registry.spelling import counted
from registry.types import HEADER_PREFIX, LayerMatrix, SkippedTensor, TensorInfo, VectorCounts, WeightsPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from registry.sources.content_hash import Facts
    from registry.sources.effective_weights import EffectiveTensor, TensorView
    from registry.types import Checkpoint

__all__ = [
    "MATRIX_RULE",
    "layer_matrix",
    "layers_by_shape",
    "plan_headers",
    "plan_weights",
    "skip_reason",
    "stored_dtypes",
    "topology_of",
]

MATRIX_RULE: str = "matrix-2"

_TIED = "tied to "
_EMBEDDING = re.compile(r"(\w+_)?(embed(ding|dings|der)?|embed_tokens)|embeddings?_\w+|embed_(?!out$)\w+|wte|shared")
_ATTENTION = re.compile(r"(\w+_)?(attn|attention|attentions|self_attention|mha)\d*")
_PROJECTION = re.compile(
    r"(q|k|v|o|out|query|key|value)(_proj|_lin)?(_weight)?|to_(q|k|v|out)|w[qkvo]|proj|project|c_proj|merge|qkv|kv|qkv_proj"
)
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Why a tensor is no layer matrix.
_STATISTICS = "batch statistics"
_OPTIMISER = "optimiser state"
_MASK = "mask"
_BUFFER = "constant table"
_QUEUE = "queue of examples"

NOT_PARAMETERS = frozenset({_STATISTICS, _OPTIMISER, _MASK, _BUFFER, _QUEUE})
"""Reasons whose tensors are nothing that was learnt."""

# Of the last part of a name, in lower case.
_LAST: tuple[tuple[str, re.Pattern[str]], ...] = (
    (_STATISTICS, re.compile(r"(running|moving)_(mean|var|variance)|num_batches_tracked|embed_avg|cluster_size")),
    (_MASK, re.compile(r"(\w+_)?masks?|masked_bias|tril")),
    (
        _BUFFER,
        re.compile(
            r"inv_freq|freqs(_cis|_cos|_sin)?|(cos|sin)_cached|relative_coords_table|anchors|anchor_grid|pe"
            r"|(query|key|diagonal)_decay|slope_rate|pos_idx_to_embed|final_logits_bias|weight_integer|(input|output)_(min|max)"
        ),
    ),
    (
        "position table",
        re.compile(
            r"(rel|relative)_(pos|position)\w*|\w+_pos|attention_biases|wpe|(\w+_)?pos_table|(height|width)_rel"
        ),
    ),
    ("token", re.compile(r"(\w+_)?tokens?")),
    ("bias", re.compile(r"bias|\w+_bias|bias_(k|v|ih|hh)\w*|(\w+_)?bias_[uv]")),
    ("layer scale", re.compile(r"layer_?scale\w*|gamma(_\d+)?|ls\d?")),
)
_POSITION = re.compile(
    r"\w*pos(ition|itional|itions)?_?(embed|embeds|emb|embs|embedding|embeddings|enc|encoding|encodings)"
    r"|wpe|embed_positions|(rel|relative)_(attention|attn)_bias"
)
_OPTIMISERS = re.compile(r"exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|adam(_\d+)?|momentum(_\d+)?|rmsprop(_\d+)?")
_OPTIMISER_ROOTS = ("opt_state", "optimizer", "optim", "optimizer_state", "optimizer_states", "optimizer_state_dict")
_SEPARATORS = re.compile(r"[./:]")
# MoCo, ALBEF and BLIP keep the features of past examples in buffers, and beside them where the next ones go.
_FEATURES = re.compile(r"(.*[./])?((?:\w+_)?queue\w*)", re.DOTALL)
_POINTERS = ("queue_ptr", "ptr_queue")


def plan_weights(checkpoint: Checkpoint, *, allow_nonfinite: bool = False) -> WeightsPlan:
    """Apply the matrix rule to a checkpoint. All bytes are read once, for the content hash.

    Parameters
    ----------
    checkpoint
        Opened weights.
    allow_nonfinite
        Leave out layers with values that are NaN or infinite, and count these, where else the model is refused.

    Returns
    -------
    WeightsPlan
        Layers, skipped tensors and identity; independent of the order of the tensors.

    Raises
    ------
    WeightsError
        A parameter or statistic is not finite, no tensor gives a matrix of at least 2 x 2, too much of the weights
        cannot be read (`unreadable_weights`), the parts of a weight contradict each other, a tensor cannot be read, or
        a checksum of the file differs.
    """
    return _planned(checkpoint, effective(checkpoint).view, read_facts(checkpoint), allow_nonfinite=allow_nonfinite)


def plan_headers(checkpoint: Checkpoint) -> WeightsPlan:
    """Apply the matrix rule to what the header of a checkpoint says: no weights are read.

    Parameters
    ----------
    checkpoint
        As `open_headers` returns it.

    Returns
    -------
    WeightsPlan
        As of `plan_weights`, but that tensors count as tied only where names or metadata say so, that all-zero tensors
        are layers, and that ``content_hash`` is ``header:`` and the hash of the header at its place.

    Raises
    ------
    WeightsError
        As `plan_weights` where names, dtypes and shapes tell, or a layout needs more than a few values to be known.
    """
    view = effective(checkpoint).view
    plan = _planned(checkpoint, view, header_facts(checkpoint.tensors, view.bytes_of), allow_nonfinite=False)
    return replace(plan, content_hash=HEADER_PREFIX + plan.header, vectors=VectorCounts())


def _planned(
    checkpoint: Checkpoint, view: TensorView, facts: Mapping[str, Facts], *, allow_nonfinite: bool
) -> WeightsPlan:
    infos = {name: view.tensors[name].info for name in sorted(view.tensors)}
    reasons = _reasons(infos)
    for name, tensor in view.tensors.items():
        if reasons[name] is None and _is_stored(tensor, view) and facts[tensor.parts[0]].zero:
            reasons[name] = "all zeros"
    bad = nonfinite(view, reasons, facts) if any(fact.nonfinite for fact in facts.values()) else {}
    if bad and not allow_nonfinite:
        raise refusal(view.where, bad, {info.name: info.size for info in checkpoint.tensors})
    for name, tensor in view.tensors.items():
        if reasons[name] is None and (count := sum(bad.get(part, 0) for part in tensor.parts)):
            reasons[name] = f"not finite ({counted(count, 'value')})"
    order = _in_depth({name: infos[name].shape for name, reason in reasons.items() if reason is None}, view.facts.order)
    reasons.update(_tied(order, view, facts))
    layers, skipped = _layers([name for name in order if reasons[name] is None], infos, view.facts.config)
    skipped += [SkippedTensor(i.name, i.dtype, i.shape, reason) for n, i in infos.items() if (reason := reasons[n])]
    skipped += [SkippedTensor(i.name, i.dtype, i.shape, reason) for i, reason in view.skipped.values()]
    learnable = {name for name, reason in reasons.items() if reason not in NOT_PARAMETERS}
    others = [name for name in learnable if not is_float(infos[name].dtype) and len(infos[name].shape) > 1]
    unread = check_complete(view, layers, others) if others or view.unreadable else {}
    if not layers:
        raise _no_matrix(checkpoint, infos, skipped)
    learnt = [name for name, info in infos.items() if _is_parameter(info, reasons[name])]
    learnt = _without_copies(learnt, view, facts, _copied_modules(reasons))
    parts = {part for name in learnt for part in view.tensors[name].parts}
    settings = [(each.setting, each.parts) for name in learnt if (each := view.tensors[name]).setting]
    stored = {info.name: info for info in checkpoint.tensors}
    tied = {part for n, why in reasons.items() if (why or "").startswith(_TIED) for part in view.tensors[n].parts}
    unread_parts = {part for n in unread.keys() & infos.keys() for part in view.tensors[n].parts} | view.unread_parts
    fused = [layer.tensor for layer in layers if layer.name == layer.tensor and may_be_fused(layer.tensor)]
    return WeightsPlan(
        rule=MATRIX_RULE,
        layers=tuple(layers),
        skipped=tuple(sorted(skipped, key=lambda s: s.name)),
        content_hash=content_hash((stored[part] for part in parts | tied | unread_parts), facts, settings),
        topology=topology_of(layers),
        parameters=sum(infos[name].size for name in learnt) + sum(unread.values()),
        bytes=sum(view.stored_sizes.get(name, fact.bytes) for name, fact in facts.items()),
        precision=_precision(layers, view),
        unread=sum(unread.values()),
        nonfinite=sum(bad.values()),
        notes=(*view.notes, *filter(None, (whole_note(fused) if fused else "", marked(bad) if bad else ""))),
        header=header_hash(location_of(checkpoint.ref), checkpoint.ref.key or "", checkpoint.tensors),
        vectors=vector_counts(view.tensors.values(), facts),
    )


def layers_by_shape(
    infos: Mapping[str, TensorInfo], config: Mapping[str, Any] | None = None
) -> tuple[LayerMatrix, ...]:
    """Layer matrices by shape and name alone, in no depth order; tied and all-zero tensors are included.

    ``config``: the model's configuration, which tells the layout of fused tensors.
    """
    return tuple(_layers([name for name, reason in _reasons(infos).items() if reason is None], infos, config or {})[0])


def _reasons(infos: Mapping[str, TensorInfo]) -> dict[str, str | None]:
    """By name, why a tensor is no layer matrix: by itself, and by what is beside it."""
    reasons = {name: skip_reason(info) for name, info in infos.items()}
    for name in [name for name in infos if name.endswith(_POINTERS)]:
        module = name[: max(name.rfind("."), name.rfind("/")) + 1]
        for other in infos:
            match = _FEATURES.fullmatch(other)
            if match is not None and (match[1] or "") == module and reasons[other] is None:
                reasons[other] = _QUEUE
    return reasons


def _in_depth(shapes: Mapping[str, tuple[int, ...]], stated: Sequence[str]) -> list[str]:
    """Names from the input to the output: as the file states where it does, else by the names."""
    first = [name for name in dict.fromkeys(stated) if name in shapes]
    return first + depth_order({name: shape for name, shape in shapes.items() if name not in set(first)})


def _is_stored(tensor: EffectiveTensor, view: TensorView) -> bool:
    """Whether a tensor has the values of one that the source gives, in whatever layout."""
    return len(tensor.parts) == 1 and not tensor.cut and tensor.precision == view.precisions.get(tensor.parts[0], "")


def _tied(order: list[str], view: TensorView, facts: Mapping[str, Facts]) -> dict[str, str]:
    """Skip reasons of tensors with the same bytes as an earlier one; constant tensors are not considered tied."""
    first: dict[object, str] = {}
    reasons: dict[str, str] = {}
    for name in order:
        tensor = view.tensors[name]
        if all(facts[part].constant for part in tensor.parts):
            continue
        original = first.setdefault(_identity(tensor, facts), name)
        if original != name:
            reasons[name] = f"{_TIED}{original}"
    return reasons


def _identity(tensor: EffectiveTensor, facts: Mapping[str, Facts]) -> tuple[object, ...]:
    """What is equal for tensors of the same values, computed the same way from the same bytes."""
    made = () if len(tensor.parts) == 1 and not tensor.precision else (tensor.precision,)
    digests = tuple(facts[part].digest for part in tensor.parts)
    return (tensor.dtype, tensor.shape, tensor.cut, digests, tensor.setting, made)


def _copied_modules(reasons: Mapping[str, str | None]) -> dict[str, str]:
    """Paths of modules whose matrices are all tied to those of one other module, and that module's path.

    A module that a network uses several times has a path for each use, and a file without aliases a copy.
    """
    own = {name[:end] for name, why in reasons.items() if why is None for end in _dots(name)}
    found: dict[str, set[str]] = {}
    for name, why in reasons.items():
        if not (why or "").startswith(_TIED):
            continue
        copy, original = name.split("."), (why or "").removeprefix(_TIED).split(".")
        while len(copy) > 1 and len(original) > 1 and copy.pop() == original.pop() and ".".join(copy) not in own:
            found.setdefault(".".join(copy), set()).add(".".join(original))
    return {path: others.pop() for path, others in found.items() if len(others) == 1}


def _dots(name: str) -> list[int]:
    return [place for place, sign in enumerate(name) if sign == "."]


def _without_copies(
    learnt: Sequence[str], view: TensorView, facts: Mapping[str, Facts], copied: Mapping[str, str]
) -> list[str]:
    """Names of parameters, each once.

    Vectors and constant tensors are copies only by their names: two biases can be trained by the same gradients. So are
    vectors of a module all of whose matrices are those of another, as ``copied`` says.
    """
    seen: set[tuple[object, ...]] = set()
    names = frozenset(learnt)
    kept = []
    for name in learnt:
        tensor = view.tensors[name]
        identity = _identity(tensor, facts)
        if len(tensor.shape) < 2 or all(facts[part].constant for part in tensor.parts):
            twin = twin_of(view, name)
            if twin is None and not all(facts[part].constant for part in tensor.parts):
                twin = next((copied[name[:end]] + name[end:] for end in _dots(name) if name[:end] in copied), None)
            if twin in names and _identity(view.tensors[twin], facts) == identity:
                continue
        elif identity in seen:
            continue
        seen.add(identity)
        kept.append(name)
    return kept


def _precision(layers: Sequence[LayerMatrix], view: TensorView) -> str:
    """How the values of the layers are stored, the most frequent by elements first: ``int4 gptq, float16``."""
    elements: Counter[str] = Counter()
    for layer in layers:
        tensor = view.tensors[layer.tensor]
        elements[tensor.precision or tensor.dtype] += layer.p * layer.q
    return ", ".join(sorted(elements, key=lambda precision: (-elements[precision], precision)))


def _layers(
    order: list[str], infos: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> tuple[list[LayerMatrix], list[SkippedTensor]]:
    conv1d = is_conv1d_model(infos, config)
    layers: list[LayerMatrix] = []
    skipped: list[SkippedTensor] = []
    for name in order:
        info = infos[name]
        for piece in pieces_of(info, infos, conv1d=conv1d, config=config):
            rest = tuple(extent for axis, extent in enumerate(info.shape) if axis != piece.axis)
            groups = info.shape[piece.axis] // piece.period if piece.period else 1
            shape = (groups * (piece.stop - piece.start), *rest)
            label = f"{name}[{piece.label}]" if piece.label else name
            kind = _kind(name, shape, piece, first=not layers)
            layer = LayerMatrix(
                len(layers), label, name, shape, kind, piece.axis, piece.start, piece.stop, piece.period
            )
            if layer.p < 2:  # a part of a tensor that has two outputs; inputs are not cut
                skipped.append(SkippedTensor(label, info.dtype, shape, "fewer than two outputs"))
            else:
                layers.append(layer)
    return layers, skipped


def _kind(name: str, shape: tuple[int, ...], piece: Piece, *, first: bool) -> str:
    """Kind of a layer by its shape, then by the last parts of its name.

    A convolution with one input channel is depthwise, except the ``first`` layer, which may read a greyscale image or a
    waveform.
    """
    if piece.kind:
        return piece.kind
    if len(shape) > 2:
        return "depthwise" if shape[1] == 1 and not first else "conv"
    parts = [_SNAKE.sub("_", part).lower() for part in re.split(r"[./:]", name)[-5:]]
    if parts[-1] in ("weight", "weights", "kernel", "w", "embeddings", "embedding") and len(parts) > 1:
        parts.pop()
    own, above = parts[-1], parts[:-1]
    # The attention module is one or two name parts above: attn.proj, attention.self.query, attention.output.dense,
    # to_out.0
    if any(_ATTENTION.fullmatch(part) for part in above) and (
        _PROJECTION.fullmatch(own) or own == "dense" or (own.isdecimal() and above[-1:] in (["to_out"], ["project"]))
    ):
        return "attention"
    return "embedding" if _EMBEDDING.fullmatch(own) else "linear"


def topology_of(layers: Sequence[LayerMatrix]) -> str:
    """First 16 hexadecimal digits of the sha256 of the sorted shapes ``pxq``."""
    shapes = ",".join(f"{p}x{q}" for p, q in sorted((layer.p, layer.q) for layer in layers))
    return hashlib.sha256(shapes.encode()).hexdigest()[:16]


def _is_parameter(info: TensorInfo, reason: str | None) -> bool:
    return is_float(info.dtype) and reason not in NOT_PARAMETERS and not (reason or "").startswith(_TIED)


def _no_matrix(
    checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], skipped: Sequence[SkippedTensor]
) -> WeightsError:
    where = checkpoint.ref.target
    if not infos:
        return WeightsError(f"{where} holds no tensors", "save the whole state dict")
    reasons = Counter("tied" if each.reason.startswith(_TIED) else each.reason for each in skipped)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return WeightsError(
        f"{where} has no matrix of at least 2 x 2 among its {counted(len(infos), 'tensor')}: {told}",
        "load its weights first"
        if reasons["all zeros"]
        else "give the whole model: a layer needs at least two outputs and two inputs",
    )


def skip_reason(info: TensorInfo) -> str | None:
    """Why a tensor is no layer matrix; None where it is one.

    Parameters
    ----------
    info
        The tensor; its shape in torch's layout.

    Returns
    -------
    str or None
        One of a few fixed phrases, which are part of the matrix rule.
    """
    named = _reason_by_name(info)
    if named is not None and (named in NOT_PARAMETERS or is_float(info.dtype)):
        return named
    if not is_float(info.dtype):
        if info.dtype.startswith("complex"):
            return "complex"
        return "flags" if info.dtype == "bool" else f"integer or packed ({info.dtype})"
    if len(info.shape) < 2:
        return "vector or scalar"
    if info.size == 0:
        return "no elements"
    if info.shape[0] < 2:
        return "fewer than two outputs"
    return "fewer than two inputs" if info.size // info.shape[0] < 2 else None


def _reason_by_name(info: TensorInfo) -> str | None:
    parts = _SEPARATORS.split(info.name.lower()[-400:])
    last = parts[-1]
    if parts[0] in _OPTIMISER_ROOTS or _OPTIMISERS.fullmatch(last):
        return _OPTIMISER
    if last == "bias" and len(info.shape) == 4 and info.shape[:2] == (1, 1) and info.shape[2] == info.shape[3]:
        return _MASK  # GPT-2 keeps its causal mask under this name
    for reason, pattern in _LAST:
        if (len(info.shape) > 1 or reason in NOT_PARAMETERS) and pattern.fullmatch(last):
            return reason
    if len(info.shape) < 2:
        return None
    table = parts[-2] if last in ("weight", "weights", "embeddings", "embedding") and len(parts) > 1 else last
    return "position table" if len(info.shape) < 4 and _POSITION.fullmatch(table) else None


def stored_dtypes(checkpoint: Checkpoint, layers: Sequence[LayerMatrix]) -> list[str]:
    """Dtype of each layer as stored; empty where its values are computed, from codes and scales or other tensors."""
    view = effective(checkpoint).view
    tensors = [view.tensors[layer.tensor] for layer in layers]
    return [tensor.dtype if _is_stored(tensor, view) and not tensor.precision else "" for tensor in tensors]


def layer_matrix(checkpoint: Checkpoint, layer: LayerMatrix) -> NDArray[np.floating]:
    """W of one layer, read from the checkpoint.

    Parameters
    ----------
    checkpoint
        The opened weights that ``layer`` was planned on.
    layer
        Which tensor, and which part of it.

    Returns
    -------
    ndarray
        Shape (p, q), float32 or (of float64 tensors) float64, C-contiguous: outputs by flattened inputs.

    Raises
    ------
    WeightsError
        An element is NaN or infinite; the tensor and their number are named.
    """
    tensor = effective(checkpoint).read(layer.tensor)
    outputs = np.moveaxis(tensor, layer.axis, 0) if layer.axis else tensor
    if layer.period:
        groups = outputs.reshape(-1, layer.period, *outputs.shape[1:])
        part = groups[:, layer.start : layer.stop]
    else:
        part = outputs[layer.start : layer.stop]
    matrix = np.ascontiguousarray(part).reshape(layer.p, layer.q)
    bad = matrix.size - int(np.count_nonzero(np.isfinite(matrix)))
    if bad:
        raise WeightsError(
            f"tensor {layer.name} holds {bad} of {matrix.size} values that are NaN or infinite",
            "take another checkpoint: this one diverged or is damaged",
        )
    return matrix
