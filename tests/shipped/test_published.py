"""What ``published.db`` holds: values of this version, as they follow from what it stores and from the zoo.

It is built by ``make published``. Without the zoo, its versions are compared with those of the code, and what follows
from stored spectra and figures of weights is computed again. With the zoo, a sample of models is measured again.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from registry import Registry, shipped
from registry.equivalence.sketches import SKETCH_VERSION
from registry.errors import SchemaVersionError
from registry.shipped import checksum_file, checksum_of, shipped_file
from registry.sources import MATRIX_RULE
from registry.spectral import SPECS, conjugacy, fingerprint
from registry.spectral.training import FIGURES_VERSION, training
from registry.storage import Store
from registry.storage.engine.schema_version import HEAD
from registry.storage.models.records import CONJUGACY_RULE
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import (
    read_conjugacy,
    read_sketches,
    read_spectra,
    read_vector,
    read_weight_figures,
)
from scripts import published

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry.types import Conjugacy, Spectrum

BUILD = "the published registry is of another version: make published"
MODELS = 163
FAMILIES = 20

# Of each kind of network one: convolutions, depthwise ones, dense layers, gates of LSTMs, embeddings, graphs.
SAMPLE = [
    "resnet-cifar/akamaster-resnet20",
    "kws-ds-cnn/DS_CNN_S",
    "kws-lstm/LSTM_S",
    "sb3-ppo-mlp/CartPole-v1",
    "fsrcnn/FSRCNN_x2",
    "megnet/matgl-MEGNet-MP-2018.6.1-Eform",
    "chgnet/0.3.0",
]


def behind(path: Path) -> list[str]:
    """What of a registry's stored values is of other versions than this program's, in words."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:

        def found(statement: str) -> set[Any]:
            return {value for (value,) in connection.execute(statement)}

        expected = {
            "schema": ({HEAD}, found("SELECT version_num FROM archreg_version")),
            "matrix rule": ({MATRIX_RULE}, found("SELECT matrix_rule FROM models")),
            "specs": ({spec.hash for spec in SPECS.values()}, found("SELECT hash FROM specs")),
            "definitions": (
                {json.dumps(spec.definition(), sort_keys=True) for spec in SPECS.values()},
                found("SELECT definition FROM specs"),
            ),
            "sketches": ({SKETCH_VERSION}, found("SELECT version FROM sketches")),
            "figures of weights": ({FIGURES_VERSION}, found("SELECT version FROM weight_figures")),
            "conjugacy rule": ({CONJUGACY_RULE}, found("SELECT rule FROM conjugacy")),
        }
        counts = {
            "fingerprints": (len(SPECS) * MODELS, found("SELECT count(*) FROM fingerprints")),
            **{
                table: (MODELS, found(f"SELECT count(*) FROM {table}"))  # noqa: S608
                for table in ("models", "names", "spectra", "sketches", "weight_figures", "conjugacy")
            },
            **{
                table: (0, found(f"SELECT count(*) FROM {table}"))  # noqa: S608
                for table in ("runs", "items", "calibrations", "partitions", "classes")
            },
        }
    wrong = [f"{what}: {is_} instead of {ought}" for what, (ought, is_) in expected.items() if is_ != ought]
    return wrong + [f"{is_.pop()} {what}, not {ought}" for what, (ought, is_) in counts.items() if is_ != {ought}]


def test_it_is_of_this_version() -> None:
    assert behind(shipped_file("published")) == [], BUILD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE archreg_version SET version_num = 'v0001'", "schema: "),
        ("UPDATE models SET matrix_rule = 'matrix-1' WHERE id = 7", "matrix rule: "),
        ("UPDATE specs SET hash = '0123456789abcdef' WHERE name = 'mme'", "specs: "),
        ("DELETE FROM specs WHERE name = 'shapes'", "specs: "),
        ("UPDATE specs SET definition = '{}' WHERE name = 'mme'", "definitions: "),
        ("UPDATE sketches SET version = version + 1 WHERE model_id = 7", "sketches: "),
        ("UPDATE weight_figures SET version = version - 1", "figures of weights: "),
        ("UPDATE conjugacy SET rule = rule - 1 WHERE model_id = 163", "conjugacy rule: "),
        ("DELETE FROM fingerprints WHERE model_id = 7", "486 fingerprints, not 489"),
        ("DELETE FROM spectra WHERE model_id = 7", "162 spectra, not 163"),
    ],
)
def test_what_is_of_another_version_is_noticed(change: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.db"
    shutil.copyfile(shipped_file("published"), path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    assert any(words in line for line in behind(path))


def test_a_file_of_another_schema_says_how_to_get_one_of_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "published.db"
    shutil.copyfile(shipped_file("published"), path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE archreg_version SET version_num = 'v0001'")
    checksum_file(path).write_text(checksum_of(path))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(SchemaVersionError) as caught:
        Store.open("published:", mode="read")
    assert caught.value.message == f"published: has schema v0001, this program needs {HEAD}"
    assert caught.value.remedy == f"{shipped.REINSTALL}; in a checkout: make published"


def test_nothing_is_left_to_compute_or_to_read_again() -> None:
    with Registry("published:") as reg:
        assert reg.outdated() == 0
        assert reg.older().models == ()
        assert reg.to_read_again() == ()
        assert reg.check() == ()
        assert len({model.family for model in reg.models()}) == FAMILIES
        assert {model.training_class for model in reg.models()} == {"trained"}


def test_it_fits_into_a_package_and_opens_without_a_log() -> None:
    content = shipped_file("published").read_bytes()
    assert len(content) <= published.LARGEST
    assert content[18:20] == b"\1\1"  # the rollback journal, for writing and for reading; 2 is a write-ahead log
    with closing(sqlite3.connect(f"file:{shipped_file('published')}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert connection.execute("PRAGMA page_size").fetchone() == (published.PAGE,)


def test_it_names_no_place_and_no_time_of_the_machine_that_built_it() -> None:
    with closing(sqlite3.connect(f"file:{shipped_file('published')}?mode=ro&immutable=1", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        texts = {
            cell
            for table in tables
            for row in connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            for cell in row
            if isinstance(cell, str)
        }
        assert connection.execute("SELECT DISTINCT location, header_hash FROM models").fetchall() == [("", "")]
    # A path begins a text, or follows a space, a quotation mark or the like; a source has one after its host.
    assert [text for text in texts if re.search(r"(^|[\s'\"(=,])(/|[A-Za-z]:\\|~/)\w", text)] == []
    assert {text for text in texts if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*", text)} == {published.STORED}


# What follows from stored values.


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with threadpool_limits(limits=1), Store.open("published:", mode="read") as opened:
        yield opened


def spectra_of(store: Store, name: str) -> tuple[Spectrum, ...]:
    found = store.read(read_spectra, store.read(find_model, name).id)
    assert found is not None
    return found


def vector_of(store: Store, name: str, spec: str) -> np.ndarray:
    found = store.read(read_vector, SPECS[spec].hash, store.read(find_model, name).id)
    assert found is not None
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_vectors_follow_from_the_stored_spectra(store: Store, spec: str) -> None:
    # A change of numbers without a change of version would show here. Kernels of processors differ in the last bits.
    with Registry("published:") as reg:
        for name in list(reg)[::10]:
            again = fingerprint(spectra_of(store, name), SPECS[spec]).vector
            np.testing.assert_allclose(again, vector_of(store, name, spec), rtol=1e-5, atol=1e-5, err_msg=BUILD)


def test_a_vector_of_other_spectra_is_told_apart(store: Store) -> None:
    spectra = spectra_of(store, SAMPLE[0])
    bent = [dataclasses.replace(each, values=each.values**1.01) for each in spectra]
    for spec in ("layered", "mme"):
        again = fingerprint(bent, SPECS[spec]).vector
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(again, vector_of(store, SAMPLE[0], spec), rtol=1e-5, atol=1e-5)


def agrees(one: Conjugacy, other: Conjugacy) -> None:
    """Check that conjugacy figures are the same: classes equal, numbers to 1e-6."""
    assert one.tail_class == other.tail_class, BUILD
    assert one.training_class == other.training_class, BUILD
    for name in ("tail", "wishart_tail", "z"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, err_msg=BUILD)
    assert (one.decay and one.decay.law) == (other.decay and other.decay.law), BUILD


def test_conjugacy_follows_from_spectra_and_figures(store: Store) -> None:
    for name in SAMPLE:
        id_ = store.read(find_model, name).id
        figures = store.read(read_weight_figures, id_)
        assert figures is not None
        spectra = spectra_of(store, name)
        again = conjugacy(spectra, figures)
        agrees(again, store.read(read_conjugacy, [id_])[id_])
        assert training(figures, [spectrum.layer for spectrum in spectra]).training_class == "trained"


# With the zoo.


@pytest.fixture(scope="module")
def measured(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The sample, measured now from the weights."""
    lines = (zoo / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    manifest = tmp_path_factory.mktemp("published") / "manifest.jsonl"
    rows = [row for row in map(json.loads, lines) if row["name"] in SAMPLE]
    assert len(rows) == len(SAMPLE)
    manifest.write_text("".join(json.dumps(row | {"path": str(zoo / row["path"])}) + "\n" for row in rows))
    path = manifest.with_name("measured.db")
    with threadpool_limits(limits=1):
        with Registry(path) as reg:
            done = reg.ingest_all(reg.plan(manifest=manifest), executor="inprocess")
            assert {each.status for each in done} == {"added"}
        with Store.open(str(path), mode="read") as opened:
            yield opened


def test_the_cards_are_those_of_the_manifest(zoo: Path) -> None:
    rows = [json.loads(line) for line in (zoo / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    with Registry("published:") as reg:
        models = {model.name: model for model in reg.models()}
        tags = {row["name"]: dict(reg.show(row["name"]).tags) for row in rows if "epoch" in row}
    assert set(models) == {row["name"] for row in rows}, BUILD
    for row in rows:
        model = models[row["name"]]
        for field in ("family", "architecture", "task", "licence", "source"):
            assert getattr(model, field) == (row.get(field) or ""), BUILD
        stated = [(each["name"], each["dataset"], each["split"], each["value"]) for each in row["metrics"]]
        assert sorted((each.name, each.dataset, each.split, each.value) for each in model.metrics) == sorted(stated)
        if "epoch" in row:
            assert tags[row["name"]] == {"epoch": str(row["epoch"])}


@pytest.mark.parametrize("name", SAMPLE)
def test_the_weights_measured_again_give_what_is_stored(measured: Store, store: Store, name: str) -> None:
    # Eigenvalues agree to 1e-12 of the largest between machines and are stored as float32, sketches as float16.
    mine, theirs = (each.read(find_model, name) for each in (measured, store))
    kept = {"id": 0, "created": "", "location": ""}
    assert dataclasses.replace(mine, **kept) == dataclasses.replace(theirs, **kept), BUILD
    for one, other in zip(spectra_of(measured, name), spectra_of(store, name), strict=True):
        assert (one.layer, one.method) == (other.layer, other.method), BUILD
        assert one.mean == pytest.approx(other.mean, rel=1e-10), BUILD
        atol = 1e-11 * float(other.values.max())
        np.testing.assert_allclose(one.values, other.values, rtol=2e-7, atol=atol, err_msg=BUILD)
    for spec in SPECS:
        given, stored = vector_of(measured, name, spec), vector_of(store, name, spec)
        np.testing.assert_allclose(given, stored, rtol=1e-5, atol=1e-5, err_msg=BUILD)
    drawn, kept_sketches = (each.read(read_sketches, one.id) for each, one in ((measured, mine), (store, theirs)))
    assert drawn is not None
    assert kept_sketches is not None
    np.testing.assert_allclose(
        drawn.values.astype(np.float64), kept_sketches.values.astype(np.float64), rtol=1e-3, atol=1e-6, err_msg=BUILD
    )
    figures, kept_figures = (
        each.read(read_weight_figures, one.id) for each, one in ((measured, mine), (store, theirs))
    )
    assert figures is not None
    assert kept_figures is not None
    assert (figures.vectors, figures.version) == (kept_figures.vectors, kept_figures.version), BUILD
    np.testing.assert_allclose(figures.layers, kept_figures.layers, rtol=1e-3, atol=1e-3, err_msg=BUILD)
    agrees(*(each.read(read_conjugacy, [one.id])[one.id] for each, one in ((measured, mine), (store, theirs))))


def test_the_weights_of_another_model_do_not(measured: Store, store: Store) -> None:
    """The control: other weights of the same shapes are noticed by every comparison above."""
    first, second = "sb3-ppo-mlp/CartPole-v1", "sb3-ppo-mlp/MountainCar-v0"
    pairs = list(zip(spectra_of(measured, first), spectra_of(store, second), strict=True))
    assert any(one.values.shape != other.values.shape or abs(one.mean / other.mean - 1) > 1e-3 for one, other in pairs)
    vectors = [vector_of(each, name, "layered") for each, name in ((measured, first), (store, second))]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_two_builds_are_equal_byte_for_byte(zoo: Path, tmp_path: Path) -> None:
    # Of the sample alone: a build of all takes ten seconds.
    lines = (zoo / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    for copy in ("one", "two"):
        (tmp_path / copy).mkdir()
        rows = [row for row in map(json.loads, lines) if row["name"] in SAMPLE]
        manifest = "".join(json.dumps(row | {"path": str(zoo / row["path"])}) + "\n" for row in rows)
        (tmp_path / copy / "manifest.jsonl").write_text(manifest)
        assert published.build(tmp_path / copy, tmp_path / copy / "published.db") == len(SAMPLE)
        assert checksum_file(tmp_path / copy / "published.db").read_text().strip() == checksum_of(
            tmp_path / copy / "published.db"
        )
    assert (tmp_path / "one" / "published.db").read_bytes() == (tmp_path / "two" / "published.db").read_bytes()


def test_a_model_that_cannot_be_read_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (tmp_path / "manifest.jsonl").write_text('{"path": "a.safetensors", "name": "a"}\n')
    with pytest.raises(SystemExit, match="a: failed"):
        published.build(tmp_path, tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()
