"""What was measured beside what was published of the same model: reproduced, different, or not to be compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sana_reports.data import ReportData, SummaryCell
from sana_reports.labels import MISSING, OVERALL, metric_label, task_label
from sana_reports.leaderboard_data import Table
from sana_reports.published import PUBLISHED, published_table
from sana_reports.published_speed import PUBLISHED_SPEED, SpeedRow
from sana_reports.text_table import TextTable

__all__ = ["Beside", "beside_of_board", "beside_published", "beside_table", "quoted_quality"]

REPRODUCED, DIFFERS, NOT_COMPARABLE = "reproduced", "differs", "not comparable"

_SEEDS = "seeds are not published"
_SOFTWARE = (
    "other software; what the published time includes, and the autoencoder's precision, are not stated"
)


@dataclass(frozen=True, slots=True)
class _Made:
    """How a published number was made: benchmark, protocol, images, digits behind the point, and what is known to differ."""

    benchmark: str
    protocol: str
    n_images: int | None
    digits: int
    known: str


_PUBLISHED_AS = {
    "geneval": _Made(
        "geneval", "geneval/sana@1", 2212, 2, f"{_SEEDS}; the released weights are not those of every table"
    ),
    "fid": _Made(
        "mjhq30k", "fid/sana@1", 30000, 2, f"the size that images were scaled to is not published; {_SEEDS}"
    ),
    "clip_score": _Made("mjhq30k", "clip_score/sana@1", 30000, 2, _SEEDS),
    "dpg": _Made(
        "dpg_bench", "dpg/sana-grid@1", 4260, 1, f"the size of a grid's cells is not published; {_SEEDS}"
    ),
    "image_reward": _Made("image_reward", "image_reward/sana-jpeg@1", 1000, 2, _SEEDS),
    "latency": _Made("latency", "latency/warm-interleaved@1", None, 1, _SOFTWARE),
    "throughput": _Made("latency", "throughput/fixed-batch@1", None, 1, _SOFTWARE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One published number of a variant and the measured one, in the published unit; `verdict` is one of three, with the reason.

    `low` and `high` bound the measured number's 95 % interval. `digits` are those of the published number behind the point.
    """

    variant: str
    benchmark: str
    metric: str
    key: str
    title: str
    source: str
    published: float
    digits: int
    value: float
    low: float
    high: float
    verdict: str
    reason: str = ""

    @property
    def difference(self) -> float:
        """Measured minus published."""
        return self.value - self.published


def beside_published(data: ReportData) -> list[Beside]:
    """Every published number that a variant of a report reproduces by its file and that the run has measured."""
    return [
        one
        for variant in data.variants
        for one in _of_variant(
            variant.name,
            variant.published,
            variant.settings,
            (cell for cell in data.summaries if cell.variant == variant.name),
        )
    ]


def beside_of_board(table: Table) -> list[Beside]:
    """As `beside_published`, for the entries of a ranking."""
    return [
        one
        for entry in table.entries
        for one in _of_variant(entry.variant, entry.published, entry.settings, entry.numbers.values())
    ]


def beside_table(found: Sequence[Beside]) -> list[TextTable]:
    """Published and measured numbers as a table; none where a run reproduces nothing that is published."""
    if not found:
        return []
    rows = [
        (
            one.variant,
            metric_label(one.metric) + ("" if one.key == OVERALL else f", {task_label(one.key)}"),
            one.verdict,
            f"{one.published:.{one.digits}f}",
            _measured(one),
            f"{one.difference:+.{one.digits + 1}f}",
            one.reason,
            f"{one.title}; {one.source}",
        )
        for one in found
    ]
    header = (
        "variant",
        "metric",
        "verdict",
        "published",
        "measured [95 %]",
        "difference",
        "why",
        "published by",
    )
    note = (
        f"{REPRODUCED}: the published number lies in the measured interval, widened by its rounding. Times in seconds. "
        "Published categories of DPG-Bench are left out: the published script mixes them up."
    )
    return [TextTable(title="Measured beside published", header=header, rows=rows, notes=(note,))]


def quoted_quality(data: ReportData) -> list[TextTable]:
    """All published numbers of the benchmarks of a report, quoted; empty outside the full tier."""
    tables = []
    for benchmark in dict.fromkeys(cell.benchmark for cell in data.summaries):
        metrics = dict.fromkeys(cell.metric for cell in data.summaries if cell.benchmark == benchmark)
        if (quoted := published_table(data.tier, benchmark, tuple(metrics))) is not None:
            header = (
                "Model (quoted)",
                *(
                    metric_label(metric) if key == OVERALL else task_label(key)
                    for metric, key in quoted.columns
                ),
                "Source",
            )
            rows = [
                (
                    row.title,
                    *(
                        _printed(column[0], row.numbers[column]) if column in row.numbers else MISSING
                        for column in quoted.columns
                    ),
                    row.source(quoted.metrics),
                )
                for _, rows in quoted.groups
                for row in rows
            ]
            note = "Quoted from papers under their own protocol and hardware: for orientation, never ranked."
            title = f"Published numbers: {metric_label(benchmark)}"
            tables.append(TextTable(title=title, header=header, rows=rows, notes=(note,)))
    return tables


def _of_variant(
    variant: str, titles: Sequence[str], settings: Mapping[str, Any], cells: Iterable[SummaryCell]
) -> list[Beside]:
    found = []
    for cell in cells:
        made = _PUBLISHED_AS.get(cell.metric)
        if made is None or cell.benchmark != made.benchmark:
            continue
        for title, source, published, hardware, batch in _counterparts(cell, titles):
            reasons = _against(cell, made, title, settings, hardware, batch)
            found.append(_judged(variant, cell, made, title, source, published, reasons))
    return found


def _counterparts(
    cell: SummaryCell, titles: Sequence[str]
) -> list[tuple[str, str, float, tuple[str, str], str]]:
    """Title, source, number, hardware with precision, and batch of the published rows that have the cell's number."""
    if cell.metric in ("latency", "throughput"):
        return [
            (row.title, row.source, number, (row.hardware, row.precision), row.batch)
            for row in PUBLISHED_SPEED
            if row.title in titles and (number := _speed(row, cell.metric)) is not None
        ]
    keys = (OVERALL,) if cell.metric == "dpg" else (cell.key,)
    return [
        (row.title, ", ".join(filter(None, (row.paper, row.tables.get(cell.metric)))),
         row.numbers[cell.metric, cell.key], ("", ""), "")
        for row in PUBLISHED
        if row.title in titles and cell.key in keys and (cell.metric, cell.key) in row.numbers
    ]  # fmt: skip


def _speed(row: SpeedRow, metric: str) -> float | None:
    return row.latency_s if metric == "latency" else row.throughput


def _against(
    cell: SummaryCell,
    made: _Made,
    title: str,
    settings: Mapping[str, Any],
    hardware: tuple[str, str],
    batch: str,
) -> list[str]:
    """Why a measured number is no counterpart of the published one; empty where it is."""
    reasons = []
    if cell.protocol != made.protocol:
        reasons.append(f"protocol {cell.protocol}, published by {made.protocol}")
    if not cell.is_complete or (made.n_images and cell.key == OVERALL and cell.n_samples != made.n_images):
        n = made.n_images if made.n_images and cell.key == OVERALL else cell.n_expected
        reasons.append(f"{cell.n_samples} of {n} images")
    pixels = (settings.get("model") or {}).get("height")
    if title.endswith(" px") and not title.endswith(f", {pixels} px"):
        reasons.append(f"images of {pixels} pixels")
    card, precision = hardware
    if card and not _is_card(card, cell.device):
        reasons.append(f"measured on {cell.device or 'an unknown device'}, published on {card}")
    if precision and precision.lower() not in _numbers_of(settings):
        reasons.append(f"{' and '.join(_numbers_of(settings))}, published in {precision}")
    if cell.metric == "throughput" and batch and str(cell.batch_size or "") != batch:
        reasons.append(f"batches of {cell.batch_size or 'the best size'}, published with {batch}")
    if not (math.isfinite(cell.low) and math.isfinite(cell.high)):
        reasons.append("the measured number has no interval")
    return reasons


def _is_card(card: str, device: str) -> bool:
    """Whether a device by its driver's name is the published one; a laptop's card is not the desktop's of its name."""
    name, _, form = card.partition(" (")
    return name in device and (("laptop" in form) == ("Laptop" in device))


def _numbers_of(settings: Mapping[str, Any]) -> list[str]:
    """The formats that the denoising network computes in, as published rows call them."""
    precision = settings.get("precision", "")
    word = precision if isinstance(precision, str) else str(precision.get("transformer", ""))
    quantization = str(settings.get("quantization", "none"))
    return [word] if quantization == "none" else [quantization]


def _digits(made: _Made, published: float) -> int:
    """Digits behind the point as the paper prints the number, trailing zeros included."""
    return max(made.digits, len(repr(published).partition(".")[2]))


def _printed(metric: str, published: float) -> str:
    made = _PUBLISHED_AS.get(metric)
    return f"{published:g}" if made is None else f"{published:.{_digits(made, published)}f}"


def _judged(
    variant: str,
    cell: SummaryCell,
    made: _Made,
    title: str,
    source: str,
    published: float,
    reasons: Sequence[str],
) -> Beside:
    # Papers state seconds.
    scale = 1000 if cell.metric == "latency" else 1
    value, low, high = cell.value / scale, cell.low / scale, cell.high / scale
    digits = _digits(made, published)
    half = 0.5 * 10.0**-digits
    if reasons:
        verdict, reason = NOT_COMPARABLE, "; ".join(reasons)
    elif low - half <= published <= high + half:
        verdict, reason = REPRODUCED, ""
    else:
        verdict, reason = DIFFERS, f"known: {made.known}"
    return Beside(
        variant=variant, benchmark=cell.benchmark, metric=cell.metric, key=cell.key, title=title, source=source,
        published=published, digits=digits, value=value, low=low, high=high, verdict=verdict,
        reason=reason,
    )  # fmt: skip


def _measured(one: Beside) -> str:
    places = one.digits + 1
    bounded = math.isfinite(one.low) and math.isfinite(one.high)
    bounds = f" [{one.low:.{places}f}, {one.high:.{places}f}]" if bounded else ""
    return f"{one.value:.{places}f}{bounds}"
