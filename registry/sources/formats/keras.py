"""Source for files of Keras 1, 2 and 3: ``.h5``, ``.hdf5``, ``.weights.h5`` and ``.keras``; also other HDF5 files.

Tensors come in torch's layout under the names of their layers (``conv2d_1/kernel``), so that a model has the same
tensors from each of its files. The configuration is data: class names and settings in it tell layouts, and no layer is
built. Optimiser state, metrics and seeds are left out. Arrays in an HDF5 file that Keras did not write keep their
paths, and `array_layouts` decides by these.

Sources: ``legacy_h5_format.py`` and ``saving_lib.py`` of Keras 3, ``topology.py`` of Keras 1 and 2: groups, attributes,
numbers of variables, and the names by which Keras 3 counts the layers of a class.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.errors import NotFoundError, RegistryError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, Source
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint, LazyTensor, turned
from registry.sources.files.zip_members import entry_bytes, entry_check, small_entry
from registry.sources.formats.hdf5 import Hdf5, Node, NotNumbersError
from registry.sources.layer_order import layer_order
from registry.sources.model_files import with_facts
from registry.sources.outputs_last import outputs_first
from registry.spelling import counted
from registry.types import ModelFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from registry.sources.files.byte_source import ByteSource
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MAX_JSON = 64 * 2**20  # bytes
_MAX_LAYERS = 200_000
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NO_WEIGHTS = frozenset({
    "optimizer", "optimizer_weights", "metrics", "_metrics", "compile_metrics", "_compile_metrics", "loss",
    "loss_tracker", "_loss_tracker", "compile_loss", "_compile_loss",
})  # fmt: skip
_SEEDS = frozenset({"seed_generator", "seed_generators", "_seed_generators", "random_generator", "_random_generator"})
_WRAPPED = ("layer", "cell", "backward_layer")
_SHARD = re.compile(r"(.+)_\d{5}\.weights\.h5", re.IGNORECASE)
_COUNTED = re.compile(r"_\d+$")
_WORDS = re.compile(r"[^a-z0-9]+")
_CELL = re.compile(r"(?:.*_)?cell(?:_\d+)?")
_DIRECTION = re.compile(r"(forward|backward)_\w+")
# Names of variables in Keras 1, and in the attributes of attention.
_OLD_LEAVES = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance",
               "depthwise": "depthwise_kernel", "pointwise": "pointwise_kernel"}  # fmt: skip
_ATTENTION = {"query_dense": "query", "key_dense": "key", "value_dense": "value", "output_dense": "attention_output"}
_AS_IS = re.compile(
    r"bias|biases|b|\w+_bias|gamma|beta|alpha|moving_(mean|variance)|mean|variance|scale|count|\w*pos(ition)?_emb\w*"
)
_RECURRENT = ("lstm", "gru", "rnn", "cell")


class _Layer(NamedTuple):
    """A layer of the configuration: its name, its class in lower case, its settings, and the layers within."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    inner: tuple[_Layer, ...]
    snake: str


class _Found(NamedTuple):
    """A stored variable: path of its layer, its own name, its class if known, its settings, and its values."""

    module: tuple[str, ...]
    leaf: str
    kind: str
    settings: Mapping[str, Any]
    tensor: LazyTensor


def open_keras(ref: ModelRef) -> Checkpoint:
    """Open a file of Keras or another HDF5 file; raises the errors of `open_ref`."""
    if ref.key is not None:
        raise NotFoundError(f"{ref.target} has no entry {ref.key!r}", "leave --key out: it is never wrapped")
    _refuse_shard(Path(ref.target))
    file = open_bytes(ref.target)
    opened: ByteSource = file
    try:
        config: Mapping[str, Any] = {}
        check: Callable[[], None] | None = None
        if file.size >= 4 and bytes(file.read_at(0, 4)) == b"PK\x03\x04":
            config = _object(small_entry(file, _CONFIG, _MAX_JSON), f"{file.name}: {_CONFIG}")
            check = entry_check(file, _WEIGHTS)
            opened = entry_bytes(file, _WEIGHTS)
        hdf5 = Hdf5(opened)
        opened = hdf5
        if not config:
            config = _config_in(hdf5, ref.target)
        tensors, facts = _read(hdf5, config)
        return LazyCheckpoint(with_facts(ref, facts), tensors, facts, files=[hdf5, file], check=check)
    except BaseException:
        try:
            opened.close()
        finally:
            file.close()
        raise


def _refuse_shard(path: Path) -> None:
    """Raise ``WeightsError`` for one of the files into which Keras cuts weights, by its name and their index."""
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and path.with_name(f"{shard[1]}.weights.json").is_file():
        raise WeightsError(f"{path} is one of several files of a model", "save it in one: model.save('model.keras')")


def _object(text: bytes | bytearray | str | None, where: str) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} is no valid JSON", "save the model again") from error
    return content if isinstance(content, dict) else {}


def _config_in(file: Hdf5, target: str) -> Mapping[str, Any]:
    """The configuration in the file's header, else that in a JSON file of the same name beside it."""
    text = file.attribute(file.root, "model_config")
    if isinstance(text, str):
        return _object(text, f"{file.name}: model_config")
    beside = Path(target).with_suffix(".json")
    try:
        with open_bytes(beside) as companion:
            if companion.size <= _MAX_JSON:
                return _object(companion.read_at(0, companion.size), str(beside))
    except RegistryError:
        return {}  # there is none, or it is no architecture: names and shapes tell as much as they can
    return {}


def _read(file: Hdf5, config: Mapping[str, Any]) -> tuple[dict[str, LazyTensor], ModelFacts]:
    """The tensors of a file by name, and what is known of them."""
    top = file.child(file.root, "model_weights") or file.root
    if top.is_dataset:
        top = file.root
    layers = _layers_of(config)
    version = file.attribute(top, "keras_version") or file.attribute(file.root, "keras_version")
    old = file.texts(top, "layer_names")
    stored, left = _stored(file, top)
    if not stored:
        if any(_first(path) in _NO_WEIGHTS for path in left):
            raise WeightsError(f"{file.name} holds the state of an optimiser alone", "save the model's weights")
        said = Counter(left.values()).most_common(3)
        what = ", ".join(f"{count} of {reason}" for reason, count in said)
        raise WeightsError(
            f"{file.name} holds no tensors" + (f", only datasets: {what}" if what else ""), "save the model's weights"
        )
    notes = []
    other = Counter(reason for path, reason in left.items() if reason != _OPTIMISER)
    if other:
        kinds = ", ".join(f"{count} of {reason}" for reason, count in other.most_common(3))
        notes.append(f"{counted(sum(other.values()), 'dataset')} of the file are no tensors: {kinds}")
    metadata = {"keras_version": version[:100]} if isinstance(version, str) else {}
    numbered = any(path.rpartition("/")[0].endswith("vars") for path in stored)
    if old is None and not numbered and _nb_layers(file, top) is None:
        facts = ModelFacts(metadata=metadata, notes=tuple(notes))
        return {path.replace("\0", ""): tensor for path, (_, tensor) in stored.items()}, facts
    found = _numbered(file, stored, layers) if numbered and old is None else _named(stored, layers)
    tensors = _laid_out(found)
    order = layer_order({name: tensor.shape for name, tensor in tensors.items()})
    return tensors, ModelFacts(metadata=metadata, notes=tuple(notes), laid_out=True, order=order)


def _nb_layers(file: Hdf5, top: Node) -> int | None:
    """Number of layers of a file of Keras before 1.0, which has no names of layers."""
    number = file.attribute(top, "nb_layers")
    return number if isinstance(number, int) else None


_OPTIMISER = "optimiser state"


def _first(path: str) -> str:
    return path.partition("/")[0]


def _stored(file: Hdf5, top: Node) -> tuple[dict[str, tuple[Node, LazyTensor]], dict[str, str]]:
    """Tensors below a group by their path from it, and why the other datasets are none."""
    stored: dict[str, tuple[Node, LazyTensor]] = {}
    left: dict[str, str] = {}
    cut = len(top.path) + 1 if top.path else 0
    for node in file.walk(top):
        if not node.is_dataset:
            continue
        path = node.path[cut:]
        if _first(path) in _NO_WEIGHTS:
            left[path] = _OPTIMISER
        elif not _SEEDS.intersection(path.split("/")):
            try:
                stored[path] = (node, file.tensor(node))
            except NotNumbersError as reason:
                left[path] = str(reason)
        if len(stored) > MAX_TENSORS:
            raise UnsafeError(f"{file.name} holds more than {MAX_TENSORS} tensors", "split the file")
    return stored, left


# The configuration


def _layers_of(config: Mapping[str, Any]) -> tuple[_Layer, ...]:
    """The layers that a model's configuration lists, with those inside of others. Nothing in it is trusted."""
    left = [_MAX_LAYERS]
    inner = config.get("config")
    listed = inner.get("layers") if isinstance(inner, dict) else inner
    if not isinstance(listed, list):
        return ()
    return _layers(listed, left, 0)


def _layers(listed: Sequence[Any], left: list[int], depth: int) -> tuple[_Layer, ...]:
    found = []
    for each in listed if depth < 30 else ():
        if not isinstance(each, dict) or not isinstance(each.get("class_name"), str) or left[0] <= 0:
            continue
        left[0] -= 1
        settings = each.get("config")
        within: Any = settings.get("layers") if isinstance(settings, dict) else settings
        settings = settings if isinstance(settings, dict) else {}
        if not isinstance(within, list):
            within = [
                settings[key] for key in ("layer", "cell", "backward_layer") if isinstance(settings.get(key), dict)
            ]
        name = settings.get("name", each.get("name"))
        kind = each["class_name"].rpartition(">")[2]
        found.append(
            _Layer(
                name if isinstance(name, str) else "",
                _WORDS.sub("", kind.lower()),
                settings,
                _layers(within, left, depth + 1),
                _snake(kind),
            )
        )
    return tuple(found)


def _snake(name: str) -> str:
    """A class name as Keras 3 writes it in paths."""
    name = re.sub(r"\W+", "", name[:200])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _by_name(layers: Iterable[_Layer]) -> dict[str, _Layer]:
    """Layers by their names, without names that layers of several classes have."""
    found: dict[str, _Layer] = {}
    unsure = set()
    waiting = list(layers)
    while waiting:
        layer = waiting.pop()
        waiting += layer.inner
        if found.setdefault(layer.name, layer).kind != layer.kind:
            unsure.add(layer.name)
    return {name: layer for name, layer in found.items() if name and name not in unsure}


def _kind_in(part: str) -> str:
    """A class by a part of a path that may be named after it: ``depthwise_conv2d_1`` is depthwiseconv2d."""
    return _WORDS.sub("", _COUNTED.sub("", part.lower()))


# Files by layer names: Keras 1 and 2, and the legacy format of Keras 3


def _named(stored: Mapping[str, tuple[Node, LazyTensor]], layers: tuple[_Layer, ...]) -> list[_Found]:
    known = _by_name(layers)
    found = []
    for path, (_, tensor) in stored.items():
        parts = [part.partition(":")[0] if part.endswith((":0", ":1", ":2")) else part for part in path.split("/")]
        layer, *rest = parts if len(parts) > 1 else [parts[0], parts[0]]
        *between, leaf = rest
        if layer in between:  # the name scopes around the layer, and the layer itself
            between = between[between.index(layer) + 1 :]
        module = (layer, *between)
        owner = next((known[part] for part in reversed(module) if part in known), None)
        kinds = [_kind_in(part) for part in module]
        if owner is not None and owner.inner and not _is_cell(module[-1]):
            inside = [each for each in owner.inner if each.kind not in ("functional", "sequential", "model")]
            owner = inside[0] if len(inside) == 1 else owner
        kind = owner.kind if owner is not None else kinds[-1] if len(kinds) > 1 and kinds[-1] else kinds[0]
        leaf = _leaf(leaf, module)
        found.append(_Found(_tidy(module), leaf, kind, owner.settings if owner is not None else {}, tensor))
    return _params(found)


def _is_cell(part: str) -> bool:
    return _CELL.fullmatch(part) is not None


def _leaf(leaf: str, module: Sequence[str]) -> str:
    """A variable's name without that of its layer, as Keras 1 has it in front."""
    for part in reversed(module):
        if leaf.startswith(f"{part}_") and len(leaf) > len(part) + 1:
            own = leaf[len(part) + 1 :]
            return _OLD_LEAVES.get(own, own)
    return leaf


def _params(found: list[_Found]) -> list[_Found]:
    """Variables of Keras before 1.0, which have numbers: weights and biases by their shapes."""
    beside: dict[tuple[str, ...], dict[str, _Found]] = defaultdict(dict)
    for each in found:
        if re.fullmatch(r"param_\d{1,4}", each.leaf):
            beside[each.module][each.leaf] = each
    if not beside:
        return found
    new = []
    for each in found:
        if each.leaf in beside[each.module]:
            shapes = {name: other.tensor.shape for name, other in beside[each.module].items()}
            if len(shapes) == 2 and len(each.tensor.shape) == 1:
                each = each._replace(leaf="bias")
            elif len(shapes) <= 2 and len(each.tensor.shape) > 1:
                each = each._replace(leaf="kernel")
        new.append(each)
    return new


def _tidy(module: Sequence[str]) -> tuple[str, ...]:
    """A module's path without cells, and with the direction of a recurrent layer in one word.

    ``reverse`` comes behind ``forward`` in depth order, as in torch.
    """
    tidy = []
    for at, part in enumerate(module):
        if at and _is_cell(part):
            continue
        direction = _DIRECTION.fullmatch(part) if at else None
        if direction:
            tidy.append("forward" if direction[1] == "forward" else "reverse")
        elif at and part == "layer":
            continue
        else:
            tidy.append(_ATTENTION.get(part.lstrip("_"), part.lstrip("_")) if at else part)
    return tuple(tidy)


# Files by numbers of variables: Keras 3


def _numbered(file: Hdf5, stored: Mapping[str, tuple[Node, LazyTensor]], layers: tuple[_Layer, ...]) -> list[_Found]:
    groups: dict[tuple[str, ...], dict[int, LazyTensor]] = defaultdict(dict)
    found = []
    for path, (_, tensor) in stored.items():
        *module, last = path.split("/")
        if module[-1:] == ["vars"] and re.fullmatch(r"\d{1,6}", last):
            groups[tuple(module[:-1])][int(last)] = tensor
        else:
            found.append(_Found(tuple(module), last, "", {}, tensor))
    names = _names_stated(file)
    for place, variables in groups.items():
        where, owner = _place(place, layers, names)
        numbers = sorted(variables)
        shapes = [variables[number].shape for number in numbers]
        kind = owner.kind if owner is not None else _kind_of_path(place)
        leaves = _leaves(kind, shapes)
        for at, number in enumerate(numbers):
            leaf = leaves[at] if at < len(leaves) else f"vars_{number}"
            found.append(_Found(where, leaf, kind, owner.settings if owner is not None else {}, variables[number]))
    return found


def _names_stated(file: Hdf5) -> dict[tuple[str, ...], str]:
    """The names of layers that recent versions keep beside their variables, by the layer's path."""
    stated: dict[tuple[str, ...], str] = {}
    for node in file.walk():
        *module, last = node.path.split("/")
        if last == "vars" and not node.is_dataset:
            name = file.attribute(node, "name")
            if isinstance(name, str) and 0 < len(name) < 300 and "\0" not in name:
                stated[tuple(module)] = name
    return stated


def _place(
    module: tuple[str, ...], layers: tuple[_Layer, ...], names: Mapping[tuple[str, ...], str]
) -> tuple[tuple[str, ...], _Layer | None]:
    """The path of a module by names of layers, and its layer in the configuration, if it is one of it."""
    path: list[str] = []
    owner: _Layer | None = None
    inside = layers
    at = 0
    while at < len(module):
        part = module[at]
        if part in _CONTAINERS and at + 1 < len(module):
            owner = _counted(inside, module[at + 1])
            own = owner.name if owner is not None and owner.name else names.get(module[: at + 2], module[at + 1])
            path.append(own)
            inside = owner.inner if owner is not None else ()
            at += 2
            continue
        if part in ("layer", "cell", "forward_layer", "backward_layer") and len(inside) >= 1:
            owner, inside = inside[0], inside[0].inner
        elif part not in ("layer", "cell"):
            owner, inside = None, ()
        path.append(part)
        at += 1
    if owner is None and module in names and path and not _is_plain(path[-1]):
        path[-1] = names[module]
    return _tidy(path), owner


def _is_plain(part: str) -> bool:
    """Whether a part of a path says more than the name of the layer that it holds."""
    return part.lstrip("_") in _ATTENTION or _is_cell(part) or _DIRECTION.fullmatch(part) is not None


def _counted(layers: Sequence[_Layer], part: str) -> _Layer | None:
    """The layer that Keras 3 counts as ``conv2d_1``: the second of its class."""
    counts: Counter[str] = Counter()
    for layer in layers:
        own = layer.snake if not counts[layer.snake] else f"{layer.snake}_{counts[layer.snake]}"
        counts[layer.snake] += 1
        if own == part:
            return layer
    return None


def _kind_of_path(module: Sequence[str]) -> str:
    for part in reversed(module):
        if part in (*_CONTAINERS, "layer"):
            continue
        kind = _kind_in(part)
        if kind:
            return kind
    return ""


def _leaves(kind: str, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """Names of a layer's variables in their order, by its class; by their shapes where that is not known."""
    if "separable" in kind:
        return ("depthwise_kernel", "pointwise_kernel", "bias")
    if any(word in kind for word in _RECURRENT) and len(shapes) in (2, 3):
        return ("kernel", "recurrent_kernel", "bias")
    if "batchnormalization" in kind:
        return ("gamma", "beta", "moving_mean", "moving_variance")[-len(shapes) :]
    if kind == "normalization":
        return ("mean", "variance", "count")
    if kind.endswith("normalization"):
        return ("gamma", "beta")
    if "embedding" in kind:
        return ("embeddings", "reverse_embeddings")
    if kind == "prelu":
        return ("alpha",)
    if len(shapes) == 4 and len(set(shapes)) == 1 and len(shapes[0]) == 1:
        return ("gamma", "beta", "moving_mean", "moving_variance")
    if len(shapes) == 3 and [len(shape) for shape in shapes[:2]] == [2, 2] and shapes[1][1] == shapes[0][1]:
        units = shapes[1][0]
        if shapes[1][1] in (units, 3 * units, 4 * units) and shapes[2][-1] == shapes[0][1]:
            return ("kernel", "recurrent_kernel", "bias")
    if len(shapes) in (1, 2) and len(shapes[0]) > 1 and (len(shapes) == 1 or len(shapes[1]) < len(shapes[0])):
        return ("depthwise_kernel" if "depthwise" in kind else "kernel", "bias")
    return ("gamma", "beta")[: len(shapes)] if len(shapes) == 2 and shapes[0] == shapes[1] else ()


# Layouts


def _laid_out(found: Sequence[_Found]) -> dict[str, LazyTensor]:
    """Tensors in torch's layout by their names."""
    beside = {(each.module, each.leaf): each.tensor.shape for each in found}
    tensors: dict[str, LazyTensor] = {}
    for each in found:
        if _SEEDS.intersection(each.module) or (each.leaf == "seed_generator_state"):
            continue
        leaf = "depthwise_kernel" if each.leaf == "kernel" and "depthwise" in each.kind else each.leaf
        name = "/".join((*each.module, leaf)).replace("\0", "")
        if name in tensors:
            name = next(new for number in range(2, len(found) + 3) if (new := f"{name}_{number}") not in tensors)
        tensors[name] = _turned(each._replace(leaf=leaf), beside)
    return tensors


def _turned(each: _Found, beside: Mapping[tuple[tuple[str, ...], str], tuple[int, ...]]) -> LazyTensor:
    """A variable in torch's layout, by its class, name and shape, and the shape of the bias beside it."""
    tensor, kind, leaf = each.tensor, each.kind, each.leaf
    shape = tensor.shape
    if len(shape) < 2 or 0 in shape or _AS_IS.fullmatch(leaf.lower()):
        return tensor
    bias = beside.get((each.module, "bias"))
    if len(shape) == 2:
        is_table = ("embedding" in kind or "embedding" in leaf.lower()) and not leaf.startswith("reverse")
        return tensor if is_table else outputs_first(tensor, "dense")
    if "locallyconnected" in kind:
        return tensor
    if leaf not in ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel"):
        return tensor
    if axes := _einsum(each.settings, shape):
        outputs, inputs = axes
        return turned(tensor, outputs + inputs, _joined(shape, outputs, inputs))
    if bias is not None and 1 < len(bias) < len(shape) and bias == shape[-len(bias) :]:
        return outputs_first(tensor, "dense", inputs=len(shape) - len(bias))
    if each.module[-1] in ("query", "key", "value") and len(shape) == 3:
        return outputs_first(tensor, "dense")
    if each.module[-1] == "attention_output" and len(shape) == 3:
        return outputs_first(tensor, "dense", inputs=2)
    if _outputs_stand_first(each, bias):
        return tensor
    if leaf == "depthwise_kernel":
        return outputs_first(tensor, "depthwise")
    wrapped = "conv" not in kind and bias == shape[-2:-1] != shape[-1:] != (1,)  # whose own class is not known
    if wrapped or any("transpose" in text or "deconv" in text for text in (kind, each.module[-1])):
        return outputs_first(tensor, "transposed")
    return outputs_first(tensor, "conv")


def _outputs_stand_first(each: _Found, bias: tuple[int, ...] | None) -> bool:
    """Whether it is a kernel of Theano's order (out, in, *kernel), which Keras 1 kept."""
    shape = each.tensor.shape
    if each.settings.get("dim_ordering") == "th":
        return True
    if "dim_ordering" in each.settings or bias is None or len(bias) != 1 or "transpose" in each.kind:
        return False
    return each.leaf == "kernel" and bias[0] == shape[0] and bias[0] not in shape[-2:]


def _einsum(settings: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes of a kernel that are outputs and inputs of the equation of an EinsumDense layer; None without one."""
    equation = settings.get("equation")
    match = re.fullmatch(r"([\w.]+),(\w+)->([\w.]+)", equation.replace(" ", "")) if isinstance(equation, str) else None
    if match is None or len(match[2]) != len(shape):
        return None
    outputs = tuple(at for at, label in enumerate(match[2]) if label in match[3])
    inputs = tuple(at for at, label in enumerate(match[2]) if label not in match[3])
    return (outputs, inputs) if outputs and inputs else None


def _joined(shape: tuple[int, ...], outputs: Sequence[int], inputs: Sequence[int]) -> tuple[int, int]:
    rows = columns = 1
    for axis in outputs:
        rows *= shape[axis]
    for axis in inputs:
        columns *= shape[axis]
    return rows, columns


SOURCE = Source(name="keras", open=open_keras, headers=True, ranges=True)
