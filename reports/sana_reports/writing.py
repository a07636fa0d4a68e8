"""One call that writes the whole report."""

from collections.abc import Callable
from pathlib import Path

from sana_reports.csv_table import render_csv
from sana_reports.data import ReportData, ReportPaths
from sana_reports.files import write_text_atomic
from sana_reports.html_page import INLINE_LIMIT_BYTES, render_html
from sana_reports.markdown import render_markdown

__all__ = ["write_report"]


def write_report(
    data: ReportData,
    out_dir: Path,
    *,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    write: Callable[[Path, str], None] = write_text_atomic,
) -> ReportPaths:
    """Write `report.html`, `report.md` and `report.csv` into `out_dir` by `write`, each replaced atomically.

    Images go into the HTML file while their files add up to at most `inline_limit_bytes`; above that the
    page links them relative to `out_dir`. Raises `OSError` when the directory cannot be written and
    `ValueError` for contradictory data (two numbers in one cell, an unknown variant).
    """
    paths = ReportPaths(out_dir / "report.html", out_dir / "report.md", out_dir / "report.csv")
    contents = (
        (paths.html, render_html(data, out_dir, inline_limit_bytes=inline_limit_bytes)),
        (paths.markdown, render_markdown(data)),
        (paths.csv, render_csv(data)),
    )
    for path, content in contents:
        write(path, content)
    return paths
