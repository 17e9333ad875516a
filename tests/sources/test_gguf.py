"""GGUF: blocks as the library dequantises them, headers that lie, names, and what is refused."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, layer_matrix, open_ref, plan_weights
from registry.sources.files.byte_source import open_bytes
from registry.sources.formats.gguf import ggml_blocks as blocks
from registry.sources.formats.gguf import gguf_header
from registry.sources.formats.gguf.ggml_blocks import TYPES, values_of
from registry.sources.formats.gguf.gguf_header import Array, read_header
from registry.sources.formats.gguf.llama_cpp_names import FAMILIES, family_of, renamed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

QUANTISED = {number: kind for number, kind in TYPES.items() if not kind.dtype}
LIBRARY = {number: kind for number, kind in QUANTISED.items() if kind.name != "Q1_0"}  # which it cannot do yet


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def told(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """A tensor's part of the header; the shape in the file's order, the fastest axis first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(
    tensors: list[bytes],
    entries: Sequence[bytes] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    number = counts or (len(tensors), len(entries))
    return b"GGUF" + struct.pack("<IQQ", version, *number) + b"".join(entries) + b"".join(tensors)


def with_data(head: bytes, data: bytes, alignment: int = 32) -> bytes:
    return head + bytes(-len(head) % alignment) + data


LLAMA = entry("general.architecture", 8, text("llama"))
EYE = (np.eye(4, dtype=np.float32) * np.arange(1, 5, dtype=np.float32)).tobytes()


def small(*entries: bytes) -> bytes:
    return with_data(header([told("token_embd.weight", (4, 4), 0, 0)], [LLAMA, *entries]), EYE)


def written(folder: Path, content: bytes, name: str = "x.gguf") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    with open_ref(expand(path)[0]) as checkpoint:
        return {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}


def random_blocks(number: int, count: int = 300) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (count, TYPES[number].size), dtype=np.uint8)


class TestBlocks:
    def test_every_type_of_the_library_is_known_with_its_sizes(self) -> None:
        known = {number: (kind.name, (kind.block, kind.size)) for number, kind in TYPES.items()}
        theirs = {int(kind): (kind.name, size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
        intermediate = blocks.INTERMEDIATE
        assert known == {number: each for number, each in theirs.items() if number not in intermediate}
        assert intermediate == {number: theirs[number][0] for number in intermediate}
        assert not blocks.REMOVED.keys() & theirs.keys()

    @pytest.mark.parametrize("number", LIBRARY, ids=[kind.name for kind in LIBRARY.values()])
    def test_values_are_those_of_the_library_bit_for_bit(self, number: int) -> None:
        data = random_blocks(number)
        with np.errstate(all="ignore"):  # random scales are NaN and infinite, too
            ours = values_of(TYPES[number], data)
            theirs = gguf.quants.dequantize(data.copy(), gguf.GGMLQuantizationType(number)).reshape(ours.shape)
        assert ours.dtype == np.float32
        assert (np.isnan(ours) == np.isnan(theirs)).all()
        finite = ~np.isnan(ours)
        np.testing.assert_array_equal(ours.view(np.uint32)[finite], theirs.view(np.uint32)[finite])
        assert np.unique(ours[finite]).size > 100

    @pytest.mark.parametrize("number", LIBRARY, ids=[kind.name for kind in LIBRARY.values()])
    def test_every_byte_of_a_block_matters_as_much_as_to_the_library(self, number: int) -> None:
        """The comparison sees a wrong byte wherever the format looks at it."""
        data = random_blocks(number, 1)
        changed = np.repeat(data, data.shape[1], axis=0)
        np.fill_diagonal(changed, ~np.diagonal(changed))
        with np.errstate(all="ignore"):
            moved = [
                (find(changed).view(np.uint32) != find(data).view(np.uint32)).any(axis=1)
                for find in (
                    lambda rows: values_of(TYPES[number], rows),
                    lambda rows: gguf.quants.dequantize(rows.copy(), gguf.GGMLQuantizationType(number)),
                )
            ]
        np.testing.assert_array_equal(*moved)
        assert moved[0].all()

    def test_a_sign_for_each_value(self) -> None:
        data = np.array([[0x00, 0x40, 0b00000101, *[0] * 15]], np.uint8)  # a scale of 2
        np.testing.assert_array_equal(values_of(TYPES[41], data)[0, :4], [2, -2, 2, -2])

    def test_the_library_is_named_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(SourceError, match="IQ2_XXS need the library gguf") as caught:
            values_of(TYPES[16], random_blocks(16, 1))
        assert "architecture-registry[gguf]" in caught.value.remedy
        values_of(TYPES[12], random_blocks(12, 1))  # which needs none


class TestTensors:
    def write(self, path: Path, tensors: dict[str, np.ndarray], kind: gguf.GGMLQuantizationType | None = None) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        for name, array in tensors.items():
            if kind is None or array.ndim < 2:
                writer.add_tensor(name, array)
            else:
                writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        for step in ("header", "kv_data", "tensors"):
            getattr(writer, f"write_{step}_to_file")()
        writer.close()
        return path

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64"])
    def test_plain_numbers_are_exact(self, dtype: str, tmp_path: Path) -> None:
        array = np.random.default_rng(0).normal(0, 50, (3, 4, 5)).astype(dtype)
        path = self.write(tmp_path / "x.gguf", {"a.weight": array, "token_embd.weight": np.eye(3, dtype=np.float32)})
        with open_ref(expand(path)[0]) as checkpoint:
            [info] = [info for info in checkpoint.tensors if info.name == "a.weight"]
            assert (info.dtype, info.shape) == (dtype, (3, 4, 5))
            assert bytes(checkpoint.raw("a.weight")) == array.tobytes()

    def test_any_span_of_a_quantised_tensor_is_that_of_the_whole(self, tmp_path: Path) -> None:
        array = np.random.default_rng(1).normal(size=(6, 64)).astype(np.float32)
        path = self.write(tmp_path / "x.gguf", {"token_embd.weight": array}, gguf.GGMLQuantizationType.Q4_0)
        with open_ref(expand(path)[0]) as checkpoint:
            [info] = checkpoint.tensors
            whole = bytes(checkpoint.raw(info.name))
            assert len(whole) == array.nbytes
            for start, stop in ((0, 0), (1, 3), (100, 700), (127, 129), (128, 256), (5, len(whole)), (0, 10**9)):
                assert bytes(checkpoint.span(info.name, start, stop)) == whole[start:stop]
            assert checkpoint.stored.stored_sizes[info.name] == 6 * 2 * 18  # type: ignore[attr-defined]

    def test_names_that_are_not_llama_cpps_stay(self, tmp_path: Path) -> None:
        """As programs for image models write them; a scale is not multiplied in, a row not moved."""
        arrays = {
            "model.diffusion_model.input_blocks.0.0.weight": np.arange(72, dtype=np.float32).reshape(4, 2, 3, 3),
            "model.diffusion_model.out.0.scale": np.full(1, 2, np.float32),
        }
        found = read(self.write(tmp_path / "x.gguf", arrays))
        assert {name: array.shape for name, array in found.items()} == {n: a.shape for n, a in arrays.items()}

    def test_flattened_tensors_have_the_shape_that_the_metadata_tells(self, tmp_path: Path) -> None:
        shape = entry("comfy.gguf.orig_shape.w", 9, struct.pack("<IQ4i", 5, 4, 2, 2, 2, 2))
        wrong = entry("comfy.gguf.orig_shape.v", 9, struct.pack("<IQ2i", 5, 2, 2, 3))
        head = header([told("w", (4, 4), 0, 0), told("v", (4, 4), 0, 64)], [shape, wrong])
        found = read(written(tmp_path, with_data(head, EYE + EYE)))
        assert (found["w"].shape, found["v"].shape) == ((2, 2, 2, 2), (4, 4))

    def test_weights_are_multiplied_by_the_scales_beside_them(self, tmp_path: Path) -> None:
        arrays = {
            "blk.0.attn_v.weight": np.arange(12, dtype=np.float16).reshape(3, 4),
            "blk.0.attn_v.scale": np.array([0.5], np.float32),
            "blk.0.ffn_up_exps.weight": np.ones((2, 3, 4), np.float32),
            "blk.0.ffn_up_exps.scale": np.array([2, 3], np.float32),
            "blk.0.ffn_down.weight": np.ones((3, 4), np.float32),
            "blk.0.ffn_down.scale": np.array([2, 3, 4, 5], np.float32),  # which fits nothing
        }
        found = read(self.write(tmp_path / "x.gguf", arrays))
        np.testing.assert_array_equal(
            found["model.layers.0.self_attn.v_proj.weight"], arrays["blk.0.attn_v.weight"].astype(np.float32) / 2
        )
        np.testing.assert_array_equal(found["model.layers.0.mlp.experts.up_proj.weight"][:, 0, 0], [2, 3])
        assert (found["model.layers.0.mlp.down_proj.weight"] == 1).all()
        assert "model.layers.0.mlp.down_proj.scale" in found
        with open_ref(expand(tmp_path / "x.gguf")[0]) as checkpoint:
            name = "model.layers.0.mlp.experts.up_proj.weight"
            whole = bytes(checkpoint.raw(name))
            assert bytes(checkpoint.span(name, 30, 70)) == whole[30:70]

    def test_tables_of_rotations_are_no_parameters(self, tmp_path: Path) -> None:
        arrays = {"token_embd.weight": np.eye(4, dtype=np.float32), "rope_freqs.weight": np.ones(7, np.float32)}
        with open_ref(expand(self.write(tmp_path / "x.gguf", arrays))[0]) as checkpoint:
            assert plan_weights(checkpoint).parameters == 16

    def test_fused_projections_are_cut_where_heads_tell(self, tmp_path: Path) -> None:
        """By the sizes of the metadata; else, and where they do not fit, they stay whole."""
        head = [
            entry("general.architecture", 8, text("qwen")), entry("qwen.embedding_length", 4, struct.pack("<I", 8)),
            entry("qwen.attention.head_count", 4, struct.pack("<I", 4)),
            entry("qwen.attention.head_count_kv", 4, struct.pack("<I", 2)),
        ]  # fmt: skip
        data = np.arange(16 * 8, dtype=np.float32)
        content = with_data(header([told("blk.0.attn_qkv.weight", (8, 16), 0, 0)], head), data.tobytes())
        found = read(written(tmp_path, content))
        assert {name.split(".")[-2]: len(array) for name, array in found.items()} == {
            "q_proj": 8, "k_proj": 4, "v_proj": 4,
        }  # fmt: skip
        np.testing.assert_array_equal(np.concatenate(list(found.values())), data.reshape(16, 8))
        content = with_data(header([told("blk.0.attn_qkv.weight", (8, 15), 0, 0)], head), data.tobytes())
        assert list(read(written(tmp_path, content))) == ["model.layers.0.attn_qkv.weight"]

    def test_vision_towers_with_up_and_down_the_wrong_way_round(self, tmp_path: Path) -> None:
        arrays = {
            "v.blk.0.ffn_down.weight": np.ones((8, 4), np.float32), "v.blk.0.ffn_down.bias": np.ones(8, np.float32),
            "v.blk.0.ffn_up.weight": np.ones((4, 8), np.float32), "v.blk.0.ffn_up.bias": np.ones(4, np.float32),
            "v.patch_embd.weight": np.ones((4, 3, 2, 2), np.float32), "mm.0.weight": np.ones((4, 4), np.float32),
        }  # fmt: skip
        found = read(self.write(tmp_path / "x.gguf", arrays))
        above = "vision_model.encoder.layers.0.mlp"
        assert (found[f"{above}.fc1.weight"].shape, found[f"{above}.fc1.bias"].shape) == ((8, 4), (8,))
        assert found[f"{above}.fc2.weight"].shape == (4, 8)


class TestHeader:
    def test_a_vocabulary_is_skipped_without_an_object_for_each_word(self, tmp_path: Path) -> None:
        """150,000 words of some 30 bytes, and their scores."""
        words = b"".join(text(f"word {number:024}") for number in range(150_000))
        scores = bytes(4 * 150_000)
        path = written(
            tmp_path,
            small(
                entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 150_000) + words),
                entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 150_000) + scores),
                entry("llama.block_count", 4, struct.pack("<I", 7)),
            ),
        )
        with open_bytes(path) as file:
            taken, least, told_bytes = [], file.size, 0
            original = file.read_at

            def counted(start: int, count: int) -> bytes | bytearray:
                nonlocal told_bytes
                taken.append(count)
                told_bytes += count
                return original(start, count)

            file.read_at = counted  # type: ignore[method-assign]
            begun = time.process_time()
            found = read_header(file)
            seconds = time.process_time() - begun
        assert found.metadata["tokenizer.ggml.tokens"] == Array(150_000)
        assert found.metadata["llama.block_count"] == 7
        assert found.size < least
        assert told_bytes <= found.size + 64_000
        assert len(taken) < 60
        assert seconds < 0.4  # 0.05 on an idle machine

    def test_short_arrays_of_numbers_are_kept(self, tmp_path: Path) -> None:
        heads = entry("llama.attention.head_count", 9, struct.pack("<IQ3I", 4, 3, 8, 4, 2))
        flags = entry("flags", 9, struct.pack("<IQ2?", 7, 2, True, False))
        long = entry("long", 9, struct.pack("<IQ", 10, 5000) + bytes(40_000))
        nested = entry(
            "n", 9, struct.pack("<IQ", 9, 2) + struct.pack("<IQ2H", 2, 2, 1, 2) + struct.pack("<IQ", 8, 1) + text("a")
        )
        with open_bytes(
            written(tmp_path, small(heads, flags, long, nested, entry("last", 10, b"\x05" + bytes(7))))
        ) as file:
            found = read_header(file).metadata
        assert found["llama.attention.head_count"] == Array(3, (8, 4, 2))
        assert found["flags"] == Array(2, (True, False))
        assert found["long"] == Array(5000)
        assert found["n"] == Array(2)
        assert found["last"] == 5

    def test_every_kind_of_number(self, tmp_path: Path) -> None:
        letters = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
        entries = [entry(f"k{kind}", kind, struct.pack(f"<{letter}", 1)) for kind, letter in letters.items()]
        with open_bytes(written(tmp_path, small(*entries))) as file:
            found = read_header(file).metadata
        assert {key: value for key, value in found.items() if key.startswith("k")} == {
            f"k{kind}": 1 for kind in letters
        }

    def test_version_2_is_read(self, tmp_path: Path) -> None:
        content = with_data(header([told("token_embd.weight", (4, 4), 0, 0)], [LLAMA], version=2), EYE)
        assert list(read(written(tmp_path, content))) == ["model.embed_tokens.weight"]

    def test_alignment_is_that_of_the_metadata(self, tmp_path: Path) -> None:
        wide = entry("general.alignment", 4, struct.pack("<I", 1024))
        head = header([told("token_embd.weight", (4, 4), 0, 0)], [LLAMA, wide])
        found = read(written(tmp_path, with_data(head, EYE, 1024)))
        np.testing.assert_array_equal(np.diag(found["model.embed_tokens.weight"]), [1, 2, 3, 4])


def array_claim(kind: int, count: int) -> bytes:
    return small(entry("a", 9, struct.pack("<IQ", kind, count)))


def one(shape: tuple[int, ...] = (4, 4), kind: int = 0, offset: int = 0, *others: bytes) -> bytes:
    return with_data(header([told("token_embd.weight", shape, kind, offset), *others], [LLAMA]), EYE)


NESTED = struct.pack("<IQ", 9, 1)
HOSTILE: dict[str, tuple[bytes, type[RegistryError], str]] = {
    "empty": (b"", WeightsError, "is empty"),
    "magic-alone": (b"GGUF", WeightsError, "ends within its header"),
    "version-1": (header([], version=1) + bytes(9), WeightsError, "GGUF version 1; versions 2 and 3"),
    "version-9": (header([], version=9) + bytes(9), WeightsError, "GGUF version 9"),
    "no-tensors": (header([], [LLAMA]), WeightsError, "holds no tensors"),
    "many-tensors": (header([], [], counts=(2**40, 0)), WeightsError, "claims 1099511627776 tensors"),
    "many-entries": (header([], [], counts=(0, 2**63)), WeightsError, "metadata entries"),
    "too-many-entries": (header([], [], counts=(0, 70_000)) + bytes(10**6), UnsafeError, "70000 metadata entries"),
    "too-many-tensors": (header([], [], counts=(70_000, 0)) + bytes(3 * 10**6), UnsafeError, "70000 tensors"),
    "key-beyond": (header([], [struct.pack("<Q", 2**60) + bytes(40)]), WeightsError, "ends early"),
    "key-long": (header([], [text(b"k" * 2000) + bytes(40)]), UnsafeError, "metadata key of more than 1000"),
    "key-twice": (small(LLAMA), WeightsError, "'general.architecture' twice"),
    "text-beyond": (small(entry("a", 8, struct.pack("<Q", 2**62))), WeightsError, "ends early"),
    "unknown-value": (small(entry("a", 99, bytes(8))), WeightsError, "'a' is of the unknown type 99"),
    "array-2^40": (array_claim(4, 2**40), WeightsError, "claims 1099511627776 elements"),
    "array-texts": (array_claim(8, 2**40), WeightsError, "claims 1099511627776 elements"),
    "array-few-texts": (array_claim(8, 9), WeightsError, "ends early"),
    "array-arrays": (array_claim(9, 2**40), WeightsError, "claims 1099511627776 elements"),
    "array-unknown": (array_claim(77, 1), WeightsError, "unknown type 77"),
    "array-deep": (small(entry("a", 9, NESTED * 2000 + bytes(4))), UnsafeError, "nested more than 16 deep"),
    "alignment-0": (small(entry("general.alignment", 4, bytes(4))), WeightsError, "alignment of 0"),
    "alignment-24": (small(entry("general.alignment", 4, b"\x18\0\0\0")), WeightsError, "no power of two"),
    "alignment-huge": (small(entry("general.alignment", 4, b"\0\0\0\x80")), WeightsError, "alignment of 2147483648"),
    "alignment-text": (small(entry("general.alignment", 8, text("x"))), WeightsError, "alignment of x"),
    "name-long": (with_data(header([told("n" * 1001, (4, 4), 0, 0)]), EYE), UnsafeError, "tensor name of more"),
    "name-twice": (one((4, 4), 0, 0, told("token_embd.weight", (4, 4), 0, 0)), WeightsError, "twice"),
    "dimensions": (with_data(header([told("a", (1,) * 9, 0, 0)]), EYE), WeightsError, "9 dimensions"),
    "dimensions-2^32": (
        header([text("a") + struct.pack("<I", 2**32 - 1) + bytes(60)]), WeightsError, "4294967295 dimensions"
    ),
    "extents": (one((10**12, 10**12)), WeightsError, "claims a tensor of shape"),
    "extents-quantised": (one((2**62, 2**62), 12), WeightsError, "takes "),
    "offset-beyond": (one((4, 4), 0, 2**62), WeightsError, "claims a tensor"),
    "offset-odd": (one((4, 4), 0, 4), WeightsError, "no multiple of 32"),
    "overlap": (one((4, 4), 0, 0, told("b", (2, 2), 0, 32)), WeightsError, "lie over each other"),
    "rows": (one((33, 1), 8), WeightsError, "rows of 33 values, no multiple of 32"),
    "no-axes": (one((), 8), WeightsError, "rows of 1 values"),
    "type-unknown": (one((4, 4), 4711), WeightsError, "unknown type 4711"),
    "type-removed": (one((32, 4), 31), WeightsError, r"Q4_0_4_4 \(31\), which ggml no longer has"),
    "type-intermediate": (one((256, 1), 15), WeightsError, r"Q8_K \(15\), that of intermediate results"),
    "adapter": (small(entry("general.type", 8, text("adapter"))), WeightsError, "a LoRA adapter in GGUF"),
    "imatrix": (small(entry("general.type", 8, text("imatrix"))), WeightsError, "statistics of activations"),
    "part": (small(entry("split.count", 2, b"\x03\0")), WeightsError, "one of 3 parts"),
    "nul-name": (with_data(header([told("a\0b", (4, 4), 0, 0)]), EYE), UnsafeError, "not valid text"),
}  # fmt: skip


class TestHostile:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_refused_with_one_line(self, name: str, tmp_path: Path) -> None:
        content, error, words = HOSTILE[name]
        path = written(tmp_path, content)
        with pytest.raises(error, match=words) as caught, open_ref(expand(path)[0]) as checkpoint:
            plan_weights(checkpoint)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        content = small(entry("a", 9, struct.pack("<IQ", 8, 3) + text("x") * 3), entry("b", 8, text("y" * 30)))
        whole = read(written(tmp_path, content))
        assert whole
        for stop in range(1, len(content), max(1, len(content) // 40)):
            with pytest.raises(RegistryError):
                read(written(tmp_path, content[:stop]))

    def test_a_key_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, small())
        with pytest.raises(NotFoundError, match="no entry 'model'"):
            open_ref(expand(path, key="model")[0])

    @pytest.mark.parametrize(
        ("kind", "count", "size", "most"),
        [(8, 2**27 - 100, 2**30, 64), (9, 2**19, 2**23, 4)],  # arrays in an array are walked one by one
    )
    def test_a_header_beyond_the_bound_is_not_walked(
        self, kind: int, count: int, size: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sparse file whose one array is of empty texts, or of empty arrays, up to its end."""
        assert gguf_header._MOST == 64 * 2**20
        monkeypatch.setattr(gguf_header, "_MOST", most * 2**20)
        path = tmp_path / "x.gguf"
        with path.open("wb") as file:
            file.write(header([], [LLAMA, entry("a", 9, struct.pack("<IQ", kind, count))], counts=(0, 2)))
            file.truncate(size)
        begun = time.process_time()
        with pytest.raises(UnsafeError, match=f"a header of more than {most} MiB"):
            open_ref(expand(path)[0])
        assert time.process_time() - begun < 20

    def test_big_endian_blocks_that_are_not_known(self, tmp_path: Path) -> None:
        head = b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + struct.pack(">Q", 1) + b"a"
        head += struct.pack(">IQQIQ", 2, 256, 2, 10, 0)
        with pytest.raises(WeightsError, match="big-endian blocks of the type Q2_K"):
            read(written(tmp_path, with_data(head, bytes(200))))


class TestParts:
    def parts(self, folder: Path, counts: tuple[int, int] = (2, 2), total: int = 2, second: str = "output") -> Path:
        for number, name in enumerate(("token_embd", second)):
            split = [
                entry("split.no", 2, struct.pack("<H", number)),
                entry("split.count", 2, struct.pack("<H", counts[number])),
                entry("split.tensors.count", 5, struct.pack("<i", total)),
            ]
            head = header([told(f"{name}.weight", (4, 4), 0, 0)], ([LLAMA] if not number else []) + split)
            written(folder, with_data(head, EYE[::-1] if number else EYE), f"m-0000{number + 1}-of-00002.gguf")
        return folder / "m-00001-of-00002.gguf"

    def test_names_follow_from_the_first(self, tmp_path: Path) -> None:
        self.parts(tmp_path)
        found = read(tmp_path / "m-00002-of-00002.gguf")
        assert list(found) == ["model.embed_tokens.weight", "lm_head.weight"]

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"counts": (2, 3)}, "different models"), ({"counts": (3, 3)}, "different models"),
            ({"total": 5}, "states 5 tensors in all parts, which hold 2"),
            ({"second": "token_embd"}, "of another part"),
        ],
    )  # fmt: skip
    def test_contradictions(self, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=words):
            read(self.parts(tmp_path, **settings))

    def test_a_missing_part_is_named(self, tmp_path: Path) -> None:
        first = self.parts(tmp_path)
        (tmp_path / "m-00002-of-00002.gguf").unlink()
        with pytest.raises(WeightsError, match=r"m-00002-of-00002\.gguf is missing"):
            read(first)

    def test_a_link_that_leads_outside_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        first = self.parts(tmp_path / "in")
        second = tmp_path / "in" / "m-00002-of-00002.gguf"
        second.rename(tmp_path / "secret.gguf")
        second.symlink_to(tmp_path / "secret.gguf")
        with pytest.raises(UnsafeError):
            read(first)


_CORE = {f"attn_{part}" for part in ("q", "k", "v", "o", "output")} | {f"ffn_{part}" for part in ("gate", "up", "down")}


def test_the_matrices_of_every_architecture_of_the_library_are_renamed() -> None:
    """And no two of an architecture get one name."""
    for number, tensors in gguf.MODEL_TENSORS.items():
        architecture = gguf.MODEL_ARCH_NAMES[number]
        names = {
            gguf.TENSOR_NAMES[tensor].format(bid=3, xid=0) for tensor in tensors if "norm" not in tensor.name.lower()
        }
        new = {name: renamed(f"{name}.weight", family_of(architecture)) for name in names}
        assert len(set(new.values())) == len(names), architecture
        for name in names:  # names of other stacks than blocks are kept
            own = name.removeprefix("enc.").removeprefix("dec.").removeprefix("blk.3.")
            assert own not in _CORE or own not in new[name], (architecture, name)
    assert FAMILIES.keys() <= set(gguf.MODEL_ARCH_NAMES.values())


def test_a_published_file(originals: Path) -> None:
    """Constant filler: three matrices of one number each are layers of rank one by the rule."""
    [ref] = expand(originals / "gguf" / "weightless" / "tiny.gguf")
    with open_ref(ref) as checkpoint:
        plan = plan_weights(checkpoint)
        assert (plan.parameters, len(plan.layers)) == (18_752, 3)
        assert [np.unique(layer_matrix(checkpoint, layer)).size for layer in plan.layers] == [1, 1, 1]
        assert checkpoint.facts.config["num_key_value_heads"] == 2


_MEASURE = """
import resource, sys, time
from registry.sources import expand, layer_matrix, open_ref, plan_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
with open_ref(expand(sys.argv[1])[0]) as checkpoint:
    plan = plan_weights(checkpoint)
    largest = 0
    for layer in plan.layers:
        largest = max(largest, layer_matrix(checkpoint, layer).nbytes)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(plan.layers), largest, (after - before) * 1024, time.perf_counter() - begun)
"""


@pytest.mark.parametrize("kind", [12, 1])
def test_memory_is_that_of_the_largest_layer(kind: int, tmp_path: Path) -> None:
    """12 matrices of 64 MB as float32: Q4_K needs the values and a buffer, float16 its bytes too."""
    rows, columns, count = 4096, 4096, 12
    size = rows * columns // TYPES[kind].block * TYPES[kind].size
    tensors = [told(f"blk.{i}.ffn_up.weight", (columns, rows), kind, i * size) for i in range(count)]
    path = tmp_path / "x.gguf"
    rng = np.random.default_rng(0)
    block = rng.integers(0, 120, (size // 64, 64), dtype=np.uint8).reshape(-1)  # no scale is NaN
    with path.open("wb") as file:
        file.write(with_data(header(tensors, [LLAMA]), b""))
        for number in range(count):
            file.write(np.roll(block, number).tobytes())
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True, timeout=200
    )
    layers, largest, grown, _ = (float(each) for each in done.stdout.split())
    assert (layers, largest) == (count, 4 * rows * columns)
    assert grown < 3.2 * largest
