"""Comparison of two sets of images by their distance to one reference, prompts being the units.

Distances have no value per image, so both the interval and the test work on whole sets: the bootstrap redraws
prompts (the same for both sets), the permutation test exchanges the two variants' images of whole prompts. The
reference is held fixed. Each image is one row of features; row i of both sets has the same prompt and seed.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.effect import Effect
from sana_bench.results.statistics.intervals import (
    check_level,
    jackknife_error,
    jackknife_interval,
    student_t_p_value,
)

Matrix = NDArray[np.float64]
# Takes the number of times each prompt of a and of b is in the set, shape (2, n_clusters); gives the distance.
_Distance = Callable[[Matrix], float]


def compare_frechet(
    features_a: ArrayLike,
    features_b: ArrayLike,
    reference: tuple[ArrayLike, ArrayLike],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    level: float = 0.95,
    n_draws: int = 1000,
) -> Effect:
    """Difference of the Fréchet distances of b and a to a Gaussian reference; negative means b is closer.

    Drawing images twice inflates both distances alike, so the bootstrap draws of the difference are centred
    on the difference seen. The effect size is the difference relative to the distance of a.

    Args:
        features_a: shape (n, d).
        features_b: shape (n, d).
        reference: mean (d,) and covariance (d, d).
        clusters: the prompt of each row.

    Raises:
        ValueError: shapes that do not match, fewer than two rows, or entries that are not finite.
    """
    sets = _Sets.of(features_a, features_b, clusters)
    mean, covariance = (np.asarray(part, dtype=np.float64) for part in reference)
    d = sets.rows.shape[1]
    if mean.shape != (d,) or covariance.shape != (d, d):
        raise ValueError(f"a reference of {d} dimensions is needed, got {mean.shape} and {covariance.shape}")
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        raise ValueError("the reference must be finite")
    values, vectors = np.linalg.eigh(covariance)
    # The reference never changes, so its root is taken once; see `frechet` of the metrics for the formula.
    rotated = sets.rows @ (vectors * np.sqrt(np.clip(values, 0, None)))
    norms, trace = np.sum(sets.rows**2, axis=1), float(np.trace(covariance))

    def distance(counts: Matrix) -> float:
        weights = counts[sets.side, sets.cluster]
        n = weights.sum()
        centre, turned = weights @ sets.rows / n, weights @ rotated / n
        cross = ((rotated * weights[:, None]).T @ rotated - n * np.outer(turned, turned)) / (n - 1)
        spread = (weights @ norms - n * centre @ centre) / (n - 1)
        trace_root = np.sqrt(np.clip(np.linalg.eigvalsh(cross), 0, None)).sum()
        offset = centre - mean
        return float(max(offset @ offset + spread + trace - 2 * trace_root, 0.0))

    return _compare(sets, distance, seed=seed, level=level, n_draws=n_draws)


def compare_left_out(
    values: tuple[float, float],
    left_out: tuple[ArrayLike, ArrayLike],
    *,
    n_pairs: int,
    n_clusters: int,
    level: float = 0.95,
) -> Effect:
    """Difference of two distances from what each is without one of the same groups of prompts.

    For sets so large that a permutation test would take hours: the spread is the delete-a-group jackknife's, the test
    Student's t with one degree of freedom fewer than there are groups. What leaving images out does to both distances
    alike, as it does to Fréchet's, is not in it. The effect size is the difference relative to the distance of a.

    Args:
        values: the distances of a and b over all images.
        left_out: for a and for b the distance without each group, shape (groups,); group i has the same prompts.

    Raises:
        ValueError: other numbers of groups on both sides, or fewer than two.
    """
    first, second = (np.asarray(side, dtype=np.float64) for side in left_out)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(f"two equal numbers of groups are needed, got shapes {first.shape}, {second.shape}")
    difference = values[1] - values[0]
    interval = jackknife_interval(difference, second - first, level=level)
    error = jackknife_error(second - first)
    ratio = difference / error if error > 0 else (np.inf if difference else np.nan)
    return Effect(
        difference=difference,
        low=interval.low,
        high=interval.high,
        p_value=student_t_p_value(ratio, len(first) - 1),
        n_pairs=n_pairs,
        n_clusters=n_clusters,
        effect_size=difference / values[0] if values[0] > 0 else np.nan,
        test="paired delete-a-group jackknife",
    )


@dataclass(frozen=True, eq=False)
class _Sets:
    """Rows of both variants, stacked: features, 0 for a and 1 for b, and the number of the row's prompt."""

    rows: Matrix
    side: NDArray[np.int64]
    cluster: NDArray[np.int64]
    n_clusters: int

    @classmethod
    def of(cls, features_a: ArrayLike, features_b: ArrayLike, clusters: Sequence[Hashable]) -> "_Sets":
        first, second = np.asarray(features_a, dtype=np.float64), np.asarray(features_b, dtype=np.float64)
        if first.ndim != 2 or first.shape != second.shape or 0 in first.shape:
            raise ValueError(f"two sets of shape (n, d) are needed, got {first.shape} and {second.shape}")
        if len(clusters) != len(first):
            raise ValueError(f"{len(first)} rows and {len(clusters)} clusters do not match")
        if len(first) < 2:
            raise ValueError("a distance needs at least two images")
        if not (np.all(np.isfinite(first)) and np.all(np.isfinite(second))):
            raise ValueError("features must be finite")
        names = {name: number for number, name in enumerate(sorted(set(clusters), key=str))}
        cluster = np.array([names[name] for name in clusters])
        # Rows in an order of their own, so that sums round alike however they arrive.
        order = np.lexsort((*second.T[::-1], *first.T[::-1], cluster))
        side = np.repeat([0, 1], len(first))
        return cls(
            np.concatenate([first[order], second[order]]), side, np.tile(cluster[order], 2), len(names)
        )


def _compare(sets: _Sets, distance: _Distance, *, seed: int, level: float, n_draws: int) -> Effect:
    check_level(level)
    if n_draws < 1:
        raise ValueError(f"at least one draw is needed, got {n_draws}")
    n = sets.n_clusters
    nothing, everything = np.zeros(n), np.ones(n)
    of_a = distance(np.stack([everything, nothing]))
    difference = distance(np.stack([nothing, everything])) - of_a
    low, high = _bootstrap(sets, distance, difference, seed=seed, level=level, n_draws=n_draws)
    rng = np.random.default_rng((seed, 1))
    extreme = 0
    for _ in range(n_draws):
        kept = rng.integers(2, size=n).astype(np.float64)
        exchanged = distance(np.stack([1 - kept, kept])) - distance(np.stack([kept, 1 - kept]))
        # A hundred-millionth: the same sets summed in another order differ by rounding only.
        extreme += abs(exchanged) >= abs(difference) * (1 - 1e-8)
    same = bool(np.array_equal(sets.rows[sets.side == 0], sets.rows[sets.side == 1]))
    return Effect(
        difference=0.0 if same else difference,
        low=low,
        high=high,
        p_value=1.0 if same else (extreme + 1) / (n_draws + 1),
        n_pairs=len(sets.side) // 2,
        n_clusters=n,
        effect_size=difference / of_a if of_a > 0 else np.nan,
        test="prompt-exchange permutation",
    )


def _bootstrap(
    sets: _Sets, distance: _Distance, difference: float, *, seed: int, level: float, n_draws: int
) -> tuple[float, float]:
    n = sets.n_clusters
    if n < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    sizes = np.bincount(sets.cluster[sets.side == 0])
    draws: list[float] = []
    while len(draws) < n_draws:
        counts = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
        # One image over and over has no spread; such draws say nothing.
        if np.sum(sizes[counts > 0]) < 2:
            continue
        nothing = np.zeros(n)
        draws.append(distance(np.stack([nothing, counts])) - distance(np.stack([counts, nothing])))
    centred = np.array(draws) - np.mean(draws) + difference
    low, high = np.quantile(centred, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
