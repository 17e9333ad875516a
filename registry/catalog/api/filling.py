"""Filling a registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.catalog.api.base import Part, card_of, spec_of
from registry.catalog.arguments import path, several, text
from registry.errors import UsageError
from registry.types import ModelCard, ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.catalog.ingesting import Watcher
    from registry.catalog.subjects import Asked
    from registry.spectral.devices import Device
    from registry.types import Estimate, Ingested, Recomputed

__all__ = ["Filling"]


class Filling(Part):
    """Plans and what they take, ingests, and fingerprints computed from what is stored."""

    def plan(
        self,
        references: Sequence[str | Path] = (),
        *,
        manifest: str | Path | None = None,
        key: str | None = None,
        seed: int = 0,
        name: str | None = None,
        card: ModelCard = ModelCard(),  # noqa: B008  # frozen
    ) -> tuple[ModelRef, ...]:
        """The models that the references and the manifest mean, nothing read or downloaded.

        ``key``: entry of a wrapped checkpoint to read; ``seed``: of random initialisations; ``name``: for a single
        model; ``card``: laid over what sources and manifest say.

        Raises ``NotFoundError``, ``AmbiguousError`` or ``UsageError`` naming the reference.
        """
        from registry.catalog.card_validation import typed_card
        from registry.catalog.measuring import expand_all

        lines = None if manifest is None else path(manifest, "manifest")
        return expand_all(references, lines, key=key, seed=seed, name=name, card=typed_card(card))

    def estimate(
        self,
        refs: Sequence[ModelRef],
        *,
        approximate: bool = False,
        workers: int | None = None,
        executor: str | None = None,
    ) -> Estimate:
        """What ``ingest_all`` is expected to take by the same options: seconds, and memory at its peak.

        Of large files whose headers tell their layers it is reckoned by these, of others by their size. Some
        milliseconds for each large file; no weights are read. Raises ``UsageError`` for an executor there is not.
        """
        from registry.catalog.estimating import estimate
        from registry.ingest import Setting

        refs = _planned(refs)
        return estimate(refs, Setting(executor or "", workers), approximate=approximate)

    def ingest_all(
        self,
        refs: Sequence[ModelRef],
        *,
        replace: bool = False,
        keep_spectra: bool = True,
        discard_weights: bool = False,
        device: Device = "cpu",
        approximate: bool = False,
        workers: int | None = None,
        executor: str | None = None,
        address: str | None = None,
        time_limit: float | None = None,
        command: str = "",
        progress: Watcher | None = None,
    ) -> tuple[Ingested, ...]:
        """Ingest planned models, a transaction each; a model that fails is a ``failed`` item and the rest go on.

        ``device``: where spectra are computed, ``cpu``, ``cuda``, or ``auto`` for ``cuda`` where one is at hand;
        ``approximate``: layers of order min(p, q) > 8,192 by stochastic Lanczos quadrature, and marked so.
        ``workers``: processes, by default as many as cores, or this one alone where the job is small or the device is
        no CPU; ``executor``: ``inprocess``, ``pool`` or ``ray``, with the ``address`` of its cluster; ``time_limit``:
        seconds after which a model is given up and its process killed, so that it is not measured in this one, 0 for
        never, by default far more than its size lets expect, where it is measured in another process; ``command``: how
        this was asked for, as ``runs`` is to show it; ``progress``: a function, told how many models of how many are
        done, or a ``registry.ingest.Progress``. The same plan started again goes on where it was left, with what failed
        tried again.

        Raises ``StorageError`` where the database itself refuses, or ``KeyboardInterrupt``; what was stored before
        stays. ``RegistryError`` for a device that cannot be had, before anything is read.
        """
        from registry.catalog.ingest_journal import Options
        from registry.catalog.ingesting import ingest_refs
        from registry.ingest import Setting

        refs = _planned(refs)
        options = Options(replace, keep_spectra, discard_weights, _found(device), approximate)
        setting = Setting(executor or "", workers, address, time_limit)
        return ingest_refs(self._database, refs, options, setting, command, progress)

    def ingest(
        self,
        reference: Asked,
        *,
        name: str | None = None,
        key: str | None = None,
        seed: int | None = None,
        replace: bool = False,
        keep_spectra: bool = True,
        device: Device = "cpu",
        approximate: bool = False,
        **card: Any,
    ) -> Ingested:
        """Ingest one model: a reference, a path, or a live module or its state dict, which need a ``name``.

        ``key`` is that of ``plan`` and goes with references; ``device`` and ``approximate`` are those of
        ``ingest_all``; ``card``: fields of ``ModelCard``, among them ``seed``, also that of a random initialisation.

        Raises ``SourceError``, ``SpectrumError``, ``NameTakenError``, ``UsageError`` or ``StorageError``, or
        ``RegistryError`` for a device that cannot be had; then nothing was stored.
        """
        from registry.catalog.ingest_journal import Options
        from registry.catalog.ingesting import ingest_checkpoint
        from registry.catalog.measuring import expand_all
        from registry.sources import open_module, open_ref

        options = Options(replace, keep_spectra, device=_found(device), approximate=approximate)
        known = card_of({**card, "seed": seed})
        if isinstance(reference, str | Path):
            refs = expand_all([reference], None, key=key, seed=known.seed or 0, name=name, card=known)
            if len(refs) != 1:
                raise UsageError(f"{reference} is {len(refs)} models", "use plan() and ingest_all() for several")
            with open_ref(refs[0]) as checkpoint:
                return ingest_checkpoint(self._database, checkpoint, options)
        if isinstance(reference, list | tuple):
            raise UsageError("ingest() takes one model", "use plan() and ingest_all() for several")
        if name is not None:
            text(name, "name")
        if not name and (hasattr(reference, "state_dict") or isinstance(reference, Mapping)):
            raise UsageError("a live module needs a name", 'give one: ingest(module, name="my-model")')
        with open_module(reference, name or "", known) as checkpoint:
            return ingest_checkpoint(self._database, checkpoint, options)

    def refingerprint(
        self, *, fingerprint: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Recomputed:
        """Compute from stored spectra what this version would store and the registry lacks. Resumable.

        Fingerprints of the shipped specs, or of the one named alone; and conjugacy figures where none are stored, or
        those of thresholds that have changed since.

        Raises ``SpecMismatchError`` naming the models whose weights have to be ingested again.
        """
        from registry.catalog.measuring import refingerprint
        from registry.spectral.specs import SPECS

        specs = tuple(SPECS.values()) if fingerprint is None else (spec_of(fingerprint),)
        return refingerprint(self._database, specs, progress, judge=fingerprint is None)

    def outdated(self) -> int:
        """How many models lack something that this version would store, and are left out where it is asked for. O(n).

        An older version stored them; `refingerprint` computes what is missing.
        """
        from registry.catalog.measuring import outdated

        return outdated(self._database)


def _planned(refs: Sequence[ModelRef]) -> tuple[ModelRef, ...]:
    """The plan. Raises ``UsageError`` for references that were not planned."""
    for ref in (planned := several(refs, "refs")):
        if not isinstance(ref, ModelRef):
            raise UsageError(f"refs is what plan() returns, not {ref!r}", "write ingest_all(plan([...]))")
    return planned


def _found(device: Device) -> Device:
    if device == "cpu":  # workers start the sooner for what this process need not load
        return device
    from registry.spectral.devices import device_at_hand

    return device_at_hand(device)
