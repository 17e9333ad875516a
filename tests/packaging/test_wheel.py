"""The wheel as users get it: built from a copy, its contents compared with the sources, used where there are none."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from registry import shipped
from tests.packaging.conftest import PLACES, ROOT, run

LARGEST = 15_000_000  # bytes of the wheel
NOT_INSTALLED = {"migrations/script.py.mako"}  # the template of new revisions, for developers


def source_files(tree: Path, place: str) -> list[Path]:
    found = (path for path in (tree / place).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path.relative_to(tree) for path in found)


def test_every_source_file_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"{where}/{path.relative_to(place).as_posix()}"
        for place, where in PLACES.items()
        for path in source_files(ROOT, place)
        if path.as_posix() not in NOT_INSTALLED
    }
    assert packed == expected
    assert "registry/py.typed" in packed
    assert any(name.startswith("registry/migrations/versions/v0001_") for name in packed)


def test_what_ships_is_in_the_wheel_and_the_wheel_is_small(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel).namelist()
    for name in shipped.SHIPPED.values():
        assert {f"registry/shipped/{name}", f"registry/shipped/{name}.sha256"} <= set(packed)
    assert wheel.stat().st_size <= LARGEST


def test_the_published_registry_answers_from_the_wheel(
    installed: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    (package,) = installed.glob("lib/python*/site-packages/registry")
    before = sorted(path.name for path in (package / "shipped").iterdir())
    archreg, name = installed / "bin" / "archreg", "resnet-cifar/akamaster-resnet56"
    words = ("--db", "published:", "compress", name, "--max-ratio", "0.5", "--json")
    answer = json.loads(run(archreg, *words, cwd=tmp_path, environment=clean_environment))
    assert "resnet-cifar/akamaster-resnet20" in [each["name"] for each in answer["candidates"]]
    assert sorted(path.name for path in (package / "shipped").iterdir() if path.name != "__pycache__") == [
        each for each in before if each != "__pycache__"
    ]
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_registry_lands_in_site_packages(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"registry"}


def test_the_parts_are_imported_from_the_wheel(
    installed: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    code = """
import registry, registry.cli, registry.migrations
for part in (registry, registry.cli, registry.migrations):
    print(part.__file__)
"""
    said = run(installed / "bin" / "python", "-c", code, cwd=tmp_path, environment=clean_environment)
    assert [Path(path).is_relative_to(installed) for path in said.split()] == [True, True, True]


def test_a_part_that_was_not_packed_is_missed(
    installed: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """The control of the test above: here the sources cannot stand in for what the wheel lacks."""
    broken = tmp_path / "broken"
    shutil.copytree(installed, broken, symlinks=True)
    (package,) = broken.glob("lib/python*/site-packages/registry")
    shutil.rmtree(package / "migrations")
    code = "import registry.migrations"
    done = subprocess.run(
        [str(broken / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env=clean_environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "No module named 'registry.migrations'" in done.stderr


def test_the_command_answers(installed: Path, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    archreg = installed / "bin" / "archreg"
    assert "nearest" in run(archreg, "--help", cwd=tmp_path, environment=clean_environment)
    version = run(archreg, "--version", cwd=tmp_path, environment=clean_environment)
    (info,) = installed.glob("lib/python*/site-packages/architecture_registry-*.dist-info")
    assert info.name == f"architecture_registry-{version.split()[-1]}.dist-info"


def test_a_database_is_made_and_migrated(installed: Path, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    code = """
from registry.storage.engine import migrate
from registry.storage.engine.address import Address
url = "sqlite:///new.db"
migrate.create(Address.parse(url))
print(migrate.upgrade(url))
"""
    said = run(installed / "bin" / "python", "-c", code, cwd=tmp_path, environment=clean_environment)
    database = sqlite3.connect(tmp_path / "new.db")
    try:
        assert database.execute("select version_num from archreg_version").fetchall() == [(said.strip(),)]
        assert database.execute("select count(*) from models").fetchall() == [(0,)]
    finally:
        database.close()


def test_a_model_is_ingested_and_found(installed: Path, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (48, 64), "fc2.weight": (48, 48), "fc3.weight": (10, 48)}
    for name in ("first", "second"):
        weights = {tensor: rng.standard_normal(shape).astype(np.float32) for tensor, shape in shapes.items()}
        save_file(weights, tmp_path / f"{name}.safetensors")
    archreg, db = installed / "bin" / "archreg", ("--db", "sqlite:///models.db")
    for name in ("first", "second"):
        run(archreg, "ingest", f"{name}.safetensors", *db, cwd=tmp_path, environment=clean_environment)
    answer = json.loads(run(archreg, "nearest", "first", "--json", *db, cwd=tmp_path, environment=clean_environment))
    assert "second" in json.dumps(answer)
