"""What a question is about: a stored name, a hash, a path, a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from registry import Registry
from registry.errors import (
    AmbiguousError,
    NotFoundError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from tests.catalog.conftest import Filled


def names(models: Any) -> list[str]:
    return [found.model.name for found in models]


def test_what_a_question_can_be_about(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    reg, expected = filled.reg, filled.reg.nearest("wide")
    stored = reg.show("wide").summary
    assert reg.nearest(f"sha256:{stored.content_hash}") == expected
    assert reg.nearest(f"sha256:{stored.content_hash[:12]}") == expected
    # The file of a stored model is that model, which is left out of the answer.
    assert reg.nearest(filled.files / "wide.safetensors") == expected
    assert reg.nearest(str(filled.files / "wide.safetensors")) == expected
    before = reg.stats()

    # A file that is not stored is measured for the question, and still not stored.
    reg.remove("wide")
    by_file = reg.search(str(filled.files / "wide.safetensors"), 3)
    assert [(n.model.name, n.distance) for n in by_file.neighbours] == [(n.model.name, n.distance) for n in expected]
    assert by_file.searched == 3
    compared = reg.compare(filled.files / "wide.safetensors", "slim")
    assert (compared.a.id, compared.a.name, compared.a.names, compared.b.name) == (0, "wide", (), "slim")
    assert compared.conjugacy_a is not None
    assert (compared.a.tail_class, compared.a.training_class) == (
        compared.conjugacy_a.tail_class,
        compared.conjugacy_a.training_class,
    )
    monkeypatch.chdir(filled.files)
    assert reg.nearest("wide.safetensors") == by_file.neighbours
    assert reg.nearest("./wide.safetensors") == by_file.neighbours
    assert reg.stats().models == before.models - 1


def test_a_name_that_is_also_a_file(asked: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wide, slim = ((asked.files / f"{name}.safetensors").read_bytes() for name in ("wide", "slim"))
    with Registry(tmp_path / "r.db") as reg:
        for name in ("twin", "slim"):
            reg.ingest(asked.files / f"{name}.safetensors")
        (tmp_path / "net.safetensors").write_bytes(wide)
        reg.ingest("net.safetensors", name="net.safetensors")
        expected = reg.nearest("net.safetensors")  # the same weights: no question which is meant
        (tmp_path / "net.safetensors").write_bytes(slim)
        with pytest.raises(AmbiguousError, match="also a file with other weights") as refused:
            reg.nearest("net.safetensors")
        # Both ways out that it names.
        assert "./net.safetensors" in (refused.value.remedy or "")
        by_hash = next(word for word in (refused.value.remedy or "").split() if word.startswith("sha256:"))
        assert reg.nearest(by_hash) == expected
        assert names(reg.nearest("./net.safetensors")) != names(expected)
        # A folder is many models as a rule: the name goes first, ./NAME is the folder.
        (tmp_path / "twin").mkdir()
        (tmp_path / "twin" / "model.safetensors").write_bytes(slim)
        assert reg.compare("twin", by_hash).a.id == reg.show("twin").summary.id
        assert reg.compare("./twin", by_hash).a.id == reg.show("slim").summary.id


@pytest.mark.parametrize(
    ("text", "error", "words", "remedy"),
    [
        ("wid", UnknownModelError, "'wid' is neither a stored model nor a file", "wide"),
        ("resnet18.v2", UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("dir/none", UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("x" * 5000, UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("", UnknownModelError, "'' is neither a stored model nor a file", ""),
        ("sha256:ffffffffffffff", UnknownModelError, "neither a stored model nor a file", ""),
        ("none.pt", NotFoundError, "no file or folder none.pt", "torchvision:"),
        ("./none", NotFoundError, "no file or folder none", ""),
        ("~/none/at/all", NotFoundError, "no file or folder", ""),
        ("C:\\models\\x.pt", NotFoundError, "no file or folder", ""),
        ("nowhere:x", NotFoundError, "unknown source 'nowhere'", "torchvision"),
    ],
)
def test_what_is_nothing(
    asked: Filled, text: str, error: type[Exception], words: str, remedy: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as refused:
        asked.reg.nearest(text)
    assert type(refused.value) is error
    assert remedy in (refused.value.remedy or "")  # type: ignore[attr-defined]


def test_a_path_is_never_a_stored_name(asked: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError):
        asked.reg.nearest(Path("wide"))


def test_several_models_are_no_question(asked: Filled) -> None:
    with pytest.raises(AmbiguousError, match="is 4 models, but one is needed"):
        asked.reg.nearest(asked.files)
