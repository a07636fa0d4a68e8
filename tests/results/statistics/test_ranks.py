"""Rank correlations: scipy's numbers, what may not change them, and how often their intervals hold the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sana_bench.results.statistics.ranks import _kendall, _spearman, correlate_prompts, correlate_variants

VALUES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40)


def scipys(x, y) -> tuple[float, float]:
    return float(stats.kendalltau(x, y).statistic), float(stats.spearmanr(x, y).statistic)


@settings(deadline=None)
@given(VALUES)
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_values_are_scipys(pairs):
    """Sums of at most a few hundred whole and half numbers: to a thousand roundings of float64."""
    x, y = np.array(pairs, float).T
    found = correlate_prompts([x], [y], seed=0)
    np.testing.assert_allclose((found.kendall.value, found.spearman.value), scipys(x, y), rtol=0, atol=1e-12)
    assert found.n == len(pairs)


@settings(deadline=None)
@given(VALUES, st.data())
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_redrawn_prompt_counts_as_often_as_it_was_drawn(pairs, data):
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))))
    x, y = np.array(pairs, float).T
    if times.sum() < 2:
        times[:2] = 1
    weights = times[None].astype(float)
    found = _kendall(x, y, weights)[0], _spearman(x, y, weights)[0]
    expected = scipys(np.repeat(x, times), np.repeat(y, times))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_order_alone_counts():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60))
    plain = correlate_prompts([x], [y], seed=1)
    assert correlate_prompts([np.exp(x)], [y**3], seed=1) == plain
    assert correlate_prompts([y], [x], seed=1) == plain
    opposite = correlate_prompts([-x], [y], seed=1)
    # The same draws, the other sign: only the order in which bounds are interpolated differs.
    assert opposite.kendall.value == pytest.approx(-plain.kendall.value, abs=1e-12)
    assert opposite.kendall.low == pytest.approx(-plain.kendall.high, abs=1e-12)
    same = correlate_prompts([x], [x], seed=1).spearman
    np.testing.assert_allclose((same.value, same.low, same.high), 1, atol=1e-12)


def test_several_variants_give_the_mean_of_those_that_differ_at_all():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 3, 40))
    b[2] = 5.0
    found = correlate_prompts(a, b, seed=0)
    alone = [correlate_prompts(a[[i]], b[[i]], seed=0).kendall.value for i in range(3)]
    assert np.isnan(alone[2])
    assert found.kendall.value == pytest.approx(np.mean(alone[:2]), abs=1e-12)
    assert found.kendall.low < found.kendall.value < found.kendall.high


def test_a_score_that_is_the_same_for_all_has_no_correlation():
    found = correlate_prompts([np.full(20, 3.3)], [np.arange(20.0)], seed=0)
    for interval in (found.kendall, found.spearman):
        assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_few_prompts_have_no_interval():
    x = np.arange(9.0)
    found = correlate_prompts([x], [x], seed=0)
    assert found.kendall.value == 1
    assert np.isnan(found.kendall.low)
    assert correlate_prompts([np.arange(10.0)], [np.arange(10.0)], seed=0).kendall.low == 1


def test_many_prompts_are_thinned_at_random():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, 2500))
    found = correlate_prompts(x, x + rng.normal(size=(1, 2500)), seed=0, n_draws=20)
    assert found.n == 2000
    # tau = 2/pi asin(1/sqrt 2) = 1/2; a standard error of 2,000 points is about 0.012, of which five are allowed.
    assert found.kendall.value == pytest.approx(0.5, abs=0.06)


def test_variants_are_compared_by_their_means():
    rng = np.random.default_rng(3)
    level = np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    a, b = level + rng.normal(size=(4, 200)), level[[0, 2, 1, 3]] + rng.normal(size=(4, 200))
    found = correlate_variants(a, b, seed=0)
    means = scipys(a.mean(axis=1), b.mean(axis=1))
    np.testing.assert_allclose((found.kendall.value, found.spearman.value), means, atol=1e-12)
    assert found.n == 4
    assert found.kendall.low <= found.kendall.value <= found.kendall.high
    # Levels ten standard errors apart: every redraw has the same order.
    assert found.kendall.low == found.kendall.high == pytest.approx(2 / 3)


def test_equal_variants_stay_tied_and_two_are_too_few():
    rng = np.random.default_rng(4)
    values = rng.random((3, 50))
    values[1] = values[0]
    assert correlate_variants(values, values, seed=0).kendall.value == 1
    assert np.isnan(correlate_variants(values[:2], values[:2], seed=0).kendall.value)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], r"got shapes \(1, 2\), \(1, 1\)"),
        ([1.0], [1.0], "by variant and prompt"),
        ([[]], [[]], "by variant and prompt"),
        ([[1.0, np.nan]], [[1.0, 2.0]], "finite"),
    ],
)
@pytest.mark.parametrize("function", [correlate_prompts, correlate_variants])
def test_bad_values_are_refused(function, a, b, message):
    with pytest.raises(ValueError, match=message):
        function(a, b, seed=0)
    with pytest.raises(ValueError, match="confidence level"):
        function([[1.0, 2.0]], [[1.0, 2.0]], seed=0, level=1.0)


@pytest.mark.parametrize(("n", "correlation"), [(30, 0.0), (30, 0.7), (100, 0.4)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n, correlation):
    """Normal pairs: tau is 2/pi asin(r). 400 sets; the percentile bootstrap is known to be a little short for few points."""
    rng = np.random.default_rng(5)
    truth = 2 / np.pi * np.arcsin(correlation)
    held = 0
    for index in range(400):
        x, z = rng.normal(size=(2, n))
        y = correlation * x + np.sqrt(1 - correlation**2) * z
        found = correlate_prompts([x], [y], seed=index, n_draws=300).kendall
        held += found.low <= truth <= found.high
    # 95 % less 3 points for the bootstrap and three standard errors of 400 coins of 0.95 (1.1 points each).
    assert 400 * (0.95 - 0.03 - 0.033) <= held <= 400
