"""Conditions on two models that a gate asks for, and the changes of metrics that some rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from registry.types.weights import place_of

__all__ = ["REQUIREMENTS", "MetricChange", "Requirement", "RequirementName"]

RequirementName = Literal["equivalent", "related", "identical", "same-shape"]
REQUIREMENTS: dict[RequirementName, str] = {
    "equivalent": "the verdict of a comparison of weights is that they are equivalent",
    "related": "their weights have a common start: related, permuted or identical",
    "identical": "the contents of their weights are the same",
    "same-shape": "they have the same topology",
}
"""What can be required of two models, and when it holds."""


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric on one dataset and split, of the model and of its candidate.

    ``higher_is_better``: None if neither model's record nor the metric's name determines it.
    """

    name: str
    dataset: str
    split: str
    original: float
    candidate: float
    higher_is_better: bool | None = None

    @property
    def place(self) -> str:
        """``top1@cifar10/test``."""
        return place_of(self.name, self.dataset, self.split)

    @property
    def change(self) -> float:
        """Candidate minus original."""
        return self.candidate - self.original

    @property
    def share(self) -> float:
        """Size of the change as a part of the larger value; 0 where nothing changes."""
        return abs(self.change) / max(abs(self.original), abs(self.candidate)) if self.change else 0.0

    @property
    def better(self) -> bool | None:
        """Whether the candidate is better; None if it is equal or the direction is unknown."""
        if self.higher_is_better is None or self.change == 0:
            return None
        return (self.change > 0) == self.higher_is_better


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on two models, and whether it holds.

    ``require``: the condition as it is written on the command line: ``related``, ``max-drop top1@cifar10=0.5``.
    ``reason``: why it holds or not, in words. What is not known does not hold.
    """

    require: str
    met: bool
    reason: str
