"""Source for models in MLflow: ``mlflow:MODEL/VERSION``, ``mlflow:MODEL@ALIAS``, ``mlflow:runs/ID[/PATH]``.

MLflow's client asks the tracking server that ``MLFLOW_TRACKING_URI`` names. Of a logged model, ``MLmodel`` says where
the weights are; these alone are downloaded, into a temporary folder that is removed when the checkpoint is closed, and
read as any other file. Nothing in an artifact is run: no loader of MLflow is called. Metrics, parameters and tags of
the run become the card.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
import shutil
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from registry.errors import AmbiguousError, NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import SOURCES, OpenedCheckpoint, Source
from registry.sources import expand as expand_path
from registry.sources.base import is_weights_name
from registry.sources.files.temporary_folder import TemporaryFolder
from registry.types import Metric, ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from registry.types import Checkpoint

__all__ = ["SOURCE"]

_RUN = re.compile(r"runs/([A-Za-z0-9-]{1,64})(?:/([^\0]{1,500}))?")
_MODEL = re.compile(r"([^/:@\0]{1,250})(?:/(\d{1,9}|latest)|@([\w.-]{1,250}))")
_FLAVOURS: Final = {
    "pytorch": "data", "keras": "data", "tensorflow": "data", "onnx": "model.onnx", "transformers": "model",
    "sentence_transformers": "model.sentence_transformer",
}  # fmt: skip
"""Flavours that are read, and where their weights are if ``MLmodel`` does not say."""
_WHERE = ("model_data", "data", "saved_model_dir", "model_binary")  # entries of a flavour that name its weights

_MAX_MLMODEL = 2**18  # bytes
_MAX_ENTRIES = 10_000  # of a listing
_MAX_FIELDS = 100  # metrics, parameters and tags, each
_MAX_TEXT = 1000  # characters
_MAX_KEY = 250
_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "eval": "validation", "test": "test",
}  # fmt: skip
_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})[_/.-](.+)", re.IGNORECASE)
_SECRET_KEY = re.compile(r"(?:.*[_.-])?(?:password|passwd|pwd|secret|token|api_?key|access_?key|credentials?)", re.I)
_ADDRESS = re.compile(r"\w+://\S+|(?:/[\w.-]+){3,}")
_USER = re.compile(r"(\w+://)[^/\s@]+@")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}  # fmt: skip


class _Logged(NamedTuple):
    """What a reference means: where its artifacts are, and the card that its run gives."""

    uri: str
    card: ModelCard


def expand(text: str, key: str | None, seed: int) -> tuple[ModelRef, ...]:  # noqa: ARG001 - nothing is initialised
    """The model of ``MODEL/VERSION``, ``MODEL@ALIAS`` or ``runs/ID[/PATH]``; the server is not asked.

    Raises
    ------
    NotFoundError
        The text is none of these.
    SourceError
        MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise _missing("mlflow is not installed")
    run = _RUN.fullmatch(text)
    if not text.isprintable() or (run is None and _MODEL.fullmatch(text) is None) or (run and _leads_out(run[2] or "")):
        raise NotFoundError(
            f"mlflow:{text[:200]!r} names no model of MLflow",
            "write mlflow:MODEL/VERSION, mlflow:MODEL@ALIAS, mlflow:runs/ID or mlflow:runs/ID/PATH",
        )
    return (ModelRef("mlflow", text, f"mlflow/{text}", ModelCard(source=f"mlflow:{text}"), key=key, cached=False),)


def open_mlflow(ref: ModelRef) -> Checkpoint:
    """Download the weights of a logged model and open them; raises the errors of `open_ref`."""
    with ExitStack() as stack, _quietly():
        mlflow = _imported()
        folder = TemporaryFolder()
        stack.callback(folder.close)
        logged = _logged(mlflow, ref.target)
        local = _downloaded(mlflow, logged.uri, folder.path, ref.target)
        inner = _only(local, ref)
        source = SOURCES[inner.source]
        card = logged.card.updated(ref.card)
        try:
            opened = cast("OpenedCheckpoint", source.open(replace(inner, card=card, key=ref.key)))
        except RegistryError as error:
            raise _shown(error, str(folder.path), ref.target) from error
        stack.pop_all()
        return opened.under(ref).keep(folder)
    raise AssertionError("an exit stack suppresses no exception")


def _missing(why: str) -> SourceError:
    return SourceError(f"mlflow: references need MLflow: {why}", "pip install 'architecture-registry[mlflow]'")


def _imported() -> Any:
    """MLflow's package. Raises ``SourceError`` if it is missing, or no server is named."""
    try:
        mlflow: Any = importlib.import_module("mlflow")
        importlib.import_module("mlflow.artifacts")
    except ImportError as error:
        raise _missing(f"it cannot be imported ({error})") from error
    here = any(Path(name).exists() for name in ("mlruns", "mlflow.db"))
    if not (mlflow.is_tracking_uri_set() or os.environ.get("MLFLOW_TRACKING_URI") or here):
        raise SourceError(
            "no tracking server of MLflow is named, and this folder has none", "set MLFLOW_TRACKING_URI to its address"
        )
    return mlflow


@contextmanager
def _quietly() -> Iterator[None]:
    """MLflow without progress bars, telemetry, warnings, and minutes of attempts; what the user has set stays."""
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _asked(call: Callable[..., Any], what: str, *given: Any, **named: Any) -> Any:
    """What MLflow's client answers; its errors in one line, without addresses."""
    try:
        return call(*given, **named)
    except RegistryError:
        raise
    except Exception as error:  # of MLflow, its HTTP library, its database, or the store of artifacts
        told = " ".join(_ADDRESS.sub("...", str(error)).split())[:160]
        code = str(getattr(error, "error_code", ""))
        if code == "RESOURCE_DOES_NOT_EXIST" or "not found" in told.lower() or isinstance(error, FileNotFoundError):
            raise NotFoundError(f"MLflow has no {what}", "check the reference and MLFLOW_TRACKING_URI") from error
        raise SourceError(
            f"MLflow could not be asked for {what}: {told or type(error).__name__}",
            "check MLFLOW_TRACKING_URI, the network and your credentials",
        ) from error


def _logged(mlflow: Any, target: str) -> _Logged:
    """The artifacts and the card of a reference."""
    client = _asked(mlflow.MlflowClient, "tracking server")
    if run_match := _RUN.fullmatch(target):
        run = _asked(client.get_run, f"run {run_match[1]}", run_match[1])
        uri = f"runs:/{run_match[1]}/{run_match[2].strip('/')}" if run_match[2] else _model_of(mlflow, client, run)
        return _Logged(uri, _card(run, {}))
    match = _MODEL.fullmatch(target)
    if match is None:
        raise NotFoundError(f"mlflow:{target[:200]} names no model of MLflow", "write mlflow:MODEL/VERSION")
    name, number, alias = match.groups()
    what = f"model {name} {f'version {number}' if number else f'alias {alias}'}"
    if alias:
        version = _asked(client.get_model_version_by_alias, what, name, alias)
    elif number == "latest":
        found = _asked(client.search_model_versions, what, "name = '" + name.replace("'", "''") + "'")
        if not found:
            raise NotFoundError(f"MLflow has no model {name}", "check the reference and MLFLOW_TRACKING_URI")
        version = max(found, key=lambda each: int(each.version))
    else:
        version = _asked(client.get_model_version, what, name, number)
    run = _asked(client.get_run, f"run {version.run_id}", version.run_id) if version.run_id else None
    uri = _asked(client.get_model_version_download_uri, what, name, version.version)
    card = _card(run, {**dict(version.tags or {}), "mlflow_version": str(version.version)})
    return _Logged(_location(client, uri), card)


def _location(client: Any, uri: str) -> str:
    """An address to which the paths of artifacts can be appended."""
    if match := re.fullmatch(r"models:/(m-[\w-]+)/?", uri):
        model = _asked(client.get_logged_model, f"logged model {match[1]}", match[1])
        return str(model.artifact_location)
    return uri.rstrip("/")


def _model_of(mlflow: Any, client: Any, run: Any) -> str:
    """The only logged model of a run, or its only weights file among the artifacts at the top."""
    number = run.info.run_id
    found = {
        f"model {output.model_id}": _location(client, f"models:/{output.model_id}")
        for output in getattr(run.outputs, "model_outputs", None) or ()
    }
    top = _listed(mlflow, f"runs:/{number}/", f"artifacts of run {number}")
    for entry in top[:_MAX_FIELDS]:
        below = _listed(mlflow, f"runs:/{number}/{entry.path}", "artifacts") if entry.is_dir else []
        if any(PurePosixPath(each.path).name == "MLmodel" for each in below):
            found[entry.path] = f"runs:/{number}/{entry.path}"
    if not found:
        files = [entry.path for entry in top if not entry.is_dir and is_weights_name(Path(entry.path))]
        found = {path: f"runs:/{number}/{path}" for path in files}
    if not found:
        raise NotFoundError(
            f"run {number} of MLflow has no logged model and no weights among its artifacts",
            f"write mlflow:runs/{number}/PATH for an artifact further down",
        )
    if len(found) > 1:
        raise AmbiguousError(
            f"run {number} of MLflow has {len(found)} models: {', '.join(sorted(found)[:5])}",
            f"write mlflow:runs/{number}/PATH for one of them, or mlflow:MODEL/VERSION for a registered one",
        )
    return next(iter(found.values()))


def _listed(mlflow: Any, uri: str, what: str) -> list[Any]:
    found = list(_asked(mlflow.artifacts.list_artifacts, what, artifact_uri=uri) or ())
    if len(found) > _MAX_ENTRIES:
        raise UnsafeError(f"MLflow lists more than {_MAX_ENTRIES} artifacts", "name the artifact of the weights")
    return found


def _downloaded(mlflow: Any, uri: str, folder: Path, target: str) -> Path:
    """The weights in ``folder``: of a logged model what its flavour names, else the artifact itself."""
    listed = {PurePosixPath(entry.path).name: entry for entry in _listed(mlflow, uri, f"artifacts of mlflow:{target}")}
    if not listed:  # a single file
        return _fetched(mlflow, uri, folder, target)
    if "MLmodel" not in listed:
        _check_size(mlflow, uri, folder, target)
        return _fetched(mlflow, uri, folder, target)
    if (listed["MLmodel"].file_size or 0) > _MAX_MLMODEL:
        raise UnsafeError(f"mlflow:{target} has an MLmodel file of more than {_MAX_MLMODEL} bytes", "log it again")
    described = _described(_fetched(mlflow, f"{uri}/MLmodel", folder, target), target)
    path = _weights_path(described, target)
    first = path.split("/")[0]
    if first not in listed:
        raise WeightsError(f"mlflow:{target} has no {path}, which its MLmodel names", "log the model again")
    where = folder / "weights"
    where.mkdir()
    _check_size(mlflow, f"{uri}/{path}", folder, target)
    return _fetched(mlflow, f"{uri}/{path}", where, target)


def _fetched(mlflow: Any, uri: str, folder: Path, target: str) -> Path:
    path = Path(
        _asked(mlflow.artifacts.download_artifacts, f"artifact {PurePosixPath(uri).name} of mlflow:{target}",
               artifact_uri=uri, dst_path=str(folder))
    )  # fmt: skip
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UnsafeError(f"an artifact of mlflow:{target} leads out of its folder", "log the model again")
    return path


def _check_size(mlflow: Any, uri: str, folder: Path, target: str) -> None:
    """Raise ``SourceError`` if the disk is too small for the artifacts below an address."""
    pending, size, count = [uri], 0, 0
    while pending and count < _MAX_ENTRIES:
        current = pending.pop()
        for entry in _listed(mlflow, current, f"artifacts of mlflow:{target}"):
            count += 1
            size += entry.file_size or 0
            if entry.is_dir:
                pending.append(f"{current}/{PurePosixPath(entry.path).name}")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise SourceError(
            f"mlflow:{target} needs {size / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB free",
            "set TMPDIR to a folder on a larger disk",
        )


def _described(path: Path, target: str) -> Mapping[str, Any]:
    """The content of an ``MLmodel`` file. Raises ``WeightsError`` if it is no such file."""
    yaml: Any = importlib.import_module("yaml")

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias")
            return super().compose_node(parent, index)

    try:
        data = path.read_bytes()[: _MAX_MLMODEL + 1]
        if len(data) > _MAX_MLMODEL:
            raise UnsafeError(f"mlflow:{target} has an MLmodel file of more than {_MAX_MLMODEL} bytes", "log it again")
        content = yaml.load(data, Loader)
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise WeightsError(
            f"mlflow:{target} has an MLmodel file that is not valid: {type(error).__name__}", "log the model again"
        ) from error
    flavours = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavours, dict) or not flavours:
        raise WeightsError(f"mlflow:{target} has an MLmodel file without flavors", "log the model again")
    return {str(name): said for name, said in flavours.items()}


def _weights_path(flavours: Mapping[str, Any], target: str) -> str:
    """Where the weights of a logged model are, below its folder."""
    name = next((name for name in _FLAVOURS if name in flavours), None)
    if name is None:
        others = sorted(set(flavours) - {"python_function"}) or sorted(flavours)
        raise WeightsError(
            f"mlflow:{target} is a model of {', '.join(others)[:100]}, whose weights are not read",
            f"flavours that are: {', '.join(sorted(_FLAVOURS))}",
        )
    said = flavours[name] if isinstance(flavours[name], dict) else {}
    path = next((said[key] for key in _WHERE if isinstance(said.get(key), str)), _FLAVOURS[name]).strip("/")
    if not path or _leads_out(path):
        raise UnsafeError(f"mlflow:{target} keeps its weights in {path[:80]!r}, which is outside", "log it again")
    return path


def _leads_out(path: str) -> bool:
    """Whether a path of an artifact is absolute, goes up, or is no plain path."""
    return path.startswith("/") or ".." in path.split("/") or "\\" in path or ":" in path or not path.isprintable()


def _only(local: Path, ref: ModelRef) -> ModelRef:
    """The only model in what was downloaded."""
    try:
        found = expand_path(local, key=ref.key)
    except RegistryError as error:
        raise _shown(error, str(local.parent), ref.target) from error
    if len(found) > 1:
        names = ", ".join(sorted(Path(each.target).name for each in found)[:5])
        raise AmbiguousError(
            f"mlflow:{ref.target} holds {len(found)} models: {names}", "write mlflow:runs/ID/PATH for one of them"
        )
    return found[0]


def _shown(error: RegistryError, folder: str, target: str) -> RegistryError:
    """The error with the reference in place of the temporary folder."""
    remedy = None if error.remedy is None else error.remedy.replace(folder, f"mlflow:{target}")
    return type(error)(error.message.replace(folder, f"mlflow:{target}"), remedy)


def _card(run: Any, known: Mapping[str, str]) -> ModelCard:
    """The card of a run: metrics, and tags, parameters, number and dates as tags. ``known``: tags of the version."""
    tags = {key: value for key, value in known.items() if not key.startswith("mlflow.")}
    if run is None:
        return ModelCard(tags=_tags(tags))
    own = dict(run.data.tags or {})
    tags |= {key: value for key, value in own.items() if not key.startswith("mlflow.")}
    params = dict(run.data.params or {})
    tags = {**params, **tags, "mlflow_run": run.info.run_id}
    for name, key in (("mlflow_run_name", "mlflow.runName"), ("git_commit", "mlflow.source.git.commit")):
        if own.get(key):
            tags[name] = own[key]
    for name, moment in (("started", run.info.start_time), ("finished", run.info.end_time)):
        if isinstance(moment, int):
            tags[name] = datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="seconds")
    seed = params.get("seed", "")
    inputs = getattr(getattr(run, "inputs", None), "dataset_inputs", None) or ()
    return ModelCard(
        dataset=_text(str(inputs[0].dataset.name)) if inputs else "",
        revision=_text(run.info.run_id),
        seed=int(seed) if re.fullmatch(r"\d{1,18}", seed) else None,
        metrics=_metrics(run.data.metrics or {}),
        tags=_tags(tags),
    )


def _tags(said: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    kept = [(_text(str(key)), _text(str(value))) for key, value in said.items() if not _SECRET_KEY.fullmatch(str(key))]
    return tuple((key, value) for key, value in kept if key and len(key) <= _MAX_KEY)[-2 * _MAX_FIELDS :]


def _metrics(said: Mapping[str, Any]) -> tuple[Metric, ...]:
    found = []
    for key, value in sorted(said.items())[:_MAX_FIELDS]:
        name, number = _text(str(key)), float(value)
        if not math.isfinite(number) or not name or len(name) > _MAX_KEY:
            continue
        match = _SPLIT.fullmatch(name)
        split = _SPLITS[match[1].lower()] if match else ""
        found.append(Metric(match[2] if match else name, number, "", split, None, "mlflow"))
    return tuple(found)


def _text(value: str) -> str:
    """A text that can be stored: short, without NUL, halves of pairs, and users of addresses."""
    return _USER.sub(r"\1", value.replace("\0", "")).encode("utf-8", "replace").decode()[:_MAX_TEXT].strip()


SOURCE = Source(name="mlflow", open=open_mlflow, prefix="mlflow", expand=expand)
