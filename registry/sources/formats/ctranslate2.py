"""Source for CTranslate2: ``model.bin``, the variables of a specification one behind the other, and aliases.

Source: ``specs/model_spec.py`` of CTranslate2 (binary versions 4 to 6) for the file and for quantisation (a weight is
code / scale, with one scale a row or, of int16, one for all); ``specs/attention_spec.py`` and ``converters/utils.py``
for the projections that are stored as one: q, k and v of self-attention, k and v of cross-attention. Names are made
those of transformers' encoders and decoders, so that the layers have their order.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, computed, in_file
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_ctranslate2"]

_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_OLDEST = 4  # before it, the type of a variable was only its size
_MAX_RANK = 8
_MAX_NAME = 1000
_REMEDY = "convert the model again with a converter of CTranslate2"
_AWQ = {1: "gemm", 2: "gemv"}  # quantization_type in config.json
_LINEAR = re.compile(r"(.*/)?(self_attention|attention)/linear_([012])/(\w+)")
_LAYER = re.compile(r"layer_(\d+)")
_LEAVES = {"gamma": "weight", "beta": "bias", "weight_scale": "scales", "weight_zero": "qzeros"}
_PLACES = {
    "position_encodings/encodings": "embed_positions/weight", "embeddings_0": "embed_tokens",
    "embeddings_1": "token_type_embeddings", "embeddings": "embed_tokens", "self_attention": "self_attn",
    "attention": "encoder_attn", "relative_attention_bias": "relative_attention_bias/weight",
}  # fmt: skip


class _File(NamedTuple):
    """What a file holds: variables by name, and the variables that other names stand for."""

    variables: dict[str, LazyTensor]
    aliases: dict[str, str]


def open_ctranslate2(ref: ModelRef) -> Checkpoint:
    """Open a ``model.bin``. The headers of its variables are read, and no values.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The file is damaged or of a version before 4, a weight has no scale, or fused projections have no size of their
        own.
    UnsafeError
        It holds more variables or axes than any network.
    NotFoundError
        An entry was asked for.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "CTranslate2 models are one network: omit --key")
    file = open_bytes(ref.target)
    try:
        found = _read(file)
        facts = facts_beside(Path(ref.target))
        tensors, aliases = _named(found)
        if not tensors:
            raise WeightsError(f"{ref.target} holds no weights of a network", _REMEDY)
        facts = replace(
            facts,
            config={},  # it describes the model to CTranslate2, in words of its own
            quantisation=_awq(facts.config),
            aliases=aliases,
            laid_out=True,
        )
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,))
    except BaseException:
        file.close()
        raise


def _awq(config: Mapping[str, object]) -> dict[str, object]:
    """What the configuration says of AWQ's packed weights, in AWQ's words; empty without them."""
    version = config.get("quantization_type")
    if not isinstance(version, int) or version not in _AWQ:
        return {}
    return {
        "quant_method": "awq",
        "version": _AWQ[version],
        "bits": config.get("quantization_bits"),
        "group_size": config.get("quantization_group_size"),
    }


class _Header:
    """The headers of a file, read in their order."""

    def __init__(self, file: ByteSource) -> None:
        self.file = file
        self.at = 0

    def number(self, kind: str) -> int:
        size = struct.calcsize(f"<{kind}")
        value: int = struct.unpack(f"<{kind}", self.file.read_at(self.at, size))[0]
        self.at += size
        return value

    def text(self) -> str:
        length = self.number("H")
        if not 1 <= length <= _MAX_NAME:
            raise WeightsError(f"{self.file.name} has a name of {length} bytes at byte {self.at}", _REMEDY)
        data = bytes(self.file.read_at(self.at, length))
        self.at += length
        try:
            return data[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise WeightsError(f"{self.file.name} has a name at byte {self.at} that is no text", _REMEDY) from error


def _read(file: ByteSource) -> _File:
    header = _Header(file)
    version = header.number("I")
    if version < _OLDEST:
        raise WeightsError(f"{file.name} is of binary version {version}, before {_OLDEST}", _REMEDY)
    header.text()
    header.number("I")  # the revision of the specification
    count = header.number("I")
    if count > MAX_TENSORS:
        raise UnsafeError(f"{file.name} claims {count} variables, more than {MAX_TENSORS}", _REMEDY)
    variables: dict[str, LazyTensor] = {}
    for _ in range(count):
        name = header.text()
        rank = header.number("B")
        if rank > _MAX_RANK:
            raise UnsafeError(f"{file.name}: variable {name[:80]!r} has {rank} axes, more than {_MAX_RANK}", _REMEDY)
        shape = tuple(header.number("I") for _ in range(rank))
        kind, size = header.number("B"), header.number("I")
        if kind >= len(_DTYPES) or name in variables:
            what = "is stored twice" if name in variables else f"is of an unknown type {kind}"
            raise WeightsError(f"{file.name}: variable {name[:80]!r} {what}", _REMEDY)
        tensor = in_file(file, header.at, _DTYPES[kind], shape)
        if tensor.bytes != size:
            raise WeightsError(
                f"{file.name}: variable {name[:80]!r} of shape {shape} and type {_DTYPES[kind]} has {size} bytes",
                _REMEDY,
            )
        variables[name] = tensor
        header.at += size
    aliases: dict[str, str] = {}
    for _ in range(header.number("I")):
        name, other = header.text(), header.text()
        if other not in variables or name in variables:
            raise WeightsError(f"{file.name}: {name[:80]!r} stands for {other[:80]!r}, which it cannot", _REMEDY)
        aliases[name] = other
    if header.at != file.size:
        raise WeightsError(f"{file.name} has {file.size - header.at} bytes more than its variables take", _REMEDY)
    return _File(variables, aliases)


def _named(found: _File) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Weights under transformers' names, dequantised and cut; and other names of those that are tied."""
    tensors: dict[str, LazyTensor] = {}
    places: dict[str, str] = {}  # by stored name, the first name that was made of it
    glued = {name.rpartition("/")[0] for name in (*found.variables, *found.aliases) if "linear_0_noact/" in name}
    for name, stored in found.variables.items():
        leaf = name.rpartition("/")[2]
        owner = found.variables.get(name.rpartition("_")[0])
        if leaf.endswith(("_scale", "_zero")) and owner is not None and owner.dtype != "int32":
            continue  # a part of that weight; of AWQ's, it is joined later
        tensor = _weight(found.variables, name, stored)
        if tensor is None:
            continue
        for new, part in _parts(found.variables, name, tensor, glued).items():
            tensors[new] = part
            places.setdefault(name, new)
    aliases: dict[str, str] = {}
    for name, other in found.aliases.items():
        if other not in places:
            continue
        if len(found.variables[other].shape) > 1:
            new = next(iter(_parts(found.variables, name, tensors[places[other]], glued, cut=False)))
            aliases[new] = places[other]
        else:  # vectors that happen to be equal are each a parameter
            tensors[_translated(name, glued)] = tensors[places[other]]
    return _shared(tensors, aliases)


def _shared(tensors: dict[str, LazyTensor], aliases: dict[str, str]) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Embeddings that encoder and decoder share come before both."""
    mine, other = "decoder.embed_tokens.weight", "encoder.embed_tokens.weight"
    if aliases.get(other) != mine:
        return tensors, aliases
    renamed = {"shared.weight" if name == mine else name: tensor for name, tensor in tensors.items()}
    aliases = {name: "shared.weight" if whole == mine else whole for name, whole in aliases.items()}
    return renamed, aliases | {mine: "shared.weight"}


def _weight(variables: Mapping[str, LazyTensor], name: str, stored: LazyTensor) -> LazyTensor | None:
    """The values of a weight; None of what is a setting."""
    scale = variables.get(f"{name}_scale")
    if is_float(stored.dtype) or (stored.dtype == "int32" and len(stored.shape) == 2):
        return stored if stored.shape else None
    if stored.dtype not in ("int8", "int16") or len(stored.shape) < 2:
        return None  # a setting: a number, or text as bytes
    if scale is None or not is_float(scale.dtype):
        raise WeightsError(f"weight {name[:80]!r} is {stored.dtype} and has no scale", _REMEDY)
    rows_of = (*stored.shape[:1], *stored.shape[2:])
    if scale.shape not in ((), (1,), stored.shape[:1], rows_of):
        raise WeightsError(f"weight {name[:80]!r} of shape {stored.shape} has a scale of shape {scale.shape}", _REMEDY)
    width = math.prod(stored.shape[1:])
    spread = (-1, *(1,) * (len(stored.shape) - 1)) if scale.shape != rows_of else (-1, 1, *stored.shape[2:])

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        size = bits_of(stored.dtype) // 8
        codes = np.frombuffer(stored.span(start * width * size, stop * width * size), f"<i{size}")
        factors = scale.values().astype(np.float32).reshape(spread)
        factors = factors if len(factors) == 1 else factors[start:stop]
        with np.errstate(all="ignore"):
            values: NDArray[np.generic] = codes.reshape(stop - start, *stored.shape[1:]).astype(np.float32) / factors
        return values

    return computed(
        "float32", stored.shape, rows, precision=f"{stored.dtype} ctranslate2", stored=stored.bytes + scale.bytes
    )


def _parts(
    variables: Mapping[str, LazyTensor], name: str, tensor: LazyTensor, glued: set[str], *, cut: bool = True
) -> dict[str, LazyTensor]:
    """A weight under its new name; several, of projections that are stored as one."""
    match = _LINEAR.fullmatch(name)
    if match is None:
        module, slash, leaf = name.rpartition("/")
        return {_translated(f"{module}{slash}{_leaf(tensor, leaf)}", glued): tensor}
    head, attention, number, leaf = match[1] or "", match[2], int(match[3]), match[4]
    own = attention == "self_attention"
    parts = (("q", "k", "v"), ("out",), ("rest",))[number] if own else (("q",), ("k", "v"), ("out",))[number]
    new = [_translated(f"{head}{attention}/{part}_proj/{_leaf(tensor, leaf)}", glued) for part in parts]
    if len(parts) == 1 or not cut:
        return {new[0]: tensor}
    sizes, axis = _sizes(variables, f"{head}{attention}", leaf, tensor, len(parts), name)
    found, start = {}, 0
    for each, size in zip(new, sizes, strict=False):
        if size:
            found[each] = _slice(tensor, axis, start, start + size)
        start += size
    return found


def _sizes(
    variables: Mapping[str, LazyTensor], module: str, leaf: str, tensor: LazyTensor, count: int, name: str
) -> tuple[list[int], int]:
    """How many outputs each of fused projections has in a tensor, and along which axis.

    The projection behind self-attention has as many inputs as q has outputs; k and v have equal shares of the rest.
    """
    axis, queries = 0, 0
    if count == 3:
        behind = variables.get(f"{module}/linear_1/weight")
        extents = () if behind is None or len(behind.shape) != 2 else behind.shape
        if behind is not None and extents and behind.dtype == "int32":  # AWQ, of eight codes a word
            scales = variables.get(f"{module}/linear_1/weight_scale")
            if scales is not None and scales.shape[:1] == extents[:1]:  # gemv: (out, in / 8)
                queries = 8 * extents[1]
            else:  # gemm: (in, out / 8)
                axis = 0 if leaf == "bias" else 1
                queries = extents[0] // (8 if leaf in ("weight", "weight_zero") else 1)
        elif extents:
            queries = extents[1]
    outputs = tensor.shape[axis] if axis < len(tensor.shape) else 0
    rest = outputs - queries
    if rest < 0 or rest % 2 or (count == 3 and queries < 1):
        fused = "q, k and v" if count == 3 else "k and v"
        raise WeightsError(f"{name[:80]!r} of shape {tensor.shape} does not hold {fused}", _REMEDY)
    return ([queries] if count == 3 else []) + [rest // 2] * 2, axis


def _leaf(tensor: LazyTensor, leaf: str) -> str:
    return "qweight" if leaf == "weight" and tensor.dtype == "int32" else _LEAVES.get(leaf, leaf)


def _translated(name: str, glued: set[str]) -> str:
    """A variable's name as transformers would call it: ``decoder.layers.0.self_attn.q_proj.weight``."""
    module, slash, leaf = name.rpartition("/")
    gated = f"{module.rpartition('/')[0]}/linear_0_noact" in glued
    for old, new in (("ffn/linear_0_noact", "mlp/up_proj"), ("ffn/linear_0", "mlp/gate_proj" if gated else "mlp/fc1"),
                     ("ffn/linear_1", "mlp/down_proj" if gated else "mlp/fc2")):  # fmt: skip
        if module.endswith(old):
            module = module[: -len(old)] + new
            break
    path = f"{module}{slash}{_LEAVES.get(leaf, leaf)}"
    if path.startswith("decoder/projection/"):
        path = f"lm_head/{path.rpartition('/')[2]}"
    path = path.replace("position_encodings/encodings", "embed_positions/weight")
    parts = [_PLACES.get(part, part) for part in path.split("/")]
    return _LAYER.sub(r"layers.\1", ".".join(parts)).replace("/", ".")


def _slice(tensor: LazyTensor, axis: int, start: int, stop: int) -> LazyTensor:
    """Indices of an axis of a matrix or vector."""
    shape = tensor.shape
    share = (stop - start) / max(1, shape[axis])
    stored = None if tensor.stored is None else int(tensor.stored * share)
    if axis == 0:
        width = math.prod(shape[1:]) * bits_of(tensor.dtype) // 8

        def span(low: int, high: int) -> memoryview:
            return tensor.span(start * width + low, start * width + high)

        return replace(tensor, shape=(stop - start, *shape[1:]), span=span, stored=stored)

    def rows(low: int, high: int) -> NDArray[np.generic]:
        values = tensor.values()
        return values[low:high, start:stop]

    return computed(tensor.dtype, (shape[0], stop - start), rows, stored=stored, whole=True)


SOURCE = Source(name="ctranslate2", open=open_ctranslate2, headers=True, ranges=True)
