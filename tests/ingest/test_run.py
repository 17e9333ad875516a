"""The run, in this process: order, failures, what ends it, what others have done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from registry.errors import NameTakenError, ReadOnlyError, StorageError
from registry.ingest import Silent, run
from registry.ingest.executors.inprocess import InProcess
from registry.ingest.runner import HOLD, TOGETHER
from tests.ingest.factory import Keeper, tasks, work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.errors import RegistryError
    from registry.ingest import Outcome, Progress
    from registry.types import Ingested, ModelRef


class Watch:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, refs: Sequence[ModelRef], *, done: int = 0) -> None:
        self.told.append(f"begin {len(refs)} beside {done}")

    def start(self, ref: ModelRef) -> None:
        self.told.append(f"start {ref.name}")

    def done(self, ref: ModelRef, result: Ingested) -> None:
        self.told.append(f"done {ref.name} {result.status}")

    def end(self) -> None:
        self.told.append("end")


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back is stored at once."""
    monkeypatch.setattr(sys.modules["registry.ingest.runner"], "HOLD", 0.0)


def outcomes(names: Sequence[str], keeper: Keeper, watcher: Progress | None = None) -> dict[int, Ingested]:
    executor = InProcess()
    executor.begin(work)
    results: dict[int, Ingested] = {}
    run(tasks(*names), executor, keeper, watcher or Silent(), results)
    return results


@pytest.mark.usefixtures("one_by_one")
def test_all_in_order() -> None:
    watch, keeper = Watch(), Keeper()
    results = outcomes("abc", keeper, watch)
    assert [results[at].name for at in range(3)] == keeper.stored == ["a", "b", "c"]
    assert watch.told == [word for name in "abc" for word in (f"start {name}", f"done {name} added")]
    assert outcomes("", Keeper()) == {}


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(
    ("name", "message", "remedy"),
    [
        ("raise", "no tensors", "save it again"),
        ("memory", "/memory does not fit in memory", "ingest it on a machine with more memory"),
        (
            "bug",
            "/bug: unexpected error: ZeroDivisionError: by zero",
            "ingest it alone with ARCHREG_DEBUG=1 and report the traceback",
        ),
    ],
)
def test_a_failure_is_one_item(name: str, message: str, remedy: str) -> None:
    watch, keeper = Watch(), Keeper()
    results = outcomes(["a", name, "c"], keeper, watch)
    assert [results[at].status for at in range(3)] == ["added", "failed", "added"]
    failed = results[1]
    assert (failed.reference, failed.name, failed.message, failed.remedy) == (f"/{name}", name, message, remedy)
    assert failed.seconds >= 0
    assert (keeper.stored, keeper.failed) == (["a", "c"], [name])
    assert watch.told[2:4] == [f"start {name}", f"done {name} failed"]


def test_a_bug_met_alone_is_raised_for_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        outcomes(["bug"], Keeper())


def test_what_cannot_be_stored_is_one_item() -> None:
    results = outcomes("abc", Keeper(NameTakenError("taken", "choose another")))
    assert [(results[at].status, results[at].message) for at in range(3)] == [
        ("added", ""),
        ("failed", "taken"),
        ("added", ""),
    ]


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("error", [StorageError("the disk is full"), ReadOnlyError("read only"), ZeroDivisionError()])
def test_what_ends_a_run(error: BaseException) -> None:
    watch, keeper = Watch(), Keeper(error)
    with pytest.raises(type(error)):
        outcomes("abc", keeper, watch)
    assert keeper.stored == ["a"]
    assert watch.told == ["start a", "done a added", "start b"]


class Once(Keeper):
    """Is interrupted in storing ``b``, the first time."""

    interrupted = False

    def store(self, outcomes: Sequence[Outcome]) -> list[Ingested | RegistryError | None]:
        if outcomes[-1].task.ref.name == "b" and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return super().store(outcomes)


@pytest.mark.usefixtures("one_by_one")
def test_an_interruption_finishes_the_write_in_hand() -> None:
    keeper = Once()
    with pytest.raises(KeyboardInterrupt):
        outcomes("abc", keeper)
    assert keeper.stored == ["a", "b"]


class StoppingAtC(Silent):
    def start(self, ref: ModelRef) -> None:
        if ref.name == "c":
            raise KeyboardInterrupt


def test_an_interruption_stores_what_waits_to_be_stored() -> None:
    keeper = Keeper()
    with pytest.raises(KeyboardInterrupt):
        outcomes(["a", "raise", "b", "c"], keeper, StoppingAtC())
    assert (keeper.writes, keeper.stored, keeper.failed) == ([2], ["a", "b"], ["raise"])


def test_what_comes_back_is_stored_together_but_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    names = [f"a{n}" for n in range(TOGETHER + 3)]
    results = outcomes([*names, "bug", f"slow:{HOLD + 0.05}", "last"], keeper)
    assert keeper.writes == [TOGETHER, 4, 1]
    assert [results[at].status for at in range(len(results))] == ["added"] * len(names) + ["failed", "added", "added"]
    monkeypatch.setattr(sys.modules["registry.ingest.runner"], "HOLD", 1e9)
    patient = Keeper()
    outcomes([*names, "bug", "slow:0.3", "last"], patient)
    assert patient.writes == [TOGETHER, 5]


def test_what_has_to_be_done_again_is() -> None:
    keeper = Keeper(again=["b"])
    results = outcomes("abc", keeper)
    assert [results[at].status for at in range(3)] == ["added"] * 3
    assert keeper.stored == ["a", "c", "b"]


def test_what_others_have_done_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["registry.ingest.runner"], "GLANCE", 1e-9)
    keeper = Keeper(others=[1])
    results = outcomes("abc", keeper)
    assert keeper.stored == ["a", "c"]
    assert (results[1].status, results[1].message) == ("known", "stored by another run of the same plan")
