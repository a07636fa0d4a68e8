"""The leaderboard as Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sana_reports.beside_published import beside_of_board, beside_table
from sana_reports.csv_table import COST_COLUMNS, cost_fields, csv_text, without_formulas
from sana_reports.data import SummaryCell
from sana_reports.labels import (
    KINDS,
    MICRO_NOTICE,
    MISSING,
    OVERALL,
    approximation_notices,
    direction,
    few_images_notice,
    format_interval,
    format_value,
    made_from,
    metric_label,
    one_line,
    settings_notice,
    task_label,
)
from sana_reports.leaderboard_data import Entry, Leaderboard, Table
from sana_reports.markdown import escape_markdown, markdown_table, markdown_text_tables
from sana_reports.published import PublishedRow, PublishedTable, published_table
from sana_reports.ranking import RANK_RULE, RankRange, grouped
from sana_reports.scaling import table_scaling

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CSV_COLUMNS", "csv_frame", "render_csv", "render_latex", "render_markdown", "table_titles"]

QUOTED_NOTE = "Quoted from papers under their own protocol and hardware: for orientation, never ranked."
CSV_COLUMNS = (
    "tier", "benchmark", "workload", "source", "kind", "derived_from", "variant", "variant_fingerprint", "run",
    "metric", "key", "protocol", "rank_best", "rank_worst", "value", "low", "high", "n_samples", "n_prompts", "unit",
    "higher_is_better", "latency_ms", "images_per_s", "device", "parameters",
    "depth", "cut_from_depth", *COST_COLUMNS,
)  # fmt: skip


def table_titles(board: Leaderboard) -> list[str]:
    """What each table ranks: benchmark and tier, and where that is not all, its number of images, or at last its workload."""
    titles = [f"{metric_label(table.benchmark)}, {table.tier} tier" for table in board.tables]
    for more in (_images, lambda table: f"workload {table.workload}"):
        titles = [
            f"{title}, {more(table)}" if titles.count(title) > 1 else title
            for title, table in zip(titles, board.tables, strict=True)
        ]
    return titles


def _images(table: Table) -> str:
    counts = {cell.n_samples for entry in table.entries for cell in entry.numbers.values()}
    return f"{max(counts, default=0):,} images"


def table_notices(table: Table) -> list[str]:
    """What must be read beside the numbers of a ranking."""
    cells = [cell for entry in table.entries for cell in entry.numbers.values()]
    changed = [settings_notice(table.benchmark, table.settings)] if table.settings else []
    return [*few_images_notice(cells), *approximation_notices(cells), *changed]


def quoted_table(table: Table) -> PublishedTable | None:
    """The published numbers that belong beside a ranking; None for the micro tier and other prompts."""
    return published_table(table.tier, table.benchmark, tuple(column.metric for column in table.columns))


def quoted_label(column: tuple[str, str]) -> str:
    """Heading of a column of published numbers."""
    metric, key = column
    return metric_label(metric) if key == OVERALL else task_label(key)


def entry_size(entry: Entry) -> str:
    """Parameters in millions or billions."""
    if entry.parameters is None:
        return MISSING
    billions = entry.parameters >= 1e9
    return f"{entry.parameters / (1e9 if billions else 1e6):.2f} {'B' if billions else 'M'}"


def _milliseconds(entry: Entry) -> str:
    return MISSING if entry.latency is None else f"{entry.latency.value_ms:.1f} ms"


def _device(entry: Entry) -> str:
    return entry.latency.device if entry.latency is not None else ""


# Markdown


def render_markdown(board: Leaderboard) -> str:
    """One table per tier, benchmark and set of protocols, then what was kept out. All text is escaped."""
    parts = ["# Leaderboard"]
    if any(table.tier == "micro" for table in board.tables):
        parts.append(f"> **{escape_markdown(MICRO_NOTICE)}**")
    for title, table in zip(table_titles(board), board.tables, strict=True):
        parts += [f"## {escape_markdown(title)}", _markdown_table(table)]
        parts += [escape_markdown(notice) for notice in table_notices(table)]
        parts += markdown_text_tables(table_scaling(table), "###")
        parts += markdown_text_tables(beside_table(beside_of_board(table)), "###")
        if (quoted := quoted_table(table)) is not None:
            parts += ["### Published numbers", escape_markdown(QUOTED_NOTE), _markdown_quoted(quoted)]
    parts.append(
        escape_markdown(RANK_RULE) if board.tables else "No complete result yet: `sana-bench run` makes one."
    )
    if board.incomplete:
        parts += ["## Not ranked", _markdown_incomplete(board)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    header = ["Variant", "Fingerprint"]
    for column in table.columns:
        label = f"{metric_label(column.metric)} ({direction(column.higher_is_better)}), {column.protocol}"
        header += ["Rank", escape_markdown(label)]
    header += ["n (prompts)", "Time per image", "Device", "Parameters"]
    groups = grouped(table)
    rows = []
    for kind, entries in groups:
        if len(groups) > 1:
            rows.append([f"**{KINDS[kind]}**", *[""] * (len(header) - 1)])
        for entry, ranks in entries:
            cells = [entry.numbers[column.metric] for column in table.columns]
            row = [_markdown_name(entry), f"`{one_line(entry.fingerprint[:12])}`"]
            for rank, cell in zip(ranks, cells, strict=True):
                row += [str(rank), escape_markdown(_number(cell))]
            count = f"{cells[0].n_samples} ({cells[0].n_prompts})" if cells else MISSING
            rows.append(
                [*row, count, _milliseconds(entry), escape_markdown(_device(entry)), entry_size(entry)]
            )
    return markdown_table(header, rows, right_from=2)


def _markdown_name(entry: Entry) -> str:
    origin = made_from(entry.kind, entry.derived_from, rewritten=entry.rewritten)
    return escape_markdown(entry.variant) + (f" ({escape_markdown(origin)})" if origin else "")


def _markdown_quoted(quoted: PublishedTable) -> str:
    labels = [escape_markdown(quoted_label(column)) for column in quoted.columns]
    header = ["Model", "Source", *labels, "Images per second", "Time per image", "Hardware", "Parameters"]
    rows = []
    for kind, published in quoted.groups:
        rows.append([f"**{KINDS[kind]}**", *[""] * (len(header) - 1)])
        for row in published:
            numbers = [MISSING if (n := row.numbers.get(c)) is None else f"*{n:g}*" for c in quoted.columns]
            throughput = MISSING if row.throughput is None else f"*{row.throughput:g}*"
            time = MISSING if row.latency_s is None else f"*{row.latency_s:g} s*"
            place = f"quoted: {escape_markdown(row.source(quoted.metrics))}"
            name = f"*{escape_markdown(row.title)}*"
            rows.append(
                [name, place, *numbers, throughput, time, row.hardware or MISSING, published_size(row)]
            )
    return markdown_table(header, rows, right_from=2)


def published_size(row: PublishedRow) -> str:
    """Parameters of a published model."""
    return MISSING if row.parameters_b is None else f"{row.parameters_b:g} B"


def _markdown_incomplete(board: Leaderboard) -> str:
    rows = [
        [
            escape_markdown(text)
            for text in (", ".join(variants), row.tier, row.benchmark, row.run, "; ".join(row.reasons))
        ]
        for variants, row in board.not_ranked
    ]
    return markdown_table(["Variant", "Tier", "Benchmark", "Run", "Reason"], rows, right_from=99)


def _number(cell: SummaryCell) -> str:
    return " ".join(part for part in (format_value(cell.value, cell.unit), format_interval(cell)) if part)


# CSV


def render_csv(board: Leaderboard) -> str:
    """One line per variant and metric at full precision; quoted numbers have the paper as their source."""
    return csv_text(CSV_COLUMNS, without_formulas(row for table in board.tables for row in _csv_rows(table)))


def csv_frame(board: Leaderboard) -> "pd.DataFrame":
    """The same as a table of pandas, with texts as they are."""
    import pandas as pd

    rows = [
        [None if value == "" else value for value in row]
        for table in board.tables
        for row in _csv_rows(table)
    ]
    return pd.DataFrame(rows, columns=list(CSV_COLUMNS))


def _csv_rows(table: Table) -> list[Sequence[object]]:
    place = (table.tier, table.benchmark, table.workload)
    rows: list[Sequence[object]] = []
    for kind, entries in grouped(table):
        for entry, ranks in entries:
            for column, rank in zip(table.columns, ranks, strict=True):
                cell = entry.numbers[column.metric]
                latency = "" if entry.latency is None else entry.latency.value_ms
                parameters = "" if entry.parameters is None else entry.parameters
                rows.append(
                    (
                        *place, "measured", kind, entry.derived_from, entry.variant, entry.fingerprint, entry.run,
                        column.metric, cell.key, column.protocol, rank.best, rank.worst, cell.value, cell.low,
                        cell.high, cell.n_samples, cell.n_prompts, cell.unit, cell.higher_is_better, latency, "",
                        _device(entry), parameters, "" if entry.depth is None else entry.depth,
                        "" if entry.cut_from_depth is None else entry.cut_from_depth, *cost_fields(entry.cost, cell),
                    )
                )  # fmt: skip
    if (quoted := quoted_table(table)) is not None:
        for _, published in quoted.groups:
            for row in published:
                rows += _csv_quoted(place, row, quoted)
    return rows


def _csv_quoted(
    place: tuple[str, str, str], row: PublishedRow, quoted: PublishedTable
) -> list[Sequence[object]]:
    latency = "" if row.latency_s is None else 1000 * row.latency_s
    throughput = "" if row.throughput is None else row.throughput
    parameters = "" if row.parameters_b is None else round(1e9 * row.parameters_b)
    return [
        (
            *place, f"quoted: {row.source({metric})}", row.kind, "", row.title, "", "", metric, key, "as published",
            "", "", row.numbers[metric, key], "", "", "", "", "", metric != "fid", latency, throughput, row.hardware,
            parameters, "", "", *[""] * len(COST_COLUMNS),
        )
        for metric, key in quoted.columns
        if (metric, key) in row.numbers
    ]  # fmt: skip


# LaTeX

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "\u2013": "--", "\u2026": r"\ldots{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """`text` with every character that TeX would interpret replaced; control characters removed."""
    flat = one_line(text)
    # After the end of a row, TeX would read these as an argument of the line break.
    guard = "{}" if flat.startswith(("[", "*")) else ""
    return guard + "".join(_LATEX.get(char, char) for char in flat)


def render_latex(board: Leaderboard) -> str:
    """A `table` environment per ranking, for `\\usepackage{booktabs}`; not a whole document."""
    parts = ["% Made by sana-bench leaderboard. Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}."]
    parts += [
        _latex_table(title, table) for title, table in zip(table_titles(board), board.tables, strict=True)
    ]
    if board.incomplete:
        reasons = [
            f"% Not ranked: {one_line(', '.join(variants))} ({one_line(row.tier)}, {one_line(row.benchmark)}): "
            f"{one_line('; '.join(row.reasons))}"
            for variants, row in board.not_ranked
        ]
        parts.append("\n".join(reasons))
    return "\n\n".join(parts) + "\n"


def _latex_table(title: str, table: Table) -> str:
    columns = table.columns
    header = ["Variant"]
    for column in columns:
        arrow = r"$\uparrow$" if column.higher_is_better else r"$\downarrow$"
        header += [f"{escape_latex(metric_label(column.metric))} {arrow}", "Rank"]
    header += ["ms/image", "Parameters"]
    width = len(header)
    groups = grouped(table)
    body: list[str] = []
    for kind, entries in groups:
        if len(groups) > 1:
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(KINDS[kind])}}}}} \\")
        body += [_latex_row(table, entry, ranks) for entry, ranks in entries]
    if (quoted := quoted_table(table)) is not None:
        body += _latex_quoted(table, quoted, width)
    protocols = ", ".join(column.protocol for column in columns)
    micro = f" {MICRO_NOTICE}" if table.tier == "micro" else ""
    devices = sorted({_device(entry) for entry in table.entries if entry.latency is not None})
    caption = (
        f"{title}. Protocols: {protocols}. Brackets: 95 % interval. "
        f"Devices: {', '.join(devices) or 'none timed'}.{micro}{''.join(f' {text}' for text in table_notices(table))}"
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'rr' * len(columns)}rr}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_quoted(table: Table, quoted: PublishedTable, width: int) -> list[str]:
    """Overall numbers only: a page has no room for the categories."""
    body = [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(QUOTED_NOTE)}}}}} \\"]
    for kind, published in quoted.groups:
        body.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(KINDS[kind])}, quoted}}}} \\")
        for row in published:
            found = [row.numbers.get((column.metric, OVERALL)) for column in table.columns]
            shown = [
                number if column.metric in quoted.metrics else None
                for column, number in zip(table.columns, found, strict=True)
            ]
            if all(number is None for number in shown):
                continue
            cells = [escape_latex(f"{row.title} ({row.source(quoted.metrics)})")]
            for number in shown:
                cells += ["--" if number is None else f"{number:g}", "--"]
            time = "--" if row.latency_s is None else f"{1000 * row.latency_s:.0f}"
            body.append(" & ".join([*cells, time, escape_latex(published_size(row))]) + r" \\")
    return body


def _latex_row(table: Table, entry: Entry, ranks: Sequence[RankRange]) -> str:
    origin = made_from(entry.kind, entry.derived_from, rewritten=entry.rewritten)
    row = [escape_latex(entry.variant + (f" ({origin})" if origin else ""))]
    for column, rank in zip(table.columns, ranks, strict=True):
        row += [escape_latex(_number(entry.numbers[column.metric])), escape_latex(str(rank))]
    time = "--" if entry.latency is None else f"{entry.latency.value_ms:.1f}"
    return " & ".join([*row, time, escape_latex(entry_size(entry))]) + r" \\"
