"""What two sets of feature vectors, or one, say beside Fréchet and kernel distances: CMMD, precision and the like, Vendi.

Every measure takes the rows of a set in groups and gives its value with the values that it has without each group, from which
intervals and comparisons are made. All sums are float64.

Sources: CMMD, Jayasumana et al. 2024 (arXiv 2401.09603); precision and recall, Kynkäänniemi et al. 2019 (arXiv 1904.06991);
density and coverage, Naeem et al. 2020 (arXiv 2002.09797); the Vendi score, Friedman and Dieng 2023 (arXiv 2210.02410).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import IncompleteError
from sana_bench.results.statistics.intervals import delete_one_group

__all__ = ["MEASURES", "NEAREST", "Measure", "cmmd", "coverage", "density", "precision", "recall", "vendi"]

Rows = NDArray[np.float32] | NDArray[np.float64]
Values = NDArray[np.float64]
LeftOut = tuple[float, Values]

#: How many nearest neighbours make a vector's surroundings, as Naeem et al. take them.
NEAREST = 5
_BANDWIDTH = 10.0
_SCALE = 1000.0
_BLOCK = 1024


@dataclass(frozen=True)
class Measure:
    """`compute` takes groups of rows (n_g, d) and reference rows (m, d); `least` is how many rows either set needs."""

    compute: Callable[[Sequence[Rows], Rows], LeftOut]
    unit: str
    higher_is_better: bool
    least: int = 2
    referenced: bool = True


def cmmd(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """1,000 times the biased squared maximum mean discrepancy of unit vectors under exp(-|x - y|^2 / 200)."""
    sets = [_unit(rows) for rows in groups]
    others = _unit(reference)
    within = np.array([[_kernel_sum(x, y) for y in sets] for x in sets])
    across = np.array([_kernel_sum(x, others) for x in sets]) / len(others)
    own = _kernel_sum(others, others) / len(others) ** 2
    sizes = np.array([len(rows) for rows in sets], np.float64)

    def of(kept: list[int]) -> float:
        n = sizes[kept].sum()
        square = within[np.ix_(kept, kept)].sum() / n**2 + own - 2 * across[kept].sum() / n
        return _SCALE * max(float(square), 0.0)

    return _with_left_out(len(sets), of)


def precision(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """The share of rows within the surroundings of some reference row: as far as its fifth nearest of the reference."""
    hits = [np.concatenate([near.any(axis=1) for near in _near(rows, reference)]) for rows in groups]
    return _mean_of_rows([found.astype(np.float64) for found in hits])


def density(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """In how many surroundings of reference rows a row lies, on average, as a multiple of five; not limited to 1."""
    counts = [np.concatenate([near.sum(axis=1) for near in _near(rows, reference)]) for rows in groups]
    return _mean_of_rows([found / NEAREST for found in counts])


def coverage(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """The share of reference rows in whose surroundings some row lies."""
    return _share_of_reference(
        np.array([np.any([near.any(axis=0) for near in _near(rows, reference)], axis=0) for rows in groups])
    )


def recall(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """The share of reference rows within the surroundings of some row; these stay as they are where a group is left out."""
    radii = _radii(np.concatenate(groups))
    others = np.asarray(reference, np.float64)
    met, start = [], 0
    for rows in groups:
        part = radii[start : start + len(rows)]
        start += len(rows)
        blocks = zip(_blocks(rows), _blocks(part), strict=True)
        met.append(
            np.any([(_squares(x, others) < limit[:, None]).any(axis=0) for x, limit in blocks], axis=0)
        )
    return _share_of_reference(np.array(met))


def vendi(groups: Sequence[Rows], reference: Rows) -> LeftOut:
    """How many images of no likeness at all would be as diverse: exp of the entropy of the cosine kernel's eigenvalues.

    `reference` is not looked at. The kernel's eigenvalues but for zeros are those of the rows' second moments.
    """
    units = [_unit(rows) for rows in groups]
    moments, sizes = [x.T @ x for x in units], np.array([len(x) for x in units])

    def of(kept: list[int]) -> float:
        values = np.linalg.eigvalsh(sum(moments[index] for index in kept) / sizes[kept].sum())
        shares = values[values > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))

    return _with_left_out(len(units), of)


MEASURES = {
    "cmmd": Measure(cmmd, "x 1000", False),
    "precision": Measure(precision, "fraction", True, NEAREST + 1),
    "recall": Measure(recall, "fraction", True, NEAREST + 1),
    "density": Measure(density, "", True, NEAREST + 1),
    "coverage": Measure(coverage, "fraction", True, NEAREST + 1),
    "vendi": Measure(vendi, "images", True, referenced=False),
}


def _with_left_out(n_groups: int, of: Callable[[list[int]], float]) -> LeftOut:
    """The value of all groups, and without each; of fewer than two there is none without one."""
    left_out = delete_one_group(n_groups, of) if n_groups > 1 else np.zeros(0)
    return of(list(range(n_groups))), left_out


def _mean_of_rows(values: Sequence[Values]) -> LeftOut:
    sums, sizes = (np.array([measure(part) for part in values], np.float64) for measure in (np.sum, len))
    return _with_left_out(len(values), lambda kept: float(sums[kept].sum() / sizes[kept].sum()))


def _share_of_reference(met: NDArray[np.bool_]) -> LeftOut:
    """Of flags (groups, m): the share of reference rows that any group meets."""
    return _with_left_out(len(met), lambda kept: float(met[kept].any(axis=0).mean()))


def _near(rows: Rows, reference: Rows) -> Iterator[NDArray[np.bool_]]:
    """Whether each row lies in the surroundings of each reference row, (block, m) at a time."""
    others = np.asarray(reference, np.float64)
    limits = _radii(others)
    return (_squares(block, others) < limits for block in _blocks(rows))


def _radii(rows: NDArray[Any]) -> Values:
    """The squared distance of each row to its fifth nearest of the others; raises `IncompleteError` for too few."""
    if len(rows) <= NEAREST:
        raise IncompleteError(
            f"{len(rows)} vectors have no {NEAREST} nearest each; at least {NEAREST + 1} are needed"
        )
    others = np.asarray(rows, np.float64)
    # A row is nearest to itself.
    return np.concatenate(
        [np.partition(_squares(block, others), NEAREST, axis=1)[:, NEAREST] for block in _blocks(others)]
    )


def _squares(x: Rows, y: Values) -> Values:
    """Squared distances (n, m)."""
    rows = np.asarray(x, np.float64)
    squares: Values = (rows**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * rows @ y.T
    return squares.clip(0)


def _kernel_sum(x: Values, y: Values) -> float:
    return sum(float(np.exp(_squares(block, y) / (-2 * _BANDWIDTH**2)).sum()) for block in _blocks(x))


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _unit(rows: Rows) -> Values:
    values = np.asarray(rows, np.float64)
    unit: Values = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit
