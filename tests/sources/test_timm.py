from __future__ import annotations

import io
import random
import sys
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save
from scipy.stats import spearmanr

from registry.errors import NotFoundError, SourceError, WeightsError
from registry.sources import discard, expand, open_module, open_ref, plan_weights
from registry.sources.depth_order import depth_order
from tests.sources.corpus import Runs
from tests.sources.hubserver import Repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sources.hubserver import Hub

SMALL = "test_resnet.r160_in1k"
OF_TORCH_HUB = "gcvit_xxtiny.in1k"  # of the few whose weights are not at the Hugging Face hub


def weights(name: str, seed: int = 7) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(timm.create_model(name).state_dict())


@pytest.fixture
def torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def offline(*_: object, **__: object) -> None:
        raise URLError(OSError("no route to host"))

    monkeypatch.setattr("torch.hub.urlopen", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_model_carries_its_card(hub: Hub) -> None:
    (ref,) = expand("timm:resnet18.a1_in1k")
    assert (ref.source, ref.target, ref.name) == ("timm", "resnet18.a1_in1k", "timm/resnet18.a1_in1k")
    card = ref.card
    assert (card.family, card.architecture, card.task, card.dataset, card.licence, card.seed) == (
        "resnet", "resnet18", "classification", "ImageNet-1K", "apache-2.0", None,
    )  # fmt: skip
    assert (card.source, ref.cached, ref.bytes) == ("timm:resnet18.a1_in1k", False, None)
    assert expand("timm:resnet18") == (ref,)  # the default tag
    assert not hub.requests


@pytest.mark.parametrize(
    ("reference", "family", "task", "dataset"),
    [
        ("vit_base_patch16_224.augreg_in21k", "vision_transformer", "classification", "ImageNet-21K"),
        ("convnext_base.fb_in22k_ft_in1k", "convnext", "classification", "ImageNet-1K"),
        ("convnext_base.fb_in22k", "convnext", "classification", "ImageNet-21K"),
        ("vit_base_patch16_224.mae", "vision_transformer", "", ""),
        ("mixer_b16_224.goog_in21k_ft_in1k", "mlp_mixer", "classification", "ImageNet-1K"),
    ],
)
def test_families_and_data_sets(reference: str, family: str, task: str, dataset: str) -> None:
    card = expand(f"timm:{reference}")[0].card
    assert (card.family, card.task, card.dataset) == (family, task, dataset)


def test_patterns() -> None:
    found = [ref.target for ref in expand("timm:convnext_a*")]
    assert found == ["convnext_atto.d2_in1k", "convnext_atto_ols.a2_in1k"]
    tags = [ref.target for ref in expand("timm:resnet18.*")]
    assert tags[0] == "resnet18.a1_in1k"
    assert len(tags) == len(set(tags)) >= 6
    assert {ref.card.architecture for ref in expand("timm:resnet*.a1_in1k")} >= {"resnet18", "resnet34", "resnet50"}
    assert [ref.name for ref in expand("timm:resnet18*.random", seed=2)] == [
        "timm/resnet18.random-2", "timm/resnet18d.random-2",
    ]  # fmt: skip
    with pytest.raises(NotFoundError, match="no timm model with weights matches 'nonesuch"):
        expand("timm:nonesuch*")


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("timm:resnet5", "timm:resnet50"),
        ("timm:ResNet18", "timm:resnet18"),
        ("timm:zzzzzz", r"timm:\* stands for all of them"),
        ("timm:", "stands for all of them"),
        ("timm:resnet18.a1_in2k", "did you mean timm:resnet18.a1_in1k"),
        ("timm:resnet18.zzz", "timm:resnet18.a1_in1k.*timm:resnet18.random"),
        ("timm:convnext_tiny_in22ft1k", "did you mean timm:convnext_tiny.fb_in22k_ft_in1k"),  # as timm once called it
    ],
)
def test_unknown_names_offer_near_ones(reference: str, hint: str) -> None:
    with pytest.raises(NotFoundError, match=hint):
        expand(reference)


def test_random_weights_depend_on_the_seed_alone(hub: Hub) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def content(seed: int) -> str:
        (ref,) = expand("timm:test_vit.random", seed=seed)
        assert (ref.card.seed, ref.card.training, ref.cached) == (seed, "none", True)
        with open_ref(ref) as checkpoint:
            return plan_weights(checkpoint).content_hash

    assert content(0) == content(0) != content(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not hub.requests


def test_published_weights_come_through_timm(hub: Hub) -> None:
    state = weights("test_resnet")
    hub.repositories[f"timm/{SMALL}"] = Repository(
        {"model.safetensors": save(state), "pytorch_model.bin": b"no", "config.json": b"{}"}, commit="c" * 40
    )
    (ref,) = expand(f"timm:{SMALL}")
    module = timm.create_model("test_resnet")
    module.load_state_dict(state)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with open_ref(ref) as checkpoint, open_module(module) as live:
        assert plan_weights(checkpoint) == plan_weights(live)
        assert (checkpoint.ref.source, checkpoint.ref.card.revision) == ("timm", "c" * 40)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hub.fetched() == {"model.safetensors", "config.json"}
    (again,) = expand(f"timm:{SMALL}")
    assert (again.cached, again.bytes) == (True, len(save(state)))
    discard(again)
    assert expand(f"timm:{SMALL}")[0].cached  # it was there before
    discard(ref)
    assert not expand(f"timm:{SMALL}")[0].cached
    discard(expand("timm:test_resnet.random")[0])


def test_old_checkpoints_become_what_timm_makes_of_them(hub: Hub) -> None:
    state = weights("test_vit")
    old = {name.replace("patch_embed.proj.weight", "patch_embed.projection.weight"): t for name, t in state.items()}
    flat = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}  # as linear, once
    with open_module(timm.create_model("test_vit")) as live:
        topology = plan_weights(live).topology
    name = "timm/test_vit.r160_in1k"
    hub.repositories[name] = Repository({"model.safetensors": save(flat)})
    with open_ref(expand("timm:test_vit")[0]) as checkpoint:
        assert plan_weights(checkpoint).topology == topology
    hub.repositories[name] = Repository({"model.safetensors": save(old)}, commit="2" * 40)
    with pytest.raises(WeightsError, match=r"timm cannot load the weights of test_vit\.r160_in1k") as caught:
        open_ref(expand("timm:test_vit")[0])
    assert "\n" not in str(caught.value)


def test_what_a_pickle_would_run_does_not_run(hub: Hub, tmp_path: Path) -> None:
    """timm's own loader would run it; it gets the tensors alone."""
    state = timm.create_model(SMALL.partition(".")[0]).state_dict()
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "payload": Runs(tmp_path)}, buffer)
    hub.repositories[f"timm/{SMALL}"] = Repository({"pytorch_model.bin": buffer.getvalue()})
    with open_ref(expand(f"timm:{SMALL}")[0]) as checkpoint:
        found = plan_weights(checkpoint)
    assert not (tmp_path / "created").exists()
    with open_module(state) as live:
        assert found.content_hash == plan_weights(live).content_hash
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert (tmp_path / "created").exists()  # the control


def test_offline_it_says_what_to_do(hub: Hub, torch_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=f"timm/{SMALL} is not in the cache, and HF_HUB_OFFLINE is set") as caught:
        open_ref(expand(f"timm:{SMALL}")[0])
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match=r"could not be downloaded.*no route to host") as caught:
        open_ref(expand(f"timm:{OF_TORCH_HUB}")[0])
    assert str(torch_hub) in str(caught.value.remedy)
    assert "timm:gcvit_xxtiny.random" in str(caught.value.remedy)


def test_weights_of_torch_hub(torch_hub: Path) -> None:
    state = weights("gcvit_xxtiny")
    (ref,) = expand(f"timm:{OF_TORCH_HUB}")
    path = torch_hub / timm.models.get_pretrained_cfg(OF_TORCH_HUB).url.rpartition("/")[2]
    torch.save(state, path)
    assert not ref.cached
    assert expand(f"timm:{OF_TORCH_HUB}")[0].cached
    with open_ref(ref) as checkpoint:
        assert checkpoint.ref.card.revision == "d1d86009"
        for info in checkpoint.tensors:
            if info.dtype == "float32":
                np.testing.assert_array_equal(checkpoint.read(info.name), state[info.name].numpy())
    discard(ref)
    assert not path.exists()


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SourceError, match="timm is needed") as caught:
        expand("timm:resnet18")
    assert caught.value.remedy == "pip install 'architecture-registry[timm]'"


NETWORKS = {
    "resnet18": 18 + 3,  # the paper's layers and three projections
    "vit_tiny_patch16_224": 1 + 12 * 6 + 1,  # q, k, v, projection and two of the MLP
    "convnext_atto": 1 + 12 * 3 + 3 + 1,
    "mixer_s32_224": 1 + 8 * 4,  # its head is initialised with zeros, which have no spectrum
    "efficientnet_b0": 82,
    "regnety_002": 71,
}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[str, Any]:
    (ref,) = expand(f"timm:{request.param}.random")
    return request.param, open_ref(ref)


def correlation(order: list[str], defined: list[str]) -> float:
    return float(spearmanr([defined.index(name) for name in order], np.arange(len(order))).statistic)


def test_layers_are_in_depth_order(network: tuple[str, Any]) -> None:
    name, checkpoint = network
    plan = plan_weights(checkpoint)
    assert len(plan.layers) == NETWORKS[name]
    defined = [info.name for info in checkpoint.tensors]
    order = [layer.tensor for layer in plan.layers]
    assert correlation(order, defined) >= 0.9
    shapes = {info.name: info.shape for info in checkpoint.tensors if info.name in set(order)}
    shuffled = random.Random(name).sample(sorted(shapes), len(shapes))
    assert depth_order({key: shapes[key] for key in shuffled}) == list(dict.fromkeys(order))
    assert abs(correlation(shuffled, defined)) < 0.6  # what an order that knows nothing gives


def test_parameters_are_counted_as_torch_does(network: tuple[str, Any]) -> None:
    name, checkpoint = network
    module = timm.create_model(name)
    assert plan_weights(checkpoint).parameters == sum(p.numel() for p in module.parameters())
