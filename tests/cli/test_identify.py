"""Command ``identify``: the screen, the table, JSON and exit codes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import registry.shipped
from registry.types import (
    AdapterFacts,
    AskedRegistry,
    Finding,
    Identified,
    NotIdentified,
    PublishedWeights,
    Recognised,
    Relation,
    TensorDifference,
    WeightsMetric,
)
from tests.catalog.small_catalogue import network, ship, tuned
from tests.cli.identifications import exactly, identification, related_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def screen(archreg: Callable[..., Any], fake: Any, **known: Any) -> dict[str, tuple[str, str]]:
    """The rows of a file's screen, by question: answer and evidence; ``""``: the first line."""
    fake.answers["identify"] = Identified((identification("net.pt", **known),))
    done = archreg("identify", "net.pt")
    assert done.code == 0, done.err
    first, _, *rows = done.out.splitlines()
    cells = [re.split(r" {2,}", row) for row in rows if "  " in row]
    return {"": (first, "")} | {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in cells if len(row) > 1}


def test_the_screen_of_one_of_equals(archreg: Callable[..., Any], fake: Any) -> None:
    told = screen(archreg, fake)
    assert told[""][0] == "net.pt is timm/resnet50 (1 other architecture has equal shapes)."
    assert told["architecture?"] == ("timm/resnet50", "exact; equal in shapes: torchvision/resnet50")
    assert told["classes?"] == ("10", "head fc.weight, fc.bias")
    assert told["input?"] == ("3 channels", "stem conv1.weight")
    assert told["loads?"] == ("strictly", 'timm.create_model("resnet50", num_classes=10)')
    assert told["published?"][0] == "not known"
    assert told["trained?"][0] == "trained"
    assert "by gains of normalisation" in told["trained?"][1]
    assert "53 of 53 gains, 106 of 106 statistics" in told["trained?"][1]
    assert told["sound?"] == ("yes", "nothing found by 2 rules: nonfinite, rows")
    assert told["stored as"] == (
        "float32",
        "25,557,032 parameters, 320 tensors, 54 layers as matrices, 103 MB, read as torch",
    )


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        ({"wrapper": "module."}, "strictly, without the prefix module."),
        ({"architecture": exactly(prefix="net.")}, "strictly, without the prefix net."),
        ({"entry": "ema"}, "strictly, entry ema"),
        ({"format": "onnx"}, "strictly, by the names as read"),
        ({"architecture": exactly(strict=False)}, "not strictly: buffers or tied tensors differ"),
        ({"architecture": exactly(strict=False, named=False)}, "not by its names: shapes agree, names differ"),
    ],
)
def test_whether_it_loads(known: dict[str, Any], answer: str, archreg: Callable[..., Any], fake: Any) -> None:
    assert screen(archreg, fake, **known)["loads?"][0] == answer


def test_without_its_head(archreg: Callable[..., Any], fake: Any) -> None:
    bare = Recognised("exact", exactly(strict=False).matches, headless=True)
    told = screen(archreg, fake, architecture=bare)
    assert "timm/resnet50 without its head" in told[""][0]
    assert told["loads?"][0] == "all but the head"
    assert told["loads?"][1].endswith(".load_state_dict(..., strict=False)")
    assert "classes?" not in told


def test_near_and_unknown(archreg: Callable[..., Any], fake: Any) -> None:
    [best, _] = exactly(share=0.987, exact=False, strict=False).matches
    best = best.__class__(
        best.architecture, 0.987, False, False, False, differences=(TensorDifference("x.weight", (9, 5), "", ()),)
    )
    fake.answers["identify"] = Identified((identification("net.pt", architecture=Recognised("near", (best,))),))
    done = archreg("identify", "net.pt")
    assert done.out.startswith(
        "net.pt is no architecture of the catalogue; 99 % of the shapes are those of timm/resnet50."
    )
    assert "x.weight  9x5" in done.out
    assert "loads?" not in done.out
    told = screen(archreg, fake, architecture=Recognised("unknown", ()))
    assert told[""][0] == "net.pt is no architecture of the catalogue, and none is near."
    assert told["architecture?"] == ("unknown", "no shape in common")
    assert "none is near: 99 %" in screen(archreg, fake, architecture=Recognised("unknown", (best,)))[""][0]


def test_published_weights(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    top1 = WeightsMetric("top1", "imagenet-1k", "val", 224, 80.86, "a table")
    known = PublishedWeights(1, 1, "a1", "timm:resnet50.a1_in1k", "imagenet-1k", "Apache-2.0", metrics=(top1,))
    told = screen(archreg, fake, published=(known,), file_sha256="ab" * 32)
    assert told["published?"][0] == "timm:resnet50.a1_in1k"
    assert "Apache-2.0, top1 80.86 (imagenet-1k val)" in told["published?"][1]
    stored = AskedRegistry("team.db", 3, samples.summary("ours"))
    published = AskedRegistry("published:", 163)
    told = screen(archreg, fake, registries=(published, stored))
    assert told["published?"] == ("not known", "the content is that of none of 163 models in published:")
    assert told["stored?"] == ("ours", "the same content, in team.db")
    told = screen(archreg, fake, registries=(AskedRegistry("published:", 163, samples.summary("fsrcnn/x2")),))
    assert told["published?"] == ("fsrcnn/x2", "the same content, in published:")
    assert "stored?" not in told
    own = AskedRegistry("team.db", 3), AskedRegistry("bad.db", 0, problem="it is older")
    told = screen(archreg, fake, registries=(published, *own))
    assert told["stored?"] == ("no", "the content is that of none of 3 models in team.db")
    assert told["published?"][0] == "not known"


def test_a_hash_is_that_of_no_published_file_of_an_architecture_that_was_found(
    archreg: Callable[..., Any], fake: Any
) -> None:
    clause = "sha256 that of no published file of the architecture"
    assert clause in screen(archreg, fake, file_sha256="ab" * 32)["published?"][1]
    near = Recognised("near", exactly(share=0.9, exact=False).matches)
    assert clause not in screen(archreg, fake, file_sha256="ab" * 32, architecture=near)["published?"][1]


def test_relations(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    kin = related_to(
        samples.summary("net"),
        (samples.summary("base"), Relation("related", 0.83, 0.02, 31.0, 20, 0.97)),
        (samples.summary("other"), Relation("independent", 0.01, 0.02, 1.0, 20, 0.97)),
    )
    told = screen(archreg, fake, registries=(AskedRegistry("team.db", 163, None, kin),))
    assert told["related?"] == (
        "yes",
        "base (r 0.83, 20 layers with 97 % of the weights); 12 of 163 models in team.db compared",
    )
    none = AskedRegistry("team.db", 163, None, related_to(samples.summary("net")))
    assert screen(archreg, fake, registries=(none,))["related?"][0] == "no"
    shut = AskedRegistry("team.db", 0, problem="it is older; archreg db upgrade")
    assert screen(archreg, fake, registries=(shut,))["related?"] == (
        "not asked",
        "team.db: it is older; archreg db upgrade",
    )


def test_findings_are_shown_and_exit_with_0(archreg: Callable[..., Any], fake: Any) -> None:
    found = Finding("net", "fc.weight", "rows", "warning", 3.0, 0.0, "3 of 10 rows of zeros", "repair the file", 0.0)
    fake.answers["identify"] = Identified((identification("net.pt", findings=(found,)),))
    done = archreg("identify", "net.pt")
    assert done.code == 0
    assert re.search(r"sound\? +look +1 warning by 2 rules", done.out)
    assert re.search(r"warning +rows +fc.weight +3 of 10 rows of zeros +repair the file", done.out)


def test_an_adapter(archreg: Callable[..., Any], fake: Any) -> None:
    adapter = AdapterFacts("LoRA", "org/base", 8, ("q_proj",))
    told = screen(archreg, fake, adapter=adapter, architecture=None, training=None, registries=(), rules=())
    assert told[""][0] == "net.pt is a LoRA adapter for org/base."
    assert told["adapter?"] == ("LoRA", "rank 8; base org/base; modules q_proj")


def test_several_files_are_a_table_and_a_failure_exits_with_3(archreg: Callable[..., Any], fake: Any) -> None:
    files = (identification("a.pt"), identification("b.pt", architecture=Recognised("unknown", ()), training=None))
    fake.answers["identify"] = Identified(files, (NotIdentified("c.pt", "c.pt is empty", "save it again"),))
    done = archreg("identify", "a.pt", "b.pt", "c.pt", "-k", "3")
    assert done.code == 3
    assert done.err.splitlines() == ["archreg: c.pt is empty", "  save it again"]
    _, first, second = done.out.splitlines()
    assert re.split(r" {2,}", first)[:5] == ["a.pt", "timm/resnet50", "exact, 1 of 2 equal", "10", "trained"]
    assert re.split(r" {2,}", second)[:3] == ["b.pt", "-", "unknown"]
    assert fake.called("identify") == ((["a.pt", "b.pt", "c.pt"],), {"k": 3, "key": None, "headers_only": False})


def test_damage_is_told_and_exits_with_3(archreg: Callable[..., Any], fake: Any) -> None:
    damaged = ("published: is damaged; install the package again",)
    fake.answers["identify"] = Identified((identification("a.pt", architecture=None),), damaged=damaged)
    done = archreg("identify", "a.pt")
    assert done.code == 3
    assert done.err == "archreg: published: is damaged; install the package again\n"
    assert done.out.startswith("a.pt was read; its architecture was not looked up.")


FILE_KEYS = {
    "adapter", "architecture", "asked", "bytes", "content_hash", "entry", "file_sha256", "findings", "format",
    "layers", "location", "name", "not_known", "notes", "parameters", "precision", "published", "registries", "rules",
    "tensors", "training", "weights_read", "wrapper",
}  # fmt: skip
UNKNOWN_KEYS = {
    "catalogue", "dequantised", "equal", "exact", "headless", "library", "name", "nearest", "verdict",
}  # fmt: skip
ARCHITECTURE_KEYS = UNKNOWN_KEYS | {
    "channels", "classes", "differences", "family", "head", "imports", "line", "named", "prefix", "share", "stem",
    "strict", "task",
}  # fmt: skip


def test_json(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    kin = related_to(samples.summary("net"), (samples.summary("base"), Relation("related", 0.83, 0.02, 31.0, 20, 0.97)))
    asked = AskedRegistry("team.db", 163, None, kin)
    files = (
        identification("a.pt", registries=(asked,)),
        identification("b.pt", architecture=Recognised("unknown", ()), training=None),
        identification("c.pt", architecture=None),
    )
    fake.answers["identify"] = Identified(files)
    found = json.loads(archreg("identify", "a.pt", "--json").out)
    assert set(found) == {"files", "failed", "damaged"}
    exact, unknown, bare = found["files"]
    assert all(set(file) == FILE_KEYS for file in found["files"])
    architecture = exact["architecture"]
    assert set(architecture) == ARCHITECTURE_KEYS
    assert architecture["equal"] == ["timm/resnet50", "torchvision/resnet50"]
    assert (architecture["name"], architecture["library"], architecture["exact"]) == ("resnet50", "timm", True)
    assert architecture["catalogue"] == {"timm": "1.0.22", "torchvision": "0.29.0"}
    assert exact["training"]["evidence"] == {"rectangles": 31.0, "rows": 9.5}
    assert exact["training"]["vectors"]["gains_moved"] == 53
    [registry] = exact["registries"]
    assert set(registry) == {"label", "models", "problem", "stored", "compared", "related"}
    assert (registry["related"][0]["name"], registry["related"][0]["verdict"]) == ("base", "related")
    assert set(unknown["architecture"]) == UNKNOWN_KEYS
    assert (unknown["architecture"]["name"], unknown["architecture"]["exact"], unknown["training"]) == (
        None,
        False,
        None,
    )
    assert bare["architecture"] is None


def test_from_end_to_end(
    archreg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(registry.shipped, "FOLDER", ship(tmp_path / "shipped"))
    monkeypatch.chdir(tmp_path)
    start = network(trained=True)
    save_file(start, "base.safetensors")
    save_file(tuned(start), "tuned.safetensors")
    save_file({"x.weight": np.ones((3, 4), np.float32)}, "other.safetensors")
    assert archreg("ingest", "base.safetensors", "--db", database_url).code == 0
    done = archreg("identify", "tuned.safetensors", "--db", database_url)
    assert done.code == 0, done.err
    assert done.out.startswith("tuned.safetensors is torchvision/convnet (1 other architecture has equal shapes).")
    assert re.search(r"loads\? +strictly +torchvision.models.convnet\(num_classes=10\)", done.out)
    assert re.search(r"related\? +yes +base \(r 0\.\d+, 5 layers with 100 % of the weights\)", done.out)
    among = archreg("identify", "tuned.safetensors", "--among", f"catalogue:,{database_url}")
    assert among.code == 0, among.err
    assert "published:" not in among.out
    assert re.search(r"related\? +yes +base", among.out)
    assert archreg("identify", "tuned.safetensors", "--among", "published:", "--db", database_url).code == 2
    missing = archreg("identify", "tuned.safetensors", "nothing.pt", "--db", database_url)
    assert missing.code == 3
    assert missing.err.splitlines()[0] == "archreg: no file or folder nothing.pt"
    assert missing.out.splitlines()[1].startswith("tuned.safetensors  torchvision/convnet")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "base.safetensors").read_bytes()[:-9])
    part = archreg("identify", "tuned.safetensors", "cut.safetensors", "--db", database_url)
    assert part.code == 3
    assert "cut.safetensors is incomplete" in part.err
    assert archreg("identify", "cut.safetensors").code == 1
    assert archreg("identify").code == 2


def test_one_of_several_that_is_no_model_does_not_stop_the_others(
    archreg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.shipped, "FOLDER", ship(tmp_path / "shipped"))
    monkeypatch.chdir(tmp_path)
    save_file(network(), "net.safetensors")
    (tmp_path / "notes.txt").write_text("no weights at all")
    (tmp_path / "empty.pth").write_bytes(b"")
    bad = ("notes.txt", "nofile.pth", "nosource:resnet5o", "empty.pth")
    done = archreg("identify", bad[0], "net.safetensors", *bad[1:], "--json")
    assert done.code == 3
    told = json.loads(done.out)
    assert [file["asked"] for file in told["files"]] == ["net.safetensors"]
    assert [failed["asked"] for failed in told["failed"]] == list(bad)
    assert all(name in done.err for name in bad)
    alone = archreg("identify", "notes.txt")
    assert (alone.code, alone.out) == (1, "")
    none = archreg("identify", *bad, "--json")
    assert none.code == 3
    assert [failed["asked"] for failed in json.loads(none.out)["failed"]] == list(bad)


def test_an_interruption_promises_nothing(archreg: Callable[..., Any], fake: Any) -> None:
    fake.answers["identify"] = KeyboardInterrupt()
    done = archreg("identify", "net.pt")
    assert (done.code, done.err) == (130, "archreg: interrupted\n")
