"""Estimates of the time and memory of an ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.ingest import (
    READ_PER_SECOND,
    SECONDS_PER_MODEL,
    WORKER_BYTES,
    chosen,
    cores,
    memory_by_size,
    seconds_by_size,
)
from registry.types import Estimate, ModelEstimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.ingest import Setting
    from registry.types import LayerMatrix, ModelRef

    Layers = tuple[tuple[LayerMatrix, int], ...]

__all__ = ["TORCH_SOURCES", "estimate"]

TORCH_SOURCES = ("torchvision", "timm")
"""Sources that need torch."""

LARGE_FILE = 16_000_000
"""Bytes above which the header of a file is read; below, the cost hardly depends on the layers."""


def estimate(refs: Sequence[ModelRef], setting: Setting, *, approximate: bool) -> Estimate:
    """Estimate a plan: large files by the layers in their headers, others by their size.

    Takes a few milliseconds per large file.
    """
    looked = [_layers(ref) for ref in refs]
    by_size = seconds_by_size(refs)

    def seconds(threads: int) -> list[float]:
        return [
            size if layers is None else _seconds(ref, layers, threads, approximate=approximate)
            for ref, layers, size in zip(refs, looked, by_size, strict=True)
        ]

    apart = seconds(1)
    settled = chosen(setting, len(refs), sum(apart))
    here = settled.name == "inprocess"
    threads, workers = (cores(), 0) if here else (1, settled.workers or 1)
    memory = [
        memory_by_size(ref, torch=ref.source in TORCH_SOURCES)
        if layers is None
        else _memory(layers, threads, approximate=approximate)
        for ref, layers in zip(refs, looked, strict=True)
    ]
    most = sorted(memory, reverse=True)
    return Estimate(
        models=tuple(
            ModelEstimate(alone, needed, by_layers=layers is not None)
            for alone, needed, layers in zip(apart, memory, looked, strict=True)
        ),
        seconds=sum(seconds(threads)) if here else max([sum(apart) / workers, *apart]),
        memory=sum(most[:workers]) + WORKER_BYTES if settled.name == "pool" else sum(most[:1]),
        workers=workers,
    )


def _layers(ref: ModelRef) -> Layers | None:
    from registry.sources import layers_by_header

    return layers_by_header(ref) if ref.bytes is not None and ref.bytes >= LARGE_FILE else None


def _seconds(ref: ModelRef, layers: Layers, threads: int, *, approximate: bool) -> float:
    from registry.spectral.spectral_cost import expected_seconds

    shapes = [(layer.p, layer.q) for layer, _ in layers]
    reading = SECONDS_PER_MODEL + (ref.bytes or 0) / READ_PER_SECOND
    return reading + expected_seconds(shapes, threads=threads, approximate=approximate)


def _memory(layers: Layers, threads: int, *, approximate: bool) -> int:
    from registry.spectral.spectral_cost import expected_memory

    shapes, weights = [(layer.p, layer.q) for layer, _ in layers], [size for _, size in layers]
    return WORKER_BYTES + expected_memory(shapes, weights, threads=threads, approximate=approximate)
