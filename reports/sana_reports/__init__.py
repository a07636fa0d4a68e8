"""Reports: tables in; HTML, Markdown, CSV and terminal text out. Knows nothing of how the numbers were made."""

from sana_reports.data import Latency, ReportData, ReportPaths, SampleCell, SummaryCell, VariantInfo

__all__ = ["Latency", "ReportData", "ReportPaths", "SampleCell", "SummaryCell", "VariantInfo"]
