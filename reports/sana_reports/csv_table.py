"""The report's numbers as CSV: one line per variant, metric and task."""

import csv
import io
import math

from sana_reports.data import ImageCost, ReportData, SummaryCell
from sana_reports.tables import leaderboard_table

__all__ = ["COLUMNS", "COST_COLUMNS", "cost_fields", "escape_field", "render_csv"]

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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
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
        writer.writerow([escape_field(value) for value in values])
    return text.getvalue()


def cost_fields(cost: ImageCost | None, cell: SummaryCell) -> tuple[object, ...]:
    """The values of `COST_COLUMNS`, empty where there is none."""
    spent: tuple[object, ...] = ("",) * 5
    if cost is not None:
        found = (cost.generated, cost.generation_s, cost.judge_s, cost.generation_flops, cost.judge_flops)
        spent = tuple("" if value is None else value for value in found)
    gain = cell.gain
    return (*spent, *(("",) * 4 if gain is None else (gain.over, gain.difference, gain.low, gain.high)))


def escape_field(value: object) -> str:
    """One value as CSV text: full precision, empty if not finite, never a spreadsheet formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    if isinstance(value, int):
        return str(value)
    text = str(value)
    # Spreadsheets run text that starts with one of these as a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
