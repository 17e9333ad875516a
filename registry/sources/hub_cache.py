"""The Hugging Face hub's cache of downloads, laid out as the hub documents it.

``models--ORG--NAME/refs/REVISION`` holds a commit's hash, ``models--ORG--NAME/snapshots/COMMIT/FILE`` links to
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
"""A revision that never means anything else."""

MAIN = "main"
"""The revision meant where none is named."""

# Files at the top of a repository, the best first; a shard alone is no model.
_PREFERENCE = (
    "model.safetensors", f"model.safetensors{INDEX}", "*.safetensors", f"*.safetensors{INDEX}",
    "pytorch_model.bin", f"pytorch_model.bin{INDEX}", "*pytorch_model.bin", f"*pytorch_model.bin{INDEX}",
)  # fmt: skip


def choose(names: Iterable[str], where: str) -> str | None:
    """The file that is a repository's model, or the index of its shards; None where there are no weights.

    safetensors before ``pytorch_model.bin``, the usual name before others. ``AmbiguousError`` where several are equal.
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
    """The weights file, or index, of a snapshot that is whole in the cache; None where anything has to be downloaded.

    Looks at two folders, and at the index of sharded models.
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
    """The file itself; of an index, it and its shards."""
    return [weights, *shards_of(weights)] if is_index(weights) else [weights]


def _folder(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repository.replace('/', '--')}"


def forget(repository: str, revision: str) -> None:
    """Remove a snapshot's weights from the cache, and what they link to unless another snapshot does, too.

    Raises ``SourceError`` where that is not possible.
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
