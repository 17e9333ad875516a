"""Source for MXNet's ``.params``: of ``Module.save_checkpoint``, of Gluon, and of ``mx.nd.save``.

Convolutions are (out, in, *kernel) and fully connected layers (out, in), as in torch; transposed convolutions are (in,
out, *kernel), as in torch, too. The graph ``-symbol.json`` beside the file is needed for nothing but to tell transposed
convolutions whose names do not.

Source: ``src/ndarray/ndarray.cc`` of MXNet 1.9 (``NDArray::Save``, versions 1 to 3 and before), which writes in the
byte order of the machine; ``include/mxnet/tuple.h``.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, in_file, turned
from registry.sources.model_files import with_facts
from registry.types import ModelFacts

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "int16", "uint16", "uint32",
           "uint64", "bfloat16")  # fmt: skip
_MAX_DIMENSIONS = 32
_MAX_NAME = 1000
_MAX_SYMBOL = 64 * 2**20  # bytes
_KINDS = re.compile(r"(?:arg|aux):")
_LEAF = re.compile(
    r"(.+)_(weight|bias|gamma|beta|moving_mean|moving_var|running_mean|running_var|moving_avg|alpha)", re.DOTALL
)
_CHECKPOINT = re.compile(r"(.+?)-\d{4}")
_DAMAGED = "download or save it again"


class _Reader:
    """Numbers of a file from a position on."""

    def __init__(self, file: ByteSource, at: int = 0) -> None:
        self.file, self.at = file, at
        self._window: bytes | bytearray = b""
        self._low = 0

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes, of which at most some kilobytes are asked for."""
        inside = self.at - self._low
        if inside < 0 or inside + count > len(self._window):
            self._low = self.at
            self._window = self.file.read_at(self.at, max(count, min(4096, self.file.size - self.at)))
            inside = 0
        self.at += count
        return bytes(self._window[inside : inside + count])

    def numbers(self, kind: str, count: int = 1) -> tuple[int, ...]:
        """The next numbers of a format of `struct`."""
        layout = f"<{count}{kind}"
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def number(self, kind: str) -> int:
        """The next number of a format of `struct`."""
        return self.numbers(kind)[0]


def open_mxnet(ref: ModelRef) -> Checkpoint:
    """Open a file of parameters; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "leave --key out: it is never wrapped")
    file = open_bytes(ref.target)
    try:
        tensors = _arrays(file)
        operators = _operators(Path(ref.target))
        named: dict[str, LazyTensor] = {}
        for stored, tensor in tensors.items():
            name, tensor = _named(_KINDS.sub("", stored, count=1), tensor, operators)
            if name in named:
                raise WeightsError(f"{file.name} holds {name[:100]!r} twice", "save it again")
            named[name] = tensor
        facts = ModelFacts(laid_out=True)
        return LazyCheckpoint(with_facts(ref, facts), named, facts, files=[file])
    except BaseException:
        file.close()
        raise


def _arrays(file: ByteSource) -> dict[str, LazyTensor]:
    """The arrays of a file by their names, or by their numbers if it has no names."""
    reader = _Reader(file)
    magic, _, count = reader.numbers("Q", 3)
    if magic != _MAGIC:
        raise WeightsError(f"{file.name} is no file of MXNet's parameters", _DAMAGED)
    if count > MAX_TENSORS:
        raise UnsafeError(f"{file.name} claims {count} arrays, more than {MAX_TENSORS}", "split the file")
    tensors = [_array(reader) for _ in range(count)]
    names = reader.number("Q")
    if names not in (0, count):
        raise WeightsError(f"{file.name} has {names} names of {count} arrays", _DAMAGED)
    found: dict[str, LazyTensor] = {}
    for number, tensor in enumerate(tensors):
        name = str(number)
        if names:
            length = reader.number("Q")
            if length > _MAX_NAME:
                raise UnsafeError(f"{file.name} has a name of {length} bytes", "rename it, then save again")
            name = reader.bytes(length).decode("utf-8", "replace")
        if tensor is None:
            continue
        if name in found:
            raise WeightsError(f"{file.name} holds {name[:100]!r} twice", "save it again")
        found[name] = tensor
    return found


def _array(reader: _Reader) -> LazyTensor | None:
    """The array at the reader's position, which is then behind it; None for one that was never set."""
    file = reader.file
    magic = reader.number("I")
    if magic in (_V2, _V3):
        storage = reader.number("i")
        if storage not in (0, -1):
            raise WeightsError(f"{file.name} holds a sparse array", "save it with tostype('default')")
    if magic in (_V1, _V2, _V3):
        dimensions, width = reader.number("i"), "q"
    else:
        dimensions, width = magic, "I"
    if dimensions == -1 or (dimensions == 0 and magic != _V3):
        return None
    if not 0 <= dimensions <= _MAX_DIMENSIONS:
        raise WeightsError(f"{file.name} has an array of {dimensions} dimensions at byte {reader.at}", _DAMAGED)
    shape = reader.numbers(width, dimensions) if dimensions else ()
    _, _, kind = reader.numbers("i", 3)  # the device, its number
    if not 0 <= kind < len(_DTYPES):
        raise WeightsError(f"{file.name} has an array of the unknown type {kind}", _DAMAGED)
    tensor = in_file(file, reader.at, _DTYPES[kind], shape)
    reader.at += math.prod(shape) * bits_of(_DTYPES[kind]) // 8
    return tensor


def _named(name: str, tensor: LazyTensor, operators: dict[str, str]) -> tuple[str, LazyTensor]:
    """A name with a dot before the kind of parameter, as in torch, and the tensor."""
    name = name.replace("\0", "")
    match = _LEAF.fullmatch(name)
    if match is None:
        return name, tensor
    module, leaf = match[1], match[2]
    if operators.get(name) == "Deconvolution" and leaf == "weight" and len(tensor.shape) > 2:
        axes = (1, 0, *range(2, len(tensor.shape)))  # the name may not tell, so outputs come first
        return f"{module}.kernel", turned(tensor, axes)
    return f"{module}.{leaf}", tensor


def _operators(path: Path) -> dict[str, str]:
    """By name of a parameter, the operator that it is the second input of, from the graph beside the file."""
    checkpoint = _CHECKPOINT.fullmatch(path.stem)
    beside = path.with_name(f"{checkpoint[1] if checkpoint else path.stem}-symbol.json")
    try:
        with open_bytes(beside) as file:
            if file.size > _MAX_SYMBOL:
                return {}
            content = json.loads(file.read_at(0, file.size))
    except (RegistryError, ValueError, RecursionError):
        return {}  # there is none that can be read, and names tell
    nodes: Any = content.get("nodes") if isinstance(content, dict) else None
    found: dict[str, str] = {}
    for node in nodes if isinstance(nodes, list) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for each in inputs[1:2] if isinstance(inputs, list) else ():
            source = nodes[each[0]] if isinstance(each, list) and each and _is_index(each[0], nodes) else None
            if isinstance(source, dict) and isinstance(source.get("name"), str) and isinstance(node.get("op"), str):
                found[source["name"]] = node["op"]
    return found


def _is_index(value: object, of: list[Any]) -> bool:
    return isinstance(value, int) and 0 <= value < len(of)


SOURCE = Source(name="mxnet", open=open_mxnet, headers=True, ranges=True)
