"""An interpreter of all opcodes of pickle protocols 0 to 5 that runs nothing of what a pickle names.

Python's unpicklers, and torch's, resolve names and call what they find, and recurse in what they hash and free. This
one builds records (`pickle_records`): names stay names, objects stay descriptions of themselves. A closed table of
functions of this package rebuilds what is data: ordered dictionaries, bytes, arrays, tensors.

Bounds hold before memory is used. Lengths are compared with the bytes that are left; long strings stay in the file
(`Span`); every opcode is charged with the memory that its result takes, and a pickle that would take more than the
budget is refused. Containers nested deeper than any pickler writes are refused while they are built. A container that
is filled after it was put into another may still make the whole deeper, so that nothing here or later recurses.

The opcodes are described in Python's ``pickletools``.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.files.byte_parts import InMemory
from registry.sources.files.byte_source import ByteSource
from registry.sources.formats.pickles.builtin_values import CONSTRUCTORS
from registry.sources.formats.pickles.pickle_records import AttributedDict, Buildable, Global, Instance, Key, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["BUDGET", "MAX_DEPTH", "Pickled", "load", "read_pickle"]

BUDGET = 300 * 2**20
"""Bytes of memory that the records of one pickle may take, as estimated here; a state dict takes 1 KB a tensor."""

MAX_DEPTH = 4000
"""Levels of containers; Python's own picklers give up at about a thousand."""

_MAX_MARKS = 10_000
_WINDOW = 256 * 1024  # bytes read at a time, after the first ones
_AHEAD = 16  # bytes; no fixed argument of an opcode is longer
_LONG_BYTES = 1024  # what is longer stays in the file
_LONG_TEXT = 4096
_MAX_LINE = 16 * 2**20  # of protocol 0
_MAX_DIGITS = 1024
_MAX_INTEGER = 1024  # bytes
_SAFE_KEY = 2**60  # the hash of an integer below is the integer itself
_DAMAGED = "download or save it again"


class Pickled(NamedTuple):
    """The value of a pickle, and the position behind it."""

    value: object
    end: int


def load(
    source: ByteSource | bytes | bytearray | memoryview,
    *,
    persistent_load: Callable[[object], object] | None = None,
    constructors: Mapping[Global, Callable[..., object]] | None = None,
) -> object:
    """The value of the pickle that begins a file, as records; raises the errors of `read_pickle`."""
    given = source if isinstance(source, ByteSource) else InMemory(source, "pickle")
    return read_pickle(given, persistent_load=persistent_load, constructors=constructors).value


def read_pickle(
    source: ByteSource,
    start: int = 0,
    stop: int | None = None,
    *,
    persistent_load: Callable[[object], object] | None = None,
    constructors: Mapping[Global, Callable[..., object]] | None = None,
    built: Callable[[Instance, int], tuple[object, int] | None] | None = None,
    budget: int = BUDGET,
) -> Pickled:
    """Read one pickle of several in a file.

    Parameters
    ----------
    source
        The file.
    start, stop
        Where the pickle begins, and a position that it does not reach beyond; None: the file's end.
    persistent_load
        Gives the value of a persistent id. It may raise errors of `registry.errors`.
    constructors
        Functions that rebuild values, by the name of what the pickle calls or makes; they are given its arguments, and
        return ``NotImplemented`` where they do not fit: an `Instance` is kept then. None: those of `builtin_values`.
    built
        Called after an instance got its state, with the position behind that opcode: for formats that put bytes into
        the stream. Returns the value to put in place of the instance, and the position from which to go on; or None.
    budget
        Bytes of memory that the records may take.

    Raises
    ------
    UnsafeError
        More memory than the budget, containers nested too deep, codes of ``copyreg``'s extension registry, buffers
        outside the file.
    WeightsError
        The pickle is damaged or ends early.
    """
    machine = _Machine(source, start, source.size if stop is None else min(stop, source.size), budget)
    machine.persistent_load = persistent_load
    machine.constructors = CONSTRUCTORS if constructors is None else constructors
    machine.built = built
    return Pickled(machine.run(), machine.base + machine.at)


class _Machine:
    """The state of the interpreter: a window of bytes, a stack of values, the stacks below marks, and the memo."""

    __slots__ = (
        "at", "base", "budget", "buffer", "built", "constructors", "depths", "kept", "marks", "memo", "names",
        "persistent_load", "safe", "source", "stack", "stop", "window",
    )  # fmt: skip

    def __init__(self, source: ByteSource, start: int, stop: int, budget: int) -> None:
        self.source = source
        self.base = start  # position in the file of the window's first byte
        self.stop = stop
        self.buffer: bytes | bytearray = b""
        self.at = 0
        self.safe = 0  # from here on in the window, an opcode may reach beyond it
        self.budget = budget
        self.window = _WINDOW // 64  # most pickles of a file of many are small
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.names: dict[tuple[str, str], Global] = {}
        self.depths: dict[int, int] = {}  # of containers of containers, by identity
        self.kept: list[object] = []  # those, so that no other object gets their identity
        self.persistent_load: Callable[[object], object] | None = None
        self.constructors: Mapping[Global, Callable[..., object]] = {}
        self.built: Callable[[Instance, int], tuple[object, int] | None] | None = None

    def run(self) -> object:
        try:
            return self._run()
        except RegistryError:
            raise
        except _REFUSED as error:
            reason = " ".join(str(error).split())[:120] or "a value is missing"
            raise self.damaged(reason) from error

    def _run(self) -> object:
        """The opcodes one after another; the most frequent ones of state dicts without a call."""
        table, costs, memo = _TABLE, _COSTS, self.memo
        spent = 0
        while True:
            at = self.at
            if at >= self.safe:
                self._refill()
                at = self.at
            buffer = self.buffer
            code = buffer[at]
            spent += costs[code]
            if code == _LONG_BINPUT:
                memo[int.from_bytes(buffer[at + 1 : at + 5], "little")] = self.stack[-1]
                self.at = at + 5
            elif code == _BINGET:
                self.stack.append(memo[buffer[at + 1]])
                self.at = at + 2
            elif code == _BININT1:
                self.stack.append(buffer[at + 1])
                self.at = at + 2
            elif code == _BINPUT:
                memo[buffer[at + 1]] = self.stack[-1]
                self.at = at + 2
            elif code == _MEMOIZE:
                memo[len(memo)] = self.stack[-1]
                self.at = at + 1
            else:
                self.at = at + 1
                self.budget -= spent
                spent = 0
                if self.budget < 0:
                    raise self._too_large()
                if code == _STOP:
                    return self.stack.pop()
                table[code](self)
                continue
            if spent > self.budget:
                raise self._too_large()

    # ---- bytes

    def _refill(self) -> None:
        position = self.base + self.at
        left = self.stop - position
        if left <= 0:
            raise self.damaged("it ends early")
        count = min(left, self.window)
        self.window = min(4 * self.window, _WINDOW)
        data = self.source.read_at(position, count)
        self._look_at(position, data)

    def _look_at(self, position: int, data: bytes | bytearray) -> None:
        """Make bytes from a position the window. Zeros follow the last ones: no opcode is zero."""
        last = position + len(data) >= self.stop
        self.safe = len(data) if last else max(1, len(data) - _AHEAD)
        self.buffer = bytes(data) + b"\0" * _AHEAD if last else data
        self.base = position
        self.at = 0

    def _left(self) -> int:
        return self.stop - self.base - self.at

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.buffer):
            self.base, self.at, self.safe, self.buffer = self.base + self.at, 0, 0, b""

    def _take(self, count: int) -> bytes | bytearray:
        """The next bytes; few enough to be held."""
        if count > self._left():
            raise self.damaged("it ends early")
        start = self.at
        if start + count <= len(self.buffer):
            self.at = start + count
            return self.buffer[start : self.at]
        data = self.source.read_at(self.base + start, count)
        self._skip(count)
        return data

    def _line(self, limit: int = 1000) -> bytes:
        """The bytes before the next end of line, which is skipped."""
        start = self.at
        end = self.buffer.find(b"\n", start, start + limit + 1)
        if end < 0:
            position = self.base + start
            data = self.source.read_at(position, max(0, min(limit + 1, self.stop - position)))
            end, start = data.find(b"\n"), 0
            if end < 0:
                raise self.damaged("a line does not end")
            if len(data) > _AHEAD:
                self._look_at(position, data)
            else:
                self.base, self.at, self.safe, self.buffer = position, 0, 0, data
        line = bytes(self.buffer[start:end])
        self.at = end + 1
        self.budget -= 2 * len(line)
        return line

    def _unsigned(self, width: int) -> int:
        start = self.at
        self.at = start + width
        return int.from_bytes(self.buffer[start : self.at], "little")

    # ---- errors

    def damaged(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.source.name} is a damaged pickle: {reason}", _DAMAGED)

    def _too_large(self) -> UnsafeError:
        return UnsafeError(
            f"{self.source.name} has a pickle of more objects than weights need", "save plain tensors, as safetensors"
        )

    # ---- values

    def _marked(self) -> list[object]:
        """The values above the last mark, which is removed."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def _contain(self, container: object, values: Sequence[object]) -> None:
        """Record how deep a container is, of which these values are the new ones."""
        deepest = 0
        depths = self.depths
        for value in values:
            if type(value) in _NESTED:
                depth = depths.get(id(value), 1)
                if depth > deepest:
                    deepest = depth
        if not deepest:
            return
        if deepest >= MAX_DEPTH:
            raise UnsafeError(
                f"{self.source.name} has containers nested deeper than {MAX_DEPTH} levels",
                "save plain tensors, as safetensors",
            )
        if deepest >= depths.get(id(container), 1):
            if id(container) not in depths:
                self.kept.append(container)
                self.budget -= 100
            depths[id(container)] = deepest + 1

    def _key(self, value: object) -> object:
        """What stands for a value among keys. Only flat values are hashed, and no numbers chosen to collide."""
        kind = type(value)
        if kind is str or kind is Global or kind is bytes or kind is float or kind is bool or value is None:
            return value
        if kind is int and -_SAFE_KEY < value < _SAFE_KEY:  # type: ignore[operator]
            return value
        self.budget -= 60
        return Key(value)

    def _entries(self, target: object, flat: Sequence[object]) -> None:
        """Set keys and values that follow each other in a dictionary or an object."""
        if len(flat) % 2:
            raise ValueError("a key has no value")
        if isinstance(target, dict):
            pairs = target
        elif isinstance(target, Instance):
            if target.pairs is None:
                target.pairs = {}
                self.budget -= 250
            pairs = target.pairs
        else:
            raise ValueError(f"entries are set in a {type(target).__name__}")
        self.budget -= 60 * len(flat)
        if self.budget < 0:
            raise self._too_large()
        key = self._key
        for at in range(0, len(flat), 2):
            pairs[key(flat[at])] = flat[at + 1]
        self._contain(target, flat)

    def _elements(self, target: object, values: Sequence[object]) -> None:
        """Append values to a list or an object."""
        if type(target) is list:
            target.extend(values)
        elif isinstance(target, Instance):
            if target.items is None:
                target.items = []
                self.budget -= 100
            target.items.extend(values)
        else:
            raise ValueError(f"elements are appended to a {type(target).__name__}")
        self.budget -= 9 * len(values)
        self._contain(target, values)

    def _made(self, kind: object, args: object, keywords: object = None) -> object:
        """The result of a call, rebuilt by the table or left as an instance."""
        if type(args) is not tuple and isinstance(kind, Global) and kind.module.startswith("__torch__."):
            args = (args,)  # TorchScript writes the value of an enumeration alone
        if type(args) is not tuple:
            raise ValueError(f"arguments are a {type(args).__name__}")
        if keywords is not None and not isinstance(keywords, dict):
            raise ValueError(f"named arguments are a {type(keywords).__name__}")
        if not isinstance(kind, Global | Instance):
            raise ValueError(f"a {type(kind).__name__} is called")
        if type(kind) is Global and not keywords:
            rebuild = self.constructors.get(kind)
            if rebuild is not None:
                if kind.name == _COSTLY:
                    self.budget -= 20_000
                    if self.budget < 0:
                        raise self._too_large()
                try:
                    value = rebuild(*args)
                except (TypeError, ValueError, OverflowError, AttributeError, KeyError, IndexError) as error:
                    reason = " ".join(str(error).split())[:100]
                    raise self.damaged(f"{kind} has arguments that do not fit: {reason}") from error
                if value is not NotImplemented:
                    if type(value) in _NESTED:
                        self.budget -= 100 * len(args[0]) if args and isinstance(args[0], list | tuple) else 0
                        self._contain(value, args)
                    return value
        made = Instance(kind, args, keywords or None)
        self._contain(made, (args, kind))
        return made

    def _global(self, module: object, name: object) -> Global:
        if type(module) is not str or type(name) is not str or len(module) + len(name) > 1000:
            raise ValueError("a name is no text")
        found = self.names.get((module, name))
        if found is None:
            found = Global(_MODULES.get(module, module), name)
            self.names[module, name] = found
            self.budget -= 200
        return found

    def _text(self, length: int) -> object:
        if length > self._left():
            raise self.damaged("it ends early")
        if length > _LONG_TEXT:
            value = Span(self.source, self.base + self.at, length, text=True)
            self._skip(length)
            return value
        data = self._take(length)
        self.budget -= length
        text = data.decode("utf-8", "surrogatepass")
        if not text.isascii():
            self.budget -= 4 * length
        return text

    def _bytes(self, length: int) -> object:
        if length > self._left():
            raise self.damaged("it ends early")
        if length > _LONG_BYTES:
            value = Span(self.source, self.base + self.at, length, text=False)
            self._skip(length)
            return value
        self.budget -= length
        return bytes(self._take(length))

    def _string(self, length: int) -> object:
        """A string of Python 2: text where it is UTF-8, else bytes."""
        value = self._bytes(length)
        return _decoded(value) if isinstance(value, bytes) else value

    # ---- opcodes

    def op_proto(self) -> None:
        version = self._unsigned(1)
        if version > 5:
            raise self.damaged(f"its protocol {version} is unknown")

    def op_frame(self) -> None:
        if self._unsigned(8) > self._left():
            raise self.damaged("it ends early")

    def op_mark(self) -> None:
        if len(self.marks) >= _MAX_MARKS:
            raise UnsafeError(
                f"{self.source.name} has a pickle of more than {_MAX_MARKS} open containers",
                "save plain tensors, as safetensors",
            )
        self.marks.append(self.stack)
        self.stack = []

    def op_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def op_pop_mark(self) -> None:
        self._marked()

    def op_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def op_none(self) -> None:
        self.stack.append(None)

    def op_true(self) -> None:
        self.stack.append(True)

    def op_false(self) -> None:
        self.stack.append(False)

    def op_int(self) -> None:
        line = self._line(_MAX_DIGITS)
        self.stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def op_long(self) -> None:
        line = self._line(_MAX_DIGITS)
        self.stack.append(int(line.removesuffix(b"L")))

    def op_binint(self) -> None:
        self.stack.append(_INT.unpack_from(self.buffer, self.at)[0])
        self.at += 4

    def op_binint2(self) -> None:
        self.stack.append(self._unsigned(2))

    def op_long1(self) -> None:
        self.stack.append(int.from_bytes(self._take(self._unsigned(1)), "little", signed=True))

    def op_long4(self) -> None:
        length = self._unsigned(4)
        if length > _MAX_INTEGER:
            raise UnsafeError(
                f"{self.source.name} has a pickle with an integer of {length} bytes",
                "save plain tensors, as safetensors",
            )
        self.budget -= length
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def op_float(self) -> None:
        self.stack.append(float(self._line(_MAX_DIGITS)))

    def op_binfloat(self) -> None:
        self.stack.append(_FLOAT.unpack_from(self.buffer, self.at)[0])
        self.at += 8

    def op_string(self) -> None:
        line = self._line(_MAX_LINE).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string has no quotes")
        self.budget -= 2 * len(line)
        self.stack.append(_decoded(codecs.escape_decode(line[1:-1])[0]))

    def op_binstring(self) -> None:
        self.stack.append(self._string(self._unsigned(4)))

    def op_short_binstring(self) -> None:
        self.stack.append(self._string(self._unsigned(1)))

    def op_unicode(self) -> None:
        line = self._line(_MAX_LINE)
        self.budget -= 4 * len(line)
        self.stack.append(codecs.raw_unicode_escape_decode(line)[0])

    def op_short_binunicode(self) -> None:
        self.stack.append(self._text(self._unsigned(1)))

    def op_binunicode(self) -> None:
        self.stack.append(self._text(self._unsigned(4)))

    def op_binunicode8(self) -> None:
        self.stack.append(self._text(self._unsigned(8)))

    def op_short_binbytes(self) -> None:
        self.stack.append(self._bytes(self._unsigned(1)))

    def op_binbytes(self) -> None:
        self.stack.append(self._bytes(self._unsigned(4)))

    def op_binbytes8(self) -> None:
        self.stack.append(self._bytes(self._unsigned(8)))

    def op_empty_list(self) -> None:
        self.stack.append([])

    def op_empty_dict(self) -> None:
        self.stack.append({})

    def op_empty_set(self) -> None:
        self.stack.append(set())

    def op_empty_tuple(self) -> None:
        self.stack.append(())

    def _tuple(self, values: list[object]) -> None:
        made = tuple(values)
        self.budget -= 8 * len(made)
        self._contain(made, values)
        self.stack.append(made)

    def op_tuple(self) -> None:
        self._tuple(self._marked())

    def op_tuple1(self) -> None:
        self._tuple([self.stack.pop()])

    def op_tuple2(self) -> None:
        second = self.stack.pop()
        self._tuple([self.stack.pop(), second])

    def op_tuple3(self) -> None:
        if len(self.stack) < 3:
            raise ValueError("a value is missing")
        values = self.stack[-3:]
        del self.stack[-3:]
        self._tuple(values)

    def op_list(self) -> None:
        values = self._marked()
        self.budget -= 9 * len(values)
        self._contain(values, values)
        self.stack.append(values)

    def op_dict(self) -> None:
        values = self._marked()
        made: dict[object, object] = {}
        self._entries(made, values)
        self.stack.append(made)

    def op_frozenset(self) -> None:
        values = self._marked()
        self.budget -= 70 * len(values)
        made = frozenset(map(self._key, values))
        self._contain(made, values)
        self.stack.append(made)

    def op_append(self) -> None:
        value = self.stack.pop()
        self._elements(self.stack[-1], (value,))

    def op_appends(self) -> None:
        values = self._marked()
        self._elements(self.stack[-1], values)

    def op_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._entries(self.stack[-1], (key, value))

    def op_setitems(self) -> None:
        values = self._marked()
        self._entries(self.stack[-1], values)

    def op_additems(self) -> None:
        values = self._marked()
        target = self.stack[-1]
        if type(target) is not set:
            self._elements(target, values)
            return
        self.budget -= 70 * len(values)
        target.update(map(self._key, values))
        self._contain(target, values)

    def op_get(self) -> None:
        self.stack.append(self.memo[int(self._line(20))])

    def op_long_binget(self) -> None:
        self.stack.append(self.memo[self._unsigned(4)])

    def op_put(self) -> None:
        index = int(self._line(20))
        if index < 0:
            raise ValueError("a place in the memo is negative")
        self.memo[index] = self.stack[-1]

    def op_global(self) -> None:
        module = self._line().decode("utf-8")
        self.stack.append(self._global(module, self._line().decode("utf-8")))

    def op_stack_global(self) -> None:
        name = self.stack.pop()
        self.stack.append(self._global(self.stack.pop(), name))

    def op_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], args)

    def op_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        args = self.stack.pop()
        self.stack[-1] = self._made(self.stack[-1], args, keywords)

    def op_inst(self) -> None:
        module = self._line().decode("utf-8")
        kind = self._global(module, self._line().decode("utf-8"))
        made = self._made(kind, tuple(self._marked()))
        self.stack.append(made)

    def op_obj(self) -> None:
        values = self._marked()
        made = self._made(values[0], tuple(values[1:]))
        self.stack.append(made)

    def op_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Buildable):
            raise ValueError(f"state is given to a {type(target).__name__}")
        if isinstance(target, Instance) and isinstance(target.state, dict) and isinstance(state, dict):
            self.budget -= 100 * (len(target.state) + len(state))  # the two are joined
        target.build(state)
        self._contain(target, (state,))
        if self.built is not None and isinstance(target, Instance):
            position = self.base + self.at
            found = self.built(target, position)
            if found is not None:
                value, end = found
                if not position <= end <= self.stop:
                    raise self.damaged("it ends early")
                self.stack[-1] = value
                self._skip(end - position)

    def op_persid(self) -> None:
        self._persistent(self._line().decode("utf-8"))

    def op_binpersid(self) -> None:
        self._persistent(self.stack.pop())

    def _persistent(self, given: object) -> None:
        if self.persistent_load is None:
            raise self.damaged("it refers to objects outside of it")
        self.stack.append(self.persistent_load(given))

    def op_extension(self) -> None:
        raise UnsafeError(
            f"{self.source.name} has a pickle with codes of an extension registry, which only its writer can read",
            "save plain tensors, as safetensors",
        )

    def op_buffer(self) -> None:
        raise UnsafeError(
            f"{self.source.name} has a pickle whose buffers are outside the file", "save plain tensors, as safetensors"
        )

    def op_unknown(self) -> None:
        code = self.buffer[self.at - 1]
        raise self.damaged("it ends early" if self._left() < 0 else f"it has the unknown opcode {code}")


_REFUSED = (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error)
_NESTED = frozenset({list, tuple, dict, set, frozenset, AttributedDict, Instance})
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections", "UserList": "collections"}
# A file within the pickle, of which each mention is read anew: charged so that mentions are few.
_COSTLY = "_load_from_bytes"
_INT = struct.Struct("<i")
_FLOAT = struct.Struct(">d")
_STOP, _MEMOIZE, _BININT1, _BINGET, _BINPUT, _LONG_BINPUT = b".\x94Khqr"


def _decoded(value: bytes) -> object:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


# Code, function (None: `_run` itself), bytes of memory that the result takes, its place on the stack included. From
# sys.getsizeof on 64 bits.
_OPCODES: tuple[tuple[bytes, Callable[[_Machine], None] | None, int], ...] = (
    (b"\x80", _Machine.op_proto, 0),
    (b"\x95", _Machine.op_frame, 0),
    (b"(", _Machine.op_mark, 0),
    (b"0", _Machine.op_pop, 0),
    (b"1", _Machine.op_pop_mark, 0),
    (b"2", _Machine.op_dup, 10),
    (b"N", _Machine.op_none, 10),
    (b"\x88", _Machine.op_true, 10),
    (b"\x89", _Machine.op_false, 10),
    (b"I", _Machine.op_int, 48),
    (b"L", _Machine.op_long, 48),
    (b"J", _Machine.op_binint, 42),
    (b"K", None, 10),
    (b"M", _Machine.op_binint2, 42),
    (b"\x8a", _Machine.op_long1, 64),
    (b"\x8b", _Machine.op_long4, 64),
    (b"F", _Machine.op_float, 34),
    (b"G", _Machine.op_binfloat, 34),
    (b"S", _Machine.op_string, 64),
    (b"T", _Machine.op_binstring, 72),
    (b"U", _Machine.op_short_binstring, 72),
    (b"V", _Machine.op_unicode, 72),
    (b"\x8c", _Machine.op_short_binunicode, 72),
    (b"X", _Machine.op_binunicode, 72),
    (b"\x8d", _Machine.op_binunicode8, 72),
    (b"C", _Machine.op_short_binbytes, 72),
    (b"B", _Machine.op_binbytes, 72),
    (b"\x8e", _Machine.op_binbytes8, 72),
    (b"\x96", _Machine.op_binbytes8, 72),
    (b"]", _Machine.op_empty_list, 84),
    (b"}", _Machine.op_empty_dict, 92),
    (b"\x8f", _Machine.op_empty_set, 250),
    (b")", _Machine.op_empty_tuple, 10),
    (b"t", _Machine.op_tuple, 64),
    (b"\x85", _Machine.op_tuple1, 64),
    (b"\x86", _Machine.op_tuple2, 64),
    (b"\x87", _Machine.op_tuple3, 64),
    (b"l", _Machine.op_list, 84),
    (b"d", _Machine.op_dict, 92),
    (b"\x91", _Machine.op_frozenset, 250),
    (b"a", _Machine.op_append, 40),
    (b"e", _Machine.op_appends, 40),
    (b"s", _Machine.op_setitem, 150),
    (b"u", _Machine.op_setitems, 150),
    (b"\x90", _Machine.op_additems, 0),
    (b"g", _Machine.op_get, 10),
    (b"h", None, 10),
    (b"j", _Machine.op_long_binget, 10),
    (b"p", _Machine.op_put, 100),
    (b"q", None, 20),
    (b"r", None, 120),
    (b"\x94", None, 120),
    (b"c", _Machine.op_global, 10),
    (b"\x93", _Machine.op_stack_global, 10),
    (b"R", _Machine.op_reduce, 160),
    (b"\x81", _Machine.op_reduce, 160),
    (b"\x92", _Machine.op_newobj_ex, 160),
    (b"i", _Machine.op_inst, 160),
    (b"o", _Machine.op_obj, 160),
    (b"b", _Machine.op_build, 10),
    (b"P", _Machine.op_persid, 160),
    (b"Q", _Machine.op_binpersid, 160),
    (b"\x82", _Machine.op_extension, 0),
    (b"\x83", _Machine.op_extension, 0),
    (b"\x84", _Machine.op_extension, 0),
    (b"\x97", _Machine.op_buffer, 0),
    (b"\x98", _Machine.op_buffer, 0),
)
_TABLE: list[Callable[[_Machine], None]] = [_Machine.op_unknown] * 256
_COSTS = [0] * 256
for _code, _function, _cost in _OPCODES:
    if _function is not None:
        _TABLE[_code[0]] = _function
    _COSTS[_code[0]] = _cost
