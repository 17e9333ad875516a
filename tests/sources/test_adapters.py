"""LoRA adapters against peft's own merge."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from registry.errors import NotFoundError, SourceError, UsageError, WeightsError
from registry.sources import layer_matrix, open_module, plan_weights
from registry.sources.effective_weights import effective
from registry.sources.references import expand, open_ref
from tests.sources.layouts import required

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.types import Checkpoint, WeightsPlan

# peft multiplies and adds in float32; here the sum is rounded once.
BOUND = 3e-6

pytestmark = pytest.mark.filterwarnings("ignore")


def gpt2() -> Any:
    transformers = required("transformers")
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=32, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0
    )
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    transformers = required("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=40,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def tied_llama() -> Any:
    transformers = required("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=40, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def bert() -> Any:
    transformers = required("transformers")
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=40, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


class Mixed(nn.Module):
    """Layers that peft adapts each in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.conv1 = nn.Conv1d(4, 6, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.point = nn.Conv2d(6, 6, 1)
        self.attn = nn.MultiheadAttention(16, 2)
        self.square = nn.Linear(16, 16)
        self.final = nn.Linear(16, 4)


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "gpt2 with patterns": (
        gpt2,
        {
            "target_modules": ["c_attn", "c_proj"],
            "rank_pattern": {"^transformer.h.0.attn.c_proj": 2, "mlp.c_proj": 3},
            "alpha_pattern": {"h.1.attn.c_attn": 5, "c_proj": 7},
        },
    ),
    "llama": (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_rslora": True}),
    "llama with biases": (llama, {"target_modules": ["q_proj"], "lora_bias": False, "bias": "all"}),
    "tied embedding": (tied_llama, {"target_modules": ["embed_tokens", "up_proj"]}),
    "bert": (bert, {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"}),
    "bert with lora_bias": (bert, {"target_modules": ["query"], "lora_bias": True, "bias": "lora_only"}),
    "mixed": (Mixed, {"target_modules": ["embed", "conv1", "conv2", "point", "square"], "modules_to_save": ["final"]}),
    "attention": (Mixed, {"target_modules": ["attn"]}),
}


def adapted(kind: str, *, dtype: torch.dtype | None = None) -> Any:
    """A peft model whose adapters are of normal numbers."""
    peft = required("peft")
    torch.manual_seed(3)
    build, settings = MODELS[kind]
    base = build()
    if dtype is not None:
        base = base.to(dtype)
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=6, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.3)
            elif parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def merged_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.merge_and_unload().state_dict().items()}


def opened_path(path: Path, base: str = "") -> Checkpoint:
    from dataclasses import replace

    return open_ref(replace(expand(path)[0], base=base))


def summary(plan: WeightsPlan) -> list[tuple[str, int, int, str]]:
    return [(layer.name, layer.p, layer.q, layer.kind) for layer in plan.layers]


def assert_merged(opened: Checkpoint, expected: dict[str, torch.Tensor], bound: float = BOUND) -> WeightsPlan:
    """The layers are those of the merged model, and so is every tensor."""
    with opened, open_module(expected) as merged:
        plan, wanted = plan_weights(opened), plan_weights(merged)
        assert summary(plan) == summary(wanted)
        assert plan.parameters == wanted.parameters
        assert plan.topology == wanted.topology
        view = effective(opened).view
        assert set(view.tensors) == set(expected)
        for name, tensor in expected.items():
            found = view.tensors[name]
            assert found.shape == tuple(tensor.shape), name
            wide = tensor.double().numpy()
            np.testing.assert_allclose(
                found.read(), wide, rtol=0, atol=bound * max(1.0, np.abs(wide).max()), err_msg=name
            )
            if found.shape and "lora" in found.precision:
                parts = [found.rows(i, i + 1) for i in range(found.shape[0])]
                np.testing.assert_allclose(np.concatenate(parts), found.read(), rtol=1e-6, atol=1e-7)
        for layer, other in zip(plan.layers, wanted.layers, strict=True):
            np.testing.assert_allclose(
                layer_matrix(opened, layer), layer_matrix(merged, other), rtol=0, atol=bound * 10
            )
        return plan


def saved_full(model: Any, folder: Path) -> Path:
    """peft's full state dict with its configuration beside it."""
    folder.mkdir()
    model.peft_config["default"].save_pretrained(folder)
    torch.save(model.state_dict(), folder / "full.pt")
    return folder / "full.pt"


def saved_apart(model: Any, folder: Path) -> tuple[Path, Path]:
    """The adapter as ``save_pretrained`` writes it, and the base."""
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    base = MODELS_BASE(model)
    (folder / "base").mkdir()
    torch.save(base, folder / "base" / "model.pt")
    return folder / "adapter" / "adapter_model.safetensors", folder / "base" / "model.pt"


def MODELS_BASE(model: Any) -> dict[str, torch.Tensor]:  # noqa: N802
    """The base's state dict, without the adapter."""
    state = {}
    for name, tensor in model.get_base_model().state_dict().items():
        if "lora_" in name or "modules_to_save" in name:
            continue
        state[name.replace("base_layer.", "").replace("original_module.", "")] = tensor
    return state


@pytest.mark.parametrize("kind", MODELS)
def test_a_full_state_dict_and_a_live_model_are_the_merged_model(kind: str, tmp_path: Path) -> None:
    model = adapted(kind)
    full = saved_full(model, tmp_path / "full")
    with open_module(model) as live:
        plan = plan_weights(live)
    expected = merged_weights(model)
    found = assert_merged(opened_path(full), expected)
    assert found.content_hash == plan.content_hash
    assert " + lora" in found.precision


@pytest.mark.parametrize("kind", MODELS)
def test_an_adapter_and_its_base_are_the_merged_model(kind: str, tmp_path: Path) -> None:
    model = adapted(kind)
    adapter, base = saved_apart(model, tmp_path)
    full = saved_full(model, tmp_path / "full")
    expected = merged_weights(model)
    plan = assert_merged(opened_path(adapter, str(base)), expected)
    with opened_path(full) as whole:
        assert plan_weights(whole).content_hash == plan.content_hash


def test_the_hash_covers_base_adapter_and_scaling(tmp_path: Path) -> None:
    model = adapted("llama")
    adapter, base = saved_apart(model, tmp_path)

    def content(base: Path) -> str:
        with opened_path(adapter, str(base)) as opened:
            return plan_weights(opened).content_hash

    with opened_path(base) as plain:
        hashes = {plan_weights(plain).content_hash}
    hashes.add(content(base))
    config = adapter.parent / "adapter_config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "lora_alpha": 7}))
    hashes.add(content(base))
    config.write_text(json.dumps(said))
    state = torch.load(base)
    state["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    torch.save(state, tmp_path / "other.pt")
    hashes.add(content(tmp_path / "other.pt"))
    state = load_file(adapter)
    state[next(iter(state))][0, 0] += 1
    save_file(state, adapter)
    hashes.add(content(base))
    assert len(hashes) == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_base_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    """peft rounds the merged weight to the base's dtype; here it keeps what the unmerged model multiplies with."""
    model = adapted("llama", dtype=dtype)
    adapter, base = saved_apart(model, tmp_path)
    expected = merged_weights(model)
    assert_merged(opened_path(adapter, str(base)), expected, 2 * torch.finfo(dtype).eps)


def test_a_base_that_lacks_the_outermost_name(tmp_path: Path) -> None:
    """As gpt2 on the hub, whose tensors are named as in the model without a head."""
    model = adapted("gpt2")
    adapter, base = saved_apart(model, tmp_path)
    state = {
        name.removeprefix("transformer."): tensor for name, tensor in torch.load(base).items() if "lm_head" not in name
    }
    torch.save(state, tmp_path / "bare.pt")
    expected = {
        name.removeprefix("transformer."): tensor
        for name, tensor in merged_weights(model).items()
        if "lm_head" not in name
    }
    assert_merged(opened_path(adapter, str(tmp_path / "bare.pt")), expected)


def test_an_adapter_of_a_bare_model_on_a_base_with_a_head(tmp_path: Path) -> None:
    model = adapted("gpt2")
    adapter, base = saved_apart(model, tmp_path)
    state = {name.replace("model.transformer.", "model."): tensor for name, tensor in load_file(adapter).items()}
    save_file(state, adapter)
    assert_merged(opened_path(adapter, str(base)), merged_weights(model))


def test_the_base_that_the_configuration_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("bert")
    adapter, base = saved_apart(model, tmp_path)
    config = adapter.parent / "adapter_config.json"
    said = json.loads(config.read_text())
    expected = merged_weights(model)
    config.write_text(json.dumps({**said, "base_model_name_or_path": str(base.parent)}))
    assert_merged(opened_path(adapter), expected)
    # A repository of the hub counts if it is in the cache, and is never downloaded.
    config.write_text(json.dumps({**said, "base_model_name_or_path": "someone/a-base"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError, match="its base is someone/a-base, which is not here") as refused:
        opened_path(adapter)
    assert "--base hf:someone/a-base" in str(refused.value)
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--someone--a-base" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    save_file({name: t.contiguous() for name, t in torch.load(base).items()}, snapshot / "model.safetensors")
    assert_merged(opened_path(adapter), expected)


def test_an_adapter_without_a_base_is_refused_with_the_option(tmp_path: Path) -> None:
    adapter, base = saved_apart(adapted("llama"), tmp_path)
    with pytest.raises(WeightsError, match="is an adapter alone") as refused:
        opened_path(adapter)
    assert "--base REF" in str(refused.value)
    with pytest.raises(NotFoundError):
        opened_path(adapter, str(tmp_path / "nothing.pt"))
    with pytest.raises(WeightsError, match="is an adapter itself"):
        opened_path(adapter, str(adapter))
    with pytest.raises(UsageError, match="is no adapter"):
        opened_path(base, str(base))
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SourceError, match="the base of"):
        opened_path(adapter, str(tmp_path / "bad.pt"))


def test_a_base_of_other_shapes_or_names_is_one_line(tmp_path: Path) -> None:
    adapter, base = saved_apart(adapted("llama"), tmp_path)
    state = torch.load(base)
    name = "model.layers.0.self_attn.q_proj.weight"
    for wrong, words in (
        ({**state, name: torch.randn(16, 18)}, "do not fit"),
        ({**state, name: torch.randn(16)}, "do not fit"),
        ({n: t for n, t in state.items() if n != name}, "does not have"),
        ({"a.weight": torch.randn(4, 4)}, "does not have"),
    ):
        torch.save(wrong, tmp_path / "wrong.pt")
        with opened_path(adapter, str(tmp_path / "wrong.pt")) as opened, pytest.raises(WeightsError, match=words) as e:
            plan_weights(opened)
        assert "\n" not in str(e.value)


def test_a_state_dict_without_its_configuration_is_refused(tmp_path: Path) -> None:
    model = adapted("gpt2")
    torch.save(model.state_dict(), tmp_path / "full.pt")
    with opened_path(tmp_path / "full.pt") as opened, pytest.raises(WeightsError, match="scaling") as refused:
        plan_weights(opened)
    assert "merge_and_unload()" in str(refused.value)
    assert "adapter_config.json" in str(refused.value)


def test_several_adapters_are_refused_by_name(tmp_path: Path) -> None:
    peft = required("peft")
    model = adapted("llama")
    model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q_proj"]))
    for opened in (opened_path(saved_full(model, tmp_path / "full")), open_module(model)):
        with opened, pytest.raises(WeightsError, match="2 adapters: default, second") as refused:
            plan_weights(opened)
        assert "merge_and_unload" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 8}, "has rank 4, its configuration says 8"),
        ({"rank_pattern": {"q_proj": 2}}, "has rank 4, its configuration says 2"),
        ({"r": "four"}, "no number"),
        ({"r": 0}, "its configuration says 0"),
        ({"lora_alpha": math.inf}, "no number"),
        ({"lora_alpha": None}, "no number"),
        ({"rank_pattern": {"(a+)+$": 4}}, "pattern that is not read"),
        ({"alpha_pattern": ["q_proj"]}, "no table"),
        ({"use_dora": True}, "use_dora"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 initialised"),
        ({"enable_lora": [True, False, True]}, "its configuration says 8"),
    ],
)
def test_a_configuration_that_contradicts_or_asks_for_more_is_one_line(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    adapter, base = saved_apart(adapted("llama"), tmp_path)
    config = adapter.parent / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_rslora": False, **change}))
    with pytest.raises(WeightsError, match=words) as refused, opened_path(adapter, str(base)) as opened:
        plan_weights(opened)
    assert "\n" not in str(refused.value)
    assert refused.value.remedy


def test_an_adapter_of_a_kind_that_is_not_known_is_refused() -> None:
    state = {
        f"base_model.model.{name}": torch.randn(6, 6)
        for name in ("a.base_layer.weight", "a.some_new_kind.default.weight", "b.weight")
    }
    with open_module(state) as opened, pytest.raises(WeightsError, match=r"some_new_kind.* not read"):
        plan_weights(opened)


def test_the_base_in_a_folder_is_not_searched_for_below_it(tmp_path: Path) -> None:
    adapter, base = saved_apart(adapted("llama"), tmp_path)
    config = adapter.parent / "adapter_config.json"
    for named, wanted in ((base.parent, True), (tmp_path, False), (adapter.parent, False)):
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(named)}))
        if wanted:
            opened_path(adapter).close()
        else:
            with pytest.raises(WeightsError, match="which is not here"):
                opened_path(adapter)
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "/dev/zero"}))
    with pytest.raises(SourceError, match="/dev/zero"):
        opened_path(adapter)


def test_an_embedding_saved_with_an_adapter_leaves_the_tied_head_to_the_base(tmp_path: Path) -> None:
    """In memory as in two files: the embedding is the adapter's, the output layer the base's."""
    peft = required("peft")
    base = tied_llama()
    base.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / "adapter")
    with opened_path(tmp_path / "adapter", str(tmp_path / "base")) as checkpoint, open_module(model) as live:
        plan, expected = plan_weights(checkpoint), plan_weights(live)
        assert summary(plan) == summary(expected)
        assert plan.layers[0].tensor == "model.embed_tokens.weight"
        assert plan.layers[-1].tensor == "lm_head.weight"
        for mine, theirs in zip(plan.layers, expected.layers, strict=True):
            np.testing.assert_allclose(layer_matrix(checkpoint, mine), layer_matrix(live, theirs), atol=1e-6)


def test_a_quantised_base(tmp_path: Path) -> None:
    """QLoRA: the base's weights are dequantised before the adapter is added."""
    functional = required("bitsandbytes.functional")
    torch.manual_seed(6)
    name = "model.layers.0.self_attn.q_proj"
    weight = torch.randn(64, 64)
    codes, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    packed = {f"{name}.weight": codes, f"{name}.bias": torch.randn(64)}
    packed |= {f"{name}.weight.{key}": tensor for key, tensor in state.as_dict(packed=True).items()}
    factors = {"A": torch.randn(4, 64), "B": torch.randn(64, 4)}
    (tmp_path / "base").mkdir()
    save_file(packed, tmp_path / "base" / "model.safetensors")
    save_file(
        {f"base_model.model.{name}.lora_{which}.weight": tensor for which, tensor in factors.items()},
        tmp_path / "adapter_model.safetensors",
    )
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    expected = functional.dequantize_4bit(codes, state) + 2 * factors["B"] @ factors["A"]
    with opened_path(tmp_path / "adapter_model.safetensors") as opened:
        plan = plan_weights(opened)
        assert [layer.tensor for layer in plan.layers] == [f"{name}.weight"]
        np.testing.assert_allclose(layer_matrix(opened, plan.layers[0]), expected, rtol=0, atol=1e-5)
        assert plan.precision.endswith(" + lora")
    full = {key.replace(f"{name}.", f"base_model.model.{name}.base_layer."): tensor for key, tensor in packed.items()}
    full |= {f"base_model.model.{name}.lora_{which}.default.weight": tensor for which, tensor in factors.items()}
    save_file(full, tmp_path / "full.safetensors")
    with opened_path(tmp_path / "full.safetensors") as opened:
        assert plan_weights(opened).content_hash == plan.content_hash
        np.testing.assert_allclose(layer_matrix(opened, plan.layers[0]), expected, rtol=0, atol=1e-5)


OTHERS = {
    "DoRA": ("LoraConfig", {"target_modules": ["q_proj"], "use_dora": True}),
    "IA3": ("IA3Config", {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "LoHa": ("LoHaConfig", {"target_modules": ["q_proj"]}),
    "LoKr": ("LoKrConfig", {"target_modules": ["q_proj"]}),
    "VeRA": ("VeraConfig", {"target_modules": ["q_proj"], "r": 4}),
    "AdaLoRA": ("AdaLoraConfig", {"target_modules": ["q_proj"], "total_step": 10}),
    "oft": ("OFTConfig", {"target_modules": ["q_proj"], "oft_block_size": 4}),
    "boft": ("BOFTConfig", {"target_modules": ["q_proj"], "boft_block_size": 4}),
    "hra": ("HRAConfig", {"target_modules": ["q_proj"]}),
    "fourierft": ("FourierFTConfig", {"target_modules": ["q_proj"], "n_frequency": 10}),
    "prompt": ("PromptTuningConfig", {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_adapters_of_other_kinds_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    peft = required("peft")
    name, settings = OTHERS[kind]
    model = peft.get_peft_model(llama(), getattr(peft, name)(**settings))
    model.save_pretrained(tmp_path / "adapter")
    _, base = saved_apart(adapted("llama"), tmp_path / "x")
    adapter = tmp_path / "adapter" / "adapter_model.safetensors"
    word = {"prefix": "prompt|PREFIX", "prompt": "prompt|PROMPT", "DoRA": "DoRA|use_dora"}.get(kind, f"(?i){kind}")

    def read(opened: Checkpoint) -> None:
        with opened:
            plan_weights(opened)

    for attempt in (
        lambda: read(opened_path(adapter)),
        lambda: read(opened_path(adapter, str(base))),
        lambda: read(open_module(model)),
        lambda: read(open_module(model.state_dict())),
    ):
        with pytest.raises((WeightsError, UsageError), match=word) as refused:
            attempt()
        assert "\n" not in str(refused.value)


def test_initialisations_that_change_the_base_are_right_in_a_full_state_dict(tmp_path: Path) -> None:
    peft = required("peft")
    torch.manual_seed(4)
    base = llama()
    plain = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], init_lora_weights="pissa")
    model = peft.get_peft_model(base, config)
    full = saved_full(model, tmp_path / "full")
    assert_merged(opened_path(full), plain, 1e-5)  # as PiSSA changes nothing at first


def test_kohya_names_with_alpha(tmp_path: Path) -> None:
    torch.manual_seed(5)
    base = {"mid.to_q.weight": torch.randn(8, 6), "mid.net_0.conv.weight": torch.randn(5, 4, 3, 3)}
    torch.save(base, tmp_path / "base.pt")
    q = torch.randn(2, 6), torch.randn(8, 2)
    conv = torch.randn(3, 4, 3, 3), torch.randn(5, 3, 1, 1)
    state = {}
    for name, (down, up), alpha in (("mid_to_q", q, 1.0), ("mid_net_0_conv", conv, 6.0)):
        state |= {
            f"lora_unet_{name}.lora_down.weight": down,
            f"lora_unet_{name}.lora_up.weight": up,
            f"lora_unet_{name}.alpha": torch.tensor(alpha),
        }
    save_file({**state, **{f"lora_te_x.{n}": torch.randn(2, 2) for n in ("lora_down.weight", "lora_up.weight")}},
              tmp_path / "kohya.safetensors")  # fmt: skip
    expected = {
        "mid.to_q.weight": base["mid.to_q.weight"] + 0.5 * q[1] @ q[0],
        "mid.net_0.conv.weight": base["mid.net_0.conv.weight"]
        + 2 * torch.einsum("or,rihw->oihw", conv[1][:, :, 0, 0], conv[0]),
    }
    plan = assert_merged(opened_path(tmp_path / "kohya.safetensors", str(tmp_path / "base.pt")), expected)
    assert "another model" in plan.notes[0]
    with pytest.raises(WeightsError, match="is an adapter alone"):
        opened_path(tmp_path / "kohya.safetensors")
    for name in list(state):
        save_file({n: t for n, t in state.items() if n != name}, tmp_path / "part.safetensors")
        with (
            pytest.raises(WeightsError, match="lacks one of"),
            opened_path(tmp_path / "part.safetensors", str(tmp_path / "base.pt")) as opened,
        ):
            plan_weights(opened)


@pytest.mark.parametrize("key", ["a.processor.to_q_lora.down.weight", "x.lora_mid.weight", "x.dora_scale"])
def test_diffusers_old_names_and_variants_are_refused(key: str, tmp_path: Path) -> None:
    save_file({key: torch.randn(2, 4), "x.lora_down.weight": torch.randn(2, 4)}, tmp_path / "a.safetensors")
    with opened_path(tmp_path / "a.safetensors") as opened, pytest.raises(WeightsError, match="not read") as refused:
        plan_weights(opened)
    assert "fuse_lora()" in str(refused.value)


def test_a_published_adapter_of_fused_outputs(tmp_path: Path, originals: Path) -> None:
    """A LoRA of peft before 0.3, two of three parts of the outputs adapted, against its forward pass."""
    source = originals / "lora" / "bloom-lora"
    state = torch.load(source / "adapter_model.bin", map_location="cpu")
    base = {
        f"{name.removeprefix('base_model.model.').removesuffix('lora_A.weight')}weight": torch.randn(3072, 1024) / 32
        for name in state
        if name.endswith("lora_A.weight")
    }
    first = {name: tensor for name, tensor in base.items() if ".h.0." in name or ".h.1." in name}
    torch.save(base, tmp_path / "base.pt")
    with opened_path(source / "adapter_model.bin", str(tmp_path / "base.pt")) as opened:
        view = effective(opened).view
        x = torch.randn(5, 1024)
        for name, weight in first.items():
            a, b = (state[f"base_model.model.{name.removesuffix('weight')}lora_{which}.weight"] for which in "AB")
            after_b = nn.functional.conv1d((x @ a.T).T[None], b, groups=2)[0].T
            padded = torch.zeros(5, 3, 1024)
            padded[:, [0, 2]] = after_b.reshape(5, 2, 1024)
            expected = x @ weight.T + 16 / 8 * padded.reshape(5, 3072)
            found = x @ torch.from_numpy(np.asarray(view.tensors[name].read())).T
            np.testing.assert_allclose(found, expected, atol=2e-4)
            assert (found - x @ weight.T).abs().max() > 1e-2  # negative control


def test_a_published_adapter_of_one_rank(tmp_path: Path, originals: Path) -> None:
    source = originals / "lora" / "deltacompression-poc"
    state = load_file(source / "adapter_model.safetensors")
    names = [name for name in state if name.endswith("lora_A.weight")]
    base = {
        name.removeprefix("base_model.model.").replace("lora_A.weight", "weight"): torch.randn(6144, 2048).half()
        for name in names[:2]
    }
    small = {
        name: tensor for name, tensor in state.items() if name.rsplit(".lora", 1)[0] + ".lora_A.weight" in names[:2]
    }
    save_file(small, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    torch.save(base, tmp_path / "base.pt")
    expected = {}
    for name, weight in base.items():
        a, b = (state[f"base_model.model.{name.removesuffix('weight')}lora_{which}.weight"].double() for which in "AB")
        expected[name] = weight.double() + 32 * (b @ a)
    with opened_path(tmp_path / "adapter_model.safetensors", str(tmp_path / "base.pt")) as opened:
        for name, tensor in expected.items():
            found = effective(opened).view.tensors[name].read()
            np.testing.assert_allclose(found, tensor, rtol=0, atol=1e-6 * tensor.abs().max())
    with pytest.raises(WeightsError, match="cyberagent/open-calm-1b, which is not here"):
        opened_path(source / "adapter_model.safetensors")


def test_a_network_with_modules_of_these_names_is_left_alone() -> None:
    """Negative control: no adapter."""
    state = {
        name: torch.randn(4, 6)
        for name in (
            "base_model.model.a.weight", "base_layer.weight", "weight", "original_module.a.weight", "lora.weight",
            "shadow_net.weight", "head.base_layer.weight",
        )
    }  # fmt: skip
    with open_module({name: tensor for name, tensor in state.items() if "shadow" not in name}) as opened:
        assert {layer.name for layer in plan_weights(opened).layers} == set(state) - {"shadow_net.weight"}
    plain = {name: tensor for name, tensor in state.items() if "base_" not in name}
    with open_module(plain) as opened:
        assert {layer.name for layer in plan_weights(opened).layers} == set(plain)


def test_ingest_with_a_base(tmp_path: Path) -> None:
    """The option of the command line, the keyword of the registry, and the journal."""
    from registry import Registry
    from registry.catalog.ingest_journal import from_record, to_record

    adapter, base = saved_apart(adapted("llama"), tmp_path)
    with Registry(tmp_path / "a.db") as reg:
        with pytest.raises(WeightsError, match="--base REF"):
            reg.ingest(adapter)
        first = reg.ingest(adapter, base=base, name="merged")
        assert first.status == "added"
        refs = reg.plan([adapter], base=str(base))
        assert from_record(json.dumps(to_record(refs[0]))) == refs[0]
        assert refs[0].base == str(base)
        assert reg.ingest_all(refs)[0].status in ("named", "known")
        assert reg.ingest(base, name="base").status == "added"
        assert len(reg) == 2
