"""``python -m tests.ingest.cluster FOLDER``: a run on two Ray nodes, one of which is killed half-way.

In a process of its own: what Ray leaves behind would be other tests' business.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.cluster_utils import Cluster

from registry.ingest import EXECUTORS, Outcome, Setting, Silent, run
from tests.ingest.factory import Keeper, tasks, work

if TYPE_CHECKING:
    from registry.errors import RegistryError
    from registry.ingest.executors import Executor
    from registry.types import Ingested


def filled(executor: Executor) -> int:
    """How many tasks it has room for; they are done in the end."""
    given = tasks(*["slow:0.1"] * 16)
    count = 0
    while executor.room(given[count]):
        executor.submit(given[count])
        count += 1
    back = 0
    while back < count:
        back += len(executor.wait(60))
    return count


def main(folder: Path) -> None:
    """Run slow tasks, one that kills its worker once and one that always does; take a node away when some are done."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    class Killing(Keeper):
        killed = 0.0

        def one(self, outcome: Outcome) -> Ingested | RegistryError | None:
            if len(self.stored) == 3 and not self.killed:
                self.killed = time.monotonic()
                cluster.remove_node(second, allow_graceful=False)
            return super().one(outcome)

    executor = EXECUTORS["ray"](Setting("ray", None, cluster.address), ())
    try:
        executor.begin(work)
        assert filled(executor) == 4  # two cores, and as many waiting
        keeper = Killing()
        names = [*(f"slow:0.{n}" for n in range(1, 9)), f"kill-once:{folder / 'mark'}", "kill", "raise", "bug", "hang"]
        results: dict[int, Ingested] = {}
        given = tasks(*names, limit=60.0)
        given[-1] = replace(given[-1], limit=2.0)
        run(given, executor, keeper, Silent(), results)
    finally:
        executor.close()
        cluster.shutdown()
    assert keeper.killed
    failed = {names[at]: result.message for at, result in results.items() if result.status == "failed"}
    assert sorted(keeper.stored) == sorted(names[:-4]), (keeper.stored, failed)
    assert set(failed) == {"kill", "raise", "bug", "hang"}, failed
    assert "killed the worker process" in failed["kill"]
    assert failed["hang"] == "/hang took longer than its limit of 2 s and was stopped"
    assert failed["raise"] == "no tensors"
    assert not ray.is_initialized()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
