"""The leaderboard's files: HTML, Markdown, CSV and LaTeX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from sana_reports import labels
from sana_reports.assets import asset, fill, script, script_hash
from sana_reports.beside_published import beside_of_board, beside_table
from sana_reports.files import write_text_atomic
from sana_reports.labels import KINDS, OVERALL
from sana_reports.leaderboard_data import Leaderboard, Table
from sana_reports.leaderboard_plots import quality_plots
from sana_reports.leaderboard_text import (
    QUOTED_NOTE,
    entry_size,
    published_size,
    quoted_label,
    quoted_table,
    render_csv,
    render_latex,
    render_markdown,
    table_notices,
    table_titles,
)
from sana_reports.plots import interval_strip, value_domain
from sana_reports.ranking import RANK_RULE, grouped
from sana_reports.scaling import table_scaling
from sana_reports.tables import MetricRow

__all__ = ["LeaderboardPaths", "render_leaderboard", "write_leaderboard"]


@dataclass(frozen=True, slots=True)
class LeaderboardPaths:
    """The files of a written leaderboard."""

    html: Path
    markdown: Path
    csv: Path
    latex: Path


def render_leaderboard(board: Leaderboard) -> dict[str, str]:
    """File name to content, a pure function of the data."""
    return {
        "leaderboard.html": _render_html(board),
        "leaderboard.md": render_markdown(board),
        "leaderboard.csv": render_csv(board),
        "leaderboard.tex": render_latex(board),
    }


def write_leaderboard(
    board: Leaderboard, out_dir: Path, *, write: Callable[[Path, str], None] = write_text_atomic
) -> LeaderboardPaths:
    """Write `leaderboard.{html,md,csv,tex}` into `out_dir` by `write`, each replaced atomically; raises `OSError`."""
    for name, content in render_leaderboard(board).items():
        write(out_dir / name, content)
    return LeaderboardPaths(*(out_dir / f"leaderboard.{suffix}" for suffix in ("html", "md", "csv", "tex")))


def _strips(table: Table, colors: Mapping[str, int]) -> dict[tuple[str, str], Markup]:
    """The interval of each (fingerprint, metric), drawn on an axis that its column shares."""
    strips = {}
    for column in table.columns:
        cells = {entry.fingerprint: entry.numbers[column.metric] for entry in table.entries}
        domain = value_domain([MetricRow(OVERALL, tuple(cells.values()))], "", from_zero=False)
        for fingerprint, cell in cells.items():
            strips[fingerprint, column.metric] = interval_strip(cell, colors[cell.variant], domain)
    return strips


def _filters(board: Leaderboard) -> dict[str, list[str]]:
    """The choices of the page's controls, in the order of the page."""
    kinds = {entry.kind for entry in board.entries}
    return {
        "benchmarks": list(dict.fromkeys(table.benchmark for table in board.tables)),
        "tiers": list(dict.fromkeys(table.tier for table in board.tables)),
        "kinds": [kind for kind in KINDS if kind in kinds],
    }


def _render_html(board: Leaderboard) -> str:
    code = Markup(script("leaderboard.js"))
    colors = board.colors
    titles = table_titles(board)
    tables = [
        (
            title,
            table,
            grouped(table),
            _strips(table, colors),
            quoted_table(table),
            quality_plots(table, colors),
            [*beside_table(beside_of_board(table)), *table_scaling(table)],
        )
        for title, table in zip(titles, board.tables, strict=True)
    ]
    return fill(
        "leaderboard.html.j2",
        board=board,
        tables=tables,
        titles=titles,
        filters=_filters(board),
        colors=colors,
        kinds=KINDS,
        labels=labels,
        rank_rule=RANK_RULE,
        quoted_note=QUOTED_NOTE,
        quoted_label=quoted_label,
        published_size=published_size,
        entry_size=entry_size,
        table_notices=table_notices,
        fragment=lambda variant: f"#variant={quote(variant, safe='')}",
        css=Markup(asset("report.css")),
        script=code,
        script_hash=script_hash(code),
    )
