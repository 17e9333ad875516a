"""Source for remote files: ``https://``, ``http://``, ``s3://``, ``gs://`` and ``memory://``.

A file is recognised by its first bytes, and read by ranges where the reader of its format does that; else it is
downloaded to a temporary folder, which is removed when the checkpoint is closed.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from registry.errors import RegistryError, WeightsError
from registry.sources.base import OpenedCheckpoint, Source
from registry.sources.files.remote.addresses import Opening, file_name, resolve, split
from registry.sources.files.remote.remote_bytes import RemoteBytes, open_remote_bytes, session
from registry.sources.files.temporary_folder import TemporaryFolder
from registry.sources.model_files import MAX_BYTES as LARGEST_DESCRIPTION
from registry.sources.recognition import kind_of
from registry.sources.weight_files import DESCRIPTIONS, default_names, is_index, is_shard
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from registry.types import Checkpoint

__all__ = ["SOURCE", "open_address"]

log = logging.getLogger(__name__)

_NO_RANGES = "the server reads no ranges, so that all of the file was downloaded"


def expand(address: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:  # noqa: ARG001 - nothing is initialised
    """The model at an address; nothing is asked of its server. Raises as `split`."""
    scheme, mark, rest = address.partition("://")
    shown, whole = split(f"{scheme.lower()}{mark}{rest}")
    place = Path("/", *shown.split("/")[2:-1], file_name(shown))
    name = default_names([place], None)[0]
    access = whole if whole != shown else ""
    return (ModelRef("remote", shown, name, ModelCard(source=shown), key=key, cached=False, access=access),)


def open_remote(ref: ModelRef) -> Checkpoint:
    """Open a remote file; raises the errors of `open_ref`."""
    return open_address(ref, ref.access or ref.target)


def open_remote_headers(ref: ModelRef) -> Checkpoint:
    """Open a remote file and read its header alone; ``SourceError`` for formats that are not read by ranges."""
    return open_address(ref, ref.access or ref.target, header_only=True)


def open_address(
    ref: ModelRef, address: str, *, header_only: bool = False, sent: Mapping[str, str] | None = None
) -> Checkpoint:
    """Open the file at an address, as what ``ref`` means.

    Parameters
    ----------
    ref
        The checkpoint's reference; its key is the entry to read.
    address
        With user and query.
    header_only
        No weights will be read: formats that have to be downloaded are refused.
    sent
        More headers for the host of the address, and for no other.

    Raises
    ------
    SourceError
        Also: the format cannot be opened by its header alone.
    NotFoundError, AmbiguousError, UnsafeError, WeightsError
        As `open_ref`.
    """
    with ExitStack() as stack, session(sent) as current:
        grant = stack.enter_context(Opening(address))
        place = split(address)
        file = open_remote_bytes(place)
        current.hand_over(file, place)
        source = _source_of(file, place.shown)
        notes = (_NO_RANGES,) if file.whole and file.size > 2**20 else ()
        inner = replace(ref, source=source.name, target=place.shown)
        if source.ranges:
            opener = (source.open_headers or source.open) if header_only else source.open
            opened = cast("OpenedCheckpoint", opener(inner)).under(ref).keep(grant, *notes)
            stack.pop_all()
            return opened
        if header_only:
            from registry.sources.header_only import no_header

            raise no_header(place.shown, source.name)
        return _downloaded(ref, inner, file, source.open, notes)
    raise AssertionError("an exit stack suppresses no exception")


def _source_of(file: RemoteBytes, target: str) -> Source:
    """The source for a file by its first bytes; raises ``WeightsError`` if it is of no kind that is read."""
    from registry.sources.base import SOURCES

    name = file_name(target)
    if is_index(Path(name)):
        return SOURCES["shards"]
    if is_shard(Path(name)):
        raise WeightsError(f"{target} is a shard, not a whole model", "give the address of the index beside it")
    kind = kind_of(file, name)
    if kind is None:
        raise WeightsError(
            f"{target} is no weights file: its first bytes are those of no known format",
            "archreg formats lists what is read; check the address",
        )
    if kind.source not in SOURCES:
        raise WeightsError(f"{target} is {kind.title}, which is not read", kind.remedy or "save it as safetensors")
    return SOURCES[kind.source]


def _downloaded(
    ref: ModelRef,
    inner: ModelRef,
    file: RemoteBytes,
    opener: Callable[[ModelRef], Checkpoint],
    notes: tuple[str, ...],
) -> Checkpoint:
    """Open a file after downloading it, and what is beside it, to a folder that is removed with the checkpoint.

    ``inner``: the reference for the reader, with the address of the file.
    """
    folder = TemporaryFolder()
    try:
        local = folder.path / _plain(file_name(inner.target))
        file.settle()
        file.save(local)
        if inner.source == "tf_checkpoint":
            _save_data(inner.target, local)
        for name in DESCRIPTIONS[:2]:
            _save_small(inner.target, folder.path / name)
        opened = opener(replace(inner, target=str(local)))
        return cast("OpenedCheckpoint", opened).under(ref).keep(folder, *notes)
    except RegistryError as error:
        folder.close()
        _raise_shown(error, str(folder.path), inner.target.rpartition("/")[0])
    except BaseException:
        folder.close()
        raise


def _save_data(target: str, index: Path) -> None:
    """Download the file beside the index of a TensorFlow checkpoint that holds its values, if it is a single one."""
    name = f"{index.name.removesuffix('.index')}.data-00000-of-00001"
    with _beside(target, name) as file:
        file.settle()
        file.save(index.with_name(name))


def _save_small(target: str, path: Path) -> None:
    """Download a file that describes the model, if it is there and no larger than it may be."""
    try:
        with _beside(target, path.name) as file:
            if file.size <= LARGEST_DESCRIPTION:
                path.write_bytes(file.read_at(0, file.size))
    except RegistryError as error:
        log.info("%s beside %s is left out: %s", path.name, target, error.message)


def _raise_shown(error: RegistryError, folder: str, address: str) -> NoReturn:
    """The error with the address in place of the temporary folder."""
    message = error.message.replace(folder, address)
    remedy = None if error.remedy is None else error.remedy.replace(folder, address)
    raise type(error)(message, remedy) from error


def _beside(target: str, name: str) -> RemoteBytes:
    return open_remote_bytes(resolve(Path(target).with_name(name)))


def _plain(name: str) -> str:
    """A name that a file of any system may have."""
    kept = "".join(sign if sign.isprintable() and sign not in '<>:"/\\|?*' else "_" for sign in name)
    return kept[-200:] if kept.strip(". ") else "weights"


SOURCE = Source(
    name="remote",
    open=open_remote,
    expand=expand,
    open_headers=open_remote_headers,
    schemes=("https", "http", "s3", "gs", "memory"),
)
