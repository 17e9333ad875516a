"""What ``related`` and ``tree`` print."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from registry.types import Relation, RelationEdge

if TYPE_CHECKING:
    from collections.abc import Callable


def test_related(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    lines = archreg("related", "resnet20", "-k", "1").out.splitlines()
    assert fake.called("related") == (("resnet20", 1), {"every": False})
    assert lines[0] == "Models related to resnet20 by their weights:"
    assert lines[2].split() == ["resnet20-tuned", "related", "0.83", "±", "0.02", "20", "100", "%", "resnet"]
    assert lines[3] == "2 more related models not shown."
    assert lines[4] == (
        "162 models were compared, 108 of them exactly; the signs of their sketches ruled out the others."
    )
    assert lines[5] == "12 models were left out: fewer than three layers of equal shape."
    found = samples.answers["related"]
    fake.answers["related"] = replace(found, relatives=(), found=0, unsketched=1, cut=2, unchecked=3)
    out = archreg("related", "resnet20").out
    assert "No stored model is related to resnet20." in out
    assert "1 model was left out: no sketches; ingest their weights." in out
    assert "2 models were not compared, those with the least in common: too many." in out
    assert "3 models were not ruled out by the signs of the sketches" in out


def test_tree(archreg: Callable[..., Any], fake: Any, samples: Any) -> None:
    lines = archreg("tree").out.splitlines()
    assert lines[:3] == ["resnet20", "└─ 0.83  resnet20-tuned", "   └─ permuted  resnet20-shuffled"]
    assert lines[3].startswith("1 tree among 163 models")
    assert lines[4:] == [
        "160 models have no relatives.",
        "1 model was left out: no sketches; ingest their weights.",
    ]
    found = samples.answers["tree"]
    quoted = RelationEdge("resnet20", 'a "b"\\', Relation("related", 0.5))
    fake.answers["tree"] = replace(found, trees=(replace(found.trees[0], edges=(quoted,)),))
    assert '  "resnet20" -- "a \\"b\\"\\\\" [label="0.50"];' in archreg("tree", "--format", "dot").out
