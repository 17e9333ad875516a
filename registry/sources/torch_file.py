"""Source for ``torch.save`` files, plain and wrapped state dicts, loaded with ``weights_only`` always."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.errors import RegistryError, UnsafeError, WeightsError
from registry.sources.archive import DAMAGED, check_archive, check_sums, data_offsets, zip_entries
from registry.sources.base import Source
from registry.sources.model_files import facts_beside, with_facts
from registry.sources.pickle_stand_ins import stand_ins
from registry.sources.quantised.torchao_tensors import REMEDY
from registry.sources.state_dicts import others_beside, select_entry, stripped
from registry.sources.weight_files import check_file, is_training_state, refuse_shard
from registry.types import ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from registry.types import Checkpoint

__all__ = ["SOURCE", "load_state", "open_part"]

logger = logging.getLogger(__name__)

_MAX_VIEWS = 100  # limit on the size of tensors that share storages, relative to the file
_NAMED = 6  # entries named in a note
_TOLD = 256 * 2**20  # bytes; larger files that must be read whole cause a warning first
# torch's message also suggests loading without weights_only, which is cut off.
_REASON = re.compile(r"WeightsUnpickler error: (.*?)(?: Check the documentation|$)")
_GLOBAL = re.compile(r"(?:GLOBAL|global:?|class|function)\s+`?([\w.]+\.[\w.]+)")


def open_torch_file(ref: ModelRef) -> Checkpoint:
    """Open a ``.pt``, ``.pth``, ``.th``, ``.ckpt`` or ``.bin`` file; raises the errors of `open_ref`."""
    from registry.sources.torch_tensors import TorchCheckpoint

    path = Path(ref.target)
    refuse_shard(path)
    loaded = _load_state(path, ref.key)
    facts = facts_beside(path, names=loaded.state)
    if loaded.others and ref.key is None:
        told = ", ".join(loaded.others[:_NAMED])
        facts = replace(facts, notes=(*facts.notes, f"entry {loaded.entry} was read; --key chooses another: {told}"))
    ref = with_facts(replace(ref, key=loaded.entry or None), facts)
    return TorchCheckpoint(stripped(loaded.state), ref, facts, archive=path if loaded.mapped else None)


def open_part(path: Path) -> Checkpoint:
    """Open one shard, with tensor names as in the file; raises the errors of `open_ref`."""
    from registry.sources.torch_tensors import TorchCheckpoint

    if not check_archive(path, check_file(path)):
        raise WeightsError(f"the shard {path} is an old torch file, which cannot be mapped", "save the model again")
    loaded = _load_state(path, None)
    ref = ModelRef("torch", str(path), path.stem)
    return TorchCheckpoint(loaded.state, ref, archive=path if loaded.mapped else None)


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, with wrapper prefixes removed; memory-mapped if the file is a zip archive.

    Raises the errors of `open_ref`.
    """
    loaded = _load_state(path, None)
    if loaded.mapped:
        entries = zip_entries(path, path.stat().st_size)
        check_sums(path, data_offsets(path, entries), everything=entries)
    return stripped(loaded.state)


class _Loaded(NamedTuple):
    """A state dict with names as in the file, its entry, those beside it, and whether it is memory-mapped."""

    state: dict[str, torch.Tensor]
    entry: str
    others: tuple[str, ...]
    mapped: bool


def _load_state(path: Path, key: str | None) -> _Loaded:
    size = check_file(path)
    mapped = check_archive(path, size)
    if not mapped and size > _TOLD:
        logger.warning(
            "archreg: %r cannot be mapped and is read whole, into %.1f GiB of memory; save it again to avoid that",
            str(path),
            size / 2**30,
        )
    content = _load(path, mapped=mapped)
    try:
        state, entry = select_entry(content, str(path), key)
        _check_extent(state, path, size)
        others = others_beside(content, entry)
    except RegistryError:
        raise
    except Exception as error:  # an object from a malicious pickle may raise any exception when accessed
        raise _unreadable(path, error) from error
    return _Loaded(state, entry, others, mapped)


def _load(path: Path, *, mapped: bool) -> object:
    try:
        return _load_with(path, (), mapped=mapped)
    except pickle.UnpicklingError as error:
        refusal = error
    except Exception as error:  # a malicious pickle can make the unpickler raise any exception
        raise _unreadable(path, error) from error
    try:
        settings = _settings(path) if "nsupported global" in str(refusal) else []
        if settings:
            return _load_with(path, settings, mapped=mapped)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except UnsafeError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    raise _refused(path, refusal) from refusal


def _load_with(path: Path, settings: Sequence[tuple[Any, str]], *, mapped: bool) -> object:
    import torch

    with warnings.catch_warnings(), torch.serialization.safe_globals(list(settings)):
        warnings.simplefilter("ignore")  # warnings about old storage classes are no help to users of the file
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _settings(path: Path) -> list[tuple[Any, str]]:
    """Stand-ins for the names that ``weights_only`` refuses; ``UnsafeError`` if other names remain."""
    import torch

    if not zipfile.is_zipfile(path):
        return []  # torch lists names for archives only
    known, others = stand_ins(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    if others:
        raise _would_run(path, others[0])
    return known


def _would_run(path: Path, what: str) -> UnsafeError:
    if what.startswith("torchao."):
        return UnsafeError(f"{path} holds weights of torchao, which only torchao can load: {what[:100]}", REMEDY)
    if is_training_state(path):
        return UnsafeError(
            f"{path} is training state, not a model: loading it would run {what[:100]}",
            "give the file of the model's weights beside it",
        )
    return UnsafeError(
        f"{path} holds more than weights: loading it would run {what[:100]}",
        "if you trust it, load it yourself and save its tensors alone, preferably as safetensors",
    )


def _refused(path: Path, error: pickle.UnpicklingError) -> RegistryError:
    text = " ".join(str(error).split())
    if any(word in text for word in ("nsupported", "not allowed", "lacklisted", "is blocked")):
        wanted = _GLOBAL.search(text)
        return _would_run(path, wanted[1] if wanted else "code")
    reason = _REASON.search(text)
    return WeightsError(f"{path} is a damaged pickle: {(reason[1] if reason else text)[:160]}", DAMAGED)


def _unreadable(path: Path, error: Exception) -> WeightsError:
    text = " ".join(str(error).split())[:160] or type(error).__name__
    return WeightsError(f"{path} cannot be read by torch: {text}", DAMAGED)


def _check_extent(state: dict[str, torch.Tensor], path: Path, size: int) -> None:
    """Refuse tensors that claim more elements than are stored; with strides of zero, one byte can claim terabytes."""
    total = 0
    for name, tensor in state.items():
        if tensor.is_meta or str(tensor.layout) != "torch.strided":
            continue  # refused later, with a specific reason
        claimed = tensor.numel() * tensor.element_size()
        stored = tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > stored:
            raise UnsafeError(
                f"{path}: tensor {name} claims {claimed} bytes of a storage of {stored}", "save contiguous tensors"
            )
    if total > _MAX_VIEWS * max(size, 1):
        raise UnsafeError(f"{path} claims {total} bytes of tensors in a file of {size}", "save each tensor once")


SOURCE = Source(name="torch", open=open_torch_file)
