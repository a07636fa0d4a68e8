"""Quality against latency and against parameters, as inline SVG."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from markupsafe import Markup

from sana_reports.data import KINDS
from sana_reports.labels import format_value, metric_label, one_line
from sana_reports.leaderboard_data import Column, Entry, Table
from sana_reports.plots import N_COLORS, nice_ticks, shorten

__all__ = ["quality_plots"]

_WIDTH, _HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 446, 16, 276
_DODGE = 7  # between variants of equal size, which would hide each other's interval
_LETTER = 7  # width of a label's letter, on the wide side
# How each kind is drawn around the origin, so that it can be told without colour.
_SHAPES = {
    "full": '<circle r="5"/>',
    "grown": '<path d="M0-6.5 6.5 5h-13z"/>',
    "pruned": '<path d="M0 6.5 6.5-5h-13z"/>',
    "inference_scaled": '<path d="M0-6.5 6.5 0 0 6.5-6.5 0z"/>',
}


@dataclass(frozen=True, slots=True)
class _Point:
    entry: Entry
    color: int
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """From data to drawing units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        return _LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (_RIGHT - _LEFT)

    def up(self, value: float) -> float:
        return _BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (_BOTTOM - _TOP)


def quality_plots(table: Table) -> list[tuple[str, Markup]]:
    """(caption, drawing) pairs for the first metric: one per device for latency, then one for parameters.

    Times of different devices, or batches of different size, never share axes. A plot needs two points.
    Markers tell the kinds apart; against parameters, a dashed line leads from a variant to what it was made from.
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
            point = _Point(entry, color, entry.latency.value_ms, cell.value, low, high)
            by_device.setdefault((entry.latency.device, entry.latency.note), []).append(point)
        if entry.parameters:
            by_size.append(_Point(entry, color, entry.parameters / 1e6, cell.value, low, high))
    label = metric_label(column.metric)
    plots = []
    for (device, note), points in by_device.items():
        if len(points) >= 2:
            where = f"{device or 'unknown device'}{f' ({note})' if note else ''}"
            caption = f"{label} against time per image on {where}"
            plots.append((caption, _scatter(points, column, "milliseconds per image", caption)))
    if len(by_size) >= 2:
        caption = f"{label} against parameters"
        plots.append((caption, _scatter(by_size, column, "million parameters", caption, origins=True)))
    return plots


def _scatter(
    points: list[_Point], column: Column, x_label: str, caption: str, *, origins: bool = False
) -> Markup:
    frame = _Frame(
        _domain([point.x for point in points], from_zero=True),
        _domain([value for point in points for value in (point.low, point.high)], from_zero=False),
    )
    places = _places(points, frame)
    kinds = [kind for kind in KINDS if any(point.entry.kind == kind for point in points)]
    marks = [_axes(frame)]
    if origins:
        marks += _origin_lines(points, places)
    marks += [_mark(point, *place, frame.up) for point, place in zip(points, places, strict=True)]
    marks += _names(points, places)
    if len(kinds) > 1:
        marks.append(_legend(kinds))
    spoken = "; ".join(
        f"{point.entry.variant} ({KINDS[point.entry.kind]}): {format_value(point.y, column.unit)} "
        f"at {point.x:{',.0f' if point.x >= 100 else '.3g'}} {x_label}"
        for point in points
    )
    return Markup(
        '<svg class="scatter" viewBox="0 0 {} {}" role="img" aria-label="{}"><desc>{}</desc>{}'
        '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text></svg>'
    ).format(
        _WIDTH, _HEIGHT + 26 * (len(kinds) > 1), caption, f"{spoken}.", Markup("").join(marks),
        (_LEFT + _RIGHT) / 2, _BOTTOM + 42, x_label,
    )  # fmt: skip


def _axes(frame: _Frame) -> Markup:
    rows = (
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" x="{}" y="{y:.1f}" dy="0.32em" text-anchor="end">{}</text>'
        ).format(_LEFT, _RIGHT, _LEFT - 8, f"{tick:g}", y=frame.up(tick))
        for tick in nice_ticks(*frame.y)
    )
    columns = (
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            frame.across(tick), _BOTTOM + 20, f"{tick:g}"
        )
        for tick in nice_ticks(*frame.x)
    )
    return Markup("").join([*rows, *columns])


def _places(points: list[_Point], frame: _Frame) -> list[tuple[float, float]]:
    """Where the markers go: points of equal x side by side."""
    same: dict[float, list[int]] = {}
    for index, point in enumerate(points):
        same.setdefault(point.x, []).append(index)
    shift = {
        i: _DODGE * (rank - (len(group) - 1) / 2) for group in same.values() for rank, i in enumerate(group)
    }
    return [(frame.across(point.x) + shift[i], frame.up(point.y)) for i, point in enumerate(points)]


def _mark(point: _Point, x: float, y: float, up: Callable[[float], float]) -> Markup:
    shape = Markup(_SHAPES[point.entry.kind])
    return Markup(
        '<g class="v{}"><line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
        '<g transform="translate({x:.1f} {y:.1f})">{}</g></g>'
    ).format(point.color % N_COLORS, up(point.low), up(point.high), shape, x=x, y=y)


def _origin_lines(points: list[_Point], places: list[tuple[float, float]]) -> Iterable[Markup]:
    by_name = {point.entry.variant: place for point, place in zip(points, places, strict=True)}
    line = Markup('<line class="origin" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    for point, place in zip(points, places, strict=True):
        if (source := by_name.get(point.entry.derived_from)) is not None:
            yield line.format(*source, *place)


def _names(points: list[_Point], places: list[tuple[float, float]]) -> list[Markup]:
    """Names beside the markers, each at the first place where it covers no other and no marker, and stays inside."""
    taken: list[tuple[float, float, float]] = [(x - 8, y + 5, 16) for x, y in places]
    names = []
    for point, (x, y) in zip(points, places, strict=True):
        text = shorten(one_line(point.entry.variant), 30)
        width = _LETTER * len(text)
        sides = [(side, rise) for rise in (-8, 16, -22, 30) for side in (1, -1)]
        spots = [((x + 10 if side > 0 else x - 10 - width), y + rise, side) for side, rise in sides]
        inside = [spot for spot in spots if spot[0] > _LEFT and spot[0] + width < _RIGHT + 8] or spots
        clear = [spot for spot in inside if not any(_covers(spot, width, other) for other in taken)] or inside
        left, baseline, side = clear[0]
        taken.append((left, baseline, width))
        names.append(
            Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                left if side > 0 else left + width, baseline, "start" if side > 0 else "end", text
            )
        )
    return names


def _covers(spot: tuple[float, float, int], width: float, other: tuple[float, float, float]) -> bool:
    left, baseline, other_width = other
    return abs(spot[1] - baseline) < 13 and spot[0] < left + other_width and left < spot[0] + width


def _legend(kinds: list[str]) -> Markup:
    step = (_RIGHT - _LEFT) / 2
    parts = [
        Markup(
            '<g class="key" transform="translate({:.0f} {})">{}<text class="tick" x="11" dy="0.32em">{}</text></g>'
        ).format(
            _LEFT + 6 + step * (index % 2),
            _HEIGHT + 2 + 18 * (index // 2),
            Markup(_SHAPES[kind]),
            KINDS[kind],
        )
        for index, kind in enumerate(kinds)
    ]
    return Markup("").join(parts)


def _domain(values: list[float], *, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if from_zero and low >= 0 else low - margin), high + margin
