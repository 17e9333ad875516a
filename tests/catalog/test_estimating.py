"""Estimates of the time and memory of an ingest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import Registry
from registry.catalog import estimating
from registry.ingest import cores
from registry.sources import expand, layers_by_header, open_ref, plan_weights
from registry.sources.files.lazy_tensors import LazyCheckpoint

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import ModelRef


def sparse(path: Path, shapes: dict[str, tuple[int, int]], dtype: str = "F32", size: int = 4) -> Path:
    """A safetensors file of zeros, which take no room on the disk."""
    entries, start = {}, 0
    for name, (p, q) in shapes.items():
        entries[name] = {"dtype": dtype, "shape": [p, q], "data_offsets": [start, start + size * p * q]}
        start += size * p * q
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + start)
    return path


@pytest.fixture
def reg(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "none.db")


def ref_of(path: Path) -> ModelRef:
    [ref] = expand(path)
    return ref


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights may be read."""

    def refuse(*_: object) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(LazyCheckpoint, "raw", refuse)


@pytest.mark.usefixtures("unread")
def test_an_approximation_is_reckoned_with(reg: Registry, tmp_path: Path) -> None:
    refs = reg.plan([sparse(tmp_path / "large.safetensors", {"a.weight": (9000, 9000)})])
    exact, near = reg.estimate(refs), reg.estimate(refs, approximate=True)
    assert exact.models[0].by_layers
    assert exact.workers == near.workers == 0
    assert near.seconds < 0.5 * exact.seconds
    # The weights, 324 MB, and two Gram matrices; or the weights and vectors.
    assert exact.memory > 324e6 + 2 * 8 * 9000**2
    assert 324e6 < near.memory < exact.memory / 2
    assert 9000**3 / 2.4e10 < exact.seconds <= exact.models[0].seconds  # its eigenvalues are no two cores' work
    assert near.seconds == pytest.approx(near.models[0].seconds / cores(), rel=0.1)  # products are
    small = reg.plan([sparse(tmp_path / "small.safetensors", {"a.weight": (8000, 9000)})])
    assert reg.estimate(small) == reg.estimate(small, approximate=True)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.usefixtures("unread")
def test_layers_and_not_the_file_decide(reg: Registry, tmp_path: Path) -> None:
    many = reg.plan([sparse(tmp_path / "many.safetensors", {f"{i}.weight": (500, 8000) for i in range(64)})])
    one = reg.plan([sparse(tmp_path / "one.safetensors", {"0.weight": (8000, 32_000)})])
    assert many[0].bytes == pytest.approx(one[0].bytes, rel=0.01)
    of_many, of_one = reg.estimate(many), reg.estimate(one)
    assert of_one.seconds > 10 * of_many.seconds
    assert of_one.memory > 5 * of_many.memory
    # A layer a core, and the weights of one more.
    assert of_many.memory < 130e6 + (cores() + 1) * 16e6 + cores() * 40e6


def test_workers_share_the_time_and_add_up_in_memory(reg: Registry, tmp_path: Path) -> None:
    files = [sparse(tmp_path / f"{i}.safetensors", {"a.weight": (2000 + i, 4000)}) for i in range(4)]
    refs = reg.plan(files)
    here, two, many = (reg.estimate(refs, workers=n) for n in (1, 2, 9))
    assert [here.workers, two.workers, many.workers] == [0, 2, 4]
    total = sum(model.seconds for model in two.models)
    assert two.seconds == pytest.approx(total / 2)
    assert many.seconds == pytest.approx(max(total / 4, max(model.seconds for model in many.models)))
    most = sorted((model.memory for model in many.models), reverse=True)
    assert many.memory == sum(most) + 120e6
    assert two.memory == sum(most[:2]) + 120e6
    ray = reg.estimate(refs, workers=2, executor="ray")
    assert (ray.memory, ray.workers) == (most[0], 2)  # of other machines
    for nothing in (reg.estimate([]), reg.estimate([], executor="ray")):
        assert (nothing.models, nothing.seconds, nothing.memory) == ((), 0.0, 0)


def test_of_small_and_other_files_the_size_is_all(reg: Registry, tmp_path: Path) -> None:
    small = ref_of(sparse(tmp_path / "small.safetensors", {"a.weight": (1000, 1000)}))
    (tmp_path / "x.pt").write_bytes(b"\0" * 20_000_000)
    torch = ref_of(tmp_path / "x.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20_000_000)
    broken = ref_of(tmp_path / "broken.safetensors")
    [gone] = reg.plan(["torchvision:resnet18.random"])
    found = reg.estimate([small, torch, broken, gone]).models
    assert [model.by_layers for model in found] == [False] * 4
    assert found[1].seconds == found[2].seconds > found[0].seconds
    assert found[1].memory == found[2].memory > found[0].memory > 0
    assert found[3].memory == 0
    assert found[3].seconds > 0  # the mean of the others


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt"])
def test_layers_by_header_are_those_of_the_rule(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "conv.weight": rng.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "attn.in_proj_weight": rng.standard_normal((48, 16)),
        "bn.running_mean": np.ones((2, 2), np.float32),
        "head.weight": rng.standard_normal((5, 16)).astype(np.float16),
        "head.bias": np.ones(5, np.float32),
    }
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, **tensors)
    elif suffix == "pt":
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(values) for name, values in tensors.items()}, path)
    else:
        save_file(tensors, path)
    ref = ref_of(path)
    found = layers_by_header(ref)
    with open_ref(ref) as checkpoint:
        planned = plan_weights(checkpoint).layers
    assert found is not None
    assert sorted((x.name, x.p, x.q) for x, _ in found) == sorted((x.name, x.p, x.q) for x in planned)
    sizes = {layer.name: size for layer, size in found}
    assert sizes["conv.weight"] == 4 * 8 * 36
    assert sizes["attn.in_proj_weight[q]"] == 8 * 16 * 16
    assert sizes["head.weight"] == 4 * 5 * 16  # widened when it is read


def test_of_published_models_the_headers_say_the_layers(zoo: Path) -> None:
    """But for tensors that are tied or all zeros, which the bytes alone tell."""
    same = 0
    files = [path for path in sorted(zoo.rglob("*.safetensors"))[::10] if path.parent.name != "broken"]
    for ref in map(ref_of, files):
        found = layers_by_header(ref)
        if found is None:
            continue  # the broken ones
        with open_ref(ref) as checkpoint:
            plan = plan_weights(checkpoint)
        headed = sorted((layer.p, layer.q) for layer, _ in found)
        planned = sorted((layer.p, layer.q) for layer in plan.layers)
        same += headed == planned
        assert len(headed) >= len(planned)
    assert same >= 0.8 * len(files)


def test_a_run_and_its_plan_expect_the_same(reg: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimating, "LARGE_FILE", 0)
    rng = np.random.default_rng(0)
    for i in range(3):
        save_file(
            {"a.weight": rng.standard_normal((40 + 20 * i, 50)).astype(np.float32)}, tmp_path / f"{i}.safetensors"
        )
    refs = reg.plan([tmp_path])
    told: list[float] = []

    class Watcher:
        def begin(self, refs: object, costs: list[float], *, done: int = 0) -> None:  # noqa: ARG002
            told.extend(costs)

        def start(self, ref: object) -> None: ...

        def done(self, ref: object, result: object) -> None: ...

        def end(self) -> None: ...

    with reg:
        reg.ingest_all(refs, progress=Watcher())
    assert told == [model.seconds for model in reg.estimate(refs).models]
    assert told == sorted(told)
    assert len(set(told)) == 3
