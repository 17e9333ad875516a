"""Source for TorchScript archives, also frozen ones and those of the lite interpreter: read as archives, never loaded.

``data.pkl`` is the tree of modules, as records of classes of the archive's own code (``__torch__....``); their
attributes are tensors and further modules, so that names are those of the state dict. The code of a class lists which
of its tensors are parameters and buffers; it is read as text (`script_text`). A frozen model keeps its weights in
``constants.pkl``: they are ``CONSTANTS.c0.weight``, ... and come in the order in which the code uses them. Weights that
are packed for quantised or mobile kernels (``__torch__.torch.classes``) are what their state holds before packing.

Layout of the archive: torch's ``docs/serialization.md`` and ``csrc/jit/serialization/export_module.cpp``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.dtypes import is_float
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, turned
from registry.sources.files.zip_members import ZipMembers
from registry.sources.formats.nested_torch_files import TorchMembers, aliases_of, lazy_state
from registry.sources.formats.pickles import Global, Instance, as_sequence
from registry.sources.formats.pickles.stored_tensors import StoredTensor
from registry.sources.formats.pickles.torch_values import QUANTISED
from registry.sources.formats.script_text import Use, constant_uses, declared, recurrent_name
from registry.types import ModelCard, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_CODE_LIMIT = 32 * 2**20  # bytes of code that are looked at
_NAMELESS = "a frozen model has no names of layers: fused projections (query, key, value) are taken as one matrix"
_CLASSES = "__torch__.torch.classes."
_MANGLED = re.compile(r"___torch_mangle_\d+")
_LOST = "ops.prim.ConstantMKLDNNTensor("
_PACKED = re.compile(r"(?:(?:^|\.)_packed_params)+$|(?:^|\.)_packed_weight$")
_FOLLOWING = ("bias", "running_mean", "running_var")
_CELL = re.compile(r"(.*?)_all_weight_values\.(\d{1,4})\.param", re.DOTALL)


class _Tree(NamedTuple):
    """Tensors of the module tree by name: those of the state dict, and others that are attributes."""

    state: dict[str, StoredTensor]
    others: dict[str, StoredTensor]


def open_torchscript(ref: ModelRef) -> Checkpoint:
    """Open a TorchScript archive; raises the errors of `open_ref`."""
    source = open_bytes(ref.target)
    try:
        members = ZipMembers(source)
        if ref.key is not None:
            raise NotFoundError(f"{source.name} has no entry {ref.key[:100]!r}", "it holds one model: leave --key out")
        if "data.pkl" not in members:
            raise WeightsError(
                f"{source.name} is a TorchScript archive of torch before 1.4, or without its tree of modules",
                "save it again: torch.jit.save(torch.jit.load('FILE'), 'NEW.pt')",
            )
        pickles = TorchMembers(members, source.name)
        archive = _Archive(pickles, source.name)
        archive.check_code()
        root = pickles.read("data.pkl", "data")
        tree = archive.tree(root)
        tensors, order = archive.named(root, tree)
        if not tensors:
            raise WeightsError(f"{source.name} is a TorchScript archive without weights", "save a model with weights")
        stored = {name: tensor for name, (tensor, _) in tensors.items()}
        lazy = lazy_state(stored, source)
        for name, (_, use) in tensors.items():
            if use.turned and len(lazy[name].shape) == 2:
                lazy[name] = turned(lazy[name], (1, 0))
        notes = (_NAMELESS,) if any(name.startswith("CONSTANTS.") for name in tensors) else ()
        facts = ModelFacts(aliases=aliases_of(stored), order=order, notes=notes)
        card = ModelCard(architecture=_class_of(root)).updated(ref.card)
        return LazyCheckpoint(
            replace(ref, card=card), lazy, facts, files=(source,),
            check=lambda: members.check_sums(sorted(pickles.used)),
        )  # fmt: skip
    except BaseException:
        source.close()
        raise


_Named = dict[str, tuple[StoredTensor, Use]]


class _Archive:
    """The pickles and the code of an archive."""

    def __init__(self, pickles: TorchMembers, name: str) -> None:
        self._pickles = pickles
        self._members = pickles.members
        self._name = name
        self._code: dict[str, str] = {}
        self._code_left = _CODE_LIMIT
        self._classes: dict[str, dict[str, frozenset[str] | None]] = {}

    def tree(self, root: object) -> _Tree:
        """The tensors below the outermost module, in its order."""
        found = _Tree({}, {})
        waiting: list[tuple[str, object, bool]] = [("", root, False)]
        seen: set[int] = set()
        while waiting:
            name, value, registered = waiting.pop()
            if isinstance(value, StoredTensor):
                (found.state if registered else found.others)[name] = value
            elif isinstance(value, Instance) and id(value) not in seen:
                seen.add(id(value))
                if str(value.kind).startswith(_CLASSES):
                    found.state.update(_packed(name, value))
                    continue
                if type(value.state) is tuple:
                    found.state.update(_in_state(name, value.state))
                    continue
                names = self._declared(value.kind)
                waiting += [
                    (f"{name}.{key}" if name else key, inner, names is None or key in names)
                    for key, inner in reversed(list(value.attributes.items()))
                    if isinstance(key, str)
                ]
            elif type(value) in (list, tuple, dict) and id(value) not in seen:
                seen.add(id(value))
                pairs = _pairs(value)
                waiting += [(f"{name}.{key}", inner, False) for key, inner in reversed(pairs)]
            if len(found.state) + len(found.others) > MAX_TENSORS:
                raise UnsafeError(f"{self._name} holds more than {MAX_TENSORS} tensors", "split the file")
        return found

    def check_code(self) -> None:
        """Raise ``WeightsError`` for an archive whose weights were lost when it was saved."""
        for path in self._members:
            if path.startswith("code/") and path.endswith(".py") and _LOST in self._text(path):
                raise WeightsError(
                    f"{self._name} was optimised for inference (MKLDNN) before saving, which left its weights out",
                    "save the model before torch.jit.optimize_for_inference",
                )

    def _declared(self, kind: object) -> frozenset[str] | None:
        """Names of a class' parameters and buffers; None where its code does not tell."""
        if not isinstance(kind, Global):
            return None
        path = f"code/{kind.module.replace('.', '/')}.py"
        if path not in self._classes:
            self._classes[path] = declared(self._text(path))
        return self._classes[path].get(kind.name)

    def _text(self, path: str) -> str:
        if path not in self._code:
            size = self._members.size_of(path) if path in self._members else 0
            self._code_left -= size
            readable = size and self._code_left >= 0
            self._code[path] = self._members.read(path, _CODE_LIMIT).decode("utf-8", "replace") if readable else ""
        return self._code[path]

    def named(self, root: object, tree: _Tree) -> tuple[_Named, tuple[str, ...]]:
        """The weights, and their order where names do not tell it."""
        plain = Use()
        found: _Named = {name: (tensor, plain) for name, tensor in tree.state.items()}
        matrices = any(_is_matrix(tensor) for tensor in tree.state.values())
        constants = self._constants(root) if "constants.pkl" in self._members else {}
        if not matrices:
            found.update((name, (tensor, plain)) for name, tensor in tree.others.items())
            for name, entry in constants.items():
                found.setdefault(name, entry)
            return found, tuple(name for name in found if name in constants)
        weights = {name for name, (_, use) in constants.items() if use.role in ("weight", "packed", "recurrent")}
        modules = {name.rpartition(".")[0] for name in weights}
        for name, entry in constants.items():  # of a model that is frozen in part
            if name in weights or name.rpartition(".")[0] in modules:
                found.setdefault(name, entry)
        return found, ()

    def _constants(self, root: object) -> _Named:
        """Weights among the constants, by their names in the code, in the order of their first use."""
        values = self._pickles.read("constants.pkl", "constants")
        if not isinstance(values, list | tuple):
            return {}
        own = f"code/{root.kind.module.replace('.', '/')}.py" if _is_record(root) else ""  # type: ignore[attr-defined]
        paths = sorted(name for name in self._members if name.startswith("code/") and name.endswith(".py"))
        uses: dict[int, Use] = {}
        for path in sorted(paths, key=lambda name: (name != own, name)):
            for number, use in constant_uses(self._text(path)).items():
                uses.setdefault(number, use)
        found: _Named = {}
        recurrent = self._recurrent(values, uses)
        stem = ""  # of the weight before, whose bias or statistics follow it in the code
        for number in [*uses, *(number for number in range(len(values)) if number not in uses)]:
            if number >= len(values):
                continue
            value, use, name = values[number], uses.get(number, Use()), f"CONSTANTS.c{number}"
            if isinstance(value, Instance) and str(value.kind).startswith(_CLASSES):
                found.update((part, (tensor, Use("packed"))) for part, tensor in _packed(name, value).items())
            elif isinstance(value, StoredTensor) and (is_float(value.dtype) or value.dtype in QUANTISED):
                leaf = recurrent.get(number) or use.role
                joined = leaf in _FOLLOWING or (number in recurrent and use.place > 0)
                own = f"{name}.{leaf}" if leaf else name
                if joined and stem and f"{stem}.{leaf}" not in found:
                    own = f"{stem}.{leaf}"
                else:
                    stem = name
                found[own] = (value, use)
        return found

    def _recurrent(self, values: Sequence[object], uses: Mapping[int, Use]) -> dict[int, str]:
        """Names of the constants that are in the list of a recurrent layer's weights."""
        names: dict[int, str] = {}
        run: list[int] = []
        for number, use in [*uses.items(), (-1, Use())]:
            if run and (use.role != "recurrent" or use.place == 0):
                shapes = [getattr(values[n], "shape", ()) if n < len(values) else () for n in run]
                step = 4 if any(len(shape) == 1 for shape in shapes) else 2
                # Both directions of a layer have the same inputs; a layer's are as many as the outputs before it.
                both = len(run) >= 2 * step and shapes[0] == shapes[step]
                both = both and (shapes[0] != shapes[1] or (len(run) > 2 * step and shapes[2 * step] != shapes[0]))
                names.update((n, recurrent_name(place, step, both=both)) for place, n in enumerate(run))
                run = []
            if use.role == "recurrent":
                run.append(number)
        return names


def _is_record(value: object) -> bool:
    return isinstance(value, Instance) and isinstance(value.kind, Global)


def _pairs(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(str(key), inner) for key, inner in value.items() if isinstance(key, str | int)]
    return [(str(at), inner) for at, inner in enumerate(as_sequence(value) or ())]


def _packed(name: str, record: Instance) -> dict[str, StoredTensor]:
    """Weight and bias of an object of torch's quantised or mobile kernels, by the names of their module."""
    tensors = list(_within(record.state))
    if cell := _CELL.fullmatch(name):
        matrices = [tensor for tensor in tensors if len(tensor.shape) == 2]
        biases = [tensor for tensor in tensors if len(tensor.shape) == 1 and is_float(tensor.dtype)]
        kinds = zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), [*matrices[:2], *biases[:2]], strict=False)
        return {f"{cell[1]}{kind}_l{cell[2]}": tensor for kind, tensor in kinds}
    stem = _PACKED.sub("", name)
    stem = f"{stem}." if stem else ""
    weight = next((tensor for tensor in tensors if len(tensor.shape) > 1), None)
    bias = next((tensor for tensor in tensors if len(tensor.shape) == 1 and is_float(tensor.dtype)), None)
    parts = (("weight", weight), ("bias", bias))
    return {stem + part: tensor for part, tensor in parts if tensor is not None}


def _in_state(name: str, state: tuple[object, ...]) -> dict[str, StoredTensor]:
    """The tensors in a module's own state, a tuple of settings, weight and bias for torch's quantised convolutions."""
    tensors = list(_within(state))
    stem = f"{name}." if name else ""
    if len(tensors) in (1, 2) and len(tensors[0].shape) > 1 and all(len(tensor.shape) == 1 for tensor in tensors[1:]):
        return {stem + part: tensor for part, tensor in zip(("weight", "bias"), tensors, strict=False)}
    return {f"{stem}{at}": tensor for at, tensor in enumerate(tensors)}


def _within(state: object, levels: int = 8) -> Iterator[StoredTensor]:
    """The tensors of a packed object's state, which nests lists in a tuple, and objects in a list.

    Lists may be arguments of ``torch.jit._pickle.build_tensorlist`` and ``restore_type_tag``.
    """
    for value in state if isinstance(state, list | tuple) else ():
        if isinstance(value, StoredTensor):
            yield value
        elif levels and isinstance(value, list | tuple):
            yield from _within(value, levels - 1)
        elif levels and isinstance(value, Instance):
            yield from _within(value.args, levels - 1)
            yield from _within(value.state, levels - 1)


def _is_matrix(tensor: StoredTensor) -> bool:
    return len(tensor.shape) > 1 and (is_float(tensor.dtype) or tensor.dtype in QUANTISED)


def _class_of(root: object) -> str:
    """The name of the outermost module's class, if it tells anything."""
    if not isinstance(root, Instance) or not isinstance(root.kind, Global):
        return ""
    name = root.kind.name
    return name if name.isidentifier() and not _MANGLED.fullmatch(name) and len(name) <= 100 else ""


SOURCE = Source(name="torchscript", open=open_torchscript, headers=True, ranges=True)
