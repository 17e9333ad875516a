"""Hostile pickles, one for each way in which a pickle can run code, or exhaust or mislead the one who reads it.

`TRICKS` has the opcodes of each by name. `write_tricks` puts each into a bare ``.pkl``, and as ``data.pkl`` into an
archive of ``torch.save``. `CONTAINERS` has files that are hostile by what is around the pickle.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from tests.sources.corpus import tensor, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CONTAINERS", "TRICKS", "archive_of", "bare", "write_tricks"]

PROTO = b"\x80\x02"
WEIGHTS = np.arange(48, dtype=np.float32).reshape(8, 6)
SOUND = b"\0(weights)\0"  # stands for a tensor in an archive of torch.save, for an array elsewhere


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def number(value: int) -> bytes:
    """LONG1 of up to 255 bytes."""
    data = value.to_bytes((value.bit_length() + 8) // 8 or 1, "little", signed=True)
    return b"\x8a" + bytes((len(data),)) + data


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """REDUCE with a tuple of arguments."""
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def entry(value: bytes, name: str = "a.weight") -> bytes:
    """A dictionary with one entry."""
    return b"}" + text(name) + value + b"s"


def beside(value: bytes) -> bytes:
    """A dictionary of sound weights and a value."""
    return b"}" + text("a.weight") + SOUND + b"s" + text("b") + value + b"s"


def storage_of(key: bytes, kind: bytes = b"ctorch\nFloatStorage\n", count: bytes = b"K\x30") -> bytes:
    return b"(" + text("storage") + kind + key + text("cpu") + count + b"tQ"


def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    """A NumPy array as ``ndarray.__reduce__`` writes it, of any claims."""
    made = named("numpy.core.multiarray", "_reconstruct")
    made += b"(" + named("numpy", "ndarray") + b"K\x00\x85" + b"C\x01btR"
    return made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def described(code: str, state: bytes = b"") -> bytes:
    """A NumPy dtype, with a state if one is given."""
    return named("numpy", "dtype") + b"(" + text(code) + b"\x89\x88tR" + state


def raw(data: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(data)) + data


def rebuilt(rebuild: str, *arguments: bytes) -> bytes:
    return call("torch._utils", rebuild, *arguments)


def sized(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], count: bytes = b"K\x30") -> bytes:
    """A tensor of any shape and strides over the storage 0."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return rebuilt(
        "_rebuild_tensor_v2", storage_of(text("0"), count=count), number(offset), numbers(shape), numbers(strides),
        b"\x89", b"}",
    )  # fmt: skip


def nested(count: int, around: bytes, first: bytes = b"N") -> bytes:
    """A value within ``count`` others."""
    return first + around * count


COMMAND = text("touch created")
F4 = described("f4", b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
OBJECT = described("O8", b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb")

TRICKS: dict[str, bytes] = {
    # names that would be called
    "reduce-system": beside(call("os", "system", COMMAND)),
    "reduce-posix": beside(call("posix", "system", COMMAND)),
    "reduce-eval": beside(call("builtins", "eval", text("open('created', 'w')"))),
    "reduce-exec": beside(call("builtins", "exec", text("import this"))),
    "reduce-compile": beside(call("builtins", "compile", text("1"), text("x"), text("eval"))),
    "reduce-import": beside(call("importlib", "import_module", text("this"))),
    "reduce-getattr": beside(call("builtins", "getattr", named("os", "path"), text("join"))),
    "reduce-popen": beside(call("subprocess", "Popen", b"]" + COMMAND + b"a")),
    "reduce-socket": beside(call("socket", "create_connection", b"(" + text("localhost") + b"K\x09t")),
    "reduce-pickle": beside(call("pickle", "loads", raw(b"cos\nsystem\n(" + COMMAND + b"tR."))),
    "reduce-torch-load": beside(call("torch", "load", text("/etc/passwd"))),
    "reduce-numpy-load": beside(call("numpy", "load", text("/etc/passwd"))),
    "reduce-hub": beside(call("torch.hub", "load", text("pytorch/vision"), text("resnet18"))),
    "reduce-of-reduce": beside(call("builtins", "getattr", named("os", "system"), text("x")) + b"(" + COMMAND + b"tR"),
    "reduce-string": beside(text("os.system") + b"(" + COMMAND + b"tR"),
    "reduce-tensor": beside(tensor(48, (8, 6), (6, 1)) + b"(K\x01tR"),
    "stack-global": b"\x80\x04" + beside(stacked("os", "system") + b"(" + COMMAND + b"tR"),
    "stack-global-dotted": b"\x80\x04" + beside(stacked("collections", "OrderedDict.__init__.__globals__") + b")R"),
    "stack-global-numbers": b"\x80\x04" + beside(b"K\x01K\x02\x93)R"),
    "stack-global-dict": b"\x80\x04" + beside(b"}}\x93)R"),
    "inst": beside(b"(" + COMMAND + b"ios\nsystem\n"),
    "obj": beside(b"(" + named("os", "system") + COMMAND + b"o"),
    "newobj": beside(named("subprocess", "Popen") + COMMAND + b"\x85\x81"),
    "newobj-ex": b"\x80\x04" + beside(named("subprocess", "Popen") + b")}" + text("args") + COMMAND + b"s\x92"),
    "ext1": beside(b"\x82\x01)R"),
    "ext2": beside(b"\x83\x01\x00)R"),
    "ext4": beside(b"\x84\x01\x00\x00\x00)R"),
    "ext4-negative": beside(b"\x84\xff\xff\xff\xff)R"),
    "rebuild-from-type": entry(call("torch._tensor", "_rebuild_from_type_v2", named("os", "system"),
                                    named("torch", "Tensor"), COMMAND + b"\x85", b"}")),
    "rebuild-from-rebuild": entry(call("torch._tensor", "_rebuild_from_type_v2", named("torch._tensor",
                                       "_rebuild_from_type_v2"), named("os", "system"), b")", b"}")),
    "rebuild-state": entry(rebuilt("_rebuild_parameter_with_state", tensor(48, (8, 6), (6, 1)), b"\x88", b"}",
                                   b"}" + text("__class__") + named("os", "system") + b"s")),
    "rebuild-jit": beside(call("torch.jit._pickle", "build_tensor_from_id", b"K\x00")),
    "rebuild-sparse": entry(rebuilt("_rebuild_sparse_tensor", named("torch", "sparse_coo"), b"(" + b"NNN" + b"t")),
    "rebuild-from-numpy": entry(rebuilt("_rebuild_device_tensor_from_numpy", b"N", named("torch", "float32"),
                                        text("cpu"), b"\x89")),
    "codec-bomb": beside(call("_codecs", "encode", text("x" * 99), text("zlib_codec"))),
    "codec-import": beside(call("_codecs", "encode", text("x"), text("this"))),
    "long-name": beside(named("o" * 2**20, "system") + b")R"),
    "name-with-nul": beside(named("os\0", "sys\0tem") + b")R"),
    # states that would be set
    "build-global": beside(named("os", "path") + b"}" + text("join") + b"Nsb"),
    "build-class": beside(named("torch", "Tensor") + b"}" + text("__reduce__") + b"Nsb"),
    "build-dict": beside(b"}}" + text("x") + b"K\x01sb"),
    "build-number": beside(b"K\x01}b"),
    "build-setstate": beside(b"}" + text("__setstate__") + named("os", "system") + b"s" + COMMAND + b"b"),
    "build-slots": beside(named("argparse", "Namespace") + b")\x81" + b"N}" + text("__class__") + b"K\x01s\x86b"),
    "build-tensor": entry(tensor(48, (8, 6), (6, 1)) + b"}" + text("shape") + b"K\x01sb"),
    "build-itself": beside(named("argparse", "Namespace") + b")\x81q\x05h\x05b"),
    # containers that are none
    "setitem-list": beside(b"]K\x00K\x00s"),
    "setitem-global": beside(named("os", "environ") + text("PATH") + text("") + b"s"),
    "setitem-number": beside(b"K\x01K\x02K\x03s"),
    "setitems-odd": beside(b"}(K\x01K\x02K\x03u"),
    "append-dict": beside(b"}K\x01a"),
    "append-global": beside(named("sys", "path") + text("/nowhere") + b"a"),
    "append-string": beside(text("x") + b"K\x01a"),
    "appends-none": beside(b"N(K\x01K\x02e"),
    "additems-list": b"\x80\x04" + beside(b"](K\x01\x90"),
    "unhashable-key": beside(b"}]K\x01s"),
    "unhashable-set": b"\x80\x04" + beside(b"\x8f(]\x90"),
    "unhashable-frozenset": b"\x80\x04" + beside(b"(]\x91"),
    # depth and size
    "tuple-key": b"}" + nested(2_000_000, b"\x85") + b"Ns",
    "tuple-key-in-set": b"\x80\x04\x8f(" + nested(2_000_000, b"\x85") + b"\x90",
    "tuple-key-in-frozenset": b"\x80\x04(" + nested(2_000_000, b"\x85") + b"\x91",
    "tuple-key-shared": b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"Ns",
    "frozenset-key-shared": b"\x80\x04}(\x91" + b"q\x000(h\x00K\x01\x91" * 60 + b"Ns",
    "tuple-value": beside(nested(2_000_000, b"\x85")),
    "list-nested": beside(b"]" * 1_000_000 + b"a" * 999_999),
    "dict-nested": beside((b"}" + text("a")) * 300_000 + b"N" + b"s" * 300_000),
    "dict-shared": beside(b"}q\x00" + (b"0}" + text("a") + b"h\x00s" + text("b") + b"h\x00sq\x00") * 60),
    "list-shared": beside(b"]q\x00" + b"0](h\x00h\x00eq\x00" * 60),
    "record-nested": beside(b"N" + (b"q\x000" + named("argparse", "Namespace") + b")\x81}" + text("a") + b"h\x00sb")
                            * 100_000),
    "reduce-nested": beside(b")" + (b"q\x000" + named("collections", "OrderedDict") + b"h\x00\x85R") * 100_000),
    "parameter-nested": entry(b"N" + (b"q\x000" + named("torch._utils", "_rebuild_parameter") + b"(h\x00\x88}tR")
                              * 100_000),
    "list-of-itself": beside(b"]q\x00h\x00a"),
    "dict-of-itself": beside(b"}q\x00" + text("a") + b"h\x00s"),
    "state-of-itself": b"}q\x00" + text("state_dict") + b"h\x00s",
    "record-of-itself": beside(named("argparse", "Namespace") + b")\x81q\x00}" + text("a") + b"h\x00sb"),
    "empty-lists": b"]" * 20_000_000,
    "empty-sets": b"\x80\x04" + b"\x8f" * 5_000_000,
    "empty-dicts": b"}" * 20_000_000,
    "marks": b"(" * 20_000_000,
    "marks-popped": b"(1" * 500_000 + beside(b"N"),
    "duplicates": b"]" + b"2" * 5_000_000,
    "memoised": b"\x80\x04N" + b"\x94" * 20_000_000,
    "floats": b"G@\t\x21\xfbTD-\x18" * 1_000_000,
    "numbers-colliding": beside(b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 100_000)) + b"u"),
    "numbers-colliding-set": b"\x80\x04" + beside(
        b"\x8f(" + b"".join(number(i * (2**61 - 1)) for i in range(1, 100_000)) + b"\x90"),
    "keys-nan": beside(b"}(" + (b"G\x7f\xf8\0\0\0\0\0\0N") * 100_000 + b"u"),
    # numbers and texts that lie
    "memo-far": beside(b"Nr\xff\xff\xff\xff"),
    "memo-far-text": beside(b"Np" + b"9" * 100 + b"\n"),
    "memo-negative": beside(b"Np-1\n"),
    "memo-missing": beside(b"h\x77"),
    "memo-missing-far": beside(b"j\xff\xff\xff\x7f"),
    "memo-word": beside(b"Npx\n0gx\n"),
    "text-beyond": beside(b"X\xff\xff\xff\xff"),
    "text-beyond-8": b"\x80\x04" + beside(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "bytes-beyond": b"\x80\x03" + beside(b"B\xff\xff\xff\xff"),
    "bytes-beyond-8": b"\x80\x04" + beside(b"\x8e\0\0\0\0\0\1\0\0"),
    "bytearray-beyond": b"\x80\x05" + beside(b"\x96\0\0\0\0\0\1\0\0"),
    "string-beyond": beside(b"T\xff\xff\xff\x7f"),
    "string-negative": beside(b"T\xff\xff\xff\xff"),
    "long-beyond": beside(b"\x8b\xff\xff\xff\x7f"),
    "long-negative": beside(b"\x8b\xff\xff\xff\xff"),
    "frame-beyond": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f" + beside(b"N"),
    "frame-short": b"\x80\x04\x95\x01\0\0\0\0\0\0\0" + beside(b"N"),
    "frames-nested": b"\x80\x04" + b"\x95\x09\0\0\0\0\0\0\0" * 1000 + beside(b"N"),
    "number-of-a-megabyte": beside(b"I" + b"9" * 1_000_000 + b"\n"),
    "long-of-a-megabyte": beside(b"L" + b"9" * 1_000_000 + b"L\n"),
    "long-binary": beside(b"\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000),
    "number-with-underscore": beside(b"I1_0\n"),
    "number-of-words": beside(b"Iinf\n"),
    "float-of-words": beside(b"F1e999999\n"),
    "text-escaped": beside(b"V\\ud800\\U00110000\n"),
    "text-surrogate": beside(b"X\x03\0\0\0\xed\xa0\x80"),
    "text-invalid": beside(b"X\x02\0\0\0\xff\xfe"),
    "string-escaped": beside(b"S'\\x4'\n"),
    "string-unquoted": beside(b"Sabc\n"),
    "line-without-end": beside(b"I" + b"1" * 100),
    "protocol": b"\x80\xff" + beside(b"N"),
    "protocol-again": beside(b"\x80\x02\x80\x05N"),
    "opcode-unknown": beside(b"\xf0"),
    "stop-at-once": b"",
    "stop-with-two": b"K\x01K\x02",
    "pop-nothing": b"0" * 100,
    "pop-mark-nothing": beside(b"1"),
    "tuple-of-nothing": b"\x87",
    "mark-left": beside(b"(") + b"(",
    "duplicate-nothing": b"2",
    "buffer": b"\x80\x05" + beside(b"\x97"),
    "buffer-readonly": b"\x80\x05" + beside(b"N\x98"),
    # tensors and storages that lie
    "persistent-text": beside(b"Pos.system\n"),
    "persistent-dict": beside(b"}Q"),
    "persistent-short": beside(b"(" + text("storage") + b"tQ"),
    "persistent-module": beside(b"(" + text("module") + named("os", "system") + COMMAND + b"NtQ"),
    "storage-class": entry(rebuilt("_rebuild_tensor_v2", storage_of(text("0"), named("os", "system")), b"K\x00",
                                   b"K\x02\x85", b"K\x01\x85", b"\x89", b"}")),
    "storage-above": entry(tensor(48, (8, 6), (6, 1), key="../../outside/secret")),
    "storage-absolute": entry(tensor(48, (8, 6), (6, 1), key="/etc/passwd")),
    "storage-number": entry(rebuilt("_rebuild_tensor_v2", storage_of(b"K\x00"), b"K\x00", b"K\x02\x85", b"K\x01\x85",
                                    b"\x89", b"}")),
    "storage-missing": entry(tensor(48, (8, 6), (6, 1), key="77")),
    "storage-negative": entry(sized(0, (2, 2), (2, 1), count=number(-5))),
    "storage-enormous": entry(sized(0, (2, 2), (2, 1), count=number(2**62))),
    "stride-zero": entry(sized(0, (10**6, 10**6), (0, 0))),
    "stride-zero-many": b"}(" + b"".join(text(f"{i}.weight") + sized(0, (48, 10**4), (1, 0))
                                for i in range(500)) + b"u",
    "stride-negative": entry(sized(47, (8, 6), (-6, -1))),
    "stride-enormous": entry(sized(0, (8, 6), (2**62, 2**62))),
    "strides-few": entry(sized(0, (8, 6), (1,))),
    "strides-overlap": entry(sized(0, (40, 8), (1, 1))),
    "offset-negative": entry(sized(-8, (8, 6), (6, 1))),
    "offset-enormous": entry(sized(2**62, (8, 6), (6, 1))),
    "shape-negative": entry(sized(0, (-8, -6), (6, 1))),
    "shape-enormous": entry(sized(0, (2**40, 2**40), (2**40, 1))),
    "shape-zero-enormous": entry(sized(0, (0, 2**62, 2**62), (1, 1, 1))),
    "shape-digits": entry(sized(0, (10**600, 6), (6, 1))),
    "dimensions": entry(rebuilt("_rebuild_tensor_v2", storage_of(text("0")), b"K\x00", b"(" + b"K\x01" * 10**6 + b"t",
                                b"(" + b"K\x01" * 10**6 + b"t", b"\x89", b"}")),
    "shape-of-words": entry(rebuilt("_rebuild_tensor_v2", storage_of(text("0")), b"K\x00", text("86"), text("61"),
                                    b"\x89", b"}")),
    "shape-of-floats": entry(rebuilt("_rebuild_tensor_v2", storage_of(text("0")), b"K\x00",
                                     b"G\x7f\xf8\0\0\0\0\0\0\x85", b"K\x01\x85", b"\x89", b"}")),
    "quantised-scale": entry(rebuilt("_rebuild_qtensor", storage_of(text("0"), b"ctorch\nQInt8Storage\n"), b"K\x00",
                                     b"K\x02\x85", b"K\x01\x85", b"(" + named("torch", "per_tensor_affine")
                                     + text("x") + b"Nt", b"\x89", b"}")),
    "name-of-a-megabyte": b"}" + text("a" * 2**20) + tensor(48, (8, 6), (6, 1)) + b"s",
    "tensor-name-with-nul": b"}" + text("a\0b") + tensor(48, (8, 6), (6, 1)) + b"s",
    "names-of-numbers": b"}" + number(2**1000) + tensor(48, (8, 6), (6, 1)) + b"s",
    # arrays that lie
    "array-enormous": b"\x80\x03" + entry(array(number(10**12) + number(10**12) + b"\x86", F4, raw(b"0000"))),
    "array-negative": b"\x80\x03" + entry(array(number(-1) + b"\x85", F4, raw(b"0000"))),
    "array-short": b"\x80\x03" + entry(array(b"K\x64K\x64\x86", F4, raw(b"0000"))),
    "array-objects": b"\x80\x03" + entry(array(b"K\x01\x85", OBJECT, b"]" + call("os", "system", COMMAND) + b"a")),
    "array-of-texts": b"\x80\x03" + entry(array(b"K\x01\x85", F4, text("0000"))),
    "array-dimensions": b"\x80\x03" + entry(array(b"(" + b"K\x01" * 1000 + b"t", F4, raw(b"0000"))),
    "array-subtype": b"\x80\x03" + entry(array(b"K\x01\x85", described("(1000000000,1000000000)f4"), raw(b"0000"))),
    "array-code": b"\x80\x03" + entry(array(b"K\x01\x85", described("__import__('os').system('x')"), raw(b"0000"))),
    "array-fields": b"\x80\x03" + entry(array(b"K\x01\x85", described(",".join(["f4"] * 100_000)), raw(b"0000"))),
    "array-itemsize": b"\x80\x03" + entry(array(b"K\x01\x85", described("V2147483647"), raw(b"0000"))),
    "array-state-twice": b"\x80\x03" + entry(array(b"K\x01\x85", F4, raw(b"0000")) + b"(K\x01)N\x89Ntb"),
    "array-without-state": entry(named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "ndarray")
                                 + b"K\x00\x85C\x01btR"),
    "array-of-system": entry(named("numpy.core.multiarray", "_reconstruct") + b"(" + named("os", "system")
                             + b"K\x00\x85C\x01btR"),
    "array-from-buffer": b"\x80\x05" + entry(call("numpy.core.numeric", "_frombuffer", raw(b"0000"), F4,
                                                  number(10**12) + b"\x85", text("C"))),
    "scalar-object": beside(call("numpy.core.multiarray", "scalar", OBJECT, raw(pickle.dumps(print)))),
    "bytearray-sized": beside(call("builtins", "bytearray", number(2**40))),
    "range-of-all": beside(call("builtins", "list", call("builtins", "range", number(2**40)))),
    "text-repeated": beside(call("operator", "mul", text("x"), number(2**40))),
    "ordered-dict-arguments": beside(call("collections", "OrderedDict", b"](]K\x01aK\x02e")),
    "random-state": beside(call("numpy.random", "__RandomState_ctor")),
    "joblib-array": entry(named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}(" + text("subclass")
                          + named("numpy", "ndarray") + text("shape") + number(10**12) + b"\x85" + text("order")
                          + text("C") + text("dtype") + F4 + text("allow_mmap") + b"\x88ub"),
    "joblib-objects": entry(named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}(" + text("subclass")
                            + named("numpy", "ndarray") + text("shape") + b"K\x01\x85" + text("order") + text("C")
                            + text("dtype") + OBJECT + text("allow_mmap") + b"\x89ub"
                            + PROTO + call("os", "system", COMMAND) + b"."),
    "joblib-file": entry(named("joblib.numpy_pickle_compat", "NDArrayWrapper") + b")\x81}(" + text("filename")
                         + text("../../outside/secret.npy") + text("subclass") + named("numpy", "ndarray") + b"ub"),
}  # fmt: skip
"""The pickles by name, without their last opcode; protocol 2 if they do not begin with another."""


def whole(trick: bytes, weights: bytes) -> bytes:
    """A trick as a pickle, with the opcodes of the weights beside it."""
    return (b"" if trick.startswith(b"\x80") else PROTO) + trick.replace(SOUND, weights) + b"."


def bare(name: str) -> bytes:
    """A trick as a pickle beside whose value is an array."""
    return whole(TRICKS[name], array(b"K\x08K\x06\x86", F4, raw(WEIGHTS.tobytes())))


def archive_of(content: bytes) -> bytes:
    """An archive of ``torch.save`` with that pickle, and a storage of 48 values."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", b"3\n")
        archive.writestr("x/data/0", WEIGHTS.tobytes())
    return data.getvalue()


def _sound() -> bytes:
    return pickle.dumps({"a.weight": WEIGHTS})


def _deflated(length: int) -> bytes:
    """Zeros that follow the start of a pickle, deflated: one piece of 16 MiB, which refers to nothing before it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = packer.compress(_claim(length)) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(_ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * (length // len(_ZEROS)) + packer.flush()


_ZEROS = bytes(2**24)


def _claim(length: int) -> bytes:
    """The start of a pickle of so many bytes."""
    return b"\x80\x04\x8e" + length.to_bytes(8, "little")


def _checked(sum_of: Callable[[bytes, int], int], length: int) -> int:
    """The checksum of what `_deflated` unpacks to."""
    found = sum_of(_claim(length), 1 if sum_of is zlib.adler32 else 0)
    for _ in range(length // len(_ZEROS)):
        found = sum_of(_ZEROS, found)
    return found


def _gzip_bomb(length: int) -> bytes:
    end = struct.pack("<II", _checked(zlib.crc32, length), (length + 11) % 2**32)
    return b"\x1f\x8b\x08" + bytes(5) + b"\0\xff" + _deflated(length) + end


def _zlib_bomb(length: int) -> bytes:
    return b"\x78\x9c" + _deflated(length) + struct.pack(">I", _checked(zlib.adler32, length))


def _linked_tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return data.getvalue()


def _long_tar() -> bytes:
    """A member that claims 2^40 bytes."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    content = bytearray(data.getvalue())
    content[124:136] = b"\x80" + (2**40).to_bytes(11, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "bomb-gzip.pkl": lambda: _gzip_bomb(2**29),
    "bomb-zlib.pkl": lambda: _zlib_bomb(2**31),
    "bomb-bz2.joblib": lambda: bz2.compress(_claim(2**27) + bytes(2**27)),
    "bomb-xz.joblib": lambda: lzma.compress(_claim(2**27) + bytes(2**27), preset=1),
    "bomb-lzma.joblib": lambda: lzma.compress(_claim(2**27) + bytes(2**27), lzma.FORMAT_ALONE, preset=1),
    "xz-memory.joblib": lambda: lzma.compress(
        _sound(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**30}]
    ),
    "gzip-in-gzip.pkl": lambda: gzip.compress(gzip.compress(_sound())),
    "gzip-cut.pkl": lambda: gzip.compress(_sound())[:-20],
    "gzip-sum.pkl": lambda: gzip.compress(_sound())[:-8] + b"\0" * 8,
    "gzip-members.pkl": lambda: gzip.compress(_sound()) * 2,
    "gzip-rest.pkl": lambda: gzip.compress(_sound()) + b"rest" * 20,
    "zlib-cut.pkl": lambda: zlib.compress(_sound())[:-5],
    "lz4-nothing.joblib": lambda: b"\x04\x22\x4d\x18" + bytes(40),
    "zfile.joblib": lambda: b"ZF0x" + b"f" * 18 + bytes(40),
    "tar-links.pt": _linked_tar,
    "tar-long.pt": _long_tar,
}
"""Files by name that are hostile by what is around the pickle."""


def write_tricks(folder: Path) -> list[Path]:
    """Write all files into ``folder``; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, trick in TRICKS.items():
        zipped = archive_of(whole(trick, tensor(48, (8, 6), (6, 1))))
        for path, data in ((folder / f"{name}.pkl", bare(name)), (folder / f"{name}.pt", zipped)):
            path.write_bytes(data)
            paths.append(path)
    for name, make in CONTAINERS.items():
        (folder / name).write_bytes(make())
        paths.append(folder / name)
    return paths
