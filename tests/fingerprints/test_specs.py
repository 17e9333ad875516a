"""What a spec's hash covers, and that a definition gives the spec with its hash again, whoever wrote it."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pytest

from registry.errors import SpecMismatchError
from registry.spectral.specs import LAYERED, MME, SPECS
from registry.types import FingerprintSpec

TINY = FingerprintSpec(
    name="tiny", version=1, matrix_rule="matrix-1", length=4, uses=("matrix_rule", "length"),
    settings=(("quantiles", (0.1, 0.5)), ("robust", True), ("label", "größe")),
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Later(FingerprintSpec):
    """The class with a field more, as a later version may have it."""

    smoothing: float = 0.0


def test_the_shipped_hashes_are_those_that_the_calibrations_are_of() -> None:
    assert (LAYERED.hash, MME.hash) == ("41ca519b29b6e18e", "097f9fa89f629bea")
    records = json.loads(files("registry.equivalence").joinpath("calibrations.json").read_text(encoding="utf-8"))
    assert {record["spec_hash"] for record in records} == {spec.hash for spec in SPECS.values()}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_field_that_a_kind_does_not_use_is_not_in_its_hash(spec: FingerprintSpec) -> None:
    assert Later.of(spec.definition()).hash == spec.hash
    used = Later.of(spec.definition() | {"smoothing": 0.5})
    assert used.hash != spec.hash
    assert ("smoothing" in used.uses, used.smoothing) == (True, 0.5)


def test_fields_that_are_not_used_have_their_defaults() -> None:
    with pytest.raises(SpecMismatchError, match="tiny v1 gives beta and does not use it") as refused:
        replace(TINY, beta=4)
    assert refused.value.remedy == "add 'beta' to uses"
    assert replace(TINY, beta=4, uses=("matrix_rule", "length", "beta")).hash != TINY.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"uses": ()},
        {"uses": ("matrix_rule", "length", "colour")},
        {"uses": ("matrix_rule", "length", "hash")},
        {"settings": (("length", 7),)},
        {"settings": (("hash", "c0ffee"),)},
        {"settings": (("place", float("nan")),)},
        {"settings": (("table", {"a": 1}),)},
    ],
)
def test_what_defines_no_spec_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecMismatchError, match="tiny v1"):
        replace(TINY, **changes)


@pytest.mark.parametrize("spec", [*SPECS.values(), TINY], ids=lambda spec: spec.name)
def test_a_definition_gives_the_spec_again(spec: FingerprintSpec) -> None:
    again = FingerprintSpec.of(json.loads(json.dumps(spec.definition())))
    assert (again.hash, again, hash(again)) == (spec.hash, spec, hash(spec))
    assert again.definition() == spec.definition()
    assert pickle.loads(pickle.dumps(spec)).definition() == spec.definition()
    assert spec != spec.hash


def test_settings_are_in_the_hash() -> None:
    settings = dict(TINY.settings)
    hashes = {replace(TINY, settings=tuple((settings | {name: 0}).items())).hash for name in settings}
    assert len({TINY.hash, *hashes, replace(TINY, settings=()).hash}) == len(settings) + 2
    assert replace(TINY, settings=TINY.settings[::-1]) == TINY


def test_a_definition_of_an_older_program_keeps_its_hash() -> None:
    """With fewer fields: what is not there was not hashed."""
    older = {"name": "old", "version": 2, "matrix_rule": "matrix-0", "length": 3, "locations": [0.5, 1.0]}
    found = FingerprintSpec.of(older)
    assert (found.label, found.locations, found.beta) == ("old v2", (0.5, 1.0), 2)
    assert found.definition() == older | {"locations": (0.5, 1.0)}


@pytest.mark.parametrize("name", ["name", "version", "matrix_rule", "length"])
def test_what_every_definition_has(name: str) -> None:
    definition = TINY.definition()
    del definition[name]
    with pytest.raises(SpecMismatchError, match=f"cannot be read: it has no {name}"):
        FingerprintSpec.of(definition)


def test_the_hash_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(MME)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(json, "dumps", refuse)
    assert spec.hash == MME.hash
    with pytest.raises(AssertionError, match="hashed"):
        replace(MME)
