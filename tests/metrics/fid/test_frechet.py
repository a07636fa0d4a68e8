"""The Frechet distance: against closed forms, against scipy's matrix square root, and its invariances."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.metrics.fid.frechet import Moments, distance_between, frechet_distance, merge_moments

seeds = st.integers(0, 2**32 - 1)


def gaussian(seed, n, d):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mixing + rng.normal(size=d)


def ones(n, d):
    return Moments.of(np.ones((n, d)))


def by_matrix_root(first, second):
    """The textbook formula with scipy's general matrix square root."""
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance)
    offset = first.mean - second.mean
    return float(offset @ offset + np.trace(first.covariance + second.covariance - 2 * np.real(root)))


def test_gaussians_with_a_known_distance():
    # Commuting covariances: |m1 - m2|^2 + sum (sqrt(a) - sqrt(b))^2 = 25 + 1 + 4 + 0, rotated by Q.
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    first, second = q @ np.diag([4.0, 9.0, 1.0]) @ q.T, q @ np.diag([1.0, 25.0, 1.0]) @ q.T
    # 1e-12: the trace is about 40 and eigh is accurate to a few units in the last place.
    assert frechet_distance(np.zeros(3), first, np.array([3.0, 4.0, 0.0]), second) == pytest.approx(
        30, rel=1e-12
    )


def test_covariances_that_do_not_commute():
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 1.0]])
    # For 2x2: tr (AB)^(1/2) = sqrt(tr AB + 2 sqrt(det AB)), tr AB = 8, det AB = 9.
    expected = 8 - 2 * np.sqrt(8 + 2 * 3)
    assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_matches_the_matrix_square_root_at_full_rank(d):
    first, second = Moments.of(gaussian(1, 5 * d, d)), Moments.of(gaussian(2, 7 * d, d))
    # 1e-8 relative: both routes are float64; the conditioning of these covariances costs the square root
    # digits.
    assert distance_between(first, second) == pytest.approx(by_matrix_root(first, second), rel=1e-8)


def test_stays_close_to_the_matrix_square_root_when_rank_deficient():
    first, second = Moments.of(gaussian(1, 20, 64)), Moments.of(gaussian(2, 30, 64))
    # 1e-6 relative: rounding leaves eigenvalues of 1e-16 whose roots of 1e-8 enter the trace.
    assert distance_between(first, second) == pytest.approx(by_matrix_root(first, second), rel=1e-6)


def test_singular_covariances_give_a_finite_number():
    constant = Moments.of(np.ones((5, 3)))
    line = Moments.of(np.arange(5.0)[:, None] * np.array([[1.0, 2.0, 0.0]]))
    assert distance_between(constant, constant) == 0.0
    assert distance_between(constant, line) == pytest.approx(
        float(np.sum((line.mean - 1) ** 2) + np.trace(line.covariance)), rel=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 40), st.integers(1, 8))
def test_a_set_has_no_distance_to_itself(seed, n, d):
    moments = Moments.of(gaussian(seed, n, d))
    # 1e-7 of the trace: the rank-deficient sets among these leave roots of rounding errors.
    assert 0 <= distance_between(moments, moments) <= 1e-7 * (1 + np.trace(moments.covariance))


@settings(max_examples=40, deadline=None)
@given(seeds, seeds)
def test_symmetric_and_never_negative(seed_1, seed_2):
    first, second = Moments.of(gaussian(seed_1, 12, 6)), Moments.of(gaussian(seed_2, 9, 6))
    forward, backward = distance_between(first, second), distance_between(second, first)
    assert forward >= 0
    # 1e-10: both are full rank, and differ by which matrix the root is taken of.
    assert forward == pytest.approx(backward, rel=1e-10, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(seeds, st.lists(st.integers(1, 39), max_size=6), st.floats(0, 1e4))
def test_moments_do_not_depend_on_shards_or_order(seed, cuts, shift):
    rows = gaussian(seed, 40, 5) + shift
    order = np.random.default_rng(seed).permutation(len(rows))
    shards = [part for part in np.split(rows[order], sorted(set(cuts))) if len(part)]
    merged, whole = merge_moments(map(Moments.of, shards)), Moments.of(rows)
    assert merged.n == whole.n
    # 1e-10 relative to the largest entry; raw second moments would miss it by far at a shift of 1e4.
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(
        merged.scatter, whole.scatter, rtol=0, atol=1e-10 * np.abs(whole.scatter).max()
    )


def test_moments_in_single_precision_are_computed_in_double():
    # Rank-deficient, where float32 eigenproblems lose most: 2e-5 of the distance at 512 dimensions.
    first, second = Moments.of(gaussian(1, 40, 128)), Moments.of(gaussian(2, 60, 128))
    single = {
        "mu1": first.mean, "sigma1": first.covariance, "mu2": second.mean, "sigma2": second.covariance,
    }  # fmt: skip
    single = {name: array.astype(np.float32) for name, array in single.items()}
    double = {name: array.astype(np.float64) for name, array in single.items()}
    # Exact: the very same numbers, in double precision from the start.
    assert frechet_distance(**single) == frechet_distance(**double)


def test_moments_are_those_of_numpy():
    rows = gaussian(3, 50, 7)
    moments = merge_moments([Moments.of(rows[:1]), Moments.of(rows[1:30]), Moments.of(rows[30:])])
    # 1e-12: float64 sums of 50 numbers of order one.
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows, rowvar=False), rtol=0, atol=1e-12)


def test_distance_grows_with_added_noise():
    rows = gaussian(4, 400, 8)
    noise = np.random.default_rng(5).normal(size=rows.shape)
    reference = Moments.of(gaussian(4, 400, 8))
    distances = [
        distance_between(reference, Moments.of(rows + level * noise)) for level in (0.0, 0.5, 1.0, 2.0)
    ]
    assert distances == sorted(distances)
    assert distances[1] > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: ones(1, 3).covariance, "at least 2 vectors", id="one vector"),
        pytest.param(
            lambda: distance_between(ones(1, 3), ones(4, 3)), "at least 2 vectors", id="one against four"
        ),
        pytest.param(lambda: ones(0, 3), "shape", id="no vector"),
        pytest.param(lambda: Moments.of(np.ones(3)), "shape", id="rank 1"),
        pytest.param(lambda: Moments.of([[1.0, np.nan]]), "NaN", id="NaN"),
        pytest.param(lambda: ones(2, 3).merge(ones(2, 4)), "cannot be merged", id="merge of two widths"),
        pytest.param(lambda: distance_between(ones(2, 3), ones(2, 4)), "of one d", id="two widths"),
        pytest.param(
            lambda: frechet_distance(np.zeros(2), np.diag([np.inf, 1.0]), np.zeros(2), np.eye(2)),
            "finite",
            id="infinite covariance",
        ),
    ],
)
def test_refuses_what_has_no_distance(call, message):
    with pytest.raises(ValueError, match=message):
        call()
