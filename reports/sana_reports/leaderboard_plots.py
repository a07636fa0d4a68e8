"""Quality against latency and against parameters, as inline SVG."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from sana_reports.labels import format_value, metric_label
from sana_reports.leaderboard_data import Column, Table
from sana_reports.plots import N_COLORS, nice_ticks

__all__ = ["quality_plots"]

_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 532, 16, 282


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    color: int
    x: float
    y: float
    low: float
    high: float


def quality_plots(table: Table) -> list[tuple[str, Markup]]:
    """(caption, drawing) pairs for the first metric: one per device for latency, then one for parameters.

    Times of different devices, or batches of different size, never share axes. A plot needs two points.
    """
    if not table.columns:
        return []
    column = table.columns[0]
    by_device: dict[tuple[str, str], list[_Point]] = {}
    by_size: list[_Point] = []
    for color, entry in enumerate(table.entries):
        cell = entry.numbers[column.metric]
        low = cell.low if math.isfinite(cell.low) else cell.value
        high = cell.high if math.isfinite(cell.high) else cell.value
        if entry.latency is not None:
            point = _Point(entry.variant, color, entry.latency.value_ms, cell.value, low, high)
            by_device.setdefault((entry.latency.device, entry.latency.note), []).append(point)
        if entry.parameters:
            by_size.append(_Point(entry.variant, color, entry.parameters / 1e6, cell.value, low, high))
    label = metric_label(column.metric)
    plots = []
    for (device, note), points in by_device.items():
        if len(points) >= 2:
            where = f"{device or 'unknown device'}{f' ({note})' if note else ''}"
            caption = f"{label} against time per image on {where}"
            plots.append((caption, _scatter(points, column, "milliseconds per image", caption)))
    if len(by_size) >= 2:
        caption = f"{label} against parameters"
        plots.append((caption, _scatter(by_size, column, "million parameters", caption)))
    return plots


def _scatter(points: list[_Point], column: Column, x_label: str, caption: str) -> Markup:
    x_low, x_high = _domain([point.x for point in points], from_zero=True)
    y_low, y_high = _domain([value for point in points for value in (point.low, point.high)], from_zero=False)

    def across(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (_RIGHT - _LEFT)

    def up(value: float) -> float:
        return _BOTTOM - (value - y_low) / (y_high - y_low) * (_BOTTOM - _TOP)

    marks = []
    for tick in nice_ticks(y_low, y_high):
        marks.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
                '<text class="tick" x="{}" y="{y:.1f}" dy="0.32em" text-anchor="end">{}</text>'
            ).format(_LEFT, _RIGHT, _LEFT - 8, f"{tick:g}", y=up(tick))
        )
    for tick in nice_ticks(x_low, x_high):
        marks.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                across(tick), _BOTTOM + 18, f"{tick:g}"
            )
        )
    marks += [_mark(point, across(point.x), up) for point in points]
    spoken = "; ".join(f"{p.name}: {format_value(p.y, column.unit)} at {p.x:.3g} {x_label}" for p in points)
    return Markup(
        '<svg class="scatter" viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
        '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text></svg>'
    ).format(
        _WIDTH, _HEIGHT, f"{caption}. {spoken}.", Markup("").join(marks),
        (_LEFT + _RIGHT) / 2, _BOTTOM + 40, x_label,
    )  # fmt: skip


def _mark(point: _Point, x: float, up: Callable[[float], float]) -> Markup:
    end = x > _RIGHT - 150
    return Markup(
        '<g class="v{}"><line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        '<text x="{:.1f}" y="{y:.1f}" dy="-0.5em" text-anchor="{}">{}</text></g>'
    ).format(
        point.color % N_COLORS, up(point.low), up(point.high), x - 9 if end else x + 9,
        "end" if end else "start", point.name, x=x, y=up(point.y),
    )  # fmt: skip


def _domain(values: list[float], *, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if from_zero and low >= 0 else low - margin), high + margin
