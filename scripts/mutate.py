"""Mutate modules of the package and count the mutants that the tests kill.

mutmut changes one operator, number, text or argument at a time and runs the tests that reach the changed function. A
mutant that no test notices has survived, and so has one that no test reaches. Survivors that cannot be told from the
code by any test are listed in ``tests/mutants.toml`` with the reason. Postgres and the zoo are left out, as are tests
that start processes or build every model of torchvision: each mutant would pay for them.

Usage: ``python scripts/mutate.py [MODULE ...] [--keep]``, with modules as paths such as
``registry/sources/matrix_rule.py``, all of ``GROUPS`` by default. ``--keep`` leaves the earlier results of unchanged
functions and runs their survivors again. The exit status is 1 where less than 90 % of a module's mutants, of those not
listed, are killed, or where a listed one is no survivor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from difflib import ndiff
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
TREES = ROOT / "mutants"
LISTED = ROOT / "tests" / "mutants.toml"
LEAST = 0.9
LINKED = ("benchmarks", "cli", "docs", "examples", "migrations", "scripts", "tests")
CACHE = re.compile(r"^@(lru_)?cache(\(.*\))?\n", re.MULTILINE)
KILLED = frozenset({1, 3})  # pytest's exit statuses for failed tests and for an error of its own
TIMED_OUT = frozenset({-24, 24, 36, 152, 255})


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that the same tests cover; ``without``: parts of the names of tests that are left out."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ("postgres", "zoo")


GROUPS = (
    Group(
        "sources",
        (
            "registry/sources/array_layouts.py",
            "registry/sources/content_hash.py",
            "registry/sources/depth_order.py",
            "registry/sources/effective_weights.py",
            "registry/sources/fused_tensors.py",
            "registry/sources/matrix_rule.py",
            "registry/sources/module_roles.py",
            "registry/sources/nonfinite_values.py",
            "registry/sources/recurrent_gates.py",
            "registry/sources/unreadable_weights.py",
        ),
        (
            "tests/sources/test_cuts.py",
            "tests/sources/test_integrity.py",
            "tests/sources/test_npz.py",
            "tests/sources/test_order.py",
            "tests/sources/test_rule.py",
            "tests/sources/test_tied_names.py",
            "tests/sources/test_view.py",
        ),
        (
            *("torchvision", "agrees_with", "natural_order", "unpack", "way_of_saving", "buffers_change"),
            *("worker_processes", "that_is_allowed", "called_one"),
        ),
    ),
    Group("ties", ("registry/sources/tied_names.py",), ("tests/sources/test_tied_names.py",)),
    Group("filters", ("registry/storage/models/filter_sql.py",), ("tests/storage/test_filters.py",)),
    Group(
        "distances",
        (
            "registry/equivalence/classes/class_identity.py",
            "registry/equivalence/distances.py",
            "registry/equivalence/metrics.py",
            "registry/equivalence/pareto.py",
        ),
        (
            "tests/equivalence/test_distances.py",
            "tests/equivalence/test_identity.py",
            "tests/equivalence/test_neighbours.py",
            "tests/equivalence/test_selection.py",
        ),
    ),
    Group(
        "calibration",
        ("registry/equivalence/calibration.py", "registry/equivalence/judging.py"),
        ("tests/equivalence/test_calibration.py",),
        ("covers_the_truth",),
    ),
    Group(
        "classes",
        (
            "registry/equivalence/classes/groups.py",
            "registry/equivalence/classes/linkage_rules.py",
            "registry/equivalence/classes/pair_screen.py",
        ),
        ("tests/equivalence/test_classes.py", "tests/equivalence/test_pair_screen.py"),
        ("float64_decides", "promise", "whole_are_the_same and 1-"),
    ),
    Group(
        "comparisons",
        (
            "registry/catalog/bounds.py",
            "registry/catalog/comparing.py",
            "registry/catalog/compressing.py",
        ),
        ("tests/catalog/test_older_rules.py", "tests/catalog/test_questions.py", "tests/catalog/test_selecting.py"),
        ("postgres",),
    ),
    Group(
        "selections",
        (
            "registry/catalog/constraint_report.py",
            "registry/catalog/objectives.py",
            "registry/catalog/selecting.py",
        ),
        ("tests/catalog/test_older_rules.py", "tests/catalog/test_selecting.py"),
        ("postgres",),
    ),
    # Look-ups by an index of a server are left out; test_indexed.py asks a stand-in.
    Group(
        "searches",
        ("registry/catalog/searching.py",),
        (
            "tests/catalog/test_indexed.py",
            "tests/catalog/test_older_rules.py",
            "tests/catalog/test_searching.py",
            "tests/catalog/test_selecting.py",
        ),
        ("postgres", "_index_", "pgvector", "while_it_is", "without_a_vector", "live_module", "aim"),
    ),
    Group(
        "settings",
        ("registry/catalog/search_settings.py",),
        (
            "tests/catalog/test_indexed.py",
            "tests/catalog/test_older_rules.py",
            "tests/catalog/test_questions.py",
            "tests/catalog/test_searching.py",
            "tests/catalog/test_uncalibrated.py",
        ),
        ("postgres", "_index_", "pgvector", "while_it_is", "without_a_vector", "live_module", "measures_alike"),
    ),
    Group(
        "subjects",
        ("registry/catalog/subjects.py",),
        ("tests/catalog/test_older_rules.py", "tests/catalog/test_queries.py"),
        ("postgres",),
    ),
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a mutant changes: a module, a function or method in it, and the lines before and after."""

    module: str
    function: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mutants of a module: how many there are, how many were killed, and the survivors by their names."""

    mutants: int
    killed: int
    survivors: dict[str, Change]


def main(arguments: list[str]) -> int:
    """Mutate, print the survivors and the figures by module; return the exit status."""
    parser = argparse.ArgumentParser(description="Count the mutants that the tests kill.")
    known = [module for group in GROUPS for module in group.modules]
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a path such as registry/sources/matrix_rule.py")
    parser.add_argument("--keep", action="store_true", help="run the survivors of unchanged functions only")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.modules) - set(known)):
        parser.error(f"no group of tests for {', '.join(unknown)}: see GROUPS in scripts/mutate.py")
    wanted = given.modules or known
    listed = {Change(*(each[field] for field in Change.__slots__)) for each in _records()}
    good = True
    figures = []
    for group in GROUPS:
        modules = [module for module in group.modules if module in wanted]
        if not modules:
            continue
        tree = _tree(group, modules, keep=given.keep)
        earlier = _survivors(tree, modules)
        if not _mutmut(tree):
            return 1
        again = sorted(earlier & _survivors(tree, modules))
        if again and not _mutmut(tree, *again):
            return 1
        for module in modules:
            outcome = _outcome(tree, module)
            here = {change for change in listed if change.module == module}
            open_ = {name: change for name, change in outcome.survivors.items() if change not in here}
            stale = here - set(outcome.survivors.values())
            for name, change in sorted(open_.items()):
                print(f"survived: {name}\n- {change.before}\n+ {change.after}")
            for change in stale:
                print(f"listed, but no survivor: {module} {change.function}\n- {change.before}\n+ {change.after}")
            among = outcome.mutants - (len(outcome.survivors) - len(open_))
            good &= not stale and outcome.killed >= LEAST * among
            figures.append((module, outcome.mutants, outcome.killed, len(open_), outcome.mutants - among, among))
    print(f"{'module':<52} {'mutants':>7} {'killed':>7} {'survived':>8} {'listed':>7}   rate")
    for module, mutants, killed, survived, left_out, among in figures:
        rate = killed / among if among else 1.0
        print(f"{module:<52} {mutants:>7} {killed:>7} {survived:>8} {left_out:>7} {rate:>6.1%}")
    return 0 if good else 1


def _records() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads(LISTED.read_text(encoding="utf-8")).get("equivalent", [])
    return found


def _tree(group: Group, modules: list[str], *, keep: bool) -> Path:
    """Make a tree of the checkout with a configuration for mutmut, which reads it from its working directory alone."""
    tree = TREES / group.name
    if keep:
        # Which tests reach which functions is found anew: mutmut does so for new tests alone.
        (tree / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        for module in modules:
            made = tree / "mutants" / module
            # A run of other modules has copied this one without mutants.
            if made.exists() and "__mutmut_" not in made.read_text(encoding="utf-8"):
                made.unlink()
    else:
        shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if not (tree / name).exists():
            (tree / name).symlink_to(ROOT / name, target_is_directory=True)
    _copy(ROOT / "registry", tree / "registry", {ROOT / module for module in modules})
    settings = {
        "source_paths": ["registry"],
        "only_mutate": modules,
        "also_copy": [name for name in LINKED if name != "tests"],
        "pytest_add_cli_args_test_selection": list(group.tests),
        "pytest_add_cli_args": ["-k", f"not ({' or '.join(group.without)})", "-p", "no:cacheprovider"],
        "timeout_constant": 4.0,
        "timeout_multiplier": 5.0,
        "use_git_change_detection": False,
    }
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tree / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{lines}", encoding="utf-8")
    return tree


def _copy(source: Path, target: Path, mutated: set[Path]) -> None:
    """Copy the package; functions to be mutated lose their caches, as mutmut leaves decorated functions alone."""
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            if path in mutated:
                content = CACHE.sub("", content.decode()).encode()
            copy = target / path.relative_to(source)
            if not copy.exists() or copy.read_bytes() != content:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)


def _mutmut(tree: Path, *names: str) -> bool:
    """Run mutmut in a tree, of the named mutants alone if there are any; whether it came to its end."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [
        str(Path(sys.executable).parent / "mutmut"),
        "run",
        "--max-children",
        os.environ.get("JOBS", "2"),
        *names,
    ]
    log = tree / "mutmut.log"
    with log.open("w", encoding="utf-8") as output:
        environment = {**os.environ, **one_thread}
        done = subprocess.run(command, cwd=tree, env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        print(f"mutmut ended with {done.returncode}: see {log.relative_to(ROOT)}", file=sys.stderr)
    return done.returncode == 0


def _statuses(tree: Path, module: str) -> dict[str, int | None]:
    """Exit status by mutant, as mutmut keeps it in ``mutants/`` below its working directory; None: not yet run."""
    kept = tree / "mutants" / f"{module}.meta"
    found: dict[str, int | None] = {}
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def _outcome(tree: Path, module: str) -> Outcome:
    statuses = _statuses(tree, module)
    survivors = [name for name, status in statuses.items() if status not in KILLED | TIMED_OUT]
    describe = partial(_change, tree, module)
    return Outcome(len(statuses), len(statuses) - len(survivors), {name: describe(name) for name in survivors})


def _survivors(tree: Path, modules: list[str]) -> set[str]:
    """Names of the mutants that were run and survived; a run that was cut short leaves others."""
    ended = KILLED | TIMED_OUT | {None}
    return {name for module in modules for name, status in _statuses(tree, module).items() if status not in ended}


def _change(tree: Path, module: str, name: str) -> Change:
    """Describe a mutant by the lines it changes, which stay when mutmut numbers its mutants otherwise."""
    spans = json.loads((tree / "mutants" / f"{module}.spans").read_text(encoding="utf-8"))["spans"]
    lines = (tree / "mutants" / module).read_text(encoding="utf-8").split("\n")
    mutant = name.rpartition(".")[2]
    mangled = mutant.rpartition("__mutmut_")[0]
    function = mangled.removeprefix("x_") if mangled.startswith("x_") else mangled.removeprefix("xǁ").replace("ǁ", ".")

    def body(generated: str) -> list[str]:
        first, last = spans[generated]
        return [line.replace(generated, function).strip() for line in lines[first - 1 : last]]

    difference = list(ndiff(body(f"{mangled}__mutmut_orig"), body(mutant)))
    before = "\n".join(line[2:] for line in difference if line.startswith("- "))
    after = "\n".join(line[2:] for line in difference if line.startswith("+ "))
    return Change(module, function, before, after)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
