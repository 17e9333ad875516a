from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.types import ModelRef

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"a.weight": torch.arange(4096.0).reshape(64, 64)}


class Runs:
    """Pickles to a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def refused(path: Path, kind: type[RegistryError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        open_ref(expand(path)[0])
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(zipped: bool, tmp_path: Path) -> None:
    path, created = tmp_path / "x.pt", tmp_path / "created"
    torch.save({**STATE, "payload": Runs(created)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, UnsafeError, r"would run \w+\.mkdir")
    assert not created.exists()
    torch.load(path, weights_only=False)  # the control: without weights_only it does run
    assert created.exists()


def test_a_bare_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    path, created = tmp_path / "x.bin", tmp_path / "created"
    path.write_bytes(pickle.dumps(Runs(created), protocol=2))
    refused(path, SourceError, "x.bin")
    assert not created.exists()


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", UnsafeError, "torch.nn.modules.linear.Linear.*save model.state_dict")


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"x/{name}", b"")


def compressed(path: Path) -> None:
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as old:
        entries = [(e.filename, old.read(e)) for e in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries:
            new.writestr(name, data)


def overlapping(path: Path) -> None:
    """Every entry of the directory claims the same data, which add up to more than the file."""
    torch.save({f"{i}": torch.full((64, 64), 1.0) for i in range(4)}, path)
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<II", data, at + 20, 40_000, 40_000)
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data)


def cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-3000])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: p.write_bytes(b""), WeightsError, "is empty"),
        (lambda p: p.write_text("<html>not found</html>"), WeightsError, "neither a zip archive nor a pickle"),
        (lambda p: p.write_bytes(b"PK\x03\x04 and nothing"), WeightsError, "damaged zip"),
        (cut, WeightsError, "damaged zip archive, perhaps cut short"),
        (torchscript, WeightsError, "TorchScript archive.*state_dict"),
        (compressed, UnsafeError, "compressed entries"),
        (overlapping, UnsafeError, "claims more data than it holds"),
        (lambda p: p.write_bytes(b"\x80\x02" + b"(" * 100), WeightsError, "torch|pickle"),
        (lambda p: p.write_bytes(b"\x80\x02X\xff\xff\xff\x7f"), WeightsError, "torch|pickle"),
    ],
)
def test_damaged_and_foreign_files_are_one_line(
    make: object, kind: type[RegistryError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pt"
    make(path)  # type: ignore[operator]
    refused(path, kind, message)


def test_other_zip_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("a/b.txt", "x")
    refused(tmp_path / "x.pt", WeightsError, "not one of torch.save")


def test_tensors_that_claim_more_than_is_stored_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(1_000_000, 1_000_000)}, tmp_path / "wide.pt")
    refused(tmp_path / "wide.pt", UnsafeError, "claims 4000000000000 bytes of a storage of 4")
    one = torch.zeros(1000, 1000)
    torch.save({f"{i}.weight": one for i in range(200)}, tmp_path / "many.pt")
    refused(tmp_path / "many.pt", UnsafeError, "claims 800000000 bytes of tensors")


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
    refused(tmp_path / "x.pt", SourceError, "may not be read")


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(SourceError, match="not a regular file"):
        open_ref(ModelRef("torch", str(tmp_path / "x.pt"), "x"))


def test_shards_are_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model-00001-of-00003.safetensors")
    refused(tmp_path / "model-00001-of-00003.safetensors", WeightsError, "one of 3 shards")


def header(path: Path, entries: object, data: bytes = b"") -> None:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("entries", "data"),
    [
        ({"a": F32}, b"\0" * 15),
        ({"a": F32}, b"\0" * 17),
        ({"a": F32, "b": F32}, b"\0" * 16),
        ({"a": {**F32, "shape": [2**31, 2**31]}}, b"\0" * 16),
        ({"a": {**F32, "shape": [-2, -2]}}, b"\0" * 16),
        ({"a": {**F32, "data_offsets": [8, 0]}}, b"\0" * 16),
        ({"a": {**F32, "dtype": "F33"}}, b"\0" * 16),
        ([], b""),
        (b"{", b""),
        (b"\xff\xfe", b""),
        (b"[" * 10_000, b""),
    ],
)
def test_unsound_safetensors_are_refused(entries: object, data: bytes, tmp_path: Path) -> None:
    header(tmp_path / "x.safetensors", entries, data)
    refused(tmp_path / "x.safetensors", WeightsError, "no sound safetensors")


def test_safetensors_headers_beyond_the_file_are_refused(tmp_path: Path) -> None:
    for content in (b"abc", (2**63).to_bytes(8, "little") + b"{}", (3).to_bytes(8, "little") + b"{}"):
        (tmp_path / "x.safetensors").write_bytes(content)
        refused(tmp_path / "x.safetensors", WeightsError, "header reaches beyond its end")
    torch.save(STATE, tmp_path / "renamed.safetensors")
    refused(tmp_path / "renamed.safetensors", WeightsError, "torch.save belongs under .pt")


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("safetensors", "unwrap"):
        monkeypatch.setattr(f"registry.sources.{module}.MAX_TENSORS", 3)
    state = {f"{i}": torch.zeros(1) for i in range(4)}
    torch.save(state, tmp_path / "x.pt")
    save_file(state, tmp_path / "x.safetensors")
    refused(tmp_path / "x.pt", UnsafeError, "more than 3")
    refused(tmp_path / "x.safetensors", UnsafeError, "more than 3")


def test_large_bare_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    monkeypatch.setattr("registry.sources.archive.LEGACY_LIMIT", 100)
    refused(tmp_path / "x.pt", UnsafeError, "bare pickle")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    state = {"a.weight": torch.arange(16.0).reshape(4, 4), "b.weight": torch.eye(3)}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "bare.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "x.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_deliberate_error_or_none(data: st.DataObject, whole: dict[str, bytes], tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[name])
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content)
    with suppress(RegistryError), open_ref(expand(tmp_path / name)[0]) as checkpoint:
        plan_weights(checkpoint)
