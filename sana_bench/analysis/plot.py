"""The numbers of a run as a picture."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.samples import OVERALL
from sana_bench.results.schema import SummaryRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_numbers"]

# Inches.
_PANEL, _NAMES, _ROW, _FRAME = 2.6, 2.0, 0.32, 1.3
_PANELS_A_ROW = 4


def plot_numbers(title: str, tier: str, rows: Sequence[SummaryRecord], metrics: Sequence[str]) -> "Figure":
    """A panel for each benchmark and metric with every variant's overall number and its interval.

    A number of fewer images than asked for is hollow, with the count beside it. Raises `UsageError` for an unknown metric, and
    when there is no number.
    """
    from matplotlib import pyplot

    overall = [row for row in rows if row.key == OVERALL and isfinite(row.value)]
    for name in metrics:
        if name not in (known := {row.metric for row in overall}):
            raise UsageError(f"{title}: has no {name}{nearest(name, known)}")
    shown = [row for row in overall if not metrics or row.metric in metrics]
    panels = list(dict.fromkeys((row.benchmark, row.metric, row.protocol) for row in shown))
    if not panels:
        raise UsageError(f"{title}: has no numbers to show")
    names = list(dict.fromkeys(row.variant for row in shown))
    columns = min(len(panels), _PANELS_A_ROW)
    lines = -(-len(panels) // columns)
    size = (_NAMES + _PANEL * columns, (_FRAME + _ROW * len(names)) * lines)
    figure, grid = pyplot.subplots(
        lines, columns, sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    # The caller's now: as the result of a notebook's cell it is shown once, and nothing keeps it in memory.
    pyplot.close(figure)
    places = list(grid.flat)
    for panel, place in zip(panels, places, strict=False):
        _panel(place, [row for row in shown if (row.benchmark, row.metric, row.protocol) == panel], names)
    for empty in places[len(panels) :]:
        empty.remove()
    places[0].set_yticks(range(len(names)), names)
    places[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(f"{title}, {tier} tier", fontsize="medium")
    return figure


def _panel(axes: Any, rows: Sequence[SummaryRecord], names: Sequence[str]) -> None:
    for row in rows:
        place = names.index(row.variant)
        if row.low is not None and row.high is not None:
            axes.hlines(place, row.low, row.high, colors="C0")
        axes.plot(row.value, place, "o", color="C0", markerfacecolor="C0" if row.complete else "white")
        if not row.complete:
            axes.annotate(
                f"{row.n_samples}/{row.n_expected}",
                (row.value, place),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize="x-small",
            )
    first = rows[0]
    better = "higher is better" if first.higher_is_better else "lower is better"
    axes.set_title(f"{first.benchmark}\n{first.protocol}", fontsize="small")
    axes.set_xlabel(f"{first.unit} ({better})" if first.unit else better, fontsize="small")
    axes.grid(axis="x", alpha=0.3)
