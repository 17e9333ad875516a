"""What a question is about: a stored name, a hash, a path, a reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from registry.catalog.subjects import resolve
from registry.errors import (
    AmbiguousError,
    NotFoundError,
    SpecMismatchError,
    UnknownModelError,
)
from registry.spectral import specs
from registry.spectral.specs import LAYERED, SPECS
from registry.storage import Store
from registry.storage.models.measured_values import drop_spec
from tests.cli.test_end_to_end import SLIM, WIDE, network

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
        by_digits = reg.show("net.safetensors").summary.content_hash[:12]
        assert (refused.value.message, refused.value.remedy) == (
            "'net.safetensors' is a stored model and also a file with other weights",
            f"write ./net.safetensors for the file, sha256:{by_digits} for the stored model",
        )
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
        # A folder whose name is not stored needs no ./ before it.
        (tmp_path / "twin").rename("elsewhere")
        assert reg.compare("elsewhere", by_hash).a.id == reg.show("slim").summary.id


@pytest.mark.parametrize(
    ("text", "error", "words", "remedy"),
    [
        ("wid", UnknownModelError, "'wid' is neither a stored model nor a file", "wide"),
        ("resnet18.v2", UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("dir/none", UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("x" * 5000, UnknownModelError, "neither a stored model nor a file", "archreg"),
        ("", UnknownModelError, "'' is neither a stored model nor a file", ""),
        ("sha256:ffffffffffffff", UnknownModelError, "neither a stored model nor a file", ""),
        ("sha256:ff:ff", UnknownModelError, "neither a stored model nor a file", ""),
        ("none.pt", NotFoundError, "no file or folder none.pt", "torchvision:"),
        ("./none", NotFoundError, "no file or folder none", ""),
        ("../none", NotFoundError, "no file or folder", ""),
        ("/none/at/all", NotFoundError, "no file or folder /none/at/all", ""),
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
    with pytest.raises(AmbiguousError) as refused:
        asked.reg.nearest(asked.files)
    assert refused.value.message == f"{asked.files} is 4 models, but one is needed"
    assert refused.value.remedy == "name one of them"


def test_weights_that_are_not_stored_are_described_as_they_would_be(filled: Filled, tmp_path: Path) -> None:
    said = {"family": "net", "architecture": "net-8", "task": "vision", "dataset": "digits", "license": "MIT"}
    file = tmp_path / "net.safetensors"
    save_file(network(9, SLIM), file, metadata={**said, "source": "a paper"})
    found = filled.reg.compare(file, "wide")
    assert (found.a.family, found.a.licence, found.a.source) == ("net", "MIT", "a paper")
    filled.reg.ingest(file)
    stored = filled.reg.show("net")
    assert found.a == replace(stored.summary, id=0, names=(), created="")
    assert found.conjugacy_a is not None
    assert stored.conjugacy is not None
    assert found.conjugacy_a == filled.reg.compare("net", "wide").conjugacy_a == stored.conjugacy
    contrast = filled.reg.compare("net", "wide").contrast
    assert contrast is not None
    assert found.contrast == contrast


def test_weights_in_memory_are_those_of_their_file(filled: Filled) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(values) for name, values in network(1, WIDE).items()}
    assert filled.reg.nearest(state) == filled.reg.nearest("wide")  # known by its weights
    filled.reg.remove("wide")
    assert filled.reg.nearest(state) == filled.reg.nearest(filled.files / "wide.safetensors")
    assert (filled.reg.search(state).searched, filled.reg.search(state).model.id) == (3, 0)


def test_a_stored_model_without_the_fingerprint_is_named(filled: Filled) -> None:
    content_hash = filled.reg.show("wide").summary.content_hash
    filled.reg.close()
    with Store.open(filled.url, mode="write") as store:
        store.write(drop_spec, LAYERED.hash)
    for reference in ("wide", f"sha256:{content_hash}", filled.files / "wide.safetensors"):
        with pytest.raises(SpecMismatchError) as refused:
            filled.reg.compare(reference, "slim")
        assert refused.value.message == "wide has no layered v3 fingerprint"
        assert refused.value.remedy == "run: archreg refingerprint --fingerprint layered"


def test_a_fingerprint_that_is_not_measured_by_itself_is_computed_of_the_spectra(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of other packages are."""
    other = replace(SPECS["mme"], name="other")
    monkeypatch.setitem(specs._BUILT_IN, "other", replace(specs._BUILT_IN["mme"], spec=other))
    file = filled.files / "slim.safetensors"
    filled.reg.remove("slim")
    with Store.open(filled.url, mode="read") as store:
        found, known = (resolve(store, file, spec) for spec in (other, SPECS["mme"]))
        np.testing.assert_array_equal(found.vector, known.vector)
        assert (found.id, found.model().name) == (0, "slim")
        words = f"^other v1 is of matrices by matrix-9, not by {LAYERED.matrix_rule}"
        with pytest.raises(SpecMismatchError, match=words):
            resolve(store, file, replace(other, matrix_rule="matrix-9"))
