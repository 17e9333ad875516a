"""Remote files: what is transferred, what is refused, and what is kept secret."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import gguf
import h5py
import numpy as np
import onnx
import pytest
import torch
from flax import serialization
from safetensors.torch import save, save_file

from registry.catalog import Registry
from registry.errors import NotFoundError, RegistryError, SourceError, UnsafeError, WeightsError
from registry.sources import deferred, expand, open_headers, open_ref, plan_weights
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.remote import http_file, object_store
from registry.sources.files.remote.addresses import Opening, resolve, split
from registry.sources.files.remote.files import open_address
from registry.spelling import without_secrets
from tests.sources.conftest import TOKEN
from tests.sources.hubserver import Hub, Repository
from tests.sources.webserver import Web, serving_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.types import Checkpoint, ModelRef

SECRET = "NotToBeSeenAnywhere"  # noqa: S105 - nobody's


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(http_file, "DELAYS", (0.01, 0.01, 0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving_files() as found:
        yield found


def network(seed: int = 0, layers: int = 6, width: int = 128) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {f"layers.{at}.weight": torch.randn(width, width, generator=generator) for at in range(layers)}
    return state | {f"layers.{at}.bias": torch.zeros(width) for at in range(layers)}


def one(reference: str, **settings: str) -> ModelRef:
    (ref,) = expand(reference, **settings)  # type: ignore[arg-type]
    return ref


def same(found: Checkpoint, expected: Checkpoint) -> None:
    assert {t.name for t in found.tensors} == {t.name for t in expected.tensors}
    for info in expected.tensors:
        assert np.array_equal(found.read(info.name), expected.read(info.name))


def header_size(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


class TestByRanges:
    def test_a_whole_file_is_transferred_once(self, web: Web, tmp_path: Path) -> None:
        save_file(network(), tmp_path / "x.safetensors")
        data = (tmp_path / "x.safetensors").read_bytes()
        web.files["/a/x.safetensors"] = data
        with open_ref(one(f"{web.url}/a/x.safetensors")) as remote, open_ref(one(str(tmp_path / "x.safetensors"))) as f:
            assert plan_weights(remote).content_hash == plan_weights(f).content_hash
            same(remote, f)
            same(remote, f)
        assert web.sent == len(data)
        assert len(web.requests) <= 3  # the start, and one range for what follows

    @pytest.mark.parametrize("layers", [2, 200, 2000])
    def test_a_header_costs_its_bytes_and_64_kb(self, web: Web, layers: int) -> None:
        data = save(network(layers=layers, width=16) | {"last": torch.zeros(2**19)})
        web.files["/x.safetensors"] = data
        with open_headers(one(f"{web.url}/x.safetensors")) as opened:
            assert len(opened.tensors) == 2 * layers + 1
        assert web.sent <= header_size(data) + 65536
        assert web.sent < len(data) / 2

    def test_memory_files(self) -> None:
        data = save(network())
        fsspec.filesystem("memory").pipe("/box/x.safetensors", data)
        fsspec.filesystem("memory").pipe("/box/y.pt", b"\x80\x02}q\x00.")
        ref = one("memory://box/x.safetensors")
        assert (ref.target, ref.name, ref.cached, ref.bytes) == ("memory://box/x.safetensors", "x", False, None)
        with open_ref(ref) as opened:
            assert opened.read("layers.3.weight").shape == (128, 128)
        with open_bytes("memory://box/x.safetensors") as file:
            assert bytes(file.read_at(100, 77)) == data[100:177]
            with pytest.raises(WeightsError, match="ends early"):
                file.read_at(len(data) - 1, 2)

    def test_random_reads_are_those_of_the_file(self, web: Web) -> None:
        data = np.random.default_rng(0).bytes(300_000)
        web.files["/x.bin"] = data
        rng = np.random.default_rng(1)
        with open_bytes(f"{web.url}/x.bin") as file:
            for step in range(200):
                start = int(rng.integers(0, len(data)))
                count = int(rng.integers(0, min(len(data) - start, 50_000 if step % 3 else 200) + 1))
                assert bytes(file.read_at(start, count)) == data[start : start + count]
                if step == 100:
                    file.settle()  # type: ignore[attr-defined]
        assert web.sent <= len(data)

    def test_shards_beside_their_index(self, web: Web) -> None:
        state = network()
        mapped = {name: f"model-{at % 2 + 1:05}-of-00002.safetensors" for at, name in enumerate(state)}
        for file in set(mapped.values()):
            web.files[f"/m/{file}"] = save({name: state[name] for name in state if mapped[name] == file})
        index = "model.safetensors.index.json"
        web.files[f"/m/{index}"] = json.dumps({"weight_map": mapped}).encode()
        web.files["/m/config.json"] = b'{"model_type": "tiny", "architectures": ["Tiny"]}'
        ref = one(f"{web.url}/m/{index}")
        with open_ref(ref) as opened:
            assert {info.name for info in opened.tensors} == set(state)
            assert opened.ref.card.family == "tiny"
            assert np.array_equal(opened.read("layers.1.weight"), state["layers.1.weight"].numpy())
        with pytest.raises(WeightsError, match="is a shard") as caught:
            open_ref(one(f"{web.url}/m/model-00001-of-00002.safetensors"))
        assert "index" in (caught.value.remedy or "")

    @pytest.mark.parametrize("name", ["../x.safetensors", "http:/127.0.0.1/x.safetensors", "/etc/x.safetensors"])
    def test_an_index_names_no_other_folder(self, web: Web, name: str) -> None:
        web.files["/m/model.safetensors.index.json"] = json.dumps({"weight_map": {"a": name}}).encode()
        web.files["/x.safetensors"] = save(network())
        with pytest.raises(UnsafeError):
            open_ref(one(f"{web.url}/m/model.safetensors.index.json"))
        assert {path for path, _, _ in web.requests} == {"/m/model.safetensors.index.json"}

    def test_names_beside_an_address_are_quoted(self, web: Web) -> None:
        with Opening(f"{web.url}/a%20b/x.json?sig={SECRET}"):
            found = resolve(Path(f"{web.url}/a%20b/x.json").with_name("50% of #1?.bin"))
            assert found.shown == f"{web.url}/a%20b/50%25%20of%20%231%3F.bin"
            assert found.whole == f"{found.shown}?sig={SECRET}"
            for path in (f"{web.url}/y.json", f"{web.url}/a%20b/../y.json", "https://elsewhere.test/a/y.json"):
                with pytest.raises(UnsafeError, match="leads out of the folder"):
                    resolve(Path(path))
        with pytest.raises(UnsafeError):
            resolve(Path(f"{web.url}/a%20b/x.json"))


def write_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((300, 400)))
    return folder / "x.npy"


def write_gguf(folder: Path) -> Path:
    writer = gguf.GGUFWriter(folder / "x.gguf", "llama")
    writer.add_block_count(1)
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(20_000)])
    for name in ("blk.0.ffn_up", "blk.0.ffn_down"):
        writer.add_tensor(f"{name}.weight", np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "x.gguf"


def write_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        for name, shape in {"dense/kernel:0": (300, 400), "dense/bias:0": (400,)}.items():
            file[f"model_weights/dense/{name}"] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return folder / "x.h5"


def write_flax(folder: Path) -> Path:
    state = {"params": {"Dense_0": {"kernel": np.ones((300, 400), np.float32), "bias": np.zeros(400, np.float32)}}}
    (folder / "x.msgpack").write_bytes(serialization.msgpack_serialize(state))
    return folder / "x.msgpack"


def write_onnx(folder: Path) -> Path:
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weight]))
    onnx.save(model, folder / "x.onnx", save_as_external_data=True, location="x data.bin", size_threshold=0)
    return folder / "x.onnx"


def write_torch(folder: Path) -> Path:
    torch.save(network(), folder / "x.pt")
    return folder / "x.pt"


def write_legacy(folder: Path) -> Path:
    torch.save(network(), folder / "x.pt", _use_new_zipfile_serialization=False)
    return folder / "x.pt"


def write_pickle(folder: Path) -> Path:
    arrays = {name: tensor.numpy() for name, tensor in network().items()}
    (folder / "x.pkl").write_bytes(pickle.dumps(arrays))
    return folder / "x.pkl"


def write_torchscript(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Sequential(torch.nn.Linear(64, 64))).save(folder / "x.pt")  # type: ignore[no-untyped-call]
    return folder / "x.pt"


@pytest.mark.parametrize(
    "write",
    [
        write_pickle, write_torchscript, write_torch, write_legacy, write_npy, write_gguf, write_hdf5, write_flax,
        write_onnx,
    ],
)  # fmt: skip
def test_formats_that_are_read_by_ranges(write: Callable[[Path], Path], web: Web, tmp_path: Path) -> None:
    path = write(tmp_path)
    for file in tmp_path.iterdir():
        web.files[f"/a/{file.name.replace(' ', '%20')}"] = file.read_bytes()
    web.user = f"me:{SECRET}"
    reference = f"http://{web.user}@{web.url.removeprefix('http://')}/a/{path.name}"
    with open_ref(one(reference)) as remote, open_ref(one(str(path))) as local:
        same(remote, local)
        assert plan_weights(remote).content_hash == plan_weights(local).content_hash
    for served, data in web.files.items():
        assert sum(count for _, _, count in web.of(served)) <= len(data)


def test_the_header_of_gguf(web: Web, tmp_path: Path) -> None:
    path = write_gguf(tmp_path)
    web.files["/x.gguf"] = path.read_bytes()
    with open_headers(one(f"{web.url}/x.gguf")) as opened:
        assert len(opened.tensors) == 2
    assert web.sent <= path.stat().st_size - 2 * 512 * 512 * 4 + 65536


class TestDownloads:
    """Formats whose readers need a file of this machine, and servers without ranges."""

    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def test_an_archive(self, web: Web, tmp_path: Path) -> None:
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in network().items()}
        np.savez(tmp_path / "x.npz", **arrays)
        web.files["/x.npz"] = (tmp_path / "x.npz").read_bytes()
        with open_ref(one(f"{web.url}/x.npz")) as remote, open_ref(one(str(tmp_path / "x.npz"))) as local:
            same(remote, local)
            assert (remote.ref.source, remote.ref.target) == ("remote", f"{web.url}/x.npz")
            assert os.listdir(tmp_path / "temporary")  # noqa: PTH208
        assert sum(count for _, _, count in web.of("/x.npz")) == len(web.files["/x.npz"])
        assert not os.listdir(tmp_path / "temporary")  # noqa: PTH208 - it is removed with the checkpoint
        with pytest.raises(SourceError, match="not known without") as caught:
            open_headers(one(f"{web.url}/x.npz"))
        assert caught.value.remedy

    def test_an_invalid_file_leaves_nothing_and_is_named_by_its_address(self, web: Web, tmp_path: Path) -> None:
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in network().items()}
        np.savez(tmp_path / "x.npz", **arrays)
        web.files["/x.npz"] = (tmp_path / "x.npz").read_bytes().replace(b"'descr'", b"'desc?'")
        with pytest.raises(SourceError) as caught:
            open_ref(one(f"{web.url}/x.npz"))
        assert "temporary" not in str(caught.value)
        assert f"{web.url}/x.npz" in caught.value.message
        assert not os.listdir(tmp_path / "temporary")  # noqa: PTH208

    def test_shards_of_torch(self, web: Web, tmp_path: Path) -> None:
        for at, (name, tensor) in enumerate(list(network().items())[:2], 1):
            torch.save({name: tensor}, tmp_path / f"pytorch_model-{at:05}-of-00002.bin")
            web.files[f"/m/pytorch_model-{at:05}-of-00002.bin"] = (
                tmp_path / f"pytorch_model-{at:05}-of-00002.bin"
            ).read_bytes()
        mapped = {name: f"pytorch_model-{at:05}-of-00002.bin" for at, name in enumerate(list(network())[:2], 1)}
        web.files["/m/pytorch_model.bin.index.json"] = json.dumps({"weight_map": mapped}).encode()
        with open_ref(one(f"{web.url}/m/pytorch_model.bin.index.json")) as opened:
            assert np.array_equal(opened.read("layers.1.weight"), network()["layers.1.weight"].numpy())

    @pytest.mark.parametrize("lengths", [True, False])
    def test_no_ranges(self, web: Web, caplog: pytest.LogCaptureFixture, lengths: bool) -> None:
        data = save(network(width=256))
        web.files["/x.safetensors"], web.ranges, web.lengths = data, False, lengths
        with open_ref(one(f"{web.url}/x.safetensors")) as opened:
            plan = plan_weights(opened)
            assert opened.read("layers.0.weight").shape == (256, 256)
        assert "no ranges" in "".join(plan.notes)
        assert len(web.of("/x.safetensors")) == 1
        assert any("no ranges" in record.message for record in caplog.records)

    def test_no_ranges_and_a_broken_connection(self, web: Web) -> None:
        data = save(network())
        web.files["/x.safetensors"], web.ranges, web.break_after = data, False, [100_000, 5]
        with open_ref(one(f"{web.url}/x.safetensors")) as opened:
            assert len(opened.tensors) == 12
        web.break_after = [10] * 5
        with pytest.raises(SourceError, match="broke off") as caught:
            open_ref(one(f"{web.url}/x.safetensors"))
        assert caught.value.remedy

    def test_the_disk_is_too_small(self, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tempfile.gettempdir())
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30 + 100_000))
        data = save(network())
        web.files["/x.safetensors"] = data
        with open_ref(one(f"{web.url}/x.safetensors")) as opened:  # by ranges: some are kept, the others read again
            plan_weights(opened)
            assert opened.read("layers.5.weight").shape == (128, 128)
        web.ranges = False
        with pytest.raises(SourceError, match=r"needs 0.0 GB and .* to spare") as caught:
            open_ref(one(f"{web.url}/x.safetensors"))
        assert "TMPDIR" in (caught.value.remedy or "")


class TestServers:
    """Servers that break off, lie, change their mind, or are not there."""

    def refused(self, web: Web, error: type[RegistryError], match: str) -> RegistryError:
        with pytest.raises(error, match=match) as caught, open_ref(one(f"{web.url}/x.safetensors")) as opened:
            plan_weights(opened)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
        return caught.value

    @pytest.fixture(autouse=True)
    def file(self, web: Web) -> bytes:
        web.files["/x.safetensors"] = save(network())
        return web.files["/x.safetensors"]

    def test_broken_connections_are_taken_up_again(self, web: Web, file: bytes) -> None:
        web.break_after = [1000, 0, 50_000, 7, 100_000]
        with open_ref(one(f"{web.url}/x.safetensors")) as opened:
            assert plan_weights(opened).parameters == 6 * (128 * 128 + 128)
        assert web.sent == len(file)  # what had arrived is kept

    def test_busy_servers_are_asked_again(self, web: Web) -> None:
        web.busy = [503, 500, 429]
        with open_ref(one(f"{web.url}/x.safetensors")) as opened:
            assert len(opened.tensors) == 12
        web.busy = [503] * 9
        self.refused(web, SourceError, "could not be read: the server answers with status 503")

    def test_a_connection_that_never_lasts(self, web: Web) -> None:
        web.break_after = [40] * 200
        self.refused(web, SourceError, "broke off")
        assert len(web.requests) < 50

    @pytest.mark.parametrize(
        ("said", "match"),
        [
            ("bytes 5-{stop}/{size}", "states the range 5-"),
            ("bytes {start}-{stop}/*", "no start, end and length"),
            ("bytes {start}-{stop}/10", "of a file of 10 bytes"),
            ("bytes {start}-99999999/999999999", "states the range"),
            ("items 1-2/3", "no start, end and length"),
            ("", "no start"),
        ],
    )
    def test_lies_about_ranges(self, web: Web, said: str, match: str) -> None:
        web.content_range = said or " "
        self.refused(web, SourceError, match)

    def test_claims_more_than_it_has(self, web: Web) -> None:
        web.content_range = "bytes {start}-{stop}/900000000000"
        self.refused(web, WeightsError, "bytes than its header says")

    @pytest.mark.parametrize("length", [10, 10**15])
    def test_lies_about_lengths(self, web: Web, length: int) -> None:
        web.content_length = length
        self.refused(web, SourceError, "states .* bytes for a range of")

    def test_compressed_bodies(self, web: Web) -> None:
        web.extra = {"Content-Encoding": "gzip"}
        self.refused(web, SourceError, "sends it compressed")

    def test_ranges_that_end(self, web: Web) -> None:
        with open_bytes(f"{web.url}/x.safetensors") as file:
            web.ranges = False
            with pytest.raises(SourceError, match="no longer reads by ranges"):
                file.read_at(200_000, 100)

    @pytest.mark.parametrize("etags", [['"one"', '"two"'], ['W/"one"', 'W/"two"']])
    def test_a_file_that_changes(self, web: Web, etags: list[str], tmp_path: Path) -> None:
        web.etags, web.etag = etags[:1], etags[1]
        self.refused(web, WeightsError, "changed while it was read")
        web.etags, web.etag = etags[:1], etags[1]
        registry = Registry(f"sqlite:///{tmp_path}/r.db")
        (result,) = registry.ingest_all(registry.plan([f"{web.url}/x.safetensors"]), workers=1)
        assert (result.status, "changed" in result.message) == ("failed", True)
        assert not list(tmp_path.iterdir())

    def test_a_file_that_grows(self, web: Web, file: bytes) -> None:
        web.etag = None
        with open_bytes(f"{web.url}/x.safetensors") as opened:
            web.files["/x.safetensors"] = file + b"more"
            with pytest.raises(WeightsError, match="changed"):
                opened.read_at(200_000, 10)

    def test_web_pages_and_empty_files(self, web: Web) -> None:
        web.files["/x.safetensors"] = b"<!DOCTYPE html><html>log in</html>"
        self.refused(web, WeightsError, "is a web page")
        web.files["/x.safetensors"] = b""
        self.refused(web, WeightsError, "is empty")
        web.ranges = False
        self.refused(web, WeightsError, "is empty")
        web.files["/x.safetensors"] = b"no weights at all"
        self.refused(web, WeightsError, "no known format")

    def test_what_is_not_there(self, web: Web) -> None:
        del web.files["/x.safetensors"]
        self.refused(web, NotFoundError, "there is no file http")

    def test_a_host_that_is_not_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_file, "DELAYS", ())
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        with pytest.raises(SourceError, match="could not be read") as caught:
            open_ref(one(f"http://127.0.0.1:{port}/x.safetensors"))
        assert "download the file elsewhere" in (caught.value.remedy or "")
        monkeypatch.setattr(socket, "getaddrinfo", _no_name)
        with pytest.raises(SourceError, match=r"the host nowhere\.test of .* cannot be found") as caught:
            open_ref(one("https://nowhere.test/x.safetensors"))
        assert "network" in (caught.value.remedy or "")

    def test_redirects(self, web: Web) -> None:
        web.moved = {"/latest": "/moved/again", "/moved/again": f"{web.url}/x.safetensors"}
        with open_ref(one(f"{web.url}/latest")) as opened:
            plan_weights(opened)
            assert opened.ref.target == f"{web.url}/latest"
        assert len(web.of("/latest")) == 1  # later ranges are asked for where it leads
        web.moved = {"/latest": "/latest"}
        with pytest.raises(SourceError, match="redirects more than 5 times"):
            open_ref(one(f"{web.url}/latest"))

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "https://127.0.0.1:1/x", "ftp://127.0.0.1/x", "gopher:"])
    def test_redirects_to_another_kind_of_address(self, web: Web, to: str) -> None:
        web.moved = {"/x.safetensors": to}
        self.refused(web, SourceError, "redirects to")


GOOD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/4\r\n\r\nGGUF"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers every request by the same bytes, whatever they are."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that closes its connection is no error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\0" * 100, b"hello\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n", b"HTTP/1.1 206 OK\r\n\r\n", b"HTTP/1.1 304 OK\r\n\r\n",
        b"HTTP/1.1 204 OK\r\n\r\n",
        b"HTTP/1.1 302 OK\r\n\r\n", b"HTTP/1.1 302 OK\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 302 OK\r\nLocation: http://h:99999999/\r\n\r\n", b"HTTP/1.1 302 OK\r\nLocation: \xff\xfe\r\n\r\n",
        b"HTTP/1.1 302 OK\r\nLocation: http:\r\n\r\n", b"HTTP/1.1 302 OK\r\nLocation: //:x@/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Type: multipart/byteranges; boundary=a\r\nContent-Length: 9\r\n\r\n--a\r\nabcd",
        b"HTTP/1.1 503 OK\r\nRetry-After: -1\r\n\r\n", b"HTTP/1.1 503 OK\r\nRetry-After: Wed, 21 Oct 2015\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        GOOD, GOOD[:40], GOOD[:-2], GOOD.replace(b"0-3/4", b"0-3/" + b"9" * 18), GOOD.replace(b"0-3/4", b"3-0/4"),
        GOOD.replace(b"Length: 4", b"Length: 4\r\nContent-Encoding: br"), GOOD.replace(b"GGUF", b"GGUF" * 1000),
    ],
)  # fmt: skip
def test_servers_that_speak_no_http(answer: bytes, web: Web) -> None:
    with answering(answer) as address, pytest.raises(SourceError) as caught:
        open_ref(one(address))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("seed", range(40))
def test_damaged_answers(seed: int, web: Web) -> None:
    rng = np.random.default_rng(seed)
    answer = bytearray(GOOD)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(answer)))
        answer[at : at + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 3)))
    with answering(bytes(answer)) as address, pytest.raises(SourceError) as caught:
        open_ref(one(address))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def _no_name(*_: object, **__: object) -> None:
    raise socket.gaierror(-2, "Name or service not known")


class TestHub:
    """Headers of models at the hub."""

    @pytest.fixture(autouse=True)
    def no_proxy(self, web: Web) -> None:
        """As for the other servers of this machine."""

    def test_a_header(self, hub: Hub, tmp_path: Path) -> None:
        data = save(network(layers=30) | {"last": torch.zeros(2**18)})
        files = {"model.safetensors": data, "config.json": b'{"model_type": "tiny"}', "README.md": b"x"}
        hub.repositories["org/name"] = Repository(files)
        with open_headers(one("hf:org/name")) as opened:
            assert len(opened.tensors) == 61
            assert (opened.ref.source, opened.ref.card.revision) == ("hf", "1" * 40)
            assert opened.ref.card.family == "tiny"
        assert sum(count for name, count in hub.ranges if name == "model.safetensors") <= header_size(data) + 65536
        assert f"Bearer {TOKEN}" in hub.tokens
        assert not list((tmp_path / "hub").rglob("*.safetensors"))
        registry = Registry(f"sqlite:///{tmp_path}/r.db")
        assert registry.ingest("hf:org/name", headers_only=True).status == "added"
        assert TOKEN.encode() not in (tmp_path / "r.db").read_bytes()

    def test_shards(self, hub: Hub) -> None:
        mapped = {name: f"model-{at % 2 + 1:05}-of-00002.safetensors" for at, name in enumerate(network())}
        files = {
            file: save({name: tensor for name, tensor in network().items() if mapped[name] == file})
            for file in set(mapped.values())
        }
        files["model.safetensors.index.json"] = json.dumps({"weight_map": mapped}).encode()
        hub.repositories["org/name"] = Repository(files)
        with open_headers(one("hf:org/name")) as opened:
            assert {info.name for info in opened.tensors} == set(network())
        assert sum(count for _, count in hub.ranges) < sum(map(len, files.values())) / 2

    def test_what_is_cached_and_what_is_not_there(self, hub: Hub) -> None:
        hub.repositories["org/name"] = Repository({"model.safetensors": save(network())})
        with open_ref(one("hf:org/name")) as opened:
            plan_weights(opened)
        requests = len(hub.requests)
        with open_headers(one("hf:org/name")) as opened:
            assert len(opened.tensors) == 12
        assert len(hub.requests) == requests
        hub.repositories["org/text"] = Repository({"README.md": b"x"})
        for name, words in (("org/text", "has no safetensors"), ("org/gone", "the hub has no model")):
            with pytest.raises(NotFoundError, match=words) as caught:
                open_headers(one(f"hf:{name}"))
            assert TOKEN not in str(caught.value)


class TestSecrets:
    def test_what_is_shown_and_stored(self, web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        web.files["/m/model.safetensors"] = save(network())
        web.user, web.query = f"me:{SECRET}", f"X-Signature={SECRET}"
        host = web.url.removeprefix("http://")
        reference = f"http://me:{SECRET}@{host}/m/model.safetensors?X-Signature={SECRET}#{SECRET}"
        ref = one(reference)
        assert ref.target == f"{web.url}/m/model.safetensors"
        assert SECRET not in repr(ref)
        registry = Registry(f"sqlite:///{tmp_path}/r.db")
        added = registry.ingest(reference)
        assert (added.status, added.reference) == ("added", f"{web.url}/m/model.safetensors")
        assert registry.show(added.name).summary.location == f"{web.url}/m/model.safetensors"
        assert SECRET not in caplog.text
        assert SECRET.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
        web.query = "another"
        with pytest.raises(SourceError, match="refuses access") as caught:
            open_ref(ref)
        assert SECRET not in str(caught.value)
        assert "expire" in (caught.value.remedy or "")

    def test_the_command_line(self, web: Web, tmp_path: Path) -> None:
        web.files["/x.safetensors"] = save(network())
        web.query = f"sig={SECRET}"
        command = [sys.executable, "-c", "from registry.cli.app import main; main()", "ingest"]
        command += [
            f"{web.url}/x.safetensors?sig={SECRET}",
            f"{web.url}/gone?sig={SECRET}",
            f"ftp://me:{SECRET}@h/x",
            "--db",
            f"sqlite:///{tmp_path}/r.db",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 3, done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())

    def test_users_stay_with_their_host(self, web: Web) -> None:
        web.files["/x.safetensors"] = save(network())
        with serving_files() as other:
            other.moved["/x"] = f"{web.url}/x.safetensors"
            host = other.url.removeprefix("http://")
            open_ref(one(f"http://me:{SECRET}@{host}/x?sig={SECRET}")).close()
            assert any("Authorization" in headers for headers in other.headers)
        assert web.headers
        sent = {"X-Token": SECRET}
        with serving_files() as other:
            other.moved["/x"] = f"{web.url}/x.safetensors"
            open_address(one(f"{other.url}/x"), f"{other.url}/x", sent=sent).close()
            assert other.headers[0]["X-Token"] == SECRET
        assert SECRET not in str(web.requests) + str(web.headers)
        assert not any("Authorization" in headers for headers in web.headers)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("https://a:b@h/p/x?q#f", "https://h/p/x"),
            ("HTTPS://a@h?q", "HTTPS://h"),
            ("s3://k:s@bucket/key?v", "s3://bucket/key?v"),
            ("ftp://a:b@h/x?q", "ftp://h/x"),
            ("hf:org/name", "hf:org/name"),
            ("a@b/x?y", "a@b/x?y"),
        ],
    )
    def test_without_secrets(self, text: str, shown: str) -> None:
        assert without_secrets(text) == shown
        assert deferred(text).target == shown

    @pytest.mark.parametrize(
        "address",
        [
            "https://", "https:///x", "https://h", "https://h/", "https://h/folder/", "https://h:port/x", "https://[::1/x",
            "https://h/a b", "https://h/\x00", "https://h/\nx", "s3://bucket", "s3:///key", "memory://", "gs://b/",
            "https://h/" + "x" * 9000,
        ],
    )  # fmt: skip
    def test_no_addresses(self, address: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            expand(address)
        assert caught.value.remedy
        assert len(str(caught.value)) < 500

    def test_keys_in_addresses_of_stores(self) -> None:
        with pytest.raises(UnsafeError, match="holds a user or key") as caught:
            expand(f"s3://me:{SECRET}@bucket/x")
        assert SECRET not in str(caught.value)

    def test_international_names(self) -> None:
        assert split("https://bücher.test/ü x".replace(" ", "")).shown == "https://xn--bcher-kva.test/%C3%BCx"


class TestStores:
    def test_missing_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs")):
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(SourceError, match=f"{package} is needed for {scheme}:") as caught:
                open_ref(one(f"{scheme}://bucket/x.safetensors"))
            assert caught.value.remedy == f"pip install {package}"
        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(SourceError, match="fsspec is needed") as caught:
            open_ref(one("memory://a/x.safetensors"))
        assert caught.value.remedy == "pip install 'architecture-registry[remote]'"

    def test_what_is_not_there(self) -> None:
        fsspec.filesystem("memory").pipe("/here/x/y", b"1")
        with pytest.raises(NotFoundError, match="there is no file memory://gone/x"):
            open_ref(one("memory://gone/x"))
        with pytest.raises(NotFoundError, match="is a folder"):
            open_ref(one("memory://here/x"))

    def test_a_file_that_changes(self) -> None:
        store = fsspec.filesystem("memory")
        data = save(network())
        store.pipe("/changing/x.safetensors", data)
        with open_bytes("memory://changing/x.safetensors") as file:
            store.pipe("/changing/x.safetensors", data[::-1])
            with pytest.raises(WeightsError, match="changed while it was read"):
                file.read_at(300_000, 100)

    def test_errors_of_clients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class BrokenError(Exception):
            pass

        def fail(*_: object, **__: object) -> None:
            raise BrokenError(f"key {SECRET}")

        fsspec.filesystem("memory").pipe("/broken/x.safetensors", save(network()))
        monkeypatch.setattr(fsspec.filesystem("memory"), "cat_file", fail)
        with pytest.raises(SourceError, match="could not be read: BrokenError") as caught:
            open_ref(one("memory://broken/x.safetensors"))
        assert SECRET not in str(caught.value)
        assert object_store.ObjectFile("memory://broken/x.safetensors").size is None


class TestRegistry:
    def test_ingest_and_manifest(self, web: Web, tmp_path: Path) -> None:
        data = save(network())
        web.files["/a/x.safetensors"] = data
        (tmp_path / "m.jsonl").write_text(
            json.dumps({"ref": f"{web.url}/a/x.safetensors", "name": "far", "family": "f"})
            + "\n"
            + json.dumps({"ref": f"{web.url}/a/gone.safetensors", "name": "gone"})
        )
        registry = Registry(f"sqlite:///{tmp_path}/r.db")
        results = registry.ingest_all(registry.plan([], manifest=tmp_path / "m.jsonl"), workers=1)
        assert [(result.name, result.status) for result in results] == [("far", "added"), ("gone", "failed")]
        stored = registry.show("far").summary
        assert (stored.location, stored.format) == (f"{web.url}/a/x.safetensors", "remote")
        assert stored.source == f"{web.url}/a/x.safetensors"
        (tmp_path / "x.safetensors").write_bytes(data)
        assert registry.ingest(tmp_path / "x.safetensors", name="near").status == "named"

    def test_plans_ask_nothing(self, web: Web, tmp_path: Path) -> None:
        registry = Registry(f"sqlite:///{tmp_path}/r.db")
        plan = registry.plan([f"{web.url}/a/x.safetensors"])
        assert [ref.cached for ref in plan] == [False]
        registry.estimate(plan)
        assert not web.requests
