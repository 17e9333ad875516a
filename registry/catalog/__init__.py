"""Class ``Registry`` and the functions behind its methods."""

from registry.catalog.registry import Registry

__all__ = ["Registry"]
