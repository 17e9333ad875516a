from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.response import addinfourl

import numpy as np
import pytest
import torch
import torchvision.models as models

from registry.errors import NotFoundError, SourceError
from registry.sources import discard, expand, layer_matrix, open_module, open_ref, plan_weights
from tests.sources.corpus import Runs

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Metric

SMALL = models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
REFERENCE = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def offline(*_: object, **__: object) -> None:
        raise URLError(OSError("no route to host"))

    monkeypatch.setattr("torch.hub.urlopen", offline)
    return tmp_path / "hub" / "checkpoints"


def place(cache: Path, content: object, url: str = SMALL.url) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / url.rpartition("/")[2]
    torch.save(content, path)
    return path


def metric(metrics: tuple[Metric, ...], name: str) -> Metric:
    return next(m for m in metrics if m.name == name)


def test_a_model_carries_its_card(cache: Path) -> None:
    (ref,) = expand("torchvision:resnet50.IMAGENET1K_V2")
    assert (ref.source, ref.target, ref.name) == (
        "torchvision", "resnet50.IMAGENET1K_V2", "torchvision/resnet50.IMAGENET1K_V2",
    )  # fmt: skip
    card = ref.card
    assert (card.family, card.architecture, card.task, card.dataset) == (
        "resnet", "resnet50", "classification", "ImageNet-1K",
    )  # fmt: skip
    assert (card.gflops, card.revision, card.seed) == (4.089, "11ad3fa6", None)
    assert card.recipe.startswith("https://github.com/pytorch/vision/")
    top1 = metric(card.metrics, "acc@1")
    assert (top1.value, top1.dataset, top1.split, top1.higher_is_better) == (80.858, "ImageNet-1K", "val", True)
    assert (ref.bytes, ref.cached) == (round(97.79 * 2**20), False)
    assert expand("torchvision:resnet50") == expand("torchvision:resnet50.DEFAULT") == (ref,)


@pytest.mark.parametrize(
    ("name", "family", "task", "dataset", "figure", "split", "higher"),
    [
        ("fcn_resnet50", "fcn", "segmentation", "COCO-val2017-VOC-labels", "miou", "val", True),
        ("fasterrcnn_resnet50_fpn", "faster_rcnn", "detection", "COCO-val2017", "box_map", "val", True),
        ("mvit_v1_b", "mvit", "video", "Kinetics-400", "acc@1", "val", True),
        ("raft_small", "raft", "optical flow", "Sintel-Train-Cleanpass", "epe", "train", False),
    ],
)
def test_tasks_and_metrics_of_other_models(
    name: str, family: str, task: str, dataset: str, figure: str, split: str, higher: bool
) -> None:
    card = expand(f"torchvision:{name}")[0].card
    found = metric(card.metrics, figure)
    assert (card.family, card.task, card.dataset, found.split, found.higher_is_better) == (
        family, task, dataset, split, higher,
    )  # fmt: skip


def test_a_licence_is_stored_where_torchvision_states_one() -> None:
    assert "SWAG" in expand("torchvision:vit_h_14.IMAGENET1K_SWAG_LINEAR_V1")[0].card.licence
    assert expand("torchvision:resnet18")[0].card.licence == ""


def test_every_published_model_expands_without_a_download(cache: Path) -> None:
    refs = expand("torchvision:*")
    assert len(refs) > 100
    assert not cache.exists()
    assert all(ref.card.family and ref.card.task and ref.card.metrics and ref.bytes and not ref.cached for ref in refs)
    assert not any("quantized" in ref.target for ref in refs)
    assert any("quantized" in ref.target for ref in expand("torchvision:quantized_*"))


def test_patterns() -> None:
    assert [ref.card.architecture for ref in expand("torchvision:resnet*")] == [
        "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
    ]  # fmt: skip
    assert [ref.name for ref in expand("torchvision:resnet1?.random", seed=2)] == ["torchvision/resnet18.random-2"]
    assert all(ref.target.endswith(".IMAGENET1K_V1") for ref in expand("torchvision:resnet*.IMAGENET1K_V1"))
    with pytest.raises(NotFoundError, match="no torchvision model with weights matches"):
        expand("torchvision:nonesuch*")


@pytest.mark.parametrize(
    ("reference", "hint"),
    [
        ("torchvision:resnet51", "torchvision:resnet50"),
        ("torchvision:ResNet50", "torchvision:resnet50"),
        ("torchvision:zzzzzz", r"torchvision:\* stands for all of them"),
        ("torchvision:resnet50.imagenet1k_v3", "torchvision:resnet50.IMAGENET1K_V"),
        ("torchvision:resnet50.zzz", "IMAGENET1K_V1.*IMAGENET1K_V2.*random"),
        ("torchvision:mnasnet1_0.IMAGENET", "torchvision:mnasnet1_0.IMAGENET1K_V1"),
        ("torchvision:", r"stands for all of them"),
    ],
)
def test_unknown_names_offer_near_ones(reference: str, hint: str) -> None:
    with pytest.raises(NotFoundError, match=hint):
        expand(reference)


def test_random_weights_depend_on_the_seed_alone(cache: Path) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def content(seed: int) -> str:
        (ref,) = expand(f"{REFERENCE}.random", seed=seed)
        assert (ref.card.seed, ref.cached, ref.card.metrics) == (seed, True, ())
        with open_ref(ref) as checkpoint:
            return plan_weights(checkpoint).content_hash

    assert content(0) == content(0) != content(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_cached_checkpoint_is_read_without_a_network(cache: Path) -> None:
    module = models.shufflenet_v2_x0_5(weights=None)
    place(cache, module.state_dict())
    (ref,) = expand(REFERENCE)
    assert ref.cached
    with open_ref(ref) as checkpoint, open_module(module) as live:
        plan = plan_weights(checkpoint)
        assert plan == plan_weights(live)
        assert plan.parameters == SMALL.meta["num_params"]
        assert checkpoint.ref.card.metrics
        for layer in plan.layers[:5]:
            np.testing.assert_array_equal(layer_matrix(checkpoint, layer), layer_matrix(live, layer))
    discard(ref)
    assert expand(REFERENCE)[0].cached  # it was there before


def test_what_was_downloaded_can_be_discarded(cache: Path) -> None:
    (ref,) = expand(REFERENCE)
    path = place(cache, {})
    discard(ref)
    assert not path.exists()
    discard(ref)
    discard(expand(f"{REFERENCE}.random")[0])


def test_what_a_file_in_the_cache_would_run_does_not_run(cache: Path, tmp_path: Path) -> None:
    place(cache, {"a.weight": torch.eye(3), "payload": Runs(tmp_path)})
    with open_ref(expand(REFERENCE)[0]) as checkpoint:
        assert [tensor.name for tensor in checkpoint.tensors] == ["a.weight"]
    assert not (tmp_path / "created").exists()


def test_without_network_and_cache_it_says_what_to_do(cache: Path) -> None:
    with pytest.raises(SourceError, match=r"could not be downloaded.*no route to host") as caught:
        open_ref(expand(REFERENCE)[0])
    assert "\n" not in str(caught.value)
    assert str(cache / SMALL.url.rpartition("/")[2]) in str(caught.value.remedy)
    assert ".random" in str(caught.value.remedy)


def test_a_download_is_checked_against_its_hash(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = cache.parent / "other.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"something else")
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: addinfourl(other.open("rb"), Message(), ""))
    with pytest.raises(SourceError, match="does not have the hash in its name"):
        open_ref(expand(REFERENCE)[0])
    assert not expand(REFERENCE)[0].cached


def test_old_checkpoints_become_what_the_builders_make_of_them(cache: Path) -> None:
    dense = {"features.denseblock1.denselayer1.norm.1.weight": torch.ones(4), "classifier.weight": torch.eye(4)}
    place(cache, dense, models.DenseNet121_Weights.DEFAULT.url)
    with open_ref(expand("torchvision:densenet121")[0]) as checkpoint:
        assert [t.name for t in checkpoint.tensors] == [
            "features.denseblock1.denselayer1.norm1.weight", "classifier.weight",
        ]  # fmt: skip
    google = {"conv1.conv.weight": torch.eye(4), "aux1.fc1.weight": torch.eye(4)}
    place(cache, google, models.GoogLeNet_Weights.DEFAULT.url)
    with open_ref(expand("torchvision:googlenet")[0]) as checkpoint:
        assert [t.name for t in checkpoint.tensors] == ["conv1.conv.weight"]
