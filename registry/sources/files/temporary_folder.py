"""A folder for files that are needed as long as a checkpoint is open."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

__all__ = ["TemporaryFolder"]


class TemporaryFolder:
    """A new folder at ``path``, where temporary files go. It is removed when it is closed."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="archreg-"))

    def close(self) -> None:
        """Remove the folder and what is in it. Closing twice has no effect."""
        shutil.rmtree(self.path, ignore_errors=True)
