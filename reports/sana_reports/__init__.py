"""Reports: tables in; HTML, Markdown, CSV and terminal text out. Knows nothing of how numbers are made."""

from sana_reports.agreement import (
    AgreementData,
    Contrast,
    ContrastedImage,
    agreement_text,
    write_agreement,
)
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
    "AgreementData",
    "Contrast",
    "ContrastedImage",
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
    "agreement_text",
    "leaderboard_table",
    "render_terminal",
    "write_agreement",
    "write_report",
]
