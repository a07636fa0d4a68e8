"""Ranks that respect uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sana_reports.data import SummaryCell
from sana_reports.labels import KINDS
from sana_reports.leaderboard_data import Column, Contrast, Entry, Table

__all__ = ["RANK_RULE", "RankRange", "grouped", "rank_ranges"]

RANK_RULE = (
    "A rank is the range [1 + number of variants significantly better, n - number significantly worse]. "
    "Two variants differ significantly when the interval of their paired difference over prompts, at 95 % "
    "shared among all pairs of the table (Bonferroni), excludes zero; where a metric has no paired difference, "
    "when their 95 % intervals do not overlap. Variants that share a range are tied."
)


@dataclass(frozen=True, slots=True)
class RankRange:
    """Best and worst rank that the evidence allows, from 1."""

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}\u2013{self.worst}"


def rank_ranges(table: Table, column: Column) -> list[RankRange]:
    """The rank range of each entry, in the table's order."""
    contrasts = {
        (contrast.left, contrast.right): contrast
        for contrast in table.contrasts
        if contrast.metric == column.metric
    }
    n = len(table.entries)
    ranges = []
    for entry in table.entries:
        others = [other for other in table.entries if other is not entry]
        better = sum(_beats(other, entry, column, contrasts) for other in others)
        worse = sum(_beats(entry, other, column, contrasts) for other in others)
        ranges.append(RankRange(1 + better, n - worse))
    return ranges


def grouped(table: Table) -> list[tuple[str, list[tuple[Entry, list[RankRange]]]]]:
    """Entries by kind, each with its rank ranges by column, best value of the first column first.

    Ranks are over the whole table, whatever the kind.
    """
    by_column = [rank_ranges(table, column) for column in table.columns]
    rows = [(entry, [ranges[i] for ranges in by_column]) for i, entry in enumerate(table.entries)]
    if table.columns:
        first = table.columns[0]
        sign = -1.0 if first.higher_is_better else 1.0
        rows.sort(key=lambda row: (sign * row[0].numbers[first.metric].value, row[0].variant))
    kinds: dict[str, list[tuple[Entry, list[RankRange]]]] = {}
    for row in rows:
        kinds.setdefault(row[0].kind, []).append(row)
    return [(kind, kinds[kind]) for kind in KINDS if kind in kinds]


def _beats(one: Entry, other: Entry, column: Column, contrasts: dict[tuple[str, str], Contrast]) -> bool:
    sign = 1.0 if column.higher_is_better else -1.0
    if contrast := contrasts.get((other.fingerprint, one.fingerprint)):
        bounds: Sequence[float] = (contrast.low, contrast.high)
    elif contrast := contrasts.get((one.fingerprint, other.fingerprint)):
        bounds = (-contrast.high, -contrast.low)
    else:
        return _clear_of(one.numbers[column.metric], other.numbers[column.metric], column)
    return min(sign * bound for bound in bounds) > 0


def _clear_of(one: SummaryCell, other: SummaryCell, column: Column) -> bool:
    bounds = (one.low, one.high, other.low, other.high)
    if not all(map(math.isfinite, bounds)):
        return False
    return one.low > other.high if column.higher_is_better else one.high < other.low
