"""Measurement of the shipped calibrations.

``python -m benchmarks.calibrate`` writes registry/equivalence/calibrations.json: every shipped spec with every
distance, on the published models, where pairs of different families are unrelated. It takes their vectors from
``published:``, which ``make published`` builds before.
"""

from __future__ import annotations

import json
from pathlib import Path

from registry import Registry
from registry.equivalence import DEFAULT_RATE, DISTANCES, calibrate
from registry.spectral.specs import SPECS

TARGET = Path(__file__).resolve().parents[1] / "registry" / "equivalence" / "calibrations.json"


def main() -> None:
    """Calibrate, write the file and print the tolerances."""
    with Registry("published:") as reg:
        families = {model.name: model.family for model in reg.models()}
        records = []
        for spec in SPECS.values():
            for distance in DISTANCES:
                names, distances = reg.distances(fingerprint=spec.name, distance=distance)
                labels = [families[name] for name in names]
                source = f"{len(names)} published models of {len(set(labels))} families"
                found = calibrate(
                    distances, labels, spec_hash=spec.hash, distance=distance, rate=DEFAULT_RATE, source=source
                )
                records.append(
                    {
                        "spec": spec.label,
                        "spec_hash": found.spec_hash,
                        "distance": found.distance,
                        "rate": found.rate,
                        "tolerance": _rounded(found.tolerance),
                        "tolerance_low": _rounded(found.tolerance_low),
                        "tolerance_high": _rounded(found.tolerance_high),
                        "source": found.source,
                        "models": found.models,
                        "families": found.families,
                        "quantiles": [[fraction, _rounded(value)] for fraction, value in found.quantiles],
                    }
                )
                print(
                    f"{spec.label:12s} {distance:4s} tolerance {found.tolerance:.6g} at a rate of {found.rate:.0%}, "
                    f"95 % interval {found.tolerance_low:.3g} to {found.tolerance_high:.3g}"
                )
    TARGET.write_text(
        json.dumps(records, separators=(",", ":")).replace('{"spec"', '\n{"spec"') + "\n", encoding="utf-8"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


if __name__ == "__main__":
    main()
