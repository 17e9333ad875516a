"""Formats that are recognised and not read: each names itself and what to do, from bytes as its writer makes them."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from registry.errors import RegistryError
from registry.sources import expand, open_ref
from registry.sources.recognition import recognise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def coreml_weights(folder: Path) -> Path:
    """Weights of a package: a header of 64 bytes, then the metadata of the first blob, with its mark."""
    path = folder / "weight.bin"
    header = struct.pack("<2I", 1, 2) + bytes(56)
    path.write_bytes(header + struct.pack("<2I2Q", 0xDEADBEEF, 1, 64, 128) + bytes(104))
    return path


def tensorrt(folder: Path) -> Path:
    path = folder / "net.engine"
    path.write_bytes(b"ftrt" + bytes(100))
    return path


def tensorrt_described(folder: Path) -> Path:
    """As ultralytics writes it: the length of a description, the description, the engine."""
    path = folder / "net.engine"
    text = b'{"description": "YOLO", "names": {"0": "person"}}'
    path.write_bytes(struct.pack("<i", len(text)) + text + b"ftrt" + bytes(100))
    return path


FORMATS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "coreml-weights": (coreml_weights, "the weights of a CoreML package", "give the whole .mlpackage"),
    "tensorrt": (tensorrt, "a TensorRT engine", "ingest the ONNX or torch file"),
    "tensorrt-described": (tensorrt_described, "a TensorRT engine", "ingest the ONNX or torch file"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_is_not_read_says_what_it_is(name: str, tmp_path: Path) -> None:
    make, title, remedy = FORMATS[name]
    path = make(tmp_path)
    found = recognise(path)
    assert found is not None
    assert found.kind.title.startswith(title)
    with pytest.raises(RegistryError) as caught:
        open_ref(expand(path)[0])
    assert title in caught.value.message
    assert remedy in str(caught.value.remedy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_sign_is_none(name: str, tmp_path: Path) -> None:
    """The control: without their first bytes these files are of no known kind."""
    path = FORMATS[name][0](tmp_path)
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])
    found = recognise(path)
    assert found is None or found.kind.title != FORMATS[name][1]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_the_command_for_a_mobile_flatbuffer_gives_its_weights_back(tmp_path: Path) -> None:
    module = torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval())
    path = tmp_path / "m.ff"
    torch.jit.save_jit_module_to_flatbuffer(module, str(path))
    with pytest.raises(RegistryError, match="mobile interpreter") as caught:
        open_ref(expand(path)[0])
    before, program, after = str(caught.value.remedy).split('"')
    assert (before, after) == ("convert it with python -c ", "")
    subprocess.run([sys.executable, "-W", "ignore", "-c", program.replace("FILE", str(path))], check=True)
    with open_ref(expand(tmp_path / "m.ff.pt")[0]) as checkpoint:
        found = {info.name: checkpoint.read(info.name) for info in checkpoint.tensors if info.dtype == "float32"}
    expected = {name: tensor.numpy() for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
