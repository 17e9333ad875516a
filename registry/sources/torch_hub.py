"""torch.hub's cache of downloads."""

from __future__ import annotations

import re
from pathlib import Path

from registry.errors import SourceError

__all__ = ["cache_path", "download", "forget", "hash_prefix"]


def cache_path(url: str) -> Path:
    """Where torch.hub keeps the download."""
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def hash_prefix(url: str) -> str | None:
    """First digits of the file's sha256, which torch.hub's file names carry behind a hyphen."""
    match = re.search(r"-([a-f0-9]{6,})\.", url.rpartition("/")[2])
    return match[1] if match else None


def download(url: str, what: str, instead: str) -> None:
    """Fetch into torch.hub's cache, checked against the hash in the file's name.

    ``what`` the file is and the reference to take ``instead`` are for the message. torchvision's own ``get_state_dict``
    would also unpickle the file, without ``weights_only``.

    Raises
    ------
    SourceError
        It could not be downloaded, or is not the file that its name promises.
    """
    import torch.hub

    path = cache_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix(url), progress=False)
    except RuntimeError as error:
        raise SourceError(f"{url} does not have the hash its name promises", "try again, or check the proxy") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:160]
        raise SourceError(
            f"{what} are not in the cache and could not be downloaded from {url}: {reason}",
            f"put that file at {path}, or take {instead}",
        ) from error


def forget(url: str) -> None:
    """Remove a download; ``SourceError`` where that is not possible."""
    path = cache_path(url)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"the download {path} could not be removed: {error.strerror}", "remove it yourself"
        ) from error
