"""Downloads from the Hugging Face hub into its cache, with errors reported in one line."""

from __future__ import annotations

import glob
import importlib
import logging
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import NotFoundError, SourceError, UnsafeError
from registry.sources.model_files import MAX_BYTES as LARGEST_DESCRIPTION
from registry.sources.published.hub_cache import COMMIT, cached_weights, choose
from registry.sources.shard_index import MAX_BYTES, read_index
from registry.sources.weight_files import DESCRIPTIONS, is_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from huggingface_hub import ModelInfo

__all__ = ["fetch", "located", "reason", "required"]

logger = logging.getLogger(__name__)

_SECRET = re.compile(r"\w+://\S+|(?i:bearer)\s+\S+|\bhf_\w+")  # an address, possibly signed, or a token
_MAX_REASON = 160  # characters


def required(module: str, extra: str) -> Any:
    """The module of an optional dependency; raises ``SourceError`` with the install command if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            f"{module} is needed for this reference and cannot be imported: {error}",
            f"pip install 'architecture-registry[{extra}]'",
        ) from error


def fetch(repository: str, revision: str) -> tuple[Path, ModelInfo | None]:
    """The weights file or shard index in the cache, downloaded if necessary, and the hub's model information.

    A commit that is in the cache needs no request. Any other revision is resolved by the hub; if the hub cannot be
    reached, the last known commit is taken from the cache with a warning. The model information is None if the hub was
    not asked or gave none.

    Raises
    ------
    NotFoundError
        The repository or revision does not exist, has no weights, or is not in the cache and ``HF_HUB_OFFLINE`` is set.
    AmbiguousError
        Several files could be the model.
    UnsafeError
        The shard index is larger than 64 MiB.
    SourceError
        The hub cannot be reached or refuses, or the disk is too small.
    """
    if COMMIT.fullmatch(revision) and (weights := cached_weights(repository, revision)) is not None:
        return weights, None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        with _quietly():
            return _downloaded(repository, revision, info), info
    except SourceError:
        raise
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _explained(error, repository, revision) from error
    except Exception as error:  # raised by the hub client, its HTTP library, or an answer that does not come from a hub
        refusal = _explained(error, repository, revision)
        weights = cached_weights(repository, revision)
        if weights is None:
            raise refusal from error
        logger.warning("archreg: %s; taking %s from the cache", refusal.message, weights.parent.name)
        return weights, None


def located(repository: str, revision: str) -> tuple[str, Mapping[str, str], ModelInfo]:
    """The address of the weights file or shard index at the hub, and what is sent along with a request for it.

    Nothing is downloaded. The address is that of a commit, so that all requests mean the same files. The token goes to
    the hub's host alone.

    Raises
    ------
    NotFoundError, AmbiguousError, SourceError
        As `fetch`.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        name = choose([file.rfilename for file in info.siblings or ()], repository)
        if name is None:
            raise _no_weights(repository, [file.rfilename for file in info.siblings or ()])
        address = hf_hub_url(repository, name, revision=info.sha or revision)
        token = build_hf_headers().get("authorization", "")
    except SourceError:
        raise
    except Exception as error:  # as in `fetch`
        raise _explained(error, repository, revision) from error
    return address, {"Authorization": token} if token else {}, info


def _no_weights(repository: str, files: Iterable[str]) -> NotFoundError:
    below = sorted(file for file in files if file.endswith((".safetensors", ".bin")))
    return NotFoundError(
        f"{repository} has no safetensors and no pytorch_model.bin at its top" + (f", but {below[0]}" if below else ""),
        f"hf download {repository} --local-dir FOLDER, then give a file or folder in it",
    )


def _downloaded(repository: str, revision: str, info: ModelInfo) -> Path:
    """Download the weights file, or the shard index and then its shards, and the small files that describe them."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    name = choose(sizes, repository)
    if name is None:
        raise _no_weights(repository, sizes)
    if is_index(Path(name)) and sizes[name] > MAX_BYTES:
        raise UnsafeError(f"{repository}: {name} is an index of {sizes[name] / 2**20:.0f} MiB", "take another model")
    beside = {file: sizes[file] for file in DESCRIPTIONS if 0 < sizes.get(file, 0) <= LARGEST_DESCRIPTION}
    weights = _snapshot(repository, revision, {name: sizes[name], **beside}) / name
    if is_index(weights):
        files = {shard.name for shard in read_index(weights).values()}
        missing = sorted(files - sizes.keys())
        if missing:
            raise NotFoundError(f"{repository} lacks {missing[0]}, which its {name} names", "take another revision")
        wanted = {name: 0, **{file: sizes[file] for file in sorted(files)}}
        weights = _snapshot(repository, revision, wanted) / name
    return weights


def _snapshot(repository: str, revision: str, sizes: Mapping[str, int]) -> Path:
    """The snapshot folder, after downloading the files that are missing; ``sizes`` are in bytes."""
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    needed = sum(
        size
        for name, size in sizes.items()
        if not isinstance(try_to_load_from_cache(repository, name, revision=revision), str)
    )
    if needed > free:
        raise SourceError(
            f"{repository} needs {needed / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free",
            "set HF_HUB_CACHE to a folder on a larger disk, or take a smaller model",
        )
    return Path(snapshot_download(repository, revision=revision, allow_patterns=[glob.escape(name) for name in sizes]))


@contextmanager
def _quietly() -> Iterator[None]:
    """Disable the hub's progress bars, which would overwrite the caller's, unless its environment variable is set."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _explained(error: Exception, repository: str, revision: str) -> SourceError:
    """A `SourceError` for a failure at the hub, in one line without addresses or tokens; addresses may be signed."""
    from huggingface_hub import errors

    elsewhere = f"with network access: hf download {repository} --local-dir FOLDER; then give the folder"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in _chain(error)):
        return NotFoundError(
            f"{repository} is not in the cache, and HF_HUB_OFFLINE is set", f"unset it; or {elsewhere}"
        )
    if isinstance(error, errors.GatedRepoError):
        return SourceError(
            f"{repository} is gated: its owners have to grant access",
            "request access on its page, then run: hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFoundError(
            f"the hub has no model {repository}, or you have no access to it",
            "check the name; for a private model run: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(f"{repository} has no revision {revision!r}", "check the branch, tag or commit")
    return SourceError(f"{repository} could not be downloaded: {reason(error)}", f"try again; or {elsewhere}")


def reason(error: BaseException) -> str:
    """Text of an error's cause, truncated, with addresses and tokens removed."""
    causes = list(_chain(error))
    for cause in causes:
        response = getattr(cause, "response", None)
        if response is not None:
            return f"the hub answers with status {response.status_code}"
    text = " ".join(_SECRET.sub("...", str(causes[-1])).split())
    return text[:_MAX_REASON] or type(causes[-1]).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
