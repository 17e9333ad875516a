"""Models to be stored, made of nothing but a seed; and what child processes do with them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import numpy as np

from registry.storage import NewModel, Store
from registry.types import (
    Conjugacy,
    Decay,
    Fingerprint,
    FingerprintSpec,
    LayerMatrix,
    Metric,
    ModelCard,
    SkippedTensor,
    Spectrum,
    WeightsPlan,
)

RULE = "r1"
SPEC = FingerprintSpec("mme", 1, RULE, locations=(0.1, 1.0 / 3.0, 10.0), length=3)
OTHER = FingerprintSpec("layered", 2, RULE, locations=(0.5, 5.0), length=4, depths=(0.0, 1.0), weights="w1")

CARD = ModelCard(
    family="resnet",
    architecture="ResNet-20",
    task="classification",
    dataset="CIFAR10",
    licence="MIT",
    source="files:resnet20.safetensors",
    revision="abc",
    recipe="sgd",
    training="200 epochs",
    seed=2**40,
    gflops=0.041,
    metrics=(Metric("top1", 92.6, "cifar10", "test", True, "paper"), Metric("loss", 0.3, "svhn", "", None, "")),
    tags=(("owner", "anna"), ("stage", "prod")),
)

LAYERS = (
    LayerMatrix(0, "stem.weight", "stem.weight", (4, 3, 3, 3), "conv"),
    LayerMatrix(1, "attn.in_proj_weight[q]", "attn.in_proj_weight", (4, 4), "attention", axis=0, start=4, stop=8),
    LayerMatrix(2, "head.weight", "head.weight", (6, 5), "linear"),
)
SKIPPED = (SkippedTensor("bn.running_mean", "float32", (4,), "batch statistics"),)


def spectra_of(seed: int) -> tuple[Spectrum, ...]:
    rng = np.random.default_rng(seed)
    found = []
    for layer in LAYERS:
        values = np.sort(rng.exponential(size=min(layer.p, layer.q))).astype(np.float32)
        found.append(Spectrum(layer, float(rng.uniform(0.1, 1.0)), values / values.mean()))
    return tuple(found)


def vector_of(seed: int, spec: FingerprintSpec) -> Fingerprint:
    return Fingerprint(spec, np.random.default_rng([seed, spec.length]).standard_normal(spec.length, dtype=np.float32))


def conjugacy_of(seed: int) -> Conjugacy:
    x = float(np.random.default_rng(seed).uniform(2, 9))
    return Conjugacy(
        tail=((0.01, x), (0.02, x / 2), (0.05, x / 3)),
        wishart_tail=((0.01, 3.5), (0.02, 3.25), (0.05, 3.0)),
        z=x / 7,
        tail_class="long" if x > 4 else "edge",
        training_class="trained" if seed % 2 else "untrained",
        decay=(Decay("undecided", 4.25, 3), Decay("power", 4.25, 412, x / 8, x / 3, 2.5), None)[seed % 3],
    )


def new_model(name: str, seed: int = 0, *, rule: str = RULE, **changes: Any) -> NewModel:
    """Return a model of which ``seed`` decides the content, the spectra and the vectors."""
    plan = WeightsPlan(
        rule=rule,
        layers=LAYERS,
        skipped=SKIPPED,
        content_hash=hashlib.sha256(str(seed).encode()).hexdigest(),
        topology="t0",
        parameters=changes.pop("parameters", 1_000 + seed),
        bytes=4_000 + 4 * seed,
    )
    specs = (replace(SPEC, matrix_rule=rule), replace(OTHER, matrix_rule=rule))
    defaults: dict[str, Any] = {
        "card": CARD,
        "spectra": spectra_of(seed),
        "conjugacy": conjugacy_of(seed),
        "fingerprints": tuple(vector_of(seed, spec) for spec in specs),
        "tool_version": "0.1.0",
    }
    return NewModel(name=name, plan=plan, **defaults | changes)


def add_many(url: str, first: int, count: int) -> list[str]:
    """Add models of distinct content; for a child process."""
    with Store.open(url, mode="create") as store:
        return [store.add(new_model(f"m{seed}", seed)).status for seed in range(first, first + count)]


def add_named(url: str, name: str, seed: int, at: float = 0.0) -> str:
    """Add one model, not before the time ``at``; for a child process."""
    time.sleep(max(0.0, at - time.time()))
    with Store.open(url, mode="create") as store:
        return store.add(new_model(name, seed)).status
