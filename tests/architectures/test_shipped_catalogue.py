"""What ``catalogue.db`` holds: what this version's rules and the installed libraries give, and plausible figures.

It is built by ``make catalogue``.
"""

from __future__ import annotations

import math
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.architectures.catalogue_file import Catalogue
from registry.architectures.layout_text import text_of
from registry.shipped import CATALOGUE, FOLDER, SHIPPED, checksum_file, checksum_of
from registry.sources import MATRIX_RULE
from registry.spectral.specs import SHAPES
from scripts.catalogue.dataless import build, tensors_of_module
from scripts.catalogue.header_vectors import vector_of
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Architecture

FILE = FOLDER / SHIPPED[CATALOGUE]
BUILD = "the catalogue is of another version: make catalogue"
RANGES = {"top1": (0, 100), "top5": (0, 100), "box_map": (0, 100), "mask_map": (0, 100), "miou": (0, 100)}

SAMPLE = [
    "torchvision/resnet50",
    "torchvision/regnet_x_400mf",
    "torchvision/maskrcnn_resnet50_fpn",
    "torchvision/deeplabv3_resnet50+aux_loss=True",
    "torchvision/quantized_mobilenet_v2",
    "timm/resnet50",
    "timm/efficientnet_b0",
    "timm/vit_base_patch16_224",
    "timm/dpn68",
    "timm/levit_128s",
    "transformers/BertForMaskedLM",
    "transformers/BertForSequenceClassification@google-bert/bert-large-uncased",
    "transformers/GPT2LMHeadModel@openai-community/gpt2-xl",
    "transformers/CLIPVisionModel",
    "transformers/BartEncoder",
    "transformers/ViTForImageClassification",
]


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Catalogue]:
    with Catalogue(FILE) as opened:
        yield opened


@pytest.fixture(scope="module")
def architectures(catalogue: Catalogue) -> tuple[Architecture, ...]:
    return catalogue.architectures()


def test_it_was_built_by_the_rules_of_this_version(catalogue: Catalogue) -> None:
    assert (catalogue.facts["matrix_rule"], catalogue.facts["fingerprint"]) == (MATRIX_RULE, SHAPES.hash), BUILD
    assert catalogue.facts["command"] == "make catalogue"
    assert checksum_file(FILE).read_text().strip() == checksum_of(FILE)
    assert FILE.stat().st_size <= 6_000_000


def test_it_holds_what_the_libraries_build(catalogue: Catalogue, architectures: tuple[Architecture, ...]) -> None:
    """Of transformers, 650 types of configurations at least."""
    labels = {one.label for one in architectures}
    assert len(labels) == len(architectures)
    counts = catalogue.facts["counts"]
    assert counts["torchvision"] >= 121
    assert counts["timm"] >= 1371
    assert counts["transformers"] >= 2000
    types = {name for one in architectures for name in re.findall(r"(\w+)Config\(", one.code)}
    assert len(types) >= 650
    assert {one.layout for one in architectures} == set(catalogue.sizes()[0].tolist())
    reasons = catalogue.facts["not_built"]
    assert all(reasons.values())
    assert not labels & reasons.keys()


def test_all_of_a_librarys_names_are_there(architectures: tuple[Architecture, ...]) -> None:
    timm = pytest.importorskip("timm") if _installed("timm") else missing("timm is not installed")
    import torchvision.models as models

    names = {
        library: {one.name for one in architectures if one.library == library} for library in ("torchvision", "timm")
    }
    assert names["torchvision"] >= set(models.list_models())
    assert names["timm"] == set(timm.list_models())


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("label", SAMPLE)
def test_a_line_builds_the_layout_that_is_stored(catalogue: Catalogue, label: str) -> None:
    """And the vector is what a plan of it gives now."""
    [found] = catalogue.named(label)
    if _installed(found.library) != catalogue.facts["versions"][found.library]:
        missing(
            f"{found.library} {catalogue.facts['versions'][found.library]} is not installed, whose layouts these are"
        )
    layout = catalogue.layout(found.layout)
    classes, channels = found.classes, found.channels
    module = tensors_of_module(build(found.line(classes, channels), found.imports))
    sized = tuple(one._replace(shape=one.sized(classes, channels)) for one in layout.tensors)
    assert text_of(module.tensors) == text_of(sized)
    assert module.parameters == found.parameters
    ids, vectors = catalogue.vectors()
    stored = vectors[ids == found.layout]
    digits, _ = vector_of(
        layout.tensors, classes, channels, {"architecture": found.name} if found.library == "timm" else {}
    )
    made = np.frombuffer(bytes.fromhex(digits), "<f2").astype(np.float32)
    assert np.abs(stored[0] - made).max() <= 1e-3 * np.abs(made).max()


def test_metrics_and_costs_are_plausible_and_say_their_source(
    catalogue: Catalogue, architectures: tuple[Architecture, ...]
) -> None:
    weights = catalogue.weights()
    assert len({one.reference for one in weights}) == len(weights)
    for one in weights:
        assert bool(one.licence) == bool(one.licence_source)
        values = {}
        for metric in one.metrics:
            assert metric.source
            assert math.isfinite(metric.value)
            low, high = RANGES.get(metric.name, (0, math.inf))
            assert low < metric.value <= high, one.reference
            values[metric.name, metric.dataset, metric.image_size] = metric.value
        for (name, dataset, size), value in values.items():
            assert name != "top1" or value <= values["top5", dataset, size], one.reference
    sizes = {one.id: one for one in architectures}
    costs = catalogue.costs()
    assert len({(one.architecture, one.image_size) for one in costs}) == len(costs)
    for cost in costs:
        assert 0.005 < cost.gmacs < 10_000
        assert 16 <= cost.image_size <= 1024
        assert cost.source
        if cost.image_size == sizes[cost.architecture].image_size:
            assert sizes[cost.architecture].gmacs == cost.gmacs


def test_a_published_file_is_known_by_its_hash_and_size(catalogue: Catalogue) -> None:
    found, again = catalogue.weights_of_file("0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a")
    assert again.reference == "timm:resnet50.tv_in1k"
    assert (found.reference, found.tag) == ("torchvision:resnet50.IMAGENET1K_V1", "IMAGENET1K_V1")
    assert found.bytes == pytest.approx(102_530_333, abs=1024)
    assert {(one.name, one.dataset, one.split, one.value) for one in found.metrics} == {
        ("top1", "imagenet-1k", "val", 76.13),
        ("top5", "imagenet-1k", "val", 92.862),
    }


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize(
    ("label", "within"),
    [
        ("torchvision/resnet18", 0.001),
        ("torchvision/mobilenet_v3_small", 0.01),
        ("torchvision/vit_b_16", 0.001),
        ("timm/resnet50", 0.01),
        ("timm/efficientnet_b0", 0.05),
    ],
)
def test_costs_are_multiply_adds(catalogue: Catalogue, label: str, within: float) -> None:
    """Torch's counter gives two for each multiply-add of convolutions and matrix products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    [found] = catalogue.named(label)
    if not _installed(found.library):
        missing(f"{found.library} is not installed")
    module = build(found.line(), found.imports).eval()
    assert found.image_size is not None
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        module(torch.empty(1, 3, found.image_size, found.image_size))
    assert found.gmacs == pytest.approx(counter.get_total_flops() / 2 / 1e9, rel=within)
