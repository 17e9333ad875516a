"""Models of an older matrix rule: measured anew by the same command, compared with no others, and counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open

from registry import Registry
from registry.catalog import measuring, storing
from registry.errors import NameTakenError, SpecMismatchError
from registry.sources import MATRIX_RULE
from registry.sources.matrix_rule import topology_of
from registry.spectral.specs import LAYERED
from registry.storage.models.adding import add_models
from tests.catalog.conftest import Filled
from tests.catalog.factory import made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from registry.storage import NewModel

OLDER = "matrix-1"


def as_older(new: NewModel, **plan: Any) -> NewModel:
    """The model as an older version stored it: another rule, another hash, and vectors of another spec."""
    content = new.plan.content_hash[::-1]
    spec = replace(LAYERED, matrix_rule=OLDER)
    return replace(
        new,
        plan=replace(new.plan, rule=OLDER, content_hash=content, precision="", notes=(), **plan),
        fingerprints=tuple(replace(each, spec=spec) for each in new.fingerprints if each.spec == LAYERED),
        format="",
        location="",
        entry="",
    )


def store_mixed(url: str, files: Path) -> None:
    """Models slim and dense of the older rule, and wide and twin of the present one."""
    new_model = storing._new_model
    with Registry(url) as reg:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storing, "_new_model", lambda read, options: as_older(new_model(read, options)))
            for name in ("slim", "dense"):
                reg.ingest(files / f"{name}.safetensors", family=name)
        for name in ("wide", "twin"):
            reg.ingest(files / f"{name}.safetensors", family="wide")


@pytest.fixture
def mixed(copied: Callable[..., str], files: Path) -> Iterator[Filled]:
    url = copied(store_mixed, files)
    with Registry(url) as reg:
        yield Filled(reg, url, files)


def test_the_same_command_measures_them_anew(mixed: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    reg = mixed.reg
    assert [(each.name, each.matrix_rule) for each in reg.older().models] == [("dense", OLDER), ("slim", OLDER)]
    assert (reg.older().rule, reg.outdated(), reg.check()) == (MATRIX_RULE, 0, ())
    reg.set("slim", family="mine")
    reg.tag("slim", stage="kept")
    before = reg["slim"]
    results = reg.ingest_all(reg.plan([mixed.files]), workers=1)
    assert {result.name: result.status for result in results} == {
        "dense": "renewed", "slim": "renewed", "twin": "known", "wide": "known",
    }  # fmt: skip
    [slim] = [result for result in results if result.name == "slim"]
    assert slim.message == f"measured anew by {MATRIX_RULE}; its names, metadata, metrics and tags stay"
    after = reg["slim"]
    assert (after.id, after.names, after.family, after.created) == (before.id, before.names, "mine", before.created)
    assert (after.matrix_rule, after.precision, after.format) == (MATRIX_RULE, "float32", "safetensors")
    assert after.location == str(mixed.files / "slim.safetensors")
    assert reg.show("slim").tags == (("stage", "kept"),)
    assert reg.older().models == ()
    assert reg.check() == ()
    assert {result.status for result in reg.ingest_all(reg.plan([mixed.files]), workers=1)} == {"known"}
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("it is measured again"))
    assert reg.ingest(mixed.files / "slim.safetensors").status == "known"


def test_they_are_compared_with_no_others(mixed: Filled) -> None:
    reg = mixed.reg
    message = f"slim was measured by {OLDER}, and {LAYERED.label} compares matrices of {MATRIX_RULE}"
    for pair in (("slim", "wide"), ("wide", "slim")):
        with pytest.raises(SpecMismatchError) as caught:
            reg.compare(*pair, tolerance=1.0)
        assert caught.value.message == message
        assert caught.value.remedy == "ingest it again: archreg ingest and its file or reference"
    with pytest.raises(SpecMismatchError, match="none of these models was measured by matrix-2: 1 model is"):
        reg.search("wide", tolerance=1.0, family="slim")
    with pytest.raises(SpecMismatchError, match=r"2 models were measured by an older matrix rule .*: dense, slim"):
        reg.refingerprint()


def test_questions_count_them(mixed: Filled) -> None:
    reg = mixed.reg
    assert [neighbour.model.name for neighbour in reg.nearest("wide", tolerance=1.0)] == ["twin"]
    assert reg.search("wide", tolerance=1.0).older == 2
    assert reg.search("wide", tolerance=1.0, family="wide").older == 0
    reg.ingest({"a.weight": torch.randn(8, 8), "b.weight": torch.randn(8, 8)}, name="small")
    assert reg.compress("wide", tolerance=1.0).older == 2
    assert reg.classes(tolerance=1.0).older == 2
    assert reg.select(aims=["min:params"], tolerance=1.0).older == 2
    chosen = reg.select(aims=["min:params"], like="wide", tolerance=1.0)
    assert (chosen.older, chosen.searched) == (2, 2)
    assert reg.distances()[0] == ("wide", "twin", "small")
    reg.ingest(mixed.files / "slim.safetensors")
    assert reg.search("wide", tolerance=1.0).older == 1


def test_another_file_of_the_name_is_refused(mixed: Filled, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.randn(8, 8)}, tmp_path / "slim.pt")
    with pytest.raises(NameTakenError, match="'slim' belongs to other weights"):
        mixed.reg.ingest(tmp_path / "slim.pt")
    assert mixed.reg["slim"].matrix_rule == OLDER


def test_an_export_of_the_older_rule_is_imported_as_such(mixed: Filled, tmp_path: Path) -> None:
    mixed.reg.export(tmp_path / "out.db")
    with Registry(tmp_path / "new.db") as reg:
        done = reg.import_from(tmp_path / "out.db")
        assert (done.added, done.failed) == (4, ())
        assert [each.name for each in reg.older().models] == ["dense", "slim"]
        assert reg["wide"] == replace(mixed.reg["wide"], id=reg["wide"].id)
        assert reg.ingest(mixed.files / "slim.safetensors").status == "renewed"


def test_an_import_measures_older_models_anew(mixed: Filled, tmp_path: Path) -> None:
    mixed.reg.set("slim", task="mine", licence="own")
    was = mixed.reg["slim"]
    with Registry(tmp_path / "anew.db") as reg:
        for name in ("slim", "dense"):
            reg.ingest(mixed.files / f"{name}.safetensors", family=name, dataset="there")
        reg.export(tmp_path / "anew-out.db")
        new = reg["slim"]
    done = mixed.reg.import_from(tmp_path / "anew-out.db")
    assert (done.added, done.merged, done.failed) == (0, 2, ())
    assert mixed.reg.older().models == ()
    assert len(mixed.reg) == 4
    now = mixed.reg["slim"]
    assert (now.id, now.content_hash, now.layers, now.location) == (was.id, new.content_hash, new.layers, new.location)
    assert (now.task, now.licence, now.dataset) == ("mine", "own", "there")
    assert mixed.reg.search("slim", tolerance=1.0).older == 0
    again = mixed.reg.import_from(tmp_path / "anew-out.db")
    assert (again.known, again.failed) == (2, ())
    assert mixed.reg.check() == ()


def test_an_import_joins_an_older_model_to_its_new_one(mixed: Filled, tmp_path: Path) -> None:
    mixed.reg.set("slim", task="mine")
    mixed.reg.ingest(mixed.files / "slim.safetensors", name="elsewhere")
    assert len(mixed.reg) == 5
    with Registry(tmp_path / "anew.db") as reg:
        reg.ingest(mixed.files / "slim.safetensors")
        reg.export(tmp_path / "anew-out.db")
    done = mixed.reg.import_from(tmp_path / "anew-out.db")
    assert (done.merged, done.failed) == (1, ())
    assert sorted(mixed.reg["slim"].names) == ["elsewhere", "slim"]
    assert (len(mixed.reg), mixed.reg["slim"].task) == (4, "mine")
    assert mixed.reg.check() == ()


def test_a_file_with_both_rules_is_imported(mixed: Filled, tmp_path: Path) -> None:
    """The older model under a name that is free comes first, and is then measured anew, or the other way around."""
    old, new, both = (tmp_path / f"{name}.db" for name in ("old", "new", "both"))
    mixed.reg.export(old)
    with Registry(new) as reg:
        reg.ingest(mixed.files / "slim.safetensors")
        reg.export(tmp_path / "slim.db")
    for first, second in ((old, tmp_path / "slim.db"), (tmp_path / "slim.db", old)):
        with Registry(both) as reg:
            reg.import_from(first)
            reg.import_from(second)
            assert reg["slim"].matrix_rule == MATRIX_RULE
            assert reg.check() == ()
        both.unlink()
    mixed.reg.ingest(mixed.files / "slim.safetensors", name="anew")
    mixed.reg.rename("slim", "before")
    mixed.reg.rename("anew", "slim")
    mixed.reg.export(both)
    with Registry(old) as reg:
        done = reg.import_from(both)
        assert done.failed == ()
        assert reg["slim"].matrix_rule == MATRIX_RULE
        assert reg.check() == ()


def test_an_import_tells_names_of_other_rules_from_other_weights(mixed: Filled, tmp_path: Path) -> None:
    mixed.reg.export(tmp_path / "out.db")
    with Registry(tmp_path / "new.db") as reg:
        reg.ingest(mixed.files / "slim.safetensors")
        done = reg.import_from(tmp_path / "out.db")
        [failed] = done.failed
        assert failed.message == "the name 'slim' is of a model measured by matrix-2 here, and by matrix-1 in the file"
        assert failed.remedy.startswith("measure the older one anew")
        assert reg["slim"].matrix_rule == MATRIX_RULE
    with safe_open(mixed.files / "slim.safetensors", "pt") as file:
        others = {name: file.get_tensor(name) * 1.001 for name in file.keys()}  # noqa: SIM118 - not a mapping
    with Registry(tmp_path / "third.db") as reg:  # another file of that name, of the same size
        reg.ingest(others, name="slim")
        assert reg["slim"].bytes == mixed.reg["slim"].bytes
        reg.export(tmp_path / "other.db")
    done = mixed.reg.import_from(tmp_path / "other.db")
    assert "measured by matrix-1 here, and by matrix-2 in the file" in done.failed[0].message
    assert mixed.reg["slim"].matrix_rule == OLDER


def test_statistics_tell_rules_apart(mixed: Filled) -> None:
    assert dict(mixed.reg.stats().fingerprints) == {
        "layered v3 of matrix-1": 2,
        "layered v3 of matrix-2": 2,
        "mme v1 of matrix-2": 2,
        "shapes v1 of matrix-2": 2,
    }
    for name in ("slim", "dense"):
        mixed.reg.ingest(mixed.files / f"{name}.safetensors")
    assert dict(mixed.reg.stats().fingerprints) == {"layered v3": 4, "mme v1": 4, "shapes v1": 4}


def test_what_is_known_of_the_origin_survives_an_export(registry_url: str, tmp_path: Path) -> None:
    first = made("first", 0.0)
    layer = replace(first.plan.layers[0], period=6, start=2, stop=4)
    plan = replace(
        first.plan,
        layers=(layer,),
        topology=topology_of((layer,)),
        precision="int4 gptq",
        unread=3,
        nonfinite=1,
        notes=("A note.", "Another."),
    )
    spectra = (replace(first.spectra[0], layer=layer),)
    new = replace(first, plan=plan, spectra=spectra, format="torch", location="/runs/a.pt", entry="ema.model")
    with Registry(registry_url) as reg:
        reg._database.created().write(add_models, [new])
        reg.export(tmp_path / "out.db")
        with Registry(tmp_path / "new.db") as other:
            assert other.import_from(tmp_path / "out.db").failed == ()
            assert other["first"] == reg["first"]
            assert other.show("first") == reg.show("first")
            assert [each.layer for each in other.spectrum("first")] == [layer]
            model, shown = other["first"], other.show("first")
            assert other.import_from(tmp_path / "out.db").known == 1
    assert (model.precision, model.format, model.location, model.entry) == (
        "int4 gptq",
        "torch",
        "/runs/a.pt",
        "ema.model",
    )
    assert (model.unread, model.nonfinite, shown.notes) == (3, 1, ("A note.", "Another."))
