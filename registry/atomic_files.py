"""Atomic writing of files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and move the file written there to ``path`` on success.

    An existing file stays until then. Raises ``RegistryError`` if the file cannot be written; nothing is left behind.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RegistryError(
            f"cannot write '{path}': {error.strerror or error}", "choose another file with -o"
        ) from error
