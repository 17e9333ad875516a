"""The method's speed against bare linear algebra and against other packages: ``python -m benchmarks.speed``.

Ratios of one run: what is compared takes turns, and each round gives one ratio. docs/benchmarks.md has the table.
"""

from __future__ import annotations

from benchmarks.speed.run import main

__all__ = ["main"]
