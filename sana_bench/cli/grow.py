"""`sana-bench grow`: a deeper checkpoint that starts as a trained one."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import WEIGHTS_VARIANT, Precision

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench grow micro://sana-micro --depth 12 --keep 6 -o results/grown")(
        grow
    )


def grow(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Pipeline or transformer folder, micro://NAME, or a hub id on this machine.",
        ),
    ],
    depth: Annotated[int, typer.Option(min=2, max=1000, metavar="N", help="Blocks of the grown model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new checkpoint.")
    ],
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="First source blocks to use; all but the last two if left out."
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="partial_preservation, cyclic_replication or block_replication."),
    ] = "partial_preservation",
    identity: Annotated[
        bool, typer.Option(help="Start new blocks as the identity, so that the output is the kept prefix's.")
    ] = True,
    qk_norm: Annotated[
        bool, typer.Option("--qk-norm", help="Add the query-key norm to a source that has none.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the new weights.")] = 0,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Number format of the new weights; the source's if left out."),
    ] = None,
    weights_variant: Annotated[str | None, WEIGHTS_VARIANT] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Grow a checkpoint in depth, ready for training."""
    del debug
    from sana_bench.cli.reshape_body import GrowOptions, grow_checkpoint

    grow_checkpoint(
        GrowOptions(
            source, output, depth, keep, strategy, identity, qk_norm, seed, precision, weights_variant
        )
    )
    return 0
