"""Files that are one model by their names, without an index: numbered shards, and parts of parallel training.

``model-00001-of-00003`` with any number of digits; ``consolidated.00`` (Llama); ``model_part-1`` and ``shard0``;
``mp_rank_00_model_states`` and what is beside it (DeepSpeed); ``model_world_size_2_rank_0`` (FSDP);
``mp_rank_00/model_optim_rng.pt`` (Megatron). Nothing is opened here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from registry.errors import SourceError, UnsafeError, WeightsError
from registry.sources.weight_files import SHARD
from registry.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["MAX_SHARDS", "FileSet", "grouped", "set_of"]

MAX_SHARDS = 800
"""Most files of one model: each is open, and a process may have 1,024 open files."""

Kind = Literal["shards", "consolidated", "parts", "deepspeed", "fsdp", "megatron"]

_CONSOLIDATED = re.compile(r"(consolidated\.)([0-9]{1,4})")
_PART = re.compile(r"((?:.*[-_.])?(?:part|shard)[-_.]?)([0-9]{1,4})", re.IGNORECASE)
_DEEPSPEED = re.compile(
    r"mp_rank_[0-9]+_model_states|(?:\w+_)?zero_pp_rank_[0-9]+_mp_rank_[0-9]+_(?:model|optim)_states"
    r"|layer_[0-9]+-model_[0-9]+-model_states"
)
# Of FSDP: its trainers name parts of every tensor so. The size of a world of one is the whole model.
_FSDP = re.compile(r"(\w+_)?world_size_([0-9]{1,6})_rank_[0-9]{1,6}|(\w+_)?rank_[0-9]{1,6}_of_([0-9]{1,6})")
_RANK = re.compile(r"mp_rank_[0-9]+(?:_[0-9]+)*")
_ALONE = re.compile(r"mp_rank_0+_model_states")  # of one process, whose file holds the whole model


class _Member(NamedTuple):
    """A file of a set: what all of them share, its number, and how its name is made from a number."""

    kind: Kind
    key: tuple[str, ...]
    number: int = 0
    total: int = 0
    before: str = ""
    digits: int = 0
    after: str = ""

    def named(self, number: int) -> str:
        return f"{self.before}{number:0{self.digits}}{self.after}"


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files that are one model, sorted by number, and the names of those that are missing."""

    kind: Kind
    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ``WeightsError`` if a file is missing, or if such parts cannot be joined."""
        first = self.files[0]
        if self.missing:
            more = f" and {len(self.missing) - 1} more are" if len(self.missing) > 1 else " is"
            whole = counted(len(self.files) + len(self.missing), "shard" if self.kind == "shards" else "part")
            raise WeightsError(
                f"{first} is one of {whole}, of which {self.missing[0]}{more} missing",
                f"download {self.missing[0]} into {first.parent}",
            )
        if self.kind == "deepspeed":
            zero = any("zero_pp_rank" in file.name for file in self.files)
            what = (
                "of DeepSpeed's ZeRO, which holds a part of every tensor"
                if zero
                else "of DeepSpeed's model parallelism"
            )
            raise WeightsError(
                f"{first} is one of {counted(len(self.files), 'file')} {what}",
                "join them with the script that DeepSpeed writes beside them: python zero_to_fp32.py . fp32/",
            )
        if self.kind == "fsdp":
            raise WeightsError(
                f"{first} is one of {counted(len(self.files), 'file')} of FSDP, which holds a part of every tensor",
                "save the whole state dict: get_model_state_dict of torch.distributed.checkpoint, with "
                "StateDictOptions(full_state_dict=True)",
            )
        if self.kind == "megatron":
            raise WeightsError(
                f"{first} is one of {counted(len(self.files), 'part')} of Megatron's model parallelism",
                "join them with Megatron's tools/checkpoint/convert.py, to tensor and pipeline sizes of 1",
            )


def _member(path: Path) -> _Member | None:
    """What set a file belongs to, by its name; None for others."""
    folder, stem, suffix = str(path.parent), path.stem, path.suffix
    key: tuple[str, ...]
    if shard := SHARD.fullmatch(stem):
        rest = stem[shard.end(2) :] + suffix
        key = ("shards", folder, shard[1], str(int(shard[3])), suffix.lower())
        return _Member("shards", key, int(shard[2]), int(shard[3]), stem[: shard.start(2)], len(shard[2]), rest)
    if part := _CONSOLIDATED.fullmatch(stem):
        key = ("consolidated", folder, suffix.lower())
        return _Member("consolidated", key, int(part[2]), 0, part[1], len(part[2]), suffix)
    if _DEEPSPEED.fullmatch(stem):
        return _Member("deepspeed", ("deepspeed", folder))
    if (rank := _FSDP.fullmatch(stem)) and int(rank[2] or rank[4]) > 1:
        return _Member("fsdp", ("fsdp", folder, rank[1] or rank[3] or ""))
    if part := _PART.fullmatch(stem):
        key = ("parts", folder, part[1].lower(), suffix.lower())
        return _Member("parts", key, int(part[2]), 0, part[1], len(part[2]), suffix)
    if _RANK.fullmatch(path.parent.name):
        return _Member("megatron", ("megatron", str(path.parent.parent), path.name))
    return None


def grouped(files: Iterable[Path]) -> list[Path]:
    """The files, of each set only the first, in the given order. A set's files need not be listed together."""
    files = list(files)
    members = [(file, _member(file)) for file in files]
    first: dict[tuple[str, ...], tuple[int, Path]] = {}
    for file, member in members:
        if member is not None:
            first[member.key] = min(first.get(member.key, (member.number, file)), (member.number, file))
    return [file for file, member in members if member is None or first[member.key][1] == file]


def set_of(path: Path) -> FileSet | None:
    """The set that a file belongs to, with what else of it is in the folder; None for a file that is a model alone.

    Raises
    ------
    UnsafeError
        It has more than 800 files.
    SourceError
        The folder cannot be listed.
    """
    member = _member(path)
    if member is None:
        return None
    beside = _beside(path, member)
    numbered = {m.number: file for file in beside if (m := _member(file)) is not None and m.key == member.key}
    if member.kind in ("deepspeed", "fsdp", "megatron"):
        found = sorted(file for file in beside if (m := _member(file)) is not None and m.key == member.key)
        alone = len(found) == 1 and (member.kind == "megatron" or _ALONE.fullmatch(path.stem) is not None)
        models = [file for file in found if "optim_states" not in file.name]
        alone = alone or (models == [path] and _ALONE.fullmatch(path.stem) is not None)
        return None if alone else FileSet(member.kind, tuple(models or found))
    if max(member.total, *numbered) > MAX_SHARDS:
        raise UnsafeError(f"{path} is one of {max(member.total, *numbered)} files", "save it in fewer files")
    if member.kind == "parts" and len(numbered) == 1 and member.number < 2:
        return None  # a name that may mean anything
    start = 0 if member.kind == "consolidated" or 0 in numbered else 1
    stop = start + member.total if member.kind == "shards" else max(numbered) + 1
    missing = tuple(member.named(number) for number in range(start, stop) if number not in numbered)
    return FileSet(member.kind, tuple(numbered[number] for number in sorted(numbered)), missing)


def _beside(path: Path, member: _Member) -> list[Path]:
    """The files that may be of one set with a file, by name alone."""
    folder = path.parent.parent if member.kind == "megatron" else path.parent
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}", "check its permissions") from error
    if member.kind != "megatron":
        return [folder / name for name in names]
    files = [folder / name / path.name for name in names if _RANK.fullmatch(name)]
    return [file for file in files if file.is_file()]
