"""Source for MATLAB files of versions 5 and 7.3.

Of MatConvNet's networks (``simplenn`` and ``dagnn``) the parameters are read, filters (height, width, in, out) in
torch's layout (out, in, height, width). Of other files, every array of numbers is a tensor, named by the path to it
(``net.weights{1}``); what a file does not say is which axis has the outputs, so that arrays stay as stored, except
arrays of four axes of which only the first two can be a window. Single numbers are settings and no tensors.

Version 7.3 is HDF5, with the axes of each array reversed, cells as references, and the class of each value in an
attribute. Source: "MAT-File Versions", MathWorks; ``vl_simplenn.m`` and ``+dagnn`` of MatConvNet 1.0-beta25.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.dtypes import is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, turned
from registry.sources.formats.hdf5 import Hdf5, Node, NotNumbersError
from registry.sources.formats.mat_5 import read_mat_5
from registry.sources.formats.mat_values import Budget, Value
from registry.spelling import counted
from registry.types import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAX_TEXT = 1 << 16  # characters
_WIDEST = 15  # of a window of a convolution
_HDF5_MARK = b"MATLAB 7.3"
_RESERVED = frozenset({"#refs#", "#subsystem#"})
_NO_NUMBERS = {"function_handle": "a function", "canonical empty": "empty"}


def open_mat(ref: ModelRef) -> Checkpoint:
    """Open a MATLAB file; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "MATLAB files are read whole: leave --key out")
    file = open_bytes(ref.target)
    opened: list[ByteSource] = [file]
    try:
        if file.size < 136:
            raise WeightsError(f"{file.name} is cut off inside its header", "download or save it again")
        if bytes(file.read_at(0, len(_HDF5_MARK))) == _HDF5_MARK:
            hdf5 = Hdf5(file)
            opened.insert(0, hdf5)
            variables = _Reader(hdf5).variables()
        else:
            variables, unpacked = read_mat_5(file)
            opened.insert(0, unpacked)
        tensors = _network(variables)
        notes: list[str] = []
        if not tensors:
            tensors, notes = _arrays(variables)
        if not tensors:
            kinds = sorted({value.other for value in variables.values() if value.other})
            said = f", only {', '.join(kinds[:3])}" if kinds else ""
            raise WeightsError(f"{file.name} holds no arrays of numbers{said}", "save the weights as arrays")
        facts = ModelFacts(laid_out=True, notes=tuple(notes))
        return LazyCheckpoint(ref, tensors, facts, files=opened)
    except BaseException:
        for each in opened:
            each.close()
        raise


class _Reader:
    """Values of a file of version 7.3."""

    def __init__(self, file: Hdf5) -> None:
        self.file = file
        self.budget = Budget(file.name)

    def variables(self) -> dict[str, Value]:
        """All variables by name."""
        found: dict[str, Value] = {}
        waiting: list[tuple[Node, Value, int]] = []
        for node in self.file.children(self.file.root):
            if node.path not in _RESERVED:
                found[node.path] = Value()
                waiting.append((node, found[node.path], 0))
        while waiting:
            node, value, depth = waiting.pop()
            self.budget.take(1, depth)
            waiting += [(inner, each, depth + 1) for inner, each in self.read(node, value)]
        return found

    def read(self, node: Node, value: Value) -> list[tuple[Node, Value]]:
        """Fill in a value; what is inside of it is returned, to be filled in."""
        if node.address is None:
            value.other = "an object"
            return []
        kind = self.file.attribute(node, "MATLAB_class")
        if not node.is_dataset:
            if self.file.attribute(node, "MATLAB_sparse") is not None:
                value.other = "a sparse matrix"
                return []
            return self.struct(node, value)
        if self.file.attribute(node, "MATLAB_empty"):
            value.other = "empty"
        elif kind == "cell":
            inside = self.file.references(node, self.budget.left)
            value.cells = [Value() for _ in inside]
            return list(zip(inside, value.cells, strict=True))
        elif isinstance(kind, str) and kind in _NO_NUMBERS:
            value.other = _NO_NUMBERS[kind]
        else:
            self.numbers(node, value, kind)
        return []

    def struct(self, node: Node, value: Value) -> list[tuple[Node, Value]]:
        """The fields of a struct, or of an array of structs, each field of which is references."""
        value.fields = {}
        waiting: list[tuple[Node, Value]] = []
        for child in self.file.children(node):
            name = child.path.rpartition("/")[2]
            inside = [child]
            if child.is_dataset and self.file.attribute(child, "MATLAB_class") is None and self.file.refers(child):
                inside = self.file.references(child, self.budget.left)
            values = [Value() for _ in inside]
            value.fields[name] = values
            waiting += zip(inside, values, strict=True)
        return waiting

    def numbers(self, node: Node, value: Value, kind: object) -> None:
        """An array of numbers, or a text, which is kept as numbers."""
        try:
            tensor = self.file.tensor(node)
        except NotNumbersError as reason:
            value.other = str(reason)
            return
        axes = tuple(range(len(tensor.shape)))[::-1]
        value.shape = tensor.shape[::-1]
        if kind == "char":
            value.text = ""
            if math.prod(tensor.shape) <= _MAX_TEXT and tensor.dtype in ("uint16", "uint8"):
                value.text = "".join(map(chr, np.asarray(tensor.values()).reshape(-1).tolist()))
        elif 0 in value.shape:
            value.other = "empty"
        elif tensor.dtype.startswith("complex"):
            value.other = "complex numbers"
        else:
            value.tensor = turned(tensor, axes) if len(axes) > 1 else tensor


# MatConvNet


def _network(variables: Mapping[str, Value]) -> dict[str, LazyTensor]:
    """The parameters of MatConvNet's network among the variables; empty if there is none."""
    for net in (*variables.values(), Value((1, 1), fields={name: [value] for name, value in variables.items()})):
        params, layers = net.field("params"), net.field("layers")
        if params is not None and layers is not None and {"name", "value"} <= (params.fields or {}).keys():
            return _dag(params, layers)
        if layers is not None and (found := _simple(layers)):
            return found
    return {}


def _simple(layers: Value) -> dict[str, LazyTensor]:
    """The parameters of a chain of layers by their places in it."""
    found: dict[str, LazyTensor] = {}
    for place, layer in enumerate(layers.items()):
        kind = _text(layer.field("type"))
        weights = layer.field("weights")
        inside = weights.items() if weights is not None else []
        if not inside:
            old = (layer.field("filters"), layer.field("biases"))
            inside = [each for each in old if each is not None]
        if kind not in ("conv", "convt", "bnorm", "fc"):
            continue
        for number, each in enumerate(inside):
            leaf, tensor = _parameter(kind, number, each)
            if tensor is not None:
                found[f"layers.{place}.{leaf}"] = tensor
    return found


def _dag(params: Value, layers: Value) -> dict[str, LazyTensor]:
    """The parameters of a graph of layers by the names of the layers."""
    stored = {_text(each.field("name")): each.field("value") for each in params.items()}
    found: dict[str, LazyTensor] = {}
    for place, layer in enumerate(layers.items()):
        kind = {"dagnn.Conv": "conv", "dagnn.ConvTranspose": "convt", "dagnn.BatchNorm": "bnorm"}.get(
            _text(layer.field("type")), ""
        )
        names = layer.field("params")
        own = _text(layer.field("name")) or f"layers.{place}"
        for number, name in enumerate(names.items() if names is not None else ()):
            value = stored.pop(_text(name), None)
            if value is None:
                continue
            leaf, tensor = _parameter(kind, number, value)
            if tensor is not None:
                found[f"{own}.{leaf}" if kind else _text(name)] = tensor
    for text, value in stored.items():
        if value is not None and value.tensor is not None and text not in found:
            found[text or "unnamed"] = value.tensor
    return {name.replace("\0", ""): tensor for name, tensor in found.items()}


def _text(value: Value | None) -> str:
    return (value.text or "")[:300] if value is not None else ""


def _parameter(kind: str, number: int, value: Value) -> tuple[str, LazyTensor | None]:
    """A parameter's name in torch and its tensor: of filters in torch's layout."""
    tensor = value.tensor
    leaf = ("weight", "bias", "moments")[number] if kind and number < 3 else f"params.{number}"
    if tensor is None or kind in ("", "fc"):
        return leaf, tensor
    if kind == "bnorm" and number == 2:
        return "running_var", tensor  # mean and deviation of each channel
    if leaf == "weight" and kind in ("conv", "convt") and len(tensor.shape) <= 4:
        # Of a transposed convolution (height, width, out, in) it is (in, out, height, width), as in torch.
        return leaf, turned(_padded(tensor), (3, 2, 0, 1))
    return leaf, turned(tensor, tuple(range(len(tensor.shape))), (math.prod(tensor.shape),))


def _padded(tensor: LazyTensor) -> LazyTensor:
    """A tensor with the axes of extent one at the end that MATLAB drops."""
    return turned(tensor, tuple(range(len(tensor.shape))), (*tensor.shape, 1, 1, 1)[:4])


# Other files


def _arrays(variables: Mapping[str, Value]) -> tuple[dict[str, LazyTensor], list[str]]:
    """Every array of numbers by the path to it, and what is to be known of them."""
    found: dict[str, LazyTensor] = {}
    left: dict[str, int] = {}
    windows = 0
    for path, value in _walk(variables):
        tensor = value.tensor
        if tensor is None:
            if value.other and value.other != "empty":
                left[value.other] = left.get(value.other, 0) + 1
        elif math.prod(tensor.shape) > 1:
            if _is_window(tensor):
                tensor = turned(tensor, (3, 2, 0, 1))
                windows += 1
            name = path.replace("\0", "")
            found[name if name not in found else f"{name}.{len(found)}"] = tensor
    notes = []
    if any(is_float(each.dtype) and sum(extent > 1 for extent in each.shape) > 1 for each in found.values()):
        notes.append("a MATLAB file does not say which axis of an array has the outputs: arrays are as stored")
    if windows:
        notes.append(f"{counted(windows, 'array')} of four axes are taken as (height, width, in, out)")
    if left:
        kinds = ", ".join(f"{count} of {what}" for what, count in sorted(left.items()))
        notes.append(f"{counted(sum(left.values()), 'value')} of the file are no tensors: {kinds}")
    return found, notes


def _walk(variables: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """All values that have nothing inside of them, by the path to them."""
    waiting = [(name, variables[name]) for name in reversed(list(variables))]
    while waiting:
        path, value = waiting.pop()
        if value.cells is not None:
            waiting += [(f"{path}{{{at}}}", value.cells[at - 1]) for at in range(len(value.cells), 0, -1)]
        elif value.fields is not None:
            for name in reversed(list(value.fields)):
                values = value.fields[name]
                several = len(values) > 1
                inner = [(f"{path}[{at}].{name}" if several else f"{path}.{name}", v) for at, v in enumerate(values, 1)]
                waiting += reversed(inner)
        else:
            yield path, value


def _is_window(tensor: LazyTensor) -> bool:
    """Whether only the first two of four axes can be the window of a convolution."""
    if len(tensor.shape) != 4 or not is_float(tensor.dtype):
        return False
    height, width, inputs, outputs = tensor.shape
    return height == width <= _WIDEST < max(inputs, outputs)


SOURCE = Source(name="mat", open=open_mat, headers=True, ranges=True)
