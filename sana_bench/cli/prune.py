"""`sana-bench prune`: a shallower checkpoint of the blocks that matter most."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import WEIGHTS_VARIANT, Precision

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench prune micro://sana-micro --keep 4 -o results/pruned")(prune)


def prune(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="Pipeline folder, micro://NAME, or a hub id on this machine."
        ),
    ],
    keep: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Blocks to keep.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new checkpoint.")
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Calibration prompts, one a line; micro models have captions of their own."
        ),
    ] = None,
    n_prompts: Annotated[int, typer.Option(min=1, metavar="N", help="Prompts to use at most.")] = 100,
    steps: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Denoising steps.")] = 20,
    guidance: Annotated[
        float, typer.Option(min=0, max=100, metavar="SCALE", help="Guidance while measuring.")
    ] = 4.5,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the first prompt's noise.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, metavar="N")] = 10,
    whole: Annotated[
        bool, typer.Option("--whole", help="Cosine over the whole activation instead of per token.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to measure.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="Number format to measure in; the weights keep theirs.")
    ] = Precision.fp32,
    weights_variant: Annotated[str | None, WEIGHTS_VARIANT] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Delete the least important blocks of a checkpoint; draws importance by depth."""
    del debug
    from sana_bench.cli.reshape_body import PruneOptions, prune_checkpoint

    prune_checkpoint(
        PruneOptions(
            source,
            output,
            keep,
            prompts,
            n_prompts,
            steps,
            guidance,
            seed,
            batch_size,
            whole,
            device,
            precision,
            weights_variant,
        )
    )
    return 0
