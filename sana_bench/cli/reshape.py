"""`sana-bench grow` and `sana-bench prune`: checkpoints of another depth, with a card that says how they were made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sana_bench import __version__
from sana_bench.cli.options import (
    BatchSizeOption,
    CpuDeviceOption,
    GuidanceOption,
    NoiseSeedOption,
    StepsOption,
    WeightsVariantOption,
    choose,
    from_record,
    precision_choice,
)
from sana_bench.core.errors import AssetError, UsageError
from sana_bench.core.progress import Progress, say
from sana_bench.core.text import lines, read_text

if TYPE_CHECKING:
    from sana_models.transformer import SanaTransformer

__all__ = ["calibration_prompts", "register"]

_Source = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Pipeline folder (to grow, a transformer folder too), micro://NAME, or a hub id on this machine.",
    ),
]
_Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new checkpoint.")]

_CARD = """# {title}

{text}

| | |
|---|---|
{rows}

Made by sana-bench {version}; `provenance.json` has the same for programs.
"""


@dataclass(frozen=True, kw_only=True)
class _GrowOptions:
    source: _Source
    depth: Annotated[
        int, typer.Option(min=2, max=1000, metavar="N", help="Number of blocks of the grown model.")
    ]
    output: _Output
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="First source blocks to use; all but the last two if left out."
        ),
    ] = None
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="partial_preservation, cyclic_replication or block_replication."),
    ] = "partial_preservation"
    identity: Annotated[
        bool, typer.Option(help="Start new blocks as the identity, so that the output is the kept prefix's.")
    ] = True
    qk_norm: Annotated[
        bool, typer.Option("--qk-norm", help="Add the query-key norm to a source that has none.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the new weights.")] = 0
    precision: Annotated[
        str | None, precision_choice("Number format of the new weights; the source's if left out.")
    ] = None
    weights_variant: WeightsVariantOption = None


@dataclass(frozen=True, kw_only=True)
class _PruneOptions:
    source: _Source
    keep: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Blocks to keep.")]
    output: _Output
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Calibration prompts, one a line; micro models have captions of their own."
        ),
    ] = None
    n_prompts: Annotated[int, typer.Option(min=1, metavar="N", help="Prompts to use at most.")] = 100
    steps: StepsOption = 20
    guidance: GuidanceOption = 4.5
    seed: NoiseSeedOption = 0
    batch_size: BatchSizeOption = 10
    whole: Annotated[
        bool, typer.Option("--whole", help="Cosine over the whole activation instead of per token.")
    ] = False
    device: CpuDeviceOption = "cpu"
    precision: Annotated[str, precision_choice("Number format to measure in; the weights keep theirs.")] = (
        "fp32"
    )
    weights_variant: WeightsVariantOption = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: sana-bench grow micro://sana-micro --depth 12 --keep 6 -o results/grown")(
        from_record(grow)
    )
    app.command(epilog="Example: sana-bench prune micro://sana-micro --keep 4 -o results/pruned")(
        from_record(prune)
    )


def grow(options: _GrowOptions) -> None:
    """Grow a checkpoint in depth, ready for training."""
    from sana_models.growth import STRATEGIES, Growth, grow_transformer

    growth = Growth(
        depth=options.depth,
        keep=options.keep,
        strategy=choose("--strategy", options.strategy, STRATEGIES),
        identity_start=options.identity,
        qk_norm=options.qk_norm,
        seed=options.seed,
    )

    def change(transformer: "SanaTransformer") -> tuple["SanaTransformer", dict[str, Any]]:
        sources = growth.sources(transformer.config.num_layers)
        return grow_transformer(transformer, growth), {
            "made_by": "depth growth",
            "strategy": growth.strategy,
            "kept_blocks": growth.kept(transformer.config.num_layers),
            "block_sources": sources,
            "identity_start": growth.identity_start,
            "qk_norm_added": growth.qk_norm and transformer.config.qk_norm is None,
            "seed": growth.seed,
        }

    _derive(
        options.source,
        options.output,
        change,
        "Grown, not yet trained: train it before judging it.",
        options.precision,
        options.weights_variant,
    )


def prune(options: _PruneOptions) -> None:
    """Delete the least important blocks of a checkpoint.

    Writes a plot of the importance by depth beside the new checkpoint.
    """
    from sana_models.pruning import most_important, plot_importance, prune_transformer

    source = _source(options.source)
    if not (source / "model_index.json").is_file():
        raise UsageError(
            f"{source}: importance is measured while sampling, which needs a whole pipeline folder"
        )
    importance, n_prompts = _measure(source, options)

    def change(transformer: "SanaTransformer") -> tuple["SanaTransformer", dict[str, Any]]:
        return prune_transformer(transformer, importance, options.keep), {
            "made_by": "depth pruning",
            "kept_blocks": most_important(importance, options.keep),
            "importance": importance,
            "importance_cosine": "whole activation" if options.whole else "per token",
            "prompts": n_prompts,
            "steps": options.steps,
            "guidance_scale": options.guidance,
            "precision": options.precision,
            "seed": options.seed,
        }

    out = _derive(
        options.source,
        options.output,
        change,
        "Pruned; a short recovery training restores most of the loss.",
        weights_variant=options.weights_variant,
    )
    kept = most_important(importance, options.keep)
    title = f"{options.keep} of {len(importance)} blocks kept"
    plot_importance(importance, kept, out / "importance.png", title=title)
    say(f"importance by block: {' '.join(f'{value:.3f}' for value in importance)}")
    say(f"kept blocks: {' '.join(map(str, kept))}")


def calibration_prompts(source: Path, path: Path | None, count: int) -> list[str]:
    """Return up to `count` prompts of a text file, or captions of the micro world for a model that only knows those.

    Raises `UsageError` for a missing or empty file, or when none is given for another model.
    """
    if path is not None:
        if not path.is_file():
            raise UsageError(f"--prompts {path}: no such file")
        prompts = [line.strip() for line in lines(read_text(path)) if line.strip()]
        if not prompts:
            raise UsageError(f"--prompts {path}: contains no prompts")
        return prompts[:count]
    from sana_bench.micro.captions import VOCABULARY, sample_training_batch
    from sana_models.weight_files import read_config

    # The micro text encoders know the words of the micro world and a few special tokens.
    if read_config(source / "text_encoder").get("vocab_size", 0) > 2 * len(VOCABULARY):
        raise UsageError("--prompts is missing: a text file with one prompt a line (the paper takes 100)")
    return sample_training_batch(1_000_003, 0, count)[1]


def _measure(source: Path, options: _PruneOptions) -> tuple[list[float], int]:
    import sana_models
    from sana_bench.core.precision import torch_dtype
    from sana_models.pruning import ImportanceMeter

    prompts = calibration_prompts(source, options.prompts, options.n_prompts)
    try:
        pipeline = sana_models.load_pipeline(
            source,
            device=options.device,
            dtype=torch_dtype(options.precision),
            variant=options.weights_variant,
        )
        depth = pipeline.transformer.config.num_layers
        if not 1 <= options.keep < depth:
            raise UsageError(f"--keep {options.keep}: the model has {depth} blocks; keep 1 to {depth - 1}")
        meter = ImportanceMeter(pipeline.transformer, whole=options.whole)
        with meter.watching(), Progress("measuring", len(prompts), "prompts") as progress:
            for first in range(0, len(prompts), options.batch_size):
                batch = prompts[first : first + options.batch_size]
                pipeline(
                    batch,
                    seeds=[options.seed + first + index for index in range(len(batch))],
                    steps=options.steps,
                    guidance_scale=options.guidance,
                )
                progress.advance(len(batch))
    except ValueError as error:
        raise AssetError(" ".join(str(error).split())) from None
    return meter.importance, len(prompts)


def _source(source: str) -> Path:
    from sana_bench.assets.locate import resolve_folder
    from sana_models.checkpoints import refuse_sprint

    folder = resolve_folder(source, Path())
    try:
        refuse_sprint(folder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return folder


def _derive(
    source: str,
    out: Path,
    change: Callable[["SanaTransformer"], tuple["SanaTransformer", dict[str, Any]]],
    text: str,
    precision: str | None = None,
    weights_variant: str | None = None,
) -> Path:
    import torch

    from sana_bench.core.fingerprint import directory_sha256
    from sana_bench.core.precision import torch_dtype
    from sana_models.checkpoints import load_transformer
    from sana_models.derived import stored_dtype, write_derived

    folder = _source(source)
    if out.exists() and out.resolve() == folder.resolve():
        raise UsageError(f"--output {out}: is the source itself")
    try:
        dtype = stored_dtype(folder, weights_variant) if precision is None else torch_dtype(precision)
        transformer = load_transformer(folder, dtype=dtype, variant=weights_variant)
        before = transformer.config.num_layers
        changed, how = change(transformer)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from None
    parameters = sum(parameter.numel() for parameter in changed.parameters())
    provenance = {
        **how,
        "source": folder.name,
        "source_sha256": directory_sha256(folder, ignore=("README.md",)),
        "source_depth": before,
        "depth": changed.config.num_layers,
        "transformer_parameters": parameters,
        "dtype": str(dtype).removeprefix("torch."),
        "sana_bench": __version__,
        "torch": torch.__version__,
    }
    try:
        write_derived(folder, out, changed, dtype=dtype, provenance=provenance, card=_card(provenance, text))
    except ValueError as error:
        raise UsageError(f"--output {error}") from None
    say(f"{before} -> {changed.config.num_layers} blocks, {parameters:,} parameters: {out}")
    return out


def _card(provenance: dict[str, Any], text: str) -> str:
    title = f"{provenance['source']}, {provenance['source_depth']} to {provenance['depth']} blocks"
    rows = "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in provenance.items())
    return _CARD.format(title=title, text=text, rows=rows, version=__version__)


def _cell(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = (
            "new" if item is None else f"{item:.4f}" if isinstance(item, float) else str(item)
            for item in value
        )
        return " ".join(parts)
    return str(value)
