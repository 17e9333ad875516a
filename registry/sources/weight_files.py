"""Files and folders of weights: checks before reading, search in folders, default names."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources.not_weights import check_content, finished_name
from registry.spelling import counted
from registry.types.outcomes import NAMED, LeftOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DESCRIPTIONS",
    "GENERIC_STEMS",
    "INDEX",
    "SHARD",
    "Found",
    "check_file",
    "default_names",
    "index_of",
    "is_index",
    "is_shard",
    "is_training_state",
    "matching_files",
    "refuse_shard",
    "settled",
    "size_of",
    "weight_files",
]

INDEX = ".index.json"
"""How the name of a shard index ends."""
SHARD = re.compile(r"(.+)[-_.]([0-9]{1,9})[-_]of[-_]([0-9]{1,9})", re.IGNORECASE)
"""The stem of one shard of several: the model's, its number and how many there are."""

# Uninformative stems; the model is named after its folder instead.
GENERIC_STEMS = frozenset({
    "model", "pytorch_model", "weights", "checkpoint", "diffusion_pytorch_model", "state_dict", "consolidated",
    "model_part", "pytorch_model_part", "part", "shard", "mp_rank_00_model_states", "model_optim_rng",
})  # fmt: skip
# Training state saved beside the weights, with the same suffixes.
_TRAINER_STEMS = frozenset({"optimizer", "scheduler", "scaler", "training_args", "rng_state"})
_TRAINER_PARTS = re.compile(r"rng_state_[0-9]+|(\w+_)?zero_pp_rank_[0-9]+_mp_rank_[0-9]+_optim_states")
_NUMBERED = re.compile(r"(consolidated)\.[0-9]{1,4}|(.*(?:part|shard))[-_.]?[0-9]{1,4}", re.IGNORECASE)
DESCRIPTIONS = (
    "config.json", "adapter_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json",
    "args.yaml",
)  # fmt: skip
"""Files beside the weights that are read with them: see `model_files`."""

_REASONS, _LONGEST = 40, 12  # reasons that a scan tells apart, and characters of a suffix
_MAGIC = frozenset("*?[")


def check_file(path: Path) -> int:
    """Size in bytes of a file, after checking that it can be read.

    Raises
    ------
    NotFoundError
        The file does not exist.
    SourceError
        The path is not a regular file, cannot be accessed or read, or is not UTF-8.
    UnsafeError
        The path is a link that leads out of its folder.
    WeightsError
        The file is empty, a pointer of Git LFS, a web page, or an unfinished download.
    """
    if _utf8(str(path)) != str(path):
        raise SourceError(f"{_utf8(str(path))} has a name that is not UTF-8", "rename the file")
    try:
        return _checked_size(path)
    except OSError as error:  # a parent folder without permission, or a link to a name that is too long
        raise SourceError(
            f"{path} cannot be accessed: {error.strerror}", "check the path and the permissions of its folders"
        ) from error


def _checked_size(path: Path) -> int:
    if path.is_dir():
        raise SourceError(
            f"{path} is a folder, not a file", "give a file in it, or give the folder to ingest all of it"
        )
    if _leaves(path):
        real = os.path.realpath(path)
        raise UnsafeError(f"{path} is a link that leads out of its folder", f"if you trust it, give {real} itself")
    if not path.exists():
        raise NotFoundError(f"no file {path}", "check the path")
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file", "copy the weights into a file first")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} is not readable", "check its permissions")
    size = path.stat().st_size
    if size == 0:
        raise WeightsError(f"{path} is empty", "download or save it again")
    check_content(path, size)
    return size


def size_of(path: Path) -> int | None:
    """Size in bytes of a file; None if it is missing, inaccessible or not a regular file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def settled(path: Path, root: Path | None) -> Path:
    """The absolute path to open, with permitted links followed; `check_file` refuses the others.

    A file that the user named (``root`` None) may link to any place, a file found in a folder only to a place in that
    folder.
    """
    absolute = path.absolute()
    if not _leaves(absolute):
        return absolute
    real = Path(os.path.realpath(absolute))
    return real if root is None or real.is_relative_to(os.path.realpath(root)) else absolute


def _leaves(path: Path) -> bool:
    """Whether the path is a link out of its folder, or, in the Hugging Face cache, out of its repository."""
    if not os.path.islink(path):  # noqa: PTH114 - which does not raise in a folder that may not be entered
        return False
    folder = Path(os.path.realpath(path.parent))
    snapshots = folder.parent
    if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        folder = snapshots.parent
    return not Path(os.path.realpath(path)).is_relative_to(folder)


class Found(NamedTuple):
    """Weights files below the folder ``root``, and paths that cannot be accessed; both sorted.

    ``left_out``: the other files, by reason.
    """

    root: Path
    files: list[Path]
    barred: list[Path]
    left_out: tuple[LeftOut, ...]


class _Rest:
    """Counts the files that a scan leaves out. O(1) a file."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        if reason not in self._counts and len(self._counts) >= _REASONS:
            reason = "other suffixes"
        self._counts[reason] += 1
        names = self._names.setdefault(reason, [])
        if len(names) < NAMED or name < names[-1]:  # the first in the order of names, whatever the order of the scan
            names[NAMED - 1 :] = []
            names.append(name)
            names.sort()

    def told(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(reason, count, tuple(map(_printable, self._names[reason])))
            for reason, count in self._counts.items()
        )


def weight_files(folder: Path, suffixes: tuple[str, ...]) -> Found:
    """All weights files below ``folder``.

    Links to folders are not followed, which excludes cycles. Optimiser states and similar training files are left out.

    Raises
    ------
    NotFoundError
        There is no weights file, and no path was inaccessible.
    SourceError
        The folder cannot be listed.
    """
    barred: dict[Path, str] = {}
    rest = _Rest()
    found = sorted(_below(folder, suffixes, barred, rest))
    if folder in barred:
        raise SourceError(f"{folder} cannot be listed: {barred[folder]}", "check its permissions")
    if not found and not barred:
        unfinished = next((path for path in _files_below(folder) if finished_name(path)), None)
        raise NotFoundError(
            f"no weights in folder {folder}",
            f"finish the download of {unfinished}" if unfinished else _known(suffixes),
        )
    return Found(folder, found, sorted(barred), rest.told())


def matching_files(pattern: Path, suffixes: tuple[str, ...]) -> Found | None:
    """Weights files that match a pattern or lie in folders that match it; None if the text is not a pattern.

    A pattern contains ``*``, ``?`` or ``[``; ``**`` matches any number of folders. Links to folders are not followed.
    Hidden folders match only if a part of the pattern starts with a dot.

    Raises
    ------
    NotFoundError
        Nothing matches, and no path was inaccessible.
    """
    if not any(_MAGIC & set(part) for part in pattern.parts):
        return None
    # Leading parts that exist are taken literally, so that folder names may contain brackets.
    root, parts = Path(pattern.anchor), list(pattern.parts[1 if pattern.anchor else 0 :])
    while len(parts) > 1 and (root / parts[0]).is_dir():
        root /= parts.pop(0)
    if any("**" in part and part != "**" for part in parts):
        raise NotFoundError(
            f"{pattern} is not a valid pattern: ** must be a whole part of the path", "write it like 'runs/**/best.pt'"
        )
    barred: dict[Path, str] = {}
    found: set[Path] = set()
    rest = _Rest()
    for path, is_folder in _matching(root, parts, barred, hidden=any(part.startswith(".") for part in parts)):
        found.update(_below(path, suffixes, barred, rest) if is_folder else _weights([path], suffixes, rest))
    if not found and not barred:
        raise NotFoundError(f"no weights match {pattern}", _known(suffixes))
    return Found(root, sorted(found), sorted(barred), rest.told())


# pathlib's glob silently skips folders without permission; here they are reported.
def _matching(folder: Path, parts: list[str], barred: dict[Path, str], *, hidden: bool) -> Iterator[tuple[Path, bool]]:
    """Paths below a folder that match the parts of a pattern, and whether each is a folder; adds to ``barred``."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        if not rest:
            yield folder, True
            return
        waiting = [folder]
        while waiting:
            within = waiting.pop()
            yield from _matching(within, rest, barred, hidden=hidden)
            waiting += [path for path, is_folder in _children(within, "*", barred, hidden=hidden) if is_folder]
        return
    for path, is_folder in _children(folder, part, barred, hidden=hidden):
        if not rest:
            yield path, is_folder
        elif is_folder:
            yield from _matching(path, rest, barred, hidden=hidden)


def _children(folder: Path, part: str, barred: dict[Path, str], *, hidden: bool) -> Iterator[tuple[Path, bool]]:
    """Entries of a folder that match one part of a pattern, and whether each is a folder; no links to folders."""
    looked_at = folder if _MAGIC & set(part) else folder / part
    try:
        if looked_at == folder:
            with os.scandir(folder) as entries:
                found = [
                    (folder / entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink())
                    for entry in entries
                    if fnmatch(entry.name, part) and (hidden or not entry.name.startswith("."))
                ]
        else:
            mode = looked_at.lstat().st_mode
            found = [(looked_at, stat.S_ISDIR(mode), stat.S_ISLNK(mode))]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return
    except OSError as error:
        barred[looked_at] = error.strerror or str(error)
        return
    for path, is_folder, is_link in found:
        if not (is_link and os.path.isdir(path)):  # noqa: PTH112 - which does not raise where it may not look
            yield path, is_folder


def is_training_state(path: Path) -> bool:
    """Whether the name is that of training state beside the weights: an optimizer, a scheduler, random states."""
    return path.stem.lower() in _TRAINER_STEMS or _TRAINER_PARTS.fullmatch(path.stem.lower()) is not None


def _known(suffixes: tuple[str, ...]) -> str:
    return f"supported suffixes: {' '.join(sorted(suffixes))}"


def _files_below(folder: Path) -> Iterator[Path]:
    return _below(folder, ("",), {}, _Rest())


def _below(folder: Path, suffixes: tuple[str, ...], barred: dict[Path, str], rest: _Rest) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        children = list(_children(waiting.pop(), "*", barred, hidden=True))
        waiting += [path for path, is_folder in children if is_folder]
        yield from _weights((path for path, is_folder in children if not is_folder), suffixes, rest)


def _weights(paths: Iterable[Path], suffixes: tuple[str, ...], rest: _Rest) -> Iterator[Path]:
    for path in paths:
        name = path.name
        lower = name.lower()
        if lower.endswith(suffixes):
            if not is_training_state(path):
                yield path
                continue
            rest.add("training state", name)
        elif lower not in DESCRIPTIONS:
            suffix = os.path.splitext(lower)[1]  # noqa: PTH122 - of many thousands of names
            known = suffix.isprintable() and len(suffix) <= _LONGEST
            rest.add((f"unknown suffix {suffix}" if suffix else "no suffix") if known else "other suffixes", name)


def default_names(paths: list[Path], folder: Path | None) -> list[str]:
    """Default model names for files: the path below ``folder`` without suffix, or the stem if ``folder`` is None.

    A file with an uninformative stem (``model``, ``pytorch_model``) is named after its parent folder. Files that would
    share a name keep their full file name. All names are printable text.
    """
    names = [_default_name(path, folder) for path in paths]
    count = Counter(names)
    return [
        _printable(name if count[name] == 1 or folder is None else path.relative_to(folder).as_posix())
        or _printable(path.name)
        for name, path in zip(names, paths, strict=True)
    ]


def _printable(name: str) -> str:
    r"""A valid model name: unprintable characters escaped as ``\x1b``, blanks at both ends removed."""
    text = (c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _utf8(name))
    return "".join(text).strip()


def _utf8(name: str) -> str:
    """A file name with bytes that are not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stem(path: Path) -> str:
    """The name without its suffix; ``model`` for ``model.safetensors.index.json`` and ``model-00001-of-2.bin``."""
    if path.name.lower().endswith(INDEX):
        return Path(path.name[: -len(INDEX)]).stem
    if shard := SHARD.fullmatch(path.stem):
        return shard[1]
    numbered = _NUMBERED.fullmatch(path.stem)
    whole = numbered[1] or numbered[2] if numbered else path.stem
    return whole if whole.lower() in GENERIC_STEMS else path.stem


def _default_name(path: Path, folder: Path | None) -> str:
    stem = _stem(path)
    generic = stem.lower() in GENERIC_STEMS
    if folder is None or (generic and path.parent == folder):
        parent = path.absolute().parent.name
        return parent if generic and parent else stem
    below = path.relative_to(folder)
    return (below.parent if generic else below.with_name(stem)).as_posix()


def is_index(path: Path) -> bool:
    """Whether the name is that of a shard index."""
    return path.name.lower().endswith(INDEX)


def is_shard(path: Path) -> bool:
    """Whether the name is that of one shard of several."""
    return SHARD.fullmatch(path.stem) is not None


def index_of(path: Path) -> Path | None:
    """The index beside a shard, by its name; None without one."""
    shard = SHARD.fullmatch(path.stem)
    index = path.with_name(f"{shard[1]}{path.suffix}{INDEX}") if shard else None
    return index if index is not None and index.is_file() else None


def refuse_shard(path: Path) -> None:
    """Raise ``WeightsError`` for one shard of a model kept in several files, naming the index that stands for all."""
    shard = SHARD.fullmatch(path.stem)
    if shard is None:
        return
    index = index_of(path)
    remedy = "put the other shards beside it" if index is None else f"give its index, {index}"
    raise WeightsError(f"{path} is one of {counted(int(shard[3]), 'shard')}, not a whole model", remedy)
