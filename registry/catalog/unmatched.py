"""What a question asks for that no model has, and what is known that is spelt nearly so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.catalog.bounds import TEXTS
from registry.storage.models.bulk_figures import near_texts
from registry.storage.models.model_queries import candidate_ids, require_models
from registry.types import Filter

if TYPE_CHECKING:
    from registry.storage import Store

__all__ = ["near", "unmatched"]


def unmatched(store: Store, where: Filter) -> dict[str, tuple[str, ...]]:
    """Each text of the filter that no model has, by its field, with up to three known ones that are near; O(n).

    Raises ``EmptyRegistryError`` where there are no models at all.
    """
    store.read(require_models)
    alone = {field: Filter(**{field: getattr(where, field)}) for field in TEXTS if getattr(where, field)}
    return {field: near(store, field, one) for field, one in alone.items() if not store.read(candidate_ids, one)}


def near(store: Store, field: str, alone: Filter) -> tuple[str, ...]:
    """Known values spelt nearly as the text that a filter of one field, which no model passes, asks for."""
    return tuple(store.read(near_texts, field, getattr(alone, field))) if field in TEXTS else ()
