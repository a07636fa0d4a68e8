"""The leaderboard as plain text."""

from typing import Any

from sana_reports.beside_published import beside_published, beside_table
from sana_reports.comparison import comparison_table
from sana_reports.data import ReportData, SummaryCell
from sana_reports.labels import (
    MISSING,
    format_count,
    format_interval,
    format_value,
    licence_line,
    made_from,
    metric_label,
    notices,
    one_line,
)
from sana_reports.scaling import report_scaling
from sana_reports.sequences import sequence_tables
from sana_reports.tables import leaderboard_table, untold_reasons
from sana_reports.text_table import TextTable

__all__ = ["render_terminal", "text_lines"]

_Column = tuple[str, str, str]  # benchmark, metric, protocol
_NO_NUMBER = "-"


def render_terminal(data: ReportData) -> str:
    """The verdicts, then a table with variants as rows and overall numbers as columns, each `value [low, high]` with its n.

    Incomplete variants follow below, without a rank and with the reason. Plain ASCII apart from names.
    """
    table = leaderboard_table(data)
    columns: list[_Column] = list(table[0]["numbers"]) if table else []
    shared_n = all(len(_counts(row)) <= 1 for row in table)
    grid = [*_header(table, columns, shared_n), *(_line(row, columns, shared_n) for row in table)]
    if len(data.groups) > 1 or any(variant.rewritten for variant in data.variants):
        kinds = {
            variant.name: made_from(variant.kind, variant.derived_from, rewritten=variant.rewritten)
            for variant in data.variants
        }
        origins = ["made", "", *(one_line(kinds[row["variant"]]) or "full-size" for row in table)]
        grid = [[*line[:2], origin, *line[2:]] for line, origin in zip(grid, origins, strict=True)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in grid]
    n_ranked = sum(row["rank"] is not None for row in table)

    text = [_heading(data), *map(one_line, notices(data)), ""]
    for text_table in (*sequence_tables(data), *comparison_table(data)):
        text += [*text_lines(text_table), ""]
    text += lines[:2]
    text += ["  ".join("-" * width for width in widths), *lines[2 : 2 + n_ranked]]
    if n_ranked < len(table):
        text += ["", "Incomplete, not ranked:"]
    for row, line in zip(table[n_ranked:], lines[2 + n_ranked :], strict=True):
        text += [line, f"   {one_line('; '.join(row['reasons']))}"]
    if columns:
        _, metric, protocol = columns[0]
        text += ["", f"Ranked by {metric_label(metric)} ({protocol}). [95 % interval], n images."]
    if untold := untold_reasons(data):
        text += ["", "This run is incomplete:", *(f"   {one_line(reason)}" for reason in untold)]
    for text_table in (*beside_table(beside_published(data)), *report_scaling(data), *data.speed_tables):
        text += ["", *text_lines(text_table)]
    text += [
        line
        for told in (data.selfcheck, data.devices, licence_line(data))
        if told
        for line in ("", one_line(told))
    ]
    return "\n".join(line.rstrip() for line in text) + "\n"


def text_lines(text_table: TextTable) -> list[str]:
    """A table as lines of plain text: title, header, rule, rows, notes."""
    grid = [[one_line(cell) for cell in row] for row in (text_table.header, *text_table.rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid
    ]
    rule = "  ".join("-" * width for width in widths)
    return [
        one_line(text_table.title),
        lines[0],
        rule,
        *lines[1:],
        *(f"   {one_line(note)}" for note in text_table.notes),
    ]


def _heading(data: ReportData) -> str:
    return one_line(f"{data.title}: suite {data.suite_name}, {data.tier} tier ({data.tier_reason})")


def _header(table: list[dict[str, Any]], columns: list[_Column], shared_n: bool) -> list[list[str]]:
    several = len({benchmark for benchmark, _, _ in columns}) > 1
    names = []
    for column in columns:
        cell = next(row["numbers"][column] for row in table if row["numbers"][column] is not None)
        better = "higher" if cell.higher_is_better else "lower"
        benchmark = f"{column[0]} " if several else ""
        names.append(f"{benchmark}{metric_label(column[1])} ({better} is better)")
    last = ["n"] if shared_n else []
    return [
        ["", "variant", *names, *last],
        ["", "", *(protocol for _, _, protocol in columns), *("" for _ in last)],
    ]


def _counts(row: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(format_count(cell) for cell in row["numbers"].values() if cell is not None))


def _line(row: dict[str, Any], columns: list[_Column], shared_n: bool) -> list[str]:
    numbers = [_number(row["numbers"][column], with_n=not shared_n) for column in columns]
    rank = str(row["rank"] or _NO_NUMBER)
    return [rank, one_line(row["variant"]), *numbers, *((_counts(row) or [_NO_NUMBER]) if shared_n else [])]


def _number(cell: SummaryCell | None, *, with_n: bool) -> str:
    if cell is None:
        return _NO_NUMBER
    value = format_value(cell.value, cell.unit).replace(MISSING, _NO_NUMBER)
    count = f"n={format_count(cell)}" if with_n else ""
    return " ".join(part for part in (value, format_interval(cell), count) if part)
