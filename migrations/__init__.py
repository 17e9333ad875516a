"""The schema's revisions, run by `registry.storage.migrate` or, in a checkout, by the command ``alembic``."""
