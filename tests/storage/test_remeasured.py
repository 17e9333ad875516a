"""Models of an older matrix rule, measured anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from registry.errors import NameTakenError
from registry.storage.models.adding import add_models
from registry.storage.models.changes import set_card, set_metric, set_tags
from registry.storage.models.model_queries import count_older, is_older, older_models, read_details
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import read_fingerprints, read_spectra
from registry.types import Metric, ModelCard
from tests.storage.factory import CARD, SPEC, new_model, spectra_of

if TYPE_CHECKING:
    from registry.storage import NewModel, Store

NOW = replace(SPEC, matrix_rule="r2")


def anew(name: str, seed: int, *, of: int | None = None, **changes: object) -> NewModel:
    """A model of the present rule with the bytes and layers of ``of``, as the same file has under two rules."""
    same = seed if of is None else of
    new = new_model(name, 100 + seed, rule="r2", **{"spectra": spectra_of(same), **changes})
    return replace(new, plan=replace(new.plan, bytes=4_000 + 4 * same))


@pytest.mark.parametrize(
    ("rule", "present", "older"),
    [
        ("matrix-1", "matrix-2", True),
        ("matrix-9", "matrix-10", True),
        ("matrix-2", "matrix-2", False),
        ("matrix-3", "matrix-2", False),
        ("other-1", "matrix-2", False),
        ("matrix", "matrix-2", False),
        ("", "matrix-2", False),
    ],
)
def test_rules_are_ordered_by_their_number(rule: str, present: str, older: bool) -> None:
    assert is_older(rule, present) is older


def test_a_model_of_an_older_rule_is_replaced_in_place(store: Store) -> None:
    first = store.add(new_model("a", 1))
    store.add(new_model("other name", 1))
    store.write(set_card, "a", {"family": "mine", "licence": ""})
    store.write(set_metric, "a", Metric("top1", 50.0, "own"))
    store.write(set_tags, "a", {"stage": "kept"})
    new = anew("a", 1, card=ModelCard(family="from the file", licence="MIT", tags=(("stage", "new"), ("heads", "8"))))
    new = replace(new, format="torch", location="/a.pt", entry="ema")
    again = store.add(new)
    assert (again.model_id, again.status, again.names) == (first.model_id, "renewed", ("a", "other name"))
    model = store.read(find_model, "other name")
    assert (model.content_hash, model.matrix_rule, model.parameters) == (new.plan.content_hash, "r2", 1_101)
    assert (model.family, model.licence, model.location, model.entry) == ("mine", "MIT", "/a.pt", "ema")
    assert {metric.value for metric in model.metrics} == {92.6, 0.3, 50.0}
    assert dict(store.read(read_details, model.id).tags) == {"owner": "anna", "stage": "kept", "heads": "8"}
    assert store.read(read_fingerprints, SPEC.hash)[0].size == 0
    assert store.read(read_fingerprints, NOW.hash)[0].tolist() == [model.id]
    spectra = store.read(read_spectra, model.id)
    assert spectra is not None
    assert spectra[0].values.tolist() == new.spectra[0].values.tolist()
    assert store.add(new).status == "known"  # and the card of the file wins again, as for any known model


def test_the_caches_of_vectors_notice(store: Store) -> None:
    store.add(new_model("a", 1))
    store.add(anew("b", 2))
    assert store.vectors(NOW.hash).ids.size == 1
    assert store.vectors(SPEC.hash).ids.size == 1
    store.add(anew("a", 1))
    assert store.vectors(NOW.hash).ids.size == 2
    assert store.vectors(SPEC.hash).ids.size == 0


def test_another_file_of_that_name_is_refused(store: Store) -> None:
    first = store.add(new_model("a", 1))
    with pytest.raises(NameTakenError, match="belongs to other weights"):
        store.add(anew("a", 1, of=2))
    assert store.read(find_model, "a").matrix_rule == "r1"
    again = store.add(anew("a", 1, of=2), replace=True)
    assert (again.model_id, again.status) == (first.model_id, "renewed")


def test_other_weights_of_the_same_size_are_refused(store: Store) -> None:
    """Another seed of one topology: its layers have other means, and it is not the model of that name."""
    first = store.add(new_model("a", 1))
    other = anew("a", 1, spectra=spectra_of(7))
    with pytest.raises(NameTakenError, match="belongs to other weights"):
        store.add(other)
    assert store.read(find_model, "a").matrix_rule == "r1"
    one_differs = anew("a", 1, spectra=(*spectra_of(1)[:-1], spectra_of(7)[-1]))
    with pytest.raises(NameTakenError):
        store.add(one_differs)
    assert store.add(other, replace=True).model_id == first.model_id


def test_layers_that_the_rules_cut_otherwise_are_not_compared(store: Store) -> None:
    store.add(new_model("a", 1))
    new = anew("a", 1, spectra=spectra_of(7))
    layers = tuple(replace(layer, period=48) for layer in new.plan.layers)
    spectra = tuple(replace(each, layer=layer) for each, layer in zip(new.spectra, layers, strict=True))
    assert store.add(replace(new, plan=replace(new.plan, layers=layers), spectra=spectra)).status == "renewed"


def test_a_newer_rule_and_the_same_rule_hold_their_names(store: Store) -> None:
    store.add(anew("a", 1))
    with pytest.raises(NameTakenError):
        store.add(new_model("a", 1))
    with pytest.raises(NameTakenError):
        store.add(anew("a", 2, of=1))


def test_weights_that_are_known_by_the_present_rule_take_the_older_names(store: Store) -> None:
    store.add(new_model("a", 1))
    store.add(new_model("a too", 1))
    known = store.add(anew("b", 1, card=replace(CARD, family="new")))
    result = store.add(anew("a", 1))
    assert (result.model_id, result.status) == (known.model_id, "renewed")
    assert set(result.names) == {"a", "a too", "b"}
    assert [model.id for model in store.read(read_summaries)] == [known.model_id]
    assert store.read(find_model, "a").family == "new"


def test_several_of_one_transaction(store: Store) -> None:
    ids = [store.add(new_model(f"m{seed}", seed)).model_id for seed in range(3)]
    found = store.write(add_models, [anew(f"m{seed}", seed) for seed in range(4)])
    assert [each.status for each in found] == ["renewed"] * 3 + ["added"]
    assert [each.model_id for each in found[:3]] == ids


def test_older_models_are_counted(store: Store) -> None:
    assert store.read(older_models, "r2") == {}
    ids = [store.add(new_model(f"m{seed}", seed)).model_id for seed in range(3)]
    new = store.add(anew("new", 5)).model_id
    assert store.read(older_models, "r2") == {"r1": ids}
    assert store.read(older_models, "r1") == {}  # r2 is newer, not older
    assert store.read(count_older, "r2") == 3
    assert store.read(count_older, "r2", [ids[0], new]) == 1
