"""``published:``, the address of a registry that ships: where it is named, how it is opened, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry import Registry, shipped
from registry.defaults import anchored, no_file
from registry.errors import ReadOnlyError, RegistryError, StorageError, UnknownModelError, UsageError
from registry.shipped import checksum_file, checksum_of, is_word, shipped_file, shipped_word
from registry.storage import Store
from registry.storage.engine import migrate
from registry.storage.engine.address import Address
from registry.storage.engine.connections import make_engine
from registry.storage.engine.schema_version import HEAD, version_at
from registry.storage.models.model_queries import count_models
from tests.cli.conftest import archreg
from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from registry.storage.store import Mode

__all__ = ["archreg"]  # the fixture

RESNET56 = "resnet-cifar/akamaster-resnet56"
RESNET20 = "resnet-cifar/akamaster-resnet20"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of what ships, in the place of it."""
    copy = tmp_path / "shipped"
    shutil.copytree(shipped.FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(shipped, "FOLDER", copy)
    return copy


class TestWords:
    @pytest.mark.parametrize("text", ["published:", "catalogue:", "xyz:", "a_b2:"])
    def test_a_word_and_a_colon_is_no_path(self, text: str) -> None:
        assert is_word(text)
        assert not no_file(text)
        assert anchored(text, "/somewhere") == text

    @pytest.mark.parametrize("text", ["published", "C:", "./published:", "a/b:", "sqlite:///published:", "x y:", ""])
    def test_anything_else_is_as_it_was(self, text: str) -> None:
        assert not is_word(text)
        assert shipped_word(text) is None

    def test_every_word_has_a_file_of_its_own(self) -> None:
        assert shipped.SHIPPED == {"published": "published.db", "catalogue": "catalogue.db"}

    @pytest.mark.parametrize("word", shipped.SHIPPED)
    def test_the_file_of_a_word_has_a_checksum(self, word: str) -> None:
        if not (shipped.FOLDER / shipped.SHIPPED[word]).exists():
            missing(f"{shipped.SHIPPED[word]} has not been built")
        assert is_word(f"{word}:")
        assert shipped_word(f"{word}:") == word
        path = shipped_file(word)
        assert checksum_file(path).read_text() == f"{checksum_of(path)}\n"

    @pytest.mark.parametrize("text", ["publishd:", "Published:", "xyz:"])
    def test_an_unknown_word_is_refused_with_the_known_ones(self, text: str, archreg: Any) -> None:
        with pytest.raises(UsageError) as caught:
            Address.parse(text)
        assert caught.value.message == f"no registry {text} ships with this version"
        assert "published:" in (caught.value.remedy or "")
        assert archreg("list", "--db", text).code == 2

    def test_an_unknown_word_makes_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archreg: Any) -> None:
        monkeypatch.chdir(tmp_path)
        done = archreg("ingest", "--db", "publishd:", "torchvision:resnet18.random")
        assert (done.code, list(tmp_path.iterdir())) == (2, [])

    def test_what_follows_the_colon_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"more than published:"):
            Address.parse("published:resnet20")

    def test_a_file_may_have_such_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for url in ("./published:", "sqlite:///published:"):
            with Store.open(url, mode="create") as store:
                assert not store.address.shipped
                assert store.read(count_models) == 0
        assert (tmp_path / "published:").is_file()


class TestOpening:
    def test_it_is_read_as_a_file_that_cannot_change(self, folder: Path) -> None:
        # Even where folder and file may be written: a checkout, or a virtual environment of one's own.
        assert os.access(folder / "published.db", os.W_OK)
        address = Address.parse("published:")
        assert (address.label, address.shipped, address.path) == ("published:", True, folder / "published.db")
        for access in ("read", "write", "migrate"):
            engine = make_engine(address, access)  # type: ignore[arg-type]
            assert engine.url.query == {"uri": "true", "mode": "ro", "immutable": "1"}
        before = sorted(folder.iterdir())
        with Store.open("published:", mode="read") as store:
            assert store.read(count_models) == 163
            assert sorted(folder.iterdir()) == before
        assert version_at("published:") == HEAD
        assert migrate.check("published:") == ()
        assert sorted(folder.iterdir()) == before

    def test_a_log_beside_it_is_not_read(self, folder: Path) -> None:
        (folder / "published.db-wal").write_bytes(b"\1" * 5000)
        with Store.open("published:", mode="read") as store:
            assert store.read(count_models) == 163

    def test_a_folder_that_may_not_be_written(self, folder: Path) -> None:
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        try:
            with Registry("published:") as reg:
                assert len(reg) == 163
        finally:
            folder.chmod(0o755)

    @pytest.mark.parametrize("mode", ["write", "create"])
    def test_it_is_never_opened_for_writing(self, mode: Mode) -> None:
        with pytest.raises(ReadOnlyError, match="published: ships with the package and is read-only"):
            Store.open("published:", mode=mode)
        with pytest.raises(ReadOnlyError, match="ships with the package"):
            migrate.upgrade("published:")

    def test_it_is_known_by_its_word(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Registry("published:") as reg:
            assert repr(reg) == "Registry('published:')"
            monkeypatch.chdir(tmp_path)  # a path would be looked for where it was named
            assert reg[RESNET20].family == "resnet-cifar"
            with pytest.raises(UnknownModelError) as caught:
                reg["zzz"]
            assert caught.value.remedy == "see archreg list --db published:"
        monkeypatch.setenv("ARCHREG_DB", "published:")
        with Registry() as reg:
            assert len(reg) == 163
            with pytest.raises(UnknownModelError) as caught:
                reg["zzz"]
            assert caught.value.remedy == "see archreg list"

    def test_alembic_writes_to_it_as_little(self) -> None:
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "alembic", "-x", "db=published:", "upgrade", "head"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode != 0
        assert "published: ships with the package and is read-only" in done.stderr


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    """Other bytes in the midst of a spectrum, of which SQLite itself would not take notice."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replaced(path: Path) -> None:
    path.write_bytes(b"not a database")


def checksum_missing(path: Path) -> None:
    checksum_file(path).unlink()


def checksum_of_bytes(path: Path) -> None:
    checksum_file(path).write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "published: is not part of this installation: published.db is missing"),
        (checksum_missing, "published: is not part of this installation: published.db.sha256 is missing"),
        (truncated, "published: is damaged: published.db has other bytes than those that ship"),
        (empty, "published: is damaged: published.db has other bytes than those that ship"),
        (overwritten, "published: is damaged: published.db has other bytes than those that ship"),
        (replaced, "published: is damaged: published.db has other bytes than those that ship"),
        (checksum_of_bytes, "published: cannot be read: its checksum is no text"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_file_is_one_line_and_how_to_install_it_again(
    damage: Callable[[Path], None], message: str, folder: Path, archreg: Any
) -> None:
    assert archreg("stats", "--db", "published:").code == 0  # so that what was read before does not vouch for it
    damage(folder / "published.db")
    with pytest.raises(StorageError) as caught:
        Store.open("published:", mode="read")
    assert caught.value.message == message
    remedy = "install the package again: pip install --force-reinstall --no-deps architecture-registry"
    assert caught.value.remedy == remedy
    done = archreg("stats", "--db", "published:")
    assert (done.code, done.out, done.err) == (1, "", f"archreg: {message}\n  {remedy}\n")


@pytest.mark.parametrize(
    "command",
    [
        "list --family resnet-cifar",
        "list --duplicates",
        "stats",
        f"show {RESNET56} --layers",
        f"nearest {RESNET56} -k 3",
        f"compress {RESNET56} --max-ratio 0.5 --explain",
        "select --dataset cifar10",
        "classes",
        "classes --kept",
        f"related {RESNET56}",
        "tree --family cgcnn",
        f"audit {RESNET56}",
        f"compare {RESNET56} {RESNET20}",
        f"plot csd {RESNET56} -o tails.png",
        "distances -o distances.npz",
        "export -o own.db",
        "calibrate --dry-run",
        "refingerprint --help",
        "runs list",
        "index check",
        "db check",
        "db current",
    ],
)
def test_every_question_is_answered(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archreg: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = checksum_of(shipped_file("published"))
    done = archreg("--db", "published:", *command.split())
    assert done.code == 0, done.err
    assert checksum_of(shipped_file("published")) == before
    assert {path.name for path in tmp_path.iterdir()} == set(command.split()) & {"tails.png", "distances.npz", "own.db"}


@pytest.mark.parametrize(
    "command",
    [
        "ingest torchvision:resnet18.random",
        f"set {RESNET56} --gflops 0.127",
        f"rename {RESNET56} other",
        f"rm {RESNET56} -y",
        "calibrate",
        "calibrate --reset",
        "classes --forget 1",
        "refingerprint",
        "runs forget 1",
        "index build",
        "index drop",
        "db upgrade",
        "import published:",
    ],
)
def test_every_write_is_refused_with_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archreg: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = checksum_of(shipped_file("published"))
    monkeypatch.setenv("ARCHREG_DB", "published:")
    done = archreg(*command.split())
    assert done.code == 1
    message, remedy = done.err.splitlines()
    assert message == "archreg: published: ships with the package and is read-only"
    assert remedy.startswith("  name a database of your own: --db FILE, or ARCHREG_DB")
    assert checksum_of(shipped_file("published")) == before
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_taken_into_a_registry_of_ones_own(database_url: str, archreg: Any) -> None:
    done = archreg("--db", database_url, "import", "published:")
    assert (done.code, done.out) == (0, "published: 163 added.\n")
    with Registry(database_url) as own, Registry("published:") as published:
        assert list(own) == list(published)
        mine, theirs = (reg.compare(RESNET56, RESNET20).verdict.distance for reg in (own, published))
        assert mine == theirs


def test_python_meets_the_same_error() -> None:
    with Registry("published:") as reg:
        with pytest.raises(RegistryError) as caught:
            reg.tag(RESNET56, owner="vision")
        assert isinstance(caught.value, ReadOnlyError)
        assert len(reg) == 163  # and goes on
