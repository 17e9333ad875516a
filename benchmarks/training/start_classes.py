"""``python -m benchmarks.training.start_classes [--folder F] [--write]``: training classes of known networks.

Initialisations of small networks of many kinds and their trained forms, and what each evidence tells alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta
from threadpoolctl import threadpool_limits

from benchmarks.speed.harness import rewrite
from benchmarks.training.networks import accuracy_of
from benchmarks.training.scores import area
from benchmarks.training.starts import KINDS, make_all
from registry.catalog.measuring import measure
from registry.sources import expand, open_ref, plan_weights
from registry.spectral.training import TRAINED_BEYOND, training
from registry.types import TRAINING_CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from registry.types import Training

__all__ = ["Network", "classes_table", "measured_starts"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
FOLDER = Path(tempfile.gettempdir()) / "archreg-training"
LEARNT = 50.0
"""Held-out accuracy, in per cent, below which a network counts as not trained; chance is 10."""
RESAMPLES = 400
"""Of the pairs, for an interval."""
EVIDENCE = (
    "rectangles", "rows", "columns", "kernels", "kernel_sums", "kernel_norms",
    "chain", "chain_norms", "outputs", "inputs",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """One file: kind, start and seed, whether it was trained, its training class with the evidence, the band's z."""

    kind: str
    start: str
    trained: bool
    found: Training
    band: float
    seed: int


def measured_starts(folder: Path) -> list[Network]:
    """Every initialisation, and every trained network that learnt its task, in the folder that `make_all` made."""
    networks = []
    for path in (path for kind in KINDS for path in sorted((folder / kind).glob("*.safetensors"))):
        stage = path.name.split(".")[-2]
        if stage == "trained" and accuracy_of(path) < LEARNT:
            continue
        with open_ref(expand(path)[0]) as checkpoint:
            measured = measure(checkpoint, plan_weights(checkpoint), threads=1)
        assert measured.weight_figures is not None, path
        assert measured.conjugacy is not None, path
        found = training(measured.weight_figures, measured.plan.layers)
        start, _, rest = path.name.partition("-s")
        seed = int(rest.partition(".")[0])
        networks.append(Network(path.parent.name, start, stage == "trained", found, measured.conjugacy.z, seed))
    return networks


def classes_table(networks: Sequence[Network]) -> list[str]:
    """Tables: classes by kind, the errors with their bounds, and the evidence alone."""
    lines = [
        "| network | initialisations: untrained | undetermined | trained | trained: trained | undetermined | untrained "
        "| matrices alone |",
        "| --- " * 8 + "|",
    ]
    for kind in KINDS:
        counts = Counter((each.trained, each.found.training_class) for each in networks if each.kind == kind)
        beyond = [_z(each) > TRAINED_BEYOND for each in networks if each.kind == kind and each.trained]
        cells = [counts[trained, one] for trained, order in _ORDERS for one in order]
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} | {np.mean(beyond):.0%} |")
    lines.append("")
    for title, some in (
        ("kinds that chose the thresholds", [each for each in networks if KINDS[each.kind].tuning]),
        ("the other kinds", [each for each in networks if not KINDS[each.kind].tuning]),
    ):
        lines += [f"- {title}: {_errors(some)}", ""]
    others = [each for each in networks if not KINDS[each.kind].tuning]
    return [*lines, *_alone(others), "", *_on_one_set(others)]


_ORDERS = (
    (False, ("untrained", "undetermined", "trained")),
    (True, ("trained", "undetermined", "untrained")),
)


def _errors(networks: Sequence[Network]) -> str:
    """Both errors, with the upper 95 % bound of Clopper and Pearson (1934), and the share without an answer."""
    told = []
    for trained, what, wrong in ((False, "initialisations", "trained"), (True, "trained networks", "untrained")):
        some = [each.found.training_class for each in networks if each.trained == trained]
        errors, none = some.count(wrong), some.count("undetermined")
        bound = float(beta.ppf(0.95, errors + 1, len(some) - errors)) if errors < len(some) else 1.0
        told.append(
            f"{errors} of {len(some)} {what} are called {wrong} (at most {bound:.1%}), {none / len(some):.0%} "
            "undetermined"
        )
    assert set(TRAINING_CLASSES) >= {each.found.training_class for each in networks}
    return "; ".join(told)


def _alone(networks: Sequence[Network]) -> list[str]:
    """Areas under the curve of each evidence, for networks that have it, and the share beyond the threshold."""
    scores: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for each in networks:
        known = dict(each.found.evidence)
        for name in EVIDENCE:
            scores[name.replace("_", " ")].append((each.trained, known.get(name, nan)))
        scores["all matrices together"].append((each.trained, _z(each)))
        scores["band of the whole network"].append((each.trained, each.band))
        scores["gains and statistics"].append((each.trained, _moved(each)))
    lines = ["| evidence | networks | AUC | trained, beyond the threshold | initialisations |", "| --- " * 5 + "|"]
    for name, values in scores.items():
        trained = [z for is_trained, z in values if is_trained and not isnan(z)]
        initial = [z for is_trained, z in values if not is_trained and not isnan(z)]
        if not trained or not initial:
            continue
        limit = {"band of the whole network": 1.0, "gains and statistics": 0.0}.get(name, TRAINED_BEYOND)
        shares = " | ".join(f"{np.mean(np.array(some) > limit):.1%}" for some in (trained, initial))
        lines.append(f"| {name} | {len(trained) + len(initial)} | {area(initial, trained):.3f} | {shares} |")
    return lines


def _on_one_set(networks: Sequence[Network]) -> list[str]:
    """Areas under the curve of each evidence and of the class, all on one set: networks and their own starts.

    Of a network that lacks an evidence its value is 0, what chance gives. The interval is that of 95 % of
    resamples of the pairs (Efron 1979).
    """
    starts = {(each.kind, each.start, each.seed): each for each in networks if not each.trained}
    pairs = [(starts[each.kind, each.start, each.seed], each) for each in networks if each.trained]
    lines = [
        f"The same on one set, {len(pairs)} trained networks and their own initialisations:",
        "",
        "| evidence | of the networks have it | AUC | 95 % interval | trained found at 1 % false | at 5 % false |",
        "| --- " * 6 + "|",
    ]
    draws = np.random.default_rng(0).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    for name, score in _SCORES.items():
        low, high = (np.array([score(each) for each in side]) for side in zip(*pairs, strict=True))
        known = np.mean(~np.isnan([low, high]))
        low, high = np.nan_to_num(low), np.nan_to_num(high)
        ends = np.quantile([area(low[draw], high[draw]) for draw in draws], (0.025, 0.975))
        limits = np.quantile(low, (0.99, 0.95), method="higher")
        found = " | ".join(f"{np.mean(high > limit):.1%}" for limit in limits)
        lines.append(f"| {name} | {known:.0%} | {area(low, high):.3f} | {ends[0]:.3f}-{ends[1]:.3f} | {found} |")
    return lines


def _moved(network: Network) -> float:
    """How many gains and statistics have left their start; NaN where there are none."""
    vectors = network.found.vectors
    return float(vectors.gains_moved + vectors.statistics_moved) if vectors.gains or vectors.statistics else nan


def _evidence(name: str) -> Callable[[Network], float]:
    return lambda network: dict(network.found.evidence).get(name, nan)


def _z(network: Network) -> float:
    return nan if network.found.z is None else network.found.z


def _largest(network: Network) -> float:
    return nan if network.found.layer_z is None else network.found.layer_z


_SCORES: dict[str, Callable[[Network], float]] = {
    **{name.replace("_", " "): _evidence(name) for name in EVIDENCE},
    "all matrices together": _z,
    "largest of a layer": _largest,
    "gains and statistics": _moved,
    "band of the whole network": lambda network: network.band,
    "**training class**": lambda network: _ORDERS[0][1].index(network.found.training_class) / 2,
}
"""What each evidence says of a network, and all together: 0 untrained, 0.5 undetermined, 1 trained."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make missing networks, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.start_classes", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"folder of the networks (default {FOLDER})")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    begun = time.process_time()
    with threadpool_limits(1, user_api="blas"):
        folder = make_all(options.folder, lambda name: print(f"training {name}", file=sys.stderr))
        made = time.process_time()
        networks = measured_starts(folder)
    print(f"{made - begun:.0f} s of CPU to train, {time.process_time() - made:.0f} s to measure", file=sys.stderr)
    lines = classes_table(networks)
    print("\n".join(lines))
    if options.write:
        rewrite(PAGE, "starts", ["\n".join(lines)])


if __name__ == "__main__":
    main()
