from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import AmbiguousError, NotFoundError
from registry.sources import SUFFIXES, expand


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


def test_links_that_leave_the_folder_are_not_followed(folder: Path) -> None:
    touch(folder / "out" / "secret.pt", folder / "zoo" / "in.pt")
    (folder / "zoo" / "link.pt").symlink_to(folder / "out" / "secret.pt")
    (folder / "zoo" / "dir").symlink_to(folder / "out")
    (folder / "zoo" / "loop").symlink_to(folder / "zoo")
    (folder / "zoo" / "alias.pt").symlink_to(folder / "zoo" / "in.pt")
    assert [ref.name for ref in expand("zoo")] == ["alias", "in"]


def test_nothing_there_says_what_to_do(folder: Path) -> None:
    (folder / "empty").mkdir()
    touch(folder / "resnet.pt", folder / "notes.txt")
    with pytest.raises(NotFoundError, match=r"no weights in folder empty.*\.safetensors"):
        expand("empty")
    with pytest.raises(NotFoundError, match=r"did you mean resnet\.pt"):
        expand("resnt.pt")
    with pytest.raises(NotFoundError, match="torchvision:NAME"):
        expand("gone/away")
    with pytest.raises(NotFoundError, match="no suffix of a weights file"):
        expand("notes.txt")


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
    with pytest.raises(NotFoundError, match="known sources: torchvision:"):
        expand("ftp:thing")


def test_suffixes_are_of_all_sources() -> None:
    assert {".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin"} == SUFFIXES


def test_importing_and_reading_safetensors_loads_no_torch(zoo: Path) -> None:
    path = zoo / "resnet-cifar" / "akamaster-resnet20.safetensors"
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
    with pytest.raises(NotFoundError, match="cannot be looked at") as caught:
        expand("x" * 300 + ".pt")
    assert caught.value.remedy
