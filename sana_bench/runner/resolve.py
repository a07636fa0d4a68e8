"""A validated suite with its prompts and weights found: every identity that decides what can be reused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sana_bench import generators
from sana_bench.assets.locate import resolve_autoencoder, resolve_lora
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import (
    NOT_WEIGHTS,
    HashCache,
    directory_sha256,
    file_sha256,
    fingerprint,
    lora_content_sha256,
    pipeline_sha256,
    remembering,
)
from sana_bench.core.registry import GENERATORS, MEASURED
from sana_bench.generators.best_of_n.search import judge_identity
from sana_bench.generators.image_folder import images_sha256
from sana_bench.runner.benchmarks import resolve_benchmark
from sana_bench.suites.cells import (
    NO_WEIGHTS,
    GeneratorSpec,
    ResolvedBenchmark,
    ResolvedSuite,
    ResolvedVariant,
)
from sana_bench.suites.rewrites import PromptRewrites, read_rewrites
from sana_bench.suites.schema import Suite, Variant
from sana_bench.suites.tiers import TierChoice
from sana_kernels import Backend, KernelError, resolve_backend
from sana_models.files import path_of

__all__ = ["find_weights", "resolve_suite"]


def resolve_suite(suite: Suite, tier: TierChoice, hashes: HashCache) -> ResolvedSuite:
    """Load prompts, find and hash weights.

    Raises `AssetError` naming every variant whose weights are missing or damaged, `SuiteError` for what does not go together.
    """
    found, problems = [], []
    for variant in suite.variants:
        try:
            folder = suite.folder(variant)
            spec = find_weights(variant, suite, hashes)
            with remembering(hashes):
                search = judge_identity(variant, folder) if variant.best_of_n is not None else None
            found.append((spec, search))
        except AssetError as error:
            problems.append(f"variant {variant.name!r}: {error}")
    if problems:
        raise AssetError("; ".join(problems))
    seed = suite.file.seed
    resolved = tuple(resolve_benchmark(spec, suite, hashes) for spec in suite.file.benchmarks)
    _refuse_to_time_files(suite.variants, resolved)
    _refuse_foreign_settings(suite.variants, resolved)
    rewrites = {
        variant.name: _rewrites(variant, suite.folder(variant), resolved) for variant in suite.variants
    }
    variants = tuple(
        ResolvedVariant(spec, seed, _kernels(spec.variant, tier.device), search, rewrites[spec.variant.name])
        for spec, search in found
    )
    return ResolvedSuite(suite, tier, resolved, variants)


def _refuse_to_time_files(variants: Sequence[Variant], benchmarks: Sequence[ResolvedBenchmark]) -> None:
    """Raise `SuiteError` where images that exist already would be measured: the time of reading files is no model's."""
    existing = [variant.name for variant in variants if not variant.generates]
    timed = [benchmark.name for benchmark in benchmarks if set(benchmark.metrics) & set(MEASURED)]
    if existing and timed:
        raise SuiteError(
            f"benchmark {timed[0]!r} measures how images are generated, which variant {existing[0]!r} does not do "
            "(generator images); give one of them a suite of its own"
        )


def _refuse_foreign_settings(variants: Sequence[Variant], benchmarks: Sequence[ResolvedBenchmark]) -> None:
    """Raise `SuiteError` where a benchmark changes a setting that a variant's generator does not have."""
    foreign = [variant for variant in variants if variant.image_source != "sana"]
    for benchmark in benchmarks:
        if benchmark.settings and foreign:
            raise SuiteError(
                f"benchmark {benchmark.name!r} changes {', '.join(benchmark.settings)}, which belongs to generator sana; "
                f"variant {foreign[0].name!r} has {foreign[0].image_source}"
            )


def _rewrites(
    variant: Variant, variants_dir: Path, benchmarks: Sequence[ResolvedBenchmark]
) -> PromptRewrites | None:
    """The rewritten prompts of a variant; raises `SuiteError` unless each prompt that images are scored on has one."""
    if variant.prompt_rewrites is None:
        return None
    path = path_of(variant.prompt_rewrites, variants_dir)
    try:
        found = read_rewrites(path)
    except SuiteError as error:
        raise SuiteError(f"variant {variant.name!r}: {error}") from None
    scored = [benchmark for benchmark in benchmarks if not set(benchmark.metrics) <= set(MEASURED)]
    lacking = [found.lacking(one.name, (prompt.id for prompt in one.prompts)) for one in scored]
    if any(lacking):
        raise SuiteError(
            f"variant {variant.name!r}: {path} has no text for {'; '.join(filter(None, lacking))}"
        )
    return found


def _kernels(variant: Variant, device: str) -> Backend:
    """Return what the variant's transformer will run on; raises `SuiteError` for what the device cannot do."""
    _refuse_device(variant, device)
    if variant.image_source != "sana":
        return "torch"
    try:
        return resolve_backend(variant.kernels, device)
    except KernelError as error:
        raise SuiteError(f"variant {variant.name!r}: {error}") from None


def _refuse_device(variant: Variant, device: str) -> None:
    if variant.compile == "none" and not variant.cuda_graphs and not variant.tf32:
        return
    from sana_models.compilation import refuse_compilation
    from sana_models.tf32 import refuse_tf32

    try:
        refuse_compilation(variant.compile, variant.cuda_graphs, device)
        refuse_tf32(variant.tf32, device)
    except ValueError as error:
        raise SuiteError(f"variant {variant.name!r}: {error}") from None


def find_weights(variant: Variant, suite: Suite, hashes: HashCache) -> GeneratorSpec:
    """Find and hash the weights of a variant, or the images that were found for it.

    Only plug-ins may have a layout of their own, and they and generators that say so no weights.
    """
    variants_dir = suite.folder(variant)
    found = suite.found.get(variant.name)
    if found is not None:
        images = {
            f"{prompt}/{index}": file_sha256(path, hashes) if path.is_file() else None
            for (prompt, index), path in found.files.items()
        }
        return GeneratorSpec(variant, Path(variant.model.weights), fingerprint(images), found=found)
    is_plugins_nothing = variant.model.weights == NO_WEIGHTS and GENERATORS.entry(variant.generator).is_plugin
    path = None if is_plugins_nothing else generators.find(variant, variants_dir)
    if path is None:
        return GeneratorSpec(variant, variants_dir, fingerprint({}))
    # Of a folder of images only what is scored counts, of weights only what is read.
    if variant.generator == "images":
        sha256 = images_sha256(path, hashes)
    elif GENERATORS.entry(variant.image_source).is_plugin:
        sha256 = directory_sha256(path, hashes, ignore=NOT_WEIGHTS)
    else:
        sha256 = pipeline_sha256(path, hashes, variant.model.weights_variant)
    spec = GeneratorSpec(variant, path, sha256, variants_dir=variants_dir)
    if variant.model.autoencoder is not None:
        own = resolve_autoencoder(variant.model.autoencoder, variants_dir)
        spec = replace(spec, autoencoder_path=own, autoencoder_sha256=pipeline_sha256(own, hashes))
    if variant.lora is not None:
        lora = resolve_lora(variant.lora.weights, variants_dir)
        spec = replace(spec, lora_path=lora, lora_sha256=lora_content_sha256(lora, hashes))
    return spec
