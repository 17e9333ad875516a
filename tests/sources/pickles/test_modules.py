"""Modules that were pickled whole are the state dicts that torch makes of them, without their classes."""

from __future__ import annotations

import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from registry.errors import UnsafeError, WeightsError
from registry.sources import layer_matrix, open_module, open_ref, plan_weights
from registry.sources.formats.torch_file import open_torch_file
from registry.types import ModelRef

if TYPE_CHECKING:
    from pathlib import Path

    from registry.types import Checkpoint


class Net(torch.nn.Module):
    """With tied weights, buffers of both kinds, a shared module, a list and a dictionary of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.LSTM(8, 6)])
        self.named = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3), "norm": torch.nn.BatchNorm2d(4)})
        self.twice = self.blocks[0]
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.missing = None
        self.register_buffer("kept", torch.arange(5.0))
        self.register_buffer("passing", torch.arange(9.0), persistent=False)
        self.register_parameter("none", None)
        self.head = torch.nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        self.loss = torch.nn.CrossEntropyLoss()


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Net()


def opened(path: Path, key: str | None = None) -> Checkpoint:
    return open_torch_file(ModelRef("torch", str(path), "x", key=key))


def assert_state(path: Path, state: dict[str, torch.Tensor], key: str | None = None) -> None:
    with opened(path, key) as found:
        assert [t.name for t in found.tensors] == list(state)
        for name, tensor in state.items():
            assert found.raw(name) == tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data, name


@pytest.mark.parametrize("new", [True, False])
def test_names_values_and_order_are_those_of_the_state_dict(new: bool, net: Net, tmp_path: Path) -> None:
    torch.save(net, tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    assert_state(tmp_path / "x.pt", net.state_dict())
    with opened(tmp_path / "x.pt") as found:
        assert found.facts.aliases["head.weight"] == "embed.weight"


def test_module_and_state_dict_are_one_model(net: Net, tmp_path: Path) -> None:
    torch.save(net, tmp_path / "x.pt")
    torch.save(net.state_dict(), tmp_path / "y.pt")
    plans = []
    for path in (tmp_path / "x.pt", tmp_path / "y.pt"):
        with open_ref(ModelRef("torch", str(path), "x")) as found:
            plans.append(plan_weights(found))
    assert plans[0] == plans[1]
    with open_module(net) as live:
        assert plan_weights(live).content_hash == plans[0].content_hash


def test_wrappers(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    torch.save(torch.nn.DataParallel(net), tmp_path / "parallel.pt")
    assert_state(tmp_path / "parallel.pt", state)
    torch.save({"epoch": 3, "model": net, "optimizer": torch.optim.SGD(net.parameters())}, tmp_path / "trainer.pt")
    assert_state(tmp_path / "trainer.pt", state)
    torch.save({"model": net, "ema": torch.nn.Linear(3, 2)}, tmp_path / "averaged.pt")
    with opened(tmp_path / "averaged.pt") as found:
        assert [t.name for t in found.tensors] == ["weight", "bias"]
        assert found.facts.notes == ("entry ema was read; --key chooses another: model",)
    assert_state(tmp_path / "averaged.pt", net.named.state_dict(), "model.named")


class Learner:
    """As fastai exports one: the model is an attribute beside data, losses and callbacks."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.dls: list[Any] = [{"path": "a"}, len]
        self.model = model
        self.loss_func = torch.nn.CrossEntropyLoss(weight=torch.ones(3))
        self.opt = None


def test_objects_that_hold_a_module(net: Net, tmp_path: Path) -> None:
    torch.save(Learner(net), tmp_path / "x.pkl")
    assert_state(tmp_path / "x.pkl", net.state_dict())


def test_classes_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("somewhere.else")
    monkeypatch.setitem(sys.modules, "somewhere", types.ModuleType("somewhere"))
    monkeypatch.setitem(sys.modules, "somewhere.else", made)

    class Detection(torch.nn.Sequential):
        pass

    Detection.__module__, Detection.__qualname__ = "somewhere.else", "Detection"
    made.Detection = Detection  # type: ignore[attr-defined]
    model = Detection(torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(4, 4)).half()
    torch.save({"model": model, "ema": None, "train_args": {"lr": 0.1}}, tmp_path / "best.pt")
    monkeypatch.undo()
    assert "somewhere" not in sys.modules
    assert_state(tmp_path / "best.pt", model.state_dict())


def test_effective_weights_of_a_module_in_a_file(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on functions that it calls old
        torch.manual_seed(2)
        layers = [torch.nn.Linear(6, 5), torch.nn.ConvTranspose2d(4, 6, 3), torch.nn.Linear(5, 7)]
        module = torch.nn.Sequential(
            torch.nn.utils.weight_norm(layers[0]), torch.nn.utils.spectral_norm(layers[1]), layers[2]
        )
    module.eval()
    torch.save(module, tmp_path / "x.pt")
    with open_ref(ModelRef("torch", str(tmp_path / "x.pt"), "x")) as stored, open_module(module) as live:
        whole, expected = plan_weights(stored), plan_weights(live)
        assert [(x.name, x.p, x.q) for x in whole.layers] == [(x.name, x.p, x.q) for x in expected.layers]
        for a, b in zip(whole.layers, expected.layers, strict=True):
            assert abs(layer_matrix(stored, a) - layer_matrix(live, b)).max() < 1e-6


def test_lazy_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.LazyLinear(4)), tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"tensor 0\.weight of a lazy module has no shape"):
        opened(tmp_path / "x.pt")


def test_a_module_in_itself_is_refused(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module._modules["again"] = module
    torch.save(module, tmp_path / "x.pt")
    with pytest.raises(UnsafeError, match="a module of more parts than weights need"):
        opened(tmp_path / "x.pt")


def test_doubled_modules_are_refused(tmp_path: Path) -> None:
    """A dozen lines of a pickle would be 2^40 names."""
    module: torch.nn.Module = torch.nn.Linear(2, 2)
    for _ in range(40):
        module = torch.nn.Sequential(module, module)
    torch.save(module, tmp_path / "x.pt")
    with pytest.raises(UnsafeError, match="a module of more parts than weights need"):
        opened(tmp_path / "x.pt")


def test_traced_graphs(tmp_path: Path) -> None:
    graph = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()))
    torch.save(graph, tmp_path / "x.pt")
    assert_state(tmp_path / "x.pt", graph.state_dict())


def test_compiled_modules_are_those_that_they_wrap(net: Net, tmp_path: Path) -> None:
    torch.save(torch.compile(net), tmp_path / "whole.pt")
    assert_state(tmp_path / "whole.pt", net.state_dict())
    torch.save({"model": torch.compile(net)}, tmp_path / "within.pt")
    assert_state(tmp_path / "within.pt", net.state_dict())
