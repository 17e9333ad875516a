"""The database: the only place that knows SQL. Loads SQLAlchemy when a name is used, Alembic when a schema is made."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.storage.assembling import Portable
    from registry.storage.journal import Begun, Entry, NewRun
    from registry.storage.portable import PortableFile, seal
    from registry.storage.records import (
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
    from registry.storage.store import Store

_HOMES = {
    "Added": "records",
    "Begun": "journal",
    "DetailsRows": "records",
    "Entry": "journal",
    "Holding": "records",
    "IndexReport": "records",
    "Label": "records",
    "NewModel": "records",
    "NewRun": "journal",
    "PartitionKey": "records",
    "PartitionRow": "records",
    "Portable": "assembling",
    "PortableFile": "portable",
    "Size": "records",
    "Store": "store",
    "StoredClass": "records",
    "StoredLayer": "records",
    "StoredPartition": "records",
    "Subject": "records",
    "seal": "portable",
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
