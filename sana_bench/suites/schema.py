"""The pydantic models of suite and variant files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sana_bench.core.errors import SuiteError, nearest
from sana_bench.core.precision import NumberFormat, PrecisionSpec
from sana_bench.core.samples import FoundImages, Prompt
from sana_bench.core.tiers import TIERS, Tier
from sana_bench.suites.judge_spec import JudgeSpec
from sana_bench.suites.stop import StopSpec

__all__ = [
    "SCHEMA_VERSION",
    "BenchmarkSpec",
    "BestOfNSpec",
    "JudgeSpec",
    "LoraSpec",
    "MetricSpec",
    "ModelSpec",
    "SamplerSpec",
    "Suite",
    "SuiteFile",
    "Variant",
    "check_name",
    "source_of",
]


def _check_power(value: int) -> int:
    if value & (value - 1):
        raise ValueError("must be a power of two: candidates meet in pairs")
    return value


class BestOfNSpec(BaseModel):
    """Inference-time scaling: `candidates` images a search from the wrapped `generator`, of which `keep` become samples.

    `batch_size` candidates are made and judged at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    generator: str = "sana"
    candidates: Annotated[int, Field(ge=1, le=65536), AfterValidator(_check_power)]
    keep: Annotated[int, Field(ge=1, le=1024), AfterValidator(_check_power)] = 1
    batch_size: int = Field(default=16, ge=1, le=4096)
    judge: JudgeSpec

    @model_validator(mode="after")
    def _keeps_some(self) -> Self:
        if self.keep > self.candidates:
            raise ValueError("keep must not be larger than candidates")
        return self


SCHEMA_VERSION = 1


_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return a name of a suite, variant or benchmark; raises ValueError for one that is not allowed."""
    if not _NAME_PATTERN.fullmatch(name) or ".." in name:
        raise ValueError(
            "use lower-case letters, digits, '-', '_' and single '.', at most 64, a letter or digit first"
        )
    if name in TIERS:
        raise ValueError(f"{name!r} is the name of a tier")
    return name


# Names become parts of paths inside the run directory, hence the narrow alphabet.
Name = Annotated[str, AfterValidator(check_name)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _check_interval(interval: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError("must be two rising noise levels in [0, 1]")
    return interval


class PerturbedAttentionSpec(_Spec):
    """Perturbed-attention guidance: its strength, and the transformer blocks it acts in."""

    scale: float = Field(gt=0, le=100, allow_inf_nan=False)
    blocks: tuple[Annotated[int, Field(ge=0)], ...] = Field(strict=False, min_length=1)
    adaptive_scale: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)


class SamplerSpec(_Spec):
    """How noise becomes latents: solver, number of network calls, guidance and noise shift.

    `name: pipeline` is the scheduler that a foreign pipeline brings along, with its own shift. `scm` is SANA-Sprint's, whose
    network is told the guidance scale.
    """

    name: Literal["flow_dpm_solver", "flow_euler", "scm", "pipeline"] = "flow_dpm_solver"
    steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100, allow_inf_nan=False)
    guidance_interval: Annotated[
        tuple[float, float], Field(strict=False), AfterValidator(_check_interval)
    ] = (0.0, 1.0)
    perturbed_attention: PerturbedAttentionSpec | None = None
    shift: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)

    @model_validator(mode="after")
    def _plain_scm(self) -> Self:
        guided = self.guidance_interval != (0.0, 1.0) or self.perturbed_attention is not None
        if self.name == "scm" and (guided or self.shift is not None):
            raise ValueError("scm takes no shift, guidance_interval or perturbed_attention")
        return self

    @property
    def branches(self) -> float:
        """Calls of the network in a step, on average."""
        if self.name == "scm":
            return 1.0
        low, high = self.guidance_interval
        guided = high - low if self.guidance_scale > 1 else 0.0
        return 1.0 + guided + (self.perturbed_attention is not None)


class TilingSpec(_Spec):
    """Decoding in tiles: their side and the distance between them, in image pixels."""

    tile: int = Field(default=512, ge=64, le=8192)
    stride: int = Field(default=448, ge=32, le=8192)

    @model_validator(mode="after")
    def _overlapping(self) -> Self:
        if self.stride > self.tile:
            raise ValueError("stride must not be larger than tile")
        return self


class ModelSpec(_Spec):
    """Which weights, the image size in pixels, and the text put before every prompt.

    Images that exist already need no size: without one, each has its own.

    `instruction: sana` is SANA's complex human instruction, which the published models are used with.
    `conditioning` says whose habits to follow where the two public pipelines differ: prompt case, the mask of the
    unconditional branch, the quotes of the instruction, and the time that flow-Euler tells the network. `tiling` keeps the
    decoder's memory small at 2K and 4K. `weights_variant` picks weight files such as `*.fp16.safetensors`.
    `autoencoder` names another DC-AE than that of the weights.
    """

    weights: str = Field(min_length=1, max_length=500)
    weights_variant: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=50)
    autoencoder: str | None = Field(default=None, min_length=1, max_length=500)
    height: int | None = Field(default=None, ge=8, le=8192)
    width: int | None = Field(default=None, ge=8, le=8192)
    instruction: Literal["none", "sana"] = "none"
    conditioning: Literal["diffusers", "official"] = "diffusers"
    tiling: TilingSpec | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width; raises `SuiteError` where the variant has none."""
        if self.height is None or self.width is None:
            raise SuiteError(f"{self.weights}: model.height and model.width are missing")
        return self.height, self.width


class LoraSpec(_Spec):
    """A low-rank adapter merged into the transformer: a file or folder, or a hub id, and how strongly."""

    weights: str = Field(min_length=1, max_length=500)
    scale: float = Field(default=1.0, ge=-100, le=100, allow_inf_nan=False)


class Variant(_Spec):
    """One way to turn prompts into images, as its file says: a row of the leaderboard.

    `sampler` is missing where images exist already. `kind` and `derived_from` tell what the variant was made from; they
    group reports and change no image. `prompt_rewrites` is a file of texts that the model is given instead of the prompts;
    scores are of the prompts. `published` names rows of published tables that it reproduces, as `sana_reports` calls them.
    """

    schema_version: Literal[1] = 1
    name: Name
    tier: Tier
    description: str = Field(default="", max_length=500)
    kind: Literal["full", "pruned", "grown", "inference_scaled"] = "full"
    derived_from: Name | None = None
    generator: str = "sana"
    model: ModelSpec
    sampler: SamplerSpec | None = None
    precision: NumberFormat | PrecisionSpec = "fp32"
    tf32: bool | None = None
    quantization: Literal["none", "int8", "w8a8"] = "none"
    kernels: Literal["auto", "triton", "torch"] = "auto"
    compile: Literal["none", "default", "max-autotune"] = "none"
    cuda_graphs: bool = False
    lora: LoraSpec | None = None
    best_of_n: BestOfNSpec | None = None
    prompt_rewrites: str | None = Field(default=None, min_length=1, max_length=500)
    published: tuple[str, ...] = Field(default=(), strict=False, max_length=20)

    @property
    def generates(self) -> bool:
        """Whether images are made for the run; otherwise they exist already."""
        return self.generator != "images"

    @property
    def precisions(self) -> PrecisionSpec:
        """The number format of each network; a word is that of the transformer, which decides the others'."""
        word = self.precision
        return (word if isinstance(word, PrecisionSpec) else PrecisionSpec(transformer=word)).whole

    @property
    def plain_precision(self) -> NumberFormat | dict[str, str]:
        """The formats as one word where a word says them all, else by network: equal for what is computed alike."""
        parts = self.precisions
        if parts == PrecisionSpec(transformer=parts.transformer).whole:
            return parts.transformer
        return parts.model_dump()

    @property
    def image_source(self) -> str:
        """The generator that reads the weights: of a search, the one that makes its candidates."""
        return self.best_of_n.generator if self.best_of_n is not None else self.generator

    @model_validator(mode="after")
    def _searches(self) -> Self:
        if (self.generator == "best_of_n") != (self.best_of_n is not None):
            raise ValueError("generator best_of_n and the section best_of_n belong together")
        return self


#: `FILE.py:NAME`, a function that scores.
FUNCTION_PATTERN = r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$"
#: What one's own prompts are scored with where a suite says nothing.
OWN_METRICS = ("clip_score",)
#: What a suite can say of throughput: batches of one size, 0 for the best of a sweep.
THROUGHPUT_PARAMETERS = {"batch_size": 0}
LARGEST_BATCH = 4096
#: Reference sets that have a name: the distances' own default.
NAMED_REFERENCES = ("mjhq30k",)
_SUBSET_PATTERN = re.compile(r"(?P<name>[^@]+)@(?P<count>[1-9][0-9]{0,6})")


class MetricSpec(_Spec):
    """A metric with the protocol and parameters to use instead of its defaults.

    `function` (`FILE.py:NAME`) scores with a function of one's own instead of a metric of that name. `reference` is what a
    distance between sets holds the images against: a folder of images, or a file of statistics. Their paths start from the
    suite's folder.
    """

    name: str
    protocol: str | None = None
    parameters: dict[str, int | float | str | bool] = Field(default_factory=dict, max_length=20)
    function: str | None = Field(default=None, pattern=FUNCTION_PATTERN)
    reference: str | None = Field(default=None, min_length=1, max_length=500)

    @property
    def function_place(self) -> tuple[Path, str]:
        """File and name of the function."""
        file, _, name = str(self.function).rpartition(":")
        return Path(file), name

    @property
    def is_choice(self) -> bool:
        """Whether the suite says more than the name."""
        return any((self.protocol, self.parameters, self.function, self.reference))

    def describe(self, sha256: str | None = None) -> dict[str, Any]:
        """What identifies the choice in a run; `sha256` is that of what function or reference name, wherever it lies."""
        described = self.model_dump(include={"name", "protocol", "parameters"})
        if self.function is not None:
            file, name = self.function_place
            described["function"] = {"file": file.name, "name": name, "sha256": sha256}
        if self.reference is not None:
            described["reference"] = {"name": Path(self.reference).name, "sha256": sha256}
        return described

    def pick(self, protocols: Sequence[str]) -> str:
        """The protocol asked for, the first of `protocols` by default; `SuiteError` with the nearest otherwise."""
        if self.protocol is None:
            return protocols[0]
        if self.protocol not in protocols:
            raise SuiteError(
                f"metric {self.name!r} has no protocol {self.protocol!r}{nearest(self.protocol, protocols)}; "
                f"it has {', '.join(protocols)} on this tier"
            )
        return self.protocol

    def parameters_among(
        self, known: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]] | None = None
    ) -> dict[str, Any]:
        """The defaults in `known` with what the suite sets; `SuiteError` for other names or types.

        `ranges` holds the smallest and largest value of those numbers that have one; others are refused too.
        """
        for name, value in self.parameters.items():
            if name not in known:
                raise SuiteError(
                    f"metric {self.name!r} has no parameter {name!r}{nearest(name, known)}; "
                    f"{self.protocol or 'its default protocol'} has {', '.join(known) or 'none'}"
                )
            if type(value) is not type(known[name]):
                kind = type(known[name]).__name__
                raise SuiteError(f"metric {self.name!r}: parameter {name!r} is {value!r}, expected {kind}")
            bounds: tuple[Any, Any] = (ranges or {}).get(name, (value, value))
            if not bounds[0] <= value <= bounds[1]:
                raise SuiteError(
                    f"metric {self.name!r}: parameter {name!r} is {value!r}, expected {bounds[0]} to {bounds[1]}"
                )
        return {**known, **self.parameters}

    def needs_full_tier(self, tier: str) -> None:
        """Raise `SuiteError` on the micro tier, for a metric that has no network there."""
        if tier == "micro":
            raise SuiteError(f"metric {self.name!r} has no micro tier version; use --tier full")


def _check_prompts(prompts: int | str | None) -> int | str | None:
    if prompts == "" or (isinstance(prompts, int) and prompts < 1):
        raise ValueError("must be a number of prompts from 1 up, or a file of prompts")
    return prompts


def _as_metric(metric: str | MetricSpec) -> MetricSpec:
    if isinstance(metric, MetricSpec):
        return metric
    if re.fullmatch(FUNCTION_PATTERN, metric):
        return MetricSpec(name=metric.rpartition(":")[2], function=metric)
    return MetricSpec(name=metric)


def source_of(benchmark: str) -> str:
    """The name of the benchmark that a part such as `geneval@24` belongs to; of any other its own."""
    found = _SUBSET_PATTERN.fullmatch(benchmark)
    return found["name"] if found is not None else benchmark


class BenchmarkSettings(_Spec):
    """What a benchmark changes of the model of every variant, as some published numbers were made."""

    instruction: Literal["none", "sana"]


class BenchmarkSpec(_Spec):
    """A benchmark to run; what is left out is the benchmark's own default.

    `prompts` is a file of prompts of one's own, whose path starts from the suite's folder, or a number: so many of the
    benchmark's prompts, spread over its tasks, are a benchmark of their own with the name `NAME@NUMBER`, which may be written
    at once.
    """

    name: str
    prompts: Annotated[int | str | None, AfterValidator(_check_prompts)] = None
    images_per_prompt: int | None = Field(default=None, ge=1, le=1000)
    metrics: tuple[str | MetricSpec, ...] | None = Field(
        default=None, strict=False, min_length=1, max_length=50
    )
    settings: BenchmarkSettings | None = None

    @property
    def metric_specs(self) -> tuple[MetricSpec, ...]:
        """The metrics to apply, a plain name being one with its defaults; empty for the benchmark's own."""
        return tuple(map(_as_metric, self.metrics or ()))

    @property
    def source(self) -> str:
        """The name of the benchmark that prompts are taken from: `geneval` for `geneval@24`."""
        return source_of(self.name)

    @property
    def subset(self) -> int | None:
        """How many of the prompts are asked for; None for all."""
        found = _SUBSET_PATTERN.fullmatch(self.name)
        if found is not None:
            return int(found["count"])
        return self.prompts if isinstance(self.prompts, int) else None

    @property
    def label(self) -> str:
        """The benchmark's name in a run: a subset is a benchmark of its own."""
        return self.source if self.subset is None else f"{self.source}@{self.subset}"

    @property
    def prompt_file(self) -> str | None:
        """The file of one's own prompts, where there is one."""
        return self.prompts if isinstance(self.prompts, str) else None


class SuiteFile(_Spec):
    """The content of `suites/NAME.yaml`."""

    schema_version: Literal[1] = 1
    name: Name
    description: str = Field(default="", max_length=500)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    benchmarks: tuple[BenchmarkSpec, ...] = Field(strict=False, min_length=1, max_length=50)
    variants: dict[Tier, Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=200)]] = (
        Field(min_length=1)
    )
    stop: StopSpec | None = None


@dataclass(frozen=True)
class Suite:
    """A validated suite with the variants of one tier, in the order of the file; `files` is where each was read.

    A suite that no file holds brings what its benchmarks and variants would read: `prompts` by benchmark, and by variant
    existing images that are matched to them already.
    """

    file: SuiteFile
    path: Path
    tier: Tier
    variants: tuple[Variant, ...]
    files: tuple[Path, ...]
    prompts: Mapping[str, tuple[Prompt, ...]] = field(default_factory=dict)
    found: Mapping[str, FoundImages] = field(default_factory=dict)

    def folder(self, variant: Variant) -> Path:
        """The folder that a variant was read from, where its relative weight paths start."""
        return self.files[self.variants.index(variant)].parent

    @property
    def borrowed(self) -> list[str]:
        """A line for each variant that does not lie beside the suite, with where it lies."""
        own = (self.path.parent / "variants").resolve()
        pairs = zip(self.variants, self.files, strict=True)
        return [
            f"variant {variant.name}: the shipped one, {file}"
            for variant, file in pairs
            if file.parent.resolve() != own
        ]

    def variant(self, name: str) -> Variant:
        """Return the variant called `name`, or whose file is; raises `SuiteError` with the nearest name otherwise."""
        for variant, file in zip(self.variants, self.files, strict=True):
            if name in (variant.name, file.stem):
                return variant
        names = [variant.name for variant in self.variants]
        raise SuiteError(
            f"{self.path}: no {self.tier} variant {name!r}{nearest(name, names)}; "
            f"the suite has {', '.join(names)}"
        )
