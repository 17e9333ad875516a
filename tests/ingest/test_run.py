from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry.errors import NameTakenError, ReadOnlyError, StorageError, WeightsError
from registry.ingest import Silent, run
from registry.types import Ingested, ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence

REFS = [ModelRef("file", f"/{name}.pt", name) for name in ("a", "b", "c")]


class Watch:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, refs: Sequence[ModelRef]) -> None:
        self.told.append(f"begin {len(refs)}")

    def start(self, ref: ModelRef) -> None:
        self.told.append(f"start {ref.name}")

    def done(self, ref: ModelRef, result: Ingested) -> None:
        self.told.append(f"done {ref.name} {result.status}")

    def end(self) -> None:
        self.told.append("end")


class Work:
    """Stores all models but ``b``, of which it raises ``error``."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.stored: list[str] = []

    def __call__(self, ref: ModelRef) -> Ingested:
        if self.error is not None and ref.name == "b":
            raise self.error
        self.stored.append(ref.name)
        return Ingested(ref.target, ref.name, "added", 0.0)


def test_all_in_order() -> None:
    watch = Watch()
    results = run(REFS, Work(), watch)
    assert [result.name for result in results] == ["a", "b", "c"]
    steps = [word for name in "abc" for word in (f"start {name}", f"done {name} added")]
    assert watch.told == ["begin 3", *steps, "end"]
    assert run(REFS, Work(), Silent()) == run(REFS, Work()) == results
    assert run([], Work()) == ()


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (WeightsError("b is empty", "save it again"), "b is empty", "save it again"),
        (NameTakenError("taken"), "taken", ""),
        (MemoryError(), "/b.pt does not fit in memory", "ingest it on a machine with more memory"),
    ],
)
def test_a_failure_is_one_item(error: Exception, message: str, remedy: str) -> None:
    watch, work = Watch(), Work(error)
    results = run(REFS, work, watch)
    assert [result.status for result in results] == ["added", "failed", "added"]
    failed = results[1]
    assert (failed.reference, failed.name, failed.message, failed.remedy) == ("/b.pt", "b", message, remedy)
    assert failed.seconds >= 0
    assert work.stored == ["a", "c"]
    assert watch.told[3:5] == ["start b", "done b failed"]


@pytest.mark.parametrize(
    "error", [StorageError("the disk is full"), ReadOnlyError("read only"), KeyboardInterrupt(), ZeroDivisionError()]
)
def test_what_ends_a_run(error: BaseException) -> None:
    watch, work = Watch(), Work(error)
    with pytest.raises(type(error)):
        run(REFS, work, watch)
    assert work.stored == ["a"]
    assert watch.told == ["begin 3", "start a", "done a added", "start b", "end"]
