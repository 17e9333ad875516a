"""A catalogue gives back what was written, a few rows at a time, and refuses a damaged file."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.architectures.catalogue_file import FORMAT, Catalogue, Cost, write_catalogue
from registry.architectures.layout_text import packed, tensors_of, text_of, unpacked
from registry.errors import StorageError
from registry.types import Architecture, ArchitectureTensor, Layout, PublishedWeights, Symbolic, WeightsMetric

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEM = ArchitectureTensor("stem.weight", (8, Symbolic("channels"), 3, 3))
BODY = ArchitectureTensor("body.weight", (8, 8, 3, 3))
SECOND = ArchitectureTensor("second.weight", (8, 8, 3, 3))
STEPS = ArchitectureTensor("norm.num_batches_tracked", (), buffer=True, floating=False)
HEAD = ArchitectureTensor("head.weight", (Symbolic("classes", 4, 4), 8))
TIED = ArchitectureTensor("tied.weight", (8, 8, 3, 3), tied="body.weight")
LAYOUTS = (Layout(1, (STEM, BODY, STEPS, HEAD, TIED)), Layout(2, (STEM, BODY, SECOND, STEPS)))
ARCHITECTURES = (
    Architecture(1, "torchvision", "net", 1, "net({classes}, {channels})", "torchvision", classes=10, channels=3),
    Architecture(2, "timm", "net", 1, "net({classes})", "timm", parameters=7, image_size=32, gmacs=0.5),
    Architecture(3, "timm", "wide", 2, "wide()", "timm"),
)
METRICS = (
    WeightsMetric("top1", "imagenet-1k", "val", 224, 71.5, "a table"),
    WeightsMetric("top1", "imagenet-1k", "val", 288, 72.5, "a table"),
)
WEIGHTS = (
    PublishedWeights(1, 2, "a1", "timm:net.a1", licence="MIT", sha256="0123456789ab", metrics=METRICS),
    PublishedWeights(2, 1, "V1", "torchvision:net.V1"),
)
COSTS = (Cost(2, 224, 0.5, "a table"), Cost(2, 288, 0.8, "a table"))
VECTOR = np.array([0.5, 0.25, 1.0], np.float32)


def write(path: Path) -> Path:
    write_catalogue(
        path,
        LAYOUTS,
        ARCHITECTURES,
        WEIGHTS,
        COSTS,
        vectors={2: VECTOR},
        similar={2: 1},
        facts={"libraries": {"a": "1"}},
    )
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with Catalogue(write(tmp_path / "catalogue.db")) as opened:
        yield opened


def test_it_gives_back_what_was_written(catalogue: Catalogue) -> None:
    assert catalogue.architectures() == ARCHITECTURES
    assert [catalogue.layout(one.id) for one in LAYOUTS] == list(LAYOUTS)
    assert catalogue.weights() == WEIGHTS
    assert catalogue.weights([1]) == (WEIGHTS[1],)
    assert catalogue.costs() == COSTS
    assert catalogue.facts == {"format": FORMAT, "libraries": {"a": "1"}}
    ids, vectors = catalogue.vectors()
    assert (ids.tolist(), vectors.tolist()) == ([2], [VECTOR.tolist()])


def test_architectures_are_found_by_name_label_and_layout(catalogue: Catalogue) -> None:
    assert catalogue.named("net") == ARCHITECTURES[:2]
    assert catalogue.named("timm/net") == (ARCHITECTURES[1],)
    assert catalogue.named("timm/nothing") == ()
    assert catalogue.of_layouts([1]) == ARCHITECTURES[:2]


def test_the_index_counts_distinct_floating_point_tensors_of_fixed_shape(catalogue: Catalogue) -> None:
    found = catalogue.postings([(8, 8, 3, 3), (8, 3, 3, 3), (), (9, 9)])
    assert list(found) == [(8, 8, 3, 3)]
    assert (found[8, 8, 3, 3].layouts.tolist(), found[8, 8, 3, 3].counts.tolist()) == ([1, 2], [1, 2])
    ids, sizes = catalogue.sizes()
    assert (ids.tolist(), sizes.tolist()) == ([1, 2], [3, 3])


def test_weights_are_found_by_the_digits_of_the_hash_that_are_known(catalogue: Catalogue) -> None:
    assert catalogue.weights_of_file("0123456789ab" + "f" * 52) == (WEIGHTS[0],)
    assert catalogue.weights_of_file("0123456789ac" + "f" * 52) == ()


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.db").read_bytes() == write(tmp_path / "b.db").read_bytes()


def test_a_symbolic_shape_is_sized_by_its_arguments() -> None:
    assert HEAD.sized(10, None) == (44, 8)
    assert STEM.sized(None, 3) == (8, 3, 3, 3)
    assert (HEAD.symbols, STEM.symbols, BODY.symbols) == ({"classes"}, {"channels"}, frozenset())
    with pytest.raises(ValueError, match="number of classes"):
        HEAD.sized(None, 3)


def test_text_of_a_layout_is_read_back() -> None:
    for layout in LAYOUTS:
        assert tensors_of(text_of(layout.tensors)) == layout.tensors
    assert tensors_of("") == ()
    with pytest.raises(ValueError, match="no extent"):
        tensors_of("a\t3,x")


def test_packed_text_is_refused_where_it_is_cut_or_made_with_another_dictionary() -> None:
    text = text_of(LAYOUTS[0].tensors)
    data = packed(text, "stem.weight body.weight")
    assert unpacked(data, "stem.weight body.weight") == text
    for wrong in (data[:-3], b"\xff" + data):
        with pytest.raises(ValueError, match="layout"):
            unpacked(wrong, "stem.weight body.weight")


@pytest.mark.parametrize(
    "name",
    ["a.0.b", "a.007.b", "0", "a1b22.c", "9" * 40, "", "layer1.0.conv1", "layer1.0.conv2.0.1", "layer2.11.conv1"],
)
def test_numbers_in_names_are_packed_as_steps_and_come_back(name: str) -> None:
    text = f"layer3.12.conv1\t8,8\n{name}\t8\t\tlayer3.12.conv1\nend.3"
    assert unpacked(packed(text, "layer3.1.conv2\t8"), "layer3.1.conv2\t8") == text


def test_a_repeated_block_of_four_tensors_takes_less_than_a_byte() -> None:
    block = ["attn.qkv.weight\t96,32", "attn.qkv.bias\t96", "mlp.fc1.weight\t128,32", "mlp.fc2.weight\t32,128"]
    few, many = ("\n".join(f"blocks.{n}.{line}" for n in range(count) for line in block) for count in (8, 80))
    assert len(packed(many)) < len(packed(few)) + 72


@pytest.mark.parametrize("name", ["a#b", "a\fb"])
def test_a_name_with_a_sign_of_the_columns_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="sign"):
        packed(f"{name}\t8")


@pytest.mark.parametrize("columns", ["a", "a\f\f\fb", "a\nb\f\f\n", "a#\f\f", "a#\f1,2\f", "a#\fx\f"])
def test_columns_that_do_not_agree_are_refused(columns: str) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    with pytest.raises(ValueError, match=r"agree|invalid literal"):
        unpacked(compressor.compress(columns.encode()) + compressor.flush())


def test_layouts_of_equal_fingerprints_share_one(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    vectors = dict.fromkeys([1, 2], VECTOR)
    write_catalogue(path, LAYOUTS, ARCHITECTURES, WEIGHTS, COSTS, vectors=vectors, similar={}, facts={})
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count, length(data) FROM vectors").fetchall() == [(1, 6)]
    with Catalogue(path) as opened:
        ids, found = opened.vectors()
        assert (ids.tolist(), found.tolist()) == ([1, 2], [VECTOR.tolist()] * 2)


@pytest.mark.parametrize(
    ("code", "plain", "full"),
    [
        ("net({classes}, in_chans={channels})", "net(7)", "net(7, in_chans=5)"),
        ("Net(Config(num_channels={channels}))", "Net(Config())", "Net(Config(num_channels=5))"),
        ("net({classes}, {channels})", "net(7, 3)", "net(7, 5)"),
    ],
)
def test_a_line_names_the_channels_that_are_not_the_default(code: str, plain: str, full: str) -> None:
    net = Architecture(1, "timm", "net", 1, code, "timm", classes=10, channels=3)
    assert (net.line(7), net.line(7, 3), net.line(7, 5)) == (plain, plain, full)
    assert net.line() == plain.replace("7", "10")


def read(path: Path) -> None:
    with Catalogue(path) as opened:
        opened.layout(1)
        opened.architectures()


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "format", "rows"])
def test_a_damaged_catalogue_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "catalogue.db"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("no database " * 200)
    elif damage != "missing":
        write(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage in ("format", "rows"):
        statement = {
            "format": "UPDATE facts SET value = '99' WHERE name = 'format'",
            "rows": "UPDATE layouts SET data = x'00'",
        }
        with sqlite3.connect(path) as connection:
            connection.execute(statement[damage])
        connection.close()
    with pytest.raises(StorageError) as caught:
        read(path)
    assert "install the package again" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_layout_that_is_not_there_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(StorageError, match="no layout 7"):
        catalogue.layout(7)
