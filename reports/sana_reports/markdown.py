"""The report's tables as Markdown, ready for a pull request or a paper's appendix."""

import re
from collections.abc import Sequence

from sana_reports.beside_published import beside_published, beside_table, quoted_quality
from sana_reports.comparison import comparison_table
from sana_reports.data import Latency, ReportData, SummaryCell, VariantInfo
from sana_reports.labels import (
    KINDS,
    MISSING,
    direction,
    format_count,
    format_interval,
    format_latency_interval,
    format_value,
    licence_line,
    made_from,
    metric_label,
    notices,
    one_line,
    task_label,
)
from sana_reports.scaling import report_scaling
from sana_reports.sequences import sequence_tables
from sana_reports.tables import flatten, leaderboard_table, metric_blocks, setting_rows, verdict_changes
from sana_reports.text_table import TextTable

__all__ = ["escape_markdown", "markdown_table", "markdown_text_tables", "render_markdown"]


def render_markdown(data: ReportData) -> str:
    """Verdicts, summary with variants as columns, verdict changes, settings and provenance. All text is escaped."""
    parts = [f"# {escape_markdown(data.title)}", _facts(data)]
    parts += [f"> **{escape_markdown(notice)}**" for notice in notices(data)]
    if not data.complete:
        reasons = "\n".join(f"> - {escape_markdown(reason)}" for reason in data.incomplete_reasons)
        parts.append(f"> **This run is incomplete.**\n>\n{reasons}".rstrip(">\n "))
    parts += markdown_text_tables([*sequence_tables(data), *comparison_table(data)])
    parts += ["## Results", _summary(data), *_unranked(data)]
    parts += markdown_text_tables([*beside_table(beside_published(data)), *quoted_quality(data)])
    changes = _changes(data)
    if changes:
        parts += ["## Changed verdicts", changes]
    parts += markdown_text_tables([*report_scaling(data), *data.speed_tables])
    parts += ["## Settings", _settings(data), "## Provenance", _provenance(data)]
    return "\n\n".join(part for part in parts if part) + "\n"


_ESCAPES = {"<": "&lt;", "&": "&amp;"} | {char: f"\\{char}" for char in r"\`*_{}[]>#|~"}


def escape_markdown(text: str) -> str:
    """Escape what Markdown or inline HTML would interpret."""
    return "".join(_ESCAPES.get(char, char) for char in one_line(text))


def _code(text: str) -> str:
    """An inline code span; a table cell ends at a pipe even inside one."""
    flat = one_line(text).replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}" if flat else ""


def markdown_table(header: list[str], rows: list[list[str]], *, right_from: int) -> str:
    """A table of cells that are escaped already; columns from `right_from` on are set flush right."""
    rule = ["---:" if index >= right_from else "---" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _facts(data: ReportData) -> str:
    tier = f"{data.tier} tier ({data.tier_reason})"
    run = f"run {_code(data.fingerprint)}"
    about = (
        f"Suite {_code(data.suite_name)}, {escape_markdown(tier)}, {escape_markdown(data.created)}, {run}."
    )
    return "\n\n".join(
        [about, *map(escape_markdown, filter(None, (data.selfcheck, data.devices, licence_line(data))))]
    )


def _summary(data: ReportData) -> str:
    header = ["Metric", "Task", "Protocol", *(escape_markdown(variant.name) for variant in data.variants)]
    rows = []
    if len(data.groups) > 1 or any(variant.rewritten for variant in data.variants):
        rows.append(["**Kind**", "", "", *(escape_markdown(_kind(variant)) for variant in data.variants)])
    for block in metric_blocks(data):
        name = f"{escape_markdown(block.benchmark)}: {escape_markdown(metric_label(block.metric))}"
        for row in block.rows:
            label = f"**{name}** ({direction(block.higher_is_better)})" if row is block.rows[0] else ""
            numbers = (_number(cell) for cell in row.cells)
            rows.append([label, escape_markdown(task_label(row.key)), _code(block.protocol), *numbers])
    if any(variant.latency for variant in data.variants):
        times = (_latency(variant.latency) for variant in data.variants)
        rows.append(["**Time per image** (lower is better)", "", "", *times])
    if not rows:
        return "No scores."
    note = "Brackets: 95 % interval. n: images (prompts)."
    return f"{markdown_table(header, rows, right_from=3)}\n\n{note}"


def _kind(variant: VariantInfo) -> str:
    origin = made_from(variant.kind, variant.derived_from, rewritten=variant.rewritten)
    return KINDS[variant.kind] + (f", {origin}" if origin else "")


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return MISSING
    figures = f"{latency.value_ms:.1f} {format_latency_interval(latency)}".strip().replace("[", r"\[")
    return f"{figures} ms n={latency.n_images} ({escape_markdown(latency.device)})"


def _number(cell: SummaryCell | None) -> str:
    if cell is None:
        return MISSING
    count = f"n={format_count(cell)} ({cell.n_prompts})"
    flag = "" if cell.is_complete else " **incomplete**"
    parts = (format_value(cell.value, cell.unit), format_interval(cell).replace("[", r"\["), count)
    return " ".join(part for part in parts if part) + flag


def _unranked(data: ReportData) -> list[str]:
    rows = [row for row in leaderboard_table(data) if row["rank"] is None]
    lines = [
        f"- {escape_markdown(row['variant'])}: {escape_markdown('; '.join(row['reasons']))}" for row in rows
    ]
    return ["Not ranked, because incomplete:\n\n" + "\n".join(lines)] if lines else []


def markdown_text_tables(tables: Sequence[TextTable], heading: str = "##") -> list[str]:
    """Tables with their titles as headings of level `heading`, and their notes."""
    parts = []
    for text_table in tables:
        rows = [[escape_markdown(cell) for cell in row] for row in text_table.rows]
        header = [escape_markdown(cell) for cell in text_table.header]
        parts += [
            f"{heading} {escape_markdown(text_table.title)}",
            markdown_table(header, rows, right_from=1),
        ]
        parts += ["\n".join(f"- {escape_markdown(note)}" for note in text_table.notes)]
    return parts


def _changes(data: ReportData) -> str:
    header = ["Benchmark", "Variant", "Compared with"]
    header += ["Gained", "Lost", "Both correct", "Both wrong", "No pair"]
    rows = [
        [
            escape_markdown(change.benchmark),
            escape_markdown(change.variant),
            escape_markdown(change.reference),
            *(str(count) for count in change.counts),
        ]
        for change in verdict_changes(data)
    ]
    return markdown_table(header, rows, right_from=3) if rows else ""


def _settings(data: ReportData) -> str:
    header = ["Setting", *(escape_markdown(variant.name) for variant in data.variants)]
    rows = [["fingerprint", *(_code(variant.fingerprint) for variant in data.variants)]]
    for row in setting_rows(data):
        name = f"**{escape_markdown(row.name)}**" if row.differs else escape_markdown(row.name)
        rows.append([name, *(MISSING if value is None else _code(value) for value in row.values)])
    return markdown_table(header, rows, right_from=99) + "\n\nBold: differs between the variants."


def _provenance(data: ReportData) -> str:
    rows = [[escape_markdown(name), _code(value)] for name, value in flatten(data.provenance).items()]
    return markdown_table(["What", "Value"], rows, right_from=99) if rows else "None recorded."
