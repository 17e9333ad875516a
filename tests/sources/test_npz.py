from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint

W = np.arange(12.0, dtype=np.float32).reshape(3, 4)


def opened(folder: Path, **arrays: Any) -> Checkpoint:
    np.savez(folder / "x.npz", **arrays)
    return open_ref(expand(folder / "x.npz")[0])


@pytest.mark.parametrize(
    "array",
    [W, W[::-1, ::2], np.asfortranarray(W), W.astype(">f4"), W.astype("f2"), W.astype(">f8"), W[:0], W[0, 0]],
    ids=["plain", "strided", "fortran", "big-endian", "half", "double", "empty", "scalar"],
)
def test_arrays_of_any_order_and_endianness(array: np.ndarray, tmp_path: Path) -> None:
    with opened(tmp_path, w=array) as checkpoint:
        (info,) = checkpoint.tensors
        assert (info.name, info.dtype, info.shape) == ("w", array.dtype.name, array.shape)
        little = array.astype(array.dtype.newbyteorder("<"))
        assert bytes(checkpoint.raw("w")) == little.tobytes()
        np.testing.assert_array_equal(checkpoint.read("w"), array)
        assert checkpoint.read("w").dtype == (np.float64 if array.dtype.itemsize == 8 else np.float32)


def test_numbers_of_every_kind_are_tensors_and_text_is_none(tmp_path: Path) -> None:
    arrays = {"w": W, "i": np.arange(3), "b": np.ones(2, bool), "c": np.ones(2, complex), "t": np.array(["a", "b"])}
    with opened(tmp_path, **arrays) as checkpoint:
        assert {t.name: t.dtype for t in checkpoint.tensors} == {
            "w": "float32", "i": "int64", "b": "bool", "c": "complex128",
        }  # fmt: skip
        assert [layer.name for layer in plan_weights(checkpoint).layers] == ["w"]
        with pytest.raises(WeightsError, match="int64, not floating point"):
            checkpoint.read("i")


def test_names_of_parallel_models_are_bared(tmp_path: Path) -> None:
    with opened(tmp_path, **{"module.a": W, "module.b": W}) as checkpoint:
        assert [info.name for info in checkpoint.tensors] == ["a", "b"]


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeError, match=r"'w\.npy' is a pickle of Python objects") as caught:
        opened(tmp_path, w=np.array([{}], dtype=object))
    assert caught.value.remedy


@pytest.mark.parametrize("dtype", ["V2", [("a", "f4"), ("b", "i4")], "datetime64[s]"])
def test_what_is_no_number_is_refused(dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'w\.npy' has dtype .* which is not numeric"):
        opened(tmp_path, w=np.zeros((2, 2), dtype))


def test_a_key_has_nothing_to_choose(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=W)
    with pytest.raises(NotFoundError, match="never wrapped"):
        open_ref(expand(tmp_path / "x.npz", key="model")[0])


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes((version, 0)) + len(header).to_bytes(2 * version, "little") + header.encode() + data


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}"


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (npy(PLAIN, b"\0" * 15), WeightsError, "bytes do not fill"),
        (npy(PLAIN, b"\0" * 17), WeightsError, "bytes do not fill"),
        (npy(PLAIN.replace("2, 2", "-2, -2"), b"\0" * 16), WeightsError, "bytes do not fill|an invalid header"),
        (npy(PLAIN.replace("2, 2", "2**40, 2")), WeightsError, "an invalid header"),
        (npy(PLAIN.replace("2, 2", "99999999999, 99999999999")), WeightsError, "bytes do not fill"),
        (npy("__import__('os')"), WeightsError, "an invalid header"),
        (npy("[" * 9000), WeightsError, "an invalid header"),
        (npy("{"), WeightsError, "an invalid header"),
        (npy(PLAIN)[:-9], WeightsError, "an invalid header"),
        (npy(PLAIN + " " * 60_000), UnsafeError, "a header of 600"),
        (npy(PLAIN, b"\0" * 16, version=2)[:9], WeightsError, "an invalid header|cannot be unpacked"),
        (b"\x93NUMPY\x04\x00", WeightsError, "is not an array of numbers"),
        (b"", WeightsError, "is not an array of numbers"),
        (b"text", WeightsError, "is not an array of numbers"),
    ],
)
def test_headers_are_held_against_the_bytes(
    content: bytes, kind: type[SourceError], message: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(kind, match=message) as caught:
        open_ref(expand(tmp_path / "x.npz")[0])
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("noise", "refused"), [(0, True), (500_000, True), (1_200_000, False)])
def test_archives_that_unpack_to_much_more_are_refused(noise: int, refused: bool, tmp_path: Path) -> None:
    """80 MiB of zeros, and noise that cannot be packed: some 1,000, 140 and 65 times the file's size."""
    size = 80 * 2**20
    header = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},)}}")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("w.npy", "w") as file:
        file.write(header)
        file.write(np.random.default_rng(0).bytes(noise))
        file.write(bytes(size - noise))
    (ref,) = expand(tmp_path / "x.npz")
    if refused:
        with pytest.raises(UnsafeError, match=r"would unpack \d+ bytes to 838"):
            open_ref(ref)
    else:
        with open_ref(ref) as checkpoint:
            assert [info.shape for info in checkpoint.tensors] == [(size,)]


def test_damage_in_the_data_is_found_on_reading(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=W)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[data.find(W.tobytes()) + 5] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(WeightsError, match="CRC"), open_ref(expand(tmp_path / "x.npz")[0]) as checkpoint:
        checkpoint.raw("w")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, W)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", content.getvalue())
        archive.writestr("w.npy", content.getvalue())
    with pytest.raises(WeightsError, match="several arrays of one name"):
        open_ref(expand(tmp_path / "x.npz")[0])


def test_a_part_of_an_array_is_that_of_the_whole(tmp_path: Path) -> None:
    with opened(tmp_path, w=np.asfortranarray(W), v=W + 1) as checkpoint:
        for name in ("w", "v", "w"):
            raw = bytes(checkpoint.raw(name))
            assert checkpoint.bytes_of(name) == len(raw) == 48
            assert [bytes(checkpoint.span(name, a, b)) for a, b in ((0, 8), (8, 48))] == [raw[:8], raw[8:]]
    with pytest.raises(SourceError, match="closed"):
        checkpoint.span("w", 0, 4)
