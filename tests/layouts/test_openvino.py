"""Networks converted by OpenVINO give the layers, order and values of the module in memory.

The converter folds batch norms and positions, and adds the two biases of a recurrent layer.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from registry.sources import expand, open_module, open_ref
from tests.conftest import missing
from tests.layouts.exported import inputs, plain, to_onnx
from tests.layouts.measured import distances, read
from tests.layouts.networks import build
from tests.layouts.test_exported import Mixed, folded_state, same_layers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would call its maker
try:
    import openvino as ov
    from openvino import opset13 as ops
except ImportError as error:
    missing(f"openvino is not installed ({error}); install the group 'layouts' of pyproject.toml")

TRACED = ("bert", "llama", "llama-tied", "gpt-neox", "phi3", "gpt2", "starcoder", "bloom", "falcon", "vit", "timm-vit",
          "swin", "convnext", "unet", "lstm", "gru")  # fmt: skip
# Parameters that the converter computed with: positions; two biases as one.
FOLDED = {"vit", "timm-vit", "swin", "convnext", "lstm", "gru", "mixed", "gpt2", "bert"}


def traced(module: nn.Module, args: tuple[torch.Tensor, ...], settings: dict[str, torch.Tensor]) -> Any:
    """The model as OpenVINO converts it from a traced module."""
    forward = module.forward
    module.forward = plain(forward)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing
            script = torch.jit.trace(
                module, args or None, example_kwarg_inputs=None if args else settings, check_trace=False, strict=False
            )
            return ov.convert_model(script)
    finally:
        module.forward = forward


def saved(model: Any, path: Path, *, half: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, path, compress_to_fp16=half)
    return path


def network(name: str) -> nn.Module:
    if name != "mixed":
        return build(name)
    torch.manual_seed(0)
    module = Mixed().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module


def converted(name: str, module: nn.Module) -> Any:
    config: Any = getattr(module, "config", None)
    if config is not None and hasattr(config, "use_cache"):
        config.use_cache = False
    return traced(module, *inputs(name))


@pytest.mark.parametrize("name", [*TRACED, "mixed"])
def test_a_converted_network_is_the_same(name: str, tmp_path: Path) -> None:
    module = network(name)
    live = read(open_module(module))
    path = saved(converted(name, module), tmp_path / "a" / "openvino_model.xml")
    if hasattr(module, "config") and hasattr(module.config, "save_pretrained"):
        module.config.save_pretrained(path.parent)  # type: ignore[operator]
    [ref] = expand(path)
    assert ref.source == "openvino"
    found = read(open_ref(ref))
    same_layers(live, found)
    if name not in FOLDED:
        assert found.plan.parameters == live.plan.parameters
        assert found.plan.content_hash == live.plan.content_hash
        assert found.names <= live.names | {"lm_head.weight"}


@pytest.mark.parametrize("name", ["llama", "lstm", "unet"])
def test_half_precision_is_that_of_the_halves(name: str, tmp_path: Path) -> None:
    module = network(name)
    path = saved(converted(name, module), tmp_path / "m.xml", half=True)
    halved = read(open_module(module.half()))
    found = read(open_ref(expand(path)[0]))
    same_layers(halved, found)
    assert found.plan.precision == "float16"


def test_a_network_without_names_is_in_the_order_of_the_graph(tmp_path: Path) -> None:
    """As torch.export gives it: no name of a parameter is left."""
    module = build("llama")
    live = read(open_module(module))
    module.config.use_cache = False  # type: ignore[union-attr]
    args, settings = inputs("llama")
    module.forward = plain(module.forward)
    program = torch.export.export(module, args, settings)
    found = read(open_ref(expand(saved(ov.convert_model(program), tmp_path / "m.xml"))[0]))
    assert [layer.shape for layer in found.plan.layers] == [layer.shape for layer in live.plan.layers]
    for one, two in zip(live.matrices, found.matrices, strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.plan.content_hash == live.plan.content_hash
    assert any("in the order of the graph" in note for note in found.plan.notes)


def test_a_network_converted_from_onnx_is_the_same(tmp_path: Path) -> None:
    module = build("bert")
    live = read(open_module(module))
    onnx = to_onnx(module, "bert", tmp_path / "onnx" / "m.onnx", dynamo=False)
    found = read(open_ref(expand(saved(ov.convert_model(onnx), tmp_path / "m.xml"))[0]))
    same = {layer.shape for layer in live.plan.layers}
    assert {layer.shape for layer in found.plan.layers} == same
    assert len(found.matrices) == len(live.matrices)
    for matrix in live.matrices:
        assert any(matrix.shape == each.shape and np.array_equal(matrix, each) for each in found.matrices)


class Stack(nn.Sequential):
    """Convolutions with batch norms, one of them depthwise, whose names are in the order of the graph."""

    def __init__(self) -> None:
        convs = (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1, bias=False))
        parts: list[nn.Module] = []
        for conv in convs:
            parts += [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()]
        super().__init__(*parts, nn.Flatten(), nn.Linear(16 * 4 * 4, 5))


def test_a_folded_batch_norm_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Stack().eval()
    with torch.no_grad():
        for part in module:
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.running_mean, part.running_var, part.weight, part.bias):
                    tensor.uniform_(0.5, 2)  # type: ignore[union-attr]
    live = read(open_module(module))
    path = saved(traced(module, (torch.randn(1, 3, 8, 8),), {}), tmp_path / "m.xml")
    found = read(open_ref(expand(path)[0]))
    assert "batch norm was folded into 3 convolutions by the converter" in found.plan.notes
    assert distances(live.measured, found.measured)["layered"] > 1e-3  # the control: not the same as stored
    save_file(folded_state(module), tmp_path / "folded.safetensors")
    twin = read(open_ref(expand(tmp_path / "folded.safetensors")[0]))
    assert [layer.shape for layer in found.plan.layers] == [layer.shape for layer in twin.plan.layers]
    for one, two in zip(found.matrices, twin.matrices, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert found.plan.parameters == twin.plan.parameters


# Compressed weights


def asymmetric(weight: np.ndarray) -> tuple[Any, np.ndarray]:
    """As NNCF's INT8_ASYM: one zero point and scale an output; the step that undoes it, and what it should give."""
    low, high = weight.min(1, keepdims=True), weight.max(1, keepdims=True)
    scale = ((high - low) / 255).astype(np.float32)
    zero = np.rint(-low / scale).clip(0, 255).astype(np.uint8)
    codes = np.rint(weight / scale + zero).clip(0, 255).astype(np.uint8)
    centred = ops.subtract(
        ops.convert(ops.constant(codes, ov.Type.u8), ov.Type.f32), ops.convert(ops.constant(zero), ov.Type.f32)
    )
    return ops.multiply(centred, ops.constant(scale)), (codes.astype(np.float32) - zero) * scale


def in_halves(weight: np.ndarray) -> tuple[Any, np.ndarray]:
    """As NNCF does for a model in half precision: codes, scales and products are halves until the last step."""
    scale = (abs(weight).max(1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(weight / scale.astype(np.float32)).clip(-128, 127).astype(np.int8)
    whole = ops.multiply(ops.convert(ops.constant(codes), ov.Type.f16), ops.constant(scale))
    return ops.convert(whole, ov.Type.f32), codes.astype(np.float32) * scale.astype(np.float32)


def grouped(kind: str) -> Callable[[np.ndarray], tuple[Any, np.ndarray]]:
    """As NNCF's INT4 and NF4: groups of eight inputs with a scale each."""

    def compress(weight: np.ndarray) -> tuple[Any, np.ndarray]:
        rows, columns = weight.shape
        parts = weight.reshape(rows, columns // 8, 8)
        scale = (abs(parts).max(-1, keepdims=True) / (1 if kind == "nf4" else 7)).astype(np.float32)
        steps = parts / scale
        if kind == "nf4":
            stored = ops.constant(steps.clip(-1, 1), ov.Type.nf4)
        elif kind == "u4":
            stored = ops.constant((np.rint(steps) + 8).clip(0, 15).astype(np.uint8), ov.Type.u4)
        else:
            stored = ops.constant(np.rint(steps).clip(-8, 7).astype(np.int8), ov.Type.i4)
        values: Any = ops.convert(stored, ov.Type.f32)
        if kind == "u4":
            values = ops.subtract(values, ops.convert(ops.constant(np.array(8, np.uint8), ov.Type.u4), ov.Type.f32))
        found = ops.reshape(ops.multiply(values, ops.constant(scale)), ops.constant(np.array([rows, columns])), False)
        return found, np.empty(0)

    return compress


COMPRESSED = {
    "int8": (asymmetric, "uint8 openvino"), "halves": (in_halves, "int8 openvino"),
    "int4": (grouped("i4"), "int4 openvino"), "uint4": (grouped("u4"), "uint4 openvino"),
    "nf4": (grouped("nf4"), "nf4 openvino"),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_weights_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    compress, precision = COMPRESSED[kind]
    module = build("llama")
    model = converted("llama", module)
    expected: dict[str, np.ndarray] = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() != "Constant" or not name.endswith("proj.weight"):
            continue
        made, by_hand = compress(node.get_data().copy())
        oracle = ov.compile_model(ov.Model([made], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        expected[name.removeprefix("self.")] = oracle([])[0].copy()
        if by_hand.size and kind == "int8":
            np.testing.assert_array_equal(expected[name.removeprefix("self.")], by_hand)
        for use in list(node.output(0).get_target_inputs()):
            use.replace_source_output(made.output(0))
        codes = made
        while codes.get_input_size():
            codes = codes.input_value(0).get_node()
        codes.set_friendly_name(name)
    assert len(expected) == 14
    path = saved(model, tmp_path / "m.xml")
    live = read(open_module(module))
    with open_ref(expand(path)[0]) as checkpoint:
        for name, array in expected.items():
            # The library multiplies halves as halves; here they are multiplied as float32.
            tolerance = 2e-3 if kind == "halves" else 0
            np.testing.assert_allclose(checkpoint.read(name), array, rtol=tolerance, atol=0, err_msg=name)
    found = read(open_ref(expand(path)[0]))
    assert [layer.name for layer in found.plan.layers] == [layer.name for layer in live.plan.layers]
    assert precision in found.plan.precision
    assert found.plan.parameters == live.plan.parameters
