"""Training curve as a picture."""

import csv
import io
from pathlib import Path

from sana_models.files import read_text

__all__ = ["plot_curve"]


def plot_curve(csv_path: Path, png_path: Path, *, columns: tuple[str, ...], title: str) -> None:
    """Draw `columns` of `csv_path` against the step, one panel each, into `png_path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(csv.DictReader(io.StringIO(read_text(csv_path), newline="")))
    figure = Figure(figsize=(5 * len(columns), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [int(row["step"]) for row in rows]
    for index, column in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), index + 1)
        axes.plot(steps, [float(row[column]) for row in rows], linewidth=0.8)
        axes.set(xlabel="step", ylabel=column, title=title if index == 0 else "")
        axes.grid(alpha=0.3)
    figure.savefig(png_path, dpi=110)
