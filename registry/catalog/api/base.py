"""What every part of ``Registry`` stands on: the database, the terms of a question, keywords turned into values."""

from __future__ import annotations

from functools import wraps
from inspect import isfunction
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from registry.catalog.database import Database
from registry.errors import UsageError
from registry.types import Filter, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.catalog.search_settings import Terms
    from registry.catalog.subjects import Asked, Query
    from registry.storage import Store
    from registry.types import FingerprintSpec

__all__ = ["Part", "card_of", "filter_of", "spec_of"]

P = ParamSpec("P")
T = TypeVar("T")


class Part:
    """A part of ``Registry``: its methods, by what they are for.

    One method is at work at a time, whichever threads call: they share a connection, its snapshot and the vectors that
    are remembered.
    """

    def __init__(self, url: str | Path | None = None) -> None:
        self._database = Database(url)
        self._turn = RLock()

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _in_turn(method))

    def _terms(self, fingerprint: str, distance: str | None, tolerance: float | None) -> tuple[Store, Terms]:
        from registry.catalog.search_settings import terms

        store = self._database.readable()
        return store, terms(store, spec_of(fingerprint), distance, tolerance)

    def _question(
        self,
        query: Asked,
        fingerprint: str,
        distance: str | None,
        tolerance: float | None,
        *,
        among: bool = False,
    ) -> tuple[Store, Query, Terms]:
        """``among``: the stored models, of which there must be some: said before weights are read or downloaded."""
        from registry.catalog.subjects import resolve
        from registry.storage.models.model_queries import require_models

        store, by = self._terms(fingerprint, distance, tolerance)
        if among:
            store.read(require_models)
        return store, resolve(store, query, by.spec), by


def _in_turn(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """The method, waiting for what another thread has begun; what a method itself asks for is part of it."""

    @wraps(method)
    def alone(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            return method(self, *args, **kwargs)

    return alone


def spec_of(name: str) -> FingerprintSpec:
    """The shipped spec of that name. Raises ``UsageError`` naming the known ones."""
    from registry.spectral.specs import spec_named

    return spec_named(name)


def filter_of(fields: dict[str, Any]) -> Filter:
    """The filter of those keywords.

    Raises ``UsageError`` for an unknown one, a value of the wrong kind, or bounds that exclude each other.
    """
    from registry.catalog.bounds import consistent, typed

    unknown = fields.keys() - Filter.__slots__
    if unknown:
        raise UsageError(f"unknown filter {sorted(unknown)[0]!r}", f"known: {', '.join(Filter.__slots__)}")
    return consistent(typed(Filter(**fields)))


def card_of(fields: dict[str, Any]) -> ModelCard:
    """The card of those keywords. Raises ``UsageError`` for an unknown one, or a value of the wrong kind."""
    from registry.catalog.card_validation import typed_card

    unknown = fields.keys() - ModelCard.__slots__
    if unknown:
        raise UsageError(f"unknown field {sorted(unknown)[0]!r}", f"known: {', '.join(ModelCard.__slots__)}")
    return typed_card(ModelCard(**fields))
