"""Selection of the state dict in a checkpoint, and normalisation of its tensor names.

Trainers wrap weights in dictionaries beside optimiser states and epoch numbers. Averaged weights (EMA) take precedence
over plain ones, well-known keys over unknown ones. Two candidates of equal precedence are ambiguous, and the user
chooses with a key. The prefixes ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile) are removed if all names
have them. Lightning's ``model.`` is kept: it is an attribute name, not a wrapper. It changes the content hash, but not
the layer matrices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.errors import AmbiguousError, NotFoundError, UnsafeError, WeightsError
from registry.sources.base import MAX_TENSORS, common_prefix
from registry.sources.pickle_stand_ins import ForeignArray
from registry.sources.quantised.torch_quantised import is_packed, unpacked

if TYPE_CHECKING:
    import torch

__all__ = ["others_beside", "select_entry", "stripped"]

_EMA_KEYS = ("model_ema", "ema_state_dict", "state_dict_ema", "params_ema", "ema", "ema_model", "model_ema_state_dict")
_PLAIN_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "params", "weights",
    "module", "shadow",
)  # fmt: skip
_NEVER = re.compile(
    r"(\w+_)?(optim\w*|opt|(lr_)?sched\w*|(grad_)?scaler|amp|param_groups|hyper_?param\w*|args|config|callbacks|loops|rng\w*)(_\w+)?"
)
_MAX_DEPTH = 3
_NAMED = 8  # state dicts listed in the message


def stripped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with the names that the unwrapped module has."""
    names = set(state)
    if "n_averaged" in names and common_prefix(names - {"n_averaged"}):
        names.discard("n_averaged")  # AveragedModel's counter, stored beside module.*
    cut = len(common_prefix(names))
    return {name[cut:]: tensor for name, tensor in state.items() if name in names}


def select_entry(content: object, where: str, key: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict in the result of ``torch.load``, and its entry: the keys that lead to it, ``ema`` or ``a.b``.

    Parameters
    ----------
    content
        The loaded object; only mappings are usable.
    where
        Name of the file, for messages.
    key
        Entry to read; ``a.b`` for a nested entry.

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
    if key is not None:
        content = _descend(content, where, key)
    entry = [] if key is None else [key]
    for _ in range(_MAX_DEPTH + 1):
        if not isinstance(content, Mapping):
            break
        _check_not_training_state(content, where)
        chosen = _choose(content, where)
        if chosen is None:
            return _tensors_of(content, where), ".".join(entry)
        entry.append(chosen)
        content = content[chosen]
    remedy = "save model.state_dict() with torch.save"
    if _is_tensor(content):
        raise WeightsError(f"{where} holds a single tensor without a name, not a state dict", remedy)
    raise WeightsError(f"{where} holds a {type(content).__name__} without weights, not a state dict", remedy)


def others_beside(content: object, entry: str) -> tuple[str, ...]:
    """Entries beside the chosen one that hold a state dict, too: ``model`` beside ``ema``."""
    if not entry or not isinstance(content, Mapping):
        return ()
    chosen = entry if entry in content else entry.partition(".")[0]
    seen: dict[int, int] = {}
    found = (k for k, v in content.items() if isinstance(k, str) and not _never(k) and _holds_weights(v, seen))
    return tuple(sorted({each for each in found if each != chosen and not _same(content[each], content[chosen])}))


def _check_not_training_state(content: Mapping[Any, Any], where: str) -> None:
    """Raise ``WeightsError`` for the state of an optimizer, and for one of several parts by DeepSpeed's own count."""
    if "param_groups" in content and "state" in content and not any(_is_tensor(value) for value in content.values()):
        raise WeightsError(
            f"{where} is the state of an optimizer, not a model", "give the file of the model's weights beside it"
        )
    parts = content.get("mp_world_size")
    if isinstance(parts, int) and 1 < parts < 2**31:
        raise WeightsError(
            f"{where} is one of {parts} files of DeepSpeed's model parallelism",
            "join them with the script that DeepSpeed writes beside them: python zero_to_fp32.py . model.bin",
        )


def _word(key: object) -> str:
    """Text of an entry's key; other objects and large numbers are not converted, which could take unbounded time."""
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) and abs(key) < 2**63 else f"<{type(key).__name__}>"


def _is_tensor(value: object) -> bool:
    return hasattr(value, "untyped_storage") and hasattr(value, "shape")


def _descend(content: object, where: str, key: str) -> object:
    """The entry named by ``key``, taken as one name if it exists, else as nested names."""
    parts = [key] if isinstance(content, Mapping) and key in content else key.split(".")
    for part in parts:
        if not isinstance(content, Mapping) or part not in content:
            offered = ", ".join(sorted(map(_word, content))[:10]) if isinstance(content, Mapping) else "none"
            raise NotFoundError(f"{where} has no entry {key!r}", f"available entries: {offered}")
        content = content[part]
    return content


def _choose(content: Mapping[Any, Any], where: str) -> str | None:
    """The entry to descend into; None if ``content`` is the state dict."""
    if len(content) > MAX_TENSORS:
        raise UnsafeError(f"{where} holds {len(content)} entries, more than {MAX_TENSORS}", "split the file")
    seen: dict[int, int] = {}
    candidates = [k for k, v in content.items() if isinstance(k, str) and not _never(k) and _holds_weights(v, seen)]
    by_module = next((key for key in candidates if _is_tensor(content[key].get("W_q"))), None)
    if by_module is not None:
        raise WeightsError(
            f"{where} holds HQQ weights by module, such as {by_module}, which are not read",
            "load it with hqq and save layer.dequantize() of each layer",
        )
    matrices = any(_is_tensor(value) and len(value.shape) >= 2 for value in content.values())
    known = [k for k in candidates if k in _EMA_KEYS or k in _PLAIN_KEYS]
    if not candidates or (matrices and not known):
        return None
    for group in ([k for k in known if k in _EMA_KEYS], [k for k in known if k in _PLAIN_KEYS], candidates):
        distinct: list[str] = []
        for key in group:
            if len(distinct) < _NAMED and not any(_same(content[key], content[other]) for other in distinct):
                distinct.append(key)
        if len(distinct) > 1:
            raise AmbiguousError(f"{where} holds several state dicts: {', '.join(distinct)}", "choose with --key NAME")
        if distinct:
            return distinct[0]
    return None


def _never(key: str) -> bool:
    return _NEVER.fullmatch(key.lower()[:100]) is not None


def _holds_weights(value: object, seen: dict[int, int], depth: int = _MAX_DEPTH) -> bool:
    """Whether a value contains a state dict: a mapping with a tensor of at least one dimension, at any depth.

    ``seen`` holds the depth to which each mapping was searched without success; many entries may be one object.
    """
    if not isinstance(value, Mapping) or seen.get(id(value), 0) >= depth or "param_groups" in value:
        return False
    if any((_is_tensor(item) and len(item.shape) >= 1) or is_packed(key, item) for key, item in value.items()):
        return True
    for key, item in value.items():
        if isinstance(key, str) and not _never(key) and _holds_weights(item, seen, depth - 1):
            return True
    seen[id(value)] = depth
    return False


def _same(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    """Whether two entries hold the same tensor objects, with any wrapper removed."""
    if a is b:
        return True
    return a.keys() == b.keys() and all(
        _is_tensor(a[k]) and _is_tensor(b[k]) and a[k].data_ptr() == b[k].data_ptr() and a[k].shape == b[k].shape
        for k in a
    )


def _tensors_of(content: Mapping[Any, Any], where: str) -> dict[str, torch.Tensor]:
    content = unpacked(content, where)
    state = {_word(name): tensor for name, tensor in content.items() if _is_tensor(tensor)}
    foreign = next((_word(name) for name, value in content.items() if isinstance(value, ForeignArray)), None)
    if foreign is not None:
        among = "among its tensors is" if state else "is"
        raise UnsafeError(
            f"{where}: {foreign} {among} a NumPy array, which is not read from a pickle",
            "convert it to a tensor, then save again",
        )
    if not state:
        keys = ", ".join(sorted(map(_word, content))[:8]) or "nothing"
        training = bool(content) and all(isinstance(key, str) and _never(key) for key in content)
        raise WeightsError(
            f"{where} holds no tensors, only: {keys}",
            "it is training state: give the file of the model's weights" if training else "give a file with weights",
        )
    return state
