"""Libraries that only tests of layouts need, and tiny models of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tests.conftest import missing

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["required"]


def required(*names: str) -> Any:
    """The modules, or the only one; without them the test is skipped, and fails in CI."""
    found: list[ModuleType] = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            missing(f"{name} is not installed ({error}); install the group 'layouts' of pyproject.toml")
    return found[0] if len(found) == 1 else found
