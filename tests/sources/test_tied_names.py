"""Tied weights: one model, whichever of their names are saved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from registry.errors import WeightsError
from registry.sources import layer_matrix, open_module, plan_weights
from registry.sources.effective_weights import effective
from registry.sources.references import expand, open_ref
from tests.sources.layouts import required

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint, WeightsPlan

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"vocab_size": 40}


def gpt2(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **SMALL, **more)
    return transformers.GPT2LMHeadModel(config)


def bert(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **SMALL, **more
    )
    return transformers.BertForMaskedLM(config)


def t5(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, **SMALL, **more)
    return transformers.T5ForConditionalGeneration(config)


def whisper(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, max_source_positions=12, max_target_positions=12,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **SMALL, **more,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def bart(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.BartConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=12, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, **SMALL, **more,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


def llama(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        **SMALL, **{"tie_word_embeddings": True, **more},
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def roberta(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.RobertaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **SMALL, **more
    )
    return transformers.RobertaForMaskedLM(config)


def distilbert(**more: Any) -> Any:
    transformers = required("transformers")
    config = transformers.DistilBertConfig(dim=16, hidden_dim=24, n_layers=2, n_heads=2, **SMALL, **more)
    return transformers.DistilBertForMaskedLM(config)


MODELS: dict[str, Callable[..., Any]] = {
    "gpt2": gpt2, "bert": bert, "t5": t5, "whisper": whisper, "bart": bart, "llama": llama, "roberta": roberta,
    "distilbert": distilbert,
}  # fmt: skip


def opened(path: Path) -> Checkpoint:
    return open_ref(expand(path)[0])


def identity(plan: WeightsPlan) -> tuple[object, ...]:
    """All that must not depend on which names are saved."""
    layers = [(layer.p, layer.q, layer.kind) for layer in plan.layers]
    return layers, plan.topology, plan.content_hash, plan.parameters


def identity_of(checkpoint: Checkpoint) -> tuple[object, ...]:
    with checkpoint:
        plan = plan_weights(checkpoint)
        return *identity(plan), [layer_matrix(checkpoint, layer).tobytes() for layer in plan.layers]


def tied_groups(model: Any) -> list[list[str]]:
    """Names of the same memory."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(tensor.data_ptr(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


@pytest.mark.parametrize("kind", MODELS)
def test_every_way_of_saving_is_one_model(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = MODELS[kind]()
    groups = tied_groups(model)
    assert groups
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    expected = identity_of(open_module(model))
    assert expected[3] == sum(parameter.numel() for parameter in set(model.parameters()))

    torch.save(state, tmp_path / "both.pt")
    torch.save({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "copies.pt")
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "copies.safetensors")
    model.save_pretrained(tmp_path / "pretrained")
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    save_model(model, str(tmp_path / "aliases.safetensors"))
    with safe_open(tmp_path / "aliases.safetensors", "pt") as file:
        assert set(file.metadata()) - {"format"}
    paths = [tmp_path / name for name in ("both.pt", "copies.pt", "copies.safetensors", "aliases.safetensors")]
    paths += [tmp_path / "pretrained" / "model.safetensors", tmp_path / "shards" / "model.safetensors.index.json"]
    # The embedding alone, and the head alone, with the configuration beside it and without.
    config = (tmp_path / "pretrained" / "config.json").read_text()
    matrices = next(names for names in groups if state[names[0]].ndim == 2)
    for position, kept in enumerate(matrices):
        if kind == "bart" and kept.endswith("coder.embed_tokens.weight"):
            continue  # which transformers writes of no such model
        alone = {n: t for n, t in state.items() if n == kept or n not in matrices}
        for beside in (True, False):
            folder = tmp_path / f"alone {position} {beside}"
            folder.mkdir()
            save_file({name: tensor.clone() for name, tensor in alone.items()}, folder / "model.safetensors")
            if beside:
                (folder / "config.json").write_text(config)
            paths.append(folder / "model.safetensors")
    for path in paths:
        found = identity_of(opened(path))
        assert found == expected, path


@pytest.mark.parametrize("kind", ["gpt2", "bert", "llama"])
def test_an_untied_model_is_another_and_keeps_its_head(kind: str, tmp_path: Path) -> None:
    """Negative control."""
    torch.manual_seed(1)
    model = MODELS[kind](tie_word_embeddings=False)
    tied = identity_of(open_module(MODELS[kind]()))
    model.save_pretrained(tmp_path / "a")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    expected = identity_of(open_module(model))
    assert identity_of(opened(tmp_path / "a" / "model.safetensors")) == expected
    assert identity_of(opened(tmp_path / "a.pt")) == expected
    assert len(expected[0]) == len(tied[0]) + 1
    assert expected[3] >= tied[3] + 40 * 16
    # Without its embedding it is incomplete, and its head is no embedding.
    heads = ("lm_head.weight", "cls.predictions.decoder.weight")
    for name in [n for n, t in load_file(tmp_path / "a" / "model.safetensors").items() if t.shape == (40, 16)]:
        if name not in heads:
            state = load_file(tmp_path / "a" / "model.safetensors")
            del state[name]
            save_file(state, tmp_path / "a" / "model.safetensors")
    with opened(tmp_path / "a" / "model.safetensors") as checkpoint:
        assert plan_weights(checkpoint).layers[-1].name in heads


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_buffers_change_nothing(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {name: tensor.clone() for name, tensor in MODELS[kind]().state_dict().items()}
    expected = identity_of(open_module(state))
    buffers = {
        "embeddings.position_ids": torch.arange(12)[None],
        "embeddings.token_type_ids": torch.zeros(1, 12, dtype=torch.int64),
        "h.0.attn.bias": torch.ones(1, 1, 12, 12).tril(),
        "h.1.attn.bias": torch.ones(1, 1, 12, 12, dtype=torch.bool).tril(),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "rotary.inv_freq": torch.rand(8),
        "rotary.cos_cached": torch.rand(12, 8),
        "causal_mask": torch.ones(12, 12).tril(),
        "bn.num_batches_tracked": torch.tensor(7),
        "bn.running_mean": torch.rand(16),
        "bn.running_var": torch.rand(16),
    }
    for path, extra in (("all", buffers), *((name, {name: tensor}) for name, tensor in buffers.items())):
        torch.save({**state, **extra}, tmp_path / f"{path}.pt")
        assert identity_of(opened(tmp_path / f"{path}.pt")) == expected, path
    for name in ("transformer.h.0.ln_1.weight", "bert.encoder.layer.0.output.LayerNorm.weight"):
        if name in state:  # negative control: a gain is no buffer
            assert identity_of(open_module({n: t for n, t in state.items() if n != name}))[2:4] != expected[2:4]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 6)
        self.second = nn.Linear(8, 6)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, 4)


def write(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    save_file(state, path, metadata)
    return path


def test_metadata_of_other_kinds_is_no_alias(tmp_path: Path) -> None:
    model = Tied()
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "second.weight"}
    expected = identity_of(open_module(model))
    notes = {"format": "pt", "author": "first", "note": "first.bias is zero", "first.bias": "last.bias"}
    path = write(tmp_path / "a.safetensors", state, {**notes, "second.weight": "first.weight"})
    assert identity_of(opened(path)) == expected
    with opened(path) as checkpoint:
        assert set(effective(checkpoint).view.tensors) == {*state, "second.weight"}
        assert [s.name for s in plan_weights(checkpoint).skipped if s.reason.startswith("tied to")] == ["second.weight"]


def test_aliases_of_shards_and_under_a_wrapper(tmp_path: Path) -> None:
    model = Tied()
    expected = identity_of(open_module(model))
    state = model.state_dict()
    for prefix in ("", "module."):
        folder = tmp_path / f"shards{prefix}"
        folder.mkdir()
        first = {f"{prefix}{name}": state[name] for name in ("first.weight", "first.bias")}
        second = {f"{prefix}{name}": state[name] for name in ("second.bias", "last.weight", "last.bias")}
        write(folder / "model-00001-of-00002.safetensors", first, {f"{prefix}second.weight": f"{prefix}first.weight"})
        write(folder / "model-00002-of-00002.safetensors", second, {"format": "pt"})
        names = {name: f"model-0000{1 + (name in second)}-of-00002.safetensors" for name in (*first, *second)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
        assert identity_of(opened(folder / "model.safetensors.index.json")) == expected
        whole = write(
            tmp_path / f"{prefix}whole.safetensors",
            {**first, **second},
            {f"{prefix}second.weight": f"{prefix}first.weight"},
        )
        assert identity_of(opened(whole)) == expected


def test_aliases_in_a_circle_and_to_missing_names(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in Tied().state_dict().items() if name != "second.weight"}
    path = write(tmp_path / "a.safetensors", state, {"a.weight": "b.weight", "b.weight": "a.weight"})
    with pytest.raises(WeightsError, match=r"a\.weight, b\.weight") as refused:
        opened(path)
    assert "\n" not in str(refused.value)
    path = write(tmp_path / "b.safetensors", state, {"a.weight": "nowhere.weight", "second.weight": "first.weight"})
    assert identity_of(opened(path)) == identity_of(open_module({**state, "second.weight": state["first.weight"]}))
    chain = {"third.weight": "second.weight", "second.weight": "first.weight"}
    path = write(tmp_path / "c.safetensors", state, chain)
    with opened(path) as checkpoint:
        assert plan_weights(checkpoint).parameters == sum(t.numel() for t in state.values())


def test_vectors_are_copies_by_memory_or_name_alone() -> None:
    """Two biases that the same gradients train are equal, and two parameters."""
    torch.manual_seed(2)
    gains = torch.rand(16)

    def count(**vectors: torch.Tensor) -> int:
        state = {"a.weight": torch.randn(16, 16), **{name.replace("_", "."): each for name, each in vectors.items()}}
        with open_module(state) as checkpoint:
            return plan_weights(checkpoint).parameters - 256

    assert count(n1=gains, n2=gains.clone()) == 32
    assert count(b1=torch.zeros(16), b2=torch.zeros(16)) == 32
    assert count(n1=gains, n2=gains) == 16
    for each in (gains, torch.zeros(16)):
        assert count(cls_predictions_bias=each, cls_predictions_decoder_bias=each.clone()) == 16
    assert count(cls_predictions_bias=gains, cls_predictions_decoder_bias=gains + 1) == 32


def test_an_output_layer_that_is_no_embedding_stays_where_it_is(tmp_path: Path) -> None:
    """Of a classifier, of letters for frames of sound, and of a language model whose embedding has another size."""
    body = {f"layers.{i}.weight": torch.randn(16, 16) for i in range(2)}
    speech = {f"model.encoder.{name}": tensor for name, tensor in body.items()}
    head = torch.randn(9, 16)

    def last(state: dict[str, torch.Tensor], **config: Any) -> str:
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        with opened(tmp_path) as checkpoint:
            layers = plan_weights(checkpoint).layers
        assert len(layers) == len(state) - ("lm_head.bias" in state)
        assert {layer.name for layer in layers} <= state.keys()
        return layers[-1].name

    assert last({**body, "output.weight": head}) == "output.weight"
    assert last({**speech, "lm_head.weight": head, "lm_head.bias": torch.randn(9)}) == "lm_head.weight"
    assert last({**speech, "lm_head.weight": head}, architectures=["HubertForCTC"]) == "lm_head.weight"
    wide = {**body, "input_embedding.weight": torch.randn(30, 16), "lm_head.weight": head}
    assert last(wide) == "lm_head.weight"
    with open_module({**speech, "lm_head.weight": head}) as checkpoint:  # a language model, as far as anything tells
        assert plan_weights(checkpoint).layers[0].name == "model.encoder.embed_tokens.weight"


def test_a_module_that_is_used_twice_is_counted_once_in_every_file(tmp_path: Path) -> None:
    """Also where its copies are stored apart; equal vectors of modules with other matrices are counted each."""
    torch.manual_seed(5)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
            own = [nn.Linear(8, 8) for _ in range(2)]
            self.blocks = nn.ModuleList(nn.ModuleDict({"shared": shared, "own": each}) for each in own)

    module = Net()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
        module.blocks[1]["own"].bias.copy_(module.blocks[0]["own"].bias)
    expected = sum(parameter.numel() for parameter in set(module.parameters()))
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    save_model(module, str(tmp_path / "b.safetensors"))
    for opened_one in (open_module(module), opened(tmp_path / "a.safetensors"), opened(tmp_path / "b.safetensors")):
        with opened_one as checkpoint:
            assert plan_weights(checkpoint).parameters == expected


@pytest.mark.parametrize("first", ["ema_model.", "model_ema.", "ema.module.", "ema.ema_model."])
def test_an_average_beside_the_model_is_no_second_network(first: str) -> None:
    """As Lightning modules hold it, also without dots; one of other shapes or names is a part of the network."""
    torch.manual_seed(6)
    body = {f"{n}.weight": torch.randn(8, 8) for n in range(2)} | {"0.bias": torch.randn(8)}
    state = {f"model.{name}": tensor for name, tensor in body.items()}
    inside = {name.replace(".", "") if first == "model_ema." else name: tensor + 1 for name, tensor in body.items()}
    average = {f"{first}{name}": tensor for name, tensor in inside.items()} | {f"{first}decay": torch.tensor(0.9)}
    with open_module(state) as alone, open_module({**state, **average}) as both:
        one, other = plan_weights(alone), plan_weights(both)
        assert identity(one) == identity(other)
        assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
    assert "average of the weights beside it" in other.notes[0]
    with open_module({**state, **average, f"{first}9.weight": torch.randn(8, 8)}) as checkpoint:
        assert len(plan_weights(checkpoint).layers) == 5
