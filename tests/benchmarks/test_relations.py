"""The benchmark of relations on a few networks: pairs, bounds and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.relations import __main__ as relations
from benchmarks.relations import stored_bytes
from benchmarks.relations.networks import Network, cosines, read
from benchmarks.speed import harness
from registry import Registry
from registry.shipped import shipped_file
from registry.sources import expand

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def some(tmp_path: Path) -> list[Network]:
    """A start, a descendant, a stranger; another family of the same shapes, of a seed of its own and of the start's."""
    shapes = ((24, 16), (24, 24), (24, 24), (9, 24))

    def made(name: str, seed: int, family: str, amount: float = 0.0) -> Network:
        rng, noise = np.random.default_rng(seed), np.random.default_rng(99)
        weights = {f"l{at}": rng.standard_normal(shape).astype(np.float32) for at, shape in enumerate(shapes)}
        weights = {of: w + amount * noise.standard_normal(w.shape).astype(np.float32) for of, w in weights.items()}
        save_file(weights, tmp_path / f"{name}.safetensors")
        [ref] = expand(tmp_path / f"{name}.safetensors")
        return read(ref, family, f"seed {seed}", name)

    return [
        made("start", 1, "a"),
        made("tuned", 1, "a", 0.5),
        made("other", 2, "a"),
        made("foreign", 3, "b"),
        made("cousin", 1, "b", 0.2),
    ]


def test_pairs_of_one_topology(some: list[Network]) -> None:
    pairs = {frozenset((pair.a, pair.b)): pair for pair in relations.same_topology(some[:3])}
    tuned, other = pairs[frozenset(("start", "tuned"))], pairs[frozenset(("start", "other"))]
    assert tuned.exact == pytest.approx(1 / np.sqrt(1.25), abs=0.03)
    assert tuned.found.verdict == "related"
    assert abs(other.exact or 1) < 0.1
    assert other.found.verdict == "independent"
    table = relations.against_exact(list(pairs.values()))
    assert "| 0.3 and more | 1 | 1 | 0 | 0 | 0 | all related |" in table
    assert "| a | 3 | 1 | 0 | 2 |" in relations.by_family(list(pairs.values()))


def test_pairs_across_families(some: list[Network]) -> None:
    strangers, seeds = relations.across_families(some)
    assert {frozenset((pair.a, pair.b)) for pair in seeds} == {
        frozenset(("start", "cousin")),
        frozenset(("tuned", "cousin")),
    }
    assert len(strangers) == 4
    assert {pair.found.verdict for pair in strangers} == {"independent"}
    assert {pair.found.verdict for pair in seeds} == {"related"}
    text = "\n".join(relations.report(relations.same_topology(some), strangers, seeds))
    assert "4 pairs have three or more layers of equal shape and not one seed: 0 related" in text
    assert "Of 2 pairs of one seed" in text


def test_the_exact_cosine_is_that_of_centred_layers(some: list[Network]) -> None:
    [(_, _, found)] = cosines([some[0], some[0]])
    assert found == pytest.approx(1.0)


def test_upper_bounds() -> None:
    assert relations.upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert relations.upper_bound(3, 1000) == pytest.approx(0.00774, abs=2e-5)
    assert relations.upper_bound(5, 5) == 1.0


def test_the_page_has_the_markers() -> None:
    assert "new" in harness.between_markers(relations.PAGE.read_text(encoding="utf-8"), relations.MARKER, "new")


def test_bytes_that_are_stored_are_counted(tmp_path: Path) -> None:
    shapes = {"two": ((24, 16), (9, 24)), "three": ((24, 16), (24, 24), (9, 24))}
    for name, layers in shapes.items():
        weights = {
            f"l{at}": np.ones(shape, np.float32) + np.eye(*shape, dtype=np.float32) for at, shape in enumerate(layers)
        }
        save_file(weights, tmp_path / f"{name}.safetensors")
    with Registry(tmp_path / "a.db") as reg:
        reg.ingest_all(reg.plan([tmp_path]), workers=1)
    two, three = sorted(stored_bytes.stored(tmp_path / "a.db"), key=lambda each: each.layers)
    assert (two.sketches, three.sketches) == (2 * 2 * 1024, 3 * 2 * 512)
    assert two.figures / 2 == three.figures / 3
    text = stored_bytes.table([two, three])
    assert text[0] == "2 models of 2 to 3 layers, 5 in all."
    assert "| sketches | 3,584 | 3,584 | 4,096 | 1,434 | 32 |" in text
    both = [each.sketches + each.figures + each.statistics for each in (two, three)]
    assert text[-1].startswith(f"| both | {sum(both) / 2:,.0f} | {sum(both) / 2:,.0f} | {max(both):,} | ")


def test_the_page_has_the_bytes() -> None:
    page = relations.PAGE.read_text(encoding="utf-8")
    text = harness.between_markers(page, "stored-bytes", "")
    assert text != page
    assert "\n".join(stored_bytes.table(stored_bytes.stored(shipped_file("published")))) in page
