"""Files under the name of weights that hold something else: pointers, error pages, unfinished downloads.

The first bytes decide, so that every suffix is answered alike, before any library reads the file.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from registry.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_content", "finished_name"]

_START = 512  # bytes looked at
_POINTER = re.compile(rb"version https://(?:git-lfs|hawser)\S*\n(?:.*\n)*?size (\d{1,20})\n")
_POINTER_START = (b"version https://git-lfs", b"version https://hawser")  # its first name
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|\?xml|error)\b", re.IGNORECASE)
# What servers answer in plain text or JSON instead of a file.
_ANSWER = re.compile(
    rb"\s*(?:entry not found|repository not found|(?:error )?404\b|not found\b|access denied|forbidden\b|unauthorized\b"
    rb"|invalid (?:username|credentials)|access to model|\{\s*\"(?:error|message|detail)\"\s*:)",
    re.IGNORECASE,
)
_SMALL = 64 * 1024  # bytes; no answer in plain text is larger
_UNFINISHED = re.compile(r"(.+)\.(?:incomplete|part|partial|crdownload|download|opdownload|!ut|aria2)", re.IGNORECASE)


def check_content(path: Path, size: int) -> None:
    """Refuse a file that is no weights file by its first bytes or by a control file beside it.

    Raises ``WeightsError`` for a pointer of Git LFS, a web page or a server's answer that was saved in place of a file,
    and a file that aria2 has not finished: it has its full size at once.
    """
    if os.path.exists(f"{path}.aria2"):  # noqa: PTH110 - which is False, too, for a name that is too long
        raise WeightsError(f"{path} is an unfinished download: {path.name}.aria2 is beside it", "finish the download")
    with path.open("rb") as file:
        start = file.read(_START)
    if start.startswith(_POINTER_START):
        pointer = _POINTER.match(start)
        whole = f" to a file of {int(pointer[1])} bytes" if pointer else ""
        raise WeightsError(
            f"{path} is a pointer of Git LFS{whole}, not the file itself",
            f"run: git lfs pull --include {path.name}, in its repository",
        )
    if _PAGE.match(start):
        raise WeightsError(
            f"{path} is a web page, which a server sent in place of the file",
            "download it again from the address of the file itself; log in first if it needs that",
        )
    if size <= _SMALL and path.suffix.lower() != ".json" and _ANSWER.match(start):
        said = " ".join(start[:80].decode("utf-8", "replace").split())
        raise WeightsError(
            f"{path} holds a server's answer in place of the file: {said!r}",
            "check the address, then download it again",
        )


def finished_name(path: Path) -> str | None:
    """The name that a download will have when it is finished, of an unfinished one; None for other files."""
    match = _UNFINISHED.fullmatch(path.name)
    return match[1] if match else None
