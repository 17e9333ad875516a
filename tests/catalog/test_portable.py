"""Export and import, as the library has them, of networks that were really measured."""

from __future__ import annotations

import gc
import shutil
import sqlite3
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from registry import Registry
from registry.errors import (
    DatabaseMissingError,
    EmptyRegistryError,
    NotFoundError,
    RegistryError,
    StorageError,
    UnknownModelError,
    UsageError,
)
from registry.storage import Store
from registry.storage.engine.connections import guarded
from registry.storage.portable import portable_file
from tests.catalog.conftest import fill

if TYPE_CHECKING:
    from pathlib import Path

    from tests.catalog.conftest import Filled


def told(reg: Registry) -> list[Any]:
    """What ``models`` and ``show`` say, ids aside."""
    shown = [reg.show(model.name) for model in reg.models()]
    return [(replace(each, summary=replace(each.summary, id=0))) for each in shown]


def test_there_and_back(filled: Filled, tmp_path: Path) -> None:
    """From either database into a file, which is a registry, and on into another."""
    reg, file = filled.reg, tmp_path / "out.db"
    seen: list[tuple[int, int]] = []
    done = reg.export(file, progress=lambda *count: seen.append(count))
    assert (done.file, done.models, done.added, done.failed) == (str(file), 4, 4, ())
    assert seen[-1] == (4, 4)
    with Registry(file) as out:
        assert out.check() == ()
        assert told(out) == told(reg)
        assert [n.model.name for n in out.nearest("wide", 2)] == [n.model.name for n in reg.nearest("wide", 2)]
    with Registry(tmp_path / "last.db") as last:
        assert last.import_from(file).added == 4
        assert told(last) == told(reg)
    back = reg.import_from(file)
    assert (back.added, back.merged, back.known) == (0, 0, 4)


def test_into_an_empty_database(database_url: str, asked: Filled, tmp_path: Path) -> None:
    asked.reg.export(tmp_path / "out.db")
    with Registry(database_url) as reg:
        dry = reg.import_from(tmp_path / "out.db", dry_run=True)
        assert dry.added == 4
        with pytest.raises(DatabaseMissingError):
            reg.models()
        assert reg.import_from(tmp_path / "out.db") == dry
        assert told(reg) == told(asked.reg)
        assert reg.check() == ()


def test_part_of_it(asked: Filled, tmp_path: Path) -> None:
    done = asked.reg.export(tmp_path / "out.db", names=["wide", "dense"], spectra=False, family="conv")
    assert done.added == 1
    with Registry(tmp_path / "out.db") as out:
        assert [model.name for model in out.models()] == ["wide"]
        assert not out.show("wide").has_spectra


def test_what_cannot_be_exported(asked: Filled, tmp_path: Path) -> None:
    reg, file = asked.reg, tmp_path / "out.db"
    with pytest.raises(EmptyRegistryError, match="nothing was written"):
        reg.export(file, family="none")
    with pytest.raises(UnknownModelError, match="'wyde'"):
        reg.export(file, names=["wyde"])
    with pytest.raises(UsageError, match="names must be a list"):
        reg.export(file, names="wide")
    with pytest.raises(UsageError, match="unknown filter"):
        reg.export(file, families="conv")
    with pytest.raises(UsageError, match=r"folder .* does not exist"):
        reg.export(tmp_path / "none" / "out.db")
    with pytest.raises(UsageError, match="is a folder"):
        reg.export(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(
    asked: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.db"
    file.write_text("mine")
    with pytest.raises(RegistryError, match="exists already"):
        asked.reg.export(file)

    def full(*_: Any, **__: Any) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("registry.storage.portable.calibration_merge.merge_calibrations", full)
        with pytest.raises(StorageError, match="disk full"):
            asked.reg.export(file, overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.db", "mine")]
    asked.reg.export(file, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.db"]
    assert Registry(file).stats().models == 4


@pytest.mark.parametrize("moment", ["models", "log"])
def test_a_full_disk_is_told_of_the_file_that_was_asked_for(
    moment: str, asked: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the models are written, and while the log is written back at the end."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    def full(store: Store, *_: Any, **__: Any) -> None:
        with guarded(store.address):
            raise error

    class Full:
        def execute(self, _statement: str) -> None:
            raise error

        def close(self) -> None:
            pass

    if moment == "models":
        monkeypatch.setattr(Store, "merge", full)
    else:
        monkeypatch.setattr(portable_file, "sqlite3", SimpleNamespace(connect=lambda *_, **__: Full()))
    with pytest.raises(StorageError) as stopped:
        asked.reg.export(tmp_path / "out.db")
    assert stopped.value.message == f"{tmp_path / 'out.db'}: database or disk is full"
    assert stopped.value.remedy == "free some disk space and run it again"
    assert list(tmp_path.iterdir()) == []


def test_a_registry_is_not_moved_onto_itself(files: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "own.db") as reg:
        fill(reg, files)
        (tmp_path / "link.db").symlink_to(tmp_path / "own.db")
        for name in ("own.db", "link.db"):
            with pytest.raises(UsageError, match="is the registry itself"):
                reg.export(tmp_path / name, overwrite=True)
            with pytest.raises(UsageError, match="is the registry itself"):
                reg.import_from(tmp_path / name)
        assert reg.stats().models == 4


def test_what_cannot_be_imported_makes_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, whatever its name says" * 100)
    with Registry(tmp_path / "new.db") as reg:
        with pytest.raises(NotFoundError):
            reg.import_from(tmp_path / "missing.db")
        with pytest.raises(StorageError, match=r"text\.db is not a SQLite database"):
            reg.import_from(tmp_path / "text.db")
    assert not (tmp_path / "new.db").exists()


def test_a_topology_of_other_layers_is_refused(asked: Filled, tmp_path: Path) -> None:
    asked.reg.export(tmp_path / "out.db")
    forged = tmp_path / "forged.db"
    shutil.copy(tmp_path / "out.db", forged)
    with sqlite3.connect(forged) as connection:
        connection.execute("UPDATE models SET topology = 'beef' WHERE id = 2")
    with Registry(tmp_path / "new.db") as reg:
        done = reg.import_from(forged)
        assert (done.added, [each.message for each in done.failed]) == (
            3,
            ["the topology does not agree with the layers"],
        )
        assert reg.check() == ()


def test_pythons_collector_rests_meanwhile_and_is_left_as_it_was(asked: Filled, tmp_path: Path) -> None:
    seen: list[bool] = []

    def stop(_done: int, _all: int) -> None:
        seen.append(gc.isenabled())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked.reg.export(tmp_path / "out.db", progress=stop)
    assert (seen, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        asked.reg.export(tmp_path / "out.db")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_import_goes_on_after_an_interruption(
    asked: Filled, tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.reg.export(tmp_path / "out.db")
    monkeypatch.setattr("registry.storage.portable.model_assembly.BATCH", 1)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with Registry(registry_url) as reg:
        with pytest.raises(KeyboardInterrupt):
            reg.import_from(tmp_path / "out.db", progress=stop)
        assert reg.stats().models == 2
        done = reg.import_from(tmp_path / "out.db")
        assert (done.added, done.known) == (2, 2)
        assert told(reg) == told(asked.reg)
