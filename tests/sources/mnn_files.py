"""Models of MNN, written field by field, and those that its own converter makes."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.sources.tensorflow_files import Flat, i32

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["blob", "bits", "codes", "const", "convert", "convolution", "net", "op", "run", "small_mnn", "sparse"]

CONV, DEPTHWISE, DECONV, MATMUL, GATHER, LAYER_NORM, CONST, ONNX = 12, 13, 17, 39, 31, 603, 11, 3

_CONVERTER = "import _tools, sys; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
"""The converter itself. The package's command of that name first installs a package and sends statistics."""


def convert(kind: str, source: Path, target: Path, *options: str) -> Path:
    """Convert a model by MNN's converter, in a process of its own, as it may crash."""
    command = ["-f", kind, "--modelFile", str(source), "--MNNModel", str(target), *options]
    done = subprocess.run([sys.executable, "-c", _CONVERTER, *command], capture_output=True, text=True, check=False)
    assert target.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    return target


_RUN = """
import sys
import MNN
import numpy as np
manager = MNN.nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": 1},))
module = MNN.nn.load_module_from_file(sys.argv[1], ["x"], ["y"], runtime_manager=manager)
given = np.load(sys.argv[2])
x = MNN.expr.placeholder(list(given.shape), MNN.expr.NCHW)
x.write(given)
np.save(sys.argv[3], np.array(MNN.expr.convert(module.forward(x), MNN.expr.NCHW).read()))
"""


def run(model: Path, given: np.ndarray) -> np.ndarray:
    """What MNN computes of one input ``x`` as its output ``y``."""
    paths = [model.with_suffix(f".{name}.npy") for name in ("given", "found")]
    np.save(paths[0], given.astype(np.float32))
    subprocess.run([sys.executable, "-c", _RUN, str(model), *map(str, paths)], capture_output=True, check=True)
    found: np.ndarray = np.load(paths[1])
    return found


def net(ops: Sequence[dict[int, Any]], source: int = ONNX, fields: dict[int, Any] | None = None) -> bytes:
    """A Net of operators. ``fields``: more of its own."""
    flat = Flat()
    flat.data[4:8] = bytes(4)
    struct.pack_into("<I", flat.data, 0, flat.table({3: list(ops), 6: ("b", source), **(fields or {})}))
    return bytes(flat.data)


def op(
    kind: int, name: str, inputs: Sequence[int], outputs: Sequence[int], settings: tuple[int, Any] | None = None,
    fields: dict[int, Any] | None = None,
) -> dict[int, Any]:  # fmt: skip
    """An operator; ``settings``: the number of their kind, and their table."""
    found = {0: i32(*inputs), 3: name, 4: i32(*outputs), 5: ("i", kind)}
    return found | ({1: ("B", settings[0]), 2: settings[1]} if settings else {}) | (fields or {})


def convolution(
    name: str, weight: np.ndarray | None, shape: tuple[int, ...], *, kind: int = CONV, groups: int = 1, place: int = 0,
    bias: np.ndarray | None = None, fields: dict[int, Any] | None = None, inputs: int | None = None,
) -> dict[int, Any]:  # fmt: skip
    """A convolution of a weight of that shape, (out, in / groups, kh, kw)."""
    ins = shape[1] * groups if inputs is None else inputs
    common = {2: ("i", shape[3]), 3: ("i", shape[2]), 9: ("i", groups), 10: ("i", shape[0]), 11: ("i", ins)}
    table: dict[int, Any] = {0: common}
    if weight is not None:
        table[1] = weight.astype("<f4").reshape(-1)
    if bias is not None:
        table[2] = bias.astype("<f4")
    return op(kind, name, [place], [place + 1], (9, table | (fields or {})))


def blob(array: np.ndarray, kind: int = 1, place: int = 7) -> dict[int, Any]:
    return {0: i32(*array.shape), 2: ("i", kind), place: array.reshape(-1)}


def const(name: str, array: np.ndarray, value: int) -> dict[int, Any]:
    return op(CONST, name, [], [value], (7, blob(array.astype("<f4"))))


def bits(numbers: np.ndarray, width: int) -> bytes:
    """Numbers of some bits, the highest first."""
    text = "".join(f"{int(number):0{width}b}" for number in numbers.ravel())
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


def codes(values: np.ndarray, *, wide: bool = False) -> bytes:
    """Codes behind their shape and the table of the values that occur."""
    table = np.unique(values).astype(np.int8)
    width = max(1, math.ceil(math.log2(len(table))))
    shape = np.array(values.shape, "<u4" if wide else "<u2").tobytes()
    head = bytes([values.ndim]) + shape + bytes([len(table) % 256]) + table.tobytes()
    return head + bits(np.searchsorted(table, values), width)


def sparse(values: np.ndarray) -> bytes:
    """Codes of which zeros are left out."""
    flat = values.ravel()
    places = np.flatnonzero(flat)
    table = np.unique(flat[places]).astype(np.int8)
    width = max(1, math.ceil(math.log2(len(table))))
    steps = np.diff(places, prepend=0)
    wide = max(1, int(steps.max()).bit_length())
    head = bytes([values.ndim]) + np.array(values.shape, "<u2").tobytes() + struct.pack("<IB", len(places), wide)
    return head + bits(steps, wide) + bytes([len(table)]) + table.tobytes() + bits(
        np.searchsorted(table, flat[places]), width
    )  # fmt: skip


def small_mnn(*, quantised: bool = True) -> bytes:
    """A model of a convolution, one of codes, a product with a constant, a table and a norm."""
    rng = np.random.default_rng(0)
    ones, plain = np.ones(5, "<f4"), None if quantised else rng.normal(size=(5, 4))
    quan = {0: np.frombuffer(codes(rng.integers(-8, 8, (5, 4))), np.int8), 1: rng.random(5).astype("<f4"),
            2: ("i", 1), 4: ("f", 1.0), 7: ("i", 4)}  # fmt: skip
    return net([
        op(34, "x", [], [0]),
        convolution("/conv/Conv_output_0", rng.normal(size=(4, 2, 3, 3)), (4, 2, 3, 3), bias=np.ones(4)),
        convolution("/fc/MatMul_output_0__matmul_converted", plain, (5, 4, 1, 1), place=1,
                    fields={3: quan} if quantised else {}),
        const("onnx::MatMul_7", rng.normal(size=(5, 3)), 9),
        op(MATMUL, "/head/MatMul_output_0", [2, 9], [3], (25, {2: ("b", 0)})),
        const("emb.weight", rng.normal(size=(7, 5)), 10),
        op(GATHER, "/emb/Gather_output_0", [10, 3], [4]),
        op(LAYER_NORM, "/norm/LayerNormalization_output_0", [4], [5], (88, {2: ones, 3: ones})),
    ])  # fmt: skip
