"""Models on the move between databases, and files that are forged, damaged or old."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry.errors import NotFoundError, RegistryError, SchemaVersionError, StorageError, UnsafeError, UsageError
from registry.storage import Portable, PortableFile, Store, seal
from registry.storage.engine import migrate
from registry.storage.equivalence.stored_calibrations import put_calibration
from registry.storage.models.measured_values import put_fingerprints
from registry.storage.models.model_queries import count_models, has_name
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import all_specs, read_conjugacy, read_fingerprints, read_spectra
from registry.storage.portable.calibration_merge import merge_calibrations
from registry.types import Calibration, Filter, Ingested, ModelCard
from tests.storage.factory import OTHER, RULE, SPEC, new_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CALIBRATION = Calibration(SPEC.hash, "l1", 0.01, 0.2, ((0.0, 0.1), (1.0, 0.5)), "zoo")


def content(store: Store, **chosen: Any) -> list[dict[str, Any]]:
    """All that is stored, ids aside, in a form that compares: the definition of equal registries."""
    with store.selection(**chosen) as selection:
        found = [each for portion in selection.models() for each in portion]
        calibrations, wrong = selection.calibrations()
    assert not wrong
    return [*map(comparable, found), {"calibrations": calibrations}]


def comparable(each: Portable | Ingested) -> dict[str, Any]:
    assert isinstance(each, Portable), each
    new = each.new
    return {
        "names": each.names,
        "plan": new.plan,
        "card": replace(new.card, metrics=tuple(sorted(new.card.metrics, key=str)), tags=tuple(sorted(new.card.tags))),
        "spectra": [(each.layer, each.mean, each.values.tolist(), each.method) for each in new.spectra],
        "means": (new.means, new.methods),
        "conjugacy": (new.conjugacy, new.conjugacy_rule),
        "vectors": sorted((f.spec.hash, f.vector.tolist()) for f in new.fingerprints),
        "rest": (new.tool_version, new.created),
    }


def portables(file: Path) -> list[Portable | Ingested]:
    with PortableFile(file) as given:
        return [each for portion in given.models() for each in portion]


def carry(source: Store, path: Path, *, spectra: bool = True, **chosen: Any) -> Path:
    """Write what is chosen of a registry into a new file."""
    with source.selection(**chosen) as selection, Store.open(str(path), mode="create") as target:
        for portion in selection.models(spectra=spectra):
            assert {o.status for o in target.merge(portion, overrule=False, rule=RULE)} == {"added"}
        target.write(merge_calibrations, selection.calibrations()[0], replace=False)
    seal(path)
    return path


def bring(target: Store, path: Path, **options: Any) -> list[Ingested]:
    settings = {"overrule": False, "rule": RULE} | options
    with PortableFile(path) as given:
        found = [outcome for portion in given.models() for outcome in target.merge(portion, **settings)]
        target.write(merge_calibrations, given.calibrations()[0], replace=settings["overrule"])
    return found


def statuses(outcomes: Iterable[Ingested]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def fill(store: Store) -> None:
    """Models of every kind: with several names and with none, without spectra, figures or vectors."""
    store.add(new_model("plain", 0))
    store.add(new_model("second name", 0))
    store.add(new_model("lean", 1, keep_spectra=False, fingerprints=(), conjugacy=None, card=ModelCard()))
    for seed in (2, 3, 4):
        store.add(new_model(f"m{seed}", seed))
    store.add(new_model("loses its name", 5))
    store.add(new_model("loses its name", 6), replace=True)
    store.write(put_calibration, CALIBRATION)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, empty_file: Path) -> Path:
    """Folder of a registry as ``fill`` makes it, ``source.db``, and an export of it, ``given.db``; to be copied."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copy(empty_file, folder / "source.db")
    with Store.open(str(folder / "source.db"), mode="write") as store:
        fill(store)
        carry(store, folder / "given.db")
    return folder


@pytest.fixture
def given(tmp_path: Path, written: Path) -> Path:
    """The export, beside a copy of the registry."""
    shutil.copy(written / "source.db", tmp_path)
    return Path(shutil.copy(written / "given.db", tmp_path))


def test_there_and_back_again(store: Store, registry_url: str, tmp_path: Path, given: Path) -> None:
    """From a file into either database, out of it into a file, and into SQLite: the same, but for ids."""
    outcomes = bring(store, given)
    assert statuses(outcomes) == ["added"] * 7
    again = carry(store, tmp_path / "again.db")
    with Store.open(str(tmp_path / "source.db"), mode="read") as source, Store.open(str(again), mode="read") as last:
        assert content(source) == content(store) == content(last)
        assert len(content(source)) == 8
    assert migrate.check(registry_url) == migrate.check(str(again)) == ()


def test_contents_that_differ_are_not_equal(store: Store) -> None:
    """The equality above sees a last bit of a vector, a time and a metric."""
    fill(store)
    before = content(store)
    bumped = new_model("m2", 2)
    vector = np.nextafter(bumped.fingerprints[0].vector, np.float32(9))
    store.write(put_fingerprints, store.read(find_model, "m2").id, [replace(bumped.fingerprints[0], vector=vector)])
    assert [a == b for a, b in zip(before, content(store), strict=True)].count(False) == 1


def test_importing_again_changes_nothing(store: Store, given: Path) -> None:
    bring(store, given)
    before = content(store)
    assert statuses(bring(store, given)) == ["known"] * 7
    assert content(store) == before


def test_known_weights_get_what_is_new(store: Store, given: Path) -> None:
    """Names and numbers are added, the card is filled in, and what is here of numbers stays."""
    mine = new_model("mine", 0, keep_spectra=False, fingerprints=(), conjugacy=None, card=ModelCard(family="ours"))
    store.add(mine)
    created = store.read(find_model, "mine").created
    other = new_model("m2", 2)
    odd = tuple(replace(f, vector=f.vector + 1) for f in other.fingerprints)
    store.add(replace(other, fingerprints=odd, card=ModelCard(family="ours", task="ours")))
    outcomes = bring(store, given)
    assert statuses(outcomes) == ["merged", "added", "merged", "added", "added", "added", "added"]
    found = store.read(find_model, "mine")
    assert (found.names, found.family, found.task) == (("mine", "plain", "second name"), "ours", "classification")
    assert found.created == created
    assert len(store.read(read_spectra, found.id) or ()) == 3
    assert set(store.read(read_conjugacy, [found.id])) == {found.id}
    assert len(store.read(read_fingerprints, SPEC.hash, [found.id])[0]) == 1
    same = store.read(find_model, "m2")
    assert (same.family, same.task) == ("ours", "ours")
    assert store.read(read_fingerprints, SPEC.hash, [same.id])[1][0].tolist() == odd[0].vector.tolist()
    assert statuses(bring(store, given)) == ["known"] * 7
    assert statuses(bring(store, given, overrule=True)) == ["merged", "known", "merged"] + ["known"] * 4
    assert (store.read(find_model, "m2").family, store.read(find_model, "mine").family) == ("resnet", "resnet")
    assert statuses(bring(store, given, overrule=True)) == ["known"] * 7


def test_a_name_of_other_weights_is_a_failed_item_or_moves(store: Store, given: Path) -> None:
    store.add(new_model("m3", 99))
    outcomes = bring(store, given)
    assert statuses(outcomes) == ["added", "added", "added", "failed", "added", "added", "added"]
    [failed] = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.message.startswith("the name 'm3' belongs to other weights here, sha256:")
    assert "--replace" in failed.remedy
    assert store.read(count_models) == 7
    outcomes = bring(store, given, overrule=True)
    assert statuses(outcomes).count("added") == 1
    assert store.read(find_model, "m3").content_hash == new_model("", 3).plan.content_hash
    assert store.read(count_models) == 8  # the model that had it stays


def test_a_dry_run_says_the_same_and_changes_nothing(store: Store, given: Path) -> None:
    store.add(new_model("m3", 99))
    before = content(store)
    said = bring_dry(store, given)
    assert content(store) == before
    assert said == statuses(bring(store, given))


def bring_dry(store: Store, path: Path) -> list[str]:
    with PortableFile(path) as file:
        portions = list(file.models())
    return [o.status for p in portions for o in store.merge(p, overrule=False, rule=RULE, dry_run=True)]


def test_another_matrix_rule(store: Store, tmp_path: Path, empty_file: Path) -> None:
    """Layers of this program's rule take the place of older ones, and older ones that of none."""
    older, newer = (tmp_path / name for name in ("older.db", "newer.db"))
    for path, rule in ((older, "r0"), (newer, RULE)):
        shutil.copy(empty_file, path)
        with Store.open(str(path), mode="write") as source:
            source.add(new_model(f"by {rule}", 1, rule=rule))
    bring(store, older)
    assert statuses(bring(store, newer)) == ["merged"]
    found = store.read(find_model, f"by {RULE}")
    assert (found.matrix_rule, found.names) == (RULE, ("by r0", f"by {RULE}"))
    assert len(store.read(read_fingerprints, SPEC.hash)[0]) == 1
    before = content(store)
    assert statuses(bring(store, older)) == ["known"]
    assert content(store) == before


def test_part_of_it_and_without_spectra(store: Store, tmp_path: Path) -> None:
    fill(store)
    path = carry(store, tmp_path / "part.db", spectra=False, wanted=Filter(family="resnet"), names=["m2", "m4", "lean"])
    with Store.open(str(path), mode="read") as part:
        assert [model.name for model in part.read(read_summaries)] == ["m2", "m4"]
        assert part.read(read_spectra, part.read(find_model, "m2").id) is None
        assert part.calibration(SPEC.hash, "l1") == store.calibration(SPEC.hash, "l1")
        assert {spec.hash for spec in part.read(all_specs)} == {SPEC.hash, OTHER.hash}
    assert migrate.check(str(path)) == ()
    assert statuses(bring(store, path)) == ["known"] * 2  # what is left out takes nothing away


def test_many_go_a_portion_at_a_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.storage.portable.model_assembly.BATCH", 5)
    models = [new_model(f"n{seed}", seed) for seed in range(23)]
    heavy = 2_000
    monkeypatch.setattr("registry.storage.portable.model_assembly.PORTION", 2 * heavy)
    now = datetime.now(UTC)
    store.merge([Portable(new, ((new.name, now),)) for new in models], overrule=False, rule=RULE)
    with store.selection() as selection:
        sizes = [len(portion) for portion in selection.models()]
    assert sum(sizes) == 23
    assert max(sizes) <= 5
    assert sizes != [5, 5, 5, 5, 3]  # split once more by weight
    assert statuses(bring(store, carry(store, tmp_path / "many.db"))) == ["known"] * 23


def test_calibrations_stay_unless_they_are_to_be_replaced(store: Store, given: Path) -> None:
    store.write(put_calibration, replace(CALIBRATION, tolerance=0.3))
    bring(store, given)
    assert (store.calibration(SPEC.hash, "l1") or CALIBRATION).tolerance == 0.3
    bring(store, given, overrule=True)
    assert (store.calibration(SPEC.hash, "l1") or CALIBRATION).tolerance == 0.2


def test_the_file_has_no_log_and_none_is_left_beside_it(given: Path) -> None:
    before = given.read_bytes()
    assert len(portables(given)) == 7
    assert [path.name for path in given.parent.iterdir() if path.name.startswith("given")] == ["given.db"]
    assert given.read_bytes() == before


def test_a_live_registry_can_be_imported_from(store: Store, tmp_path: Path, given: Path) -> None:
    source = tmp_path / "source.db"
    with Store.open(str(source), mode="write") as live:  # with a log, and something in it
        live.add(new_model("latest", 77))
        assert "added" in statuses(bring(store, source))
    assert store.read(has_name, "latest")


def forge(path: Path, *statements: str) -> Path:
    """Change a file as no program of ours would: without keys, checks and types."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("PRAGMA writable_schema=ON")
    for statement in statements:
        for word, meaning in WORDS.items():
            statement = statement.replace(word, meaning)
        connection.execute(statement)
    connection.close()
    return path


WORDS = {
    "OF_M2": "(SELECT model_id FROM names WHERE name = 'm2')",
    "NAN": np.full(3, np.nan, "<f4").tobytes().hex(),
    "MINUS": (-np.ones(3, "<f4")).tobytes().hex(),
}
"""What statements of forgers may say for short."""

FORGERIES: dict[str, tuple[Sequence[str], str]] = {
    "text for a number": (["UPDATE models SET parameters = 'many' WHERE id = OF_M2"], "models.parameters is 'many'"),
    "a blob for text": (["UPDATE models SET task = x'00ff' WHERE id = OF_M2"], "models.task is b"),
    "more than 64 bits": (["UPDATE models SET parameters = 1e300 WHERE id = OF_M2"], "models.parameters"),
    "a negative count": (["UPDATE models SET bytes = -1 WHERE id = OF_M2"], "-1 bytes are out of range"),
    "no time": (["UPDATE models SET created = 'yesterday' WHERE id = OF_M2"], "models.created is 'yesterday'"),
    "no hash": (["UPDATE models SET content_hash = 'abc' WHERE id = OF_M2"], "'abc' is not a content hash"),
    "a name that steers": ([r"UPDATE names SET name = char(27) || '[2J' WHERE name = 'm2'"], "cannot be a name"),
    "a name like a hash": (["UPDATE names SET name = 'sha256:1' WHERE name = 'm2'"], "starts a content hash"),
    "a long name": (["UPDATE names SET name = printf('%.*c', 5000, 'x') WHERE name = 'm2'"], "too long"),
    "NUL in a text": (["UPDATE models SET task = 'a' || char(0) WHERE id = OF_M2"], "task contains a NUL character"),
    "no UTF-8": (["UPDATE models SET task = CAST(x'ff41' AS TEXT) WHERE id = OF_M2"], "damaged: Could not decode"),
    "an infinite metric": (["UPDATE metrics SET value = 9e999 WHERE model_id = OF_M2"], "metrics.value is inf"),
    "no method": (["UPDATE layers SET method = 'guess' WHERE model_id = OF_M2"], "contradicts itself"),
    "no architecture": (["UPDATE models SET architecture_id = 99 WHERE id = OF_M2"], "architecture is missing"),
    "a missing layer": (["DELETE FROM layers WHERE position = 1 AND model_id = OF_M2"], "declares 3 layers and has 2"),
    "no layer": (
        ["DELETE FROM layers WHERE model_id = OF_M2", "UPDATE models SET layers = 0 WHERE id = OF_M2"],
        "declares 0 layers and has 0",
    ),
    "another order": (["UPDATE layers SET p = 5 WHERE position = 0 AND model_id = OF_M2"], "contradicts itself"),
    "no shape": (["UPDATE layers SET shape = '[[4]]' WHERE model_id = OF_M2"], "'[[4]]' is no shape"),
    "a deep shape": (
        ["UPDATE layers SET shape = printf('%.*c', 60000, '[') WHERE model_id = OF_M2"], "is no shape",
    ),
    "a giant shape": (["UPDATE layers SET shape = '[1e999, 2]' WHERE model_id = OF_M2"], "is no shape"),
    "an infinite mean": (["UPDATE layers SET mean = -9e999 WHERE model_id = OF_M2"], "layers.mean is -inf"),
    "short spectra": (["UPDATE spectra SET data = x'00' WHERE model_id = OF_M2"], "the length that its layers declare"),
    "spectra of NaN": (
        ["UPDATE spectra SET data = x'NAN' || substr(data, 13) WHERE model_id = OF_M2"], "damaged: Could not decode",
    ),
    "spectra of NaN, as a blob": (
        ["UPDATE spectra SET data = CAST(x'NAN' || substr(data, 13) AS BLOB) WHERE model_id = OF_M2"],
        "the spectrum of layer stem.weight is not finite",
    ),
    "negative eigenvalues": (
        ["UPDATE spectra SET data = CAST(x'MINUS' || substr(data, 13) AS BLOB) WHERE model_id = OF_M2"],
        "does not ascend from 0",
    ),
    "spectra not scaled": (
        ["UPDATE spectra SET data = CAST(zeroblob(length(data)) AS BLOB) WHERE model_id = OF_M2"],
        "not scaled to mean 1",
    ),
    "a giant blob": (
        ["UPDATE spectra SET data = zeroblob(300000000) WHERE model_id = OF_M2"], "its spectra are larger than",
    ),
    "a giant text": (
        ["UPDATE models SET training = printf('%.*c', 3000000, 'x') WHERE id = OF_M2"], "string or blob too big",
    ),
    "a short vector": (["UPDATE fingerprints SET vector = x'00000000' WHERE model_id = OF_M2"], "must be float32"),
    "a vector of NaN": (
        ["UPDATE fingerprints SET vector = CAST(x'NAN' || substr(vector, 13) AS BLOB) WHERE model_id = OF_M2"],
        "numbers that are not finite",
    ),
    "a spec that is gone": (["UPDATE fingerprints SET spec_id = 99 + spec_id WHERE model_id = OF_M2"], "cannot be"),
    "an unknown class": (["UPDATE conjugacy SET tail_class = 'x' WHERE model_id = OF_M2"], "unknown tail class 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_model_is_one_failed_item(forgery: str, store: Store, given: Path) -> None:
    """Of it nothing is stored, and the others are."""
    statements, reason = FORGERIES[forgery]
    outcomes = bring(store, forge(given, *statements))
    assert sorted(statuses(outcomes)) == ["added"] * 6 + ["failed"]
    [failed] = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert reason in failed.message
    assert store.read(count_models) == 6
    assert not store.read(has_name, "m2")
    assert migrate.check(store_url(store)) == ()
    assert {model.name for model in store.read(read_summaries)} >= {"plain", "lean", "m3", "m4", "loses its name"}


def store_url(store: Store) -> str:
    return store.address.url.render_as_string(hide_password=False).replace("+psycopg", "")


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("'{}'", "cannot be read"),
        ("'[1]'", "cannot be read"),
        ("printf('%.*c', 60000, '[')", "cannot be read"),
        ("replace(definition, '0.1', '0.25')", "its hash is"),
        ("replace(definition, '\"length\": ', '\"length\": 99')", "more than 480 numbers"),
        ("replace(definition, '\"seed\": 0', '\"seed\": true')", "wrong kind"),
    ],
)
def test_a_forged_spec_fails_the_models_that_have_its_vectors(
    definition: str, reason: str, store: Store, given: Path
) -> None:
    outcomes = bring(store, forge(given, f"UPDATE specs SET definition = {definition} WHERE name = 'mme'"))  # noqa: S608
    assert sorted(statuses(outcomes)) == ["added"] + ["failed"] * 6  # `lean` has no vectors
    assert all(reason in outcome.message for outcome in outcomes if outcome.status == "failed")
    assert store.read(all_specs) == []


@pytest.mark.parametrize(
    "column", ["quantiles = '[[1]]'", "quantiles = '[[0, 2], [1, 1]]'", "rate = 7", "tolerance = -1"]
)
def test_a_forged_calibration_is_left_out(column: str, given: Path) -> None:
    with PortableFile(forge(given, f"UPDATE calibrations SET {column}")) as file:  # noqa: S608
        found, wrong = file.calibrations()
    assert (found, [each.reference for each in wrong]) == ([], ["calibration 1"])


@pytest.mark.parametrize(
    ("statements", "kind", "reason"),
    [
        (["DROP TABLE tags"], StorageError, "has no table tags as a registry has"),
        (["ALTER TABLE tags RENAME TO old", "CREATE VIEW tags AS SELECT * FROM old"], StorageError, "no table tags"),
        (["ALTER TABLE tags ADD COLUMN extra TEXT"], StorageError, "no table tags"),
        (
            ["ALTER TABLE tags DROP COLUMN value", "ALTER TABLE tags ADD COLUMN value TEXT AS (hex(zeroblob(9)))"],
            UnsafeError,
            "computes columns of tags",
        ),
        (["DROP TABLE archreg_version"], StorageError, "is not a registry"),
        (["UPDATE archreg_version SET version_num = 'v0001'"], SchemaVersionError, "has schema v0001"),
        (["UPDATE archreg_version SET version_num = 'v9999'"], SchemaVersionError, "newer than this program's"),
        (["DELETE FROM archreg_version"], SchemaVersionError, "does not say which schema it has"),
    ],
)
def test_a_file_that_is_no_registry_of_today(
    statements: list[str], kind: type[RegistryError], reason: str, given: Path
) -> None:
    with pytest.raises(kind, match=reason):
        PortableFile(forge(given, *statements))


def test_an_old_file_is_upgraded_as_a_copy(given: Path) -> None:
    forge(given, "UPDATE archreg_version SET version_num = 'v0001'")
    with pytest.raises(SchemaVersionError) as old:
        PortableFile(given)
    assert old.value.remedy == f"upgrade a copy of it: cp {given} copy.db && archreg db upgrade --db copy.db"


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("text", b"hello " * 1000)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StorageError):
            PortableFile(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(NotFoundError, match="there is no file"):
            PortableFile(tmp_path / name)


def test_a_torn_page_costs_the_models_on_it(store: Store, given: Path) -> None:
    """Whatever page is destroyed: no crash, nothing half-written, and what is sound comes in."""
    whole = given.read_bytes()
    came = set()
    for page in range(1, len(whole) // 4096):
        torn = given.with_name("torn.db")
        torn.write_bytes(whole[: 4096 * page] + b"\xff" * 4096 + whole[4096 * (page + 1) :])
        try:
            came.add(len([o for o in bring(store, torn) if o.status != "failed"]))
        except StorageError:
            came.add(0)
    assert {0, 7} <= came
    assert migrate.check(store_url(store)) == ()


def test_the_same_weights_or_name_twice(store: Store, given: Path) -> None:
    forge(
        given,
        "DROP INDEX IF EXISTS none",
        "CREATE TABLE n2 AS SELECT * FROM names",
        "DROP TABLE names",
        "CREATE TABLE names (id INTEGER, name TEXT, model_id INTEGER, created TEXT, PRIMARY KEY (id))",
        "INSERT INTO names SELECT id, CASE name WHEN 'm3' THEN 'm2' ELSE name END, model_id, created FROM n2",
    )
    for overrule, count in ((False, 6), (True, 7)):
        outcomes = bring(store, given, overrule=overrule)
        assert store.read(count_models) == count
        assert ("failed" in statuses(outcomes)) is not overrule


def test_text_that_no_database_keeps_is_refused_by_any_way_in(store: Store) -> None:
    for card in (
        ModelCard(task="a\0"),
        ModelCard(task="\ud800"),
        ModelCard(task="x" * 100_001),
        ModelCard(family="x" * 2_001),
        ModelCard(seed=2**63),
        ModelCard(tags=(("k" * 2_001, ""),)),
    ):
        with pytest.raises(UsageError):
            store.add(new_model("m", 1, card=card))
    assert store.read(count_models) == 0


def test_a_known_model_takes_no_spectra_of_other_layers(store: Store, given: Path) -> None:
    store.add(new_model("here", 2, keep_spectra=False))
    outcomes = bring(store, forge(given, "UPDATE layers SET name = 'x' WHERE model_id = OF_M2"))
    [failed] = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.message.startswith("its layers differ from the stored ones of these weights")
    assert store.read(find_model, "here").names == ("here",)


def test_figures_by_newer_thresholds_do_not_replace(store: Store, given: Path) -> None:
    store.add(new_model("m2", 2))
    held = store.read(read_conjugacy, [store.read(find_model, "m2").id])
    bring(store, forge(given, "UPDATE conjugacy SET z = 99, rule = rule + 1"))
    assert store.read(read_conjugacy, [store.read(find_model, "m2").id]) == held


def test_hashes_of_the_factory_are_hashes() -> None:
    assert new_model("", 3).plan.content_hash == hashlib.sha256(b"3").hexdigest()
