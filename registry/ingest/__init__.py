"""Ingest: manifests, cost estimates, executors, and the run over the models."""

from registry.ingest.cost import (
    READ_PER_SECOND,
    SECONDS_PER_MODEL,
    WORKER_BYTES,
    cores,
    kin_of,
    limit_of,
    memory_by_size,
    seconds_by_size,
)
from registry.ingest.executors import EXECUTORS, Outcome, Setting, Task, chosen
from registry.ingest.manifest import ManifestEntry, read_manifest
from registry.ingest.progress import Progress, Silent
from registry.ingest.runner import run

__all__ = [
    "EXECUTORS",
    "READ_PER_SECOND",
    "SECONDS_PER_MODEL",
    "WORKER_BYTES",
    "ManifestEntry",
    "Outcome",
    "Progress",
    "Setting",
    "Silent",
    "Task",
    "chosen",
    "cores",
    "kin_of",
    "limit_of",
    "memory_by_size",
    "read_manifest",
    "run",
    "seconds_by_size",
]
