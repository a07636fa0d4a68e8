"""The curve of a training: rows in a CSV file, told to an observer, and as a picture."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sana_models.files import read_text, write_whole
from sana_models.training.distributed import is_main

__all__ = ["Curve", "Observer", "plot_curve"]

#: Hears of every row of the curve, in the first process: steps done, numbers, pictures.
Observer = Callable[[int, Mapping[str, float], Mapping[str, Path]], None]


def plot_curve(csv_path: Path, png_path: Path, *, columns: tuple[str, ...], title: str) -> None:
    """Draw `columns` of `csv_path` against the step, one panel each, into `png_path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(csv.DictReader(io.StringIO(read_text(csv_path), newline="")))
    figure = Figure(figsize=(5 * len(columns), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for index, column in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), index + 1)
        drawn = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        axes.plot([step for step, _ in drawn], [value for _, value in drawn], linewidth=0.8)
        axes.set(xlabel="step", ylabel=column, title=title if index == 0 else "")
        axes.grid(alpha=0.3)
    write_whole(png_path, lambda stream: figure.savefig(stream, dpi=110, format="png"))


class Curve:
    """Rows of the loss curve; on resume, rows after the checkpoint are dropped because they will be made again."""

    def __init__(self, path: Path, start: int, observer: Observer | None) -> None:
        self.path, self._observer = path, observer
        self.rows: list[dict[str, Any]] = []
        if start and path.exists():
            rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
            self.rows = [row for row in rows if int(row["step"]) < start]

    def add(self, row: dict[str, Any], pictures: Mapping[str, Path] | None = None) -> None:
        """Add the numbers of a step; None is one that is not known."""
        self.rows.append(row)
        if self._observer is not None and is_main():
            numbers = {
                name: float(value) for name, value in row.items() if value is not None and name != "step"
            }
            self._observer(row["step"] + 1, numbers, pictures or {})

    def flush(self) -> None:
        """Write the file, by the first process."""
        if not self.rows or not is_main():
            return
        names = dict.fromkeys(name for row in self.rows for name in row)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, fieldnames=list(names))
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, lambda stream: stream.write(table.getvalue().encode()))
