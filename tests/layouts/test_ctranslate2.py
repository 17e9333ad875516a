"""Networks converted by CTranslate2 give the layers, order and values of the module in memory.

The converter leaves positions before the first, and the padding of Marian's vocabulary, away.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from registry.sources import expand, open_module, open_ref
from tests.layouts.measured import distances, read
from tests.layouts.networks import build
from tests.sources.layouts import required

if TYPE_CHECKING:
    from pathlib import Path

    from tests.layouts.measured import Read

required("ctranslate2")
transformers = required("transformers")
_SIZES = {"vocab_size": 104, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}


def network(name: str) -> nn.Module:
    if name not in ("opt", "marian"):
        return build(name)
    torch.manual_seed(3)
    if name == "opt":
        config = transformers.OPTConfig(
            **_SIZES, hidden_size=32, num_hidden_layers=2, ffn_dim=48, max_position_embeddings=40,
            num_attention_heads=4, word_embed_proj_dim=32,
        )  # fmt: skip
        module: nn.Module = transformers.OPTForCausalLM(config)
    else:
        config = transformers.MarianConfig(vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1,
                                           encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
                                           decoder_ffn_dim=48, max_position_embeddings=40, pad_token_id=96,
                                           decoder_start_token_id=96, eos_token_id=0)  # fmt: skip
        module = transformers.MarianMTModel(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module.eval()


class Words:
    """A tokenizer of words that are numbers; the last is the padding."""

    unk_token, bos_token, eos_token, pad_token = "<unk>", "<s>", "</s>", "<pad>"
    unk_token_id, bos_token_id, eos_token_id, pad_token_id = 3, 1, 2, 0
    additional_special_tokens: tuple[str, ...] = ()

    def get_vocab(self) -> dict[str, int]:
        return {**{f"t{number}": number for number in range(96)}, "<pad>": 96}

    def convert_ids_to_tokens(self, number: int) -> str:
        return f"t{number}"


def converted(module: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, quantisation: str | None) -> Read:
    from ctranslate2.converters import TransformersConverter

    module.save_pretrained(folder / "stored")  # type: ignore[operator]
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: Words())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries on each other
        TransformersConverter(str(folder / "stored")).convert(str(folder / "made"), quantization=quantisation)
    [ref] = expand(folder / "made" / "model.bin")
    assert ref.source == "ctranslate2"
    return read(open_ref(ref))


def same(live: Read, found: Read, tolerance: float = 0) -> None:
    assert [(layer.shape, layer.kind) for layer in found.plan.layers] == [
        (layer.shape, layer.kind) for layer in live.plan.layers
    ]
    largest = max(abs(matrix).max() for matrix in live.matrices)  # q, k and v of int16 have one scale
    for one, two, layer in zip(live.matrices, found.matrices, found.plan.layers, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=tolerance * largest, err_msg=layer.name)


@pytest.mark.parametrize(
    "name", ["gpt2", "opt", "llama", "llama-tied", "bloom", "falcon", "starcoder", "t5", "whisper"]
)
def test_a_converted_network_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = network(name)
    live: Any = read(open_module(module))
    found = converted(module, tmp_path, monkeypatch, None)
    same(live, found)
    assert set(distances(live.measured, found.measured).values()) == {0.0}
    if name in ("llama", "llama-tied", "t5"):
        assert found.plan.content_hash == live.plan.content_hash


def test_a_vocabulary_without_its_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = network("marian")
    live = read(open_module(module))
    found = converted(module, tmp_path, monkeypatch, None)
    assert len(found.matrices) == len(live.matrices)
    np.testing.assert_array_equal(found.matrices[0], live.matrices[0][:-1])
    for one, two in zip(live.matrices[1:], found.matrices[1:], strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("quantisation", "error"), [("int8", 0.5 / 127), ("int16", 0.5 / 1024), ("float16", 2**-11),
                                                     ("bfloat16", 2**-8)])  # fmt: skip
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_quantised_network_is_near(
    name: str, quantisation: str, error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As near as half a step of the codes, of which the largest weight of a row has all."""
    module = network(name)
    live = read(open_module(module))
    found = converted(module, tmp_path, monkeypatch, quantisation)
    same(live, found, tolerance=error * 1.001)
    assert found.plan.parameters == live.plan.parameters
    assert found.plan.precision == (f"{quantisation} ctranslate2" if quantisation.startswith("int") else quantisation)
    furthest = max(
        abs(one - two).max() / abs(one).max() for one, two in zip(live.matrices, found.matrices, strict=True)
    )
    assert furthest > error / 8  # the control: they are not the weights before
