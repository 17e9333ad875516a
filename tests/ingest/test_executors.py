"""Every executor keeps the same contract; and what dies in one is one failed item."""

from __future__ import annotations

import collections
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.errors import RegistryError, UsageError
from registry.ingest import EXECUTORS, Setting, Silent, chosen, run
from registry.ingest.executors.inprocess import InProcess
from registry.ingest.executors.pool import Pool
from tests.ingest.factory import Keeper, tasks, work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from registry.ingest.executors import Executor, Outcome
    from registry.types import Ingested


@pytest.fixture(params=[name for name in EXECUTORS if name != "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = EXECUTORS[request.param](Setting(request.param, 2), ())
    made.begin(work)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(2, ())
    made.begin(work)
    yield made
    made.close()


def outcomes(executor: Executor, names: Sequence[str], keeper: Keeper | None = None) -> list[Ingested]:
    results: dict[int, Ingested] = {}
    run(tasks(*names), executor, keeper or Keeper(), Silent(), results)
    return [results[at] for at in range(len(names))]


def test_all_come_back_with_values_and_errors(executor: Executor) -> None:
    keeper = Keeper(again=["a3"])
    names = ["raise", *(f"a{n}" for n in range(12)), "bug", "memory"]
    results = outcomes(executor, names, keeper)
    assert [result.name for result in results] == names
    assert sorted(keeper.stored) == sorted(names[1:-2])
    assert sorted(keeper.failed) == ["bug", "memory", "raise"]
    assert (results[0].message, results[0].remedy) == ("no tensors", "save it again")


def test_room_is_bounded_and_comes_back(executor: Executor) -> None:
    given = [replace(task, cost=0.15) for task in tasks(*["slow:0.05"] * 99)]
    for _ in range(2):
        count = 0
        while executor.room(given[count]):
            executor.submit(given[count])
            count += 1
        if isinstance(executor, InProcess):
            assert count == 1
        else:  # two a worker, of which some may be done by then, and a second a worker that wait
            assert 17 <= count < 30
        back = 0
        while back < count:
            back += len(executor.wait(5))
        assert executor.wait(0) == []
    assert executor.room(replace(given[0], cost=1e9))


def test_workers_stay_with_kin(pool: Pool) -> None:
    """Alike in shape, they share what a process computes of an ensemble; but nobody waits for another's."""
    given = [replace(task, kin=kin, cost=0.05) for task, kin in zip(tasks(*["pid"] * 24), "ab" * 12, strict=True)]
    results: list[Outcome] = []
    for task in given:
        pool.submit(task)
    while len(results) < len(given):
        results += pool.wait(60)
    switches = 0
    for process in {outcome.value for outcome in results}:
        kins = [outcome.task.kin for outcome in results if outcome.value == process]
        switches += sum(one != other for one, other in pairwise(kins))
    assert switches <= 2  # in turn it would be some 22; one may help out with the other's in the end
    assert {outcome.value for outcome in results} == {worker._process.pid for worker in pool._workers}


def test_closing_drops_what_is_in_flight(executor: Executor) -> None:
    begun = time.monotonic()
    for task in tasks("slow:30", "slow:30"):
        if executor.room(task):
            executor.submit(task)
    executor.close()
    assert time.monotonic() - begun < 20


def test_a_file_that_kills_its_worker_is_one_failed_item(pool: Pool) -> None:
    keeper = Keeper()
    names = ["slow", "kill", "b", "slow", "c", "kill", "d", "e"]
    results = outcomes(pool, names, keeper)
    assert [result.status for result in results] == ["failed" if name == "kill" else "added" for name in names]
    assert keeper.failed == ["kill", "kill"]
    assert results[1].message == "/kill killed the worker process (out of memory or a crash)"
    assert results[1].remedy


def test_a_file_that_hangs_is_one_failed_item(pool: Pool) -> None:
    """In C, holding the interpreter's lock: nothing within the process could stop it."""
    keeper = Keeper()
    results: dict[int, Ingested] = {}
    run(tasks("a", "hang", "b", "c", "slow", limit=1.0), pool, keeper, Silent(), results)
    assert [results[at].status for at in range(5)] == ["added", "failed", "added", "added", "added"]
    assert keeper.failed == ["hang"]
    late = results[1]
    assert late.message == "/hang took longer than its limit of 1 s and was stopped"
    assert "--time-limit" in late.remedy
    assert late.seconds == 1.0
    pool.submit(tasks("slow:1.5")[0])  # the control: no limit of its own, nor what is left of another's
    assert [outcome.sound for outcome in pool.wait(60)] == [True]


def test_what_cannot_be_sent_back_is_one_failed_item(pool: Pool) -> None:
    results = outcomes(pool, ["a", "odd", "b"])
    assert [result.status for result in results] == ["added", "failed", "added"]
    assert "unexpected error" in results[1].message


def test_workers_use_one_thread_each_and_the_main_module_stays(request: pytest.FixtureRequest) -> None:
    before = dict(vars(sys.modules["__main__"]))
    pool: Pool = request.getfixturevalue("pool")
    assert dict(vars(sys.modules["__main__"])) == before
    pool.submit(tasks("threads")[0])
    [outcome] = pool.wait(60)
    assert outcome.value
    assert set(outcome.value) == {1}


SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from registry.ingest.executors.pool import Pool
from tests.ingest.factory import tasks, work
pool = Pool(2, ())  # without a guard against running this in workers
pool.begin(work)
for task in tasks("slow:60", "slow:60"):
    pool.submit(task)
print(*[worker._process.pid for worker in pool._workers], flush=True)
{then}
"""


def _gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_process(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    root = str(Path(__file__).parents[2])
    script.write_text(SCRIPT.format(root=root, then="try: time.sleep(60)\nfinally: pool.close()"))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(1)
        os.kill(process.pid, how)
        process.wait(30)
    end = time.monotonic() + 30
    while not all(map(_gone, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="interrupts a process group")
def test_ctrl_c_while_workers_load_their_modules_is_no_traceback_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "slow_to_load.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(3)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nfrom registry.ingest.executors.pool import Pool\n"
        "try:\n    pool = Pool(2, ('slow_to_load',))\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
    )
    command = [sys.executable, str(script)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])  # the server to fork from has no other
    env = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        end = time.monotonic() + 60
        while not (tmp_path / "loading").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_which_executor_suits() -> None:
    assert chosen(None, 1, 100.0) == Setting("inprocess", 1)
    assert chosen(None, 50, 1.0) == Setting("inprocess", 1)  # over before workers are up
    assert chosen(None, 50, 10.0).name == "pool"
    assert chosen(Setting("", 3), 50, 0.1) == Setting("pool", 3)
    assert chosen(Setting("", 3), 2, 0.1) == Setting("pool", 2)
    assert chosen(Setting("", 1), 50, 100.0) == Setting("inprocess", 1)
    assert chosen(Setting("pool", 1), 50, 100.0) == Setting("pool", 1)
    assert chosen(Setting("ray", 4, "auto"), 50, 0.1) == Setting("ray", 4, "auto")
    assert chosen(Setting("", 1, limit=9.0), 1, 0.1) == Setting("pool", 1, limit=9.0)  # it takes a process to be killed
    assert chosen(Setting("", 1, limit=0.0), 1, 0.1) == Setting("inprocess", 1)


@pytest.mark.parametrize(
    "setting",
    [
        Setting("dask"),
        Setting("pool", 0),
        Setting("pool", 2, "auto"),
        Setting("inprocess", limit=5.0),
        Setting("pool", limit=-1.0),
        Setting("pool", limit=math.nan),
    ],
)
def test_settings_that_are_refused(setting: Setting) -> None:
    with pytest.raises(UsageError) as refused:
        chosen(setting, 9, 9.0)
    assert refused.value.remedy


def test_workers_that_do_not_start() -> None:
    broken = Pool(2, ("registry.nothing",))
    broken.begin(work)
    try:
        broken.submit(tasks("kill")[0])
        with pytest.raises(RegistryError, match=r"be started: ModuleNotFoundError: .* 'registry\.nothing'"):
            collections.deque(iter(lambda: broken.wait(60), None))  # one worker's end after the other's
    finally:
        broken.close()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray is not installed") as refused:
        EXECUTORS["ray"](Setting("ray"), ())
    assert "architecture-registry[ray]" in (refused.value.remedy or "")


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray")


@needs_ray
@pytest.mark.filterwarnings("ignore::Warning:ray")
def test_an_address_where_no_cluster_is() -> None:
    with pytest.raises(RegistryError, match=r"no Ray cluster at 127\.0\.0\.1:1: Connection refused") as refused:
        EXECUTORS["ray"](Setting("ray", None, "127.0.0.1:1"), ())
    assert refused.value.remedy


@needs_ray
def test_a_ray_cluster_that_loses_a_node(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ingest.cluster", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
