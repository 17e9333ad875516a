"""Single NumPy arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from tests.sources import array_files

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.random.default_rng(0).standard_normal((6, 4))


def written(content: bytes, folder: Path) -> Path:
    (folder / "fc.npy").write_bytes(content)
    return folder / "fc.npy"


def version(number: int, array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=(number, 0))
    return content.getvalue()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("change", ["plain", "fortran", "big-endian", "half", "view"])
def test_a_file_is_a_model_of_one_matrix(number: int, change: str, tmp_path: Path) -> None:
    array: Any = {
        "plain": ARRAY, "fortran": np.asfortranarray(ARRAY), "big-endian": ARRAY.astype(">f4"),
        "half": ARRAY.astype("f2"), "view": ARRAY[::2],
    }[change]  # fmt: skip
    with open_ref(expand(written(version(number, array), tmp_path))[0]) as checkpoint:
        [layer] = plan_weights(checkpoint).layers
        assert layer.name == "fc"
        np.testing.assert_array_equal(
            layer_matrix(checkpoint, layer), array.astype(layer_matrix(checkpoint, layer).dtype)
        )


def header(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


HOSTILE = {
    "objects": (array_files.npy(np.array([{"a": 1}], object)), UnsafeError, "a pickle of Python objects"),
    "extents": (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000000000000)}"),
                WeightsError, "bytes do not fill"),
    "negative": (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", bytes(16)), WeightsError,
                 "bytes do not fill"),
    "code": (header("__import__('os').mkdir('created')"), WeightsError, "invalid header"),
    "nested": (header("(" * 9000), WeightsError, "invalid header"),
    "long": (b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little"), UnsafeError, "a header of 2147483648 bytes"),
    "text": (array_files.npy(np.array(["a", "b"])), WeightsError, "is not numeric"),
    "records": (array_files.npy(np.zeros(3, [("a", "f4")])), WeightsError, "is not numeric"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(50), WeightsError, "not an array of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    content, error, words = HOSTILE[name]
    with pytest.raises(error, match=words) as caught:
        open_ref(expand(written(content, tmp_path))[0])
    assert caught.value.remedy


@pytest.mark.parametrize("place", range(10))
def test_files_that_are_cut_off_are_refused(place: int, tmp_path: Path) -> None:
    content = array_files.npy()
    with pytest.raises(RegistryError):
        array_files.read_all(written(content[: max(1, len(content) * place // 10)], tmp_path))


def test_there_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no entry"):
        open_ref(expand(written(array_files.npy(), tmp_path), key="a")[0])
