"""Core ML models, written field by field, and those that coremltools makes."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from tests.sources.converted_files import field, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "blobs", "const", "converted", "layer", "linear", "model", "network", "operation", "package", "pipeline", "program",
    "small_network", "small_program", "table", "value", "weights",
]  # fmt: skip

TYPES = {"float16": 10, "float32": 11, "int8": 21, "int32": 23, "uint8": 31, "uint32": 33, "uint4": 35}
BLOB_TYPES = {"float16": 1, "float32": 2, "uint8": 3, "int8": 4, "uint4": 11}
INPUTS = field(2, field(1, field(1, "image")))


def packed(numbers: Sequence[int]) -> bytes:
    return b"".join(number(int(each) % 2**64) for each in numbers)


def weights(array: np.ndarray) -> bytes:
    """A WeightParams of float32 or float16."""
    return field(2 if array.dtype == np.float16 else 1, array.astype(array.dtype.newbyteorder("<")).tobytes())


def floats(numbers: np.ndarray) -> bytes:
    return numbers.astype("<f4").tobytes()


def linear(codes: bytes, bits: int, scale: np.ndarray, offset: np.ndarray) -> bytes:
    """A WeightParams of codes with scales and offsets."""
    return field(30, codes) + field(40, field(1, bits) + field(101, field(1, floats(scale)) + field(2, floats(offset))))


def table(codes: bytes, bits: int, values: np.ndarray) -> bytes:
    """A WeightParams of codes that stand for values."""
    return field(30, codes) + field(40, field(1, bits) + field(102, field(1, floats(values))))


def layer(name: str, kind: int, params: bytes, takes: str | Sequence[str] = "x", gives: str = "") -> bytes:
    inputs = [takes] if isinstance(takes, str) else takes
    body = field(1, name) + b"".join(field(2, each) for each in inputs) + field(3, gives or name)
    return field(1, body + field(kind, params))


def network(*layers: bytes, kind: int = 500) -> bytes:
    return model(kind, b"".join(layers))


def model(kind: int, content: bytes, version: int = 4) -> bytes:
    return field(1, version) + INPUTS + field(kind, content)


def pipeline(models: Sequence[bytes], names: Sequence[str]) -> bytes:
    return model(202, b"".join(field(1, each) for each in models) + b"".join(field(2, each) for each in names))


def value(
    array: np.ndarray, kind: str = "", blob: tuple[str, int] | None = None, shape: Sequence[int] | None = None
) -> bytes:
    """A Value: within the model, or at a place of a file."""
    name = kind or array.dtype.name
    extents = array.shape if shape is None else shape
    dims = b"".join(field(3, field(1, field(1, int(extent)))) for extent in extents)
    head = field(2, field(1, field(1, TYPES[name]) + field(2, len(extents)) + dims))
    if blob is not None:
        return head + field(5, field(1, blob[0]) + field(2, blob[1]))
    if name == "float32":
        inner = field(1, field(1, array.astype("<f4").tobytes()))
    elif name == "int32":
        inner = field(2, field(1, packed(array.reshape(-1).tolist())))
    else:
        inner = field(7, field(1, array.tobytes()))
    return head + field(3, field(1, inner))


def operation(
    kind: str, output: str, inputs: Mapping[str, str | bytes], attributes: Mapping[str, bytes] | None = None,
    blocks: Sequence[bytes] = (),
) -> bytes:  # fmt: skip
    """An operation; inputs are names of values, or values."""
    body = field(1, kind)
    for name, given in inputs.items():
        binding = field(1, given) if isinstance(given, str) else field(2, given)
        body += field(2, field(1, name) + field(2, field(1, binding)))
    body += field(3, field(1, output)) + b"".join(field(4, each) for each in blocks)
    for name, given in (attributes or {}).items():
        body += field(5, field(1, name) + field(2, given))
    return field(3, body)


def const(name: str, content: bytes) -> bytes:
    return operation("const", name, {}, {"val": content})


def program(*operations: bytes, outputs: Sequence[str] = ("y",), functions: Mapping[str, bytes] | None = None) -> bytes:
    """A model that is a program of one function, or of several by name."""
    body = b"".join(field(2, each) for each in outputs) + b"".join(operations)
    given = functions or {"main": body}
    content = field(1, 1)
    for name, block in given.items():
        function = field(2, "CoreML6") + field(3, field(1, "CoreML6") + field(2, block))
        content += field(2, field(1, name) + field(2, function))
    return model(502, content, 7)


def blobs(arrays: Sequence[tuple[bytes, str]]) -> tuple[bytes, list[int]]:
    """A file of blobs by their bytes and types, and the places of their headers."""
    content, places = bytearray(struct.pack("<2I", len(arrays), 2) + bytes(56)), []
    for data, kind in arrays:
        places.append(len(content))
        content += struct.pack("<2I2Q", 0xDEADBEEF, BLOB_TYPES[kind], len(data), len(content) + 64) + bytes(40)
        content += data + bytes(-len(data) % 64)
    return bytes(content), places


def package(folder: Path, content: bytes, data: bytes | None = None) -> Path:
    """A ``.mlpackage``: a model, and its weights."""
    inner = folder / "net.mlpackage" / "Data" / "com.apple.CoreML"
    inner.mkdir(parents=True)
    (inner / "model.mlmodel").write_bytes(content)
    (folder / "net.mlpackage" / "Manifest.json").write_text('{"fileFormatVersion": "1.0.0"}')
    if data is not None:
        (inner / "weights").mkdir()
        (inner / "weights" / "weight.bin").write_bytes(data)
    return folder / "net.mlpackage"


def small_network(*, quantised: bool = True) -> bytes:
    """A network of a convolution, a product of codes, an LSTM and a table of values."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> bytes:
        return weights(rng.normal(size=shape).astype(np.float32))

    convolution = field(1, 4) + field(2, 2) + field(10, 1) + field(20, packed([3, 3])) + field(70, 1)
    codes = rng.integers(0, 256, 12, np.uint8).tobytes()
    scaled = linear(codes, 8, rng.random(3), rng.random(3)) if quantised else some(3, 4)
    looked_up = table(rng.integers(0, 256, 6, np.uint8).tobytes(), 4, rng.normal(size=16)) if quantised else some(4, 3)
    gates = b"".join(field(place, some(2, 3)) for place in (1, 2, 3, 4))
    gates += b"".join(field(place, some(2, 2)) for place in (20, 21, 22, 23))
    return network(
        layer("conv", 100, convolution + field(90, some(4, 2, 3, 3)) + field(91, some(4))),
        layer("fc", 140, field(1, 4) + field(2, 3) + field(20, scaled), "conv"),
        layer("lstm", 420, field(1, 3) + field(2, 2) + field(20, gates), "fc"),
        layer("words", 1040, field(1, 3) + field(2, 4) + field(20, looked_up), "lstm"),
    )


def small_program(*, quantised: bool = True) -> bytes:
    """A program of a convolution, a product with compressed weights, and a norm."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
    affine = {
        "quantized_data": value(rng.integers(-128, 128, (3, 4)).astype(np.int8)), "axis": value(np.array(0, np.int32)),
        "scale": value(rng.random(3).astype(np.float16)), "zero_point": value(np.zeros(3, np.int8)),
    }  # fmt: skip
    made = operation("constexpr_affine_dequantize", "fc_weight_quantized", {}, affine)
    if not quantised:
        made = const("fc_weight_quantized", value(rng.normal(size=(3, 4)).astype(np.float16)))
    return program(
        const("conv_weight", value(plain)),
        operation("conv", "a", {"x": "x", "weight": "conv_weight", "pad_type": "t"}),
        made,
        operation("linear", "b", {"x": "a", "weight": "fc_weight_quantized", "bias": value(np.ones(3, np.float32))}),
        const("norm_gamma", value(np.ones(3, np.float32))),
        operation("layer_norm", "y", {"x": "b", "gamma": "norm_gamma"}),
    )


_MAKE = '''
import logging, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import torch
from coremltools.models.neural_network import quantization_utils
from torch import nn

class Net(nn.Module):
    """Modules in the order of the computation, which that of their names is."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([
            nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 16, 3, padding=1, groups=2), nn.ConvTranspose2d(16, 6, 2, stride=2),
            nn.Conv2d(6, 16, 1, bias=False), nn.Linear(16, 24), nn.Linear(24, 16, bias=False), nn.LayerNorm(16),
            nn.LSTM(16, 10, batch_first=True, bidirectional=True), nn.RNN(20, 8, batch_first=True),
            nn.Conv1d(8, 9, 3), nn.Linear(9, 32),
        ])
        self.gain = nn.Parameter(torch.randn(16))

    def forward(self, image):
        at = self.stages
        x = at[4](at[3](at[2](at[1](at[0](image).relu())).sigmoid()).relu())
        x = x.flatten(2).transpose(1, 2)
        x = x + self.gain * at[6](at[5](x).relu())
        x = at[9](at[8](at[7](x))[0])[0]
        return at[11](at[10](x.transpose(1, 2)).mean(-1))

folder = Path(sys.argv[1])
torch.manual_seed(0)
net = Net().eval()
for parameter in net.parameters():
    parameter.data.add_(torch.randn_like(parameter) * 0.02)
torch.save(net.state_dict(), folder / "net.pt")
traced = torch.jit.trace(net, torch.randn(1, 3, 4, 4))

def given():
    return [ct.TensorType(name="image", shape=(1, 3, 4, 4))]

def program(precision, target):
    return ct.convert(traced, inputs=given(), convert_to="mlprogram", compute_precision=precision,
                      minimum_deployment_target=target)

whole = program(ct.precision.FLOAT32, ct.target.iOS16)
whole.save(str(folder / "program.mlpackage"))
program(ct.precision.FLOAT16, ct.target.iOS16).save(str(folder / "half.mlpackage"))
newest = program(ct.precision.FLOAT32, ct.target.iOS18)

def compressed(name, model):
    model.save(str(folder / f"{name}.mlpackage"))
    cto.decompress_weights(model).save(str(folder / f"{name}-plain.mlpackage"))

def config(settings):
    return cto.OptimizationConfig(global_config=settings)

small = {"weight_threshold": 16}
compressed("int8", cto.linear_quantize_weights(whole, config(cto.OpLinearQuantizerConfig(mode="linear", **small))))
compressed("lut4", cto.palettize_weights(whole, config(cto.OpPalettizerConfig(nbits=4, mode="uniform", **small))))
compressed("lut6", cto.palettize_weights(whole, config(cto.OpPalettizerConfig(nbits=6, mode="uniform", **small))))
compressed("sparse", cto.prune_weights(whole, config(cto.OpMagnitudePrunerConfig(target_sparsity=0.6, **small))))
compressed("block4", cto.linear_quantize_weights(newest, config(cto.OpLinearQuantizerConfig(
    mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=4, **small))))
compressed("groups", cto.palettize_weights(newest, config(cto.OpPalettizerConfig(
    nbits=3, mode="uniform", granularity="per_grouped_channel", group_size=4, **small))))

old = ct.convert(traced, inputs=given(), convert_to="neuralnetwork")
old.save(str(folder / "network.mlmodel"))
for name, bits, mode in (("n16", 16, "linear"), ("n8", 8, "linear"), ("n4", 4, "linear"), ("n3", 3, "linear_lut"),
                         ("n5", 5, "linear")):
    made = quantization_utils.quantize_weights(old, bits, quantization_mode=mode)
    spec = made if not hasattr(made, "get_spec") else made.get_spec()
    ct.models.utils.save_spec(spec, str(folder / f"{name}.mlmodel"))
    if bits < 16:
        quantization_utils._dequantize_nn_spec(spec.neuralNetwork)
        ct.models.utils.save_spec(spec, str(folder / f"{name}-plain.mlmodel"))
'''


def converted(folder: Path) -> Path:
    """A torch network, what coremltools makes of it, and the same decompressed by it. In a process of its own."""
    command = [sys.executable, "-c", _MAKE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder
