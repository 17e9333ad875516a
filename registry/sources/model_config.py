"""Values of a model's configuration, which is never trusted: wrong types and absurd numbers count as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["configurations", "model_types", "number", "numbers", "part_of"]

_MOST = 2**40
_PARTS = 32
_DEPTH = 3


def configurations(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The configuration and those of its parts (``text_config``, ``vision_config``, ``attn_config``), at most 32."""
    found: list[Mapping[str, Any]] = []
    level = [config]
    for _ in range(_DEPTH):
        found += level
        level = [
            value for each in level for key, value in each.items() if key.endswith("config") and _is_mapping(value)
        ][: max(_PARTS - len(found), 0)]
    return tuple(found)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def part_of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A configuration inside the configuration; empty if there is none."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def model_types(config: Mapping[str, Any]) -> frozenset[str]:
    """``model_type`` of the configuration and of its parts."""
    found = (each.get("model_type") for each in configurations(config))
    return frozenset(each for each in found if isinstance(each, str))


def number(config: Mapping[str, Any], *keys: str) -> int:
    """The first of the keys that has a positive integer; 0 if none has."""
    return next((value for key in keys if (value := _positive(config.get(key)))), 0)


def numbers(config: Mapping[str, Any], *keys: str) -> frozenset[int]:
    """Positive integers under the keys, of the configuration and of its parts; of lists, all of them."""
    found: set[int] = set()
    for each in configurations(config):
        for value in map(each.get, keys):
            found |= {n for one in (value[:_PARTS] if isinstance(value, list) else [value]) if (n := _positive(one))}
    return frozenset(found)


def _positive(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0
