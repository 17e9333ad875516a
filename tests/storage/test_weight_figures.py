"""Figures of weights: stored, read back, carried to other databases, and refused where a row is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from registry.errors import SpectrumError, UsageError
from registry.storage.engine import schema
from registry.storage.models.adding import find_holding, whole_hashes
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import missing_weight_figures, read_conjugacy, read_weight_figures
from registry.types import Alignments, MatrixFigures, VectorCounts, WeightFigures
from tests.storage.factory import LAYERS, OTHER, RULE, SPEC, conjugacy_of, new_model
from tests.storage.test_portable import bring, carry

if TYPE_CHECKING:
    from pathlib import Path

    from registry.storage import Store

FIGURES = WeightFigures(
    (
        MatrixFigures(1.5, -2.25, nan, nan, 0.5, -8.0, flat=True, zero_rows=3, saturated=70_000),
        *(MatrixFigures(single=True, constant_rows=at) for at in range(1, len(LAYERS))),
    ),
    Alignments(3.25, nan, -1.0, nan, 4),
    VectorCounts(5, 4, 10, 9, 6, 0),
    1,
)


def same(found: WeightFigures | None, expected: WeightFigures = FIGURES) -> bool:
    """NaN is where NaN was."""
    return repr(found) == repr(expected)


def test_figures_come_back_as_they_were(store: Store) -> None:
    store.add(new_model("with", 1, weight_figures=FIGURES))
    store.add(new_model("without", 2))
    first, second = store.read(find_model, "with").id, store.read(find_model, "without").id
    assert same(store.read(read_weight_figures, first))
    assert store.read(read_weight_figures, second) is None
    assert store.read(missing_weight_figures, 1) == [second]
    assert store.read(missing_weight_figures, 2) == [first, second]
    holding = store.read(find_holding, store.read(find_model, "with").content_hash)
    assert holding is not None
    assert holding.weight_figures == 1


def test_a_model_is_whole_with_figures_alone(store: Store) -> None:
    store.add(new_model("with", 1, weight_figures=FIGURES))
    store.add(new_model("without", 2))
    assert store.read(whole_hashes, RULE, [SPEC.hash, OTHER.hash], 0, 1, spectra=True, exact=True) == []


def test_the_same_weights_again_bring_what_was_missing(store: Store) -> None:
    store.add(new_model("m", 1))
    model_id = store.read(find_model, "m").id
    store.add(new_model("m", 1, weight_figures=FIGURES, conjugacy=replace(conjugacy_of(1), training_class="trained")))
    assert same(store.read(read_weight_figures, model_id))
    newer = FIGURES._replace(version=2, vectors=VectorCounts())
    store.add(new_model("m", 1, weight_figures=newer))
    assert same(store.read(read_weight_figures, model_id), newer)
    store.add(new_model("m", 1))
    assert same(store.read(read_weight_figures, model_id), newer)


def test_every_training_class_is_kept(store: Store) -> None:
    for at, class_ in enumerate(("trained", "untrained", "undetermined")):
        store.add(new_model(class_, at, conjugacy=replace(conjugacy_of(at), training_class=class_)))
        model = store.read(find_model, class_)
        assert model.training_class == store.read(read_conjugacy, [model.id])[model.id].training_class == class_
    with pytest.raises(SpectrumError, match="training class"):
        store.add(new_model("other", 9, conjugacy=replace(conjugacy_of(9), training_class="pretrained")))


def test_figures_go_with_an_export_and_fill_what_another_registry_lacks(store: Store, tmp_path: Path) -> None:
    undetermined = replace(conjugacy_of(1), training_class="undetermined")
    store.add(new_model("m", 1, weight_figures=FIGURES, conjugacy=undetermined))
    path = carry(store, tmp_path / "with.db")
    # As in a registry where the class of the same model is by its spectra alone.
    before = store.read(find_model, "m")
    store.write(lambda connection: connection.execute(schema.weight_figures.delete()))
    store.add(new_model("m", 1))
    assert store.read(find_model, "m").training_class != "undetermined"
    assert [each.status for each in bring(store, path)] != ["failed"]
    assert same(store.read(read_weight_figures, before.id))
    assert store.read(find_model, "m").training_class == "undetermined"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"layers": b"\0" * 8}, "do not have 8 bytes"),
        ({"layers": b"\0\0\x80\x7f" * len(MatrixFigures._fields) * len(LAYERS)}, "infinite"),
        ({"layers": b"\0\0\x80\xbf" * len(MatrixFigures._fields) * len(LAYERS)}, "counts"),
        ({"statistics": "[]"}, "cannot be read"),
        ({"statistics": "{" * 100_000}, "cannot be read"),
        ({"statistics": json.dumps({"alignments": {"pairs": -1}, "vectors": {}})}, "a count"),
        ({"statistics": json.dumps({"alignments": {"pairs": 0, "chain": "x"}, "vectors": {}})}, "a number"),
        ({"statistics": json.dumps({"alignments": {"pairs": 0, "other": 1}, "vectors": {}})}, "cannot be read"),
    ],
)
def test_damaged_figures_are_refused(store: Store, columns: dict[str, Any], message: str) -> None:
    store.add(new_model("m", 1, weight_figures=FIGURES))
    store.write(lambda connection: connection.execute(update(schema.weight_figures).values(columns)))
    with pytest.raises(SpectrumError, match=message):
        store.read(read_weight_figures, store.read(find_model, "m").id)


def test_figures_of_other_layers_are_refused(store: Store) -> None:
    with pytest.raises(SpectrumError, match="not of its"):
        store.add(new_model("m", 1, weight_figures=FIGURES._replace(layers=FIGURES.layers[:1])))
    headers = new_model("m", 1, weight_figures=FIGURES, spectra=(), conjugacy=None, fingerprints=())
    plan = replace(headers.plan, content_hash="header:" + "0" * 64, header="0" * 64)
    with pytest.raises(UsageError, match="were not read"):
        store.add(replace(headers, plan=plan, means=(0.0,) * len(LAYERS)))
    assert isnan(FIGURES.alignments.inputs)
