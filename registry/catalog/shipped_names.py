"""Whether what ships with the package knows a name that a registry does not."""

from __future__ import annotations

from contextlib import closing

from registry.catalog.database import Database
from registry.errors import RegistryError
from registry.shipped import CATALOGUE, SHIPPED

__all__ = ["shipped_that_know"]


def shipped_that_know(name: str, besides: str) -> tuple[str, ...]:
    """The addresses of what ships that have a model or an architecture of that name; ``besides``: one not asked.

    What is damaged or not installed knows none.
    """
    return tuple(f"{word}:" for word in SHIPPED if f"{word}:" != besides and _knows(word, name))


def _knows(word: str, name: str) -> bool:
    with closing(Database(f"{word}:")) as database:
        try:
            if word == CATALOGUE:
                catalogue = database.catalogue()
                return catalogue is not None and bool(catalogue.named(name))
            from registry.storage.models.model_queries import has_name

            return database.readable().read(has_name, name)
        except RegistryError:
            return False
