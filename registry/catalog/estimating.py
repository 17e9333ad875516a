"""Estimates of the time and memory of an ingest."""

from __future__ import annotations

from dataclasses import replace
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

__all__ = ["TORCH_SOURCES", "estimate", "with_header_bytes"]

TORCH_SOURCES = ("torchvision", "timm")
"""Sources that need torch."""

LARGE_FILE = 16_000_000
"""Bytes above which the header of a file is read; below, the cost hardly depends on the layers."""


def estimate(refs: Sequence[ModelRef], setting: Setting, *, approximate: bool, headers_only: bool = False) -> Estimate:
    """Estimate a plan: large files by the layers in their headers, others by their size.

    Takes a few milliseconds per large file. ``headers_only``: of an ingest that reads no weights; nothing is read.
    """
    if headers_only:
        return _of_headers(refs, setting)
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


def _of_headers(refs: Sequence[ModelRef], setting: Setting) -> Estimate:
    seconds = SECONDS_PER_MODEL * len(refs)
    settled = chosen(setting, len(refs), seconds)
    workers = 0 if settled.name == "inprocess" else settled.workers or 1
    return Estimate(
        models=tuple(ModelEstimate(SECONDS_PER_MODEL, WORKER_BYTES, by_layers=False) for _ in refs),
        seconds=seconds / max(workers, 1),
        memory=WORKER_BYTES * max(workers, 1) if refs else 0,
        workers=workers,
    )


def with_header_bytes(estimated: Estimate, refs: Sequence[ModelRef]) -> Estimate:
    """The estimate with the bytes of each header, which are read for that, except where a download would be needed."""
    from registry.sources import header_bytes

    models = [
        replace(model, header_bytes=header_bytes(ref) if ref.cached else None)
        for ref, model in zip(refs, estimated.models, strict=True)
    ]
    return replace(estimated, models=tuple(models))


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
