"""The tables behind every output format, worked out once from `ReportData`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sana_reports.data import UNTAGGED, ReportData, SummaryCell, VariantInfo
from sana_reports.labels import OVERALL

__all__ = [
    "MetricBlock",
    "MetricRow",
    "SettingRow",
    "VerdictChange",
    "flatten",
    "leader",
    "leaderboard_table",
    "metric_blocks",
    "setting_rows",
    "unranked",
    "untold_reasons",
    "verdict_changes",
]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the summary table: one cell per variant, in order, None where a number is missing."""

    key: str
    cells: tuple[SummaryCell | None, ...]


@dataclass(frozen=True, slots=True)
class MetricBlock:
    """All rows of one metric under one protocol: the overall row first (if any), then its tasks."""

    benchmark: str
    metric: str
    protocol: str
    unit: str
    higher_is_better: bool
    rows: tuple[MetricRow, ...]

    @property
    def overall(self) -> MetricRow | None:
        """The row over all tasks."""
        return next((row for row in self.rows if row.key == OVERALL), None)

    @property
    def tasks(self) -> tuple[MetricRow, ...]:
        """The rows of single tasks."""
        return tuple(row for row in self.rows if row.key != OVERALL)


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting across the variants, as text; None where a variant does not have it."""

    name: str
    values: tuple[str | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """How the verdicts of one variant differ from those of `reference`, over the same prompts and seeds."""

    benchmark: str
    variant: str
    reference: str
    gained: int
    lost: int
    both_correct: int
    both_wrong: int
    not_comparable: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Gained, lost, both correct, both wrong, not comparable: every sample is in exactly one."""
        return self.gained, self.lost, self.both_correct, self.both_wrong, self.not_comparable


def metric_blocks(data: ReportData) -> list[MetricBlock]:
    """Group the summaries by benchmark, metric and protocol. Protocols never share a row.

    Raises `ValueError` for two numbers in one cell or a number of an unknown variant.
    """
    names = [variant.name for variant in data.variants]
    blocks: dict[tuple[str, str, str], dict[str, dict[str, SummaryCell]]] = {}
    for cell in data.summaries:
        if cell.variant not in names:
            raise ValueError(f"summary of unknown variant {cell.variant!r}")
        rows = blocks.setdefault((cell.benchmark, cell.metric, cell.protocol), {})
        row = rows.setdefault(cell.key, {})
        if cell.variant in row:
            raise ValueError(f"two values of {cell.metric} ({cell.key}) for variant {cell.variant!r}")
        row[cell.variant] = cell
    found = []
    for (benchmark, metric, protocol), rows in blocks.items():
        if rows.keys() == {OVERALL, UNTAGGED}:
            del rows[UNTAGGED]  # the same number again
        ordered = sorted(rows, key=lambda key: key != OVERALL)
        first = next(iter(rows[ordered[0]].values()))
        table = tuple(MetricRow(key, tuple(rows[key].get(name) for name in names)) for key in ordered)
        found.append(MetricBlock(benchmark, metric, protocol, first.unit, first.higher_is_better, rows=table))
    return found


def leader(data: ReportData, row: MetricRow) -> tuple[int, bool] | None:
    """The best complete variant of a row as (column, whether its interval is clear of every other's).

    None when fewer than two complete variants have the number, or when the best two are equal.
    """
    ranked = [
        (index, cell)
        for index, cell in enumerate(row.cells)
        if cell is not None and cell.is_complete and data.variant_is_complete(cell.variant)
    ]
    if len(ranked) < 2:
        return None
    sign = -1.0 if ranked[0][1].higher_is_better else 1.0
    ranked.sort(key=lambda item: sign * item[1].value)
    (index, best), others = ranked[0], [cell for _, cell in ranked[1:]]
    if others[0].value == best.value:
        return None
    return index, all(best.low > other.high or best.high < other.low for other in others)


def leaderboard_table(data: ReportData) -> list[dict[str, Any]]:
    """Variants as rows, best first by the first overall metric; incomplete variants last, with `rank` None.

    Each row has `rank`, `variant`, `reasons` (why it is not ranked) and `numbers`: a mapping from
    (benchmark, metric, protocol) to the overall `SummaryCell`, or None where the variant has no such number.
    """
    blocks = [block for block in metric_blocks(data) if block.overall is not None]
    rows: list[dict[str, Any]] = []
    for column, variant in enumerate(data.variants):
        numbers = {
            (block.benchmark, block.metric, block.protocol): block.overall.cells[column]
            for block in blocks
            if block.overall is not None
        }
        reasons = _reasons_against_ranking(data, variant.name, list(numbers.items()))
        rows.append({"rank": None, "variant": variant.name, "reasons": reasons, "numbers": numbers})
    ranked = [row for row in rows if not row["reasons"]]
    if ranked and blocks:
        primary = (blocks[0].benchmark, blocks[0].metric, blocks[0].protocol)
        ranked.sort(key=lambda row: row["numbers"][primary].value, reverse=blocks[0].higher_is_better)
        for row in ranked:
            better = [other for other in ranked if _better(other, row, primary)]
            row["rank"] = len(better) + 1
    return ranked + [row for row in rows if row["reasons"]]


def unranked(data: ReportData) -> list[tuple[list[str], list[str]]]:
    """Variants that are not ranked with the reasons against them; variants with the same reasons together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in leaderboard_table(data):
        if row["rank"] is None:
            groups.setdefault(tuple(row["reasons"]), []).append(row["variant"])
    return [(variants, list(reasons)) for reasons, variants in groups.items()]


def untold_reasons(data: ReportData) -> list[str]:
    """Why the run is incomplete, without what is said of single variants already."""
    told = {f"{row['variant']}: {reason}" for row in leaderboard_table(data) for reason in row["reasons"]}
    return [reason for reason in data.incomplete_reasons if reason not in told]


def _better(one: Mapping[str, Any], other: Mapping[str, Any], column: tuple[str, str, str]) -> bool:
    left, right = one["numbers"][column], other["numbers"][column]
    return bool(left.value > right.value if left.higher_is_better else left.value < right.value)


def _reasons_against_ranking(
    data: ReportData, name: str, numbers: Sequence[tuple[tuple[str, str, str], SummaryCell | None]]
) -> list[str]:
    info = next(variant for variant in data.variants if variant.name == name)
    reasons = list(info.incomplete_reasons)
    for cell in (cell for cell in data.summaries if cell.variant == name):
        if not math.isfinite(cell.value):
            reasons.append(f"{cell.metric} ({cell.key}): no value")
        elif not cell.is_complete and not info.incomplete_reasons:  # which tell already what is missing
            reasons.append(f"{cell.metric} ({cell.key}): {cell.n_samples}/{cell.n_expected} samples")
    reasons += [f"no {metric} under {protocol}" for (_, metric, protocol), cell in numbers if cell is None]
    return reasons or ([] if numbers else ["no scores"])


def verdict_changes(data: ReportData) -> list[VerdictChange]:
    """Compare every variant's verdicts, sample by sample, for each benchmark.

    With those of the variant that it was made from where that is in the report, else with the first variant's.
    """
    verdicts: dict[str, dict[str, dict[tuple[str, int], bool | None]]] = {}
    for sample in data.samples:
        by_variant = verdicts.setdefault(sample.benchmark, {})
        by_variant.setdefault(sample.variant, {})[sample.prompt_id, sample.index] = sample.correct
    changes = []
    for benchmark, by_variant in verdicts.items():
        if all(verdict is None for found in by_variant.values() for verdict in found.values()):
            continue
        for variant in data.variants:
            reference = _reference(data, variant)
            if reference == variant.name:
                continue
            left, right = by_variant.get(reference, {}), by_variant.get(variant.name, {})
            pairs = [(left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys())]
            changes.append(
                VerdictChange(
                    benchmark=benchmark,
                    variant=variant.name,
                    reference=reference,
                    gained=pairs.count((False, True)),
                    lost=pairs.count((True, False)),
                    both_correct=pairs.count((True, True)),
                    both_wrong=pairs.count((False, False)),
                    not_comparable=sum(None in pair for pair in pairs),
                )
            )
    return changes


def _reference(data: ReportData, variant: VariantInfo) -> str:
    names = [other.name for other in data.variants]
    return variant.derived_from if variant.derived_from in names else names[0]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys with text values; lists and scalars as JSON, strings as they are."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            is_text = isinstance(value, str)
            flat[name] = value if is_text else json.dumps(value, ensure_ascii=False, default=str)
    return flat


def setting_rows(data: ReportData) -> list[SettingRow]:
    """Every setting of every variant, those that differ first."""
    columns = [flatten(variant.settings) for variant in data.variants]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = tuple(column.get(name) for column in columns)
        rows.append(SettingRow(name, values, differs=len(set(values)) > 1))
    return sorted(rows, key=lambda row: not row.differs)
