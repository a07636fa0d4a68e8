"""Generators, metrics, benchmarks and loggers that other installed packages offer by entry point.

Looking for them reads package metadata only; a plug-in is imported when it is used or listed. docs/plugins.md
says what each kind has to be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from sana_bench.errors import SuiteError

__all__ = ["KINDS", "Kind", "Plugin", "candidates", "find", "forget", "names", "problems", "used"]

Kind = Literal["generators", "metrics", "benchmarks", "loggers"]
KINDS: tuple[Kind, ...] = ("generators", "metrics", "benchmarks", "loggers")
# Names of sana-bench itself, which no plug-in can take over.
_BUILT_IN: dict[Kind, frozenset[str]] = {
    "generators": frozenset({"best_of_n", "diffusers", "images", "sana"}),
    "metrics": frozenset(
        {"geneval", "clip_score", "fid", "kid", "dpg", "image_reward", "latency", "throughput"}
    ),
    "benchmarks": frozenset({"geneval", "dpg_bench", "image_reward", "mjhq30k", "latency"}),
    "loggers": frozenset({"mlflow", "tensorboard", "wandb"}),
}


@dataclass(frozen=True)
class Plugin:
    """One entry point with the package that brings it."""

    kind: Kind
    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def identity(self) -> str:
        """Package and version, which are part of the identity of everything made with the plug-in."""
        return f"{self.distribution} {self.version}"

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.kind.removesuffix('s')} plug-in {self.name!r} of {self.identity}"

    def load(self) -> Callable[..., Any]:
        """Import the plug-in; raises `SuiteError` naming it when that fails."""
        try:
            loaded = self.entry_point.load()
        except Exception as error:
            raise SuiteError(f"{self.label} cannot be loaded: {_described(error)}") from error
        if not callable(loaded):
            raise SuiteError(f"{self.label}: {self.entry_point.value} is not callable")
        return loaded

    def build(self, *arguments: object, needs: tuple[str, ...] = ()) -> Any:
        """Call the plug-in and check that the result has the attributes `needs`.

        Errors of its own that are meant for users pass; any other becomes a `SuiteError` naming the plug-in.
        """
        factory = self.load()
        try:
            built = factory(*arguments)
        except SuiteError:
            raise
        except Exception as error:
            raise SuiteError(f"{self.label} failed: {_described(error)}") from error
        lacking = [name for name in needs if not hasattr(built, name)]
        if lacking:
            raise SuiteError(f"{self.label} has no {', '.join(lacking)}")
        return built


def names(kind: Kind) -> list[str]:
    """Return the sorted names of the plug-ins of a kind, without importing any."""
    return sorted(_discover(kind)[0])


def find(kind: Kind, name: str) -> Plugin | None:
    """Return the plug-in of this name, or None.

    Raises `SuiteError` when two packages offer it.
    """
    found = candidates(kind, name)
    if len(found) > 1:
        offered = " and ".join(plugin.identity for plugin in found)
        raise SuiteError(f"the {kind.removesuffix('s')} {name!r} is offered by {offered}: uninstall one")
    return found[0] if found else None


def candidates(kind: Kind, name: str) -> tuple[Plugin, ...]:
    """Return every plug-in that offers a name."""
    return _discover(kind)[0].get(name, ())


def used(wanted: dict[Kind, list[str]]) -> dict[str, str]:
    """Return `kind/name` and package of every one of these names that is a plug-in."""
    found = {(kind, name): find(kind, name) for kind, listed in wanted.items() for name in listed}
    return {f"{kind}/{name}": plugin.identity for (kind, name), plugin in found.items() if plugin is not None}


def problems() -> list[str]:
    """Return one line for every plug-in that cannot be used, importing each."""
    lines = []
    for kind in KINDS:
        usable, refused = _discover(kind)
        lines += [f"{plugin.label}: the name is sana-bench's own" for plugin in refused]
        for name in usable:
            try:
                plugin = find(kind, name)
                if plugin is not None:
                    plugin.load()
            except SuiteError as error:
                lines.append(str(error))
    return lines


def forget() -> None:
    """Look again at what is installed, for a process in which that changes."""
    _discover.cache_clear()


@cache
def _discover(kind: Kind) -> tuple[dict[str, tuple[Plugin, ...]], tuple[Plugin, ...]]:
    """Return the plug-ins of a kind by name, and those that ask for a name of sana-bench itself."""
    by_name: dict[str, dict[str, Plugin]] = {}
    refused = []
    for point in entry_points(group=f"sana_bench.{kind}"):
        distribution = point.dist
        name = distribution.name if distribution is not None else "unknown"
        version = distribution.version if distribution is not None else "unknown"
        plugin = Plugin(kind, point.name, name, version, point)
        if point.name in _BUILT_IN[kind]:
            refused.append(plugin)
        else:
            # A package that is found twice on the path, as an editable install can be, is still one.
            by_name.setdefault(point.name, {})[plugin.distribution] = plugin
    return {name: tuple(found.values()) for name, found in by_name.items()}, tuple(refused)


def _described(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
