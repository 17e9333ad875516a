"""Filling a registry: manifests, and the run over what is to be ingested."""

from registry.ingest.manifest import ManifestEntry, read_manifest
from registry.ingest.run import Progress, Silent, run

__all__ = ["ManifestEntry", "Progress", "Silent", "read_manifest", "run"]
