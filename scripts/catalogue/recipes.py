"""What is built for the catalogue, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from registry.architectures.catalogue_file import Cost
    from registry.types import PublishedWeights

__all__ = ["Built", "Library", "Recipe", "each_once"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """An architecture to build.

    ``codes``: expressions that build it, the one with the most arguments first; ``{classes}`` and ``{channels}`` stand
    for numbers. The first one is taken whose every argument moves the layout. ``imports``: module that they need.
    ``classes``, ``channels``: default numbers. ``config``: what a configuration beside its weights would say, or, with
    ``config_code``, an expression that gives it.
    """

    library: str
    name: str
    codes: tuple[str, ...]
    imports: str
    family: str
    task: str
    classes: int | None = None
    channels: int | None = None
    image_size: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_code: str = ""

    @property
    def label(self) -> str:
        """``library/name``."""
        return f"{self.library}/{self.name}"


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a recipe.

    ``text``: the layout (`registry.architectures.layout_text`). ``code``: the expression that was taken.
    ``classes``, ``channels``: the defaults, None for what the layout does not follow. ``vector``: the fingerprint
    ``shapes``, in half precision, as hexadecimal digits; empty without layer matrices. ``reason``: why it could not be
    built, and then nothing else is known. ``notes``: what was tried and did not hold.
    """

    text: str = ""
    code: str = ""
    classes: int | None = None
    channels: int | None = None
    parameters: int = 0
    vector: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Library:
    """What a library gives: recipes, and by the name of an architecture the published weights and costs.

    Ids of architectures in ``weights`` and ``costs`` are zero: names tell. ``refused``: names of the library that are
    no recipes, and why. ``asks_metadata``: names of architectures that load no state dict without its version numbers.
    """

    name: str
    versions: Mapping[str, str]
    recipes: tuple[Recipe, ...]
    weights: tuple[tuple[str, PublishedWeights], ...] = ()
    costs: tuple[tuple[str, Cost], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    asks_metadata: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def each_once(costs: Iterable[tuple[str, Cost]]) -> tuple[tuple[str, Cost], ...]:
    """Costs by the name of an architecture, each image size once.

    Raises ``ValueError`` where other multiply-adds are stated for the same.
    """
    found: dict[tuple[str, int], Cost] = {}
    for name, cost in costs:
        stated = found.setdefault((name, cost.image_size), cost)
        if stated.gmacs != cost.gmacs:
            raise ValueError(f"{name} at {cost.image_size} pixels: {stated.gmacs} and {cost.gmacs} are stated")
    return tuple((name, cost) for (name, _), cost in found.items())
