"""Changing what is stored, and the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part
from registry.catalog.arguments import text

if TYPE_CHECKING:
    from registry.types import Metric, ModelSummary

__all__ = ["Managing"]


class Managing(Part):
    """Metadata, names, removal, and the schema."""

    def set(self, name: str, **changes: Any) -> ModelSummary:
        """Change what is known of a model: family, architecture, task, dataset, licence, training, seed, ..."""
        from registry.storage.models.changes import set_card

        return self._database.writable().write(set_card, name, changes)

    def set_metric(self, name: str, metric: Metric) -> ModelSummary:
        """Add a metric, or change the one of the same name, data set and split."""
        from registry.catalog.card_validation import typed_metric
        from registry.storage.models.changes import set_metric

        return self._database.writable().write(set_metric, name, typed_metric(metric))

    def tag(self, name: str, /, **tags: str | None) -> tuple[tuple[str, str], ...]:
        """Set tags of a model, None removing one; returns all its tags."""
        from registry.storage.models.changes import set_tags

        for key, value in tags.items():
            if value is not None:
                text(value, f"the tag {key}")
        return self._database.writable().write(set_tags, name, tags)

    def rename(self, old: str, new: str) -> ModelSummary:
        """Give a stored name another spelling. Raises ``NameTakenError`` if the new one is in use."""
        from registry.storage.models.changes import rename

        return self._database.writable().write(rename, old, text(new, "a name"))

    def remove(self, name: str) -> ModelSummary:
        """Remove a model with all its names, spectra and fingerprints; returns what was removed."""
        from registry.storage.models.changes import remove

        return self._database.writable().write(remove, name)

    def upgrade(self, *, from_revision: str | None = None) -> str:
        """Bring the schema to this version's; returns the revision it is at now.

        Where the database does not say which revision it has, ``from_revision`` does: it is set if the tables are those
        of that revision.
        """
        from registry.storage.engine import migrate

        if from_revision is not None:
            text(from_revision, "from_revision")
        self._database.close()
        return migrate.upgrade(self._database.url, from_revision=from_revision)

    def current(self) -> str | None:
        """The schema revision the database is at, None where there is none; ``SchemaVersionError`` where it is none."""
        from registry.storage.engine.schema_version import version_at

        return version_at(self._database.url)

    def check(self) -> tuple[str, ...]:
        """Problems found in the database, none when it is sound."""
        from registry.storage.engine import migrate

        return tuple(migrate.check(self._database.url))
