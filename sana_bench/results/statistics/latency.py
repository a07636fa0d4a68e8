"""Comparison of the latencies of two variants, measured in turns on one device."""

from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.effect import Effect
from sana_bench.results.statistics.intervals import Interval, check_level


def compare_latency(
    a_ms: ArrayLike,
    b_ms: ArrayLike,
    *,
    minimum_effect: float = 0.02,
    seed: int,
    level: float = 0.95,
    n_draws: int = 10_000,
) -> Effect:
    """Relative change of the median latency from a to b; positive means that b is slower.

    The p-value is against "b is at most `minimum_effect` slower or faster than a": twice the smaller of two
    one-sided Mann-Whitney p-values, of b against a slowed down and against a sped up by that share. With
    `minimum_effect=0` it is the ordinary two-sided test. The interval is a bootstrap of the ratio of medians.
    The effect size is Cliff's delta: the chance that a measurement of b exceeds one of a, minus the chance of
    the opposite.

    Args:
        a_ms: latencies of a in milliseconds (any unit, if both have it), independent measurements.
        b_ms: latencies of b.

    Raises:
        ValueError: fewer than one measurement each, latencies that are not positive and finite, or a minimum
            effect outside [0, 1).
    """
    from scipy.stats import mannwhitneyu

    first, second = _latencies(a_ms), _latencies(b_ms)
    check_level(level)
    if not 0 <= minimum_effect < 1:
        raise ValueError(f"the minimum effect is a share in [0, 1), got {minimum_effect}")
    if n_draws < 1:
        raise ValueError(f"at least one draw is needed, got {n_draws}")
    slower = mannwhitneyu(second, first * (1 + minimum_effect), alternative="greater").pvalue
    faster = mannwhitneyu(second, first / (1 + minimum_effect), alternative="less").pvalue
    above = mannwhitneyu(second, first).statistic
    n = min(len(first), len(second))
    low = high = nan
    if n > 1:
        rng = np.random.default_rng(seed)
        medians_a, medians_b = (_redraw_medians(values, rng, n_draws) for values in (first, second))
        low, high = np.quantile(medians_b / medians_a - 1, [(1 - level) / 2, (1 + level) / 2])
    return Effect(
        difference=float(np.median(second) / np.median(first) - 1),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * float(min(slower, faster))),
        n_pairs=n,
        n_clusters=n,
        effect_size=float(2 * above / (len(first) * len(second)) - 1),
        test="Mann-Whitney" if minimum_effect == 0 else f"Mann-Whitney beyond {100 * minimum_effect:g} %",
    )


def _latencies(values: ArrayLike) -> NDArray[np.float64]:
    # Sorted, so that draws do not depend on the order of measurement.
    latencies = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if len(latencies) == 0 or not np.all(np.isfinite(latencies) & (latencies > 0)):
        raise ValueError("latencies must be positive and finite, at least one for each side")
    return latencies


def _redraw_medians(
    values: NDArray[np.float64], rng: np.random.Generator, n_draws: int
) -> NDArray[np.float64]:
    block = max(1, 4_000_000 // len(values))
    return np.concatenate(
        [
            np.median(rng.choice(values, size=(min(block, n_draws - start), len(values))), axis=1)
            for start in range(0, n_draws, block)
        ]
    )


def quantile_interval(
    values_ms: ArrayLike, quantile: float, *, seed: int, level: float = 0.95, n_draws: int = 2_000
) -> Interval:
    """A quantile of latencies with its percentile bootstrap interval; NaN bounds for a single measurement.

    Measurements count as independent. A quantile near 1 of few measurements is little more than their maximum.

    Raises:
        ValueError: no measurements, latencies that are not positive and finite, or a quantile outside (0, 1).
    """
    values = _latencies(values_ms)
    check_level(level)
    if not 0 < quantile < 1:
        raise ValueError(f"a quantile lies between 0 and 1, got {quantile}")
    value = float(np.quantile(values, quantile))
    if len(values) == 1:
        return Interval(value, nan, nan)
    rng = np.random.default_rng(seed)
    drawn = np.quantile(rng.choice(values, size=(n_draws, len(values))), quantile, axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
