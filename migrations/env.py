"""Alembic environment: runs revisions in one transaction, on a given connection or one that it opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context
from alembic.util import CommandError
from sqlalchemy import text

from registry.defaults import default_database
from registry.errors import StorageError
from registry.storage.engine.address import Address
from registry.storage.engine.connections import make_engine, writing
from registry.storage.engine.migrate import is_ours
from registry.storage.engine.ownership import claim, hand_over, tables_there
from registry.storage.engine.schema import metadata
from registry.storage.engine.schema_version import (
    HEAD,
    VERSION_TABLE,
    current_version,
    is_revision,
    require_own,
    schema_version,
    set_version,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK = 0x61726368  # "arch": tells this program's advisory locks from others'


def run(connection: Connection, from_revision: str | None = None) -> None:
    """Run the revisions in the connection's transaction, from ``from_revision`` if none is recorded."""
    sqlite = connection.dialect.name == "sqlite"
    schema, before = None, set[str]()
    if not sqlite:
        # Held until COMMIT, and so by the transaction and not by the session, which a pooler may give to another.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock, hashtext(current_schema()))"), {"lock": LOCK})
        schema = connection.scalar(text("SELECT current_schema()"))
        if schema_version(connection) not in (None, HEAD):
            before = tables_there(connection)
            claim(connection, before)
    # Looked at again: another process may have set it, or upgraded, while this one waited.
    if from_revision is not None and not is_revision(schema_version(connection) or ""):
        set_version(connection, from_revision)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        transactional_ddl=True,
        render_as_batch=sqlite,
        compare_type=True,
        include_name=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()
    hand_over(connection, before)
    if sqlite:
        # Foreign keys are off while tables are copied; this is what they would have caught.
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise StorageError(
                f"the upgrade would break {len(broken)} references and was not done; the first: {tuple(broken[0])}",
                "run archreg db check",
            )


def open_and_run() -> None:
    """Open the database given on the command line or in the environment, and run the revisions."""
    arguments = context.get_x_argument(as_dictionary=True)
    address = Address.parse(arguments.get("db") or default_database())
    require_own(address)
    engine = make_engine(address, "migrate")
    if address.path is not None and current_version(address, engine) is None:
        address.path.touch(exist_ok=False)
    with writing(engine) as connection:
        run(connection)
    engine.dispose()


if context.is_offline_mode():
    raise CommandError("revisions look at the database they change: there is no --sql")
given = context.config.attributes.get("connection")
if given is None:
    open_and_run()
else:
    run(given, context.config.attributes.get("from_revision"))
