"""Files of ``torch.save``: state dicts, plain and wrapped. Always ``weights_only``, with no way round it."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import UnsafeError, WeightsError
from registry.sources.archive import check_archive
from registry.sources.files import check_file
from registry.sources.source import Source
from registry.sources.unwrap import select_state

if TYPE_CHECKING:
    import torch

    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "load_state"]

_MAX_VIEWS = 100  # a file's tensors may share storages, but not without bounds
_GLOBAL = re.compile(r"(?:GLOBAL|global:?|class|function)\s+`?([\w.]+\.[\w.]+)")


def open_torch_file(ref: ModelRef) -> Checkpoint:
    """Open a ``.pt``, ``.pth``, ``.th``, ``.ckpt`` or ``.bin`` file; raises as `open_ref` does."""
    from registry.sources.tensors import TorchCheckpoint

    return TorchCheckpoint(load_state(Path(ref.target), ref.key), ref)


def load_state(path: Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """The state dict in a file under bare names; mapped rather than read where the file is a zip archive.

    Raises as `open_ref` does.
    """
    size = check_file(path)
    content = _load(path, mapped=check_archive(path, size))
    state = select_state(content, str(path), key)
    _check_extent(state, path, size)
    return state


def _load(path: Path, *, mapped: bool) -> object:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on old storage classes and such: of no use to who has only the file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        if "nsupported" not in text and "not allowed" not in text and "lacklisted" not in text:
            raise WeightsError(f"{path} is a damaged pickle: {text[:160]}", "download or save it again") from error
        wanted = _GLOBAL.search(text)
        raise UnsafeError(
            f"{path} holds more than weights: loading it would run {wanted[1] if wanted else 'code'}",
            "where you trust it, load it yourself and save model.state_dict(), best as safetensors",
        ) from error
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(f"{path} cannot be read by torch: {text}", "download or save it again") from error


def _check_extent(state: dict[str, torch.Tensor], path: Path, size: int) -> None:
    """Refuse tensors that claim more elements than are stored: strides of zero make terabytes of a byte."""
    total = 0
    for name, tensor in state.items():
        if tensor.is_meta or str(tensor.layout) != "torch.strided":
            continue  # refused with their own reasons later
        claimed = tensor.numel() * tensor.element_size()
        stored = tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > stored:
            raise UnsafeError(
                f"{path}: tensor {name} claims {claimed} bytes of a storage of {stored}", "save contiguous tensors"
            )
    if total > _MAX_VIEWS * max(size, 1):
        raise UnsafeError(f"{path} claims {total} bytes of tensors in a file of {size}", "save each tensor once")


SOURCE = Source(name="torch", open=open_torch_file, suffixes=(".pt", ".pth", ".th", ".ckpt", ".bin"))
