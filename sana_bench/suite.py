"""A suite file and its variant files, validated: what a run has to do, before anything heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sana_bench.errors import SuiteError, nearest
from sana_bench.origin import check_origin
from sana_bench.search_settings import BestOfNSpec, JudgeSpec
from sana_bench.validation import validate
from sana_bench.yaml_files import Document, KeyPath, parse_override, read_yaml

__all__ = [
    "SCHEMA_VERSION",
    "BenchmarkSpec",
    "BestOfNSpec",
    "Catalogue",
    "JudgeSpec",
    "MetricSpec",
    "ModelSpec",
    "SamplerSpec",
    "Suite",
    "SuiteFile",
    "Tier",
    "Variant",
    "list_variants",
    "load_all_tiers",
    "load_suite",
    "load_variant",
]

SCHEMA_VERSION = 1
TIERS = ("micro", "full")

Tier = Literal["micro", "full"]
# Dotted key, value, and the option as typed.
_Override = tuple[str, Any, str]

_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def _check_name(name: str) -> str:
    if not _NAME_PATTERN.fullmatch(name) or ".." in name:
        raise ValueError(
            "use lower-case letters, digits, '-', '_' and single '.', at most 64, a letter or digit first"
        )
    if name in TIERS:
        raise ValueError(f"{name!r} is the name of a tier")
    return name


# Names become parts of paths inside the run directory, hence the narrow alphabet.
Name = Annotated[str, AfterValidator(_check_name)]


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

    `name: pipeline` is the scheduler that a foreign pipeline brings along, with its own shift.
    """

    name: Literal["flow_dpm_solver", "flow_euler", "pipeline"] = "flow_dpm_solver"
    steps: int = Field(ge=1, le=1000)
    guidance_scale: float = Field(ge=0, le=100, allow_inf_nan=False)
    guidance_interval: Annotated[
        tuple[float, float], Field(strict=False), AfterValidator(_check_interval)
    ] = (0.0, 1.0)
    perturbed_attention: PerturbedAttentionSpec | None = None
    shift: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)


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

    `instruction: sana` is SANA's complex human instruction, which the published models are used with.
    `conditioning` says whose habits to follow where the two public pipelines differ: prompt case, the mask of the
    unconditional branch, the quotes of the instruction, and the time that flow-Euler tells the network. `tiling` keeps the
    decoder's memory small at 2K and 4K.
    """

    weights: str = Field(min_length=1, max_length=500)
    height: int = Field(ge=8, le=8192)
    width: int = Field(ge=8, le=8192)
    instruction: Literal["none", "sana"] = "none"
    conditioning: Literal["diffusers", "official"] = "diffusers"
    tiling: TilingSpec | None = None


class Variant(_Spec):
    """One way to turn prompts into images: a row of the leaderboard.

    `sampler` is missing where images exist already. `kind` and `derived_from` tell what the variant was made from; they
    group reports and change no image.
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    quantization: Literal["none", "int8", "w8a8"] = "none"
    kernels: Literal["auto", "triton", "torch"] = "auto"
    best_of_n: BestOfNSpec | None = None

    @model_validator(mode="after")
    def _searches(self) -> Self:
        if (self.generator == "best_of_n") != (self.best_of_n is not None):
            raise ValueError("generator best_of_n and the section best_of_n belong together")
        return self


class MetricSpec(_Spec):
    """A metric with the protocol and parameters to use instead of its defaults."""

    name: str
    protocol: str | None = None
    parameters: dict[str, int | float | str | bool] = Field(default_factory=dict, max_length=20)


class BenchmarkSpec(_Spec):
    """A benchmark to run; what is left out is the benchmark's own default."""

    name: str
    images_per_prompt: int | None = Field(default=None, ge=1, le=1000)
    metrics: tuple[str | MetricSpec, ...] | None = Field(
        default=None, strict=False, min_length=1, max_length=50
    )

    @property
    def metric_specs(self) -> tuple[MetricSpec, ...]:
        """The metrics to apply, a plain name being one with its defaults; empty for the benchmark's own."""
        return tuple(
            MetricSpec(name=metric) if isinstance(metric, str) else metric for metric in self.metrics or ()
        )


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


@dataclass(frozen=True)
class Catalogue:
    """The names that suites and variants may use: metrics by benchmark, generators, and judges of inference-time scaling."""

    benchmarks: Mapping[str, tuple[str, ...]]
    generators: tuple[str, ...]
    judges: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A validated suite with the variants of one tier, in the order of the file."""

    file: SuiteFile
    path: Path
    tier: Tier
    variants: tuple[Variant, ...]

    @property
    def variants_dir(self) -> Path:
        """The folder that holds the variant files; relative weight paths start there."""
        return self.path.parent / "variants"

    def variant(self, name: str) -> Variant:
        """Return the variant called `name`; raises `SuiteError` with the nearest name when there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = [variant.name for variant in self.variants]
        raise SuiteError(
            f"{self.path}: no {self.tier} variant {name!r}{nearest(name, names)}; "
            f"the suite has {', '.join(names)}"
        )


def load_suite(path: Path, tier: Tier, catalogue: Catalogue, overrides: tuple[str, ...] = ()) -> Suite:
    """Read and validate a suite, its benchmarks' names, and every variant file of `tier`.

    `overrides` are `--set` options: keys of the suite file, or `variants.NAME.KEY` for a key of a variant
    file.
    Raises `SuiteError`, one line with file, line and key.
    """
    file, document, variant_options = _load_file(path, catalogue, overrides)
    names = file.variants.get(tier)
    if names is None:
        raise SuiteError(
            f"{document.origin(('variants',))}: suite {file.name!r} has no {tier} variants; "
            f"it has {' and '.join(file.variants)} (choose with --tier)"
        )
    _check_overridden_variants(variant_options, names, f"{tier} ")
    return _load_tier(file, document, tier, catalogue, variant_options)


def load_all_tiers(path: Path, catalogue: Catalogue, overrides: tuple[str, ...] = ()) -> list[Suite]:
    """Validate a suite for every tier that it has variants of; raises `SuiteError`."""
    file, document, variant_options = _load_file(path, catalogue, overrides)
    _check_overridden_variants(
        variant_options, [name for names in file.variants.values() for name in names], ""
    )
    return [_load_tier(file, document, tier, catalogue, variant_options) for tier in file.variants]


def list_variants(directory: Path) -> list[str]:
    """Return the names of the variant files in `directory`, sorted."""
    return sorted(path.stem for path in directory.glob("*.yaml"))


def _load_file(
    path: Path, catalogue: Catalogue, overrides: tuple[str, ...]
) -> tuple[SuiteFile, Document, list[_Override]]:
    document = _read_suite_document(path)
    suite_options, variant_options = _split_overrides(overrides)
    for key, value, option in suite_options:
        _apply_override(document, key, value, option)
    file = validate(SuiteFile, document)
    _check_benchmarks(file, document, catalogue)
    return file, document, variant_options


def _load_tier(
    file: SuiteFile, document: Document, tier: Tier, catalogue: Catalogue, overrides: Sequence[_Override]
) -> Suite:
    names = file.variants[tier]
    _check_unique(names, document, ("variants", tier))
    directory = document.path.parent / "variants"
    variants = []
    for index, name in enumerate(names):
        origin = document.origin(("variants", tier, index))
        _check_listed_variant(directory, name, origin)
        variant = load_variant(directory / f"{name}.yaml", catalogue, overrides)
        if variant.tier != tier:
            raise SuiteError(f"{origin}: variant {name!r} is of the {variant.tier} tier, listed under {tier}")
        variants.append(variant)
    return Suite(file, document.path, tier, tuple(variants))


def _read_suite_document(path: Path) -> Document:
    if not path.is_file():
        neighbours = [str(other) for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise SuiteError(f"{path}: no such suite file{nearest(str(path), neighbours)}")
    document = read_yaml(path)
    _check_schema_version(document)
    return document


def _check_schema_version(document: Document) -> None:
    version = document.data.get("schema_version")
    where = document.origin(("schema_version",))
    if version is None:
        raise SuiteError(
            f"{document.path}: schema_version is missing (this sana-bench reads version {SCHEMA_VERSION})"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise SuiteError(
            f"{where}: schema_version {version!r} is not supported; this sana-bench reads {SCHEMA_VERSION}"
        )


def _split_overrides(overrides: tuple[str, ...]) -> tuple[list[_Override], list[_Override]]:
    suite_options: list[_Override] = []
    variant_options: list[_Override] = []
    for text in overrides:
        key, value = parse_override(text)
        option = f"--set {text}"
        prefix, _, rest = key.partition(".")
        if prefix == "variants" and rest and rest.split(".")[0] not in TIERS:
            variant_options.append((rest, value, option))
        else:
            suite_options.append((key, value, option))
    return suite_options, variant_options


def _apply_override(document: Document, key: str, value: Any, option: str) -> None:
    """Set one dotted key; containers on the way must exist, the last key is judged by validation."""
    location: KeyPath = ()
    container: Any = document.data
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(container, list):
            if not part.isdecimal() or int(part) >= len(container):
                raise SuiteError(
                    f"{option}: {'.'.join(parts[:depth])} has entries 0 to {len(container) - 1}, not {part!r}"
                )
            step: str | int = int(part)
        elif isinstance(container, dict):
            step = part
            if not last and part not in container:
                raise SuiteError(f"{option}: unknown key {part!r}{nearest(part, map(str, container))}")
        else:
            raise SuiteError(f"{option}: {'.'.join(parts[:depth])} has no keys inside it")
        location = (*location, step)
        if last:
            container[step] = value
            _forget_below(document, location)
            document.origins[location] = option
        else:
            container = container[step]


def _forget_below(document: Document, location: KeyPath) -> None:
    for known in [known for known in document.origins if known[: len(location)] == location]:
        del document.origins[known]


def _check_benchmarks(file: SuiteFile, document: Document, catalogue: Catalogue) -> None:
    for index, spec in enumerate(file.benchmarks):
        if spec.name not in catalogue.benchmarks:
            raise SuiteError(
                f"{document.origin(('benchmarks', index, 'name'))}: unknown benchmark {spec.name!r}"
                f"{nearest(spec.name, catalogue.benchmarks)}; known: {', '.join(catalogue.benchmarks)}"
            )
        known = catalogue.benchmarks[spec.name]
        names = [metric.name for metric in spec.metric_specs]
        for position, metric in enumerate(names):
            if metric not in known:
                where = document.origin(("benchmarks", index, "metrics", position))
                raise SuiteError(
                    f"{where}: benchmark {spec.name!r} has no metric {metric!r}"
                    f"{nearest(metric, known)}; it has {', '.join(known)}"
                )
        _check_unique(names, document, ("benchmarks", index, "metrics"))
    _check_unique([spec.name for spec in file.benchmarks], document, ("benchmarks",))


def _check_unique(names: tuple[str, ...] | list[str], document: Document, location: KeyPath) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SuiteError(f"{document.origin((*location, index))}: {name!r} appears twice")


def _check_listed_variant(directory: Path, name: str, origin: str) -> None:
    if not _NAME_PATTERN.fullmatch(name) or not (directory / f"{name}.yaml").is_file():
        known = list_variants(directory)
        raise SuiteError(
            f"{origin}: unknown variant {name!r}{nearest(name, known)}; "
            f"there is no {directory / f'{name}.yaml'}"
        )


def load_variant(path: Path, catalogue: Catalogue, overrides: Sequence[_Override] = ()) -> Variant:
    """Read and validate one variant file; raises `SuiteError`."""
    document = read_yaml(path)
    _check_schema_version(document)
    name = path.stem
    for key, value, option in overrides:
        if key.startswith(f"{name}."):
            _apply_override(document, key.removeprefix(f"{name}."), value, option)
    variant = validate(Variant, document)
    if variant.name != name:
        raise SuiteError(
            f"{document.origin(('name',))}: name is {variant.name!r}, the file name says {name!r}"
        )
    check_origin(document)
    _check_known(document, ("generator",), "generator", variant.generator, catalogue.generators)
    if variant.best_of_n is not None:
        search = variant.best_of_n
        place = ("best_of_n", "generator")
        _check_known(document, place, "generator", search.generator, catalogue.generators)
        _check_known(document, ("best_of_n", "judge", "name"), "judge", search.judge.name, catalogue.judges)
    return variant


def _check_known(document: Document, place: KeyPath, kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise SuiteError(
            f"{document.origin(place)}: unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}"
        )


def _check_overridden_variants(overrides: Sequence[_Override], names: Sequence[str], kind: str) -> None:
    for key, _, option in overrides:
        if not any(key.startswith(f"{name}.") and len(key) > len(name) + 1 for name in names):
            asked = key.split(".")[0]
            raise SuiteError(f"{option}: the suite has no {kind}variant for {key!r}{nearest(asked, names)}")
