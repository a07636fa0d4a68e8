"""A validated suite with its prompts and weights found: every identity that decides what can be reused."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sana_bench import generators
from sana_bench.benchmarks.prompt_file import read_prompts
from sana_bench.benchmarks.subset import stratified
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import (
    NOT_WEIGHTS,
    HashCache,
    directory_sha256,
    file_sha256,
    fingerprint,
)
from sana_bench.core.registry import BENCHMARKS, GENERATORS, MEASURED, METRICS
from sana_bench.core.samples import Prompt
from sana_bench.generators.best_of_n.search import judge_identity
from sana_bench.metrics.fid.own_reference import reference_sha256
from sana_bench.suites.cells import (
    NO_WEIGHTS,
    GeneratorSpec,
    ResolvedBenchmark,
    ResolvedSuite,
    ResolvedVariant,
)
from sana_bench.suites.schema import (
    NAMED_REFERENCES,
    OWN_METRICS,
    SET_METRICS,
    BenchmarkSpec,
    MetricSpec,
    Suite,
    Variant,
)
from sana_bench.suites.tiers import TierChoice
from sana_kernels import Backend, KernelError, resolve_backend

__all__ = ["resolve_benchmark", "resolve_suite"]


# Bytes of a name that becomes part of a path; file systems take 255.
_LONGEST_NAME = 200


def resolve_suite(suite: Suite, tier: TierChoice, hashes: HashCache) -> ResolvedSuite:
    """Load prompts, find and hash weights.

    Raises `AssetError` naming every variant whose weights are missing or damaged.
    """
    found, problems = [], []
    for variant in suite.variants:
        try:
            spec = _find_weights(variant, suite, hashes)
            search = judge_identity(variant, suite.variants_dir) if variant.best_of_n is not None else None
            found.append((spec, search))
        except AssetError as error:
            problems.append(f"variant {variant.name!r}: {error}")
    if problems:
        raise AssetError("; ".join(problems))
    seed = suite.file.seed
    resolved = tuple(resolve_benchmark(spec, suite, hashes) for spec in suite.file.benchmarks)
    variants = tuple(
        ResolvedVariant(spec, seed, _kernels(spec.variant, tier.device), search) for spec, search in found
    )
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


def _find_weights(variant: Variant, suite: Suite, hashes: HashCache) -> GeneratorSpec:
    """Find and hash the weights of a variant, or the images that were found for it.

    Only plug-ins may have no weights, or a layout of their own.
    """
    variants_dir = suite.variants_dir
    found = suite.found.get(variant.name)
    if found is not None:
        images = {
            f"{prompt}/{index}": file_sha256(path, hashes) for (prompt, index), path in found.files.items()
        }
        return GeneratorSpec(variant, Path(variant.model.weights), fingerprint(images), found=found)
    if variant.model.weights == NO_WEIGHTS and GENERATORS.entry(variant.generator).is_plugin:
        return GeneratorSpec(variant, variants_dir, fingerprint({}))
    path = generators.find(variant, variants_dir)
    sha256 = directory_sha256(path, hashes, ignore=NOT_WEIGHTS)
    return GeneratorSpec(variant, path, sha256, variants_dir=variants_dir)


def resolve_benchmark(spec: BenchmarkSpec, suite: Suite, hashes: HashCache) -> ResolvedBenchmark:
    """A benchmark with its prompts read and its defaults filled in.

    Raises `SuiteError` for ids that cannot be used, and for a metric that looks for something that the prompts do not have;
    `UsageError` for a prompt file that cannot be read, and `AssetError` for published prompts that are not there.
    """
    if spec.label in suite.prompts or spec.prompt_file is not None:
        prompts = suite.prompts.get(spec.label) or read_prompts(Path(str(spec.prompt_file))).prompts
        images_per_prompt, metrics = 1, OWN_METRICS
    else:
        benchmark = BENCHMARKS.build(spec.source)
        prompts = tuple(benchmark.prompts(suite.tier))
        images_per_prompt, metrics = benchmark.default_images_per_prompt, benchmark.metric_names
    if spec.subset is not None:
        prompts = tuple(stratified(prompts, spec.subset))
    _check_names(spec.label, prompts)
    resolved = ResolvedBenchmark(
        name=spec.label,
        prompts=prompts,
        images_per_prompt=spec.images_per_prompt or images_per_prompt,
        metrics=tuple(metric.name for metric in spec.metric_specs) or tuple(metrics),
        choices=tuple(_with_hash(metric, hashes) for metric in spec.metric_specs if metric.is_choice),
    )
    _check_prompts(resolved, published=spec.prompt_file is None and spec.label not in suite.prompts)
    return resolved


def _with_hash(metric: MetricSpec, hashes: HashCache) -> MetricSpec:
    """A metric with the hash of the files that it names."""
    if metric.function is not None:
        return metric.model_copy(update={"sha256": file_sha256(metric.function_place[0], hashes)})
    if metric.reference is None or metric.reference in NAMED_REFERENCES:
        return metric
    return metric.model_copy(update={"sha256": reference_sha256(Path(metric.reference), hashes)})


def _check_prompts(benchmark: ResolvedBenchmark, *, published: bool) -> None:
    """Raise `SuiteError` where a metric looks for something in prompts that one of them does not have."""
    for name in benchmark.metrics:
        choice = benchmark.choice(name)
        if name in MEASURED or choice.function is not None:
            continue
        if name in SET_METRICS and not published and choice.reference is None:
            raise SuiteError(
                f"benchmark {benchmark.name!r}: {name} of one's own prompts needs a reference: a folder of images or an .npz"
            )
        for key in METRICS.entry(name).reads:
            lacking = next(
                (p for p in benchmark.prompts if not (p.text if key == "text" else key in p.metadata)), None
            )
            if lacking is not None:
                raise SuiteError(
                    f"benchmark {benchmark.name!r}: metric {name!r} looks for {key!r} in every prompt, "
                    f"and prompt {lacking.id} has none"
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
