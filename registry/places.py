"""Where the registry is when nobody says."""

from __future__ import annotations

import os

__all__ = ["default_database"]


def default_database() -> str:
    """``ARCHREG_DB`` of the environment, else ``archreg.db`` in the working folder."""
    return os.environ.get("ARCHREG_DB") or "archreg.db"
