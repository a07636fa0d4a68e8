"""How small a difference a set of prompts can show, and how many prompts a difference needs.

Both use the power of the paired t test over prompts (noncentral t), with the standard deviation between the
prompts' differences taken from results at hand. The sign-flip test has nearly the same power.
"""

from collections.abc import Hashable, Sequence
from math import ceil, inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.intervals import stratify, student_t_quantile
from sana_bench.results.statistics.paired import paired_rows

_MOST_PROMPTS = 10**9


def cluster_differences(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None
) -> NDArray[np.float64]:
    """Mean of b - a for each prompt, shape (n_clusters,): what the other functions here take.

    With strata, each stratum's differences are moved to the mean of the stratum means: what remains is the
    spread within strata, the only one that a stratified score suffers from.
    """
    first, second = paired_rows(a, b)
    groups = stratify(second - first, clusters, strata)
    overall = np.mean([group.mean for group in groups])
    return np.concatenate(
        [group.sums / group.counts - (group.mean - overall if strata is not None else 0) for group in groups]
    )


def minimum_detectable_effect(
    differences_by_cluster: ArrayLike, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true difference that these prompts would show with the given power at two-sided level alpha.

    0 where all prompts differ by the same amount.

    Raises:
        ValueError: fewer than two prompts, differences that are not finite, or power not between alpha and 1.
    """
    spread, n = _spread(differences_by_cluster, power, alpha)
    return _noncentrality(n, power, alpha) * spread / sqrt(n)


def prompts_needed(
    differences_by_cluster: ArrayLike, effect: float, *, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest prompts, of the same kind and images each, that show a true difference of `effect`; at least 2.

    None where more than a thousand million are needed.

    Raises:
        ValueError: as `minimum_detectable_effect`; or an effect that is zero or not finite.
    """
    spread, _ = _spread(differences_by_cluster, power, alpha)
    if not 0 < abs(effect) < inf:
        raise ValueError(f"the effect to be shown must be finite and not zero, got {effect}")
    ratio = abs(effect) / spread if spread > 0 else inf

    def enough(n: int) -> bool:
        return _noncentrality(n, power, alpha) <= ratio * sqrt(n)

    if not enough(_MOST_PROMPTS):
        return None
    few, many = 1, _MOST_PROMPTS
    while many - few > 1:
        middle = ceil((few + many) / 2)
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _spread(differences: ArrayLike, power: float, alpha: float) -> tuple[float, int]:
    values = np.sort(np.asarray(differences, dtype=np.float64), axis=None)
    if len(values) < 2 or not np.all(np.isfinite(values)):
        raise ValueError("finite differences of at least two prompts are needed")
    if not 0 < alpha < power < 1:
        raise ValueError(f"0 < alpha < power < 1 is needed, got alpha {alpha} and power {power}")
    return float(values.std(ddof=1)) if values[0] != values[-1] else 0.0, len(values)


def _noncentrality(n: int, power: float, alpha: float) -> float:
    """True difference in standard errors at which a two-sided t test over n prompts has the given power."""
    from scipy.special import nctdtr, ndtri

    if n > 10_000:  # the noncentral t is the normal to 1e-4 by then
        return float(ndtri(1 - alpha / 2) + ndtri(power))
    critical = student_t_quantile(1 - alpha / 2, n - 1)

    # The far tail (a significant difference of the wrong sign) has a chance far below alpha / 2: left out.
    def reached(noncentrality: float) -> bool:
        return bool(1 - nctdtr(n - 1, noncentrality, critical) >= power)

    low, high = 0.0, 2 * critical
    while not reached(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
