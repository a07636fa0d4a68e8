"""What inference-time scaling costs, beside what it gains, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sana_reports.data import ImageCost, ReportData, SummaryCell
from sana_reports.labels import MISSING, OVERALL, direction, flops_unit, format_gain, metric_label
from sana_reports.leaderboard_data import Table
from sana_reports.text_table import TextTable

__all__ = ["report_scaling", "table_scaling"]

# The columns of times are no scores.
_SPEED = ("latency", "throughput")


@dataclass(frozen=True, slots=True)
class _Row:
    """A variant with its cost and its numbers by metric; `complete` unless images or numbers are missing."""

    variant: str
    kind: str
    derived_from: str
    cost: ImageCost | None
    numbers: Mapping[str, SummaryCell]
    complete: bool = True


def report_scaling(data: ReportData) -> list[TextTable]:
    """One table for each benchmark that an inference-scaled variant of the run has images of."""
    tables = []
    for benchmark in dict.fromkeys(name for variant in data.variants for name in variant.costs):
        rows = []
        for variant in data.variants:
            own = (variant.name, benchmark, OVERALL)
            numbers = {
                cell.metric: cell
                for cell in data.summaries
                if (cell.variant, cell.benchmark, cell.key) == own and cell.metric not in _SPEED
            }
            complete = data.variant_is_complete(variant.name)
            cost = variant.costs.get(benchmark)
            rows.append(_Row(variant.name, variant.kind, variant.derived_from, cost, numbers, complete))
        tables += _text_table(benchmark, rows)
    return tables


def table_scaling(table: Table) -> list[TextTable]:
    """The table of a ranking; empty where nothing is inference-scaled."""
    rows = [
        _Row(entry.variant, entry.kind, entry.derived_from, entry.cost,
             {column.metric: entry.numbers[column.metric] for column in table.columns if column.metric not in _SPEED})
        for entry in table.entries
    ]  # fmt: skip
    return _text_table(table.benchmark, rows)


def _text_table(benchmark: str, rows: Sequence[_Row]) -> list[TextTable]:
    scaled = [row for row in rows if row.kind == "inference_scaled"]
    if not scaled:
        return []
    metrics = {cell.metric: cell for row in rows for cell in row.numbers.values()}
    names = {row.derived_from for row in scaled}
    bases = {row.variant: row for row in rows if row.variant in names and row.kind != "inference_scaled"}
    by_name = {row.variant: row for row in rows}
    shown = [
        row
        for base in bases.values()
        for row in (base, *(r for r in scaled if r.derived_from == base.variant))
    ]
    shown += [row for row in scaled if row not in shown]
    counted = [
        flops
        for row in shown
        if row.cost
        for flops in (row.cost.generation_flops, row.cost.judge_flops)
        if flops
    ]
    unit, size = flops_unit(counted)
    header = [
        "", "gain over", *(f"gain in {metric_label(name)}" for name in metrics), "images generated", "generation, s",
        "judging, s", f"generation, {unit}", f"judging, {unit}", "compute",
    ]  # fmt: skip
    cells = [_cells(row, by_name.get(row.derived_from), size, list(metrics)) for row in shown]
    title = f"What scaling at inference gains on {metric_label(benchmark)}, and what a delivered image costs"
    return [TextTable(title=title, header=header, rows=cells, notes=_notes(shown, scaled, metrics))]


def _cells(row: _Row, base: _Row | None, size: float, metrics: Sequence[str]) -> tuple[str, ...]:
    if row.kind != "inference_scaled":
        return (row.variant, MISSING, *(MISSING for _ in metrics), *_cost(row, None, size))
    return (row.variant, row.derived_from, *(_gain(row, name) for name in metrics), *_cost(row, base, size))


def _cost(row: _Row, base: _Row | None, size: float) -> list[str]:
    cost = row.cost
    if cost is None:
        return [MISSING] * 6
    scaled = row.kind == "inference_scaled"
    judged = "not counted" if cost.judge_flops is None else f"{cost.judge_flops / size:.3g}"
    times = MISSING
    if scaled and base is not None and base.cost is not None and base.cost.flops and cost.flops:
        times = f"{cost.flops / base.cost.flops:.2f} times"
    return [
        f"{cost.generated:.2f}",
        MISSING if cost.generation_s is None else f"{cost.generation_s:.3f}",
        f"{cost.judge_s:.3f}" if scaled else MISSING,
        "not counted" if cost.generation_flops is None else f"{cost.generation_flops / size:.3g}",
        judged if scaled else MISSING,
        times,
    ]


def _gain(row: _Row, metric: str) -> str:
    cell = row.numbers.get(metric)
    if not row.complete or (cell is not None and not cell.is_complete):
        return "incomplete"
    if cell is None or cell.gain is None:
        return MISSING
    return format_gain(cell.gain, cell.unit)


def _notes(shown: Sequence[_Row], scaled: Sequence[_Row], metrics: Mapping[str, SummaryCell]) -> list[str]:
    ways = "; ".join(
        f"{metric_label(name)}: {direction(cell.higher_is_better)}" for name, cell in metrics.items()
    )
    notes = [
        'Gain: the number minus that of the variant under "gain over", paired by prompt and sample, with its 95 % interval'
        + (f" ({ways})." if ways else "."),
        "Where the judge is also the metric, the gain only shows that the search worked.",
        "FLOPs of generation are counted from the configuration where it is known, FLOPs of judging by torch for the first "
        'batch. Compute: both relative to those of the variant under "gain over".',
    ]
    devices: dict[str, list[str]] = {}
    for row in shown:
        if row.cost is not None and row.cost.device:
            devices.setdefault(row.cost.device, []).append(row.variant)
    for device, names in devices.items():
        whose = f": {', '.join(names)}" if len(devices) > 1 else ""
        notes.append(f"Seconds on {device}{whose}.")
    for row in scaled:
        if row.cost is None:
            notes.append(f"{row.variant}: the cost of its images was not recorded.")
            continue
        n = row.cost.n_images
        of = (
            ""
            if n == row.cost.n_delivered
            else f" (of {row.cost.n_delivered}; the cost of the others was not recorded)"
        )
        spent = f"{row.cost.generated * n:.0f} images generated for {n} delivered{of}"
        seconds = f"{(row.cost.generation_s or 0.0) * n:.1f} s of generation and {row.cost.judge_s * n:.1f} s of judging"
        notes.append(f"{row.variant}: {spent}, {seconds} in all.")
    return notes
