from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.equivalence import (
    DEFAULT_RATE,
    DISTANCES,
    OTHER_SEEDS,
    UNDETERMINED,
    calibrate,
    closer_than,
    judge,
    rate_at,
    rate_bound,
    shipped,
    strictly,
    tolerance_for,
)
from registry.equivalence.calibration import RESAMPLES
from registry.errors import UsageError
from registry.spectral.specs import LAYERED, SPECS
from registry.types import Calibration

TRAINED, RAW = "trained", "untrained"


def of_pairs(distances: list[float], rate: float) -> Calibration:
    """Calibrate on one model of one family against one model of each of the others, these at the given distances.

    Pairs of the others among themselves are far away, so that of m families' m (m - 1) / 2 pairs, those given are the
    nearest.
    """
    n = len(distances) + 1
    square = np.full((n, n), 100.0)
    square[0, 1:] = square[1:, 0] = distances
    np.fill_diagonal(square, 0.0)
    return calibrated(square, [str(i) for i in range(n)], rate)


def calibrated(square: np.ndarray, families: list[str], rate: float = 0.25) -> Calibration:
    return calibrate(square, families, spec_hash="h", distance="l1", rate=rate, source="made")


def passing(square: np.ndarray, families: list[str], tolerance: float) -> float:
    """Fraction of unrelated pairs within the tolerance, the mean over pairs of families, counted one by one."""
    fractions = []
    for a in sorted(set(families)):
        for b in sorted(set(families)):
            if a < b:
                rows = [i for i, family in enumerate(families) if family == a]
                columns = [i for i, family in enumerate(families) if family == b]
                fractions.append((square[np.ix_(rows, columns)] <= tolerance).mean())
    return float(np.mean(fractions))


@pytest.mark.parametrize(
    ("rate", "tolerance"),
    # Five models, ten pairs: 1, 2, 3, 4 and six of 100.
    [(0.1, 1.0), (0.19, 1.0), (0.2, 2.0), (0.3, 3.0), (0.39, 3.0), (0.4, 4.0), (0.99, 4.0)],
)
def test_the_tolerance_is_the_largest_distance_that_keeps_the_rate(rate: float, tolerance: float) -> None:
    assert of_pairs([3.0, 1.0, 4.0, 2.0], rate).tolerance == tolerance


def test_a_rate_that_even_the_nearest_pair_breaks() -> None:
    found = of_pairs([3.0, 1.0, 4.0, 2.0], 0.05)
    assert found.tolerance == np.nextafter(1.0, 0.0)


def test_equal_distances_pass_together_or_not_at_all() -> None:
    # Three pairs of ten are at 2: at a rate of 0.3, 1 and two of those would make 0.3, but all four pass at 2.
    assert of_pairs([2.0, 1.0, 2.0, 2.0], 0.3).tolerance == 1.0
    assert of_pairs([2.0, 1.0, 2.0, 2.0], 0.4).tolerance == 2.0


def test_unrelated_models_that_are_the_same() -> None:
    assert of_pairs([0.0, 1.0, 2.0, 3.0], 0.1).tolerance == 0.0
    with pytest.raises(UsageError, match=r"10\.00% of unrelated pairs are at distance 0") as refused:
        of_pairs([0.0, 1.0, 2.0, 3.0], 0.09)
    assert refused.value.remedy == "give models of the same origin the same family"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), min_size=4, max_size=14).filter(lambda names: len(set(names)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_the_rate_is_kept_and_no_larger_distance_keeps_it(
    families: list[str], rate: float, seed: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = len(families)
    upper = np.triu(rng.integers(1, 6, (n, n)) if ties else rng.uniform(1, 2, (n, n)), 1)
    square = (upper + upper.T).astype(float)
    found = calibrated(square, families, rate)
    unrelated = np.array([a != b for a in families for b in families]).reshape(n, n)
    assert passing(square, families, found.tolerance) <= rate + 1e-9
    larger = square[unrelated & (square > found.tolerance)]
    if larger.size:
        assert passing(square, families, float(larger.min())) > rate - 1e-9


def test_each_pair_of_families_weighs_the_same() -> None:
    # Eight models of a, one each of b and c: a-b near, a-c and b-c far. 8 of 17 pairs are near, but one pair of
    # families of three: at a rate of 0.4 near passes, at 0.3 it does not, whatever the number of a's.
    families = ["a"] * 8 + ["b", "c"]
    square = np.full((10, 10), 5.0)
    square[:8, 8] = square[8, :8] = 1.0
    np.fill_diagonal(square, 0.0)
    assert calibrated(square, families, 0.4).tolerance == 1.0
    assert calibrated(square, families, 0.3).tolerance < 1.0
    assert rate_at(calibrated(square, families), 1.0) == pytest.approx(1 / 3, abs=0.01)


def resampled(square: np.ndarray, families: list[str], rate: float, seed: int) -> tuple[float, float]:
    """The interval once more, pair by pair, with the families drawn in the same order."""
    names = sorted(set(families))
    rng = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < RESAMPLES:
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        weights: dict[float, float] = {}
        for i, j in itertools.combinations(range(len(families)), 2):
            a, b = families[i], families[j]
            if a != b and (share := times[names.index(a)] * times[names.index(b)]):
                at = float(square[i, j])
                weights[at] = weights.get(at, 0.0) + share / (families.count(a) * families.count(b))
        if not weights:
            continue
        apart = sorted(weights)
        passing = np.cumsum([weights[at] for at in apart]) / sum(weights.values())
        kept = [at for at, part in zip(apart, passing, strict=True) if part <= rate + 1e-12]
        found.append(kept[-1] if kept else max(float(np.nextafter(apart[0], -1)), 0.0))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.02, 0.25, 0.9])
def test_the_interval_is_a_bootstrap_over_families(rate: float, ties: bool) -> None:
    rng = np.random.default_rng(5)
    families = sorted("aaabbcdeff")
    n = len(families)
    upper = np.triu(rng.integers(1, 9, (n, n)) if ties else rng.uniform(1, 2, (n, n)), 1)
    square = (upper + upper.T).astype(float)
    found = calibrate(square, families, spec_hash="h", distance="l1", rate=rate, source="made", seed=3)
    assert (found.tolerance_low, found.tolerance_high) == pytest.approx(resampled(square, families, rate, 3), rel=1e-12)
    assert (found.models, found.families) == (10, 6)
    again = calibrate(square, families, spec_hash="h", distance="l1", rate=rate, source="made", seed=3)
    assert again == found


def test_the_interval_covers_the_truth() -> None:
    # Families at normal places on a line, two models at each: 1 in 20 pairs are nearer than sqrt(2) Phi^-1(0.525).
    truth = 0.08868
    covered = 0
    for seed in range(60):
        places = np.repeat(np.random.default_rng(seed).standard_normal(25), 2)
        square = np.abs(places[:, None] - places)
        found = calibrated(square, [str(i // 2) for i in range(50)], 0.05)
        assert found.tolerance_low is not None
        assert found.tolerance_high is not None
        covered += found.tolerance_low <= truth <= found.tolerance_high
    # Of 95 %, 51 or fewer come up once in 300; resampling without the pairs within a family errs on the wide side.
    assert covered >= 52


def test_few_families_give_no_interval() -> None:
    rng = np.random.default_rng(0)
    for families in range(2, 7):
        upper = np.triu(rng.uniform(1, 2, (12, 12)), 1)
        found = calibrated(upper + upper.T, [str(i % families) for i in range(12)])
        assert (found.tolerance_low is None) == (found.tolerance_high is None) == (families < 5)


def test_related_pairs_do_not_count() -> None:
    square = np.array([[0, 0.1, 2], [0.1, 0, 3], [2, 3, 0]])
    assert rate_at(calibrated(square, ["a", "a", "b"]), 1.9) == 0.0


def uniform() -> Calibration:
    """Unrelated distances uniform on [1, 2]: of 300 families of one model each."""
    rng = np.random.default_rng(0)
    upper = np.triu(rng.uniform(1, 2, (300, 300)), 1)
    return calibrated(upper + upper.T, [str(i) for i in range(300)], 0.01)


def test_quantiles_of_a_known_distribution() -> None:
    found = uniform()
    fractions, distances = np.array(found.quantiles).T
    assert (np.diff(fractions) > 0).all()
    assert (np.diff(distances) >= 0).all()
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    # Of 44,850 draws the empirical quantile is within 1.95 / sqrt(n) = 0.0092 everywhere (Kolmogorov, 0.1 %).
    np.testing.assert_allclose(distances, 1 + fractions, atol=0.0092)
    assert found.tolerance == pytest.approx(1.01, abs=0.0092)


def test_a_calibration_says_what_it_is_of() -> None:
    square = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 4.0, 0.0]])
    found = calibrate(square, ["a", "b", "c"], spec_hash="0123", distance="l2", rate=0.4, source="three models")
    assert (found.spec_hash, found.distance, found.rate, found.source) == ("0123", "l2", 0.4, "three models")
    assert (found.models, found.families) == (3, 3)
    # From the nearest unrelated pair to the farthest.
    assert (found.quantiles[0], found.quantiles[-1]) == ((0.0, 1.0), (1.0, 4.0))


def test_rates_and_closeness_are_two_sides_of_one_curve() -> None:
    found = uniform()
    at = np.linspace(0.9, 2.1, 241)
    rates = np.array([rate_at(found, float(x)) for x in at])
    assert (np.diff(rates) >= 0).all()
    np.testing.assert_allclose(rates, np.clip(at - 1, 0, 1), atol=0.0092)
    np.testing.assert_array_equal(closer_than(found, at), 1 - rates)
    for few in (at[:1], at[:2], at[::-1]):  # as many as there are quantiles, or fewer: the same bits
        np.testing.assert_array_equal(closer_than(found, few), [1 - rate_at(found, float(x)) for x in few])
    assert rate_at(found, 0.0) == rate_at(found, 0.999) == 0.0
    assert rate_at(found, 2.0) == rate_at(found, 1e9) == 1.0
    assert rate_at(found, found.tolerance) <= found.rate


def test_a_step_counts_whole() -> None:
    made = Calibration("h", "l1", 0.01, 1.0, ((0.0, 1.0), (0.3, 1.0), (0.6, 2.0), (1.0, 2.0)), "made")
    assert rate_at(made, np.nextafter(1.0, 0)) == 0.0
    assert rate_at(made, 1.0) == 0.3
    assert rate_at(made, 1.5) == pytest.approx(0.45)
    assert rate_at(made, 2.0) == 1.0


def test_closeness_is_linear_between_what_was_measured() -> None:
    line = Calibration("h", "l1", 0.01, 1.0, ((0.0, 1.0), (0.5, 2.0), (1.0, 4.0)), "made")
    assert closer_than(line, np.array([0.5, 1.0, 1.5, 3.0, 9.0])).tolist() == [1.0, 1.0, 0.75, 0.25, 0.0]
    assert closer_than(STEPS, np.array([0.5, 1.0, 1.5])) == pytest.approx([1.0, 0.7, 0.55])


STEPS = Calibration("h", "l1", 0.01, 1.0, ((0.0, 1.0), (0.3, 1.0), (0.6, 2.0), (0.7, 2.0), (1.0, 4.0)), "made")


@pytest.mark.parametrize(
    ("rate", "tolerance"),
    [
        (0.0, np.nextafter(1.0, 0)),  # below all that was measured
        (0.29, np.nextafter(1.0, 0)),
        (0.3, 1.0),
        (0.45, 1.5),
        (0.6, np.nextafter(2.0, 0)),  # approached, and stepped over
        (0.69, np.nextafter(2.0, 0)),
        (0.7, 2.0),
        (0.85, 3.0),
        (1.0, 4.0),
        (7.0, 4.0),
    ],
)
def test_the_tolerance_of_a_rate(rate: float, tolerance: float) -> None:
    assert tolerance_for(STEPS, rate) == pytest.approx(tolerance, rel=1e-13)
    assert (tolerance_for(STEPS, rate) < 1.0) == (tolerance < 1.0)
    assert (tolerance_for(STEPS, rate) < 2.0) == (tolerance < 2.0)


@settings(max_examples=300, deadline=None)
@given(
    # Distances are sums of differences of float32: none is smaller than the smallest of those.
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10, width=32)), min_size=2, max_size=12),
    st.floats(0, 1.2),
    st.booleans(),
)
def test_the_tolerance_of_a_rate_is_the_largest_that_keeps_it(
    points: list[tuple[float, float]], rate: float, ties: bool
) -> None:
    fractions = sorted({0.0, 1.0, *(round(fraction, 4) for fraction, _ in points)})
    distances = np.resize(sorted(round(x) if ties else x for _, x in points), len(fractions))
    made = Calibration("h", "l1", 0.01, 1.0, tuple(zip(fractions, np.sort(distances).tolist(), strict=True)), "made")
    found = tolerance_for(made, rate)
    nothing_passes = found == 0.0 and rate_at(made, 0.0) > rate
    assert rate_at(made, found) <= rate or nothing_passes
    assert rate_at(made, found + 1e-9 * (1 + found)) >= min(rate, 1.0) * (1 - 1e-12)


def test_nothing_is_extrapolated_below_the_nearest_unrelated_pair() -> None:
    assert STEPS.resolution == 0.3
    assert rate_at(STEPS, 0.5) == 0.0
    assert rate_bound(STEPS, 0.5) == rate_bound(STEPS, 1.0) == 0.3
    assert rate_bound(STEPS, 3.0) == 0.85
    rate = rate_bound(STEPS, 0.5)
    [close] = judge(np.array([0.1]), TRAINED, [TRAINED], tolerance=0.5, rate=rate, calibration=STEPS, searched=10)
    assert (close.rate, close.expected_false, close.closer_than) == (0.3, 3.0, 1.0)
    # 300 families of one model: the nearest of 44,850 pairs, and fractions are kept from 1 in 10,000 on.
    assert uniform().resolution < 1.2e-4
    assert of_pairs([0.0, 1.0, 2.0, 3.0], 0.1).resolution == pytest.approx(0.1, abs=0.011)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_is_a_fraction(rate: float) -> None:
    with pytest.raises(UsageError, match="rate must lie between 0 and 1"):
        of_pairs([1.0], rate)


def test_one_family_says_nothing_of_unrelated_models() -> None:
    with pytest.raises(UsageError) as refused:
        calibrated(np.zeros((3, 3)), ["a"] * 3)
    assert refused.value.message == "calibration needs models of at least two families"
    assert refused.value.remedy == "label models with --family"


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_shipped_spec_is_calibrated_by_every_distance(spec, distance: str) -> None:
    # A spec that changes in any way changes its hash, and has to be measured again.
    found = shipped(spec, distance)
    assert (found.spec_hash, found.distance, found.rate) == (spec.hash, distance, DEFAULT_RATE)
    fractions, distances = np.array(found.quantiles).T
    assert (np.diff(fractions) > 0).all()
    assert (np.diff(distances) >= 0).all()
    assert found.tolerance_low is not None
    assert found.tolerance_high is not None
    assert found.tolerance_low < found.tolerance < found.tolerance_high
    assert found.source == f"{found.models} published models of {found.families} families"
    # Between the stored quantiles the rate is interpolated: those are some 12 % apart where it is 1 in 100.
    assert DEFAULT_RATE / 1.15 <= rate_at(found, found.tolerance) <= DEFAULT_RATE


def test_a_spec_that_was_not_measured() -> None:
    assert shipped(replace(LAYERED, version=9), "l1") is None
    assert shipped(LAYERED, "l3") is None


@pytest.mark.parametrize(
    ("tolerance", "other", "equivalent"),
    [(None, TRAINED, None), (None, RAW, False), (0.5, TRAINED, True), (0.2, TRAINED, False), (0.5, RAW, False)],
)  # fmt: skip
def test_without_a_calibration_a_verdict_tells_no_rates(
    tolerance: float | None, other: str, equivalent: bool | None
) -> None:
    [found] = judge(np.array([0.3]), TRAINED, [other], tolerance=tolerance, rate=None, calibration=None, searched=7)
    assert (found.equivalent, found.distance, found.tolerance) == (equivalent, 0.3, tolerance)
    assert (found.rate, found.closer_than, found.expected_false) == (None, None, None)
    assert bool(found.reasons) == (equivalent is False)


def test_an_undetermined_model_is_equivalent_to_itself_alone() -> None:
    same, near = judge(
        np.array([0.0, 0.1]),
        UNDETERMINED,
        [UNDETERMINED, UNDETERMINED],
        tolerance=0.5,
        rate=None,
        calibration=None,
        searched=2,
    )
    assert same.equivalent
    assert near.equivalent is False
    assert near.reasons[0].startswith("training class undetermined")


@pytest.mark.parametrize(
    ("distance", "other", "reasons"),
    [
        (1.5, TRAINED, []),
        (np.nextafter(1.5, 2), TRAINED, ["distance 1.5 beyond the tolerance 1.5"]),
        (1.0, RAW, ["training class trained against untrained"]),
        (1.8, RAW, ["training class", "distance 1.8 beyond"]),
        (1.0, UNDETERMINED, ["training class trained against undetermined"]),
        (1.0, "", ["training class trained against unknown"]),
    ],
)
def test_verdicts(distance: float, other: str, reasons: list[str]) -> None:
    calibration = uniform()
    rate = rate_bound(calibration, 1.5)
    before, found, _ = judge(
        np.array([1.0, distance, 2.0]),
        TRAINED,
        [TRAINED, other, RAW],
        tolerance=1.5,
        rate=rate,
        calibration=calibration,
        searched=40,
    )
    assert (before.equivalent, before.distance) == (True, 1.0)
    assert (found.distance, found.tolerance) == (distance, 1.5)
    assert found.equivalent == (not reasons)
    assert len(found.reasons) == len(reasons)
    assert all(given.startswith(start) for given, start in zip(found.reasons, reasons, strict=True))
    assert found.rate == pytest.approx(0.5, abs=0.0092)
    assert found.expected_false == 40 * found.rate
    assert found.closer_than == pytest.approx(2 - distance, abs=0.0092)


def test_each_distance_needs_a_model() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge(np.ones(2), TRAINED, [TRAINED], tolerance=1.5, rate=0.1, calibration=STEPS, searched=2)


def test_strictness_is_a_reason_of_its_own() -> None:
    found = judge(
        np.array([1.0, 1.8]), TRAINED, [TRAINED, TRAINED], tolerance=1.5, rate=0.1, calibration=STEPS, searched=2
    )
    for verdict in found:
        assert strictly(verdict, OTHER_SEEDS) == verdict  # the bound itself is near enough
        refused = strictly(verdict, 0.02)
        reason = "spectra by depth 0.02 apart, beyond the 0.0141 of other seeds"
        assert refused == replace(verdict, equivalent=False, reasons=(*verdict.reasons, reason))
