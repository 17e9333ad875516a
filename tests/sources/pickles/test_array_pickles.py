"""Pickles of arrays that no tensor of torch is in: names and what is left out."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.sources import expand, open_ref

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path, content: Any, protocol: int) -> tuple[str | None, dict[str, Any]]:
    """The key and the arrays that are read of a pickle."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    (ref,) = expand(path)
    with open_ref(ref) as found:
        return found.ref.key, {info.name: np.asarray(found.read(info.name)) for info in found.tensors}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapper", ["model", "blobs"])
def test_the_dictionary_around_the_arrays_is_the_key(wrapper: str, protocol: int, tmp_path: Path) -> None:
    arrays = {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.ones(2, np.float32)}
    key, found = read(tmp_path / "x.pkl", {wrapper: arrays, "__author__": "a", "heuristics": True}, protocol)
    assert key == wrapper
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    key, found = read(tmp_path / "y.pkl", {wrapper: arrays, "mean": np.zeros(3)}, protocol)
    assert (key, list(found)) == (None, [f"{wrapper}.fc.weight", f"{wrapper}.fc.bias", "mean"])


def test_momentum_beside_an_array_is_no_weight(tmp_path: Path) -> None:
    arrays = {name: np.ones((2, 2)) for name in ("conv_w", "conv_w_momentum", "alone_momentum")}
    _, found = read(tmp_path / "x.pkl", {"blobs": arrays, "cfg": "a"}, 2)
    assert list(found) == ["conv_w", "alone_momentum"]
