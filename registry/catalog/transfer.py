"""Export of models to a file, and import from a file."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from registry.catalog.constraint_report import unmatched
from registry.errors import EmptyRegistryError, RegistryError, StorageError, UsageError
from registry.types import Ingested, Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from registry.catalog.database import Database
    from registry.storage import Portable, Store
    from registry.types import Filter

    Progress = Callable[[int, int], None]

__all__ = ["export", "import_from"]


class Collection(Protocol):
    """Models to transfer, of a registry or a file."""

    ids: list[int]

    def models(self, *, spectra: bool = True) -> Iterator[list[Portable | Ingested]]:
        """Yield the models in portions."""

    def calibrations(self) -> tuple[list[dict[str, Any]], list[Ingested]]:
        """Return the calibrations, and failures for damaged ones."""


def export(
    database: Database,
    path: Path,
    names: Sequence[str],
    wanted: Filter,
    *,
    spectra: bool,
    overwrite: bool,
    progress: Progress | None,
) -> Transfer:
    """Write the models with those names, or all, that match the filter; see ``Registry.export``."""
    from registry.atomic_files import whole_file
    from registry.storage import Store, seal

    _check_target(path, database, overwrite=overwrite)
    store = database.readable()
    with store.selection(wanted, names) as selection:
        if not selection.ids:
            near = [f"{field} {value}" for field, values in unmatched(store, wanted).items() for value in values]
            remedy = f"did you mean {', '.join(near)}?" if near else "widen the filters"
            raise EmptyRegistryError("no stored model matches the filters; nothing was written", remedy)
        with whole_file(path) as partial, tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
            draft = Path(name) / path.name
            with _called(path, draft), Store.open(str(draft), mode="create") as target:
                done = _move(selection, target, str(path), spectra=spectra, progress=progress)
            with _called(path, draft):
                seal(draft)
            draft.replace(partial)
    return done


@contextmanager
def _called(path: Path, draft: Path) -> Iterator[None]:
    """Replace the name of the temporary draft in errors by the name of the target file."""
    try:
        yield
    except StorageError as error:
        if str(draft) in error.message:
            raise StorageError(error.message.replace(str(draft), str(path)), error.remedy) from error
        raise


def _check_target(path: Path, database: Database, *, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder", "name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"folder '{path.parent}' does not exist", "create it, or name another file")
    if not path.exists():
        return
    held = database.readable().path
    if held is not None and held.exists() and path.samefile(held):
        raise UsageError(f"'{path}' is the registry itself", "name another file")
    if not overwrite:
        raise RegistryError(f"'{path}' exists already", "name another file, or replace it with --force")


def import_from(database: Database, path: Path, *, replace: bool, dry_run: bool, progress: Progress | None) -> Transfer:
    """Import the models of a file; see ``Registry.import_from``."""
    from registry.storage import PortableFile

    with PortableFile(path) as given, _target(database, given.path, dry_run=dry_run) as target:
        return _move(given, target, str(path), replace=replace, dry_run=dry_run, progress=progress)


@contextmanager
def _target(database: Database, path: Path, *, dry_run: bool) -> Iterator[Store]:
    """The target registry; a temporary one for a dry run without a database."""
    from registry.storage import Store

    existing = database.existing()
    if existing is not None and existing.path is not None and path.samefile(existing.path):
        raise UsageError(f"{existing.url} is the registry itself", "name another file, or another --db")
    if existing is not None or not dry_run:
        yield database.created()
        return
    with tempfile.TemporaryDirectory() as name, Store.open(str(Path(name) / "dry.db"), mode="create") as store:
        yield store


def _move(
    given: Collection,
    target: Store,
    file: str,
    *,
    spectra: bool = True,
    replace: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Transfer:
    """Transfer the models, one transaction per portion; O(n) time, memory for one portion."""
    from registry.sources import MATRIX_RULE

    counts: Counter[str] = Counter()
    failed: list[Ingested] = []
    with _young_garbage_alone():
        for portion in given.models(spectra=spectra):
            checked = [_with_its_topology(each) for each in portion]
            for outcome in target.merge(checked, overrule=replace, rule=MATRIX_RULE, dry_run=dry_run):
                counts[outcome.status] += 1
                if outcome.status == "failed":
                    failed.append(outcome)
            if progress is not None:
                progress(counts.total(), len(given.ids))
            gc.collect(0)
    rows, refused = given.calibrations()
    from registry.storage.portable.calibration_merge import merge_calibrations

    store_rows = target.rehearse if dry_run else target.write
    brought = store_rows(merge_calibrations, rows, replace=replace)
    return Transfer(
        file=file,
        models=len(given.ids),
        added=counts["added"],
        merged=counts["merged"],
        known=counts["known"],
        calibrations=brought,
        failed=(*failed, *refused),
    )


@contextmanager
def _young_garbage_alone() -> Iterator[None]:
    """Disable the cyclic garbage collector, which would take a third of the time and finds nothing in new rows.

    The youngest generation is collected after each portion.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _with_its_topology(each: Portable | Ingested) -> Portable | Ingested:
    """Return the model, or a failed item if its topology does not agree with its layers."""
    from registry.sources import topology_of

    if isinstance(each, Ingested) or each.new.plan.topology == topology_of(each.new.plan.layers):
        return each
    return Ingested(each.new.name, each.new.name, "failed", 0.0, "the topology does not agree with the layers", "")
