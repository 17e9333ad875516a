"""``python -m benchmarks``: measure every figure in the documentation."""

from __future__ import annotations

from benchmarks import approximate, ingest, memory, porting, retrieval, speed, startup


def main() -> None:
    """Run the benchmarks one after another; each prints its results."""
    for title, benchmark in (
        ("Start-up", startup.main),
        ("Ingest of the zoo", ingest.main),
        ("Memory of an ingest", memory.main),
        ("Export and import", lambda: porting.main(["10000"])),
        ("Very large layers", lambda: approximate.main([])),
        ("Family retrieval", retrieval.main),
        ("Speed of the method", speed.main),
    ):
        print(f"\n## {title}\n")
        benchmark()


if __name__ == "__main__":
    main()
