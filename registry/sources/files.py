"""Files and folders: what they are called, which of them hold weights, what is checked before any is read."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from registry.errors import NotFoundError, SourceError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GENERIC_STEMS", "check_file", "default_names", "weight_files"]

# Stems that say nothing: the folder's name is the model's.
GENERIC_STEMS = frozenset({"model", "pytorch_model", "weights", "checkpoint", "diffusion_pytorch_model", "state_dict"})
# What trainers leave beside the weights, under the same suffixes.
_TRAINER_STEMS = frozenset({"optimizer", "scheduler", "scaler", "training_args", "rng_state"})
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})$")


def check_file(path: Path) -> int:
    """Size in bytes of a file about to be read.

    Raises
    ------
    NotFoundError
        Nothing is there.
    SourceError
        It is not a regular file, or may not be read.
    WeightsError
        It is empty, or one shard of a model kept in several files.
    """
    if path.is_dir():
        raise SourceError(
            f"{path} is a folder, not a file", "give a file in it, or give the folder to ingest all of it"
        )
    if not path.exists():
        raise NotFoundError(f"no file {path}", "check the path")
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file", "copy the weights into a file first")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read", "check its permissions")
    size = path.stat().st_size
    if size == 0:
        raise WeightsError(f"{path} is empty", "download or save it again")
    shard = _SHARD.match(path.stem)
    if shard:
        raise WeightsError(
            f"{path} is one of {int(shard[2])} shards, not a whole model", "save the model into a single file first"
        )
    return size


def weight_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below ``folder`` that hold weights by their suffix, sorted by path.

    Links to folders are not followed, links to files only where they stay inside; what trainers keep of
    their optimisers is left out.

    Raises
    ------
    NotFoundError
        There is no such file.
    SourceError
        A folder may not be listed.
    """
    found = sorted(_inside(folder, suffixes))
    if not found:
        known = " ".join(sorted(suffixes))
        raise NotFoundError(f"no weights in folder {folder}", f"files of these suffixes are read: {known}")
    return found


def _unreadable(error: OSError) -> NoReturn:
    raise SourceError(f"{error.filename} cannot be listed: {error.strerror}", "check its permissions") from error


def _inside(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    root = folder.resolve()
    for parent, _, names in os.walk(folder, onerror=_unreadable, followlinks=False):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() not in suffixes or path.stem.lower() in _TRAINER_STEMS:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            if path.is_file():
                yield path


def default_names(paths: list[Path], folder: Path | None) -> list[str]:
    """Names for files: the path below ``folder`` without suffix, for a single file (``folder`` None) its stem.

    Where the stem says nothing (``model``, ``pytorch_model``) it is the parent folder's. Files that would share
    a name keep their whole file name.
    """
    names = [_default_name(path, folder) for path in paths]
    count = Counter(names)
    return [
        name if count[name] == 1 or folder is None else path.relative_to(folder).as_posix()
        for name, path in zip(names, paths, strict=True)
    ]


def _default_name(path: Path, folder: Path | None) -> str:
    generic = path.stem.lower() in GENERIC_STEMS
    if folder is None or (generic and path.parent == folder):
        parent = path.absolute().parent.name
        return parent if generic and parent else path.stem
    below = path.relative_to(folder)
    return (below.parent if generic else below.with_suffix("")).as_posix()
