"""archreg: a database of trained networks, each known by the spectrum of its weights.

>>> from registry import Registry
>>> with Registry("sqlite:///zoo.db") as reg:  # doctest: +SKIP
...     reg.ingest("resnet20.safetensors", family="resnet")
...     reg.nearest("resnet20", k=5, max_params=200_000)
>>> with Registry("published:") as reg:  # doctest: +SKIP
...     reg.compress("resnet-cifar/akamaster-resnet56", max_ratio=0.5)

Importing this package loads no framework and no database driver; each name below loads what it needs when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from registry.version import __version__

if TYPE_CHECKING:
    from registry.catalog import Registry
    from registry.catalog.several_registries import Among
    from registry.errors import RegistryError
    from registry.types import Filter, Metric, MetricBound, ModelCard

__all__ = ["Among", "Filter", "Metric", "MetricBound", "ModelCard", "Registry", "RegistryError", "__version__"]

_HOMES = {
    "Among": "registry.catalog.several_registries",
    "Filter": "registry.types",
    "Metric": "registry.types",
    "MetricBound": "registry.types",
    "ModelCard": "registry.types",
    "Registry": "registry.catalog",
    "RegistryError": "registry.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
