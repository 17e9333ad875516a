"""The libraries whose layouts these tests compare."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import missing

LIBRARIES = ("bitsandbytes", "compressed_tensors", "peft", "timm", "transformers")


@pytest.fixture(autouse=True, scope="session")
def libraries() -> None:
    """Skip where one is missing; fail where continuous integration lacks it."""
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        missing(f"not installed: {', '.join(absent)} (group layouts)")
