"""A validated suite with its prompts and weights found: every identity that decides what can be reused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sana_bench import benchmarks, generators, plugins
from sana_bench.benchmarks.base import Prompt, Sample
from sana_bench.errors import AssetError, SuiteError
from sana_bench.fingerprint import HashCache, directory_sha256, fingerprint, image_key, judged_sha256, short
from sana_bench.generators.base import GeneratorSpec
from sana_bench.generators.noise import NOISE_VERSION, noise_seed
from sana_bench.run_files import image_path
from sana_bench.suite import BenchmarkSpec, MetricSpec, Suite, Variant
from sana_bench.tiers import TierChoice
from sana_kernels import Backend, KernelError, resolve_backend

__all__ = [
    "NOT_WEIGHTS",
    "NO_WEIGHTS",
    "Cell",
    "ResolvedBenchmark",
    "ResolvedSuite",
    "ResolvedVariant",
    "SampleKey",
    "resolve_suite",
]

# What a variant of a generator without weights gives as `model.weights`.
NO_WEIGHTS = "none"
# Bytes of a name that becomes part of a path; file systems take 255.
_LONGEST_NAME = 200
# Files of a weights folder that explain the weights and do not change images.
NOT_WEIGHTS = ("README.md", "curve.csv", "curve.png", "training.yaml", "provenance.json", "importance.png")


@dataclass(frozen=True)
class SampleKey:
    """One image to have: a prompt and a sample index."""

    prompt: Prompt
    index: int

    @property
    def id(self) -> tuple[str, int]:
        """Prompt id and sample index: the key of the sample within its cell."""
        return self.prompt.id, self.index

    @property
    def prompt_sha256(self) -> str:
        """Identity of the text that the image was made from."""
        return fingerprint(self.prompt.text)

    @property
    def judged_sha256(self) -> str:
        """Identity of everything about the prompt that a metric may look at."""
        return judged_sha256(self.prompt.text, self.prompt.tag, self.prompt.metadata)


@dataclass(frozen=True)
class ResolvedBenchmark:
    """A benchmark with its defaults filled in and its prompts loaded."""

    name: str
    prompts: tuple[Prompt, ...]
    images_per_prompt: int
    metrics: tuple[str, ...]
    # Metrics that the suite gives a protocol or parameters; all others use their defaults.
    choices: tuple[MetricSpec, ...] = ()

    def choice(self, metric: str) -> MetricSpec:
        """The metric with the protocol and parameters to use."""
        return next((spec for spec in self.choices if spec.name == metric), MetricSpec(name=metric))

    @property
    def n_samples(self) -> int:
        """Images that each variant needs."""
        return len(self.prompts) * self.images_per_prompt

    @cached_property
    def samples(self) -> tuple[SampleKey, ...]:
        """All samples in the order of work: first indices first, tasks in turn.

        Any beginning of this order is spread over the tasks, which is what `--limit` takes.
        """
        by_tag: dict[str, list[Prompt]] = {}
        for prompt in self.prompts:
            by_tag.setdefault(prompt.tag, []).append(prompt)
        longest = max(map(len, by_tag.values()), default=0)
        spread = [group[turn] for turn in range(longest) for group in by_tag.values() if turn < len(group)]
        return tuple(SampleKey(prompt, index) for index in range(self.images_per_prompt) for prompt in spread)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the benchmark in a run."""
        prompts = fingerprint(
            [[prompt.id, prompt.text, prompt.tag, prompt.metadata] for prompt in self.prompts]
        )
        plugin = plugins.find("benchmarks", self.name)
        return {
            **({"plugin": plugin.identity} if plugin is not None else {}),
            "name": self.name,
            "images_per_prompt": self.images_per_prompt,
            "metrics": list(self.metrics),
            **({"choices": [spec.model_dump() for spec in self.choices]} if self.choices else {}),
            "n_prompts": len(self.prompts),
            "prompts_sha256": prompts,
        }


@dataclass(frozen=True)
class ResolvedVariant:
    """A variant whose weights were found and hashed."""

    spec: GeneratorSpec
    suite_seed: int
    kernels: Backend = "torch"

    @property
    def variant(self) -> Variant:
        """The validated variant file."""
        return self.spec.variant

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.spec.variant.name

    def identity(self) -> dict[str, Any]:
        """Return the settings that change images; names and descriptions do not."""
        variant = self.variant
        return {
            "generator": generators.version(variant.generator),
            "noise": NOISE_VERSION,
            "weights_sha256": self.spec.weights_sha256,
            "height": variant.model.height,
            "width": variant.model.width,
            "instruction": variant.model.instruction,
            "conditioning": variant.model.conditioning,
            "sampler": variant.sampler.model_dump(mode="json") if variant.sampler else None,
            "tiling": variant.model.tiling.model_dump(mode="json") if variant.model.tiling else None,
            "precision": variant.precision,
            "quantization": variant.quantization,
            # Named where it is not plain PyTorch, which made every image before there was a choice.
            **({"kernels": self.kernels} if self.kernels != "torch" else {}),
            "suite_seed": self.suite_seed,
            # Only where there is one: other variants keep the identity that they had.
            **({"best_of_n": self._search} if self._search is not None else {}),
        }

    @cached_property
    def _search(self) -> dict[str, Any] | None:
        if self.variant.best_of_n is None:
            return None
        from sana_bench.generators.best_of_n import judge_identity

        return judge_identity(self.variant, self.spec.variants_dir or Path())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that changes the variant's images."""
        return fingerprint(self.identity())


@dataclass(frozen=True)
class Cell:
    """One variant on one benchmark: the unit that is generated and scored together."""

    variant: ResolvedVariant
    benchmark: ResolvedBenchmark

    @cached_property
    def image_key(self) -> str:
        """Identity, with prompt and sample index, of an image of this cell in any run."""
        return image_key(self.variant.fingerprint, self.benchmark.name)

    @property
    def label(self) -> str:
        """How messages call the cell."""
        return f"{self.benchmark.name} / {self.variant.name}"

    def image_path(self, key: SampleKey) -> Path:
        """Path of an image relative to the run directory."""
        return image_path(self.variant.name, self.variant.fingerprint, self.benchmark.name, *key.id)

    def noise_seed(self, key: SampleKey) -> int:
        """Seed of the sample's initial noise; the winners of one search share that of the first."""
        search = self.variant.variant.best_of_n
        first = key.index - key.index % search.keep if search is not None else key.index
        return noise_seed(self.variant.suite_seed, self.benchmark.name, key.prompt.id, first)

    def sample(self, key: SampleKey, image_path: Path) -> Sample:
        """Return the sample as metrics see it."""
        return Sample(self.variant.name, self.benchmark.name, key.prompt, key.index, image_path)


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite ready to run on this machine."""

    suite: Suite
    tier: TierChoice
    benchmarks: tuple[ResolvedBenchmark, ...]
    variants: tuple[ResolvedVariant, ...]

    @property
    def seed(self) -> int:
        """The suite's seed."""
        return self.suite.file.seed

    def describe(self) -> dict[str, Any]:
        """Return the suite with every default and hash filled in, as plain data."""
        return {
            "schema_version": self.suite.file.schema_version,
            "name": self.suite.file.name,
            "tier": self.tier.tier,
            "seed": self.seed,
            "benchmarks": [benchmark.describe() for benchmark in self.benchmarks],
            "variants": [
                {
                    **variant.variant.model_dump(mode="json"),
                    "weights_sha256": variant.spec.weights_sha256,
                    "fingerprint": variant.fingerprint,
                }
                for variant in self.variants
            ],
        }

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the run: what is asked for, not how far it got or from which folder it was started."""
        described = self.describe()
        described["variants"] = [[variant.name, variant.fingerprint] for variant in self.variants]
        return fingerprint(described)

    @property
    def run_id(self) -> str:
        """Name of the run directory."""
        return f"{self.suite.file.name}-{self.tier.tier}-{short(self.fingerprint)}"

    def cells(self, selected: Sequence[str] | None = None) -> list[Cell]:
        """Return the cells of the selected variants (all by default), benchmark by benchmark."""
        variants = self.variants
        if selected is not None:
            names = {self.suite.variant(name).name for name in selected}
            variants = tuple(variant for variant in variants if variant.name in names)
        return [Cell(variant, benchmark) for benchmark in self.benchmarks for variant in variants]


def resolve_suite(suite: Suite, tier: TierChoice, hashes: HashCache) -> ResolvedSuite:
    """Load prompts, find and hash weights.

    Raises `AssetError` naming every variant whose weights are missing or damaged.
    """
    specs, problems = [], []
    for variant in suite.variants:
        try:
            specs.append(_find_weights(variant, suite.variants_dir, hashes))
        except AssetError as error:
            problems.append(f"variant {variant.name!r}: {error}")
    if problems:
        raise AssetError("; ".join(problems))
    seed = suite.file.seed
    resolved = tuple(_resolve_benchmark(spec, suite.tier) for spec in suite.file.benchmarks)
    variants = tuple(ResolvedVariant(spec, seed, _kernels(spec.variant, tier.device)) for spec in specs)
    return ResolvedSuite(suite, tier, resolved, variants)


def _kernels(variant: Variant, device: str) -> Backend:
    """Return what the variant's transformer will run on; raises `SuiteError` where it cannot."""
    generator = variant.best_of_n.generator if variant.best_of_n is not None else variant.generator
    if generator != "sana":
        return "torch"
    try:
        return resolve_backend(variant.kernels, device)
    except KernelError as error:
        raise SuiteError(f"variant {variant.name!r}: {error}") from None


def _find_weights(variant: Variant, variants_dir: Path, hashes: HashCache) -> GeneratorSpec:
    """Find and hash the weights of a variant; only plug-ins may have none, or a layout of their own."""
    if variant.model.weights == NO_WEIGHTS and generators.is_plugin(variant.generator):
        return GeneratorSpec(variant, variants_dir, fingerprint({}))
    path = generators.find(variant, variants_dir)
    sha256 = directory_sha256(path, hashes, ignore=NOT_WEIGHTS)
    return GeneratorSpec(variant, path, sha256, variants_dir=variants_dir)


def _resolve_benchmark(spec: BenchmarkSpec, tier: str) -> ResolvedBenchmark:
    benchmark = benchmarks.get(spec.name)
    prompts = tuple(benchmark.prompts(tier))
    _check_names(spec.name, prompts)
    return ResolvedBenchmark(
        name=spec.name,
        prompts=prompts,
        images_per_prompt=spec.images_per_prompt or benchmark.default_images_per_prompt,
        metrics=tuple(metric.name for metric in spec.metric_specs) or tuple(benchmark.metric_names),
        choices=tuple(metric for metric in spec.metric_specs if metric.protocol or metric.parameters),
    )


def _check_names(benchmark: str, prompts: Sequence[Prompt]) -> None:
    """Raise `SuiteError` for a name that would lead out of the run directory, or that two prompts share."""
    if not _is_path_name(benchmark):
        raise SuiteError(f"the benchmark name {benchmark!r} cannot be the name of a folder")
    for prompt in prompts:
        if not _is_path_name(prompt.id):
            raise SuiteError(
                f"benchmark {benchmark!r}: the prompt id {prompt.id!r} cannot be the name of a folder"
            )
    repeated = [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise SuiteError(f"benchmark {benchmark!r}: the prompt id {repeated[0]!r} appears twice")


def _is_path_name(name: object) -> bool:
    """One name without separators or a dot first; what is not printable is NUL, line ends and lone surrogates among others."""
    if not isinstance(name, str) or not name or name.startswith(".") or not name.isprintable():
        return False
    return not {"/", "\\"} & set(name) and len(name.encode("utf-8")) <= _LONGEST_NAME
