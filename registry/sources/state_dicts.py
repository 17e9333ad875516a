"""Selection of the state dict in a checkpoint, and normalisation of its tensor names.

Trainers wrap weights in dictionaries beside optimiser states and epoch numbers. Averaged weights (EMA) take precedence
over plain ones, well-known keys over unknown ones, dictionaries and modules over other objects and lists. Two
candidates of equal precedence are ambiguous, and the user chooses with a key. The prefixes ``module.`` (DataParallel)
and ``_orig_mod.`` (torch.compile) are removed if all names have them. Lightning's ``model.`` is kept: it is an
attribute name, not a wrapper. It changes the content hash, but not the layer matrices.

The content is what `sources.formats.pickles` reads: records of objects, which may be modules that were saved whole.
Nothing here follows them deeper than a few levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from registry.errors import AmbiguousError, NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, common_prefix
from registry.sources.formats.pickles.modules import Allowance, attributes_of, is_module, maps_of, state_of
from registry.sources.formats.pickles.numpy_arrays import PickledArray
from registry.sources.formats.pickles.pickle_records import Instance, Key, Span, as_mapping, as_sequence
from registry.sources.formats.pickles.stored_tensors import StoredTensor
from registry.sources.quantised.torch_quantised import is_packed, unpacked
from registry.sources.weight_files import is_training_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Content", "Selected", "stripped", "wrapper_of"]

_EMA_KEYS = (
    "model_ema", "ema_state_dict", "state_dict_ema", "params_ema", "ema", "ema_model", "model_ema_state_dict",
    "ema_weights", "ema_params",
)  # fmt: skip
_PLAIN_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "params", "weights",
    "module", "shadow",
)  # fmt: skip
_NEVER = re.compile(
    r"(\w+_)?(optim\w*|opt|(lr_)?sched\w*|(grad_)?scaler|amp|param_groups|hyper_?param\w*|args|config|callbacks|loops|rng\w*)(_\w+)?"
)
_MAX_DEPTH = 3
_NAMED = 8  # state dicts listed in the message
_OFFERED = 10  # entries listed where there is none of a name
_MAX_ELEMENTS = 10_000  # of a list of tensors or state dicts
_ENTRIES = (StoredTensor, dict, list, tuple, Instance)
_OTHER = "give the file of the model's weights"
_REMEDY = "save model.state_dict() with torch.save"

T = TypeVar("T")


def stripped(state: Mapping[str, T]) -> dict[str, T]:
    """The state dict with the names that the unwrapped module has."""
    names = _wrapped(state)
    cut = len(common_prefix(names))
    return {name[cut:]: tensor for name, tensor in state.items() if name in names}


def wrapper_of(names: Iterable[str]) -> str:
    """What `stripped` takes away before the names of a state dict; empty where it keeps them."""
    return common_prefix(_wrapped(names))


def _wrapped(names: Iterable[str]) -> set[str]:
    """The names without the counters of averages by torch and MMEngine, which are stored beside ``module.*``."""
    found = set(names)
    for counter in ("n_averaged", "steps"):
        if counter in found and common_prefix(found - {counter}):
            found.discard(counter)
    return found


class Selected(NamedTuple):
    """A state dict, its entry (the keys that lead to it, ``ema`` or ``a.b``), and how a module computes its weights."""

    state: dict[str, StoredTensor]
    entry: str
    maps: dict[str, str]


class Content:
    """The content of a checkpoint. ``where``: name of the file, for messages.

    Three kinds of values have entries: dictionaries; objects, by their attributes; lists and tuples, by index. A module
    is the state dict that it would give.
    """

    def __init__(self, value: object, where: str) -> None:
        self._value = value
        self._where = where
        self._views: dict[int, Mapping[object, object]] = {}
        self._barren: set[int] = set()  # lists that hold nothing, by identity
        self._searched: dict[tuple[int, int, bool], bool] = {}  # whether weights were found, by identity and depth
        self._counted: dict[int, int] = {}  # matrices, by identity
        self._compared: dict[tuple[int, int], bool] = {}
        self._allowance = Allowance(where)

    def select(self, key: str | None) -> Selected:
        """The state dict that ``key`` names (``a.b`` for a nested entry), or the one that takes precedence.

        Raises
        ------
        NotFoundError
            There is no entry with that key.
        AmbiguousError
            Several state dicts have equal precedence; ``--key NAME`` selects one.
        WeightsError
            There is no state dict, but a single tensor, a list or settings only, or weights of HQQ by module.
        UnsafeError
            More than a million tensors.
        """
        value = self._value if key is None else self._descend(key)
        entry = [] if key is None else [key]
        for _ in range(_MAX_DEPTH + 1):
            view = self._view(value)
            if view is None:
                break
            self._check_not_training_state(view)
            chosen = None if is_module(value) else self._choose(view, entry)
            if chosen is None:
                if not isinstance(value, Mapping) and not is_module(value) and not self._has_tensors(view):
                    break
                maps = (
                    maps_of(value, Allowance(self._where)) if is_module(value) and isinstance(value, Instance) else {}
                )
                return Selected(self._tensors_of(view), ".".join(entry), maps)
            entry.append(chosen)
            value = view[self._key_of(view, chosen)]
        if isinstance(value, StoredTensor):
            if entry:
                raise WeightsError(
                    f"entry {'.'.join(entry)!r} of {self._where} is a single tensor, not a state dict",
                    "name an entry that holds a state dict, or leave the key out",
                )
            raise WeightsError(f"{self._where} holds a single tensor without a name, not a state dict", _REMEDY)
        kind = value.class_name if isinstance(value, Instance) else type(value).__name__
        raise WeightsError(f"{self._where} holds a {kind[:100]} without weights, not a state dict", _REMEDY)

    def others_beside(self, entry: str) -> tuple[str, ...]:
        """Entries that hold a state dict beside what was chosen, an entry or tensors: ``model`` beside ``ema``."""
        view = self._view(self._value)
        if view is None or is_module(self._value):
            return ()
        if not entry:
            return tuple(
                sorted(w for w, value in self._candidates(view) if not self._rank(value) and self._matrices(value))
            )
        parts = entry.split(".")  # a key may have dots itself
        tops = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        top = next((word for word in tops if self._key_of(view, word) is not None), None)
        if top is None:
            return ()
        chosen = view[self._key_of(view, top)]
        found = {
            word
            for word, value in self._candidates(view)
            if word != top and self._rank(value) <= self._rank(chosen) and not self._same(value, chosen)
        }
        return tuple(sorted(found))

    # ---- entries

    def _view(self, value: object) -> Mapping[object, object] | None:
        """The entries of a value; None for one that has none."""
        if isinstance(value, dict):
            return value
        found = self._views.get(id(value))
        if found is not None:
            return found
        if isinstance(value, Instance):
            if is_module(value):
                found = state_of(value, self._allowance)
            else:
                found = as_mapping(value) or attributes_of(value) or None
        if found is not None:
            self._views[id(value)] = found
            return found
        elements = as_sequence(value)
        if elements is None or len(elements) > _MAX_ELEMENTS or id(value) in self._barren:
            return None
        self._allowance.take(len(elements))
        if not any(isinstance(element, _ENTRIES) for element in elements):
            self._barren.add(id(value))
            return None
        if all(map(_is_named_tensor, elements)):  # list(model.named_parameters())
            found = dict(elements)  # type: ignore[arg-type]
        if found is None or len(found) < len(elements):
            found = {str(index): element for index, element in enumerate(elements)}
        self._views[id(value)] = found
        return found

    def _rank(self, value: object) -> int:
        """Precedence of a value among unknown keys: dictionaries and modules, other objects, lists.

        Those without a matrix of torch come last: statistics of observations, weights of losses, colours.
        """
        if as_sequence(value) is not None:
            return 2
        if not self._holds_weights(value, matrices=True):
            return 3
        return 0 if isinstance(value, Mapping) or is_module(value) else 1

    def _is_unnamed(self, value: object) -> bool:
        """Whether a value's weights are in lists, such as ``shadow_params``, so that they have no names."""
        if as_sequence(value) is not None:
            return True
        view = self._view(value)
        if view is None or is_module(value) or self._has_tensors(view):
            return False
        return all(as_sequence(inner) is not None for _, inner in self._candidates(view))

    @staticmethod
    def _key_of(view: Mapping[object, object], word: str) -> object:
        """The key that is written so; None without one. Keys may be small numbers."""
        if word in view:
            return word
        number = int(word) if re.fullmatch(r"-?\d{1,18}", word) else None
        return number if number is not None and number in view else None

    def _descend(self, key: str) -> object:
        """The entry named by ``key``: at each level, the longest part of it that is a name there."""
        value, parts = self._value, key.split(".")
        while parts:
            view = self._entries(value)
            words = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
            word = None if view is None else next((w for w in words if self._key_of(view, w) is not None), None)
            if view is None or word is None:
                raise NotFoundError(f"{self._where} has no entry {key!r}", self._offered(view or {}))
            value = view[self._key_of(view, word)]
            parts = parts[word.count(".") + 1 :]
        return value

    def _offered(self, view: Mapping[object, object]) -> str:
        """The entries that may be named: of a state dict the tensors are none."""
        if any(isinstance(value, StoredTensor) for value in view.values()):
            view = dict(self._candidates(view))
            if not view:
                return "its tensors are those of one model: leave the key out"
        names = sorted(_word(name) for name in view)
        more = f" and {len(names) - _OFFERED} more" if len(names) > _OFFERED else ""
        return f"available entries: {', '.join(names[:_OFFERED]) or 'none'}{more}"

    def _entries(self, value: object) -> Mapping[object, object] | None:
        """As `_view`; of a module, the modules in it."""
        if isinstance(value, Instance) and is_module(value):
            return as_mapping(attributes_of(value).get("_modules"))
        return self._view(value)

    def _candidates(self, view: Mapping[object, object]) -> Iterator[tuple[str, object]]:
        """Entries that hold weights, by what is given as ``--key``."""
        for key, value in view.items():
            word = key if isinstance(key, str) else str(key) if type(key) is int and abs(key) < 2**59 else None
            if word is not None and not _never(word) and self._holds_weights(value):
                yield word, value

    # ---- selection

    def _check_not_training_state(self, view: Mapping[object, object]) -> None:
        """Raise ``WeightsError`` for the state of an optimizer, and for one of several parts by DeepSpeed's count."""
        if "param_groups" in view and "state" in view and not any(isinstance(v, StoredTensor) for v in view.values()):
            raise WeightsError(
                f"{self._where} is the state of an optimizer, not a model",
                f"{_OTHER} beside it",
            )
        parts = view.get("mp_world_size")
        if isinstance(parts, int) and 1 < parts < 2**31:
            raise WeightsError(
                f"{self._where} is one of {parts} files of DeepSpeed's model parallelism",
                "join them with the script that DeepSpeed writes beside them: python zero_to_fp32.py . fp32/",
            )

    def _choose(self, view: Mapping[object, object], entry: Sequence[str]) -> str | None:
        """The entry to descend into; None if the value, to which ``entry`` led, is the state dict."""
        if len(view) > MAX_TENSORS:
            raise UnsafeError(f"{self._where} holds {len(view)} entries, more than {MAX_TENSORS}", "split the file")
        candidates = list(self._candidates(view))
        by_module = next((word for word, inner in candidates if self._is_hqq(inner)), None)
        if by_module is not None:
            raise WeightsError(
                f"{self._where} holds HQQ weights by module, such as {by_module}, which are not read",
                "load it with hqq and save layer.dequantize() of each layer",
            )
        known = [pair for pair in candidates if pair[0] in _EMA_KEYS or pair[0] in _PLAIN_KEYS]
        matrices = self._matrices(view)
        if not candidates or (matrices and not known and all(self._matrices(c) <= matrices for _, c in candidates)):
            return None
        if not known and self._has_tensors(view) and min(self._rank(inner) for _, inner in candidates) > 0:
            return None  # tensors of one dimension beside settings that hold some
        averages = [pair for pair in known if pair[0] in _EMA_KEYS]
        groups = [averages, [pair for pair in known if pair[0] in _PLAIN_KEYS]]
        if groups[1] and (_swapped(view) or all(self._is_unnamed(inner) for _, inner in averages)):
            groups.reverse()
        groups += [[pair for pair in candidates if self._rank(pair[1]) == rank] for rank in range(4)]
        for group in groups:
            distinct: list[tuple[str, object]] = []
            for pair in group:
                if len(distinct) < _NAMED and not any(self._same(pair[1], other) for _, other in distinct):
                    distinct.append(pair)
            if len(distinct) > 1:
                keys = [".".join((*entry, word)) for word, _ in distinct]
                message = f"{self._where} holds several state dicts: {', '.join(keys)}"
                raise AmbiguousError(message, "choose with --key NAME", keys)
            if distinct:
                return distinct[0][0]
        return None

    def _matrices(self, value: object) -> int:
        """How many matrices of torch a value holds itself; more beside a state dict are features or results."""
        view = self._view(value)
        if not view:
            return 0
        if id(view) not in self._counted:  # many entries may be one dictionary
            self._counted[id(view)] = sum(map(_is_matrix, view.values()))
        return self._counted[id(view)]

    def _is_hqq(self, value: object) -> bool:
        return isinstance(value, Mapping) and isinstance(value.get("W_q"), StoredTensor)

    @staticmethod
    def _has_tensors(view: Mapping[object, object]) -> bool:
        return any(_is_tensor(value) for value in view.values())

    def _holds_weights(self, value: object, depth: int = _MAX_DEPTH, *, matrices: bool = False) -> bool:
        """Whether a value contains a state dict: a tensor of at least one dimension, at any depth.

        ``matrices``: whether matrices of torch alone count.
        """
        view = None if isinstance(value, StoredTensor) else self._view(value)
        if view is None or "param_groups" in view or not depth:
            return False
        token = (id(view), depth, matrices)
        if token not in self._searched:
            self._searched[token] = any(
                (_is_matrix(item) if matrices else _is_tensor(item, 1)) or is_packed(key, item)
                for key, item in view.items()
            ) or any(
                isinstance(key, str) and not _never(key) and self._holds_weights(item, depth - 1, matrices=matrices)
                for key, item in view.items()
            )
        return self._searched[token]

    def _same(self, a: object, b: object) -> bool:
        """Whether two entries hold the same tensors, with any wrapper removed."""
        if a is b:
            return True
        first, second = self._view(a), self._view(b)
        if first is None or second is None:
            return False
        pair = (id(first), id(second))
        if pair not in self._compared:
            self._compared[pair] = first is second or _equal(first, second)
        return self._compared[pair]

    def _tensors_of(self, view: Mapping[object, object]) -> dict[str, StoredTensor]:
        found = unpacked(view, self._where)
        tensors = [(_word(name), t) for name, t in found.items() if isinstance(t, StoredTensor) and _is_tensor(t)]
        state = dict(tensors)
        long = any(
            isinstance(name, Key) and isinstance(name.value, Span) and _is_tensor(t) for name, t in found.items()
        )
        if long or len(state) < len(tensors):
            why = "a tensor under a name that is too long" if long else "tensors under keys that are no names"
            raise UnsafeError(f"{self._where} holds {why}", _REMEDY)
        if not state:
            keys = ", ".join(sorted(map(_word, view))[:_NAMED])
            training = bool(view) and all(isinstance(key, str) and _never(key) for key in view)
            training = training or is_training_state(Path(self._where))
            raise WeightsError(
                f"{self._where} holds no tensors, only: {keys}" if keys else f"{self._where} is an empty dictionary",
                "it is training state: give the file of the model's weights"
                if training
                else "give a file with weights",
            )
        return state


def _swapped(view: Mapping[object, object]) -> bool:
    """Whether plain and averaged weights have changed places, as MMEngine saves them for deployment.

    It counts the steps of the average beside it. See ``EMAHook.before_save_checkpoint`` in ``mmengine/hooks``.
    """
    averaged = view.get("ema_state_dict")
    return "message_hub" in view and "state_dict" in view and isinstance(averaged, dict) and "steps" in averaged


def _equal(first: Mapping[object, object], second: Mapping[object, object]) -> bool:
    """Whether two state dicts hold the same memory under the same names."""
    if first.keys() != second.keys():
        return False
    for name, tensor in first.items():
        other = second[name]
        if not isinstance(tensor, StoredTensor) or not isinstance(other, StoredTensor):
            return False
        if tensor.place != other.place:
            return False
    return True


def _is_tensor(value: object, dimensions: int = 0) -> bool:
    """Whether a value is a tensor, or an array of numbers, of at least so many dimensions."""
    if not isinstance(value, StoredTensor) or len(value.shape) < dimensions:
        return False
    return not isinstance(value, PickledArray) or value.dtype != ""


def _is_named_tensor(value: object) -> bool:
    return type(value) is tuple and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], StoredTensor)


def _is_matrix(value: object) -> bool:
    """Whether a value is a tensor of torch of two dimensions; arrays beside state dicts are tables of results."""
    return isinstance(value, StoredTensor) and not isinstance(value, PickledArray) and len(value.shape) >= 2


def _word(key: object) -> str:
    """Text of an entry's key; other objects and large numbers are not converted, which could take unbounded time."""
    if isinstance(key, str):
        return key
    inner = key.value if isinstance(key, Key) else key
    kind = "long text" if isinstance(inner, Span) else type(inner).__name__
    return str(key) if isinstance(key, int) and abs(key) < 2**63 else f"<{kind}>"


def _never(key: str) -> bool:
    return _NEVER.fullmatch(key.lower()[:100]) is not None
