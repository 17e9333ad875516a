"""Files of TensorFlow, TensorFlow Lite and TensorFlow.js, written from the formats' definitions, byte by byte.

Nothing here is shared with the readers. Numbers of fields are those of the ``.proto`` and ``.fbs`` files.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10,
         "float16": 19}  # fmt: skip
TEXT = 7


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def content(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<I", value)


def crc32c(data: bytes) -> int:
    """Bit by bit, as the polynomial says."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) % 2**32


def snappy(data: bytes) -> bytes:
    """Literals of at most 60 bytes, and runs of one byte as a copy that overlaps itself."""
    out = bytearray(varint(len(data)))
    at = 0
    while at < len(data):
        run = 1
        while at + run < len(data) and run < 65 and data[at + run] == data[at]:
            run += 1
        if run > 4:
            out += bytes([0, data[at], (run - 2) << 2 | 2, 1, 0])
            at += run
        else:
            out += bytes([(len(data[at : at + 60]) - 1) << 2]) + data[at : at + 60]
            at += 60
    return bytes(out)


def table(entries: Mapping[bytes, bytes], *, packed: bool = False) -> bytes:
    """A LevelDB table of two blocks of entries, keys sharing their beginnings."""
    out = bytearray()

    def block(items: Sequence[tuple[bytes, bytes]], *, packed: bool) -> bytes:
        body, before = bytearray(), b""
        for key, value in items:
            shared = 0
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
            body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        body += struct.pack("<II", 0, 1)
        data = snappy(bytes(body)) if packed else bytes(body)
        where = varint(len(out)) + varint(len(data))
        kind = bytes([int(packed)])
        out.extend(data + kind + struct.pack("<I", masked(data + kind)))
        return where

    items = sorted(entries.items())
    half = len(items) // 2 or 1
    index = []
    for part in (items[:half], items[half:]):
        if part:
            index.append((part[-1][0], block(part, packed=packed)))
    meta = block([], packed=False)
    footer = meta + block(index, packed=packed)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def shape(extents: Sequence[int]) -> bytes:
    return b"".join(content(2, number(1, extent)) for extent in extents)


def ordered(value: int) -> bytes:
    """A small number in ordered code: one byte from -64 to 63, else two."""
    if -64 <= value < 64:
        return bytes([0x80 ^ value & 255])
    assert -(2**13) <= value < 2**13
    return struct.pack(">H", 0xC000 ^ value & 0xFFFF)


def slice_key(name: str, start: int, length: int, axes: int) -> bytes:
    """The key of a part along the first axis."""
    extents = [(start, length)] + [(0, -1)] * (axes - 1)
    tail = b"".join(ordered(a) + ordered(b) for a, b in extents)
    return b"\0" + name.encode() + b"\0\x01" + bytes([1, axes]) + tail


def slice_of(start: int, length: int, axes: int) -> bytes:
    first = (number(1, start) if start else b"") + number(2, length)
    return content(1, first) + content(1, b"") * (axes - 1)


def object_graph(variables: Mapping[str, str]) -> bytes:
    """A TrackableObjectGraph: for each variable its key and its full name."""
    nodes = b"".join(
        content(1, content(2, content(1, "VARIABLE_VALUE") + content(2, full) + content(3, key)))
        for key, full in variables.items()
    )
    return content(1, b"") + nodes


def write_checkpoint(
    path: Path, arrays: Mapping[str, np.ndarray], *, big: bool = False, parts: Mapping[str, int] | None = None,
    graph: bytes = b"", packed: bool = False, entries: Mapping[bytes, bytes] | None = None, shards: int = 1,
) -> Path:  # fmt: skip
    """A V2 checkpoint, ``path`` without its suffix; gives the path of its index. ``parts``: cuts of the first axis."""
    found = {b"": number(1, shards) + (number(2, 1) if big else b"") + content(3, number(1, 1))}
    data = [bytearray() for _ in range(shards)]

    def put(key: bytes, array: np.ndarray, more: bytes = b"") -> None:
        stored = array.astype(array.dtype.newbyteorder(">" if big else "<")).tobytes()
        shard = len(found) % shards
        found[key] = (
            number(1, TYPES[array.dtype.name]) + content(2, shape(array.shape)) + number(3, shard)
            + number(4, len(data[shard])) + number(5, len(stored)) + fixed32(6, masked(stored)) + more
        )  # fmt: skip
        data[shard] += stored

    for name, array in arrays.items():
        cuts = (parts or {}).get(name, 0)
        if not cuts:
            put(name.encode(), array)
            continue
        pieces = np.array_split(array, cuts)
        at, slices = 0, b""
        for piece in pieces:
            put(slice_key(name, at, len(piece), array.ndim), piece)
            slices += content(7, slice_of(at, len(piece), array.ndim))
            at += len(piece)
        found[name.encode()] = number(1, TYPES[array.dtype.name]) + content(2, shape(array.shape)) + slices
    if graph:
        text = varint(len(graph)) + bytes(4) + graph
        found[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = (
            number(1, TEXT) + content(2, b"") + number(4, len(data[0])) + number(5, len(text))
        )
        data[0] += text
    path.with_name(path.name + ".index").write_bytes(table({**found, **(entries or {})}, packed=packed))
    for place, part in enumerate(data):
        path.with_name(f"{path.name}.data-{place:05}-of-{shards:05}").write_bytes(part)
    return path.with_name(path.name + ".index")


def write_old_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], *, packed: bool = True) -> Path:
    """A V1 checkpoint: one table of SavedTensorSlices."""
    metas, entries = b"", {}
    for name, array in arrays.items():
        whole = content(1, b"") * array.ndim
        metas += content(
            1,
            content(1, name) + content(2, shape(array.shape)) + number(3, TYPES[array.dtype.name]) + content(4, whole),
        )
        if array.dtype == np.float16:
            values = content(13, b"".join(varint(int(v)) for v in array.view(np.uint16).ravel()))
        elif array.dtype == np.float32:
            values = content(5, array.tobytes())
        else:
            values = content(10, b"".join(varint(int(v)) for v in array.ravel()))
        key = b"\0" + name.encode() + b"\0\x01" + (bytes([1, array.ndim]) if array.ndim else b"\0")
        saved = content(1, name) + content(2, whole) + content(3, values)
        entries[key + (ordered(0) + ordered(-1)) * array.ndim] = content(2, saved)
    path.write_bytes(table({b"": content(1, metas + content(2, number(1, 0))), **entries}, packed=packed))
    return path


def attribute(key: str, value: bytes) -> bytes:
    return content(5, content(1, key) + content(2, value))


def flag(key: str, value: bool) -> bytes:
    return attribute(key, number(5, int(value)))


def node(name: str, op: str, *inputs: str, attrs: bytes = b"") -> bytes:
    return content(1, name) + content(2, op) + b"".join(content(3, each) for each in inputs) + attrs


def tensor(array: np.ndarray, *, kind: int = 0) -> bytes:
    return number(1, kind or TYPES[array.dtype.name]) + content(2, shape(array.shape)) + content(4, array.tobytes())


def const(name: str, value: np.ndarray | bytes) -> bytes:
    """A Const of an array, or of a TensorProto."""
    data = value if isinstance(value, bytes) else tensor(value)
    return node(name, "Const", attrs=attribute("value", content(8, data)))


def graph(*nodes: bytes, functions: Mapping[str, tuple[Sequence[str], Sequence[bytes], str]] | None = None) -> bytes:
    """A GraphDef. ``functions``: by name their arguments, nodes and what they return."""
    library = b""
    for name, (arguments, inner, result) in (functions or {}).items():
        signature = content(1, name) + b"".join(content(2, content(1, argument)) for argument in arguments)
        body = b"".join(content(3, each) for each in inner)
        library += content(1, content(1, signature) + body + content(4, content(1, "out") + content(2, result)))
    return b"".join(content(1, each) for each in nodes) + (content(2, library) if library else b"")


def function_named(name: str) -> bytes:
    return attribute("f", content(10, content(1, name)))


class Flat:
    """A FlatBuffer, written from its start: whatever a table refers to lies behind it."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0\0\0\0TFL3")

    def put(self, raw: bytes, align: int = 4) -> int:
        self.data += bytes(-len(self.data) % align)
        at = len(self.data)
        self.data += raw
        return at

    def link(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.data, place, target - place)

    def table(self, fields: Mapping[int, Any]) -> int:
        """Fields: (struct's letter, number), text, bytes, an array of numbers, a table (mapping), a list of tables."""
        count = max(fields, default=-1) + 1
        offsets, body = [0] * count, bytearray(4)
        for place, value in sorted(fields.items()):
            letter, width = (value[0], struct.calcsize(value[0])) if isinstance(value, tuple) else ("I", 4)
            body += bytes(-len(body) % width)
            offsets[place] = len(body)
            body += struct.pack("<" + letter, value[1] if isinstance(value, tuple) else 0)
        vtable = self.put(struct.pack(f"<{2 + count}H", 4 + 2 * count, len(body), *offsets), 8)
        at = self.put(bytes(body), 8)
        struct.pack_into("<i", self.data, at, at - vtable)
        for place, value in sorted(fields.items()):
            if not isinstance(value, tuple):
                self.link(at + offsets[place], self.target(value))
        return at

    def target(self, value: Any) -> int:
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            return self.put(struct.pack("<I", len(value)) + value + b"\0")
        if isinstance(value, np.ndarray):
            at = self.put(struct.pack("<I", len(value)))
            self.put(value.tobytes(), 1)
            return at
        if isinstance(value, list):
            at = self.put(struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for place, each in enumerate(value):
                self.link(at + 4 + 4 * place, self.table(each))
            return at
        return self.table(value)


LITE_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9, "int4": 17}


def i32(*values: int) -> np.ndarray:
    return np.array(values, "<i4")


def quantised(scale: Sequence[float], zero: Sequence[int], axis: int = 0) -> dict[int, Any]:
    return {2: np.array(scale, "<f4"), 3: np.array(zero, "<i8"), 6: ("i", axis)}


def lite_tensor(name: str, extents: Sequence[int], buffer: int, kind: str = "float32", **more: Any) -> dict[int, Any]:
    fields: dict[int, Any] = {0: i32(*extents), 1: ("b", LITE_TYPES[kind]), 2: ("I", buffer), 3: name}
    if "quantisation" in more:
        fields[4] = more["quantisation"]
    return fields | more.get("fields", {})


def operator(code: int, inputs: Sequence[int], outputs: Sequence[int], options: dict[int, Any] | None = None) -> Any:
    """``code``: the place in the list of codes."""
    found: dict[int, Any] = {0: ("I", code), 1: i32(*inputs), 2: i32(*outputs)}
    return found | ({3: ("B", 1), 4: options} if options is not None else {})


def lite(
    codes: Sequence[int], buffers: Sequence[bytes], tensors: Sequence[Any], operators: Sequence[Any], inputs: Any = ()
) -> bytes:
    """A model of one subgraph; ``codes`` are those of BuiltinOperator."""
    return lite_of(codes, buffers, [{0: list(tensors), 1: i32(*inputs), 3: list(operators)}])


def lite_of(codes: Sequence[int], buffers: Sequence[bytes], graphs: Sequence[Any]) -> bytes:
    flat = Flat()
    model = flat.table(
        {
            0: ("I", 3),
            1: [{0: ("b", min(code, 127)), 3: ("i", code)} for code in codes],
            2: list(graphs),
            4: [{0: data} if data else {} for data in (b"", *buffers)],
        }
    )
    struct.pack_into("<I", flat.data, 0, model)
    return bytes(flat.data)


def small_graph() -> bytes:
    """A frozen graph of a few kinds of weights, a function and a loop's entry."""
    rng = np.random.default_rng(0)

    def values(*extents: int) -> np.ndarray:
        return rng.normal(size=extents).astype(np.float32)

    inner = [node("r", "ReadVariableOp", "w"), node("y", "MatMul", "x", "r:value:0", attrs=flag("transpose_b", True))]
    return graph(
        node("in", "Placeholder"),
        const("conv/weights", values(3, 3, 2, 4)), node("conv/weights/read", "Identity", "conv/weights"),
        node("conv/Conv2D", "Conv2D", "in", "conv/weights/read"),
        const("conv/biases", values(4)), node("conv/BiasAdd", "BiasAdd", "conv/Conv2D", "conv/biases"),
        const("flat/shape", np.array([-1, 8], np.int32)), node("flat", "Reshape", "conv/BiasAdd", "flat/shape"),
        const("fc/kernel", values(5, 8)),
        node("call", "PartitionedCall", "flat", "fc/kernel", attrs=function_named("f")),
        const("lstm/kernel", number(1, 1) + content(2, shape((5, 4))) + content(5, struct.pack("<f", 0.5))),
        node("enter", "Enter", "lstm/kernel"), node("loop", "MatMul", "call", "enter"),
        functions={"f": (["x", "w"], inner, "y:product:0")},
    )  # fmt: skip


def small_lite() -> bytes:
    """A lite model of a convolution, a quantised dense layer and a table that is turned."""
    rng = np.random.default_rng(0)
    conv, dense = rng.normal(size=(4, 3, 3, 2)).astype(np.float32), rng.integers(-127, 127, (5, 8)).astype(np.int8)
    bias, product = np.ones(4, np.float32), rng.normal(size=(5, 6)).astype(np.float32)
    tensors = [
        lite_tensor("in", (1, 8, 8, 2), 0), lite_tensor("m/a/Conv2D", (4, 3, 3, 2), 1),
        lite_tensor("m/a/BiasAdd", (4,), 2), lite_tensor("a", (1, 6, 6, 4), 0),
        lite_tensor("m/b/MatMul", (5, 8), 3, "int8", quantisation=quantised([0.1, 0.2, 0.3, 0.4, 0.5], [0] * 5)),
        lite_tensor("b", (1, 5), 0), lite_tensor("m/c/MatMul", (5, 6), 4), lite_tensor("axes", (2,), 5, "int32"),
        lite_tensor("turned", (6, 5), 0), lite_tensor("c", (1, 6), 0),
    ]  # fmt: skip
    operators = [
        operator(0, [0, 1, 2], [3], {}), operator(1, [3, 4, -1], [5]), operator(2, [6, 7], [8]),
        operator(1, [5, 8, -1], [9]),
    ]  # fmt: skip
    buffers = [conv.tobytes(), bias.tobytes(), dense.tobytes(), product.tobytes(), i32(1, 0).tobytes()]
    return lite([3, 9, 39], buffers, tensors, operators, [0])


def one_product(kernel: np.ndarray) -> bytes:
    """A frozen graph that multiplies with a kernel (in, out)."""
    return graph(node("x", "Placeholder"), const("a/kernel", kernel), node("a/MatMul", "MatMul", "x", "a/kernel"))


def one_layer(kernel: np.ndarray) -> bytes:
    """A lite model of a dense layer with a kernel (out, in)."""
    rows, columns = kernel.shape
    tensors = [
        lite_tensor("x", (1, columns), 0),
        lite_tensor("m/a/MatMul", kernel.shape, 1),
        lite_tensor("y", (1, rows), 0),
    ]
    return lite([9], [kernel.tobytes()], tensors, [operator(0, [0, 1, -1], [2])], [0])
