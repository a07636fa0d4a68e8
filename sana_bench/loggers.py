"""Telling other systems about a run, chosen by `--logger NAME`: three that come with sana-bench, and plug-ins."""

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sana_bench import plugins
from sana_bench.errors import BenchError, UsageError, nearest

__all__ = ["BUILT_IN", "BuiltIn", "Logger", "Loggers", "check_loggers", "names"]

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


@dataclass(frozen=True)
class BuiltIn:
    """A logger of sana-bench's own: `class_name` of `sana_bench.tracking.MODULE`, which needs the package `name`."""

    name: str
    class_name: str

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"--logger {self.name}"

    def load(self) -> type[Any]:
        """Import it; raises `UsageError` with the extra to install when its package is missing."""
        if not _installed(self.name):
            raise UsageError(
                f"{self.label}: the package {self.name} is not installed: pip install 'sana-bench[{self.name}]'"
            )
        found: type[Any] = getattr(import_module(f"sana_bench.tracking.{self.name}_logger"), self.class_name)
        return found

    def build(self, run_directory: Path, needs: tuple[str, ...] = ()) -> Logger:
        """Make the logger of one run; `needs`, as plug-ins are asked for, is what it has."""
        del needs
        logger: Logger = self.load()(run_directory)
        return logger


BUILT_IN = {
    "mlflow": BuiltIn("mlflow", "MlflowLogger"),
    "tensorboard": BuiltIn("tensorboard", "TensorboardLogger"),
    "wandb": BuiltIn("wandb", "WandbLogger"),
}


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
    return [*BUILT_IN, *plugins.names("loggers")]


def check_loggers(wanted: Sequence[str]) -> list[plugins.Plugin | BuiltIn]:
    """Return the loggers of these names, imported; raises `UsageError` for an unknown, absent or broken one."""
    found: list[plugins.Plugin | BuiltIn] = []
    for name in dict.fromkeys(wanted):
        plugin = BUILT_IN.get(name) or plugins.find("loggers", name)
        if plugin is None:
            known = ", ".join(names())
            raise UsageError(f"--logger {name}: unknown logger{nearest(name, names())}; available: {known}")
        plugin.load()
        found.append(plugin)
    return found


def _installed(package: str) -> bool:
    """Say whether a package can be imported, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ImportError:
        return False
    # A folder of that name, such as the one wandb leaves behind, is no package.
    return spec is not None and spec.origin is not None
