"""Intervals: coverage in simulations, agreement with closed forms, and independence of row order."""

import math

import numpy as np
import pytest
import scipy.stats

from sana_bench.results.statistics.intervals import (
    clustered_bootstrap,
    clustered_proportion,
    delete_one_group,
    jackknife_interval,
    student_t_quantile,
    t_interval,
    wilson_interval,
)


def clustered_rows(rng, n_strata, n_clusters, per_cluster, *, binary):
    """Rows whose cluster effect is as large as the noise within a cluster; the true overall mean is known."""
    values, clusters, strata = [], [], []
    for stratum in range(n_strata):
        for cluster in range(n_clusters):
            if binary:
                rate = rng.beta(1.2, 0.8)  # mean 0.6, strongly correlated within a cluster
                rows = rng.random(per_cluster) < rate
            else:
                rows = stratum + rng.normal() + rng.normal(size=per_cluster)
            values += rows.astype(float).tolist()
            clusters += [f"{stratum}-{cluster}"] * per_cluster
            strata += [stratum] * per_cluster
    return values, clusters, strata


def coverage(interval_of, truth, n_simulations, **layout):
    rng = np.random.default_rng(2024)
    hits = 0
    for simulation in range(n_simulations):
        interval = interval_of(*clustered_rows(rng, **layout), seed=simulation, n_draws=600)
        hits += interval.low <= truth <= interval.high
    return hits / n_simulations


# 93 % to 97 %: 1,000 simulations put two standard errors of a true 95 % at 1.4 points.
def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rate = coverage(clustered_bootstrap, 1.0, 1000, n_strata=3, n_clusters=20, per_cluster=4, binary=False)
    assert 0.93 <= rate <= 0.97


def test_proportion_interval_covers_the_truth_as_often_as_it_says():
    rate = coverage(clustered_proportion, 0.6, 1000, n_strata=3, n_clusters=20, per_cluster=4, binary=True)
    assert 0.93 <= rate <= 0.97


def test_ignoring_clusters_would_cover_far_too_seldom():
    def unclustered(values, clusters, strata, *, seed, n_draws):
        return clustered_bootstrap(values, range(len(values)), strata, seed=seed, n_draws=n_draws)

    rate = coverage(unclustered, 1.0, 300, n_strata=3, n_clusters=20, per_cluster=4, binary=False)
    assert rate < 0.85


def test_value_is_the_unweighted_mean_of_stratum_means():
    interval = clustered_bootstrap([1, 1, 1, 0, 0.5, 0.5], list("abcdef"), [0, 0, 0, 0, 1, 1], seed=0)
    assert interval.value == pytest.approx((0.75 + 0.5) / 2, rel=1e-15)
    assert clustered_bootstrap([1, 0, 0, 0], list("abbb"), seed=0).value == 0.25


def test_width_agrees_with_the_normal_formula_for_many_clusters():
    values = np.random.default_rng(1).normal(size=400)
    interval = clustered_bootstrap(values, range(400), seed=3)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(400)
    # 3 %: 10,000 draws leave the 2.5 % quantile a relative standard error of about 1.1 %.
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.03)


def test_row_order_changes_nothing_and_the_seed_does():
    rng = np.random.default_rng(4)
    values, clusters, strata = clustered_rows(rng, 2, 10, 3, binary=False)
    order = rng.permutation(len(values))
    shuffled = [[column[i] for i in order] for column in (values, clusters, strata)]
    for interval_of in (clustered_bootstrap, clustered_proportion):
        rows = [values, *shuffled[:1]]
        if interval_of is clustered_proportion:
            rows = [[float(value > 1) for value in column] for column in rows]
        first = interval_of(rows[0], clusters, strata, seed=5)
        assert interval_of(rows[1], shuffled[1], shuffled[2], seed=5) == first
        assert interval_of(rows[0], clusters, strata, seed=6) != first


def test_blocks_of_draws_do_not_change_the_shape_of_the_answer(monkeypatch):
    values = np.random.default_rng(1).normal(size=50)
    whole = clustered_bootstrap(values, range(50), seed=3)
    monkeypatch.setattr("sana_bench.results.statistics.intervals._BLOCK_ELEMENTS", 50 * 7)
    blocks = clustered_bootstrap(values, range(50), seed=3)
    assert blocks == whole  # the generator's stream is the same however it is cut


def test_single_cluster_has_no_interval_but_a_proportion_has():
    interval = clustered_bootstrap([1.0, 2.0], ["a", "a"], seed=0)
    assert interval.value == 1.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    proportion = clustered_proportion([1.0, 0.0], ["a", "a"], seed=0)
    assert 0 <= proportion.low < 0.5 < proportion.high <= 1


def test_all_right_is_not_certainty():
    clusters = [prompt for prompt in range(25) for _ in range(4)]
    interval = clustered_proportion([1.0] * 100, clusters, seed=0)
    assert (interval.value, interval.high) == (1.0, 1.0)
    # Wilson at 25 of 25 prompts; the 4 images of a prompt do not count as 100 trials.
    assert interval.low == pytest.approx(25 / (25 + 1.959964**2), abs=1e-6)
    nothing = clustered_proportion([0.0] * 100, clusters, seed=0)
    assert (nothing.low, nothing.high) == (0.0, pytest.approx(1 - interval.low, abs=1e-12))


def test_a_task_without_spread_still_widens_the_overall_interval():
    rng = np.random.default_rng(8)
    varied = (rng.random(25) < 0.5).astype(float).tolist()
    values, clusters, strata = varied + [1.0] * 25, list(range(50)), [0] * 25 + [1] * 25
    naive, joined = (
        clustered_bootstrap(values, clusters, strata, seed=1),
        clustered_proportion(values, clusters, strata, seed=1),
    )
    assert joined.low < naive.low
    assert joined.high == pytest.approx(naive.high, abs=0.01)


@pytest.mark.parametrize(("rate", "n"), [(0.0, 10), (1.0, 10), (0.5, 4), (0.99, 200), (0.25, 12)])
def test_wilson_agrees_with_scipy(rate, n):
    ours = wilson_interval(rate, n)
    theirs = scipy.stats.binomtest(round(rate * n), n).proportion_ci(0.95, method="wilson")
    # 1e-12: the same closed form in float64.
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(9).normal(size=30)
    replicates = delete_one_group(30, lambda kept: float(values[kept].mean()))
    interval = jackknife_interval(float(values.mean()), replicates)
    half = scipy.stats.t.ppf(0.975, 29) * values.std(ddof=1) / math.sqrt(30)
    # 1e-10: the jackknife is exact for a mean, up to rounding of differences of nearly equal numbers.
    assert interval.high - interval.value == pytest.approx(half, rel=1e-10)
    assert interval.value - interval.low == pytest.approx(half, rel=1e-10)


def test_jackknife_needs_two_groups():
    assert math.isnan(jackknife_interval(1.0, [1.0]).low)


@pytest.mark.parametrize("df", [1, 3, 10, 19.5, 200])
def test_student_quantile_agrees_with_the_distribution(df):
    # 1e-9: two implementations of the same function in float64.
    assert student_t_quantile(0.975, df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=1e-9)


def test_t_interval_of_one_value_a_cluster_is_the_textbook_one():
    values = np.random.default_rng(10).normal(size=25)
    interval = t_interval(values, range(25))
    expected = scipy.stats.t.interval(0.95, 24, values.mean(), scipy.stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-12)  # same closed form


def test_t_interval_of_two_strata_is_welchs():
    rng = np.random.default_rng(11)
    first, second = rng.normal(size=12), rng.normal(2, 3, size=20)
    interval = t_interval([*first, *-second], range(32), [0] * 12 + [1] * 20)
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (2 * interval.low, 2 * interval.high) == pytest.approx((welch.low, welch.high), rel=1e-12)


def test_t_interval_needs_two_clusters_a_stratum():
    assert math.isnan(t_interval([1.0, 2.0, 3.0], "aab", [0, 0, 1]).low)
    assert t_interval([2.0, 2.0], "ab").high == 2.0


def t_interval_with_a_seed(values, clusters, strata=None, *, seed, level):
    return t_interval(values, clusters, strata, level=level)


@pytest.mark.parametrize("interval_of", [clustered_bootstrap, clustered_proportion, t_interval_with_a_seed])
@pytest.mark.parametrize(
    ("values", "clusters", "strata", "level", "message"),
    [
        ([], [], None, 0.95, "at least one value"),
        ([1.0], [1, 2], None, 0.95, "do not match"),
        ([1.0, 1.0], [1, 2], [0], 0.95, "do not match"),
        ([1.0, math.nan], [1, 2], None, 0.95, "finite"),
        ([1.0, 1.0], [1, 2], None, 1.0, "level"),
    ],
)
def test_refuses_rows_without_a_meaning(interval_of, values, clusters, strata, level, message):
    with pytest.raises(ValueError, match=message):
        interval_of(values, clusters, strata, seed=0, level=level)


def test_a_proportion_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        clustered_proportion([2.0], [1], seed=0)
