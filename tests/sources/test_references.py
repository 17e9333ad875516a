from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from registry.errors import AmbiguousError, NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import SOURCES, expand, open_ref
from registry.sources.base import SUFFIXES, is_weights_name
from registry.sources.weight_files import check_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_file_is_named_by_its_stem_or_its_folder(folder: Path) -> None:
    touch(folder / "net.v2.pt", folder / "bert" / "pytorch_model.bin", folder / "UPPER.SafeTensors")
    (ref,) = expand("net.v2.pt", key="ema", seed=3)
    assert (ref.source, ref.name, ref.key, ref.bytes, ref.cached) == ("torch", "net.v2", "ema", 1, True)
    assert ref.target == str(folder / "net.v2.pt")
    assert expand("bert/pytorch_model.bin")[0].name == "bert"
    assert (expand("UPPER.SafeTensors")[0].source, expand("UPPER.SafeTensors")[0].name) == ("safetensors", "UPPER")


def test_a_folder_means_all_weights_below_it(folder: Path) -> None:
    names = ["b.pt", "a/x.safetensors", "a/y/model.safetensors", "c/model.ckpt", "c/model.pth", "model.th"]
    touch(*(folder / "zoo" / name for name in names))
    touch(folder / "zoo/readme.md", folder / "zoo/c/optimizer.pt", folder / "zoo/c/training_args.bin")
    refs = expand("zoo")
    assert [Path(ref.target).relative_to(folder / "zoo").as_posix() for ref in refs] == sorted(names)
    assert [ref.name for ref in refs] == ["a/x", "a/y", "b", "c/model.ckpt", "c/model.pth", "zoo"]


def test_an_architecture_is_told_as_the_reference_to_its_weights(folder: Path) -> None:
    for path, remedy in (
        ("torchvision/resnet18", "did you mean torchvision:resnet18?"),
        ("timm/resnet18.a1_in1k", "did you mean timm:resnet18.a1_in1k?"),
        ("hf/ORG/NAME", "did you mean hf:ORG/NAME?"),
    ):
        with pytest.raises(NotFoundError, match=f"no file or folder {path}") as refused:
            expand(path)
        assert refused.value.remedy == remedy
    for path in ("torchvision", "numpy/resnet18", str(folder / "torchvision" / "resnet18")):
        with pytest.raises(NotFoundError, match="no file or folder") as refused:
            expand(path)
        assert "check the path" in (refused.value.remedy or "")


def test_links_that_leave_the_folder_are_not_followed(folder: Path) -> None:
    touch(folder / "out" / "secret.pt", folder / "zoo" / "in.pt", folder / "zoo" / "sub" / "x")
    (folder / "zoo" / "link.pt").symlink_to(folder / "out" / "secret.pt")
    (folder / "zoo" / "dir").symlink_to(folder / "out")
    (folder / "zoo" / "loop").symlink_to(folder / "zoo")
    (folder / "zoo" / "sub" / "alias.pt").symlink_to(folder / "zoo" / "in.pt")
    (folder / "zoo" / "gone.pt").symlink_to(folder / "zoo" / "nothing.pt")
    for reference in ("zoo", "zoo/*", "zoo/**/*.pt"):
        refs = {ref.name: ref for ref in expand(reference)}
        assert sorted(refs) == ["gone", "in", "link", "sub/alias"]
        assert refs["sub/alias"].target == str(folder / "zoo" / "in.pt")
        with pytest.raises(UnsafeError, match=r"link\.pt is a link that leads out of its folder.*give .*secret\.pt"):
            open_ref(refs["link"])
        with pytest.raises(NotFoundError, match=r"no file .*gone\.pt"):
            open_ref(refs["gone"])


@pytest.fixture
def locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be listed, among others; root may list every folder, so it is the system that refuses."""
    touch(folder / "runs" / "a" / "best.pt", folder / "runs" / "locked" / "best.pt", folder / "runs" / "z" / "best.pt")
    touch(folder / "runs" / "z" / "deep" / "best.pt")
    path, scandir = folder / "runs" / "locked", os.scandir

    def refusing(place: Any = ".") -> Any:
        if isinstance(place, str | Path) and Path(place).absolute() == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    return path


def test_a_folder_that_may_not_be_listed_is_one_model_that_fails(locked: Path) -> None:
    others = {"runs": ["a/best", "z/best", "z/deep/best"], "runs/*/*.pt": ["a/best", "z/best"]}
    others |= {"runs/*": others["runs"], "runs/**/*.pt": others["runs"], "runs/[l-z]*/b*": ["z/best"]}
    for reference, names in others.items():
        *refs, last = expand(reference)
        assert [ref.name for ref in refs] == names
        assert (last.source, last.bytes, last.target) == ("deferred", None, str(locked))
        with pytest.raises(SourceError, match=r"runs/locked cannot be listed: Permission denied") as refused:
            open_ref(last)
        assert refused.value.remedy == "check its permissions"
    # What is in it and known by its name is in reach.
    assert [ref.name for ref in expand("runs/*/best.pt")] == ["a/best", "locked/best", "z/best"]
    # Alone it is refused at once, and whoever may list it later is told what there is.
    with pytest.raises(SourceError, match="cannot be listed"):
        expand("runs/locked")


def test_a_folder_that_could_not_be_listed_is_tried_again(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, last = expand("runs")
    monkeypatch.undo()
    with pytest.raises(WeightsError, match=r"best\.pt"):  # which is no file of weights, as the test made it
        open_ref(last)
    touch(locked / "last.pt")
    with pytest.raises(AmbiguousError, match=r"runs/locked is 2 models \(ingest this reference separately\)"):
        open_ref(last)


def test_a_folder_that_may_not_be_entered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(folder / "runs" / "a" / "best.pt", folder / "runs" / "locked" / "best.pt")
    inside, lstat = folder / "runs" / "locked" / "best.pt", Path.lstat

    def refusing(path: Path) -> os.stat_result:
        if path.absolute() == inside:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refusing)
    assert [ref.name for ref in expand("runs/*/best.pt")] == ["a/best", str(Path("runs/locked/best.pt"))]


def test_links_in_a_ring_are_not_followed(folder: Path) -> None:
    touch(folder / "zoo" / "a" / "in.pt")
    (folder / "zoo" / "a" / "up").symlink_to(folder / "zoo")
    (folder / "zoo" / "b").symlink_to(folder / "zoo" / "a" / "up" / "a")
    (folder / "zoo" / "self.pt").symlink_to(folder / "zoo" / "self.pt")
    (folder / "zoo" / "one").symlink_to(folder / "zoo" / "two")
    (folder / "zoo" / "two").symlink_to(folder / "zoo" / "one")
    for reference in ("zoo", "zoo/**", "zoo/**/*.pt", "zoo/*"):
        inside, ring = expand(reference)
        assert (inside.name, ring.name) == ("a/in", "self")
        with pytest.raises(NotFoundError, match=r"no file .*self\.pt"):
            open_ref(ring)
    assert [ref.name for ref in expand("zoo/*/*.pt")] == ["a/in"]
    for named in ("zoo/self.pt", "zoo/one"):
        with pytest.raises(NotFoundError, match="is a broken link"):
            expand(named)
    # A link that is named itself is followed, into whatever folder.
    assert [ref.name for ref in expand("zoo/b")] == ["in"]


def test_a_link_that_is_named_is_followed_to_anywhere(folder: Path) -> None:
    touch(folder / "out" / "secret.pt", folder / "zoo" / "x")
    (folder / "zoo" / "link.pt").symlink_to(folder / "out" / "secret.pt")
    (ref,) = expand("zoo/link.pt")
    assert (ref.name, ref.target) == ("link", str(folder / "out" / "secret.pt"))


def test_links_within_a_repository_of_the_hugging_face_cache_are_followed(folder: Path) -> None:
    snapshot = folder / "models--org--net" / "snapshots" / "abc"
    touch(folder / "models--org--net" / "blobs" / "1f", folder / "models--org--other" / "blobs" / "2f")
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1f")
    (snapshot / "other.safetensors").symlink_to("../../../models--org--other/blobs/2f")
    model, other = expand("models--org--net/snapshots/abc")
    assert (model.name, model.target, model.bytes) == ("abc", str(snapshot / "model.safetensors"), 1)
    assert check_file(Path(model.target)) == 1
    with pytest.raises(UnsafeError, match="leads out of its folder"):
        open_ref(other)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("runs/*/best.pt", ["a/best", "b/best"]),
        ("runs/*/*.pt", ["a/best", "a/last", "b/best"]),
        ("runs/**/*.pt", ["a/best", "a/last", "b/best", "c/d/best"]),
        ("runs/?/model.safetensors", ["b"]),
        ("runs/[ab]", ["a/best", "a/last", "b/best", "b"]),
        ("runs/.*/*.pt", [".tmp/best"]),
        ("[1]/*.pt", ["x"]),
        ("*/b/best.pt", ["runs/b/best"]),
    ],
)
def test_patterns(pattern: str, names: list[str], folder: Path) -> None:
    for name in ("a/best.pt", "a/last.pt", "b/best.pt", "b/model.safetensors", "c/d/best.pt", ".tmp/best.pt"):
        touch(folder / "runs" / name)
    touch(folder / "runs/a/optimizer.pt", folder / "runs/a/notes.txt", folder / "[1]/x.pt")
    for reference in (pattern, Path(pattern), f"{folder}/{pattern}"):
        refs = expand(reference)
        assert [ref.name for ref in refs] == names
        assert all(Path(ref.target).is_file() and ref.bytes == 1 for ref in refs)


@pytest.mark.parametrize("pattern", ["runs/*/none.pt", "runs/**.pt", "runs/*.txt", "gone/*.pt", "runs/*/\0.pt"])
def test_patterns_that_match_nothing_say_so(pattern: str, folder: Path) -> None:
    touch(folder / "runs" / "x.pt", folder / "runs" / "x.txt")
    with pytest.raises(NotFoundError, match=r"no weights match|is not a valid pattern") as caught:
        expand(pattern)
    assert caught.value.remedy


def index(path: Path, **shards: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def test_a_folder_that_holds_an_index_is_one_model(folder: Path) -> None:
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    touch(*(folder / "zoo" / "net" / name for name in names), folder / "zoo" / "other.pt")
    index(folder / "zoo" / "net" / "model.safetensors.index.json", a=names[0], b=names[1])
    expected = str(folder / "zoo" / "net" / "model.safetensors.index.json")
    for reference in ("zoo/net", expected, "zoo/n*", "zoo/*/*"):
        (ref,) = expand(reference)
        assert (ref.source, ref.target, ref.name, ref.bytes) == ("shards", expected, "net", 2)
    assert [ref.name for ref in expand("zoo")] == ["net", "other"]
    with pytest.raises(WeightsError, match=r"one of 2 shards.*give its index, .*model\.safetensors\.index\.json"):
        open_ref(expand(f"zoo/net/{names[0]}")[0])


def test_shards_of_any_names_go_with_their_index(folder: Path) -> None:
    touch(folder / "net" / "first.bin", folder / "net" / "second.bin")
    torch.save({"w": torch.eye(2)}, folder / "net" / "third.bin")
    index(folder / "net" / "pytorch_model.bin.index.json", a="first.bin", b="second.bin")
    assert [ref.name for ref in expand("net")] == ["net", "third"]


def test_an_unsound_index_still_stands_for_its_shards(folder: Path) -> None:
    touch(folder / "net" / "model-00001-of-00001.safetensors", folder / "net" / "model.safetensors.index.json")
    (ref,) = expand("net")
    assert (ref.source, ref.bytes) == ("shards", 1)
    with pytest.raises(WeightsError, match="is not a valid shard index"):
        open_ref(ref)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a\x1b[2J.pt", r"a\x1b[2J"),
        ("a\nb.pt", r"a\nb"),
        (" a .pt", "a"),
        (" .pt", ".pt"),
        (os.fsdecode(b"\xff.pt"), r"\xff"),
    ],
)
def test_default_names_are_printable(file: str, name: str, folder: Path) -> None:
    touch(folder / "zoo" / file)
    assert [ref.name for ref in expand("zoo")] == [name]
    assert [ref.name for ref in expand(f"zoo/{file}")] == [name]


def test_nothing_there_says_what_to_do(folder: Path) -> None:
    (folder / "empty").mkdir()
    touch(folder / "resnet.pt", folder / "notes.txt")
    with pytest.raises(NotFoundError, match=r"no weights in folder empty.*\.safetensors"):
        expand("empty")
    with pytest.raises(NotFoundError, match=r"did you mean resnet\.pt"):
        expand("resnt.pt")
    with pytest.raises(NotFoundError, match="torchvision:NAME"):
        expand("gone/away")
    (folder / "notes.txt").write_text("notes\n")
    with pytest.raises(WeightsError, match=r"notes\.txt is no weights file") as caught:
        expand("notes.txt")
    assert "archreg formats" in str(caught.value.remedy)


def test_a_reference_that_is_also_a_path_is_ambiguous(folder: Path) -> None:
    touch(folder / "torchvision:resnet18.pt")
    with pytest.raises(AmbiguousError, match=r"\./torchvision:resnet18\.pt"):
        expand("torchvision:resnet18.pt")
    for path in ("./torchvision:resnet18.pt", Path("torchvision:resnet18.pt"), f"{folder}/torchvision:resnet18.pt"):
        assert expand(path)[0].name == "torchvision:resnet18"
    touch(folder / "run:3.pt")
    assert expand("run:3.pt")[0].name == "run:3"


def test_unknown_sources_offer_near_ones(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean torchvision:resnet18"):
        expand("torchvison:resnet18")
    with pytest.raises(NotFoundError, match="known sources: hf:, mlflow:, timm:, torchvision:"):
        expand("ftp:thing")


def test_usual_suffixes_name_sources_of_files() -> None:
    assert all(SOURCES[name].expand is None for name in SUFFIXES.values())
    assert is_weights_name(Path("X.SAFETENSORS"))
    assert not is_weights_name(Path("x.txt"))


def test_importing_and_reading_safetensors_loads_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({f"{number}.weight": np.eye(4, 5 + number, dtype=np.float32) for number in range(20)}, path)
    code = (
        "import sys; from registry.sources import *\n"
        f"with open_ref(expand({str(path)!r})[0]) as c:\n"
        "    plan = plan_weights(c); layer_matrix(c, plan.layers[0])\n"
        "assert len(plan.layers) == 20\n"
        "print([m for m in ('torch', 'torchvision', 'scipy', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_name_longer_than_any_files_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="cannot be accessed") as caught:
        expand("x" * 300 + ".pt")
    assert caught.value.remedy
