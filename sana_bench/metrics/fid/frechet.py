"""Fréchet distance between Gaussians fitted to two sets of feature vectors.

Reference: Heusel et al. 2017 (arXiv 1706.08500), with moments as pytorch-fid takes them (unbiased
covariance). The trace of the matrix square root comes from symmetric eigenproblems, which stay real and
finite for singular covariances, where a general matrix square root does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sana_bench.results.statistics.intervals import Interval, check_level, delete_one_group

__all__ = [
    "BIASED_BELOW",
    "FrechetTo",
    "at_infinity",
    "bootstrap_interval",
    "grouped_moments",
    "left_out",
    "moments_of_blocks",
]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean (d,) and centred scatter matrix (d, d) of a set of vectors, in float64.

    Merging is exact up to rounding for every split and order (Chan, Golub & LeVeque 1983), so shards can be
    accumulated anywhere and combined later.
    """

    n: int
    mean: Matrix
    scatter: Matrix

    @classmethod
    def of(cls, features: ArrayLike) -> "Moments":
        """Moments of the rows of `features`, shape (n, d); `ValueError` for NaN or infinite entries."""
        rows = np.asarray(features, dtype=np.float64)
        if rows.ndim != 2 or 0 in rows.shape:
            raise ValueError(f"features must have shape (n, d) with n, d >= 1, got {rows.shape}")
        if not np.all(np.isfinite(rows)):
            raise ValueError("features hold NaN or infinite values")
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the union of both sets."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {len(self.mean)} and {len(other.mean)} dimensions cannot be merged")
        n = self.n + other.n
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.n * other.n / n)
        return Moments(n, mean, scatter)

    @property
    def covariance(self) -> Matrix:
        """Unbiased covariance (d, d); raises `ValueError` for fewer than two vectors."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 vectors, got {self.n}")
        return self.scatter / (self.n - 1)


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Moments of the union of all parts, of which there is at least one."""
    return reduce(Moments.merge, parts)


def frechet_distance(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), never negative, computed in float64.

    The last trace is the sum of the square roots of the eigenvalues of sigma1^(1/2) sigma2 sigma1^(1/2), which is
    symmetric.

    Args:
        mu1, mu2: means, shape (d,).
        sigma1, sigma2: covariances, shape (d, d), possibly singular.

    Raises:
        ValueError: shapes that do not match, or entries that are not finite.
    """
    # float32 moments lose up to 2e-5 of the distance in float32 eigenproblems, and nothing once they are float64.
    m1, c1, m2, c2 = (np.asarray(array, dtype=np.float64) for array in (mu1, sigma1, mu2, sigma2))
    d = m1.size
    shapes = [array.shape for array in (m1, c1, m2, c2)]
    if shapes != [(d,), (d, d), (d,), (d, d)]:
        raise ValueError(f"means (d,) and covariances (d, d) of one d are needed, got {shapes}")
    if not all(np.all(np.isfinite(array)) for array in (m1, c1, m2, c2)):
        raise ValueError("means and covariances must be finite")
    values, vectors = np.linalg.eigh(c1)
    # root @ root.T is sigma1, so root.T @ sigma2 @ root has the eigenvalues of sigma1 sigma2.
    root = vectors * np.sqrt(np.clip(values, 0, None))
    cross = np.linalg.eigvalsh(root.T @ c2 @ root)
    trace_root = np.sqrt(np.clip(cross, 0, None)).sum()
    offset = m1 - m2
    distance = offset @ offset + np.trace(c1) + np.trace(c2) - 2 * trace_root
    return max(float(distance), 0.0)


def distance_between(first: Moments, second: Moments) -> float:
    """Fréchet distance of two sets; raises `ValueError` when either has fewer than two vectors."""
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


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
