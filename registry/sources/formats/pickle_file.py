"""Source for pickles that torch did not write: arrays of joblib, scikit-learn, PaddlePaddle, and plain ones.

Nothing is unpickled: `sources.formats.pickles` makes records of it. A compressed file is unpacked to a temporary one.

- Dictionaries, lists, tuples and attributes of objects are searched for arrays and tensors; names are dotted paths. A
  state dict of torch's tensors within is chosen as in a file of ``torch.save``.
- scikit-learn's multilayer perceptrons, which may be within dictionaries, pipelines and searches, have ``coefs_``,
  (in, out) each, and ``intercepts_``: they become ``layers.0.weight``, (out, in), and ``layers.0.bias``.
- Detectron2 and Detectron have a dictionary of arrays in ``model`` or ``blobs``, which the key of the model names; the
  optimizer's ``NAME_momentum`` beside an array is no weight.
- PaddlePaddle's linear layers are (in, out). A ``.pdparams`` names the parameters of each layer beside its names in the
  model (``linear_0.w_0``, ``embedding_0.w_0``), which tells its kind; else the shape of the bias does. Its arrays
  are plain ones, pairs of a name and an array, or ``eval('data', {'data': array})``, which is taken as that array.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, turned
from registry.sources.files.unpacked import compression, unpacked
from registry.sources.formats.joblib_arrays import REWRITE, reader
from registry.sources.formats.nested_torch_files import aliases_of, lazy_state
from registry.sources.formats.pickles import Global, Instance, as_mapping, as_sequence, read_pickle
from registry.sources.formats.pickles.modules import Allowance, attributes_of, is_module, state_of
from registry.sources.formats.pickles.numpy_arrays import PickledArray
from registry.sources.formats.pickles.stored_tensors import StoredTensor
from registry.sources.formats.pickles.torch_legacy import CONSTRUCTORS
from registry.sources.formats.pickles.torch_values import TorchTensor
from registry.sources.formats.torch_file import checkpoint_of
from registry.sources.state_dicts import Content
from registry.types import ModelCard, ModelFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_MAX_VALUES = 5_000_000  # of containers that are looked through
_MAX_NAME = 1000
_TRAINING = re.compile(
    r"opt(_state)?|(\w+_)?(optim\w*|(lr_)?sched\w*|(grad_)?scaler|rng\w*|random_state)(_\w+)?|_optimizer"
)
_WRAPPERS = ("model", "blobs", "state_dict", "params")
_SLOT = "_momentum"  # Caffe2's
_MAX_LEVELS = 8  # of estimators within each other
_PERCEPTRONS = ("MLPClassifier", "MLPRegressor")
_PADDLE_NAMES = "StructuredToParameterName@@"
_PADDLE_SLOT = re.compile(r".+_(moment[12]?|beta[12]_pow_acc|velocity|inf_norm|mean_square|mean_grad|momentum)_\d+")
_PADDLE_LINEAR = re.compile(r"(.*[./_])?(linear|fc|mul)_\d+\.w_\d+(_\d+)?")
_PADDLE_OTHER = re.compile(r"(.*[./_])?[a-z]+\w*_\d+\.[wb]_\d+(_\d+)?")
_EMBEDDING = re.compile(r"(.*[._])?(\w*embed\w*|emb|wte|wpe|lookup_table)(\.weight)?", re.IGNORECASE)
_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}


def open_pickle(ref: ModelRef) -> Checkpoint:
    """Open a pickle; raises the errors of `open_ref`."""
    source = open_bytes(ref.target)
    try:
        head = bytes(source.read_at(0, min(source.size, 8)))
        if head.startswith(b"ZF"):
            raise WeightsError(f"{source.name} is a compressed pickle of joblib before 0.10", REWRITE)
        if compression(head) is not None:
            with source as packed:
                source = unpacked(packed)
        content = read_pickle(source, constructors=CONSTRUCTORS, built=reader(source, CONSTRUCTORS)).value
        return _opened(ref, source, content)
    except BaseException:
        source.close()
        raise


def _opened(ref: ModelRef, source: ByteSource, content: object) -> Checkpoint:
    where = ref.target
    if networks := _perceptrons(content if ref.key is None else _at(content, ref.key, where), where):
        tensors, card = _layers(networks, where)
        return LazyCheckpoint(
            replace(ref, card=card.updated(ref.card)), tensors, ModelFacts(laid_out=True), files=(source,)
        )
    if _is_paddle(content, where):
        return LazyCheckpoint(ref, _paddle(content, where), ModelFacts(laid_out=True), files=(source,))
    if (isinstance(content, Instance) and is_module(content)) or _has_torch(content):
        return checkpoint_of(Content(content, where), ref, source)
    found = dict(_named(content if ref.key is None else _at(content, ref.key, where), where))
    if not found:
        raise WeightsError(
            f"{where} is a pickle without arrays of numbers: {_kind(content)}", "give a file with weights"
        )
    wrapper = next((word for word in _WRAPPERS if all(name.startswith(f"{word}.") for name in found)), "")
    if ref.key is None and wrapper and as_mapping(content) is not None:
        ref = replace(ref, key=wrapper)
        found = {name[len(wrapper) + 1 :]: array for name, array in found.items()}
    slots = {f"{name}{_SLOT}" for name in found}
    found = {name: array for name, array in found.items() if name not in slots}
    return LazyCheckpoint(ref, lazy_state(found, source), ModelFacts(aliases=aliases_of(found)), files=(source,))


def _kind(value: object) -> str:
    return value.class_name[:100] if isinstance(value, Instance) else type(value).__name__


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a container or an object holds, with the part of a name that leads to it."""
    if isinstance(value, Instance):
        yield from ((key, inner) for key, inner in attributes_of(value).items() if isinstance(key, str))
    pairs = as_mapping(value)
    if isinstance(value, Instance) and pairs is None and value.items is None and value.state is None:
        wrapped = value.args[0] if len(value.args) == 1 else value.args  # a frozen dictionary, or a named tuple
        pairs = as_mapping(wrapped)
        value = value if pairs is not None else wrapped
    if pairs is not None:
        yield from ((str(key), each) for key, each in pairs.items() if type(key) in (str, int))
    sequence = as_sequence(value)
    if sequence is not None:
        yield from ((str(at), each) for at, each in enumerate(sequence))


def _named(value: object, where: str) -> Iterator[tuple[str, StoredTensor]]:
    """Arrays and tensors by dotted path, in the order in which they stand; what training left is passed over."""
    waiting: list[tuple[str, object]] = [("", value)]
    seen: set[int] = set()
    allowance = Allowance(where)
    count = 0
    while waiting:
        name, at = waiting.pop()
        at = _data_of(at)
        count += 1
        if count > _MAX_VALUES or len(seen) > MAX_TENSORS:
            raise UnsafeError(f"{where} holds more values than weights need", "save arrays alone")
        if isinstance(at, StoredTensor):
            if at.dtype and (not isinstance(at, PickledArray) or at.elements is None):
                yield name or "array", at
            continue
        if id(at) in seen or isinstance(at, str | bytes | int | float) or at is None:
            continue
        seen.add(id(at))
        if isinstance(at, Instance) and is_module(at):
            at = state_of(at, allowance)
        inner = [(f"{name}.{part}" if name else part, each) for part, each in _parts(at) if not _is_training(part)]
        if any(len(part) > _MAX_NAME for part, _ in inner):
            raise UnsafeError(f"{where} holds values nested too deep for a name", "save arrays alone")
        waiting += reversed(inner)


def _is_training(part: str) -> bool:
    return _TRAINING.fullmatch(part[:100].lower()) is not None


def _data_of(value: object) -> object:
    """The array in ``eval('data', {'data': array})``, as PaddlePaddle pickles its tensors; else the value."""
    if isinstance(value, Instance) and value.kind == Global("builtins", "eval") and len(value.args) == 2:
        held = as_mapping(value.args[1])
        if value.args[0] == "data" and held is not None and isinstance(held.get("data"), StoredTensor):
            return held["data"]
    return value


def _has_torch(value: object) -> bool:
    """Whether there are torch's tensors within the outermost levels of dictionaries and objects."""
    waiting, seen = [(value, 4)], set()
    while waiting:
        at, levels = waiting.pop()
        if isinstance(at, TorchTensor) or is_module(at):
            return True
        if levels and id(at) not in seen:
            seen.add(id(at))
            waiting += [(each, levels - 1) for each in (as_mapping(at) or {}).values()]
            if isinstance(at, Instance):
                waiting += [(each, levels - 1) for each in attributes_of(at).values()]
    return False


def _at(value: object, key: str, where: str) -> object:
    """The value to which a dotted path leads."""
    for part in [key] if any(name == key for name, _ in _parts(value)) else key.split("."):
        found = next(((each,) for name, each in _parts(value) if name == part), None)
        if found is None:
            offered = ", ".join(sorted(name[:60] for name, _ in _parts(value))[:10]) or "none"
            raise NotFoundError(f"{where} has no entry {key[:100]!r}", f"available entries: {offered}")
        (value,) = found
    return value


# scikit-learn


def _perceptrons(content: object, where: str) -> dict[str, Instance]:
    """The multilayer perceptrons within dictionaries, lists and estimators of scikit-learn, by where they stand.

    A perceptron that is found twice, as a search and a pipeline hold them, is there once.
    """
    found: dict[str, Instance] = {}
    waiting, seen, allowance = [("", content, _MAX_LEVELS)], set(), Allowance(where)
    while waiting:
        path, at, levels = waiting.pop()
        if id(at) in seen or not isinstance(at, Instance | dict | list | tuple):
            continue
        seen.add(id(at))
        if isinstance(at, Instance) and isinstance(at.kind, Global) and at.kind.module.startswith("sklearn."):
            if at.kind.name in _PERCEPTRONS and "coefs_" in at.attributes:
                found[path] = at
                continue
        elif isinstance(at, Instance) and as_mapping(at) is None and as_sequence(at) is None:
            continue
        if levels:
            inner = list(_parts(at))
            allowance.take(len(inner))
            waiting += [(f"{path}{part[:_MAX_NAME]}.", each, levels - 1) for part, each in reversed(inner)]
    return found


def _layers(networks: Mapping[str, Instance], where: str) -> tuple[dict[str, LazyTensor], ModelCard]:
    """Weights (out, in) and biases of multilayer perceptrons, from input to output; of several, below their place."""
    tensors: dict[str, LazyTensor] = {}
    for path, network in networks.items():
        prefix = path if len(networks) > 1 else ""
        for attribute, part in (("coefs_", "weight"), ("intercepts_", "bias")):
            for at, array in enumerate(as_sequence(network.attributes.get(attribute)) or ()):
                if not isinstance(array, StoredTensor) or len(array.shape) != (2 if part == "weight" else 1):
                    raise WeightsError(
                        f"{where}: {attribute}[{at}] of the perceptron is no array of weights", "save it again"
                    )
                name = f"{prefix}layers.{at}.{part}"
                lazy = array.lazy(name)
                tensors[name] = turned(lazy, (1, 0)) if part == "weight" else lazy
    if not tensors:
        raise WeightsError(f"{where} is a perceptron that has not been fitted", "fit it before saving")
    kinds = {str(network.kind.name) for network in networks.values()}  # type: ignore[attr-defined]
    return tensors, ModelCard(architecture=kinds.pop() if len(kinds) == 1 else "")


# PaddlePaddle


def _is_paddle(content: object, where: str) -> bool:
    """Whether a file is PaddlePaddle's; raises ``WeightsError`` for the state of its optimizers."""
    entries = as_mapping(content)
    suffix = where.lower().rpartition(".")[2]
    if entries is None or (suffix not in ("pdparams", "pdopt", "pdema") and _PADDLE_NAMES not in entries):
        return False
    slots = sum(isinstance(key, str) and _PADDLE_SLOT.fullmatch(key) is not None for key in entries)
    if suffix == "pdopt" or "LR_Scheduler" in entries or "master_weights" in entries or slots > len(entries) // 2:
        raise WeightsError(
            f"{where} is the state of an optimizer of PaddlePaddle, not a model", "give the .pdparams beside it"
        )
    return True


def _paddle(content: object, where: str) -> dict[str, LazyTensor]:
    entries = as_mapping(content) or {}
    names = as_mapping(entries.get(_PADDLE_NAMES)) or {}
    model = {key: value for key, value in entries.items() if key != _PADDLE_NAMES}
    for key, value in model.items():  # (name, array), as paddle.save writes tensors of any other object
        pair = as_sequence(value)
        if pair is not None and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], StoredTensor):
            model[key] = pair[1]
    arrays = dict(_named(model, where))
    tensors: dict[str, LazyTensor] = {}
    for name, array in arrays.items():
        lazy = array.lazy(name)
        stem, _, leaf = name.rpartition(".")
        bias = arrays.get(f"{stem}.bias" if stem else "bias")
        if leaf == "weight" and len(array.shape) == 2 and _is_linear(name, array, bias, names.get(name)):
            lazy = turned(lazy, (1, 0))
        new = f"{stem}.{_STATISTICS.get(leaf, leaf)}" if stem else _STATISTICS.get(leaf, leaf)
        tensors[new if new not in arrays else name] = lazy
    return tensors


def _is_linear(name: str, array: StoredTensor, bias: StoredTensor | None, parameter: object) -> bool:
    """Whether a matrix called ``weight`` is (in, out): by the parameter's name, by its bias, if it is no embedding."""
    if isinstance(parameter, str) and len(parameter) < _MAX_NAME:
        if _PADDLE_LINEAR.fullmatch(parameter):
            return True
        if _PADDLE_OTHER.fullmatch(parameter):
            return False
    if bias is not None and array.shape[0] != array.shape[1]:
        return bias.shape == (array.shape[1],)
    return bias is not None or not _EMBEDDING.fullmatch(name)


SOURCE = Source(name="pickle", open=open_pickle, headers=True, ranges=True)
