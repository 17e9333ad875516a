"""Many models by one transaction: what one after the other would give, in a number of statements that does not grow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from registry.errors import NameTakenError, RegistryError, SpectrumError
from registry.storage import Entry, NewRun, Store
from registry.storage.journal.run_history import list_items, list_runs
from registry.storage.journal.run_journal import begin_run
from registry.storage.models.measured_values import put_measured
from registry.storage.models.model_queries import count_models, read_details
from registry.storage.models.summaries import find_model, read_summaries
from registry.storage.models.vectors import read_conjugacy, read_spectra, read_vector
from tests.storage.factory import SPEC, conjugacy_of, new_model, spectra_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from registry.storage import Added, NewModel


def begun(store: Store, count: int) -> list[Entry]:
    run = store.patiently(
        store.write,
        begin_run,
        NewRun("plan", "command", "{}", "0", [('{"target": "x"}', f"i{at}", 1.0) for at in range(count)]),
    )
    return [Entry(run.id, at, 0.5) for at in range(count)]


def together(store: Store, given: Sequence[NewModel], **settings: Any) -> list[Added | RegistryError]:
    return store.add_all(given, begun(store, len(given)), **settings)


def said(found: Sequence[Added | RegistryError]) -> list[tuple[str, ...]]:
    return [(type(one).__name__,) if isinstance(one, RegistryError) else (one.status, *one.names) for one in found]


def held(store: Store) -> dict[str, Any]:
    """What is stored, by content: ids and times apart."""
    found = {}
    for model in store.read(read_summaries):
        spectra = store.read(read_spectra, model.id)
        found[model.content_hash] = (
            model.names,
            model.family,
            replace(store.read(read_details, model.id), tool_version=""),
            None if spectra is None else [(each.layer, each.values.tobytes()) for each in spectra],
            bytes(store.read(read_vector, SPEC.hash, model.id)),  # type: ignore[arg-type]
        )
    return found


MIXED = (
    new_model("new", 1),
    new_model("known", 50),
    new_model("another name", 51),
    new_model("twin", 2),
    new_model("twin's other name", 2),
    replace(new_model("twin", 2), spectra=(), fingerprints=(), conjugacy=None),
    new_model("lean", 3, keep_spectra=False),
    new_model("takes a name", 4),
)


def prepared(store: Store) -> None:
    for name, seed in (("known", 50), ("one name", 51)):
        store.add(new_model(name, seed))


def test_together_as_one_after_the_other(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepared(store)
    found = together(store, MIXED)
    with Store.open(str(tmp_path_factory.mktemp("other") / "one.db"), mode="create") as other:
        prepared(other)
        alone = [other.add(new) for new in MIXED]
        assert said(found) == said(alone)
        assert held(store) == held(other)
    assert said(found)[:5] == [
        ("added", "new"),
        ("known", "known"),
        ("named", "one name", "another name"),
        ("added", "twin"),
        ("named", "twin", "twin's other name"),
    ]
    items = store.read(list_items, store.read(list_runs)[0].id)
    assert [item.state for item in items] == [one[0] for one in said(found)]
    assert {item.attempts for item in items} == {1}
    assert store.read(list_runs)[0].done == len(MIXED)


def test_a_name_moves_within_one_transaction(store: Store) -> None:
    given = [new_model("a", 1), new_model("a", 2), new_model("b", 3)]
    assert said(together(store, given, replace=True)) == [("added", "a"), ("added", "a"), ("added", "b")]
    assert store.read(find_model, "a").content_hash == given[1].plan.content_hash
    assert store.read(count_models) == 3


def test_what_is_refused_keeps_no_other_out(store: Store) -> None:
    broken = tuple(replace(spectrum, values=-spectrum.values) for spectrum in spectra_of(7))
    given = [new_model("a", 1), new_model("a", 2), new_model("b", 7, spectra=broken), new_model("c", 3)]
    found = together(store, given)
    assert said(found) == [("added", "a"), ("NameTakenError",), ("SpectrumError",), ("added", "c")]
    assert isinstance(found[1], NameTakenError)
    assert isinstance(found[2], SpectrumError)
    assert [item.state for item in store.read(list_items, store.read(list_runs)[0].id)] == [
        "added",
        "waiting",
        "waiting",
        "added",
    ]
    assert sorted(model.name for model in store.read(read_summaries)) == ["a", "c"]
    assert store.add_all([], []) == []


def test_statements_do_not_grow_with_models(store: Store) -> None:
    seen: list[int] = []
    event.listen(store._engine, "before_cursor_execute", lambda *_: seen.append(1))
    store.add(new_model("first", 99))
    counts = []
    for first, count in ((0, 2), (100, 40)):
        given = [new_model(f"m{seed}", seed) for seed in range(first, first + count)]
        entries = begun(store, count)
        seen.clear()
        assert {one.status for one in store.add_all(given, entries) if not isinstance(one, RegistryError)} == {"added"}
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 30


def test_figures_of_many_models_are_those_of_each(store: Store) -> None:
    found = together(store, [new_model(f"m{seed}", seed) for seed in range(9)])
    ids = [one.model_id for one in found if not isinstance(one, RegistryError)]
    figures = store.read(read_conjugacy, ids)
    assert [figures[id_] for id_ in ids] == [conjugacy_of(seed) for seed in range(9)]
    store.write(lambda connection: put_measured(connection, {}, {ids[0]: (conjugacy_of(20), 3)}))
    assert store.read(read_conjugacy, ids)[ids[0]] == conjugacy_of(20)
