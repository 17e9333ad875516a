"""What a file is: its architecture, published weights that it equals, training, relations and faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.types.architectures import PublishedWeights, Recognised
    from registry.types.audits import Finding
    from registry.types.models import ModelSummary
    from registry.types.weight_figures import Training
    from registry.types.weight_relations import Related

__all__ = ["AdapterFacts", "AskedRegistry", "Identification", "Identified", "NotIdentified"]


@dataclass(frozen=True, slots=True)
class AskedRegistry:
    """A registry that was asked about a file.

    ``label``: ``published:``, or the address without its password. ``models``: number of stored models. ``stored``: the
    model with the same weights, if there is one. ``related``: models whose weights are related, None where the file has
    nothing to compare or the registry could not be asked. ``problem``: why it could not, with what to do.
    """

    label: str
    models: int
    stored: ModelSummary | None = None
    related: Related | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter's file says of itself: its ``kind``, the ``base`` that it names, its rank and its modules."""

    kind: str
    base: str = ""
    rank: int | None = None
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identification:
    """What one model is, of which nothing was stored and no spectra were computed.

    ``asked``: as it was written. ``format``: the source that read it. ``location``: path or reference, ``entry``: which
    entry of a wrapped checkpoint, ``wrapper``: what stood before all of its names. ``tensors``: number of stored
    tensors. ``parameters``, ``layers``: by the matrix rule, None where it does not apply. ``precision``: how weights
    are stored. ``content_hash``: empty where weights were not read; ``file_sha256``: hash of the file, empty where no
    published file could be it.

    ``architecture``: which of the catalogue's it is, None where it was not looked up. ``dequantised``: shapes are those
    of the weights after dequantising or folding, not those stored. ``libraries``: versions of the catalogue's
    libraries. ``published``: weights whose published file this is.

    ``training``: None where it is not known. ``registries``: what registries say. ``findings``: of the ``rules`` of the
    audit that were applied. ``adapter``: the file is an adapter, alone or with its base. ``notes``: choices that the
    reader made. ``not_known``: what could not be told, and how to learn it, sentences without full stop.
    """

    asked: str
    name: str
    format: str
    location: str
    entry: str
    wrapper: str
    bytes: int | None
    tensors: int
    parameters: int | None
    layers: int | None
    precision: str
    weights_read: bool
    content_hash: str
    file_sha256: str
    architecture: Recognised | None
    dequantised: bool
    libraries: tuple[tuple[str, str], ...]
    published: tuple[PublishedWeights, ...]
    training: Training | None
    registries: tuple[AskedRegistry, ...]
    findings: tuple[Finding, ...]
    rules: tuple[str, ...]
    adapter: AdapterFacts | None
    notes: tuple[str, ...]
    not_known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotIdentified:
    """A file of several that could not be read: the error's message and remedy."""

    asked: str
    error: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Identified:
    """Answer of ``identify``: the models in the order asked for, those that could not be read, and damaged parts.

    ``damaged``: files of the package itself that could not be read, with what to do.
    """

    files: tuple[Identification, ...]
    failed: tuple[NotIdentified, ...] = ()
    damaged: tuple[str, ...] = ()
