"""``python -m tests.sources.pickle_files FOLDER``: small sound files of formats that hold pickles, by their libraries.

A process of its own writes them: what the libraries load would count as the memory of whoever reads the files.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock

__all__ = ["FOLDER", "contents"]

FOLDER = "ARCHREG_PICKLE_FILES"
"""Environment variable that names a folder of these files: made by the first process that needs it, if need be."""


@cache
def contents() -> dict[str, bytes]:
    """The files by name."""
    if not (given := os.environ.get(FOLDER)):
        with tempfile.TemporaryDirectory() as folder:
            return _read(_made(Path(folder)))
    shared = Path(given)
    if not shared.exists():
        with FileLock(f"{shared}.lock"):
            if not shared.exists():
                # Under another name first: whoever sees the folder sees all of it.
                _made(Path(tempfile.mkdtemp(dir=shared.parent))).rename(shared)
    return _read(shared)


def _made(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "tests.sources.pickle_files", folder], check=True)
    return folder


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def write(folder: Path) -> None:
    import joblib
    import torch
    from torch.distributed.checkpoint import state_dict_saver

    warnings.simplefilter("ignore")  # torch's, on what it deprecates
    torch.manual_seed(0)
    state = {"a.weight": torch.arange(16.0).reshape(4, 4), "b.weight": torch.eye(3).half(), "n": torch.tensor(3)}
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 3)).eval()
    torch.save(network, folder / "module.pt")
    torch.save(network, folder / "module-bare.pt", _use_new_zipfile_serialization=False)
    arrays = {name: value.numpy() for name, value in state.items()} | {"list": [np.eye(3), {"b": np.ones(3)}]}
    (folder / "arrays.pkl").write_bytes(pickle.dumps(arrays))
    (folder / "state.pkl").write_bytes(pickle.dumps(network.state_dict()))
    joblib.dump(arrays, folder / "arrays.joblib")
    joblib.dump(arrays, folder / "packed.joblib", compress=3)
    joblib.dump(arrays, folder / "lz4.joblib", compress=("lz4", 3))
    paddle = {"a.weight": np.ones((4, 3), np.float32) + np.eye(4, 3), "a.bias": np.ones(3)}
    (folder / "x.pdparams").write_bytes(pickle.dumps(paddle | {"StructuredToParameterName@@": {"a.weight": "x"}}))
    policy = io.BytesIO()
    torch.save(state, policy)
    with zipfile.ZipFile(folder / "agent.zip", "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {"__init__": "<function Policy.__init__ at 0>"}}))
        archive.writestr("policy.pth", policy.getvalue())
    with tarfile.open(folder / "x.nemo", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("model_config.yaml", b"target: nemo.Model\n"), ("model_weights.ckpt", policy.getvalue())):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    script = torch.jit.script(network)
    torch.jit.save(script, folder / "script.pt")
    torch.jit.save(torch.jit.freeze(script), folder / "frozen.pt")
    script._save_for_lite_interpreter(str(folder / "lite.ptl"))  # type: ignore[no-untyped-call]
    torch.export.save(torch.export.export(torch.nn.Linear(4, 3), (torch.ones(1, 4),)), folder / "program.pt2")
    state_dict_saver.save({"model": state, "epoch": 3}, checkpoint_id=folder / "dcp", no_dist=True)
    for part in (".metadata", "__0_0.distcp"):
        (folder / part).write_bytes((folder / "dcp" / part).read_bytes())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
