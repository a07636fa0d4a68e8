"""`sana-bench score`: images that exist already, without a suite."""

import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sana_bench.cli.options import (
    AddressOption,
    AutoBatchSizeOption,
    DataDirOption,
    DryRunOption,
    EffectOption,
    EngineOption,
    ErrorOption,
    LimitOption,
    OutputOption,
    TierOption,
    UntilOption,
    WorkersOption,
    WorkerTimeoutOption,
    from_record,
    names,
)
from sana_bench.core.engines import EngineRequest
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from sana_bench.runner.score import ScoreOptions

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
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METRIC.KEY=VALUE",
            help="A parameter of a metric, such as vqascore.judge=Qwen/Qwen3-VL-8B-Instruct; may be repeated.",
        ),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE", help="Images, or their statistics, to hold the set against (fid, kid)."
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
    until: UntilOption = None
    effect: EffectOption = None
    error: ErrorOption = None
    tier: TierOption = "auto"
    output: OutputOption = Path("results")
    limit: LimitOption = None
    dry_run: DryRunOption = False
    batch_size: AutoBatchSizeOption = None
    workers: WorkersOption = None
    engine: EngineOption = "auto"
    address: AddressOption = None
    worker_timeout: WorkerTimeoutOption = None
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

    if options.dry_run and options.as_json:
        raise UsageError("--json prints numbers, and --dry-run makes none")
    if options.data_dir is not None:
        choose_data_root(options.data_dir)
    with contextlib.redirect_stdout(sys.stderr) if options.as_json else contextlib.nullcontext():
        from sana_bench.runner.face import scored
        from sana_bench.runner.score import score_folders

        asked = _asked(options)
        if options.dry_run:
            return score_folders(asked).exit_code
        found = scored(asked)
    if options.as_json:
        say(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    return 0 if found.settled else IncompleteError.exit_code


def _asked(options: _Options) -> "ScoreOptions":
    from sana_bench.runner.score import ScoreOptions
    from sana_bench.suites.stop import StopRequest

    return ScoreOptions(
        folders=(options.images, *(options.compare or ())),
        prompts=options.prompts,
        metrics=names("--metrics", options.metrics) or (),
        overrides=tuple(options.overrides or ()),
        reference=options.reference,
        names=(options.name,) if options.name is not None else (),
        images_per_prompt=options.images_per_prompt,
        output=options.output,
        tier=options.tier,
        batch_size=options.batch_size,
        limit=options.limit,
        dry_run=options.dry_run,
        fetch=options.fetch,
        allow_incomplete=options.allow_incomplete,
        stop=StopRequest(until=options.until, effect=options.effect, error=options.error),
        engine=EngineRequest(options.engine, options.workers, options.address, options.worker_timeout),
    )
