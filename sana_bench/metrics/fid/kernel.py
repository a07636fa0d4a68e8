"""Kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401), by clean-fid's recipe."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sana_bench.results.statistics.intervals import Interval, delete_one_group, jackknife_interval

__all__ = ["jackknifed_kid", "kernel_distance", "kid_left_out", "unbiased_mmd"]

Rows = NDArray[np.float32] | NDArray[np.float64]
_BLOCK = 2048


def kernel_distance(
    generated: Rows, reference: Rows, *, seed: int, n_subsets: int = 100, largest_subset: int = 1000
) -> float:
    """Mean over random subsets of the unbiased squared maximum mean discrepancy under (x.y / d + 1)^3.

    Subsets of `min(n, m, largest_subset)` rows are drawn without replacement from each set, from `seed`.

    Args:
        generated: shape (n, d).
        reference: shape (m, d).

    Raises:
        ValueError: widths that differ, or fewer than two rows in a set.
    """
    _check(generated, reference)
    size = min(len(generated), len(reference), largest_subset)
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(n_subsets):
        y = reference[rng.choice(len(reference), size, replace=False)]
        x = generated[rng.choice(len(generated), size, replace=False)]
        total += unbiased_mmd(x, y)
    return total / n_subsets


def unbiased_mmd(x: Rows, y: Rows) -> float:
    """The U-statistic of two sets of rows, float64; it may be negative."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    within = sum(_off_diagonal(_kernel(rows, rows)) for rows in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def jackknifed_kid(value: float, generated: Sequence[Rows], reference: Rows) -> Interval:
    """A delete-a-group jackknife interval around `value`; `generated` holds the groups of rows.

    The spread is that of the distance over all rows at once.
    """
    return jackknife_interval(value, kid_left_out(generated, reference))


def kid_left_out(generated: Sequence[Rows], reference: Rows) -> NDArray[np.float64]:
    """The distance of all groups of rows but one, less what the reference adds: shape (groups,).

    That part is the same for every group left out and for every set, so spreads and differences do not need it.
    Empty where a distance is not defined: of fewer than two groups, or of fewer than two rows without one.
    """
    n_groups = len(generated)
    sizes = np.array([len(rows) for rows in generated], dtype=np.float64)
    if n_groups < 2 or sizes.sum() - sizes.max() < 2:
        return np.zeros(0)
    within, across = np.zeros((n_groups, n_groups)), np.zeros(n_groups)
    for first, x in enumerate(generated):
        across[first] = _kernel_sum(x, reference) / len(reference)
        for second in range(first, n_groups):
            within[first, second] = within[second, first] = _kernel_sum(x, generated[second])
        within[first, first] -= float((_diagonal(x)).sum())

    def without(kept: list[int]) -> float:
        n = sizes[kept].sum()
        return float(within[np.ix_(kept, kept)].sum() / (n * (n - 1)) - 2 * across[kept].sum() / n)

    return delete_one_group(n_groups, without)


def _check(generated: Rows, reference: Rows) -> None:
    shapes = np.shape(generated), np.shape(reference)
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"rows of one width are needed, got {shapes[0]} and {shapes[1]}")
    if min(shapes[0][0], shapes[1][0]) < 2:
        raise ValueError(f"at least 2 vectors a set are needed, got {shapes[0][0]} and {shapes[1][0]}")


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = (x @ y.T / x.shape[1] + 1) ** 3
    return values


def _diagonal(x: Rows) -> NDArray[np.float64]:
    rows = np.asarray(x, np.float64)
    values: NDArray[np.float64] = (np.einsum("nd,nd->n", rows, rows) / rows.shape[1] + 1) ** 3
    return values


def _off_diagonal(kernel: NDArray[np.float64]) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _kernel_sum(x: Rows, y: Rows) -> float:
    rows = np.asarray(x, np.float64)
    parts = (np.asarray(y[start : start + _BLOCK], np.float64) for start in range(0, len(y), _BLOCK))
    return sum(float(_kernel(rows, part).sum()) for part in parts)
