"""Stored models, in summary and in detail, and totals of a registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.types.reprs import Shown

if TYPE_CHECKING:
    from registry.types.architectures import CatalogueEntry, PublishedWeights
    from registry.types.audits import Finding
    from registry.types.spectra import Conjugacy
    from registry.types.weight_figures import Training
    from registry.types.weights import Metric, SkippedTensor

__all__ = ["CatalogueStats", "LayerFigures", "Membership", "ModelDetails", "ModelSummary", "OlderModels", "Stats"]


@dataclass(frozen=True, slots=True, repr=False)
class ModelSummary(Shown):
    """A stored model in one line. ``name`` is its oldest name, ``names`` all names; ``created`` is UTC, ISO 8601.

    ``approximate``: number of its ``layers`` with approximate spectra, on which fingerprints and classes then rest.
    ``precision``: how the weights are stored (``int4 gptq, float16``). ``format``: the source that read them,
    ``location``: their path or reference when they were ingested, ``entry``: which entry of a wrapped checkpoint.
    ``unread``: number of weights that were left out because they cannot be read. ``nonfinite``: number of values that
    are NaN or infinite, whose layers were left out. ``weights_read``: False if the header alone was read: shapes,
    dtypes and sizes are known, and ``content_hash`` is ``header:`` and a hash of them at their location.

    ``catalogue``: of an architecture of the catalogue, what it states; None for a model. Then ``names`` are those of
    all architectures that the answer cannot tell apart; ``bytes`` is the size of the published file, or of the
    parameters in float32 where no weights are named or their size is not known; ``location`` is what ``archreg ingest``
    takes; and ``content_hash``, ``topology`` and ``created`` are empty, ``layers`` 0.

    ``registries``: where several registries were asked, those that hold it, the one that the other fields are of first.
    """

    id: int
    name: str
    names: tuple[str, ...] = field(repr=False)
    content_hash: str = field(repr=False)
    topology: str = field(repr=False)
    parameters: int
    bytes: int
    layers: int
    matrix_rule: str = field(repr=False)
    created: str = field(repr=False)
    family: str = ""
    architecture: str = ""
    task: str = ""
    dataset: str = ""
    licence: str = ""
    source: str = field(default="", repr=False)
    gflops: float | None = None
    tail_class: str = ""
    training_class: str = ""
    approximate: int = 0
    metrics: tuple[Metric, ...] = ()
    precision: str = ""
    format: str = ""
    location: str = field(default="", repr=False)
    entry: str = ""
    unread: int = 0
    nonfinite: int = 0
    weights_read: bool = True
    catalogue: CatalogueEntry | None = None
    registries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer of a stored model: its matrix, and statistics of its spectrum.

    ``mean``: mean of the proper eigenvalues of W W^T, None if the weights were not read. ``largest``: the largest
    eigenvalue over that mean. ``stable_rank``: ||W||_F^2 / ||W||_2^2. ``entropy``: of the normalised proper
    eigenvalues, over the log of their number. These three are None if the spectra are not stored. ``method``: how the
    eigenvalues were computed, empty for exact ones.
    """

    position: int
    name: str
    kind: str
    shape: tuple[int, ...]
    p: int
    q: int
    mean: float | None
    largest: float | None
    stable_rank: float | None
    entropy: float | None
    method: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """A kept class that a model is in: its identity, how many members it has, and the terms of its partition."""

    identity: str
    members: int
    fingerprint: str
    distance: str
    tolerance: float
    rule: str


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """All stored data of one model. ``revision``, ``recipe``, ``training``, ``tool_version``: provenance.

    ``memberships``: the stored equivalence classes that contain it, newest partition first. ``notes``: sentences on
    choices that the reader of the weights made. ``evidence``: what the training class rests on, None where figures of
    the weights are not stored. ``published``: of an architecture of the catalogue, the weights published for it.
    ``findings``: what the rules of an audit that look at the model alone find; ``rules``: the names of those that could
    be applied.
    """

    summary: ModelSummary
    layers: tuple[LayerFigures, ...]
    skipped: tuple[SkippedTensor, ...]
    conjugacy: Conjugacy | None
    tags: tuple[tuple[str, str], ...]
    fingerprints: tuple[str, ...]
    has_spectra: bool
    revision: str = ""
    recipe: str = ""
    training: str = ""
    seed: int | None = None
    tool_version: str = ""
    memberships: tuple[Membership, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Training | None = None
    published: tuple[PublishedWeights, ...] = ()
    findings: tuple[Finding, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OlderModels:
    """Stored ``models`` of an older matrix rule than the present ``rule``: they are compared with no others.

    To ingest a model's weights again measures it anew.
    """

    rule: str
    models: tuple[ModelSummary, ...]


@dataclass(frozen=True, slots=True)
class CatalogueStats:
    """Totals of the catalogue of architectures.

    ``libraries``: pairs of a library and its number of architectures; ``layouts``: distinct state dicts; ``weights``,
    ``metrics``: published ones; ``costs``: stated multiply-adds. ``versions``: pairs of a package and the version that
    built them; ``command``: what built the file, empty if it does not say.
    """

    architectures: int
    libraries: tuple[tuple[str, int], ...]
    layouts: int
    weights: int
    metrics: int
    costs: int
    versions: tuple[tuple[str, str], ...]
    command: str


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals of a registry. ``bytes``: size of the database, if known.

    ``catalogue``: of the catalogue alone, in which ``models`` are architectures and ``layers`` is 0.
    """

    models: int
    names: int
    layers: int
    families: tuple[tuple[str, int], ...]
    fingerprints: tuple[tuple[str, int], ...]
    training_classes: tuple[tuple[str, int], ...]
    tail_classes: tuple[tuple[str, int], ...]
    schema_version: str
    bytes: int | None
    catalogue: CatalogueStats | None = None
