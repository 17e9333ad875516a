"""Where the registry is when nobody says."""

from __future__ import annotations

import os

__all__ = ["default_database", "no_file"]


def default_database() -> str:
    """``ARCHREG_DB`` of the environment, else ``archreg.db`` in the working folder."""
    return os.environ.get("ARCHREG_DB") or "archreg.db"


def no_file(url: str) -> bool:
    """Whether a database's place is a path, without a scheme, at which there is nothing. False says nothing."""
    return bool(url.strip()) and "://" not in url and not os.path.lexists(url)
