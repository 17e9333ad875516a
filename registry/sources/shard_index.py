"""Shard indices: the JSON files that map each tensor of a sharded checkpoint to its shard.

``model.safetensors.index.json`` and ``pytorch_model.bin.index.json``, as transformers and diffusers write them.
"""

from __future__ import annotations

import json
from pathlib import Path

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.files.byte_source import open_bytes
from registry.sources.shard_sets import MAX_SHARDS, grouped
from registry.sources.weight_files import INDEX, SHARD, is_index
from registry.spelling import counted

__all__ = ["MAX_BYTES", "read_index", "shards_of", "whole_models"]

MAX_BYTES = 64 * 2**20
"""Largest size of an index in bytes; enough for the names of a million tensors."""

_LONGEST = 255  # bytes of a file's name, in any file system of today
_REMEDY = "download the index again, with all its shards"


def read_index(path: Path) -> dict[str, Path]:
    """Path of the shard by tensor name. The shards are not opened; all are in the folder of the index.

    Raises
    ------
    WeightsError
        The file is not JSON, or does not map tensors to files.
    UnsafeError
        A shard is outside the folder or has another suffix, or there are more than a million tensors, 800 shards or 64
        MiB.
    """
    with open_bytes(path) as file:
        if file.size > MAX_BYTES:
            raise UnsafeError(f"{path} is an index of {file.size / 2**20:.0f} MiB", "use the model's own index")
        text = file.read_at(0, file.size)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not a valid shard index: {' '.join(str(error).split())[:160]}", _REMEDY
        ) from error
    tensors = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(file, str) for file in tensors.values()):
        raise WeightsError(f"{path} has no weight_map from tensors to files", _REMEDY)
    names = sorted(set(tensors.values()))
    if len(tensors) > MAX_TENSORS or len(names) > MAX_SHARDS:
        raise UnsafeError(
            f"{path} claims {len(tensors)} tensors in {counted(len(names), 'file')}", "save it in fewer files"
        )
    suffix = Path(path.name[: -len(INDEX)]).suffix.lower()
    for name in names:
        if not _is_plain(name) or not name.lower().endswith(suffix):
            raise UnsafeError(f"{path} names the shard {name[:100]!r}, which is not a {suffix} file beside it", _REMEDY)
    return {tensor: path.parent / file for tensor, file in tensors.items()}


def _is_plain(name: str) -> bool:
    """Whether the text can only be the name of a file in the same folder."""
    plain = Path(name).name == name and "\\" not in name and name.isprintable()
    return plain and len(name.encode()) <= _LONGEST


def shards_of(index: Path) -> list[Path]:
    """The files that an index names; for an invalid index, the files whose names match its shards."""
    try:
        return sorted(set(read_index(index).values()))
    except RegistryError:  # the error is reported when the index is opened; its shards are not models in any case
        stem = Path(index.name[: -len(INDEX)]).stem
        return [p for p in index.parent.iterdir() if (match := SHARD.fullmatch(p.stem)) and match[1] == stem]


def whole_models(files: list[Path]) -> list[Path]:
    """Those files that are models, in the given order; an index or the first shard stands for all shards."""
    shards = {shard for file in files if is_index(file) for shard in shards_of(file)}
    return grouped(file for file in files if file not in shards)
