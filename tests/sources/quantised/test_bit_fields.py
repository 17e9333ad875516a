"""Packed codes against a packer that writes single bits."""

from __future__ import annotations

import numpy as np
import pytest

from registry.sources.quantised.bit_fields import (
    by_blocks,
    sign_extended,
    split_nibbles,
    unpack_fields,
    unpack_padded,
)


def _stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """The bytes of codes, one bit after the other, low bits first."""
    single = (codes[..., None] >> np.arange(bits)) & 1
    flat = single.reshape(*codes.shape[:-1], -1)
    return np.packbits(flat.astype(np.uint8), axis=-1, bitorder="little")


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 32, 33])
def test_a_dense_stream_is_read(bits: int, count: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 2, count), dtype=np.uint8)
    assert np.array_equal(unpack_fields(_stream(codes, bits), bits, count), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_word_holds_whole_codes(bits: int) -> None:
    each = 32 // bits
    codes = np.random.default_rng(bits).integers(0, 2**bits, (5, 4 * each), dtype=np.uint32)
    words = np.zeros((5, 4), np.uint32)
    for at in range(each):
        words |= codes[:, at::each] << np.uint32(at * bits)
    assert np.array_equal(unpack_padded(words, bits), codes)


def test_either_nibble_comes_first() -> None:
    packed = np.array([[0x21, 0x43]], np.uint8)
    assert split_nibbles(packed).tolist() == [[1, 2, 3, 4]]
    assert split_nibbles(packed, high_first=True).tolist() == [[2, 1, 4, 3]]


def test_the_highest_bit_is_the_sign() -> None:
    assert sign_extended(np.arange(8, dtype=np.uint8), 3).tolist() == [0, 1, 2, 3, -4, -3, -2, -1]
    assert sign_extended(np.array([127, 128, 255], np.uint8), 8).tolist() == [127, -128, -1]


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        unpack_fields(np.zeros(8, np.uint8), bits)
    with pytest.raises(ValueError, match="bits"):
        unpack_padded(np.zeros(8, np.uint32), bits)


def test_a_stream_gives_no_more_than_it_has() -> None:
    with pytest.raises(ValueError, match="9 codes of 3 bits in 3 bytes"):
        unpack_fields(np.zeros(3, np.uint8), 3, 9)


def test_blocks_are_consecutive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.sources.quantised.bit_fields._BLOCK", 6)
    table = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
    asked = []

    def decode(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return table[start:stop]

    assert np.array_equal(by_blocks(3, 9, (2, 2), decode), table[3:9])
    assert asked == [(at, at + 1) for at in range(3, 9)]
    assert by_blocks(4, 4, (2, 2), decode).shape == (0, 2, 2)
