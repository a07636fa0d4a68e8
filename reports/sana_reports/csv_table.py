"""The report's numbers as CSV: one line per variant, metric and task."""

import csv
import io
import math

from sana_reports.data import ReportData
from sana_reports.tables import leaderboard_table

__all__ = ["COLUMNS", "escape_field", "render_csv"]

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
)


def render_csv(data: ReportData) -> str:
    """All summaries in long form, values at full precision, empty where a number does not exist."""
    ranked = {row["variant"] for row in leaderboard_table(data) if row["rank"] is not None}
    variants = {variant.name: variant for variant in data.variants}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in data.summaries:
        values = (
            data.suite_name,
            data.tier,
            data.fingerprint,
            cell.variant,
            variants[cell.variant].fingerprint,
            variants[cell.variant].kind,
            variants[cell.variant].derived_from,
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
            cell.note,
        )
        writer.writerow([escape_field(value) for value in values])
    return text.getvalue()


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
