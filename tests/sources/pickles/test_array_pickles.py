"""Pickles of arrays that no tensor of torch is in: names and what is left out."""

from __future__ import annotations

import io
import pickle
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from registry.errors import AmbiguousError
from registry.sources import expand, open_ref

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTS = ("weight", "bias")


def joblib_bytes(value: Any) -> bytes:
    """What joblib writes, whose arrays are in the stream of the pickle."""
    made = io.BytesIO()
    joblib.dump(value, made)
    return made.getvalue()


def read(path: Path, content: Any, protocol: int) -> tuple[str | None, dict[str, Any]]:
    """The key and the arrays that are read of a pickle."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    (ref,) = expand(path)
    with open_ref(ref) as found:
        return found.ref.key, {info.name: np.asarray(found.read(info.name)) for info in found.tensors}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapper", ["model", "blobs"])
def test_the_dictionary_around_the_arrays_is_the_key(wrapper: str, protocol: int, tmp_path: Path) -> None:
    arrays = {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.ones(2, np.float32)}
    key, found = read(tmp_path / "x.pkl", {wrapper: arrays, "__author__": "a", "heuristics": True}, protocol)
    assert key == wrapper
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    key, found = read(tmp_path / "y.pkl", {wrapper: arrays, "mean": np.zeros(3)}, protocol)
    assert (key, list(found)) == (None, [f"{wrapper}.fc.weight", f"{wrapper}.fc.bias", "mean"])


def test_momentum_beside_an_array_is_no_weight(tmp_path: Path) -> None:
    arrays = {name: np.ones((2, 2)) for name in ("conv_w", "conv_w_momentum", "alone_momentum")}
    _, found = read(tmp_path / "x.pkl", {"blobs": arrays, "cfg": "a"}, 2)
    assert list(found) == ["conv_w", "alone_momentum"]


def fitted(*sizes: int) -> MLPRegressor:
    rng = np.random.default_rng(sum(sizes))
    network = MLPRegressor(hidden_layer_sizes=sizes[1:], max_iter=2, early_stopping=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return network.fit(rng.standard_normal((40, sizes[0])), rng.standard_normal((40, 2)))


@pytest.mark.parametrize("write", [pickle.dumps, joblib_bytes])
def test_perceptrons_within_anything_are_out_by_in(write: Callable[..., bytes], tmp_path: Path) -> None:
    network = fitted(6, 5, 4)
    scaler = StandardScaler().fit(np.eye(6))
    pipeline = Pipeline([("scale", scaler), ("network", network)])
    for content in (network, pipeline, {"model": network, "scaler": scaler}, [scaler, {"a": pipeline}, network]):
        path = tmp_path / "x.pkl"
        path.write_bytes(write(content))
        (ref,) = expand(path)
        with open_ref(ref) as found:
            assert {info.name for info in found.tensors} == {f"layers.{n}.{p}" for n in range(3) for p in PARTS}
            for at, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
                assert np.array_equal(found.read(f"layers.{at}.weight"), weight.T)
                assert np.array_equal(found.read(f"layers.{at}.bias"), bias)


def test_several_perceptrons_are_told_apart(tmp_path: Path) -> None:
    one, two = fitted(6, 5), fitted(3, 4)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"one": one, "two": two}))
    with open_ref(expand(path)[0]) as found:
        assert np.array_equal(found.read("one.layers.1.weight"), one.coefs_[1].T)
        assert len(found.tensors) == 8
    with open_ref(expand(path, key="two")[0]) as found:
        assert np.array_equal(found.read("layers.0.weight"), two.coefs_[0].T)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_arrays_of_jax(dtype: str, protocol: int, tmp_path: Path) -> None:
    array = jax.numpy.arange(12).reshape(3, 4).astype(dtype)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"net": {"linear": Named(array, ())}, "opt_state": [array]}, protocol=protocol))
    with open_ref(expand(path)[0]) as found:
        (info,) = found.tensors
        assert (info.name, info.dtype, info.shape) == ("net.linear.0", dtype, (3, 4))
        assert bytes(found.raw(info.name)) == np.asarray(array).tobytes()


class Named(NamedTuple):
    """As optax and flax keep states."""

    weight: Any
    rest: Any


class Persistent(torch.nn.Linear):
    """As NVIDIA's ``torch_utils.persistence`` pickles a class: by its source code and its attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        meta = Attributes(type="class", version=6, module_src="raise SystemExit", class_name="A", state=self.__dict__)
        return (_reconstruct_persistent_obj, (meta,))


class Attributes(dict[str, Any]):
    """``dnnlib.util.EasyDict``."""


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError(meta)


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def test_persistent_modules_of_stylegan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    one, two = Persistent(4, 3), Persistent(3, 2)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"G": one, "G_ema": two, "training_set_kwargs": Attributes(a=1)}))
    monkeypatch.undo()
    with pytest.raises(AmbiguousError, match="G, G_ema"):
        open_ref(expand(path)[0])
    with open_ref(expand(path, key="G_ema")[0]) as found:
        assert [info.name for info in found.tensors] == ["weight", "bias"]
        assert np.array_equal(found.read("weight"), two.weight.detach().numpy())


class Agent:
    """An object that holds networks beside other arrays."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_networks_in_objects_are_chosen_as_in_files_of_torch(tmp_path: Path) -> None:
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    path = tmp_path / "x.pkl"
    for content, key in ((Agent(net=one, memory=[np.zeros((3, 3))]), "net"), ({"a": Agent(net=one)}, "a.net")):
        path.write_bytes(pickle.dumps(content))
        with open_ref(expand(path)[0]) as found:
            assert (found.ref.key, [info.name for info in found.tensors]) == (key, ["weight", "bias"])
    path.write_bytes(pickle.dumps(Agent(policy=one, target=two)))
    with pytest.raises(AmbiguousError, match="policy, target"):
        open_ref(expand(path)[0])
