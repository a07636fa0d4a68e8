"""Progress of long training: a bar with rate and time left on a terminal, one plain line a quarter minute elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sana_models.training.distributed import is_main

__all__ = ["tell", "training_progress"]

_LINE_INTERVAL_S = 15.0


def tell(line: str) -> None:
    """Print a line about the training, once however many processes train."""
    if is_main():
        print(line, file=sys.stderr, flush=True)


@contextmanager
def training_progress(total: int, start: int) -> Iterator[Callable[[int, str], None]]:
    """Yield `report(done_steps, what else to tell)`; of several processes the first one tells."""
    if not is_main():
        yield lambda done, told: None
    elif sys.stderr.isatty():
        with _terminal_bar(total, start) as report:
            yield report
    else:
        yield _plain_lines(total, start)


@contextmanager
def _terminal_bar(total: int, start: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("training", total=total, completed=start, told="")
        yield lambda done, told: progress.update(bar, completed=done, told=told)


def _plain_lines(total: int, start: int) -> Callable[[int, str], None]:
    began = time.monotonic()
    last = -_LINE_INTERVAL_S

    def report(done: int, told: str) -> None:
        nonlocal last
        now = time.monotonic() - began
        if now - last < _LINE_INTERVAL_S and done < total:
            return
        last = now
        rate = (done - start) / max(now, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        print(
            f"step {done}/{total}  {told}{'  ' if told else ''}{rate:.2f} steps/s  {left / 60:.1f} min left",
            file=sys.stderr,
            flush=True,
        )

    return report
