"""Values of Python's own classes, rebuilt from the arguments that a pickle gives: containers, bytes and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.sources.formats.pickles.pickle_records import AttributedDict, Global, Instance, Span

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CONSTRUCTORS"]


def _ordered(*args: object) -> object:
    """``OrderedDict()``, or of pairs, as Python 2 writes it."""
    made = AttributedDict()
    if args:
        if len(args) > 1 or type(args[0]) is not list:
            return NotImplemented
        for pair in args[0]:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) is not str:
                return NotImplemented
            made[pair[0]] = pair[1]
    return made


def _dictionary(*args: object) -> object:
    return NotImplemented if args else {}


def _default(*_: object) -> object:
    """A ``defaultdict`` of any factory."""
    return AttributedDict()


def _list(*args: object) -> object:
    return list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else NotImplemented if args else []


def _tuple(*args: object) -> object:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else NotImplemented if args else ()


def _collection(*args: object) -> object:
    """A set or frozenset, as a list: its elements may be nested to any depth and are not hashed here."""
    return list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else NotImplemented if args else []


def _encoded(text: object, encoding: object = "latin1", *_: object) -> object:
    """Bytes, as Python 3 writes them in protocols 0 to 2: ``_codecs.encode(text, 'latin1')``."""
    if encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        return NotImplemented
    if isinstance(text, Span) and text.text:
        return Span(text.source, text.offset, text.length, text=False, latin=encoding in ("latin1", "latin-1"))
    return text.encode(str(encoding)) if isinstance(text, str) else NotImplemented


def _bytes(*args: object) -> object:
    """``bytes()``, which Python 3 writes for empty ones, and ``bytearray`` of bytes or of a text and its encoding."""
    if not args:
        return b""
    if len(args) == 1 and isinstance(args[0], bytes | Span):
        return args[0]
    return _encoded(*args) if len(args) == 2 else NotImplemented


def _complex(real: object = 0.0, imaginary: object = 0.0) -> object:
    numbers = isinstance(real, int | float) and isinstance(imaginary, int | float)
    return complex(float(real), float(imaginary)) if numbers else NotImplemented  # type: ignore[arg-type]


def _reconstructed(kind: object, base: object, state: object = None) -> object:
    """``copyreg._reconstructor``: an object of a class of protocols 0 and 1."""
    made = Instance(kind, () if base == Global("builtins", "object") else (state,))
    if base == Global("builtins", "dict") and isinstance(state, dict):
        made.pairs = state
    elif base == Global("builtins", "list") and isinstance(state, list):
        made.items = state
    return made


def _new(kind: object, *args: object) -> object:
    return Instance(kind, args)


CONSTRUCTORS: dict[Global, Callable[..., object]] = {
    Global("collections", "OrderedDict"): _ordered,
    Global("collections", "defaultdict"): _default,
    Global("collections", "Counter"): lambda *args: args[0] if args and type(args[0]) is dict else NotImplemented,
    Global("collections", "deque"): _list,
    Global("builtins", "dict"): _dictionary,
    Global("builtins", "list"): _list,
    Global("builtins", "tuple"): _tuple,
    Global("builtins", "set"): _collection,
    Global("builtins", "frozenset"): _collection,
    Global("builtins", "bytes"): _bytes,
    Global("builtins", "bytearray"): _bytes,
    Global("builtins", "complex"): _complex,
    Global("_codecs", "encode"): _encoded,
    Global("copyreg", "_reconstructor"): _reconstructed,
    Global("copyreg", "__newobj__"): _new,
}
"""Functions that rebuild values by the name that a pickle calls; ``NotImplemented`` where the arguments do not fit."""
