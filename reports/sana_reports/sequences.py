"""Intervals that were looked at while images were made: a drawing of how they narrowed, and tables in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sana_reports.data import LookCell, ReportData, SequenceCell
from sana_reports.labels import metric_label, task_label
from sana_reports.plots import nice_ticks
from sana_reports.text_table import TextTable

__all__ = ["sequence_plot", "sequence_tables"]

_WIDTH, _HEIGHT = 560, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 548, 26, 228
_NOTES = (
    "Intervals hold the truth at all looks together: looking often, or stopping because of what was seen, does not harm them.",
    "An estimate is too far out on average where the run stopped because of it: read the interval.",
)
_STOPPED = "Stopped early: no number of the suite, and never ranked. The suite's own numbers, where there are any, stand apart."


@dataclass(frozen=True, slots=True)
class _Frame:
    """From images and values to drawing units; values beyond the axis end at its edge."""

    n_images: int
    low: float
    high: float

    def across(self, images: float) -> float:
        return _LEFT + images / self.n_images * (_RIGHT - _LEFT)

    def up(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return _BOTTOM - (inside - self.low) / (self.high - self.low) * (_BOTTOM - _TOP)

    def line(self, looks: Sequence[LookCell], values: Sequence[float]) -> list[str]:
        pairs = zip(looks, values, strict=True)
        return [f"{self.across(look.n_images):.1f} {self.up(value):.1f}" for look, value in pairs]


def sequence_plot(cell: SequenceCell, color: int) -> Markup:
    """The interval after each look over the images of the suite, the estimate, 0, the effect, and where it was decided."""
    frame, looks, last = _Frame(cell.n_expected, *_domain(cell)), cell.looks, cell.looks[-1]
    above, below = (frame.line(looks, ends) for ends in ([x.high for x in looks], [x.low for x in looks]))
    marks = [
        _axes(cell, frame),
        Markup('<path class="band" d="M{}Z"/>').format("L".join(above + below[::-1])),
        *(Markup('<path class="bound" d="M{}"/>').format("L".join(ends)) for ends in (above, below)),
        Markup('<path class="estimate" d="M{}"/>').format(
            "L".join(frame.line(looks, [look.value for look in looks]))
        ),
        Markup('<circle class="end" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(
            frame.across(last.n_images), frame.up(last.value)
        ),
        _decision(cell, frame.across(last.n_images)) if cell.answered else Markup(""),
    ]
    return Markup(
        '<svg class="sequence v{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><desc>{}</desc>{}</svg>'
    ).format(color, _WIDTH, _HEIGHT, f"{_axis(cell)} over images", _description(cell), Markup("").join(marks))


def _decision(cell: SequenceCell, x: float) -> Markup:
    # The words stand on the side with more room.
    anchor, shift = ("start", 6) if x < (_LEFT + _RIGHT) / 2 else ("end", -6)
    told = f"{cell.verdict} after {cell.looks[-1].n_images:,} of {cell.n_expected:,} images"
    unused = Markup('<rect class="unused" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
    return unused.format(x, _TOP, _RIGHT - x, _BOTTOM - _TOP) + Markup(
        '<line class="decision" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
        '<text class="told" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
    ).format(x, _TOP - 18, _BOTTOM, x + shift, _TOP - 10, anchor, told)


def sequence_tables(data: ReportData) -> list[TextTable]:
    """What each sequence says, and what it says of single tasks; none where nothing was looked at."""
    if not data.sequences:
        return []
    early = any(cell.answered and cell.looks[-1].n_images < cell.n_expected for cell in data.sequences)
    tables = [
        TextTable(
            title="What was asked, and the answer",
            header=("question", "answer", "estimate and interval at every look", "images of each", "looks"),
            rows=[
                (
                    cell.rule,
                    cell.verdict,
                    _number(cell.looks[-1], cell),
                    f"{cell.looks[-1].n_images:,} of {cell.n_expected:,}",
                    str(len(cell.looks)),
                )
                for cell in data.sequences
            ],
            notes=[*([_STOPPED] if early else []), *_NOTES],
        )
    ]
    for cell in data.sequences:
        if len(cell.tasks) > 1 and cell.against:
            tables.append(
                TextTable(
                    title=f"{cell.variant} minus {cell.against}, by task",
                    header=("task", "prompts", "difference", "p, at any look"),
                    rows=[
                        (
                            task_label(task.key),
                            str(task.n_prompts),
                            f"{task.value:+.3g}",
                            f"{task.p_value:.2g}",
                        )
                        for task in cell.tasks
                    ],
                    notes=["p from the tasks' e-values, after Holm's correction over the tasks."],
                )
            )
    return tables


def _domain(cell: SequenceCell) -> tuple[float, float]:
    """The vertical axis: the later looks with room for 0 and the effect. The first, as wide as can be, are cut off."""
    later = cell.looks[len(cell.looks) // 4 :]
    values = [end for look in later for end in (look.low, look.high, look.value)]
    if cell.against:
        values += [0.0, -(cell.effect or 0.0), cell.effect or 0.0]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def _axes(cell: SequenceCell, frame: _Frame) -> Markup:
    across = Markup('<line class="{}" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>')
    tick = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" dy="0.32em" text-anchor="{}">{}</text>')
    parts = []
    for value in nice_ticks(frame.low, frame.high):
        parts.append(across.format("grid", _LEFT, _RIGHT, y=frame.up(value)))
        parts.append(tick.format(_LEFT - 6, frame.up(value), "end", f"{value:g}"))
    for images in nice_ticks(0, cell.n_expected):
        parts.append(tick.format(frame.across(images), _BOTTOM + 13, "middle", f"{images:,.0f}"))
    lines = (
        [("zero", 0.0), *(("effect", side * cell.effect) for side in (1, -1) if cell.effect)]
        if cell.against
        else []
    )
    parts += [across.format(name, _LEFT, _RIGHT, y=frame.up(value)) for name, value in lines]
    label = Markup('<text class="label" x="{}" y="{}" text-anchor="middle">images of each variant</text>')
    return Markup("").join([*parts, label.format((_LEFT + _RIGHT) / 2, _HEIGHT - 8)])


def _axis(cell: SequenceCell) -> str:
    name = metric_label(cell.metric)
    return f"{name}, {cell.variant} minus {cell.against}" if cell.against else f"{name} of {cell.variant}"


def _number(look: LookCell, cell: SequenceCell) -> str:
    sign = "+" if cell.against else ""
    return f"{look.value:{sign}.3g} [{look.low:{sign}.3g}, {look.high:{sign}.3g}]"


def _description(cell: SequenceCell) -> str:
    shown = [cell.looks[place] for place in sorted({0, len(cell.looks) // 2, len(cell.looks) - 1})]
    steps = "; ".join(f"after {look.n_images:,} images {_number(look, cell)}" for look in shown)
    return f"{_axis(cell)}: {steps}. {cell.verdict}."
