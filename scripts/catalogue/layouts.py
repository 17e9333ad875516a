"""A recipe built: its layout with symbolic extents, and what follows from it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from registry.architectures.layout_text import text_of
from registry.types import Symbol
from scripts.catalogue.dataless import Tensors, build, evaluate, tensors_of_module
from scripts.catalogue.header_vectors import vector_of
from scripts.catalogue.recipes import Built
from scripts.catalogue.symbolic_extents import NotLinearError, Trial, solved, trial_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scripts.catalogue.recipes import Recipe

__all__ = ["built"]

_LONGEST = 300  # characters of a reason


def built(recipe: Recipe) -> Built:
    """Build a recipe as often as it takes. What the library raises becomes the reason; nothing is raised."""
    notes: list[str] = []
    for code in recipe.codes:
        try:
            found = _with_code(recipe, code)
        except Exception as error:  # noqa: BLE001  # each is listed with what could not be built
            notes.append(f"{code}: {_reason(error)}")
            continue
        if found is None:
            continue
        return replace(found, notes=(*notes, *found.notes))
    return Built(reason=notes[0].removeprefix(f"{recipe.codes[0]}: ") if notes else "no code", notes=tuple(notes[1:]))


def _with_code(recipe: Recipe, code: str) -> Built | None:
    """What a code builds; None if one of its arguments moves nothing."""
    defaults = _numbers(recipe, code)
    whole = _tensors(recipe, code, defaults)
    tensors = whole.tensors
    if not tensors:
        raise ValueError("it has no tensors: others derive from it")
    if defaults:
        trials = [Trial(defaults, tensors)]
        for numbers in trial_numbers(defaults):
            trials.append(Trial(numbers, _tensors(recipe, code, numbers).tensors))
            if trials[-1].tensors == tensors:  # a second build would say the same
                return None
        tensors = solved(trials)
        moved = frozenset[Symbol]().union(*(tensor.symbols for tensor in tensors))
        if moved != defaults.keys():
            return None
    config = _config(recipe)
    vector, without = vector_of(tensors, defaults.get("classes"), defaults.get("channels"), config)
    notes = [f"no tensor: {name}" for name in whole.others[:1]] + ([f"no vector: {without}"] if without else [])
    return Built(
        text_of(tensors),
        code,
        defaults.get("classes"),
        defaults.get("channels"),
        whole.parameters,
        vector,
        notes=tuple(notes),
    )


def _numbers(recipe: Recipe, code: str) -> dict[Symbol, int]:
    given = {"classes": recipe.classes, "channels": recipe.channels}
    used: list[Symbol] = [symbol for symbol in get_args(Symbol) if f"{{{symbol}}}" in code]
    numbers: dict[Symbol, int] = {}
    for symbol in used:
        number = given[symbol]
        if number is None:
            raise NotLinearError(f"no default number of {symbol}")
        numbers[symbol] = number
    return numbers


def _tensors(recipe: Recipe, code: str, numbers: Mapping[Symbol, int]) -> Tensors:
    return tensors_of_module(build(code.format(**numbers), recipe.imports))


def _config(recipe: Recipe) -> Mapping[str, Any]:
    if not recipe.config_code:
        return recipe.config
    found: Mapping[str, Any] = evaluate(recipe.config_code, recipe.imports)
    return found


def _reason(error: BaseException) -> str:
    said = " ".join(re.sub(r" at 0x[0-9a-f]+", "", str(error)).split())
    return f"{type(error).__name__}: {said}"[:_LONGEST]
