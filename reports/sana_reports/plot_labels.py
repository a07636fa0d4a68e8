"""Names beside the markers of a plot, none of them over another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sana_reports.plots import short_names

__all__ = ["LINE", "labelled", "text_width"]

#: Height of a line of text at the style sheet's 12 units.
LINE = 14
_MARKER = 8  # half the side of a marker with some air
_LONGEST = 30  # letters of a name
_REACH = 44  # how far a name may be from its marker before numbers take the place of names
# Widths in em, not below those of the widest usual font (DejaVu Sans): narrow, wide, and other letters of ASCII; the rest.
_NARROW, _WIDE = "fijlrt.,:;'|!()[]-/ ", "mwMW@%"
_EM = (0.42, 1.0, 0.79, 1.3)


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    width: float
    height: float

    def meets(self, other: "_Box") -> bool:
        across = self.left < other.left + other.width and other.left < self.left + self.width
        return across and self.top < other.top + other.height and other.top < self.top + self.height

    def inside(self, other: "_Box") -> bool:
        across = other.left <= self.left and self.left + self.width <= other.left + other.width
        return across and other.top <= self.top and self.top + self.height <= other.top + other.height


def text_width(text: str) -> float:
    """An upper bound of the width of a text at 12 units, whatever sans serif font draws it."""
    narrow, wide, other, foreign = _EM
    return 12 * sum(
        narrow if char in _NARROW else wide if char in _WIDE else other if char.isascii() else foreign
        for char in text
    )


def labelled(
    names: Sequence[str], places: Sequence[tuple[float, float]], area: tuple[float, float, float, float]
) -> tuple[Markup, list[str]]:
    """The labels of markers at `places`, inside `area` (left, top, right, bottom), and the key that they need.

    Where the names do not fit without touching each other or a marker, the labels are numbers from 1, and the key has the names
    in their order; else the key is empty.
    """
    frame = _Box(area[0], area[1], area[2] - area[0], area[3] - area[1])
    short = short_names(names, _LONGEST)
    if (boxes := _placed(short, places, frame, _REACH)) is not None:
        return _drawn(short, boxes, places), []
    numbers = [str(number) for number in range(1, len(names) + 1)]
    boxes = _placed(numbers, places, frame, max(frame.width, frame.height))
    return (Markup("") if boxes is None else _drawn(numbers, boxes, places)), short


def _placed(
    texts: Sequence[str], places: Sequence[tuple[float, float]], frame: _Box, reach: float
) -> list[_Box] | None:
    """A box for each text, clear of all markers and of each other; None where one has no place within `reach`."""
    taken = [_Box(x - _MARKER, y - _MARKER, 2 * _MARKER, 2 * _MARKER) for x, y in places]
    boxes = []
    for text, place in zip(texts, places, strict=True):
        spots = _spots(place, text_width(text), reach)
        box = next((box for box in spots if box.inside(frame) and not any(map(box.meets, taken))), None)
        if box is None:
            return None
        taken.append(box)
        boxes.append(box)
    return boxes


def _spots(place: tuple[float, float], width: float, reach: float) -> Iterator[_Box]:
    """Right and left of the marker, then around it on wider and wider rings."""
    x, y = place
    for distance in range(0, int(reach), 8):
        for step in range(12 if distance else 1):
            angle = math.pi * (step / 6 - 0.5)
            across, down = distance * math.cos(angle), distance * math.sin(angle)
            for left in (x + _MARKER + 2 + across, x - _MARKER - 2 - width - across):
                yield _Box(left, y - LINE / 2 + down, width, LINE)


def _drawn(texts: Sequence[str], boxes: Sequence[_Box], places: Sequence[tuple[float, float]]) -> Markup:
    """The texts, each with a thin line to its marker where it is not right beside it."""
    parts = []
    for text, box, (x, y) in zip(texts, boxes, places, strict=True):
        # A text narrower than its box stays on the marker's side.
        right = box.left > x
        edge = box.left if right else box.left + box.width
        middle = box.top + LINE / 2
        if math.hypot(edge - x, middle - y) > LINE:
            parts.append(
                Markup('<line class="lead" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
                    x, y, edge, middle
                )
            )
        parts.append(
            Markup('<text class="point" x="{:.1f}" y="{:.1f}" dy="0.32em" text-anchor="{}">{}</text>').format(
                edge, middle, "start" if right else "end", text
            )
        )
    return Markup("").join(parts)
