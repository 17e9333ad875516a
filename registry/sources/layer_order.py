"""Order of the layers of a Keras model that a person named."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from registry.sources.depth_order import depth_order

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["layer_order"]

_COUNTS = re.compile(r"(?:_\d+)+$")
# Names that Keras gives to layers which have none: the class, and how many were there before.
_AUTOMATIC = re.compile(
    r"((depthwise|separable)_)?conv[123]d(_transpose)?|dense|embedding|(batch|layer|group)_normalization|lstm|gru"
    r"|lstm_cell|gru_cell|simple_rnn|bidirectional|multi_head_attention|p_re_lu|time_distributed|normalization"
)
_NUMBERED = re.compile(r"_(?=\d+_)|(?<=_\d)_|(?<=_\d\d)_")
_DEPTHWISE_WORD = re.compile(r"depthwise_?|dw_?(?=conv|$)|d(?=_?conv)|_dw\b")
_POINTWISE_WORD = re.compile(r"pointwise_?|pw_?(?=conv|$)|_pw\b|_project\b")


def layer_order(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names of a Keras model's weights in the order of computation, where a person named its layers.

    A layer's name has no folders, so that people write ``reg_0_dconv`` for what is ``reg/0/dconv`` elsewhere. A number
    within a name counts parts of the network here, as a folder would; and of a depthwise and another convolution that
    have one name otherwise, the depthwise one comes first.

    Parameters
    ----------
    shapes
        Shapes (out, in, *kernel) by name, ``module/leaf``.

    Returns
    -------
    tuple of str
        All names; empty where Keras named the layers, or two would have one place: `depth_order` then goes by names.
    """
    modules = [name.rpartition("/")[0] for name in shapes if len(shapes[name]) > 1]
    parts = [_COUNTS.sub("", module.rpartition("/")[2]) for module in modules]
    if 2 * sum(_AUTOMATIC.fullmatch(part) is not None for part in parts) > len(parts):
        return ()
    bases: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        own = module.rpartition("/")[2]
        bases[_base(own)].add(own)
    keys: dict[str, str] = {}
    for name in shapes:
        path, _, leaf = name.rpartition("/")
        above, slash, own = path.rpartition("/")
        base = _base(own)
        if len(bases.get(base, ())) == 2:
            own = f"{base}/{0 if base != own and _DEPTHWISE_WORD.search(own) else 1}"
        keys[f"{above}{slash}{_NUMBERED.sub('/', own)}/{leaf}"] = name
    if len(keys) < len(shapes):
        return ()
    return tuple(keys[key] for key in depth_order({key: shapes[name] for key, name in keys.items()}))


def _base(own: str) -> str:
    """A layer's name without the words that tell a depthwise convolution from the one behind it."""
    return _POINTWISE_WORD.sub("", _DEPTHWISE_WORD.sub("", own))
