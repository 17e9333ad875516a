"""Small networks of today's architectures, made with the libraries that define them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NETWORKS", "Network", "build"]

WIDTH, HEADS, DEPTH, VOCABULARY = 32, 4, 2, 97
_BASE = {
    "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "vocab_size": VOCABULARY,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GATED = {**_BASE, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}


@dataclass(frozen=True)
class Network:
    """How a network is made, and what is known of its layers.

    ``layers``: number of layer matrices, counted by hand from the architecture; 0 where it was not.
    """

    make: Callable[[], nn.Module]
    layers: int


def _transformers(config: str, model: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
        return made

    return make


def _timm(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        made: nn.Module = timm.create_model(name, pretrained=False, **settings)
        return made

    return make


class UNet(nn.Module):
    """Two levels down, two up, with transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = nn.Conv2d(3, 8, 3)
        self.down1 = nn.Conv2d(8, 16, 3)
        self.down2 = nn.Conv2d(16, 32, 3)
        self.up1 = nn.ModuleDict({"upconv_transpose": nn.ConvTranspose2d(32, 16, 2), "conv": nn.Conv2d(32, 16, 3)})
        self.up2 = nn.ModuleDict({"upconv_transpose": nn.ConvTranspose2d(16, 8, 2), "conv": nn.Conv2d(16, 8, 3)})
        self.outc = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, H) to a map of two channels; what is joined is cut to one size."""
        skips = [self.inc(x)]
        skips.append(self.down1(skips[0].relu()))
        x = self.down2(skips[1].relu())
        for level in (self.up1, self.up2):
            x, skip = level["upconv_transpose"](x.relu()), skips.pop()
            size = min(x.shape[-1], skip.shape[-1])
            x = level["conv"](torch.cat([x[..., :size, :size], skip[..., :size, :size]], 1))
        found: torch.Tensor = self.outc(x.relu())
        return found


class Recurrent(nn.Module):
    """An embedding, two recurrent layers and a head."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.rnn = cell(12, 16, num_layers=2)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(length, N) to (length, N, 5)."""
        found: torch.Tensor = self.head(self.rnn(self.embedding(tokens))[0])
        return found


def _lstm() -> nn.Module:
    return Recurrent(nn.LSTM)


def _gru() -> nn.Module:
    return Recurrent(nn.GRU)


_BLOCK = 4 + 3  # q, k, v, o; gate, up, down
NETWORKS: dict[str, Network] = {
    "bert": Network(_transformers("BertConfig", "BertForMaskedLM", **_BASE, intermediate_size=48), 2 + 6 * DEPTH + 1),
    "gpt2": Network(
        _transformers(
            "GPT2Config",
            "GPT2LMHeadModel",
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_head=HEADS,
            n_layer=DEPTH,
            n_positions=40,
            bos_token_id=1,
            eos_token_id=2,
        ),
        1 + 6 * DEPTH,
    ),
    "llama": Network(_transformers("LlamaConfig", "LlamaForCausalLM", **_GATED), 2 + _BLOCK * DEPTH),
    "llama-tied": Network(
        _transformers("LlamaConfig", "LlamaForCausalLM", **_GATED, tie_word_embeddings=True), 1 + _BLOCK * DEPTH
    ),
    "mixtral": Network(
        _transformers("MixtralConfig", "MixtralForCausalLM", **_GATED, num_local_experts=3, num_experts_per_tok=2),
        2 + (4 + 1 + 9) * DEPTH,
    ),
    "qwen2-moe": Network(
        _transformers(
            "Qwen2MoeConfig",
            "Qwen2MoeForCausalLM",
            **{
                **_GATED,
                "moe_intermediate_size": 24,
                "num_experts": 3,
                "num_experts_per_tok": 2,
                "shared_expert_intermediate_size": 40,
                "decoder_sparse_step": 1,
            },
        ),
        2 + (4 + 1 + 9 + 3) * DEPTH,
    ),
    "qwen3-moe": Network(
        _transformers(
            "Qwen3MoeConfig",
            "Qwen3MoeForCausalLM",
            **{
                **_GATED,
                "moe_intermediate_size": 24,
                "num_experts": 3,
                "num_experts_per_tok": 2,
                "decoder_sparse_step": 1,
            },
        ),
        2 + (4 + 1 + 9) * DEPTH,
    ),
    "gpt-oss": Network(
        _transformers(
            "GptOssConfig", "GptOssForCausalLM", **{**_GATED, "num_local_experts": 3, "num_experts_per_tok": 2}
        ),
        2 + (4 + 1 + 9) * DEPTH,
    ),
    "gpt-neox": Network(
        _transformers("GPTNeoXConfig", "GPTNeoXForCausalLM", **_BASE, intermediate_size=48), 2 + 6 * DEPTH
    ),
    "falcon": Network(
        _transformers("FalconConfig", "FalconForCausalLM", **_BASE, multi_query=True, new_decoder_architecture=False),
        1 + 6 * DEPTH,
    ),
    "falcon-new": Network(
        _transformers("FalconConfig", "FalconForCausalLM", **_BASE, num_kv_heads=2, new_decoder_architecture=True),
        1 + 6 * DEPTH,
    ),
    "bloom": Network(
        _transformers(
            "BloomConfig",
            "BloomForCausalLM",
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            n_head=HEADS,
            n_layer=DEPTH,
            bos_token_id=1,
            eos_token_id=2,
        ),
        1 + 6 * DEPTH,
    ),
    "starcoder": Network(
        _transformers(
            "GPTBigCodeConfig",
            "GPTBigCodeForCausalLM",
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_head=HEADS,
            n_layer=DEPTH,
            n_positions=40,
            multi_query=True,
            bos_token_id=1,
            eos_token_id=2,
        ),
        1 + 6 * DEPTH,
    ),
    "phi3": Network(_transformers("Phi3Config", "Phi3ForCausalLM", **_GATED), 2 + _BLOCK * DEPTH),
    "vit": Network(
        _transformers(
            "ViTConfig",
            "ViTForImageClassification",
            hidden_size=WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=DEPTH,
            intermediate_size=48,
            image_size=16,
            patch_size=4,
            num_labels=5,
        ),
        2 + 6 * DEPTH,
    ),
    "timm-vit": Network(
        _timm(
            "vit_tiny_patch16_224",
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            img_size=16,
            patch_size=4,
            num_classes=5,
        ),
        2 + 6 * DEPTH,
    ),
    "swin": Network(
        _transformers(
            "SwinConfig",
            "SwinForImageClassification",
            image_size=32,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            num_labels=5,
        ),
        2 + 6 * 2 + 1,
    ),
    "convnext": Network(
        _transformers(
            "ConvNextConfig",
            "ConvNextForImageClassification",
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_stages=2,
            num_labels=5,
        ),
        1 + 3 * 2 + 1 + 1,
    ),
    "mobilenet": Network(_timm("test_efficientnet", num_classes=5), 0),
    "unet": Network(UNet, 8),
    "lstm": Network(_lstm, 1 + 16 + 1),
    "gru": Network(_gru, 1 + 12 + 1),
    "whisper": Network(
        _transformers(
            "WhisperConfig",
            "WhisperForConditionalGeneration",
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        2 + 6 + 1 + 10,
    ),
    "t5": Network(
        _transformers(
            "T5Config",
            "T5ForConditionalGeneration",
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=8,
            d_ff=48,
            num_layers=1,
            num_decoder_layers=1,
            num_heads=HEADS,
            pad_token_id=0,
            decoder_start_token_id=0,
        ),
        1 + 6 + 10,
    ),
}


def build(name: str) -> nn.Module:
    """The network with weights of its own initialisation, and no two tensors alike."""
    torch.manual_seed(sum(map(ord, name)))
    module = NETWORKS[name].make().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module
