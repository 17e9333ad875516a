"""``python -m tests.sources.jax_files KIND FOLDER``: files that Flax and Orbax write, and the arrays in them.

JAX forbids a process to fork, which other tests do, so that it has one of its own. ``FOLDER/expected.npz`` has the
arrays under slashed names; bfloat16 as float32.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

RNG = np.random.default_rng(0)


def tree() -> Any:
    """Parameters and statistics of a small network, an optimiser's state, and a step."""
    return {
        "params": {
            "Conv_0": {"kernel": jnp.asarray(RNG.standard_normal((3, 3, 2, 4)), jnp.float32), "bias": jnp.ones(4)},
            "Dense_0": {"kernel": jnp.asarray(RNG.standard_normal((4, 50)), jnp.bfloat16), "bias": jnp.ones(50)},
            "Dense_1": {"kernel": jnp.asarray(RNG.standard_normal((50, 5)), jnp.float16), "bias": jnp.zeros(5)},
        },
        "batch_stats": {"BatchNorm_0": {"mean": jnp.ones(4), "var": jnp.ones(4)}},
        "opt_state": {"0": {"mu": {"Conv_0": {"kernel": jnp.ones((3, 3, 2, 4))}}}},
        "step": 3,
    }


def write_flax(folder: Path, given: Any) -> None:
    """A file as it is, and one whose arrays are cut into chunks."""
    (folder / "whole.msgpack").write_bytes(serialization.to_bytes(given))
    serialization.MAX_CHUNK_SIZE = 100
    (folder / "chunked.msgpack").write_bytes(serialization.to_bytes(given))


def write_orbax(folder: Path, given: Any) -> None:
    """A folder for each way in which arrays are stored, and one of a manager of checkpoints."""
    import orbax.checkpoint as ocp

    for ocdbt in (False, True):
        for zarr3 in (False, True):
            handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)
            ocp.Checkpointer(handler).save(folder / f"ocdbt{ocdbt:d}-zarr{zarr3:d}", given)
    with ocp.CheckpointManager(folder / "managed") as manager:
        manager.save(1, args=ocp.args.StandardSave(given))
        manager.wait_until_finished()


if __name__ == "__main__":
    kind, where = sys.argv[1], Path(sys.argv[2]).absolute()
    made = tree()
    {"flax": write_flax, "orbax": write_orbax}[kind](where, made)
    flat = traverse_util.flatten_dict({n: made[n] for n in ("params", "batch_stats")}, sep="/")  # type: ignore[no-untyped-call]
    arrays: dict[str, Any] = jax.tree.map(lambda a: np.asarray(a, np.float32), flat)
    np.savez(where / "expected.npz", **arrays)
