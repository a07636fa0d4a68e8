"""Names of generators, metrics, benchmarks, judges and loggers: sana-bench's own, plug-ins, and what a process adds.

All three are found in one way: a name, and where to import what it stands for (`module:attribute`, as entry points write
it). A package offers plug-ins as entry points of the group `sana_bench.KIND`; a process adds its own by `Registry.add`.
Nothing is imported before it is loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal, NoReturn

from sana_bench.core.errors import SuiteError, nearest

__all__ = [
    "BENCHMARKS",
    "GENERATORS",
    "JUDGES",
    "LOGGERS",
    "MEASURED",
    "METRICS",
    "REGISTRIES",
    "Entry",
    "Kind",
    "Registry",
    "used_plugins",
]

Kind = Literal["generators", "metrics", "benchmarks", "judges", "loggers"]

#: Numbers that the profiler measures while images are made: named in suites as metrics are, built by no metric.
MEASURED = ("latency", "throughput")


@dataclass(frozen=True)
class Entry:
    """What a name stands for.

    `target` is `module:attribute`, or the thing itself where a process adds it: a class or function that builds it.
    `version` is part of the identity of everything made with it. `finder` is, for a generator, the function that finds a
    variant's weights. `package` has to be installed and comes with the extra of the same name. `distribution` is the package
    that offers a plug-in, and empty otherwise. `reads` names what a metric looks for in every prompt: `text`, or keys of the
    metadata.
    """

    name: str
    target: str | Callable[..., Any]
    version: str = ""
    finder: str | Callable[..., Any] = ""
    package: str = ""
    kind: Kind = "metrics"
    distribution: str = ""
    reads: tuple[str, ...] = ()

    @property
    def is_plugin(self) -> bool:
        """Whether another package offers it."""
        return bool(self.distribution)

    @property
    def identity(self) -> str:
        """Package and version of a plug-in, and the version of anything else."""
        return f"{self.distribution} {self.version}" if self.is_plugin else self.version

    @property
    def revision(self) -> str:
        """What is part of the identity of everything made with it."""
        return f"{self.name} ({self.identity})" if self.is_plugin else self.version

    @property
    def label(self) -> str:
        """How messages call it."""
        single = self.kind.removesuffix("s")
        return (
            f"{single} plug-in {self.name!r} of {self.identity}"
            if self.is_plugin
            else f"{single} {self.name!r}"
        )

    def load(self) -> Callable[..., Any]:
        """Import it; raises `SuiteError` when its package is missing, or when the import of a plug-in fails."""
        if self.package and not _is_installed(self.package):
            raise SuiteError(
                f"the package {self.package} is not installed: pip install 'sana-bench[{self.package}]'"
            )
        return self._imported(self.target)

    def load_finder(self) -> Callable[..., Any] | None:
        """Import its finder, where it has one; raises `SuiteError` as `load` does."""
        return self._imported(self.finder) if self.finder else None

    def build(self, *arguments: object, needs: tuple[str, ...] = ()) -> Any:
        """Call it and check that the result has the attributes `needs`, and the name that it was asked for by.

        A plug-in's errors that are meant for users pass; any other becomes a `SuiteError` naming the plug-in.
        """
        factory = self.load()
        try:
            built = factory(*arguments)
        except SuiteError:
            raise
        except Exception as error:
            if not self.is_plugin:
                raise
            raise SuiteError(f"{self.label} failed: {_described(error)}") from error
        lacking = [name for name in needs if not hasattr(built, name)]
        if lacking:
            raise SuiteError(f"{self.label} has no {', '.join(lacking)}")
        if "name" in needs and built.name != self.name:
            raise SuiteError(f"{self.label} calls itself {built.name!r}")
        return built

    def _imported(self, target: str | Callable[..., Any]) -> Callable[..., Any]:
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            loaded: Any = import_module(module)
            for part in attribute.split(".") if attribute else ():
                loaded = getattr(loaded, part)
        except Exception as error:
            if not self.is_plugin:
                raise
            raise SuiteError(f"{self.label} cannot be loaded: {_described(error)}") from error
        if not callable(loaded):
            raise SuiteError(f"{self.label}: {target} is not callable")
        return loaded


class Registry:
    """The names of one kind. `needs` are the attributes that everything built under them has."""

    def __init__(
        self, kind: Kind, *built_in: Entry, needs: tuple[str, ...], reserved: tuple[str, ...] = ()
    ) -> None:
        """`reserved` are names that no plug-in can take although nothing is built under them."""
        self.kind: Kind = kind
        self._needs = needs
        self._reserved = reserved
        self._own = {entry.name: replace(entry, kind=kind) for entry in built_in}

    def names(self) -> list[str]:
        """Return all names, plug-ins last, without importing any."""
        return [*self._own, *sorted(self._plugins)]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._plugins

    def entry(self, name: str) -> Entry:
        """Return what a name stands for; raises `SuiteError` with the nearest name, or when two packages offer it."""
        if name in self._own:
            return self._own[name]
        offers = self._plugins.get(name, ())
        if len(offers) > 1:
            offered = " and ".join(entry.identity for entry in offers)
            raise SuiteError(f"the {self._single} {name!r} is offered by {offered}: uninstall one")
        if not offers:
            self.refuse(name)
        return offers[0]

    def refuse(self, name: str, where: str = "") -> NoReturn:
        """Raise the `SuiteError` of an unknown name, `where` in front."""
        names = self.names()
        place = f"{where}: " if where else ""
        raise SuiteError(
            f"{place}unknown {self._single} {name!r}{nearest(name, names)}; available: {', '.join(names)}"
        )

    def build(self, name: str, *arguments: object) -> Any:
        """Build what a name stands for; raises `SuiteError` as `entry` and `Entry.build` do."""
        return self.entry(name).build(*arguments, needs=self._needs)

    def plugin(self, name: str) -> Entry | None:
        """Return the plug-in of this name; None where the name is another's or unknown."""
        return self.entry(name) if name in self._plugins else None

    def plugins(self) -> list[Entry]:
        """Return every plug-in, those that share a name too."""
        return [entry for name in sorted(self._plugins) for entry in self._plugins[name]]

    def problems(self) -> list[str]:
        """Return one line for every plug-in that cannot be used, importing each."""
        lines = [f"{entry.label}: the name is sana-bench's own" for entry in self._refused]
        for name in self._plugins:
            try:
                self.entry(name).load()
            except SuiteError as error:
                lines.append(str(error))
        return lines

    @contextmanager
    def added(self, *entries: Entry) -> Iterator[None]:
        """Names that hold inside a `with` block; raises `SuiteError` as `add` does."""
        before = dict(self._own)
        try:
            for entry in entries:
                self.add(entry)
            yield
        finally:
            self._own = before

    def add(self, entry: Entry) -> None:
        """Make a name known in this process; raises `SuiteError` when it is taken."""
        if entry.name in self or entry.name in self._reserved:
            raise SuiteError(f"{self._single} {entry.name!r} is registered already")
        self._own[entry.name] = replace(entry, kind=self.kind)

    def forget(self) -> None:
        """Look again at what is installed, for a process in which that changes."""
        self.__dict__.pop("_offered", None)

    @property
    def _single(self) -> str:
        return self.kind.removesuffix("s")

    @property
    def _plugins(self) -> dict[str, tuple[Entry, ...]]:
        return self._offered[0]

    @property
    def _refused(self) -> tuple[Entry, ...]:
        return self._offered[1]

    @cached_property
    def _offered(self) -> tuple[dict[str, tuple[Entry, ...]], tuple[Entry, ...]]:
        """The plug-ins by name, and those that ask for a name of sana-bench itself."""
        by_name: dict[str, dict[str, Entry]] = {}
        refused = []
        for point in entry_points(group=f"sana_bench.{self.kind}"):
            package, version = (
                (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "unknown")
            )
            entry = Entry(point.name, point.value, version, kind=self.kind, distribution=package)
            if point.name in self._own or point.name in self._reserved:
                refused.append(entry)
            else:
                # A package that is found twice on the path, as an editable install can be, is still one.
                by_name.setdefault(point.name, {})[package] = entry
        return {name: tuple(found.values()) for name, found in by_name.items()}, tuple(refused)


# The version of a generator is part of every image's identity: raise it when a change of code changes images.
GENERATORS = Registry(
    "generators",
    Entry(
        "best_of_n",
        "sana_bench.generators.best_of_n.search:build_best_of_n",
        "best_of_n@1",
        "sana_bench.generators.best_of_n.search:find_wrapped",
    ),
    Entry(
        "diffusers",
        "sana_bench.generators.diffusers:DiffusersGenerator",
        "diffusers@1",
        "sana_bench.generators.diffusers:find_pipeline",
    ),
    Entry(
        "images",
        "sana_bench.generators.image_folder:ImageFolder",
        "images@3",
        "sana_bench.generators.image_folder:find_folder",
    ),
    Entry(
        "rendered",
        "sana_bench.generators.rendered:RenderedGenerator",
        "rendered@1",
        "sana_bench.generators.rendered:find_nothing",
    ),
    Entry("sana", "sana_bench.generators.sana:SanaGenerator", "sana@2", "sana_bench.generators:find_sana"),
    needs=("generate",),
)

METRICS = Registry(
    "metrics",
    Entry("geneval", "sana_bench.metrics.geneval.metric:build_geneval", reads=("tag", "include")),
    Entry("clip_score", "sana_bench.metrics.clip.metric:build_clip_score", reads=("text",)),
    Entry("fid", "sana_bench.metrics.fid.micro_metric:build_fid"),
    Entry("kid", "sana_bench.metrics.fid.metric:build_kid"),
    Entry("dpg", "sana_bench.metrics.dpg.metric:build_dpg", reads=("questions",)),
    Entry("image_reward", "sana_bench.metrics.image_reward.metric:build_image_reward", reads=("text",)),
    needs=("name", "protocol", "higher_is_better", "identity"),
    reserved=MEASURED,
)

BENCHMARKS = Registry(
    "benchmarks",
    Entry("geneval", "sana_bench.benchmarks.geneval:GenEval"),
    Entry("dpg_bench", "sana_bench.benchmarks.dpg_bench:DPGBench"),
    Entry("image_reward", "sana_bench.benchmarks.image_reward:ImageRewardBenchmark"),
    Entry("mjhq30k", "sana_bench.benchmarks.mjhq30k:Mjhq30kBenchmark"),
    Entry("latency", "sana_bench.benchmarks.latency:Latency"),
    needs=("name", "default_images_per_prompt", "metric_names", "prompts"),
)

JUDGES = Registry(
    "judges",
    Entry("clip_score", "sana_bench.generators.best_of_n.metric_judges:build_clip_score"),
    Entry("image_reward", "sana_bench.generators.best_of_n.metric_judges:build_image_reward"),
    Entry("vila", "sana_bench.judges.nvila.judge:build_vila"),
    Entry("vision_language", "sana_bench.judges.vlm:build_vision_language"),
    Entry("vqa", "sana_bench.judges.mplug.prompts:build_vqa"),
    # `judge` for searches, or what metrics ask; `sana_bench.judges` checks which.
    needs=("load", "identity"),
)

LOGGERS = Registry(
    "loggers",
    Entry("mlflow", "sana_bench.runner.loggers.mlflow:MlflowLogger", package="mlflow"),
    Entry("tensorboard", "sana_bench.runner.loggers.tensorboard:TensorboardLogger", package="tensorboard"),
    Entry("wandb", "sana_bench.runner.loggers.wandb:WandbLogger", package="wandb"),
    needs=("on_run_start", "on_summary", "on_run_end"),
)

REGISTRIES: Mapping[str, Registry] = {
    registry.kind: registry for registry in (GENERATORS, METRICS, BENCHMARKS, JUDGES, LOGGERS)
}


def used_plugins(wanted: Mapping[Kind, list[str]]) -> dict[str, str]:
    """Return `kind/name` and package of every one of these names that is a plug-in."""
    found = {(kind, name): REGISTRIES[kind].plugin(name) for kind, names in wanted.items() for name in names}
    return {f"{kind}/{name}": entry.identity for (kind, name), entry in found.items() if entry is not None}


def _is_installed(package: str) -> bool:
    """Say whether a package can be imported, without importing it."""
    try:
        spec = find_spec(package)
    except ImportError:
        return False
    # A folder of that name, such as the one wandb leaves behind, is no package.
    return spec is not None and spec.origin is not None


def _described(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
