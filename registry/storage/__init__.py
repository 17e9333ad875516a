"""Storage in SQLite or Postgres; the only package with SQL. Imports SQLAlchemy at first use of a name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.storage.journal.run_journal import Begun, Entry, NewRun
    from registry.storage.models.records import (
        Added,
        DetailsRows,
        Holding,
        IndexReport,
        Label,
        NewModel,
        PartitionKey,
        PartitionRow,
        Size,
        StoredClass,
        StoredLayer,
        StoredPartition,
        Subject,
    )
    from registry.storage.portable.model_assembly import Portable
    from registry.storage.portable.portable_file import PortableFile, seal
    from registry.storage.store import Store

_HOMES = {
    "Added": "models.records",
    "Begun": "journal.run_journal",
    "DetailsRows": "models.records",
    "Entry": "journal.run_journal",
    "Holding": "models.records",
    "IndexReport": "models.records",
    "Label": "models.records",
    "NewModel": "models.records",
    "NewRun": "journal.run_journal",
    "PartitionKey": "models.records",
    "PartitionRow": "models.records",
    "Portable": "portable.model_assembly",
    "PortableFile": "portable.portable_file",
    "Size": "models.records",
    "Store": "store",
    "StoredClass": "models.records",
    "StoredLayer": "models.records",
    "StoredPartition": "models.records",
    "Subject": "models.records",
    "seal": "portable.portable_file",
}

__all__ = [
    "Added",
    "Begun",
    "DetailsRows",
    "Entry",
    "Holding",
    "IndexReport",
    "Label",
    "NewModel",
    "NewRun",
    "PartitionKey",
    "PartitionRow",
    "Portable",
    "PortableFile",
    "Size",
    "Store",
    "StoredClass",
    "StoredLayer",
    "StoredPartition",
    "Subject",
    "seal",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
