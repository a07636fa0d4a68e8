"""`sana-bench profile`: how fast variants are on this machine, and why; the latency benchmark as a run of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sana_bench.cli.options import OutputOption, TierOption, TraceOption, complete_variants, from_record
from sana_bench.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from sana_bench.suites.schema import Variant

__all__ = ["register"]


@dataclass(frozen=True, kw_only=True)
class _Options:
    variants: Annotated[
        list[str],
        typer.Argument(
            metavar="VARIANT",
            help="Variants (sana-bench list variants), measured in turns.",
            autocompletion=complete_variants,
        ),
    ]
    trace: TraceOption = None
    images: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Timed images for each prompt.")
    ] = 5
    largest_batch: Annotated[
        int | None, typer.Option(min=1, max=4096, metavar="N", help="Largest batch of the throughput sweep.")
    ] = None
    memory_limit: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="GIB",
            help="Memory that a batch may add on a CPU; default: 80 % of the free memory.",
        ),
    ] = None
    tier: TierOption = "auto"
    output: OutputOption = Path("results")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench profile sana-micro --trace trace.json")(from_record(profile))


def profile(options: _Options) -> int:
    """Measure latency, throughput, memory and energy by stage."""
    from sana_bench.suites.schema import BenchmarkSpec, Suite, SuiteFile

    variants, files = _find_variants(options)
    tier = variants[0].tier
    file = SuiteFile(
        name="profile",
        description="Variants profiled from the command line",
        benchmarks=(BenchmarkSpec(name="latency", images_per_prompt=options.images),),
        variants={tier: tuple(variant.name for variant in variants)},
    )
    suite = Suite(file, Path("profile.yaml"), tier, variants, files)
    from sana_bench.profiling import ProfileOptions
    from sana_bench.runner.run import RunOptions, run_suite

    limit = None if options.memory_limit is None else int(options.memory_limit * 2**30)
    measuring = ProfileOptions(trace=options.trace, largest_batch=options.largest_batch, memory_limit=limit)
    run = RunOptions(
        suite=suite.path,
        output=options.output,
        tier=tier,
        tier_reason=f"that of {variants[0].name}" if options.tier == "auto" else "",
        profile=measuring,
    )
    return run_suite(run, suite)


def _find_variants(options: _Options) -> "tuple[tuple[Variant, ...], tuple[Path, ...]]":
    """The variants and their files, all of one tier, which they decide themselves when it is auto; raises `UsageError`."""
    from sana_bench.suites.find import variant_files
    from sana_bench.suites.load import load_variant

    known = variant_files()
    for name in options.variants:
        if name not in known:
            raise UsageError(
                f"no variant {name!r}{nearest(name, known)}; sana-bench list variants shows them"
            )
    files = tuple(known[name] for name in dict.fromkeys(options.variants))
    variants = tuple(map(load_variant, files))
    tiers = sorted({variant.tier for variant in variants})
    if len(tiers) > 1 or options.tier not in ("auto", tiers[0]):
        raise UsageError(
            f"{', '.join(options.variants)}: of the {' and '.join(tiers)} tiers; profile one tier at a time"
        )
    return variants, files
