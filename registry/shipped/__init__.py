"""Registries that ship with the package: files that are read and never written, each under a word and a colon.

``SHIPPED`` has a line for each: ``published:`` is the file ``published.db`` of this folder. Beside it stands
``published.db.sha256``, the sha256 of the file's bytes as 64 hexadecimal digits, which is checked before the file is
opened: what it answers is what was measured, or nothing.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

from registry.errors import StorageError, UsageError

__all__ = [
    "CATALOGUE",
    "FOLDER",
    "REINSTALL",
    "SHIPPED",
    "checksum_file",
    "checksum_of",
    "is_word",
    "shipped_file",
    "shipped_word",
]

CATALOGUE: Final = "catalogue"
SHIPPED: Final = {"published": "published.db", CATALOGUE: "catalogue.db"}
"""By word: the file of this folder. That of the catalogue holds architectures, and is no registry of models."""

FOLDER: Final = Path(__file__).parent
"""Where the files are."""
REINSTALL: Final = "install the package again: pip install --force-reinstall --no-deps architecture-registry"
"""What to do about a file that is missing, damaged or of another version."""

# Two letters at least: one is a drive of Windows.
_WORD: Final = re.compile(r"([A-Za-z]\w+):")


def is_word(text: str) -> bool:
    """Whether a database address is a word and a colon, such as ``published:``, and so no path; O(1)."""
    return _WORD.fullmatch(text) is not None


def shipped_word(text: str) -> str | None:
    """Return the word of ``WORD:``, the address of a registry that ships; None for any other address.

    Raises
    ------
    UsageError
        No registry of that word ships, or something follows the colon of one that does.
    """
    found = _WORD.match(text)
    if found is None:
        return None
    word, rest = found[1], text[found.end() :]
    if word in SHIPPED and rest:
        raise UsageError(f"{text!r} is more than {word}:", f"name the registry as {word}: alone, a file as ./{text}")
    if rest:
        return None
    if word not in SHIPPED:
        known = ", ".join(f"{name}:" for name in SHIPPED)
        raise UsageError(f"no registry {text} ships with this version", f"give {known}, or for a file ./{text}")
    return word


def shipped_file(word: str) -> Path:
    """Return the path of the file of a word of ``SHIPPED``, which is there and undamaged.

    The bytes are read and summed at the first call, and again where size or time of the file have changed.

    Raises
    ------
    StorageError
        The file or its checksum is missing or cannot be read, or the bytes are others. The remedy installs it again.
    """
    path = FOLDER / SHIPPED[word]
    try:
        state = path.stat()
        expected = checksum_file(path).read_text("ascii").strip()
        found = _summed(path, state.st_size, state.st_mtime_ns)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise StorageError(f"{word}: is not part of this installation: {name} is missing", REINSTALL) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "its checksum is no text"
        raise StorageError(f"{word}: cannot be read: {reason}", REINSTALL) from error
    if found != expected:
        raise StorageError(f"{word}: is damaged: {path.name} has other bytes than those that ship", REINSTALL)
    return path


def checksum_file(path: Path) -> Path:
    """Return the path of the file that holds the checksum of a shipped file."""
    return path.with_name(f"{path.name}.sha256")


def checksum_of(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits; O(bytes)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _summed(path: Path, _size: int, _time: int) -> str:
    return checksum_of(path)
