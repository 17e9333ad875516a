"""Pickles made at random: by the grammar of the opcodes, mostly of a state dict, with faults put between.

A stream that is noise from its first byte ends at its first opcode. These keep a stack that is right for the most part,
so that a fault meets an interpreter with containers, records, memo and tensors in hand.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from typing import TYPE_CHECKING

from tests.sources.corpus import text
from tests.sources.pickle_corpus import F4, PROTO, archive_of, array, call, named, number, raw, stacked, storage_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["stream", "wrapped"]

_NAMES = (
    ("collections", "OrderedDict"), ("collections", "defaultdict"), ("argparse", "Namespace"), ("torch", "Size"),
    ("torch", "Tensor"), ("torch", "float32"), ("torch", "device"), ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.container", "Sequential"), ("torch._utils", "_rebuild_parameter"), ("builtins", "set"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._tensor", "_rebuild_from_type_v2"), ("os", "system"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "scalar"), ("joblib.numpy_pickle", "NumpyArrayWrapper"), ("builtins", "eval"),
    ("copyreg", "_reconstructor"), ("builtins", "object"), ("pathlib", "PosixPath"), ("torch", "FloatStorage"),
    ("sklearn.neural_network._multilayer_perceptron", "MLPClassifier"), ("builtins", "bytearray"),
)  # fmt: skip
_KEYS = (
    "a.weight", "b.weight", "bias", "state_dict", "model", "ema", "_parameters", "_buffers", "_modules", "training",
    "optimizer", "param_groups", "weight", "coefs_", "intercepts_", "epoch", "shape", "order", "dtype", "subclass",
    "StructuredToParameterName@@", "a", "",
)  # fmt: skip
_INTEGERS = (0, 1, 2, 3, 6, 8, 48, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64, 2**2000, -1, -(2**63))
_OPCODES = bytes(sorted(b"()]}.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b"
                        b"BCG\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"))  # fmt: skip


def stream(rng: random.Random) -> bytes:
    """A pickle, mostly with tensors, mostly sound up to a fault or two."""
    if rng.random() < 0.05:  # opcodes without grammar
        return PROTO + bytes(rng.choice(_OPCODES) for _ in range(rng.randint(1, 200)))
    protocol = rng.choice((b"", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    body = _dictionary(rng, rng.randint(1, 4))
    if rng.random() < 0.3:
        body = b"}" + text(rng.choice(_KEYS)) + body + b"s"
    content = protocol + body + b"."
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        content = _fault(content, rng)
    return content


def wrapped(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A suffix and the bytes of a file that holds a pickle: bare, compressed, or in an archive of ``torch.save``."""
    packings: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        (".pkl", bytes), (".pkl", bytes), (".pt", archive_of), (".pt", archive_of), (".joblib", zlib.compress),
        (".joblib", gzip.compress), (".joblib", bz2.compress), (".joblib", lambda data: lzma.compress(data, preset=0)),
    )  # fmt: skip
    suffix, pack = rng.choice(packings)
    return suffix, pack(content)


def _fault(content: bytes, rng: random.Random) -> bytes:
    """An opcode put between, a number of the kind that overflows, a piece said twice, or the end left out."""
    at = rng.randrange(max(1, len(content)))
    kind = rng.randrange(6)
    if kind < 2:
        argument = rng.choice((b"", b"\0", b"\xff", struct.pack("<I", rng.choice((1, 2**31 - 1, 2**32 - 1)))))
        return content[:at] + bytes((rng.choice(_OPCODES),)) + argument + content[at:]
    if kind == 2:
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice(_INTEGERS) % (1 << 8 * size)
        return content[:at] + value.to_bytes(size, "little") + content[at + size :]
    if kind == 3:
        piece = content[at : at + rng.randint(1, 60)]
        return content[:at] + piece * rng.choice((2, 2, 50)) + content[at:]
    if kind == 4:
        return content[:at] + content[at + rng.randint(1, 20) :]
    return content[:at] if rng.random() < 0.3 else content[:at] + value_of(rng, 2) + content[at:]


def _dictionary(rng: random.Random, depth: int) -> bytes:
    pairs = [
        text(rng.choice(_KEYS)) + (_tensor(rng) if rng.random() < 0.4 else value_of(rng, depth - 1))
        for _ in range(rng.randint(0, 5))
    ]
    if rng.random() < 0.5:
        return b"}" + b"".join(pair + b"s" for pair in pairs)
    return rng.choice((b"}", call("collections", "OrderedDict"))) + b"(" + b"".join(pairs) + b"u"


def value_of(rng: random.Random, depth: int) -> bytes:
    """Opcodes that push one value, which has others within it down to ``depth``."""
    if depth <= 0 or rng.random() < 0.3:
        return _plain(rng)
    makers: tuple[Callable[[random.Random, int], bytes], ...] = (_dictionary, _sequence, _record, _shared, _any_tensor)
    made = rng.choice(makers)(rng, depth)
    return made + rng.choice((b"", b"", b"q" + bytes((rng.randrange(4),)), b"\x94", b"r\x05\0\0\0"))


def _any_tensor(rng: random.Random, _: int) -> bytes:
    return _tensor(rng)


def _plain(rng: random.Random) -> bytes:
    integer = rng.choice(_INTEGERS)
    return rng.choice((
        b"N", b"\x88", b"\x89", b"I01\n", b"I%d\n" % integer, b"L%dL\n" % integer, number(integer),
        b"K" + bytes((rng.randrange(256),)), b"M\xff\xff", b"J" + struct.pack("<i", rng.choice((-1, 0, 2**31 - 1))),
        b"G" + struct.pack(">d", rng.choice((0.0, -1.5, 1e300, float("nan"), float("inf")))), b"F1.5\n",
        text(rng.choice(_KEYS)), b"\x8c\x01a", b"U\x01a", b"S'a'\n", b"Va\n", b"C\x01a", raw(b"a" * 8),
        b"\x96\x01\0\0\0\0\0\0\0a", named(*rng.choice(_NAMES)), stacked(*rng.choice(_NAMES)), b")", b"]", b"}",
        b"\x8f", b"h" + bytes((rng.randrange(4),)), b"g%d\n" % rng.randrange(4), b"P0\n", text("0") + b"Q",
    ))  # fmt: skip


def _sequence(rng: random.Random, depth: int) -> bytes:
    values = b"".join(value_of(rng, depth - 1) for _ in range(rng.randint(0, 4)))
    one = value_of(rng, depth - 1)
    return rng.choice((
        b"(" + values + b"t", b"(" + values + b"l", b"](" + values + b"e", b"]" + one + b"a", one + b"\x85",
        one + one + b"\x86", one + one + one + b"\x87", b"\x8f(" + values + b"\x90", b"(" + values + b"\x91",
        b"(" + values + b"d",
    ))  # fmt: skip


def _record(rng: random.Random, depth: int) -> bytes:
    module, name = rng.choice(_NAMES)
    arguments = b"(" + b"".join(value_of(rng, depth - 1) for _ in range(rng.randint(0, 3))) + b"t"
    named_by = rng.choice((named, stacked))(module, name)
    made = rng.choice((
        named_by + arguments + b"R", named_by + arguments + b"\x81", named_by + arguments + b"}\x92",
        arguments[:-1] + f"i{module}\n{name}\n".encode(), b"(" + named_by + value_of(rng, depth - 1) + b"o",
    ))  # fmt: skip
    if rng.random() < 0.6:
        state = rng.choice((_dictionary, value_of))(rng, depth - 1)
        made += state + b"b"
    return made


def _shared(rng: random.Random, depth: int) -> bytes:
    """A value and the same again, many times over; sometimes within itself."""
    if rng.random() < 0.3:
        return rng.choice((b"]q\x00h\x00a", b"}q\x01" + text("a") + b"h\x01s"))
    value = value_of(rng, depth - 1)
    return value + b"q\x02" + rng.choice((b"h\x02\x86", b"h\x02\x86q\x02h\x02\x86" * 3, b"0h\x02", b"2\x86"))


def _tensor(rng: random.Random) -> bytes:
    """A tensor or array, mostly as it is stored."""
    if rng.random() < 0.3:
        shape = number(rng.choice((8, 8, 8, *_INTEGERS))) + number(6) + b"\x86"
        return array(shape, F4, raw(b"\1\2\3\4" * 48))
    size = [8, 6] if rng.random() < 0.7 else [rng.choice(_INTEGERS) for _ in range(rng.randint(0, 4))]
    strides = [6, 1] if rng.random() < 0.8 else [rng.choice(_INTEGERS) for _ in range(rng.randint(0, 4))]
    kind = rng.choice((b"Float", b"Float", b"Float", b"Half", b"Long", b"QInt8", b"BFloat16", b"Untyped", b"Odd"))
    storage = storage_of(
        text(rng.choice(("0", "0", "0", "1", "../0"))),
        b"ctorch\n" + kind + b"Storage\n",
        b"K\x30" if rng.random() < 0.8 else number(rng.choice(_INTEGERS)),
    )
    shape, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, strides))
    offset = number(0 if rng.random() < 0.8 else rng.choice(_INTEGERS))
    made = call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, steps, b"\x89", b"}")
    if rng.random() < 0.2:
        made = call("torch._utils", "_rebuild_parameter", made, b"\x88", b"}")
    return made
