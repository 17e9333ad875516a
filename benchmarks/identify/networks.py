"""Networks of torchvision, timm and transformers at ten classes: built without data, and kept as lists of tensors.

They are built anew by the libraries, whatever the catalogue holds: on the meta device, and where that fails with
parameters that move to it as they are registered. ``python -m benchmarks.identify.networks LIBRARY...`` builds the
ones that the cache in ``build/identify`` does not hold yet.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

__all__ = ["CLASSES", "LIBRARIES", "Network", "catalogue_names", "networks"]

CLASSES = 10
CACHE = Path(__file__).resolve().parents[2] / "build" / "identify"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that a library built.

    ``loads``: a plain dictionary of its own tensors loads into it with ``strict=True``. ``family``: the library's
    module. ``task``: ``classification`` or another. ``buffers``: names of the tensors that are no parameters.
    ``tied``: names of the tensors that share their storage with an earlier one. ``error``: why it could not be built.
    """

    library: str
    name: str
    family: str = ""
    task: str = ""
    loads: bool = False
    tensors: tuple[TensorInfo, ...] = ()
    buffers: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()
    error: str = ""

    @property
    def label(self) -> str:
        """``library/name``, as in the catalogue."""
        return f"{self.library}/{self.name}"

    @property
    def distinct(self) -> Counter[tuple[int, ...]]:
        """The shapes of its distinct floating-point tensors."""
        return Counter(
            t.shape for t in self.tensors if t.dtype.startswith(("float", "bfloat")) and t.name not in self.tied
        )

    @property
    def parameters(self) -> Counter[tuple[int, ...]]:
        """The shapes of its distinct parameters."""
        kept = (t for t in self.tensors if t.name not in self.tied and t.name not in self.buffers)
        return Counter(t.shape for t in kept if t.dtype.startswith(("float", "bfloat")))


def networks(library: str) -> list[Network]:
    """The networks of a library in the cache that could be built, by name; those that are missing are built first."""
    path = CACHE / f"{library}-{version(library)}.jsonl"
    held = {network.name: network for network in _read(path)}
    names, builder = LIBRARIES[library]()
    if set(names) - held.keys():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for name in names:
                if name not in held:
                    held[name] = _built(library, name, builder)
                    file.write(json.dumps(_line(held[name])) + "\n")
                    file.flush()
    return [held[name] for name in names if not held[name].error]


def _read(path: Path) -> Iterator[Network]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            cells = json.loads(line)
            cells["tensors"] = tuple(TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in cells["tensors"])
            yield Network(**{**cells, "buffers": frozenset(cells["buffers"]), "tied": frozenset(cells["tied"])})


def _line(network: Network) -> dict[str, Any]:
    return {
        "library": network.library,
        "name": network.name,
        "family": network.family,
        "task": network.task,
        "loads": network.loads,
        "tensors": [[tensor.name, tensor.dtype, tensor.shape] for tensor in network.tensors],
        "buffers": sorted(network.buffers),
        "tied": sorted(network.tied),
        "error": network.error,
    }


def _built(library: str, name: str, builder: Callable[[str], tuple[nn.Module, str, str]]) -> Network:
    import torch

    try:
        try:
            with torch.device("meta"):
                model, family, task = builder(name)
        except Exception:  # noqa: BLE001 - a builder may fail in any way where its values are not there
            with _moved_to_meta():
                model, family, task = builder(name)
        return _described(library, name, family, task, model)
    except Exception as error:  # noqa: BLE001 - what cannot be built is listed with its reason
        return Network(library, name, error=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


@contextmanager
def _moved_to_meta() -> Iterator[None]:
    """Parameters move to the meta device as they are registered, so that no more than one of them is in memory."""
    from torch import nn

    register = nn.Module.register_parameter

    def moved(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None:
            self._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    nn.Module.register_parameter = moved  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _described(library: str, name: str, family: str, task: str, model: nn.Module) -> Network:
    import torch

    state = {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    first: dict[int, str] = {}
    for key, value in state.items():
        first.setdefault(id(value), key)
    plain = {key: torch.empty(value.shape, dtype=value.dtype, device="meta") for key, value in state.items()}
    try:
        model.load_state_dict(plain, strict=True, assign=True)
        loads = True
    except Exception:  # noqa: BLE001 - some modules refuse a state dict without its metadata
        loads = False
    return Network(
        library,
        name,
        family,
        task,
        loads,
        tuple(TensorInfo(key, str(v.dtype).removeprefix("torch."), tuple(v.shape)) for key, v in state.items()),
        frozenset(key for key, value in state.items() if not isinstance(value, torch.nn.Parameter)),
        frozenset(key for key, value in state.items() if first[id(value)] != key),
    )


def _torchvision() -> tuple[list[str], Callable[[str], tuple[nn.Module, str, str]]]:
    from torchvision import models

    def build(name: str) -> tuple[nn.Module, str, str]:
        builder = models.get_model_builder(name)
        taken = inspect.signature(builder).parameters
        options = {"weights": None, **({"weights_backbone": None} if "weights_backbone" in taken else {})}
        try:
            model = builder(num_classes=CLASSES, **options)
        except TypeError:  # RAFT has no classes
            model = builder(**options)
        module = builder.__module__
        classifies = module.rpartition(".")[0] in {"torchvision.models", "torchvision.models.quantization"}
        return model, module.rpartition(".")[2], "classification" if classifies else "other"

    return sorted(models.list_models()), build


def _timm() -> tuple[list[str], Callable[[str], tuple[nn.Module, str, str]]]:
    import timm

    def build(name: str) -> tuple[nn.Module, str, str]:
        model = timm.create_model(name, pretrained=False, num_classes=CLASSES)
        return model, timm.models.model_entrypoint(name).__module__.rpartition(".")[2], "classification"

    return sorted(timm.list_models()), build


def _transformers() -> tuple[list[str], Callable[[str], tuple[nn.Module, str, str]]]:
    from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel

    kinds = {kind.model_type: kind for kind in MODEL_MAPPING}

    def build(name: str) -> tuple[nn.Module, str, str]:
        model = AutoModel.from_config(kinds[name]())  # type: ignore[no-untyped-call]
        return model, type(model).__module__.split(".")[2], "bare"

    return sorted(name for name in CONFIG_MAPPING if name in kinds), build


def catalogue_names(type_: str) -> tuple[str, ...]:
    """The names that the catalogue may have for the class that transformers builds for a model type, the best first."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    built = MODEL_MAPPING[CONFIG_MAPPING[type_]]
    first: type = built[0] if isinstance(built, list | tuple) else built  # type: ignore[assignment]
    return f"{first.__name__}@{type_}", first.__name__


LIBRARIES = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
"""By the library: its names, and the function that builds one: the network, its family and its task."""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for asked in sys.argv[1:] or LIBRARIES:
        built = networks(asked)
        print(f"{asked}: {len(built)} built, {sum(not one.loads for one in built)} of them do not load themselves")
