"""What every database must do alike."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event, text

from registry.errors import (
    AmbiguousError,
    EmptyRegistryError,
    NameTakenError,
    SpecMismatchError,
    SpectrumError,
    UnknownModelError,
    UsageError,
)
from registry.storage.engine.schema import metadata
from registry.storage.engine.schema_version import HEAD
from registry.storage.equivalence.stored_calibrations import drop_calibration, put_calibration, read_labels
from registry.storage.models import model_queries
from registry.storage.models.adding import find_holding
from registry.storage.models.bulk_figures import near_texts
from registry.storage.models.changes import drop_name, remove, rename, set_card, set_metric, set_tags
from registry.storage.models.measured_values import drop_spec, put_conjugacy, put_fingerprints
from registry.storage.models.model_queries import (
    candidate_ids,
    count_models,
    has_name,
    read_details,
    read_stats,
    require_models,
)
from registry.storage.models.records import CONJUGACY_RULE, Label
from registry.storage.models.summaries import find_content, find_model, read_summaries, read_summary
from registry.storage.models.vectors import (
    all_specs,
    missing_conjugacy,
    missing_fingerprints,
    read_conjugacy,
    read_fingerprints,
    read_spectra,
    read_training_classes,
)
from registry.types import Calibration, Decay, Filter, Fingerprint, Metric, MetricBound, ModelCard
from tests.storage.factory import (
    CARD,
    LAYERS,
    OTHER,
    RULE,
    SKIPPED,
    SPEC,
    conjugacy_of,
    new_model,
    spectra_of,
    vector_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.storage import Store


def rows(store: Store) -> dict[str, int]:
    """Return the number of rows of every table."""
    with store._engine.connect() as connection:
        return {table: connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in metadata.tables}  # noqa: S608


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(store._engine, "before_cursor_execute", note)
    yield seen
    event.remove(store._engine, "before_cursor_execute", note)


class TestAdding:
    def test_everything_comes_back_as_it_went_in(self, store: Store) -> None:
        new = new_model("resnet20", 1)
        added = store.add(new)
        assert (added.status, added.name, added.names) == ("added", "resnet20", ("resnet20",))
        summary = store.read(find_model, "resnet20")
        details = store.read(read_details, added.model_id)
        assert tuple(stored.layer for stored in details.layers) == LAYERS
        assert [stored.mean for stored in details.layers] == [spectrum.mean for spectrum in new.spectra]
        assert details.skipped == SKIPPED
        assert details.conjugacy == new.conjugacy == store.read(read_conjugacy, [added.model_id])[added.model_id]
        assert details.fingerprints == ("layered v2", "mme v1")
        assert details.has_spectra
        assert details.tags == CARD.tags
        card = ModelCard(
            family=summary.family,
            architecture=summary.architecture,
            task=summary.task,
            dataset=summary.dataset,
            licence=summary.licence,
            source=summary.source,
            revision=details.revision,
            recipe=details.recipe,
            training=details.training,
            seed=details.seed,
            gflops=summary.gflops,
            metrics=tuple(sorted(summary.metrics, key=lambda metric: -metric.value)),
            tags=details.tags,
        )
        assert card == CARD
        plan = new.plan
        assert (summary.content_hash, summary.topology, summary.matrix_rule) == (plan.content_hash, "t0", RULE)
        assert (summary.parameters, summary.bytes, summary.layers) == (plan.parameters, plan.bytes, 3)
        assert (summary.tail_class, summary.training_class) == (new.conjugacy.tail_class, "trained")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", summary.created)

    def test_numbers_come_back_to_the_bit(self, store: Store) -> None:
        model_id = store.add(new_model("a", 5)).model_id
        spectra = store.read(read_spectra, model_id)
        assert spectra is not None
        for stored, given in zip(spectra, spectra_of(5), strict=True):
            assert stored.layer == given.layer
            assert stored.mean == given.mean
            assert stored.values.dtype == np.float32
            np.testing.assert_array_equal(stored.values, given.values)
        ids, vectors = store.read(read_fingerprints, SPEC.hash)
        assert (str(ids.dtype), ids.tolist(), str(vectors.dtype)) == ("int64", [model_id], "float32")
        np.testing.assert_array_equal(vectors[0], vector_of(5, SPEC).vector)

    def test_spectra_need_not_be_kept_and_may_come_later(self, store: Store) -> None:
        model_id = store.add(new_model("a", keep_spectra=False)).model_id
        assert store.read(read_spectra, model_id) is None
        assert not store.read(read_details, model_id).has_spectra
        assert len(store.read(read_details, model_id).layers) == 3
        assert store.add(new_model("a")).status == "known"
        assert store.read(read_spectra, model_id) is not None

    def test_known_weights_get_the_name_and_fill_what_is_unknown(self, store: Store) -> None:
        first = store.add(new_model("a", 1, card=ModelCard(family="resnet", licence="MIT")))
        card = ModelCard(family="vgg", dataset="svhn", metrics=(Metric("top1", 90.0),), tags=(("k", "v"),))
        second = store.add(new_model("b", 1, card=card, spectra=(), conjugacy=None, fingerprints=()))
        assert (second.model_id, second.status, second.names) == (first.model_id, "named", ("a", "b"))
        model = store.read(find_model, "b")
        assert (model.name, model.names) == ("a", ("a", "b"))
        assert (model.family, model.licence, model.dataset) == ("resnet", "MIT", "svhn")
        assert model.metrics == (Metric("top1", 90.0),)
        assert rows(store)["models"] == rows(store)["architectures"] == 1

    def test_known_weights_under_their_name_take_the_newer_card(self, store: Store) -> None:
        store.add(new_model("a", 1, card=ModelCard(family="resnet", licence="MIT", metrics=(Metric("top1", 90.0),))))
        again = store.add(new_model("a", 1, card=ModelCard(family="vgg", metrics=(Metric("top1", 91.0),))))
        assert again.status == "known"
        model = store.read(find_model, "a")
        assert (model.family, model.licence, model.metrics) == ("vgg", "MIT", (Metric("top1", 91.0),))
        assert rows(store)["architectures"] == 1

    def test_a_name_of_other_weights_is_refused_and_nothing_stays(self, store: Store) -> None:
        store.add(new_model("a", 1))
        before = rows(store)
        with pytest.raises(NameTakenError, match="'a' belongs to other weights, sha256:6b86b273ff34"):
            store.add(new_model("a", 2))
        assert rows(store) == before

    def test_a_name_is_moved_on_request_and_the_old_model_stays(self, store: Store) -> None:
        old = store.add(new_model("a", 1)).model_id
        new = store.add(new_model("a", 2), replace=True).model_id
        assert store.read(find_model, "a").id == new != old
        nameless = next(model for model in store.read(read_summaries) if model.id == old)
        assert (nameless.name, nameless.names) == ("sha256:6b86b273ff34", ())
        assert store.read(find_model, nameless.name).id == old
        assert store.write(rename, nameless.name, "old").names == ("old",)
        assert store.read(find_model, "old").id == old

    def test_another_matrix_rule_replaces_what_depends_on_it(self, store: Store) -> None:
        first = store.add(new_model("a", 1))
        assert store.read(find_model, "a").matrix_rule == RULE
        again = store.add(new_model("a", 1, rule="r2"))
        assert (again.model_id, again.status) == (first.model_id, "renewed")
        assert store.read(find_model, "a").matrix_rule == "r2"
        assert store.read(read_fingerprints, SPEC.hash)[0].size == 0
        assert store.read(read_fingerprints, replace(SPEC, matrix_rule="r2").hash)[0].tolist() == [again.model_id]
        assert rows(store)["layers"] == 3

    def test_known_weights_are_found_by_content(self, store: Store) -> None:
        new = new_model("a", 1)
        assert store.patiently(store.read, find_holding, new.plan.content_hash) is None
        assert store.read(find_content, new.plan.content_hash) is None
        first = store.add(new)
        held = store.patiently(store.read, find_holding, new.plan.content_hash)
        assert held is not None
        assert (held.matrix_rule, held.specs, held.has_spectra) == (RULE, {SPEC.hash, OTHER.hash}, True)
        assert held.judged
        store.write(put_conjugacy, first.model_id, conjugacy_of(1), rule=CONJUGACY_RULE - 1)
        held = store.patiently(store.read, find_holding, new.plan.content_hash)
        assert held is not None
        assert not held.judged
        known = store.read(find_content, new.plan.content_hash)
        assert known is not None
        assert known.name == "a"

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_vector_that_is_not_finite_leaves_nothing(self, store: Store, bad: float) -> None:
        vector = np.array([0.0, bad, 1.0], dtype=np.float32)
        with pytest.raises(SpectrumError, match="mme v1 vector has numbers that are not finite"):
            store.add(new_model("a", fingerprints=(Fingerprint(SPEC, vector),)))
        assert set(rows(store).values()) == {0}

    @pytest.mark.parametrize(
        "changes",
        [
            {"fingerprints": (Fingerprint(SPEC, np.zeros(4, np.float32)),)},
            {"fingerprints": (Fingerprint(SPEC, np.zeros(3)),)},  # type: ignore[arg-type]
            {"fingerprints": (Fingerprint(replace(SPEC, length=481), np.zeros(481, np.float32)),)},
            {"spectra": (replace(spectra_of(0)[0], mean=float("nan")), *spectra_of(0)[1:])},
            {"spectra": (replace(spectra_of(0)[0], values=np.empty(0, np.float32)), *spectra_of(0)[1:])},
            {"conjugacy": replace(conjugacy_of(0), z=float("nan"))},
            {"conjugacy": replace(conjugacy_of(0), tail=((0.03, 1.0),))},
            {"conjugacy": replace(conjugacy_of(0), decay=Decay("undecided", float("inf"), 0))},
        ],
        ids=["length", "dtype", "too long", "mean", "empty", "z", "deltas", "decay"],
    )
    def test_numbers_out_of_shape_leave_nothing(self, store: Store, changes: dict[str, Any]) -> None:
        with pytest.raises(SpectrumError):
            store.add(new_model("a", **changes))
        assert set(rows(store).values()) == {0}

    def test_what_does_not_fit_together_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(SpecMismatchError, match="not those of its layers"):
            store.add(new_model("a", spectra=spectra_of(0)[:2]))
        with pytest.raises(SpecMismatchError, match="matrix rule r2, the model of r1"):
            store.add(new_model("a", fingerprints=(vector_of(0, replace(SPEC, matrix_rule="r2")),)))
        with pytest.raises(UsageError, match="spectra are missing"):
            store.add(new_model("a", spectra=()))
        with pytest.raises(UsageError, match="metric top1 is nan"):
            store.add(new_model("a", card=ModelCard(metrics=(Metric("top1", float("nan")),))))
        assert set(rows(store).values()) == {0}

    @pytest.mark.parametrize("name", ["", " ", "a ", "a\nb", "\x1b[31m", "a\x00", "sha256:abc"])
    def test_some_names_are_refused(self, store: Store, name: str) -> None:
        with pytest.raises(UsageError, match="cannot be a name"):
            store.add(new_model(name))

    @pytest.mark.parametrize("name", ["zoo/resnet 20", "名前", "😀", "100%_\\'\";--", "Ä"])
    def test_other_names_are_kept(self, store: Store, name: str) -> None:
        store.add(new_model(name))
        assert store.read(find_model, name).name == name
        assert store.read(has_name, name)
        assert not store.read(has_name, name.lower() + "x")


class TestFinding:
    def test_an_empty_registry_says_how_to_fill_it(self, store: Store) -> None:
        with pytest.raises(EmptyRegistryError) as caught:
            store.read(find_model, "a")
        assert caught.value.remedy is not None
        assert caught.value.remedy.startswith("fill it: archreg ingest FILE_OR_FOLDER --db ")
        with pytest.raises(EmptyRegistryError) as same:
            store.read(require_models)
        assert same.value.args == caught.value.args
        assert store.read(count_models) == 0

    @pytest.mark.parametrize(
        ("asked", "near"),
        [
            ("resnt20", "resnet20"),
            ("RESNET20", "resnet20"),
            ("net56", "resnet56"),
            ("vgg_16", "VGG16"),
            # From a folder or a dash on, as people say names.
            ("mobilnet_v3", "zoo/mobilenet_v3"),
            ("alexnt", "timm:big-alexnet"),
            ("big-alexnet1", "timm:big-alexnet"),
        ],
    )
    def test_near_names_are_offered(self, store: Store, asked: str, near: str) -> None:
        for seed, name in enumerate(("resnet20", "resnet56", "VGG16", "zoo/mobilenet_v3", "timm:big-alexnet")):
            store.add(new_model(name, seed))
        with pytest.raises(UnknownModelError) as caught:
            store.read(find_model, asked)
        assert caught.value.remedy is not None
        assert near in caught.value.remedy

    def test_of_many_names_those_that_begin_or_hold_the_same_are_compared(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_queries, "NEAR", 2)
        for seed, name in enumerate(("a20", "b20", "c20", "resnet20", "wide-resnet", "vgg")):
            store.add(new_model(name, seed))
        for asked, near in (("RESNT20", "resnet20, wide-resnet"), ("resnet", "wide-resnet, resnet20"), ("bb20", "b20")):
            with pytest.raises(UnknownModelError) as caught:
                store.read(find_model, asked)
            assert caught.value.remedy == f"did you mean {near}?"
        assert store.read(near_texts, "family", "x") == []

    def test_nothing_is_offered_where_nothing_is_near(self, store: Store) -> None:
        store.add(new_model("resnet20"))
        for asked in ("zzzzzzzz%", "", " "):
            with pytest.raises(UnknownModelError, match="archreg list"):
                store.read(find_model, asked)

    def test_hashes(self, store: Store) -> None:
        for seed in range(20):  # more than 16: two hashes share their first digit
            store.add(new_model(f"m{seed}", seed))
        digest = new_model("", 7).plan.content_hash
        assert store.read(find_model, f"sha256:{digest[:10].upper()}").name == "m7"
        hashes = [model.content_hash for model in store.read(read_summaries)]
        shared = next(h[0] for h in hashes if sum(other[0] == h[0] for other in hashes) > 1)
        with pytest.raises(AmbiguousError):
            store.read(find_model, f"sha256:{shared}")
        with pytest.raises(UnknownModelError):
            store.read(find_model, "sha256:%")
        with pytest.raises(UnknownModelError):
            store.read(find_model, "sha256:")

    @pytest.mark.parametrize(
        ("wanted", "names"),
        [
            (Filter(), "abc"),
            (Filter(family="RESNET"), "ab"),
            (Filter(architecture="resnet-20"), "a"),
            (Filter(task="Classification", licence="mit"), "ac"),
            (Filter(dataset="cifar10"), "ac"),
            (Filter(dataset="imagenet"), "b"),
            (Filter(min_params=200), "bc"),
            (Filter(min_params=200, max_params=200), "b"),
            (Filter(max_bytes=4_004), "ab"),
            (Filter(min_bytes=4_008), "c"),
            (Filter(max_gflops=1.0), "a"),
            (Filter(metrics=(MetricBound("TOP1", minimum=90.0),)), "b"),
            (Filter(metrics=(MetricBound("top1", minimum=50.0, maximum=80.0, dataset="CIFAR10"),)), "a"),
            (Filter(metrics=(MetricBound("top1", dataset="svhn"),)), ""),
            (Filter(metrics=(MetricBound("top1", maximum=80.0), MetricBound("loss"))), ""),
            (Filter(tags=(("Stage", "PROD"),)), "b"),
            (Filter(tags=(("stage", "prod"), ("owner", "bob"))), ""),
            (Filter(family="' OR 1=1 --"), ""),
        ],
    )
    def test_filters(self, store: Store, wanted: Filter, names: str) -> None:
        cards = {
            "b": ModelCard("resnet", "ResNet-50", gflops=4.0, metrics=(Metric("top1", 95.0, "ImageNet"),)),
            "a": ModelCard(
                "ResNet",
                "ResNet-20",
                "classification",
                "cifar10",
                "MIT",
                gflops=0.5,
                metrics=(Metric("top1", 70.0, "cifar10"),),
            ),
            "c": ModelCard("", "", "classification", "CIFAR10", "mit", metrics=(Metric("loss", 0.1),)),
        }
        cards["b"] = replace(cards["b"], tags=(("stage", "prod"),))
        ids = {}
        for seed, (name, card) in enumerate(cards.items()):
            parameters = {"a": 100, "b": 200, "c": 300}[name]
            ids[name] = store.add(new_model(name, seed, card=card, parameters=parameters)).model_id
        assert [model.name for model in store.read(read_summaries, wanted)] == list(names)
        assert store.read(candidate_ids, wanted) == sorted(ids[name] for name in names)
        assert [m.name for m in store.read(read_summaries, wanted, ids=[ids["a"]])] == [
            name for name in names if name == "a"
        ]

    def test_summaries_cost_the_same_statements_for_one_as_for_many(self, store: Store) -> None:
        counts = []
        for seed in range(12):
            store.add(new_model(f"m{seed}", seed))
            with statements(store) as seen:
                assert len(store.read(read_summaries, Filter(family="resnet"))) == seed + 1
            counts.append(len([statement for statement in seen if "SELECT" in statement]))
        assert set(counts) == {4}  # one of them reads the spellings of the family

    def test_a_few_by_id_are_told_as_in_bulk(self, store: Store) -> None:
        first = store.add(new_model("b")).model_id
        for value, name in ((0.1 + 0.2, "z"), (5e-324, "a"), (1.7e308, "m"), (-0.0, "\"'\\{}[],ü")):
            store.write(set_metric, "b", Metric(name, value, "d", name, None if value < 1 else False, name))
        store.add(replace(new_model("a second name"), plan=new_model("b").plan))
        bare = store.add(new_model("bare", 5)).model_id
        store.add(new_model("bare", 6), replace=True)
        told = store.read(read_summaries)
        assert [model.name for model in told][1:] == ["bare", f"sha256:{new_model('', 5).plan.content_hash[:12]}"]
        assert store.read(read_summaries, ids=[first, bare]) == [told[0], told[2]]
        assert [store.read(read_summary, model.id) for model in told] == told
        assert (told[0].names, len(told[0].metrics)) == (("b", "a second name"), 6)
        with pytest.raises(UnknownModelError, match="removed meanwhile"):
            store.read(read_summary, 10**6)

    def test_lists_of_ids_have_no_limit(self, store: Store) -> None:
        model_id = store.add(new_model("a")).model_id
        ids = range(1_000_000, 1_070_000)
        assert [model.id for model in store.read(read_summaries, ids=[*ids, model_id])] == [model_id]
        assert store.read(read_fingerprints, SPEC.hash, [*ids, model_id])[0].tolist() == [model_id]
        assert store.read(read_summaries, ids=[]) == []
        assert store.read(read_fingerprints, SPEC.hash, [])[1].shape == (0, 3)


class TestVectors:
    def test_rows_are_by_id_and_a_choice_of_them(self, store: Store) -> None:
        ids = [store.add(new_model(f"m{seed}", seed)).model_id for seed in range(9)]
        read, vectors = store.read(read_fingerprints, OTHER.hash)
        assert read.tolist() == sorted(ids)
        expected = np.stack([vector_of(ids.index(id_), OTHER).vector for id_ in read.tolist()])
        np.testing.assert_array_equal(vectors, expected)
        chosen, some = store.read(read_fingerprints, OTHER.hash, [ids[7], ids[2]])
        assert chosen.tolist() == [ids[2], ids[7]]
        np.testing.assert_array_equal(some, expected[[2, 7]])

    def test_an_unknown_spec_has_none(self, store: Store) -> None:
        store.add(new_model("a"))
        ids, vectors = store.read(read_fingerprints, "0" * 16)
        assert (ids.shape, str(ids.dtype), vectors.shape, str(vectors.dtype)) == ((0,), "int64", (0, 0), "float32")

    def test_specs_are_restored_exactly(self, store: Store) -> None:
        store.add(new_model("a"))
        assert store.read(all_specs) == [OTHER, SPEC]
        assert [spec.hash for spec in store.read(all_specs)] == [OTHER.hash, SPEC.hash]

    def test_vectors_may_come_later_and_be_replaced(self, store: Store) -> None:
        first, second = (store.add(new_model(n, s, fingerprints=())).model_id for s, n in enumerate("ab"))
        assert store.read(missing_fingerprints, SPEC.hash) == [first, second]
        store.write(put_fingerprints, second, [vector_of(1, SPEC)])
        assert store.read(missing_fingerprints, SPEC.hash) == [first]
        store.write(put_fingerprints, second, [vector_of(2, SPEC)])
        np.testing.assert_array_equal(store.read(read_fingerprints, SPEC.hash)[1], [vector_of(2, SPEC).vector])
        with pytest.raises(UnknownModelError):
            store.write(put_fingerprints, second + 99, [vector_of(1, SPEC)])

    def test_dropping_a_spec_leaves_the_others(self, store: Store) -> None:
        store.add(new_model("a"))
        store.write(put_calibration, Calibration(SPEC.hash, "l2", 0.01, 0.5, ((0.01, 0.5),), "zoo"))
        assert store.write(drop_spec, SPEC.hash) == 1
        assert store.write(drop_spec, SPEC.hash) == 0
        assert store.read(all_specs) == [OTHER]
        assert store.calibration(SPEC.hash, "l2") is None
        assert len(store.read(read_fingerprints, OTHER.hash)[0]) == 1

    def test_conjugacy_and_classes(self, store: Store) -> None:
        ids = [
            store.add(new_model(n, s, conjugacy=None if n == "b" else conjugacy_of(s))).model_id
            for s, n in enumerate("abc")
        ]
        expected = {ids[0]: conjugacy_of(0), ids[2]: conjugacy_of(2)}
        assert store.read(read_conjugacy, ids) == expected
        assert store.read(read_training_classes) == {k: v.training_class for k, v in expected.items()}
        assert set(store.read(read_training_classes, [ids[1], ids[2]])) == {ids[2]}
        assert store.read(missing_conjugacy) == [ids[1]]
        store.write(put_conjugacy, ids[0], conjugacy_of(9), rule=CONJUGACY_RULE + 1)
        assert store.read(read_conjugacy, [ids[0]]) == {ids[0]: conjugacy_of(9)}
        assert store.read(missing_conjugacy, CONJUGACY_RULE + 1) == ids[1:]

    def test_a_calibration_is_replaced_by_the_next(self, store: Store) -> None:
        key = ("0123456789abcdef", "l1")
        first = Calibration(
            *key, 0.01, 0.25, ((0.001, 0.125), (0.5, 1 / 3)), "zoo", created="2026-01-02T03:04:05+00:00"
        )
        assert store.calibration(*key) is None
        store.write(put_calibration, first)
        assert store.calibration(*key) == first
        bounded = replace(first, tolerance=0.5, tolerance_low=0.25, tolerance_high=1 / 3, models=163, families=20)
        store.write(put_calibration, bounded)
        assert store.calibration(*key) == bounded
        assert store.calibration(first.spec_hash, "l2") is None
        store.write(put_calibration, replace(bounded, created=""))
        stamped = store.calibration(*key)
        assert stamped is not None
        assert stamped.created > first.created
        assert store.write(drop_calibration, first.spec_hash, "l2") is False
        assert store.write(drop_calibration, *key) is True
        assert store.calibration(*key) is None

    def test_labels(self, store: Store) -> None:
        store.add(new_model("a"))
        store.add(new_model("b", 1, card=ModelCard(), fingerprints=(vector_of(1, SPEC),)))
        a, b = store.read(find_model, "a").id, store.read(find_model, "b").id
        full = Label(a, "resnet", "ResNet-20", "CIFAR10", "200 epochs", 2**40)
        assert store.read(read_labels, SPEC.hash) == [full, Label(b, "", "", "", "", None)]
        assert store.read(read_labels, OTHER.hash) == [full]
        assert store.read(read_labels, "0" * 16) == []


class TestChanging:
    def test_fields_are_set_and_made_unknown(self, store: Store) -> None:
        store.add(new_model("a"))
        changed = store.write(
            set_card, "a", {"family": "vgg", "licence": None, "gflops": 2, "seed": "", "training": "none"}
        )
        assert (changed.family, changed.licence, changed.gflops, changed.architecture) == ("vgg", "", 2.0, "ResNet-20")
        details = store.read(read_details, changed.id)
        assert (details.seed, details.training, details.tags) == (None, "none", CARD.tags)
        assert len(changed.metrics) == 2
        assert rows(store)["architectures"] == 1

    @pytest.mark.parametrize("changes", [{"id": "1"}, {"seed": 1.5}, {"family": 3}, {"gflops": "much"}, {"tags": ""}])
    def test_other_fields_and_kinds_are_refused(self, store: Store, changes: dict[str, Any]) -> None:
        store.add(new_model("a"))
        before = store.read(find_model, "a")
        with pytest.raises(UsageError, match="cannot be set to"):
            store.write(set_card, "a", {"licence": "GPL", **changes})
        assert store.read(find_model, "a") == before

    @pytest.mark.parametrize("gflops", [-0.5, float("inf")])
    def test_a_cost_is_finite_and_not_negative(self, store: Store, gflops: float) -> None:
        store.add(new_model("a"))
        with pytest.raises(UsageError, match="gflops cannot be"):
            store.write(set_card, "a", {"gflops": gflops})
        assert store.write(set_card, "a", {"gflops": 0.0}).gflops == 0.0

    def test_metrics(self, store: Store) -> None:
        store.add(new_model("a", card=ModelCard()))
        store.write(set_metric, "a", Metric("top1", 90.0, "cifar10"))
        store.write(set_metric, "a", Metric("top1", 80.0, "svhn"))
        changed = store.write(set_metric, "a", Metric("top1", 91.5, "cifar10", source="me"))
        assert changed.metrics == (Metric("top1", 91.5, "cifar10", source="me"), Metric("top1", 80.0, "svhn"))
        assert [repr(metric.value) for metric in store.read(read_summaries, ids=[changed.id])[0].metrics] == [
            "91.5",
            "80.0",
        ]

    def test_tags(self, store: Store) -> None:
        store.add(new_model("a", card=ModelCard()))
        assert store.write(set_tags, "a", {"k": "1", "a": ""}) == (("a", ""), ("k", "1"))
        assert store.write(set_tags, "a", {"k": "2", "a": None}) == (("k", "2"),)
        with pytest.raises(UsageError, match="no tag 'x'"):
            store.write(set_tags, "a", {"k": None, "x": None})
        with pytest.raises(UsageError, match="needs a key"):
            store.write(set_tags, "a", {"": "x"})
        assert store.read(read_details, store.read(find_model, "a").id).tags == (("k", "2"),)

    def test_renaming(self, store: Store) -> None:
        store.add(new_model("a", 1))
        store.add(new_model("b", 2))
        assert store.write(rename, "a", "c").names == ("c",)
        assert not store.read(has_name, "a")
        with pytest.raises(NameTakenError):
            store.write(rename, "c", "b")
        with pytest.raises(UnknownModelError):
            store.write(rename, "a", "d")
        with pytest.raises(UsageError):
            store.write(rename, "c", "")
        assert store.write(rename, "c", "c").names == ("c",)

    def test_one_of_several_names_is_dropped(self, store: Store) -> None:
        store.add(new_model("a", 1))
        store.add(new_model("b", 1))
        with pytest.raises(UsageError, match="beside"):
            store.write(rename, "a", "b")
        assert store.write(drop_name, "a").names == ("b",) or pytest.fail("the other name stays")
        with pytest.raises(UsageError, match="not one of several"):
            store.write(drop_name, "b")

    def test_removing_takes_everything_and_no_other(self, store: Store) -> None:
        store.add(new_model("keep", 1, card=ModelCard(family="vgg")))
        kept = rows(store)
        first = store.add(new_model("a", 2))
        store.add(new_model("b", 2))
        removed = store.write(remove, "b")
        assert (removed.id, removed.names) == (first.model_id, ("a", "b"))
        assert rows(store) == kept
        with pytest.raises(UnknownModelError):
            store.read(read_details, first.model_id)
        assert store.add(new_model("a", 2)).model_id > first.model_id  # an id never comes to mean another model

    def test_stats(self, store: Store) -> None:
        for seed, name in enumerate("abc"):
            store.add(new_model(name, seed, card=ModelCard(family="resnet" if seed else "")))
        store.add(new_model("d", 2))
        stats = store.read(read_stats)
        assert (stats.models, stats.names, stats.layers) == (3, 4, 9)
        assert stats.families == (("resnet", 2), ("", 1))
        assert stats.fingerprints == (("layered v2", 3), ("mme v1", 3))
        assert stats.training_classes == (("untrained", 2), ("trained", 1))
        assert sum(count for _, count in stats.tail_classes) == 3
        assert stats.schema_version == HEAD
        assert stats.bytes is not None
        assert stats.bytes > 10_000
