"""The leaderboard's files: HTML, Markdown, CSV and LaTeX."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from sana_reports import labels
from sana_reports.files import write_text_atomic
from sana_reports.leaderboard_data import KINDS, Leaderboard
from sana_reports.leaderboard_plots import quality_plots
from sana_reports.leaderboard_text import QUOTED_NOTE, render_csv, render_latex, render_markdown, table_title
from sana_reports.plots import N_COLORS
from sana_reports.published import published_rows
from sana_reports.ranking import RANK_RULE, grouped

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


def write_leaderboard(board: Leaderboard, out_dir: Path) -> LeaderboardPaths:
    """Write `leaderboard.{html,md,csv,tex}` into `out_dir`, each replaced atomically; raises `OSError`."""
    for name, content in render_leaderboard(board).items():
        write_text_atomic(out_dir / name, content)
    return LeaderboardPaths(*(out_dir / f"leaderboard.{suffix}" for suffix in ("html", "md", "csv", "tex")))


def _render_html(board: Leaderboard) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sana_reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = files("sana_reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    tables = []
    for table in board.tables:
        metrics = tuple(column.metric for column in table.columns)
        colors = {entry.fingerprint: i % N_COLORS for i, entry in enumerate(table.entries)}
        quoted = published_rows(table.tier, table.benchmark, metrics)
        tables.append((table, grouped(table), colors, quoted, quality_plots(table)))
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        tables=tables,
        kinds=KINDS,
        labels=labels,
        rank_rule=RANK_RULE,
        quoted_note=QUOTED_NOTE,
        table_title=table_title,
        fragment=lambda variant: f"#variant={quote(variant, safe='')}",
        css=Markup(css),
    )
