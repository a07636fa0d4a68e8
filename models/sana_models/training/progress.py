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
def training_progress(total: int, start: int) -> Iterator[Callable[[int, float], None]]:
    """Yield `report(done_steps, loss)`."""
    if sys.stderr.isatty():
        with _terminal_bar(total, start) as report:
            yield report
    else:
        yield _plain_lines(total, start)


@contextmanager
def _terminal_bar(total: int, start: int) -> Iterator[Callable[[int, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("training", total=total, completed=start, loss=float("nan"))
        yield lambda done, loss: progress.update(bar, completed=done, loss=loss)


def _plain_lines(total: int, start: int) -> Callable[[int, float], None]:
    began = time.monotonic()
    last = -_LINE_INTERVAL_S

    def report(done: int, loss: float) -> None:
        nonlocal last
        now = time.monotonic() - began
        if now - last < _LINE_INTERVAL_S and done < total:
            return
        last = now
        rate = (done - start) / max(now, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        print(
            f"step {done}/{total}  loss {loss:.4f}  {rate:.2f} steps/s  {left / 60:.1f} min left",
            file=sys.stderr,
            flush=True,
        )

    return report
