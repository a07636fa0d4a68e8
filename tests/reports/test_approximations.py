"""Numbers of a protocol that only comes near another one say so wherever they are printed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sana_bench.core.samples import OVERALL
from sana_bench.metrics.base import ScoreRow
from sana_bench.metrics.geneval.metric import HUB, OFFICIAL, GenEvalRates
from sana_reports import ReportData, render_terminal
from sana_reports.html_page import render_html
from sana_reports.leaderboard import render_leaderboard
from sana_reports.markdown import render_markdown
from tests.reports.boards import GENEVAL, board, entry, table

NOTICE = "approximation of geneval/official@1: another training run of the detector"
RENDERERS: dict[str, Callable[[ReportData, Path], str]] = {
    "terminal": lambda data, _: render_terminal(data),
    "markdown": lambda data, _: render_markdown(data).replace("\\", ""),
    "html": lambda data, folder: render_html(data, folder),
}


def under(report: ReportData, protocol: str) -> ReportData:
    """The report with its GenEval numbers under another protocol."""
    cells = [
        replace(cell, protocol=protocol) if cell.metric == "geneval" else cell for cell in report.summaries
    ]
    return replace(report, summaries=cells)


@pytest.mark.parametrize("name", RENDERERS)
def test_a_report_says_so_once(report: ReportData, tmp_path: Path, name: str) -> None:
    render = RENDERERS[name]
    assert render(under(report, HUB), tmp_path).count(f"{HUB}: {NOTICE}.") == 1
    assert "approximation" not in render(under(report, OFFICIAL), tmp_path)


@pytest.mark.parametrize("name", ["leaderboard.html", "leaderboard.md", "leaderboard.tex"])
def test_a_leaderboard_says_so(name: str) -> None:
    found = {}
    for protocol in (HUB, OFFICIAL):
        made = entry("plain", 0.5, 12.0)
        numbers = {"geneval": replace(made.numbers["geneval"], protocol=protocol)}
        column = replace(GENEVAL, protocol=protocol)
        ranking = table(replace(made, numbers=numbers), columns=[column], tier="full")
        found[protocol] = render_leaderboard(board(ranking))[name]
    assert NOTICE in found[HUB].replace("\\", "")
    assert "approximation" not in found[OFFICIAL]


def test_the_number_itself_carries_the_note() -> None:
    rows = [ScoreRow("a/00000", "a", "counting", 1.0), ScoreRow("b/00000", "b", "colors", 0.0)]
    notes = {
        protocol: [row.note for row in GenEvalRates(protocol).summarise(rows, 2, 0) if row.key == OVERALL]
        for protocol in (HUB, OFFICIAL)
    }
    assert notes[HUB] == [f"{NOTICE}; {notes[OFFICIAL][0]}"]
    assert "approximation" not in notes[OFFICIAL][0]
