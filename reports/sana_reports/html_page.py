"""The report as one HTML file that opens from disk, with no network and nothing beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sana_reports import labels
from sana_reports.assets import asset, fill, script, script_hash
from sana_reports.beside_published import beside_published, beside_table, quoted_quality
from sana_reports.comparison import ComparedMetric, comparison_title, metrics_compared, overviews
from sana_reports.data import ReportData
from sana_reports.gallery import gallery_json, total_image_bytes
from sana_reports.labels import KINDS
from sana_reports.plots import difference_strip, interval_strip, task_bars, value_domain
from sana_reports.report_plots import report_quality_plots
from sana_reports.scaling import report_scaling
from sana_reports.sequences import sequence_plot, sequence_tables
from sana_reports.tables import (
    MetricBlock,
    MetricRow,
    flatten,
    leader,
    metric_blocks,
    setting_rows,
    unranked,
    untold_reasons,
    verdict_changes,
)

__all__ = ["INLINE_LIMIT_BYTES", "render_html"]

# About 1,200 images of 64x64 take 3 MB; beyond this a browser is slow to open the page.
INLINE_LIMIT_BYTES = 24_000_000
_MAX_PAIRWISE_FILTERS = 4


@dataclass(frozen=True, slots=True)
class _Number:
    """One cell of the summary table, ready to print."""

    value: str
    interval: str
    n: str
    n_prompts: int
    complete: bool
    note: str
    strip: Markup
    mark: str


def render_html(data: ReportData, out_dir: Path, *, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> str:
    """The page as text. Image links, if the images are too large to inline, are relative to `out_dir`."""
    inline = total_image_bytes(data.samples) <= inline_limit_bytes
    blocks = metric_blocks(data)
    code = Markup(script("report.js"))
    return fill(
        "report.html.j2",
        data=data,
        labels=labels,
        kinds=KINDS,
        colors=data.colors,
        notices=labels.notices(data),
        unranked=unranked(data),
        untold=untold_reasons(data),
        comparison=[(metric, _differences(metric, data.colors)) for metric in metrics_compared(data)],
        comparison_title=comparison_title(data),
        overviews=overviews(data),
        blocks=[(block, [(row, _numbers(data, block, row)) for row in block.rows]) for block in blocks],
        charts=_charts(data, blocks),
        changes=verdict_changes(data),
        quality_plots=report_quality_plots(data),
        scaling=report_scaling(data),
        sequences=[(cell, sequence_plot(cell, data.colors[cell.variant])) for cell in data.sequences],
        sequence_tables=sequence_tables(data),
        published=[*beside_table(beside_published(data)), *quoted_quality(data)],
        settings=setting_rows(data),
        provenance=_provenance(data),
        filters=_filters(data),
        gallery=gallery_json(data, out_dir, inline=inline),
        inline=inline,
        css=Markup(asset("report.css")),
        script=code,
        script_hash=script_hash(code),
    )


def _differences(metric: ComparedMetric, colors: Mapping[str, int]) -> list[Markup]:
    """The strip of each row, on an axis that all variants share."""
    gains = [row.verdict.gain for row in metric.rows]
    ends = [
        abs(end)
        for gain in gains
        if gain is not None
        for end in (gain.difference, gain.low, gain.high)
        if math.isfinite(end)
    ]
    reach = max(ends, default=0.0) or 1.0
    return [
        Markup("")
        if row.verdict.gain is None
        else difference_strip(row.verdict.gain, colors[row.variants[0]], reach)
        for row in metric.rows
    ]


def _numbers(data: ReportData, block: MetricBlock, row: MetricRow) -> list[_Number | None]:
    # Tasks share an axis, so that their strips can be compared down the column.
    domain = value_domain([row] if row is block.overall else block.tasks, block.unit, from_zero=False)
    best = leader(data, row)
    numbers: list[_Number | None] = []
    for column, cell in enumerate(row.cells):
        if cell is None:
            numbers.append(None)
            continue
        mark = ""
        if best is not None and best[0] == column:
            mark = "best" if best[1] else "ahead"
        numbers.append(
            _Number(
                value=labels.format_value(cell.value, cell.unit),
                interval=labels.format_interval(cell),
                n=labels.format_count(cell),
                n_prompts=cell.n_prompts,
                complete=cell.is_complete,
                note=cell.note,
                strip=interval_strip(cell, data.colors[cell.variant], domain),
                mark=mark,
            )
        )
    return numbers


def _charts(data: ReportData, blocks: list[MetricBlock]) -> list[tuple[MetricBlock, Markup]]:
    """A wide and a narrow drawing of each metric that has tasks; the style sheet shows the one that fits."""
    charts = []
    for block in blocks:
        if len(block.tasks) >= 2:
            charts.append(
                (block, Markup("").join(task_bars(block, data.colors, wide=wide) for wide in (True, False)))
            )
    return charts


def _provenance(data: ReportData) -> list[tuple[str, dict[str, str]]]:
    """Sections of the provenance: one per nested mapping, single values first under `run`."""
    single = {key: _in_lines(value) for key, value in data.provenance.items() if not isinstance(value, dict)}
    nested = {key: value for key, value in data.provenance.items() if isinstance(value, dict)}
    run = {"suite": data.suite_name, "tier": f"{data.tier} ({data.tier_reason})", "run": data.fingerprint}
    sections = [("run", run | flatten(single))]
    return sections + [(key, flatten(value)) for key, value in nested.items() if value]


def _in_lines(value: Any) -> Any:
    """A list as text, an entry a line, for `flatten` to keep; anything else as it is."""
    if not isinstance(value, list):
        return value
    lines = [
        ", ".join(f"{name} {text}" for name, text in flatten(entry).items())
        if isinstance(entry, Mapping)
        else str(entry)
        for entry in value
    ]
    return "\n".join(lines) or "none"


def _orders(data: ReportData) -> list[tuple[str, str]]:
    """(key, label) of everything that samples can be ordered by: scores, and rewards that are no score already."""
    scores = dict.fromkeys(name for sample in data.samples for name in sample.scores)
    rewards = dict.fromkeys(name for sample in data.samples for name in sample.rewards)
    return [(f"scores:{name}", labels.metric_label(name)) for name in scores] + [
        (f"rewards:{name}", f"reward ({labels.metric_label(name)})") for name in rewards if name not in scores
    ]


def _filters(data: ReportData) -> dict[str, Any]:
    """The choices of the gallery's controls."""
    names = list(enumerate(variant.name for variant in data.variants))
    pairs = [(left, right) for left in names for right in names if left != right]
    if len(names) > _MAX_PAIRWISE_FILTERS:
        # The first variant with every other, and what the changed verdicts lead to.
        compared = {frozenset((change.variant, change.reference)) for change in verdict_changes(data)}
        pairs = [
            (left, right)
            for left, right in pairs
            if 0 in (left[0], right[0]) or frozenset((left[1], right[1])) in compared
        ]
    return {
        "benchmarks": list(dict.fromkeys(sample.benchmark for sample in data.samples)),
        "tags": list(dict.fromkeys(sample.tag for sample in data.samples)),
        "indices": sorted({sample.index for sample in data.samples}),
        "orders": _orders(data),
        "has_verdicts": any(sample.correct is not None for sample in data.samples),
        "has_boxes": any(sample.detections for sample in data.samples),
        "variants": names,
        "pairs": pairs,
        "comparisons": list(combinations(names, 2)),
    }
