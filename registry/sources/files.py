"""Files and folders: what they are called, which of them hold weights, what is checked before any is read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "GENERIC_STEMS",
    "INDEX",
    "check_file",
    "default_names",
    "matching_files",
    "settled",
    "size_of",
    "weight_files",
]

INDEX = ".index.json"
"""How the name of a shard index ends."""

# Stems that say nothing: the folder's name is the model's.
GENERIC_STEMS = frozenset({"model", "pytorch_model", "weights", "checkpoint", "diffusion_pytorch_model", "state_dict"})
# What trainers leave beside the weights, under the same suffixes.
_TRAINER_STEMS = frozenset({"optimizer", "scheduler", "scaler", "training_args", "rng_state"})
_MAGIC = frozenset("*?[")


def check_file(path: Path) -> int:
    """Size in bytes of a file about to be read.

    Raises
    ------
    NotFoundError
        Nothing is there.
    SourceError
        It is not a regular file, may not be read or looked at, or has a name that is no UTF-8.
    UnsafeError
        It is a link that leads out of its folder.
    WeightsError
        It is empty.
    """
    if _utf8(str(path)) != str(path):
        raise SourceError(f"{_utf8(str(path))} has a name that is no UTF-8", "rename the file")
    try:
        return _checked_size(path)
    except OSError as error:  # a folder on the way that may not be entered, a link to a name too long for any file
        raise SourceError(
            f"{path} cannot be looked at: {error.strerror}", "check the path and the permissions of its folders"
        ) from error


def _checked_size(path: Path) -> int:
    if path.is_dir():
        raise SourceError(
            f"{path} is a folder, not a file", "give a file in it, or give the folder to ingest all of it"
        )
    if _leaves(path):
        real = os.path.realpath(path)
        raise UnsafeError(f"{path} is a link that leads out of its folder", f"where you trust it, name {real} itself")
    if not path.exists():
        raise NotFoundError(f"no file {path}", "check the path")
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file", "copy the weights into a file first")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read", "check its permissions")
    size = path.stat().st_size
    if size == 0:
        raise WeightsError(f"{path} is empty", "download or save it again")
    return size


def size_of(path: Path) -> int | None:
    """Size in bytes of a file; None of what `check_file` will refuse: nothing there, no file, or out of reach."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def settled(path: Path, root: Path | None) -> Path:
    """The absolute path to open: links that may be followed are followed here, what `check_file` meets later is not.

    A file that the user named (``root`` None) may be a link to anywhere; one found in a folder only to a place there.
    """
    absolute = path.absolute()
    if not _leaves(absolute):
        return absolute
    real = Path(os.path.realpath(absolute))
    return real if root is None or real.is_relative_to(os.path.realpath(root)) else absolute


def _leaves(path: Path) -> bool:
    """Whether it is a link out of its folder, or, in the Hugging Face cache of links, out of the repository's."""
    if not os.path.islink(path):  # noqa: PTH114 - which does not raise in a folder that may not be entered
        return False
    folder = Path(os.path.realpath(path.parent))
    snapshots = folder.parent
    if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        folder = snapshots.parent
    return not Path(os.path.realpath(path)).is_relative_to(folder)


def weight_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Everything below ``folder`` that is called like a file of weights, sorted by path.

    Links to folders are not followed; what trainers keep of their optimisers is left out.

    Raises
    ------
    NotFoundError
        There is no such file.
    SourceError
        A folder may not be listed.
    """
    found = sorted(_below(folder, suffixes))
    if not found:
        raise NotFoundError(f"no weights in folder {folder}", _known(suffixes))
    return found


def matching_files(pattern: Path, suffixes: tuple[str, ...]) -> tuple[Path, list[Path]] | None:
    """The folder that a pattern starts from, and the weights that match or are in folders that match; sorted.

    None where there is no ``*``, ``?`` or ``[`` in it. ``**`` means any number of folders; links to folders are not
    followed, hidden ones matched only by a pattern that has a part with a leading dot.

    Raises
    ------
    NotFoundError
        Nothing matches.
    """
    if not any(_MAGIC & set(part) for part in pattern.parts):
        return None
    # What exists is no pattern, so that folders with brackets in their names can be started from.
    root, parts = Path(pattern.anchor), list(pattern.parts[1 if pattern.anchor else 0 :])
    while len(parts) > 1 and (root / parts[0]).is_dir():
        root /= parts.pop(0)
    hidden = any(part.startswith(".") for part in parts)
    found: set[Path] = set()
    try:
        for path in root.glob("/".join(parts)):
            if not hidden and any(part.startswith(".") for part in path.relative_to(root).parts):
                continue
            if any(part.is_symlink() and part.is_dir() for part in _between(root, path)):
                continue
            found.update(_below(path, suffixes) if path.is_dir() else _weights([path], suffixes))
    except (ValueError, NotImplementedError) as error:
        raise NotFoundError(f"{pattern} is no pattern: {error}", "write it like 'runs/*/best.pt'") from error
    if not found:
        raise NotFoundError(f"no weights match {pattern}", _known(suffixes))
    return root, sorted(found)


def _between(root: Path, path: Path) -> Iterator[Path]:
    """``path`` and the folders above it that are below ``root``."""
    return (part for part in (path, *path.parents) if part != root and part.is_relative_to(root))


def _known(suffixes: tuple[str, ...]) -> str:
    return f"files of these suffixes are read: {' '.join(sorted(suffixes))}"


def _unreadable(error: OSError) -> NoReturn:
    raise SourceError(f"{error.filename} cannot be listed: {error.strerror}", "check its permissions") from error


def _below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=_unreadable, followlinks=False):
        yield from _weights((Path(parent, name) for name in names), suffixes)


def _weights(paths: Iterable[Path], suffixes: tuple[str, ...]) -> Iterator[Path]:
    return (p for p in paths if p.name.lower().endswith(suffixes) and _stem(p).lower() not in _TRAINER_STEMS)


def default_names(paths: list[Path], folder: Path | None) -> list[str]:
    """Names for files: the path below ``folder`` without suffix, for a single file (``folder`` None) its stem.

    Where the stem says nothing (``model``, ``pytorch_model``) it is the parent folder's. Files that would share
    a name keep their whole file name. All are printable text.
    """
    names = [_default_name(path, folder) for path in paths]
    count = Counter(names)
    return [
        _printable(name if count[name] == 1 or folder is None else path.relative_to(folder).as_posix())
        or _printable(path.name)
        for name, path in zip(names, paths, strict=True)
    ]


def _printable(name: str) -> str:
    r"""A name that a registry takes: unprintable signs are spelt out, ``\x1b``, blanks at its ends left out."""
    text = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _utf8(name))
    return "".join(text).strip()


def _utf8(name: str) -> str:
    """A file's name with bytes that are no UTF-8 spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stem(path: Path) -> str:
    """The name without its suffix: ``model`` of ``model.safetensors.index.json`` too."""
    return Path(path.name[: -len(INDEX)]).stem if path.name.lower().endswith(INDEX) else path.stem


def _default_name(path: Path, folder: Path | None) -> str:
    stem = _stem(path)
    generic = stem.lower() in GENERIC_STEMS
    if folder is None or (generic and path.parent == folder):
        parent = path.absolute().parent.name
        return parent if generic and parent else stem
    below = path.relative_to(folder)
    return (below.parent if generic else below.with_name(stem)).as_posix()
