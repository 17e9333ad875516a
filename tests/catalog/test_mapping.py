"""A registry is read like a mapping of names, and says what a keyword is called now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from registry import Registry
from registry.errors import AmbiguousError, DatabaseMissingError, UnknownModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.catalog.conftest import Filled


def test_it_reads_like_a_mapping(filled: Filled) -> None:
    reg = filled.reg
    models = reg.models()
    assert list(reg) == [model.name for model in models] == sorted(model.name for model in models)
    assert len(reg) == len(models) == len(set(reg))
    assert {name: reg[name] for name in reg} == {model.name: model for model in models}
    assert all(name in reg for name in reg)
    assert "wide" in reg
    assert "wid" not in reg


def test_what_is_not_there_is_a_key_error(filled: Filled) -> None:
    with pytest.raises(KeyError) as missed:
        filled.reg["wid"]
    assert isinstance(missed.value, UnknownModelError)
    assert str(missed.value) == "no model is named 'wid' (did you mean wide?)"
    for key in (3, None, ("wide",), b"wide"):
        assert key not in filled.reg


def test_hashes_are_names(filled: Filled) -> None:
    reg = filled.reg
    whole = reg["wide"].content_hash
    assert reg[f"sha256:{whole[:12]}"] == reg["wide"]
    assert f"sha256:{whole}" in reg
    assert f"sha256:{whole[:8]}" in reg
    assert f"sha256:{whole}0" not in reg
    assert "sha256:" not in reg


def test_the_beginning_of_several_hashes_is_ambiguous(tmp_path: Path) -> None:
    with Registry(tmp_path / "a.db") as reg:
        for number in range(17):  # of which two hashes begin alike
            reg.ingest(torch.nn.Linear(3, 4), name=f"m{number}")
        first = [model.content_hash[0] for model in reg.models()]
        [twice, *_] = [digit for digit in first if first.count(digit) > 1]
        with pytest.raises(AmbiguousError, match="several content hashes begin with"):
            reg[f"sha256:{twice}"]
        with pytest.raises(AmbiguousError, match="several content hashes begin with"):
            assert f"sha256:{twice}" in reg


def test_an_empty_registry_is_true_and_holds_nothing(tmp_path: Path) -> None:
    with Registry(tmp_path / "a.db") as reg:
        assert reg
        with pytest.raises(DatabaseMissingError):
            len(reg)
        reg.ingest(torch.nn.Linear(4, 3), name="one")
        reg.remove("one")
        assert reg
        assert (len(reg), list(reg), "one" in reg, "sha256:00" in reg) == (0, [], False, False)
        with pytest.raises(KeyError, match="holds no models"):
            reg["one"]


ASKED: dict[str, Callable[..., Any]] = {
    "nearest": lambda reg, **old: reg.nearest("wide", **old),
    "search": lambda reg, **old: reg.search("wide", **old),
    "search_all": lambda reg, **old: reg.search_all(["wide"], **old),
    "compare": lambda reg, **old: reg.compare("wide", "slim", **old),
    "equivalent": lambda reg, **old: reg.equivalent("wide", "slim", **old),
    "classes": lambda reg, **old: reg.classes(**old),
    "compress": lambda reg, **old: reg.compress("wide", **old),
    "select": lambda reg, **old: reg.select(**old),
    "distances": lambda reg, **old: reg.distances(**old),
    "models": lambda reg, **old: reg.models(**old),
    "calibrate": lambda reg, **old: reg.calibrate(dry_run=True, **old),
    "calibration": lambda reg, **old: reg.calibration(**old),
    "reset_calibration": lambda reg, **old: reg.reset_calibration(**old),
    "index.build": lambda reg, **old: reg.index.build(**old),
    "index.check": lambda reg, **old: reg.index.check(**old),
    "index.drop": lambda reg, **old: reg.index.drop(**old),
}


@pytest.mark.parametrize("method", ASKED)
def test_a_keyword_that_was_renamed_names_its_successor(asked: Filled, method: str) -> None:
    for old, message in (
        ({"accuracy": 0.1}, "'accuracy' is now 'tolerance' (write tolerance=0.1)"),
        ({"metric": "l1"}, "'metric' is now 'distance' (write distance=\"l1\")"),
    ):
        with pytest.raises(UsageError) as refused:
            ASKED[method](asked.reg, **old)
        assert str(refused.value) == message
    with pytest.raises(UsageError, match=r"unknown (keyword|filter) 'tolerence'"):
        ASKED[method](asked.reg, tolerence=0.1)
