"""Filling a registry: manifests, what it costs, where it is done, and the run over what is to be ingested."""

from registry.ingest.cost import memory_of, seconds_of
from registry.ingest.executors import EXECUTORS, Outcome, Setting, Task, chosen
from registry.ingest.manifest import ManifestEntry, read_manifest
from registry.ingest.progress import Progress, Silent
from registry.ingest.run import run

__all__ = [
    "EXECUTORS",
    "ManifestEntry",
    "Outcome",
    "Progress",
    "Setting",
    "Silent",
    "Task",
    "chosen",
    "memory_of",
    "read_manifest",
    "run",
    "seconds_of",
]
