"""References, as a user writes them: the models that they mean, and their weights opened."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import AmbiguousError, NotFoundError, SourceError, WeightsError
from registry.sources.base import DEFERRED, PREFIX, SCHEMES, SOURCES, SUFFIXES, is_weights_name
from registry.sources.effective_weights import EffectiveCheckpoint
from registry.sources.folder_search import Found, matching_files, weight_files
from registry.sources.recognition import recognise
from registry.sources.shard_index import shards_of, whole_models
from registry.sources.shard_sets import set_of
from registry.sources.weight_files import (
    check_content,
    check_file,
    default_names,
    finished_name,
    index_of,
    is_index,
    settled,
    size_of,
)
from registry.spelling import without_secrets
from registry.types import ModelRef, Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.sources.base import Source
    from registry.sources.recognition import Recognised
    from registry.types import Checkpoint

__all__ = ["deferred", "expand", "open_headers", "open_ref"]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_PREFIXED = re.compile(rf"({PREFIX.pattern}):(?![/\\])(.*)", re.DOTALL)
_NUMBERED = re.compile(r"\d")  # as every file of a set is
_PATH_LIKE = re.compile(r"(\.{0,2}|~[^/\\]*)[/\\]")


def expand(reference: str | Path, *, key: str | None = None, seed: int = 0) -> tuple[ModelRef, ...]:
    """The models that a reference names. Nothing is downloaded, and no weights are read.

    Parameters
    ----------
    reference
        One of: ``torchvision:NAME[.WEIGHTS]``; ``torchvision:NAME.random``, initialised with ``seed``;
        ``torchvision:PATTERN`` (``resnet*``: all matches that have weights); the same with ``timm:`` and timm's tags;
        ``hf:ORG/NAME[@REVISION]``; the address of a file or shard index (``https://HOST/PATH/FILE``,
        ``s3://BUCKET/KEY``, ``gs://...``, ``memory://...``); a file; a shard index, which names one model; a folder,
        for every model below it; a pattern (``runs/*/best.pt``, ``**`` for any number of folders). A `Path`, or text
        that starts with ``./``, ``../``, ``/`` or ``~/``, is always a path.
    key
        Entry of a wrapped checkpoint to read; ``a.b`` for a nested entry.
    seed
        Seed of a random initialisation.

    Returns
    -------
    tuple of ModelRef
        At least one, sorted by path or name. Folders that cannot be listed follow as models that fail when they are
        opened. Of folders and patterns it is a `Plan`, with the files that were left out.

    Raises
    ------
    NotFoundError
        The path, prefix, model or weights do not exist; the remedy suggests similar names. Or the path cannot be
        accessed: the name is too long, or a folder denies permission.
    AmbiguousError
        The text is both an existing path and a reference to a published model.
    """
    try:
        return _expand(reference, key, seed)
    except OSError as error:
        raise NotFoundError(
            f"{reference} cannot be accessed: {error.strerror}", "check the path and the permissions of its folders"
        ) from error


def _expand(reference: str | Path, key: str | None, seed: int) -> tuple[ModelRef, ...]:
    if isinstance(reference, Path) or _PATH_LIKE.match(reference):
        return _expand_path(Path(reference).expanduser(), key)
    address = _ADDRESS.match(reference)
    if address is not None and (name := SCHEMES.get(address[1].lower())) is not None:
        of_addresses = SOURCES[name]
        assert of_addresses.expand is not None  # noqa: S101 - as of every source of addresses
        return of_addresses.expand(reference, key, seed)
    if address is not None and not Path(reference).exists():
        raise NotFoundError(
            f"{without_secrets(reference)} is an address of a kind that is not read",
            f"addresses that are: {', '.join(f'{scheme}://' for scheme in SCHEMES)}",
        )
    match = _PREFIXED.fullmatch(reference)
    path = Path(reference)
    if match is None:
        return _expand_path(path, key)
    source = SOURCES.find(match[1])
    if path.exists():
        if source is None or not source.prefix:
            return _expand_path(path, key)
        raise AmbiguousError(
            f"{reference!r} is both a file here and a {source.name} model",
            f"write ./{reference} for the file, or run in another folder for the model",
        )
    if source is None or source.expand is None or not source.prefix:
        prefixes = sorted(name for name in SOURCES.known() if name not in SOURCES or SOURCES[name].prefix)
        near = difflib.get_close_matches(match[1], prefixes, n=1)
        known = ", ".join(f"{prefix}:" for prefix in prefixes)
        raise NotFoundError(
            f"unknown source {match[1]!r} in {reference!r}",
            f"did you mean {near[0]}:{match[2]}?" if near else f"known sources: {known} or the path of a file",
        )
    return source.expand(match[2], key, seed)


def deferred(reference: str | Path, *, key: str | None = None, seed: int = 0) -> ModelRef:
    """A model that fails, with the same error, when it is opened, for a reference that `expand` refused.

    A wrong line of a manifest thus becomes one failed item and does not stop the run.
    """
    target = str(reference.absolute()) if isinstance(reference, Path) else without_secrets(reference)
    return ModelRef(DEFERRED, target, target if isinstance(reference, str) else str(reference), key=key, seed=seed)


def open_ref(ref: ModelRef) -> Checkpoint:
    """Open the weights of one model; close the result, or use it in a ``with`` statement.

    Parameters
    ----------
    ref
        As `expand` returns it.

    Returns
    -------
    Checkpoint
        Reads one tensor at a time: of a file never more than the layer asked for is in memory, whatever its format.
        What timm builds is held whole.

    Raises
    ------
    NotFoundError
        The file is gone, or the source or the key is unknown.
    AmbiguousError
        The file holds several state dicts and none is clearly the model's.
    UnsafeError
        The file would run code or exhaust the machine.
    WeightsError
        The file is damaged or holds no state dict.
    SourceError
        Weights could not be downloaded.
    """
    if ref.source == DEFERRED:
        ref = _resolved(ref)
    return EffectiveCheckpoint(_with_base(ref, _opened))


def open_headers(ref: ModelRef) -> Checkpoint:
    """Open a model to have its names, dtypes and shapes: what `plan_headers` needs.

    Nothing beyond the header is read or downloaded, except 64 kB at most of small tensors that say how others are laid
    out. Values of tensors are refused.

    Raises
    ------
    SourceError
        Of this kind of file or model, shapes are not known without its weights.
    NotFoundError, AmbiguousError, UnsafeError, WeightsError
        As `open_ref`.
    """
    from registry.sources.header_only import HeaderCheckpoint

    if ref.source == DEFERRED:
        ref = _resolved(ref)
    return EffectiveCheckpoint(HeaderCheckpoint(_with_base(ref, _headers_opened)))


def _with_base(ref: ModelRef, opener: Callable[[ModelRef], Checkpoint]) -> Checkpoint:
    """The weights as stored; of an adapter, with those of its base."""
    opened = opener(ref)
    if ref.base or any("lora_" in info.name or info.name.startswith("base_model.") for info in opened.tensors):
        from registry.sources.adapter_base import with_base

        opened = with_base(opened, expand, opener)
    return opened


def _source_of(ref: ModelRef) -> Source:
    source = SOURCES.find(ref.source)
    if source is None:
        raise NotFoundError(f"unknown source {ref.source!r}", f"known sources: {', '.join(sorted(SOURCES.known()))}")
    return source


def _opened(ref: ModelRef) -> Checkpoint:
    """The weights as stored."""
    return _source_of(ref).open(ref)


def _headers_opened(ref: ModelRef) -> Checkpoint:
    """The tensors as stored, of a source that lists them without reading them."""
    source = _source_of(ref)
    if source.open_headers is not None:
        return source.open_headers(ref)
    if not source.headers:
        from registry.sources.header_only import no_header

        raise no_header(ref.target, source.name)
    return source.open(ref)


def _resolved(ref: ModelRef) -> ModelRef:
    """What a deferred reference means now; raises as `expand`, ``AmbiguousError`` where it is several models."""
    found = expand(ref.target, key=ref.key, seed=ref.seed)
    if len(found) > 1:
        raise AmbiguousError(f"{ref.target} is {len(found)} models", "ingest this reference separately")
    return replace(found[0], name=ref.name, base=ref.base, card=found[0].card.updated(ref.card))


def _expand_path(path: Path, key: str | None) -> tuple[ModelRef, ...]:
    if path.is_dir():
        saved = path.parent / "saved_model.pb"
        if path.name == "variables" and (path / "variables.index").is_file() and saved.is_file():
            return (_named_file(saved, key),)
        return _file_refs(weight_files(path), key)
    if path.exists():
        if not path.is_file():
            check_file(path)
        return (_named_file(path, key),)
    found = matching_files(path)
    if found is not None:
        return _file_refs(found, key)
    if path.is_symlink():
        raise NotFoundError(f"{path} is a broken link", "check its target")
    index = path.with_name(f"{path.name}.index") if path.name else path
    if index.is_file():  # TensorFlow calls a checkpoint by what its files have in common
        return (_named_file(index, key),)
    near = _near_files(path) or _published(path)
    raise NotFoundError(
        f"no file or folder {path}",
        f"did you mean {near}?"
        if near
        else "check the path; published models are written torchvision:NAME, timm:NAME, hf:ORG/NAME",
    )


def _published(path: Path) -> str | None:
    """The reference that a path without a file stands for: ``torchvision/resnet18``, as architectures are called."""
    head, *rest = path.parts or ("",)
    source = SOURCES.find(head) if rest else None
    return f"{head}:{'/'.join(rest)}" if source is not None and source.prefix and source.expand is not None else None


def _near_files(path: Path) -> str | None:
    folder = path.parent
    if not folder.is_dir():
        return None
    near = difflib.get_close_matches(path.name, sorted(p.name for p in folder.iterdir()), n=1)
    return str(folder / near[0]) if near else None


def _file_refs(found: Found, key: str | None) -> Plan:
    """References to the files found, followed by the paths that cannot be accessed, each of which fails when opened."""
    whole = whole_models(found.files)
    names = default_names(whole, found.root)
    refs = [
        _file_ref(file, name, found.root, key, found.kinds.get(file)) for file, name in zip(whole, names, strict=True)
    ]
    return Plan((*refs, *(deferred(path, key=key) for path in found.barred)), found.left_out)


def _named_file(path: Path, key: str | None) -> ModelRef:
    """Reference to a file that the user named, or to the one that it belongs to."""
    found = None if is_index(path) else recognise(path)
    if found is None and not is_index(path):
        if (finished := finished_name(path)) is not None:
            raise WeightsError(f"{path} is an unfinished download", f"finish it, then give {path.with_name(finished)}")
        if not is_weights_name(path):
            raise _unknown(path)
    if found is not None and not found.kind.source:
        raise WeightsError(f"{path} is {found.kind.title}, which is not read", found.kind.remedy)
    main = path if found is None else found.main
    return _file_ref(main, default_names([main], None)[0], None, key, found)


def _unknown(path: Path) -> NotFoundError | WeightsError:
    """The error for a file of a kind that is not known."""
    if (size := size_of(path)) and os.access(path, os.R_OK):
        check_content(path, size)
    if not size:
        return WeightsError(f"{path} is empty", "download or save it again")
    return WeightsError(
        f"{path} is no weights file: its first bytes are those of no known format",
        "archreg formats lists what is read; save the weights as safetensors",
    )


def _file_ref(path: Path, name: str, folder: Path | None, key: str | None, found: Recognised | None) -> ModelRef:
    """Reference to a file found below ``folder`` (None if the user named it), of the kind ``found`` by its content.

    A file of no known kind has a name that weights files have; it fails when it is opened.
    """
    suffix = max((each for each in SUFFIXES if path.name.lower().endswith(each)), key=len, default="")
    source = SOURCES[found.kind.source if found else SUFFIXES[suffix]]
    target = settled(path, folder)
    files = shards_of(target) if is_index(target) else [target]
    if (
        (_NUMBERED.search(target.stem) or target.parent.name.startswith("mp_rank"))
        and not is_index(target)
        and index_of(target) is None
    ):
        try:
            together = set_of(target)
        except SourceError:  # reported when it is opened, as one failed model
            source = SOURCES["shards"]
        else:
            if together is not None:
                source, files, target = SOURCES["shards"], list(together.files), together.files[0]
    # A missing or inaccessible file fails when it is opened, so that the other models of the run go on.
    sizes = [size for file in files if (size := size_of(file)) is not None]
    return ModelRef(source=source.name, target=str(target), name=name, key=key, bytes=sum(sizes) if sizes else None)
