"""Names of generators, metrics, benchmarks, judges and loggers: sana-bench's own, plug-ins, and what a process adds.

All three are found in one way: a name, and where to import what it stands for (`module:attribute`, as entry points write
it). A package offers plug-ins as entry points of the group `sana_bench.KIND`; a process adds its own by `Registry.add`.
Nothing is imported before it is loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, NoReturn

from sana_bench.core.errors import SuiteError, nearest

__all__ = [
    "BENCHMARKS",
    "GENERATORS",
    "JUDGES",
    "LOGGERS",
    "MEASURED",
    "METRICS",
    "REGISTRIES",
    "SET_METRICS",
    "Entry",
    "Kind",
    "Limits",
    "Registry",
    "used_plugins",
]

Kind = Literal["generators", "metrics", "benchmarks", "judges", "loggers"]

#: Numbers that the profiler measures while images are made: named in suites as metrics are, built by no metric.
MEASURED = ("latency", "throughput")
# Of networks that take less time for an image than its file takes to be read and resized.
_QUARTER = 0.25
#: Metrics that hold a set of images against another: they have no score for an image.
SET_METRICS = ("fid", "kid", "cmmd", "fd_dinov2", "precision", "recall", "density", "coverage")


class Limits(NamedTuple):
    """Between what the scores of a metric lie, and whether their mean is that of task means instead of over prompts.

    Of such a metric a sequence of looks can be made: see `sana_bench.results.statistics.sequential`.
    """

    low: float
    high: float
    by_task: bool = False


@dataclass(frozen=True)
class Entry:
    """What a name stands for.

    `target` is `module:attribute`, or the thing itself where a process adds it: a class or function that builds it.
    `version` is part of the identity of everything made with it. `finder` is, for a generator, the function that finds a
    variant's weights. `package` has to be installed and comes with the extra of the same name. `distribution` is the package
    that offers a plug-in, and empty otherwise.

    Of a metric, `reads` names what it looks for in every prompt: `prompt`, its text, or keys of the metadata. `only` is the key
    without which a prompt does not concern it at all; images of such prompts are not scored by it. `full_only` says that it has
    no micro version. `contributions` is, where its overall number is no mean of its scores, the function that turns the details
    of scores into numbers whose mean it is. `joins` says, for protocols that look at several images of a prompt at once, at how
    many. `limits` are there where its overall number is the mean of scores that cannot leave them. `gpu_share` is the part of a
    GPU that its networks keep busy: several workers share one where reading images takes longer.
    """

    name: str
    target: str | Callable[..., Any]
    version: str = ""
    finder: str | Callable[..., Any] = ""
    package: str = ""
    kind: Kind = "metrics"
    distribution: str = ""
    reads: tuple[str, ...] = ()
    only: str = ""
    full_only: bool = False
    contributions: str = ""
    joins: Mapping[str, int] = field(default_factory=dict)
    limits: Limits | None = None
    gpu_share: float = 1.0

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

    def concerns(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a metric has anything to say about images of a prompt, by the prompt's metadata."""
        return not self.only or self.only in metadata

    def find_limits(self) -> Limits | None:
        """`limits`; of a plug-in those that what it offers has as an attribute."""
        if not self.is_plugin:
            return self.limits
        found = getattr(self.load(), "limits", None)
        return None if found is None else Limits(*found)

    def load_contributions(self) -> Callable[..., Any] | None:
        """Import its contributions, where it has any."""
        return self._imported(self.contributions) if self.contributions else None

    def build(self, *arguments: object, needs: tuple[str, ...] = ()) -> Any:
        """Call it and check that the result has the attributes `needs`, and the name that it was asked for by.

        A plug-in's errors that are meant for users pass; any other becomes a `SuiteError` naming the plug-in.
        """
        factory = self.load()
        with self._blamed("failed"):
            built = factory(*arguments)
            lacking = [name for name in needs if not hasattr(built, name)]
            called = built.name if "name" in needs and not lacking else self.name
        if lacking:
            raise SuiteError(f"{self.label} has no {', '.join(lacking)}")
        if called != self.name:
            raise SuiteError(f"{self.label} calls itself {called!r}")
        return built

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        """Turn whatever a plug-in raises, an exit of the program too, into a `SuiteError` that names it."""
        try:
            yield
        except (SuiteError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if not self.is_plugin:
                raise
            raise SuiteError(f"{self.label} {what}: {_described(error)}") from error

    def _imported(self, target: str | Callable[..., Any]) -> Callable[..., Any]:
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        with self._blamed("cannot be loaded"):
            loaded: Any = import_module(module)
            for part in attribute.split(".") if attribute else ():
                loaded = getattr(loaded, part)
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
        _installed.cache_clear()
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
        for point in _installed().select(group=f"sana_bench.{self.kind}"):
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
        "diffusers@2",
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
    Entry(
        "geneval",
        "sana_bench.metrics.geneval.metric:build_geneval",
        reads=("tag", "include"),
        limits=Limits(0, 1, by_task=True),
    ),
    Entry(
        "clip_score",
        "sana_bench.metrics.clip.metric:build_clip_score",
        reads=("prompt",),
        limits=Limits(-100, 100),
        gpu_share=_QUARTER,
    ),
    Entry("fid", "sana_bench.metrics.fid.micro_metric:build_fid", gpu_share=_QUARTER),
    *(
        Entry(name, "sana_bench.metrics.fid.metric:build_measure", full_only=True, gpu_share=_QUARTER)
        for name in ("kid", "cmmd", "fd_dinov2", "precision", "recall", "density", "coverage", "vendi")
    ),
    Entry(
        "dpg",
        "sana_bench.metrics.dpg.metric:build_dpg",
        reads=("questions",),
        limits=Limits(0, 100),
        joins={"dpg/sana-grid@1": 4},
    ),
    Entry("image_reward", "sana_bench.metrics.image_reward.metric:build_image_reward", reads=("prompt",)),
    Entry(
        "geneval2",
        "sana_bench.metrics.geneval2.metric:build_geneval2",
        reads=("vqa_list", "skills"),
        limits=Limits(0, 100),
    ),
    Entry(
        "longtext",
        "sana_bench.metrics.longtext.metric:build_longtext",
        reads=("text",),
        contributions="sana_bench.metrics.longtext.rules:contributions",
    ),
    Entry(
        "oneig_alignment",
        "sana_bench.metrics.oneig.alignment:build_alignment",
        only="dependency",
        limits=Limits(0, 1),
    ),
    Entry(
        "oneig_text",
        "sana_bench.metrics.oneig.text:build_text",
        only="text_content",
        contributions="sana_bench.metrics.oneig.rules:contributions",
    ),
    # No limits: published references are taken as they are, and need not be quite of length 1.
    Entry("oneig_style", "sana_bench.metrics.oneig.style:build_style", only="style", full_only=True),
    Entry("oneig_diversity", "sana_bench.metrics.oneig.diversity:build_diversity"),
    Entry(
        "vqascore",
        "sana_bench.metrics.vqascore.metric:build_vqascore",
        reads=("prompt",),
        limits=Limits(0, 1),
    ),
    Entry("pickscore", "sana_bench.metrics.preference.metric:build_pickscore", reads=("prompt",)),
    Entry("hpsv2", "sana_bench.metrics.preference.metric:build_hps", reads=("prompt",), full_only=True),
    Entry("hpsv2.1", "sana_bench.metrics.preference.metric:build_hps", reads=("prompt",), full_only=True),
    Entry("hpsv3", "sana_bench.metrics.preference.hpsv3:build_hpsv3", reads=("prompt",), full_only=True),
    Entry("aesthetic", "sana_bench.metrics.preference.aesthetic:build_aesthetic", full_only=True),
    needs=("name", "protocol", "higher_is_better", "identity"),
    reserved=MEASURED,
)

BENCHMARKS = Registry(
    "benchmarks",
    Entry("geneval", "sana_bench.benchmarks.geneval:GenEval"),
    Entry("dpg_bench", "sana_bench.benchmarks.dpg_bench:DPGBench"),
    Entry("geneval2", "sana_bench.benchmarks.geneval2:GenEval2"),
    Entry("hpdv2", "sana_bench.benchmarks.hpdv2:HPDv2"),
    Entry("image_reward", "sana_bench.benchmarks.image_reward:ImageRewardBenchmark"),
    Entry("longtext", "sana_bench.benchmarks.longtext:LongText"),
    Entry("longtext_zh", "sana_bench.benchmarks.longtext:LongTextChinese"),
    Entry("mjhq30k", "sana_bench.benchmarks.mjhq30k:Mjhq30kBenchmark"),
    Entry("oneig", "sana_bench.benchmarks.oneig:OneIG"),
    Entry("latency", "sana_bench.benchmarks.latency:Latency"),
    needs=("name", "default_images_per_prompt", "metric_names", "prompts"),
)

JUDGES = Registry(
    "judges",
    Entry("clip_score", "sana_bench.generators.best_of_n.metric_judges:build_clip_score"),
    Entry("image_reward", "sana_bench.generators.best_of_n.metric_judges:build_image_reward"),
    Entry("served", "sana_bench.judges.served:build_served"),
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


@cache
def _installed() -> Any:
    """What all installed packages offer, read once for all kinds."""
    return entry_points()


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


def _described(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
