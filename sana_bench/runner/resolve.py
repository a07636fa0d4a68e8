"""A validated suite with its prompts and weights found: every identity that decides what can be reused."""

from pathlib import Path

from sana_bench import generators
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import (
    NOT_WEIGHTS,
    HashCache,
    directory_sha256,
    file_sha256,
    fingerprint,
)
from sana_bench.core.registry import GENERATORS
from sana_bench.generators.best_of_n.search import judge_identity
from sana_bench.runner.benchmarks import resolve_benchmark
from sana_bench.suites.cells import (
    NO_WEIGHTS,
    GeneratorSpec,
    ResolvedSuite,
    ResolvedVariant,
)
from sana_bench.suites.schema import (
    Suite,
    Variant,
)
from sana_bench.suites.tiers import TierChoice
from sana_kernels import Backend, KernelError, resolve_backend

__all__ = ["resolve_suite"]


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
