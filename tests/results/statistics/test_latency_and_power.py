"""Latency comparison and sample sizes against scipy and published values."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.results.statistics.latency import compare_latency, quantile_interval
from sana_bench.results.statistics.power import cluster_differences, minimum_detectable_effect, prompts_needed

FAST = settings(max_examples=25, deadline=None)
latencies = st.lists(st.integers(50, 200).map(float), min_size=2, max_size=12)


@FAST
@given(latencies, latencies)
def test_without_a_minimum_effect_it_is_scipys_test(a, b):
    expected = scipy.stats.mannwhitneyu(b, a)
    effect = compare_latency(a, b, minimum_effect=0, seed=0, n_draws=9)
    # 1e-12: scipy doubles the larger statistic's tail, we the smaller of both tails.
    assert effect.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    assert effect.effect_size == pytest.approx(2 * expected.statistic / (len(a) * len(b)) - 1, abs=1e-12)


@FAST
@given(latencies, latencies, st.randoms(use_true_random=False))
def test_order_and_unit_of_measurements_change_nothing(a, b, random):
    effect = compare_latency(a, b, seed=3, n_draws=49)
    random.shuffle(a)
    assert compare_latency(a, b, seed=3, n_draws=49) == effect
    # A power of two scales without rounding.
    assert compare_latency([x / 1024 for x in a], [x / 1024 for x in b], seed=3, n_draws=49) == effect


@FAST
@given(latencies, latencies)
def test_exchanging_a_and_b_keeps_the_p_value(a, b):
    forward, back = compare_latency(a, b, seed=0, n_draws=9), compare_latency(b, a, seed=0, n_draws=9)
    assert back.effect_size == pytest.approx(-forward.effect_size, abs=1e-12)
    assert 1 + back.difference == pytest.approx(1 / (1 + forward.difference), rel=1e-12)
    # 2 % of whole numbers below 200 is never a whole number unless they are multiples of 50; rounding may then
    # break a tie one way only, so only the rest is compared.
    if not {x % 50 for x in (*a, *b)} & {0.0}:
        assert back.p_value == pytest.approx(forward.p_value, rel=1e-9)


def test_a_certain_but_tiny_change_is_no_finding():
    rng = np.random.default_rng(1)
    a, b = 100 + rng.normal(0, 0.2, 60), 101 + rng.normal(0, 0.2, 60)
    assert compare_latency(a, b, minimum_effect=0, seed=0).p_value < 1e-6
    tolerant = compare_latency(a, b, minimum_effect=0.02, seed=0)
    assert tolerant.p_value == 1
    # Medians of 60 with spread 0.2 % lie within 0.2 % of the truth.
    assert tolerant.difference == pytest.approx(0.01, abs=0.002)
    assert tolerant.low <= tolerant.difference <= tolerant.high


def test_a_large_change_is_found_in_both_directions():
    rng = np.random.default_rng(2)
    a, b = 100 + rng.normal(0, 2, 30), 110 + rng.normal(0, 2, 30)
    slower, faster = compare_latency(a, b, seed=0), compare_latency(b, a, seed=0)
    assert slower.p_value < 1e-4
    assert slower.low > 0.05
    assert faster.p_value < 1e-4
    assert faster.high < -0.05


def test_one_measurement_has_no_interval():
    assert math.isnan(compare_latency([10.0], [11.0, 12.0], seed=0).low)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(5)
    runs = 300
    intervals = [quantile_interval(rng.lognormal(0, 0.2, 30), 0.5, seed=i, n_draws=200) for i in range(runs)]
    covered = np.mean([found.low <= 1 <= found.high for found in intervals])
    # The percentile bootstrap of a median of 30 is a few percent off its nominal 95 %; three standard errors besides.
    assert 0.95 - 0.04 - 3 * math.sqrt(0.05 * 0.95 / runs) <= covered <= 1


def test_a_quantile_does_not_depend_on_the_order_of_measurement():
    values = [4.0, 1.0, 3.0, 2.0]
    found = quantile_interval(values, 0.9, seed=0)
    assert found == quantile_interval(values[::-1], 0.9, seed=0)
    assert found.value == np.quantile(values, 0.9)
    assert math.isnan(quantile_interval([5.0], 0.5, seed=0).low)
    with pytest.raises(ValueError, match="quantile"):
        quantile_interval(values, 1.0, seed=0)


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        ([], {}, "at least one"),
        ([0.0], {}, "positive"),
        ([math.inf], {}, "finite"),
        ([1.0], {"minimum_effect": 1}, "minimum effect"),
        ([1.0], {"n_draws": 0}, "draw"),
        ([1.0], {"level": 2}, "level"),
    ],
)
def test_refuses_latencies_without_a_meaning(a, options, message):
    with pytest.raises(ValueError, match=message):
        compare_latency(a, [1.0], seed=0, **options)


def standardised(n):
    values = np.random.default_rng(0).normal(size=n)
    return (values - values.mean()) / values.std(ddof=1)


# G*Power, two-sided paired t test at alpha 0.05: power 0.8, and for the last 0.95.
@pytest.mark.parametrize(
    ("size", "power", "n"), [(0.8, 0.8, 15), (0.5, 0.8, 34), (0.2, 0.8, 199), (0.5, 0.95, 54)]
)
def test_prompts_needed_are_the_published_ones(size, power, n):
    assert prompts_needed(standardised(30), size, power=power) == n
    assert prompts_needed(standardised(30), -size, power=power) == n


@FAST
@given(st.integers(3, 400), st.floats(0.3, 0.99), st.floats(0.001, 0.2))
def test_the_detectable_effect_needs_just_the_prompts_it_came_from(n, power, alpha):
    differences = standardised(n)
    effect = minimum_detectable_effect(differences, power=power, alpha=alpha)
    assert prompts_needed(differences, effect * (1 + 1e-6), power=power, alpha=alpha) == n
    # Scales with the scores, shrinks with the power asked for.
    assert minimum_detectable_effect(differences * 8, power=power, alpha=alpha) == pytest.approx(8 * effect)
    assert minimum_detectable_effect(differences, power=power - 0.05, alpha=alpha) < effect


def test_the_detectable_effect_is_detected_as_often_as_asked():
    effect, rng = minimum_detectable_effect(standardised(25)), np.random.default_rng(4)
    p_values = scipy.stats.ttest_1samp(rng.normal(effect, 1, size=(4000, 25)), 0, axis=1).pvalue
    assert np.mean(p_values <= 0.05) == pytest.approx(
        0.8, abs=4 * math.sqrt(0.16 / 4000)
    )  # four standard errors


def test_differences_of_prompts_lose_the_spread_between_strata():
    a, clusters, strata = [0.0] * 8, list("aabbccdd"), [0] * 4 + [1] * 4
    b = [1, 1, 3, 3, 10, 10, 14, 14]
    assert cluster_differences(a, b, clusters).tolist() == [1, 3, 10, 14]
    assert cluster_differences(a, b, clusters, strata).tolist() == [6, 8, 5, 9]


def test_an_effect_out_of_reach_has_no_number_of_prompts():
    assert prompts_needed([1.0, 2.0], 1e-9) is None


def test_equal_differences_need_the_fewest_prompts():
    assert minimum_detectable_effect([0.1, 0.1]) == 0
    assert prompts_needed([0.1, 0.1], 0.1) == 2


@pytest.mark.parametrize(
    ("differences", "effect", "options", "message"),
    [
        ([1.0], 1, {}, "two prompts"),
        ([1.0, math.nan], 1, {}, "finite"),
        ([1.0, 2.0], 0, {}, "not zero"),
        ([1.0, 2.0], 1, {"power": 0.01}, "alpha"),
    ],
)
def test_refuses_impossible_plans(differences, effect, options, message):
    with pytest.raises(ValueError, match=message):
        prompts_needed(differences, effect, **options)
