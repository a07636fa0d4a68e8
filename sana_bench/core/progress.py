"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TextIO

from sana_bench.core.errors import IncompleteError
from sana_bench.core.text import escaped

__all__ = [
    "LISTED",
    "Progress",
    "format_moment",
    "format_seconds",
    "listed",
    "megabytes",
    "refuse_listed",
    "say",
    "size_text",
]


def format_seconds(seconds: float) -> str:
    """Return a duration for people: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole or not seconds else "1 s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_moment(moment: str) -> str:
    """Return a time in ISO 8601 for people: `2026-01-13 14:05 UTC`; what is no time with its zone as it is."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return moment if found.tzinfo is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def megabytes(size: int | None) -> str:
    """A size for people, in millions of bytes."""
    return "unknown size" if size is None else f"{size / 1e6:,.1f} MB"


def size_text(size: float) -> str:
    """A size for people in the unit that fits it: `3.6 GB`, `96.0 MB`, `0.5 kB`."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB")
    )
    return f"{size / unit:,.1f} {name}"


#: Lines of a list that are printed; the rest is counted.
LISTED = 20


def listed(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """A headed list for each entry, long ones cut."""
    lines = []
    for heading, found in problems.items():
        lines.append(escaped(heading, ""))
        lines += [f"  {escaped(line, '')}" for line in found[:LISTED]]
        if len(found) > LISTED:
            lines.append(f"  and {len(found) - LISTED} more")
    return lines


def refuse_listed(problems: Mapping[str, Sequence[str]]) -> None:
    """Print what a run lacks under its headings and raise `IncompleteError` with the first of it, unless nothing is."""
    found = {heading: lines for heading, lines in problems.items() if lines}
    if not found:
        return
    for line in listed(found):
        say(line)
    first, *others = [line for lines in found.values() for line in lines]
    more = f", and {len(others)} more" if others else ""
    raise IncompleteError(f"{first}{more}; run the suite again")


if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# A line each 5 s at first, a minute once work has taken ten.
_SECONDS_BETWEEN_LINES = (5.0, 60.0)
_SHARE_BETWEEN_LINES = 0.1


def say(text: object, *, error: bool = False) -> None:
    """Print a line, or several, at once, so that a watcher of a pipe or a log file sees it; on standard error with `error`.

    What could drive a terminal is shown escaped.
    """
    try:
        print(escaped(str(text)), flush=True, file=sys.stderr if error else None)
    except OSError as failure:
        failure.filename = failure.filename or f"standard {'error' if error else 'output'}"
        raise


class Progress:
    """Counts finished items of one stage; use as a context manager."""

    def __init__(self, label: str, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._label, self._total, self._unit = escaped(label, ""), total, unit
        self._stream = stream or sys.stdout
        self._done, self._note = 0, ""
        self._started = self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = _rich_bar(self._unit)
            self._task = self._bar.add_task(self._label, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._total:
            self._print_line(time.monotonic())

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more items as done; `note` is what the line says beside."""
        self._done += count
        self._note = f", {escaped(note, '')}" if note else ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=self._label + self._note)
            return
        now = time.monotonic()
        shortest, longest = _SECONDS_BETWEEN_LINES
        apart = min(longest, max(shortest, _SHARE_BETWEEN_LINES * (now - self._started)))
        if now - self._last_line >= apart and self._done < self._total:
            self._print_line(now)

    def _print_line(self, now: float) -> None:
        self._last_line = now
        elapsed = max(now - self._started, 1e-9)
        rate = self._done / elapsed
        left = (
            f", {format_seconds((self._total - self._done) / rate)} left"
            if 0 < self._done < self._total
            else ""
        )
        speed = f", {_speed(rate, self._unit)}" if self._done else ""
        line = f"{self._label}: {self._done}/{self._total} {self._unit}{speed}{self._note}{left}"
        print(line, file=self._stream, flush=True)


def _speed(rate: float, unit: str) -> str:
    """How fast items are finished; of those that take more than a second each, how long."""
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s each"


def _rich_bar(unit: str) -> "RichProgress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_speed(task.speed, unit) if task.speed else "", style="dim")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, RateColumn(), TimeRemainingColumn())
