"""Faults planted in networks: one each, in a layer of order 64 or more, and whether an audit finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from registry import Registry
    from registry.types import Finding, LayerMatrix

    Weights = dict[str, NDArray[Any]]

__all__ = ["FAULTS", "ORDER", "Outcome", "planted"]

ORDER = 64
AT_ONCE = 2
"""Layers of a model in which each fault is planted, one at a time."""
STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fault in a layer of a model, and the severity at which its rule found it there; empty if it did not."""

    fault: str
    family: str
    model: str
    layer: str
    severity: str


def _initialised(rng: np.random.Generator, layer: LayerMatrix) -> NDArray[np.float32]:
    """What one of six standard initialisers gives, drawn by chance."""
    fan_in, fan_out = layer.q, layer.p * layer.q // layer.shape[1]
    size = (layer.p, layer.q)
    starts: list[Callable[[], NDArray[np.floating]]] = [
        lambda: rng.uniform(-1, 1, size) / fan_in**0.5,
        lambda: rng.standard_normal(size) * (2 / fan_in) ** 0.5,
        lambda: rng.standard_normal(size) * (2 / fan_out) ** 0.5,
        lambda: rng.uniform(-1, 1, size) * (6 / (fan_in + fan_out)) ** 0.5,
        lambda: rng.standard_normal(size) * 0.02,
        lambda: _truncated(rng, size) * (1 / fan_in) ** 0.5 / 0.87962566,
    ]
    return np.asarray(starts[rng.integers(len(starts))](), np.float32)


def _truncated(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.floating]:
    drawn = rng.standard_normal(size)
    while (beyond := np.abs(drawn) > 2).any():
        drawn[beyond] = rng.standard_normal(int(beyond.sum()))
    return drawn


def _rewritten(change: Callable[[np.random.Generator, NDArray[Any], LayerMatrix], NDArray[Any]]) -> Any:
    """A fault that replaces the matrix (p, q) of a layer."""

    def plant(rng: np.random.Generator, weights: Weights, layer: LayerMatrix, layers: list[LayerMatrix]) -> bool:
        stored = weights[layer.tensor]
        weights[layer.tensor] = np.ascontiguousarray(
            change(rng, stored.reshape(layer.p, layer.q).copy(), layer).reshape(stored.shape)
        )
        return len(layers) >= 3  # of fewer, no layer is out of a model's range

    return plant


def _zeroed(rng: np.random.Generator, W: NDArray[Any], _layer: LayerMatrix) -> NDArray[Any]:
    W[rng.permutation(len(W))[: max(1, len(W) // 10)]] = 0
    return W


def _saturated(_rng: np.random.Generator, W: NDArray[Any], _layer: LayerMatrix) -> NDArray[Any]:
    """The largest thousandth is beyond float16, and a converter clips it."""
    W = W * (65504 / np.quantile(np.abs(W), 0.999))
    return np.clip(W, -65504, 65504).astype(np.float16)


def _low(_rng: np.random.Generator, W: NDArray[Any], _layer: LayerMatrix) -> NDArray[Any]:
    U, s, V = np.linalg.svd(W.astype(np.float64), full_matrices=False)
    kept = len(s) // 4
    return np.asarray((U[:, :kept] * s[:kept]) @ V[:kept], W.dtype)


def _nan(rng: np.random.Generator, W: NDArray[Any], _layer: LayerMatrix) -> NDArray[Any]:
    W.reshape(-1)[rng.integers(W.size)] = np.nan
    return W


def _copied(rng: np.random.Generator, weights: Weights, layer: LayerMatrix, layers: list[LayerMatrix]) -> bool:
    """Another layer of the same shape over this one; False if there is none."""
    alike = [each for each in layers if each.shape == layer.shape and each.tensor != layer.tensor]
    if alike:
        weights[layer.tensor] = weights[alike[rng.integers(len(alike))].tensor].copy()
    return bool(alike)


def _reset(_rng: np.random.Generator, weights: Weights, _layer: LayerMatrix, _layers: list[LayerMatrix]) -> bool:
    """All statistics as they start; False if there are none."""
    names = [name for name in weights if name.rpartition(".")[2] in STATISTICS]
    for name in names:
        weights[name] = np.full_like(weights[name], float(name.rpartition(".")[2] in STATISTICS[1::2]))
    return bool(names)


FAULTS: Mapping[str, tuple[str, Any]] = {
    "re-initialised": ("untrained", _rewritten(lambda rng, _, layer: _initialised(rng, layer))),
    "copied over by another layer": ("duplicate", _copied),
    "a tenth of the rows zeroed": ("rows", _rewritten(_zeroed)),
    "clipped in float16": ("saturated", _rewritten(_saturated)),
    "scaled 1,000 times": ("scale", _rewritten(lambda _, W, __: W * np.float32(1000))),
    "of a quarter of its rank": ("rank", _rewritten(_low)),
    "one value NaN": ("nonfinite", _rewritten(_nan)),
    "statistics as they start": ("statistics", _reset),
}
"""By name: the rule that should find it, and what plants it."""


def planted(registry: Registry, path: Path, family: str, folder: Path, seed: int) -> Iterator[Outcome]:
    """Plant each fault in layers of a network, and audit the file of the result by the rule that should find it."""
    rng = np.random.default_rng(seed)
    sound = load_file(path)
    [ref] = expand(path)
    with open_ref(ref) as checkpoint:
        plan = plan_weights(checkpoint)
        layers = [layer for layer in plan.layers if layer.name == layer.tensor and _as_stored(layer, sound)]
    large = [layer for layer in layers if min(layer.p, layer.q) >= ORDER]
    chosen = [large[at] for at in rng.permutation(len(large))[:AT_ONCE]]
    for fault, (rule, plant) in FAULTS.items():
        for layer in chosen:
            weights = dict(sound)
            if not plant(rng, weights, layer, layers):
                continue
            target = folder / "planted.safetensors"
            save_file(weights, target)
            found = registry.audit(target, rules=[rule]).findings
            yield Outcome(fault, family, ref.name, layer.name, _severity(found, layer.name, rule))
            if rule == "statistics":
                break


def _as_stored(layer: LayerMatrix, weights: Weights) -> bool:
    stored = weights.get(layer.tensor)
    return stored is not None and stored.shape == layer.shape and stored.dtype == np.float32


def _severity(found: tuple[Finding, ...], layer: str, rule: str) -> str:
    """Of the finding that is about the layer: it is named, or the message names it; of statistics, of the model."""
    for finding in found:
        if rule == "statistics" or finding.layer == layer or layer in finding.message:
            return finding.severity
    return ""
