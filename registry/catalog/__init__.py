"""The use cases: class ``Registry`` and what each of its questions does."""

from registry.catalog.registry import Registry

__all__ = ["Registry"]
