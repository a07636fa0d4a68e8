"""`sana-bench generate`: images from a prompt, without a suite."""

from pathlib import Path
from typing import Annotated

import typer

from sana_bench.cli.options import WEIGHTS_VARIANT, Precision

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Example: sana-bench generate --model sana-micro --prompt "a photo of a red circle" -o circle.png'
    )(generate)


def generate(
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="A variant (sana-bench list variants), a pipeline folder, or a hub id."
        ),
    ],
    prompt: Annotated[list[str], typer.Option(metavar="TEXT", help="What to draw; may be repeated.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="PNG file; several images get -0, -1, ... in their names."
        ),
    ] = Path("out.png"),
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the first image of a prompt.")] = 0,
    images: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Images per prompt.")] = 1,
    height: Annotated[int | None, typer.Option(min=1, max=8192, metavar="PIXELS")] = None,
    width: Annotated[int | None, typer.Option(min=1, max=8192, metavar="PIXELS")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="Solver steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=100, metavar="SCALE", help="Classifier-free guidance.")
    ] = None,
    negative: Annotated[
        str, typer.Option(metavar="TEXT", help="What to stay away from; needs guidance.")
    ] = "",
    tile: Annotated[
        int | None, typer.Option(min=64, metavar="PIXELS", help="Decode in tiles of this side.")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Number format of the model; the variant's own if left out, else bf16 on CUDA and fp32 on a CPU."
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, max=4096, metavar="N")] = 4,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    weights_variant: Annotated[str | None, WEIGHTS_VARIANT] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> int:
    """Generate images from prompts and write PNG files."""
    del debug
    from sana_bench.cli.generate_body import GenerateOptions, generate_files

    options = GenerateOptions(
        model=model,
        prompts=tuple(prompt),
        output=output,
        seed=seed,
        images=images,
        height=height,
        width=width,
        steps=steps,
        guidance=guidance,
        negative=negative,
        tile=tile,
        precision=precision,
        weights_variant=weights_variant,
        device=device,
        batch_size=batch_size,
        force=force,
    )
    for path in generate_files(options):
        print(path)
    return 0
