"""Comparisons of Fréchet distances against direct computation."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.metrics.fid.frechet import FrechetTo, Moments, distance_between, frechet_distance, left_out
from sana_bench.results.statistics.distances import compare_frechet, compare_left_out

D = 5


def features(seed, n=60, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=(n // 2, D)), 2, axis=0) + rng.normal(size=(n, D)) + shift


REFERENCE = features(99, 200)
CLUSTERS = [f"p{i // 2}" for i in range(60)]


def frechet(a, b, clusters=None, *, seed=0, n_draws=39, reference=REFERENCE, **options):
    moments = Moments.of(reference)
    pair = moments.mean, moments.covariance
    return compare_frechet(a, b, pair, clusters or CLUSTERS, seed=seed, n_draws=n_draws, **options)


def test_frechet_difference_is_the_difference_of_the_metrics_distances():
    a, b, reference = features(1), features(2, shift=0.5), Moments.of(REFERENCE)
    distance_a, distance_b = (distance_between(Moments.of(rows), reference) for rows in (a, b))
    effect = frechet(a, b)
    # 1e-9: the same eigenvalues from two orders of the factors, in float64.
    assert effect.difference == pytest.approx(distance_b - distance_a, rel=1e-9)
    assert effect.effect_size == pytest.approx((distance_b - distance_a) / distance_a, rel=1e-9)
    assert (effect.n_pairs, effect.n_clusters) == (60, 30)


def test_frechet_stands_a_singular_reference():
    a, b = features(1), features(2)
    flat = REFERENCE * np.array([1, 1, 1, 0, 0])
    moments = [Moments.of(rows) for rows in (a, b, flat)]
    expected = [
        frechet_distance(m.mean, m.covariance, moments[2].mean, moments[2].covariance) for m in moments[:2]
    ]
    # 1e-6: the square root of an eigenvalue that should be zero keeps half the digits.
    assert frechet(a, b, reference=flat).difference == pytest.approx(expected[1] - expected[0], abs=1e-6)


def test_a_worse_set_is_found_and_covered():
    effect = frechet(features(1), features(1) + 1.0, n_draws=99)
    assert effect.p_value == 0.01  # no exchange of 99 comes near
    assert 0 < effect.low < effect.difference < effect.high


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_order_and_exchange_of_variants(seed, random):
    a, b = features(seed), features(seed + 1)
    effect, back = frechet(a, b), frechet(b, a)
    order = list(range(60))
    random.shuffle(order)
    assert frechet(a[order], b[order], [CLUSTERS[i] for i in order]) == effect
    assert back.p_value == effect.p_value
    # 1e-9: rounding of distances near one.
    assert (back.difference, back.low, back.high) == pytest.approx(
        (-effect.difference, -effect.high, -effect.low), abs=1e-9
    )


def test_a_set_does_not_differ_from_itself():
    effect = frechet(features(1), features(1))
    assert (effect.difference, effect.p_value) == (0, 1)
    assert (effect.low, effect.high) == pytest.approx((0, 0), abs=1e-9)


def test_one_prompt_has_no_interval():
    effect = frechet(features(1, 4), features(2, 4), ["p"] * 4)
    assert np.isnan(effect.low)
    assert effect.p_value == 1  # the only exchange is the whole set


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a[:5], b, CLUSTERS), "shape"),
        (lambda a, b: (a, b, CLUSTERS[:5]), "do not match"),
        (lambda a, b: (a[:1], b[:1], CLUSTERS[:1]), "two images"),
        (lambda a, b: (a * np.nan, b, CLUSTERS), "finite"),
        (lambda a, b: (a[:, :3], b[:, :3], CLUSTERS), "reference"),
    ],
)
def test_refuses_sets_without_a_distance(change, message):
    with pytest.raises(ValueError, match=message):
        frechet(*change(features(1), features(2)))


def test_left_out_groups_of_a_mean_give_the_paired_t_test():
    rng = np.random.default_rng(4)
    a, b = rng.normal(3.0, size=20), rng.normal(3.4, size=20)
    sides = [(group.sum() - group) / 19 for group in (a, b)]
    found = compare_left_out((a.mean(), b.mean()), (sides[0], sides[1]), n_pairs=40, n_clusters=20)
    expected = scipy.stats.ttest_rel(b, a)
    interval = expected.confidence_interval(0.95)
    # 1e-9: sums of twenty numbers in another order.
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.effect_size == pytest.approx((b.mean() - a.mean()) / a.mean(), rel=1e-12)
    assert (found.n_pairs, found.n_clusters) == (40, 20)


def test_left_out_groups_that_agree():
    same = np.arange(5.0)
    found = compare_left_out((2.0, 2.0), (same, same), n_pairs=5, n_clusters=5)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    moved = compare_left_out((2.0, 3.0), (same, same + 1), n_pairs=5, n_clusters=5)
    assert (moved.low, moved.high, moved.p_value) == (1, 1, 0)


@pytest.mark.parametrize("sides", [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_left_out_groups_that_do_not_fit(sides):
    with pytest.raises(ValueError, match="two equal numbers of groups"):
        compare_left_out((1.0, 2.0), sides, n_pairs=1, n_clusters=1)


def test_leaving_groups_out_tests_frechet_distances_at_its_level():
    """How often sets of one distribution are called different, and sets of two are told apart."""
    reference = FrechetTo(Moments.of(features(99, 2000)))
    rng = np.random.default_rng(5)
    alarms, hits, n = 0, 0, 200
    for _ in range(n):
        prompts = rng.normal(size=(200, D))
        a, b = (prompts + rng.normal(size=(200, D)) for _ in range(2))
        alarms += _left_out_p_value(reference, a, b) < 0.05
        hits += _left_out_p_value(reference, a, b + 0.5) < 0.05
    # 22 of 200 is four standard deviations above the level; 3 below.
    assert alarms <= 22
    assert hits >= 0.95 * n


def _left_out_p_value(reference, *sides):
    groups = [[Moments.of(rows[first::20]) for first in range(20)] for rows in sides]
    values = [reference.distance(Moments.of(rows)) for rows in sides]
    found = [left_out(side, reference) for side in groups]
    return compare_left_out((values[0], values[1]), (found[0], found[1]), n_pairs=200, n_clusters=200).p_value
