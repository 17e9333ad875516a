"""What is read beside the weights, and what is not."""

from __future__ import annotations

import importlib
import json
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from registry.errors import WeightsError
from registry.sources import expand, open_ref
from registry.sources.live_module import open_module
from registry.sources.model_files import MAX_BYTES
from registry.types import ModelCard

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

STATE = {"a.weight": torch.ones(4, 3), "b.weight": torch.arange(12.0).reshape(3, 4)}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 2,
    "vocab_size": 1000, "num_hidden_layers": 10**9, "quantization_config": {"quant_method": "gptq", "bits": 4},
}  # fmt: skip


def opened(path: Path) -> Checkpoint:
    with open_ref(expand(path)[0]) as checkpoint:
        return checkpoint


def model(folder: Path, name: str = "model.safetensors", **config: Any) -> Path:
    if name.endswith(".npz"):
        arrays: dict[str, Any] = {key: value.numpy() for key, value in STATE.items()}
        np.savez(folder / name, **arrays)
    elif name.endswith(".safetensors"):
        save_file(STATE, folder / name)
    else:
        torch.save(STATE, folder / name)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / name


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "weights.npz"])
def test_a_saved_folder_gets_its_architecture_by_itself(tmp_path: Path, name: str) -> None:
    model(tmp_path, name, **LLAMA)
    checkpoint = opened(tmp_path)
    assert checkpoint.ref.card == ModelCard(
        family="llama",
        architecture="LlamaForCausalLM",
        tags=(("heads", "8"), ("kv_heads", "2"), ("vocabulary", "1000"), ("quantisation", "gptq")),
    )
    assert checkpoint.facts.config["num_hidden_layers"] == 10**9
    assert checkpoint.facts.quantisation == LLAMA["quantization_config"]


def test_shards_have_the_configuration_of_their_index(tmp_path: Path) -> None:
    mapped = {name: f"model-{at:05}-of-00002.safetensors" for at, name in enumerate(STATE, 1)}
    for name, file in mapped.items():
        save_file({name: STATE[name]}, tmp_path / file, {"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    checkpoint = opened(tmp_path)
    assert checkpoint.ref.card.architecture == "LlamaForCausalLM"
    assert checkpoint.facts.metadata == {"format": "pt"}


def test_a_configuration_is_of_the_only_weights_or_of_none(tmp_path: Path) -> None:
    mine = model(tmp_path, "mine.safetensors", model_type="bert")
    torch.save({}, tmp_path / "optimizer.pt")
    assert opened(mine).ref.card.family == "bert"
    other = model(tmp_path, "other.pt")
    assert (opened(mine).ref.card, opened(other).ref.card) == (ModelCard(), ModelCard())
    saved = model(tmp_path)
    assert opened(saved).ref.card.family == "bert"
    assert opened(mine).facts.config == {}


def test_the_user_and_the_header_win_over_the_configuration(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors", {"architecture": "from the header"})
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["A"], "model_type": "m", "num_classes": 3}))
    (ref,) = expand(tmp_path)
    with open_ref(ref) as checkpoint:
        assert (checkpoint.ref.card.architecture, checkpoint.ref.card.family) == ("from the header", "m")
    given = ModelCard(family="mine", tags=(("classes", "4"),))
    with open_ref(replace(ref, card=given)) as checkpoint:
        assert (checkpoint.ref.card.family, checkpoint.ref.card.tags) == ("mine", (("classes", "4"),))


def test_what_timm_saves_for_the_hub_is_read(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    module = timm.create_model("resnet10t", num_classes=7)
    save_for_hf(module, str(tmp_path), model_config={"num_classes": 7}, safe_serialization="both")
    for name in ("model.safetensors", "pytorch_model.bin"):
        card = opened(tmp_path / name).ref.card
        assert (card.architecture, card.tags) == ("resnet10t", (("classes", "7"),))
    with open_module(module) as checkpoint:
        assert checkpoint.facts.config["architecture"] == "resnet10t"
        assert checkpoint.ref.card.architecture == "resnet10t"


def test_the_arguments_of_timms_training_are_read(tmp_path: Path) -> None:
    yaml = importlib.import_module("yaml")

    arguments = {"aa": None, "lr": 0.1, "model": "resnet18", "model_kwargs": {"num_classes": 5}, "num_classes": 10}
    (tmp_path / "args.yaml").write_text(yaml.safe_dump(arguments, default_flow_style=False))
    card = opened(model(tmp_path, "last.pth")).ref.card
    model(tmp_path, "checkpoint-3.pth")
    assert opened(tmp_path / "last.pth").ref.card == card
    assert (card.architecture, card.tags) == ("resnet18", (("classes", "10"),))
    assert opened(model(tmp_path, "other.pth")).ref.card == ModelCard()


def test_labels_are_counted_and_not_kept(tmp_path: Path) -> None:
    labels = {str(at): "x" * 40 for at in range(21_843)}
    checkpoint = opened(model(tmp_path, id2label=labels, label2id={}, model_type="vit"))
    assert ("classes", "21843") in checkpoint.ref.card.tags
    assert set(checkpoint.facts.config) == {"model_type", "num_labels"}


@pytest.mark.parametrize(
    ("config", "files", "wanted", "tag"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, {}, {"group_size": 64, "bits": 4}, "mlx"),
        ({}, {"quantize_config.json": {"bits": 4, "desc_act": True}}, {"bits": 4, "desc_act": True}, "gptq"),
        ({}, {"quant_config.json": {"w_bit": 4, "version": "GEMM"}}, {"w_bit": 4, "version": "GEMM"}, "awq"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            {"quantize_config.json": {"bits": 4, "checkpoint_format": "gptq_v2"}},
            {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
            "gptq",
        ),
        (
            {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
            {}, {"quant_method": "fp8"}, "fp8",
        ),
        (
            {},
            {"hf_quant_config.json": {"producer": {}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}},
            {"quant_algo": "NVFP4", "group_size": 16},
            "nvfp4",
        ),
    ],
)  # fmt: skip
def test_how_the_weights_are_quantised(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], wanted: dict[str, Any], tag: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    checkpoint = opened(model(tmp_path, **config))
    assert checkpoint.facts.quantisation == wanted
    assert dict(checkpoint.ref.card.tags)["quantisation"] == tag


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "quantize_config.json").write_text('{"bits": 8}')
    with pytest.raises(WeightsError, match=r"model.safetensors: config.json and quantize_config.json .* 4 and 8 bits"):
        opened(model(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4}))


def test_an_adapter_has_its_own_configuration_and_no_quantisation(tmp_path: Path) -> None:
    said = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "org/base", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    base = model(tmp_path, **LLAMA)
    adapter = opened(model(tmp_path, "adapter_model.safetensors"))
    assert (adapter.facts.adapter, adapter.facts.quantisation) == (said, {})
    assert {("adapter", "lora"), ("rank", "8"), ("base_model", "org/base")} <= set(adapter.ref.card.tags)
    assert opened(base).facts.adapter == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b"[1]", "a list, not an object"),
        (b'{"a": [' + b"[]," * 500_000 + b"[]]}", "more than 400000 values"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "no valid JSON"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_configuration_is_ignored_with_a_note(tmp_path: Path, content: bytes, why: str) -> None:
    path = model(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    checkpoint = opened(path)
    assert (checkpoint.ref.card, checkpoint.facts.config) == (ModelCard(), {})
    (note,) = checkpoint.facts.notes
    assert note.startswith("config.json is ignored")
    assert why in note
    assert "\n" not in note


def test_a_configuration_of_a_gigabyte_costs_nothing(tmp_path: Path) -> None:
    path = model(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**30)
    tracemalloc.start()
    began = time.perf_counter()
    checkpoint = opened(path)
    assert time.perf_counter() - began < 2
    assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    tracemalloc.stop()
    assert checkpoint.facts.notes == ("config.json is ignored: it has 1024 MiB, more than 4",)


def test_other_kinds_of_files_are_ignored_with_a_note(tmp_path: Path) -> None:
    path = model(tmp_path)
    (tmp_path / "config.json").mkdir()
    outside = tmp_path.parent / f"{tmp_path.name}.json"
    outside.write_text('{"bits": 4}')
    (tmp_path / "quantize_config.json").symlink_to(outside)
    facts = opened(path).facts
    assert (facts.config, facts.quantisation) == ({}, {})
    assert [note.partition(" ")[0] for note in facts.notes] == ["config.json", "quantize_config.json"]


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": [3], "model_type": ["x"], "num_attention_heads": "8"},
        {"architectures": {}, "vocab_size": -1, "num_labels": True},
        {"num_attention_heads": 10**30, "text_config": 4, "quantization_config": "int4"},
    ],
)
def test_a_configuration_of_nonsense_is_an_empty_card(tmp_path: Path, config: dict[str, Any]) -> None:
    card = opened(model(tmp_path, **config)).ref.card
    assert (card.architecture, card.tags) == ("", ())


def test_text_that_no_database_holds_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "a\\u0000b\\ud800", "architectures": ["' + "x" * 5000 + '"]}')
    card = opened(model(tmp_path)).ref.card
    assert (card.family, len(card.architecture)) == ("ab?", 200)


def test_tied_tensors_are_named_by_the_header(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    save_model(Tied(), str(tmp_path / "model.safetensors"))
    checkpoint = opened(tmp_path)
    (stored,) = (info.name for info in checkpoint.tensors)
    (missing,) = {"embed.weight", "head.weight"} - {stored}
    assert checkpoint.facts.aliases == {missing: stored}


def test_aliases_in_a_circle_are_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors", {"x.weight": "y.weight", "y.weight": "x.weight", "format": "pt"})
    with pytest.raises(WeightsError, match=r"aliases x.weight, y.weight in its header name each other"):
        opened(tmp_path)
    save_file(STATE, tmp_path / "model.safetensors", {"x.weight": "y.weight", "y.weight": "a.weight", "same": "same"})
    assert opened(tmp_path).facts.aliases == {"x.weight": "a.weight", "y.weight": "a.weight"}


def test_a_module_with_a_configuration_tells_what_it_is() -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return {"model_type": "tiny", "num_attention_heads": 2}

    class TinyModel(torch.nn.Linear):
        config = Config()

    with open_module(TinyModel(3, 4)) as checkpoint:
        assert checkpoint.ref.card == ModelCard(family="tiny", architecture="TinyModel", tags=(("heads", "2"),))

    class Other(torch.nn.Linear):
        config = {"lr": 0.1}  # noqa: RUF012

    with open_module(Other(3, 4)) as checkpoint:
        assert (checkpoint.ref.card, checkpoint.facts.config) == (ModelCard(), {})
