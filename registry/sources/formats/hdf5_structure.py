"""The structure of an HDF5 file: superblock, object headers, groups, heaps and indices, read as data with bounds.

The HDF5 library itself is not used: version 2.0 does not come back from damaged files that a few thousand mutations
find. Every address is visited once in a walk, every size is held against the bytes that are left, and nothing recurses.

Source: "HDF5 File Format Specification Version 3.0" (docs.hdfgroup.org), whose names are used; the sizes of fields in
version 2 B-trees are those of ``H5B2hdr.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.errors import UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS
from registry.sources.files.byte_blocks import Blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Chunk", "Cursor", "Link", "Message", "Structure"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_MESSAGES = 100_000  # of one object
_MAX_MESSAGE = 1 << 24  # bytes
_MAX_NAME = 1000  # bytes
_MAX_NODES = 4_000_000  # of one index
_MAX_LINKS = 2 * MAX_TENSORS
_DEEPEST = 16  # levels of a version 2 B-tree
SPACE, LINK_INFO, TYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE = 1, 2, 3, 6, 7, 8, 11, 12
CONTINUED, SYMBOLS, ATTRIBUTE_INFO = 16, 17, 21
_SHARED = 2  # flag of a message that is kept elsewhere
HARD, SOFT = 0, 1


class Message(NamedTuple):
    """A message of an object header: its type, its flags, and its content."""

    kind: int
    flags: int
    data: bytes


class Link(NamedTuple):
    """A link of a group: its name, its kind (0 hard, 1 soft, others leave the file), and where a hard one leads."""

    name: bytes
    kind: int
    address: int


class Chunk(NamedTuple):
    """A stored chunk: the indices of its first element, its filters left out by bits, its position and bytes."""

    place: tuple[int, ...]
    mask: int
    offset: int
    size: int


class Cursor:
    """Little-endian numbers of some bytes, one after another. Raises ``WeightsError`` beyond their end."""

    def __init__(self, where: str, data: bytes, at: int = 0) -> None:
        self.where, self.data, self.at = where, data, at

    def number(self, width: int) -> int:
        """The next unsigned number of some bytes."""
        return int.from_bytes(self.bytes(width), "little")

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or self.at + count > len(self.data):
            raise WeightsError(f"{self.where} is damaged: a part of it ends early", "download or save it again")
        self.at += count
        return self.data[self.at - count : self.at]

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.data) - self.at


class Structure:
    """The structure of a file. Addresses are those of the file's own counting.

    Raises
    ------
    WeightsError
        The file is damaged or has no superblock.
    """

    def __init__(self, file: ByteSource) -> None:
        self.name, self._file = file.name, Blocks(file)
        self.size = file.size
        self.base = self._found()
        start = self.cursor(self.base, min(128, self.size - self.base))
        start.bytes(8)
        version = start.number(1)
        if version > 3:
            raise self.damaged(f"a superblock of version {version}")
        if version < 2:
            start.bytes(4)
            self.offsets, self.lengths = start.number(1), start.number(1)
            start.bytes(9 if version == 0 else 13)
            self._check_sizes()
            start.bytes(5 * self.offsets)  # base, free space, end, driver; name of the root
            self.root = start.number(self.offsets)
        else:
            self.offsets, self.lengths = start.number(1), start.number(1)
            start.bytes(1)
            self._check_sizes()
            start.bytes(3 * self.offsets)
            self.root = start.number(self.offsets)
        self.undefined = 2 ** (8 * self.offsets) - 1
        self._headers: dict[int, list[Message]] = {}

    def _found(self) -> int:
        at = 0
        while at + 16 <= self.size and at < 2**30:
            if bytes(self._file.read_at(at, 8)) == _SIGNATURE:
                return at
            at = at * 2 or 512
        raise self.damaged("no superblock")

    def _check_sizes(self) -> None:
        if self.offsets not in (4, 8) or self.lengths not in (4, 8):
            raise self.damaged(f"addresses of {self.offsets} and lengths of {self.lengths} bytes")

    def damaged(self, what: str) -> WeightsError:
        """The error for a file that is none."""
        return WeightsError(f"{self.name} is no whole HDF5 file: it has {what}", "download or save it again")

    def cursor(self, position: int, count: int) -> Cursor:
        """Bytes of the file."""
        return Cursor(self.name, bytes(self._file.read_at(position, count)))

    def at(self, address: int, count: int) -> Cursor:
        """Bytes at an address of the file's own counting."""
        if address == self.undefined or not 0 <= address <= self.size - self.base:
            raise self.damaged(f"an address {address} outside of it")
        return self.cursor(self.base + address, min(count, self.size - self.base - address))

    # Object headers

    def header(self, address: int) -> list[Message]:
        """The messages of an object, those that are shared by all that have a type in place of their reference."""
        if address not in self._headers:
            if len(self._headers) >= 64:
                self._headers.clear()
            self._headers[address] = self._messages(address)
        return self._headers[address]

    def _messages(self, address: int) -> list[Message]:
        start = self.at(address, 64)
        found: list[Message] = []
        if start.data[:4] == b"OHDR":
            start.bytes(4)
            if start.number(1) != 2:
                raise self.damaged("an object header of an unknown version")
            flags = start.number(1)
            start.bytes((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
            size = start.number(1 << (flags & 3))
            waiting, ordered, first = [(address + start.at, size)], bool(flags & 4), False
        else:
            if start.number(1) != 1:
                raise self.damaged("an object header of an unknown version")
            start.bytes(7)
            size = start.number(4)
            waiting, ordered, first = [(address + 16, size)], False, True
        seen: set[int] = set()
        while waiting:
            place, size = waiting.pop(0)
            if place in seen or size > _MAX_MESSAGE:
                raise self.damaged("an object header that continues in itself, or is too long")
            seen.add(place)
            block = self.at(place, size)
            if not first and len(seen) > 1:
                if block.bytes(4) != b"OCHK":
                    raise self.damaged("an object header that continues nowhere")
                block.data = block.data[:-4]
            for message in self._in_block(block, first, ordered):
                if message.kind == CONTINUED:
                    inner = Cursor(self.name, message.data)
                    waiting.append((inner.number(self.offsets), inner.number(self.lengths)))
                else:
                    found.append(message)
                if len(found) > _MAX_MESSAGES or len(waiting) > _MAX_MESSAGES:
                    raise self.damaged("an object of too many messages")
        return found

    def _in_block(self, block: Cursor, first: bool, ordered: bool) -> Iterator[Message]:
        prefix = 8 if first else 6 if ordered else 4
        while block.left >= prefix:
            kind = block.number(2 if first else 1)
            size, flags = block.number(2), block.number(1)
            block.bytes(3 if first else 2 if ordered else 0)
            if size > block.left:
                raise self.damaged("a message that ends early")
            yield Message(kind, flags, block.bytes(size))

    def message(self, address: int, kind: int) -> bytes | None:
        """The content of the first message of a kind; None if the object has none."""
        for message in self.header(address):
            if message.kind == kind:
                return self.content(message)
        return None

    def content(self, message: Message) -> bytes:
        """A message's content, or that of the committed type that it refers to."""
        if not message.flags & _SHARED:
            return message.data
        return self.committed(Cursor(self.name, message.data))

    def committed(self, reference: Cursor) -> bytes:
        """The type that an object of its own holds."""
        version, kind = reference.number(1), reference.number(1)
        if version == 1:
            reference.bytes(6)
        elif version not in (2, 3) or (version == 3 and kind != 2):
            raise self.damaged("a message in a table of shared messages, which is not read")
        address = reference.number(self.offsets)
        for message in self.header(address):
            if message.kind == TYPE and not message.flags & _SHARED:
                return message.data
        raise self.damaged("a type that refers to none")

    # Groups

    def links(self, address: int) -> Iterator[Link]:
        """The links of a group, in the order of its index. Raises ``UnsafeError`` for more than two million."""
        for count, link in enumerate(self._all_links(address)):
            if count > _MAX_LINKS:
                raise UnsafeError(f"{self.name} holds more than {_MAX_LINKS} links", "split the file")
            yield link

    def _all_links(self, address: int) -> Iterator[Link]:
        for message in self.header(address):
            if message.kind == SYMBOLS:
                table = Cursor(self.name, message.data)
                yield from self._symbols(table.number(self.offsets), table.number(self.offsets))
            elif message.kind == LINK:
                yield self._link(message.data)
            elif message.kind == LINK_INFO:
                info = Cursor(self.name, message.data)
                info.bytes(1)
                info.bytes(8 if info.number(1) & 1 else 0)
                heap, index = info.number(self.offsets), info.number(self.offsets)
                if heap != self.undefined and index != self.undefined:
                    objects = FractalHeap(self, heap)
                    for record in self.records(index, 5):
                        yield self._link(objects.object(record[4:]))

    def _link(self, data: bytes) -> Link:
        link = Cursor(self.name, data)
        if link.number(1) != 1:
            raise self.damaged("a link of an unknown version")
        flags = link.number(1)
        kind = link.number(1) if flags & 8 else HARD
        link.bytes((8 if flags & 4 else 0) + (1 if flags & 0x10 else 0))
        name = link.bytes(link.number(1 << (flags & 3)))
        return Link(name, kind, link.number(self.offsets) if kind == HARD else self.undefined)

    def _symbols(self, tree: int, heap: int) -> Iterator[Link]:
        head = self.at(heap, 8 + 2 * self.lengths + self.offsets)
        if head.bytes(4) != b"HEAP":
            raise self.damaged("a group without a heap of names")
        head.bytes(4)
        size = head.number(self.lengths)
        head.bytes(self.lengths)
        names = head.number(self.offsets)
        for node in self._leaves(tree, 0, self.lengths):
            symbols = self.at(node, 8)
            if symbols.bytes(4) != b"SNOD":
                raise self.damaged("a group without symbols")
            symbols.bytes(2)
            count = symbols.number(2)
            width = 2 * self.offsets + 24
            entries = self.at(node + 8, count * width)
            for _ in range(count):
                name, address, cached = entries.number(self.offsets), entries.number(self.offsets), entries.number(4)
                entries.bytes(20)
                if name >= size:
                    raise self.damaged("a name outside of the heap of names")
                text = self.at(names + name, min(size - name, _MAX_NAME + 1)).data
                yield Link(text.partition(b"\0")[0], SOFT if cached == 2 else HARD, address)

    def _leaves(self, tree: int, kind: int, key: int) -> Iterator[int]:
        """Addresses below the leaves of a version 1 B-tree of groups."""
        for child, _ in self.tree(tree, kind, key):
            yield child

    def tree(self, tree: int, kind: int, key: int) -> Iterator[tuple[int, bytes]]:
        """What the leaves of a version 1 B-tree lead to, each with the key before it, of ``key`` bytes."""
        seen: set[int] = set()
        waiting = [(tree, -1)]
        while waiting:
            address, level = waiting.pop()
            if address in seen or len(seen) > _MAX_NODES:
                raise self.damaged("an index that leads back into itself")
            seen.add(address)
            head = self.at(address, 8 + 2 * self.offsets)
            if head.bytes(4) != b"TREE" or head.number(1) != kind:
                raise self.damaged("no index where one belongs")
            own, count = head.number(1), head.number(2)
            if level >= 0 and own != level - 1:
                raise self.damaged("an index of wrong levels")
            entries = self.at(address + 8 + 2 * self.offsets, count * (key + self.offsets) + key)
            below = []
            for _ in range(count):
                name = entries.bytes(key)
                below.append((entries.number(self.offsets), name))
            if own:
                waiting += [(child, own) for child, _ in reversed(below)]
            else:
                yield from below

    def records(self, address: int, kind: int) -> Iterator[bytes]:
        """The records of a version 2 B-tree, in no certain order."""
        head = self.at(address, 64)
        if head.bytes(4) != b"BTHD" or head.number(1) or head.number(1) != kind:
            raise self.damaged("no index where one belongs")
        size, width, depth = head.number(4), head.number(2), head.number(2)
        head.bytes(2)
        root, count = head.number(self.offsets), head.number(2)
        if depth > _DEEPEST or not 0 < width < size <= _MAX_MESSAGE:
            raise self.damaged("an index of impossible sizes")
        if root == self.undefined:
            return
        most = [(size - 10) // width]
        total, widths = most[0], [0]
        own = _width(most[0])
        for level in range(1, depth + 1):
            pointer = self.offsets + own + widths[level - 1]
            most.append((size - 10 - pointer) // (width + pointer))
            total = (most[level] + 1) * total + most[level]
            widths.append(_width(total))
        seen: set[int] = set()
        waiting = [(root, count, depth)]
        while waiting:
            place, count, level = waiting.pop()
            if place in seen or len(seen) > _MAX_NODES or count > most[level]:
                raise self.damaged("an index that leads back into itself")
            seen.add(place)
            node = self.at(place, size)
            if node.bytes(4) != (b"BTIN" if level else b"BTLF"):
                raise self.damaged("no node of an index where one belongs")
            node.bytes(2)
            yield from [node.bytes(width) for _ in range(count)]
            for _ in range(count + 1 if level else 0):
                child, inside = node.number(self.offsets), node.number(own)
                node.bytes(widths[level - 1])
                waiting.append((child, inside, level - 1))

    # Heaps

    def global_object(self, address: int, index: int, most: int) -> bytes:
        """An object of a global heap, of at most ``most`` bytes."""
        head = self.at(address, 16)
        if head.bytes(4) != b"GCOL":
            raise self.damaged("a text outside of every heap")
        head.bytes(4)
        size = head.number(self.lengths)
        at, end = address + 8 + self.lengths, address + min(size, self.size - self.base - address)
        while at + 8 + self.lengths <= end:
            entry = self.at(at, 8 + self.lengths)
            number = entry.number(2)
            entry.bytes(6)
            length = entry.number(self.lengths)
            at += 8 + self.lengths
            if number == index:
                if length <= most and at + length > end:
                    raise self.damaged("a text that reaches beyond the file")
                if length > most:
                    raise UnsafeError(f"{self.name} has a text of {length} bytes", "save it again")
                return self.at(at, length).data
            if number == 0:
                break
            at += length + -length % 8
        raise self.damaged("a text that is not in its heap")


def _width(most: int) -> int:
    """Bytes that a number up to ``most`` takes in a version 2 B-tree."""
    return (max(1, most).bit_length() - 1) // 8 + 1


class FractalHeap:
    """A heap of links or attributes of one object."""

    def __init__(self, file: Structure, address: int) -> None:
        self.file = file
        head = file.at(address, 256)
        if head.bytes(4) != b"FRHP" or head.number(1):
            raise file.damaged("no heap where one belongs")
        head.bytes(2)
        filters = head.number(2)
        self.sums = bool(head.number(1) & 2)
        managed = head.number(4)
        head.bytes(2 * file.offsets + 10 * file.lengths)
        self.columns = head.number(2)
        self.first, largest = head.number(file.lengths), head.number(file.lengths)
        bits = head.number(2)
        head.bytes(2)
        self.root, self.rows = head.number(file.offsets), head.number(2)
        if filters:
            raise file.damaged("a heap that is packed, which is not read")
        if not (self.columns > 0 and 0 < self.first <= largest <= 2**40 and 0 < bits <= 64):
            raise file.damaged("a heap of impossible sizes")
        self.places = -(-bits // 8)
        self.widths = _width(min(largest, managed))
        self.direct = (largest // self.first).bit_length() + 1  # rows of blocks that hold objects

    def object(self, identity: bytes) -> bytes:
        """An object by its identity in the heap."""
        file = self.file
        reader = Cursor(file.name, identity)
        kind = reader.number(1) >> 4 & 3
        if kind == 2:
            return reader.bytes((identity[0] & 15) + 1)
        if kind:
            raise file.damaged("an object of a heap that is kept alone, which is not read")
        offset, size = reader.number(self.places), reader.number(self.widths)
        block, inside, rows = self.root, offset, self.rows
        for _ in range(_DEEPEST):
            if not rows:
                return file.at(block + inside, size).bytes(size)
            row, extent, start = 0, self.first, 0
            while inside - start >= extent * self.columns:
                start += extent * self.columns
                row += 1
                extent = self.first << max(0, row - 1)
                if row >= rows:
                    raise file.damaged("an object outside of its heap")
            place = row * self.columns + (inside - start) // extent
            inside = (inside - start) % extent
            at = block + 5 + file.offsets + self.places + place * file.offsets
            block = file.at(at, file.offsets).number(file.offsets)
            rows = 0
            if row >= self.direct:
                rows = (extent // (self.first * self.columns)).bit_length()
        raise file.damaged("a heap that is too deep")
