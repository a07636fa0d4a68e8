"""Telling other systems about a run: loggers are plug-ins, chosen by `--logger NAME`."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from sana_bench import plugins
from sana_bench.errors import BenchError, UsageError, nearest

__all__ = ["Logger", "Loggers", "check_loggers", "names"]

_HOOKS = ("on_run_start", "on_summary", "on_run_end")


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
        self._loggers = [
            (plugin, plugin.build(run_directory, needs=_HOOKS)) for plugin in check_loggers(names)
        ]

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

    def summary(self, summary: dict[str, Any]) -> None:
        """Tell of one number."""
        self._tell("on_summary", summary)

    def _tell(self, hook: str, data: dict[str, Any]) -> None:
        for plugin, logger in self._loggers:
            try:
                getattr(logger, hook)(copy.deepcopy(data))
            except Exception as error:
                raise BenchError(
                    f"{plugin.label} failed in {hook}: {type(error).__name__}: {error}"
                ) from error


def names() -> list[str]:
    """Return the names that `--logger` takes."""
    return plugins.names("loggers")


def check_loggers(wanted: Sequence[str]) -> list[plugins.Plugin]:
    """Return the plug-ins of these names, imported; raises `UsageError` for an unknown or broken one."""
    found = []
    for name in dict.fromkeys(wanted):
        plugin = plugins.find("loggers", name)
        if plugin is None:
            known = ", ".join(names()) or "none is installed"
            raise UsageError(f"--logger {name}: unknown logger{nearest(name, names())}; available: {known}")
        plugin.load()
        found.append(plugin)
    return found
