"""Changes of weights that do not change the network's function: permuted or rescaled hidden units.

A permutation of hidden units applies to every tensor with an axis of them. A rectifier commutes with a positive factor,
so the incoming weights of a unit can be multiplied by it and the outgoing weights divided. A batch normalisation
removes the scale in its statistics (Neyshabur, Salakhutdinov & Srebro 2015, arXiv:1506.02617).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["UNITS", "Axis", "permuted", "rescaled"]

State = dict[str, "NDArray[Any]"]


class Axis(NamedTuple):
    """An axis of hidden units; a unit scaled by s scales its slice by s to the ``power``.

    Several gates of the units may be stacked along it.
    """

    tensor: str
    axis: int
    power: int = 0


def _linear(layer: str, consumer: str) -> tuple[Axis, ...]:
    return Axis(f"{layer}.weight", 0, 1), Axis(f"{layer}.bias", 0, 1), Axis(f"{consumer}.weight", 1, -1)


def _normalised(layer: str, norm: str) -> tuple[Axis, ...]:
    return (
        Axis(f"{layer}.weight", 0, 1),
        Axis(f"{norm}.weight", 0),
        Axis(f"{norm}.bias", 0),
        Axis(f"{norm}.running_mean", 0, 1),
        Axis(f"{norm}.running_var", 0, 2),
    )


def _read(*consumers: str) -> tuple[Axis, ...]:
    return tuple(Axis(f"{consumer}.weight", 1) for consumer in consumers)


_RECURRENT = (
    *(Axis(f"rnn.{name}_l0", 0) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    Axis("rnn.weight_hh_l0", 1),
    Axis("classifier.weight", 1),
)
_BLOCKS = ("encoder.layers.0", "encoder.layers.1")
_STREAM = (
    Axis("embedding.weight", 0),
    Axis("embedding.bias", 0),
    Axis("position", 1),
    *(Axis(f"{block}.{name}", 1) for block in _BLOCKS for name in ("self_attn.in_proj_weight", "linear1.weight")),
    *(
        Axis(f"{block}.{layer}.{what}", 0)
        for block in _BLOCKS
        for layer in ("self_attn.out_proj", "linear2", "norm1", "norm2")
        for what in ("weight", "bias")
    ),
    Axis("classifier.weight", 1),
)

UNITS: dict[str, tuple[tuple[Axis, ...], ...]] = {
    "mlp": (_linear("1", "3"), _linear("3", "5")),
    "cnn": (
        (*_normalised("0.0", "0.1"), *_read("2.0")),
        (*_normalised("2.0", "2.1"), *_read("3.0")),
        (*_normalised("3.0", "3.1"), *_read("4.2")),
    ),
    "resnet": (
        (
            *_normalised("0.0", "0.1"),
            *_normalised("2.body.1", "2.norm"),
            *_normalised("3.body.1", "3.norm"),
            *_read("2.body.0.0", "3.body.0.0", "4.2"),
        ),
        (*_normalised("2.body.0.0", "2.body.0.1"), *_read("2.body.1")),
        (*_normalised("3.body.0.0", "3.body.0.1"), *_read("3.body.1")),
    ),
    "dscnn": (
        (*_normalised("0.0", "0.1"), *_normalised("2.0", "2.1"), *_read("3")),
        (*_normalised("3", "4"), *_normalised("6.0", "6.1"), *_read("7")),
        (*_normalised("7", "8"), *_normalised("10.0", "10.1"), *_read("11")),
        (*_normalised("11", "12"), *_read("14.2")),
    ),
    "lstm": (_RECURRENT,),
    "transformer": (*(_linear(f"{block}.linear1", f"{block}.linear2") for block in _BLOCKS), _STREAM),
    "gru": (_RECURRENT,),
    "rnn": (_RECURRENT,),
    "dilated": (
        (*_normalised("0.0", "0.1"), *_read("1.0")),
        (*_normalised("1.0", "1.1"), *_read("2.0")),
        (*_normalised("2.0", "2.1"), *_read("3.2")),
    ),
}
"""Groups of hidden units by family, each as the axes that share them. Groups with only powers of 0 are not rescaled."""


def permuted(state: Mapping[str, NDArray[Any]], family: str, rng: np.random.Generator) -> State:
    """The weights with the units of every group in random order."""
    result = dict(state)
    for group in UNITS[family]:
        order = rng.permutation(_size(state, group))
        for tensor, axis, _ in group:
            result[tensor] = (
                _by_gate(result[tensor], axis, order.size).take(order, axis + 1).reshape(result[tensor].shape)
            )
    return result


def rescaled(state: Mapping[str, NDArray[Any]], family: str, rng: np.random.Generator) -> State | None:
    """The weights with every rescalable unit rescaled by a factor of 1/2 to 2; None if there is none."""
    groups = [group for group in UNITS[family] if any(power for _, _, power in group)]
    if not groups:
        return None
    result = dict(state)
    for group in groups:
        factors = np.exp2(rng.uniform(-1.0, 1.0, _size(state, group)))
        for tensor, axis, power in group:
            shape = [1] * result[tensor].ndim
            shape[axis] = -1
            scaled = result[tensor] * (factors**power).reshape(shape)
            result[tensor] = scaled.astype(result[tensor].dtype)
    return result


def _size(state: Mapping[str, NDArray[Any]], group: tuple[Axis, ...]) -> int:
    """Number of units of a group; gates stack several of them on some axes."""
    return min(int(state[tensor].shape[axis]) for tensor, axis, _ in group)


def _by_gate(values: NDArray[Any], axis: int, units: int) -> NDArray[Any]:
    """The values with the axis split into two, (gates, units)."""
    return values.reshape(*values.shape[:axis], -1, units, *values.shape[axis + 1 :])
