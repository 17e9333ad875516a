from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from registry.errors import AmbiguousError, NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import discard, expand, open_ref, plan_weights
from registry.sources.published.hub_cache import choose
from registry.types import Metric, ModelCard
from tests.sources.conftest import TOKEN
from tests.sources.hubserver import Repository

if TYPE_CHECKING:
    from tests.sources.hubserver import Hub

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.weight": torch.eye(3)}
RESULT = {
    "task": {"type": "image-classification"},
    "dataset": {"name": "ImageNet", "type": "imagenet-1k", "split": "test"},
    "metrics": [{"type": "accuracy", "value": 0.8}, {"type": "note", "value": "good"}],
}
OTHER = {"a.weight": torch.ones(3, 4)}


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def shards(suffix: str = "safetensors") -> dict[str, bytes]:
    """STATE in two files and their index."""
    write = save if suffix == "safetensors" else pickled
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    files = {f"{stem}-{i:05}-of-00002.{suffix}": {name: STATE[name]} for i, name in enumerate(STATE, 1)}
    index = {"weight_map": {name: file for file, state in files.items() for name in state}}
    return {
        f"{stem}.{suffix}.index.json": json.dumps(index).encode(),
        **{file: write(state) for file, state in files.items()},
    }


def content(reference: str) -> str:
    with open_ref(expand(reference)[0]) as checkpoint:
        return plan_weights(checkpoint).content_hash


def expected(folder: Path) -> str:
    (folder / "expected.safetensors").write_bytes(save(STATE))
    return content(str(folder / "expected.safetensors"))


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"model.safetensors": save(STATE), "pytorch_model.bin": pickled(OTHER), **shards()}, {"model.safetensors"}),
        ({"pytorch_model.bin": pickled(STATE), "tf_model.h5": b"x"}, {"pytorch_model.bin"}),
        ({**shards(), "pytorch_model.bin": pickled(OTHER), "extra.safetensors.txt": b"x"}, set(shards())),
        (shards("bin"), set(shards("bin"))),
        ({"open_clip_model.safetensors": save(STATE), "sub/model.safetensors": b"x"}, {"open_clip_model.safetensors"}),
    ],
)
def test_only_the_best_weights_are_downloaded(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], wanted: set[str]
) -> None:
    hub.repositories["org/name"] = Repository({"README.md": b"# A model", "config.json": b"{}", "run.py": b"", **files})
    (ref,) = expand("hf:org/name")
    assert (ref.name, ref.bytes, ref.cached) == ("hf/org/name", None, False)
    assert not hub.requests  # expanding asks nothing
    assert content("hf:org/name") == expected(tmp_path)
    assert hub.fetched() == wanted | {"config.json"}
    (again,) = expand("hf:org/name")
    assert (again.cached, again.bytes) == (True, sum(len(files[name]) for name in wanted))


def test_the_commit_is_the_revision_and_the_card_is_filled(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository(
        {"model.safetensors": save(STATE)},
        commit="a" * 40,
        info={
            "pipeline_tag": "image-classification",
            "config": {"model_type": "vit", "architectures": ["ViTForImageClassification"]},
            "cardData": {
                "license": "apache-2.0",
                "datasets": ["imagenet-1k", "other"],
                "base_model": "org/base\0",
                "model-index": [{"name": "name", "results": [RESULT]}],
            },
        },
    )
    (ref,) = expand("hf:org/name@main")
    with open_ref(ref) as checkpoint:
        card = checkpoint.ref.card
        assert (checkpoint.ref.source, checkpoint.ref.target) == ("hf", "org/name@main")
    assert card == ModelCard(
        family="vit", architecture="ViTForImageClassification", task="image-classification", dataset="imagenet-1k",
        licence="apache-2.0", source="hf:org/name@main", revision="a" * 40,
        metrics=(Metric("accuracy", 0.8, "ImageNet", "test", None, "hub"),), tags=(("base_model", "org/base"),),
    )  # fmt: skip


def test_what_the_user_says_wins_over_the_card(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository(
        {"model.safetensors": save(STATE)}, info={"config": {"model_type": "vit"}}
    )
    (ref,) = expand("hf:org/name")
    with open_ref(replace(ref, card=ref.card.updated(ModelCard(family="mine")))) as checkpoint:
        assert checkpoint.ref.card.family == "mine"


@pytest.mark.parametrize("info", [{"cardData": {"license": 3, "datasets": {}}}, {"config": []}, {"pipeline_tag": [1]}])
def test_a_card_of_nonsense_is_an_empty_card(hub: Hub, info: dict[str, object]) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)}, info=info)
    with open_ref(expand("hf:org/name")[0]) as checkpoint:
        card = checkpoint.ref.card
    assert (card.family, card.licence, card.dataset, card.task, card.tags) == ("", "", "", "", ())


def test_a_commit_in_the_cache_is_opened_without_a_request(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)})
    reference = f"hf:org/name@{'1' * 40}"
    first = content(reference)
    assert hub.requests
    hub.requests.clear()
    assert content(reference) == first
    assert not hub.requests
    content("hf:org/name")
    assert hub.requests  # a branch may have moved
    assert "model.safetensors" not in hub.fetched()


def test_a_branch_that_moved_is_followed(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(OTHER)})
    old = content("hf:org/name")
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)}, commit="2" * 40)
    with open_ref(expand("hf:org/name")[0]) as checkpoint:
        assert checkpoint.ref.card.revision == "2" * 40
        assert plan_weights(checkpoint).content_hash != old
    assert content(f"hf:org/name@{'1' * 40}") == old


def test_without_the_hub_the_cache_is_taken_and_that_is_said(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.repositories["org/name"] = Repository(shards())
    first = content("hf:org/name")
    hub.repositories["org/name"].refuse = (503, "")
    with caplog.at_level(logging.WARNING, logger="registry.sources"):
        assert content("hf:org/name") == first
    assert "503" in caplog.text
    assert f"taking {'1' * 40} from the cache" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert content("hf:org/name") == first


def test_offline_it_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match="not in the cache, and HF_HUB_OFFLINE is set") as caught:
        open_ref(expand("hf:org/name")[0])
    assert "hf download org/name --local-dir" in str(caught.value.remedy)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(SourceError, match=r"org/name could not be downloaded: .*refused") as caught:
        open_ref(expand("hf:org/name")[0])
    assert "\n" not in str(caught.value)
    assert "hf download org/name --local-dir" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("refuse", "kind", "text"),
    [
        ((401, "RepoNotFound"), NotFoundError, "no model org/name, or you have no access to it.*hf auth login"),
        ((403, "GatedRepo"), SourceError, "is gated.*hf auth login"),
        ((500, ""), SourceError, "answers with status 500"),
    ],
)
def test_refusals_of_the_hub_are_one_line(hub: Hub, refuse: tuple[int, str], kind: type, text: str) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)}, refuse=refuse)
    with pytest.raises(kind, match=text) as caught:
        open_ref(expand("hf:org/name")[0])
    assert "\n" not in str(caught.value)
    assert hub.url not in str(caught.value)
    assert f"Bearer {TOKEN}" in hub.tokens  # it was sent, and is not told
    assert TOKEN not in str(caught.value)


def test_a_token_that_cannot_be_sent_is_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\x01more")
    with pytest.raises(SourceError) as caught:
        open_ref(expand("hf:org/name")[0])
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "kind", "text"),
    [
        ({"config.json": b"{}"}, NotFoundError, "no safetensors and no pytorch_model.bin at its top"),
        ({"unet/x.safetensors": b"x"}, NotFoundError, "but unet/x.safetensors.*hf download org/name --local-dir"),
        (
            {"a.safetensors": b"x", "b.safetensors": b"x"},
            AmbiguousError,
            "holds 2 models: a.safetensors, b.safetensors",
        ),
        ({n: d for n, d in shards().items() if "00002-of" not in n}, NotFoundError, "lacks model-00002-of-00002"),
        ({"model-00001-of-00002.safetensors": b"x"}, NotFoundError, "no safetensors"),
        ({"model.safetensors": b"x" * 99}, WeightsError, "safetensors"),
        ({"pytorch_model.bin": pickled({"epoch": print})}, WeightsError, "holds no tensors, only: epoch"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../../x.safetensors"}}'},
            UnsafeError,
            "not a .safetensors file beside it",
        ),
    ],
)
def test_repositories_that_are_no_model(hub: Hub, files: dict[str, bytes], kind: type, text: str) -> None:
    hub.repositories["org/name"] = Repository(files)
    with pytest.raises(kind, match=text):
        open_ref(expand("hf:org/name")[0])


def test_what_is_too_large_is_not_downloaded(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)}, claims={"model.safetensors": 10**18})
    with pytest.raises(SourceError, match=r"needs 1000000000.0 GB and .* free.*HF_HUB_CACHE"):
        open_ref(expand("hf:org/name")[0])
    index = "model.safetensors.index.json"
    hub.repositories["org/name"] = Repository(shards(), claims={index: 65 * 2**20})
    with pytest.raises(UnsafeError, match="an index of 65 MiB"):
        open_ref(expand("hf:org/name")[0])
    assert not hub.fetched()


def test_a_link_out_of_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/name"] = Repository({"model.safetensors": save(STATE)})
    content("hf:org/name")
    link = next(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model.safetensors"))
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(save(OTHER))
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        open_ref(expand(f"hf:org/name@{'1' * 40}")[0])


def test_discarding_leaves_what_others_use(hub: Hub) -> None:
    hub.repositories["org/name"] = Repository({**shards(), "config.json": b"{}"})
    (ref,) = expand("hf:org/name")
    open_ref(ref).close()
    cache = Path(constants.HF_HUB_CACHE)
    (shard,) = cache.glob("models--*/snapshots/*/model-00001*")
    shared = cache / "models--org--name" / "snapshots" / ("3" * 40)
    shared.mkdir()
    (shared / shard.name).symlink_to(shard.readlink())
    config = shard.with_name("config.json")
    config.write_text("{}")
    discard(expand("hf:org/name")[0])
    assert shard.is_file()  # what was there when it was expanded stays
    discard(ref)
    assert not shard.exists()
    assert config.is_file()
    assert (shared / shard.name).read_bytes() == shards()[shard.name]
    assert len(list(cache.glob("models--*/blobs/*"))) == 2  # of the shared shard and of the configuration
    discard(ref)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("hf:a/b/c", "names no repository"),
        ("hf:org/na*", "names no repository"),
        ("hf:org/name@", "names no revision"),
        ("hf:org/name@../../x", "names no revision"),
        ("hf:-", "names no repository"),
        ("hff:org/name", "did you mean hf:org/name"),
    ],
)
def test_references_that_name_nothing(reference: str, text: str) -> None:
    with pytest.raises(NotFoundError, match=text):
        expand(reference)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match="huggingface_hub") as caught:
        expand("hf:org/name")
    assert caught.value.remedy == "pip install 'architecture-registry[hub]'"


def test_the_order_of_preference() -> None:
    names = ["pytorch_model.bin", "x.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]
    assert choose(names, "r") == "model.safetensors.index.json"
    assert choose([n for n in names if "index" not in n], "r") == "x.safetensors"
    assert choose(["training_args.bin", "adapter.bin"], "r") is None


def test_the_command_ingests_from_an_endpoint(hub: Hub, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(16, 24, generator=generator) for i in range(4)}
    hub.repositories["org/name"] = Repository({"model.safetensors": save(state)}, commit="b" * 40)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": TOKEN}
    environment.pop("HF_HUB_OFFLINE", None)

    def archreg(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "registry.cli.app", *arguments, "--db", "x.db", "--json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    archreg("ingest", "hf:org/name", "--discard-weights")
    shown = json.loads(archreg("show", "hf/org/name"))
    assert "b" * 40 in json.dumps(shown)
    assert "hf:org/name" in json.dumps(shown)
    assert not list((tmp_path / "cache").glob("models--*/blobs/*"))
    assert TOKEN.encode() not in (tmp_path / "x.db").read_bytes()
