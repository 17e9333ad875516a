"""Default location of the database."""

from __future__ import annotations

import os
from pathlib import Path

from registry.shipped import is_word

__all__ = ["anchored", "default_database", "no_file"]


def default_database() -> str:
    """The environment variable ``ARCHREG_DB``, else ``archreg.db`` in the working folder."""
    return os.environ.get("ARCHREG_DB") or "archreg.db"


def anchored(url: str, folder: str) -> str:
    """``url`` with a relative path of a SQLite file, with or without scheme, made absolute from ``folder``.

    The word of a registry that ships, such as ``published:``, is no path.
    """
    if is_word(url):
        return url
    scheme, path = ("sqlite:///", url[10:]) if url.startswith("sqlite:///") else ("", url)
    return url if "://" in path or not path.strip() else f"{scheme}{Path(folder, path)}"


def no_file(url: str) -> bool:
    """Whether a database URL is a path without scheme at which no file exists. False has no meaning."""
    return bool(url.strip()) and "://" not in url and not is_word(url) and not os.path.lexists(url)
