"""Torch files before torch 1.6, which hold pickles and storages one after another, and the tar archives of torch 0.1.

A legacy file has five pickles: a magic number, the protocol's version, facts of the system, the content, and the keys
of its storages in the order in which they follow; each storage is its number of elements in 8 bytes, and their bytes,
little-endian. A tar archive has three files: ``storages`` (a count, then for each a pickle of key, device and class,
and the storage; then a pickle of views), ``tensors`` (a count, then for each a pickle of key, storage and class, and
its shape, strides and offset in integers) and ``pickle``. See ``_legacy_load`` of ``torch/serialization.py``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import WeightsError
from registry.sources.files.byte_parts import InMemory
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.tar_members import tar_members
from registry.sources.formats.pickles.opcodes import BUDGET, read_pickle
from registry.sources.formats.pickles.pickle_records import Global, Span
from registry.sources.formats.pickles.stored_tensors import DAMAGED
from registry.sources.formats.pickles.torch_values import PLAIN, Storage, TorchTensor, storage_dtype, width_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONSTRUCTORS", "MAGIC", "Views", "read_legacy", "read_tar", "value_of_bytes"]

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_INNER_BUDGET = 64 * 1024  # bytes of records; a storage inside a pickle takes a few
_MAX_COUNT = 2**48
_MAX_TAR = 100_000  # storages and tensors of an archive of torch 0.1


def _is_key(value: object) -> bool:
    """Whether a key of a storage is a text or a number; of larger numbers, many could have one hash."""
    return isinstance(value, str) or (type(value) is int and abs(value) < 2**60)


def _damaged(source: ByteSource, reason: str) -> WeightsError:
    return WeightsError(f"{source.name} is a damaged torch file: {reason}", DAMAGED)


class _View(NamedTuple):
    """A storage that is a part of another, in bytes."""

    storage: Storage
    root: Storage
    start: int


class Views:
    """The storages of a file by key, of which the places in the file come later."""

    def __init__(self) -> None:
        self.storages: dict[object, Storage] = {}
        self._parts: dict[object, _View] = {}
        self._others: list[_View] = []

    def of(self, dtype: str, key: object, count: int, view: object) -> Storage:
        """The storage of a key, with so many elements of a dtype, or its part by (key, first element, elements).

        Raises ``ValueError`` where the part reaches beyond it.
        """
        size = count * width_of(dtype)
        root = self.storages.get(key)
        if root is None:
            root = self.storages[key] = Storage(dtype, size, ("storage", key))
        found = root
        if (root.dtype, root.size) != (dtype, size):
            found = Storage(dtype, min(size, root.size), root.key)
            self._others.append(_View(found, root, 0))
        if view is None:
            return found
        if not isinstance(view, tuple) or len(view) != 3 or not _is_key(view[0]):
            raise ValueError("a view of a storage has three parts")
        name, start, extent = view
        return self.part(found, name, start, extent)

    def part(self, root: Storage, name: object, start: object, extent: object) -> Storage:
        """A part of a storage, in its elements; raises ``ValueError`` where it reaches beyond."""
        if name in self._parts:
            return self._parts[name].storage
        if type(start) is not int or type(extent) is not int or start < 0 or extent < 0:
            raise ValueError("a view of a storage has no place")
        width = width_of(root.dtype)
        if (start + extent) * width > root.size:
            raise ValueError("a view reaches beyond its storage")
        made = Storage(root.dtype, extent * width, ("view", root.key, start * width))
        self._parts[name] = _View(made, root, start * width)
        return made

    def settle(self) -> None:
        """Say of the parts where they are, from the storages that they are parts of."""
        for made, root, start in (*self._others, *self._parts.values()):
            made.source, made.offset, made.big = root.source, root.offset + start, root.big


def read_legacy(
    source: ByteSource, start: int = 0, *, budget: int = BUDGET, nested: bool = False
) -> tuple[object, int]:
    """The content of a legacy file, and the position behind it.

    Raises
    ------
    WeightsError
        It is damaged, or ends early.
    UnsafeError
        The errors of `read_pickle`.
    """
    views = Views()
    tables = PLAIN if nested else CONSTRUCTORS

    def next_pickle(at: int, load: Callable[[object], object] | None = None) -> tuple[object, int]:
        return read_pickle(source, at, persistent_load=load, constructors=tables, budget=budget)

    magic, at = next_pickle(start)
    if magic != MAGIC:
        raise _damaged(source, "its magic number is another")
    version, at = next_pickle(at)
    if version != _VERSION:
        raise _damaged(source, "its version is unknown")
    _, at = next_pickle(at)
    content, at = next_pickle(at, _loader(source, views))
    keys, at = next_pickle(at)
    if not isinstance(keys, list):
        raise _damaged(source, "it has no list of storages")
    for key in keys:
        storage = views.storages.get(key) if _is_key(key) else None
        if storage is None or storage.source is not None:
            raise _damaged(source, "it names a storage that no tensor is in, or one twice")
        at = _place(source, at, storage)
    views.settle()
    return content, at


def _place(source: ByteSource, at: int, storage: Storage) -> int:
    """Say where a storage is that follows in the file; the position behind it."""
    count = int.from_bytes(source.read_at(at, 8), "little", signed=True)
    if count < 0 or count * width_of(storage.dtype) != storage.size:
        raise _damaged(source, f"a storage of {storage.size} bytes has {count} elements")
    if at + 8 + storage.size > source.size:
        raise source.ends_early(at + 8, storage.size)
    storage.source, storage.offset = source, at + 8
    return at + 8 + storage.size


def _loader(source: ByteSource, views: Views) -> Callable[[object], object]:
    def load(given: object) -> object:
        if type(given) is tuple and given and given[0] == "module" and len(given) >= 2:
            return given[1]  # a class, with its source code beside it
        if type(given) is not tuple or len(given) not in (5, 6) or given[0] != "storage":
            raise _damaged(source, "a persistent id is no storage")
        _, kind, key, _, count, *view = given
        if not _is_key(key) or type(count) is not int or not 0 <= count < _MAX_COUNT:
            raise _damaged(source, "a storage has no key or size")
        return views.of(storage_dtype(kind), key, count, view[0] if view else None)

    return load


def value_of_bytes(data: object) -> object:
    """The storage in the bytes of a legacy file within a pickle; ``NotImplemented`` for anything else."""
    if isinstance(data, Span):
        source: ByteSource = _Part(data)
    elif isinstance(data, bytes):
        source = InMemory(data, "pickle")
    else:
        return NotImplemented
    content, _ = read_legacy(source, budget=_INNER_BUDGET, nested=True)
    if isinstance(source, _Part):
        source.release()
    if not isinstance(content, Storage):
        return NotImplemented
    content.key = (id(source), content.key)  # the source lives as long as the storage does
    return content


class _Part(ByteSource):
    """The bytes of a string in a file as a source."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._held: bytes | bytearray | None = None if span.plain else span.read()
        self.size = span.length if self._held is None else len(self._held)
        self.name = span.source.name

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes from position ``start``."""
        if start < 0 or count < 0 or start + count > self.size:
            raise self.ends_early(start, count)
        if self._span.plain:
            return self._span.source.read_at(self._span.offset + start, count)
        return (self._span.read() if self._held is None else self._held)[start : start + count]

    def release(self) -> None:
        """Forget bytes that stood in a text; they are decoded again when they are read."""
        self._held = None


def read_tar(source: ByteSource) -> object:
    """The content of a tar archive of torch 0.1; raises the errors of `read_legacy`."""
    members = tar_members(source)
    missing = [name for name in ("storages", "tensors", "pickle") if name not in members]
    if missing:
        raise _damaged(source, f"the archive has no member {missing[0]}")
    views = Views()
    _read_storages(source, members["storages"], views)
    tensors = _read_tensors(source, members["tensors"], views)

    def load(given: object) -> object:
        if isinstance(given, tuple) and given:
            return given[0]
        key = int(given) if isinstance(given, str) and given.isdecimal() and len(given) < 30 else given
        found = tensors.get(key, views.storages.get(key)) if type(key) is int else None
        if found is None:
            raise _damaged(source, "a persistent id is no tensor")
        return found

    at, extent = members["pickle"]
    return read_pickle(source, at, at + extent, persistent_load=load, constructors=CONSTRUCTORS).value


def _read_storages(source: ByteSource, member: tuple[int, int], views: Views) -> None:
    at, end = member[0], member[0] + member[1]
    count, at = read_pickle(source, at, end)
    for _ in range(_counted(source, count)):
        (key, _, kind), at = _triple(source, at, end)
        size = int.from_bytes(source.read_at(at, 8), "little", signed=True)
        if not 0 <= size < _MAX_COUNT or not _is_key(key):
            raise _damaged(source, "a storage has no key or size")
        at = _place(source, at, views.of(_stored(source, kind), key, size, None))
    parts, _ = read_pickle(source, at, end)
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, tuple) or len(part) != 4 or not _is_key(part[0]) or not _is_key(part[1]):
            raise _damaged(source, "a view of a storage has four parts")
        root = views.storages.get(part[1])
        if root is None:
            raise _damaged(source, "a view is of no storage")
        try:
            made = views.part(root, part[0], part[2], part[3])
        except ValueError as error:
            raise _damaged(source, str(error)) from error
        views.storages.setdefault(part[0], made)
    views.settle()


def _counted(source: ByteSource, count: object) -> int:
    if type(count) is not int or not 0 <= count <= _MAX_TAR:
        raise _damaged(source, "it has no number of tensors")
    return count


def _stored(source: ByteSource, kind: object) -> str:
    try:
        return storage_dtype(kind)
    except ValueError as error:
        raise _damaged(source, str(error)) from error


def _triple(source: ByteSource, at: int, end: int) -> tuple[tuple[object, object, object], int]:
    value, at = read_pickle(source, at, end, constructors=CONSTRUCTORS)
    if not isinstance(value, tuple) or len(value) != 3:
        raise _damaged(source, "an entry of the archive has three parts")
    return value, at


def _read_tensors(source: ByteSource, member: tuple[int, int], views: Views) -> dict[object, TorchTensor]:
    at, end = member[0], member[0] + member[1]
    count, at = read_pickle(source, at, end)
    found: dict[object, TorchTensor] = {}
    for _ in range(_counted(source, count)):
        (key, storage, _), at = _triple(source, at, end)
        dimensions = int.from_bytes(source.read_at(at, 4), "little", signed=True)
        if not 0 <= dimensions <= 64 or not _is_key(key) or not _is_key(storage):
            raise _damaged(source, f"a tensor has {dimensions} dimensions")
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", source.read_at(at + 8, 8 * (2 * dimensions + 1)))
        at += 8 + 8 * len(numbers)
        try:
            found[key] = TorchTensor(
                views.storages.get(storage), numbers[-1], numbers[:dimensions], numbers[dimensions:-1]
            )
        except ValueError as error:
            raise _damaged(source, str(error)) from error
    return found


def _from_loaded(data: object, *_: object) -> object:
    """``torch.storage._load_from_bytes``: a torch file inside the bytes of a pickle."""
    return value_of_bytes(data)


CONSTRUCTORS: dict[Global, Callable[..., object]] = {**PLAIN, Global("torch.storage", "_load_from_bytes"): _from_loaded}
"""Functions that rebuild values of Python, NumPy and torch, by the name that a pickle calls."""
