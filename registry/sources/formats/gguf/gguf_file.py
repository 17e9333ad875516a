"""Source for GGUF files, of one part or several: tensors as transformers has them, dequantised when they are read."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, in_file
from registry.sources.formats.gguf.ggml_blocks import INTERMEDIATE, REMOVED, TYPES, values_of
from registry.sources.formats.gguf.gguf_header import Array, read_header
from registry.sources.formats.gguf.llama_cpp_layouts import Heads, as_in_transformers, check_type
from registry.sources.formats.gguf.llama_cpp_names import family_of, is_llama_cpp
from registry.sources.model_files import with_facts
from registry.types import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.sources.files.byte_source import ByteSource
    from registry.sources.formats.gguf.ggml_blocks import Type
    from registry.sources.formats.gguf.gguf_header import Header, Stored, Value
    from registry.sources.formats.gguf.llama_cpp_names import Family
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_gguf", "open_parts"]

_AT_ONCE = 2**20  # values dequantised at a time, so that intermediate results stay in the cache
_REMEDY = "download or convert it again"
_SPLIT = ("split.no", "split.count", "split.tensors.count")
# Keys of metadata, without the architecture's name, and of transformers' configuration.
_CONFIG = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok", "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}  # fmt: skip
_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "modern-bert", "jina-bert-v2", "jina-bert-v3", "neo-bert", "clip"}
)


def open_gguf(ref: ModelRef) -> Checkpoint:
    """Open a GGUF file; raises the errors of `open_ref`."""
    return open_parts(ref, [Path(ref.target)])


def open_parts(ref: ModelRef, paths: Sequence[Path]) -> Checkpoint:
    """Open the parts of a model, of which the first has the metadata.

    Raises
    ------
    SourceError
        A file cannot be read, or the library ``gguf`` is needed and not installed.
    UnsafeError
        A header is larger than any model's.
    WeightsError
        A file is damaged, holds types that are not known, no network, or a part of one alone.
    """
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "a GGUF file holds one model: leave --key out")
    files: list[ByteSource] = []
    try:
        for path in paths:
            files.append(open_bytes(path))
        return _opened(ref, files)
    except BaseException:
        for file in files:
            file.close()
        raise


def _opened(ref: ModelRef, files: Sequence[ByteSource]) -> Checkpoint:
    headers = [read_header(file) for file in files]
    metadata = headers[0].metadata
    check_type(files[0].name, str(metadata.get("general.type", "")))
    _check_parts(files, headers)
    stored: dict[str, LazyTensor] = {}
    for file, header in zip(files, headers, strict=True):
        for name, tensor in _tensors(file, header, metadata).items():
            if name in stored:
                raise WeightsError(f"{file.name} has the tensor {name[:100]!r} of another part", _REMEDY)
            stored[name] = tensor
    architecture = str(metadata.get("general.architecture", ""))
    family = family_of(architecture)
    if is_llama_cpp(frozenset(stored)):
        tied = "output.weight" not in stored and architecture not in _ENCODERS and "token_embd.weight" in stored
        config = _config(metadata, architecture, family, tied=tied)
        tensors = as_in_transformers(stored, metadata, architecture, family)
    else:
        config, tensors = {}, stored
    facts = ModelFacts(config=config, metadata=_texts(metadata), laid_out=True)
    return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=files)


def _check_parts(files: Sequence[ByteSource], headers: Sequence[Header]) -> None:
    """Raise ``WeightsError`` where parts are missing, or are of different models."""
    counts = {header.metadata.get("split.count", 1) for header in headers}
    count = counts.pop()
    first = files[0].name
    if counts or (len(files) > 1 and count != len(files)):
        raise WeightsError(f"{first} and the files that its name tells are parts of different models", _REMEDY)
    if isinstance(count, int) and count > len(files):
        raise WeightsError(
            f"{first} is one of {count} parts of a model, by its header",
            f"name them as they were: MODEL-00001-of-{count:05}.gguf and so on, in one folder",
        )
    total = headers[0].metadata.get("split.tensors.count")
    held = sum(len(header.tensors) for header in headers)
    if len(files) > 1 and isinstance(total, int) and total != held:
        raise WeightsError(f"{first} states {total} tensors in all parts, which hold {held}", _REMEDY)


def _tensors(file: ByteSource, header: Header, metadata: Mapping[str, Value]) -> dict[str, LazyTensor]:
    """Tensors of a file under the names that they have there. Raises ``WeightsError`` where places are wrong."""
    found: dict[str, LazyTensor] = {}
    ends: list[tuple[int, int, str]] = []
    for stored in header.tensors:
        kind = _type(file, stored)
        if stored.offset % header.alignment:
            raise WeightsError(
                f"{file.name}: tensor {stored.name[:100]!r} is at byte {stored.offset}, no multiple of "
                f"{header.alignment}",
                _REMEDY,
            )
        shape = _shape(stored, metadata)
        tensor = (
            in_file(file, stored.offset, kind.dtype, shape, big=header.big)
            if kind.dtype
            else _blocks(file, stored, kind, shape, big=header.big)
        )
        found[stored.name] = tensor
        ends.append(
            (stored.offset, stored.offset + (tensor.bytes if tensor.stored is None else tensor.stored), stored.name)
        )
    ends = sorted(each for each in ends if each[1] > each[0])
    for (_, end, name), (start, _, other) in pairwise(ends):
        if start < end:
            raise WeightsError(f"{file.name}: tensors {name[:100]!r} and {other[:100]!r} lie over each other", _REMEDY)
    return found


def _type(file: ByteSource, stored: Stored) -> Type:
    """The type of a tensor; raises ``WeightsError`` that names one that is not read."""
    found = TYPES.get(stored.kind)
    if found is not None:
        return found
    where = f"{file.name}: tensor {stored.name[:100]!r}"
    if stored.kind in REMOVED:
        raise WeightsError(
            f"{where} is of the type {REMOVED[stored.kind]} ({stored.kind}), which ggml no longer has",
            "quantise the model again with llama.cpp's llama-quantize",
        )
    if stored.kind in INTERMEDIATE:
        raise WeightsError(
            f"{where} is of the type {INTERMEDIATE[stored.kind]} ({stored.kind}), that of intermediate results",
            "quantise the model again with llama.cpp's llama-quantize",
        )
    raise WeightsError(
        f"{where} is of the unknown type {stored.kind}",
        "update architecture-registry, or convert it with llama.cpp: llama-quantize --allow-requantize FILE OUT F16",
    )


def _shape(stored: Stored, metadata: Mapping[str, Value]) -> tuple[int, ...]:
    """The shape of a tensor; of those that ComfyUI-GGUF flattened, the one in the metadata."""
    told = metadata.get(f"comfy.gguf.orig_shape.{stored.name}")
    if isinstance(told, Array) and told.values and all(isinstance(n, int) and n >= 0 for n in told.values):
        shape = tuple(int(extent) for extent in told.values)
        if math.prod(shape) == math.prod(stored.shape):
            return shape
    return stored.shape


def _blocks(file: ByteSource, stored: Stored, kind: Type, shape: tuple[int, ...], *, big: bool) -> LazyTensor:
    """A tensor of quantised blocks; its values are float32."""
    elements = math.prod(stored.shape)
    where = f"{file.name}: tensor {stored.name[:100]!r}"
    row = stored.shape[-1] if stored.shape else 1
    if row % kind.block:
        raise WeightsError(
            f"{where} of the type {kind.name} has rows of {row} values, no multiple of {kind.block}",
            _REMEDY,
        )
    size = elements // kind.block * kind.size
    if stored.offset + size > file.size:
        raise WeightsError(
            f"{where} takes {size} bytes at {stored.offset}, and the file has {file.size}", "download it again"
        )
    if big and kind.words is None:
        raise WeightsError(
            f"{where} has big-endian blocks of the type {kind.name}, which are not read",
            "quantise the model again on a little-endian machine",
        )
    width = 4 * kind.block

    def span(start: int, stop: int) -> memoryview:
        if stop <= start:
            return memoryview(b"")
        low, high = start // width, -(-stop // width)
        out = np.empty((high - low, kind.block), "<f4")
        step = max(1, _AT_ONCE // kind.block)
        for first in range(low, high, step):
            last = min(first + step, high)
            data = file.read_at(stored.offset + first * kind.size, (last - first) * kind.size)
            blocks = np.frombuffer(data, np.uint8).reshape(-1, kind.size)
            if big:
                blocks = _swapped(blocks, kind)
            with np.errstate(all="ignore"):  # scales of a damaged file; the rule reports what is not finite
                out[first - low : last - low] = values_of(kind, blocks)
        values: memoryview = out.reshape(-1).view(np.uint8).data
        return values[start - low * width : stop - low * width]

    return LazyTensor("float32", shape, span, f"{kind.name.lower()} gguf", size)


def _swapped(blocks: np.ndarray[Any, np.dtype[np.uint8]], kind: Type) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocks whose numbers of two bytes are turned."""
    turned = blocks.copy()
    for at in kind.words or ():
        turned[:, at], turned[:, at + 1] = blocks[:, at + 1], blocks[:, at]
    return turned


def _config(metadata: Mapping[str, Value], architecture: str, family: Family, *, tied: bool) -> dict[str, Any]:
    """What ``config.json`` of the model would say, as far as the rule asks for it."""
    heads = Heads(metadata, architecture)
    config: dict[str, Any] = {"model_type": family.model_type or architecture.replace("-", "_")}
    for key, name in _CONFIG.items():
        if number := heads.number(key):
            config[name] = number
    words = metadata.get("tokenizer.ggml.tokens")
    if isinstance(words, Array) and words.length:
        config.setdefault("vocab_size", words.length)
    if architecture not in _ENCODERS:
        config["tie_word_embeddings"] = tied
    queries, keys = heads.of(0)
    if architecture == "falcon":
        config |= {"multi_query": keys == 1, "new_decoder_architecture": 1 < keys < queries}
    if architecture == "starcoder":
        config["multi_query"] = keys == 1
    return config


def _texts(metadata: Mapping[str, Value]) -> dict[str, str]:
    """Short texts about the model; not its template and its vocabulary."""
    return {
        key: value[:1000]
        for key, value in metadata.items()
        if key.startswith("general.") and isinstance(value, str) and value
    }


SOURCE = Source(name="gguf", open=open_gguf, headers=True, ranges=True)
