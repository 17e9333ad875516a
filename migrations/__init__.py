"""Schema revisions, run by `registry.storage.engine.migrate` or, in a checkout, by the command ``alembic``."""
