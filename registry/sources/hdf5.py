"""HDF5 files: groups, attributes and datasets, read without following anything that leads out of the file.

The library reads the structure of a file alone, through a window on its bytes. Values are read here, from where the
library says that they lie: so a chunk is unpacked with a bound, an unknown filter loads no plug-in, and only a tensor's
own bytes are fetched. Groups are walked by hard links, each once. Soft links are left out; links to other files,
external storage and virtual datasets are refused.

Sources: "HDF5 File Format Specification Version 3.0" (docs.hdfgroup.org): filters, their order, Fletcher's checksum.
"""

from __future__ import annotations

import math
import zlib
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from registry.errors import RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.byte_blocks import Blocks
from registry.sources.byte_source import ByteSource, FileView
from registry.sources.dtypes import bits_of
from registry.sources.lazy_tensors import LazyTensor, in_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Hdf5", "Node", "NotNumbersError"]

_MAX_ATTRIBUTE = 64 * 2**20  # bytes; the configuration of a large model takes one MiB
_MAX_ELEMENTS = 1_000_000  # of an attribute
_MAX_NAME = 1000
_MAX_DIMENSIONS = 32
_MAX_RATIO, _HARMLESS = 100, 64 * 2**20  # allowed expansion, and bytes below which any expansion is allowed
_MAX_CHUNKS = 10_000_000
_DEFLATE, _SHUFFLE, _FLETCHER, _SZIP, _LZF = 1, 2, 3, 4, 32000
_READ_BY_LIBRARY = frozenset({_SZIP, _LZF})
# Sign, exponent and mantissa of the floating-point types: position and size in bits.
_FLOATS = {
    (15, 10, 5, 0, 10): "float16", (15, 7, 8, 0, 7): "bfloat16", (31, 23, 8, 0, 23): "float32",
    (63, 52, 11, 0, 52): "float64",
}  # fmt: skip
_DAMAGED = "download or save it again"
# What the library raises on damaged files, and what a reader of bytes raises through it.
_LIBRARY = (OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError, OverflowError, SystemError, zlib.error)


class NotNumbersError(ValueError):
    """A dataset that is no tensor: text, references, records. Its message says what it is."""


class Node(NamedTuple):
    """A group or dataset: its path from the root, the library's handle, and whether it is a dataset."""

    path: str
    handle: Any
    is_dataset: bool


class Hdf5(ByteSource):
    """An open HDF5 file; as a `ByteSource` it is closed with a checkpoint.

    Raises
    ------
    SourceError
        h5py is not installed.
    WeightsError
        The library cannot read the file's structure.
    """

    def __init__(self, file: ByteSource, title: str = "an HDF5 file", extra: str = "keras") -> None:
        try:
            import h5py
        except ImportError as error:
            raise SourceError(
                f"{file.name} is {title}, and h5py is not installed",
                f"pip install 'architecture-registry[{extra}]'",
            ) from error
        self._h5 = h5py
        self.name, self.size, self._file = file.name, file.size, file
        self._claimed = 0
        with self._deliberate("its structure"):
            self._opened = h5py.File(FileView(Blocks(file)), "r")
        self.root = Node("", self._opened.id, is_dataset=False)

    def read_at(self, start: int, count: int) -> bytes | bytearray:
        """Exactly ``count`` bytes of the file from position ``start``."""
        return self._file.read_at(start, count)

    def close(self) -> None:
        """Close the library's view of the file, and the file."""
        try:
            with self._deliberate("its structure"):
                self._opened.close()
        finally:
            self._file.close()

    @contextmanager
    def _deliberate(self, what: str) -> Iterator[None]:
        """Turn the library's errors on a damaged file into a ``WeightsError`` of one line."""
        try:
            yield
        except (RegistryError, NotNumbersError):
            raise
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            TypeError,
            MemoryError,
            OverflowError,
            SystemError,
        ) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, RegistryError):
                cause = cause.__context__
            reason = " ".join(str(cause or error).split())[:160]
            raise WeightsError(f"{self.name}: {what[:100]} cannot be read: {reason}", _DAMAGED) from error

    def walk(self, top: Node | None = None) -> Iterator[Node]:
        """The groups and datasets below a group in the order of the file's index, by hard links, each group once.

        Raises
        ------
        UnsafeError
            A link leads to another file, or there are more than two million links.
        WeightsError
            The structure is damaged.
        """
        waiting, seen, links = [top or self.root], set(), count()
        while waiting:
            group = waiting.pop()
            below = []
            for name in self._links(group):
                if next(links) > 2 * MAX_TENSORS:
                    raise UnsafeError(f"{self.name} holds more than {2 * MAX_TENSORS} links", "split the file")
                node = self._child(group, name)
                if node is None:
                    continue
                if node.is_dataset:
                    yield node
                    continue
                with self._deliberate(node.path):
                    info = self._h5.h5o.get_info(node.handle)
                if (place := (info.fileno, info.addr)) not in seen:
                    seen.add(place)
                    yield node
                    below.append(node)
            waiting += reversed(below)

    def children(self, group: Node) -> Iterator[Node]:
        """The groups and datasets of a group; raises the errors of `walk`."""
        for name in self._links(group):
            if (node := self._child(group, name)) is not None:
                yield node

    def refers(self, node: Node) -> bool:
        """Whether a dataset holds references to objects."""
        with self._deliberate(node.path):
            return isinstance(node.handle.get_type(), self._h5.h5t.TypeReferenceID)

    def child(self, group: Node, name: str) -> Node | None:
        """The group or dataset of a name, if a hard link in the group leads to it."""
        encoded = name.encode("utf-8", "surrogateescape")
        with self._deliberate(name):
            if "/" in name or name in (".", "") or not group.handle.links.exists(encoded):
                return None
        return self._child(group, encoded)

    def _links(self, group: Node) -> list[bytes]:
        found: list[bytes] = []

        def add(name: bytes) -> bool | None:
            found.append(name)
            return True if len(found) > 2 * MAX_TENSORS else None  # which stops it

        with self._deliberate(group.path or "its root"):
            group.handle.links.iterate(add)
        return found

    def _child(self, group: Node, name: bytes) -> Node | None:
        path = f"{group.path}/{name.decode('utf-8', 'replace')}".lstrip("/")
        if len(name) > _MAX_NAME or len(path) > 20 * _MAX_NAME:
            raise UnsafeError(f"{self.name}: the name {path[:60]!r} is too long", "rename it, then save again")
        h5l = self._h5.h5l
        with self._deliberate(path):
            kind = group.handle.links.get_info(name).type
            if kind == h5l.TYPE_SOFT:
                return None
            if kind != h5l.TYPE_HARD:
                raise UnsafeError(f"{self.name}: {path[:100]!r} is a link to another file", "save it in one file")
            handle = self._h5.h5o.open(group.handle, name)
        if isinstance(handle, self._h5.h5d.DatasetID):
            return Node(path, handle, is_dataset=True)
        return Node(path, handle, is_dataset=False) if isinstance(handle, self._h5.h5g.GroupID) else None

    def attribute(self, node: Node, name: str) -> Any:
        """An attribute: text, a list of texts, a number or an array of numbers; None if it has none such of that name.

        Raises ``UnsafeError`` if it takes more than 64 MiB.
        """
        encoded = name.encode()
        with self._deliberate(f"the attribute {name}"):
            h5a, h5t = self._h5.h5a, self._h5.h5t
            if not h5a.exists(node.handle, encoded):
                return None
            attribute = h5a.open(node.handle, encoded)
            space, kind = attribute.get_space(), attribute.get_type()
            elements = space.get_simple_extent_npoints()
            varying = isinstance(kind, h5t.TypeStringID) and kind.is_variable_str()
            # Texts of any length lie elsewhere in the file, and many elements may be one of them.
            most = max(1, elements) * (min(self.size, _MAX_ATTRIBUTE) if varying else kind.get_size())
            if elements > _MAX_ELEMENTS or most > 4 * _MAX_ATTRIBUTE:
                raise UnsafeError(f"{self.name} has an attribute {name} of up to {most} bytes", "save it again")
            if not isinstance(kind, h5t.TypeStringID | h5t.TypeIntegerID | h5t.TypeFloatID) or elements < 1:
                return None
            return _plain(self._value(node, name))

    def _value(self, node: Node, name: str) -> Any:
        return self._h5.AttributeManager(_Holder(node.handle))[name]

    def texts(self, node: Node, name: str) -> list[str] | None:
        """An attribute of texts, or what its numbered pieces ``name0``, ``name1`` have together; None without it."""
        value = self.attribute(node, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            return [text for text in values if isinstance(text, str)]
        found: list[str] = []
        for number in range(_MAX_ELEMENTS):
            piece = self.attribute(node, f"{name}{number}")
            if piece is None:
                return found if number else None
            found += [text for text in (piece if isinstance(piece, list) else [piece]) if isinstance(text, str)]
        return found

    def tensor(self, node: Node) -> LazyTensor:
        """The values of a dataset of numbers. Nothing of them is read.

        Raises
        ------
        NotNumbersError
            It holds something else.
        UnsafeError
            Its values lie in other files, are filtered in a way that is not built in, or would unpack to more than
            a hundred times the file and 64 MiB.
        WeightsError
            It claims more than the file has.
        """
        h5 = self._h5
        with self._deliberate(node.path):
            settings = node.handle.get_create_plist()
            layout = settings.get_layout()
            # Before its extents are asked for, which opens the sources of a virtual dataset.
            if layout == h5.h5d.VIRTUAL or (layout == h5.h5d.CONTIGUOUS and settings.get_external_count()):
                raise UnsafeError(f"{self.name}: {node.path[:100]} keeps its values in other files", "save it in one")
            dtype, big = self._dtype(node)
            space = node.handle.get_space()
            if space.get_simple_extent_type() == h5.h5s.NULL:
                raise NotNumbersError("nothing")
            shape = tuple(int(extent) for extent in space.get_simple_extent_dims())
            if len(shape) > _MAX_DIMENSIONS:
                raise UnsafeError(f"{self.name}: {node.path[:100]} has {len(shape)} dimensions", "reshape it")
            size = math.prod(shape) * bits_of(dtype) // 8
            if layout == h5.h5d.CONTIGUOUS:
                offset = node.handle.get_offset()
                if offset is None and size:
                    raise WeightsError(f"{self.name}: {node.path[:100]} was never written", "save it again")
                return in_file(self._file, offset or 0, dtype, shape, big=big)
            if size > max(_MAX_RATIO * self.size, _HARMLESS) - self._claimed:
                raise UnsafeError(
                    f"{self.name} would unpack {self.size} bytes to {size + self._claimed}", "save it without filters"
                )
            self._claimed += size
            if layout == h5.h5d.COMPACT:
                if size > 2**16:
                    raise WeightsError(f"{self.name}: {node.path[:100]} claims {size} bytes of a header", _DAMAGED)
                return in_file(_Bytes(self.name, self._compact(node, size)), 0, dtype, shape, big=big)
            return self._chunked(node, settings, dtype, shape, big=big)

    def _dtype(self, node: Node) -> tuple[str, bool]:
        """Torch's name of a dataset's type, and whether it is big-endian."""
        h5t = self._h5.h5t
        kind = node.handle.get_type()
        size = kind.get_size()
        if isinstance(kind, h5t.TypeEnumID):
            kind = kind.get_super()
            if size == 1:
                return "bool", False
        if isinstance(kind, h5t.TypeFloatID):
            if (dtype := _FLOATS.get(kind.get_fields())) and 8 * size == bits_of(dtype):
                return dtype, kind.get_order() == h5t.ORDER_BE
        elif isinstance(kind, h5t.TypeIntegerID):
            if size in (1, 2, 4, 8) and kind.get_precision() == 8 * size:
                sign = "" if kind.get_sign() == h5t.SGN_2 else "u"
                return f"{sign}int{8 * size}", kind.get_order() == h5t.ORDER_BE
        elif isinstance(kind, h5t.TypeOpaqueID) and size == 2 and self.attribute(node, "dtype") == "bfloat16":
            return "bfloat16", False
        elif isinstance(kind, h5t.TypeCompoundID) and kind.get_nmembers() == 2 and size in (8, 16):
            parts = [kind.get_member_type(at) for at in range(2)]
            if all(isinstance(part, h5t.TypeFloatID) and part.get_size() == size // 2 for part in parts):
                return f"complex{8 * size}", parts[0].get_order() == h5t.ORDER_BE
        for known, what in (
            (h5t.TypeStringID, "text"), (h5t.TypeReferenceID, "references"), (h5t.TypeCompoundID, "records"),
            (h5t.TypeVlenID, "lists"), (h5t.TypeArrayID, "arrays in arrays"), (h5t.TypeOpaqueID, "opaque bytes"),
        ):  # fmt: skip
            if isinstance(kind, known):
                raise NotNumbersError(what)
        raise NotNumbersError("numbers of an unusual type")

    def _compact(self, node: Node, size: int) -> bytes:
        """The bytes of a dataset that lie in its header."""
        data = np.zeros(size, np.uint8)
        if size:
            kind = node.handle.get_type()
            raw = self._h5.h5s.ALL
            node.handle.read(raw, raw, data.view(f"V{kind.get_size()}"), kind)
        return data.tobytes()

    def references(self, node: Node, most: int) -> list[Node]:
        """The objects that a dataset of object references names, in Fortran's order of MATLAB, without null ones.

        Raises ``UnsafeError`` if there are more than ``most``.
        """
        h5 = self._h5
        with self._deliberate(node.path):
            settings = node.handle.get_create_plist()
            if settings.get_layout() == h5.h5d.VIRTUAL or settings.get_external_count() or settings.get_nfilters():
                raise UnsafeError(f"{self.name}: {node.path[:100]} keeps references in an unusual way", "save it again")
            shape = node.handle.get_space().get_simple_extent_dims()
            total = math.prod(shape)
            if total > most or total * 8 > self.size:
                raise UnsafeError(f"{self.name}: {node.path[:100]} holds {total} references", "save it again")
            found = []
            for reference in np.asarray(h5.Dataset(node.handle)[()]).reshape(-1):
                handle = h5.h5r.dereference(reference, self._opened.id) if reference else None
                if isinstance(handle, h5.h5d.DatasetID | h5.h5g.GroupID):
                    is_dataset = isinstance(handle, h5.h5d.DatasetID)
                    found.append(Node("", handle, is_dataset=is_dataset))
                else:
                    found.append(Node("", None, is_dataset=False))
            return found

    def place(self, node: Node) -> int:
        """Where an object lies in the file: equal for all links and references to it."""
        with self._deliberate(node.path):
            return int(self._h5.h5o.get_info(node.handle).addr)

    def _chunked(self, node: Node, settings: Any, dtype: str, shape: tuple[int, ...], *, big: bool) -> LazyTensor:
        width = bits_of(dtype) // 8
        extents = tuple(settings.get_chunk())
        filters = [settings.get_filter(at) for at in range(settings.get_nfilters())]
        for code, _, _, name in filters:
            if code not in (_DEFLATE, _SHUFFLE, _FLETCHER, *_READ_BY_LIBRARY):
                said = name.decode("utf-8", "replace").strip() or "no name"
                raise UnsafeError(
                    f"{self.name}: {node.path[:100]} is packed by filter {code} ({said[:40]}), which is not built in",
                    "save it without filters, or with gzip",
                )
        unpacked = math.prod(extents) * width
        if len(extents) != len(shape) or 0 in extents or unpacked > max(_MAX_RATIO * self.size, _HARMLESS):
            raise UnsafeError(
                f"{self.name}: {node.path[:100]} has chunks of {unpacked} bytes", "save it without chunks"
            )
        if any(code == _LZF and options[2:3] and options[2] > unpacked for code, _, options, _ in filters):
            raise UnsafeError(f"{self.name}: {node.path[:100]} claims chunks larger than they are", _DAMAGED)
        array = _Chunked(self, node, extents, [(code, options) for code, _, options, _ in filters], dtype, shape, big)
        return LazyTensor(dtype, shape, array.span, whole=True)


class _Holder(NamedTuple):
    """What the library's reader of attributes asks of an object."""

    id: Any


class _Bytes(ByteSource):
    """Bytes in memory."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.size, self._data = name, len(data), data

    def read_at(self, start: int, count: int) -> bytes:
        """Exactly ``count`` bytes from position ``start``."""
        return self._data[start : start + count]


class _Chunked:
    """The values of a dataset in chunks; memory in use is the dataset's and that of a chunk."""

    def __init__(
        self,
        file: Hdf5,
        node: Node,
        extents: tuple[int, ...],
        filters: Sequence[tuple[int, tuple[int, ...]]],
        dtype: str,
        shape: tuple[int, ...],
        big: bool,
    ) -> None:
        self.file, self.node, self.extents, self.filters = file, node, extents, filters
        self.shape, self.big = shape, big
        self.width = bits_of(dtype) // 8
        self.swapped = 0 if dtype == "bool" else self.width // (2 if dtype.startswith("complex") else 1)
        self.most = math.prod(-(-extent // chunk) for extent, chunk in zip(shape, extents, strict=True))

    def span(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the values, little-endian in C order. Chunks that are not there are zeros."""
        values = np.zeros(self.shape, f"V{self.width}")
        with self.file._deliberate(self.node.path):  # noqa: SLF001 - of one module
            for place, mask, offset, size in self._stored():
                part = self._unpacked(place, mask, offset, size)
                where = tuple(
                    slice(at, min(at + extent, whole))
                    for at, extent, whole in zip(place, self.extents, self.shape, strict=True)
                )
                values[where] = part[tuple(slice(0, each.stop - each.start) for each in where)]
        flat = values.reshape(-1).view(np.uint8)
        if self.big and self.swapped > 1:
            flat = flat.view(f"u{self.swapped}").byteswap().view(np.uint8)
        data: memoryview = flat.data
        return data[start:stop]

    def _stored(self) -> list[tuple[tuple[int, ...], int, int, int]]:
        """Place, mask of filters, offset and stored size of every chunk."""
        found: list[tuple[tuple[int, ...], int, int, int]] = []

        def add(info: Any) -> bool | None:
            found.append((tuple(info.chunk_offset), info.filter_mask, info.byte_offset, info.size))
            return True if len(found) > min(self.most, _MAX_CHUNKS) else None  # which stops it

        self.node.handle.chunk_iter(add)
        if len(found) > self.most or len({place for place, *_ in found}) < len(found):
            raise WeightsError(f"{self.file.name}: {self.node.path[:100]} has more chunks than its extents", _DAMAGED)
        for place, *_ in found:
            inside = all(at < whole for at, whole in zip(place, self.shape, strict=True))
            if not inside or any(at % extent for at, extent in zip(place, self.extents, strict=True)):
                raise WeightsError(f"{self.file.name}: {self.node.path[:100]} has a chunk outside itself", _DAMAGED)
        return found

    def _unpacked(self, place: tuple[int, ...], mask: int, offset: int, size: int) -> NDArray[np.void]:
        """A chunk of the full extents."""
        used = [(code, options) for at, (code, options) in enumerate(self.filters) if not mask >> at & 1]
        if any(code in _READ_BY_LIBRARY for code, _ in used):
            return self._by_library(place)
        whole = math.prod(self.extents) * self.width
        data: bytes | bytearray = self.file.read_at(offset, size)
        for at in range(len(used) - 1, -1, -1):
            code, options = used[at]
            if code == _DEFLATE:
                sums = 4 * sum(earlier == _FLETCHER for earlier, _ in used[:at])
                data = zlib.decompressobj().decompress(data, whole + sums + 1)
            elif code == _SHUFFLE:
                data = _in_order(data, options[0] if options else self.width)
            else:
                data = self._checked(data)
        if len(data) != whole:
            raise WeightsError(
                f"{self.file.name}: a chunk of {self.node.path[:100]} has {len(data)} bytes in place of {whole}",
                _DAMAGED,
            )
        return np.frombuffer(data, f"V{self.width}").reshape(self.extents)

    def _by_library(self, place: tuple[int, ...]) -> NDArray[np.void]:
        ends = zip(place, self.extents, self.shape, strict=True)
        where = tuple(slice(at, min(at + extent, whole)) for at, extent, whole in ends)
        read = np.ascontiguousarray(self.file._h5.Dataset(self.node.handle)[where])  # noqa: SLF001 - of one module
        part = np.zeros(self.extents, f"V{self.width}")
        part[tuple(slice(0, extent) for extent in read.shape)] = read.view(f"V{self.width}").reshape(read.shape)
        return part

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


def _plain(value: Any) -> Any:
    """Texts as str, arrays of texts as lists of them; numbers as they are."""
    if isinstance(value, bytes | np.bytes_):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [_plain(each) for each in value.reshape(-1).tolist()]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, str) else value
