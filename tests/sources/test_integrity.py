"""Damaged archives, values that are not finite, and files that hold no weights, are refused by name."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from registry import Registry
from registry.errors import NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.sources.files.archive import check_sums, data_start, zip_entries
from registry.sources.files.byte_source import LocalBytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {f"layer{i}.weight": torch.arange(64.0).reshape(8, 8) + i for i in range(4)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 1234567\n" % (b"0" * 64)


def refused(path: Path, message: str, kind: type[RegistryError] = WeightsError) -> str:
    with pytest.raises(kind, match=message) as caught, open_ref(expand(path)[0]) as checkpoint:
        plan_weights(checkpoint)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.remedy or ""


def damage(path: Path, wanted: bytes, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    assert data.count(wanted) == 1
    data[data.find(wanted) + at] ^= 1
    path.write_bytes(data)


def read(path: Path, key: str | None = None) -> None:
    with open_ref(expand(path, key=key)[0]) as checkpoint:
        plan_weights(checkpoint)


@pytest.mark.parametrize("number", range(4))
def test_each_entry_of_a_torch_archive_is_held_against_its_checksum(number: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    read(path)
    damage(path, STATE[f"layer{number}.weight"].numpy().tobytes(), 255)
    remedy = refused(
        path, rf"is damaged: the checksum of the entry 'x/data/{number}' is [0-9a-f]{{8}} in the directory"
    )
    assert remedy == "download or save it again"


def test_a_damaged_pickle_is_found_before_it_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pt")
    damage(tmp_path / "x.pt", b"layer2.weight")
    refused(tmp_path / "x.pt", r"checksum of the entry 'x/data\.pkl'")


def test_archives_that_were_saved_without_checksums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(compute_crc32=False)
        torch.save(STATE, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(compute_crc32=before)
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert {entry.CRC for entry in archive.infolist()} == {0}
    read(tmp_path / "x.pt")


def test_one_checksum_of_zero_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        crc = archive.getinfo("x/data/3").CRC
    data = path.read_bytes()
    path.write_bytes(data.replace(crc.to_bytes(4, "little"), bytes(4)))
    refused(path, r"'x/data/3' is 00000000 in the directory")


def test_only_entries_that_hold_its_tensors_are_compared(tmp_path: Path) -> None:
    """The optimizer's state is not read, and its damage none of the model's."""
    path = tmp_path / "x.ckpt"
    momentum = torch.full((50, 50), 3.25)
    torch.save({"state_dict": STATE, "optimizer": {"state": {0: {"exp_avg": momentum}}, "param_groups": []}}, path)
    damage(path, momentum.numpy().tobytes(), 100)
    read(path)
    damage(path, STATE["layer0.weight"].numpy().tobytes())
    refused(path, "checksum of the entry 'x/data/0'")


def test_views_of_one_storage_are_found_in_it(tmp_path: Path) -> None:
    whole = torch.arange(200.0)
    torch.save({"a.weight": whole[20:84].view(8, 8), "b.weight": whole[100:164].view(8, 8).T}, tmp_path / "x.pt")
    read(tmp_path / "x.pt")
    damage(tmp_path / "x.pt", whole.numpy().tobytes(), 799)
    refused(tmp_path / "x.pt", "checksum of the entry 'x/data/0'")


def test_an_archive_of_another_byte_order_is_held_against_its_checksums(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for entry in old.infolist():
            data = b"big" if entry.filename.endswith("/byteorder") else old.read(entry)
            if "/data/" in entry.filename:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(entry.filename, data)
    read(tmp_path / "big.pt")
    damage(tmp_path / "big.pt", STATE["layer1.weight"].numpy().astype(">f4").tobytes(), 9)
    with pytest.raises(WeightsError, match="checksum of the entry 'x/data/1'"):
        read(tmp_path / "big.pt")


def test_shards_are_held_against_their_checksums(tmp_path: Path) -> None:
    names = ["model-1-of-2.bin", "model-2-of-2.bin"]
    for name, part in zip(names, (["layer0.weight"], ["layer1.weight", "layer2.weight"]), strict=True):
        torch.save({key: STATE[key] for key in part}, tmp_path / name)
    read(tmp_path / names[0])
    damage(tmp_path / names[1], STATE["layer2.weight"].numpy().tobytes())
    with pytest.raises(WeightsError, match=r"model-2-of-2\.bin is damaged"):
        read(tmp_path / names[0])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_each_array_of_an_npz_is_held_against_its_checksum(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = {name: value.numpy() for name, value in STATE.items()} | {"steps": np.arange(50)}
    save(path, **arrays)
    read(path)
    with zipfile.ZipFile(path) as archive:
        crc = archive.getinfo("steps.npy").CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(crc, bytes(4)))
    refused(path, r"x\.npz: 'steps\.npy' cannot be unpacked: Bad CRC-32")


def test_an_entry_that_is_elsewhere_than_the_directory_says(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    with LocalBytes(path) as source:
        entries = zip_entries(source)
        entries[0].header_offset += 1
        for offset in (entries[0].header_offset, -5, 10**12):
            entries[0].header_offset = offset
            with pytest.raises(WeightsError, match="is not where the directory says"):
                data_start(source, entries[0])
        with pytest.raises(WeightsError, match="ends inside the entry"):
            check_sums(source, {source.size - 3: entries[-4]}, everything=entries)


# values that are not finite


def with_nan(path: Path, name: str = "norm.running_var") -> Path:
    state = STATE | {
        "norm.running_var": torch.ones(8),
        "norm.running_mean": torch.ones(8),
        "layer0.bias": torch.ones(8),
    }
    state[name] = state[name].clone()
    state[name].view(-1)[3] = float("nan")
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["norm.running_var", "norm.running_mean", "layer0.bias", "layer1.weight"])
def test_a_model_with_nan_is_refused_and_stored_where_that_is_allowed(name: str, tmp_path: Path) -> None:
    path = with_nan(tmp_path / "x.pt", name)
    with Registry(tmp_path / "r.db") as registry:
        with pytest.raises(WeightsError, match=rf"x\.pt: tensor {name} holds 1 of (8|64) values") as caught:
            registry.ingest(path)
        assert "--allow-nonfinite" in (caught.value.remedy or "")
        assert registry.ingest(path, allow_nonfinite=True).status == "added"
        assert registry["x"].layers == (3 if name == "layer1.weight" else 4)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_allow_it_too(workers: int, tmp_path: Path) -> None:
    paths = [with_nan(tmp_path / "a.pt"), with_nan(tmp_path / "b.pt", "layer2.weight")]
    with Registry(tmp_path / "r.db") as registry:
        refs = registry.plan(paths)
        executor = "inprocess" if workers == 1 else "pool"
        failed = registry.ingest_all(refs, workers=workers, executor=executor)
        assert [outcome.status for outcome in failed] == ["failed", "failed"]
        added = registry.ingest_all(refs, workers=workers, executor=executor, allow_nonfinite=True)
        assert [outcome.status for outcome in added] == ["added", "added"]


# what is no weights file


@pytest.mark.parametrize(
    "name", ["x.safetensors", "x.pt", "x.bin", "x.npz", "x.ckpt", "model.safetensors.index.json", "model-1-of-2.bin"]
)
def test_a_pointer_of_git_lfs_is_told_for_every_suffix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    (tmp_path / "model-2-of-2.bin").write_bytes(POINTER)
    remedy = refused(tmp_path / name, r"is a pointer of Git LFS to a file of 1234567 bytes, not the file itself")
    assert remedy.startswith("run: git lfs pull")
    (tmp_path / name).write_bytes(b"version https://git-lfs")
    refused(tmp_path / name, "is a pointer of Git LFS, not")


def test_a_shard_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(POINTER)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "a.safetensors"}}))
    with pytest.raises(WeightsError, match=r"a\.safetensors is a pointer of Git LFS"):
        read(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><html><head>", b"\n  <HTML lang='en'>", b'<?xml version="1.0"?><Error><Code>AccessDenied',
     b"\xef\xbb\xbf<!doctype html>", b"<Error>"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz", ".bin"])
def test_a_web_page_is_no_weights_file(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content + bytes(1000))
    assert "download it again" in refused(tmp_path / f"x{suffix}", "is a web page, which a server sent in place")


@pytest.mark.parametrize(
    "content",
    [b"Entry not found", b"404: Not Found", b'{"error":"Repository not found"}', b"Invalid username or password.",
     b"Access to model org/net is restricted."],
)  # fmt: skip
def test_an_answer_of_a_server_is_no_weights_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(tmp_path / "x.safetensors", "holds a server's answer in place of the file: ")


@pytest.mark.parametrize("ending", ["incomplete", "part", "crdownload", "partial", "download", "PART"])
def test_an_unfinished_download_is_told_by_its_name(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.safetensors.{ending}"
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match="is an unfinished download") as caught:
        expand(path)
    assert caught.value.remedy == f"finish it, then give {tmp_path / 'x.safetensors'}"
    with pytest.raises(NotFoundError, match="no weights in folder") as none:
        expand(tmp_path)
    assert none.value.remedy == f"finish the download of {path}"
    save_file(STATE, tmp_path / "y.safetensors")
    assert [ref.name for ref in expand(tmp_path)] == ["y"]


def test_a_download_that_aria2_has_not_finished(tmp_path: Path) -> None:
    """It has its full size from the start, and zeros where nothing has come."""
    save_file(STATE, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors.aria2").write_bytes(b"\0\1")
    refused(tmp_path / "x.safetensors", r"is an unfinished download: x\.safetensors\.aria2 is beside it")


@pytest.mark.parametrize("lost", [1, 100, 1024])
def test_a_safetensors_file_that_was_cut_says_how_much_is_missing(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    remedy = refused(path, rf"is incomplete: {lost:,} of its {len(whole):,} bytes are missing")
    assert remedy == "download it again"
    path.write_bytes(whole[:50])
    refused(path, "its header reaches beyond its end")
    path.write_bytes(whole + b"x")  # the control: too long is another fault
    refused(path, "is not a valid safetensors file")


@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b"null", b'{"a": 1}', b'{"a": {"data_offsets": [0, 1e400]}}', b"{" * 50]
)
def test_headers_that_claim_nothing_are_just_wrong(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(path, "is not a valid safetensors file|holds no tensors")


def test_an_optimizer_is_called_one(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones(4, 4)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    assert "the file of the model" in refused(tmp_path / "optimizer.pt", r"optimizer\.pt is the state of an optimizer")
    torch.save({"state_dict": STATE, "optimizer": optimizer.state_dict()}, tmp_path / "x.ckpt")
    read(tmp_path / "x.ckpt")
    with pytest.raises(WeightsError, match="is the state of an optimizer"):
        read(tmp_path / "x.ckpt", key="optimizer")
    torch.save({"optimizer": optimizer.state_dict(), "lr_scheduler": {}}, tmp_path / "x.pt")
    assert "training state" in refused(tmp_path / "x.pt", "holds no tensors, only: lr_scheduler, optimizer")
    (tmp_path / "only").mkdir()
    torch.save(optimizer.state_dict(), tmp_path / "only" / "optimizer.pt")
    with pytest.raises(NotFoundError, match="no weights in folder"):
        expand(tmp_path / "only")


def test_objects_in_training_state_are_called_that(tmp_path: Path) -> None:
    import fractions

    for name in ("training_args.bin", "weights.bin"):
        torch.save({"arguments": fractions.Fraction(1, 2)}, tmp_path / name)
    remedy = refused(tmp_path / "training_args.bin", "holds no tensors, only: arguments")
    assert remedy == "it is training state: give the file of the model's weights"
    assert refused(tmp_path / "weights.bin", "holds no tensors, only: arguments") == "give a file with weights"


@pytest.mark.parametrize("beside", [{}, {"lm_head.weight": torch.eye(4)}], ids=["alone", "beside a matrix"])
def test_weights_of_hqq_by_module_are_named(beside: dict[str, Any], tmp_path: Path) -> None:
    coded = {"W_q": torch.zeros(8, 8, dtype=torch.uint8), "meta": {"nbits": 4, "scale": torch.ones(8, 1)}}
    torch.save({"norm": {"weight": torch.ones(4)}, "layers.0.q": coded, **beside}, tmp_path / "qmodel.pt")
    assert "hqq" in refused(tmp_path / "qmodel.pt", r"holds HQQ weights by module, such as layers\.0\.q")


def test_layers_called_state_are_no_optimizer(tmp_path: Path) -> None:
    torch.save({"state": torch.eye(3), "param_groups": torch.eye(4)}, tmp_path / "x.pt")
    read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"a.weight": np.array(["a", "b"])},
        {"a.bias": torch.ones(3)},
        {"a.weight": torch.ones(1, 3)},
        {"a.weight": torch.eye(3).to_sparse()},
        {"a.weight": torch.eye(3, dtype=torch.int8)},
        {"a.weight": torch.zeros(3, 3)},
        {"a.weight": torch.full((3, 3), float("nan"))},
        {},
    ],
)
def test_a_state_dict_is_not_told_to_save_its_state_dict(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises((WeightsError, UnsafeError)) as caught:
        read(tmp_path / "x.pt")
    assert caught.value.remedy
    assert "state_dict" not in caught.value.remedy


def test_one_of_several_files_of_deepspeed_says_so(tmp_path: Path) -> None:
    torch.save({"module": STATE, "mp_world_size": 2}, tmp_path / "mp_rank_00_model_states.pt")
    remedy = refused(tmp_path / "mp_rank_00_model_states.pt", "one of 2 files of DeepSpeed's model parallelism")
    assert "zero_to_fp32.py" in remedy


def test_names_that_are_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 252 + ".pt")
    torch.save(STATE, path)
    with open_ref(expand(path)[0]) as checkpoint:
        assert len(plan_weights(checkpoint).layers) == 4
