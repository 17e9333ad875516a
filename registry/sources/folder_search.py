"""Search for weights files in folders and by patterns, and what a search leaves out."""

from __future__ import annotations

import os
import stat
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import NotFoundError, SourceError
from registry.sources.base import SUFFIXES, is_weights_name
from registry.sources.recognition import ORBAX, recognise
from registry.sources.weight_files import (
    DESCRIPTIONS,
    check_file,
    finished_name,
    is_index,
    is_training_state,
    printable,
)
from registry.types.weights import NAMED, LeftOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from registry.sources.recognition import Recognised

__all__ = ["Found", "matching_files", "weight_files"]

_REASONS, _LONGEST = 40, 12  # reasons that a scan tells apart, and characters of a suffix
_MAGIC = frozenset("*?[")
_PICKLE_START = 4 * 2**20  # bytes
_NO_WEIGHTS = frozenset({
    ".bat", ".bmp", ".c", ".cc", ".cfg", ".cpp", ".css", ".csv", ".cu", ".cuh", ".gif", ".h", ".hpp", ".htm", ".html",
    ".ini", ".ipynb", ".java", ".jpeg", ".jpg", ".js", ".jsonl", ".lock", ".log", ".md", ".mp3", ".mp4", ".pdf", ".png",
    ".proto", ".prototxt", ".py", ".pyc", ".rs", ".rst", ".sh", ".svg", ".tex", ".tif", ".tiff", ".toml", ".ts", ".tsv",
    ".txt", ".wav", ".webp", ".yaml", ".yml",
})  # fmt: skip
"""Suffixes of files that are not opened by a scan: texts, pictures and sounds."""
_OF_SAVED_MODELS = frozenset({"fingerprint.pb", "keras_metadata.pb"})  # beside saved_model.pb, without weights


class Found(NamedTuple):
    """Weights files below the folder ``root``, and paths that cannot be accessed; both sorted.

    ``kinds``: what their first bytes say, of those that are recognised. ``left_out``: the other files, by reason.
    """

    root: Path
    files: list[Path]
    barred: list[Path]
    kinds: dict[Path, Recognised]
    left_out: tuple[LeftOut, ...]


class _Rest:
    """Counts the files that a scan leaves out, and keeps the ``kinds`` of those that it takes. O(1) a file."""

    def __init__(self) -> None:
        self.kinds: dict[Path, Recognised] = {}
        self._remedies: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str, remedy: str = "") -> None:
        self._remedies.setdefault(reason, remedy)
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
            LeftOut(reason, count, tuple(map(printable, self._names[reason])), self._remedies.get(reason, ""))
            for reason, count in self._counts.items()
        )


def weight_files(folder: Path) -> Found:
    """All weights files below ``folder``, by their first bytes: one file is opened after another, O(1) each.

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
    found = sorted(_below(folder, barred, rest))
    if folder in barred:
        raise SourceError(f"{folder} cannot be listed: {barred[folder]}", "check its permissions")
    if not found and not barred:
        unfinished = next((path for path in _files_below(folder) if finished_name(path)), None)
        raise NotFoundError(
            f"no weights in folder {folder}",
            f"finish the download of {unfinished}" if unfinished else _known(),
        )
    return Found(folder, found, sorted(barred), rest.kinds, rest.told())


def matching_files(pattern: Path) -> Found | None:
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
        found.update(_below(path, barred, rest) if is_folder else _weights([path], rest))
    if not found and not barred:
        raise NotFoundError(f"no weights match {pattern}", _known())
    return Found(root, sorted(found), sorted(barred), rest.kinds, rest.told())


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


def _known() -> str:
    return f"usual suffixes of weights: {' '.join(sorted(SUFFIXES))}"


def _files_below(folder: Path) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        for path, is_folder in list(_children(waiting.pop(), "*", {}, hidden=True)):
            if is_folder:
                waiting.append(path)
            else:
                yield path


def _below(folder: Path, barred: dict[Path, str], rest: _Rest) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        children = list(_children(waiting.pop(), "*", barred, hidden=True))
        if (main := next((path for path, _ in children if _stands_for_folder(path)), None)) is not None:
            for path, is_folder in children:
                if path != main and not is_folder:
                    rest.add("part of another file", path.name)
            children = [(main, False)]
        waiting += [path for path, is_folder in children if is_folder]
        yield from _weights((path for path, is_folder in children if not is_folder), rest)


def _stands_for_folder(path: Path) -> bool:
    """Whether a file makes a model of all that is in its folder, as that of Orbax does."""
    return path.name == ORBAX and (found := recognise(path)) is not None and found.kind.name == "orbax"


def _is_broken(path: Path) -> bool:
    """Whether a file is empty, a pointer of Git LFS, an error page and the like, and not data of another program."""
    try:
        return check_file(path) < 1
    except SourceError:
        return True


def _names_arrays(path: Path) -> bool:
    """Whether a pickle's first megabytes name a library whose arrays it may hold."""
    with path.open("rb") as file:
        start = file.read(_PICKLE_START)
    return any(library in start for library in (b"numpy", b"torch", b"paddle", b"joblib"))


def _weights(paths: Iterable[Path], rest: _Rest) -> Iterator[Path]:
    for path in paths:
        name = path.name
        lower = name.lower()
        suffix = os.path.splitext(lower)[1]  # noqa: PTH122 - of many thousands of names
        if is_index(path):
            yield path
        elif lower in DESCRIPTIONS or (lower in _OF_SAVED_MODELS and path.with_name("saved_model.pb").is_file()):
            continue
        elif finished_name(path) is not None:
            rest.add("unfinished download", name)
        elif suffix in _NO_WEIGHTS:
            rest.add(f"unknown suffix {suffix}", name)
        elif (found := recognise(path)) is None:
            if is_weights_name(path) and not is_training_state(path) and (suffix != ".bin" or _is_broken(path)):
                yield path  # which fails, and says why
                continue
            known = suffix.isprintable() and len(suffix) <= _LONGEST
            rest.add((f"unknown suffix {suffix}" if suffix else "no suffix") if known else "other suffixes", name)
        elif is_training_state(path):
            rest.add("a tokenizer" if "tokenizer" in lower else "training state", name)
        elif found.main != path:
            rest.add("part of another file", name)
        elif not found.kind.source:
            rest.add(found.kind.title, name, found.kind.remedy)
        elif found.kind.name == "npy":
            rest.add("a single NumPy array", name, "give the file itself, to read it as a model of one layer")
        elif found.kind.name == "pickle" and not _names_arrays(path):
            rest.add("a pickle without arrays", name)
        else:
            rest.kinds[path] = found
            yield path
