"""Hostile files, each made by a function, with the error that refuses it; and harmless ones that only look so.

Every entry has a folder of its own below the corpus, so that an ingest of it all meets each once. ``outside`` is a
folder beside the corpus that none may reach: a secret is in it, and what a payload would create.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from tests.sources import tensorflow_files
from tests.sources.hostile_arrays import HOSTILE_ARRAYS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[Path, Path], object]

__all__ = ["HARMLESS", "HOSTILE", "Hostile", "hanging", "make_corpus", "sound"]


@dataclass(frozen=True)
class Hostile:
    """An entry: its folder's name, the file that is opened, how it is made (path, outside), and what refuses it."""

    name: str
    file: str
    make: Make
    error: type[SourceError]
    words: str


def sound(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small state dict, another for every seed."""
    return {"a.weight": torch.from_numpy(np.random.default_rng(seed).standard_normal((8, 6)).astype(np.float32))}


class Runs:
    """Pickles to a call that makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path / "created"),))


def saved(content: Callable[[Path], Any], **options: Any) -> Make:
    return lambda path, outside: torch.save(content(outside), path, **options)


def written(content: bytes | str) -> Make:
    return lambda path, _: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def called(*instructions: bytes) -> Make:
    """An archive of torch.save whose pickle is these instructions."""

    def make(path: Path, _: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + b"".join(instructions) + b".")
            archive.writestr("x/version", b"3\n")

    return make


def hanging(path: Path) -> None:
    """A matrix whose spectrum takes longer than a test waits. Readers come back from every file of the corpus."""
    torch.save({"a.weight": torch.randn(6000, 6000, generator=torch.Generator().manual_seed(1))}, path)


def nested_key(depth: int) -> Make:
    """A dictionary whose key is tuples within tuples: torch's reader and Python's recurse in its hash, and crash."""
    return called(b"}", b")", b"\x85" * depth, b"N", b"s")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def storage(count: int, key: str = "0") -> bytes:
    return (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"J" + struct.pack("<i", count)
        + b"tQ"
    )  # fmt: skip


def tensor(count: int, shape: tuple[int, int], strides: tuple[int, int], offset: int = 0, key: str = "0") -> bytes:
    """A tensor as torch.save pickles it, with whatever it claims; an archive of it has no such storage."""
    numbers = [b"J" + struct.pack("<i", n) for n in (offset, *shape, *strides)]
    sizes = numbers[1] + numbers[2] + b"\x86" + numbers[3] + numbers[4] + b"\x86"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(count, key) + numbers[0] + sizes + b"\x89}tR"


def deflated(path: Path, _: Path) -> None:
    """A bomb: an archive of torch.save whose 20 MB of zeros are packed to 20 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("x/data/0", bytes(20 * 2**20))


def overlapping(path: Path, _: Path) -> None:
    """Every entry of the directory claims the same data, which add up to more than the file."""
    torch.save({f"{i}": torch.full((64, 64), 1.0) for i in range(4)}, path)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<II", data, at + 20, 40_000, 40_000)
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)


def one_place(path: Path, _: Path) -> None:
    """The directory gives the pickle and a storage the same place."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("x/data/0", bytes(64))
        directory = archive.start_dir
    data = bytearray(path.read_bytes())
    first = data.find(b"PK\x01\x02", directory - 100)
    second = data.find(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)


def torchscript(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"x/{name}", b"")


def cut(path: Path, _: Path) -> None:
    torch.save(sound(), path)
    path.write_bytes(path.read_bytes()[:-300])


def directory(path: Path, _: Path) -> None:
    """A directory of 65 MiB of an archive that holds nothing; sparse."""
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(65 * 2**20)
        file.seek(0, 2)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 65 * 2**20 - 4, 4, 0))


def giant(start: bytes) -> Make:
    def make(path: Path, _: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(5 * 2**30)

    return make


def header(entries: object, data: bytes = b"") -> Make:
    """A safetensors file of that header."""
    content = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return written(len(content).to_bytes(8, "little") + content + data)


def gguf(entries: bytes, shape: tuple[int, int] = (4, 4), kind: int = 0, offset: int = 0) -> Make:
    """A GGUF file of one entry of metadata and one tensor, of that shape, type and place."""
    name = struct.pack("<Q", 1) + b"a"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + entries + name + struct.pack("<IQQIQ", 2, *shape, kind, offset)
    return written(head + bytes(-len(head) % 32) + np.eye(4, dtype=np.float32).tobytes())


def gguf_entry(kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value


F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def npz_bomb(path: Path, _: Path) -> None:
    np.savez_compressed(path, w=np.zeros((4200, 4200), np.float32))


def npz_pickle(path: Path, outside: Path) -> None:
    np.savez(path, w=np.array([Runs(outside)], dtype=object))


def npz_member(content: bytes) -> Make:
    def make(path: Path, _: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", content)

    return make


def npy(claims: str, data: bytes = b"") -> bytes:
    content = claims.encode()
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content + data


def indexed(shard: str | Callable[[Path], str], **others: str) -> Make:
    """An index of one sound shard beside it, and of another that is where it should not be."""

    def make(path: Path, outside: Path) -> None:
        save_file(sound(), path.parent / "model-00001-of-00002.safetensors")
        other = shard if isinstance(shard, str) else shard(outside)
        mapped = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": other, **others}
        path.write_text(json.dumps({"weight_map": mapped}))

    return make


def linked_shard(path: Path, outside: Path) -> None:
    indexed("model-00002-of-00002.safetensors")(path, outside)
    (path.parent / "model-00002-of-00002.safetensors").symlink_to(outside / "secret.safetensors")


def doubled(path: Path, _: Path) -> None:
    """Two shards hold a tensor that the index does not name."""
    for number, extra in ((1, "b.weight"), (2, "c.weight")):
        state = {"a.weight": torch.eye(3), extra: torch.eye(4)}
        save_file(state, path.parent / f"model-0000{number}-of-00002.safetensors")
    mapped = {f"{name}.weight": f"model-0000{number}-of-00002.safetensors" for number, name in ((1, "b"), (2, "c"))}
    path.write_text(json.dumps({"weight_map": mapped}))


def two_pickles(path: Path, outside: Path) -> None:
    """An archive of two pickles of one name, the second of which runs code."""
    called(b"}" + text("epoch") + b"K\x01s")(path, outside)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's, on names that are there already
        archive.writestr("x/data.pkl", pickle.dumps(Runs(outside), 2))


def npz_twice(path: Path, _: Path) -> None:
    """Two arrays of one name: readers differ in which they take."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for value in (1.0, 2.0):
            with archive.open("w.npy", "w") as file:
                np.lib.format.write_array(file, np.full((3, 3), value))


def npz_encrypted(path: Path, _: Path) -> None:
    np.savez(path, w=np.eye(4))
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + flags] |= 1
    path.write_bytes(data)


def tarred(path: Path, _: Path) -> None:
    """What torch wrote in its first year, with an entry that leads out of the folder."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("../../outside/evil"))


def piped_shard(path: Path, outside: Path) -> None:
    indexed("model-00002-of-00002.safetensors")(path, outside)
    os.mkfifo(path.parent / "model-00002-of-00002.safetensors")


def device_shard(path: Path, outside: Path) -> None:
    indexed("model-00002-of-00002.safetensors")(path, outside)
    (path.parent / "model-00002-of-00002.safetensors").symlink_to("/dev/zero")


def flipped(path: Path, _: Path) -> None:
    """An archive of torch.save of which one bit of a tensor has turned."""
    torch.save(sound(), path)
    data = bytearray(path.read_bytes())
    data[data.find(sound()["a.weight"].numpy().tobytes()) + 3] ^= 1
    path.write_bytes(data)


def in_parts(path: Path, _: Path) -> None:
    """Two files that are parts by their names, and hold the same tensors."""
    for number in (1, 2):
        save_file(sound(number), path.with_name(f"model_part-{number}.safetensors"))


def disagreeing(path: Path, _: Path) -> None:
    """Arrays with their outputs first, last, and who knows where."""
    shapes = {"a": (4, 5), "b": (9, 6), "c": (3, 4)}
    arrays: dict[str, Any] = {
        f"{name}/kernel": np.ones(shape) * np.arange(1, shape[1] + 1) for name, shape in shapes.items()
    }
    np.savez(path, **arrays | {"a/bias": np.ones(5), "b/bias": np.ones(9)})


def tensorflow_entry(kind: int, extents: tuple[int, ...], **places: int) -> Make:
    """A checkpoint of TensorFlow of one sound tensor of 16 bytes, and one that claims what it wants."""

    def make(path: Path, _: Path) -> None:
        numbers = {"shard": 3, "offset": 4, "size": 5}
        place = b"".join(tensorflow_files.number(numbers[name], value) for name, value in places.items())
        claim = tensorflow_files.number(1, kind) + tensorflow_files.content(2, tensorflow_files.shape(extents)) + place
        arrays = {"a/kernel": np.ones((2, 2), np.float32)}
        tensorflow_files.write_checkpoint(path.with_suffix(""), arrays, entries={b"z": claim})

    return make


INDEX = "model.safetensors.index.json"

HOSTILE = (
    # pickles that run code where they are let, and hold nothing else
    Hostile("runs-bare", "x.bin", lambda p, out: p.write_bytes(pickle.dumps(Runs(out), 2)), SourceError, "x.bin"),
    Hostile("runs-newest", "x.bin", lambda p, out: p.write_bytes(pickle.dumps(Runs(out), 5)), SourceError, "x.bin"),
    Hostile("runs-eval", "x.pt", called(b"c__builtin__\neval\n(" + text("1") + b"tR"), WeightsError,
            "builtins.eval without weights"),
    Hostile("runs-getattr", "x.pt", called(b"c__builtin__\ngetattr\n(ctorch\nTensor\n" + text("view") + b"tR"),
            WeightsError, "builtins.getattr without weights"),
    Hostile("torchscript", "x.pt", torchscript, WeightsError, "damaged pickle"),
    Hostile("runs-second", "x.pt", two_pickles, WeightsError, "two entries of one name"),
    # pickles that lie
    Hostile("pickle-text", "x.pt", written("<html>not found</html>"), WeightsError, "is a web page"),
    Hostile("pickle-marks", "x.pt", written(b"\x80\x02" + b"(" * 100 + b"numpy"), SourceError, "torch|pickle|x.pt"),
    Hostile("pickle-string", "x.pt", written(b"\x80\x02X\xff\xff\xff\x7fnumpy"), SourceError, "torch|pickle|x.pt"),
    Hostile("pickle-open", "x.pt", called(b"]" * 50_000), WeightsError, "a list without weights"),
    Hostile("pickle-nested", "x.pt", called(b"]" * 50_000 + b"a" * 49_999), UnsafeError, "nested deeper than"),
    Hostile("pickle-hash", "x.pt", nested_key(2_000_000), UnsafeError, "nested deeper than"),
    Hostile("pickle-hash-twice", "x.pt", called(b"}", b")", b"q\x00h\x00\x86" * 60, b"N", b"s"), WeightsError,
            "only: <tuple>"),
    Hostile("pickle-extension", "x.pt", called(b"\x82\x01"), UnsafeError, "extension registry"),
    Hostile("pickle-state", "x.pt", called(b"]}b"), WeightsError, "state is given to a list"),
    Hostile("pickle-items", "x.pt", called(b"K\x01K\x01K\x02s"), WeightsError, "entries are set in a int"),
    Hostile("pickle-buffer", "x.pt", called(b"\x97"), UnsafeError, "buffers are outside the file"),
    Hostile("pickle-memo", "x.pt", called(b"j\xff\xff\xff\x7f"), WeightsError, "damaged pickle"),
    Hostile("pickle-number", "x.pt", called(b"\x8b\xff\xff\xff\x7f"), UnsafeError, "an integer of 2147483647 bytes"),
    Hostile("pickle-digits", "x.pt", called(b"I" + b"9" * 10**6 + b"\n"), WeightsError, "a line does not end"),
    Hostile("pickle-objects", "x.pt", called(b"\x8f" * 3_000_000), UnsafeError, "more objects than weights need"),
    Hostile("pickle-circle", "x.pt", called(b"}q\x00" + text("a") + b"h\x00s"), WeightsError, "only: a"),
    Hostile("pickle-keys", "x.pt", called(b"}(\x8a\xff" + b"\x7f" * 255 + b"Nu"), WeightsError, "only: <int>"),
    Hostile("pickle-storage", "x.pt", called(b"}" + text("a") + tensor(2**30, (2**15, 2**15), (2**15, 1)) + b"s"),
            WeightsError, "no entry for the storage"),
    Hostile("pickle-offset", "x.pt", called(b"}" + text("a") + tensor(4, (2, 2), (2, 1), -64) + b"s"),
            WeightsError, "no entry for the storage"),
    Hostile("pickle-id", "x.pt", called(text("/etc/passwd") + b"Q"), WeightsError, "a persistent id is no storage"),
    Hostile("pickle-path", "x.pt", called(b"}" + text("a") + tensor(4, (2, 2), (2, 1), key="../../secret") + b"s"),
            WeightsError, "no entry for the storage"),
    Hostile("tar", "x.pt", tarred, SourceError, "x.pt"),
    Hostile("giant-pickle", "x.pt", giant(b"\x80\x02numpy"), SourceError, "x.pt"),
    Hostile("wide", "x.pt", saved(lambda _: {"a": torch.zeros(1).expand(10**6, 10**6)}), UnsafeError,
            "of a storage of 4"),
    Hostile("views", "x.pt", saved(lambda _: dict.fromkeys(map(str, range(200)), torch.zeros(500, 500))),
            UnsafeError, "bytes of tensors in a file of"),
    Hostile("dimensions", "x.pt", saved(lambda _: {"a": torch.zeros([1] * 40)}), UnsafeError, "40 dimensions"),
    Hostile("nul-name", "x.pt", saved(lambda _: {"a\0b": torch.eye(3)}), UnsafeError, "not valid text"),
    Hostile("surrogate-name", "x.pt", saved(lambda _: {"a\ud800": torch.eye(3)}), UnsafeError, "not valid text"),
    Hostile("long-name", "x.pt", saved(lambda _: {"a" * 5000: torch.eye(3)}), UnsafeError, "too long"),
    # archives
    Hostile("zip-nothing", "x.pt", written(b"PK\x03\x04 and nothing"), WeightsError, "damaged zip"),
    Hostile("zip-cut", "x.pt", cut, WeightsError, "damaged zip archive, perhaps cut short"),
    Hostile("zip-bomb", "x.pt", deflated, UnsafeError, "compressed entries"),
    Hostile("zip-overlap", "x.pt", overlapping, UnsafeError, "claims more data than it holds"),
    Hostile("zip-one-place", "x.pt", one_place, SourceError, "x.pt"),
    Hostile("zip-directory", "x.npz", directory, UnsafeError, "a directory of 65 MiB"),
    Hostile("npz-bomb", "x.npz", npz_bomb, UnsafeError, "would unpack"),
    Hostile("npz-pickle", "x.npz", npz_pickle, UnsafeError, "a pickle of Python objects"),
    Hostile("npz-claim", "x.npz",
            npz_member(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 9999999)}")),
            WeightsError, "bytes do not fill"),
    Hostile("npz-code", "x.npz", npz_member(npy("__import__('os').mkdir('created')")), WeightsError,
            "an invalid header"),
    Hostile("npz-text", "x.npz", written("text"), WeightsError, "damaged zip"),
    Hostile("npz-twice", "x.npz", npz_twice, WeightsError, "several arrays of one name"),
    Hostile("npz-encrypted", "x.npz", npz_encrypted, SourceError, "compressed or encrypted"),
    # safetensors headers
    Hostile("header-short", "x.safetensors", written(b"abc"), WeightsError, "reaches beyond its end"),
    Hostile("header-beyond", "x.safetensors", written((2**63).to_bytes(8, "little") + b"{}"), WeightsError,
            "beyond its end"),
    Hostile("header-large", "x.safetensors", giant((2**32).to_bytes(8, "little") + b"{"), UnsafeError,
            "a header of 4096 MiB"),
    Hostile("header-deep", "x.safetensors", header(b"[" * 10_000), WeightsError, "is not a valid safetensors"),
    Hostile("data-short", "x.safetensors", header({"a": F32}, bytes(15)), WeightsError,
            r"is incomplete: 1 of its [\d,]+ bytes are missing"),
    Hostile("data-long", "x.safetensors", header({"a": F32}, bytes(17)), WeightsError, "is not a valid safetensors"),
    Hostile("data-overlap", "x.safetensors", header({"a": F32, "b": F32}, bytes(16)), WeightsError,
            "is not a valid safetensors"),
    Hostile("data-backwards", "x.safetensors", header({"a": {**F32, "data_offsets": [8, 0]}}, bytes(16)), WeightsError,
            "is not a valid safetensors"),
    Hostile("huge-tensor", "x.safetensors", header({"a": {**F32, "shape": [2**31, 2**31]}}, bytes(16)), WeightsError,
            "is not a valid safetensors"),
    Hostile("negative", "x.safetensors", header({"a": {**F32, "shape": [-2, -2]}}, bytes(16)), WeightsError,
            "is not a valid safetensors"),
    Hostile("offset-negative", "x.safetensors", header({"a": {**F32, "data_offsets": [-16, 0]}}, bytes(16)),
            WeightsError, "is not a valid safetensors"),
    Hostile("field-twice", "x.safetensors", header(b'{"a": {"dtype": "F32", "dtype": "F64"}}', bytes(16)),
            WeightsError, "is not a valid safetensors"),
    Hostile("metadata-deep", "x.safetensors", header(b'{"__metadata__": ' + b'{"a": ' * 9999), WeightsError,
            "is not a valid safetensors"),
    Hostile("name-of-a-megabyte", "x.safetensors", header({"a" * 2**20: F32}, bytes(16)), UnsafeError, "too long"),
    Hostile("many-dimensions", "x.safetensors", header({"a": {**F32, "shape": [2, 2] + [1] * 5000}}, bytes(16)),
            UnsafeError, "5002 dimensions"),
    Hostile("nul-in-header", "x.safetensors", header({"a\0b": F32}, bytes(16)), UnsafeError, "not valid text"),
    # GGUF
    Hostile("gguf-array", "x.gguf", gguf(gguf_entry(9, struct.pack("<IQ", 8, 2**40))), WeightsError,
            "claims 1099511627776 elements"),
    Hostile("gguf-nested", "x.gguf", gguf(gguf_entry(9, struct.pack("<IQ", 9, 1) * 5000)), UnsafeError,
            "nested more than 16 deep"),
    Hostile("gguf-text", "x.gguf", gguf(gguf_entry(8, struct.pack("<Q", 2**63))), WeightsError, "ends early"),
    Hostile("gguf-extents", "x.gguf", gguf(gguf_entry(4, bytes(4)), (10**12, 10**12)), WeightsError,
            "claims a tensor of shape"),
    Hostile("gguf-offset", "x.gguf", gguf(gguf_entry(4, bytes(4)), offset=2**62), WeightsError, "claims a tensor"),
    Hostile("gguf-type", "x.gguf", gguf(gguf_entry(4, bytes(4)), kind=4711), WeightsError, "unknown type 4711"),
    # TensorFlow
    Hostile("tensorflow-extents", "m.index", tensorflow_entry(1, (10**12, 10**12), size=16), WeightsError,
            "claims a tensor of shape"),
    Hostile("tensorflow-offset", "m.index", tensorflow_entry(1, (2, 2), size=16, offset=2**62), WeightsError,
            "claims a tensor of shape"),
    Hostile("tensorflow-shards", "m.index", tensorflow_entry(1, (2, 2), size=16, shard=9), WeightsError,
            "is not beside it"),
    Hostile("tensorflow-overlap", "m.index", tensorflow_entry(1, (3, 2), size=24), WeightsError, "overlap"),
    Hostile("tensorflow-footer", "m.index", written(bytes(8) + b"\xff" * 32 + struct.pack("<Q", 0xDB4775248B80FB57)),
            WeightsError, "no sound table"),
    Hostile("graph-repeated", "x.pb", written(tensorflow_files.graph(
        tensorflow_files.node("x", "Placeholder"), tensorflow_files.node("y", "MatMul", "x", "w"),
        tensorflow_files.const("w", tensorflow_files.number(1, 1) + tensorflow_files.content(
            2, tensorflow_files.shape((10**6, 10**6))) + tensorflow_files.content(5, bytes(4))))),
            WeightsError, "with 4 bytes"),
    Hostile("graph-functions", "x.pb", written(tensorflow_files.graph(
        tensorflow_files.node("x", "PartitionedCall", attrs=tensorflow_files.function_named("f")),
        functions={"f": ([], [tensorflow_files.node(name, "PartitionedCall", attrs=tensorflow_files.function_named("f"))
                              for name in "ab"], "a:0")})), UnsafeError, "functions within functions"),
    Hostile("lite-root", "x.tflite", written(b"\xff\xff\xff\x7fTFL3"), WeightsError, "refers to byte 2147483647"),
    Hostile("lite-extents", "x.tflite", written(tensorflow_files.lite(
        [9], [bytes(16)], [tensorflow_files.lite_tensor("x", (1, 4), 0),
                           tensorflow_files.lite_tensor("w", (2**20, 2**20), 1)],
        [tensorflow_files.operator(0, [0, 1], [0])])), WeightsError, "16 bytes for the shape"),
    Hostile("tfjs-above", "model.json", written(json.dumps([{"paths": ["../../outside/secret.safetensors"],
            "weights": []}])), UnsafeError, "is not beside it"),
    Hostile("tfjs-deep", "model.json", written('{"weightsManifest": ' + "[" * 100_000), WeightsError, "no valid JSON"),
    *(Hostile(*row) for row in HOSTILE_ARRAYS),
    # indices
    Hostile("index-above", INDEX, indexed("../../outside/secret.safetensors"), UnsafeError,
            "not a .safetensors file beside it"),
    Hostile("index-absolute", INDEX, indexed(lambda out: str(out / "secret.safetensors")), UnsafeError,
            "file beside it"),
    Hostile("index-backslash", INDEX, indexed("..\\..\\outside\\secret.safetensors"), UnsafeError, "file beside it"),
    Hostile("index-control", INDEX, indexed("\x1b[2J.safetensors"), UnsafeError, "file beside it"),
    Hostile("index-kind", INDEX, indexed("payload.bin"), UnsafeError, "file beside it"),
    Hostile("index-long", INDEX, indexed("a" * 5000 + ".safetensors"), UnsafeError, "file beside it"),
    Hostile("index-itself", INDEX, indexed(INDEX), UnsafeError, "file beside it"),
    Hostile("index-pipe", INDEX, piped_shard, SourceError, "not a regular file"),
    Hostile("index-device", INDEX, device_shard, UnsafeError, "leads out of its folder"),
    Hostile("index-link", INDEX, linked_shard, UnsafeError, "leads out of its folder"),
    Hostile("index-missing", INDEX, indexed("model-00002-of-00002.safetensors"), NotFoundError, "no file"),
    Hostile("index-stale", INDEX, indexed("model-00001-of-00002.safetensors"), WeightsError, "'b.weight' is not in"),
    Hostile("index-doubled", INDEX, doubled, WeightsError, "'a.weight' is in several shards"),
    Hostile("index-deep", INDEX, written("[" * 100_000), WeightsError, "is not a valid shard index"),
    Hostile("index-number", INDEX, written('{"weight_map": ' + "1" * 5000 + "}"), WeightsError,
            "is not a valid shard index"),
    Hostile("index-list", INDEX, written('{"weight_map": ["a"]}'), WeightsError, "no weight_map"),
    Hostile("index-values", INDEX, written('{"weight_map": {"a": ["b"]}}'), WeightsError, "no weight_map"),
    # what is not the file
    Hostile("lfs", "x.bin", written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99999\n"),
            WeightsError, "a pointer of Git LFS to a file of 99999 bytes"),
    Hostile("lfs-number", "x.pt", written(b"version https://git-lfs\nsize " + b"9" * 400 + b"\n"), WeightsError,
            "a pointer of Git LFS, not"),
    Hostile("bit-turned", "x.pt", flipped, WeightsError, "checksum of the entry 'x/data/0'"),
    Hostile("parts", "model_part-1.safetensors", in_parts, WeightsError, "'a.weight' is in several files"),
    Hostile("shards-many", "x-1-of-999999999.safetensors", lambda p, _: save_file(sound(), p), UnsafeError,
            "is one of 999999999 files"),
    Hostile("disagree", "x.npz", disagreeing, WeightsError, "c/kernel has no bias that tells"),
    # what is no file
    Hostile("link-out", "x.safetensors", lambda p, out: p.symlink_to(out / "secret.safetensors"), UnsafeError,
            "leads out of its folder"),
    Hostile("link-to-nothing", "x.pt", lambda p, _: p.symlink_to("gone.pt"), NotFoundError, "no file"),
    Hostile("link-loop", "x.pt", lambda p, _: p.symlink_to("x.pt"), SourceError, "x.pt"),
    Hostile("link-long", "x.pt", lambda p, _: p.symlink_to("a" * 300), SourceError, "cannot be accessed"),
    Hostile("pipe", "x.pt", lambda p, _: os.mkfifo(p), SourceError, "not a regular file"),
    Hostile("no-utf8", os.fsdecode(b"\xff.pt"), lambda p, _: p.write_bytes(b"x"), SourceError, "is not UTF-8"),
    Hostile("empty", "x.safetensors", written(b""), WeightsError, "is empty"),
    # weights that cannot be used
    Hostile("complex", "x.pt", saved(lambda _: {"a": torch.eye(4, dtype=torch.complex64)}), WeightsError,
            "complex weights"),
    Hostile("shard", "model-00001-of-00003.safetensors", lambda p, _: save_file(sound(), p), WeightsError,
            "one of 3 shards"),
)  # fmt: skip


def npz_paths(path: Path, _: Path) -> None:
    np.savez(path, **{"../../outside/evil": np.eye(4), "/etc/evil": np.eye(5)})


def odd_header(path: Path, _: Path) -> None:
    """Names and metadata that a terminal, a markup language, a database or a shell would act on."""
    odd = ("\x1b[31mred", "[bold]markup[/bold]", "'; DROP TABLE models; --", "$(touch evil)", "\u202eright to left")
    state = {name: torch.full((2, 2), float(i + 1)) + torch.eye(2) for i, name in enumerate(odd)}
    save_file(state, path, {"licence": "MIT\x1b[2J\0", "family": "'; DROP TABLE models; --"})


HARMLESS: tuple[tuple[str, Make], ...] = (
    ("plain.safetensors", lambda p, _: save_file(sound(1), p)),
    ("\x1b[31mred\x07.safetensors", lambda p, _: save_file(sound(2), p)),
    ("[bold red]markup.safetensors", lambda p, _: save_file(sound(3), p)),
    ("'; DROP TABLE models; --.pt", lambda p, _: torch.save(sound(4), p)),
    ("$(touch evil).pt", lambda p, _: torch.save(sound(5), p)),
    ("line\nfeed.pt", lambda p, _: torch.save(sound(6), p)),
    ("paths.npz", npz_paths),
    ("odd.safetensors", odd_header),
    # pickles that run code where they are let, beside weights
    ("runs.pt", saved(lambda out: {**sound(11), "payload": Runs(out)})),
    ("runs-before-1.6.pt", saved(lambda out: {**sound(12), "payload": Runs(out)},
     _use_new_zipfile_serialization=False)),
    ("runs-in-settings.ckpt", saved(lambda out: {"state_dict": sound(13), "pytorch-lightning_version": "2",
     "hyper_parameters": {"lr": Runs(out)}})),
    ("module.pt", saved(lambda _: torch.nn.Linear(2, 2))),
    ("settings.ckpt", saved(lambda _: {"state_dict": sound(8), "hyper_parameters": {"best": np.float64(0.5)}})),
)  # fmt: skip


def make_corpus(folder: Path) -> tuple[Path, Path]:
    """Make all files in ``folder/corpus`` and the secret in ``folder/outside``; both are returned."""
    corpus, outside = folder / "corpus", folder / "outside"
    outside.mkdir(parents=True)
    save_file({"b.weight": torch.eye(5)}, outside / "secret.safetensors")
    for hostile in HOSTILE:
        place = corpus / "hostile" / hostile.name
        place.mkdir(parents=True)
        hostile.make(place / hostile.file, outside)
    (corpus / "good").mkdir()
    for name, make in HARMLESS:
        make(corpus / "good" / name, outside)
    return corpus, outside
