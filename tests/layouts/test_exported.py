"""Networks exported to ONNX give the layers, order and values of the module in memory.

Exporters fold what is constant: batch norms into convolutions, position tables with constant positions. The layers are
compared after the same folding; parameters only where nothing was folded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from registry.sources import expand, open_module, open_ref
from tests.layouts.exported import to_onnx
from tests.layouts.measured import distances, read
from tests.layouts.networks import build

if TYPE_CHECKING:
    from pathlib import Path

    from tests.layouts.measured import Read

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

# Each exporter lacks operators of the others; experts are followed by neither.
TRACED = ("bert", "llama", "llama-tied", "gpt-neox", "phi3", "vit", "timm-vit", "swin", "convnext", "unet", "lstm",
          "gru", "gpt2", "starcoder", "bloom", "t5")  # fmt: skip
CAPTURED = ("bert", "llama", "llama-tied", "gpt-neox", "phi3", "vit", "timm-vit", "convnext", "unet", "lstm", "gru",
            "gpt2", "starcoder", "whisper")  # fmt: skip
# Position tables that the exporter folded with constant positions; the layers are the same.
FOLDED = {("bert", True), ("gpt2", True), ("starcoder", True), ("whisper", True), ("swin", False)}


def same_layers(live: Read, found: Read) -> None:
    assert [(layer.name, layer.shape) for layer in found.plan.layers] == [
        (layer.name, layer.shape) for layer in live.plan.layers
    ]
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=layer.name)
    assert set(distances(live.measured, found.measured).values()) == {0.0}


@pytest.mark.parametrize(
    ("name", "dynamo"), [*((name, False) for name in TRACED), *((name, True) for name in CAPTURED)]
)
def test_an_exported_network_is_the_same(name: str, dynamo: bool, tmp_path: Path) -> None:
    module = build(name)
    live = read(open_module(module))
    [ref] = expand(to_onnx(module, name, tmp_path / "model.onnx", dynamo=dynamo))
    assert ref.source == "onnx"
    found = read(open_ref(ref))
    same_layers(live, found)
    if (name, dynamo) not in FOLDED:
        assert found.plan.parameters == live.plan.parameters
        assert found.plan.content_hash == live.plan.content_hash
    assert found.names <= live.names | {"lm_head.weight", "model.lm_head.weight"}


def folded_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a network with its batch norms folded into the convolutions before them, in float64."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    before: tuple[str, nn.Conv2d] | None = None
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            before = (name, part)
        elif isinstance(part, nn.BatchNorm2d) and before is not None:
            assert part.running_mean is not None
            assert part.running_var is not None
            scale = part.weight.double() / torch.sqrt(part.running_var.double() + part.eps)
            weight = before[1].weight.double() * scale[:, None, None, None]
            state[f"{before[0]}.weight"] = weight.float()
            bias = before[1].bias.double() if before[1].bias is not None else 0.0
            state[f"{before[0]}.bias"] = ((bias - part.running_mean.double()) * scale + part.bias.double()).float()
            for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                del state[f"{name}.{leaf}"]
            before = None
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "captured"])
def test_a_folded_batch_norm_is_named(dynamo: bool, tmp_path: Path) -> None:
    module = build("mobilenet")
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    live = read(open_module(module))
    [ref] = expand(to_onnx(module, "mobilenet", tmp_path / "m.onnx", dynamo=dynamo))
    found = read(open_ref(ref))
    assert found.plan.notes == ("batch norm was folded into 13 convolutions by the exporter",)
    assert not any("running" in name for name in found.names)
    assert distances(live.measured, found.measured)["layered"] > 1e-3  # the control: not the same as stored
    save_file(folded_state(module), tmp_path / "folded.safetensors")
    twin = read(open_ref(expand(tmp_path / "folded.safetensors")[0]))
    assert [layer.name for layer in found.plan.layers] == [layer.name for layer in twin.plan.layers]
    for one, two in zip(found.matrices, twin.matrices, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert max(distances(found.measured, twin.measured).values()) < 1e-5
    assert found.plan.parameters == twin.plan.parameters


class Mixed(nn.Module):
    """Modules whose names and layouts exporters change: sequences in sequences, attention, recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 1)))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8, bias=False)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True, num_layers=2)
        self.gru = nn.GRU(12, 5, batch_first=True)
        self.rnn = nn.RNN(5, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.gamma = nn.Parameter(torch.randn(8))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 3, 2, 2) to one number."""
        x = self.stem(image)
        up = self.up(x)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + self.gamma * block(x)
        x = self.norm(x)
        x = self.attention(x, x, x)[0]
        for part in (self.lstm, self.gru, self.rnn):
            x = part(x)[0]
        found: torch.Tensor = self.head(x).sum() + up.sum()
        return found


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "captured"])
def test_every_kind_of_layer(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Mixed().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    live = read(open_module(module))
    [ref] = expand(to_onnx(module, "mixed", tmp_path / "m.onnx", dynamo=dynamo))
    found = read(open_ref(ref))
    same_layers(live, found)
    assert found.plan.parameters == live.plan.parameters
    assert found.plan.content_hash == live.plan.content_hash
    assert found.names == live.names
