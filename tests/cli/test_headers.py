"""What the commands say of models of which the header alone was read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.catalog.factory import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("wide", "slim"):
        save_file(NETWORKS[name](), tmp_path / f"{name}.safetensors")
    (tmp_path / "read").mkdir()
    for name in ("twin", "dense"):
        save_file(NETWORKS[name](), tmp_path / "read" / f"{name}.safetensors")
    return tmp_path


@pytest.fixture
def asked(folder: Path, archreg: Callable[..., Any]) -> Callable[..., Any]:
    """Commands on a registry of two models by their headers, and two with their weights."""
    db = str(folder / "a.db")
    files = [str(folder / f"{name}.safetensors") for name in ("wide", "slim")]
    done = archreg("ingest", *files, "--headers-only", "--db", db)
    assert done.code == 0
    assert "2 added" in done.out
    assert (
        "wide and 1 more: weights not read: it is compared by shapes alone until it is ingested without --headers-only."
    ) in done.err
    assert archreg("ingest", str(folder / "read"), "--db", db, "--quiet").code == 0
    return lambda *words: archreg(*words, "--db", db)


def test_they_are_listed_and_shown_as_such(asked: Callable[..., Any], folder: Path) -> None:
    listed = asked("list").out
    assert listed.count("not read") == 2
    models = {model["name"]: model["weights_read"] for model in asked("list", "--json").document["models"]}
    assert models == {"wide": False, "slim": False, "twin": True, "dense": True}
    shown = asked("show", "wide").out
    assert f"not read: shapes alone are known; archreg ingest {folder}/wide.safetensors" in shown
    assert "header:" in shown
    assert "content hash" not in shown
    document = asked("show", "wide", "--json").document
    assert document["summary"]["weights_read"] is False
    assert {layer["mean"] for layer in document["layers"]} == {None}
    assert asked("show", "wide", "--layers").code == 0
    assert "not read" not in asked("show", "twin").out


def test_questions_say_that_shapes_alone_are_compared(asked: Callable[..., Any]) -> None:
    told = "Weights not read, compared by shapes alone: wide, slim."
    near = asked("nearest", "wide").out
    assert "Models nearest to wide, compared by shapes v1, l1" in near
    assert "equivalent by shapes alone" in near
    assert told in near
    document = asked("nearest", "wide", "--json").document
    assert document["fingerprint"]["name"] == "shapes"
    first = document["neighbours"][0]
    assert (first["name"], first["weights_read"], first["by_shapes"], first["equivalent"]) == ("twin", True, True, True)
    plain = asked("nearest", "twin").out
    assert "layered v3" in plain
    assert "wide" not in plain
    assert told.replace("wide, slim", "wide, slim") in asked("nearest", "twin", "--fingerprint", "shapes").out

    both = asked("compare", "twin", "wide").out
    assert "twin and wide are equivalent by shapes alone: weights are not compared." in both
    assert "Weights not read, compared by shapes alone: wide." in both
    document = asked("compare", "twin", "wide", "--json").document
    assert (document["by_shapes"], document["a"]["weights_read"], document["b"]["weights_read"]) == (True, True, False)

    smaller = asked("compress", "wide", "--tolerance", "9").out
    assert "Compared by shapes v1, l1, tolerance 9." in smaller
    assert "Weights not read, compared by shapes alone: wide" in smaller
    sorted_ = asked("classes", "--fingerprint", "shapes").out
    assert "Weights not read, compared by shapes alone: " in sorted_
    assert "Weights not read" not in asked("classes").out
    chosen = asked("select", "--aim", "min:params", "--like", "wide", "--tolerance", "9").out
    assert "Weights not read, compared by shapes alone: wide" in chosen


def test_what_needs_weights_names_the_command(asked: Callable[..., Any], folder: Path) -> None:
    done = asked("nearest", "wide", "--fingerprint", "mme")
    assert done.code == 1
    assert "the weights of wide were not read, and mme v1 compares them" in done.err
    assert f"use the fingerprint shapes, or read them: archreg ingest {folder}/wide.safetensors" in done.err
    done = asked("spectra", "wide", "--output", str(folder / "x.npz"))
    assert (done.code, (folder / "x.npz").exists()) == (1, False)
    assert "the weights of wide were not read" in done.err


def test_the_same_command_without_it_completes_them(asked: Callable[..., Any], folder: Path) -> None:
    done = asked("ingest", str(folder / "wide.safetensors"), "--json")
    [outcome] = done.document["models"]
    assert (outcome["status"], outcome["weights_read"]) == ("renewed", True)
    assert "layered v3" in asked("nearest", "wide").out
    assert asked("ingest", str(folder / "slim.safetensors"), "--headers-only").out.startswith("Models: 1 already")


def test_a_dry_run_says_the_bytes_of_headers(folder: Path, archreg: Callable[..., Any]) -> None:
    db = str(folder / "none.db")
    path = folder / "wide.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    document = archreg("ingest", str(path), "--headers-only", "--dry-run", "--json", "--db", db).document
    assert (document["header_bytes"], document["unknown_headers"]) == (header, 0)
    assert document["models"][0]["estimate"]["header_bytes"] == header
    told = archreg("ingest", str(path), "--headers-only", "--dry-run", "--db", db).out
    assert f"To read: the headers of 1 model, {header} B; no weights, which are " in told
    assert "header_bytes" not in archreg("ingest", str(path), "--dry-run", "--json", "--db", db).document

    writer = gguf.GGUFWriter(folder / "a.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", [f"<word number {number}>" for number in range(150_000)])
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    told = archreg("ingest", str(folder / "a.gguf"), "--headers-only", "--dry-run", "--db", db)
    size = json.loads(archreg("ingest", str(folder / "a.gguf"), "--headers-only", "--dry-run", "--json").out)
    assert 3_000_000 < size["header_bytes"] <= (folder / "a.gguf").stat().st_size
    assert f"{size['header_bytes'] / 1e6:.3g} MB" in told.out
    assert "A GGUF file keeps its tokenizer in its header: 5.5 MB for 150,000 entries." in told.out
    assert not (folder / "none.db").exists()


def test_what_has_no_header_alone_fails(tmp_path: Path, archreg: Callable[..., Any]) -> None:
    np.save(tmp_path / "x.npy", np.eye(4))
    done = archreg("ingest", "torchvision:resnet18.random", "--headers-only", "--db", str(tmp_path / "a.db"))
    assert done.code == 1
    assert "are not known without reading its weights" in done.err
    assert "ingest it without --headers-only, or save it as safetensors" in done.err
