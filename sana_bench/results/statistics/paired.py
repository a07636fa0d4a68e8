"""Comparison of two variants on the same prompts and seeds.

Rows are pairs of samples. The images of a prompt succeed and fail together, so prompts, not images, are
redrawn by the bootstrap and have their sign flipped by the permutation test. All arithmetic is float64, every
draw comes from the seed, and nothing depends on the order of the rows.
"""

from collections.abc import Hashable, Sequence
from math import asin, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.effect import Effect
from sana_bench.results.statistics.intervals import (
    Interval,
    Stratum,
    check_level,
    clustered_bootstrap,
    draws_per_block,
    redraw_means,
    stratify,
    wilson_interval,
)

# Up to this many prompts that differ, all 2^n sign patterns are counted instead of drawn.
_MOST_ENUMERATED = 13
# Sums of the same weights in another order differ by rounding only; such ties count as ties.
_TIE_TOLERANCE = 1e-12


def compare_proportions(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    seed: int,
    level: float = 0.95,
    n_draws: int = 10_000,
) -> Effect:
    """Difference of two success rates (or of unweighted means of stratum rates) over paired samples.

    The p-value is McNemar's exact one where every prompt has one sample and the same weight, else that of sign
    flips as in `compare_means`. The interval is a paired bootstrap over prompts; strata in which all prompts differ
    equally (not at all, say) contribute Wilson bounds instead, because a bootstrap would claim certainty.
    The effect size is Cohen's h.

    Args:
        a: outcomes of the first variant, 0 or 1 (or booleans), one per pair.
        b: outcomes of the second variant for the same prompts and seeds.
        clusters: the prompt of each pair.
        strata: the task of each pair; a prompt belongs to one task.

    Raises:
        ValueError: no pairs, lengths that differ, outcomes other than 0 and 1, a prompt in two strata, or a
            level outside (0, 1).
    """
    first, second = paired_rows(a, b)
    if not np.all(np.isin(first, (0, 1)) & np.isin(second, (0, 1))):
        raise ValueError("outcomes must be 0 or 1")
    _check_draws(n_draws, level)
    _check_nesting(clusters, strata)
    groups = stratify(second - first, clusters, strata)
    interval = _rate_difference_interval(groups, seed=seed, n_draws=n_draws, level=level)
    n_clusters = sum(len(group.sums) for group in groups)
    if n_clusters == len(first) and len({len(group.sums) for group in groups}) == 1:
        p_value, test = mcnemar(first, second), "McNemar exact"
    else:
        p_value, test = _sign_flip(groups, seed=seed, n_draws=n_draws), "sign-flip permutation"
    rate_a, rate_b = (
        np.mean([group.mean for group in stratify(x, clusters, strata)]) for x in (first, second)
    )
    return Effect(
        interval.value, interval.low, interval.high, p_value, len(first), n_clusters,
        cohens_h(float(rate_a), float(rate_b)), test,
    )  # fmt: skip


def compare_means(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    seed: int,
    level: float = 0.95,
    n_draws: int = 10_000,
) -> Effect:
    """Difference of two mean scores (or of unweighted means of stratum means) over paired samples.

    The p-value says how often a difference this large appears when each prompt could as well have had the
    opposite sign. All patterns of signs are counted where at most 13 prompts differ. Otherwise `n_draws` are drawn
    and the observed one is added to them, so that p is never 0 and the test never rejects too often (Phipson & Smyth,
    2010). The interval is a paired bootstrap over prompts (NaN where a stratum has a single prompt). The effect size
    divides the difference by the standard deviation of the prompts' differences within strata.

    Args and errors as `compare_proportions`, with any finite scores.
    """
    first, second = paired_rows(a, b)
    _check_draws(n_draws, level)
    _check_nesting(clusters, strata)
    differences = second - first
    groups = stratify(differences, clusters, strata)
    interval = clustered_bootstrap(differences, clusters, strata, seed=seed, n_draws=n_draws, level=level)
    p_value = _sign_flip(groups, seed=seed, n_draws=n_draws)
    return Effect(
        interval.value, interval.low, interval.high, p_value, len(first),
        sum(len(group.sums) for group in groups), _standardised(interval.value, groups), "sign-flip permutation",
    )  # fmt: skip


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided p-value of McNemar's test: wins against losses among pairs that differ, at even odds.

    Right only where pairs are independent: one sample a prompt. 1 where no pair differs.
    """
    from scipy.stats import binomtest

    first, second = paired_rows(a, b)
    if not np.all(np.isin(first, (0, 1)) & np.isin(second, (0, 1))):
        raise ValueError("outcomes must be 0 or 1")
    wins, losses = int(np.sum(second > first)), int(np.sum(second < first))
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def cohens_h(rate_a: float, rate_b: float) -> float:
    """Cohen's h of two rates: the difference of 2 arcsin(sqrt(rate)); 0.2 is small, 0.5 medium, 0.8 large."""
    return 2 * asin(sqrt(min(max(rate_b, 0), 1))) - 2 * asin(sqrt(min(max(rate_a, 0), 1)))


def paired_rows(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both columns in float64; `ValueError` unless they are one-dimensional, equally long, filled and finite."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise ValueError(f"pairs are needed, at least one; got shapes {first.shape} and {second.shape}")
    if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
        raise ValueError("values must be finite")
    return first, second


def _check_draws(n_draws: int, level: float) -> None:
    check_level(level)
    if n_draws < 1:
        raise ValueError(f"at least one draw is needed, got {n_draws}")


def _check_nesting(clusters: Sequence[Hashable], strata: Sequence[Hashable] | None) -> None:
    seen: dict[Hashable, Hashable] = {}
    for cluster, stratum in zip(clusters, strata or (), strict=False):
        if seen.setdefault(cluster, stratum) != stratum:
            raise ValueError(f"cluster {cluster!r} lies in two strata: {seen[cluster]!r} and {stratum!r}")


def _sign_flip(groups: list[Stratum], *, seed: int, n_draws: int) -> float:
    # The statistic is the sum of one weighted term a prompt; terms of zero have no sign to flip.
    terms = np.concatenate([group.sums / group.counts.sum() for group in groups])
    terms = terms[terms != 0]
    if len(terms) == 0:
        return 1.0
    threshold = abs(terms.sum()) - _TIE_TOLERANCE * np.abs(terms).sum()
    # With signs at random only sizes matter; sorted, neither names of prompts nor exchanging a and b do.
    terms = np.sort(np.abs(terms))
    if len(terms) <= _MOST_ENUMERATED:
        patterns = 1 - 2 * (np.arange(2 ** len(terms))[:, None] >> np.arange(len(terms)) & 1)
        return float(np.mean(np.abs(patterns @ terms) >= threshold))
    rng = np.random.default_rng((seed, 1))
    block = draws_per_block(len(terms))
    extreme = 0
    for start in range(0, n_draws, block):
        flipped = rng.integers(2, size=(min(block, n_draws - start), len(terms)), dtype=np.int8)
        extreme += int(np.sum(np.abs(terms.sum() - 2 * (flipped @ terms)) >= threshold))
    return (extreme + 1) / (n_draws + 1)


def _rate_difference_interval(groups: list[Stratum], *, seed: int, n_draws: int, level: float) -> Interval:
    value = float(np.mean([group.mean for group in groups]))
    varied = [group for group in groups if np.ptp(group.sums / group.counts) > 0]
    alike = [group for group in groups if np.ptp(group.sums / group.counts) == 0]
    below = above = 0.0
    if varied:
        rng = np.random.default_rng(seed)
        shifts = np.sum([redraw_means(group, rng, n_draws) - group.mean for group in varied], axis=0)
        low, high = np.quantile(shifts, [(1 - level) / 2, (1 + level) / 2])
        below, above = min(float(low), 0.0) ** 2, max(float(high), 0.0) ** 2
    if alike:
        down, up = _bounds_without_spread(alike, level)
        below, above = below + (len(alike) * down) ** 2, above + (len(alike) * up) ** 2
    return Interval(
        value, max(value - sqrt(below) / len(groups), -1.0), min(value + sqrt(above) / len(groups), 1.0)
    )


def _bounds_without_spread(groups: list[Stratum], level: float) -> tuple[float, float]:
    """How far below and above their common mean difference the truth may lie, prompts being the trials.

    Wins and losses get a Wilson interval each; squared half-widths add (MOVER; Newcombe, 1998).
    """
    mean = float(np.mean([group.mean for group in groups]))
    trials = len(groups) * min(len(group.sums) for group in groups)
    wins = wilson_interval(max(mean, 0.0), trials, level=level)
    losses = wilson_interval(max(-mean, 0.0), trials, level=level)
    down = sqrt((wins.value - wins.low) ** 2 + (losses.high - losses.value) ** 2)
    up = sqrt((wins.high - wins.value) ** 2 + (losses.value - losses.low) ** 2)
    return down, up


def _standardised(difference: float, groups: list[Stratum]) -> float:
    of_clusters = [group.sums / group.counts for group in groups]
    freedom = sum(len(means) - 1 for means in of_clusters)
    if freedom == 0:
        return nan
    spread = sqrt(sum(float(np.sum((means - means.mean()) ** 2)) for means in of_clusters) / freedom)
    if spread <= _TIE_TOLERANCE * max(float(np.max(np.abs(means))) for means in of_clusters):
        return 0.0 if difference == 0 else nan
    return difference / spread
