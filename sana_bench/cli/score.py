"""`sana-bench score`: images that exist already, without a suite."""

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sana_bench.cli.options import AutoBatchSizeOption, DataDirOption, OutputOption, TierOption, from_record
from sana_bench.core.errors import UsageError

if TYPE_CHECKING:
    from sana_bench.runner.scores import Scores

__all__ = ["register"]


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The images, what they were made from, and what to score them with."""

    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images: PNG, JPEG or WebP.")]
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Prompts: .csv, .tsv, .jsonl, .parquet, .txt, COCO .json, or a folder of .txt; default: what the folder says.",
        ),
    ] = None
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Metrics, protocols (fid/clean@1) or functions (./file.py:name); default: clip_score.",
        ),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE.npz", help="Images, or their statistics, to hold the set against (fid, kid)."
        ),
    ] = None
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="How to call the images; default: the folder.")
    ] = None
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Other images of the same prompts, to compare with; may be repeated."
        ),
    ] = None
    images_per_prompt: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Default: as many as there are of any prompt."),
    ] = None
    tier: TierOption = "auto"
    output: OutputOption = Path("results")
    batch_size: AutoBatchSizeOption = None
    data_dir: DataDirOption = None
    fetch: Annotated[bool, typer.Option("--fetch", help="Download what is missing first.")] = False
    allow_incomplete: Annotated[
        bool,
        typer.Option(
            "--allow-incomplete", help="Score what matches although images or prompts are left over."
        ),
    ] = False
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; everything else goes to standard error.")
    ] = False


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Example: sana-bench score my_images/ --prompts prompts.csv --metrics clip_score,image_reward"
    )(from_record(score))


def score(options: _Options) -> int:
    """Score images that exist already: no suite, no model."""
    from sana_bench.assets.locate import choose_data_root

    if options.data_dir is not None:
        choose_data_root(options.data_dir)
    with contextlib.redirect_stdout(sys.stderr) if options.as_json else contextlib.nullcontext():
        found = _scored(options)
    if options.as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    return found.exit_code


def _scored(options: _Options) -> "Scores":
    from sana_bench.runner.score import ScoreOptions
    from sana_bench.runner.scores import scores_of

    others = tuple(options.compare or ())
    return scores_of(
        ScoreOptions(
            folders=(options.images, *others),
            prompts=options.prompts,
            metrics=_names(options.metrics),
            reference=options.reference,
            names=(options.name,) if options.name is not None else (),
            images_per_prompt=options.images_per_prompt,
            output=options.output,
            tier=options.tier,
            batch_size=options.batch_size,
            fetch=options.fetch,
            allow_incomplete=options.allow_incomplete,
        )
    )


def _names(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if text is not None and not names:
        raise UsageError("--metrics: expected names separated by commas")
    return names
