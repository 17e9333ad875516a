"""What a pickle holds, as plain records: names not resolved, objects not made, bytes left in the file.

No operation on these records follows what they contain: they are compared and hashed by identity, and shown by their
class alone. A pickle may nest its containers as deep as it has bytes, and may refer to one container from many places,
so that whoever walks through them does it without recursion, and by identity (`walked`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.sources.files.byte_source import ByteSource

__all__ = ["AttributedDict", "Buildable", "Global", "Instance", "Key", "Span", "as_mapping", "as_sequence", "walked"]


_FEW = 100  # attributes that are copied


class Global(NamedTuple):
    """The name of a class or function; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class Key:
    """A key of a dictionary, or an element of a set, that is known by its identity: a tuple, a record, a large number.

    The hash of a tuple follows what it contains; that of a large number can be chosen so that all keys collide.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Buildable:
    """A record that takes the state of its object: what the opcode BUILD is for."""

    __slots__ = ()

    def build(self, state: object) -> None:
        """Take the state. Raises ``ValueError`` for a state that the object cannot have."""
        raise NotImplementedError


class Instance(Buildable):
    """An object of a class, or the result of a function, that is not made.

    ``kind``: the class or function, mostly a `Global`. ``args``: its arguments. ``state``: what the object's
    ``__setstate__`` would get, mostly a dictionary of its attributes; None without one. ``items`` and ``pairs``: what
    was appended to it, and what was set in it by key, for classes that derive from lists and dictionaries.
    """

    __slots__ = ("args", "items", "keywords", "kind", "pairs", "state")

    def __init__(
        self, kind: object, args: Sequence[object] = (), keywords: Mapping[object, object] | None = None
    ) -> None:
        self.kind = kind
        self.args = args
        self.keywords = keywords
        self.state: object = None
        self.items: list[object] | None = None
        self.pairs: dict[object, object] | None = None

    def build(self, state: object) -> None:
        """Take the state; a second one replaces entries of the first."""
        if isinstance(self.state, dict) and isinstance(state, dict):
            state = {**self.state, **state}
        self.state = state

    @property
    def class_name(self) -> str:
        """The name of the class with its module; ``object`` where the kind is no name."""
        return str(self.kind) if isinstance(self.kind, Global) else "object"

    @property
    def attributes(self) -> Mapping[object, object]:
        """The attributes that the state gives; those in slots are in a second dictionary of it.

        The dictionary is that of the pickle itself. Where there are two, and many entries, it is the first that has
        any: many objects may share them.
        """
        state = self.state
        if type(state) is tuple and len(state) == 2:
            plain, slots = (part if isinstance(part, dict) else {} for part in state)
            few = plain and slots and len(plain) + len(slots) <= _FEW
            return {**plain, **slots} if few else plain or slots
        return state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        return f"<{self.class_name}>"


class AttributedDict(dict[object, object], Buildable):
    """An ``OrderedDict``, which may have attributes: a state dict's ``_metadata``."""

    __slots__ = ("state",)
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def build(self, state: object) -> None:
        """Take the attributes."""
        self.state = state

    def __repr__(self) -> str:
        return f"<OrderedDict of {len(self)}>"


class Span:
    """A long string of bytes, or a long text, that stays in the file until it is read.

    ``text``: it is UTF-8. ``latin``: it stands for the bytes of its characters, as Python 3 writes bytes in protocols 0
    to 2.
    """

    __slots__ = ("latin", "length", "offset", "source", "text")

    def __init__(self, source: ByteSource, offset: int, length: int, *, text: bool, latin: bool = False) -> None:
        self.source = source
        self.offset = offset
        self.length = length
        self.text = text
        self.latin = latin

    @property
    def plain(self) -> bool:
        """Whether the bytes lie in the file as they are."""
        return not self.latin

    def read(self) -> bytes | bytearray:
        """The bytes. Raises ``WeightsError`` where characters stand for no bytes, or the file has become shorter."""
        data = self.source.read_at(self.offset, self.length)
        try:
            return data.decode("utf-8").encode("latin-1") if self.latin else data
        except UnicodeError as error:
            raise WeightsError(
                f"{self.source.name} is a damaged pickle: a text stands for no bytes", "download or save it again"
            ) from error

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"<{self.length} bytes>"


def as_mapping(value: object) -> Mapping[object, object] | None:
    """The entries of a dictionary, or of an object of a class that derives from one; None for any other value."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Instance) and value.pairs is not None:
        return value.pairs
    return None


def as_sequence(value: object) -> Sequence[object] | None:
    """The elements of a list or tuple, or of an object that derives from a list; None for any other value."""
    if type(value) is list or type(value) is tuple:
        return value
    if isinstance(value, Instance) and value.items is not None:
        return value.items
    return None


def _inner(value: object) -> Iterator[object]:
    """What a record contains directly: values of dictionaries, elements, arguments and state of objects."""
    kind = type(value)
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        yield from value  # type: ignore[misc]
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, Instance):
        yield from value.args
        yield value.state
        yield from value.items or ()
        yield from (value.pairs or {}).values()


def walked(value: object, limit: int = 10_000_000) -> Iterator[object]:
    """Each container and object once, from the outermost; at most ``limit`` of them. Follows what they hold as found.

    Neither depth nor circles nor repeated references matter. Values that contain nothing are given as often as found.
    """
    seen: set[int] = set()
    waiting: list[object] = [value]
    while waiting and limit:
        at = waiting.pop()
        if isinstance(at, _NESTED):
            if id(at) in seen:
                continue
            seen.add(id(at))
            waiting.extend(reversed(tuple(_inner(at))))
        yield at
        limit -= 1


_NESTED = (list, tuple, dict, set, frozenset, Instance)
