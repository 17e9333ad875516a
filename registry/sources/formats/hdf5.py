"""HDF5 files: groups, attributes and datasets, read without following anything that leads out of the file.

Groups are walked by hard links, each once. Soft links are left out; links to other files, external storage and virtual
datasets are refused. Values are read from where they lie, so that a chunk is unpacked with a bound, and only a tensor's
own bytes are fetched. `hdf5_structure` says why the HDF5 library is not used.

Sources: "HDF5 File Format Specification Version 3.0" (docs.hdfgroup.org); ``H5checksum.c`` and ``lzf_d.c`` for the
filters of checksums and of LZF.
"""

from __future__ import annotations

import math
import zlib
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.dtypes import bits_of
from registry.sources.files.byte_parts import InMemory
from registry.sources.files.byte_source import ByteSource
from registry.sources.files.lazy_tensors import LazyTensor, in_file
from registry.sources.formats import hdf5_structure as parts
from registry.sources.formats.hdf5_structure import Chunk, Cursor, FractalHeap, Structure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Hdf5", "Node", "NotNumbersError"]

_MAX_ATTRIBUTE = 64 * 2**20  # bytes; the configuration of a large model takes one MiB
_MAX_ELEMENTS = 1_000_000  # of an attribute
_MAX_NAME = 1000
_MAX_DIMENSIONS = 32
_MAX_RATIO, _HARMLESS = 100, 32 * 2**20  # allowed expansion, and bytes below which any expansion is allowed
_LARGEST = 2**48  # extent; beside one of zero it takes no bytes, but NumPy has no such array
_MAX_CHUNKS = 10_000_000
_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32000
_FILTERS = {4: "szip", 5: "nbit", 6: "scaleoffset", 32001: "blosc", 32004: "lz4", 32015: "zstd", 32026: "blosc2"}
# Bits of the exponent and of the mantissa of the floating-point types, by bytes.
_FLOATS = {(2, 5, 10): "float16", (2, 8, 7): "bfloat16", (4, 8, 23): "float32", (8, 11, 52): "float64"}
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)
_INTEGER, _FLOAT, _TEXT, _OPAQUE, _RECORD, _REFERENCE, _ENUM, _LISTS = 0, 1, 3, 5, 6, 7, 8, 9
_WHAT = {_TEXT: "text", _OPAQUE: "opaque bytes", _RECORD: "records", _REFERENCE: "references", _LISTS: "lists",
         10: "arrays in arrays", 11: "complex numbers", 4: "bit fields", 2: "times"}  # fmt: skip
_DAMAGED = "download or save it again"


class NotNumbersError(ValueError):
    """A dataset that is no tensor: text, references, records. Its message says what it is."""


class Node(NamedTuple):
    """A group or dataset: its path from the root, its address (None of a null reference), and which it is."""

    path: str
    address: int | None
    is_dataset: bool


class _Type(NamedTuple):
    """A type of elements: its class, bytes of an element, and its ``dtype`` if it is of numbers.

    ``texts``: of texts of any length, which lie in a heap.
    """

    kind: int
    size: int
    dtype: str
    big: bool
    texts: bool


class _Layout(NamedTuple):
    """Where a dataset's values are: the address, bytes, and of chunks their extents and ``order`` (its index)."""

    kind: int
    address: int
    size: int
    data: bytes
    extents: tuple[int, ...]
    order: int
    flags: int
    settings: Cursor | None


class Hdf5(ByteSource):
    """An open HDF5 file; as a `ByteSource` it is closed with a checkpoint.

    Raises
    ------
    WeightsError
        The file is damaged.
    """

    def __init__(self, file: ByteSource) -> None:
        self.name, self.size, self._file = file.name, file.size, file
        self.structure = Structure(file)
        self._claimed = 0
        self.root = Node("", self.structure.root, is_dataset=False)

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes of the file from position ``start``."""
        return self._file.read_at(start, count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def walk(self, top: Node | None = None) -> Iterator[Node]:
        """The groups and datasets below a group in the order of the file's index, by hard links, each group once.

        Raises
        ------
        UnsafeError
            A link leads to another file, or there are more than two million links.
        WeightsError
            The structure is damaged.
        """
        waiting, links = [top or self.root], count()
        seen = {each.address for each in waiting}
        while waiting:
            below = []
            for node in self.children(waiting.pop()):
                if next(links) > 2 * MAX_TENSORS:
                    raise UnsafeError(f"{self.name} holds more than {2 * MAX_TENSORS} links", "split the file")
                if node.is_dataset:
                    yield node
                elif node.address not in seen:
                    seen.add(node.address)
                    yield node
                    below.append(node)
            waiting += reversed(below)

    def children(self, group: Node) -> Iterator[Node]:
        """The groups and datasets of a group; raises the errors of `walk`."""
        for link in self.structure.links(self.place(group)):
            path = f"{group.path}/{link.name.decode('utf-8', 'replace')}".lstrip("/")
            if len(link.name) > _MAX_NAME or len(path) > 20 * _MAX_NAME:
                raise UnsafeError(f"{self.name}: the name {path[:60]!r} is too long", "rename it, then save again")
            if link.kind == parts.SOFT:
                continue
            if link.kind != parts.HARD:
                raise UnsafeError(f"{self.name}: {path[:100]!r} is a link to another file", "save it in one file")
            if (node := self._node(path, link.address)) is not None:
                yield node

    def child(self, group: Node, name: str) -> Node | None:
        """The group or dataset of a name, if a hard link in the group leads to it."""
        path = f"{group.path}/{name}".lstrip("/")
        return next((node for node in self.children(group) if node.path == path), None)

    def _node(self, path: str, address: int) -> Node | None:
        kinds = {message.kind for message in self.structure.header(address)}
        if parts.LAYOUT in kinds:
            return Node(path, address, is_dataset=True)
        is_group = kinds & {parts.SYMBOLS, parts.LINK, parts.LINK_INFO}
        return Node(path, address, is_dataset=False) if is_group else None

    def place(self, node: Node) -> int:
        """Where an object lies in the file: equal for all links and references to it."""
        if node.address is None:
            raise WeightsError(f"{self.name} follows a reference to nothing", _DAMAGED)
        return node.address

    # Attributes

    def attribute(self, node: Node, name: str) -> Any:
        """An attribute: text, a list of texts, a number or a list of numbers; None if it has none such of that name.

        Raises ``UnsafeError`` if it takes more than 64 MiB.
        """
        wanted = name.encode()
        for found, reader, kind, shape in self._attributes(node):
            if found == wanted:
                return self._value(name, reader, kind, shape)
        return None

    def _attributes(self, node: Node) -> Iterator[tuple[bytes, Cursor, _Type | None, tuple[int, ...] | None]]:
        structure = self.structure
        for message in structure.header(self.place(node)):
            if message.kind == parts.ATTRIBUTE:
                yield self._attribute(message.data)
            elif message.kind == parts.ATTRIBUTE_INFO:
                info = Cursor(self.name, message.data)
                info.bytes(1)
                info.bytes(2 if info.number(1) & 1 else 0)
                heap, index = info.number(structure.offsets), info.number(structure.offsets)
                if heap != structure.undefined and index != structure.undefined:
                    objects = FractalHeap(structure, heap)
                    for record in structure.records(index, 8):
                        yield self._attribute(objects.object(record[:8]))

    def _attribute(self, data: bytes) -> tuple[bytes, Cursor, _Type | None, tuple[int, ...] | None]:
        """An attribute's name, its values, their type, and their extents."""
        reader = Cursor(self.name, data)
        version = reader.number(1)
        if version not in (1, 2, 3):
            raise self.structure.damaged("an attribute of an unknown version")
        flags = reader.number(1) if version > 1 else reader.number(1) & 0
        sizes = [reader.number(2) for _ in range(3)]
        reader.bytes(1 if version == 3 else 0)
        pieces = []
        for size in sizes:
            pieces.append(reader.bytes(size))
            reader.bytes(-size % 8 if version == 1 else 0)
        name = pieces[0].partition(b"\0")[0]
        kind = self.structure.committed(Cursor(self.name, pieces[1])) if flags & 1 else pieces[1]
        return name, reader, self._type(kind), None if flags & 2 else self._shape(pieces[2])

    def _value(self, name: str, reader: Cursor, kind: _Type | None, shape: tuple[int, ...] | None) -> Any:
        if kind is None or shape is None:
            return None
        elements = math.prod(shape)
        if elements > _MAX_ELEMENTS:
            raise UnsafeError(f"{self.name} has an attribute {name} of {elements} elements", "save it again")
        if kind.texts:
            values: list[Any] = self._texts(reader, elements)
        elif kind.kind == _TEXT:
            values = [reader.bytes(kind.size).rstrip(b"\0 ").decode("utf-8", "replace") for _ in range(elements)]
        elif kind.dtype and kind.dtype != "bfloat16":
            values = np.frombuffer(
                reader.bytes(elements * kind.size), np.dtype(kind.dtype).newbyteorder(">" if kind.big else "<")
            ).tolist()
        else:
            return None
        return values if shape else values[0]

    def _texts(self, reader: Cursor, elements: int) -> list[str]:
        """Texts of any length. Many of them may be one, which costs memory for each."""
        found, left = [], _MAX_ATTRIBUTE
        for _ in range(elements):
            length, address, index = reader.number(4), reader.number(self.structure.offsets), reader.number(4)
            if not length or address in (0, self.structure.undefined):
                found.append("")
                continue
            data = self.structure.global_object(address, index, left)
            left -= len(data)
            found.append(data[:length].partition(b"\0")[0].decode("utf-8", "replace"))
        return found

    def texts(self, node: Node, name: str) -> list[str] | None:
        """An attribute of texts, or what its numbered pieces ``name0``, ``name1`` have together; None without it."""
        pieces: dict[bytes, list[str]] = {}
        for found, reader, kind, shape in self._attributes(node):
            if found.startswith(name.encode()):
                value = self._value(name, reader, kind, shape)
                values = value if isinstance(value, list) else [value]
                pieces[found] = [text for text in values if isinstance(text, str)]
        if name.encode() in pieces:
            return pieces[name.encode()]
        together: list[str] = []
        for number in range(len(pieces)):
            together += pieces.get(f"{name}{number}".encode(), [])
        return together if f"{name}0".encode() in pieces else None

    # Datasets

    def _message(self, node: Node, kind: int) -> bytes:
        data = self.structure.message(self.place(node), kind)
        if data is None:
            raise WeightsError(f"{self.name}: {node.path[:100]} has no shape, type or layout", _DAMAGED)
        return data

    def _shape(self, data: bytes) -> tuple[int, ...] | None:
        """Extents of a dataspace; None of one without elements."""
        reader = Cursor(self.name, data)
        version, rank, _ = reader.number(1), reader.number(1), reader.number(1)
        if version not in (1, 2) or rank > _MAX_DIMENSIONS:
            raise self.structure.damaged(f"extents of {rank} dimensions")
        if version == 2 and reader.number(1) == 2:
            return None
        reader.bytes(5 if version == 1 else 0)
        shape = tuple(reader.number(self.structure.lengths) for _ in range(rank))
        if max(shape, default=0) >= _LARGEST:
            raise self.structure.damaged(f"an extent of {max(shape)}")
        return shape

    def _type(self, data: bytes) -> _Type:
        reader = Cursor(self.name, data)
        kind = reader.number(1) & 15
        bits, size = reader.number(3), reader.number(4)
        dtype, big = "", bool(bits & 1)
        if kind == _ENUM:
            base = self._type(data[8:]) if reader.number(1) & 15 == _INTEGER else None
            dtype = "bool" if size == 1 else base.dtype if base is not None else ""
            return _Type(kind, size, dtype, base is not None and base.big, texts=False)
        if kind == _INTEGER and size in (1, 2, 4, 8):
            shift, precision = reader.number(2), reader.number(2)
            dtype = f"{'' if bits & 8 else 'u'}int{8 * size}" if (shift, precision) == (0, 8 * size) else ""
        elif kind == _FLOAT and not bits & 0x40:
            shift, precision = reader.number(2), reader.number(2)
            exponent_at, exponent, mantissa_at, mantissa = (reader.number(1) for _ in range(4))
            plain = (shift, precision, mantissa_at, exponent_at) == (0, 8 * size, 0, mantissa)
            dtype = _FLOATS.get((size, exponent, mantissa), "") if plain else ""
        return _Type(kind, size, dtype, big, texts=kind == _LISTS and bits & 15 == 1)

    def _layout(self, node: Node) -> _Layout:
        reader = Cursor(self.name, self._message(node, parts.LAYOUT))
        offsets, lengths = self.structure.offsets, self.structure.lengths
        undefined = self.structure.undefined
        version = reader.number(1)
        if version in (1, 2):
            rank, kind = reader.number(1), reader.number(1)
            reader.bytes(5)
            address = reader.number(offsets) if kind != _COMPACT else undefined
            extents = tuple(reader.number(4) for _ in range(rank))
            size = reader.number(4) if kind == _COMPACT else 0
            data = reader.bytes(size) if kind == _COMPACT else b""
            chunk = extents if kind == _CHUNKED else ()
            return _Layout(kind, address, size, data, chunk, 0, 0, None)
        if version not in (3, 4, 5):
            raise self.structure.damaged(f"a layout of version {version}")
        kind = reader.number(1)
        if kind == _COMPACT:
            size = reader.number(2)
            return _Layout(kind, undefined, size, reader.bytes(size), (), 0, 0, None)
        if kind == _CONTIGUOUS:
            return _Layout(kind, reader.number(offsets), reader.number(lengths), b"", (), 0, 0, None)
        if kind != _CHUNKED:
            return _Layout(kind, undefined, 0, b"", (), 0, 0, None)
        if version == 3:
            rank, address = reader.number(1), reader.number(offsets)
            return _Layout(kind, address, 0, b"", tuple(reader.number(4) for _ in range(rank)), 0, 0, None)
        flags, rank, width = reader.number(1), reader.number(1), reader.number(1)
        extents = tuple(reader.number(width) for _ in range(rank))
        index = reader.number(1)
        settings = Cursor(self.name, reader.data, reader.at)
        reader.bytes({1: (lengths + 4) * bool(flags & 2), 2: 0, 3: 1, 4: 5, 5: 6}.get(index, 0))
        return _Layout(kind, reader.number(offsets), 0, b"", extents, index, flags, settings)

    def tensor(self, node: Node) -> LazyTensor:
        """The values of a dataset of numbers. Nothing of them is read.

        Raises
        ------
        NotNumbersError
            It holds something else.
        UnsafeError
            Its values lie in other files, are filtered in a way that is not built in, or would unpack to more than
            a hundred times the file and 32 MiB.
        WeightsError
            It claims more than the file has.
        """
        layout = self._layout(node)
        if layout.kind == _VIRTUAL or self.structure.message(self.place(node), parts.EXTERNAL) is not None:
            raise UnsafeError(f"{self.name}: {node.path[:100]} keeps its values in other files", "save it in one")
        kind = self._type(self._message(node, parts.TYPE))
        dtype = kind.dtype
        if kind.kind == _OPAQUE and kind.size == 2 and self.attribute(node, "dtype") == "bfloat16":
            dtype = "bfloat16"
        if not dtype:
            raise NotNumbersError(_WHAT.get(kind.kind, "numbers of an unusual type"))
        shape = self._shape(self._message(node, parts.SPACE))
        if shape is None:
            raise NotNumbersError("nothing")
        size = math.prod(shape) * bits_of(dtype) // 8
        if layout.kind == _CONTIGUOUS:
            if layout.address == self.structure.undefined and size:
                raise WeightsError(f"{self.name}: {node.path[:100]} was never written", "save it again")
            offset = self.structure.base + layout.address if size else 0
            return in_file(self._file, offset, dtype, shape, big=kind.big)
        if size > max(_MAX_RATIO * self.size, _HARMLESS) - self._claimed:
            raise UnsafeError(
                f"{self.name} would unpack {self.size} bytes to {size + self._claimed}", "save it without filters"
            )
        self._claimed += size
        if layout.kind == _COMPACT:
            return in_file(InMemory(layout.data, self.name), 0, dtype, shape, big=kind.big)
        if layout.kind != _CHUNKED:
            raise self.structure.damaged("a layout of an unknown kind")
        return self._chunked(node, layout, dtype, shape, big=kind.big)

    def refers(self, node: Node) -> bool:
        """Whether a dataset holds references to objects."""
        return self._type(self._message(node, parts.TYPE)).kind == _REFERENCE

    def references(self, node: Node, most: int) -> list[Node]:
        """The objects that a dataset of object references names, in Fortran's order of MATLAB; null ones as such.

        Raises ``UnsafeError`` if there are more than ``most``.
        """
        kind, layout = self._type(self._message(node, parts.TYPE)), self._layout(node)
        shape = self._shape(self._message(node, parts.SPACE)) or ()
        total = math.prod(shape)
        if total > most or total * 8 > self.size:
            raise UnsafeError(f"{self.name}: {node.path[:100]} holds {total} references", "save it again")
        if kind.kind != _REFERENCE or kind.size != self.structure.offsets or layout.kind == _VIRTUAL:
            raise self.structure.damaged("references of an unusual kind")
        if layout.kind == _CHUNKED:
            tensor = self._chunked(node, layout, f"uint{8 * kind.size}", shape, big=False)
            data = bytes(tensor.span(0, total * kind.size))
        elif layout.kind == _COMPACT:
            data = layout.data
        elif layout.address == self.structure.undefined:
            data = bytes(total * kind.size)
        else:
            data = self.structure.at(layout.address, total * kind.size).data
        reader = Cursor(self.name, data)
        found = []
        for _ in range(total):
            address = reader.number(kind.size)
            node_there = self._node("", address) if address not in (0, self.structure.undefined) else None
            found.append(node_there or Node("", None, is_dataset=False))
        return found

    def _filters(self, node: Node) -> list[tuple[int, tuple[int, ...]]]:
        """Code and settings of each filter, in the order in which they were applied."""
        data = self.structure.message(self.place(node), parts.FILTERS)
        if data is None:
            return []
        reader = Cursor(self.name, data)
        version, number = reader.number(1), reader.number(1)
        reader.bytes(6 if version == 1 else 0)
        found = []
        for _ in range(number):
            code = reader.number(2)
            length = reader.number(2) if version == 1 or code >= 256 else 0
            reader.bytes(2)
            values = reader.number(2)
            name = reader.bytes(length + (-length % 8 if version == 1 else 0))
            settings = tuple(reader.number(4) for _ in range(values))
            reader.bytes(4 if version == 1 and values % 2 else 0)
            if code not in (_DEFLATE, _SHUFFLE, _FLETCHER, _LZF):
                said = _FILTERS.get(code) or name.partition(b"\0")[0].decode("utf-8", "replace") or "no name"
                said = "".join(sign for sign in said if sign.isprintable())[:40]
                raise UnsafeError(
                    f"{self.name}: {node.path[:100]} is packed by filter {code} ({said}), which is not read",
                    "save it without filters, or with gzip",
                )
            found.append((code, settings))
        return found

    def _chunked(self, node: Node, layout: _Layout, dtype: str, shape: tuple[int, ...], *, big: bool) -> LazyTensor:
        width = bits_of(dtype) // 8
        *extents, element = layout.extents or (0,)
        unpacked = math.prod(extents) * width
        if len(extents) != len(shape) or 0 in extents or element != width:
            raise WeightsError(f"{self.name}: {node.path[:100]} has chunks of other dimensions", _DAMAGED)
        if unpacked > max(_MAX_RATIO * self.size, _HARMLESS):
            raise UnsafeError(f"{self.name}: {node.path[:100]} has chunks of {unpacked} bytes", "save it unchunked")
        if layout.order not in (0, 1, 2, 3, 5):
            raise WeightsError(
                f"{self.name}: {node.path[:100]} has an index of chunks that is not read",
                "save it with libver='earliest'",
            )
        array = _Chunked(self, node, layout, tuple(extents), self._filters(node), dtype, shape, big)
        return LazyTensor(dtype, shape, array.span, whole=True)


class _Chunked:
    """The values of a dataset in chunks; memory in use is the dataset's and that of a chunk."""

    def __init__(
        self,
        file: Hdf5,
        node: Node,
        layout: _Layout,
        extents: tuple[int, ...],
        filters: Sequence[tuple[int, tuple[int, ...]]],
        dtype: str,
        shape: tuple[int, ...],
        big: bool,
    ) -> None:
        self.file, self.node, self.layout, self.extents, self.filters = file, node, layout, extents, filters
        self.shape, self.big = shape, big
        self.width = bits_of(dtype) // 8
        self.swapped = 0 if dtype == "bool" else self.width // (2 if dtype.startswith("complex") else 1)
        self.most = math.prod(-(-extent // chunk) for extent, chunk in zip(shape, extents, strict=True))

    def span(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the values, little-endian in C order. Chunks that are not there are zeros."""
        values = np.zeros(self.shape, f"V{self.width}")
        for chunk in self._stored():
            part = self._unpacked(chunk)
            where = tuple(
                slice(at, min(at + extent, whole))
                for at, extent, whole in zip(chunk.place, self.extents, self.shape, strict=True)
            )
            values[where] = part[tuple(slice(0, each.stop - each.start) for each in where)]
        flat = values.reshape(-1).view(np.uint8)
        if self.big and self.swapped > 1:
            flat = flat.view(f"u{self.swapped}").byteswap().view(np.uint8)
        data: memoryview = flat.data
        return data[start:stop]

    def _stored(self) -> list[Chunk]:
        """Every chunk of the dataset that is there."""
        undefined = self.file.structure.undefined
        found: dict[tuple[int, ...], Chunk] = {}
        for chunk in self._indexed() if self.layout.address != undefined and self.most else ():
            inside = all(at < whole for at, whole in zip(chunk.place, self.shape, strict=True))
            if not inside or any(at % extent for at, extent in zip(chunk.place, self.extents, strict=True)):
                raise WeightsError(f"{self.file.name}: {self.node.path[:100]} has a chunk outside itself", _DAMAGED)
            if chunk.place in found or len(found) >= min(self.most, _MAX_CHUNKS):
                raise WeightsError(f"{self.file.name}: {self.node.path[:100]} has more chunks than fit", _DAMAGED)
            if chunk.offset != undefined:
                found[chunk.place] = chunk
        return list(found.values())

    def _indexed(self) -> Iterator[Chunk]:
        """The chunks of the dataset's index."""
        structure, layout, rank = self.file.structure, self.layout, len(self.shape)
        whole = math.prod(self.extents) * self.width
        if layout.order == 0:
            for address, key in structure.tree(layout.address, 1, 8 + 8 * (rank + 1)):
                reader = Cursor(self.file.name, key)
                size, mask = reader.number(4), reader.number(4)
                yield Chunk(tuple(reader.number(8) for _ in range(rank)), mask, address, size)
        elif layout.order == 1:
            settings = Cursor(self.file.name, layout.settings.data, layout.settings.at) if layout.settings else None
            packed = settings is not None and layout.flags & 2
            size = settings.number(structure.lengths) if settings is not None and packed else whole
            mask = settings.number(4) if settings is not None and packed else 0
            yield Chunk((0,) * rank, mask, layout.address, size)
        elif layout.order == 2:
            for number in range(min(self.most, _MAX_CHUNKS)):
                yield Chunk(self._at(number), 0, layout.address + number * whole, whole)
        elif layout.order == 3:
            yield from self._fixed(whole)
        else:
            packed = bool(self.filters)
            for record in structure.records(layout.address, 11 if packed else 10):
                reader = Cursor(self.file.name, record)
                address = reader.number(structure.offsets)
                size = reader.number(len(record) - structure.offsets - 4 - 8 * rank) if packed else whole
                mask = reader.number(4) if packed else 0
                scaled = [reader.number(8) for _ in range(rank)]
                yield Chunk(tuple(a * b for a, b in zip(scaled, self.extents, strict=True)), mask, address, size)

    def _fixed(self, whole: int) -> Iterator[Chunk]:
        """The chunks of a fixed array, one behind another."""
        structure = self.file.structure
        head = structure.at(self.layout.address, 64)
        if head.bytes(4) != b"FAHD":
            raise structure.damaged("no index where one belongs")
        head.bytes(1)
        packed, width, page = head.number(1) == 1, head.number(1), head.number(1)
        number, block = head.number(structure.lengths), head.number(structure.offsets)
        if number != self.most or width < structure.offsets + 5 * packed or page > 32:
            raise structure.damaged("an index of impossible sizes")
        if block == structure.undefined:
            return
        at = block + 6 + structure.offsets
        in_page = 1 << page
        paged = number > in_page
        if paged:
            at += (math.ceil(number / in_page) + 7) // 8 + 4  # bits for pages that were written, and a checksum
        for start in range(0, number, in_page if paged else number):
            count = min(in_page, number - start) if paged else number
            entries = structure.at(at, count * width)
            at += count * width + (4 if paged else 0)
            for each in range(count):
                entry = Cursor(self.file.name, entries.bytes(width))
                address = entry.number(structure.offsets)
                size = entry.number(width - structure.offsets - 4) if packed else whole
                yield Chunk(self._at(start + each), entry.number(4) if packed else 0, address, size)

    def _at(self, number: int) -> tuple[int, ...]:
        """Where the chunk of a number begins."""
        place = []
        for extent, chunk in zip(reversed(self.shape), reversed(self.extents), strict=True):
            number, index = divmod(number, -(-extent // chunk))
            place.append(index * chunk)
        return tuple(reversed(place))

    def _unpacked(self, chunk: Chunk) -> NDArray[np.void]:
        """A chunk of the full extents."""
        used = [each for at, each in enumerate(self.filters) if not chunk.mask >> at & 1]
        whole = math.prod(self.extents) * self.width
        data: bytes | bytearray = self.file.read_at(self.file.structure.base + chunk.offset, chunk.size)
        for at in range(len(used) - 1, -1, -1):
            code, options = used[at]
            sums = 4 * sum(earlier == _FLETCHER for earlier, _ in used[:at])
            if code == _DEFLATE:
                data = self._inflated(data, whole + sums)
            elif code == _SHUFFLE:
                data = _in_order(data, options[0] if options else self.width)
            elif code == _LZF:
                data = self._expanded(data, whole + sums)
            else:
                data = self._checked(data)
        if len(data) != whole:
            raise WeightsError(
                f"{self.file.name}: a chunk of {self.node.path[:100]} has {len(data)} bytes in place of {whole}",
                _DAMAGED,
            )
        return np.frombuffer(data, f"V{self.width}").reshape(self.extents)

    def _inflated(self, data: bytes | bytearray, most: int) -> bytes:
        try:
            return zlib.decompressobj().decompress(data, most + 1)
        except zlib.error as error:
            raise WeightsError(
                f"{self.file.name}: {self.node.path[:100]} cannot be unpacked: {error}", _DAMAGED
            ) from error

    def _expanded(self, data: bytes | bytearray, most: int) -> bytearray:
        """A chunk that LZF packed: runs of bytes, and copies of what is already there."""
        found, at, end = bytearray(), 0, len(data)
        while at < end and len(found) <= most:
            control = data[at]
            at += 1
            if control < 32:
                found += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7 and at < end:
                length += data[at]
                at += 1
            if at >= end:
                break
            back = ((control & 31) << 8 | data[at]) + 1
            at += 1
            start = len(found) - back
            if start < 0:
                raise WeightsError(f"{self.file.name}: {self.node.path[:100]} cannot be unpacked", _DAMAGED)
            length += 2
            piece = found[start : start + length]
            found += (piece * (length // len(piece) + 1))[:length]
        return found

    def _checked(self, data: bytes | bytearray) -> bytes | bytearray:
        """A chunk without the checksum behind it, which is compared."""
        if len(data) < 4:
            raise WeightsError(f"{self.file.name}: a chunk of {self.node.path[:100]} has no checksum", _DAMAGED)
        inner, stored = data[:-4], int.from_bytes(data[-4:], "little")
        if _fletcher32(inner) != stored:
            raise WeightsError(f"{self.file.name} is damaged: the checksum of {self.node.path[:100]} differs", _DAMAGED)
        return inner


def _in_order(data: bytes | bytearray, width: int) -> bytes | bytearray:
    """Bytes that were sorted by their place in an element, put back. A rest of less than an element stays behind."""
    elements = len(data) // width if width > 1 else 0
    if elements < 2:
        return data
    body = np.frombuffer(data, np.uint8, elements * width).reshape(width, elements).T
    return bytearray(np.ascontiguousarray(body).tobytes() + bytes(data[elements * width :]))


def _fletcher32(data: bytes | bytearray) -> int:
    """HDF5's checksum: Fletcher's over big-endian words of 16 bits; an odd byte is the upper half of a last word."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    words = np.frombuffer(padded, ">u2")
    low = high = 0
    step = 1 << 16
    for start in range(0, len(words), step):
        part = words[start : start + step].astype(np.uint64)
        high = (high + low * len(part) + int((part * np.arange(len(part), 0, -1, dtype=np.uint64)).sum())) % 65535
        low = (low + int(part.sum())) % 65535
    return _folded(high, words) << 16 | _folded(low, words)


def _folded(total: int, words: NDArray[np.uint16]) -> int:
    """Zero and 65535 are one number modulo 65535; sums that are folded give zero only where all words are."""
    return 65535 if total == 0 and words.any() else total
