"""Lasting changes of level in the history of one number over many runs.

The series is cut into the segments of least squared error (exact, by dynamic programming), with as many cuts as
all hold up in a t test between neighbouring segments. One stray run is replaced before that, so that it neither
makes a step nor hides one.

A t test takes the noise for normal. So a cut must also hold up when the runs beside it are reordered, which
assumes nothing about the noise but needs a dozen runs to say anything; where they are fewer, cleanly separated
levels of a continuous measurement pass on the t test alone, and noise of a few values does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_MOST_STEPS = 20
# A run this many robust standard deviations from the median of its neighbours is a stray.
_STRAY = 5.0
# Reorderings tried for a cut, times the level: the standard error of a p-value at the level is a tenth of it.
_REORDERINGS = 100


@dataclass(frozen=True)
class Step:
    """A change of level.

    Attributes:
        index: the first run of the new level.
        before: mean of the segment that ends there, stray runs replaced.
        after: mean of the segment that starts there.
        p_value: corrected for the number of places and steps tried; the larger of the two tests'.
    """

    index: int
    before: float
    after: float
    p_value: float


def detect_steps(
    series: Sequence[float],
    *,
    noise: Sequence[float] | None = None,
    level: float = 0.01,
    min_segment: int = 3,
) -> list[Step]:
    """Steps in a series of runs in order of time, none where the series is too short to tell.

    The p-value of a cut is that of a two-sample t test between the segments beside it, with the spread taken
    from all segments, times the number of places and of cuts (Bonferroni, since the cut was chosen to look
    large). Where the noise is not known, reordering the runs must confirm each cut, which keeps the level for
    noise that is not normal. Runs are taken as independent; a slow drift shows as steps.

    Args:
        noise: standard deviation of each run's value where it is known from repeats of one run. It then
            replaces the estimated spread (never below what the runs show) and weighs the runs.
        level: chance of reporting any step in a series that has none.
        min_segment: fewest runs that make a level.

    Raises:
        ValueError: values that are not finite, noise that is not positive or of another length, a level
            outside (0, 1), or segments shorter than 2.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1 or not np.all(np.isfinite(values)):
        raise ValueError("a series is one-dimensional and finite")
    if not 0 < level < 1:
        raise ValueError(f"the level lies between 0 and 1, got {level}")
    if min_segment < 2:
        raise ValueError(f"a level takes at least 2 runs, got {min_segment}")
    weights = _weights(values, noise)
    if len(values) < max(2 * min_segment, 5):
        return []
    values = _replace_strays(values)
    raw = np.asarray(series, dtype=np.float64)
    found: list[Step] = []
    for cuts in _best_cuts(values, weights, min_segment)[1:]:
        steps = _test(values, weights, cuts, known=noise is not None)
        if noise is None and all(step.p_value <= level for step in steps):
            steps = _reordered(values, raw, steps, min_segment, level)
        if all(step.p_value <= level for step in steps):
            found = steps
    return found


def _reordered(
    values: Numbers, raw: Numbers, steps: list[Step], min_segment: int, level: float
) -> list[Step]:
    """The steps with p-values not below those of reordering the runs of the two segments beside each.

    `raw` is the series before strays were replaced.
    """
    continuous = len(np.unique(raw)) == len(raw)
    # Two levels, each repeated to the digit by every run, are a repeatable measurement that changed.
    repeated = len(steps) == 1 and all(np.ptp(part) == 0 for part in np.split(raw, [steps[0].index]))
    edges = [0, *(step.index for step in steps), len(values)]
    result = []
    for step, start, end in zip(steps, edges, edges[2:], strict=False):
        left, right = values[start : step.index], values[step.index : end]
        apart = left.max() < right.min() or right.max() < left.min()
        if not (apart and (continuous or repeated)):
            p_value = len(steps) * _reordering_p(values[start:end], step.index - start, min_segment, level)
            step = replace(step, p_value=min(1.0, max(step.p_value, p_value)))
        result.append(step)
    return result


def _reordering_p(values: Numbers, cut: int, min_segment: int, level: float) -> float:
    """Share of reorderings whose best single cut separates at least as well as `cut`, itself counted."""
    n = len(values)
    places = np.arange(min_segment, n - min_segment + 1)
    centred = values - values.mean()
    # Between-segment sum of squares up to a factor; `total` of all runs is 0.
    scale = n / (places * (n - places))
    observed = float(centred[:cut].sum() ** 2 * n / (cut * (n - cut))) * (1 - 1e-9)
    rng = np.random.default_rng(0)
    left, reached, draws = round(_REORDERINGS / level) - 1, 0, 0
    while left > 0:
        size = min(left, max(1, 2_000_000 // n))
        sums = np.cumsum(rng.permuted(np.tile(centred, (size, 1)), axis=1), axis=1)[:, places - 1]
        reached += int(np.count_nonzero((sums**2 * scale).max(axis=1) >= observed))
        draws, left = draws + size, left - size
    return (reached + 1) / (draws + 1)


def _weights(values: Numbers, noise: Sequence[float] | None) -> Numbers:
    if noise is None:
        return np.ones(len(values))
    deviations = np.asarray(noise, dtype=np.float64)
    if deviations.shape != values.shape:
        raise ValueError(f"{len(values)} values and noise of shape {deviations.shape} do not match")
    if not np.all(np.isfinite(deviations) & (deviations > 0)):
        raise ValueError("noise must be positive and finite")
    weights: Numbers = 1 / deviations**2
    return weights


def _replace_strays(values: Numbers) -> Numbers:
    """The series with stray runs replaced by the median of the five runs around.

    A stray is more than five robust standard deviations (from the differences of neighbours, which steps hardly
    touch) from that median. Where more than one run in forty, beside the first, is that far, the noise itself has
    long tails: nothing is replaced then, because it would hide the spread.
    """
    n = len(values)
    # At the ends the three runs there stand in, so that a level of three runs keeps its own median.
    windows = [
        values[:3],
        values[:3],
        *(values[i - 2 : i + 3] for i in range(2, n - 2)),
        values[-3:],
        values[-3:],
    ]
    medians = np.array([np.median(window) for window in windows])
    changes = np.abs(np.diff(values))
    # 0.6745: the normal's median absolute deviation; a difference of two runs spreads sqrt(2) times as far.
    limit = _STRAY * float(np.median(changes)) / (0.6745 * sqrt(2))
    strays = np.abs(values - medians) > limit
    return values if strays.sum() > 1 + n // 40 else np.where(strays, medians, values)


def _best_cuts(values: Numbers, weights: Numbers, min_segment: int) -> list[list[int]]:
    """For each number of cuts from 0 up, the cuts of least weighted squared error."""
    n = len(values)
    centred = values - values.mean()
    w, wx, wxx = (
        np.concatenate([[0.0], np.cumsum(column)])
        for column in (weights, weights * centred, weights * centred**2)
    )

    def cost(starts: NDArray[np.int64], end: int) -> Numbers:
        mass, total = w[end] - w[starts], wx[end] - wx[starts]
        return np.maximum(wxx[end] - wxx[starts] - total**2 / mass, 0.0)

    best = np.full(n + 1, np.inf)
    for end in range(min_segment, n + 1):
        best[end] = cost(np.array([0]), end)[0]
    origins: list[NDArray[np.int64]] = []
    result: list[list[int]] = [[]]
    for n_cuts in range(1, min(n // min_segment - 1, _MOST_STEPS) + 1):
        following, origin = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=np.int64)
        for end in range((n_cuts + 1) * min_segment, n + 1):
            starts = np.arange(n_cuts * min_segment, end - min_segment + 1)
            errors = best[starts] + cost(starts, end)
            chosen = int(np.argmin(errors))
            following[end], origin[end] = errors[chosen], starts[chosen]
        best = following
        origins.append(origin)
        cuts, end = [], n
        for previous in reversed(origins):
            end = int(previous[end])
            cuts.append(end)
        result.append(cuts[::-1])
    return result


def _test(values: Numbers, weights: Numbers, cuts: list[int], *, known: bool) -> list[Step]:
    from scipy.special import ndtr, stdtr

    n, edges = len(values), [0, *cuts, len(values)]
    spans = [slice(start, end) for start, end in pairwise(edges)]
    masses = [float(weights[span].sum()) for span in spans]
    means = [float(weights[span] @ values[span]) / mass for span, mass in zip(spans, masses, strict=True)]
    squares = sum(
        float(weights[span] @ (values[span] - mean) ** 2) for span, mean in zip(spans, means, strict=True)
    )
    freedom = n - len(spans)
    scale = sqrt(squares / freedom)
    # Values that agree to rounding have no spread; a division by it would find steps in the last digits.
    rounding = 8 * float(np.spacing(np.abs(values).max())) * sqrt(float(weights.max()))
    scale = max(scale, rounding, 1.0 if known else 0.0)
    steps = []
    for i, cut in enumerate(cuts):
        error = scale * sqrt(1 / masses[i] + 1 / masses[i + 1])
        ratio = abs(means[i + 1] - means[i]) / error
        tail = 2 * float(ndtr(-ratio) if known else stdtr(freedom, -ratio))
        steps.append(Step(cut, means[i], means[i + 1], min(1.0, tail * (n - 1) * len(cuts))))
    return steps
