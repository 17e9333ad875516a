"""Published networks that were converted to ONNX, Caffe, ncnn and MNN, against the network that they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.sources import expand, open_ref
from tests.layouts.measured import distances, read

if TYPE_CHECKING:
    from pathlib import Path

ROWS = (
    ("onnx/ultraface/version-RFB-320_without_postprocessing.onnx", "rfb-320", False, 276_292),
    ("onnx/ultraface/RFB-640-masked_face-v2.onnx", "rfb-640-masked", True, 281_770),
    ("onnx/ultraface/version-slim-320_simplified.onnx", "slim-320", True, 257_916),
    ("caffe/ultraface/RFB-320.caffemodel", "rfb-320", True, 273_888),
    ("ncnn/ultraface/RFB-320.param", "rfb-320", True, 273_888),
    ("ncnn/ultraface/slim_320.bin", "slim-320", True, 257_916),
    ("mnn/ultraface/slim-320.mnn", "slim-320", True, 257_916),
)


def folded(path: Path, target: Path) -> Path:
    """A twin with its batch norms folded into the convolution of the number before each, or into ``conv``."""
    state = load_file(path)
    kept = dict(state)
    for name in [name for name in state if name.endswith(".running_mean")]:
        norm = name.removesuffix("running_mean")
        head, _, own = norm[:-1].rpartition(".")
        conv = f"{head}.{int(own) - 1}" if own.isdecimal() else f"{head}.conv"
        scale = state[f"{norm}weight"] / np.sqrt(state[f"{norm}running_var"].astype(np.float64) + 1e-5)
        kept[f"{conv}.weight"] = (state[f"{conv}.weight"] * scale[:, None, None, None]).astype(np.float32)
        bias = state.get(f"{conv}.bias", np.zeros(len(scale))) - state[f"{norm}running_mean"]
        kept[f"{conv}.bias"] = (bias * scale + state[f"{norm}bias"]).astype(np.float32)
        for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            kept.pop(norm + leaf, None)
    save_file(kept, target)
    return target


@pytest.mark.parametrize(("file", "twin", "fold", "parameters"), ROWS, ids=[row[0] for row in ROWS])
def test_a_converted_network_is_its_twin(
    file: str, twin: str, fold: bool, parameters: int, originals: Path, zoo: Path, tmp_path: Path
) -> None:
    path = zoo / "ultraface" / f"{twin}.safetensors"
    stored = read(open_ref(expand(path)[0]))
    other = read(open_ref(expand(folded(path, tmp_path / "folded.safetensors"))[0])) if fold else stored
    found = read(open_ref(expand(originals / file)[0]))
    assert found.plan.parameters == parameters == other.plan.parameters
    assert [layer.shape for layer in found.plan.layers] == [layer.shape for layer in other.plan.layers]
    for one, two in zip(found.matrices, other.matrices, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=5e-7 if fold else 0)
    assert max(distances(found.measured, other.measured).values()) < (1e-5 if fold else 1e-12)
    if fold:
        assert distances(found.measured, stored.measured)["layered"] > 1e-3  # the control
    else:
        assert found.plan.content_hash == stored.plan.content_hash
