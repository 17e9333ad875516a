"""Does the nearest model belong to the family? ``python -m benchmarks.retrieval``, over the models of any manifest.

Each model asks for its family among all others; `cross-size` takes models of its own topology out, so that equal shapes
cannot answer. Families with fewer than three members are gallery only. docs/benchmarks.md has the tables.
"""

from __future__ import annotations

from benchmarks.retrieval.run import main

__all__ = ["main"]
