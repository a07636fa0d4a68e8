"""Quality against latency, parameters, depth kept and compute, as inline SVG."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from sana_reports.labels import KINDS, flops_unit, format_value, metric_label, one_line
from sana_reports.leaderboard_data import Column, Entry, Table
from sana_reports.plot_labels import LINE, labelled, text_width
from sana_reports.plots import nice_ticks

__all__ = ["SPEED_METRICS", "pareto_front", "quality_plots"]

# A time against a time says nothing.
SPEED_METRICS = ("latency", "throughput")
_WIDTH, _HEIGHT = 420, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 406, 16, 276
_LEGEND = 26
_DODGE = 7  # between variants of equal size, which would hide each other's interval
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
    """From data to drawing units; with `log`, `x` bounds the decimal logarithm."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False

    def across(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return _LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (_RIGHT - _LEFT)

    def up(self, value: float) -> float:
        return _BOTTOM - (value - self.y[0]) / (self.y[1] - self.y[0]) * (_BOTTOM - _TOP)


def quality_plots(table: Table, colors: Mapping[str, int]) -> list[tuple[str, Markup]]:
    """(caption, drawing) pairs for the first metric: one per device for latency, then parameters, depth kept and compute.

    Times of different devices, or batches of different size, never share axes. A plot needs two points.
    `colors` are by variant. Markers tell the kinds apart; but for latency, a dashed line leads from a variant to its source.
    """
    if not table.columns:
        return []
    column = table.columns[0]
    by_device: dict[tuple[str, str], list[_Point]] = {}
    by_size: list[_Point] = []
    by_compute: list[_Point] = []
    by_depth: list[_Point] = []
    kept = _depth_kept(table)
    for entry in table.entries:
        color = colors[entry.variant]
        cell = entry.numbers[column.metric]
        low = cell.low if math.isfinite(cell.low) else cell.value
        high = cell.high if math.isfinite(cell.high) else cell.value
        if entry.latency is not None and column.metric not in SPEED_METRICS:
            point = _Point(entry, color, entry.latency.value_ms, cell.value, low, high)
            by_device.setdefault((entry.latency.device, entry.latency.note), []).append(point)
        if entry.parameters:
            by_size.append(_Point(entry, color, entry.parameters / 1e6, cell.value, low, high))
        if entry.fingerprint in kept:
            by_depth.append(_Point(entry, color, kept[entry.fingerprint], cell.value, low, high))
        if entry.cost is not None and entry.cost.flops:
            by_compute.append(_Point(entry, color, entry.cost.flops, cell.value, low, high))
    label = metric_label(column.metric)
    plots = []
    for (device, note), points in by_device.items():
        if len(points) >= 2:
            where = f"{device or 'unknown device'}{f' ({note})' if note else ''}"
            caption = f"{label} against time per image on {where}"
            plots.append((caption, _scatter(points, column, "milliseconds per image", caption, front=True)))
    parents = {entry.variant: entry.derived_from for entry in table.entries}
    if len(by_size) >= 2:
        caption = f"{label} against parameters"
        plots.append((caption, _scatter(by_size, column, "million parameters", caption, parents=parents)))
    if len(by_depth) >= 2:
        caption = f"{label} against depth kept"
        plots.append((caption, _scatter(by_depth, column, "share of blocks kept", caption, parents=parents)))
    if len(by_compute) >= 2:
        caption = f"{label} against compute at inference"
        unit, size = flops_unit([point.x for point in by_compute])
        points = [replace(point, x=point.x / size) for point in by_compute]
        x_label = f"{unit} per delivered image, logarithmic"
        plots.append((caption, _scatter(points, column, x_label, caption, parents=parents, log=True)))
    return plots


def _depth_kept(table: Table) -> dict[str, float]:
    """Share of blocks left, by fingerprint: of pruned variants, and 1 for those that they were cut from."""
    pruned = {
        entry.fingerprint: entry.depth / entry.cut_from_depth
        for entry in table.entries
        if entry.kind == "pruned" and entry.depth and entry.cut_from_depth
    }
    whole = {entry.cut_from for entry in table.entries if entry.fingerprint in pruned}
    return {entry.fingerprint: 1.0 for entry in table.entries if entry.variant in whole} | pruned


def _scatter(
    points: list[_Point],
    column: Column,
    x_label: str,
    caption: str,
    *,
    parents: Mapping[str, str] | None = None,
    front: bool = False,
    log: bool = False,
) -> Markup:
    xs = [math.log10(point.x) if log else point.x for point in points]
    frame = _Frame(
        _domain(xs, from_zero=not log),
        _domain([value for point in points for value in (point.low, point.high)], from_zero=False),
        log,
    )
    places = _places(points, frame)
    kinds = [kind for kind in KINDS if any(point.entry.kind == kind for point in points)]
    marks = [_axes(frame)]
    if front:
        marks.append(_front_line(points, places, column))
    if parents is not None:
        marks += _origin_lines(points, places, parents)
    marks += [_mark(point, *place, frame.up) for point, place in zip(points, places, strict=True)]
    names = [one_line(point.entry.variant) for point in points]
    labels, numbered = labelled(names, places, (_LEFT + 2, _TOP, _RIGHT + 8, _BOTTOM))
    marks.append(labels)
    height = _HEIGHT
    if len(kinds) > 1:
        marks.append(_legend(kinds))
        height += _LEGEND
    key, extra = _key(numbered, height + LINE)
    marks.append(key)
    spoken = "; ".join(
        f"{point.entry.variant} ({KINDS[point.entry.kind]}): {format_value(point.y, column.unit)} "
        f"at {point.x:{',.0f' if point.x >= 100 else '.3g'}} {x_label}"
        for point in points
    )
    return Markup(
        '<svg class="scatter" viewBox="0 0 {} {}" role="img" aria-label="{}"><desc>{}</desc>{}'
        '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text></svg>'
    ).format(
        _WIDTH, height + extra, caption, f"{spoken}.", Markup("").join(marks),
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
        for tick in (_log_ticks(*frame.x) if frame.log else nice_ticks(*frame.x))
    )
    return Markup("").join([*rows, *columns])


def _log_ticks(low: float, high: float) -> list[float]:
    """At most eight of the 1, 2 and 5 times powers of ten, or of the powers alone, between 10 ** low and 10 ** high."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= math.log10(tick) <= high]
        if len(inside) <= 8:
            return inside
    return inside[:: math.ceil(len(inside) / 8)]


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
    ).format(point.color, up(point.low), up(point.high), shape, x=x, y=y)


def pareto_front(points: Iterable[tuple[float, float]], *, higher_is_better: bool) -> list[int]:
    """Indices of the (cost, value) points that no other beats in one without losing in the other, by rising cost.

    Of points that are equal in both, all are kept.
    """
    values = [(cost, value if higher_is_better else -value) for cost, value in points]
    kept = [
        index
        for index, (cost, value) in enumerate(values)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in values)
    ]
    return sorted(kept, key=lambda index: values[index])


def _front_line(points: list[_Point], places: list[tuple[float, float]], column: Column) -> Markup:
    front = pareto_front([(p.x, p.y) for p in points], higher_is_better=column.higher_is_better)
    path = " ".join(f"{places[index][0]:.1f},{places[index][1]:.1f}" for index in front)
    return Markup(
        '<polyline class="front" points="{}"/><text class="tick" x="{}" y="{}" text-anchor="end">line: Pareto front</text>'
    ).format(path, _RIGHT, _TOP - 5)


def _origin_lines(
    points: list[_Point], places: list[tuple[float, float]], parents: Mapping[str, str]
) -> Iterable[Markup]:
    """A line from each point to the nearest one up its line of descent; `parents` knows variants without a point too."""
    by_name = {point.entry.variant: place for point, place in zip(points, places, strict=True)}
    line = Markup('<line class="origin" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    for point, place in zip(points, places, strict=True):
        name, seen = point.entry.derived_from, {point.entry.variant}
        while name and name not in by_name and name not in seen:
            seen.add(name)
            name = parents.get(name, "")
        if (source := by_name.get(name)) is not None:
            yield line.format(*source, *place)


def _key(names: Sequence[str], top: float) -> tuple[Markup, float]:
    """Numbered names in as many columns as they leave room for, and how high they are."""
    columns = max(1, int((_RIGHT - _LEFT) // (max(map(text_width, names), default=0) + 40)))
    lines = math.ceil(len(names) / columns)
    step = (_RIGHT - _LEFT) / columns
    parts = [
        Markup('<text class="point" x="{:.0f}" y="{:.0f}">{} {}</text>').format(
            _LEFT + step * (index // lines), top + LINE * (index % lines), index + 1, name
        )
        for index, name in enumerate(names)
    ]
    return Markup("").join(parts), LINE * (lines + 1) if lines else 0


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
