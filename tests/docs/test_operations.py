"""What the page for teams says of roles is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.errors import ReadOnlyError
from registry.storage import Store
from registry.storage.engine import migrate
from registry.storage.engine.schema_version import HEAD
from registry.storage.index.index_building import drop_index
from registry.storage.index.pgvector_index import find_near
from registry.storage.journal.run_history import list_runs
from registry.storage.models.changes import remove
from registry.storage.models.measured_values import put_fingerprints
from tests.storage.factory import SPEC, new_model, vector_of

if TYPE_CHECKING:
    from tests.conftest import Postgres

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_roles_of_the_page_may_do_what_it_says(postgres: Postgres) -> None:
    [script] = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    name = postgres.new_database()
    kinds = ("owner", "writer", "reader")
    with postgres.connect(name) as connection:
        connection.execute(script.replace("registry_", f"{name}_").encode())
        for kind in kinds[1:]:
            connection.execute(f"ALTER ROLE {name}_{kind} LOGIN".encode())
    owner, writer, reader = (
        postgres.url(name, user=f"{name}_{kind}", options="-csearch_path=registry") for kind in kinds
    )
    try:
        assert migrate.upgrade(owner) == HEAD
        with Store.open(writer, mode="create") as store:
            [first, _] = [store.add(new_model(f"m{seed}", seed)).model_id for seed in (1, 2)]
        superuser = postgres.url(name, options="-csearch_path=registry")
        for url in (superuser, owner):
            with Store.open(url, mode="write") as store:  # a superuser's is the owner's
                assert store.build_index(SPEC, "l1") == 2
                if url == superuser:
                    continue
                assert store.write(drop_index) == 1
                assert store.build_index(SPEC, "l1") == 2
        with Store.open(writer, mode="write") as store:
            store.write(put_fingerprints, first, [vector_of(9, SPEC)])
            store.write(remove, "m2")
        with Store.open(reader, mode="write") as store:
            index = store.index(SPEC, "l1")
            assert index is not None
            assert (index.opened.problem, index.held) == ("", 1)
            assert len(store.read(find_near, index, vector_of(1, SPEC).vector, 1)[0]) == 1
            assert store.read(list_runs) == []
            with pytest.raises(ReadOnlyError):
                store.write(remove, "m1")
        for url in (owner, writer, reader):
            assert migrate.check(url) == ()
    finally:
        with postgres.connect(name) as connection:
            for kind in kinds:
                connection.execute(f"DROP OWNED BY {name}_{kind} CASCADE; DROP ROLE {name}_{kind}".encode())
        postgres.drop(name)
