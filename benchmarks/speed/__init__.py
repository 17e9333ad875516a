"""Speed of the method against bare linear algebra and other packages: ``python -m benchmarks.speed``.

Results are ratios within one run: the compared tasks take turns, and each round gives one ratio. docs/benchmarks.md has
the table.
"""

from __future__ import annotations

from benchmarks.speed.run import main

__all__ = ["main"]
