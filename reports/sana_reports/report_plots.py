"""Quality against latency, parameters, depth kept and compute over the variants of one run."""

from markupsafe import Markup

from sana_reports.data import ReportData
from sana_reports.labels import OVERALL
from sana_reports.leaderboard_data import Column, Entry, Table
from sana_reports.leaderboard_plots import SPEED_METRICS, quality_plots

__all__ = ["report_quality_plots"]


def report_quality_plots(data: ReportData) -> list[tuple[str, Markup]]:
    """(caption, drawing) pairs: the first metric of each benchmark against what it takes, complete variants only.

    Times of different devices never share axes; see `quality_plots`.
    """
    complete = [variant for variant in data.variants if data.variant_is_complete(variant.name)]
    plots: list[tuple[str, Markup]] = []
    for benchmark in dict.fromkeys(cell.benchmark for cell in data.summaries):
        own = [cell for cell in data.summaries if cell.benchmark == benchmark and cell.key == OVERALL]
        quality = [cell for cell in own if cell.metric not in SPEED_METRICS]
        if not quality:
            continue
        first = quality[0]
        cells = {
            cell.variant: cell
            for cell in quality
            if (cell.metric, cell.protocol) == (first.metric, first.protocol)
        }
        entries = [
            Entry(
                variant=variant.name, fingerprint=f"{position} {variant.fingerprint}", kind=variant.kind,
                derived_from=variant.derived_from, run="", created="", latency=variant.latency,
                parameters=variant.parameters, depth=variant.depth, cut_from=variant.cut_from,
                cut_from_depth=variant.cut_from_depth, cost=variant.costs.get(benchmark),
                numbers={first.metric: cells[variant.name]},
            )
            for position, variant in enumerate(complete)
            if variant.name in cells
        ]  # fmt: skip
        column = Column(
            metric=first.metric,
            protocol=first.protocol,
            unit=first.unit,
            higher_is_better=first.higher_is_better,
        )
        table = Table(tier=data.tier, benchmark=benchmark, workload="", columns=[column], entries=entries)
        plots += quality_plots(table, data.colors)
    return plots
