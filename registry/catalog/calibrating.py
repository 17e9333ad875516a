"""Calibration on the labelled models of a registry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from registry.catalog.search_settings import settings_for
from registry.equivalence import calibrate, comparable
from registry.errors import SpecMismatchError, UsageError
from registry.spelling import counted
from registry.storage.equivalence.stored_calibrations import read_labels
from registry.storage.models.model_queries import require_models
from registry.storage.models.vectors import read_fingerprints, read_training_classes
from registry.types import Calibrated, LabelledPairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from registry.catalog.search_settings import SearchSettings
    from registry.storage import Label, Store
    from registry.types import Calibration

__all__ = ["MODELS", "learn", "sampled"]

MODELS = 2_000
"""Maximum number of models used: 2 million pairs, about 0.4 GB."""

UNRELATED = "unrelated"
RELATIONS = ("same family", "same architecture", "same architecture, other training", "same architecture, other seed")


def learn(store: Store, settings: SearchSettings, rate: float, seed: int) -> Calibrated:
    """Calibrate the spec and distance of the settings on the labelled models.

    Models of different families are unrelated. Above ``MODELS`` labelled models, a random sample with equally many of
    each family is used. Reading labels takes O(n); the rest is bounded.

    Raises ``EmptyRegistryError``; ``SpecMismatchError`` if no model has a fingerprint of this spec; ``UsageError`` if
    the labels are too few for the rate; and the errors of ``calibrate``.
    """
    store.read(require_models)
    every = store.read(read_labels, settings.spec.hash)
    if not every:
        raise SpecMismatchError(
            f"no model has a {settings.spec.label} fingerprint",
            f"run: archreg refingerprint --fingerprint {settings.spec.name}",
        )
    labelled = [label for label in every if _known(label.family)]
    chosen = [labelled[row] for row in sampled([_known(label.family) for label in labelled], MODELS, seed)]
    found, square = _measured(store, settings, chosen, rate, seed)
    return Calibrated(
        calibration=found,
        previous=settings_for(store, settings.spec, settings.distance.name, None).calibration,
        labelled=len(labelled),
        unlabelled=len(every) - len(labelled),
        relations=_relations(store, chosen, square, found.tolerance, by_shapes=settings.by_shapes),
    )


def _measured(
    store: Store, settings: SearchSettings, chosen: Sequence[Label], rate: float, seed: int
) -> tuple[Calibration, NDArray[np.float64]]:
    from scipy.spatial.distance import squareform

    families = [_known(label.family) for label in chosen]
    count = len(set(families))
    if count < 2:
        raise UsageError(
            "calibration needs labelled models of at least two families, "
            f"not {counted(len(chosen), 'model')} of {counted(count, 'family')}",
            "label them: archreg set NAME --family TEXT",
        )
    _, vectors = store.read(read_fingerprints, settings.spec.hash, ids=[label.model_id for label in chosen])
    square = squareform(settings.distance.between_all(vectors), checks=False)
    day = datetime.now(UTC).date().isoformat()
    source = f"{len(chosen):,} models of this registry, of {count:,} families, {day}"
    found = calibrate(
        square,
        families,
        spec_hash=settings.spec.hash,
        distance=settings.distance.name,
        rate=rate,
        source=source,
        seed=seed,
    )
    if found.tolerance < found.quantiles[0][1]:
        raise UsageError(
            f"{len(chosen)} models of {count} families cannot show a rate of {rate:g}: "
            "the nearest unrelated pair alone exceeds it",
            "label more models, or ask for a larger --rate",
        )
    return found, square


def sampled(families: Sequence[str], most: int, seed: int) -> list[int]:
    """Return the rows, ascending, of at most ``most`` models: all, or a random sample balanced over families.

    Families smaller than the share are used whole. Of more than ``most`` families, ``most`` are drawn, with one model
    of each.
    """
    if len(families) <= most:
        return list(range(len(families)))
    rng = np.random.default_rng(seed)
    _, codes, counts = np.unique(np.asarray(families), return_inverse=True, return_counts=True)
    # The largest share per family whose total fits, where smaller families contribute all they have.
    share = max(share for share in range(1, most + 1) if share == 1 or np.minimum(counts, share).sum() <= most)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    taken = range(len(counts)) if len(counts) <= most else rng.choice(len(counts), most, replace=False).tolist()
    rows = [rng.choice(members[family], min(share, len(members[family])), replace=False) for family in taken]
    return sorted(np.concatenate(rows).tolist())


def _known(text: str) -> str:
    """A label without surrounding blanks, in lower case, for comparisons."""
    return text.strip().casefold()


def _relations(
    store: Store, chosen: Sequence[Label], square: NDArray[np.float64], tolerance: float, *, by_shapes: bool
) -> tuple[LabelledPairs, ...]:
    """Statistics of the pairs of each relation, unrelated first; each family or pair of families has equal weight."""
    _, family = np.unique([_known(label.family) for label in chosen], return_inverse=True)
    known = store.read(read_training_classes, [label.model_id for label in chosen])
    # A model without a training class is equivalent to no other, but by shapes.
    told = ["" if by_shapes else comparable(known.get(each.model_id, ""), each.model_id) for each in chosen]
    _, kind = np.unique(told, return_inverse=True)
    upper, right = np.triu_indices(len(chosen), 1)
    relation = np.full(len(upper), -1, dtype=np.int8)
    related = np.flatnonzero(family[upper] == family[right])
    relation[related] = [_relation(chosen[upper[pair]], chosen[right[pair]]) for pair in related.tolist()]
    found = []
    for number, name in enumerate((UNRELATED, *RELATIONS), -1):
        pairs = np.flatnonzero(relation == number)
        if not len(pairs):
            continue
        first, second = upper[pairs], right[pairs]
        apart, together = square[first, second], kind[first] == kind[second]
        low, high = np.minimum(family[first], family[second]), np.maximum(family[first], family[second])
        _, of, counts = np.unique(low * len(chosen) + high, return_inverse=True, return_counts=True)
        weight = 1.0 / (counts[of] * len(counts))
        within = apart <= tolerance
        found.append(
            LabelledPairs(
                name=name,
                pairs=len(pairs),
                families=len(np.unique(np.concatenate([low, high]))),
                median=_median(apart, weight),
                within=float(weight[within].sum()),
                equivalent=float(weight[within & together].sum()),
            )
        )
    return tuple(found)


def _relation(a: Label, b: Label) -> int:
    """Index in ``RELATIONS`` of the closest relation that the labels of two models of one family show."""
    if not _known(a.architecture) or _known(a.architecture) != _known(b.architecture):
        return 0
    if _known(a.training) != _known(b.training):
        return 2 if _known(a.training) and _known(b.training) else 1
    other_seed = None not in (a.seed, b.seed) and a.seed != b.seed
    return 3 if other_seed and _known(a.dataset) == _known(b.dataset) else 1


def _median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    middle = int(np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2))
    return float(values[order[min(middle, len(order) - 1)]])
