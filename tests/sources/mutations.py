"""Sound files of every format, and seeded damage to their headers, directories, pickles and indices."""

from __future__ import annotations

import argparse
import io
import json
import re
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from registry.sources.files.byte_source import LocalBytes
from registry.sources.formats.tensorflow.leveldb_tables import Table
from tests.sources import array_files, coreml_files, pickle_files, tensorflow_files
from tests.sources.converted_files import DARKNET_CFG, darknet, small_caffe, small_ncnn, small_onnx
from tests.sources.ctranslate2_models import small_ctranslate2
from tests.sources.mnn_files import small_mnn
from tests.sources.openvino_models import small_ir

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

__all__ = ["SHARD", "Sound", "companions", "damaged", "sound_files"]

SHARD = "model-00001-of-00001.safetensors"

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = (
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9" * 400,
    b"null",
    b"{}",
    b"[]",
    b'"F64"',
    b"NaN",
    b"../x",
)
_RECORDS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")
_OPCODES = b"()]}.0123acdeghijlpqrstuQRbBCFGHIJKLMNPSTUVX\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94"


@dataclass(frozen=True)
class Sound:
    """A sound file: what it ends in, its bytes, and how it is damaged where the format's own checks do not look.

    ``name``: its own name, where it has one; ``beside``: files that it refers to.
    """

    suffix: str
    content: bytes
    inside: Callable[[bytes, random.Random], bytes]
    name: str = ""
    beside: Mapping[str, bytes] = field(default_factory=dict)


@cache
def sound_files() -> dict[str, Sound]:
    """The files that damage starts from, some hundred to some thousand bytes each."""
    state = {
        "a.weight": torch.arange(16.0).reshape(4, 4), "b.weight": torch.eye(3).half(), "c.weight": torch.eye(3) * 2,
        "n": torch.tensor(3),
    }  # fmt: skip
    trained = {
        "state_dict": state,
        "epoch": 3,
        "hyper_parameters": {"lr": np.float64(0.1), "args": argparse.Namespace(a=1)},
    }
    arrays = {name: value.numpy() for name, value in state.items()} | {"d/kernel": np.ones((3, 3, 2, 4), np.float32)}
    index = {"metadata": {"total_size": 64}, "weight_map": {"a.weight": SHARD, "b.weight": SHARD}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")

        def bytes_of(save: Callable[[Path], object]) -> bytes:
            save(path)
            return path.read_bytes()

        return {
            "safetensors": Sound(".safetensors", bytes_of(lambda p: save_file(state, p)), _in_header),
            "torch": Sound(".pt", bytes_of(lambda p: torch.save(state, p)), _in_archive),
            "bare": Sound(
                ".pt", bytes_of(lambda p: torch.save(state, p, _use_new_zipfile_serialization=False)), _in_pickle
            ),
            "trained": Sound(".ckpt", bytes_of(lambda p: torch.save(trained, p)), _in_archive),
            "gguf": Sound(".gguf", bytes_of(lambda p: _gguf(p, arrays)), _in_gguf),
            "hdf5": Sound(".h5", array_files.hdf5(), _in_numbers),
            "hdf5-latest": Sound(".h5", array_files.hdf5(libver="v110"), _in_numbers),
            "keras": Sound(".keras", array_files.keras(), _in_archive),
            "keras-packed": Sound(".keras", array_files.keras(packed=True), _in_archive),
            "mat-5": Sound(".mat", array_files.mat_5(), _in_numbers),
            "mat-5-plain": Sound(".mat", array_files.mat_5(packed=False), _in_numbers),
            "mat-7.3": Sound(".mat", array_files.mat_7(), _in_numbers),
            "mxnet": Sound(".params", array_files.mxnet(), _in_numbers),
            "flax": Sound(".msgpack", array_files.flax(), _in_numbers),
            "npy": Sound(".npy", array_files.npy(), _in_array),
            "npz": Sound(".npz", _npz(np.savez, arrays), _in_archive),
            "packed": Sound(".npz", _npz(np.savez_compressed, arrays), _in_archive),
            "index": Sound(".safetensors.index.json", json.dumps(index).encode(), _in_text),
            **_of_tensorflow(Path(folder)),
            **_with_pickles(),
            "onnx": Sound(".onnx", small_onnx(), _in_fields),
            "caffe": Sound(".caffemodel", small_caffe(), _in_fields),
            "ncnn": Sound(".param", small_ncnn(Path(folder)).read_bytes(), _in_text),
            "mnn": Sound(".mnn", small_mnn(), _in_numbers),
            "coreml network": Sound(".mlmodel", coreml_files.small_network(), _in_fields),
            "coreml program": Sound(".mlmodel", coreml_files.small_program(), _in_fields),
            "ctranslate2": Sound(".bin", small_ctranslate2(Path(folder)).read_bytes(), _in_numbers, "ct.bin"),
            "openvino": _openvino(Path(folder)),
            "darknet": Sound(".weights", darknet(Path(folder)).read_bytes(), _number),
        }


def _openvino(folder: Path) -> Sound:
    path = small_ir(folder)
    beside = {"net.bin": path.with_suffix(".bin").read_bytes()}
    return Sound(".xml", path.read_bytes(), _in_attributes, path.name, beside)


def _in_attributes(content: bytes, rng: random.Random) -> bytes:
    """Values of XML's attributes made others, the text around them sound."""
    for _ in range(rng.randint(1, 3)):
        places = list(re.finditer(rb'="([^"<&]*)"', content))
        place, other = rng.choice(places), rng.choice(places)[1]
        word = rng.choice([word for word in _WORDS if b'"' not in word])
        new = rng.choice((other, word, str(rng.choice(_NUMBERS)).encode(), other + b", " + place[1]))
        content = content[: place.start(1)] + new + content[place.end(1) :]
    return content


def _with_pickles() -> dict[str, Sound]:
    """Files of formats that hold pickles."""
    files = pickle_files.contents()
    inside = {"module-bare.pt": _in_pickle, "packed.joblib": _in_zlib, "agent.zip": _bytes, "x.nemo": _bytes}
    archives = (".pt", ".ptl", ".pt2")
    found = {
        f"with pickles: {name}": Sound(
            Path(name).suffix, content, inside.get(name, _in_archive if name.endswith(archives) else _in_pickle)
        )
        for name, content in files.items()
    }
    for name, other, wound in ((".metadata", "__0_0.distcp", _in_pickle), ("__0_0.distcp", ".metadata", _bytes)):
        found[f"with pickles: {name}"] = Sound("", files[name], wound, name, {other: files[other]})
    return found


def _in_zlib(content: bytes, rng: random.Random) -> bytes:
    """A pickle that is compressed as a whole."""
    return zlib.compress(_in_pickle(zlib.decompress(content), rng))


def companions() -> dict[str, bytes]:
    """Files beside the damaged one, by name: data of TensorFlow's checkpoint, of TensorFlow.js, ncnn and Darknet."""
    with tempfile.TemporaryDirectory() as folder:
        index = _checkpoint(Path(folder))
        data = index.with_name("model.data-00000-of-00001").read_bytes()
        weights = small_ncnn(Path(folder)).with_suffix(".bin").read_bytes()
    return {"model.data-00000-of-00001": data, "weights.bin": bytes(152), "model.bin": weights,
            "model.cfg": DARKNET_CFG.encode()}  # fmt: skip


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {"a/kernel": rng.normal(size=(4, 5)).astype(np.float32), "a/bias": np.ones(5, np.float32)}
    return arrays | {"b/kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)}


def _checkpoint(folder: Path) -> Path:
    arrays = _arrays()
    graph = tensorflow_files.object_graph({name: f"net/{name}" for name in arrays})
    return tensorflow_files.write_checkpoint(folder / "model", arrays, parts={"b/kernel": 2}, graph=graph)


def _of_tensorflow(folder: Path) -> dict[str, Sound]:
    """A checkpoint of each kind, whose tables are made anew with right checksums; a graph, a lite model, a JSON."""
    index, old = map(_entries, (_checkpoint(folder), tensorflow_files.write_old_checkpoint(folder / "old", _arrays())))
    weights = [
        {"name": "a/kernel", "shape": [4, 5], "dtype": "float32"},
        {"name": "b/kernel", "shape": [3, 3, 2, 4], "dtype": "float32",
         "quantization": {"dtype": "uint8", "scale": 0.5, "min": -3.0}},
    ]  # fmt: skip
    manifest = {"modelTopology": {"class_name": "Model", "config": {"name": "m"}},
                "weightsManifest": [{"paths": ["weights.bin"], "weights": weights}]}  # fmt: skip
    return {
        "checkpoint": Sound(".index", tensorflow_files.table(index), _in_table(index)),
        "old checkpoint": Sound(".ckpt", tensorflow_files.table(old, packed=True), _in_table(old)),
        "graph": Sound(".pb", tensorflow_files.small_graph(), _in_fields),
        "lite": Sound(".tflite", tensorflow_files.small_lite(), _in_fields),
        "tfjs": Sound(".json", json.dumps(manifest).encode(), _in_text),
    }


def _entries(path: Path) -> dict[bytes, bytes]:
    with LocalBytes(path) as file:
        table = Table(file)
        return {entry.key: bytes(table.value(entry)) for entry in table}


def _in_table(entries: dict[bytes, bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Damage to values and keys of a table, which is written again."""

    def wound(_: bytes, rng: random.Random) -> bytes:
        damaged = dict(entries)
        for _ in range(rng.randint(1, 3)):
            key = rng.choice(sorted(damaged))
            value = damaged[key]
            if rng.random() < 0.1:
                key = _bytes(key, rng)
            damaged[key] = rng.choice((_bytes, _number, _span, _cut))(value, rng)
        return tensorflow_files.table(damaged, packed=rng.random() < 0.5)

    return wound


def _in_fields(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        content = rng.choice((_bytes, _number, _bytes))(content, rng)
    return content


def _gguf(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """With metadata of several types, matrices plain and quantised, and queries that are reordered."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(2)
    writer.add_head_count_kv([2, 1])
    writer.add_embedding_length(32)
    writer.add_token_list(["a", "b", "c"])
    writer.add_array("nested", [[1, 2], [3]])
    for name, array in arrays.items():
        writer.add_tensor(f"blk.0.{name}", np.atleast_1d(array))
    rng = np.random.default_rng(0)
    for name, rows, kind in (("attn_q", 4, "Q8_0"), ("attn_qkv", 64, "Q4_0"), ("ffn_gate_exps", 3, "Q5_1")):
        blocks = gguf.quants.quantize(rng.normal(size=(rows, 32)).astype(np.float32), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(f"blk.1.{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("blk.1.attn_q.scale", np.ones(1, np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()


def _in_gguf(content: bytes, rng: random.Random) -> bytes:
    """Numbers and bytes of the header, which ends where the first tensor's zeros begin."""
    last = content.rfind(b"blk.1.attn_q.scale") + 64
    head = content[:last]
    for _ in range(rng.randint(1, 3)):
        head = rng.choice((_bytes, _number, _number))(head, rng)
    return head + content[last:]


def _npz(save: Callable[..., None], arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


def damaged(sound: Sound, rng: random.Random) -> bytes:
    """One to four wounds: to the bytes as they are, or inside, with lengths and checksums made right again."""
    content = sound.content
    if rng.random() < 0.6:
        content = sound.inside(content, rng)
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            content = rng.choice((_bytes, _span, _number, _record, _cut))(content, rng)
    return content


def _at(content: bytes, rng: random.Random, size: int = 1) -> int:
    return rng.randrange(max(1, len(content) - size + 1))


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """A few bytes set, or a bit turned."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        if changed:
            at = rng.randrange(len(changed))
            changed[at] = rng.randrange(256) if rng.random() < 0.5 else changed[at] ^ 1 << rng.randrange(8)
    return bytes(changed)


def _span(content: bytes, rng: random.Random) -> bytes:
    """A piece left out, said twice, or put elsewhere."""
    start = _at(content, rng)
    piece = content[start : start + rng.randint(1, 64)]
    rest = content[:start] + content[start + len(piece) :]
    to = _at(rest, rng)
    return rng.choice(
        (rest, content[:start] + piece * rng.randint(2, 50) + content[start:], rest[:to] + piece + rest[to:])
    )


def _number(content: bytes, rng: random.Random) -> bytes:
    """A number where one may be, of the kind that overflows."""
    size = rng.choice((1, 2, 4, 8))
    at = _at(content, rng, size)
    return _put(content, at, size, rng)


def _put(content: bytes, at: int, size: int, rng: random.Random) -> bytes:
    value = (rng.choice(_NUMBERS) + rng.randint(-1, 1)) % 2 ** (8 * size)
    return content[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + content[at + size :]


def _record(content: bytes, rng: random.Random) -> bytes:
    """A field of a zip archive's record; elsewhere a number."""
    places = [match.start() for mark in _RECORDS for match in re.finditer(re.escape(mark), content)]
    if not places:
        return _number(content, rng)
    return _put(content, rng.choice(places) + 4 + 2 * rng.randrange(22), rng.choice((2, 4, 8)), rng)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _at(content, rng)] if rng.random() < 0.7 else content + rng.randbytes(rng.randint(1, 100))


def _in_text(content: bytes, rng: random.Random) -> bytes:
    """A number, a word or a bracket of JSON, or of an array's header, made another."""
    for _ in range(rng.randint(1, 3)):
        tokens = list(re.finditer(rb'-?\d+|"[^"]*"|\'[^\']*\'|[\[\]{}(),:]|\w+', content))
        if not tokens:
            break
        token = rng.choice(tokens)
        new = rng.choice(
            (*_WORDS, str(rng.choice(_NUMBERS)).encode(), rng.choice(tokens)[0], token[0] * rng.choice((2, 3000)))
        )
        content = content[: token.start()] + new + content[token.end() :]
    return content


def _in_header(content: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = rng.choice((_in_text, _in_text, _bytes, _span))(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _in_pickle(content: bytes, rng: random.Random) -> bytes:
    """Opcodes and their arguments."""
    for _ in range(rng.randint(1, 4)):
        at = _at(content, rng)
        opcode = bytes((rng.choice(_OPCODES),))
        argument = rng.choice((b"", rng.randbytes(1), struct.pack("<I", rng.choice(_NUMBERS) % 2**32)))
        kept = content[at + rng.choice((0, 1, len(argument) + 1)) :]
        content = rng.choice((content[:at] + opcode + argument + kept, _number(content, rng), _span(content, rng)))
    return content


def _in_archive(content: bytes, rng: random.Random) -> bytes:
    """One member of a zip archive, its header or its pickle above all; the archive around it is sound."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    ends = (".pkl", ".npy", ".json", ".py", ".h5")
    within = [entry.filename for entry, _ in members if entry.filename.endswith(ends)]
    chosen = rng.choice(within)
    packed = rng.choice((zipfile.ZIP_STORED, members[0][0].compress_type))
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w", packed) as archive:
        for entry, data in members:
            if rng.random() < 0.03:
                continue
            if entry.filename == chosen and chosen.endswith(".pkl"):
                data = _in_pickle(data, rng)
            elif entry.filename == chosen and chosen.endswith(".h5"):
                data = _in_numbers(data, rng)
            elif entry.filename == chosen and chosen.endswith((".json", ".py")):
                data = _in_text(data, rng)
            elif entry.filename == chosen:
                data = _in_array(data, rng)
            archive.writestr(_undated(entry.filename, packed), data)
    return changed.getvalue()


def _undated(name: str, packed: int) -> zipfile.ZipInfo:
    """An entry of an archive without the time of now, so that a mutation is made again by its number."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = packed
    return entry


def _in_numbers(content: bytes, rng: random.Random) -> bytes:
    """Numbers and bytes, more often where no zeros are: in the structure and not between its parts."""
    for _ in range(rng.randint(1, 6)):
        content = rng.choice((_bytes, _number, _number, _number, _span))(content, rng)
    return content


def _in_array(content: bytes, rng: random.Random) -> bytes:
    """What an array's header claims, with its length made right, or any of its bytes."""
    length = int.from_bytes(content[8:10], "little")
    if rng.random() < 0.3:
        return rng.choice((_bytes, _number, _cut))(content, rng)
    header = _in_text(content[10 : 10 + length], rng)
    return content[:8] + (len(header) % 2**16).to_bytes(2, "little") + header + content[10 + length :]
