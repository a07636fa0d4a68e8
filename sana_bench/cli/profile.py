"""`sana-bench profile`: how fast a variant is on this machine, and why."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench profile sana-micro --trace trace.json")(profile)


def profile(
    variants: Annotated[
        list[str],
        typer.Argument(metavar="VARIANT...", help="Variants (sana-bench list variants), measured in turns."),
    ],
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json|DIR", help="Also write a torch.profiler trace of one image, for Perfetto."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Timed images of each of the prompts.")
    ] = 5,
    largest_batch: Annotated[
        int | None, typer.Option(min=1, max=4096, metavar="N", help="Where the throughput sweep ends.")
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GIB", help="What a batch may add on a CPU; default 80 % of the free memory."
        ),
    ] = None,
    tier: Annotated[str, typer.Option(metavar="auto|micro|full", help="Models to use.")] = "auto",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of runs and of the result store.")
    ] = Path("results"),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Measure latency, throughput, memory and energy of variants, stage by stage."""
    del debug
    from sana_bench.cli.profile_body import profile_variants
    from sana_bench.profiling.session import ProfileOptions

    limit = None if memory_limit is None else int(memory_limit * 2**30)
    options = ProfileOptions(trace=trace, largest_batch=largest_batch, memory_limit=limit)
    return profile_variants(tuple(variants), options, images=images, tier=tier, output=output)
