"""The Fréchet distance of many sets to one reference: value, bootstrap, and what it would be at infinity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sana_bench.metrics.frechet import Matrix, Moments, merge_moments
from sana_bench.results.statistics import Interval, check_level, delete_one_group

__all__ = [
    "BIASED_BELOW",
    "FrechetTo",
    "at_infinity",
    "bootstrap_interval",
    "grouped_moments",
    "left_out",
    "moments_of_blocks",
]

# Below this many images the distance is mostly bias: about 1 for equal distributions at 10,000 (2,048 dimensions).
BIASED_BELOW = 10_000
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class FrechetTo:
    """Distances to the Gaussian of `reference`; the root of its covariance is taken once.

    `beyond` is what is added to every distance: what lies outside the directions that `reference` is given in.
    """

    reference: Moments
    beyond: float = 0.0

    @cached_property
    def _root(self) -> Matrix:
        values, vectors = np.linalg.eigh(self.reference.covariance)
        root: Matrix = vectors * np.sqrt(np.clip(values, 0, None))
        return root

    @cached_property
    def _trace(self) -> float:
        return float(np.trace(self.reference.covariance))

    def distance(self, moments: Moments) -> float:
        """As `frechet_distance`, with the reference first; `ValueError` for fewer than two vectors."""
        covariance = moments.covariance
        if moments.mean.shape != self.reference.mean.shape:
            raise ValueError(f"{len(moments.mean)} and {len(self.reference.mean)} dimensions do not compare")
        cross = np.linalg.eigvalsh(self._root.T @ covariance @ self._root)
        trace_root = float(np.sqrt(np.clip(cross, 0, None)).sum())
        offset = moments.mean - self.reference.mean
        traces = float(np.trace(covariance)) + self._trace
        return max(float(offset @ offset) + traces - 2 * trace_root + self.beyond, 0.0)

    def within(self, origin: Matrix, directions: Matrix) -> "FrechetTo":
        """The same distances for sets that lie in the flat through `origin` along orthonormal `directions` (r, d).

        They take vectors of the r coordinates `(x - origin) @ directions.T`. Of the reference only its part along the
        directions meets the sets' covariances; the rest of its trace and of the offset is in every distance alike.
        """
        offset, scatter = self.reference.mean - origin, self.reference.scatter
        along = Moments(self.reference.n, directions @ offset, directions @ scatter @ directions.T)
        trace_beyond = self._trace - float(np.trace(along.covariance))
        return FrechetTo(along, float(offset @ offset - along.mean @ along.mean) + trace_beyond + self.beyond)


def grouped_moments(
    groups: Sequence[NDArray[np.float32]], reference: FrechetTo
) -> tuple[list[Moments], FrechetTo]:
    """Moments of each group of rows (n, d), and the distances to use for them and any union of them.

    With fewer rows than dimensions everything is told in the directions that the rows span: the same distances, from
    eigenproblems of n instead of d dimensions.
    """
    n, d = sum(map(len, groups)), groups[0].shape[1]
    if n >= d:
        return [moments_of_blocks(group) for group in groups], reference
    rows = np.concatenate(groups).astype(np.float64)
    origin = rows.mean(axis=0)
    directions = np.linalg.qr((rows - origin).T)[0].T
    coordinates = np.split((rows - origin) @ directions.T, np.cumsum([len(group) for group in groups])[:-1])
    return [Moments.of(part) for part in coordinates], reference.within(origin, directions)


def moments_of_blocks(features: NDArray[np.float32]) -> Moments:
    """Moments of many rows, a block at a time: no float64 copy of all of them is made."""
    return merge_moments(
        Moments.of(features[start : start + _BLOCK]) for start in range(0, len(features), _BLOCK)
    )


def bootstrap_interval(
    groups: Sequence[Moments], reference: FrechetTo, *, seed: int, n_draws: int = 50, level: float = 0.95
) -> Interval:
    """Distance of all groups together, with a normal interval from bootstrap draws of whole groups.

    Groups are redrawn one fewer than there are (Rao & Wu 1988). Draws repeat images, which inflates every one of
    them alike: only their spread is used, not where they lie. The reference is held fixed. With fewer than two
    groups, or too few vectors for draws of two, both bounds are NaN.
    """
    check_level(level)
    value = reference.distance(merge_moments(groups))
    if len(groups) < 2:
        return Interval(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        picked = rng.multinomial(len(groups) - 1, np.full(len(groups), 1 / len(groups)))
        drawn = _weighted(groups, picked)
        if drawn.n > 1:
            draws.append(reference.distance(drawn))
    if len(draws) < 2:
        return Interval(value, np.nan, np.nan)
    from scipy.special import ndtri

    half = float(ndtri((1 + level) / 2)) * float(np.std(draws, ddof=1))
    return Interval(value, max(value - half, 0.0), value + half)


def left_out(groups: Sequence[Moments], reference: FrechetTo) -> NDArray[np.float64]:
    """The distance of all groups but one, for each group: shape (groups,). Empty for fewer than two groups."""
    if len(groups) < 2:
        return np.zeros(0)
    return delete_one_group(
        len(groups), lambda kept: reference.distance(merge_moments([groups[index] for index in kept]))
    )


def at_infinity(
    features: NDArray[np.float32],
    reference: FrechetTo,
    *,
    seed: int,
    n_points: int = 15,
    smallest: int = 5000,
) -> float:
    """The distance extrapolated to infinitely many images: a line in 1/n through random subsets of growing size.

    Chong & Forsyth 2020 (arXiv 1911.07023): `n_points` sizes from `smallest` to all. What the finite reference adds
    stays in. May be slightly negative for sets that are close.

    Raises:
        ValueError: fewer than twice `smallest` images.
    """
    if len(features) < 2 * smallest:
        raise ValueError(f"{len(features)} images are too few to extrapolate from subsets of {smallest}")
    rng = np.random.default_rng(seed)
    sizes = np.linspace(smallest, len(features), n_points).astype(int)
    distances = [
        reference.distance(
            moments_of_blocks(features[np.sort(rng.choice(len(features), size, replace=False))])
        )
        for size in sizes
    ]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def _weighted(groups: Sequence[Moments], times: NDArray[np.int64]) -> Moments:
    """Moments of every group taken so many times."""
    used = [(group, int(count)) for group, count in zip(groups, times, strict=True) if count]
    n = sum(count * group.n for group, count in used)
    mean = sum(group.mean * (count * group.n / n) for group, count in used)
    scatter = np.zeros_like(groups[0].scatter)
    for group, count in used:
        delta = group.mean - mean
        scatter += count * (group.scatter + group.n * np.outer(delta, delta))
    return Moments(n, np.asarray(mean), scatter)
