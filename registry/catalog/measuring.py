"""From references to measured models: expand, open, plan, measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.catalog.arguments import several, text, whole
from registry.errors import SourceError, UsageError
from registry.spelling import counted
from registry.types import Conjugacy, Fingerprint, ModelCard, ModelRef, Recomputed, Spectrum, WeightsPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from registry.catalog.database import Database
    from registry.ingest import Task
    from registry.spectral.devices import Device
    from registry.storage import Store
    from registry.types import Checkpoint, FingerprintSpec

__all__ = ["Hashes", "Measured", "Read", "Reading", "expand_all", "measure", "outdated", "refingerprint"]

STUCK_NAMED = 10
"""Models that an error names at most."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the weights alone say of a model."""

    plan: WeightsPlan
    spectra: tuple[Spectrum, ...]
    conjugacy: Conjugacy
    fingerprints: tuple[Fingerprint, ...]


def expand_all(
    references: Sequence[str | Path],
    manifest: Path | None,
    *,
    key: str | None = None,
    seed: int = 0,
    name: str | None = None,
    card: ModelCard = ModelCard(),  # noqa: B008  # frozen
) -> tuple[ModelRef, ...]:
    """Every model that the references and the manifest mean, with ``card`` laid over what each source knows.

    A manifest's seed, where it gives one, is also that of a random initialisation. What a line of it names and is not
    there fails when it is opened, alone.
    """
    from registry.sources import deferred, expand

    for given, what in ((key, "key"), (name, "name")):
        if given is not None:
            text(given, what)
    seed = whole(seed, "seed")
    asked = [_reference(each) for each in several(references, "references")]
    refs = [ref for reference in asked for ref in expand(reference, key=key, seed=seed)]
    if manifest is not None:
        from registry.ingest import read_manifest

        for entry in read_manifest(manifest):
            its_seed = seed if entry.card.seed is None else entry.card.seed
            try:
                found = expand(entry.reference, key=key, seed=its_seed)
            except SourceError:  # a failed item of the run, where it is told
                found = (deferred(entry.reference, key=key, seed=its_seed),)
            if entry.name and len(found) > 1:
                raise UsageError(
                    f"{entry.reference} is {len(found)} models and the manifest gives them one name",
                    "leave the name out, or give each model a line",
                )
            refs += [replace(ref, name=entry.name or ref.name, card=ref.card.updated(entry.card)) for ref in found]
    if name is not None:
        if len(refs) != 1:
            raise UsageError(f"--name needs exactly one model, not {len(refs)}", "name models in a manifest instead")
        refs = [replace(refs[0], name=name)]
    return tuple(replace(ref, card=ref.card.updated(card)) for ref in refs)


def _reference(given: Any) -> str | Path:
    """A reference. Raises ``UsageError`` for what is neither a text nor a path."""
    if isinstance(given, str | Path):
        return given
    raise UsageError(
        f"a reference is a text or a path, not {type(given).__name__}", "a torch.nn.Module is for ingest() to take"
    )


def measure(
    checkpoint: Checkpoint,
    plan: WeightsPlan,
    device: Device = "cpu",
    *,
    threads: int | None = None,
    approximate: bool = False,
) -> Measured:
    """Spectra, conjugacy and the fingerprints of every shipped spec; memory of the largest layer's working set.

    ``threads``: layers measured at once, as many as cores by default; ``approximate``: see `network_spectra`.
    """
    from registry.sources import layer_matrix
    from registry.spectral import SPECS, conjugacy, fingerprint, network_spectra

    spectra = network_spectra(
        plan.layers,
        lambda layer: layer_matrix(checkpoint, layer),
        workers=threads,
        device=device,
        approximate=approximate,
    )
    vectors = tuple(fingerprint(spectra, spec) for spec in SPECS.values())
    return Measured(plan, spectra, conjugacy(spectra), vectors)


@dataclass(frozen=True, slots=True)
class Read:
    """A model as read: its reference, the card completed by what the file says, and its measure where it was needed.

    ``measured`` is None where the weights are stored already, with all that is asked for.
    """

    ref: ModelRef
    plan: WeightsPlan
    measured: Measured | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The work on a task, in this process or another; it writes nothing.

    ``known``: whether weights are stored already, with all that is asked for; ``threads``: of a model's spectra, None
    for as many as cores; ``device``: where they are computed; ``approximate``: those of very large layers.
    """

    known: Callable[[WeightsPlan], bool]
    threads: int | None = None
    device: Device = "cpu"
    approximate: bool = False

    def __call__(self, task: Task) -> Read:
        """Open a model and measure it."""
        from registry.sources import open_ref

        with open_ref(task.ref) as checkpoint:
            return self.checkpoint(checkpoint, force=task.force)

    def checkpoint(self, checkpoint: Checkpoint, *, force: bool = False) -> Read:
        """Measure an opened model."""
        from registry.sources import plan_weights

        plan = plan_weights(checkpoint)
        known = not force and self.known(plan)
        if known:
            return Read(checkpoint.ref, plan, None)
        measured = measure(checkpoint, plan, self.device, threads=self.threads, approximate=self.approximate)
        return Read(checkpoint.ref, plan, measured)


@dataclass(frozen=True, slots=True)
class Hashes:
    """Content hashes of weights that are stored with all that is asked for, to be asked in other processes.

    The first eight bytes of each: some in 2^64 is taken for another, which whoever stores it finds out.
    """

    rule: str
    starts: frozenset[bytes]

    @classmethod
    def of(cls, rule: str, hashes: Iterable[str]) -> Hashes:
        """Keep what is needed of them."""
        return cls(rule, frozenset(bytes.fromhex(one[:16]) for one in hashes))

    def __call__(self, plan: WeightsPlan) -> bool:
        """Whether these weights are among them."""
        return plan.rule == self.rule and bytes.fromhex(plan.content_hash[:16]) in self.starts


def outdated(store: Store) -> int:
    """How many models lack something that this version would store; O(n)."""
    from registry.spectral.specs import SPECS

    with store.snapshot():
        missing, unjudged = _missing(store, tuple(SPECS.values()), judge=True)
    return len(missing.keys() | unjudged)


def _missing(
    store: Store, specs: Sequence[FingerprintSpec], *, judge: bool
) -> tuple[dict[int, list[FingerprintSpec]], set[int]]:
    """By model, the specs of which it has no fingerprint; and the models without figures, if those count."""
    from registry.storage.models.vectors import missing_conjugacy, missing_fingerprints

    missing: dict[int, list[FingerprintSpec]] = {}
    for spec in specs:
        for model_id in store.read(missing_fingerprints, spec.hash):
            missing.setdefault(model_id, []).append(spec)
    return missing, set(store.read(missing_conjugacy)) if judge else set()


def refingerprint(
    database: Database,
    specs: Sequence[FingerprintSpec],
    progress: Callable[[int, int], None] | None,
    *,
    judge: bool,
) -> Recomputed:
    """Compute from stored spectra what is missing, a model after the other, so that it can be resumed.

    Missing are fingerprints under ``specs``, and, with ``judge``, conjugacy figures of this version's thresholds.
    ``progress`` is told how many models of how many are done. Raises ``SpecMismatchError`` after the rest is done,
    naming models that must be ingested again: without stored spectra, or of another matrix rule.
    """
    from registry.errors import SpecMismatchError
    from registry.spectral import conjugacy, fingerprint
    from registry.storage.models.measured_values import put_conjugacy, put_fingerprints
    from registry.storage.models.summaries import read_summaries
    from registry.storage.models.vectors import read_spectra

    store = database.writable()
    missing, unjudged = _missing(store, specs, judge=judge)
    models = store.read(read_summaries, ids=sorted(missing.keys() | unjudged))
    computed, judged, stuck = 0, 0, []
    for number, model in enumerate(models, 1):
        asked = missing.get(model.id, [])
        wanted = [spec for spec in asked if spec.matrix_rule == model.matrix_rule]
        spectra = store.read(read_spectra, model.id)
        if spectra is None or len(wanted) < len(asked):
            stuck.append(model.name)
        if spectra is not None and wanted:
            store.write(put_fingerprints, model.id, [fingerprint(spectra, spec) for spec in wanted])
            computed += len(wanted)
        if spectra is not None and model.id in unjudged:
            store.write(put_conjugacy, model.id, conjugacy(spectra))
            judged += 1
        if progress is not None:
            progress(number, len(models))
    if stuck:
        more = f" and {len(stuck) - STUCK_NAMED} more" if len(stuck) > STUCK_NAMED else ""
        have = "has" if len(stuck) == 1 else "have"
        raise SpecMismatchError(
            f"{counted(len(stuck), 'model')} {have} no stored spectra of this matrix rule: "
            f"{', '.join(stuck[:STUCK_NAMED])}{more}",
            "ingest their weights again, without --no-spectra",
        )
    return Recomputed(computed, judged)
