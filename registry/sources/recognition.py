"""Recognition of weights files by their first bytes, whatever their names are.

`recognise` reads at most a few kilobytes, the directory of a zip archive, or the tags of a Protocol Buffers message.
The table `KINDS` has a row for each kind of file: the source that reads it, or why it is not read and the command that
converts it. Files that belong to another one (the data beside an index) lead to that one.
"""

from __future__ import annotations

import bz2
import codecs
import lzma
import os
import re
import stat
import struct
import zlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import RegistryError
from registry.sources.files.archive import zip_entries
from registry.sources.files.byte_source import LocalBytes
from registry.sources.files.tar_members import is_tar, tar_headers
from registry.sources.files.wire import Message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from registry.sources.files.byte_source import ByteSource

codecs.lookup("cp437")  # zipfile's, of names; loaded now, and not when a file has such a name

__all__ = ["KINDS", "ORBAX", "Kind", "Recognised", "kind_of", "recognise"]

_HEAD = 4096  # bytes looked at
_MEMBERS = 64  # of a tar archive that are looked at
_BLOCK = 2**20  # more than the largest block of bzip2
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # LONG1 of torch's legacy magic number, and STOP
_LEGACY = re.compile(rb"\x80.(?:\x95.{8})?" + re.escape(_LEGACY_MAGIC), re.DOTALL)  # protocols 4 and 5 have frames
_TEXT_PICKLE = re.compile(rb"\((?:dp?|lp?|i?)\d*\r?\n|c[\w.]{1,200}\r?\n[\w.]{1,200}\r?\n|[\]}]q|\((?:[ld]|i[\w.]+\n)")
_DCP = b"torch.distributed.checkpoint.metadata"
_LEVELDB_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_TF_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_TFJS_SHARD = re.compile(r"-?shard\d+(of\d+)?$")
_MANIFEST = 4 * 2**20  # bytes read of a file that lists others
_MAX_BESIDE = 10_000  # entries of a folder that are looked at
_TFJS = re.compile(rb'"weightsManifest"|^\s*\[\s*\{\s*"(?:weights|paths)"\s*:', re.ASCII)
_OPENVINO = re.compile(rb"<net\b[^>]*\bversion=")


ORBAX = "_METADATA"
"""The file that stands for a folder of Orbax."""


class Start:
    """What is looked at of a file: its ``size``, ``head`` and, when asked for, more. ``lower``: its name."""

    def __init__(self, file: ByteSource, name: str) -> None:
        self.file = file
        self.size = file.size
        self.head = bytes(file.read_at(0, min(_HEAD, file.size)))
        self.lower = name.lower()

    @cached_property
    def tail(self) -> bytes:
        """The last 64 bytes."""
        count = min(64, self.size)
        return bytes(self.file.read_at(self.size - count, count))

    @cached_property
    def entries(self) -> frozenset[str]:
        """Names of the entries of a zip archive, and the same without their first folder; empty for other files."""
        if not self.head.startswith(b"PK\x03\x04"):
            return frozenset()
        try:
            names = [entry.filename for entry in zip_entries(self.file)]
        except RegistryError:
            return frozenset()
        return frozenset(names) | {name.partition("/")[2] for name in names}

    @cached_property
    def members(self) -> frozenset[str]:
        """Names of the first members of a tar archive, without a leading ``./``."""
        if not is_tar(self.head):
            return frozenset()
        return frozenset(member.name for member in tar_headers(self.file, _MEMBERS))

    @cached_property
    def fields(self) -> dict[int, int]:
        """Wire types by number of the first fields of a Protocol Buffers message; empty if it is none."""
        found: dict[int, int] = {}
        try:
            for count, field in enumerate(Message(self.file)):
                found[field.number] = field.wire
                if count >= 4096:
                    break
        except RegistryError:
            return {}
        return found

    def inner(self, number: int) -> dict[int, int]:
        """Wire types of the fields of the first message with that number."""
        try:
            inner = next(Message(self.file).messages(number), None)
            return {} if inner is None else {field.number: field.wire for field in inner}
        except RegistryError:
            return {}

    @cached_property
    def unpacked(self) -> bytes:
        """The first bytes of the content of a compressed file; empty for others."""
        head = self.head
        try:
            if head.startswith(b"\x1f\x8b"):
                return zlib.decompressobj(31).decompress(head, 64)
            if len(head) > 1 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0:
                return zlib.decompressobj().decompress(head, 64)
            if head.startswith(b"BZh"):  # its blocks are up to 900 kB; the sign of a pickle shows only then
                start = self.file.read_at(0, min(self.size, _BLOCK))
                return bz2.BZ2Decompressor().decompress(start, 64)
            if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
                return lzma.LZMADecompressor(memlimit=2**27).decompress(head, 64)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            return b""
        return b""


class Kind(NamedTuple):
    """A kind of file: what it is called, and the source that reads it; else why not, and the command that converts it.

    ``title`` stands after "is": ``an ONNX model``. ``extra``: of this package, with the libraries that it needs.
    """

    name: str
    title: str
    sign: Callable[[Start], bool]
    source: str = ""
    remedy: str = ""
    extra: str = ""


class Recognised(NamedTuple):
    """The kind of a file, and the file that stands for its model: mostly itself."""

    kind: Kind
    main: Path


def _is_pickle(head: bytes) -> bool:
    return (len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5) or _TEXT_PICKLE.match(head) is not None


def _is_safetensors(start: Start) -> bool:
    head = start.head
    return len(head) > 9 and int.from_bytes(head[:8], "little") < 2**32 and head[8:9] == b"{" and b'"' in head[9:16]


def _is_msgpack(start: Start) -> bool:
    """Whether a file begins as a MessagePack map whose first key is text, as Flax writes it."""
    head = start.head
    at = 1 if 0x81 <= head[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(head[0], 0)
    if not at or len(head) < at + 2:
        return False
    width = {0xD9: 1, 0xDA: 2}.get(head[at], 0)
    length = head[at] & 31 if 0xA1 <= head[at] <= 0xBF else int.from_bytes(head[at + 1 : at + 1 + width], "big")
    key = head[at + 1 + width : at + 1 + width + length]
    return 0 < length < 1000 and len(key) == length and key.isascii() and key.decode("ascii").isprintable()


def _is_onnx(start: Start) -> bool:
    fields = start.fields
    texts = all(fields.get(number, 2) == 2 for number in (2, 3, 4))  # numbers in the fingerprint.pb of a SavedModel
    return texts and fields.get(7) == 2 and fields.get(1, 0) == 0 and fields.keys() <= {*range(1, 9), 14, 20, 25, 26}


def _is_graph(start: Start) -> bool:
    """Whether it is a TensorFlow GraphDef: nodes with a name and an operation."""
    fields = start.fields
    return fields.get(1) == 2 and fields.keys() <= {1, 2, 3, 4, 5} and start.inner(1).get(2) == 2


def _is_saved_model(start: Start) -> bool:
    return start.fields == {1: 0, 2: 2} and 1 in start.inner(2)


def _is_caffe(start: Start) -> bool:
    fields = start.fields
    known = {1, 2, 3, 4, 5, 6, 7, 8, 100}
    return bool(fields) and fields.keys() <= known and (fields.get(100) == 2 or (fields.get(2) == 2 and 1 in fields))


def _is_coreml(start: Start) -> bool:
    fields = start.fields
    return fields.get(1) == 0 and fields.get(2) == 2 and any(200 <= number <= 3000 for number in fields)


def _is_coreml_weights(start: Start) -> bool:
    """Whether it is a file of blobs: 64 bytes with their number and version 2, then the first blob's own mark."""
    return start.head[4:8] == b"\x02\0\0\0" and start.head[64:68] == b"\xef\xbe\xad\xde"


def _is_mnn(start: Start) -> bool:
    """Whether it begins as a FlatBuffer, which has no mark of its own in MNN. Only under its suffix."""
    if len(start.head) < 8 or not start.lower.endswith(".mnn"):
        return False
    root = int.from_bytes(start.head[:4], "little")
    if not 4 <= root <= min(start.size, len(start.head)) - 4:
        return False
    table = root - int.from_bytes(start.head[root : root + 4], "little", signed=True)
    size = int.from_bytes(start.head[table : table + 2], "little") if 0 <= table < len(start.head) else 0
    return 4 <= size <= 256 and size % 2 == 0


def _is_tensorrt(start: Start) -> bool:
    """Whether it is an engine, alone or behind the description that ultralytics writes before it."""
    signs = (b"ptrt", b"ftrt")
    if start.head.startswith(signs):
        return True
    length = int.from_bytes(start.head[:4], "little")
    return start.head[4:5] == b"{" and start.head[4 + length : 8 + length] in signs


def _is_export(start: Start) -> bool:
    names = start.entries
    return (
        any(
            name == "archive_format" or name.endswith(("serialized_exported_program.json", "models/model.json"))
            for name in names
        )
        and "data.pkl" not in names
    )


def _is_darknet(start: Start) -> bool:
    """Whether it has Darknet's header: version 0.1 or 0.2, and the number of images seen. Only under its suffix."""
    if len(start.head) < 20 or not start.lower.endswith(".weights"):
        return False
    major, minor, _ = struct.unpack("<3i", start.head[:12])
    return major == 0 and minor in (1, 2)


def _is_ctranslate2(start: Start) -> bool:
    if len(start.head) < 16 or not start.lower.endswith(".bin"):
        return False
    version, length = struct.unpack("<IH", start.head[:6])
    name = start.head[6 : 6 + length].rstrip(b"\0")
    return 1 <= version <= 32 and 4 <= length <= 64 and name.endswith(b"Spec") and name.isalpha()


def _has(*names: str) -> Callable[[Start], bool]:
    return lambda start: any(name in start.entries for name in names)


def _starts(*signs: bytes) -> Callable[[Start], bool]:
    return lambda start: start.head.startswith(signs)


def _is_npz(start: Start) -> bool:
    return any(name.endswith(".npy") for name in start.entries) and "data.pkl" not in start.entries


def _is_hdf5(start: Start) -> bool:
    if start.head.startswith(b"\x89HDF\r\n\x1a\n"):
        return True
    return any(start.head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (512, 1024, 2048))


def _is_orbax(start: Start) -> bool:
    """Whether it lists the arrays of a folder that is a checkpoint of Orbax."""
    return start.lower == ORBAX.lower() and start.head[:1] == b"{" and b'"tree_metadata"' in start.head


KINDS: tuple[Kind, ...] = (
    Kind("safetensors", "a safetensors file", _is_safetensors, "safetensors"),
    Kind("gguf", "a GGUF file", _starts(b"GGUF"), "gguf"),
    Kind(
        "ggml", "a file of GGML, before GGUF", _starts(b"lmgg", b"fmgg", b"tjgg", b"algg"),
        remedy="convert it with llama.cpp's convert_llama_ggml_to_gguf.py --input FILE --output FILE.gguf",
    ),
    Kind("matlab-7.3", "a MATLAB 7.3 file", _starts(b"MATLAB 7.3 MAT-file"), "mat"),
    Kind("matlab", "a MATLAB file", _starts(b"MATLAB 5.0 MAT-file"), "mat"),
    Kind("hdf5", "an HDF5 file", _is_hdf5, "keras"),
    Kind("npy", "a NumPy array", _starts(b"\x93NUMPY"), "npy"),
    Kind("tflite", "a TensorFlow Lite model", lambda start: start.head[4:8] == b"TFL3", "tflite"),
    Kind("keras", "a Keras model", _has("model.weights.h5"), "keras"),
    Kind(
        "distcp", "a part of a folder of torch.distributed.checkpoint, without .metadata beside it",
        lambda start: start.lower.endswith(".distcp"),
        remedy="download .metadata and all .distcp files into one folder, then ingest .metadata",
    ),
    Kind("torchscript", "a TorchScript archive", _has("constants.pkl", "bytecode.pkl"), "torchscript"),
    Kind("torch", "a torch file", _has("data.pkl"), "torch"),
    Kind("torch-export", "a torch.export archive", _is_export, "torch_export"),
    Kind("stable-baselines3", "a stable-baselines3 model", _has("policy.pth"), "sb3"),
    Kind(
        "nemo", "a NeMo archive",
        lambda start: bool(start.members & {"model_config.yaml", "model_weights.ckpt"}), "nemo",
    ),
    Kind(
        "nemo-packed", "a compressed NeMo archive",
        lambda start: start.lower.endswith(".nemo") and start.head.startswith(b"\x1f\x8b"),
        remedy="unpack its weights with: tar -xzf FILE ./model_weights.ckpt, then ingest model_weights.ckpt",
    ),
    Kind("npz", "a NumPy archive", _is_npz, "npz"),
    Kind(
        "torch-flatbuffer", "a model of torch's mobile interpreter in FlatBuffers",
        lambda start: start.head[4:8] == b"PTMF",
        # The module is kept: its tensors lie in memory that is released with it.
        remedy="convert it with python -c \"import torch; m = torch.jit.jit_module_from_flatbuffer('FILE'); "
        "torch.save(m.state_dict(), 'FILE.pt')\"",
    ),
    Kind(
        "executorch", "an ExecuTorch program", lambda start: start.head[4:6] == b"ET" and start.head[6:8].isdigit(),
        remedy="ingest the torch.export archive or the torch file that it was made from",
    ),
    Kind("torch-tar", "a torch file", lambda start: start.members >= {"storages", "tensors", "pickle"}, "torch"),
    Kind("torch-legacy", "a torch file", lambda start: _LEGACY.match(start.head) is not None, "torch"),
    Kind("dcp", "the index of a folder of torch.distributed.checkpoint", lambda start: _DCP in start.head[:200], "dcp"),
    Kind("pickle", "a pickle", lambda start: _is_pickle(start.head), "pickle"),
    Kind(
        "joblib", "a compressed pickle",
        lambda start: _is_pickle(start.unpacked) or start.head.startswith((b"\x04\x22\x4d\x18", b"ZF")), "pickle",
    ),
    Kind("orbax", "a checkpoint of Orbax", _is_orbax, "orbax", extra="orbax"),
    Kind("mxnet", "an MXNet file of parameters", _starts(struct.pack("<QQ", 0x112, 0)), "mxnet"),
    Kind("ncnn", "an ncnn model", _starts(b"7767517\n", b"7767517\r\n", struct.pack("<i", 7767517)), "ncnn"),
    Kind(
        "tensorrt", "a TensorRT engine, which is compiled for one kind of GPU", _is_tensorrt,
        remedy="ingest the ONNX or torch file that it was built from",
    ),
    Kind(
        "tensorflow-checkpoint", "a TensorFlow checkpoint",
        lambda start: start.tail.endswith(_LEVELDB_MAGIC), "tf_checkpoint",
    ),
    Kind(
        "openvino", "an OpenVINO model",
        lambda start: start.head.lstrip()[:5] == b"<?xml" and _OPENVINO.search(start.head) is not None, "openvino",
    ),
    Kind(
        "tensorflow.js", "a TensorFlow.js model",
        lambda start: start.lower.endswith(".json") and _is_tfjs(start), "tfjs",
    ),
    Kind("ctranslate2", "a CTranslate2 model", _is_ctranslate2, "ctranslate2"),
    Kind("darknet", "a Darknet file", _is_darknet, "darknet"),
    Kind("mnn", "an MNN model", _is_mnn, "mnn"),
    Kind("onnx", "an ONNX model", _is_onnx, "onnx"),
    Kind("tensorflow-saved-model", "a TensorFlow SavedModel", _is_saved_model, "tf_checkpoint"),
    Kind("coreml", "a CoreML model", _is_coreml, "coreml"),
    Kind(
        "coreml-weights", "the weights of a CoreML package, without the model that they belong to", _is_coreml_weights,
        remedy="give the whole .mlpackage; of a compiled .mlmodelc, the model that it was compiled from",
    ),
    Kind("tensorflow-graph", "a TensorFlow graph", _is_graph, "tf_graph"),
    Kind("caffe", "a Caffe model", _is_caffe, "caffe"),
    Kind("flax", "a Flax file", _is_msgpack, "flax"),
)  # fmt: skip
"""The kinds of files, the surest signs first."""


def _is_tfjs(start: Start) -> bool:
    """Whether a JSON file describes weights for TensorFlow.js; of a model, the manifest follows its layers."""
    if start.size > 64 * 2**20:
        return False
    if _TFJS.search(start.head):
        return True
    if not start.head.lstrip().startswith(b"{"):
        return False
    return b'"weightsManifest"' in start.file.read_at(0, start.size)


def recognise(path: Path) -> Recognised | None:
    """The kind of a weights file by its content; None if it is of no known kind.

    A file without content, or one that cannot be read, is of no kind.
    """
    main = _main_of(path)
    found = _kind_of(main)
    return None if found is None else Recognised(found, main)


def kind_of(file: ByteSource, name: str) -> Kind | None:
    """The kind of a file by its content and, for kinds without a sure sign, its name; None if it is unknown.

    Raises the errors of reading it.
    """
    if not file.size:
        return None
    start = Start(file, name)
    return next((kind for kind in KINDS if kind.sign(start)), None)


def _kind_of(path: Path) -> Kind | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for its writer
            return None
        with LocalBytes(path, check=False) as file:
            return kind_of(file, path.name)
    except (OSError, ValueError, RegistryError):  # ValueError: a name that no file can have
        return None


def _main_of(path: Path) -> Path:
    """The file that stands for a model, of one of its other files: by name alone, where that one exists."""
    name = path.name
    candidates: list[Path] = []
    if match := _TF_DATA.fullmatch(name):
        candidates.append(path.with_name(match[1] + ".index"))
    elif name.endswith(".meta"):
        candidates += [path.with_name(name.removesuffix(".meta") + end) for end in (".index", "")]  # the old format
    elif name.endswith(".bin") or _TFJS_SHARD.search(name):
        candidates += [path.with_name(name.removesuffix(".bin") + end) for end in (".param", ".xml")]
        candidates += [path.parent.parent / "model.mlmodel"] if path.parent.name == "weights" else []
        candidates += [each for each in _manifests(path.parent) if f'"{name}"'.encode() in _start_of(each)]
    elif name.endswith((".onnx.data", ".onnx_data")):
        candidates.append(path.with_name(name[: -len("_data")]))
    elif name.endswith(".mnn.weight"):
        candidates.append(path.with_name(name.removesuffix(".weight")))
    elif name.endswith(".distcp"):
        candidates.append(path.with_name(".metadata"))
    found = next((each for each in candidates if each != path and each.is_file()), path)
    if found.name.endswith(".index") and found.parent.name == "variables":
        saved = found.parent.parent / "saved_model.pb"
        return saved if saved.is_file() else found
    return found


def _manifests(folder: Path) -> list[Path]:
    """Files of a folder that may list those of a TensorFlow.js model: ``model.json``, ``NAME-weights_manifest.json``.

    None of a folder that cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MAX_BESIDE), entries, strict=False)]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if name == "model.json" or name.endswith("weights_manifest.json")]


def _start_of(path: Path) -> bytes:
    """The first megabytes of a file; empty if it cannot be read."""
    try:
        status = path.stat()
        return _read_start(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else b""
    except OSError:
        return b""


@lru_cache(maxsize=4)
def _read_start(path: Path, _size: int, _time: int) -> bytes:
    with path.open("rb") as file:
        return file.read(_MANIFEST)
