"""The transform learned from labelled rows: against what is known of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from benchmarks.retrieval.scores import retrieval
from benchmarks.retrieval.transform import learned_transform

DIMENSION = 12


def rows_of(
    families: int, each: int, seed: int, within: np.ndarray, between: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Families around centres of equal scatter in all directions, their models around them by the ``within`` root."""
    rng = np.random.default_rng(seed)
    centres = between * rng.standard_normal((families, DIMENSION)).repeat(each, axis=0)
    rows = centres + rng.standard_normal((families * each, DIMENSION)) @ within
    return rows, np.arange(families).repeat(each).astype(str)


def uneven() -> np.ndarray:
    """A symmetric root whose axes lie askew: three strong directions of twelve."""
    axes = np.linalg.qr(np.random.default_rng(5).standard_normal((DIMENSION, DIMENSION)))[0]
    return (axes * np.array([2.0] * 3 + [0.2] * 9)) @ axes.T


@pytest.mark.parametrize("shrinkage", [0.5, 0.1])
def test_it_is_the_root_of_the_shrunk_covariance(shrinkage: float) -> None:
    within = uneven()
    rows, family = rows_of(500, 20, 0, within)
    found = learned_transform({"a": rows}, family, shrinkage)["a"]
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    covariance = within @ within
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / DIMENSION * np.eye(DIMENSION)
    values, axes = np.linalg.eigh(shrunk)
    wanted = (axes / np.sqrt(values)) @ axes.T
    # Of 9,500 differences a covariance errs by some 9500^-1/2 of itself, 1 %; the scale is set by distances.
    ratio = np.trace(found) / np.trace(wanted)
    np.testing.assert_allclose(found / ratio, wanted, atol=0.03 * np.abs(wanted).max())
    assert values[-1] > 4 * values[0]  # far from a multiple of the identity
    assert pdist(rows[::50] @ found, "cityblock").mean() == pytest.approx(
        pdist(rows[::50], "cityblock").mean(), rel=0.05
    )


def test_it_finds_families_that_it_was_not_learned_on() -> None:
    rows, family = rows_of(40, 5, 1, uneven())
    others, names = rows_of(40, 5, 2, uneven())
    found = learned_transform({"a": rows}, family)["a"]
    plain, better = (retrieval(cdist(each, each, "cityblock"), names).mean()[1] for each in (others, others @ found))
    assert better > plain + 0.1
    # Of labels that mean nothing the covariance is that of all rows, and next to nothing is gained.
    mixed = learned_transform({"a": rows}, np.random.default_rng(0).permutation(family))["a"]
    assert retrieval(cdist(others @ mixed, others @ mixed, "cityblock"), names).mean()[1] < better - 0.02


def test_each_block_by_itself_and_families_by_the_root_of_their_size() -> None:
    rows, family = rows_of(6, 4, 3, uneven())
    other = np.random.default_rng(4).standard_normal((len(rows), 5))
    both = learned_transform({"a": rows, "b": other}, family)
    np.testing.assert_array_equal(both["a"], learned_transform({"a": rows}, family)["a"])
    assert both["b"].shape == (5, 5)
    # A family of one teaches nothing but takes part in the mean distance.
    alone = learned_transform({"a": np.vstack([rows, rows[:1] + 1])}, np.append(family, "alone"))["a"]
    np.testing.assert_allclose(alone / np.trace(alone), both["a"] / np.trace(both["a"]), rtol=1e-9)
    # Two families, of 2 and of 8, each along an axis of its own: 2^1/2 and 8^1/2 parts, of variances 2 and 1.
    few, many = np.zeros((2, 2)), np.zeros((8, 2))
    few[:, 0], many[:, 1] = [-1, 1], np.sqrt(7 / 8) * np.array([-1, 1] * 4)
    found = learned_transform({"a": np.vstack([few, many])}, np.repeat(["few", "many"], [2, 8]), 0.0)["a"]
    np.testing.assert_allclose(found[0, 1], 0, atol=1e-12)
    assert (found[1, 1] / found[0, 0]) ** 2 == pytest.approx((2 * 2**0.5) / (1 * 8**0.5))


def test_where_there_is_nothing_to_learn() -> None:
    with pytest.raises(ValueError, match="no family has two models that differ"):
        learned_transform({"a": np.eye(3)}, np.array(["x", "y", "z"]))
    with pytest.raises(ValueError, match="nothing to learn"):
        learned_transform({"a": np.ones((4, 3))}, np.array(["x", "x", "y", "y"]))
