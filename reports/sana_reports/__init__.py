"""Reports: tables in; HTML, Markdown, CSV and terminal text out. Knows nothing of how numbers are made.

Names are loaded on first use: most commands write no report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sana_reports.agreement import (
        AgreementData,
        Contrast,
        ContrastedImage,
        agreement_text,
        write_agreement,
    )
    from sana_reports.data import (
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
    from sana_reports.labels import KINDS
    from sana_reports.tables import leaderboard_table
    from sana_reports.terminal import render_terminal
    from sana_reports.writing import write_report

_MODULES = {
    "AgreementData": "agreement",
    "Contrast": "agreement",
    "ContrastedImage": "agreement",
    "Gain": "data",
    "ImageCost": "data",
    "KINDS": "labels",
    "Latency": "data",
    "LookCell": "data",
    "ReportData": "data",
    "ReportPaths": "data",
    "SampleCell": "data",
    "SequenceCell": "data",
    "SequenceTask": "data",
    "SummaryCell": "data",
    "VariantInfo": "data",
    "Verdict": "data",
    "agreement_text": "agreement",
    "leaderboard_table": "tables",
    "render_terminal": "terminal",
    "write_agreement": "agreement",
    "write_report": "writing",
}

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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
