"""Imports point down: cli, catalog, the parts, types and errors; and what is heavy is loaded late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {"sources", "spectral", "equivalence", "storage", "ingest", "plots", "ensembles", "architectures"}
GROUND = {"types", "errors", "atomic_files", "defaults", "extensions", "shipped", "spelling", "version"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors", "frames"},  # frames late, where an answer is turned into one
    "frames": {"errors", "types"},
    "atomic_files": {"errors"},
    "defaults": {"shipped"},
    "extensions": set(),
    "shipped": {"errors"},
    "spelling": set(),
    "version": set(),
    **dict.fromkeys(PARTS, GROUND),
    "spectral": GROUND | {"ensembles"},
    "migrations": GROUND | {"storage"},  # the environment opens the database, under Alembic's own command too
    "audit": GROUND | {"spectral", "ensembles"},
    "catalog": GROUND | PARTS | {"audit"},
    "plugins": GROUND | {"sources"},
    "testing": GROUND | {"sources", "spectral"},
    # What its progress bars are, whether another package has a fingerprint, what a rule means, and what files are read.
    "cli": GROUND
    | {"catalog", "ingest.Progress", "spectral.spec_named", "equivalence.RULES", "sources.recognition.KINDS"},
}
"""By the package's part: the parts it may import besides itself. The package itself, lazy, is open to all above."""


def home(path: Path) -> str:
    """The part of the package that a file is in: ``cli/nearest.py`` is installed as ``registry.cli.nearest``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "registry" else parts[0]


def imported(source: str, package: str) -> set[str]:
    """Modules of the package that the source imports anywhere in it, with the names taken from each."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).strip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.removeprefix("registry.") for name in found if name.startswith("registry.")}


def forbidden(part: str, source: str) -> set[str]:
    """What a file of that part imports and may not."""
    allowed = MAY_IMPORT[part] | {part}
    public = {"__version__", "Among", "Registry", "Filter", "Metric", "MetricBound", "ModelCard", "RegistryError"}
    return {
        name
        for name in imported(source, f"registry.{part}")
        if not any(f"{name}.".startswith(f"{one}.") for one in allowed) and not (name in public and part == "cli")
    }


FILES = sorted(
    path
    for top in ("registry", "cli", "migrations")
    for path in (ROOT / top).rglob("*.py")
    if path != ROOT / "registry" / "__init__.py"
)


def test_versions_import_nothing_of_the_package() -> None:
    """A migration is history: what it does must not change with today's schema."""
    versions = sorted((ROOT / "migrations" / "versions").glob("v*.py"))
    assert versions
    assert [path.name for path in versions if imported(path.read_text(encoding="utf-8"), "registry.migrations")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    assert home(path) in MAY_IMPORT, "a new part has to be given its place"
    assert forbidden(home(path), path.read_text(encoding="utf-8")) == set()


def test_types_import_frames_within_functions_alone() -> None:
    for path in (ROOT / "registry" / "types").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        late = {node for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for node in ast.walk(part)}
        early = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in late]
        assert [node.module for node in early if node.module and "frames" in node.module] == [], path.name


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("types", "from registry.storage import Store", {"storage.Store"}),
        ("storage", "from registry.sources import expand", {"sources.expand"}),
        ("frames", "from registry.catalog import Registry", {"catalog.Registry"}),
        ("sources", "def f():\n    import registry.storage.store\n", {"storage.store"}),
        ("equivalence", "from registry.spectral.specs import SPECS", {"spectral.specs.SPECS"}),
        ("storage", "from registry import catalog", {"catalog"}),
        ("storage", "from registry import Registry", {"Registry"}),
        ("ensembles", "if TYPE_CHECKING:\n    from registry.spectral import eigen", {"spectral.eigen"}),
        ("storage", "from ..catalog import Registry", {"catalog.Registry"}),
        ("cli", "from registry.storage import Store", {"storage.Store"}),
        ("migrations", "from registry.sources import expand", {"sources.expand"}),
        ("cli", "from registry.ingest import run", {"ingest.run"}),
        ("migrations", "from registry.storage.engine.schema import metadata", set()),
        ("spectral", "from registry.ensembles import Circular", set()),
        ("catalog", "from registry import __version__", {"__version__"}),
        ("catalog", "from registry.version import __version__", set()),
        ("cli", "from registry import __version__", set()),
    ],
)
def test_a_wrong_import_would_be_seen(part: str, source: str, wrong: set[str]) -> None:
    assert forbidden(part, source) == wrong


def module_of(path: Path) -> str:
    """``cli/nearest.py`` is installed as ``registry.cli.nearest``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "registry" else ("registry", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """By module, the modules that it imports anywhere in it, for type checking alone included."""
    edges: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = {f"registry.{name}" for name in imported(source, module)}
        # A name is a module, or is taken from one.
        edges[module] = {name if name in sources else name.rpartition(".")[0] for name in names} - {module}
        if module.startswith("registry.types."):
            edges[module].discard("registry.frames")  # the one import upwards: an answer turns itself into a frame
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where what imports nothing can be taken away until all is."""
    left = dict(edges)
    while free := [module for module, imports in left.items() if not imports & left.keys()]:
        for module in free:
            del left[module]
    if not left:
        return []
    path = [min(left)]
    while (following := min(left[path[-1]] & left.keys())) not in path:
        path.append(following)
    return path[path.index(following) :]


def test_no_modules_import_each_other_in_a_circle() -> None:
    every = [*FILES, ROOT / "registry" / "__init__.py"]
    assert circle(graph({module_of(path): path.read_text(encoding="utf-8") for path in every})) == []


def test_a_circle_would_be_seen() -> None:
    sources = {
        "registry.a": "from registry.b import f",
        "registry.b": "if TYPE_CHECKING:\n    from registry.c import T",
        "registry.c": "def f():\n    import registry.b",
        "registry.d": "from registry.a import f",
    }
    assert circle(graph(sources)) == ["registry.b", "registry.c"]
    assert circle(graph(sources | {"registry.c": ""})) == []


def test_no_two_modules_have_one_name() -> None:
    """But ``base``, of parts that each have one, and what makes a folder a package."""
    names = Counter(path.stem for path in FILES if "versions" not in path.parts)
    assert {name for name, count in names.items() if count > 1} <= {"base", "__init__"}


HEAVY = ("torch", "torchvision", "sqlalchemy", "scipy", "alembic", "matplotlib", "pandas")


def loaded_by(program: str) -> set[str]:
    """Which of the heavy packages a program has loaded at its end."""
    check = f"\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import registry", set()),
        ("import registry; registry.Registry('none.db')", set()),
        ("import registry.types, registry.errors, registry.frames", set()),
        ("import registry.catalog.searching, registry.catalog.subjects, registry.catalog.measuring", set()),
        ("import registry.equivalence, registry.ingest", set()),
        ("import registry.spectral, registry.ensembles", set()),
        ("import registry.sources", set()),
        ("import scipy", {"scipy"}),  # the probe sees what is there
    ],
)
def test_what_is_heavy_is_loaded_late(program: str, expected: set[str]) -> None:
    assert loaded_by(program) == expected
