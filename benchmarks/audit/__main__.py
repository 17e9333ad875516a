"""``python -m benchmarks.audit [--json] [--write]``: what audits find, and what they find in error.

Audits the published models and compares the findings with those that were judged by hand. Plants faults in them, at
most four models of each family, and in small networks trained here, one fault at a time in layers of order 64 or more.
Half of the families, every second by name, was in view when thresholds were set; the others are reported apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from benchmarks.audit.judged_findings import case_of
from benchmarks.audit.planted_faults import Outcome, planted
from benchmarks.audit.report import FALSE, FOUND, false_alarm_table, found_table, replace_between
from benchmarks.audit.small_networks import trained_networks
from benchmarks.zoo import zoo_folder
from registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.types import Audit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
OF_A_FAMILY = 4
SMALL = "trained here"


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit, plant, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--json", action="store_true", help="every finding and every planted fault as JSON")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    options = parser.parse_args(arguments)
    zoo = zoo_folder()
    lines = (zoo / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as work, threadpool_limits(limits=1):
        folder = Path(work)
        with Registry(folder / "zoo.db") as registry:
            registry.ingest_all(registry.plan(manifest=zoo / "manifest.jsonl"))
            found = registry.audit()
            labels = _mislabelled(registry)
        outcomes = [*labels, *_in_files(zoo, rows, folder)]
    tuned = {family for at, family in enumerate(sorted({row["family"] for row in rows})) if at % 2}
    unjudged = [finding for finding in found.findings if case_of(finding) is None]
    tables = {FALSE: false_alarm_table(found), FOUND: found_table(outcomes, tuned, SMALL)}
    if options.write:
        for mark, text in tables.items():
            replace_between(PAGE, mark, text)
    if options.json:
        print(json.dumps({"findings": list(map(asdict, found.findings)), "planted": list(map(asdict, outcomes))}))
    else:
        print("\n\n".join(tables.values()))
        _listed(found)
    for finding in unjudged:
        print(f"not judged: {finding.rule} {finding.model} {finding.layer}: {finding.message}", file=sys.stderr)


def _listed(found: Audit) -> None:
    """Every finding with what was seen of it."""
    print()
    for finding in found.findings:
        case = case_of(finding)
        seen = "not judged" if case is None else ("true" if case.true else "false") + f": {case.seen}"
        print(f"{finding.severity} {finding.rule} {finding.model} {finding.layer} ({finding.value:.3g}): {seen}")


def _mislabelled(registry: Registry) -> list[Outcome]:
    """Each stored model under the name of each of three other families, one at a time."""
    models = registry.models()
    families = sorted({model.family for model in models})
    outcomes = []
    for at, model in enumerate(models):
        for step in (1, 7, 13):
            other = families[(families.index(model.family) + step) % len(families)]
            if sum(each.family == other for each in models) < 2:  # then the rule says nothing
                continue
            registry.set(model.name, family=other)
            found = registry.audit(model.name, rules=["family"]).findings
            registry.set(model.name, family=model.family)
            severity = found[0].severity if found else ""
            outcomes.append(Outcome("family label of another model", model.family, model.name, "", severity))
        print(f"\rlabels: {at + 1}/{len(models)}", end="", file=sys.stderr)
    return outcomes


def _in_files(zoo: Path, rows: Sequence[dict[str, str]], folder: Path) -> list[Outcome]:
    """Faults in files, which are audited without a registry."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for row in rows:
        if len(paths[row["family"]]) < OF_A_FAMILY:
            paths[row["family"]].append(zoo / row["path"])
    paths[SMALL] = trained_networks(folder)
    outcomes = []
    with Registry(folder / "none.db") as registry:
        for family, files in paths.items():
            for seed, path in enumerate(files):
                outcomes += planted(registry, path, family, folder, seed)
            print(f"\rplanted in {family:<40}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return outcomes


if __name__ == "__main__":
    main()
