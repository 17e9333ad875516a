"""The derived index: built, followed by writers, noticed when it is behind, done without where it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from registry.errors import SpecMismatchError, StorageError, UsageError
from registry.storage import Store
from registry.storage.engine.failures import is_passing
from registry.storage.index import pgvector_index
from registry.storage.index.index_building import drop_index, report_index
from registry.storage.index.pgvector_index import find_near
from registry.storage.models.changes import remove, set_metric
from registry.storage.models.measured_values import drop_spec, put_fingerprints
from registry.storage.models.model_queries import count_models
from registry.storage.models.vectors import read_fingerprints, read_training_classes
from registry.types import Metric
from tests.storage.factory import OTHER, SPEC, new_model, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Postgres


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A registry of a database of its own: these tests make and drop tables beside it."""
    name = postgres.new_database()
    Store.open(postgres.url(name), mode="create").close()
    yield postgres.url(name)
    postgres.drop(name)


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def fill(store: Store, count: int = 30) -> list[int]:
    return [store.add(new_model(f"m{seed}", seed)).model_id for seed in range(count)]


def test_it_finds_what_is_near_and_follows_every_writer(url: str) -> None:
    with Store.open(url, mode="write") as store, Store.open(url, mode="read") as reader:
        ids = fill(store)
        assert reader.index(SPEC, "l1") is None
        assert store.build_index(SPEC, "l1") == 30
        index = reader.index(SPEC, "l1")
        assert index is not None
        assert (index.opened.problem, index.held) == ("", 30)
        for distance, change in (("l1", "add"), ("l1", "replace"), ("l1", "remove")):
            if change == "add":
                ids.append(store.add(new_model("late", 77)).model_id)
            elif change == "replace":
                store.write(put_fingerprints, ids[3], [vector_of(500, SPEC)])
            else:
                store.write(remove, "m5")
                ids.remove(ids[5])
            index = reader.index(SPEC, distance)
            assert index is not None
            assert (index.opened.problem, index.held) == ("", len(ids)), change
            report = reader.read(report_index, SPEC, distance)
            assert report is not None
            assert (report.stored, report.held, report.missing, report.extra) == (len(ids), len(ids), 0, 0)
            all_ids, vectors = reader.read(read_fingerprints, SPEC.hash)
            for row in (0, 3, len(ids) - 1):
                found, near = reader.read(find_near, index, vectors[row], 5)
                exact = np.abs(vectors - vectors[row]).sum(axis=1).argsort(kind="stable")[:5]
                assert set(all_ids[exact].tolist()) <= set(found.tolist())
                np.testing.assert_array_equal(near, vectors[np.searchsorted(all_ids, found)])
        # Filters: of ids, and of classes.
        few, _ = reader.read(find_near, index, vectors[0], 5, ids=ids[10:14])
        assert sorted(few.tolist()) == ids[10:14]
        classes = reader.read(read_training_classes)
        training = next(iter(classes.values()))
        alike, _ = reader.read(find_near, index, vectors[0], 100, trainings=[training])
        assert sorted(alike.tolist()) == sorted(model for model, of in classes.items() if of == training)
        both, _ = reader.read(find_near, index, vectors[0], 100, trainings=[training, "none of these"])
        assert sorted(both.tolist()) == sorted(alike.tolist())


def test_an_index_of_another_distance_or_spec_is_no_index(url: str) -> None:
    with Store.open(url, mode="write") as store:
        fill(store, 5)
        store.build_index(SPEC, "l1")
        for spec, distance, words in ((SPEC, "l2", "another distance"), (OTHER, "l1", "not of layered v2")):
            index = store.index(spec, distance)
            assert index is not None
            assert words in index.opened.problem
            assert "archreg index build" in index.opened.remedy
        assert store.build_index(SPEC, "l2") == 5
        assert [store.index(SPEC, distance).opened.problem for distance in ("l1", "l2")] == ["", ""]  # type: ignore[union-attr]
        assert store.write(drop_index, OTHER.hash) == 0
        assert store.write(drop_index) == 1
        assert store.index(SPEC, "l1") is None
        assert store.read(report_index, SPEC, "l1") is None
        for distance in ("linf",):
            with pytest.raises(UsageError, match="the distance linf has no index"):
                store.build_index(SPEC, distance)


def test_what_goes_round_the_index_is_noticed(url: str, postgres: Postgres) -> None:
    with Store.open(url, mode="write") as store:
        [first, *_] = fill(store, 4)
        store.build_index(SPEC, "l1")
        [table] = {pgvector_index.table_name(store.index(SPEC, "l1").state.id)}  # type: ignore[union-attr]
        with postgres.connect(name_of(url)) as connection:
            # A writer that knows nothing of the index: it raises the stamp alone.
            connection.execute("UPDATE specs SET stamp = stamp + 1")
        index = store.index(SPEC, "l1")
        assert index is not None
        assert "behind" in index.opened.problem
        store.write(put_fingerprints, first, [vector_of(9, SPEC)])  # does not make it current
        assert "behind" in store.index(SPEC, "l1").opened.problem  # type: ignore[union-attr]
        report = store.read(report_index, SPEC, "l1")
        assert report is not None
        assert (report.held, report.missing) == (3, 1)
        assert store.build_index(SPEC, "l1") == 4
        assert store.index(SPEC, "l1").opened.problem == ""  # type: ignore[union-attr]
        with postgres.connect(name_of(url)) as connection:
            connection.execute(f"DROP TABLE {table}".encode())
        assert "gone" in store.index(SPEC, "l1").opened.problem  # type: ignore[union-attr]
        report = store.read(report_index, SPEC, "l1")
        assert report is not None
        assert (report.stored, report.held, report.missing) == (4, 0, 4)
        store.write(put_fingerprints, first, [vector_of(10, SPEC)])
        assert store.build_index(SPEC, "l1") == 4
        assert store.write(drop_spec, SPEC.hash) == 4
        with postgres.connect(name_of(url)) as connection:
            left = connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'archreg_vectors%'").fetchone()
        assert left == (0,)


def test_roles(url: str, postgres: Postgres) -> None:
    name = name_of(url)
    with Store.open(url, mode="write") as store:
        [first, *_] = fill(store, 6)
        with postgres.connect(name) as connection:
            for role in ("reader", "writer", "late"):
                connection.execute(f"DROP ROLE IF EXISTS {role}_{name}".encode())
                connection.execute(f"CREATE ROLE {role}_{name} LOGIN".encode())
                connection.execute(f"GRANT USAGE ON SCHEMA public TO {role}_{name}".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}".encode())
            connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO writer_{name}".encode())
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO writer_{name}".encode())
        with (
            Store.open(postgres.url(name, user=f"writer_{name}"), mode="write") as other,
            pytest.raises(StorageError, match="may not create it") as refused,
        ):
            other.build_index(SPEC, "l1")
        assert "CREATE EXTENSION vector" in (refused.value.remedy or "")
        store.build_index(SPEC, "l1")
        with Store.open(postgres.url(name, user=f"reader_{name}"), mode="read") as reader:
            index = reader.index(SPEC, "l1")  # who may read the vectors may read their index
            assert index is not None
            assert index.opened.problem == ""
            assert len(reader.read(find_near, index, vector_of(1, SPEC).vector, 3)[0]) == 6
        with Store.open(postgres.url(name, user=f"writer_{name}"), mode="write") as writer:
            writer.write(put_fingerprints, first, [vector_of(50, SPEC)])
            assert writer.index(SPEC, "l1").opened.problem == ""  # type: ignore[union-attr]
            for change in (lambda: writer.write(drop_index), lambda: writer.build_index(SPEC, "l1")):
                with pytest.raises(StorageError, match="belongs to another role") as theirs:
                    change()
                assert "as its owner: DROP TABLE" in (theirs.value.remedy or "")
            assert writer.write(drop_spec, SPEC.hash) == 6  # the table stays, empty
        with postgres.connect(name) as connection:
            # Privileges given later, to the program's own tables alone.
            tables = "models, names, specs, fingerprints, conjugacy, architectures, calibrations, archreg_version"
            connection.execute(f"GRANT ALL ON {tables} TO late_{name}".encode())
            connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO late_{name}".encode())
        store.write(put_fingerprints, first, [vector_of(51, SPEC)])
        store.build_index(SPEC, "l1")
        with postgres.connect(name) as connection:
            table = pgvector_index.table_name(store.index(SPEC, "l1").state.id)  # type: ignore[union-attr]
            connection.execute(f"REVOKE ALL ON {table} FROM late_{name}".encode())
        with Store.open(postgres.url(name, user=f"late_{name}"), mode="write") as late:
            assert "may not read the index" in late.index(SPEC, "l1").opened.problem  # type: ignore[union-attr]
            assert "may not read the index" in late.read(report_index, SPEC, "l1").problem  # type: ignore[union-attr]
            late.write(put_fingerprints, first, [vector_of(52, SPEC)])  # cannot follow, and says so
        assert "behind" in store.index(SPEC, "l1").opened.problem  # type: ignore[union-attr]
    with postgres.connect(name) as connection:
        for role in ("reader", "writer", "late"):
            connection.execute(f"DROP OWNED BY {role}_{name}".encode())
            connection.execute(f"DROP ROLE {role}_{name}".encode())


@pytest.mark.parametrize(
    ("version", "current"), [("0.8.0", True), ("0.8.5", True), ("0.10.1", True), ("1.0", True), ("0.7.4", False)]
)
def test_versions(version: str, current: bool) -> None:
    assert pgvector_index.is_current_version(version) is current


def test_an_old_pgvector_is_refused_and_not_used(url: str, postgres: Postgres) -> None:
    with Store.open(url, mode="write") as store:
        fill(store, 3)
        store.build_index(SPEC, "l1")
        with postgres.connect(name_of(url)) as connection:
            connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
        index: Any = store.index(SPEC, "l1")
        assert "0.7.4 is older than 0.8" in index.opened.problem
        with pytest.raises(StorageError, match=r"pgvector 0\.7\.4 is older than 0\.8") as refused:
            store.build_index(SPEC, "l1")
        assert "ALTER EXTENSION vector UPDATE" in (refused.value.remedy or "")


def test_a_registry_in_a_schema_of_its_own(postgres: Postgres) -> None:
    """The extension elsewhere, another tenant's table of the same number first: neither is found by the search path."""
    name = postgres.new_database()
    try:
        with postgres.connect(name) as connection:
            for thing in ("SCHEMA ext", "EXTENSION vector SCHEMA ext", "SCHEMA a", "SCHEMA b"):
                connection.execute(f"CREATE {thing}".encode())
        urls = [postgres.url(name, options=f"-csearch_path={tenant}") for tenant in "ab"]
        for number, url in enumerate(urls):
            with Store.open(url, mode="create") as store:
                fill(store, 4 + number)
        with Store.open(urls[0], mode="write") as a, Store.open(urls[1], mode="write") as b:
            assert a.build_index(SPEC, "l1") == 4
            assert b.index(SPEC, "l1") is None
            index: Any = a.index(SPEC, "l1")
            assert len(a.read(find_near, index, vector_of(1, SPEC).vector, 3)[0]) == 4
            assert b.build_index(SPEC, "l1") == 5
    finally:
        postgres.drop(name)


def test_whoever_may_not_use_the_schema_of_pgvector_does_without(postgres: Postgres) -> None:
    name = postgres.new_database()
    guest = f"guest_{name}"
    try:
        with postgres.connect(name) as connection:
            connection.execute('CREATE SCHEMA "Ext"; CREATE EXTENSION vector SCHEMA "Ext"')
            connection.execute(f"CREATE ROLE {guest} LOGIN; GRANT CREATE ON SCHEMA public TO {guest}".encode())
        url = postgres.url(name, user=guest)
        with Store.open(url, mode="create") as store:
            [first, *_] = fill(store, 4)
            with pytest.raises(
                StorageError, match='pgvector is in the schema "Ext", which this role may not'
            ) as refused:
                store.build_index(SPEC, "l1")
            assert refused.value.remedy == 'ask its owner for: GRANT USAGE ON SCHEMA "Ext"'
            with postgres.connect(name) as connection:
                connection.execute(f'GRANT USAGE ON SCHEMA "Ext" TO {guest}'.encode())
            assert store.build_index(SPEC, "l1") == 4
            assert store.index(SPEC, "l1").opened.problem == ""  # type: ignore[union-attr]
            with postgres.connect(name) as connection:
                connection.execute(f'REVOKE USAGE ON SCHEMA "Ext" FROM {guest}'.encode())
            opened = store.index(SPEC, "l1").opened  # type: ignore[union-attr]
            assert opened.problem == 'this role may not use the schema of pgvector, "Ext"'
            assert opened.remedy == 'ask its owner for: GRANT USAGE ON SCHEMA "Ext"'
            assert store.read(report_index, SPEC, "l1").held == 4  # type: ignore[union-attr]
            store.write(put_fingerprints, first, [vector_of(9, SPEC)])  # which needs no name of that schema
            assert "may not use" in store.index(SPEC, "l1").opened.problem  # type: ignore[union-attr]
            with postgres.connect(name) as connection:
                connection.execute(f'GRANT USAGE ON SCHEMA "Ext" TO {guest}'.encode())
            assert store.index(SPEC, "l1").opened.problem == ""  # type: ignore[union-attr]
    finally:
        with postgres.connect(name) as connection:
            connection.execute(f"DROP OWNED BY {guest} CASCADE; DROP ROLE {guest}".encode())
        postgres.drop(name)


def test_what_the_driver_itself_raises_is_told_like_the_rest(url: str, postgres: Postgres) -> None:
    """Vectors are read, found and copied past SQLAlchemy, whose errors alone would be expected."""
    name = name_of(url)
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with Store.open(url, mode="write") as store:
        fill(store, 3)
        store.build_index(SPEC, "l1")
        index: Any = store.index(SPEC, "l1")
        query = vector_of(1, SPEC).vector
        reads = {
            "found": lambda: store.read(find_near, index, query, 2),
            "read": lambda: store.read(read_fingerprints, SPEC.hash),
        }
        for read in reads.values():
            with pytest.raises(StorageError, match="connection") as lost, store.snapshot():  # noqa: PT012 - in it
                store.read(count_models)
                with postgres.connect(name) as connection:
                    connection.execute(ours, (name,))
                read()
            assert isinstance(lost.value.__cause__, OperationalError)
            assert is_passing(lost.value.__cause__)
            read()  # by a new connection
        with postgres.connect(name) as connection:
            connection.execute(f"DROP TABLE {pgvector_index.table_name(index.state.id)}".encode())
        with pytest.raises(StorageError, match="does not exist"):
            store.read(find_near, index, query, 2)
        with postgres.connect(name) as connection:
            connection.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
            connection.execute("CREATE TRIGGER no BEFORE INSERT ON fingerprints EXECUTE FUNCTION no()")
            connection.execute("CREATE TRIGGER no BEFORE INSERT ON metrics EXECUTE FUNCTION no()")
        with pytest.raises(StorageError, match=r": no$"):
            store.write(set_metric, "m1", Metric("top1", 1.0))  # by COPY


def test_nothing_to_index(url: str) -> None:
    with Store.open(url, mode="write") as store, pytest.raises(SpecMismatchError, match="no model has a mme v1"):
        store.build_index(SPEC, "l1")


def test_a_file_needs_none(empty_file: Any) -> None:
    with Store.open(str(empty_file), mode="write") as store:
        assert store.build_index(SPEC, "l1") is None
        assert store.index(SPEC, "l1") is None
        assert store.write(drop_index) == 0
