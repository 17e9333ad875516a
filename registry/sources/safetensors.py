"""Source for safetensors files, read one tensor at a time without torch.

The safetensors library checks the file: header, offsets, gaps and overlaps. It cannot return bfloat16 to NumPy and maps
the whole file, so the bytes of each tensor are read at the offsets of the checked header.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, OpenedCheckpoint, Source, common_prefix
from registry.sources.dtypes import SAFETENSORS_DTYPES, decode, is_float
from registry.sources.model_files import aliases_in, facts_beside, with_facts
from registry.sources.weight_files import check_file, refuse_shard
from registry.types import ModelCard, ModelFacts, ModelRef, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint

__all__ = ["SOURCE", "open_part"]

_CARD_FIELDS = ("licence", "source", "architecture", "family", "task", "dataset")
_LARGEST = 2**48  # bytes; a header that claims more is wrong, not the length of its file
_MAX_TEXT = 1000
_MAX_HEADER = 32 * 2**20  # bytes; the header of about 300,000 tensors


class SafetensorsCheckpoint(OpenedCheckpoint):
    """An open safetensors file. Memory in use is that of the tensor last read."""

    def __init__(
        self, ref: ModelRef, tensors: list[TensorInfo], spans: dict[str, tuple[int, int]], facts: ModelFacts
    ) -> None:
        super().__init__(ref, tensors, facts)
        self._spans = spans
        self._infos = {info.name: info for info in tensors}
        self._file = Path(ref.target).open("rb")  # noqa: SIM115 - close() is the context manager here

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 and bfloat16 are returned as float32."""
        info = self._infos[name]
        if not is_float(info.dtype):
            raise WeightsError(
                f"tensor {name} is {info.dtype}, not floating point", "only floating weights have spectra"
            )
        return decode(self.raw(name), info.dtype, info.shape)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order, read from the file."""
        return self.span(name, 0, self.bytes_of(name))

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        self._check_open()
        return self._spans[name][1]

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor, read from the file."""
        self._check_open()
        begin, size = self._spans[name]
        start, stop = min(start, size), min(stop, size)
        buffer = bytearray(stop - start)
        self._file.seek(begin + start)
        if self._file.readinto(buffer) != len(buffer):
            raise WeightsError(f"{self.ref.target} ends inside tensor {name}", "download or save it again")
        return memoryview(buffer)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()


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
    path = Path(ref.target)
    header, start = _checked_header(path, check_file(path))
    metadata = header.pop("__metadata__", {})
    if len(header) > MAX_TENSORS:
        raise UnsafeError(f"{path} claims {len(header)} tensors, more than {MAX_TENSORS}", "split the file")
    wrapper = prefix(header)
    cut = len(wrapper)
    tensors: list[TensorInfo] = []
    spans: dict[str, tuple[int, int]] = {}
    for name, entry in header.items():
        dtype, _ = SAFETENSORS_DTYPES.get(entry["dtype"], (str(entry["dtype"]).lower(), 0))
        begin, end = entry["data_offsets"]
        tensors.append(TensorInfo(name[cut:], dtype, tuple(entry["shape"])))
        spans[name[cut:]] = (start + begin, end - begin)
    said = {key.removeprefix(wrapper): text.removeprefix(wrapper) for key, text in metadata.items()}
    facts = (
        facts_beside(path, said, spans)
        if beside
        else ModelFacts(metadata=metadata, aliases=aliases_in(said, spans, str(path)))
    )
    return SafetensorsCheckpoint(with_facts(_completed(ref, metadata), facts), tensors, spans, facts)


def _checked_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Header of a file that the library has validated, and the offset of its data."""
    from safetensors import SafetensorError, safe_open

    remedy = "download or save it again; a file of torch.save belongs under .pt"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise WeightsError(f"{path} is not a complete safetensors file: its header reaches beyond its end", remedy)
        if length > _MAX_HEADER:
            raise UnsafeError(f"{path} has a header of {length / 2**20:.0f} MiB", "split the file")
        text = file.read(length)
        try:
            with safe_open(path, framework="numpy") as checked:
                checked.keys()
            header = json.loads(text)
        except (SafetensorError, ValueError, RecursionError) as error:
            whole = 8 + length + _claimed(text)
            if size < whole < _LARGEST:
                raise WeightsError(
                    f"{path} is incomplete: {whole - size} of its {whole} bytes are missing", "download it again"
                ) from error
            raise WeightsError(f"{path} is not a valid safetensors file: {_one_line(error)}", remedy) from error
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {_one_line(error)}", "check the disk and permissions") from error
    return header, 8 + length


def _claimed(text: bytes) -> int:
    """Bytes of data that a header claims, whether or not it is valid; 0 if it says nothing."""
    try:
        entries = json.loads(text)
        return max(int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        return 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _completed(ref: ModelRef, metadata: dict[str, str]) -> ModelRef:
    """The reference with its card completed from the file's metadata; existing card fields take precedence."""
    said = {"licence": metadata.get("license", ""), **metadata}
    # Databases cannot store NUL in text; other control characters are escaped on output.
    known: dict[str, Any] = {n: said[n].replace("\0", "")[:_MAX_TEXT] for n in _CARD_FIELDS if said.get(n)}
    return replace(ref, card=ModelCard(**known).updated(ref.card)) if known else ref


SOURCE = Source(name="safetensors", open=open_safetensors, headers=True)
