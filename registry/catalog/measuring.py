"""Measurement of models: expand references, plan weights, compute spectra and fingerprints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.catalog.arguments import several, text, whole
from registry.errors import SourceError, UsageError
from registry.spelling import counted
from registry.types import (
    Conjugacy,
    Fingerprint,
    ModelCard,
    ModelRef,
    OlderModels,
    Plan,
    Recomputed,
    Sketches,
    Spectrum,
    WeightFigures,
    WeightsPlan,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from registry.catalog.database import Database
    from registry.ingest import Task
    from registry.spectral.devices import Device
    from registry.storage import Store
    from registry.types import Checkpoint, FingerprintSpec, LayerMatrix, ModelSummary

__all__ = [
    "Hashes",
    "Measured",
    "Read",
    "Reading",
    "expand_all",
    "measure",
    "measure_headers",
    "older",
    "outdated",
    "refingerprint",
    "to_read_again",
]

STUCK_NAMED = 10
"""Maximum number of models named in an error."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is computed from the weights of a model; of its header alone, fingerprints of shapes."""

    plan: WeightsPlan
    spectra: tuple[Spectrum, ...]
    conjugacy: Conjugacy | None
    fingerprints: tuple[Fingerprint, ...]
    sketches: Sketches | None = None
    weight_figures: WeightFigures | None = None


def expand_all(
    references: Sequence[str | Path],
    manifest: Path | None,
    *,
    key: str | None = None,
    seed: int = 0,
    name: str | None = None,
    base: str | Path | None = None,
    card: ModelCard = ModelCard(),  # noqa: B008  # frozen
) -> Plan:
    """Return every model that the references and the manifest name; ``card`` overrides the cards of the sources.

    A seed in the manifest is also the seed of a random initialisation. A missing model of the manifest fails later, as
    one item.
    """
    from registry.sources import deferred, expand

    for given, what in ((key, "key"), (name, "name")):
        if given is not None:
            text(given, what)
    seed = whole(seed, "seed")
    asked = [_reference(each) for each in several(references, "references")]
    expanded = [expand(reference, key=key, seed=seed) for reference in asked]
    refs = [ref for found in expanded for ref in found]
    left_out = [each for found in expanded if isinstance(found, Plan) for each in found.left_out]
    if manifest is not None:
        from registry.ingest import read_manifest

        for entry in read_manifest(manifest):
            its_seed = seed if entry.card.seed is None else entry.card.seed
            try:
                found = expand(entry.reference, key=key, seed=its_seed)
            except SourceError:  # reported later, as a failed item of the run
                found = (deferred(entry.reference, key=key, seed=its_seed),)
            if entry.name and len(found) > 1:
                raise UsageError(
                    f"{entry.reference} is {len(found)} models, but the manifest gives them one name",
                    "leave the name out, or give each model a line",
                )
            left_out += found.left_out if isinstance(found, Plan) else ()
            refs += [replace(ref, name=entry.name or ref.name, card=ref.card.updated(entry.card)) for ref in found]
    if base is not None:
        refs = [replace(ref, base=_base(base)) for ref in refs]
    if name is not None:
        if len(refs) != 1:
            raise UsageError(f"--name needs exactly one model, not {len(refs)}", "name models in a manifest instead")
        refs = [replace(refs[0], name=name)]
    return Plan((replace(ref, card=ref.card.updated(card)) for ref in refs), left_out)


def _base(given: Any) -> str:
    """The reference of an adapter's base, as text that means the same in another folder and another process."""
    base = _reference(given)
    try:
        is_path = isinstance(base, Path) or Path(base).exists()
    except OSError:  # longer than a path may be
        is_path = False
    return str(Path(base).expanduser().absolute()) if is_path else str(base)


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
    """All that is computed from weights; memory of the largest layer's working set. No layer is read twice.

    ``threads``: layers measured at once, as many as cores by default; ``approximate``: see `network_spectra`.
    """
    import numpy as np

    from registry.equivalence.sketches import SKETCH_VERSION, buckets_for, sketch_of
    from registry.sources import layer_matrix
    from registry.sources.matrix_rule import stored_dtypes
    from registry.spectral import SPECS, conjugacy, fingerprint, network_spectra
    from registry.spectral.training import WeightReading

    buckets = buckets_for(len(plan.layers))
    drawn = np.zeros((len(plan.layers), buckets), np.float16)

    def read(layer: LayerMatrix) -> NDArray[np.floating]:
        matrix = layer_matrix(checkpoint, layer)
        sketch = sketch_of(matrix, layer.kernel, buckets)
        if sketch is not None:
            drawn[layer.position] = sketch
        return matrix

    reading = WeightReading(plan.layers, read, stored_dtypes(checkpoint, plan.layers))
    spectra = network_spectra(
        plan.layers,
        reading,
        workers=threads,
        device=device,
        approximate=approximate,
    )
    vectors = tuple(fingerprint(spectra, spec) for spec in SPECS.values())
    figures = reading.figures(spectra, plan.vectors)
    judged = conjugacy(spectra, figures)
    return Measured(plan, spectra, judged, vectors, Sketches(SKETCH_VERSION, drawn), figures)


def measure_headers(plan: WeightsPlan) -> Measured:
    """The fingerprints that need no weights, of a plan by headers alone."""
    from registry.spectral import SPECS, fingerprint_of_layers, needs_spectra

    specs = [spec for spec in SPECS.values() if not needs_spectra(spec)]
    return Measured(plan, (), None, tuple(fingerprint_of_layers(plan.layers, spec) for spec in specs))


@dataclass(frozen=True, slots=True)
class Read:
    """A model as read: reference with completed card, weights plan, and measurement.

    ``measured`` is None if the weights are stored already, with everything the options ask for.
    """

    ref: ModelRef
    plan: WeightsPlan
    measured: Measured | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Function that opens and measures the model of a task, in this process or a worker; it writes nothing.

    ``known``: whether weights are stored already, with everything the options ask for; ``threads``: for the spectra,
    None for one per core; ``device``: where spectra are computed; ``approximate``: approximate very large layers;
    ``allow_nonfinite``: leave out layers with NaN or infinity instead of refusing the model; ``headers_only``: read
    the header and no weights, whatever is known.
    """

    known: Callable[[WeightsPlan], bool]
    threads: int | None = None
    device: Device = "cpu"
    approximate: bool = False
    allow_nonfinite: bool = False
    headers_only: bool = False

    def __call__(self, task: Task) -> Read:
        """Open a model and measure it."""
        from registry.sources import open_headers, open_ref

        with open_headers(task.ref) if self.headers_only else open_ref(task.ref) as checkpoint:
            return self.checkpoint(checkpoint, force=task.force)

    def checkpoint(self, checkpoint: Checkpoint, *, force: bool = False) -> Read:
        """Measure an opened model."""
        from registry.sources import plan_headers, plan_weights

        if self.headers_only:
            plan = plan_headers(checkpoint)
            return Read(checkpoint.ref, plan, measure_headers(plan))
        plan = plan_weights(checkpoint, allow_nonfinite=self.allow_nonfinite)
        known = not force and self.known(plan)
        if known:
            return Read(checkpoint.ref, plan, None)
        measured = measure(checkpoint, plan, self.device, threads=self.threads, approximate=self.approximate)
        return Read(checkpoint.ref, plan, measured)


@dataclass(frozen=True, slots=True)
class Hashes:
    """Content hashes of the weights that are completely stored, for lookups in worker processes.

    Only the first eight bytes are kept. A collision, at a rate of 2^-64, is detected by the storing process.
    """

    rule: str
    starts: frozenset[bytes]

    @classmethod
    def of(cls, rule: str, hashes: Iterable[str]) -> Hashes:
        """Keep the first eight bytes of each hash."""
        return cls(rule, frozenset(bytes.fromhex(one[:16]) for one in hashes))

    def __call__(self, plan: WeightsPlan) -> bool:
        """Whether these weights are stored."""
        return plan.rule == self.rule and bytes.fromhex(plan.content_hash[:16]) in self.starts


def outdated(store: Store) -> int:
    """Number of models of the present matrix rule without something that this version stores; O(n)."""
    from registry.sources import MATRIX_RULE
    from registry.spectral.specs import SPECS
    from registry.storage.models.model_queries import older_models

    with store.snapshot():
        missing, unjudged = _missing(store, tuple(SPECS.values()), judge=True)
        old = store.read(older_models, MATRIX_RULE)
    return len((missing.keys() | unjudged).difference(*old.values()))


def older(store: Store) -> OlderModels:
    """The models of an older matrix rule than the present one, by name."""
    from registry.sources import MATRIX_RULE
    from registry.storage.models.model_queries import older_models
    from registry.storage.models.summaries import read_summaries

    with store.snapshot():
        ids = [id_ for of_rule in store.read(older_models, MATRIX_RULE).values() for id_ in of_rule]
        models = store.read(read_summaries, ids=ids) if ids else []
    return OlderModels(MATRIX_RULE, tuple(models))


def to_read_again(store: Store) -> tuple[ModelSummary, ...]:
    """The models of the present matrix rule without sketches or figures of this version, which weights give; O(n)."""
    from registry.equivalence.sketches import SKETCH_VERSION
    from registry.sources import MATRIX_RULE
    from registry.spectral.training import FIGURES_VERSION
    from registry.storage.models.model_queries import older_models, unread_models
    from registry.storage.models.summaries import read_summaries
    from registry.storage.models.vectors import missing_sketches, missing_weight_figures

    with store.snapshot():
        missing = {*store.read(missing_sketches, SKETCH_VERSION), *store.read(missing_weight_figures, FIGURES_VERSION)}
        missing -= store.read(unread_models)
        missing.difference_update(*store.read(older_models, MATRIX_RULE).values())
        return tuple(store.read(read_summaries, ids=sorted(missing))) if missing else ()


def _missing(
    store: Store, specs: Sequence[FingerprintSpec], *, judge: bool
) -> tuple[dict[int, list[FingerprintSpec]], set[int]]:
    """Missing specs by model id; and the ids of models without conjugacy figures, if ``judge``.

    A model whose weights were not read lacks nothing that needs them.
    """
    from registry.spectral import needs_spectra
    from registry.storage.models.model_queries import unread_models
    from registry.storage.models.vectors import missing_conjugacy, missing_fingerprints

    unread = store.read(unread_models)
    missing: dict[int, list[FingerprintSpec]] = {}
    for spec in specs:
        without = unread if needs_spectra(spec) else ()
        for model_id in store.read(missing_fingerprints, spec.hash):
            if model_id not in without:
                missing.setdefault(model_id, []).append(spec)
    return missing, set(store.read(missing_conjugacy)) - unread if judge else set()


def refingerprint(
    database: Database,
    specs: Sequence[FingerprintSpec],
    progress: Callable[[int, int], None] | None,
    *,
    judge: bool,
) -> Recomputed:
    """Compute what is missing from the stored spectra and layers, one model at a time, so that it can be resumed.

    These are fingerprints under ``specs`` and, with ``judge``, conjugacy figures with the thresholds of this version.
    ``progress`` is called with the number of finished models and of all. At the end, raises ``SpecMismatchError`` that
    names the models to ingest again: those without the stored spectra that it takes, or with another matrix rule.
    """
    from registry.errors import SpecMismatchError
    from registry.sources import MATRIX_RULE
    from registry.spectral import conjugacy, fingerprint, fingerprint_of_layers, needs_spectra
    from registry.storage.models.measured_values import put_conjugacy, put_fingerprints
    from registry.storage.models.model_queries import is_older
    from registry.storage.models.summaries import read_summaries
    from registry.storage.models.vectors import read_layers, read_spectra, read_weight_figures

    store = database.writable()
    missing, unjudged = _missing(store, specs, judge=judge)
    models = store.read(read_summaries, ids=sorted(missing.keys() | unjudged))
    computed, judged, stuck, old = 0, 0, [], []
    for number, model in enumerate(models, 1):
        asked = missing.get(model.id, [])
        wanted = [spec for spec in asked if spec.matrix_rule == model.matrix_rule]
        spectra = store.read(read_spectra, model.id)
        if spectra is None:
            wanted = [spec for spec in wanted if not needs_spectra(spec)]
        if is_older(model.matrix_rule, MATRIX_RULE):
            old.append(model.name)
        elif len(wanted) < len(asked) or (spectra is None and model.id in unjudged):
            stuck.append(model.name)
        if wanted and spectra is not None:
            store.write(put_fingerprints, model.id, [fingerprint(spectra, spec) for spec in wanted])
        elif wanted:
            layers = store.read(read_layers, model.id)
            store.write(put_fingerprints, model.id, [fingerprint_of_layers(layers, spec) for spec in wanted])
        computed += len(wanted)
        if spectra is not None and model.id in unjudged:
            store.write(put_conjugacy, model.id, conjugacy(spectra, store.read(read_weight_figures, model.id)))
            judged += 1
        if progress is not None:
            progress(number, len(models))
    if old:
        was = "was" if len(old) == 1 else "were"
        raise SpecMismatchError(
            f"{counted(len(old), 'model')} {was} measured by an older matrix rule than {MATRIX_RULE}: {_some(old)}",
            "ingest their weights again, by the same command; archreg db check lists them",
        )
    if stuck:
        have = "has" if len(stuck) == 1 else "have"
        raise SpecMismatchError(
            f"{counted(len(stuck), 'model')} {have} no stored spectra of this matrix rule: {_some(stuck)}",
            "ingest their weights again, without --no-spectra",
        )
    return Recomputed(computed, judged)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - STUCK_NAMED} more" if len(names) > STUCK_NAMED else ""
    return f"{', '.join(names[:STUCK_NAMED])}{more}"
