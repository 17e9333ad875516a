"""What is said of networks of torchvision is true of them: they are built without data, and state dicts are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from registry.architectures.catalogue_file import Catalogue, write_catalogue
from registry.architectures.matching import recognise
from registry.types import Architecture, ArchitectureTensor, Layout, Symbolic, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision.models")

NAMES = ("resnet18", "resnet34", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16", "vgg11", "swin_t")
DEFAULT = 1000


def build(name: str, classes: int = DEFAULT) -> nn.Module:
    with torch.device("meta"):
        return models.get_model(name, weights=None, num_classes=classes)


def layout_of(name: str, at: int) -> Layout:
    """The tensors of a network, with extents that differ for another number of classes as symbols."""
    one, other = build(name, 10), build(name, 11).state_dict()
    parameters = {key for key, _ in one.named_parameters()}
    tensors = []
    for key, value in one.state_dict().items():
        pairs = zip(value.shape, other[key].shape, strict=True)
        shape = tuple(a if a == b else Symbolic("classes", b - a, a - 10 * (b - a)) for a, b in pairs)
        tensors.append(ArchitectureTensor(key, shape, key not in parameters, value.is_floating_point()))
    return Layout(at, tuple(tensors))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.db"
    layouts = [layout_of(name, at) for at, name in enumerate(NAMES, 1)]
    architectures = [
        Architecture(
            at,
            "torchvision",
            name,
            at,
            f"torchvision.models.{name}(num_classes={{classes}})",
            "torchvision",
            classes=DEFAULT,
        )
        for at, name in enumerate(NAMES, 1)
    ]
    write_catalogue(path, layouts, architectures, [], [], vectors={}, similar={}, facts={})
    with Catalogue(path) as opened:
        yield opened


def infos(state: Mapping[str, Tensor]) -> list[TensorInfo]:
    return [TensorInfo(key, str(one.dtype).removeprefix("torch."), tuple(one.shape)) for key, one in state.items()]


def loads(line: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a plain state dict loads into what a line of code builds."""
    import torchvision

    with torch.device("meta"):
        model = eval(line, {"torchvision": torchvision})  # noqa: S307 - the line is the test's own
    try:
        model.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError:
        return False
    return True


CHANGES = {
    "as it is": lambda state: state,
    "prefixed": lambda state: {f"module.{key}": value for key, value in state.items()},
    "numbered": lambda state: {str(at): value for at, value in enumerate(state.values())},
    "parameters alone": lambda state: {key: value for key, value in state.items() if "running" not in key},
    "one more": lambda state: {**state, "step": torch.empty((), dtype=torch.int64, device="meta")},
    "one renamed": lambda state: {
        (f"{key}_" if at == 3 else key): value for at, (key, value) in enumerate(state.items())
    },
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_strict_is_said_where_it_loads(catalogue: Catalogue, name: str, change: str) -> None:
    state = CHANGES[change](build(name, 7).state_dict())
    found = recognise(infos(state), catalogue)
    assert found.verdict == "exact"
    best = found.matches[0]
    assert (best.architecture.name, best.classes) == (name, 7)
    stripped = {key.removeprefix(best.prefix): value for key, value in state.items()}
    assert best.strict == loads(best.architecture.line(best.classes, best.channels), stripped)
    assert best.strict == (change in {"as it is", "prefixed"} or stripped.keys() == build(name, 7).state_dict().keys())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_16", "swin_t"])
def test_a_backbone_and_a_new_head_are_told(catalogue: Catalogue, name: str) -> None:
    model = build(name, 7)
    head = next(
        key for key, _ in reversed(list(model.named_modules())) if hasattr(model.get_submodule(key), "in_features")
    )
    width = model.get_submodule(head).in_features
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(f"{head}.")}
    alone = recognise(infos(state), catalogue)
    assert (alone.verdict, alone.headless, alone.matches[0].architecture.name) == ("exact", True, name)
    assert {one.expected for one in alone.matches[0].differences} == {f"{head}.weight", f"{head}.bias"}
    with torch.device("meta"):
        new = torch.nn.Sequential(torch.nn.Linear(width, 50), torch.nn.ReLU(), torch.nn.Linear(50, 4))
    more = {f"{head}.{key}": value for key, value in new.state_dict().items()}
    best = recognise(infos({**state, **more}), catalogue).matches[0]
    assert (best.architecture.name, best.exact, best.classes) == (name, False, 4)
    assert best.head == tuple(more)


def test_of_two_depths_the_nearer_one_is_first(catalogue: Catalogue) -> None:
    found = recognise(infos(build("resnet50", 7).state_dict()), catalogue)
    assert found.verdict != "exact"
    found = recognise(infos(build("resnet34", 7).state_dict()), catalogue, without={NAMES.index("resnet34") + 1})
    assert found.verdict == "near"
    assert found.matches[0].architecture.name == "resnet18"
    assert any(one.name.startswith("layer3.5") for one in found.matches[0].differences)
