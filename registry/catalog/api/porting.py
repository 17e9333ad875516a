"""Moving a registry, or part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part, filter_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from registry.types import Transfer

__all__ = ["Porting"]


class Porting(Part):
    """Export to a file, and import from one."""

    def export(
        self,
        file: str | Path,
        *,
        names: Iterable[str] = (),
        spectra: bool = True,
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **filters: Any,
    ) -> Transfer:
        """Write stored models into a new SQLite file that is a registry itself; no weights. O(n), a few at a time.

        ``names``: these models alone; ``filters`` as in questions, both if both are given. ``spectra``: also the
        eigenvalues, without which nothing can be fingerprinted anew. ``progress`` is told how many models of how many
        are done. All calibrations go with it; the journal of ingests and stored classes do not. A model that is damaged
        is left out and in ``failed``.

        The file appears whole or not at all. Raises ``EmptyRegistryError`` where no model is meant, ``RegistryError``
        where the file is there and ``overwrite`` is not asked for, or cannot be written.
        """
        from registry.catalog.arguments import path, several
        from registry.catalog.transfer import export

        return export(
            self._database,
            path(file, "file"),
            several(names, "names"),
            filter_of(filters),
            spectra=spectra,
            overwrite=overwrite,
            progress=progress,
        )

    def import_from(
        self,
        file: str | Path,
        *,
        replace: bool = False,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Transfer:
        """Bring in the models of a SQLite file that ``export`` wrote, or of any other registry in one. O(n).

        New weights are stored whole. Known ones get the names and what else is missing, and what is here stays; so
        importing again, also after an interruption, changes nothing. A name that belongs to other weights here makes
        the model a failed item. ``replace``: such a name moves, and the file's metadata and calibrations win over
        those here; fingerprints and spectra of known weights stay even so.

        The file is opened to be read only and never trusted: what is not sound is a failed item with its reason, of
        which nothing is stored. ``dry_run``: say what would become of each model, and change nothing.

        Raises ``NotFoundError``, ``SchemaVersionError`` (an older file is upgraded as a copy) or ``StorageError`` where
        the file is no registry or the database refuses; what was stored before stays.
        """
        from registry.catalog.arguments import path
        from registry.catalog.transfer import import_from

        return import_from(self._database, path(file, "file"), replace=replace, dry_run=dry_run, progress=progress)
