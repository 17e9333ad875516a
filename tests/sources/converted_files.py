"""Files of Caffe, Darknet, ncnn and ONNX as small as they can be, and the pieces that they are written of."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from tests.sources.onnx_models import model_of, values

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DARKNET_CFG", "DARKNET_PARTS", "FLOAT16", "INT8", "blob", "caffe", "darknet", "field", "layer", "ncnn", "number",
    "plain", "raw", "small_caffe", "small_ncnn", "small_onnx",
]  # fmt: skip


def number(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(place: int, content: bytes | str | int) -> bytes:
    """A field of a message: text and messages with their length, integers as they are."""
    if isinstance(content, int):
        return number(place << 3) + number(content)
    data = content.encode() if isinstance(content, str) else content
    return number(place << 3 | 2) + number(len(data)) + data


def blob(array: np.ndarray, *, old: bool = False) -> bytes:
    """A BlobProto with its shape, or with the four extents of old files."""
    if old:
        extents = (*(1,) * (4 - array.ndim), *array.shape)
        head = b"".join(field(place, extent) for place, extent in enumerate(extents, 1))
    else:
        head = field(7, field(1, b"".join(map(number, array.shape))))
    return head + field(8 if array.dtype == np.float64 else 5, array.astype(array.dtype.newbyteorder("<")).tobytes())


def layer(name: str, kind: str, blobs: list[bytes], bottom: str = "x", top: str = "", extra: bytes = b"") -> bytes:
    body = field(1, name) + field(2, kind) + field(3, bottom) + field(4, top or name)
    return field(100, body + b"".join(field(7, each) for each in blobs) + extra)


def caffe(folder: Path, content: bytes) -> Path:
    path = folder / "net.caffemodel"
    path.write_bytes(field(1, "net") + content)
    return path


FLOAT16, INT8 = struct.pack("<I", 0x01306B47), struct.pack("<I", 0x000D4B38)


def raw(array: np.ndarray) -> bytes:
    return bytes(4) + array.astype("<f4").tobytes()


def plain(array: np.ndarray) -> bytes:
    return array.astype("<f4").tobytes()


def ncnn(folder: Path, *layers: tuple[str, bytes]) -> Path:
    """A ``.param`` of layers by type and settings, one behind the other, and the ``.bin`` with their bytes."""
    lines = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input in 0 1 b0"]
    for place, (text, _) in enumerate(layers):
        kind, _, settings = text.partition(" ")
        lines.append(f"{kind} layer{place} 1 1 b{place} b{place + 1} {settings}")
    path = folder / "net.param"
    path.write_text("\n".join(lines) + "\n")
    (folder / "net.bin").write_bytes(b"".join(content for _, content in layers))
    return path


DARKNET_CFG = """
[net]
# of a small detector
height = 16
width=16
channels=3

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=8
groups=2
size=1
stride=1

[route]
layers = -1, 1

[upsample]
stride=2

[connected]
output=5
activation=linear

[softmax]
"""
# In the order of the file: of a normalised convolution the biases, scales, means, variances, weights; else the biases
# before the weights. The connected layer sees 12 channels of 8 x 8.
DARKNET_PARTS = (
    ("layers.0.bn.bias", (4,)), ("layers.0.bn.weight", (4,)), ("layers.0.bn.running_mean", (4,)),
    ("layers.0.bn.running_var", (4,)), ("layers.0.conv.weight", (4, 3, 3, 3)),
    ("layers.2.conv.bias", (8,)), ("layers.2.conv.weight", (8, 2, 1, 1)),
    ("layers.5.fc.bias", (5,)), ("layers.5.fc.weight", (5, 12 * 8 * 8)),
)  # fmt: skip


def darknet(folder: Path, text: str = DARKNET_CFG, *, minor: int = 2, cut: int = 0, stem: str = "net") -> Path:
    """A ``.weights`` and its ``.cfg``; ``cut``: bytes that its end lacks, or negative, has too many."""
    head = struct.pack("<3i", 0, minor, 0) + (struct.pack("<q", 640) if minor > 1 else struct.pack("<i", 640))
    arrays = [values(*shape, seed=place).tobytes() for place, (_, shape) in enumerate(DARKNET_PARTS)]
    path = folder / f"{stem}.weights"
    content = head + b"".join(arrays)
    path.write_bytes(content[:-cut] if cut > 0 else content + bytes(-cut))
    (folder / "net.cfg").write_text(text)
    return path


def small_onnx() -> bytes:
    """A network of convolutions, products, codes and a recurrent layer."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], "/conv/Conv"),
        node("BatchNormalization", ["a", "g", "g", "g", "g"], ["b"], "/norm/BatchNormalization"),
        node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["b", "t"], ["c"], "/fc/MatMul"),
        node("LSTM", ["c", "i", "h"], ["d"], "/lstm/LSTM", hidden_size=2),
        node("Reshape", ["e", "shape"], ["f"]),
        node("Gemm", ["d", "f"], ["y"]),
    ]
    tensors = {
        "conv.weight": values(4, 2, 3, 3), "conv.bias": values(4), "g": values(4), "s": np.abs(values(5)),
        "q": values(5, 4, dtype=np.int8), "z": np.zeros(5, np.int8), "i": values(1, 8, 5), "h": values(1, 8, 2),
        "e": helper.make_tensor("e", TensorProto.BFLOAT16, (6,), [0.5, 1.5, -2.0, 3.0, 1.0, -1.0]),
        "shape": np.array([2, -1], np.int64),
    }  # fmt: skip
    content: bytes = model_of(nodes, tensors, producer="pytorch").SerializeToString()
    return content


def small_caffe() -> bytes:
    """A network of three layers."""
    return field(1, "net") + b"".join((
        layer("conv", "Convolution", [blob(values(4, 2, 3, 3)), blob(values(4))]),
        layer("norm", "BatchNorm", [blob(values(4)), blob(values(4)), blob(values(1))], bottom="conv"),
        layer("fc", "InnerProduct", [blob(values(3, 8), old=True), blob(values(3), old=True)], bottom="norm"),
    ))  # fmt: skip


def small_ncnn(folder: Path) -> Path:
    """The ``.param`` of a network of three layers, with its ``.bin`` beside."""
    return ncnn(
        folder,
        ("Convolution 0=4 1=3 5=1 6=72", raw(values(72)) + plain(values(4))),
        ("InnerProduct 0=3 2=12 8=1", INT8 + values(12, dtype=np.int8).tobytes() + plain(values(3)) + bytes(4)),
        ("LSTM 0=2 1=24", raw(values(24)) + raw(values(8)) + raw(values(16))),
    )
