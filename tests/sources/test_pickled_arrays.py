"""Pickles of arrays, joblib's files, scikit-learn's perceptrons and PaddlePaddle's parameters."""

from __future__ import annotations

import pickle
import shutil
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from registry.errors import NotFoundError, SourceError, WeightsError
from registry.sources import expand, open_ref
from tests.layouts.measured import distances, read
from tests.sources.corpus import text
from tests.sources.pickle_corpus import F4, PROTO, entry, named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RNG = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "a": {"w": RNG.standard_normal((4, 6)).astype(np.float32), "f": np.asfortranarray(RNG.standard_normal((5, 6)))},
    "list": [RNG.standard_normal((2, 3)), (np.arange(6, dtype=">f4").reshape(2, 3), 3)],
    "half": RNG.standard_normal((3, 3)).astype(np.float16), "count": np.arange(4), "flag": np.array([True, False]),
    "text": "x", "words": np.array(["ab", "c"]), "objects": np.array(["ab", None], dtype=object),
    "empty": np.zeros((0, 3)), "one": np.float64(2.5), "scalar": np.array(1.5),
}  # fmt: skip
NAMES = {
    "a.w": ARRAYS["a"]["w"], "a.f": ARRAYS["a"]["f"], "list.0": ARRAYS["list"][0], "list.1.0": ARRAYS["list"][1][0],
    **{name: ARRAYS[name] for name in ("half", "count", "flag", "empty", "scalar")},
}  # fmt: skip


def opened(path: Path, key: str | None = None) -> dict[str, np.ndarray]:
    """All tensors of a file, as they are stored."""
    [ref] = expand(path, key=key)
    assert ref.source == "pickle"
    with open_ref(ref) as checkpoint:
        return {
            info.name: np.frombuffer(checkpoint.raw(info.name), np.dtype(info.dtype)).reshape(info.shape)
            for info in checkpoint.tensors
        }


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].shape == array.shape


@pytest.mark.parametrize("protocol", range(6))
def test_plain_arrays(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(ARRAYS, protocol=protocol))
    assert_equal(opened(tmp_path / "x.pkl"), NAMES)


@pytest.mark.parametrize("compress", [0, "zlib", "gzip", "bz2", "lzma", "xz", "lz4"])
def test_joblib(compress: str | int, tmp_path: Path) -> None:
    joblib.dump(ARRAYS, tmp_path / "x.model", compress=(compress, 3) if compress else 0)
    assert_equal(opened(tmp_path / "x.model"), NAMES)


@pytest.mark.parametrize("order", ["C", "F"])
def test_joblib_without_alignment(order: str, tmp_path: Path) -> None:
    """As before joblib 1.1: the bytes follow at once."""
    array = RNG.standard_normal((3, 4)).astype(np.float32)
    wrapper = named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}(" + text("shape") + b"K\x03K\x04\x86"
    wrapper += text("order") + text(order) + text("dtype") + F4 + b"ub" + array.tobytes(order)  # type: ignore[arg-type]
    (tmp_path / "x.joblib").write_bytes(PROTO + entry(wrapper, "a") + b".")
    np.testing.assert_array_equal(opened(tmp_path / "x.joblib")["a"], array)


def test_a_key_leads_to_a_part(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(ARRAYS))
    assert_equal(opened(tmp_path / "x.pkl", "a"), {"w": NAMES["a.w"], "f": NAMES["a.f"]})
    assert_equal(opened(tmp_path / "x.pkl", "list.1"), {"0": NAMES["list.1.0"]})
    with pytest.raises(NotFoundError, match=r"no entry 'z'.*available entries: a, "):
        opened(tmp_path / "x.pkl", "z")


def test_what_training_left_is_no_weight(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": np.eye(3), "optimizer": {"m": np.eye(3)}, "rng": np.ones(9)}))
    assert list(opened(tmp_path / "x.pkl")) == ["w"]


@pytest.mark.parametrize("shared", [True, False])
def test_one_array_twice(shared: bool, tmp_path: Path) -> None:
    array = RNG.standard_normal((3, 3))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": array, "b": array if shared else array.copy()}))
    with open_ref(expand(tmp_path / "x.pkl")[0]) as checkpoint:
        assert dict(checkpoint.facts.aliases) == ({"b": "a"} if shared else {})


def test_torch_in_a_plain_pickle(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    wanted = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for content in (network.state_dict(), network, {"epoch": 3, "model": network.state_dict()}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        assert_equal(opened(tmp_path / "x.pkl"), wanted)


def fitted(kind: type, wrap: Callable[[Any], Any]) -> tuple[Any, Any]:
    X = RNG.standard_normal((60, 5))
    network = kind(hidden_layer_sizes=(7, 4), max_iter=3, random_state=0)
    whole = wrap(network)
    whole.fit(X, np.array(list("abc"))[np.arange(60) % 3] if kind is MLPClassifier else X[:, 0])
    return network, whole


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("dump", [joblib.dump, lambda value, path: path.write_bytes(pickle.dumps(value))])
@pytest.mark.parametrize(
    ("kind", "wrap"),
    [
        (MLPClassifier, lambda network: network),
        (MLPRegressor, lambda network: network),
        (MLPRegressor, lambda network: make_pipeline(StandardScaler(), network)),
    ],
)
def test_perceptrons(kind: type, wrap: Callable[[Any], Any], dump: Callable[..., Any], tmp_path: Path) -> None:
    network, whole = fitted(kind, wrap)
    dump(whole, tmp_path / "x.pkl")
    found = opened(tmp_path / "x.pkl")
    wanted = {f"layers.{at}.weight": coefficients.T for at, coefficients in enumerate(network.coefs_)}
    wanted |= {f"layers.{at}.bias": array for at, array in enumerate(network.intercepts_)}
    assert_equal(found, wanted)
    # The same network in torch's layout has the same layers, order, fingerprints and content hash.
    save_file({name: np.ascontiguousarray(array) for name, array in wanted.items()}, tmp_path / "twin.safetensors")
    ours, twin = (read(open_ref(expand(tmp_path / name)[0])) for name in ("x.pkl", "twin.safetensors"))
    assert ours.plan.content_hash == twin.plan.content_hash
    assert max(distances(ours.measured, twin.measured).values()) == 0
    with open_ref(expand(tmp_path / "x.pkl")[0]) as checkpoint:
        assert checkpoint.ref.card.architecture == kind.__name__


class Named:
    """What ``paddle.save`` makes of a tensor in any other object: a pair of its name and its array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def __reduce__(self) -> tuple[Any, ...]:
        return (tuple, ((self.name, self.array),))


class Evaluated:
    """What it makes of a tensor without a name."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("data", {"data": self.array}))


def paddle_state() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of a network in Paddle's layout, and in torch's."""
    linear, square, table = (RNG.standard_normal(s).astype(np.float32) for s in ((6, 4), (4, 4), (9, 6)))
    kernel, vector = RNG.standard_normal((5, 2, 3, 3)).astype(np.float32), np.arange(4, dtype=np.float32)
    ours = {
        "conv.weight": kernel, "bn._mean": vector, "word_embeddings.weight": table, "fc1.weight": linear,
        "fc1.bias": vector, "fc2.weight": square, "fc2.bias": vector,
    }  # fmt: skip
    torchs = {
        "conv.weight": kernel, "bn.running_mean": vector, "word_embeddings.weight": table, "fc1.weight": linear.T,
        "fc1.bias": vector, "fc2.weight": square.T, "fc2.bias": vector,
    }  # fmt: skip
    return ours, torchs


@pytest.mark.parametrize("wrap", [lambda _, array: array, Named, lambda _, array: Evaluated(array)])
def test_paddle(wrap: Callable[[str, np.ndarray], Any], tmp_path: Path) -> None:
    ours, torchs = paddle_state()
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({name: wrap(name, array) for name, array in ours.items()}, 4))
    assert_equal(opened(tmp_path / "x.pdparams"), torchs)


def test_paddle_names_tell_the_kind_of_a_layer(tmp_path: Path) -> None:
    """An embedding under any name, and a square linear layer without bias."""
    table, square = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 4))
    names = {"tokens.weight": "embedding_0.w_0", "out.weight": "linear_3.w_0"}
    content = {"tokens.weight": table, "out.weight": square, "StructuredToParameterName@@": names}
    (tmp_path / "x.model").write_bytes(pickle.dumps(content))
    assert_equal(opened(tmp_path / "x.model"), {"tokens.weight": table, "out.weight": square.T})


@pytest.mark.parametrize("name", ["x.pdopt", "x.pdparams"])
def test_the_state_of_a_paddle_optimizer(name: str, tmp_path: Path) -> None:
    content = {"linear_0.w_0_moment1_0": np.eye(3), "linear_0.w_0_beta1_pow_acc_0": np.ones(1)}
    (tmp_path / name).write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=r"state of an optimizer of PaddlePaddle.*\.pdparams"):
        opened(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, "without arrays of numbers: int"),
        ({"a": "text"}, "without arrays of numbers: dict"),
        (np.array(["a"], dtype=object), "without arrays of numbers"),
        (MLPClassifier(), "without arrays of numbers: sklearn.*MLPClassifier"),
        ({"a": np.zeros(3, [("x", "f4")])}, "without arrays of numbers"),
    ],
)
def test_without_arrays(content: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=words) as caught:
        opened(tmp_path / "x.pkl")
    assert caught.value.remedy


@pytest.mark.parametrize("compress", [0, "zlib", "gzip", "bz2", "lzma", "xz", "lz4"])
@pytest.mark.parametrize("tenth", range(10))
def test_cut_short(compress: str | int, tenth: int, tmp_path: Path) -> None:
    joblib.dump({"w": RNG.standard_normal((30, 30))}, tmp_path / "x.joblib", compress=(compress, 1) if compress else 0)
    data = (tmp_path / "x.joblib").read_bytes()
    (tmp_path / "x.joblib").write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(SourceError) as caught:
        opened(tmp_path / "x.joblib")
    assert caught.value.remedy


def test_lz4_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump(ARRAYS, tmp_path / "x.joblib", compress=("lz4", 1))
    monkeypatch.setitem(__import__("sys").modules, "lz4.frame", None)
    with pytest.raises(SourceError, match=r"pip install 'architecture-registry\[lz4\]'"):
        opened(tmp_path / "x.joblib")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joblib.dump({"w": np.zeros((2000, 2000))}, tmp_path / "x.joblib", compress=3)

    class Full:
        free = 1_000_000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Full)
    with pytest.raises(SourceError, match="would unpack"):
        opened(tmp_path / "x.joblib")
