"""The report's numbers as CSV: one line per variant, metric and task."""

import math
from collections.abc import Iterable

from sana_reports.data import ImageCost, ReportData, SummaryCell
from sana_reports.tables import leaderboard_table

__all__ = ["COLUMNS", "COST_COLUMNS", "cost_fields", "csv_text", "render_csv", "without_formulas"]

# Spreadsheets run text that starts with one of these as a formula; some take the wide signs of East Asian keyboards too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

# What a delivered image costs, and the gain over the variant that this one was made from.
COST_COLUMNS = (
    "generated_per_image",
    "generation_s",
    "judge_s",
    "generation_flops",
    "judge_flops",
    "gain_over",
    "gain",
    "gain_low",
    "gain_high",
)

COLUMNS = (
    "suite",
    "tier",
    "run_fingerprint",
    "variant",
    "variant_fingerprint",
    "kind",
    "derived_from",
    "ranked",
    "benchmark",
    "metric",
    "protocol",
    "key",
    "value",
    "low",
    "high",
    "n_samples",
    "n_expected",
    "n_prompts",
    "unit",
    "higher_is_better",
    "note",
    "parameters",
    "depth",
    *COST_COLUMNS,
)


def render_csv(data: ReportData) -> str:
    """All summaries in long form, values at full precision, empty where a number does not exist."""
    ranked = {row["variant"] for row in leaderboard_table(data) if row["rank"] is not None}
    variants = {variant.name: variant for variant in data.variants}
    rows = []
    for cell in data.summaries:
        info = variants[cell.variant]
        values = (
            data.suite_name,
            data.tier,
            data.fingerprint,
            cell.variant,
            info.fingerprint,
            info.kind,
            info.derived_from,
            cell.variant in ranked,
            cell.benchmark,
            cell.metric,
            cell.protocol,
            cell.key,
            cell.value,
            cell.low,
            cell.high,
            cell.n_samples,
            cell.n_expected,
            cell.n_prompts,
            cell.unit,
            cell.higher_is_better,
            "; ".join(
                text
                for text in (cell.note, cell.no_interval, "rewritten prompts" if info.rewritten else "")
                if text
            ),
            "" if info.parameters is None else info.parameters,
            "" if info.depth is None else info.depth,
            *cost_fields(info.costs.get(cell.benchmark), cell),
        )
        rows.append(values)
    return csv_text(COLUMNS, without_formulas(rows))


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Rows under a header as CSV with `\\n` line ends: every text quoted, so that no character in it ends a cell or a row.

    Numbers stand at full precision, truth values as `true` and `false`, None and empty text as nothing.
    """
    body = "".join(",".join(map(_cell, row)) + "\n" for row in rows)
    return ",".join(columns) + "\n" + body


def without_formulas(rows: Iterable[Iterable[object]]) -> list[list[object]]:
    """Rows for people: no number where one is not finite, and no text that a spreadsheet would run."""
    return [[_plain(value) for value in row] for row in rows]


def cost_fields(cost: ImageCost | None, cell: SummaryCell) -> tuple[object, ...]:
    """The values of `COST_COLUMNS`, empty where there is none."""
    spent: tuple[object, ...] = ("",) * 5
    if cost is not None:
        found = (cost.generated, cost.generation_s, cost.judge_s, cost.generation_flops, cost.judge_flops)
        spent = tuple("" if value is None else value for value in found)
    gain = cell.gain
    return (*spent, *(("",) * 4 if gain is None else (gain.over, gain.difference, gain.low, gain.high)))


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(value: object) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, int):
        return str(int(value))
    return '"' + str(value).replace('"', '""') + '"'
