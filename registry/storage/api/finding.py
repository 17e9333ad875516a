"""Models by name, by filter and by weights, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from registry.errors import UnknownModelError
from registry.storage.api.base import Part
from registry.storage.engine.schema import models, names
from registry.storage.engine.schema_version import HEAD
from registry.storage.models import bulk_figures, model_queries, summaries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from registry.storage.models.records import DetailsRows, Size, Subject
    from registry.types import Filter, Metric, ModelSummary, Stats

__all__ = ["Finding"]


class Finding(Part):
    """Models, without their numbers."""

    def known_as(self, content_hash: str) -> ModelSummary | None:
        """Return the model with exactly these weights, None where they are not stored."""

        def find(connection: Connection) -> ModelSummary | None:
            ids = connection.scalars(select(models.c.id).where(models.c.content_hash == content_hash)).all()
            return summaries.summaries(connection, ids=ids)[0] if ids else None

        return self._read(find)

    def count(self) -> int:
        """Return how many models are stored."""
        return self._read(lambda connection: connection.scalar(select(func.count()).select_from(models)) or 0)

    def require_models(self) -> None:
        """Raise `EmptyRegistryError`, with the command that fills it, where nothing is stored."""
        self._read(lambda connection: model_queries.require_models(connection, self._address))

    def has_name(self, name: str) -> bool:
        """Whether a model has exactly that name."""
        return self._read(lambda c: c.scalar(select(names.c.id).where(names.c.name == name)) is not None)

    def find(self, name: str) -> ModelSummary:
        """Return the model of that name or hash."""
        return self._read(lambda c: summaries.summaries(c, ids=[model_queries.resolve(c, name, self._address)])[0])

    def summary(self, model_id: int) -> ModelSummary:
        """Return the model of that id; `UnknownModelError` where there is none any more."""
        found = self.summaries(ids=[model_id])
        if not found:
            raise UnknownModelError("the model was removed meanwhile")
        return found[0]

    def summaries(self, wanted: Filter | None = None, ids: Sequence[int] | None = None) -> list[ModelSummary]:
        """Return the models that a filter lets through, of ``ids`` if given, ordered by name."""
        return self._read(lambda connection: summaries.summaries(connection, wanted, ids))

    def candidate_ids(self, wanted: Filter | None = None) -> list[int]:
        """Return the ids of the models that a filter lets through, ascending."""
        return self._read(lambda connection: model_queries.candidate_ids(connection, wanted))

    def unknown_count(self, wanted: Filter, besides: int = 0) -> int:
        """Return how many models, but that one, a filter leaves out only for bounds on what is not known of them."""
        return self._read(lambda connection: model_queries.unknown_count(connection, wanted, besides))

    def subject(self, name: str, spec_hash: str) -> Subject | None:
        """Return the model of exactly that name as a question by a spec is about it, None where there is none."""
        return self._read(lambda connection: summaries.subject(connection, name, spec_hash))

    def sizes(self, wanted: Filter) -> list[Size]:
        """Return how large the models are that a filter lets through, by id."""
        return self._read(lambda connection: bulk_figures.sizes(connection, wanted))

    def metrics(self, wanted: Filter) -> list[tuple[int, Metric]]:
        """Return the metrics of the models that a filter lets through, with the model's id, ascending."""
        return self._read(lambda connection: bulk_figures.measured(connection, wanted))

    def near_texts(self, field: str, asked: str) -> list[str]:
        """Return known values of ``family``, ``architecture``, ``task``, ``dataset`` or ``licence`` spelt nearly so."""
        return self._read(lambda connection: bulk_figures.near_texts(connection, field, asked))

    def details_rows(self, model_id: int) -> DetailsRows:
        """Return everything stored of a model but summary, spectra and vectors."""
        return self._read(lambda connection: model_queries.details_rows(connection, model_id))

    def stats(self) -> Stats:
        """Return what the registry holds."""
        return self._read(lambda connection: model_queries.stats(connection, HEAD))
