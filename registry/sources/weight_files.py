"""Weights files: checks before reading, default names, and files under such names that hold something else.

The first bytes tell pointers, error pages and unfinished downloads, so that every suffix is answered alike, before any
library reads the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from pathlib import Path

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.spelling import counted

__all__ = [
    "DESCRIPTIONS",
    "GENERIC_STEMS",
    "INDEX",
    "SHARD",
    "check_content",
    "check_file",
    "check_start",
    "default_names",
    "finished_name",
    "index_of",
    "is_index",
    "is_shard",
    "is_training_state",
    "printable",
    "refuse_shard",
    "settled",
    "size_of",
]

INDEX = ".index.json"
"""How the name of a shard index ends."""
SHARD = re.compile(r"(.+)[-_.]([0-9]{1,9})[-_]of[-_]([0-9]{1,9})", re.IGNORECASE)
"""The stem of one shard of several: the model's, its number and how many there are."""

# Uninformative stems; the model is named after its folder instead.
GENERIC_STEMS = frozenset({
    "model", "pytorch_model", "weights", "checkpoint", "diffusion_pytorch_model", "state_dict", "consolidated",
    "_metadata", "model_part", "pytorch_model_part", "part", "shard", "mp_rank_00_model_states", "model_optim_rng",
    ".metadata", "openvino_model",
})  # fmt: skip
# Training state saved beside the weights, with the same suffixes; and what OpenVINO makes of a tokenizer.
_TRAINER_STEMS = frozenset({
    "optimizer", "scheduler", "scaler", "training_args", "rng_state", "openvino_tokenizer", "openvino_detokenizer",
})  # fmt: skip
_TRAINER_PARTS = re.compile(r"rng_state_[0-9]+|(\w+_)?zero_pp_rank_[0-9]+_mp_rank_[0-9]+_optim_states")
_NUMBERED = re.compile(r"(consolidated)\.[0-9]{1,4}|(.*(?:part|shard))[-_.]?[0-9]{1,4}", re.IGNORECASE)
DESCRIPTIONS = (
    "config.json", "adapter_config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json",
    "args.yaml",
)  # fmt: skip
"""Files beside the weights that are read with them: see `model_files`."""

_START = 512  # bytes looked at
_POINTER = re.compile(rb"version https://(?:git-lfs|hawser)\S*\n(?:.*\n)*?size (\d{1,20})\n")
_POINTER_START = (b"version https://git-lfs", b"version https://hawser")  # its first name
_PAGE = re.compile(  # an OpenVINO model is XML, too
    rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|\?xml(?![^<]*<net\b)|error)\b", re.IGNORECASE
)
# What servers answer in plain text or JSON instead of a file.
_ANSWER = re.compile(
    rb"\s*(?:entry not found|repository not found|(?:error )?404\b|not found\b|access denied|forbidden\b|unauthorized\b"
    rb"|invalid (?:username|credentials)|access to model|\{\s*\"(?:error|message|detail)\"\s*:)",
    re.IGNORECASE,
)
_SMALL = 64 * 1024  # bytes; no answer in plain text is larger
_UNFINISHED = re.compile(r"(.+)\.(?:incomplete|part|partial|crdownload|download|opdownload|!ut|aria2)", re.IGNORECASE)


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


def check_content(path: Path, size: int) -> None:
    """Refuse a file that is no weights file by its first bytes or by a control file beside it.

    Raises ``WeightsError`` for a pointer of Git LFS, a web page or a server's answer that was saved in place of a file,
    and a file that aria2 has not finished: it has its full size at once.
    """
    if os.path.exists(f"{path}.aria2"):  # noqa: PTH110 - which is False, too, for a name that is too long
        raise WeightsError(f"{path} is an unfinished download: {path.name}.aria2 is beside it", "finish the download")
    with path.open("rb") as file:
        check_start(str(path), file.read(_START), size, path.name)


def check_start(where: str, start: bytes, size: int, name: str) -> None:
    """Refuse a file by its first bytes (512 of them), its size and its name: see `check_content`.

    ``where``: the file in messages.
    """
    if start.startswith(_POINTER_START):
        pointer = _POINTER.match(start)
        whole = f" to a file of {int(pointer[1])} bytes" if pointer else ""
        raise WeightsError(
            f"{where} is a pointer of Git LFS{whole}, not the file itself",
            f"run: git lfs pull --include {name}, in its repository",
        )
    if _PAGE.match(start):
        raise WeightsError(
            f"{where} is a web page, which a server sent in place of the file",
            "download it again from the address of the file itself; log in first if it needs that",
        )
    if size <= _SMALL and not name.lower().endswith(".json") and _ANSWER.match(start):
        said = " ".join(start[:80].decode("utf-8", "replace").split())
        raise WeightsError(
            f"{where} holds a server's answer in place of the file: {said!r}",
            "check the address, then download it again",
        )


def finished_name(path: Path) -> str | None:
    """The name that a download will have when it is finished, of an unfinished one; None for other files."""
    match = _UNFINISHED.fullmatch(path.name)
    return match[1] if match else None


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
    if ".." in absolute.parts:
        plain = Path(os.path.normpath(absolute))
        if os.path.realpath(plain) == os.path.realpath(absolute):  # which differ where a link stands before the dots
            absolute = plain
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


def is_training_state(path: Path) -> bool:
    """Whether the name is that of training state beside the weights: an optimizer, a scheduler, random states."""
    return path.stem.lower() in _TRAINER_STEMS or _TRAINER_PARTS.fullmatch(path.stem.lower()) is not None


_PACKAGE = ".mlpackage"


def default_names(paths: list[Path], folder: Path | None) -> list[str]:
    """Default model names for files: the path below ``folder`` without suffix, or the stem if ``folder`` is None.

    A file with an uninformative stem (``model``, ``pytorch_model``) is named after its parent folder. Files that would
    share a name keep their full file name. All names are printable text.
    """
    names = [_default_name(path, folder) for path in paths]
    count = Counter(names)
    return [
        printable(name if count[name] == 1 or folder is None else path.relative_to(folder).as_posix())
        or printable(path.name)
        for name, path in zip(names, paths, strict=True)
    ]


def printable(name: str) -> str:
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
    package = next((above for above in path.parents if above.suffix.lower() == _PACKAGE), None)
    if package is not None:  # of CoreML, whose model file has the same name in all of them
        inside = folder is not None and package != folder and package.is_relative_to(folder)
        return package.relative_to(folder).with_suffix("").as_posix() if folder is not None and inside else package.stem
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
