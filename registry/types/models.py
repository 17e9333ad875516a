"""Stored models, in a line and in full, and what a registry holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry.types.reprs import Shown

if TYPE_CHECKING:
    from registry.types.spectra import Conjugacy
    from registry.types.weights import Metric, SkippedTensor

__all__ = ["LayerFigures", "Membership", "ModelDetails", "ModelSummary", "Stats"]


@dataclass(frozen=True, slots=True, repr=False)
class ModelSummary(Shown):
    """A stored model in one line. ``name`` is its oldest name, ``names`` all of them; created in UTC, ISO 8601.

    ``approximate``: of its ``layers``, how many have approximate spectra, on which its fingerprints and classes rest.
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


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer as ``show`` has it: where it is, and its spectrum in figures.

    ``mean``: mean of the proper eigenvalues of W W^T; ``largest``: the largest over that mean; ``stable_rank``:
    ||W||_F^2 / ||W||_2^2; ``entropy``: of the normalised proper eigenvalues, over log of their number. These three
    are None where the spectra are not stored. ``method``: how the eigenvalues were found, empty for exactly.
    """

    position: int
    name: str
    kind: str
    shape: tuple[int, ...]
    p: int
    q: int
    mean: float
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
    """Everything stored of one model. ``revision``, ``recipe``, ``training``, ``tool_version``: provenance.

    ``memberships``: the kept classes it is in, of the newest partition first.
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


@dataclass(frozen=True, slots=True)
class Stats:
    """What a registry holds. ``bytes``: of the database where it can be known."""

    models: int
    names: int
    layers: int
    families: tuple[tuple[str, int], ...]
    fingerprints: tuple[tuple[str, int], ...]
    training_classes: tuple[tuple[str, int], ...]
    tail_classes: tuple[tuple[str, int], ...]
    schema_version: str
    bytes: int | None
