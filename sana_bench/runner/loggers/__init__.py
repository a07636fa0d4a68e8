"""Telling other systems about a run, chosen by `--logger NAME`: three that come with sana-bench, and plug-ins."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from sana_bench.core.errors import BenchError, SuiteError, UsageError
from sana_bench.core.registry import LOGGERS, Entry

__all__ = ["Logger", "Loggers", "check_loggers"]


class Logger(Protocol):
    """Hears about a run in plain data: dictionaries of strings, numbers, lists. docs/plugins.md lists the keys."""

    def on_run_start(self, run: dict[str, Any]) -> None:
        """Called once, before the first image: what the run is."""
        ...

    def on_summary(self, summary: dict[str, Any]) -> None:
        """Called for every number of the run, once all are stored."""
        ...

    def on_run_end(self, result: dict[str, Any]) -> None:
        """Called once, also for a run that failed or was interrupted: how it ended."""
        ...


class Loggers:
    """The loggers of one run, told one after the other.

    Whatever a logger raises becomes a `BenchError` that names it; by then the numbers are stored.
    """

    def __init__(self, names: Sequence[str], run_directory: Path) -> None:
        self._loggers = [(entry, LOGGERS.build(entry.name, run_directory)) for entry in check_loggers(names)]

    @contextmanager
    def observe(self, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Tell of the start and, at the end, what the caller has put into the dictionary it is given."""
        result = {"run_id": run["run_id"], "state": "failed", "incomplete": []}
        self._tell("on_run_start", run)
        try:
            yield result
        except BaseException:
            with suppress(BenchError):  # the error in flight is the one to tell
                self._tell("on_run_end", result)
            raise
        self._tell("on_run_end", result)

    @contextmanager
    def observe_training(self, training: dict[str, Any]) -> Iterator[Callable[..., None]]:
        """Yield what hears of a training's rows: step, numbers, pictures. Loggers are told of the start with the first row.

        So of several processes those that report no rows open nothing. Raises `UsageError` for a logger that hears of runs only.
        """
        for entry, logger in self._loggers:
            if not hasattr(logger, "on_training_row"):
                raise UsageError(f"{entry.label} hears of runs, not of training")
        is_open = False

        def hear(step: int, values: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
            nonlocal is_open
            if not is_open:
                self._tell("on_training_start", {**training, "step": step})
                is_open = True
            shown = {name: str(path) for name, path in pictures.items()}
            self._tell("on_training_row", {"step": step, "values": dict(values), "pictures": shown})

        try:
            yield hear
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(BenchError):  # the error in flight is the one to tell
                if is_open:
                    self._tell("on_training_end", {"state": state})
            raise
        if is_open:
            self._tell("on_training_end", {"state": "done"})

    def summary(self, summary: dict[str, Any]) -> None:
        """Tell of one number."""
        self._tell("on_summary", summary)

    def _tell(self, hook: str, data: dict[str, Any]) -> None:
        for entry, logger in self._loggers:
            try:
                getattr(logger, hook)(copy.deepcopy(data))
            except (Exception, SystemExit) as error:
                raise BenchError(
                    f"{entry.label} failed in {hook}: {type(error).__name__}: {error}"
                ) from error


def check_loggers(wanted: Sequence[str]) -> list[Entry]:
    """Return the loggers of these names, imported; raises `UsageError` for an unknown, absent or broken one."""
    found = []
    for name in dict.fromkeys(wanted):
        try:
            entry = LOGGERS.entry(name)
            entry.load()
        except SuiteError as error:
            raise UsageError(f"--logger {name}: {error}") from None
        found.append(entry)
    return found
