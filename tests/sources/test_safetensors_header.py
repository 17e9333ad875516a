"""The checks of safetensors headers, beside those of the library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from registry.errors import SourceError
from registry.sources.dtypes import SAFETENSORS_DTYPES, bits_of
from registry.sources.files.byte_source import LocalBytes
from registry.sources.formats.safetensors import read_header

if TYPE_CHECKING:
    from pathlib import Path

STATE: dict[str, np.ndarray] = {
    "a": np.zeros((2, 3), np.float32), "b": np.arange(4, dtype=np.int64), "empty": np.zeros((0, 5), np.float16),
    "scalar": np.ones((), np.float64), "c": np.ones((3, 1, 2), np.uint8),
}  # fmt: skip


def packed(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def accepted(path: Path) -> bool:
    with LocalBytes(path, check=False) as file:
        try:
            read_header(file)
        except SourceError as error:
            refusal = error
        else:
            return True
    assert refusal.remedy
    assert "\n" not in refusal.message
    return False


def accepted_by_library(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError):
        return False
    return True


def both(data: bytes, folder: Path) -> tuple[bool, bool]:
    (folder / "x.safetensors").write_bytes(data)
    return accepted(folder / "x.safetensors"), accepted_by_library(folder / "x.safetensors")


def test_what_it_reads_is_what_the_library_reads(tmp_path: Path) -> None:
    data = save(STATE, {"format": "np", "näme": "tëxt"})
    (tmp_path / "x.safetensors").write_bytes(data)
    with LocalBytes(tmp_path / "x.safetensors") as file, safe_open(tmp_path / "x.safetensors", "numpy") as known:
        header = read_header(file)
        assert header.metadata == known.metadata()
        assert set(header.tensors) == set(known.keys())
        for name, entry in header.tensors.items():
            tensor = known.get_tensor(name)
            assert (entry.shape, entry.dtype) == (tensor.shape, tensor.dtype.name)
            assert bytes(file.read_at(entry.start, entry.stop - entry.start)) == tensor.tobytes()


@pytest.mark.parametrize("kind", SAFETENSORS_DTYPES)
def test_sizes_of_dtypes(kind: str, tmp_path: Path) -> None:
    bits = bits_of(SAFETENSORS_DTYPES[kind][0])
    right = 8 * bits // 8
    for size in (right, right - 1, right + 1):
        file = packed({"a": {"dtype": kind, "shape": [8], "data_offsets": [0, size]}}, bytes(size))
        assert both(file, tmp_path) == (size == right, size == right)
    odd = packed({"a": {"dtype": kind, "shape": [3], "data_offsets": [0, 3 * bits // 8]}}, bytes(3 * bits // 8))
    whole = 3 * bits % 8 == 0
    assert both(odd, tmp_path) == (whole, whole)


A = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
CASES: dict[str, bytes] = {
    "nothing": b"",
    "short": b"\5\0\0",
    "no header": packed(b""),
    "empty object": packed({}),
    "array": packed([]),
    "number": packed(1),
    "null": packed(b"null"),
    "text": packed(b'"x"'),
    "not utf-8": packed(b'{"\xff": 1}'),
    "spaces": packed(json.dumps({"a": A}).encode() + b"   ", bytes(4)),
    "spaces before": packed(b"  " + json.dumps({"a": A}).encode(), bytes(4)),
    "two values": packed(b"{} {}"),
    "nan": packed(b'{"__metadata__": {"a": NaN}}'),
    "utf-16": packed('{"a": 1}'.encode("utf-16")),
    "bom": packed("\ufeff{}".encode()),
    "metadata number": packed({"__metadata__": {"a": 1}}),
    "metadata list": packed({"__metadata__": []}),
    "metadata null": packed({"__metadata__": None, "a": A}, bytes(4)),
    "half a pair": packed(b'{"__metadata__": {"a": "\\ud800"}}'),
    "no dtype": packed({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "unknown dtype": packed({"a": {**A, "dtype": "F128"}}, bytes(4)),
    "dtype list": packed({"a": {**A, "dtype": []}}, bytes(4)),
    "lower dtype": packed({"a": {**A, "dtype": "f32"}}, bytes(4)),
    "more fields": packed({"a": {**A, "more": [1]}}, bytes(4)),
    "float shape": packed({"a": {**A, "shape": [1.0]}}, bytes(4)),
    "bool shape": packed({"a": {**A, "shape": [True]}}, bytes(4)),
    "text shape": packed({"a": {**A, "shape": "1"}}, bytes(4)),
    "negative": packed({"a": {**A, "shape": [-1]}}, bytes(4)),
    "huge": packed({"a": {**A, "shape": [2**63, 2]}}, bytes(4)),
    "huger": packed({"a": {**A, "shape": [2**64]}}, bytes(4)),
    "overflow before zero": packed({"a": {"dtype": "F32", "shape": [2**63, 4, 0], "data_offsets": [0, 0]}}),
    "three offsets": packed({"a": {**A, "data_offsets": [0, 4, 4]}}, bytes(4)),
    "backwards": packed({"a": {**A, "data_offsets": [4, 0]}}, bytes(4)),
    "gap": packed({"a": A, "b": {**A, "data_offsets": [8, 12]}}, bytes(12)),
    "gap before": packed({"a": {**A, "data_offsets": [4, 8]}}, bytes(8)),
    "overlap": packed({"a": A, "b": {**A, "data_offsets": [2, 6]}}, bytes(6)),
    "same": packed({"a": A, "b": A}, bytes(4)),
    "empty between": packed(
        {"a": A, "z": {**A, "shape": [0], "data_offsets": [4, 4]}, "b": {**A, "data_offsets": [4, 8]}}, bytes(8)
    ),
    "too long": packed({"a": A}, bytes(5)),
    "too short": packed({"a": A}, bytes(3)),
    "entry null": packed({"a": None}),
    "deep": packed(b"[" * 100_000),
    "deep field": packed(b'{"a":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}"),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str, tmp_path: Path) -> None:
    ours, library = both(CASES[name], tmp_path)
    assert ours == library


def test_a_name_stands_once(tmp_path: Path) -> None:
    twice = b'{"a": %b, "a": %b}' % (json.dumps(A).encode(), json.dumps(A).encode())
    ours, _ = both(packed(twice, bytes(4)), tmp_path)
    assert not ours


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_judged_alike(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    original = save(STATE, {"format": "np"})
    counts = {(True, True): 0, (False, False): 0}
    for _ in range(400):
        changed = damaged(original, rng)
        verdicts = both(changed, tmp_path)
        if verdicts == (False, True):  # the only thing in which the library is less strict
            pairs = changed[8 : 8 + int.from_bytes(changed[:8], "little")]
            assert _repeats(pairs), changed
            continue
        assert verdicts in counts, changed
        counts[verdicts] += 1
    assert min(counts.values()) > 20  # both kinds were tried


def _repeats(text: bytes) -> bool:
    found = []
    json.loads(text, object_pairs_hook=lambda pairs: found.append(len(pairs) != len(dict(pairs))))
    return any(found)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One change to the header's bytes or to the file's end, with the stated length kept right half of the time."""
    length = int.from_bytes(data[:8], "little")
    text, rest = bytearray(data[8 : 8 + length]), data[8 + length :]
    at = int(rng.integers(0, length))
    what = int(rng.integers(0, 6))
    if what == 0:
        text[at] = int(rng.integers(32, 127))
    elif what == 1:
        digits = [place for place, sign in enumerate(text) if chr(sign).isdigit()]
        text[digits[int(rng.integers(0, len(digits)))]] = ord("0") + int(rng.integers(0, 10))
    elif what == 2:
        del text[at]
    elif what == 3:
        text.insert(at, b'0123456789,[]{}":-.e\\'[int(rng.integers(0, 21))])
    elif what == 4:
        rest = rest[: int(rng.integers(0, len(rest)))] if rng.random() < 0.5 else rest + b"x"
    else:
        letters = [place for place, sign in enumerate(text) if chr(sign) in "abcdefmptrsy"]
        text[letters[int(rng.integers(0, len(letters)))]] = ord("q")
    stated = length if rng.random() < 0.5 and what in (2, 3) else len(text)
    return stated.to_bytes(8, "little") + bytes(text) + rest
