"""Paths and names of the pages for contributors exist; the walks of the architecture are the calls that are made."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from tests.test_imports import FILES, MAY_IMPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

Call = tuple[str, str]  # a file, from the root of the repository, and the qualified name of a function in it


def found(path: str) -> Path | None:
    """The file or folder of a path of the page: below ``registry``, else below the root; None where there is none."""
    return next((place for place in (ROOT / "registry" / path, ROOT / path) if place.exists()), None)


def defined(source: str) -> set[str]:
    """Functions, classes, methods and constants of a file, by their qualified names."""
    names: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(source).body, "")
    return names


def blocks(page: str) -> list[list[str]]:
    """The code spans of each paragraph, list item and table row, in their order."""
    parts = re.split(r"\n\s*\n|\n(?=\d+\. |- |\|)", page)
    return [re.findall(r"`([^`]+)`", part) for part in parts]


def is_path(span: str) -> bool:
    return re.fullmatch(r"[\w.]+\.py|[\w.-]+(?:/[\w.-]*)+", span) is not None


def missing(page: str) -> list[str]:
    """Paths that do not exist; functions and constants that no file named in their block defines; unknown classes."""
    every: set[str] = set().union(*(defined(path.read_text(encoding="utf-8")) for path in FILES))
    faults: list[str] = []
    for spans in blocks(page):
        places = [found(span) for span in spans if is_path(span)]
        faults += [span for span in spans if is_path(span) and found(span) is None]
        here = [place for place in places if place is not None and place.suffix == ".py"]
        named: set[str] = set().union(*(defined(place.read_text(encoding="utf-8")) for place in here))
        for span in spans:
            name = span.removesuffix("()")
            if span.endswith("()") or re.fullmatch(r"_?[A-Z][A-Z_]+", name):
                faults += [] if name in named else [span]
            elif re.fullmatch(r"[A-Z]\w+", span):
                faults += [] if name in every else [span]
    return faults


def walk(heading: str) -> list[Call]:
    """The calls that a walk names, in their order: a function is in the file named last before it."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    calls: list[Call] = []
    for spans in blocks("\n".join(line for line in section.splitlines() if re.match(r"\d+\. |   ", line))):
        place = ""
        for span in spans:
            if is_path(span):
                place = (found(span) or Path()).relative_to(ROOT).as_posix()
            elif span.endswith("()"):
                calls.append((place, span.removesuffix("()")))
    return calls


def made(work: Callable[[], object]) -> list[Call]:
    """Every call of the package's functions that ``work`` makes."""
    calls: list[Call] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT / "registry"):
            calls.append((path.relative_to(ROOT).as_posix(), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def first_not_made(named: list[Call], calls: list[Call]) -> Call | None:
    """The first call of a walk that is not made after those before it."""
    left: Iterator[Call] = iter(calls)
    return next((call for call in named if call not in left), None)


def write_model(path: Path, width: int) -> Path:
    rng = np.random.default_rng(width)
    save_file({f"l{i}.weight": rng.standard_normal((width, width), dtype=np.float32) for i in range(3)}, path)
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "walk.db") as registry:
        for width in (12, 14, 16):
            registry.ingest(write_model(tmp_path / f"m{width}.safetensors", width))
        registry.nearest("m12")
        yield registry


@pytest.mark.parametrize(("page", "paths"), [("docs/architecture.md", 100), ("CONTRIBUTING.md", 20)])
def test_every_path_and_name_exists(page: str, paths: int) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert missing(text) == []
    assert sum(is_path(span) for spans in blocks(text) for span in spans) > paths


def test_what_does_not_exist_would_be_seen() -> None:
    page = (
        "The file `catalog/searching.py` has `look_up()` and `gone()`.\n\n- `look_up()` of `storage/nowhere.py`\n"
        "- `HEAD` of `storage/engine/schema_version.py`\n- `HEAD`, `Store` and `Shop`\n| `storage/` | `elsewhere/` |\n"
    )
    assert missing(page) == ["gone()", "storage/nowhere.py", "look_up()", "HEAD", "Shop", "elsewhere/"]


def test_every_part_has_its_line() -> None:
    parts = PAGE.partition("\n## Parts\n")[2].partition("\nGroups of modules")[0]
    named = {span.removesuffix("/").removesuffix(".py") for spans in blocks(parts) for span in spans}
    assert set(MAY_IMPORT) <= named


def test_the_walk_of_a_warm_nearest(registry: Registry) -> None:
    named = walk("A warm `nearest` of a stored model")
    assert len(named) >= 20
    assert first_not_made(named, made(lambda: registry.nearest("m12"))) is None


def test_the_walk_of_an_ingest(registry: Registry, tmp_path: Path) -> None:
    path = write_model(tmp_path / "new.safetensors", 18)
    named = walk("`ingest` of one file into an open database")
    assert len(named) >= 30
    assert first_not_made(named, made(lambda: registry.ingest(path))) is None


def test_a_call_that_is_not_made_would_be_seen() -> None:
    calls = [("a.py", "f"), ("a.py", "g"), ("b.py", "f")]
    assert first_not_made([("a.py", "f"), ("b.py", "f")], calls) is None
    assert first_not_made([("b.py", "f"), ("a.py", "g")], calls) == ("a.py", "g")
