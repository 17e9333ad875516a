"""Hostile files are refused in one line; nothing in them runs, nothing outside is read or written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry.errors import AmbiguousError, NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.types import ModelRef
from tests.sources.corpus import HARMLESS, HOSTILE, Hostile, make_corpus

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"a.weight": torch.arange(4096.0).reshape(64, 64)}


def refused(path: Path, kind: type[RegistryError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught, open_ref(expand(path)[0]) as checkpoint:
        plan_weights(checkpoint)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_corpus(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_it_is_refused_in_one_line(hostile: Hostile, corpus: tuple[Path, Path]) -> None:
    folder, outside = corpus
    place = folder / "hostile" / hostile.name
    try:
        [ref] = expand(place)
    except NotFoundError:  # a scan leaves pickles out that hold no arrays
        [ref] = expand(place / hostile.file)
    ref.name.encode()  # a database's text
    with pytest.raises(hostile.error, match=hostile.words) as caught, open_ref(ref) as checkpoint:
        plan_weights(checkpoint)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [path.name for path in outside.iterdir()] == ["secret.safetensors"]


def test_names_are_of_one_entry_each() -> None:
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)


def test_what_only_looks_hostile_is_read(corpus: tuple[Path, Path]) -> None:
    refs = expand(corpus[0] / "good")
    assert len(refs) == len(HARMLESS)
    for ref in refs:
        with open_ref(ref) as checkpoint:
            assert plan_weights(checkpoint).layers


@pytest.mark.parametrize("name", ["runs.pt", "runs-before-1.6.pt", "runs-in-settings.ckpt"])
def test_the_payloads_do_run_where_they_are_let(name: str, tmp_path: Path) -> None:
    """The control: a payload that could not run would prove nothing."""
    dict(HARMLESS)[name](tmp_path / name, tmp_path)
    with open_ref(expand(tmp_path / name)[0]) as checkpoint:
        assert plan_weights(checkpoint).layers
    assert not (tmp_path / "created").exists()
    torch.load(tmp_path / name, weights_only=False)
    assert (tmp_path / "created").is_dir()


@pytest.mark.parametrize("protocol", [2, 5])
def test_the_bare_payloads_do_run_where_they_are_let(protocol: int, tmp_path: Path) -> None:
    name = {2: "runs-bare", 5: "runs-newest"}[protocol]
    hostile = next(hostile for hostile in HOSTILE if hostile.name == name)
    hostile.make(tmp_path / "x.bin", tmp_path)
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert (tmp_path / "created").is_dir()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for source, name in (("torch", "x.pt"), ("safetensors", "x.safetensors")):
        ref = ModelRef(source, str(tmp_path / name), "x")
        with pytest.raises(NotFoundError, match="no file"):
            open_ref(ref)
        (tmp_path / name).mkdir()
        with pytest.raises(SourceError, match="is a folder"):
            open_ref(ref)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pt").write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    refused(tmp_path / "x.pt", SourceError, "is not readable")


def test_what_is_out_of_reach_is_one_model_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder that may be listed, not entered: of it the names alone can be had."""
    (tmp_path / "locked").mkdir()
    for name in ("locked/a.safetensors", "b.safetensors"):
        save_file(STATE, tmp_path / name)
    within, stat = tmp_path / "locked" / "a.safetensors", type(tmp_path).stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        if path == within:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(type(tmp_path), "stat", refusing)  # root may enter every folder
    open_ref(expand(tmp_path)[0]).close()
    with pytest.raises(SourceError, match=r"a\.safetensors cannot be accessed: Permission denied") as caught:
        open_ref(expand(tmp_path)[1])
    assert "permissions" in (caught.value.remedy or "")


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(SourceError, match="not a regular file"):
        open_ref(ModelRef("torch", str(tmp_path / "x.pt"), "x"))


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("formats.safetensors", "state_dicts", "formats.npz", "shard_index"):
        monkeypatch.setattr(f"registry.sources.{module}.MAX_TENSORS", 3)
    state = {f"{i}": torch.zeros(1) for i in range(4)}
    torch.save(state, tmp_path / "x.pt")
    save_file(state, tmp_path / "x.safetensors")
    refused(tmp_path / "x.pt", UnsafeError, "more than 3")
    np.savez(tmp_path / "x.npz", **{name: value.numpy() for name, value in state.items()})
    (tmp_path / "x.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state, "y.bin")}))
    refused(tmp_path / "x.safetensors", UnsafeError, "more than 3")
    refused(tmp_path / "x.npz", UnsafeError, "more than 3")
    refused(tmp_path / "x.bin.index.json", UnsafeError, "claims 4 tensors")


def test_archives_of_another_byte_order_are_read_right(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("/byteorder"):
                data = b"big"
            elif entry.filename.endswith("/data/0"):
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(entry.filename, data)
    with open_ref(expand(tmp_path / "big.pt")[0]) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("a.weight"), STATE["a.weight"].numpy())


def test_an_entry_of_a_thousand_entries_that_are_one_is_looked_into_once(tmp_path: Path) -> None:
    """Looked into each time, the leaf would be reached 10^9 times."""
    content: dict[str, object] = {"epoch": 1}
    for _ in range(3):
        content = {str(i): content for i in range(1000)}
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", WeightsError, "no tensors, only")


def test_thousands_of_state_dicts_are_not_all_compared(tmp_path: Path) -> None:
    torch.save({f"k{i}": {"w": torch.eye(2)} for i in range(3000)}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", AmbiguousError, "several state dicts: k0, k1, k2, k3, k4, k5, k6, k7 ")
