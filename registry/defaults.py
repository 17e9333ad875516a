"""Where the registry is when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["anchored", "default_database", "no_file"]


def default_database() -> str:
    """``ARCHREG_DB`` of the environment, else ``archreg.db`` in the working folder."""
    return os.environ.get("ARCHREG_DB") or "archreg.db"


def anchored(url: str, folder: str) -> str:
    """``url`` as from ``folder``: the relative path of a SQLite file, with or without scheme, made a whole one."""
    scheme, path = ("sqlite:///", url[10:]) if url.startswith("sqlite:///") else ("", url)
    return url if "://" in path or not path.strip() else f"{scheme}{Path(folder, path)}"


def no_file(url: str) -> bool:
    """Whether a database's place is a path, without a scheme, at which there is nothing. False says nothing."""
    return bool(url.strip()) and "://" not in url and not os.path.lexists(url)
