"""Models opened by their header alone: nothing else of a file is read, and the plan is that of the weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from registry.errors import NotFoundError, SourceError, WeightsError
from registry.sources import expand, header_bytes, layer_matrix, open_headers, open_ref, plan_headers, plan_weights
from registry.sources.files.byte_source import LocalBytes, counted_bytes, open_bytes
from registry.sources.header_only import ALLOWED, HeaderCheckpoint
from tests.layouts.quantised_files import QUANTISED
from tests.sources.conftest import TOKEN
from tests.sources.hubserver import Repository
from tests.sources.webserver import serving_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry.types import ModelRef, WeightsPlan
    from tests.sources.hubserver import Hub
    from tests.sources.webserver import Web

RNG = np.random.default_rng(0)
STATE = {
    f"layers.{layer}.{name}.weight": RNG.standard_normal(shape, dtype=np.float32)
    for layer in range(3)
    for name, shape in (("conv", (64, 32, 3, 3)), ("fc", (200, 128)))
}
"""Some 0.6 MB: far more than may be read beside a header."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Name of the file, start and count of every read of bytes."""
    found: list[tuple[str, int, int]] = []
    plain = LocalBytes.read_at

    def read_at(self: LocalBytes, start: int, count: int) -> bytearray:
        found.append((self.name.rpartition("/")[2], start, count))
        return plain(self, start, count)

    monkeypatch.setattr(LocalBytes, "read_at", read_at)
    return found


@pytest.fixture
def web() -> Iterator[Web]:
    with serving_files() as made:
        yield made


def ref_of(path: Path) -> ModelRef:
    [ref] = expand(path)
    return ref


def by_header(path: Path) -> WeightsPlan:
    with open_headers(ref_of(path)) as checkpoint:
        return plan_headers(checkpoint)


def by_weights(path: Path) -> WeightsPlan:
    with open_ref(ref_of(path)) as checkpoint:
        return plan_weights(checkpoint)


def one_file(folder: Path) -> Path:
    save_file(STATE, folder / "a.safetensors")
    return folder / "a.safetensors"


def shards(folder: Path) -> Path:
    index: dict[str, Any] = {"weight_map": {}}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003.safetensors"
        part = {key: value for key, value in STATE.items() if f"layers.{number}." in key}
        save_file(part, folder / name)
        index["weight_map"] |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "model.safetensors.index.json"


def torch_file(folder: Path) -> Path:
    torch.save({name: torch.from_numpy(values) for name, values in STATE.items()}, folder / "a.pt")
    return folder / "a.pt"


def gguf_file(folder: Path) -> Path:
    writer = gguf.GGUFWriter(folder / "a.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"word{number}" for number in range(500)])
    for name, values in STATE.items():
        if "fc" in name:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "a.gguf"


def onnx_file(folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in STATE.items() if "conv" in name]
    nodes = [
        onnx.helper.make_node("Conv", [f"x{at}", tensor.name], [f"x{at + 1}"], name=tensor.name.removesuffix(".weight"))
        for at, tensor in enumerate(tensors)
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x0", f"x{len(tensors)}")
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(onnx.helper.make_model(graph), folder / "a.onnx", save_as_external_data=True, location="a.data")
    return folder / "a.onnx"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "safetensors": one_file,
    "shards": shards,
    "torch": torch_file,
    "gguf": gguf_file,
    "onnx": onnx_file,
}
formats = pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS.keys())


@formats
def test_the_plan_is_that_of_the_weights(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    alone, whole = by_header(path), by_weights(path)
    assert (alone.weights_read, whole.weights_read) == (False, True)
    assert alone.content_hash == f"header:{whole.header}"
    assert len(whole.header) == 64
    assert replace(alone, content_hash=whole.content_hash) == whole
    assert alone.layers


@formats
def test_no_weights_are_read(make: Callable[[Path], Path], tmp_path: Path, reads: list[tuple[str, int, int]]) -> None:
    path = make(tmp_path)
    weights = sum(value.nbytes for value in STATE.values()) // 3
    by_header(path)
    alone = sum(count for _, _, count in reads)
    assert 0 < alone <= 64 * 1024
    assert not any(name == "a.data" for name, _, _ in reads)
    reads.clear()
    by_weights(path)
    assert sum(count for _, _, count in reads) > weights > alone  # which the count would show


def test_of_safetensors_the_header_and_nothing_else(tmp_path: Path, reads: list[tuple[str, int, int]]) -> None:
    many = {f"block.{number:04}.weight": np.zeros((2, 2), np.float16) for number in range(5_000)}
    save_file(many, tmp_path / "many.safetensors")
    path = tmp_path / "many.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    by_header(path)
    assert max(start + count for _, start, count in reads) <= header
    assert sum(count for _, _, count in reads) <= header + 64 * 1024
    assert header_bytes(ref_of(path)) == header > 300_000


def test_the_count_is_of_what_is_opened_within(tmp_path: Path) -> None:
    path = one_file(tmp_path)
    with open_bytes(path) as outside, counted_bytes() as count, open_bytes(path) as inside:
        outside.read_at(0, 100)
        assert inside.read_at(8, 30) == outside.read_at(8, 30)
        inside.read_at(0, 8)
    with open_bytes(path) as later:
        later.read_at(0, 100)
    assert count.bytes == 38


def test_headers_at_two_places_differ(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one, other = one_file(tmp_path), one_file(tmp_path / "b")
    assert one.read_bytes() == other.read_bytes()
    assert by_header(one).header != by_header(other).header
    assert by_weights(one).content_hash == by_weights(other).content_hash
    save_file(STATE, one)
    before = by_header(one).header
    save_file({**STATE, "bias": np.zeros(3, np.float32)}, one)
    assert by_header(one).header != before
    save_file({name: value.astype(np.float16) for name, value in STATE.items()}, one)
    assert by_header(one).header != before
    save_file(dict(reversed(STATE.items())), one)
    assert by_header(one).header == before


def test_weights_in_memory_have_no_header() -> None:
    from registry.sources import open_module

    with open_module({"a.weight": torch.ones(4, 4), "b.weight": torch.eye(4)}, "a") as checkpoint:
        assert plan_weights(checkpoint).header == ""


def test_zeros_and_copies_are_not_seen(tmp_path: Path) -> None:
    shared = RNG.standard_normal((8, 8), dtype=np.float32)
    state = {"a.weight": shared, "b.weight": shared.copy(), "c.weight": np.zeros((8, 8), np.float32)}
    save_file(state, tmp_path / "a.safetensors")
    assert [layer.name for layer in by_header(tmp_path / "a.safetensors").layers] == [*state]
    assert [layer.name for layer in by_weights(tmp_path / "a.safetensors").layers] == ["a.weight"]


def test_ties_that_metadata_tells_are(tmp_path: Path) -> None:
    table = torch.randn(8, 4)
    state = {"model.embed_tokens.weight": table, "model.fc.weight": torch.eye(4)}
    save_torch(state, tmp_path / "a.safetensors", metadata={"lm_head.weight": "model.embed_tokens.weight"})
    assert len(by_header(tmp_path / "a.safetensors").layers) == len(by_weights(tmp_path / "a.safetensors").layers)


@pytest.mark.parametrize("layout", QUANTISED)
def test_quantised_weights(layout: str, tmp_path: Path, reads: list[tuple[str, int, int]]) -> None:
    made = QUANTISED[layout]
    torch.manual_seed(0)
    state = {}
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        parts, _ = made.quantise(name, 0.02 * torch.randn(512, 512))
        state |= {part: value.contiguous() for part, value in parts.items()}
    save_torch(state, tmp_path / "model.safetensors")
    config = {"model_type": "llama", "quantization_config": made.configuration}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path / "model.safetensors"
    alone = by_header(path)
    assert sum(count for _, _, count in reads) <= 64 * 1024
    whole = by_weights(path)
    assert replace(alone, content_hash=whole.content_hash) == whole
    assert made.precision in alone.precision


class TestRefused:
    def test_a_source_without_headers(self) -> None:
        [ref] = expand("torchvision:resnet18.random")
        with pytest.raises(SourceError, match="are not known without reading its weights") as refused:
            open_headers(ref)
        assert refused.value.remedy == "ingest it without --headers-only, or save it as safetensors"
        assert header_bytes(ref) is None

    def test_values(self, tmp_path: Path) -> None:
        path = one_file(tmp_path)
        with open_headers(ref_of(path)) as checkpoint:
            layer = plan_headers(checkpoint).layers[0]
            with pytest.raises(WeightsError, match="the layers are not known from the header alone") as refused:
                layer_matrix(checkpoint, layer)
            assert layer.tensor in refused.value.message
            assert refused.value.remedy == "ingest it without --headers-only"

    def test_small_tensors_once_they_add_up(self, tmp_path: Path) -> None:
        save_file({f"t{number}": np.ones(1024, np.float32) for number in range(20)}, tmp_path / "a.safetensors")
        with open_ref(ref_of(tmp_path / "a.safetensors")) as stored:
            checkpoint = HeaderCheckpoint(stored)
            for number in range(ALLOWED // 4096):
                assert len(checkpoint.raw(f"t{number}")) == 4096
            with pytest.raises(WeightsError, match="t16"):
                checkpoint.span("t16", 0, 1)
            with pytest.raises(WeightsError, match="t3"):
                checkpoint.read("t3")

    def test_a_file_that_is_gone_or_damaged(self, tmp_path: Path) -> None:
        path = one_file(tmp_path)
        ref = ref_of(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(WeightsError, match="incomplete"):
            open_headers(ref)
        path.unlink()
        with pytest.raises(NotFoundError):
            open_headers(ref)
        assert header_bytes(ref) is None
        with pytest.raises(NotFoundError, match="unknown source 'none'"):
            open_headers(replace(ref, source="none"))


class TestHub:
    @staticmethod
    def files(folder: Path, *, sharded: bool = False) -> dict[str, bytes]:
        (folder / "upload").mkdir()
        (shards if sharded else one_file)(folder / "upload")
        found = {path.name: path.read_bytes() for path in (folder / "upload").iterdir()}
        return {name.replace("a.safetensors", "model.safetensors"): data for name, data in found.items()}

    @pytest.mark.parametrize("sharded", [False, True])
    def test_nothing_is_downloaded(self, sharded: bool, hub: Hub, tmp_path: Path) -> None:
        files = self.files(tmp_path, sharded=sharded)
        config = json.dumps({"model_type": "resnet", "architectures": ["Net"]}).encode()
        hub.repositories["org/net"] = Repository({**files, "config.json": config}, info={"pipeline_tag": "ranking"})
        [ref] = expand("hf:org/net")
        with open_headers(ref) as checkpoint:
            plan, card = plan_headers(checkpoint), checkpoint.ref.card
            assert checkpoint.ref.target == "org/net"
            assert checkpoint.facts.config["model_type"] == "resnet"
        assert sum(count for _, count in hub.ranges) <= 64 * 1024 * len(files) < sum(map(len, files.values()))
        assert not (tmp_path / "hub").exists()
        assert f"Bearer {TOKEN}" in hub.tokens
        assert (card.source, card.revision, card.task) == ("hf:org/net", "1" * 40, "ranking")
        with open_ref(ref) as checkpoint:  # which downloads it
            whole = plan_weights(checkpoint)
        assert replace(plan, content_hash=whole.content_hash) == whole
        assert plan.content_hash == f"header:{whole.header}"
        # In the cache it is read there.
        hub.ranges.clear()
        for [again] in (expand("hf:org/net"), expand(f"hf:org/net@{'1' * 40}")):
            with open_headers(again) as checkpoint:
                assert plan_headers(checkpoint).layers == plan.layers
        hub.repositories["org/net"].refuse = (500, "")
        with open_headers(ref) as checkpoint:
            assert plan_headers(checkpoint) == plan
        assert hub.ranges == []

    def test_pickled_weights(self, hub: Hub, tmp_path: Path) -> None:
        data = torch_file(tmp_path).read_bytes()
        hub.repositories["org/net"] = Repository({"pytorch_model.bin": data})
        [ref] = expand("hf:org/net")
        with open_headers(ref) as checkpoint:
            plan = plan_headers(checkpoint)
        assert [layer.shape for layer in plan.layers] == [values.shape for values in STATE.values()]
        assert sum(count for _, count in hub.ranges) < len(data) / 2
        assert not (tmp_path / "hub").exists()

    @pytest.mark.parametrize(
        ("refuse", "files", "match"),
        [
            ((401, "GatedRepo"), {}, "org/net is gated"),
            ((404, "RevisionNotFound"), {}, "org/net has no revision 'main'"),
            ((500, ""), {}, "the hub answers with status 500"),
            (None, {"README.md": b"x"}, "org/net has no safetensors and no pytorch_model.bin at its top"),
        ],
    )
    def test_refusals(self, refuse: tuple[int, str] | None, files: dict[str, bytes], match: str, hub: Hub) -> None:
        hub.repositories["org/net"] = Repository(files, refuse=refuse)
        [ref] = expand("hf:org/net")
        with pytest.raises(SourceError, match=match) as refused:
            open_headers(ref)
        assert TOKEN not in str(refused.value)
        assert refused.value.remedy


def test_a_remote_header(web: Web, tmp_path: Path) -> None:
    path = one_file(tmp_path)
    web.files["/a.safetensors"] = path.read_bytes()
    [ref] = expand(f"{web.url}/a.safetensors")
    with open_headers(ref) as checkpoint:
        plan = plan_headers(checkpoint)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert web.sent <= header + 64 * 1024
    with open_ref(ref) as checkpoint:
        whole = plan_weights(checkpoint)
    assert replace(plan, content_hash=whole.content_hash) == whole
    assert whole.header == plan.header != by_header(path).header


ONNX_LAYERS, ONNX_SIDE = 24, 512  # of 1 MB each


def remote_onnx(web: Web, folder: Path, *, external: bool) -> str:
    """The address of a model of 25 MB in the server, its weights inline or in a file beside it."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shape = (ONNX_SIDE, ONNX_SIDE)
    tensors = [
        onnx.numpy_helper.from_array(
            np.random.default_rng(n).standard_normal(shape, dtype=np.float32), f"l{n:02}.weight"
        )
        for n in range(ONNX_LAYERS)
    ]
    nodes = [helper.make_node("MatMul", [f"x{n}", tensor.name], [f"x{n + 1}"]) for n, tensor in enumerate(tensors)]
    ends = [helper.make_tensor_value_info(f"x{n}", float32, None) for n in (0, ONNX_LAYERS)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    onnx.save(model, folder / "a.onnx", save_as_external_data=external, location="a.data" if external else None)
    web.files |= {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return f"{web.url}/a.onnx"


@pytest.mark.parametrize(("external", "requests", "sent"), [(True, 2, 4096), (False, 2 * ONNX_LAYERS + 6, 3.5e6)])
def test_what_a_remote_onnx_header_costs(external: bool, requests: int, sent: float, web: Web, tmp_path: Path) -> None:
    """Weights beside the model cost nothing. Inline, the header of each tensor is in one or two blocks of 64 KiB."""
    [ref] = expand(remote_onnx(web, tmp_path, external=external))
    with open_headers(ref) as checkpoint:
        plan = plan_headers(checkpoint)
    assert [layer.shape for layer in plan.layers] == [(ONNX_SIDE, ONNX_SIDE)] * ONNX_LAYERS
    assert plan.parameters == ONNX_LAYERS * ONNX_SIDE**2
    assert web.of("/a.onnx")
    assert not external or not web.of("/a.data")
    assert len(web.requests) <= requests
    assert web.sent <= sent < ONNX_LAYERS * 4 * ONNX_SIDE**2 / 5
