"""Classes of stored models: kept, read back, made anew, and known again."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from registry import Registry
from registry.catalog import partitioning
from registry.errors import UnknownClassError, UsageError
from registry.spectral.specs import LAYERED
from registry.storage import Store
from registry.storage.models.measured_values import put_conjugacy, put_fingerprints
from registry.storage.models.summaries import find_model
from registry.storage.models.vectors import read_conjugacy, read_fingerprints
from registry.types import Fingerprint
from tests.catalog.conftest import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.types import Partition
    from tests.catalog.conftest import Filled
    from tests.conftest import Postgres

WIDE = 1e6  # every two of a kind are within it


def identities(found: Partition) -> dict[frozenset[str], str]:
    return {frozenset(member.name for member in each.members): each.identity for each in found.classes}


def refuse(*_: object) -> None:
    raise AssertionError("sorted")


def test_they_are_kept_and_read_back(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    made = filled.reg.classes(tolerance=1e-3)
    assert (made.rule, made.kept, made.note) == ("complete", True, "")
    assert len({each.identity for each in made.classes}) == 3
    monkeypatch.setattr(partitioning, "sorted_into_groups", refuse)
    assert filled.reg.classes(tolerance=1e-3) == made
    with Registry(filled.url) as another:
        assert another.classes(tolerance=1e-3) == made
        assert another.classes(tolerance=1e-3, rule="COMPLETE") == made
        others: tuple[dict[str, Any], ...] = (
            {"tolerance": 2e-3}, {"rule": "single"}, {"distance": "l2"}, {"family": "conv"},
        )  # fmt: skip
        for other in others:
            with pytest.raises(AssertionError, match="sorted"):
                another.classes(**({"tolerance": 1e-3} | other))
    [kept] = filled.reg.partitions.list()
    assert (kept.fingerprint, kept.distance, kept.tolerance, kept.rule) == (LAYERED.label, "l1", 1e-3, "complete")
    assert (kept.scope, kept.models, kept.classes, kept.created) == ((), 4, 3, made.created)


@pytest.mark.parametrize("rule", ["complete", "cover", "single"])
def test_identities_survive_small_changes(filled: Filled, rule: str) -> None:
    reg = filled.reg
    first = identities(reg.classes(tolerance=WIDE, rule=rule))
    assert set(first) == {frozenset({"wide", "twin", "slim"}), frozenset({"dense"})}
    reg.remove("slim")
    less = identities(reg.classes(tolerance=WIDE, rule=rule))
    assert less[frozenset({"wide", "twin"})] == first[frozenset({"wide", "twin", "slim"})]
    assert less[frozenset({"dense"})] == first[frozenset({"dense"})]
    reg.ingest(filled.files / "slim.safetensors", name="again")
    more = identities(reg.classes(tolerance=WIDE, rule=rule))
    assert more[frozenset({"wide", "twin", "again"})] == first[frozenset({"wide", "twin", "slim"})]
    # Other terms, other classes: none of these identities is one of theirs.
    others = reg.classes(tolerance=2 * WIDE, rule=rule)
    assert not set(identities(others).values()) & set(first.values())


def test_whatever_they_follow_from_makes_them_anew(filled: Filled) -> None:
    reg = filled.reg
    before = reg.classes(tolerance=1e-3)
    reg.close()
    with Store.open(filled.url, mode="write") as store:
        ids, vectors = store.read(read_fingerprints, LAYERED.hash)
        twin = store.read(find_model, "twin").id
        other = np.flip(vectors[ids.tolist().index(twin)]).copy()
        store.write(put_fingerprints, twin, [Fingerprint(LAYERED, other)])
    after = reg.classes(tolerance=1e-3)
    assert len(after.classes) == len(before.classes) + 1
    reg.close()
    with Store.open(filled.url, mode="write") as store:
        store.write(put_fingerprints, twin, [Fingerprint(LAYERED, vectors[ids.tolist().index(twin)])])
        figures = store.read(read_conjugacy, [twin])[twin]
        assert identities(reg.classes(tolerance=1e-3)) == identities(before)
        store.write(
            put_conjugacy,
            twin,
            replace(figures, training_class="trained" if figures.training_class == "untrained" else "untrained"),
        )
    assert frozenset({"twin"}) in identities(reg.classes(tolerance=1e-3))


def test_what_members_share_is_as_of_now(filled: Filled) -> None:
    reg = filled.reg
    [first, *_] = reg.classes(tolerance=WIDE).classes
    assert dict(first.shared) == {"family": "conv", "dataset": "digits"}
    reg.set("slim", family="other")
    for name in ("wide", "twin", "slim"):
        reg.set(name, licence="MIT")
    [first, *_] = reg.classes(tolerance=WIDE).classes
    assert dict(first.shared) == {"dataset": "digits", "licence": "MIT"}


def test_a_filter_has_classes_of_its_own(filled: Filled) -> None:
    whole, conv = filled.reg.classes(tolerance=WIDE), filled.reg.classes(tolerance=WIDE, family="conv")
    assert (whole.models, conv.models) == (4, 3)
    assert {partition.scope for partition in filled.reg.partitions.list()} == {(), (("family", "conv"),)}
    assert not set(identities(whole).values()) & set(identities(conv).values())
    # None passes: nothing to keep.
    nothing = filled.reg.classes(family="none")
    assert (nothing.classes, nothing.kept, nothing.note) == ((), False, "")
    assert len(filled.reg.partitions.list()) == 2


def test_one_class_and_its_models(filled: Filled) -> None:
    whole = filled.reg.classes(tolerance=WIDE)
    first = whole.classes[0]
    found = filled.reg.partitions.get(first.identity[:6])
    assert found.classes == (first,)
    assert (found.rule, found.tolerance, found.rate, found.models, found.created) == (
        whole.rule, whole.tolerance, whole.rate, whole.models, whole.created,
    )  # fmt: skip
    [member] = filled.reg.show("wide").memberships
    assert (member.identity, member.members, member.fingerprint) == (first.identity, 3, LAYERED.label)
    filled.reg.remove(first.medoid)
    [left] = filled.reg.partitions.get(first.identity).classes
    assert (left.medoid, len(left.members)) == ("", 2)
    with pytest.raises(UnknownClassError, match="no equivalence class 'x' is kept"):
        filled.reg.partitions.get("x")


def test_what_is_kept_is_forgotten_alone_and_made_anew(filled: Filled) -> None:
    reg = filled.reg
    whole = reg.classes(tolerance=WIDE)
    reg.classes(tolerance=WIDE, family="conv")
    conv, first = reg.partitions.list()
    assert (first.scope, first.classes) == ((), len(whole.classes))
    assert reg.partitions.forget(first.id) == first
    assert reg.partitions.list() == (conv,)
    with pytest.raises(UnknownClassError, match="is kept"):
        reg.partitions.get(whole.classes[0].identity)
    assert [member.members for member in reg.show("wide").memberships] == [conv.models]
    with pytest.raises(UnknownClassError, match=f"no partition is kept under the number {first.id}") as unknown:
        reg.partitions.forget(first.id)
    assert "--kept" in (unknown.value.remedy or "")
    again = reg.classes(tolerance=WIDE)
    assert (again.kept, again.classes) == (True, whole.classes)  # the same medoids give the same identities


def test_not_to_be_kept(filled: Filled) -> None:
    asked = filled.reg.classes(tolerance=1e-3, keep=False)
    assert (asked.kept, asked.created, asked.note) == (False, "", "")
    assert filled.reg.partitions.list() == ()
    assert filled.reg.show("wide").memberships == ()
    assert identities(filled.reg.classes(tolerance=1e-3)) == identities(asked)


def test_identities_do_not_depend_on_the_database(filled: Filled, tmp_path: Path) -> None:
    with Registry(tmp_path / "another.db") as another:
        fill(another, filled.files)
        asked: tuple[dict[str, Any], ...] = (
            {"tolerance": 1e-3},
            {"distance": "l2"},
            {"rule": "cover", "family": "conv"},
        )
        for terms in asked:
            assert identities(another.classes(**terms)) == identities(filled.reg.classes(**terms))


def test_a_rule_must_be_one(asked: Filled) -> None:
    with pytest.raises(UsageError, match="unknown rule 'ward'") as refused:
        asked.reg.classes(rule="ward", keep=False)
    assert "known: complete, cover, single" in (refused.value.remedy or "")


def test_models_that_go_meanwhile(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    really = partitioning.sorted_into_groups

    def meanwhile(*given: Any) -> Any:
        with Registry(filled.url) as another:
            another.remove("dense")
        return really(*given)

    monkeypatch.setattr(partitioning, "sorted_into_groups", meanwhile)
    found = filled.reg.classes(tolerance=1e-3)
    assert (found.models, found.kept, found.note) == (4, False, "models were removed during the computation")
    assert filled.reg.partitions.list() == ()


class TestReadOnly:
    def test_a_role(self, postgres: Postgres, files: Path) -> None:
        name = postgres.new_database()
        with Registry(postgres.url(name)) as owner:
            fill(owner, files)
            kept = owner.classes(tolerance=WIDE)
            with postgres.connect(name) as connection:
                connection.execute(
                    "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
                )
                connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
            with Registry(postgres.url(name, user="reader")) as reader:
                assert reader.classes(tolerance=WIDE) == kept
                owner.remove("slim")
                found = reader.classes(tolerance=WIDE)
                assert (found.kept, "permission denied" in found.note) == (False, True)
                # Known again all the same; and the registry goes on answering.
                assert found.classes[0].identity == kept.classes[0].identity
                assert len(reader.models()) == 3
            assert len(owner.partitions.list()) == 1
        postgres.drop(name)

    @pytest.fixture
    def frozen(self, files: Path) -> Iterator[Path]:
        # Not below pytest's folder, which is its user's alone.
        with tempfile.TemporaryDirectory(prefix="archreg-ro-") as folder:
            path = Path(folder) / "r.db"
            with Registry(path) as reg:
                fill(reg, files)
            path.chmod(0o444)
            Path(folder).chmod(0o555)
            yield path
            Path(folder).chmod(0o755)

    def test_a_file(self, frozen: Path) -> None:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:  # root may write anywhere
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                with Registry(frozen) as reg:
                    found = reg.classes(tolerance=WIDE)
                    said = f"{len(found.classes)} {found.kept} {found.note} {len(reg.models())}"
            except BaseException as error:  # noqa: BLE001 - told to the parent
                said = repr(error)
            os.write(theirs, said.encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            said = pipe.read()
        assert said.startswith("2 False ")
        assert "may only be read" in said
        assert said.endswith(" 4")
