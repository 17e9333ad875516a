"""Darknet: numbers laid out by the configuration beside them, against arrays in the order of its ``parser.c``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import NotFoundError, SourceError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from tests.sources.converted_files import DARKNET_CFG as CFG
from tests.sources.converted_files import DARKNET_PARTS as PARTS
from tests.sources.converted_files import darknet as written
from tests.sources.onnx_models import opened, values

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("minor", [1, 2])
def test_layers_are_read_by_the_configuration(minor: int, tmp_path: Path) -> None:
    path = written(tmp_path, minor=minor)
    assert expand(path)[0].source == "darknet"
    found = opened(path)
    assert list(found) == [name for name, _ in PARTS]
    for place, (name, shape) in enumerate(PARTS):
        np.testing.assert_array_equal(found[name], values(*shape, seed=place), err_msg=name)
    with open_ref(expand(path)[0]) as checkpoint:
        plan = plan_weights(checkpoint)
        assert [layer.tensor for layer in plan.layers] == [
            "layers.0.conv.weight", "layers.2.conv.weight", "layers.5.fc.weight"
        ]  # fmt: skip


def test_the_configuration_may_have_the_name_before_training(tmp_path: Path) -> None:
    path = written(tmp_path, stem="net_final")
    (tmp_path / "other.cfg").write_text("[net]\n")
    assert len(opened(path)) == len(PARTS)


def test_without_a_configuration(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "net.cfg").unlink()
    with pytest.raises(NotFoundError, match=r"without names and shapes, and no net\.cfg is beside it") as caught:
        open_ref(expand(path)[0])
    assert "as net.cfg" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "cut", "words"),
    [
        (CFG, 4, "ends early"),
        (CFG, -4, "4 bytes more"),
        (CFG.replace("filters=4", "filters=400000000"), 0, "ends early"),
        (CFG.replace("filters=4", "filters=-4"), 0, "do not fit"),
        (CFG.replace("filters=4", "filters=x"), 0, "no number"),
        (CFG.replace("groups=2", "groups=3"), 0, "do not fit"),
        (CFG.replace("layers = -1, 1", "layers=99"), 0, "do not fit"),
        (CFG.replace("layers = -1, 1", "layers="), 0, "do not fit"),
        (CFG.replace("stride=2\npad", "stride=0\npad"), 0, "do not fit"),
        (CFG.replace("groups=2", "groups=2\nflipped=1"), 0, "do not fit"),
        (CFG.replace("[maxpool]", "[crnn]"), 0, r"layer 1 is of type \[crnn\], which is not known here"),
        ("[convolutional]\n", 0, r"does not begin with \[net\]"),
        ("", 0, "is empty"),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together(text: str, cut: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        open_ref(expand(written(tmp_path, text, cut=cut))[0])
    assert isinstance(caught.value, WeightsError)
    assert caught.value.remedy
