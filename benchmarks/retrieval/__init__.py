"""Family retrieval: ``python -m benchmarks.retrieval``, on the models of any manifest.

Each model is a query for its family among all others. `cross-size` excludes models of the query's topology, so that
equal shapes cannot answer. Families with fewer than three members are in the gallery only. docs/benchmarks.md has the
tables.
"""

from __future__ import annotations

from benchmarks.retrieval.run import main

__all__ = ["main"]
