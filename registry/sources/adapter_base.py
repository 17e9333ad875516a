"""An adapter's file opened together with the model that it adapts."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import AmbiguousError, RegistryError, SourceError, UsageError, WeightsError
from registry.sources.adapters import MERGE, PREFIX, check_kind, is_adapter_alone
from registry.sources.base import OpenedCheckpoint, verify
from registry.sources.published.hub_cache import MAIN, cached_weights, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from registry.types import Checkpoint, ModelRef

__all__ = ["AdaptedCheckpoint", "with_base"]

_MAX_ENTRIES = 10_000  # of a folder in which the base is looked for
# Initialisations that also change the base's weights, of which only the changed ones fit the adapter.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


class AdaptedCheckpoint(OpenedCheckpoint):
    """The tensors of a base under their own names, and those of an adapter under peft's prefix."""

    def __init__(self, adapter: Checkpoint, base: Checkpoint, stack: ExitStack) -> None:
        self._parts: dict[str, tuple[Checkpoint, str]] = {info.name: (base, info.name) for info in base.tensors}
        infos = list(base.tensors)
        for info in adapter.tensors:
            name = info.name if info.name.startswith("base_model.") else PREFIX + info.name
            infos.append(replace(info, name=name))
            self._parts[name] = (adapter, info.name)
        super().__init__(adapter.ref, infos, replace(base.facts, adapter=adapter.facts.adapter))
        self._stack = stack

    def read(self, name: str) -> NDArray[np.floating]:
        """The floating-point tensor as float32 or float64; float16 and bfloat16 are returned as float32."""
        self._check_open()
        holder, stored = self._parts[name]
        return holder.read(stored)

    def raw(self, name: str) -> memoryview:
        """Little-endian bytes of the tensor in C order."""
        self._check_open()
        holder, stored = self._parts[name]
        return holder.raw(stored)

    def bytes_of(self, name: str) -> int:
        """Size of the tensor in bytes."""
        holder, stored = self._parts[name]
        return holder.bytes_of(stored)

    def span(self, name: str, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the tensor."""
        self._check_open()
        holder, stored = self._parts[name]
        return holder.span(stored, start, stop)

    def verify(self) -> None:
        """Compare the checksums of both files with their data."""
        for part in dict.fromkeys(holder for holder, _ in self._parts.values()):
            verify(part)

    def close(self) -> None:
        """Close both files."""
        super().close()
        self._stack.close()


def with_base(
    opened: Checkpoint,
    expand: Callable[[str], tuple[ModelRef, ...]],
    open_plain: Callable[[ModelRef], Checkpoint],
) -> Checkpoint:
    """The checkpoint itself, or, of an adapter alone, it together with its base.

    Parameters
    ----------
    opened
        What the reference names. It is closed if an error is raised.
    expand, open_plain
        From a reference to models, and from a model to its weights as stored.

    Raises
    ------
    WeightsError
        An adapter without a known base, of a kind that is not read, or whose base is an adapter itself.
    UsageError
        A base is given for a model that is no adapter.
    SourceError
        The base cannot be read; as `open_ref`.
    """
    with ExitStack() as stack:
        stack.callback(opened.close)
        names = [info.name for info in opened.tensors]
        where = opened.ref.target
        config = getattr(opened, "facts", None)
        adapter = {} if config is None else config.adapter
        if is_adapter_alone(names):
            check_kind(where, names, adapter)
            base = _opened_base(opened, expand, open_plain)
            stack.callback(base.close)
            if is_adapter_alone(info.name for info in base.tensors):
                raise WeightsError(
                    f"{base.ref.target} is an adapter itself", "give the model that both adapt as --base"
                )
            return AdaptedCheckpoint(opened, base, stack.pop_all())
        if opened.ref.base:
            check_kind(where, names, adapter)
            raise UsageError(f"{where} is no adapter, so that it has no base", "leave --base out")
        stack.pop_all()
        return opened
    raise AssertionError("an exit stack suppresses no exception")


def _opened_base(
    opened: Checkpoint,
    expand: Callable[[str], tuple[ModelRef, ...]],
    open_plain: Callable[[ModelRef], Checkpoint],
) -> Checkpoint:
    where, config = opened.ref.target, opened.facts.adapter
    initialised = config.get("init_lora_weights")
    if isinstance(initialised, str) and initialised.lower().startswith(_CHANGES_BASE):
        raise WeightsError(
            f"{where} is an adapter that {initialised[:40]} initialised, which changes its base's weights", MERGE
        )
    said = config.get("base_model_name_or_path")
    reference = opened.ref.base
    if not reference and isinstance(said, str) and said:
        reference = _local(said, config.get("revision"))
    if not reference:
        named = said[:100] if isinstance(said, str) else ""
        on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", named)
        raise WeightsError(
            f"{where} is an adapter alone" + (f", its base is {named}, which is not here" if named else ""),
            "ingest it with --base REF" + (f", such as --base hf:{named}" if on_hub else "") + f", or {MERGE}",
        )
    refs = expand(reference)
    if len(refs) != 1:
        raise AmbiguousError(f"the base {reference} of {where} is {len(refs)} models", "give one file as --base")
    try:
        return open_plain(refs[0])
    except UsageError:
        raise
    except RegistryError as error:
        raise SourceError(f"the base of {where} cannot be read: {error.message}", error.remedy) from error


def _in_folder(folder: Path) -> str:
    """The one model in a folder, which is not searched any deeper; empty if there is none, or several."""
    names = [entry.name for entry in islice(folder.iterdir(), _MAX_ENTRIES)]
    try:
        chosen = choose((name for name in names if not name.startswith("adapter")), str(folder))
    except AmbiguousError:
        return ""
    if chosen is None:
        others = [name for name in names if name.endswith((".pt", ".pth", ".npz")) and not name.startswith("adapter")]
        chosen = others[0] if len(others) == 1 else None
    return "" if chosen is None else str((folder / chosen).absolute())


def _local(said: str, revision: object) -> str:
    """A reference to the base that a configuration names, if that takes no download: a path, or a cached repository."""
    if "\0" in said or len(said) > 1000:
        return ""
    path = Path(said).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            return str(path.absolute())
    except OSError:
        return ""
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

    except ImportError:
        return ""
    try:
        validate_repo_id(said)
        found = cached_weights(said, revision if isinstance(revision, str) and revision else MAIN)
    except (HFValidationError, RegistryError, OSError):
        return ""
    return "" if found is None else str(found.absolute())
