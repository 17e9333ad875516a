"""Libraries that only tests of layouts need, and tiny models of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import missing

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["converter", "required"]


def required(*names: str) -> Any:
    """The modules, or the only one; without them the test is skipped, and fails in CI."""
    found: list[ModuleType] = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            missing(f"{name} is not installed ({error}); install the group 'layouts' of pyproject.toml")
    return found[0] if len(found) == 1 else found


def converter(name: str) -> None:
    """Ask for a converter, which is not imported here; without it the test is skipped.

    It fails in CI where the converter could have been installed: ``pyproject.toml`` leaves out Python 3.14 and Windows.
    """
    if importlib.util.find_spec(name) is not None:
        return
    if sys.version_info >= (3, 14) or sys.platform == "win32":
        pytest.skip(f"{name} has no wheel for this Python or platform")
    missing(f"{name} is not installed; install the group 'layouts' of pyproject.toml")
