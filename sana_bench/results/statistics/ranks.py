"""Do two scores put things in the same order? Rank correlations, with intervals from redrawn prompts.

Kendall's tau-b and Spearman's rho (of mid-ranks), both of which allow ties. Values are arrays (variants, prompts), one number for
each, prompts in an order that does not depend on chance: they are what is redrawn, the same ones for all variants.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.intervals import Interval, check_level, draws_per_block

__all__ = ["RankCorrelation", "correlate_prompts", "correlate_variants"]

Values = NDArray[np.float64]

# Fewer prompts say too little about what other prompts would give.
_FEWEST_FOR_INTERVAL = 10
# The comparison of every prompt with every other takes this many squared numbers.
_MOST_PROMPTS = 2000
_DEFINED_SHARE = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Both correlations of two scores over `n` things; NaN where one of the scores is the same for all of them."""

    kendall: Interval
    spearman: Interval
    n: int


def correlate_prompts(
    a: ArrayLike, b: ArrayLike, *, seed: int, n_draws: int = 1000, level: float = 0.95
) -> RankCorrelation:
    """Correlation over prompts within each variant, as the mean over variants for which it is defined.

    Of more than 2,000 prompts, 2,000 are drawn at random. Bounds are NaN for fewer than ten.

    Raises:
        ValueError: shapes that differ, no values, values that are not finite, or a level outside (0, 1).
    """
    first, second = _checked(a, b)
    check_level(level)
    rng = np.random.default_rng(seed)
    if first.shape[1] > _MOST_PROMPTS:
        kept = np.sort(rng.choice(first.shape[1], size=_MOST_PROMPTS, replace=False))
        first, second = first[:, kept], second[:, kept]
    n = first.shape[1]
    everyone = np.ones((1, n))
    draws = _redrawn(n, n_draws, rng)
    found: list[Interval] = []
    for correlation in (_kendall, _spearman):
        value = _defined_mean([correlation(x, y, everyone) for x, y in zip(first, second, strict=True)])
        redrawn = _defined_mean([correlation(x, y, draws) for x, y in zip(first, second, strict=True)])
        found.append(_interval(float(value[0]), redrawn, level))
    kendall, spearman = found
    return RankCorrelation(kendall, spearman, n)


def correlate_variants(
    a: ArrayLike, b: ArrayLike, *, seed: int, n_draws: int = 1000, level: float = 0.95
) -> RankCorrelation:
    """Correlation over variants of their means over prompts; with fewer than three there is none, and the values are NaN.

    The interval says what other prompts would have given for the same variants, not what other variants would.

    Raises:
        ValueError: as `correlate_prompts`.
    """
    first, second = _checked(a, b)
    check_level(level)
    n_variants, n = first.shape
    if n_variants < 3:
        return RankCorrelation(Interval(nan, nan, nan), Interval(nan, nan, nan), n_variants)
    rng = np.random.default_rng(seed)
    block = draws_per_block(n * n_variants)
    sizes = [min(block, n_draws - start) for start in range(0, n_draws, block)]
    # Row by row, so that variants of equal values keep equal means.
    means = [
        tuple(
            (draws[:, None] * values).sum(axis=2) / draws.sum(axis=1)[:, None] for values in (first, second)
        )
        for draws in (np.ones((1, n)), *(_redrawn(n, size, rng) for size in sizes))
    ]
    equal = np.ones((1, n_variants))
    found = []
    for correlation in (_kendall, _spearman):
        pairs = (pair for one, other in means for pair in zip(one, other, strict=True))
        values = np.array([correlation(x, y, equal)[0] for x, y in pairs])
        found.append(_interval(float(values[0]), values[1:], level))
    kendall, spearman = found
    return RankCorrelation(kendall, spearman, n_variants)


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[Values, Values]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or first.shape != second.shape or 0 in first.shape:
        raise ValueError(f"values by variant and prompt are needed, got shapes {first.shape}, {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("values must be finite")
    return first, second


def _redrawn(n: int, n_draws: int, rng: np.random.Generator) -> Values:
    """How often each of `n` prompts is drawn, one fewer in all than there are: (draws, n); no draws of too few prompts."""
    if n < _FEWEST_FOR_INTERVAL:
        return np.empty((0, n))
    return rng.multinomial(n - 1, np.full(n, 1 / n), size=n_draws).astype(np.float64)


def _kendall(x: Values, y: Values, weights: Values) -> Values:
    """Tau-b of points that stand as often as `weights` (draws, n) say."""
    signs_x, signs_y = (np.sign(values[:, None] - values) for values in (x, y))
    concordant, untied_x, untied_y = (
        _quadratic(weights, product) for product in (signs_x * signs_y, np.abs(signs_x), np.abs(signs_y))
    )
    return _ratio(concordant, np.sqrt(untied_x * untied_y))


def _spearman(x: Values, y: Values, weights: Values) -> Values:
    """Correlation of the mid-ranks that the points have among those drawn."""
    total = weights.sum(axis=1, keepdims=True)
    centred = []
    for values in (x, y):
        # A point stands above what is smaller, and above half of what equals it.
        above = (values < values[:, None]) + 0.5 * (values == values[:, None])
        ranks = weights @ above.T
        centred.append(ranks - (weights * ranks).sum(axis=1, keepdims=True) / total)
    product, square_x, square_y = (
        (weights * one * other).sum(axis=1)
        for one, other in ((centred[0], centred[1]), (centred[0], centred[0]), (centred[1], centred[1]))
    )
    return _ratio(product, np.sqrt(square_x * square_y))


def _quadratic(weights: Values, matrix: Values) -> Values:
    """w' M w for each row w."""
    block = draws_per_block(matrix.shape[0])
    parts = [weights[start : start + block] for start in range(0, len(weights), block)]
    return np.concatenate([np.einsum("dn,dn->d", part @ matrix, part) for part in parts] or [np.empty(0)])


def _ratio(above: Values, below: Values) -> Values:
    # Rounding leaves of a square of zero at most this share of what it was computed from.
    defined = below > 1e-12 * np.maximum(np.abs(above), 1)
    return np.where(defined, np.clip(above / np.where(defined, below, 1), -1, 1), nan)


def _defined_mean(values: list[Values]) -> Values:
    """Mean over variants of what is defined, NaN where nothing is."""
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    sums = np.where(defined, stacked, 0).sum(axis=0)
    return _ratio(sums, defined.sum(axis=0).astype(np.float64)) if stacked.size else np.empty(0)


def _interval(value: float, draws: Values, level: float) -> Interval:
    defined = draws[np.isfinite(draws)]
    if np.isnan(value) or len(draws) == 0 or len(defined) < _DEFINED_SHARE * len(draws):
        return Interval(value, nan, nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
