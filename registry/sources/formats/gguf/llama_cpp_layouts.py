"""What llama.cpp's converter changes in tensors, undone: each has the rows of the module in transformers again.

Rules of ``modify_tensors`` in convert_hf_to_gguf.py of llama.cpp. Spectra do not depend on the order of rows, but the
content hash and the sketches do.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import WeightsError
from registry.sources.dtypes import bits_of, decode
from registry.sources.files.lazy_tensors import LazyTensor, computed, turned
from registry.sources.formats.gguf.gguf_header import Array
from registry.sources.formats.gguf.llama_cpp_names import renamed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from registry.sources.formats.gguf.gguf_header import Value
    from registry.sources.formats.gguf.llama_cpp_names import Family

__all__ = ["Heads", "as_in_transformers"]

# LlamaModel and the classes that take its rotation of pairs: queries and keys have pairs of rows side by side.
_PAIRED = frozenset(
    {
        "llama", "deci", "minicpm", "granite", "granitemoe", "granitehybrid", "smollm3", "arcee", "olmo", "internlm2",
        "chameleon", "bailingmoe", "deepseek", "arctic", "mistral3", "llama-embed", "llada", "baichuan", "xverse",
    }
)  # fmt: skip
_BY_HEAD = frozenset({"gptneox", "bloom", "falcon"})  # whose module has query, key and value of a head side by side
_INPUTS_FIRST = frozenset({"gpt2", "jais"})  # of Conv1D
_ROWS = re.compile(r"blk\.(\d{1,6})\.attn_(q|k|qkv)\.(weight|bias)")
_CONV1D = re.compile(r"blk\.\d{1,6}\.(attn_qkv|attn_output|ffn_gate|ffn_up|ffn_down)\.weight")
_LATENT = re.compile(r"(blk\.\d{1,6}\.attn_)k_b\.weight")
_FEED_FORWARD = re.compile(r"((?:v|a|t)\.blk\.\d{1,6}\.ffn_)(up|down)\.(weight|bias)")
_MOST_ROWS = 2**24


class Heads:
    """Numbers of heads and their widths, which metadata states for all blocks or for each."""

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self._prefix = f"{architecture}."

    def number(self, key: str, block: int = 0) -> int:
        """A positive whole number; 0 where there is none."""
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, Array):
            value = value.values[block] if block < len(value.values) else 0
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else 0

    def of(self, block: int) -> tuple[int, int]:
        """Heads of queries and of keys of a block."""
        heads = self.number("attention.head_count", block)
        return heads, self.number("attention.head_count_kv", block) or heads

    def widths(self, block: int) -> tuple[int, int, int]:
        """Rows of queries, keys and values of a block; zeros where they are not known."""
        heads, keys = self.of(block)
        width = self.number("embedding_length") // heads if heads else 0
        key, value = (self.number(f"attention.{what}_length", block) or width for what in ("key", "value"))
        return heads * key, keys * key, keys * value


def as_in_transformers(
    stored: Mapping[str, LazyTensor], metadata: Mapping[str, Value], architecture: str, family: Family
) -> dict[str, LazyTensor]:
    """Tensors under the names, and with the rows, of transformers' module; nothing is read.

    A tensor whose shape contradicts the numbers of heads stays as it is.
    """
    tensors = _with_scales(dict(stored))
    _join_latent(tensors)
    heads = Heads(metadata, architecture)
    found: dict[str, LazyTensor] = {}
    swapped = _swapped(tensors)
    for name, tensor in tensors.items():
        for part, made in _parts(swapped.get(name, name), tensor, heads, architecture, family).items():
            new = renamed(part, family)
            found[part if new in found else new] = made
    return found


def _parts(name: str, tensor: LazyTensor, heads: Heads, architecture: str, family: Family) -> Mapping[str, LazyTensor]:
    """The tensors of the module that one of the file holds, under llama.cpp's names: one, or three."""
    rows = _ROWS.fullmatch(name)
    if rows is not None and tensor.shape and 0 < tensor.shape[0] <= _MOST_ROWS:
        block, own, leaf = int(rows[1]), rows[2], rows[3]
        queries, keys = heads.of(block)
        if own != "qkv":
            count = queries if own == "q" else keys
            return {name: _unpaired(tensor, count) if architecture in _PAIRED else tensor}
        if architecture in _BY_HEAD:
            return {name: _by_head(tensor, queries, keys)}
        widths = heads.widths(block)
        if "attn_qkv" not in family.inside and 0 not in widths and sum(widths) == tensor.shape[0]:
            return _cut(tensor, [f"blk.{block}.attn_{part}.{leaf}" for part in "qkv"], widths)
    if architecture in _INPUTS_FIRST and len(tensor.shape) == 2 and _CONV1D.fullmatch(name):
        return {name: turned(tensor, (1, 0))}
    if name.endswith(".ssm_a"):
        return {name: _logarithm(_flat(tensor))}
    if name.endswith((".ssm_d", ".ssm_norm.weight")):
        return {name: _flat(tensor, whole=name.endswith("weight"))}
    if name.endswith(".ssm_conv1d.weight") and len(tensor.shape) == 2:
        return {name: replace(tensor, shape=(tensor.shape[0], 1, tensor.shape[1]))}
    return {name: tensor}


def _width(tensor: LazyTensor) -> int:
    """Bytes of a row's values."""
    return math.prod(tensor.shape[1:]) * bits_of(tensor.dtype) // 8


def _cut(tensor: LazyTensor, names: list[str], counts: tuple[int, ...]) -> dict[str, LazyTensor]:
    """Successive rows of a tensor as tensors of their own."""
    found, first, width = {}, 0, _width(tensor)
    for name, count in zip(names, counts, strict=True):

        def span(start: int, stop: int, offset: int = first * width) -> memoryview:
            return tensor.span(offset + start, offset + stop)

        stored = None if tensor.stored is None else tensor.stored * count // tensor.shape[0]
        found[name] = replace(tensor, shape=(count, *tensor.shape[1:]), span=span, stored=stored)
        first += count
    return found


def _in_order(tensor: LazyTensor, order: NDArray[np.intp], *, whole: bool) -> LazyTensor:
    """A tensor whose row i is the stored row ``order[i]``; of rows that are near each other only these are read."""
    width = _width(tensor)

    def span(start: int, stop: int) -> memoryview:
        if stop <= start or not width:
            return memoryview(b"")
        low, high = start // width, -(-stop // width)
        rows = order[low:high]
        first, last = int(rows.min()), int(rows.max()) + 1
        data = np.frombuffer(tensor.span(first * width, last * width), f"V{width}")
        taken: memoryview = data[rows - first].view(np.uint8).data
        return taken[start - low * width : stop - low * width]

    return replace(tensor, span=span, whole=whole)


def _unpaired(tensor: LazyTensor, heads: int) -> LazyTensor:
    """Rows of queries or keys, of which llama.cpp has the i-th of both halves of a head side by side."""
    rows = tensor.shape[0]
    if not heads or rows % (2 * heads):
        return tensor
    order = np.arange(rows, dtype=np.intp).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)
    return _in_order(tensor, order, whole=False)


def _by_head(tensor: LazyTensor, heads: int, keys: int) -> LazyTensor:
    """All queries, all keys, all values: for each head of keys its queries, its key and its value."""
    rows = tensor.shape[0]
    if not heads or heads % keys or rows % (heads + 2 * keys):
        return tensor
    size = rows // (heads + 2 * keys)
    places = np.arange(rows, dtype=np.intp).reshape(-1, size)
    queries = places[:heads].reshape(keys, heads // keys, size)
    rest = places[heads:].reshape(2, keys, 1, size)
    order = np.concatenate([queries, rest[0], rest[1]], axis=1).reshape(-1)
    return _in_order(tensor, order, whole=True)


def _flat(tensor: LazyTensor, *, whole: bool = False) -> LazyTensor:
    """A vector that llama.cpp has as (number, 1), or (``whole``) in groups."""
    if len(tensor.shape) != 2 or (tensor.shape[1] > 1 and not whole):
        return tensor
    return replace(tensor, shape=(math.prod(tensor.shape),))


def _logarithm(tensor: LazyTensor) -> LazyTensor:
    """``A_log`` of Mamba, of which llama.cpp stores -exp(A_log)."""
    width = _width(tensor)

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        values = decode(tensor.span(start * width, stop * width), tensor.dtype, (stop - start, *tensor.shape[1:]))
        with np.errstate(all="ignore"):  # of a damaged file; what is not finite is reported by the rule
            found: NDArray[np.float32] = np.log(-values).astype(np.float32)
        return found

    return computed("float32", tensor.shape, rows, precision=tensor.precision, stored=tensor.stored)


def _with_scales(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Weights multiplied by the number beside them (``NAME.scale`` of BitNet and NVFP4), or by one for each expert."""
    for name in [name for name in tensors if name.endswith(".scale")]:
        weight, scale = tensors.get(name.removesuffix("scale") + "weight"), tensors[name]
        if weight is None or not weight.shape or scale.dtype != "float32":
            continue
        if scale.shape not in ((), (1,), weight.shape[:1]) or len(weight.shape) < 2:
            continue
        tensors[name.removesuffix("scale") + "weight"] = _scaled(weight, scale)
        del tensors[name]
    return tensors


def _scaled(weight: LazyTensor, scale: LazyTensor) -> LazyTensor:
    count, each = math.prod(scale.shape), math.prod(weight.shape[1:])
    step = bits_of(weight.dtype) // 8

    def span(start: int, stop: int) -> memoryview:
        low, high = start // 4, -(-stop // 4)
        values = decode(weight.span(low * step, high * step), weight.dtype, (high - low,)).astype(np.float32)
        factors = decode(scale.span(0, scale.bytes), "float32", (count,))
        with np.errstate(all="ignore"):
            values *= factors[0] if count == 1 else factors[np.arange(low, high) // each]
        data: memoryview = values.view(np.uint8).data
        return data[start - 4 * low : stop - 4 * low]

    return LazyTensor("float32", weight.shape, span, weight.precision or f"{weight.dtype} gguf", weight.stored)


def _join_latent(tensors: dict[str, LazyTensor]) -> None:
    """DeepSeek's ``attn_kv_b`` from ``attn_k_b`` (head, latent, key) and ``attn_v_b`` (head, value, latent)."""
    for name in [name for name in tensors if _LATENT.fullmatch(name)]:
        joint = name.replace("_k_b.", "_kv_b.")
        other = name.replace("_k_b.", "_v_b.")
        if other not in tensors:
            continue
        key, value = tensors[name], tensors[other]
        if len(key.shape) != 3 or len(value.shape) != 3 or (key.shape[0], key.shape[1]) != value.shape[::2]:
            continue
        del tensors[name], tensors[other]
        tensors.setdefault(joint, _latent(key, value))


def _latent(key: LazyTensor, value: LazyTensor) -> LazyTensor:
    heads, latent, width = key.shape
    each = width + value.shape[1]

    def rows(start: int, stop: int) -> NDArray[np.generic]:
        low, high = start // each, -(-stop // each)
        parts = []
        for tensor in (key, value):
            size = _width(tensor)
            shape = (high - low, *tensor.shape[1:])
            parts.append(decode(tensor.span(low * size, high * size), tensor.dtype, shape).astype(np.float32))
        joint = np.concatenate([parts[0].swapaxes(1, 2), parts[1]], axis=1).reshape(-1, latent)
        return joint[start - low * each : stop - low * each]

    stored = sum(tensor.bytes if tensor.stored is None else tensor.stored for tensor in (key, value))
    precision = key.precision or ("" if key.dtype == "float32" else f"{key.dtype} gguf")
    return computed("float32", (heads * each, latent), rows, precision=precision, stored=stored)


def _swapped(tensors: Mapping[str, LazyTensor]) -> dict[str, str]:
    """New names of the MLP's tensors in vision towers of which early converters had up and down the wrong way round."""
    found: dict[str, str] = {}
    for name in tensors:
        match = _FEED_FORWARD.fullmatch(name)
        if match is None or match[2] != "down":
            continue
        down = tensors.get(f"{match[1]}down.weight")
        if down is not None and len(down.shape) == 2 and down.shape[0] > down.shape[1]:
            up = f"{match[1]}up.{match[3]}"
            found |= {name: up, up: name}
    return found


def check_type(where: str, name: str) -> None:
    """Raise ``WeightsError`` for a file that holds no network by its ``general.type``."""
    refused = {
        "adapter": ("a LoRA adapter", "ingest the adapter that it was converted from, with --base"),
        "imatrix": ("statistics of activations", "ingest the model that they are of"),
        "vocab": ("a vocabulary", "ingest the model that it is of"),
    }
    if name in refused:
        what, remedy = refused[name]
        raise WeightsError(f"{where} is {what} in GGUF, no network", remedy)
