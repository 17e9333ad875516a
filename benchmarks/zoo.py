"""The published models that benchmarks and tests read."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["zoo_folder"]


def zoo_folder() -> Path:
    """Folder of the zoo: ``ARCHREG_ZOO``, else ``shared/zoo`` beside the checkout.

    Raises ``FileNotFoundError`` with its path.
    """
    folder = Path(os.environ.get("ARCHREG_ZOO") or Path(__file__).resolve().parents[2] / "shared" / "zoo")
    if not (folder / "manifest.jsonl").is_file():
        raise FileNotFoundError(f"no zoo at {folder}: set ARCHREG_ZOO to the folder of its manifest.jsonl")
    return folder
