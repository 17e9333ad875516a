"""Cache of the Hugging Face hub, in its documented layout.

``models--ORG--NAME/refs/REVISION`` holds a commit hash. ``models--ORG--NAME/snapshots/COMMIT/FILE`` links to
``models--ORG--NAME/blobs/HASH``.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import AmbiguousError, SourceError
from registry.sources.shard_index import shards_of
from registry.sources.weight_files import INDEX, is_index, is_shard

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMIT", "MAIN", "cached_weights", "choose", "files_of", "forget"]

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit hash: the only kind of revision that never changes."""

MAIN = "main"
"""The default revision."""

# Files at the top level of a repository, in order of preference; a single shard is not a model.
_PREFERENCE = (
    "model.safetensors", f"model.safetensors{INDEX}", "*.safetensors", f"*.safetensors{INDEX}",
    "pytorch_model.bin", f"pytorch_model.bin{INDEX}", "*pytorch_model.bin", f"*pytorch_model.bin{INDEX}",
)  # fmt: skip


def choose(names: Iterable[str], where: str) -> str | None:
    """The weights file or shard index of a repository; None if it has no weights.

    Safetensors files take precedence over ``pytorch_model.bin``, usual names over others. Raises ``AmbiguousError`` if
    several files are equally preferred.
    """
    whole = [name for name in names if "/" not in name and not is_shard(Path(name))]
    for pattern in _PREFERENCE:
        found = sorted(fnmatch.filter(whole, pattern))
        if len(found) > 1:
            raise AmbiguousError(
                f"{where} holds {len(found)} models: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}",
                "download the one you mean (hf download REPOSITORY FILE) and give the file",
            )
        if found:
            return found[0]
    return None


def cached_weights(repository: str, revision: str) -> Path | None:
    """The weights file or shard index of a snapshot that is complete in the cache; None if anything must be downloaded.

    Reads two folders, and the index of a sharded model.
    """
    folder = _folder(repository)
    try:
        name = (folder / "refs" / revision).read_text().strip()
    except OSError:
        name = revision
    if not COMMIT.fullmatch(name):
        return None
    snapshot = folder / "snapshots" / name
    if not snapshot.is_dir():
        return None
    chosen = choose((path.name for path in snapshot.iterdir()), repository)
    if chosen is None:
        return None
    return snapshot / chosen if all(file.is_file() for file in files_of(snapshot / chosen)) else None


def files_of(weights: Path) -> list[Path]:
    """The file itself; for a shard index, the index and its shards."""
    return [weights, *shards_of(weights)] if is_index(weights) else [weights]


def _folder(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repository.replace('/', '--')}"


def forget(repository: str, revision: str) -> None:
    """Remove a snapshot's weights from the cache, with the blobs that no other snapshot links to.

    Raises ``SourceError`` if a file cannot be removed.
    """
    weights = cached_weights(repository, revision)
    if weights is None:
        return
    snapshots = weights.parent.parent
    try:
        for link in files_of(weights):
            blob = link.resolve()
            link.unlink()
            shared = (other for other in snapshots.glob("*/*") if other.resolve() == blob)
            if blob.parent == snapshots.parent.resolve() / "blobs" and next(shared, None) is None:
                blob.unlink(missing_ok=True)
    except OSError as error:
        raise SourceError(
            f"the download {weights} could not be removed: {error.strerror}", "remove it yourself"
        ) from error
