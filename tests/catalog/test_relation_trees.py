"""Trees of related models: the components and edges that hold, against all pairs one by one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry import Registry, plots
from registry.catalog import relation_trees
from registry.errors import UsageError
from tests.catalog.test_related import add, network, permuted, tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from registry.types import RelationForest


def store_trees(url: str) -> None:
    """Two lines of descent, one with another head, one shuffled; a stranger, and one of other shapes."""
    one, other = network(1), network(2)
    with TemporaryDirectory() as name, Registry(url) as reg:
        folder = Path(name)
        add(reg, folder, "a", one, family="x")
        add(reg, folder, "stranger", network(3), family="x")
        add(reg, folder, "a1", tuned(one, 1, 0.3), family="x")
        add(reg, folder, "a2", tuned(tuned(one, 1, 0.3), 2, 0.5), family="x")
        add(reg, folder, "head", {**tuned(one, 9, 0.6), "l4.weight": network(4, ((7, 24),))["l0.weight"]}, family="y")
        add(reg, folder, "shuffled", permuted(tuned(one, 1, 0.3), 5), family="y")
        add(reg, folder, "b", other, family="y")
        add(reg, folder, "b1", tuned(other, 6, 0.2), family="y")
        add(reg, folder, "narrow", network(7, ((9, 8), (9, 9), (9, 9), (9, 9))), family="y")


@pytest.fixture
def reg(copied: Callable[..., str]) -> Iterator[Registry]:
    with Registry(copied(store_trees)) as reg:
        yield reg


def edges(found: RelationForest) -> list[set[tuple[str, str, str]]]:
    return [
        {(*sorted((edge.a, edge.b)), edge.relation.verdict) for edge in tree.edges}  # type: ignore[misc]
        for tree in found.trees
    ]


EXPECTED = [
    {
        ("a", "a1", "related"),
        ("a1", "a2", "related"),
        ("a", "head", "related"),
        ("a1", "shuffled", "permuted"),
    },
    {("b", "b1", "related")},
]


def test_components_and_their_edges(reg: Registry) -> None:
    found = reg.tree()
    assert edges(found) == EXPECTED
    assert (found.compared, found.alone, found.unsketched) == (9, 2, 0)
    for tree in found.trees:
        assert tree.models[0].name in ("a", "b")  # the oldest stored
        seen = {tree.models[0].name}
        for model, edge in zip(tree.models[1:], tree.edges, strict=True):
            assert edge.a in seen
            assert edge.b == model.name
            assert edge.relation == reg.relation(edge.a, edge.b)
            seen.add(edge.b)


def test_the_spanning_trees_have_the_highest_correlations(reg: Registry) -> None:
    """Kruskal over all pairs, asked about one by one."""
    names = [model.name for model in reg.models()]
    pairs = [(reg.relation(a, b), a, b) for a, b in itertools.combinations(names, 2)]
    label = {name: name for name in names}
    expected = set()
    rank = {"permuted": 2.0}
    near = [each for each in pairs if each[0].verdict in ("related", "permuted")]
    for relation, a, b in sorted(near, key=lambda each: -rank.get(each[0].verdict, each[0].correlation or 0)):
        if label[a] != label[b]:
            expected.add((*sorted((a, b)), relation.verdict))
            label = {name: label[a] if of == label[b] else of for name, of in label.items()}
    assert set().union(*edges(reg.tree())) == expected


def test_pairs_are_reduced_when_there_are_many(reg: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation_trees, "HELD", 2)
    monkeypatch.setattr(relation_trees, "ROWS", 2)
    monkeypatch.setattr(relation_trees, "CHECKED", 1)
    assert edges(reg.tree()) == EXPECTED


def test_filters_and_limits(reg: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edges(reg.tree(family="x")) == [{("a", "a1", "related"), ("a1", "a2", "related")}]
    assert reg.tree(family="none").trees == ()
    monkeypatch.setattr(relation_trees, "MOST", 8)
    with pytest.raises(UsageError, match="at most 8 models, and 9 match"):
        reg.tree()


def test_layers_without_a_sketch_do_not_dilute(registry_url: str, tmp_path: Path) -> None:
    start = network(1)
    frozen = {**start, "l1.weight": np.zeros((32, 32), np.float32), "l2.weight": np.zeros((32, 32), np.float32)}
    with Registry(registry_url) as reg:
        add(reg, tmp_path, "start", start)
        add(reg, tmp_path, "frozen", frozen)
        add(reg, tmp_path, "other", tuned(frozen, 1, 0.2) | {"l1.weight": frozen["l1.weight"]})
        found = reg.tree()
        assert [len(tree.models) for tree in found.trees] == [3]
        assert all(edge.relation == reg.relation(edge.a, edge.b) for edge in found.trees[0].edges)
        assert {each.relation.layers for each in reg.related("frozen").relatives} == {3}


def test_figures(reg: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = reg.plot_tree(tmp_path / "tree.svg", title="$trees$")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"a", "a1", "a2", "b", "b1", "shuffled", "head"} < set(texts)
    assert "permuted  " in texts
    first = (tmp_path / "tree.svg").read_bytes()
    reg.plot_tree(tmp_path / "tree.svg", title="$trees$")
    assert (tmp_path / "tree.svg").read_bytes() == first
    with pytest.raises(UsageError, match="none of 0 models are related"):
        reg.plot_tree(family="z")
    monkeypatch.setattr(plots, "MOST_LINES", 6)
    with pytest.raises(UsageError, match="at most 6 related models, not 7"):
        reg.plot_tree()


def test_the_command_line(reg: Registry, database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from registry.cli.app import main

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--db", database_url])
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    lines = run("tree").splitlines()
    assert lines[0] == "a"
    assert any(line.endswith("permuted  shuffled") for line in lines)
    assert sum(line.startswith(("├─", "└─")) for line in lines) >= 2
    assert lines[-2].startswith("2 trees among 9 models")
    assert lines[-1] == "2 models have no relatives."
    dot = run("tree", "--format", "dot")
    assert dot.startswith("graph relations {")
    assert '"b" -- "b1" [label="' in dot
    document = json.loads(run("tree", "--json"))
    assert [tree["models"][0] for tree in document["trees"]] == ["a", "b"]
    assert document["trees"][1]["edges"][0]["relation"]["verdict"] == "related"
    assert "No two of 0 models are related." in run("tree", "--family", "none")
    told = run("related", "b")
    assert "b1" in told
    assert "9 models" not in told
    assert json.loads(run("related", "b", "--json"))["relatives"][0]["model"]["name"] == "b1"
