"""``python -m tests.ingest.cluster FOLDER``: a run on two Ray nodes, one of which is killed half-way.

In a process of its own: what Ray leaves behind would be other tests' business.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.cluster_utils import Cluster

from registry.ingest import EXECUTORS, Outcome, Setting, Silent, run
from tests.ingest.factory import Keeper, tasks, work

if TYPE_CHECKING:
    from registry.types import Ingested


def main(folder: Path) -> None:
    """Run slow tasks, one that kills its worker once and one that always does; take a node away when some are done."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    class Killing(Keeper):
        killed = 0.0

        def store(self, outcome: Outcome) -> Ingested | None:
            if len(self.stored) == 3 and not self.killed:
                self.killed = time.monotonic()
                cluster.remove_node(second, allow_graceful=False)
            return super().store(outcome)

    executor = EXECUTORS["ray"](Setting("ray", None, cluster.address), ())
    try:
        assert executor.slots == 4, executor.slots  # two cores, and as many waiting
        executor.begin(work)
        keeper = Killing()
        names = [*(f"slow:0.{n}" for n in range(1, 9)), f"kill-once:{folder / 'mark'}", "kill", "raise", "bug"]
        results: dict[int, Ingested] = {}
        run(tasks(*names), executor, keeper, Silent(), results)
    finally:
        executor.close()
        cluster.shutdown()
    assert keeper.killed
    failed = {names[at]: result.message for at, result in results.items() if result.status == "failed"}
    assert sorted(keeper.stored) == sorted(names[:-3]), (keeper.stored, failed)
    assert set(failed) == {"kill", "raise", "bug"}, failed
    assert "killed the worker process" in failed["kill"]
    assert failed["raise"] == "no tensors"
    assert not ray.is_initialized()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
