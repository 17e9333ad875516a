"""Downloads in torch.hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from registry.errors import SourceError

__all__ = ["cache_path", "download", "forget", "hash_prefix"]


def cache_path(url: str) -> Path:
    """Path of a download in torch.hub's cache."""
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def hash_prefix(url: str) -> str | None:
    """First digits of the file's sha256, which torch.hub puts after a hyphen in file names."""
    match = re.search(r"-([a-f0-9]{6,})\.", url.rpartition("/")[2])
    return match[1] if match else None


def download(url: str, what: str, instead: str) -> None:
    """Download into torch.hub's cache and compare with the hash in the file name.

    ``what`` names the file and ``instead`` an alternative reference, for the message. torchvision's ``get_state_dict``
    would also unpickle the file without ``weights_only``.

    Raises
    ------
    SourceError
        The download failed, or its hash differs from the one in the file name.
    """
    import torch.hub

    path = cache_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix(url), progress=False)
    except RuntimeError as error:
        raise SourceError(f"{url} does not have the hash in its name", "try again, or check the proxy") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:160]
        raise SourceError(
            f"{what} are not in the cache and could not be downloaded from {url}: {reason}",
            f"put that file at {path}, or take {instead}",
        ) from error


def forget(url: str) -> None:
    """Remove a download; raises ``SourceError`` if that fails."""
    path = cache_path(url)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"the download {path} could not be removed: {error.strerror}", "remove it yourself"
        ) from error
