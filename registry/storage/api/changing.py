"""What is known of a stored model, changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.storage.api.base import Part
from registry.storage.models import changes, model_queries, summaries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from registry.types import Metric, ModelSummary

__all__ = ["Changing"]


class Changing(Part):
    """Cards, metrics, tags, names, and the end of a model."""

    def _change(self, name: str, work: Callable[[Connection, int], object]) -> ModelSummary:
        def change(connection: Connection) -> ModelSummary:
            model_id = model_queries.resolve(connection, name, self._address)
            work(connection, model_id)
            return summaries.summaries(connection, ids=[model_id])[0]

        return self._write(change)

    def set_card(self, name: str, given: Mapping[str, str | float | None]) -> ModelSummary:
        """Set fields of a model's card; None makes one unknown."""
        return self._change(name, lambda connection, model_id: changes.set_card(connection, model_id, given))

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, in place of the one of the same name, data set and split."""
        return self._change(name, lambda connection, model_id: changes.set_metric(connection, model_id, metric))

    def tag(self, name: str, given: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
        """Put tags on a model, or with None take one off; return all that it has now, by key."""
        return self._write(lambda c: changes.set_tags(c, model_queries.resolve(c, name, self._address), given))

    def rename(self, old: str, new: str) -> ModelSummary:
        """Replace a name; a model found by its hash gets the new one beside those it has."""
        return self._change(old, lambda connection, model_id: changes.rename(connection, model_id, old, new))

    def drop_name(self, name: str) -> ModelSummary:
        """Take one of several names from a model."""
        return self._change(name, lambda connection, model_id: changes.drop_name(connection, model_id, name))

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names and everything else; return what it was."""

        def remove(connection: Connection) -> ModelSummary:
            model_id = model_queries.resolve(connection, name, self._address)
            summary = summaries.summaries(connection, ids=[model_id])[0]
            changes.remove(connection, model_id)
            return summary

        return self._write(remove)
