"""Charts as inline SVG: bars with interval whiskers, and the small strips beside the numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from markupsafe import Markup

from sana_reports.data import Gain, SummaryCell
from sana_reports.labels import format_count, format_interval, format_value, metric_label, task_label
from sana_reports.tables import MetricBlock, MetricRow

__all__ = [
    "difference_strip",
    "interval_strip",
    "nice_ticks",
    "short_names",
    "task_bars",
    "value_domain",
]

_BAR_HEIGHT = 15
# From so many variants on, what all names share would cover what tells them apart.
_CROWD = 5
_BAR_PITCH = 21


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where things are, in SVG units."""

    width: int
    left: int
    right: int
    heading_above: bool
    low: float
    high: float

    def x(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)


def value_domain(rows: Sequence[MetricRow], unit: str, *, from_zero: bool) -> tuple[float, float]:
    """The axis of `rows`: [0, 1] for fractions, otherwise all values and intervals, with zero if asked."""
    if unit == "fraction":
        return 0.0, 1.0
    cells = [cell for row in rows for cell in row.cells if cell is not None]
    values = [value for cell in cells for value in (cell.value, cell.low, cell.high) if math.isfinite(value)]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if from_zero:
        return min(low, 0.0), max(high, 0.0) or 1.0
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About `n` round numbers inside [low, high]."""
    step = 10 ** math.floor(math.log10((high - low) / n))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= n)
    return [round(index * step, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def interval_strip(cell: SummaryCell, color: int, domain: tuple[float, float]) -> Markup:
    """A dot with its interval on the row's axis. Decoration: the numbers stand beside it as text."""
    return _strip((cell.value, cell.low, cell.high), color, domain)


def difference_strip(gain: Gain, color: int, reach: float) -> Markup:
    """A difference with its interval on an axis from -reach to reach, with a mark at zero. Decoration, as `interval_strip`."""
    zero = Markup('<line class="zero" x1="60" x2="60" y1="0" y2="10"/>')
    return _strip((gain.difference, gain.low, gain.high), color, (-reach, reach), zero)


def _strip(
    numbers: tuple[float, float, float], color: int, domain: tuple[float, float], mark: str = ""
) -> Markup:
    value, low, high = numbers
    if not math.isfinite(value):
        return Markup("")
    frame = _Frame(120, 4, 116, False, *domain)
    if not (math.isfinite(low) and math.isfinite(high)):
        low = high = value
    return Markup(
        '<svg class="strip v{}" viewBox="0 0 120 10" aria-hidden="true" focusable="false">'
        '<line class="axis" x1="0" x2="120" y1="5" y2="5"/>{}'
        '<line class="range" x1="{:.1f}" x2="{:.1f}" y1="5" y2="5"/>'
        '<circle cx="{:.1f}" cy="5" r="3.4"/></svg>'
    ).format(color, mark, frame.x(low), frame.x(high), frame.x(value))


def task_bars(block: MetricBlock, variants: Mapping[str, int], *, wide: bool) -> Markup:
    """Horizontal bars grouped by task, one bar per variant in its colour, each with its interval, value and name."""
    low, high = value_domain(block.tasks, block.unit, from_zero=True)
    frame = _Frame(1000, 340, 890, False, low, high) if wide else _Frame(400, 128, 336, True, low, high)
    top = 8
    marks: list[Markup] = []
    for row in block.tasks:
        group, bottom = _group(frame, row, variants, top)
        marks.append(group)
        top = bottom + (16 if wide else 12)
    height = top + 14
    return Markup(
        '<svg class="bars {}" viewBox="0 0 {} {}" role="img" aria-label="{}"><desc>{}</desc>{}{}</svg>'
    ).format(
        "wide" if wide else "narrow",
        frame.width,
        height,
        f"{metric_label(block.metric)} by task",
        _description(block, variants),
        _grid(frame, block.unit, top),
        Markup("").join(marks),
    )


def _group(frame: _Frame, row: MetricRow, variants: Mapping[str, int], top: int) -> tuple[Markup, int]:
    heading = task_label(row.key)
    parts = []
    if frame.heading_above:
        parts.append(Markup('<text class="task" x="0" y="{}">{}</text>').format(top + 11, heading))
        top += 20
    else:
        middle = top + (_BAR_PITCH * len(row.cells)) / 2
        parts.append(
            Markup('<text class="task" x="0" y="{:.1f}" dy="0.32em">{}</text>').format(middle - 3, heading)
        )
    labels = short_names(list(variants), 18 if frame.heading_above else 26)
    for (name, color), label, cell in zip(variants.items(), labels, row.cells, strict=True):
        parts.append(_bar(frame, color, (name, label), cell, top))
        top += _BAR_PITCH
    return Markup("<g>{}</g>").format(Markup("").join(parts)), top


def _bar(frame: _Frame, color: int, names: tuple[str, str], cell: SummaryCell | None, top: int) -> Markup:
    """A bar with its interval; `names` are the whole name, which is spoken, and the short one beside the bar."""
    name, short = names
    middle = top + _BAR_HEIGHT / 2
    text = Markup('<text class="{}" x="{:.1f}" y="{}" dy="0.32em"{}>{}</text>')
    label = text.format("name", frame.left - 10, middle, Markup(' text-anchor="end"'), short)
    if cell is None or not math.isfinite(cell.value):
        return label + text.format("value", frame.left + 6, middle, "", "no value")
    zero, end = frame.x(max(frame.low, 0.0)), frame.x(cell.value)
    has_interval = math.isfinite(cell.low) and math.isfinite(cell.high)
    low, high = (frame.x(cell.low), frame.x(cell.high)) if has_interval else (end, end)
    bar = Markup(
        '<rect class="bar v{}{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="2"><title>{}</title></rect>'
    ).format(
        color,
        "" if cell.is_complete else " partial",
        min(zero, end),
        top,
        max(abs(end - zero), 1.0),
        _BAR_HEIGHT,
        f"{name}: {_spoken(cell)}",
    )
    whisker = Markup('<path class="whisker" d="M{0:.1f} {3}H{1:.1f}M{0:.1f} {2}v8M{1:.1f} {2}v8"/>').format(
        low, high, middle - 4, middle
    )
    value = format_value(cell.value, cell.unit) + ("" if cell.is_complete else " *")
    number = text.format("value", max(end, high) + 8, middle, "", value)
    return label + bar + (whisker if has_interval else Markup("")) + number


def _grid(frame: _Frame, unit: str, bottom: int) -> Markup:
    line = Markup(
        '<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y}"/>'
        '<text class="tick" x="{x:.1f}" y="{label}" text-anchor="middle">{text}</text>'
    )
    ticks = nice_ticks(frame.low, frame.high, 5 if frame.width > 500 else 3)
    return Markup("").join(
        line.format(x=frame.x(tick), y=bottom - 6, label=bottom + 8, text=f"{tick:g}") for tick in ticks
    )


def _spoken(cell: SummaryCell) -> str:
    value = f"{format_value(cell.value, cell.unit)} {format_interval(cell)}".strip()
    return f"{value}, {format_count(cell)} images"


def _description(block: MetricBlock, variants: Iterable[str]) -> str:
    return " ".join(
        f"{task_label(row.key)}: "
        + "; ".join(
            f"{name} {'no value' if cell is None else _spoken(cell)}"
            for name, cell in zip(variants, row.cells, strict=True)
        )
        + "."
        for row in block.tasks
    )


def shorten(text: str, limit: int) -> str:
    """Cut the middle out: variants of one family differ at either end of their names."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}…{text[len(text) - (limit - 1) // 2 :]}"


def short_names(names: Sequence[str], limit: int) -> list[str]:
    """Names of at most `limit` letters; of a crowd, the first words that all share give way first."""
    if len(names) >= _CROWD:
        # The last word of a name is never shared away.
        shared = takewhile(
            lambda words: len(set(words)) == 1, zip(*(name.split("-")[:-1] for name in names), strict=False)
        )
        start = sum(len(words[0]) + 1 for words in shared)
        names = [f"…{name[start:]}" for name in names] if start else names
    return [shorten(name, limit) for name in names]
