"""Source for TensorFlow.js: ``model.json`` of a layers model or a graph model, or a manifest of weights alone.

The manifest says for each group of weights the files of their bytes, one after another, and each weight's shape, type
and quantisation. Files are read beside the JSON only. Weights come in torch's layout: how each is used tell the layers'
classes (a layers model), the operations (a graph model), or names alone. Source: ``docs/`` and
``tfjs-core/src/io/types.ts`` of tensorflow/tfjs; quantised values are code * scale + min, as in ``io_utils.ts``.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source, common_prefix
from registry.sources.dtypes import bits_of, is_float
from registry.sources.files.byte_source import ByteSource, open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, computed, in_file
from registry.sources.formats.tensorflow.graph import in_torch_order
from registry.sources.formats.tensorflow.nodes import Function, Node, check_complete, flattened, laid, named, uses_of
from registry.sources.formats.tensorflow.tensors import short
from registry.sources.formats.tensorflow.variables import kind_of
from registry.sources.layer_order import layer_order
from registry.sources.model_files import with_facts
from registry.sources.outputs_last import outputs_first
from registry.types import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAX_JSON = 16 * 2**20
_MAX_FILES = 10_000
_MAX_AXES = 32
_MAX_TEXTS = 1_000_000
_SMALL = 64
_AGAIN = "download or save it again"
_TYPES = {"float32": "float32", "int32": "int32", "bool": "bool", "float16": "float16", "uint8": "uint8",
          "uint16": "uint16", "complex64": "complex64", "int8": "int8", "int16": "int16"}  # fmt: skip
_CLASSES = {
    "Conv1D": "conv", "Conv2D": "conv", "Conv3D": "conv", "Conv1DTranspose": "transposed", "Dense": "dense",
    "Conv2DTranspose": "transposed", "Conv3DTranspose": "transposed", "DepthwiseConv2D": "depthwise",
    "Embedding": "as_is",
}  # fmt: skip
"""Layouts of the one kernel of Keras' classes; those of others have names that tell."""


class _Joined(ByteSource):
    """Files one after another; one of them is open at a time."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self._paths = paths
        self._starts = [0, *accumulate(map(_size, paths))]
        self.size = self._starts[-1]
        self._open: tuple[int, ByteSource] | None = None

    def read_at(self, start: int, count: int) -> bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        found = bytearray(count)
        at = 0
        while at < count:
            which = bisect_right(self._starts, start + at) - 1
            inside = start + at - self._starts[which]
            part = min(count - at, self._starts[which + 1] - start - at)
            if self._open is None or self._open[0] != which:
                self.close()
                self._open = (which, open_bytes(self._paths[which]))
            found[at : at + part] = self._open[1].read_at(inside, part)
            at += part
        return found

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def open_tfjs(ref: ModelRef) -> Checkpoint:
    """Open a model or manifest of TensorFlow.js; raises the errors of `open_ref`."""
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "these models are never wrapped: leave --key out")
    content = _json(path)
    topology = content.get("modelTopology") if isinstance(content, dict) else None
    manifest = content.get("weightsManifest") if isinstance(content, dict) else content
    if not isinstance(manifest, list):
        raise WeightsError(f"{path} has no weightsManifest", "give the model.json that the converter wrote")
    files: list[ByteSource] = []
    notes: tuple[str, ...] = ()
    try:
        stored = _stored(path, manifest, files)
        nodes = topology.get("node") if isinstance(topology, dict) else None
        if isinstance(topology, dict) and isinstance(nodes, list):
            tensors, order, notes = _of_graph(str(path), stored, nodes, topology.get("library"))
        else:
            tensors, order = _of_layers(stored, _classes(topology), model=topology is not None)
        facts = replace(NO_FACTS, laid_out=True, order=order, notes=notes)
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=files)
    except BaseException:
        for file in files:
            file.close()
        raise


def _json(path: Path) -> Any:
    with open_bytes(path) as file:
        if file.size > _MAX_JSON:
            raise UnsafeError(
                f"{path} has {file.size / 2**20:.0f} MiB, more than {_MAX_JSON // 2**20}", "convert it again"
            )
        data = file.read_at(0, file.size)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no valid JSON", _AGAIN) from error


def _stored(path: Path, manifest: list[Any], files: list[ByteSource]) -> dict[str, LazyTensor]:
    """The weights of all groups, as stored, by name; texts are left out."""
    found: dict[str, LazyTensor] = {}
    count = 0
    for group in manifest:
        paths, weights = (group.get("paths"), group.get("weights")) if isinstance(group, dict) else (None, None)
        if not isinstance(paths, list) or not isinstance(weights, list) or not all(isinstance(p, str) for p in paths):
            raise WeightsError(
                f"{path} has a manifest without paths or weights", "give the file that the converter wrote"
            )
        count += len(paths)
        if count > _MAX_FILES or len(found) + len(weights) > MAX_TENSORS:
            raise UnsafeError(f"{path} names {count} files and {len(weights)} weights", "convert it again")
        file = _Joined([_beside(path, name) for name in paths], str(path))
        files.append(file)
        at = 0
        for weight in weights:
            name, tensor, at = _weight(path, file, weight, at)
            if name in found:
                raise WeightsError(f"{path} has two weights called {short(name)}", "convert it again")
            if tensor is not None:
                found[name] = tensor
    return found


def _beside(path: Path, name: str) -> Path:
    """A file of weights, beside the JSON."""
    if not name or name in (".", "..") or any(sign in name for sign in "/\\:\0"):
        raise UnsafeError(f"{path} names {name[:80]!r}, which is not beside it", "put all files in one folder")
    return path.with_name(name)


def _size(path: Path) -> int:
    try:
        with open_bytes(path) as file:
            return file.size
    except NotFoundError as error:
        raise WeightsError(f"{short(path.name)} is not beside the model that needs it", "put it there") from error


def _weight(path: Path, file: ByteSource, weight: Any, at: int) -> tuple[str, LazyTensor | None, int]:
    """Name and tensor of an entry whose bytes start at ``at``, and where the next ones do."""
    if not isinstance(weight, dict):
        raise WeightsError(f"{path} has a weight that is no object", _AGAIN)
    name, shape, kind = weight.get("name"), weight.get("shape"), weight.get("dtype")
    packed = weight.get("quantization")
    if not isinstance(name, str) or not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise WeightsError(f"{path} has a weight without name or shape", _AGAIN)
    if not all(isinstance(extent, int) and 0 <= extent < 2**40 for extent in shape):
        raise WeightsError(f"{path}: {short(name)} has the shape {str(shape)[:80]}", _AGAIN)
    if kind == "string":
        return name, None, _behind_texts(file, at, math.prod(shape))
    code = packed.get("dtype") if isinstance(packed, dict) else kind
    dtype = _TYPES.get(code) if isinstance(code, str) else None
    if dtype is None or not isinstance(kind, str) or kind not in _TYPES:
        raise WeightsError(
            f"{path}: {short(name)} is of the unknown type {short(str(code))}", "convert it without quantising"
        )
    tensor = in_file(file, at, dtype, shape)
    end = at + tensor.bytes
    if not isinstance(packed, dict) or code == "float16" or not is_float(kind):
        return name, tensor, end
    scale, low = packed.get("scale", 1.0), packed.get("min", 0.0)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in (scale, low)):
        raise WeightsError(f"{path}: {short(name)} has no scale and minimum", _AGAIN)
    width = math.prod(shape[1:]) * bits_of(dtype) // 8

    def rows(start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        codes = np.frombuffer(tensor.span(start * width, stop * width), np.dtype(dtype).newbyteorder("<"))
        with np.errstate(over="ignore", invalid="ignore"):  # of damaged scales
            return (codes * np.float64(scale) + np.float64(low)).astype(np.float32)

    return name, computed("float32", shape, rows, precision=f"{dtype} tfjs", stored=tensor.bytes), end


def _behind_texts(file: ByteSource, at: int, count: int) -> int:
    """Where texts end, each of which has its length in four bytes before it."""
    if count > _MAX_TEXTS:
        raise UnsafeError(f"{file.name} has {count} texts", "convert it again")
    for _ in range(count):
        at += 4 + int.from_bytes(file.read_at(at, 4), "little")
    return at


def _classes(topology: Any) -> dict[str, str]:
    """Classes of the layers by name. Nested models are walked without recursion."""
    found: dict[str, str] = {}
    waiting = [topology]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, Mapping):
            config = value.get("config")
            kind, own = value.get("class_name"), config.get("name") if isinstance(config, Mapping) else None
            if isinstance(kind, str) and isinstance(own, str):
                found[own] = kind
            waiting.extend(each for each in value.values() if isinstance(each, list | Mapping))
    return found


def _of_layers(
    stored: Mapping[str, LazyTensor], classes: Mapping[str, str], *, model: bool
) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
    cut = len(common_prefix(stored))
    shapes = {name[cut:]: tensor.shape for name, tensor in stored.items()}
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in stored.items():
        parts = name.split("/")
        kind, inputs = kind_of(name[cut:], tensor.shape, shapes)
        known = _CLASSES.get(classes.get(parts[-2], "")) if len(parts) > 1 and len(tensor.shape) > 1 else None
        tensors[name[cut:]] = outputs_first(tensor, known or kind, inputs=1 if known else inputs)
    if not model:
        return tensors, ()
    return tensors, layer_order({name: tensor.shape for name, tensor in tensors.items()})


def _of_graph(
    where: str, stored: Mapping[str, LazyTensor], nodes: list[Any], library: Any
) -> tuple[dict[str, LazyTensor], tuple[str, ...], tuple[str, ...]]:
    functions: dict[str, Function] = {}
    listed = library.get("function") if isinstance(library, Mapping) else None
    for each in listed if isinstance(listed, list) else []:
        signature = each.get("signature") if isinstance(each, Mapping) else None
        if isinstance(signature, Mapping):
            arguments = tuple(str(a.get("name")) for a in _maps(signature.get("inputArg")))
            returned = each.get("ret")
            returns = tuple(map(str, returned.values())) if isinstance(returned, Mapping) else ()
            inside = tuple(map(_node, _maps(each.get("nodeDef"))))
            functions[str(signature.get("name"))] = Function(arguments, inside, returns)
    graph = flattened(map(_node, _maps(nodes)), functions)

    def integers(name: str) -> list[int] | None:
        tensor = stored.get(name)
        if tensor is None or is_float(tensor.dtype) or math.prod(tensor.shape) > _SMALL:
            return None
        return [int(value) for value in np.atleast_1d(tensor.values()).ravel()]

    floats = {name: tensor for name, tensor in stored.items() if is_float(tensor.dtype)}
    shapes = {name: tensor.shape for name, tensor in floats.items()}
    uses = uses_of(graph, shapes)
    notes = check_complete(where, graph, shapes, uses)
    names, derived = named(uses)
    tensors: dict[str, LazyTensor] = {}
    for source, use in uses.items():
        tensor, kind, inputs = laid(floats[source], use, integers)
        tensors[names[source]] = outputs_first(tensor, kind, inputs=inputs)
    return *in_torch_order(tensors, {name: source for source, name in names.items()}, derived=derived), notes


def _maps(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())


def _node(value: Mapping[str, Any]) -> Node:
    """A NodeDef in JSON, where texts are in base64."""
    attrs: dict[str, Any] = {}
    given = value.get("attr")
    for key, each in given.items() if isinstance(given, Mapping) else ():
        if not isinstance(each, Mapping):
            continue
        if isinstance(each.get("b"), bool):
            attrs[key] = each["b"]
        elif isinstance(each.get("s"), str):
            attrs[key] = _text(each["s"])
        elif isinstance(each.get("func"), Mapping):
            attrs[key] = str(each["func"].get("name"))
    inputs = value.get("input")
    return Node(
        str(value.get("name")), str(value.get("op")), tuple(map(str, inputs)) if isinstance(inputs, list) else (), attrs
    )


def _text(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return value


SOURCE = Source(name="tfjs", open=open_tfjs, headers=True, ranges=True)
