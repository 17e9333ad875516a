"""The weights of a Core ML neural network: those of its layers, in torch's layout.

Layers are those of ``NeuralNetwork.proto``, whose comments say how weights are laid out; what they leave open is as
coremltools' ``NeuralNetworkBuilder`` writes it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.files.lazy_tensors import joined, turned
from registry.sources.files.wire import BYTES
from registry.sources.formats.coreml.stored_values import REMEDY, layer_weights, weight_field

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from registry.sources.files.lazy_tensors import LazyTensor
    from registry.sources.files.wire import Field, Message
    from registry.sources.formats.coreml.entered_weights import Entered

__all__ = ["read_network"]

_MAX_NAME = 4096
_MAX_VALUES = 65_536  # that one layer takes or gives
_MAX_DEPTH = 16
_MAX_FIELDS = 65_536
_LARGEST_BIAS = 2**20
# Layers that take constants as weights.
_MULTIPLIED, _ADDED = frozenset({231, 900}), frozenset({230, 880})
_BATCHED_MATMUL, _GATHER = 1045, 930
_CONSTANTS = frozenset({290, 1070})
_NETWORKS = {605: (1, 2), 615: (3, 4)}  # layers with networks within, and their fields
_FOREIGN = 500  # a custom layer


class _Params:
    """Settings of a layer: its numbers, lists of numbers, and weights, each read when it is asked for."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._fields: dict[int, list[Field]] = {}
        for count, each in enumerate(message):
            if count >= _MAX_FIELDS:
                raise UnsafeError(f"{message.file.name} has a layer of more than {_MAX_FIELDS} settings", REMEDY)
            self._fields.setdefault(each.number, []).append(each)

    def numbers(self, place: int) -> tuple[int, ...]:
        """A list of numbers, of at most 64."""
        fields = self._fields.get(place, [])
        if len(fields) > 64 or any(each.size > 640 for each in fields):
            raise UnsafeError(f"{self.message.file.name} has a layer of too many dimensions", REMEDY)
        return tuple(number for each in fields for number in self.message.integers(each))

    def number(self, place: int, default: int = 0) -> int:
        """A number; ``default`` where it is missing."""
        found = self.numbers(place)
        return found[-1] if found else default

    def messages(self, place: int) -> list[Message]:
        """Messages within."""
        return [self.message.message(each) for each in self._fields.get(place, [])]

    def weight(self, place: int, shape: tuple[int, ...], axis: int = 0) -> LazyTensor | None:
        """A WeightParams in a shape; None where it is missing or empty."""
        found = self.messages(place)
        if not found:
            return None
        stated = weight_field(found[-1])
        return None if stated.is_empty else layer_weights(found[-1], stated, shape, axis)


def _positive(params: _Params, *numbers: int) -> None:
    if min(numbers) < 1 or max(numbers) >= 2**31:
        raise WeightsError(
            f"{params.message.file.name} has a layer whose sizes do not fit: {str(numbers)[:80]}", REMEDY
        )


def _some(found: Mapping[str, LazyTensor | None]) -> dict[str, LazyTensor]:
    """Those that are there; without a bias of zeros, which converters add to layers that have none."""
    kept = {leaf: tensor for leaf, tensor in found.items() if tensor is not None}
    bias = kept.get("bias")
    of_matrix = "weight" in kept and len(kept["weight"].shape) > 1
    if bias is not None and of_matrix and bias.bytes <= _LARGEST_BIAS and not any(bias.span(0, bias.bytes)):
        del kept["bias"]
    return kept


def _convolution(params: _Params) -> dict[str, LazyTensor]:
    """(out, in / groups, *kernel); transposed ones (in, out / groups, *kernel), whose scales are along the outputs."""
    outputs, inputs, groups = params.number(1), params.number(2), params.number(10, 1) or 1
    kernel = params.numbers(20) or (3, 3)
    turned_round = bool(params.number(60))
    _positive(params, outputs, inputs, groups, *kernel)
    shape = (inputs, outputs // groups, *kernel) if turned_round else (outputs, inputs, *kernel)
    return _some({"weight": params.weight(90, shape, int(turned_round)), "bias": params.weight(91, (outputs,))})


def _convolution_3d(params: _Params) -> dict[str, LazyTensor]:
    outputs, inputs, groups = params.number(1), params.number(2), params.number(10, 1) or 1
    kernel = (params.number(20), params.number(21), params.number(22))
    turned_round = bool(params.number(86))
    _positive(params, outputs, inputs, groups, *kernel)
    shape = (inputs, outputs // groups, *kernel) if turned_round else (outputs, inputs // groups, *kernel)
    return _some({"weight": params.weight(60, shape, int(turned_round)), "bias": params.weight(61, (outputs,))})


def _inner_product(params: _Params) -> dict[str, LazyTensor]:
    inputs, outputs = params.number(1), params.number(2)
    _positive(params, inputs, outputs)
    return _some({"weight": params.weight(20, (outputs, inputs)), "bias": params.weight(21, (outputs,))})


def _embedding(params: _Params) -> dict[str, LazyTensor]:
    """Stored (width, entries); torch has (entries, width)."""
    many, width = params.number(1), params.number(2)
    _positive(params, many, width)
    table = params.weight(20, (width, many))
    return _some({"weight": None if table is None else turned(table, (1, 0)), "bias": params.weight(21, (width,))})


def _matmul(params: _Params) -> dict[str, LazyTensor]:
    """Its own weights are stored (out, in)."""
    inputs, outputs = params.number(5), params.number(6)
    if not inputs and not outputs:
        return {}
    _positive(params, inputs, outputs)
    return _some({"weight": params.weight(8, (outputs, inputs)), "bias": params.weight(9, (outputs,))})


def _batch_norm(params: _Params) -> dict[str, LazyTensor]:
    count = params.number(1)
    _positive(params, count)
    leaves = {"weight": 15, "bias": 16}
    if not params.number(6):
        leaves |= {"running_mean": 17, "running_var": 18}
    return _some({leaf: params.weight(place, (count,)) for leaf, place in leaves.items()})


def _vector_of(leaf: str, place: int, shape: int) -> Callable[[_Params], dict[str, LazyTensor]]:
    def read(params: _Params) -> dict[str, LazyTensor]:
        extents = params.numbers(shape)
        count = math.prod(extents)
        _positive(params, count)
        return _some({leaf: params.weight(place, (count,))})

    return read


def _scale(params: _Params) -> dict[str, LazyTensor]:
    return _vector_of("weight", 2, 1)(params) | (_vector_of("bias", 5, 4)(params) if params.number(3) else {})


def _layer_norm(params: _Params) -> dict[str, LazyTensor]:
    shape = params.numbers(1)
    _positive(params, *(shape or (0,)))
    return _some({"weight": params.weight(3, shape), "bias": params.weight(4, shape)})


def _activation(params: _Params) -> dict[str, LazyTensor]:
    """The slopes of a PReLU."""
    for message in params.messages(25):
        inner = _Params(message)
        for weight in inner.messages(1):
            stated = weight_field(weight)
            count = stated.size * 8 // (stated.bits or (16 if stated.dtype == "float16" else 32))
            return _some({"weight": layer_weights(weight, stated, (count,))}) if count else {}
    return {}


def _gates(
    params: _Params, places: Mapping[str, tuple[int, ...]], sizes: tuple[int, int], suffix: str
) -> dict[str, LazyTensor]:
    """Gates that are stored one by one, in torch's order, as one tensor."""
    inputs, hidden = sizes
    _positive(params, inputs, hidden)
    found: dict[str, LazyTensor] = {}
    for leaf, numbers in places.items():
        shape = {"weight_ih": (hidden, inputs), "weight_hh": (hidden, hidden)}.get(leaf, (hidden,))
        parts = [params.weight(number, shape) for number in numbers]
        there = [part for part in parts if part is not None]
        if there and len(there) != len(parts):
            raise WeightsError(f"{params.message.file.name} has a recurrent layer without all its gates", REMEDY)
        if there:
            found[f"{leaf}{suffix}"] = joined(there)
    return found


_LSTM_GATES = {"weight_ih": (1, 2, 3, 4), "weight_hh": (20, 21, 22, 23), "bias_ih": (40, 41, 42, 43)}
_GRU_GATES = {"weight_ih": (31, 30, 32), "weight_hh": (51, 50, 52), "bias_ih": (71, 70, 72)}
_RNN_GATES = {"weight_ih": (30,), "weight_hh": (31,), "bias_ih": (32,)}


def _lstm(params: _Params) -> dict[str, LazyTensor]:
    """One direction, or both."""
    sizes = (params.number(1), params.number(2))
    found: dict[str, LazyTensor] = {}
    for message, suffix in zip(params.messages(20), ("_l0", "_l0_reverse"), strict=False):
        found |= _gates(_Params(message), _LSTM_GATES, sizes, suffix)
    return found


def _gru(params: _Params) -> dict[str, LazyTensor]:
    return _gates(params, _GRU_GATES, (params.number(1), params.number(2)), "_l0")


def _rnn(params: _Params) -> dict[str, LazyTensor]:
    return _gates(params, _RNN_GATES, (params.number(1), params.number(2)), "_l0")


_LAYERS: Mapping[int, tuple[str, Callable[[_Params], dict[str, LazyTensor]]]] = {
    100: ("conv", _convolution), 130: ("prelu", _activation), 140: ("linear", _inner_product),
    150: ("embedding", _embedding), 160: ("batch_norm", _batch_norm), 245: ("scale", _scale),
    250: ("bias", _vector_of("bias", 2, 1)), 400: ("rnn", _rnn), 410: ("gru", _gru), 420: ("lstm", _lstm),
    430: ("lstm", _lstm), 1040: ("embedding", _embedding), 1045: ("matmul", _matmul), 1350: ("layer_norm", _layer_norm),
    1471: ("conv", _convolution_3d),
}  # fmt: skip


def read_network(
    network: Message, entered: Entered, depth: int = 0, constants: dict[str, LazyTensor] | None = None
) -> None:
    """Enter the weights of the layers of a network, and of the networks within them. Nothing of them is read.

    Raises
    ------
    WeightsError
        Weights do not fit the sizes of their layer.
    UnsafeError
        It holds more than any network.
    """
    if depth > _MAX_DEPTH:
        raise UnsafeError(f"{network.file.name} nests networks deeper than {_MAX_DEPTH} levels", REMEDY)
    known: dict[str, LazyTensor] = {} if constants is None else constants
    for layer in network.messages(1):
        name, takes, gives, kind, message = _layer(layer)
        if message is None:
            continue
        keys: list[Hashable] = [(entered.prefix, each) for each in takes]
        if kind in _NETWORKS:
            params = _Params(message)
            for place in _NETWORKS[kind]:
                for inner in params.messages(place):
                    read_network(inner, entered, depth + 1, known)
        if kind in _CONSTANTS:
            params = _Params(message)
            shape = params.numbers(1)
            _positive(params, *(shape or (1,)))
            value = params.weight(2, shape)
            if value is not None and gives:
                known[gives[0]] = value
            continue
        names: list[str] = []
        if kind in _LAYERS:
            label, read = _LAYERS[kind]
            found = read(_Params(message))
            names = entered.put(entered.head(name, label), found) if found else []
        names += _of_constants(entered, name, kind, takes, known, message)
        entered.step(keys, [(entered.prefix, each) for each in gives], names)


def _layer(message: Message) -> tuple[str, list[str], list[str], int, Message | None]:
    """Name, values taken and given, kind and settings of a layer."""
    name, takes, gives = "", list[str](), list[str]()
    kind, params = 0, None
    for each in message:
        if each.number in (1, 2, 3) and each.wire == BYTES:
            text = message.data(each, _MAX_NAME).decode("utf-8", "replace")
            if each.number == 1:
                name = text
            else:
                (takes if each.number == 2 else gives).append(text)
                if len(takes) + len(gives) > _MAX_VALUES:
                    raise UnsafeError(f"{message.file.name} has a layer of too many values", REMEDY)
        elif each.number >= 100 and each.wire == BYTES:
            kind, params = each.number, message.message(each)
    return name, takes, gives, kind, params


def _of_constants(
    entered: Entered, name: str, kind: int, takes: list[str], known: Mapping[str, LazyTensor], message: Message
) -> list[str]:
    """The constants that a layer takes as weights: a factor of a product, a table, a vector."""
    for place, value in enumerate(takes):
        tensor = known.get(value)
        if tensor is None:
            continue
        key: dict[str, Hashable] = {"weight": (entered.prefix, value)}
        sides = len([extent for extent in tensor.shape if extent > 1])
        while len(tensor.shape) > 2 and tensor.shape[0] == 1:
            tensor = replace(tensor, shape=tensor.shape[1:])
        if kind == _BATCHED_MATMUL and len(tensor.shape) > 1:
            axes = tuple(range(len(tensor.shape)))
            if bool(_Params(message).number(1 + place)) == (place == 0):
                tensor = turned(tensor, (*axes[:-2], axes[-1], axes[-2]))
            return entered.put(entered.head(name, "matmul"), {"weight": tensor}, key)
        if kind == _GATHER and place == 0 and len(tensor.shape) > 1:
            return entered.put(entered.head(name, "embedding"), {"weight": tensor}, key)
        if kind in _MULTIPLIED | _ADDED and sides == 1:
            leaf = "scale" if kind in _MULTIPLIED else "shift"
            flat = replace(tensor, shape=(math.prod(tensor.shape),))
            return entered.put(entered.head(value, leaf), {leaf: flat}, {leaf: (entered.prefix, value)})
        if kind == _FOREIGN:
            entered.left((entered.prefix, value), "a custom layer", tensor.shape)
    return []
