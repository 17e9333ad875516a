"""The tables of what the package can be extended by, and the same from other packages' entry points.

Each line names a thing and where it is, as ``module:attribute``. It is loaded when it is first used, so that a command
line can list the names without what they need. Another package brings sources and fingerprints by the same names and
targets, as entry points of the groups ``archreg.sources`` and ``archreg.fingerprints``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "AUDIT_RULES",
    "DISTANCES",
    "EXECUTORS",
    "FINGERPRINTS",
    "INDEX_OPERATORS",
    "LINKAGE_RULES",
    "REFERENCES",
    "SOURCES",
    "Table",
]

T = TypeVar("T")

SOURCES: Final = {
    "torchvision": "registry.sources.published.torchvision:SOURCE",
    "timm": "registry.sources.published.timm:SOURCE",
    "hf": "registry.sources.published.hub_models:SOURCE",
    "safetensors": "registry.sources.formats.safetensors:SOURCE",
    "torch": "registry.sources.formats.torch_file:SOURCE",
    "npz": "registry.sources.formats.npz:SOURCE",
    "npy": "registry.sources.formats.npy:SOURCE",
    "keras": "registry.sources.formats.keras:SOURCE",
    "mat": "registry.sources.formats.mat:SOURCE",
    "mxnet": "registry.sources.formats.mxnet:SOURCE",
    "flax": "registry.sources.formats.flax:SOURCE",
    "orbax": "registry.sources.formats.orbax:SOURCE",
    "gguf": "registry.sources.formats.gguf.gguf_file:SOURCE",
    "shards": "registry.sources.shards:SOURCE",
    "onnx": "registry.sources.formats.onnx:SOURCE",
    "caffe": "registry.sources.formats.caffe:SOURCE",
    "ncnn": "registry.sources.formats.ncnn:SOURCE",
    "mnn": "registry.sources.formats.mnn:SOURCE",
    "coreml": "registry.sources.formats.coreml.coreml_file:SOURCE",
    "darknet": "registry.sources.formats.darknet:SOURCE",
    "ctranslate2": "registry.sources.formats.ctranslate2:SOURCE",
    "openvino": "registry.sources.formats.openvino:SOURCE",
    "tf_checkpoint": "registry.sources.formats.tensorflow.checkpoint:SOURCE",
    "tf_graph": "registry.sources.formats.tensorflow.graph:SOURCE",
    "tfjs": "registry.sources.formats.tensorflow.tfjs:SOURCE",
    "tflite": "registry.sources.formats.tensorflow.tflite:SOURCE",
    "remote": "registry.sources.files.remote.files:SOURCE",
    "pickle": "registry.sources.formats.pickle_file:SOURCE",
    "torchscript": "registry.sources.formats.torchscript:SOURCE",
    "torch_export": "registry.sources.formats.torch_export:SOURCE",
    "dcp": "registry.sources.formats.dcp:SOURCE",
    "sb3": "registry.sources.formats.sb3:SOURCE",
    "nemo": "registry.sources.formats.nemo:SOURCE",
}
"""Where weights come from: a `registry.sources.base.Source` each."""

FINGERPRINTS: Final = {
    "layered": "registry.spectral.shipped_fingerprints:LAYERED_KIND",
    "mme": "registry.spectral.shipped_fingerprints:MME_KIND",
    "shapes": "registry.spectral.shipped_fingerprints:SHAPES_KIND",
}
"""Vectors to compare networks by: a `registry.spectral.base.FingerprintKind` each; the first is the default."""

DISTANCES: Final = {
    "l1": "registry.equivalence.distances:L1",
    "l2": "registry.equivalence.distances:L2",
    "linf": "registry.equivalence.distances:LINF",
}
"""Distances between fingerprints: a `registry.equivalence.Distance` each; the first is the default."""

INDEX_OPERATORS: Final = {"l1": "<+>", "l2": "<->"}
"""Distances that an index can be for, by the operator of pgvector; the operator class is ``vector_NAME_ops``."""

LINKAGE_RULES: Final = {
    "complete": "registry.equivalence.classes.linkage_rules:COMPLETE",
    "cover": "registry.equivalence.classes.linkage_rules:COVER",
    "single": "registry.equivalence.classes.linkage_rules:SINGLE",
}
"""What a class of equivalents is: a `registry.equivalence.Rule` each."""

EXECUTORS: Final = {
    "inprocess": "registry.ingest.executors.inprocess:start",
    "pool": "registry.ingest.executors.pool:start",
    "ray": "registry.ingest.executors.ray:start",
}
"""Where models are read and measured: a function each that starts a `registry.ingest.Executor`."""

REFERENCES: Final = {
    "coe": "registry.ensembles.reference:COE",
    "cue": "registry.ensembles.reference:CUE",
    "cse": "registry.ensembles.reference:CSE",
    "wishart": "registry.ensembles.reference:WISHART",
}
"""Conjugate ensembles of spectral differences: a `registry.ensembles.Reference` each."""

AUDIT_RULES: Final = {
    "nonfinite": "registry.audit.nonfinite_layers:RULE",
    "untrained": "registry.audit.untrained_layers:RULE",
    "duplicate": "registry.audit.duplicate_layers:RULE",
    "rows": "registry.audit.empty_rows:RULE",
    "rank": "registry.audit.deficient_rank:RULE",
    "scale": "registry.audit.layer_scale:RULE",
    "saturated": "registry.audit.saturated_values:RULE",
    "statistics": "registry.audit.unmoved_statistics:RULE",
    "labels": "registry.audit.conflicting_labels:RULE",
    "family": "registry.audit.foreign_family:RULE",
    "config": "registry.audit.contradicted_config:RULE",
}
"""What an audit looks for: a `registry.audit.AuditRule` each."""

log = logging.getLogger(__name__)


class Table(Mapping[str, T], Generic[T]):
    """What the package itself has of a kind, by name, each loaded when it is asked for.

    ``find`` and ``known`` take in what entry points of ``group`` bring, which ``check`` turns into what is used, or
    raises. An entry point that cannot be loaded or does not keep the contract is left out, with one warning that names
    it and its package. So is one of a name that is taken: what the package itself has comes first, and of two packages
    neither is taken.
    """

    def __init__(
        self, rows: Mapping[str, str], *, group: str = "", check: Callable[[str, Any], T] | None = None
    ) -> None:
        self._rows = rows
        self._group = group
        self._check = check
        self._loaded: dict[str, T] = {}
        self._brought: dict[str, T | None] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            module, _, attribute = self._rows[name].partition(":")
            self._loaded[name] = getattr(import_module(module), attribute)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, name: str) -> T | None:
        """What the package or another one has by that name; None where there is none that can be used."""
        if name in self._rows:
            return self[name]
        if name not in self._brought:
            self._brought[name] = self._from(name, [entry for entry in self._entries() if entry.name == name])
        return self._brought[name]

    def known(self) -> tuple[str, ...]:
        """All names that `find` finds: the package's own, then those of other packages, in the order of the names."""
        found: dict[str, list[EntryPoint]] = {}
        for entry in self._entries():
            found.setdefault(entry.name, []).append(entry)
        for name in found.keys() & self._rows.keys():
            if name not in self._brought:
                self._brought[name] = None
                built_in = f"the built-in one ({self._rows[name]})"
                _warn(f"{self._origins(found[name])} is left out: {built_in} has that name")
        return (
            *self._rows,
            *(name for name in sorted(found.keys() - self._rows.keys()) if self.find(name) is not None),
        )

    def _entries(self) -> list[EntryPoint]:
        """Those of the group; the same one, found again by another entry of the path, once."""
        from importlib.metadata import entry_points

        if not self._group:
            return []
        return list({(e.name, e.value, _package(e)): e for e in entry_points(group=self._group)}.values())

    def _from(self, name: str, entries: list[EntryPoint]) -> T | None:
        if len(entries) > 1:
            _warn(f"{self._origins(entries)} are left out: one name cannot stand for both")
        if len(entries) != 1 or self._check is None:
            return None
        try:
            return self._check(name, entries[0].load())
        except Exception as error:  # noqa: BLE001 - whatever another package does when it is imported
            _warn(f"{self._origins(entries)} is left out: {type(error).__name__}: {error}")
            return None

    def _origins(self, entries: list[EntryPoint]) -> str:
        places = " and ".join(sorted(f"{_package(entry)} ({entry.value})" for entry in entries))
        return f"{self._group} {entries[0].name!r} of {places}"


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"


def _warn(text: str) -> None:
    """One line, and nothing that a terminal acts on: the text is another package's in part."""
    log.warning("%s", "".join(sign if sign.isprintable() else " " for sign in text))
