"""Intervals for scores: everything is resampled by cluster, because images of one prompt are not independent.

All arithmetic is float64, every random draw comes from the seed passed in, and no result depends on the
order of the input rows.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Resampling works in blocks of draws so that memory stays near 8 bytes times this, whatever the prompt count.
_BLOCK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A value with a confidence interval; `low` and `high` are NaN where the data cannot give one."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Stratum:
    """Sums and counts of the values of each cluster, shapes (n_clusters,)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def variance_of_mean(self) -> float:
        """Variance of `mean`, from the spread between at least two clusters."""
        n = len(self.sums)
        residuals = self.sums - self.mean * self.counts
        return float(n / (n - 1) * (residuals @ residuals) / self.counts.sum() ** 2)


def clustered_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    seed: int,
    n_draws: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of the mean, or of the unweighted mean of stratum means.

    Whole clusters are redrawn within their stratum, one fewer than there are: that makes the bootstrap
    variance unbiased where a stratum has few clusters (Rao & Wu, 1988). A stratum of a single cluster says
    nothing about the spread between clusters, so both bounds are then NaN.

    Args:
        values: one number per row, all finite.
        clusters: the cluster of each row (its prompt); a cluster belongs to one stratum.
        strata: the stratum of each row (its task); None puts all rows into one.

    Raises:
        ValueError: no rows, lengths that differ, values that are not finite, or a level outside (0, 1).
    """
    groups = stratify(values, clusters, strata)
    check_level(level)
    value = float(np.mean([group.mean for group in groups]))
    if any(len(group.sums) < 2 for group in groups):
        return Interval(value, nan, nan)
    rng = np.random.default_rng(seed)
    draws = np.mean([redraw_means(group, rng, n_draws) for group in groups], axis=0)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def clustered_proportion(
    outcomes: ArrayLike,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    seed: int,
    n_draws: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """Interval of a success rate, or of the unweighted mean of stratum rates; always finite.

    As `clustered_bootstrap`, within [0, 1], except for strata in which the bootstrap sees no spread (all
    outcomes equal, or one cluster). Those contribute a Wilson interval with the number of clusters as sample
    size, joined to the rest by adding squared half-widths (MOVER; Zou & Donner, 2008).
    """
    rates = np.asarray(outcomes, dtype=np.float64)
    groups = stratify(rates, clusters, strata)
    check_level(level)
    if np.any((rates < 0) | (rates > 1)):
        raise ValueError("outcomes of a proportion must lie in [0, 1]")
    value = float(np.mean([group.mean for group in groups]))
    rng = np.random.default_rng(seed)
    below = above = 0.0
    spread: list[NDArray[np.float64]] = []
    for group in groups:
        if len(group.sums) < 2 or group.mean in (0.0, 1.0):
            wilson = wilson_interval(group.mean, len(group.sums), level=level)
            below += (group.mean - wilson.low) ** 2
            above += (wilson.high - group.mean) ** 2
        else:
            spread.append(redraw_means(group, rng, n_draws) - group.mean)
    if spread:
        shift = np.quantile(np.sum(spread, axis=0), [(1 - level) / 2, (1 + level) / 2])
        below += min(shift[0], 0.0) ** 2
        above += max(shift[1], 0.0) ** 2
    return Interval(
        value, max(value - sqrt(below) / len(groups), 0.0), min(value + sqrt(above) / len(groups), 1.0)
    )


def wilson_interval(rate: float, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a success rate seen in `n` independent trials; informative at 0 and 1."""
    if n < 1 or not 0 <= rate <= 1:
        raise ValueError(f"a rate in [0, 1] of at least one trial is needed, got {rate} of {n}")
    check_level(level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    shrink = 1 + z**2 / n
    centre = (rate + z**2 / (2 * n)) / shrink
    half = z * sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / shrink
    # At 0 and 1 the bound equals the rate; rounding must not push it past.
    return Interval(rate, min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate))


def jackknife_interval(value: float, leave_one_out: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student-t interval around `value` from the statistic recomputed without each of g equal groups."""
    check_level(level)
    error, n_groups = jackknife_error(leave_one_out), np.size(leave_one_out)
    half = student_t_quantile((1 + level) / 2, n_groups - 1) * error if n_groups > 1 else nan
    return Interval(value, value - half, value + half)


def jackknife_error(leave_one_out: ArrayLike) -> float:
    """Standard error of a statistic from its values without each of g equal groups; NaN for fewer than two.

    The variance is (g - 1)/g times the squared spread of the leave-one-out values around their own mean, so
    a bias that all of them share (Fréchet distance grows as n shrinks) does not widen it.
    """
    replicates = np.asarray(leave_one_out, dtype=np.float64)
    n_groups = len(replicates)
    if n_groups < 2:
        return nan
    return sqrt((n_groups - 1) / n_groups * float(np.sum((replicates - replicates.mean()) ** 2)))


def delete_one_group(n_groups: int, statistic: Callable[[list[int]], float]) -> NDArray[np.float64]:
    """The statistic of all groups but one, for each group: shape (n_groups,)."""
    everyone = range(n_groups)
    return np.array([statistic([other for other in everyone if other != left_out]) for left_out in everyone])


def t_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Student-t interval of what `clustered_bootstrap` estimates, from the spread between clusters.

    The variance of a stratum's mean is that of a ratio of cluster sums to cluster sizes, linearised (Cochran,
    Sampling Techniques, 1977, section 6.3); strata add up, with Satterthwaite's degrees of freedom. Both bounds
    are NaN where a stratum has a single cluster.
    """
    groups = stratify(values, clusters, strata)
    check_level(level)
    value = float(np.mean([group.mean for group in groups]))
    if any(len(group.sums) < 2 for group in groups):
        return Interval(value, nan, nan)
    variances = np.array([group.variance_of_mean for group in groups])
    if not np.any(variances):
        return Interval(value, value, value)
    # Shares of the total, not squares of variances: those underflow.
    shares = variances / variances.sum()
    freedom = 1 / sum(share**2 / (len(group.sums) - 1) for share, group in zip(shares, groups, strict=True))
    half = student_t_quantile((1 + level) / 2, freedom) * sqrt(variances.sum()) / len(groups)
    return Interval(value, value - half, value + half)


def student_t_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit  # imported here: slow, and most callers of this module need none

    if degrees_of_freedom <= 0 or not 0 < probability < 1:
        raise ValueError(f"no t quantile of {probability} at {degrees_of_freedom} degrees of freedom")
    return float(stdtrit(degrees_of_freedom, probability))


def student_t_p_value(ratio: float, degrees_of_freedom: float) -> float:
    """Two-sided: how often Student's t lies at least this far from 0. A ratio of NaN gives 1."""
    from scipy.special import stdtr

    return 1.0 if isnan(ratio) else float(2 * stdtr(degrees_of_freedom, -abs(ratio)))


def redraw_means(group: Stratum, rng: np.random.Generator, n_draws: int) -> NDArray[np.float64]:
    """Means of `n_draws` bootstrap samples of a stratum's clusters, one cluster fewer than there are."""
    n_clusters = len(group.sums)
    block = draws_per_block(n_clusters)
    means = []
    for start in range(0, n_draws, block):
        size = (min(block, n_draws - start), n_clusters - 1)
        picked = rng.integers(n_clusters, size=size)
        means.append(group.sums[picked].sum(axis=1) / group.counts[picked].sum(axis=1))
    return np.concatenate(means)


def stratify(
    values: ArrayLike, clusters: Sequence[Hashable], strata: Sequence[Hashable] | None
) -> list[Stratum]:
    """Cluster sums and sizes of each stratum, in an order that does not depend on the order of the rows.

    Raises:
        ValueError: no rows, lengths that differ, or values that are not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ValueError(f"at least one value in one dimension is needed, got shape {numbers.shape}")
    labels = [None] * len(numbers) if strata is None else list(strata)
    if not len(numbers) == len(clusters) == len(labels):
        raise ValueError(
            f"{len(numbers)} values, {len(clusters)} clusters and {len(labels)} strata do not match"
        )
    if not np.all(np.isfinite(numbers)):
        raise ValueError("values must be finite")
    members: dict[Hashable, dict[Hashable, list[float]]] = {}
    for label, cluster, number in zip(labels, clusters, numbers.tolist(), strict=True):
        members.setdefault(label, {}).setdefault(cluster, []).append(number)
    # Sorted by name and value: draws and rounding are then the same for every order of the rows.
    return [
        Stratum(
            sums=np.array([sum(sorted(of_stratum[cluster])) for cluster in sorted(of_stratum, key=str)]),
            counts=np.array([float(len(of_stratum[cluster])) for cluster in sorted(of_stratum, key=str)]),
        )
        for _, of_stratum in sorted(members.items(), key=lambda item: str(item[0]))
    ]


def draws_per_block(n_elements: int) -> int:
    """How many draws of `n_elements` numbers each are made at a time."""
    return max(1, _BLOCK_ELEMENTS // n_elements)


def check_level(level: float) -> None:
    """Raises `ValueError` unless the confidence level lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, got {level}")
