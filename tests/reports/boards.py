"""Leaderboards of made-up numbers."""

from dataclasses import replace
from typing import Any

from markupsafe import Markup

from sana_reports import Latency, SummaryCell
from sana_reports.leaderboard_data import Column, Contrast, Entry, Incomplete, Leaderboard, Table
from sana_reports.leaderboard_plots import quality_plots

GENEVAL = Column(metric="geneval", protocol="geneval/micro@1", unit="fraction", higher_is_better=True)
FID = Column(metric="fid", protocol="fid/clip-micro@1", unit="", higher_is_better=False)


def cell(variant: str, column: Column, value: float, half: float, **changes: Any) -> SummaryCell:
    made = SummaryCell(
        variant=variant,
        benchmark="geneval",
        metric=column.metric,
        protocol=column.protocol,
        key="overall",
        value=value,
        low=value - half,
        high=value + half,
        n_samples=576,
        n_expected=576,
        n_prompts=144,
        unit=column.unit,
        higher_is_better=column.higher_is_better,
    )
    return replace(made, **changes)


def entry(variant: str, geneval: float, fid: float, *, half: float = 0.02, **changes: Any) -> Entry:
    made = Entry(
        variant=variant,
        fingerprint=f"{variant:>8}".encode().hex(),
        description=f"about {variant}",
        run="geneval-micro-1",
        created="2026-01-01T00:00:00+00:00",
        parameters=2_700_000,
        latency=Latency(value_ms=100 * fid, low_ms=90, high_ms=110, n_images=576, device="cpu A"),
        numbers={"geneval": cell(variant, GENEVAL, geneval, half), "fid": cell(variant, FID, fid, half)},
    )
    return replace(made, **changes)


def table(*entries: Entry, contrasts: tuple[Contrast, ...] = (), **changes: Any) -> Table:
    common: dict[str, Any] = {"tier": "micro", "benchmark": "geneval", "workload": "0123456789ab"}
    common |= {"columns": [GENEVAL, FID], "entries": entries, "contrasts": contrasts}
    return Table(**common | changes)


def contrast(left: Entry, right: Entry, difference: float, half: float) -> Contrast:
    return Contrast(
        metric="geneval",
        left=left.fingerprint,
        right=right.fingerprint,
        difference=difference,
        low=difference - half,
        high=difference + half,
        n_prompts=144,
    )


def board(*tables: Table, incomplete: tuple[Incomplete, ...] = ()) -> Leaderboard:
    return Leaderboard(tables=tables, incomplete=incomplete)


def plots(made: Table) -> list[tuple[str, Markup]]:
    """The plots of a table that stands alone on its page."""
    return quality_plots(made, board(made).colors)
