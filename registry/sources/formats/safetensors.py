"""Source for safetensors files, read one tensor at a time over any source of bytes, without torch.

The checks of the header are those of the safetensors library: it is JSON of the stated form, the tensors lie one after
another without gaps and overlaps, each as long as its dtype and shape say, and the last one ends the file. Beyond them,
a name may stand only once. Source: github.com/huggingface/safetensors, ``safetensors/src/tensor.rs``.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source, common_prefix
from registry.sources.dtypes import SAFETENSORS_DTYPES
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, in_file
from registry.sources.model_files import aliases_in, facts_beside, with_facts
from registry.sources.weight_files import refuse_shard
from registry.types import ModelCard, ModelFacts, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint

__all__ = ["SOURCE", "Entry", "Header", "open_part", "read_header"]

_CARD_FIELDS = ("licence", "source", "architecture", "family", "task", "dataset")
_MAX_TEXT = 1000
_REMEDY = "download or save it again; a file of torch.save belongs under .pt"
_LARGEST = 2**48  # bytes; a header that claims more is wrong, not the length of its file
_MAX_HEADER = 32 * 2**20  # bytes; the header of about 300,000 tensors
# Signs in a header: with twice as many as 300,000 tensors have, what they become takes less than 400 MB.
_MAX_SIGNS = {b"{": 600_000, b"[": 1_200_000, b'"': 6_000_000}
_MAX_NUMBER = 2**64 - 1


def open_safetensors(ref: ModelRef) -> Checkpoint:
    """Open and check a safetensors file; raises the errors of `open_ref`."""
    path = Path(ref.target)
    if ref.key is not None:
        raise NotFoundError(f"{path} has no entry {ref.key!r}", "safetensors files are never wrapped: leave --key out")
    refuse_shard(path)
    return _opened(ref, common_prefix, beside=True)


def open_part(path: Path) -> Checkpoint:
    """Open one shard, with tensor names as in the file; raises the errors of `open_ref`."""
    return _opened(ModelRef("safetensors", str(path), path.stem), lambda _: "", beside=False)


def _opened(ref: ModelRef, prefix: Callable[[Iterable[str]], str], *, beside: bool) -> Checkpoint:
    """Open the file of ``ref`` and remove the common prefix that ``prefix`` finds in its tensor names.

    ``beside``: read the configuration beside it, too.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open_bytes(ref.target))
        header = read_header(file)
        wrapper = prefix(header.tensors)
        tensors = {
            name[len(wrapper) :]: in_file(file, entry.start, entry.dtype, entry.shape)
            for name, entry in header.tensors.items()
        }
        said = {key.removeprefix(wrapper): text.removeprefix(wrapper) for key, text in header.metadata.items()}
        facts = (
            facts_beside(Path(ref.target), said, tensors)
            if beside
            else ModelFacts(metadata=header.metadata, aliases=aliases_in(said, tensors, file.name))
        )
        facts = replace(facts, wrapper=wrapper)
        ref = with_facts(_completed(ref, header.metadata), facts)
        opened = LazyCheckpoint(ref, tensors, facts, files=[file])
        stack.pop_all()
        return opened


def _completed(ref: ModelRef, metadata: Mapping[str, str]) -> ModelRef:
    """The reference with its card completed from the file's metadata; existing card fields take precedence."""
    said = {"licence": metadata.get("license", ""), **metadata}
    # Databases cannot store NUL in text; other control characters are escaped on output.
    known: dict[str, Any] = {n: said[n].replace("\0", "")[:_MAX_TEXT] for n in _CARD_FIELDS if said.get(n)}
    return replace(ref, card=ModelCard(**known).updated(ref.card)) if known else ref


class Entry(NamedTuple):
    """A tensor of a file: its dtype under torch's name, shape, and where its bytes ``start`` to ``stop`` lie."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What a file says before its data: tensors by name, in the order of the header, and texts by key.

    ``bytes``: size of the header with the eight bytes of its length.
    """

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    bytes: int


def read_header(file: ByteSource) -> Header:
    """The checked header. Reads 8 bytes, then the header, and no data.

    Raises
    ------
    WeightsError
        The file is not a valid safetensors file, or its end is missing.
    UnsafeError
        The header is larger than 32 MiB, or claims more than a million tensors.
    """
    length = int.from_bytes(file.read_at(0, 8), "little") if file.size >= 8 else file.size
    if length > file.size - 8:
        raise WeightsError(
            f"{file.name} is not a complete safetensors file: its header reaches beyond its end", _REMEDY
        )
    if length > _MAX_HEADER:
        raise UnsafeError(f"{file.name} has a header of {length / 2**20:.0f} MiB", "split the file")
    text = file.read_at(8, length)
    try:
        header = _parsed(text)
        metadata = _metadata(header.pop("__metadata__", None))
        if len(header) > MAX_TENSORS:
            raise UnsafeError(f"{file.name} claims {len(header)} tensors, more than {MAX_TENSORS}", "split the file")
        data = 8 + length
        entries = {name: _entry(name, said, data) for name, said in header.items()}
        end = _end(entries, data)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{file.name} is not a valid safetensors file: {reason}", _REMEDY) from error
    if file.size < end < _LARGEST:
        raise WeightsError(
            f"{file.name} is incomplete: {end - file.size:,} of its {end:,} bytes are missing", "download it again"
        )
    if file.size != end:
        said = "too few" if file.size < end else f"{file.size - end} more"
        raise WeightsError(
            f"{file.name} is not a valid safetensors file: it has {said} bytes than its header says", _REMEDY
        )
    return Header(entries, metadata, data)


def _parsed(text: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a header. Raises ``ValueError`` if it is none, or repeats a name."""
    for sign, most in _MAX_SIGNS.items():
        if text.count(sign) > most:
            raise ValueError(f"its header has more than {most} of the sign {sign.decode()}")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}, not an object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for at, name in enumerate(sorted(names)[1:]) if name == sorted(names)[at])
        raise ValueError(f"its header has two entries {twice[:100]!r}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"its header has the value {name}")


def _metadata(said: object) -> dict[str, str]:
    if said is None:
        return {}
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise ValueError("its __metadata__ is not an object of texts")
    for text in (*said, *said.values()):
        text.encode()  # half of a surrogate pair is no text
    return said


def _entry(name: str, said: object, data: int) -> Entry:
    """The entry of a tensor; ``data`` is where the data start. Raises ``ValueError`` if it is malformed."""
    shown = f"tensor {name[:100]!r}"
    if not isinstance(said, dict) or not {"dtype", "shape", "data_offsets"} <= said.keys():
        raise ValueError(f"{shown} has no dtype, shape and data_offsets")
    kind, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(kind, str) or kind not in SAFETENSORS_DTYPES:
        raise ValueError(f"{shown} has the unknown dtype {str(kind)[:100]!r}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape or data_offsets of {shown} are not whole numbers")
    dtype, bits = SAFETENSORS_DTYPES[kind]
    size = 1
    for extent in (*shape, bits):
        size *= extent
        if size > _MAX_NUMBER:
            raise ValueError(f"{shown} claims more than 2^64 elements")
    begin, end = offsets
    if size % 8 or end - begin != size // 8:
        raise ValueError(f"{shown} is {dtype} {str(tuple(shape))[:80]}, which does not take {end - begin} bytes")
    return Entry(dtype, tuple(shape), data + begin, data + end)


def _are_counts(said: object) -> bool:
    return isinstance(said, list) and all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in said)


def _end(entries: Mapping[str, Entry], data: int) -> int:
    """Where the data end. Raises ``ValueError`` where they leave a gap or overlap."""
    at = data
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != at:
            raise ValueError(
                f"tensor {name[:100]!r} starts at {entry.start - data}, and the one before it ends at {at - data}"
            )
        at = entry.stop
    return at


SOURCE = Source(name="safetensors", open=open_safetensors, headers=True, ranges=True)
