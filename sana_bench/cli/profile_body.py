"""`sana-bench profile`: the latency benchmark on variants named on the command line, as a run of its own."""

from pathlib import Path

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.tiers import check_tier_option
from sana_bench.profiling.session import ProfileOptions
from sana_bench.runner.run import RunOptions, run_suite
from sana_bench.suites.load import list_variants, load_variant, suites_dir
from sana_bench.suites.schema import BenchmarkSpec, Suite, SuiteFile

__all__ = ["profile_variants"]


def profile_variants(
    names: tuple[str, ...], options: ProfileOptions, *, images: int, tier: str, output: Path
) -> int:
    """Profile variants of one tier, which they decide themselves when `tier` is auto; return the exit code.

    Raises `UsageError` for an unknown variant or tier, or variants of several tiers.
    """
    check_tier_option(tier)
    directory = suites_dir() / "variants"
    known = list_variants(directory)
    for name in names:
        if name not in known:
            raise UsageError(
                f"no variant {name!r}{nearest(name, known)}; sana-bench list variants shows them"
            )
    variants = tuple(load_variant(directory / f"{name}.yaml") for name in dict.fromkeys(names))
    tiers = sorted({variant.tier for variant in variants})
    if len(tiers) > 1 or (tier != "auto" and tiers != [tier]):
        raise UsageError(f"{', '.join(names)}: of the {' and '.join(tiers)} tier; profile one tier at a time")
    file = SuiteFile(
        name="profile",
        description="Variants profiled from the command line",
        benchmarks=(BenchmarkSpec(name="latency", images_per_prompt=images),),
        variants={tiers[0]: tuple(variant.name for variant in variants)},
    )
    suite = Suite(file, suites_dir() / "profile.yaml", tiers[0], variants)
    chosen = tiers[0]
    return run_suite(RunOptions(suite=suite.path, output=output, tier=chosen, profile=options), suite)
