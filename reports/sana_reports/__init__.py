"""Reports: tables in; HTML, Markdown, CSV and terminal text out. Knows nothing of how numbers are made."""

from sana_reports.data import (
    KINDS,
    Gain,
    ImageCost,
    Latency,
    LookCell,
    ReportData,
    ReportPaths,
    SampleCell,
    SequenceCell,
    SequenceTask,
    SummaryCell,
    VariantInfo,
    Verdict,
)
from sana_reports.tables import leaderboard_table
from sana_reports.terminal import render_terminal
from sana_reports.writing import write_report

__all__ = [
    "KINDS",
    "Gain",
    "ImageCost",
    "Latency",
    "LookCell",
    "ReportData",
    "ReportPaths",
    "SampleCell",
    "SequenceCell",
    "SequenceTask",
    "SummaryCell",
    "VariantInfo",
    "Verdict",
    "leaderboard_table",
    "render_terminal",
    "write_report",
]
