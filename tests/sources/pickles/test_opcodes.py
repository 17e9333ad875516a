"""The interpreter beside Python's own, on values of all kinds and protocols, and its bounds."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import decimal
import pathlib
import pickle
import sys
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.files.byte_parts import InMemory
from registry.sources.formats.pickles import (
    AttributedDict,
    Global,
    Instance,
    Key,
    Span,
    load,
    opcodes,
    read_pickle,
    walked,
)

PROTOCOLS = range(6)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text() | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text() | st.integers(-1000, 1000), inner)
    ),
    max_leaves=40,
)


def plain(value: object) -> Any:
    """What a record stands for, of values without objects."""
    if isinstance(value, Span):
        data = value.read()
        return data.decode("utf-8", "surrogatepass") if value.text else bytes(data)
    if isinstance(value, Key):
        return plain(value.value)
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(inner) for inner in value)
    return value


@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_values_are_those_of_python(value: Any) -> None:
    for protocol in PROTOCOLS:
        data = pickle.dumps(value, protocol)
        assert plain(load(data)) == pickle.loads(data) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("optimised", [False, True])
def test_long_values_stay_in_the_file(protocol: int, optimised: bool) -> None:
    import pickletools

    value = {"text": "ü" * 100_000, "bytes": bytes(range(256)) * 5000, "more": ["x" * 70_000, b"y" * 2_000_000, 5]}
    data = pickle.dumps(value, protocol)
    found = load(pickletools.optimize(data) if optimised else data)
    assert plain(found) == value
    assert isinstance(found, dict)
    if protocol > 2:
        assert isinstance(found["bytes"], Span)
        assert found["bytes"].plain


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sets_and_other_containers(protocol: int) -> None:
    value = [{1, "a"}, frozenset({2}), bytearray(b"abc"), 3 + 4j, collections.deque([1, 2]), collections.Counter("aab")]
    found = load(pickle.dumps(value, protocol))
    assert isinstance(found, list)
    assert [sorted(map(str, each)) for each in found[:2]] == [["1", "a"], ["2"]]
    assert found[2:] == [b"abc", 3 + 4j, [1, 2], {"a": 2, "b": 1}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_values_are_one_record(protocol: int) -> None:
    inner = ["x"]
    value: list[Any] = [inner, inner, (inner,)]
    value.append(value)
    found: Any = load(pickle.dumps(value, protocol))
    assert found[0] is found[1] is found[2][0]
    assert found[3] is found


class Plain:
    def __init__(self) -> None:
        self.a = 1


class Slotted:
    __slots__ = ("b",)

    def __init__(self) -> None:
        self.b = 2


class Dictionary(dict[str, int]):
    pass


class Sequence(list[int]):
    pass


class Called:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",), {"c": 3})


class WithKeywords:
    def __new__(cls, *, d: int) -> Self:
        made = super().__new__(cls)
        made.d = d
        return made

    d: int

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, int]]:
        return (), {"d": self.d}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_are_records(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    mapping, sequence = Dictionary(x=1), Sequence([1, 2])
    found: Any = load(pickle.dumps([Plain(), mapping, sequence, Called(), Plain], protocol))
    first, second, third, fourth, fifth = found
    assert first.kind == fifth == Global(__name__, "Plain")
    assert first.attributes == {"a": 1}
    assert second.pairs == {"x": 1}
    assert third.items == [1, 2]
    assert fourth.kind == Global("builtins", "print")
    assert (fourth.args, fourth.attributes) == (("run",), {"c": 3})
    assert capsys.readouterr().out == ""
    if protocol > 1:
        pair: Any = load(pickle.dumps([Slotted(), WithKeywords(d=4)], protocol))
        slotted, named = pair
        assert slotted.attributes == {"b": 2}
        made = named if protocol > 3 else named.kind
        assert isinstance(made, Instance)
    values = [
        argparse.Namespace(lr=0.1),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        pathlib.PurePosixPath("a"),
    ]
    known: Any = load(pickle.dumps(values, protocol))
    space, now, path = known
    assert space.attributes == {"lr": 0.1}
    assert now.class_name == "datetime.datetime"
    assert path.class_name == "pathlib.PurePosixPath"
    assert isinstance(load(pickle.dumps(decimal.Decimal("0.5"), protocol)), Instance)


def test_text_of_python_2() -> None:
    assert load(b"S'a\\xc3\\xbc'\n.") == "aü"
    assert load(b"S'\\xff'\n.") == b"\xff"
    assert load(b"U\x02\xff\xfe.") == b"\xff\xfe"
    assert load(b"T\x02\0\0\0ab.") == "ab"
    assert load(b"(I01\nI00\nI7\nL8L\nF0.5\nl.") == [True, False, 7, 8, 0.5]
    made = load(b"(i__builtin__\nobject\np0\n(dS'a'\nI1\nsb.")
    assert isinstance(made, Instance)
    assert (made.kind, made.attributes) == (Global("builtins", "object"), {"a": 1})


def test_keys_are_flat_or_known_by_identity() -> None:
    value = {(1, 2): 1, "a": 2, 5: 3, None: 4, 2**70: 5, 0.5: 6, b"b": 7}
    found = load(pickle.dumps(value))
    assert isinstance(found, dict)
    assert [type(key) for key in found] == [Key, str, int, type(None), Key, float, bytes]
    many = b"}(" + b"".join(b"\x8a\x0c" + (n * (2**61 - 1)).to_bytes(12, "little") + b"N" for n in range(1, 200_000))
    assert len(load(many + b"u.")) == 199_999  # type: ignore[arg-type]  # all of one hash, which would take minutes


def test_states_of_dictionaries_and_objects() -> None:
    ordered = load(b"ccollections\nOrderedDict\n)R}X\x01\0\0\0aK\x01sb.")
    assert isinstance(ordered, AttributedDict)
    assert ordered.state == {"a": 1}
    twice = load(b"cx\ny\n)R}X\x01\0\0\0aK\x01sb}X\x01\0\0\0bK\x02sb.")
    assert isinstance(twice, Instance)
    assert twice.attributes == {"a": 1, "b": 2}


def u4(number: int) -> bytes:
    return number.to_bytes(4, "little")


LATE = b"]\x94" + b"".join(b"]\x94j" + u4(i) + b"j" + u4(i + 1) + b"a0" for i in range(100_000)) + b"j\0\0\0\0."
MERGED = b"cx\ny\n)R}(" + b"".join(b"J" + u4(i) + b"N" for i in range(300_000)) + b"ub" + b"}K\0K\0sb" * 100_000 + b"."
DAMAGED: dict[str, tuple[bytes, type[RegistryError], str]] = {
    "empty": (b"", WeightsError, "ends early"),
    "cut": (b"\x80\x04]\x94(K\x01", WeightsError, "ends early"),
    "cut number": (b"\x80\x04J\1", WeightsError, "ends early"),
    "cut length": (b"X\xff\xff\xff\x7fabc", WeightsError, "ends early"),
    "long text": (b"\x8d" + b"\xff" * 8 + b".", WeightsError, "ends early"),
    "long bytes": (b"\x8e" + b"\xff" * 8 + b".", WeightsError, "ends early"),
    "long array": (b"\x96" + b"\xff" * 8 + b".", WeightsError, "ends early"),
    "long frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", WeightsError, "ends early"),
    "protocol": (b"\x80\x06N.", WeightsError, "protocol 6"),
    "opcode": (b"\xff.", WeightsError, "unknown opcode 255"),
    "zero": (b"\0.", WeightsError, "unknown opcode 0"),
    "nothing": (b".", WeightsError, "damaged"),
    "no mark": (b"K\x01t.", WeightsError, "damaged"),
    "no memo": (b"h\x05.", WeightsError, "damaged"),
    "no list": (b"NNa.", WeightsError, "appended to a NoneType"),
    "odd": (b"}(Nu.", WeightsError, "a key has no value"),
    "negative": (b"Np-5\n.", WeightsError, "memo is negative"),
    "name": (b"K\x01K\x02\x93.", WeightsError, "a name is no text"),
    "call": (b"K\x01)R.", WeightsError, "a int is called"),
    "arguments": (b"cx\ny\n]R.", WeightsError, "arguments are a list"),
    "text": (b"X\x01\0\0\0\xff.", WeightsError, "damaged"),
    "state": (b"}Nb.", WeightsError, "state is given to a dict"),
    "state of a number": (b"K\x01Nb.", WeightsError, "state is given to a int"),
    "persistent": (b"NQ.", WeightsError, "objects outside of it"),
    "extension 1": (b"\x82\x01.", UnsafeError, "extension registry"),
    "extension 2": (b"\x83\x01\x01.", UnsafeError, "extension registry"),
    "extension 4": (b"\x84\x01\x01\x01\x01.", UnsafeError, "extension registry"),
    "buffer": (b"\x97.", UnsafeError, "buffers are outside"),
    "read-only buffer": (b"N\x98.", UnsafeError, "buffers are outside"),
    "digits": (b"I" + b"9" * 10**6 + b"\n.", WeightsError, "a line does not end"),
    "digits of a long": (b"L" + b"9" * 10**6 + b"L\n.", WeightsError, "a line does not end"),
    "bytes of a long": (b"\x8b\xff\xff\xff\x7f.", UnsafeError, "integer of 2147483647"),
    "deep key": (b"}" + b")" + b"\x85" * 2_000_000 + b"Ns.", UnsafeError, "nested deeper"),
    "deep list": (b"]" * 500_000 + b"a" * 499_999 + b".", UnsafeError, "nested deeper"),
    "deep dictionary": (b"}N" * 100_000 + b"}" + b"s" * 100_000 + b".", UnsafeError, "nested deeper"),
    "deep objects": (b"cx\ny\nq\0" + b")" + b"\x85h\0\x86" * 100_000 + b".", UnsafeError, "nested deeper"),
    "marks": (b"(" * 10_001 + b".", UnsafeError, "open containers"),
    "copies": (b"cbuiltins\nlist\nq\0(" + b"N" * 10**5 + b"l\x85q\1" + b"h\0h\1R" * 10**4 + b".", UnsafeError, "more"),
    "joined states": (MERGED, UnsafeError, "more objects"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_refused(name: str) -> None:
    data, error, words = DAMAGED[name]
    with pytest.raises(error, match=words) as caught:
        load(data)
    assert caught.value.remedy
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("opcode", "made"), [(b"]", []), (b"\x8f", set()), (b"}", {})])
def test_empty_containers_are_charged_for_their_memory(opcode: bytes, made: object) -> None:
    """By the budget of its own an interpreter reads millions of them, as in `test_hostile_pickles`."""
    data, memory = opcode * 20_000 + b".", 20_000 * sys.getsizeof(made)
    with pytest.raises(UnsafeError, match="more objects"):
        read_pickle(InMemory(data, "pickle"), budget=memory)
    assert read_pickle(InMemory(data, "pickle"), budget=5 * memory).value == made


def test_places_in_the_memo_take_no_memory_by_their_number() -> None:
    assert load(b"Nr" + b"\xff\xff\xff\x7f" + b"0j" + b"\xff\xff\xff\x7f.") is None


def test_what_is_made_deep_afterwards_is_walked_and_freed() -> None:
    """Every container is filled when it is in another already, so that no depth is noticed."""
    found = load(LATE)
    assert sum(1 for _ in walked(found)) == 100_001
    limit = sys.getrecursionlimit()
    del found
    assert sys.getrecursionlimit() == limit


def test_doublings_are_walked_once() -> None:
    data = (
        b"]q\0" + b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(200)) + b"."
    )
    assert sum(1 for _ in walked(load(data))) == 201


@pytest.mark.parametrize("cut", range(1, 60))
def test_every_cut_is_one_error(cut: int) -> None:
    value = {"a": [1, 2.5, "x" * 5000, b"y" * 5000, (1, 2, 3)], "b": collections.OrderedDict(c=argparse.Namespace(d=1))}
    data = pickle.dumps(value)
    with pytest.raises(RegistryError):
        load(data[: len(data) * cut // 60])


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_one_error(data: bytes) -> None:
    with contextlib.suppress(RegistryError):
        load(data)


@pytest.mark.parametrize(("window", "count"), [(opcodes._WINDOW, 12_000), (4096, 600)])
def test_windows_end_anywhere(window: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle of several windows, whose borders are at other places for each shift; many shifts where it is small."""
    monkeypatch.setattr(opcodes, "_WINDOW", window)
    for shift in range(4 if count > 10_000 else 40):
        value = ["x" * shift, *({"n": i, "f": i / 7, "t": (i, str(i))} for i in range(count))]
        data = pickle.dumps(value, 2 + shift % 4)
        assert len(data) > window
        assert load(data) == value


def test_a_hook_takes_bytes_from_the_stream() -> None:
    data = b"](cx\ny\n)R}bABCDEcz\nz\n)RK\x01e."

    def built(record: Instance, position: int) -> tuple[object, int] | None:
        assert data[position : position + 5] == b"ABCDE"
        return "taken", position + 5

    found, end = read_pickle(InMemory(data, "pickle"), built=built)
    assert isinstance(found, list)
    assert found[0] == "taken"
    assert (found[2], end) == (1, len(data))
    with pytest.raises(WeightsError, match="ends early"):
        read_pickle(InMemory(data, "pickle"), built=lambda _, position: (None, position + 1000))


def test_persistent_ids_are_asked_for() -> None:
    asked: list[object] = []

    def give(key: object) -> object:
        asked.append(key)
        return len(asked)

    assert load(b"(Pabc\nNQX\x01\0\0\0xQt.", persistent_load=give) == (1, 2, 3)
    assert asked == ["abc", None, "x"]
