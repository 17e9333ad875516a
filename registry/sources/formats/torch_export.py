"""Source for ``torch.export`` archives (``.pt2``): weights by the names of the state dict; nothing is loaded or run.

Three layouts, as torch wrote them:

- since 2.9, ``data/weights/NAME_weights_config.json`` says of each tensor in which entry of the archive its storage is,
  with dtype, sizes, strides and offset (``torch/_export/serde/schema.py``);
- 2.8 has the state dict as a file of ``torch.save``, ``data/weights/NAME.pt``;
- before, there are ``serialized_state_dict.pt`` (first ``.json``, of the same content) and
  ``serialized_exported_program.json``.

Constants (``data/constants``) are tensors that the code refers to, and buffers that are not in the state dict. They are
read where the state dict holds no matrix, as of a frozen module; else they are left out, as they are from the file of
the state dict.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.errors import AmbiguousError, NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import bits_of
from registry.sources.files.archive import DAMAGED
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor
from registry.sources.files.zip_members import ZipMembers
from registry.sources.formats.nested_torch_files import aliases_of, lazy_state, tensor_in, tensors_in
from registry.sources.formats.pickles.stored_tensors import strided
from registry.types import ModelFacts

if TYPE_CHECKING:
    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_CONFIG = re.compile(r"data/weights/(.{1,200})_weights_config\.json", re.DOTALL)
_SAVED = re.compile(r"data/weights/([^/]{1,200})\.pt")
_OLD = ("serialized_state_dict.pt", "serialized_state_dict.json")
_CONFIG_LIMIT = 16 * 2**20  # bytes; a tensor takes 400, and its values become 20 times as many
_PLAIN_NAME = re.compile(r"[\w.+-]{1,200}")
_PICKLED = 2**28  # bytes of one tensor's file that may have to be unpacked
_MAX_DIMENSIONS = 64
_MAX_EXTENT = 2**48
# torch._export.serde.schema.ScalarType
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
_STRIDED = 7  # schema.Layout


def open_export(ref: ModelRef) -> Checkpoint:
    """Open a ``.pt2`` archive. ``ref.key``: the name of a program, where it holds several.

    Raises the errors of `open_ref`.
    """
    source = open_bytes(ref.target)
    try:
        members = ZipMembers(source)
        names = list(members)
        programs = sorted({match[1] for name in names if (match := _CONFIG.fullmatch(name) or _SAVED.fullmatch(name))})
        if programs:
            program = _chosen(source.name, programs, ref.key)
            weights, used, aliases = _read_part(members, source.name, program, "weights")
            constants, more, other = _read_part(members, source.name, program, "constants")
        elif old := next((name for name in _OLD if name in members), ""):
            if ref.key is not None:
                raise NotFoundError(f"{source.name} has no entry {ref.key!r}", "it holds one program: leave --key out")
            weights, used, aliases = _state(members, old)
            constants, more, other = {}, set(), {}
        else:
            raise _without_weights(source.name, names)
        notes: tuple[str, ...] = ()
        if any(len(tensor.shape) > 1 for tensor in weights.values()):
            if constants:
                told = ", ".join(sorted(constants)[:4])
                notes = (f"{len(constants)} constants of the program are not in its state dict: {told}",)
        else:
            weights, used, aliases = weights | constants, used | more, aliases | other
        if not weights:
            raise _without_weights(source.name, names)
        facts = ModelFacts(aliases=aliases, notes=notes)
        return LazyCheckpoint(
            replace(ref, key=ref.key), weights, facts, files=(source,), check=lambda: members.check_sums(sorted(used))
        )
    except BaseException:
        source.close()
        raise


def _chosen(where: str, programs: list[str], key: str | None) -> str:
    if key is not None:
        if key not in programs:
            raise NotFoundError(f"{where} has no program {key[:100]!r}", f"available: {', '.join(programs[:10])}")
        return key
    if len(programs) > 1:
        raise AmbiguousError(f"{where} holds several programs: {', '.join(programs[:8])}", "choose with --key NAME")
    return programs[0]


def _without_weights(where: str, names: list[str]) -> WeightsError:
    if any(name.startswith("data/aotinductor/") for name in names):
        return WeightsError(
            f"{where} is compiled by AOTInductor for one kind of machine",
            "ingest the program that it was compiled from: torch.export.save(program, 'model.pt2')",
        )
    return WeightsError(f"{where} is a torch.export archive without weights", "save it with torch.export.save")


_Part = tuple[dict[str, LazyTensor], set[str], dict[str, str]]


def _state(members: ZipMembers, name: str) -> _Part:
    file = members.open(name, _PICKLED)
    tensors = tensors_in(file)
    return lazy_state(tensors, file), {name}, aliases_of(tensors)


def _read_part(members: ZipMembers, where: str, program: str, kind: str) -> _Part:
    """Tensors of ``data/weights`` or ``data/constants``, the entries that hold them, and names of one tensor."""
    config = f"data/{kind}/{program}_{kind}_config.json"
    saved = f"data/{kind}/{program}.pt"
    if config not in members:
        return _state(members, saved) if saved in members and members.size_of(saved) else ({}, set(), {})
    entries = _parsed(members, where, config)
    big = "byteorder" in members and members.read("byteorder", 64).strip() == b"big"
    found: dict[str, LazyTensor] = {}
    used: set[str] = set()
    first: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for name, entry in entries.items():
        meta, path = entry.get("tensor_meta"), entry.get("path_name")
        if meta is None and kind == "constants":
            continue  # an object
        if not isinstance(path, str) or not _PLAIN_NAME.fullmatch(path) or not isinstance(meta, dict):
            raise WeightsError(f"{where}: {name[:100]} has no valid place in {config[:100]}", DAMAGED)
        member = f"data/{kind}/{path}"
        used.add(member)
        if entry.get("use_pickle"):
            file = members.open(member, _PICKLED)
            found |= lazy_state({name: tensor_in(file)}, file)
            continue
        found[name], place = _tensor(members.open(member, _PICKLED), where, name, meta, big=big)
        if math.prod(found[name].shape) and first.setdefault((path, place), name) != name:
            aliases[name] = first[path, place]
    return found, used, aliases


def _parsed(members: ZipMembers, where: str, config: str) -> dict[str, dict[str, Any]]:
    try:
        read = json.loads(members.read(config, _CONFIG_LIMIT))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: {config[:100]} is not valid JSON", DAMAGED) from error
    entries = read.get("config") if isinstance(read, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise WeightsError(f"{where}: {config[:100]} describes no weights", DAMAGED)
    if len(entries) > MAX_TENSORS:
        raise UnsafeError(f"{where} holds {len(entries)} tensors, more than {MAX_TENSORS}", "split the file")
    return entries


def _tensor(source: ByteSource, where: str, name: str, meta: dict[str, Any], *, big: bool) -> tuple[LazyTensor, object]:
    """A tensor over the storage in one entry, and where in it: dtype, offset, shape and strides."""
    number = meta.get("dtype")
    dtype = _DTYPES.get(number) if isinstance(number, int) else None
    shape, strides = (_numbers(meta.get(field)) for field in ("sizes", "strides"))
    offset = _numbers([meta.get("storage_offset")])
    if dtype is None or shape is None or strides is None or offset is None or len(shape) != len(strides):
        raise WeightsError(f"{where}: tensor {name[:100]} has no valid dtype, sizes or strides", DAMAGED)
    if meta.get("layout", _STRIDED) != _STRIDED:
        raise WeightsError(f"{where}: tensor {name[:100]} is sparse", "make it dense before saving: to_dense()")
    width = bits_of(dtype) // 8
    size = math.prod(shape)
    if size * width > source.size or (size and (offset[0] + _last(shape, strides) + 1) * width > source.size):
        raise UnsafeError(
            f"{where}: tensor {name[:100]} claims more than the {source.size} bytes of its entry", DAMAGED
        )
    return strided(source, offset[0] * width, dtype, shape, strides, big=big), (dtype, offset, shape, strides)


def _last(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """The position of a tensor's last element behind its first."""
    return sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))


def _numbers(values: object) -> tuple[int, ...] | None:
    """Numbers of elements, ``{"as_int": 3}`` each; None for symbols and for anything else."""
    if not isinstance(values, list) or len(values) > _MAX_DIMENSIONS:
        return None
    found = [value.get("as_int") if isinstance(value, dict) else None for value in values]
    if not all(type(value) is int and 0 <= value < _MAX_EXTENT for value in found):
        return None
    return tuple(found)  # type: ignore[arg-type]


SOURCE = Source(name="torch_export", open=open_export, headers=True, ranges=True)
