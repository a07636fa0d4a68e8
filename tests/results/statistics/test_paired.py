"""Paired comparisons: agreement with enumeration and with scipy, and what must hold for any data."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.results.statistics import holm
from sana_bench.results.statistics.paired import cohens_h, compare_means, compare_proportions, mcnemar

FAST = settings(max_examples=25, deadline=None)


@st.composite
def paired(draw, binary):
    """Rows of a, b, cluster and stratum; clusters nest in two strata of at least two clusters each."""
    value = st.integers(0, 1) if binary else st.integers(-20, 20)
    rows = []
    for cluster in range(draw(st.integers(4, 18))):
        for _ in range(draw(st.integers(1, 3))):
            rows.append((float(draw(value)), float(draw(value)), f"p{cluster}", cluster % 2))
    return rows


def compare(function, rows, seed=7):
    a, b, clusters, strata = (list(column) for column in zip(*rows, strict=True))
    return function(a, b, clusters, strata, seed=seed, n_draws=99)


@pytest.mark.parametrize(("function", "binary"), [(compare_proportions, True), (compare_means, False)])
def test_row_order_changes_nothing(function, binary):
    @FAST
    @given(paired(binary), st.randoms(use_true_random=False))
    def check(rows, random):
        shuffled = rows.copy()
        random.shuffle(shuffled)
        assert repr(compare(function, shuffled)) == repr(compare(function, rows))

    check()


@pytest.mark.parametrize(("function", "binary"), [(compare_proportions, True), (compare_means, False)])
def test_exchanging_a_and_b_changes_signs_only(function, binary):
    @FAST
    @given(paired(binary))
    def check(rows):
        forward = compare(function, rows)
        back = compare(function, [(b, a, *rest) for a, b, *rest in rows])
        assert back.p_value == forward.p_value
        # 1e-12: the same sums with the opposite sign, interpolated between draws from the other end.
        for ours, theirs in (
            (back.difference, forward.difference), (back.low, forward.high), (back.effect_size, forward.effect_size)
        ):  # fmt: skip
            assert ours == pytest.approx(-theirs, abs=1e-12, nan_ok=True)

    check()


@pytest.mark.parametrize(("function", "binary"), [(compare_proportions, True), (compare_means, False)])
def test_a_variant_does_not_differ_from_itself(function, binary):
    @FAST
    @given(paired(binary))
    def check(rows):
        effect = compare(function, [(a, a, *rest) for a, _, *rest in rows])
        assert (effect.difference, effect.p_value, effect.effect_size) == (0, 1, 0)
        assert effect.low <= 0 <= effect.high

    check()


@FAST
@given(paired(False), st.sampled_from([0.25, 4.0, 1024.0]))
def test_scores_in_other_units_give_the_same_p_value(rows, factor):
    effect, scaled = (
        compare(compare_means, rows),
        compare(compare_means, [(a * factor, b * factor, *rest) for a, b, *rest in rows]),
    )
    assert scaled.p_value == effect.p_value
    assert scaled.effect_size == pytest.approx(effect.effect_size, rel=1e-12, nan_ok=True)
    # Powers of two scale without rounding.
    assert (scaled.difference, scaled.low, scaled.high) == tuple(
        factor * x for x in (effect.difference, effect.low, effect.high)
    )


def test_no_flip_is_not_certainty():
    clusters = [prompt for prompt in range(144) for _ in range(4)]
    effect = compare_proportions([1.0] * 576, [1.0] * 576, clusters, [c // 24 for c in clusters], seed=0)
    # Wilson's bound for 0 of 144, for wins and for losses.
    assert effect.high == -effect.low == pytest.approx(1.959964**2 / (144 + 1.959964**2), abs=1e-6)


def test_always_better_is_bounded_by_the_number_of_prompts():
    effect = compare_proportions([0] * 20, [1] * 20, range(20), seed=0)
    assert (effect.difference, effect.high) == (1, 1)
    assert 0.7 < effect.low < 0.9
    assert effect.effect_size == pytest.approx(math.pi)  # the largest h there is
    assert effect.p_value == pytest.approx(2**-19)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 5), (9, 2), (40, 21)])
def test_mcnemar_is_a_binomial_test_of_the_pairs_that_differ(wins, losses):
    a = [0] * wins + [1] * losses + [1, 0]
    b = [1] * wins + [0] * losses + [1, 0]
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(a, b) == expected
    effect = compare_proportions(a, b, range(len(a)), seed=0, n_draws=99)
    assert (effect.p_value, effect.test) == (expected, "McNemar exact")


def sign_flip_p_value(differences, clusters):
    return compare_means(np.zeros(len(differences)), differences, clusters, seed=0).p_value


def test_sign_flips_of_one_sample_a_prompt_are_mcnemars():
    a, b = [0] * 9 + [1] * 2 + [1] * 5, [1] * 9 + [0] * 2 + [1] * 5
    # 1e-12: counts of patterns over a power of two against a sum of binomial terms.
    assert sign_flip_p_value(np.subtract(b, a), range(16)) == pytest.approx(mcnemar(a, b), rel=1e-12)


def test_few_prompts_are_enumerated():
    rng = np.random.default_rng(3)
    differences, clusters = rng.normal(0.5, 1, size=14), np.repeat(np.arange(7), 2)
    sums = differences.reshape(7, 2).sum(axis=1)
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=7)]
    expected = np.mean(np.array(flipped) >= abs(sums.sum()) - 1e-12)
    assert sign_flip_p_value(differences, clusters.tolist()) == expected


def test_drawn_patterns_agree_with_scipy():
    differences = np.random.default_rng(5).normal(0.3, 1, size=40)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10_000, rng=1
    ).pvalue
    # Two Monte-Carlo estimates of p near 0.05 from 10,000 draws: four standard errors of their difference.
    assert sign_flip_p_value(differences, range(40)) == pytest.approx(
        theirs, abs=4 * math.sqrt(2e-4 * theirs)
    )


def test_interval_is_the_one_of_the_differences():
    rng = np.random.default_rng(6)
    a, clusters = rng.normal(size=200), np.repeat(np.arange(50), 4).tolist()
    b = a + 0.2 + np.repeat(rng.normal(size=50), 4) * 0.3
    effect = compare_means(a, b, clusters, seed=0)
    means = (b - a).reshape(50, 4).mean(axis=1)
    low, high = scipy.stats.t.interval(0.95, 49, means.mean(), scipy.stats.sem(means))
    # 8 % of the width: percentile and t differ by about 2 %, 10,000 draws add about 1 %, skew the rest.
    assert (effect.low, effect.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert effect.effect_size == pytest.approx(means.mean() / means.std(ddof=1), rel=1e-12)


def test_cohens_h_of_a_textbook_pair():
    assert cohens_h(0.5, 0.75) == pytest.approx(math.pi / 6)  # arcsin sqrt(3)/2 and sqrt(2)/2


def test_a_difference_without_spread_has_no_standardised_size():
    effect = compare_means([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], "abc", seed=0, n_draws=9)
    assert math.isnan(effect.effect_size)
    assert effect.p_value == 0.25


@pytest.mark.parametrize("function", [compare_proportions, compare_means])
@pytest.mark.parametrize(
    ("a", "b", "clusters", "strata", "options", "message"),
    [
        ([], [], [], None, {}, "at least one"),
        ([1], [1, 0], [1], None, {}, "shapes"),
        ([1, 0], [1, 0], [1], None, {}, "do not match"),
        ([1, 0], [1, math.nan], [1, 2], None, {}, "finite|0 or 1"),
        ([1, 0], [1, 0], ["p", "p"], ["x", "y"], {}, "'p' lies in two strata: 'x' and 'y'"),
        ([1, 0], [1, 0], [1, 2], None, {"level": 0}, "level"),
        ([1, 0], [1, 0], [1, 2], None, {"n_draws": 0}, "draw"),
    ],
)
def test_refuses_pairs_without_a_meaning(function, a, b, clusters, strata, options, message):
    with pytest.raises(ValueError, match=message):
        function(a, b, clusters, strata, seed=0, **options)


@pytest.mark.parametrize("function", [mcnemar, lambda a, b: compare_proportions(a, b, [1, 2], seed=0)])
def test_outcomes_are_pass_or_fail(function):
    with pytest.raises(ValueError, match="0 or 1"):
        function([0.5, 1], [0, 1])


@FAST
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_monotone_and_never_below_the_raw_value(p_values):
    adjusted = holm(p_values)
    assert all(raw <= new <= 1 for raw, new in zip(p_values, adjusted, strict=True))
    ordered = [new for _, new in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)
    assert holm(p_values[::-1]) == adjusted[::-1]


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06 (not below the one before), 0.5 x 1.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([]) == []


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, math.nan])
